//! Why a forge did not do what it was asked, and what follows from it.

use std::fmt;

use protocol::{CommitId, Span};

use super::CredentialError;

/// What a token must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To look at the repository and its pull requests.
    Read,
    /// To write statuses.
    Statuses,
    /// To write check runs.
    Checks,
    /// To write comments.
    Comments,
    /// To look at webhooks and change them.
    Hooks,
    /// To ask what people may do.
    People,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "read access to code and pull requests",
            Access::Statuses => "write access to commit statuses",
            Access::Checks => "write access to checks",
            Access::Hooks => "administration of the webhooks",
            Access::People => {
                "the right to ask who may write (at Gitea and Forgejo: an administrator's token)"
            }
            Access::Comments => "write access to pull requests (and issues, where they are apart)",
        })
    }
}

/// Why a forge did not do something. The first six do not go away by repeating at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    /// The token is missing, wrong, or not allowed this.
    #[error("{forge} refuses the token ({status}): {message}. It needs {needs} of {repository}")]
    Unauthorized {
        /// The forge.
        forge: &'static str,
        /// HTTP status.
        status: u16,
        /// The repository there.
        repository: String,
        /// What is missing.
        needs: Access,
        /// The forge's words.
        message: String,
    },
    /// The repository has another name or place there. A token is not taken along to where that leads.
    #[error(
        "{forge} says that {repository} has moved ({status}): a project speaks of its repository by the name that it was added with. Give that name back to it, or add it as another project under its new address"
    )]
    Moved {
        /// The forge.
        forge: &'static str,
        /// HTTP status.
        status: u16,
        /// The repository, by the name that it had.
        repository: String,
    },
    /// The reference to the token leads to nothing.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The GitHub App gets no token for the repository.
    #[error("the GitHub App cannot speak for {repository}: {why}")]
    App {
        /// The repository there.
        repository: String,
        /// Why, and what to do.
        why: String,
    },
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
    /// The forge understood and refuses: too many statuses, a field it does not like, a comment that is gone.
    #[error("{forge} refuses it ({status}): {message}")]
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
    /// Too many calls. Nothing more is sent to this project's forge before.
    #[error("{forge} asks to wait for {wait}")]
    RateLimited {
        /// The forge.
        forge: &'static str,
        /// How long, from its answer on. Not until when: its clock is not ours.
        wait: Span,
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
    /// Whether repeating the same call soon would be pointless: a person has to act, or what should be
    /// shown has to change.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            ForgeError::Unauthorized { .. }
            | ForgeError::Moved { .. }
            | ForgeError::Credential(_)
            | ForgeError::App { .. }
            | ForgeError::UnknownCommit { .. }
            | ForgeError::Refused { .. }
            | ForgeError::Unreadable { .. } => true,
            ForgeError::RateLimited { .. } | ForgeError::Transport { .. } => false,
        }
    }

    /// Whether the whole project is affected, not only what was to be shown: a token that may write statuses and no
    /// comments goes on writing statuses.
    #[must_use]
    pub fn concerns_project(&self) -> bool {
        match self {
            ForgeError::Unauthorized {
                status: 401 | 407, ..
            } => true,
            ForgeError::Unauthorized { needs, .. } => match needs {
                Access::Read | Access::Statuses | Access::Checks => true,
                Access::Comments | Access::Hooks | Access::People => false,
            },
            ForgeError::Moved { .. }
            | ForgeError::Credential(_)
            | ForgeError::App { .. }
            | ForgeError::RateLimited { .. }
            | ForgeError::Transport { .. } => true,
            ForgeError::UnknownCommit { .. }
            | ForgeError::Refused { .. }
            | ForgeError::Unreadable { .. } => false,
        }
    }
}
