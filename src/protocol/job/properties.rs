//! What holds of a job whatever happens to it, in whatever order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::outcome::FailureKind;

/// As many attempts meet as there can be at a time: one that is believed, one that was, and a stranger.
const ATTEMPTS: usize = 3;

fn attempt(number: usize) -> AttemptId {
    format!("01{number:024}").parse().unwrap()
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Succeeded),
        Just(Outcome::Cancelled { by: "ada".into() }),
        Just(Outcome::Failed(Failure::new(FailureKind::CellRaised, "x"))),
    ]
}

fn any_move() -> impl Strategy<Value = Move> {
    let of = || (0..ATTEMPTS).prop_map(attempt);
    let fault = || Failure::new(FailureKind::AgentLost, "not seen for 10m");
    prop_oneof![
        Just(Move::Unblock),
        Just(Move::Approve),
        of().prop_map(|attempt| Move::Lease { attempt }),
        (of(), 0..9_i64).prop_map(|(attempt, at)| Move::Start {
            attempt,
            at: Timestamp(at)
        }),
        Just(Move::Cancel { by: "ada".into() }),
        (of(), any_outcome()).prop_map(|(attempt, outcome)| Move::Finish { attempt, outcome }),
        of().prop_map(move |attempt| Move::Retry {
            attempt,
            failure: fault()
        }),
        of().prop_map(|attempt| Move::Requeue { attempt }),
        (of(), 0..9_i64).prop_map(|(attempt, since)| Move::Resume {
            attempt,
            since: Timestamp(since)
        }),
        any_outcome().prop_map(|outcome| Move::Settle { outcome }),
    ]
}

fn any_start() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Queued),
        Just(State::Blocked { on: Block::Needs }),
        Just(State::Blocked {
            on: Block::Approval
        }),
        Just(State::Blocked {
            on: Block::Equal {
                job: format!("01{:024}", 7).parse().unwrap()
            }
        }),
    ]
}

/// The moves that were taken, each with the states before and after it.
fn taken(start: &State, moves: &[Move]) -> Vec<(State, Move, State)> {
    let (mut state, mut taken) = (start.clone(), Vec::new());
    for step in moves {
        if let Ok(after) = next(&state, step.clone()) {
            taken.push((state, step.clone(), after.clone()));
            state = after;
        }
    }
    taken
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_over_stays_over_and_one_result_is_believed(
        start in any_start(), moves in prop::collection::vec(any_move(), 0..40),
    ) {
        let taken = taken(&start, &moves);
        let ends = taken.iter().filter(|(_, _, after)| after.outcome().is_some()).count();
        prop_assert!(ends <= 1, "{taken:?}");
        for (before, step, after) in &taken {
            prop_assert!(before.outcome().is_none());
            // The end is what was said, or the cancel that was asked for before.
            if let (Some(outcome), Move::Finish { outcome: said, .. } | Move::Settle { outcome: said }) =
                (after.outcome(), step)
            {
                prop_assert_eq!(outcome, said);
            }
        }
    }

    #[test]
    fn only_the_believed_attempt_moves_its_job(
        start in any_start(), moves in prop::collection::vec(any_move(), 0..40),
    ) {
        for (before, step, after) in taken(&start, &moves) {
            match &step {
                Move::Start { attempt, .. }
                | Move::Finish { attempt, .. }
                | Move::Retry { attempt, .. }
                | Move::Requeue { attempt } => prop_assert_eq!(before.attempt(), Some(attempt)),
                Move::Lease { attempt } => {
                    prop_assert_eq!(&before, &State::Queued);
                    prop_assert_eq!(after.attempt(), Some(attempt));
                }
                // Another one that has started is never taken its job from.
                Move::Resume { attempt, .. } => {
                    prop_assert!(["queued", "leased"].contains(&before.word()));
                    prop_assert_eq!(after.attempt(), Some(attempt));
                }
                Move::Unblock | Move::Approve | Move::Settle { .. } => {
                    prop_assert_eq!(before.attempt(), None);
                    prop_assert_eq!(after.attempt(), None);
                }
                // What runs is ended by its agent, not behind its back.
                Move::Cancel { .. } => prop_assert_eq!(before.attempt(), after.attempt()),
            }
        }
    }

    #[test]
    fn a_job_runs_only_by_a_lease_or_a_return_and_an_untrusted_one_by_a_person(
        start in any_start(), moves in prop::collection::vec(any_move(), 0..40),
    ) {
        let (mut had, mut approved) = (BTreeSet::new(), false);
        let held = start == State::Blocked { on: Block::Approval };
        for (before, step, after) in taken(&start, &moves) {
            if let Move::Lease { attempt } | Move::Resume { attempt, .. } = &step {
                had.insert(attempt.clone());
            }
            approved |= step == Move::Approve;
            prop_assert!(after.attempt().is_none_or(|attempt| had.contains(attempt)));
            let waits = after.outcome().is_some() || after.word() == "blocked";
            prop_assert!(!held || approved || waits, "{:?}", after);
            // A stop ends in an end.
            prop_assert!(before.word() != "stopping" || after.outcome().is_some(), "{:?}", after);
        }
    }
}
