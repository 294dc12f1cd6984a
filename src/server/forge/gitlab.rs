//! GitLab: commit statuses.

use reqwest::Method;
use serde::Serialize;

use super::api::{About, Api};
use super::text::bounded;
use super::{ForgeError, StatusUpdate, Verdict};

/// GitLab refuses a longer description.
pub(super) const DESCRIPTION_LIMIT: usize = 255;

impl Api {
    /// Shows a status at GitLab.
    pub(super) async fn gitlab_status(&self, update: &StatusUpdate) -> Result<(), ForgeError> {
        let path = ["statuses", update.commit.as_str()];
        let request = self.below(Method::POST, &path)?;
        let request = request.json(&StatusBody::of(update));
        match self.send(request, About::Status(&update.commit)).await {
            Err(ForgeError::Refused { message, .. }) if stands(&message) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

/// Whether GitLab refuses because the status is in this state already. It keeps its words then: nothing can be done
/// about that until the state changes.
fn stands(message: &str) -> bool {
    message.to_ascii_lowercase().contains("cannot transition")
}

/// The body of "set the pipeline status of a commit".
#[derive(Debug, Serialize)]
struct StatusBody {
    state: &'static str,
    name: String,
    description: String,
    /// Without it GitLab chooses a pipeline of the commit, or makes one more.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_url: Option<String>,
}

impl StatusBody {
    fn of(update: &StatusUpdate) -> Self {
        Self {
            state: state_word(update.verdict),
            name: bounded(&update.context, 255),
            description: bounded(&update.description, DESCRIPTION_LIMIT),
            reference: update.branch.clone(),
            target_url: update.url.clone(),
        }
    }
}

/// GitLab's words.
fn state_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pending => "pending",
        Verdict::Running => "running",
        Verdict::Success | Verdict::Neutral => "success",
        Verdict::Failure | Verdict::Error => "failed",
        Verdict::Cancelled => "canceled",
    }
}
