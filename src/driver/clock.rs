//! The job's time limits. Waits for nothing itself.

use std::time::{Duration, Instant};

use protocol::outcome::{Failure, FailureKind};
use protocol::spec::Limits;
use protocol::units::Span;

use crate::failure;

/// Longest that anything waits where no limit is near: a wake-up now and then costs nothing.
const IDLE: Duration = Duration::from_secs(60);

/// How long a cell may take, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CellLimit {
    /// The time; none: as long as the job may.
    pub(crate) span: Option<Span>,
    /// Where a person would change it.
    pub(crate) said_by: SaidBy,
}

/// Who says how long something may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaidBy {
    /// `.trainyard.yml`.
    PipelineFile,
    /// `metadata.execution.timeout` of the notebook.
    Notebook,
    /// The cell's tag `timeout=…`.
    Tag,
}

/// Counts from the start of the job's code.
#[derive(Debug)]
pub(crate) struct Clock<'a> {
    limits: &'a Limits,
    started: Instant,
    cell: Option<(Instant, CellLimit)>,
}

impl<'a> Clock<'a> {
    /// The job's code begins now.
    #[must_use]
    pub(crate) fn start(limits: &'a Limits) -> Self {
        Self {
            limits,
            started: Instant::now(),
            cell: None,
        }
    }

    /// A cell begins now. Without a limit of its own it has the job's.
    pub(crate) fn cell_started(&mut self, own: Option<CellLimit>) {
        let limit = own.unwrap_or(CellLimit {
            span: self.limits.cell_timeout,
            said_by: SaidBy::PipelineFile,
        });
        self.cell = Some((Instant::now(), limit));
    }

    /// No cell runs now.
    pub(crate) fn cell_finished(&mut self) {
        self.cell = None;
    }

    /// A time to wait until when there is nothing to wait for.
    #[must_use]
    pub(crate) fn idle() -> Instant {
        Instant::now() + IDLE
    }

    /// When the next limit is reached, with a job that was heard last at `last_said`.
    #[must_use]
    pub(crate) fn next(&self, last_said: Instant) -> Option<Instant> {
        self.all(last_said)
            .into_iter()
            .flatten()
            .map(|(at, ..)| at)
            .min()
    }

    /// The limit that has been reached.
    #[must_use]
    pub(crate) fn reached(&self, last_said: Instant) -> Option<Failure> {
        let now = Instant::now();
        let reached = self
            .all(last_said)
            .into_iter()
            .flatten()
            .find(|(at, ..)| now >= *at);
        let said_by = match self.cell {
            Some((_, limit)) => limit.said_by,
            None => SaidBy::PipelineFile,
        };
        reached.map(|(_, kind, limit)| failure::time_limit(kind, limit, said_by))
    }

    fn all(&self, last_said: Instant) -> [Option<(Instant, FailureKind, Span)>; 3] {
        let limit = |from: Instant, span: Span, kind| {
            from.checked_add(span.into()).map(|at| (at, kind, span))
        };
        let cell = self
            .cell
            .and_then(|(since, limit)| Some((since, limit.span?)));
        let silent_since = last_said.max(self.started);
        [
            limit(self.started, self.limits.timeout, FailureKind::JobTimeout),
            cell.and_then(|(since, span)| limit(since, span, FailureKind::CellTimeout)),
            self.limits
                .silence_timeout
                .and_then(|span| limit(silent_since, span, FailureKind::SilenceTimeout)),
        ]
    }
}
