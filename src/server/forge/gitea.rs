//! Gitea and Forgejo: commit statuses.

use reqwest::Method;
use serde::Serialize;

use super::api::{About, Api};
use super::text::bounded;
use super::{ForgeError, ForgeKind, StatusUpdate, github};

/// Gitea sets none; a longer line is not read.
pub(super) const DESCRIPTION_LIMIT: usize = 255;

impl Api {
    /// Shows a status at Gitea.
    pub(super) async fn gitea_status(&self, update: &StatusUpdate) -> Result<(), ForgeError> {
        let path = ["statuses", update.commit.as_str()];
        let request = self.below(Method::POST, &path)?;
        let request = request.json(&StatusBody::of(update));
        match self.send(request, About::Status(&update.commit)).await {
            // A commit that it does not know is a fault of Gitea's own (500): it is asked for the commit itself.
            Err(fault @ ForgeError::Transport { .. }) => {
                Err(self.unknown(update).await.unwrap_or(fault))
            }
            answer => answer.map(drop),
        }
    }

    /// The error of a commit that is not there; none where it is, or where that cannot be said.
    async fn unknown(&self, update: &StatusUpdate) -> Option<ForgeError> {
        let path = ["git", "commits", update.commit.as_str()];
        match self.find(&path, |_| Ok(())).await {
            Ok(None) => Some(ForgeError::UnknownCommit {
                forge: ForgeKind::Gitea.name(),
                status: 404,
                repository: self.place().repository.as_str().to_owned(),
                commit: update.commit.clone(),
                message: "it has no such commit".to_owned(),
            }),
            Ok(Some(())) | Err(_) => None,
        }
    }
}

/// The body of "create a commit status".
#[derive(Debug, Serialize)]
struct StatusBody {
    state: &'static str,
    context: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_url: Option<String>,
}

impl StatusBody {
    fn of(update: &StatusUpdate) -> Self {
        Self {
            state: github::state_word(update.verdict),
            context: bounded(&update.context, 255),
            description: bounded(&update.description, DESCRIPTION_LIMIT),
            target_url: update.url.clone(),
        }
    }
}
