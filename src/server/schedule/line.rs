//! In which order jobs have their turns: priority, then the project that used least, then age.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use protocol::Timestamp;

use super::Queue;

/// The order. A project's share rises with each of its jobs that goes, so the next is found step by step.
pub(super) struct Line<'a> {
    queue: &'a Queue,
    /// Jobs of one priority and project, oldest last, by priority; the highest is last.
    levels: Vec<BTreeMap<usize, Vec<u32>>>,
    /// The heads of the projects of the highest priority.
    heads: BinaryHeap<Reverse<Head<'a>>>,
    /// What each project used.
    used: Vec<u64>,
    /// Whose turn it was last.
    last: Option<usize>,
}

/// The oldest job of a project: the least of all has its turn.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head<'a> {
    used: u64,
    since: Timestamp,
    /// Breaks ties, whatever the order of the queue.
    id: &'a str,
    project: usize,
}

impl<'a> Line<'a> {
    pub(super) fn new(queue: &'a Queue) -> Self {
        let mut all: Vec<(i64, i64, u32)> = queue
            .jobs
            .iter()
            .zip(0_u32..)
            .map(|(job, number)| (job.priority, job.since.0, number))
            .collect();
        // Priorities up, ages down: the best is last.
        all.sort_unstable_by(|a, b| {
            let id = |number: u32| &queue.jobs[number as usize].job;
            (a.0.cmp(&b.0))
                .then_with(|| b.1.cmp(&a.1))
                .then_with(|| id(b.2).cmp(id(a.2)))
        });
        let mut levels: Vec<BTreeMap<usize, Vec<u32>>> = Vec::new();
        let mut priority = None;
        for (of, _, number) in all {
            if priority != Some(of) {
                levels.push(BTreeMap::new());
                priority = Some(of);
            }
            let project = queue.jobs[number as usize].project;
            if let Some(level) = levels.last_mut() {
                level.entry(project).or_default().push(number);
            }
        }
        Self {
            queue,
            levels,
            heads: BinaryHeap::new(),
            used: queue.projects.iter().map(|project| project.used).collect(),
            last: None,
        }
    }

    /// The job whose turn it is.
    pub(super) fn next(&mut self) -> Option<usize> {
        if let Some(project) = self.last.take() {
            // Often it is the same project's turn again: then the heap is left alone.
            if let Some(head) = self.head(project) {
                if self.heads.peek().is_none_or(|best| head < best.0) {
                    return self.take(project);
                }
                self.heads.push(Reverse(head));
            }
        }
        loop {
            if let Some(Reverse(head)) = self.heads.pop() {
                return self.take(head.project);
            }
            while self.levels.last()?.values().all(Vec::is_empty) {
                self.levels.pop();
            }
            let projects: Vec<usize> = self.levels.last()?.keys().copied().collect();
            let heads: Vec<_> = projects.iter().filter_map(|p| self.head(*p)).collect();
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
        let number = *self.levels.last()?.get(&project)?.last()? as usize;
        let job = &self.queue.jobs[number];
        Some(Head {
            used: self.used[project],
            since: job.since,
            id: job.job.as_str(),
            project,
        })
    }

    fn take(&mut self, project: usize) -> Option<usize> {
        self.last = Some(project);
        let number = self.levels.last_mut()?.get_mut(&project)?.pop()?;
        Some(number as usize)
    }
}
