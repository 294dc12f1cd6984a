//! The job's state machine. [`next`] is the only function that knows the moves.

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, JobId};
use crate::outcome::{Failure, Outcome};
use crate::units::Timestamp;

/// Where a job stands. It holds everything; there are no booleans beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It waits for something other than a host.
    Blocked {
        /// For what.
        on: Block,
    },
    /// It waits for a host.
    Queued,
    /// An attempt was given to an agent, which has not said that it started.
    Leased {
        /// That attempt.
        attempt: AttemptId,
    },
    /// The agent works on it.
    Running {
        /// The believed attempt.
        attempt: AttemptId,
        /// When the agent said so.
        since: Timestamp,
    },
    /// The agent was told to end it and has not said that it did.
    Stopping {
        /// The attempt being ended.
        attempt: AttemptId,
        /// Who or what asked.
        by: String,
    },
    /// It is over.
    Finished {
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
    },
}

/// What a blocked job waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Block {
    /// Jobs of the same pipeline that must succeed first.
    Needs,
    /// A person, who looks at an untrusted commit first.
    Approval,
    /// An equal job that is still running and whose result will stand for this one.
    Equal {
        /// That job.
        job: JobId,
    },
}

impl State {
    /// The word for tables: `blocked`, `queued`, `leased`, `running`, `stopping`, or the outcome's.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            State::Blocked { .. } => "blocked",
            State::Queued => "queued",
            State::Leased { .. } => "leased",
            State::Running { .. } => "running",
            State::Stopping { .. } => "stopping",
            State::Finished { outcome } => outcome.word(),
        }
    }

    /// The attempt that may write to the job now.
    #[must_use]
    pub fn attempt(&self) -> Option<&AttemptId> {
        match self {
            State::Leased { attempt }
            | State::Running { attempt, .. }
            | State::Stopping { attempt, .. } => Some(attempt),
            State::Blocked { .. } | State::Queued | State::Finished { .. } => None,
        }
    }

    /// The outcome of a finished job.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            State::Finished { outcome } => Some(outcome),
            State::Blocked { .. }
            | State::Queued
            | State::Leased { .. }
            | State::Running { .. }
            | State::Stopping { .. } => None,
        }
    }
}

/// What happens to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// What it waited for is there.
    Unblock,
    /// A person lets its untrusted commit run.
    Approve,
    /// The scheduler gave it to an agent.
    Lease {
        /// The new attempt.
        attempt: AttemptId,
    },
    /// The agent says that it works on it.
    Start {
        /// The attempt that started.
        attempt: AttemptId,
        /// When.
        at: Timestamp,
    },
    /// A person or a rule ends it.
    Cancel {
        /// Who, in words.
        by: String,
    },
    /// The agent's last word on an attempt.
    Finish {
        /// The attempt.
        attempt: AttemptId,
        /// What the agent found.
        outcome: Outcome,
    },
    /// The attempt failed by the platform and there are attempts left.
    Retry {
        /// The attempt.
        attempt: AttemptId,
        /// Why; kept with the attempt.
        failure: Failure,
    },
    /// The attempt ended for its host's sake (drain): the job waits for another one, at nobody's fault.
    Requeue {
        /// The attempt.
        attempt: AttemptId,
    },
    /// An agent that was believed lost came back before its replacement started.
    Resume {
        /// The earlier attempt, believed again.
        attempt: AttemptId,
        /// When it had started.
        since: Timestamp,
    },
    /// It ends without an attempt: reused, skipped, or failed before it could run.
    Settle {
        /// How.
        outcome: Outcome,
    },
}

/// A move that the state does not allow. The caller read an old state, or an agent is behind.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("a job that is {from} cannot {wanted}")]
pub struct IllegalMove {
    /// The state's word.
    pub from: &'static str,
    /// The move's verb.
    pub wanted: &'static str,
}

