//! The stage of an attempt with its data, as it lies in `state.json`.

use std::collections::BTreeMap;

use protocol::driver::CellCount;
use protocol::event::Phase;
use protocol::report::{Setting, Usage};
use protocol::{Failure, Outcome, Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::StopReason;
use crate::environment::Environment;
use crate::executor::Image;
use crate::journal::Journal;

/// All that a restart needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) started_at: Timestamp,
    /// Time spent in each phase.
    pub(super) phases: BTreeMap<String, Total>,
    pub(super) setting: Setting,
    pub(super) stage: Stage,
}

/// A sum of time.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Total(pub(super) Span);

impl std::ops::AddAssign<std::time::Duration> for Total {
    fn add_assign(&mut self, time: std::time::Duration) {
        self.0 = Span(self.0.0.saturating_add(Span::from(time).0));
    }
}

/// The stages that are this crate's; upload follows in the service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub(super) enum Stage {
    /// Files are fetched.
    Workspace,
    /// They lie ready; image and environment are next.
    Environment,
    /// All is ready; the job runs, or is about to.
    Run(Prepared),
    /// It ended; what it left is gathered.
    Collect {
        /// How it ended.
        ended: Box<Ended>,
        /// Its events have this number or a later one, among others. They are the same at each try, and those that were
        /// written are not written again.
        from: u64,
    },
}

/// What a job runs in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Prepared {
    pub(super) image: Option<Image>,
    pub(super) environment: Option<Environment>,
    /// Set before a container starts, after a process did.
    pub(super) launched: Option<Launched>,
}

/// What was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub(super) enum Launched {
    /// A container; it is found by its labels.
    Container,
    /// A process.
    Process { pid: u32, started: u64 },
}

/// How the job ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) usage: Usage,
    pub(super) cells: CellCount,
    /// Whether the job's code began.
    pub(super) ran: bool,
    /// Whether it came to an end by itself, so that it has written to the end what it began to write. An earlier agent did
    /// not say.
    #[serde(default)]
    pub(super) clean: bool,
}

impl Ended {
    pub(super) fn before(outcome: Outcome) -> Box<Self> {
        Box::new(Self {
            outcome,
            usage: Usage::default(),
            cells: CellCount::default(),
            ran: false,
            clean: false,
        })
    }

    pub(super) fn failed(failure: Failure) -> Box<Self> {
        Self::before(Outcome::Failed(failure))
    }

    pub(super) fn stopped(reason: StopReason) -> Box<Self> {
        Self::before(cancelled(reason))
    }
}

/// The outcome of an attempt that was stopped.
pub(super) fn cancelled(reason: StopReason) -> Outcome {
    Outcome::Cancelled {
        by: match reason {
            StopReason::Stop { by, .. } => by,
            StopReason::Abandon => "the server, which had given the attempt up".into(),
        },
    }
}

impl State {
    pub(super) fn new(setting: Setting) -> Self {
        Self {
            started_at: Timestamp::now(),
            phases: BTreeMap::new(),
            setting,
            stage: Stage::Workspace,
        }
    }
}

impl Stage {
    pub(super) fn collect(ended: Ended, journal: &Journal) -> Self {
        Stage::Collect {
            ended: Box::new(ended),
            // The phase's own event follows.
            from: journal.last() + 1,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self {
            Stage::Workspace => Phase::Workspace,
            Stage::Environment => Phase::Environment,
            Stage::Run(_) => Phase::Run,
            Stage::Collect { .. } => Phase::Collect,
        }
    }
}
