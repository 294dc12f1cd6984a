//! In which order jobs have their turns: priority, then the project that used least, then age.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use protocol::{JobId, Span, Timestamp};

use super::{Queue, Waiting};

/// The order. A project's share rises with each of its jobs that goes, so the next is found step by step.
pub(super) struct Line<'a> {
    jobs: &'a [Waiting],
    /// By priority; the highest is last.
    levels: Vec<Level>,
    /// The heads of the projects of the highest priority.
    heads: BinaryHeap<Reverse<Head<'a>>>,
    /// What each project used.
    used: Vec<u64>,
    /// Whose turn it was last.
    last: Option<usize>,
}

/// Jobs of one priority by project, oldest last.
type Level = Vec<Vec<Turn>>;

/// A job in the line, with all that most turns look at: the queue is large, and read out of order it is slow. Small for
/// the same reason: numbers of entries are kept in 32 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    number: u32,
    project: u32,
    demand: u32,
    environment: Option<u32>,
    group: Option<u32>,
    pub(super) expected: Span,
    /// Whether hosts are named on which it failed.
    pub(super) failed: bool,
    since: Timestamp,
}

/// The oldest job of a project: the least of all has its turn. Ids break ties, whatever the order of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Head<'a> {
    used: u64,
    since: Timestamp,
    job: &'a JobId,
    project: usize,
}

impl<'a> Line<'a> {
    pub(super) fn new(queue: &'a Queue) -> Self {
        let mut levels: BTreeMap<i64, Level> = BTreeMap::new();
        for (number, job) in queue.jobs.iter().enumerate() {
            let level = levels.entry(job.priority).or_default();
            if level.is_empty() {
                level.resize(queue.projects.len(), Vec::new());
            }
            level[job.project].push(Turn::of(number, job));
        }
        let id = |turn: &Turn| &queue.jobs[turn.number()].job;
        for turns in levels.values_mut().flatten() {
            turns.sort_unstable_by(|a, b| (b.since.cmp(&a.since)).then_with(|| id(b).cmp(id(a))));
        }
        Self {
            jobs: &queue.jobs,
            levels: levels.into_values().collect(),
            heads: BinaryHeap::new(),
            used: queue.projects.iter().map(|project| project.used).collect(),
            last: None,
        }
    }

    /// The job whose turn it is.
    pub(super) fn next(&mut self) -> Option<Turn> {
        // Often it is the same project's turn again: then the heap is left alone.
        if let Some(head) = self.last.take().and_then(|project| self.head(project)) {
            if self.heads.peek().is_none_or(|best| head < best.0) {
                return self.take(head.project);
            }
            self.heads.push(Reverse(head));
        }
        loop {
            if let Some(Reverse(head)) = self.heads.pop() {
                return self.take(head.project);
            }
            while self.levels.last()?.iter().all(Vec::is_empty) {
                self.levels.pop();
            }
            let heads: Vec<_> = (0..self.used.len()).filter_map(|p| self.head(p)).collect();
            self.heads.extend(heads.into_iter().map(Reverse));
        }
    }

    /// Adds to what the project uses whose turn it was: its job goes.
    pub(super) fn charge(&mut self, used: u64) {
        if let Some(project) = self.last {
            self.used[project] = self.used[project].saturating_add(used);
        }
    }

    fn head(&self, project: usize) -> Option<Head<'a>> {
        let turn = self.levels.last()?[project].last()?;
        Some(Head {
            used: self.used[project],
            since: turn.since,
            job: &self.jobs[turn.number()].job,
            project,
        })
    }

    fn take(&mut self, project: usize) -> Option<Turn> {
        self.last = Some(project);
        self.levels.last_mut()?[project].pop()
    }
}

impl Turn {
    fn of(number: usize, job: &Waiting) -> Self {
        Self {
            number: small(number),
            project: small(job.project),
            demand: small(job.demand),
            environment: job.environment.map(small),
            group: job.group.map(small),
            expected: job.expected,
            failed: !job.failed_on.is_empty(),
            since: job.since,
        }
    }

    /// Its number in the queue.
    pub(super) fn number(&self) -> usize {
        self.number as usize
    }

    pub(super) fn project(&self) -> usize {
        self.project as usize
    }

    pub(super) fn demand(&self) -> usize {
        self.demand as usize
    }

    pub(super) fn environment(&self) -> Option<usize> {
        self.environment.map(|number| number as usize)
    }

    pub(super) fn group(&self) -> Option<usize> {
        self.group.map(|number| number as usize)
    }
}

/// The number of an entry. No queue has four thousand million of anything: its rows would not fit into memory.
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
