//! GitLab: commit statuses.

use futures_util::future::BoxFuture;
use reqwest::Method;
use serde::Serialize;

use super::api::{About, Api};
use super::event::PullRequest;
use super::text::bounded;
use super::{Forge, ForgeError, ForgeKind, Shown, StatusUpdate, Update, Verdict, hook};

/// GitLab refuses a longer description.
const DESCRIPTION_LIMIT: usize = 255;

/// A repository at GitLab.
#[derive(Debug)]
pub(super) struct Gitlab(pub(super) Api);

impl Gitlab {
    async fn post_status(&self, update: &StatusUpdate) -> Result<(), ForgeError> {
        let path = ["statuses", update.commit.as_str()];
        let request = self.0.below(Method::POST, &path)?;
        let request = request.json(&StatusBody::of(update));
        match self.0.send(request, About::Status(&update.commit)).await {
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

impl Forge for Gitlab {
    fn name(&self) -> &'static str {
        ForgeKind::Gitlab.name()
    }

    fn description_limit(&self) -> usize {
        DESCRIPTION_LIMIT
    }

    fn listens(&self) -> bool {
        self.0.place().speaks()
    }

    fn checks(&self) -> bool {
        false
    }

    fn pull_request(&self, number: u64) -> BoxFuture<'_, Result<Option<PullRequest>, ForgeError>> {
        Box::pin(async move {
            let path = ["merge_requests", &number.to_string()];
            self.0.find(&path, hook::gitlab::merge_request).await
        })
    }

    fn may_write<'a>(
        &'a self,
        login: &'a str,
        number: Option<u64>,
    ) -> BoxFuture<'a, Result<bool, ForgeError>> {
        Box::pin(self.0.may_write(login, number))
    }

    fn show<'a>(
        &'a self,
        update: &'a Update,
        remembered: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Shown, ForgeError>> {
        Box::pin(async move {
            match update {
                Update::Status(status) => self.post_status(status).await.map(|()| Shown::unnamed()),
                // It has none, and is told of none.
                Update::Check(_) => Ok(Shown::unnamed()),
                Update::Comment(comment) => self.0.stick(comment, remembered).await,
                Update::Reply(reply) => self.0.reply(reply, remembered).await,
                Update::Reaction(reaction) => self.0.react(reaction).await,
            }
        })
    }
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
