//! What the end of a pipeline means beside the ends before it. Pure: it knows no rows.

use std::collections::BTreeSet;

use protocol::Outcome;
use serde::Serialize;

/// What a pipeline is about, for rules to choose by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Story<'a> {
    /// Name of its project.
    pub(super) project: &'a str,
    /// Its branch, of a pull request the one that it goes to; none: it is at a tag, or a bare commit.
    pub(super) branch: Option<&'a str>,
    /// Whether a schedule asked for it.
    pub(super) scheduled: bool,
    /// Whether it is at the head of a pull request.
    pub(super) of_request: bool,
}

/// How a pipeline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// A job failed, or nothing could be planned.
    Failed,
    /// No job failed, and some did not run to their end.
    Cancelled,
    /// All went well.
    Succeeded,
}

/// What is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    /// It failed.
    Failed,
    /// It succeeded, and something of it failed before.
    Recovered,
    /// It is over.
    Finished,
}

/// How each definition of a pipeline ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ends {
    /// Nothing could be planned: all that was asked for failed.
    unplanned: bool,
    failed: BTreeSet<String>,
    succeeded: BTreeSet<String>,
    other: BTreeSet<String>,
}

impl Ends {
    /// Of jobs, each by the definition that it is of.
    pub(super) fn of<'a>(
        unplanned: bool,
        jobs: impl IntoIterator<Item = (&'a str, Option<&'a Outcome>)>,
    ) -> Self {
        let mut ends = Self {
            unplanned,
            ..Self::default()
        };
        for (definition, outcome) in jobs {
            let list = match outcome {
                Some(Outcome::Failed(_)) => &mut ends.failed,
                Some(Outcome::Succeeded | Outcome::Reused { .. }) => &mut ends.succeeded,
                Some(Outcome::Skipped { .. } | Outcome::Cancelled { .. }) | None => &mut ends.other,
            };
            list.insert(definition.to_owned());
        }
        ends
    }

    /// The pipeline's own end; none: there was nothing to run.
    pub(super) fn state(&self) -> Option<State> {
        if self.unplanned || !self.failed.is_empty() {
            Some(State::Failed)
        } else if !self.other.is_empty() {
            Some(State::Cancelled)
        } else if self.succeeded.is_empty() {
            None
        } else {
            Some(State::Succeeded)
        }
    }
}

/// Looks back from a pipeline that succeeded: did something of it fail when it ran last?
#[derive(Debug)]
pub(super) struct Looking {
    /// Definitions whose last end is not found yet.
    open: BTreeSet<String>,
}

impl Looking {
    pub(super) fn back_from(ends: &Ends) -> Self {
        Self {
            open: ends.succeeded.clone(),
        }
    }

    /// Looks at the pipeline before; none: that is not enough to tell.
    pub(super) fn at(&mut self, before: &Ends) -> Option<bool> {
        if self.open.is_empty() {
            return Some(false);
        }
        if before.unplanned || !self.open.is_disjoint(&before.failed) {
            return Some(true);
        }
        // A member of a matrix that was cancelled says nothing of its definition.
        let told = |definition: &String| {
            before.succeeded.contains(definition) && !before.other.contains(definition)
        };
        self.open.retain(|definition| !told(definition));
        self.open.is_empty().then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Failure, FailureKind};

    use super::*;

    fn failed() -> Outcome {
        Outcome::Failed(Failure::new(FailureKind::CommandFailed, "exit code 1"))
    }

    fn cancelled() -> Outcome {
        Outcome::Cancelled { by: "ana".into() }
    }

    fn ends(jobs: &[(&str, Outcome)]) -> Ends {
        Ends::of(
            false,
            jobs.iter().map(|(name, outcome)| (*name, Some(outcome))),
        )
    }

    fn unplanned() -> Ends {
        Ends::of(true, [])
    }

    #[test]
    fn one_word_stands_for_all_jobs() {
        let (good, bad, ended) = (Outcome::Succeeded, failed(), cancelled());
        for (jobs, state) in [
            (vec![], None),
            (vec![("a", good.clone())], Some(State::Succeeded)),
            (
                vec![("a", good.clone()), ("b", bad.clone())],
                Some(State::Failed),
            ),
            (vec![("a", ended.clone()), ("b", bad)], Some(State::Failed)),
            (vec![("a", ended), ("b", good)], Some(State::Cancelled)),
        ] {
            assert_eq!(ends(&jobs).state(), state, "{jobs:?}");
        }
        assert_eq!(unplanned().state(), Some(State::Failed));
    }

    #[test]
    fn what_failed_when_it_ran_last_has_recovered() {
        let (good, bad, ended) = (Outcome::Succeeded, failed(), cancelled());
        let now = ends(&[("a", good.clone()), ("b", good.clone())]);
        for (before, recovered) in [
            (vec![ends(&[("a", bad.clone()), ("b", good.clone())])], true),
            (
                vec![ends(&[("a", good.clone()), ("b", good.clone())])],
                false,
            ),
            // What ran alone says nothing of the other.
            (
                vec![ends(&[("a", good.clone())]), ends(&[("b", bad.clone())])],
                true,
            ),
            (
                vec![
                    ends(&[("a", good.clone()), ("b", good.clone())]),
                    ends(&[("a", bad.clone())]),
                ],
                false,
            ),
            (
                vec![
                    ends(&[("a", ended), ("b", good)]),
                    ends(&[("a", bad.clone())]),
                ],
                true,
            ),
            (vec![ends(&[("c", bad)])], false),
            (vec![unplanned()], true),
            (vec![], false),
        ] {
            let mut looking = Looking::back_from(&now);
            let found = before.iter().find_map(|ends| looking.at(ends));
            assert_eq!(found.unwrap_or(false), recovered, "{before:?}");
        }
    }
}
