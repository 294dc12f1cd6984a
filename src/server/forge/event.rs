//! What a forge told, after its proof was checked. Nothing past this door sees a forge's JSON, and nothing in it
//! names a repository: that is the configured project's. A hint to look, no more: git says what moved.

use protocol::{CommitId, Timestamp};
use serde::{Deserialize, Serialize};

/// What was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ForgeEvent {
    /// The forge tries the door.
    Ping,
    /// A ref moved.
    Push {
        /// The full ref.
        reference: String,
        /// Where it was; none: it is new.
        before: Option<CommitId>,
        /// Where it is; none: it is gone.
        after: Option<CommitId>,
        /// Who, at the forge.
        by: Option<String>,
    },
    /// A pull request was opened or changed.
    PullRequest(PullRequest),
    /// Somebody wrote under a pull request.
    Comment(Comment),
    /// Somebody pressed a button of a check.
    Asked(Asked),
    /// Something that asks for no work.
    Other {
        /// The forge's word.
        name: String,
    },
}

/// A pull request as its forge told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// Its number.
    pub number: u64,
    /// What happened to it.
    pub change: Change,
    /// Whether it was neither merged nor given up then, where the forge says so.
    #[serde(default)]
    pub open: Option<bool>,
    /// When it changed last, by the forge's clock. Messages come late, and not in their order.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
    /// Its head.
    pub head: CommitId,
    /// The branch that it comes from.
    pub head_branch: String,
    /// The branch that it goes to.
    pub base_branch: String,
    /// Its title: text of whoever opened it.
    pub title: String,
    /// Who opened it, where the forge says so.
    #[serde(default)]
    pub author: Option<String>,
    /// Whether it comes from another repository, there or gone: untrusted.
    pub fork: bool,
    /// Who changed it.
    #[serde(default)]
    pub by: Option<String>,
}

/// What happened to a pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Opened,
    /// It has other commits, or goes to another branch.
    Updated,
    /// It is open again.
    Reopened,
    /// It is no draft any more.
    Ready,
    /// It was merged or given up.
    Closed,
}

/// A comment under a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// The number of the pull request.
    pub number: u64,
    /// The comment's id at the forge.
    pub id: u64,
    /// Who wrote it, at the forge.
    pub by: String,
    /// Their number there, where the forge needs it to say what they may.
    #[serde(default)]
    pub by_id: Option<u64>,
    /// When it was written, by the forge's clock. Its message may come hours later.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Its text, cut: commands are short.
    pub text: String,
}

/// A button that was pressed on a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The commit whose check it is.
    pub commit: CommitId,
    /// What we called the check; none: it was asked for all of them.
    #[serde(default)]
    pub check: Option<String>,
    /// The button; none: the forge's own for running again.
    #[serde(default)]
    pub action: Option<String>,
    /// Who, at the forge.
    #[serde(default)]
    pub by: Option<String>,
}

impl ForgeEvent {
    /// Whether there is something to do.
    #[must_use]
    pub fn moves_something(&self) -> bool {
        match self {
            ForgeEvent::Push { .. }
            | ForgeEvent::PullRequest(_)
            | ForgeEvent::Comment(_)
            | ForgeEvent::Asked(_) => true,
            ForgeEvent::Ping | ForgeEvent::Other { .. } => false,
        }
    }
}
