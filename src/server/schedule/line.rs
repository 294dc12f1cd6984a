//! In which order jobs have their turns: priority, then the project that used least, then age.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use protocol::{Span, Timestamp};

use super::{Queue, Waiting};

/// The order. A project's share rises with each of its jobs that goes, so the next is found step by step.
pub(super) struct Line {
    /// By priority; the highest is last.
    levels: Vec<Level>,
    /// The heads of the projects of the highest priority.
    heads: BinaryHeap<Reverse<Head>>,
    /// What each project used.
    used: Vec<u64>,
    /// Whose turn it was last.
    last: Option<usize>,
}

/// Jobs of one priority by project, oldest last.
type Level = Vec<Vec<Turn>>;

/// A job in the line, with what most of its turns look at: the queue is large, and read out of order it is slow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// Its number in the queue.
    pub(super) number: usize,
    pub(super) project: usize,
    pub(super) demand: usize,
    pub(super) group: Option<usize>,
    pub(super) expected: Span,
    priority: i64,
    since: Timestamp,
    /// Its place by age, the oldest first.
    place: usize,
}

/// The oldest job of a project: the least of all has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    used: u64,
    place: usize,
    project: usize,
}

impl Line {
    pub(super) fn new(queue: &Queue) -> Self {
        let turn = |(number, job): (usize, &Waiting)| Turn {
            number,
            project: job.project,
            demand: job.demand,
            group: job.group,
            expected: job.expected,
            priority: job.priority,
            since: job.since,
            place: 0,
        };
        let mut all: Vec<Turn> = queue.jobs.iter().enumerate().map(turn).collect();
        // Priorities up, ages down: the best is last. Ids break ties, whatever the order of the queue.
        all.sort_unstable_by(|a, b| {
            let id = |turn: &Turn| &queue.jobs[turn.number].job;
            (a.priority.cmp(&b.priority))
                .then_with(|| b.since.cmp(&a.since))
                .then_with(|| id(b).cmp(id(a)))
        });
        let (mut levels, mut priority) = (Vec::<Level>::new(), None);
        let places = (0..all.len()).rev();
        for (turn, place) in all.into_iter().zip(places) {
            if priority != Some(turn.priority) {
                levels.push(vec![Vec::new(); queue.projects.len()]);
                priority = Some(turn.priority);
            }
            if let Some(level) = levels.last_mut() {
                level[turn.project].push(Turn { place, ..turn });
            }
        }
        Self {
            levels,
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

    fn head(&self, project: usize) -> Option<Head> {
        let place = self.levels.last()?[project].last()?.place;
        let used = self.used[project];
        Some(Head {
            used,
            place,
            project,
        })
    }

    fn take(&mut self, project: usize) -> Option<Turn> {
        self.last = Some(project);
        self.levels.last_mut()?[project].pop()
    }
}
