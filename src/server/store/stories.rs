//! Stories of the core rows, on both databases.

mod overview;
mod tracking;
mod upgrade;

use protocol::job::Move;
use protocol::{AttemptId, Digest, Outcome, Timestamp};

use super::jobs::Job;
use super::pipelines::Pipeline;
use super::projects::{Delivery, Project, Word};
use super::testing::{self, on_both};
use super::{Connection, StoreError, agents, attempts, events, jobs, pipelines, projects, queue};

async fn seed(db: &mut Connection) -> (Project, Pipeline, Job) {
    let project = testing::project("digits");
    projects::insert(db, &project).await.unwrap();
    let pipeline = testing::pipeline(&project, 1);
    pipelines::insert(db, &pipeline).await.unwrap();
    let job = testing::job(&pipeline, "train");
    jobs::insert(db, &job).await.unwrap();
    (project, pipeline, job)
}

#[tokio::test]
async fn rows_read_back_as_they_were_written() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (project, pipeline, job) = seed(&mut tx).await;
        tx.commit().await.unwrap();
        let mut db = store.read().await.unwrap();
        let all = projects::all(&mut db).await.unwrap();
        assert_eq!(all, std::slice::from_ref(&project));
        assert_eq!(
            pipelines::get(&mut db, &pipeline.id).await.unwrap(),
            pipeline
        );
        assert_eq!(jobs::get(&mut db, &job.id).await.unwrap(), job);
        assert_eq!(
            jobs::with_key(&mut db, &project.id, job.key.as_ref().unwrap())
                .await
                .unwrap(),
            [job]
        );
        assert_eq!(
            jobs::counts(&mut db).await.unwrap(),
            [("queued".to_owned(), 1)]
        );
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_the_database_ended_by_itself_stops_no_later_one() {
    on_both(|store| async move {
        for _ in 0..2 {
            let mut tx = store.begin().await.unwrap();
            seed(&mut tx).await;
            // As SQLite does where its disk is full.
            sqlx::raw_sql("ROLLBACK").execute(&mut *tx).await.unwrap();
            drop(tx);
        }
        let mut tx = store.begin().await.unwrap();
        let (project, ..) = seed(&mut tx).await;
        tx.commit().await.unwrap();
        let mut db = store.read().await.unwrap();
        assert_eq!(projects::all(&mut db).await.unwrap(), [project]);
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_nothing() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        seed(&mut tx).await;
        drop(tx);
        let mut db = store.read().await.unwrap();
        assert!(projects::all(&mut db).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_state_is_written_only_by_who_read_the_newest() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (_, _, job) = seed(&mut tx).await;
        let at = Timestamp(5);
        let lease = |attempt: &AttemptId| Move::Lease {
            attempt: attempt.clone(),
        };
        let (first, second) = (AttemptId::generate(), AttemptId::generate());
        let leased = jobs::advance(&mut tx, &job, lease(&first), None, at)
            .await
            .unwrap();
        assert_eq!(leased.version, job.version + 1);
        let late = jobs::advance(&mut tx, &job, lease(&second), None, at).await;
        assert!(matches!(late, Err(StoreError::Changed(_))), "{late:?}");
        let illegal = jobs::advance(&mut tx, &leased, Move::Unblock, None, at).await;
        assert!(matches!(illegal, Err(StoreError::Illegal(_))));
        let start = Move::Start {
            attempt: first.clone(),
            at,
        };
        let running = jobs::advance(&mut tx, &leased, start, Some(1), at)
            .await
            .unwrap();
        assert_eq!(running.generation, 1);
        assert_eq!(jobs::get(&mut tx, &job.id).await.unwrap(), running);
        let finish = Move::Finish {
            attempt: first,
            outcome: Outcome::Succeeded,
        };
        let done = jobs::advance(&mut tx, &running, finish, None, Timestamp(9))
            .await
            .unwrap();
        assert_eq!(done.finished_at, Some(Timestamp(9)));
    })
    .await;
}

#[tokio::test]
async fn a_gpu_is_booked_once_until_it_is_released() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (project, _, job) = seed(&mut tx).await;
        let agent = testing::agent("gpu-1");
        let id = agents::register(&mut tx, &agent).await.unwrap();
        let first = testing::attempt(&project, &job, &id, 1, &["GPU-a"]);
        attempts::insert(&mut tx, &first).await.unwrap();
        tx.commit().await.unwrap();

        let second = testing::attempt(&project, &job, &id, 2, &["GPU-a"]);
        let mut tx = store.begin().await.unwrap();
        assert!(attempts::insert(&mut tx, &second).await.is_err());
        drop(tx);
        let mut tx = store.begin().await.unwrap();
        assert_eq!(queue::bookings(&mut tx).await.unwrap()[0].gpus, ["GPU-a"]);
        assert!(attempts::release(&mut tx, &first.id).await.unwrap());
        assert!(!attempts::release(&mut tx, &first.id).await.unwrap());
        attempts::insert(&mut tx, &second).await.unwrap();
        assert_eq!(
            attempts::get(&mut tx, &second.id).await.unwrap(),
            second,
            "an attempt reads back"
        );
    })
    .await;
}

