//! What asks for work.

use serde::{Deserialize, Serialize};

use crate::ids::{CommitId, JobId};
use crate::spec::{Parameters, Trust};
use crate::units::Timestamp;

/// One request for work at one commit. Nothing past the forge's door sees a forge's JSON: it is this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// What happened.
    #[serde(flatten)]
    pub kind: TriggerKind,
    /// The commit to work at.
    pub commit: CommitId,
    /// The full ref that led to it, such as `refs/heads/main`.
    #[serde(default)]
    pub reference: Option<String>,
    /// The commit to compare with: the previous head of the branch, or the base of the pull request.
    #[serde(default)]
    pub base: Option<CommitId>,
    /// How far the commit is trusted.
    pub trust: Trust,
    /// A person's name at the forge, or who asked by hand.
    #[serde(default)]
    pub by: Option<String>,
    /// When it was noticed.
    pub at: Timestamp,
    /// In which message of a forge it was asked for, and as which of its commands; none: it was not asked for in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_in: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "trigger", rename_all = "snake_case")]
pub enum TriggerKind {
    /// A branch moved.
    Push,
    /// A pull request was opened or changed.
    PullRequest {
        /// Its number at the forge. In JSON it stands beside a pipeline's own `number`.
        #[serde(rename = "pull_request")]
        number: u64,
    },
    /// A job's schedule came due.
    Schedule {
        /// The definitions that are due.
        definitions: Vec<String>,
    },
    /// A finished job is asked for again.
    Rerun {
        /// That job.
        of: JobId,
    },
    /// The job that left a model's version is run once more, to see whether it leaves the same. Its result stands for
    /// nobody.
    Reproduction {
        /// That job.
        of: JobId,
    },
    /// A person asked by hand.
    Person {
        /// Only these definitions; empty: all.
        definitions: Vec<String>,
        /// Values that replace those of the file.
        #[serde(default)]
        parameters: Parameters,
    },
}

impl Trigger {
    /// Whether an equal earlier result may stand for a job of this trigger: schedules, re-runs and
    /// people always run.
    #[must_use]
    pub fn may_reuse(&self) -> bool {
        match self.kind {
            TriggerKind::Push | TriggerKind::PullRequest { .. } => true,
            TriggerKind::Schedule { .. }
            | TriggerKind::Rerun { .. }
            | TriggerKind::Reproduction { .. }
            | TriggerKind::Person { .. } => false,
        }
    }

    /// The branch, where the ref is one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.reference.as_deref()?.strip_prefix("refs/heads/")
    }
}
