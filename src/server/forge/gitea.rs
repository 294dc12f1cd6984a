//! Gitea and Forgejo: commit statuses.

use futures_util::future::BoxFuture;
use reqwest::Method;
use serde::Serialize;

use super::api::Api;
use super::text::bounded;
use super::{Forge, ForgeError, ForgeKind, StatusUpdate, Verdict};

/// Gitea sets none; a longer line is not read.
const DESCRIPTION_LIMIT: usize = 255;

/// A repository at Gitea or Forgejo.
#[derive(Debug)]
pub(super) struct Gitea(pub(super) Api);

impl Gitea {
    async fn post_status(&self, update: &StatusUpdate) -> Result<(), ForgeError> {
        let request = self.request(Method::POST, &["statuses", update.commit.as_str()])?;
        let request = request.json(&StatusBody::of(update));
        match self.0.send(request, &update.commit).await {
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
        let request = self.request(Method::GET, &path).ok()?;
        let error = self.0.send(request, &update.commit).await.err()?;
        match error {
            ForgeError::Unauthorized {
                forge,
                status: status @ 404,
                repository,
                message,
                ..
            } => Some(ForgeError::UnknownCommit {
                forge,
                status,
                repository,
                commit: update.commit.clone(),
                message,
            }),
            ForgeError::Unauthorized { .. }
            | ForgeError::UnknownCommit { .. }
            | ForgeError::Credential(_)
            | ForgeError::Refused { .. }
            | ForgeError::RateLimited { .. }
            | ForgeError::Transport { .. } => None,
        }
    }

    /// A request below the repository.
    fn request(
        &self,
        method: Method,
        rest: &[&str],
    ) -> Result<reqwest::RequestBuilder, ForgeError> {
        let repository = self.0.place().repository.as_str();
        let (owner, name) = repository.split_once('/').unwrap_or((repository, ""));
        let path: Vec<&str> = ["repos", owner, name]
            .into_iter()
            .chain(rest.iter().copied())
            .collect();
        self.0.request(method, &path)
    }
}

impl Forge for Gitea {
    fn name(&self) -> &'static str {
        ForgeKind::Gitea.name()
    }

    fn description_limit(&self) -> usize {
        DESCRIPTION_LIMIT
    }

    fn shows_statuses(&self) -> bool {
        self.0.place().token.is_some()
    }

    fn set_status<'a>(&'a self, update: &'a StatusUpdate) -> BoxFuture<'a, Result<(), ForgeError>> {
        Box::pin(self.post_status(update))
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
            state: state_word(update.verdict),
            context: bounded(&update.context, 255),
            description: bounded(&update.description, DESCRIPTION_LIMIT),
            target_url: update.url.clone(),
        }
    }
}

/// Gitea's words; `warning` is none of ours.
fn state_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pending | Verdict::Running => "pending",
        Verdict::Success | Verdict::Neutral => "success",
        Verdict::Failure => "failure",
        Verdict::Error | Verdict::Cancelled => "error",
    }
}
