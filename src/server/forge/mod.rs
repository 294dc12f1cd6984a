//! What a forge is to Trainyard: it tells that something moved, and it shows our statuses. The only
//! HTTP to forges. It knows neither the store nor the pages.

mod address;
mod answer;
mod api;
pub mod app;
mod checks;
mod comments;
mod error;
pub mod event;
mod forges;
pub mod found;
mod gitea;
mod github;
mod gitlab;
pub mod hook;
pub mod hooks;
mod identity;
mod people;
mod place;
mod plain;
mod remote;
pub mod rights;
#[cfg(test)]
#[path = "../../../tests/support/forge/schema.rs"]
mod schema;
mod text;
mod update;

use std::fmt;

use futures_util::future::BoxFuture;
use protocol::{CommitId, Digest, Timestamp};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

pub use crate::credential::{Credential, CredentialError};
pub use address::{Address, AddressError};
pub(crate) use app::{Again, Part};
pub(crate) use comments::CLOCKS;
pub use error::{Access, ForgeError};
pub use event::ForgeEvent;
use event::{Comment, PullRequest};
pub use forges::Forges;
pub use place::{ForgeKind, InvalidRepository, Place, Repository};
pub use plain::PlainGit;
pub use text::bounded;
pub use update::{
    Annotation, Button, CheckState, CheckUpdate, CommentUpdate, Reaction, Reply, Shown,
    StatusUpdate, Update, Verdict, comment_slot,
};

/// A forge, as the rest of the server sees it.
pub trait Forge: Send + Sync + fmt::Debug {
    /// Its name on screens.
    fn name(&self) -> &'static str;

    /// Most characters of a status's description; longer ones are cut.
    fn description_limit(&self) -> usize;

    /// Whether anything can be shown there. Where it cannot, no report is written for it.
    fn listens(&self) -> bool;

    /// Whether it shows check runs, and none of our statuses.
    fn checks(&self) -> bool;

    /// Asks for a pull request; none: there is none of this number.
    fn pull_request(&self, number: u64) -> BoxFuture<'_, Result<Option<PullRequest>, ForgeError>>;

    /// The pull requests that are open, those first that changed last; as many as one answer has.
    fn open_requests(&self) -> BoxFuture<'_, Result<Vec<PullRequest>, ForgeError>>;

    /// What people said under a pull request since then, the oldest first, of at most a thousand comments. What was edited
    /// is left out: another may have put the words there.
    fn said(
        &self,
        number: u64,
        since: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Comment>, ForgeError>>;

    /// Whether somebody may write to the repository: then their word counts. `number` is theirs at the forge, where it
    /// was told.
    fn may_write<'a>(
        &'a self,
        login: &'a str,
        number: Option<u64>,
    ) -> BoxFuture<'a, Result<bool, ForgeError>>;

    /// Whether a pull request, at exactly this head, comes from a fork of its author's own, who may write to the
    /// repository.
    fn members_fork<'a>(
        &'a self,
        number: u64,
        head: &'a CommitId,
    ) -> BoxFuture<'a, Result<bool, ForgeError>>;

    /// Makes the forge show `update`. `remembered` is what an earlier call gave for the same slot: what stands there
    /// is edited in place, and found again where that was lost. Doing it twice does no harm.
    fn show<'a>(
        &'a self,
        update: &'a Update,
        remembered: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Shown, ForgeError>>;
}

/// How a project speaks with its forge: part of the project's row. Secrets are references only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ForgeConfig {
    /// A plain git remote: polled, shows nothing.
    #[default]
    Git,
    /// GitHub, or GitHub Enterprise.
    Github(Place),
    /// GitLab.
    Gitlab(Place),
    /// Gitea or Forgejo.
    Gitea(Place),
}

impl ForgeConfig {
    /// Which API it speaks, and where; none of a plain remote.
    #[must_use]
    pub fn place(&self) -> Option<(ForgeKind, &Place)> {
        match self {
            ForgeConfig::Git => None,
            ForgeConfig::Github(place) => Some((ForgeKind::Github, place)),
            ForgeConfig::Gitlab(place) => Some((ForgeKind::Gitlab, place)),
            ForgeConfig::Gitea(place) => Some((ForgeKind::Gitea, place)),
        }
    }

    /// `git`, `github`, `gitlab` or `gitea`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.place().map_or("git", |(kind, _)| kind.word())
    }

    /// The same with a token and a webhook's secret; a plain remote has no use for them.
    #[must_use]
    pub fn with(mut self, token: Option<Credential>, webhook_secret: Option<Credential>) -> Self {
        match &mut self {
            ForgeConfig::Git => {}
            ForgeConfig::Github(place) | ForgeConfig::Gitlab(place) | ForgeConfig::Gitea(place) => {
                place.token = token;
                place.webhook_secret = webhook_secret;
            }
        }
        self
    }

    /// Sets where the webhook's secret lies; a plain remote has no use for one.
    pub fn set_webhook_secret(&mut self, reference: Credential) {
        match self {
            ForgeConfig::Git => {}
            ForgeConfig::Github(place) | ForgeConfig::Gitlab(place) | ForgeConfig::Gitea(place) => {
                place.webhook_secret = Some(reference);
            }
        }
    }

    /// Whether somebody can be called there: with a token, or as the GitHub App.
    #[must_use]
    pub fn speaks(&self) -> bool {
        self.place().is_some_and(|(_, place)| place.speaks())
    }

    /// Tells whether the token is another one by now, and not what it is; none: there is none, or it cannot be read.
    #[must_use]
    pub fn token_digest(&self) -> Option<Digest> {
        let token = self.place()?.1.token.as_ref()?.read().ok()?;
        Some(Digest::of(token.expose_secret()))
    }

    /// Whom the forge counts the calls of: its API with the token, or with the App where the repository's owner has
    /// installed it. The same for all projects that speak alike. None: nobody is called, or the token cannot be read.
    #[must_use]
    pub fn caller(&self) -> Option<Digest> {
        let (_, place) = self.place()?;
        let who = match place.app {
            Some(_) => format!("app {}", place.repository.owner().to_lowercase()),
            None => format!("token {}", self.token_digest()?),
        };
        let api = place.api.trim_end_matches('/');
        Some(Digest::of(format!("{api} {who}")))
    }

    /// The secret that proves a webhook, where one is set up.
    #[must_use]
    pub fn webhook_secret(&self) -> Option<&Credential> {
        self.place()?.1.webhook_secret.as_ref()
    }
}
