//! Gitea and Forgejo: commit statuses.

use futures_util::future::BoxFuture;
use reqwest::Method;
use serde::Serialize;

use super::api::{About, Api};
use super::event::PullRequest;
use super::text::bounded;
use super::{Forge, ForgeError, ForgeKind, Shown, StatusUpdate, Update, Verdict, hook};

/// Gitea sets none; a longer line is not read.
const DESCRIPTION_LIMIT: usize = 255;

/// A repository at Gitea or Forgejo.
#[derive(Debug)]
pub(super) struct Gitea(pub(super) Api);

impl Gitea {
    async fn post_status(&self, update: &StatusUpdate) -> Result<(), ForgeError> {
        let path = ["statuses", update.commit.as_str()];
        let request = self.0.below(Method::POST, &path)?;
        let request = request.json(&StatusBody::of(update));
        match self.0.send(request, About::Status(&update.commit)).await {
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
        match self.0.find(&path, |_| Ok(())).await {
            Ok(None) => Some(ForgeError::UnknownCommit {
                forge: ForgeKind::Gitea.name(),
                status: 404,
                repository: self.0.place().repository.as_str().to_owned(),
                commit: update.commit.clone(),
                message: "it has no such commit".to_owned(),
            }),
            Ok(Some(())) | Err(_) => None,
        }
    }
}

impl Forge for Gitea {
    fn name(&self) -> &'static str {
        ForgeKind::Gitea.name()
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
            let path = ["pulls", &number.to_string()];
            self.0.find(&path, hook::github::pull_request).await
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