#[tokio::test]
async fn a_token_registers_once_and_an_agent_keeps_its_id() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let token = Digest::of("token");
        agents::insert_token(&mut tx, &token, Timestamp(1), Timestamp(100))
            .await
            .unwrap();
        let late = agents::use_token(&mut tx, &token, Timestamp(100)).await;
        assert!(!late.unwrap(), "too old");
        assert!(
            agents::use_token(&mut tx, &token, Timestamp(9))
                .await
                .unwrap()
        );
        assert!(
            !agents::use_token(&mut tx, &token, Timestamp(9))
                .await
                .unwrap()
        );
        let first = agents::register(&mut tx, &testing::agent("gpu-1"))
            .await
            .unwrap();
        let mut again = testing::agent("gpu-1");
        again.secret_hash = Digest::of("another");
        assert_eq!(agents::register(&mut tx, &again).await.unwrap(), first);
        let found = agents::by_secret(&mut tx, &again.secret_hash)
            .await
            .unwrap();
        assert_eq!(found.unwrap().id, first);
    })
    .await;
}

#[tokio::test]
async fn events_come_back_in_order() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (project, _, job) = seed(&mut tx).await;
        let id = agents::register(&mut tx, &testing::agent("a"))
            .await
            .unwrap();
        let attempt = testing::attempt(&project, &job, &id, 1, &[]);
        attempts::insert(&mut tx, &attempt).await.unwrap();
        assert_eq!(events::next_wanted(&mut tx, &attempt.id).await.unwrap(), 1);
        let lines: Vec<_> = (1..=250).map(|seq| (seq, format!("line {seq}"))).collect();
        events::append(&mut tx, &attempt.id, &lines).await.unwrap();
        assert_eq!(
            events::next_wanted(&mut tx, &attempt.id).await.unwrap(),
            251
        );
        let some = events::from(&mut tx, &attempt.id, 200, 10).await.unwrap();
        assert_eq!(some, lines[199..209]);
    })
    .await;
}

fn delivery(project: &Project, id: &str, at: i64) -> Delivery {
    Delivery {
        project: project.id.clone(),
        delivery: id.to_owned(),
        event: "push".to_owned(),
        body: "{}".to_owned(),
        asks: false,
        comment: None,
        received_at: Timestamp(at),
    }
}

