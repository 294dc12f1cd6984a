//! What a forge is to Trainyard: it tells that something moved, and it shows our statuses. The only
//! HTTP to forges. It knows neither the store nor the pages.

mod address;
mod answer;
mod api;
pub mod credential;
pub mod event;
mod gitea;
mod github;
mod gitlab;
pub mod hook;
mod place;
mod plain;
mod text;

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::{CommitId, Timestamp};
use serde::{Deserialize, Serialize};

pub use address::{Address, AddressError};
use api::Api;
pub use credential::{Credential, CredentialError};
pub use event::ForgeEvent;
use event::PullRequest;
use gitea::Gitea;
use github::Github;
use gitlab::Gitlab;
pub use place::{ForgeKind, InvalidRepository, Place, Repository};
pub use plain::PlainGit;
pub use text::bounded;

/// A forge, as the reports see it. A check run, a comment or an approval is a further method with a
/// default that says "not here": a forge without it loses nothing.
pub trait Forge: Send + Sync + fmt::Debug {
    /// Its name on screens.
    fn name(&self) -> &'static str;

    /// Most characters of a status's description; longer ones are cut.
    fn description_limit(&self) -> usize;

    /// Whether it shows statuses at all. Where it does not, no report is written for it.
    fn shows_statuses(&self) -> bool;

    /// Asks for a pull request; none: there is none of this number.
    fn pull_request(&self, number: u64) -> BoxFuture<'_, Result<Option<PullRequest>, ForgeError>>;

    /// Makes the forge show `update`. Doing it twice does no harm.
    fn set_status<'a>(&'a self, update: &'a StatusUpdate) -> BoxFuture<'a, Result<(), ForgeError>>;
}

/// What one context of one commit should show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusUpdate {
    /// The commit.
    pub commit: CommitId,
    /// `trainyard` for the whole commit, `trainyard/<job>` for a job.
    pub context: String,
    /// The verdict; each forge has its own words for it.
    pub verdict: Verdict,
    /// One line for people.
    pub description: String,
    /// The page that says more, where the server knows its own address.
    #[serde(default)]
    pub url: Option<String>,
    /// The branch that led to it, without `refs/heads/`: GitLab files statuses under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// Every verdict that some forge can tell apart; a forge with fewer words maps it to its nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It waits.
    Pending,
    /// It runs.
    Running,
    /// Green.
    Success,
    /// There was nothing to judge. Shown as green where a forge has no grey.
    Neutral,
    /// Red, by the commit: its code, or a limit.
    Failure,
    /// Red, not by the commit: the platform.
    Error,
    /// Ended by somebody, or never begun because of something else. Not green.
    Cancelled,
}

impl Verdict {
    /// Whether nothing more is expected.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Verdict::Pending | Verdict::Running => false,
            Verdict::Success
            | Verdict::Neutral
            | Verdict::Failure
            | Verdict::Error
            | Verdict::Cancelled => true,
        }
    }
}

/// Why a forge did not take a status. The first four do not go away by repeating at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    /// The token is missing, wrong, or may not write statuses.
    #[error(
        "{forge} refuses the token ({status}): {message}. It needs write access to commit statuses of {repository}"
    )]
    Unauthorized {
        /// The forge.
        forge: &'static str,
        /// HTTP status.
        status: u16,
        /// The repository there.
        repository: String,
        /// The forge's words.
        message: String,
    },
    /// The reference to the token leads to nothing.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The forge does not have this commit (any more), or the repository is not visible to the token.
    #[error("{forge} does not know commit {commit} of {repository} ({status}): {message}")]
    UnknownCommit {
        /// The forge.
        forge: &'static str,
        /// HTTP status.
        status: u16,
        /// The repository there.
        repository: String,
        /// The commit.
        commit: CommitId,
        /// The forge's words.
        message: String,
    },
    /// The forge understood and refuses: too many statuses, a field it does not like.
    #[error("{forge} refuses the status ({status}): {message}")]
    Refused {
        /// The forge.
        forge: &'static str,
        /// HTTP status.
        status: u16,
        /// The forge's words.
        message: String,
    },
    /// An answer that is not what it should be.
    #[error("{forge} answers what cannot be read: {message}")]
    Unreadable {
        /// The forge.
        forge: &'static str,
        /// What was wrong with it.
        message: String,
    },
    /// Too many calls. Nothing more is sent to this project's forge until then.
    #[error("{forge} asks to wait for {}", until.since(Timestamp::now()))]
    RateLimited {
        /// The forge.
        forge: &'static str,
        /// The moment from which calls are welcome again.
        until: Timestamp,
    },
    /// No answer, or one that is the forge's own fault (5xx).
    #[error("{forge} could not be reached: {message}")]
    Transport {
        /// The forge.
        forge: &'static str,
        /// What went wrong, without secrets.
        message: String,
    },
}

impl ForgeError {
    /// Whether repeating the same call soon would be pointless: a person has to act, or the status
    /// has to change.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            ForgeError::Unauthorized { .. }
            | ForgeError::Credential(_)
            | ForgeError::UnknownCommit { .. }
            | ForgeError::Refused { .. }
            | ForgeError::Unreadable { .. } => true,
            ForgeError::RateLimited { .. } | ForgeError::Transport { .. } => false,
        }
    }

    /// Whether the whole project is affected, not only this commit or context.
    #[must_use]
    pub fn concerns_project(&self) -> bool {
        match self {
            ForgeError::Unauthorized { .. }
            | ForgeError::Credential(_)
            | ForgeError::RateLimited { .. }
            | ForgeError::Transport { .. } => true,
            ForgeError::UnknownCommit { .. }
            | ForgeError::Refused { .. }
            | ForgeError::Unreadable { .. } => false,
        }
    }
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

    /// The forge that this describes.
    ///
    /// # Errors
    /// Where the HTTP client cannot be made: no root certificates on this host, or a wrong address.
    pub fn connect(&self, timeout: Duration) -> Result<Box<dyn Forge>, ForgeError> {
        let Some((kind, place)) = self.place() else {
            return Ok(Box::new(PlainGit));
        };
        let api = Api::connect(kind, place.clone(), timeout)?;
        Ok(match kind {
            ForgeKind::Github => Box::new(Github(api)),
            ForgeKind::Gitlab => Box::new(Gitlab(api)),
            ForgeKind::Gitea => Box::new(Gitea(api)),
        })
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

    /// The token, where one is set up.
    #[must_use]
    pub fn token(&self) -> Option<&Credential> {
        self.place()?.1.token.as_ref()
    }

    /// The secret that proves a webhook, where one is set up.
    #[must_use]
    pub fn webhook_secret(&self) -> Option<&Credential> {
        self.place()?.1.webhook_secret.as_ref()
    }
}
