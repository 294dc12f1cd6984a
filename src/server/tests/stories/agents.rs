//! Stories of agents: what is lost, repeated, late or given up leads to one believed result.

use std::time::{Duration, Instant};

use protocol::agent_api::AttemptOrder;
use protocol::event::{Artifact, ArtifactRole};
use protocol::{ByteSize, Digest, Failure, FailureKind, Outcome, Span};
use reqwest::StatusCode;
use server::pipelines;
use server::store::{attempts, events, queue};

use crate::support::{Agent, Times, on_both, released, report, running};

/// So short that a test can wait for it, so long that a busy machine does not trip over it.
const IMPATIENT: Times = Times {
    lost_after: Span(2_000),
    unreachable_after: Span(1_000),
};

fn platform_fault() -> Outcome {
    Outcome::Failed(Failure::new(FailureKind::ExecutorFailed, "no engine"))
}

#[tokio::test]
async fn an_order_whose_answer_was_lost_is_sent_again() {
    on_both(Times::default(), |world| async move {
        let job = world.queue_job("train").await;
        let agent = world.agent("a").await;
        let lost = agent.order().await;
        let again = agent.order().await;
        assert_eq!(lost, again);
        assert_eq!(world.word(&job.id).await, "leased");
        let answer = agent.poll(vec![running(&again)], Span(0)).await;
        assert!(answer.start.is_empty());
        assert_eq!(world.word(&job.id).await, "running");
        assert_eq!(world.job(&job.id).await.generation, 1);
    })
    .await;
}

#[tokio::test]
async fn a_held_poll_is_answered_as_soon_as_there_is_work() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        let held = tokio::spawn({
            let agent = agent.clone();
            async move { agent.poll(Vec::new(), Span::secs(20)).await }
        });
        let job = world.queue_job("train").await;
        let answer = tokio::time::timeout(std::time::Duration::from_secs(10), held)
            .await
            .expect("long before the poll's own end")
            .unwrap();
        assert_eq!(answer.start[0].job, job.id);
    })
    .await;
}

#[tokio::test]
async fn a_report_that_comes_twice_counts_once_and_only_its_agent_may_send_it() {
    on_both(Times::default(), |world| async move {
        let job = world.queue_job("train").await;
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        let stranger = world.agent("b").await;
        let done = report(Outcome::Succeeded);
        let (status, error) = stranger.finish(&order, &done).await.unwrap_err();
        assert_eq!(
            (status, error.code.as_str()),
            (StatusCode::CONFLICT, "abandoned")
        );
        assert!(agent.finish(&order, &done).await.unwrap().accepted);
        let late = report(platform_fault());
        assert!(agent.finish(&order, &late).await.unwrap().accepted);
        assert_eq!(world.outcome(&job.id).await, Outcome::Succeeded);
    })
    .await;
}

#[tokio::test]
async fn hardware_is_free_when_the_agent_says_so_not_when_the_job_ends() {
    on_both(Times::default(), |world| async move {
        world.queue_job("train").await;
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        agent
            .finish(&order, &report(Outcome::Succeeded))
            .await
            .unwrap();
        let mut unclean = running(&order);
        unclean.phase = protocol::event::Phase::Finished;
        agent.poll(vec![unclean], Span(0)).await;
        let booked = || async {
            let mut db = world.server().store.read().await.unwrap();
            queue::bookings(&mut db).await.unwrap().len()
        };
        assert_eq!(booked().await, 1);
        let clean = released(&order.attempt, order.generation);
        agent.poll(vec![clean], Span(0)).await;
        assert_eq!(booked().await, 0);
    })
    .await;
}

