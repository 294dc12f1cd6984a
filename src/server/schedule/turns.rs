//! When jobs that a quota or a concurrency group keeps back will probably have their turn: by the ends of what runs, and
//! by those who wait before them. It keeps nobody back itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use protocol::{Span, Timestamp};

use super::room::later;
use super::{Group, Project};

/// A project's GPUs, as the jobs that its quota keeps back will have them one after the other.
pub(super) struct GpuTurns {
    gpus: u32,
    /// When some of them come back.
    ends: BinaryHeap<Reverse<(Timestamp, u32)>>,
    /// When the last one of those that wait will have its turn.
    at: Timestamp,
}

impl GpuTurns {
    pub(super) fn new(project: &Project, now: Timestamp) -> Self {
        let ends = project.gpu_ends.iter();
        Self {
            gpus: project.gpus,
            ends: ends
                .map(|(until, gpus)| Reverse((later(*until, now), *gpus)))
                .collect(),
            at: now,
        }
    }

    /// A job has so many of them until then.
    pub(super) fn take(&mut self, gpus: u32, until: Timestamp) {
        self.gpus = self.gpus.saturating_add(gpus);
        self.ends.push(Reverse((until, gpus)));
    }

    /// When a job that wants so many will have them, where the project may have `most` at once; none: never.
    pub(super) fn next(&mut self, wanted: u32, most: u32, expected: Span) -> Option<Timestamp> {
        if wanted > most {
            return None;
        }
        while self.gpus.saturating_add(wanted) > most {
            let Reverse((end, gpus)) = self.ends.pop()?;
            self.gpus = self.gpus.saturating_sub(gpus);
            self.at = self.at.max(end);
        }
        self.take(wanted, self.at + expected);
        Some(self.at)
    }
}

/// A concurrency group, of which one job runs at a time.
pub(super) struct GroupTurns {
    /// The job that has a host, in words.
    pub(super) holder: Option<String>,
    /// When it, and those that wait for it, will be over; none: nobody can say.
    free: Option<Timestamp>,
}

impl GroupTurns {
    pub(super) fn new(group: &Group, now: Timestamp) -> Self {
        let holder = group.holder.as_ref();
        Self {
            holder: holder.map(|holder| holder.job.clone()),
            free: holder.and_then(|holder| Some(later(holder.until?, now))),
        }
    }

    /// A job of it goes.
    pub(super) fn take(&mut self, until: Timestamp) {
        self.holder = Some("a job that starts now".to_owned());
        self.free = Some(until);
    }

    /// When the next one that waits will have its turn.
    pub(super) fn next(&mut self, expected: Span) -> Option<Timestamp> {
        let at = self.free?;
        self.free = Some(at + expected);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Holder;

    const NOW: Timestamp = Timestamp(1_000_000_000);
    const HOUR: Span = Span::hours(1);

    fn hours(at: Option<Timestamp>) -> Option<u64> {
        Some(at?.since(NOW).0 / HOUR.0)
    }

    #[test]
    fn those_that_a_quota_keeps_back_have_what_comes_back_in_their_order() {
        let project = Project {
            gpus: 4,
            gpu_ends: vec![(NOW + Span::hours(3), 2), (NOW + HOUR, 2)],
            ..Project::default()
        };
        let mut turns = GpuTurns::new(&project, NOW);
        // One that wants less does not pass one that waits before it.
        let starts = [4, 1, 1, 2].map(|wanted| hours(turns.next(wanted, 4, HOUR)));
        assert_eq!(starts, [Some(3), Some(4), Some(4), Some(4)]);
        assert_eq!(hours(turns.next(3, 4, HOUR)), Some(5));
        assert_eq!(turns.next(5, 4, HOUR), None, "more than it may have");
        // A quota that was lowered: what runs has more than it.
        let mut lowered = GpuTurns::new(&project, NOW);
        assert_eq!(hours(lowered.next(1, 2, HOUR)), Some(3));
        let mut unknown = GpuTurns::new(
            &Project {
                gpu_ends: vec![],
                ..project
            },
            NOW,
        );
        assert_eq!(unknown.next(1, 4, HOUR), None);
    }

    #[test]
    fn those_of_a_group_go_one_after_the_other() {
        let holder = |until| Group {
            name: "deploy".to_owned(),
            holder: Some(Holder {
                job: "train".to_owned(),
                until,
            }),
        };
        let mut turns = GroupTurns::new(&holder(Some(NOW + HOUR)), NOW);
        let starts = [HOUR, HOUR].map(|expected| hours(turns.next(expected)));
        assert_eq!(starts, [Some(1), Some(2)]);
        assert_eq!(GroupTurns::new(&holder(None), NOW).next(HOUR), None);
        let mut overdue = GroupTurns::new(&holder(Some(NOW - HOUR)), NOW);
        assert!(overdue.next(HOUR).is_some_and(|at| at > NOW));
    }
}