impl Move {
    fn verb(&self) -> &'static str {
        match self {
            Move::Unblock => "be unblocked",
            Move::Approve => "be approved",
            Move::Lease { .. } => "be leased",
            Move::Start { .. } => "start",
            Move::Cancel { .. } => "be cancelled",
            Move::Finish { .. } => "finish",
            Move::Retry { .. } => "be retried",
            Move::Requeue { .. } => "be queued again",
            Move::Resume { .. } => "be resumed",
            Move::Settle { .. } => "be settled",
        }
    }
}

/// The state after `step`.
///
/// # Errors
/// [`IllegalMove`] where the state does not know the move, or the attempt is not the believed one.
pub fn next(state: &State, step: Move) -> Result<State, IllegalMove> {
    let illegal = IllegalMove {
        from: state.word(),
        wanted: step.verb(),
    };
    let believed = |attempt: &AttemptId| state.attempt() == Some(attempt);
    match (state, step) {
        (
            State::Blocked {
                on: Block::Approval,
            },
            Move::Approve,
        ) => Ok(State::Blocked { on: Block::Needs }),
        // Only a person's word ends the wait for one.
        (
            State::Blocked {
                on: Block::Needs | Block::Equal { .. },
            },
            Move::Unblock,
        ) => Ok(State::Queued),
        (State::Queued, Move::Lease { attempt }) => Ok(State::Leased { attempt }),

        (State::Leased { .. }, Move::Start { attempt, at }) if believed(&attempt) => {
            Ok(State::Running { attempt, since: at })
        }
        (State::Queued | State::Leased { .. }, Move::Resume { attempt, since }) => {
            Ok(State::Running { attempt, since })
        }

        (State::Blocked { .. } | State::Queued, Move::Cancel { by }) => Ok(State::Finished {
            outcome: Outcome::Cancelled { by },
        }),
        (State::Leased { attempt } | State::Running { attempt, .. }, Move::Cancel { by }) => {
            Ok(State::Stopping {
                attempt: attempt.clone(),
                by,
            })
        }

        (State::Leased { .. } | State::Running { .. }, Move::Finish { attempt, outcome })
            if believed(&attempt) =>
        {
            Ok(State::Finished { outcome })
        }
        // A job that finished while it was being stopped keeps its own result.
        (State::Stopping { .. }, Move::Finish { attempt, outcome }) if believed(&attempt) => {
            Ok(State::Finished { outcome })
        }

        (
            State::Leased { .. } | State::Running { .. },
            Move::Retry { attempt, .. } | Move::Requeue { attempt },
        ) if believed(&attempt) => Ok(State::Queued),
        (State::Stopping { by, .. }, Move::Retry { attempt, .. }) if believed(&attempt) => {
            Ok(State::Finished {
                outcome: Outcome::Cancelled { by: by.clone() },
            })
        }

        (State::Blocked { .. } | State::Queued, Move::Settle { outcome }) => {
            Ok(State::Finished { outcome })
        }

        (
            State::Blocked { .. }
            | State::Queued
            | State::Leased { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Finished { .. },
            Move::Unblock
            | Move::Approve
            | Move::Lease { .. }
            | Move::Start { .. }
            | Move::Cancel { .. }
            | Move::Finish { .. }
            | Move::Retry { .. }
            | Move::Requeue { .. }
            | Move::Resume { .. }
            | Move::Settle { .. },
        ) => Err(illegal),
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::FailureKind;

    fn attempt() -> AttemptId {
        AttemptId::generate()
    }

    fn fault() -> Failure {
        Failure::new(FailureKind::AgentLost, "not seen for 10m")
    }

    #[test]
    fn the_straight_way() {
        let a = attempt();
        let mut state = State::Blocked { on: Block::Needs };
        for step in [
            Move::Unblock,
            Move::Lease { attempt: a.clone() },
            Move::Start {
                attempt: a.clone(),
                at: Timestamp(1),
            },
            Move::Finish {
                attempt: a.clone(),
                outcome: Outcome::Succeeded,
            },
        ] {
            state = next(&state, step).unwrap();
        }
        assert_eq!(
            state,
            State::Finished {
                outcome: Outcome::Succeeded
            }
        );
    }

    #[test]
    fn an_untrusted_job_waits_for_a_person_first() {
        let held = State::Blocked {
            on: Block::Approval,
        };
        assert!(next(&held, Move::Unblock).is_err());
        let approved = next(&held, Move::Approve).unwrap();
        assert_eq!(approved, State::Blocked { on: Block::Needs });
        assert!(next(&approved, Move::Approve).is_err());
        assert_eq!(next(&approved, Move::Unblock).unwrap(), State::Queued);
    }

    #[test]
    fn a_finished_job_stays_finished() {
        let state = State::Finished {
            outcome: Outcome::Succeeded,
        };
        let a = attempt();
        for step in [
            Move::Unblock,
            Move::Approve,
            Move::Lease { attempt: a.clone() },
            Move::Start {
                attempt: a.clone(),
                at: Timestamp(1),
            },
            Move::Cancel { by: "x".into() },
            Move::Finish {
                attempt: a.clone(),
                outcome: Outcome::Succeeded,
            },
            Move::Retry {
                attempt: a.clone(),
                failure: fault(),
            },
            Move::Requeue { attempt: a.clone() },
            Move::Resume {
                attempt: a,
                since: Timestamp(0),
            },
            Move::Settle {
                outcome: Outcome::Succeeded,
            },
        ] {
            assert!(next(&state, step).is_err());
        }
    }

    #[test]
    fn only_the_believed_attempt_may_write() {
        let state = State::Running {
            attempt: attempt(),
            since: Timestamp(1),
        };
        let stranger = attempt();
        let finish = Move::Finish {
            attempt: stranger.clone(),
            outcome: Outcome::Succeeded,
        };
        assert!(next(&state, finish).is_err());
        assert!(
            next(
                &state,
                Move::Retry {
                    attempt: stranger,
                    failure: fault()
                }
            )
            .is_err()
        );
    }

    #[test]
    fn a_cancel_waits_for_the_agent() {
        let a = attempt();
        let running = State::Running {
            attempt: a.clone(),
            since: Timestamp(1),
        };
        let stopping = next(&running, Move::Cancel { by: "ana".into() }).unwrap();
        assert_eq!(stopping.word(), "stopping");
        let outcome = Outcome::Cancelled { by: "ana".into() };
        let finish = Move::Finish {
            attempt: a.clone(),
            outcome: outcome.clone(),
        };
        assert_eq!(
            next(&stopping, finish).unwrap(),
            State::Finished {
                outcome: outcome.clone()
            }
        );
        let lost = Move::Retry {
            attempt: a,
            failure: fault(),
        };
        assert_eq!(next(&stopping, lost).unwrap(), State::Finished { outcome });
    }

    #[test]
    fn an_agent_that_returns_keeps_its_job() {
        let (old, new) = (attempt(), attempt());
        let queued = next(
            &State::Running {
                attempt: old.clone(),
                since: Timestamp(1),
            },
            Move::Retry {
                attempt: old.clone(),
                failure: fault(),
            },
        )
        .unwrap();
        let leased = next(
            &queued,
            Move::Lease {
                attempt: new.clone(),
            },
        )
        .unwrap();
        let resume = Move::Resume {
            attempt: old.clone(),
            since: Timestamp(1),
        };
        assert_eq!(
            next(&leased, resume.clone()).unwrap(),
            State::Running {
                attempt: old,
                since: Timestamp(1)
            }
        );
        let running = next(
            &leased,
            Move::Start {
                attempt: new,
                at: Timestamp(2),
            },
        )
        .unwrap();
        assert!(
            next(&running, resume).is_err(),
            "the replacement started: the old one is fenced"
        );
    }

    #[test]
    fn states_read_back() {
        for state in [
            State::Blocked {
                on: Block::Equal {
                    job: JobId::generate(),
                },
            },
            State::Queued,
            State::Stopping {
                attempt: attempt(),
                by: "x".into(),
            },
            State::Finished {
                outcome: Outcome::Failed(fault()),
            },
        ] {
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(
                serde_json::from_str::<State>(&json).unwrap(),
                state,
                "{json}"
            );
        }
    }
}