#[tokio::test]
async fn events_that_repeat_or_leave_a_gap_are_stored_once_and_in_order() {
    on_both(Times::default(), |world| async move {
        world.queue_job("train").await;
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        assert_eq!(agent.events(&order, 1, 3).await.unwrap().next, 4);
        assert_eq!(agent.events(&order, 5, 6).await.unwrap().next, 4, "a gap");
        assert_eq!(agent.events(&order, 2, 6).await.unwrap().next, 7, "overlap");
        assert_eq!(agent.events(&order, 1, 6).await.unwrap().next, 7, "repeat");
        let mut db = world.server().store.read().await.unwrap();
        let kept = events::from(&mut db, &order.attempt, 1, 100).await.unwrap();
        let numbers: Vec<u64> = kept.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_was_replaced_is_told_to_end() {
    on_both(IMPATIENT, |world| async move {
        let job = world.queue_job("train").await;
        let lost = world.agent("a").await;
        let old = lost.begin().await;
        let other = world.agent("b").await;
        let new = other.begin().await;
        assert!(new.generation > old.generation);

        let (status, error) = lost.events(&old, 1, 1).await.unwrap_err();
        assert_eq!(
            (status, error.code.as_str()),
            (StatusCode::CONFLICT, "abandoned")
        );
        let late = lost.finish(&old, &report(Outcome::Succeeded)).await;
        assert_eq!(late.unwrap_err().1.code, "abandoned");
        let answer = lost.poll(vec![running(&old)], Span(0)).await;
        assert_eq!(answer.abandoned, [old.attempt]);

        let failed = Outcome::Failed(Failure::new(FailureKind::CellRaised, "ValueError"));
        other.finish(&new, &report(failed.clone())).await.unwrap();
        assert_eq!(world.outcome(&job.id).await, failed);
    })
    .await;
}

#[tokio::test]
async fn a_job_may_say_how_long_its_agent_may_be_silent_and_how_long_it_takes_to_end() {
    on_both(IMPATIENT, |world| async move {
        let patient = world
            .queue_job_with("patient", |spec| {
                spec.limits.lost_after = Some(Span::hours(1));
                spec.limits.grace = Some(Span::secs(90));
            })
            .await;
        let lost = world.agent("a").await;
        let old = lost.begin().await;
        let other = world.agent("b").await;
        let hasty = world.queue_job("hasty").await;
        let order = other.begin().await;
        assert_eq!(order.job, hasty.id);
        // Both agents are silent for longer than the server allows, and one job allows more.
        let (other_job, patient_job) = (hasty.id.clone(), patient.id.clone());
        world
            .until("the hasty one is queued again", || async {
                world.word(&other_job).await == "queued"
            })
            .await;
        assert_eq!(world.word(&patient_job).await, "running");
        pipelines::cancel_by_hand(world.server(), &patient.id, "ana")
            .await
            .unwrap();
        let answer = lost.poll(vec![running(&old)], Span(0)).await;
        assert_eq!(answer.stop[0].grace, Span::secs(90));
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_comes_back_before_its_replacement_started_keeps_its_job() {
    on_both(IMPATIENT, |world| async move {
        let job = world.queue_job("train").await;
        let lost = world.agent("a").await;
        let old = lost.begin().await;
        let other = world.agent("b").await;
        // The replacement is given out, but it has not started.
        let new = other.order().await;
        let answer = lost.poll(vec![running(&old)], Span(0)).await;
        assert!(answer.abandoned.is_empty() && answer.stop.is_empty());
        assert_eq!(world.job(&job.id).await.state.attempt(), Some(&old.attempt));
        let answer = other.poll(vec![running(&new)], Span(0)).await;
        assert_eq!(answer.abandoned, std::slice::from_ref(&new.attempt));
        lost.events(&old, 1, 2).await.unwrap();
        lost.finish(&old, &report(Outcome::Succeeded))
            .await
            .unwrap();
        assert_eq!(world.outcome(&job.id).await, Outcome::Succeeded);
        // What never began has an end, and does not stand for the job.
        let mut db = world.server().store.read().await.unwrap();
        let all = attempts::of_job(&mut db, &job.id).await.unwrap();
        let all: Vec<_> = all.iter().map(|a| (&a.id, a.outcome.clone())).collect();
        let by = format!("the return of attempt {}", old.attempt);
        assert_eq!(
            all,
            [
                (&new.attempt, Some(Outcome::Cancelled { by })),
                (&old.attempt, Some(Outcome::Succeeded)),
            ]
        );
    })
    .await;
}

/// Runs the next attempt to a fault of the platform, wherever it goes.
async fn fails_somewhere(agents: [&Agent; 2]) -> AttemptOrder {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        for agent in agents {
            let Some(order) = agent.poll(Vec::new(), Span(0)).await.start.pop() else {
                continue;
            };
            agent.poll(vec![running(&order)], Span(0)).await;
            let report = report(platform_fault());
            agent.finish(&order, &report).await.unwrap();
            return order;
        }
        assert!(Instant::now() < until, "no host got the next attempt");
    }
}

#[tokio::test]
async fn a_platform_fault_is_tried_on_another_host_until_the_attempts_are_used_up() {
    on_both(Times::default(), |world| async move {
        let (a, b) = (world.agent("a").await, world.agent("b").await);
        let job = world.queue_job("train").await;
        for number in 1..=3 {
            assert_eq!(fails_somewhere([&a, &b]).await.number, number);
        }
        let Outcome::Failed(failure) = world.outcome(&job.id).await else {
            panic!("it failed")
        };
        assert_eq!(failure.kind, FailureKind::ExecutorFailed);
        assert!(failure.message.contains("after 3 attempts"), "{failure:?}");
        let mut db = world.server().store.read().await.unwrap();
        let tried = attempts::of_job(&mut db, &job.id).await.unwrap();
        assert_ne!(tried[0].agent, tried[1].agent, "another host goes first");
    })
    .await;
}

#[tokio::test]
async fn a_running_job_is_cancelled_when_its_agent_says_so() {
    on_both(Times::default(), |world| async move {
        let job = world.queue_job("train").await;
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        let stopping = pipelines::cancel_by_hand(world.server(), &job.id, "ana")
            .await
            .unwrap();
        assert_eq!(stopping.state.word(), "stopping");
        let answer = agent.poll(vec![running(&order)], Span::secs(5)).await;
        assert_eq!(
            (&answer.stop[0].attempt, answer.stop[0].by.as_str()),
            (&order.attempt, "ana")
        );
        let outcome = Outcome::Cancelled { by: "ana".into() };
        agent
            .finish(&order, &report(outcome.clone()))
            .await
            .unwrap();
        assert_eq!(world.outcome(&job.id).await, outcome);
    })
    .await;
}

#[tokio::test]
async fn an_order_that_is_cancelled_before_the_agent_has_it_is_over_at_once() {
    on_both(Times::default(), |world| async move {
        let job = world.queue_job("train").await;
        let agent = world.agent("a").await;
        let _lost = agent.order().await;
        pipelines::cancel_by_hand(world.server(), &job.id, "ana")
            .await
            .unwrap();
        let answer = agent.poll(Vec::new(), Span(0)).await;
        assert!(answer.start.is_empty());
        assert_eq!(world.word(&job.id).await, "cancelled");
        let mut db = world.server().store.read().await.unwrap();
        assert!(queue::bookings(&mut db).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_server_that_restarts_forgets_nothing_and_gives_up_nobody() {
    on_both(Times::default(), |world| async move {
        let job = world.queue_job("train").await;
        let mut agent = world.agent("a").await;
        let order = agent.begin().await;
        agent.events(&order, 1, 2).await.unwrap();
        let world = world.restart().await;
        agent.url = format!("{}/agent/v1", world.url);
        let answer = agent.poll(vec![running(&order)], Span(0)).await;
        assert!(answer.abandoned.is_empty() && answer.start.is_empty());
        assert_eq!(agent.events(&order, 2, 4).await.unwrap().next, 5);
        agent
            .finish(&order, &report(Outcome::Succeeded))
            .await
            .unwrap();
        assert_eq!(world.outcome(&job.id).await, Outcome::Succeeded);
    })
    .await;
}

#[tokio::test]
async fn a_blob_goes_on_where_it_stopped_and_only_its_agent_may_link_it() {
    on_both(Times::default(), |world| async move {
        world.queue_job("train").await;
        let agent = world.agent("a").await;
        let order = agent.begin().await;
        let digest = Digest::of("hello world");
        let url = format!("{}/blobs/{digest}", agent.url);
        let send = |agent: &crate::support::Agent, offset: u64, bytes: &'static str| {
            agent
                .http
                .patch(format!(
                    "{url}?attempt={}&offset={offset}&size=11",
                    order.attempt
                ))
                .bearer_auth(&agent.secret)
                .body(bytes)
                .send()
        };
        let offset = |answer: &reqwest::Response| {
            answer.headers()["trainyard-offset"]
                .to_str()
                .unwrap()
                .to_owned()
        };
        let first = send(&agent, 0, "hello").await.unwrap();
        assert_eq!(first.status(), StatusCode::NO_CONTENT);
        let wrong = send(&agent, 0, "hello").await.unwrap();
        assert_eq!(
            (wrong.status(), offset(&wrong)),
            (StatusCode::CONFLICT, "5".into())
        );
        let head = || agent.http.head(&url).bearer_auth(&agent.secret).send();
        let there = head().await.unwrap();
        assert_eq!(
            (there.status(), offset(&there)),
            (StatusCode::NOT_FOUND, "5".into())
        );
        let last = send(&agent, 5, " world").await.unwrap();
        assert_eq!(last.status(), StatusCode::CREATED);
        assert_eq!(head().await.unwrap().status(), StatusCode::OK);

        let linked = |path: &str, blob: &Digest| {
            let mut done = report(Outcome::Succeeded);
            done.artifacts.push(Artifact {
                role: ArtifactRole::Declared,
                path: path.to_owned(),
                blob: blob.clone(),
                size: ByteSize(11),
            });
            done
        };
        let foreign = linked("x", &Digest::of("not uploaded"));
        let (status, error) = agent.finish(&order, &foreign).await.unwrap_err();
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(error.message.contains("upload blob"), "{}", error.message);
        agent.finish(&order, &linked("x", &digest)).await.unwrap();

        let stranger = world.agent("b").await;
        let head = stranger.http.head(&url).bearer_auth(&stranger.secret);
        assert_eq!(head.send().await.unwrap().status(), StatusCode::NOT_FOUND);
        let read = format!("{url}?attempt={}", order.attempt);
        let mine = agent.http.get(&read).bearer_auth(&agent.secret);
        assert_eq!(
            mine.send().await.unwrap().text().await.unwrap(),
            "hello world"
        );
        let theirs = stranger.http.get(&read).bearer_auth(&stranger.secret);
        assert_eq!(theirs.send().await.unwrap().status(), StatusCode::CONFLICT);
    })
    .await;
}

#[tokio::test]
async fn a_wrong_secret_a_broken_body_and_a_huge_one_are_refused() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        let poll = |secret: &str, body: Vec<u8>| {
            agent
                .http
                .post(format!("{}/poll", agent.url))
                .bearer_auth(secret)
                .body(body)
                .send()
        };
        let wrong = poll("tys_wrong", b"{}".to_vec()).await.unwrap();
        assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
        let broken = poll(&agent.secret, b"{".to_vec()).await.unwrap();
        assert_eq!(broken.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let huge = poll(&agent.secret, vec![b' '; 17 << 20]).await.unwrap();
        assert_eq!(huge.status(), StatusCode::PAYLOAD_TOO_LARGE);
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_starts_nothing_and_says_so() {
    on_both(Times::default(), |world| async move {
        let mut agent = world.agent("a").await;
        world.queue_job("running").await;
        let order = agent.begin().await;
        // No disk has that much free.
        let world = world
            .restart_with(|config| config.disk_reserve = ByteSize(1 << 62))
            .await;
        agent.url = format!("{}/agent/v1", world.url);
        let waits = world.queue_job("waits").await;
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let reason = loop {
            if let Some(reason) = world.job(&waits.id).await.reason {
                break reason;
            }
            assert!(std::time::Instant::now() < until, "no reason was given");
            agent.poll(vec![running(&order)], Span(50)).await;
        };
        assert!(reason.contains("`disk_reserve`"), "{reason}");
        assert_eq!(world.word(&waits.id).await, "queued");

        let (status, error) = agent.events(&order, 1, 3).await.unwrap_err();
        assert_eq!((status.as_u16(), error.code.as_str()), (507, "disk_full"));
        let url = format!("{}/blobs/{}?offset=0&size=3", agent.url, Digest::of("abc"));
        let answer = agent.http.patch(url).bearer_auth(&agent.secret).body("abc");
        assert_eq!(answer.send().await.unwrap().status().as_u16(), 507);

        // There is room again: all goes on.
        let world = world
            .restart_with(|config| config.disk_reserve = ByteSize(0))
            .await;
        agent.url = format!("{}/agent/v1", world.url);
        assert_eq!(agent.events(&order, 1, 3).await.unwrap().next, 4);
        assert_eq!(
            agent.finish(&order, &report(Outcome::Succeeded)).await,
            Ok(protocol::agent_api::FinishAnswer { accepted: true })
        );
        agent
            .poll(vec![released(&order.attempt, order.generation)], Span(0))
            .await;
        assert_eq!(agent.begin().await.job, waits.id);
    })
    .await;
}