#[tokio::test]
async fn deliveries_are_handled_up_to_a_time_and_old_ones_forgotten() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let project = testing::project("digits");
        projects::insert(&mut tx, &project).await.unwrap();
        for (id, at) in [("a", 10), ("b", 20), ("c", 30), ("d", 40)] {
            let row = delivery(&project, id, at);
            assert!(projects::insert_delivery(&mut tx, &row).await.unwrap());
        }
        assert_eq!(
            projects::with_unhandled(&mut tx).await.unwrap(),
            std::slice::from_ref(&project.id)
        );
        projects::deliveries_handled(&mut tx, &project.id, Timestamp(30))
            .await
            .unwrap();
        let left = projects::unhandled_deliveries(&mut tx, 9).await.unwrap();
        assert_eq!(left, [delivery(&project, "d", 40)]);

        // One is too old, one is too many.
        let hints = Word::Hints;
        projects::forget_deliveries(&mut tx, &project.id, hints, Timestamp(15), 2)
            .await
            .unwrap();
        for (id, forgotten) in [("a", true), ("b", true), ("c", false), ("d", false)] {
            let row = delivery(&project, id, 50);
            let new = projects::insert_delivery(&mut tx, &row).await.unwrap();
            assert_eq!(new, forgotten, "{id}");
        }
        projects::deliveries_handled(&mut tx, &project.id, Timestamp(50))
            .await
            .unwrap();
        let open = projects::has_unhandled(&mut tx, &project.id).await.unwrap();
        assert!(!open);
        assert!(projects::with_unhandled(&mut tx).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_a_person_asked_for_outlives_any_number_of_newer_messages_until_it_is_done() {
    on_both(|store| async move {
        let project = testing::project("churn");
        let mut tx = store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        for (id, at) in [("done", 10), ("open", 20)] {
            let row = Delivery {
                asks: true,
                ..delivery(&project, id, at)
            };
            assert!(projects::insert_delivery(&mut tx, &row).await.unwrap());
        }
        projects::delivery_handled(&mut tx, &project.id, "done", Timestamp(25))
            .await
            .unwrap();
        for at in 30..40 {
            let row = delivery(&project, &at.to_string(), at);
            assert!(projects::insert_delivery(&mut tx, &row).await.unwrap());
        }
        // There are many newer hints: they push out each other, and neither what is open nor what was done.
        let forget = async |tx: &mut Connection, word, before| {
            projects::forget_deliveries(tx, &project.id, word, Timestamp(before), 2)
                .await
                .unwrap();
        };
        forget(&mut tx, Word::Hints, 0).await;
        forget(&mut tx, Word::Asks, 0).await;
        let left = projects::unhandled_deliveries(&mut tx, 99).await.unwrap();
        let left: Vec<_> = left.iter().map(|row| row.delivery.as_str()).collect();
        assert_eq!(left, ["open", "38", "39"]);
        let again = Delivery {
            asks: true,
            ..delivery(&project, "done", 50)
        };
        let new = projects::insert_delivery(&mut tx, &again).await.unwrap();
        assert!(!new, "it would be obeyed again");
        // Both are old: what was done is forgotten, what is open is not.
        forget(&mut tx, Word::Asks, 60).await;
        let asked = projects::asked(&mut tx, Timestamp(60), 9).await.unwrap();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].delivery, "open");
        assert!(projects::insert_delivery(&mut tx, &again).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_comment_is_one_whoever_tells_of_it() {
    on_both(|store| async move {
        let (project, other) = (testing::project("one"), testing::project("other"));
        let mut tx = store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        projects::insert(&mut tx, &other).await.unwrap();
        let told = Delivery {
            asks: true,
            comment: Some(7),
            ..delivery(&project, "of the forge", 10)
        };
        let listed = Delivery {
            delivery: "comment 7".to_owned(),
            event: projects::LISTED.to_owned(),
            received_at: Timestamp(20),
            ..told.clone()
        };
        assert!(projects::insert_delivery(&mut tx, &told).await.unwrap());
        for again in [&told, &listed] {
            assert!(!projects::insert_delivery(&mut tx, again).await.unwrap());
        }
        for new in [
            Delivery {
                comment: Some(8),
                delivery: "comment 8".to_owned(),
                ..listed.clone()
            },
            Delivery {
                project: other.id.clone(),
                ..listed
            },
        ] {
            assert!(projects::insert_delivery(&mut tx, &new).await.unwrap());
        }
        let last = projects::last_delivery(&mut tx, &project.id).await.unwrap();
        assert_eq!(
            last,
            Some(("push".to_owned(), Timestamp(10))),
            "a list is no message"
        );
        let last = projects::last_delivery(&mut tx, &other.id).await.unwrap();
        assert_eq!(last, None);
    })
    .await;
}

#[tokio::test]
async fn each_project_has_its_turn_and_what_was_tried_comes_last() {
    on_both(|store| async move {
        let (many, few) = (testing::project("many"), testing::project("few"));
        let mut tx = store.begin().await.unwrap();
        projects::insert(&mut tx, &many).await.unwrap();
        projects::insert(&mut tx, &few).await.unwrap();
        let row = |project: &Project, comment: u64, at| Delivery {
            asks: true,
            comment: Some(comment),
            ..delivery(project, &format!("comment {comment}"), at)
        };
        // Of the same moment the forge's numbers count, and not as text.
        for comment in 998..1_004 {
            let row = row(&many, comment, 10);
            assert!(projects::insert_delivery(&mut tx, &row).await.unwrap());
        }
        let late = row(&few, 1, 20);
        assert!(projects::insert_delivery(&mut tx, &late).await.unwrap());
        let asked = async |tx: &mut Connection, now, limit| {
            let asked = projects::asked(tx, Timestamp(now), limit).await.unwrap();
            let of = |project: &Project| {
                let of_it = asked.iter().filter(|row| row.project == project.id);
                of_it.map(|row| row.comment.unwrap()).collect::<Vec<_>>()
            };
            (of(&many), of(&few))
        };
        assert_eq!(asked(&mut tx, 30, 3).await, (vec![998, 999], vec![1]));

        // The first could not be done: nothing of its project is tried before its time, and it comes behind the others.
        let first = "comment 998";
        projects::asked_later(&mut tx, &many.id, first, Timestamp(40))
            .await
            .unwrap();
        assert_eq!(asked(&mut tx, 39, 9).await, (vec![], vec![1]));
        let others = vec![999, 1_000, 1_001, 1_002, 1_003];
        assert_eq!(asked(&mut tx, 40, 9).await, (others.clone(), vec![1]));
        let all = [others, vec![998]].concat();
        assert_eq!(asked(&mut tx, 41, 9).await, (all, vec![1]));

        // The clock went back: nobody waits for what was to be in years.
        let far = Timestamp(1_000_000_000_000);
        projects::asked_later(&mut tx, &many.id, first, far)
            .await
            .unwrap();
        assert_eq!(asked(&mut tx, 41, 9).await.0.len(), 6);
    })
    .await;
}
