//! Stories of what people ask of agents, and of agents that the server has to send away.

use protocol::api::{Agent as Shown, Done, Drain, Page};
use protocol::{Failure, FailureKind, Outcome, Span, Timestamp};
use reqwest::StatusCode;
use server::pipelines;
use server::store::attempts::{self, Fate};
use server::store::queue;

use crate::support::{Agent, Times, World, on_both, released, report, running};

const QUICK: Times = Times {
    lost_after: Span::secs(600),
    unreachable_after: Span(800),
};

impl World {
    async fn ask(&self, path: &str, body: Option<Drain>) -> (StatusCode, String) {
        let call = reqwest::Client::new().post(format!("{}/api/v1/agents/{path}", self.url));
        let call = match body {
            Some(body) => call.json(&body),
            None => call,
        };
        let answer = call.send().await.unwrap();
        let status = answer.status();
        (status, answer.text().await.unwrap())
    }

    async fn shown(&self, name: &str) -> Shown {
        let url = format!("{}/api/v1/agents", self.url);
        let page: Page<Shown> = reqwest::get(url).await.unwrap().json().await.unwrap();
        page.items.into_iter().find(|a| a.name == name).unwrap()
    }
}

async fn stopped(agent: &Agent, order: &protocol::agent_api::AttemptOrder) -> String {
    let answer = agent.poll(vec![running(order)], Span::secs(5)).await;
    assert_eq!(answer.stop[0].attempt, order.attempt);
    assert!(answer.stop[0].grace > Span(0), "time for a checkpoint");
    answer.stop[0].by.clone()
}

#[tokio::test]
async fn a_drained_agent_ends_what_it_has_and_gets_nothing_new() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        world.queue_job("first").await;
        let order = agent.begin().await;
        let (status, words) = world.ask("a/drain", Some(Drain::default())).await;
        assert_eq!(status, StatusCode::OK);
        let done: Done = serde_json::from_str(&words).unwrap();
        assert!(done.message.contains("runs to"), "{}", done.message);
        let shown = world.shown("a").await;
        assert_eq!(shown.state, "drained");
        assert_eq!(shown.closed.as_deref(), Some("by local"));

        let second = world.queue_job("second").await;
        world
            .until("the reason is told", || async {
                let reason = world.job(&second.id).await.reason;
                reason.is_some_and(|reason| reason.contains("drained by local"))
            })
            .await;
        let answer = agent.poll(vec![running(&order)], Span(0)).await;
        assert!(answer.stop.is_empty() && answer.start.is_empty());

        world.ask("a/undrain", None).await;
        let answer = agent.poll(vec![running(&order)], Span::secs(10)).await;
        assert_eq!(answer.start[0].job, second.id);
        let (status, words) = world.ask("b/drain", Some(Drain::default())).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(words.contains("there are a"), "{words}");
    })
    .await;
}

/// An attempt and its job are two rows: seen at two times, they look as if another attempt had taken its place.
#[tokio::test]
async fn an_attempt_that_ends_while_its_agent_polls_is_never_sent_away() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        for number in 0..30 {
            world.queue_job(&format!("job-{number}")).await;
            let order = agent.begin().await;
            let polls = async {
                let mut abandoned = Vec::new();
                for _ in 0..12 {
                    let answer = agent.poll(vec![running(&order)], Span(0)).await;
                    abandoned.extend(answer.abandoned);
                }
                abandoned
            };
            let report = report(Outcome::Succeeded);
            let (abandoned, finished) = tokio::join!(polls, agent.finish(&order, &report));
            assert!(finished.unwrap().accepted);
            assert_eq!(abandoned, [], "in round {number}");
            let over = released(&order.attempt, order.generation);
            agent.poll(vec![over], Span(0)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_drain_that_stops_jobs_sends_them_elsewhere_and_blames_nobody() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        let job = world.queue_job_with("train", |spec| spec.retries = 0).await;
        let order = agent.begin().await;
        let other = world.agent("b").await;
        let stop = Some(Drain { stop_jobs: true });
        world.ask("a/drain", stop).await;
        let by = stopped(&agent, &order).await;
        assert_eq!(by, "local, who drains a");
        let ended = report(Outcome::Cancelled { by });
        agent.finish(&order, &ended).await.unwrap();
        let next = other.begin().await;
        assert_eq!((&next.job, next.number), (&job.id, 2));
        other
            .finish(&next, &report(Outcome::Succeeded))
            .await
            .unwrap();
        assert_eq!(world.outcome(&job.id).await, Outcome::Succeeded);
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_its_host_is_drained_is_cancelled() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        let job = world.queue_job("train").await;
        let order = agent.begin().await;
        world.ask("a/drain", Some(Drain { stop_jobs: true })).await;
        let by = stopped(&agent, &order).await;
        pipelines::cancel_by_hand(world.server(), &job.id, "ana")
            .await
            .unwrap();
        let ended = Outcome::Cancelled { by };
        agent.finish(&order, &report(ended.clone())).await.unwrap();
        assert_eq!(world.outcome(&job.id).await, ended);
    })
    .await;
}

#[tokio::test]
async fn an_order_that_a_drained_host_never_began_goes_elsewhere() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        let job = world.queue_job("train").await;
        let lost = agent.order().await;
        let other = world.agent("b").await;
        world.ask("a/drain", Some(Drain { stop_jobs: true })).await;
        let answer = agent.poll(Vec::new(), Span(0)).await;
        assert!(answer.start.is_empty());
        assert_eq!(other.begin().await.job, job.id);
        let late = agent.poll(vec![running(&lost)], Span(0)).await;
        assert_eq!(late.abandoned, [lost.attempt]);
    })
    .await;
}

#[tokio::test]
async fn a_host_that_takes_back_what_it_offered_costs_the_job_no_attempt() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        let job = world.queue_job_with("train", |spec| spec.retries = 0).await;
        let withdrawn = |by: &str| {
            let fault = Failure::new(FailureKind::GpuUnclean, "GPU 0 is reserved");
            let mut report = report(Outcome::Failed(fault));
            report.withdrawn = Some(by.to_owned());
            report
        };
        for number in 1..=3 {
            let order = agent.begin().await;
            assert_eq!((&order.job, order.number), (&job.id, number));
            let by = "ada, to whom GPU 0 is lent";
            agent.finish(&order, &withdrawn(by)).await.unwrap();
            agent
                .poll(vec![released(&order.attempt, order.generation)], Span(0))
                .await;
        }
        // A person's word on the job itself counts more.
        let order = agent.begin().await;
        pipelines::cancel_by_hand(world.server(), &job.id, "ana")
            .await
            .unwrap();
        agent.finish(&order, &withdrawn("ada")).await.unwrap();
        let by = "ana".to_owned();
        assert_eq!(world.outcome(&job.id).await, Outcome::Cancelled { by });
    })
    .await;
}

#[tokio::test]
async fn a_host_that_wants_to_be_free_says_so_itself() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        let job = world.queue_job("train").await;
        let order = agent.begin().await;
        let other = world.agent("b").await;
        let mut leaving = agent.request(vec![running(&order)], Span(0));
        leaving.accepting = false;
        leaving.closed = Some("drained by eva on its host".to_owned());
        leaving.evict = true;
        let answer = agent.send(&leaving).await.unwrap();
        assert_eq!(answer.stop[0].by, "drained by eva on its host");
        let by = answer.stop[0].by.clone();
        agent
            .finish(&order, &report(Outcome::Cancelled { by }))
            .await
            .unwrap();
        assert_eq!(other.begin().await.job, job.id);
    })
    .await;
}

#[tokio::test]
async fn a_revoked_agent_is_told_what_to_do_and_its_jobs_go_elsewhere_at_once() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        let job = world.queue_job("train").await;
        let order = agent.begin().await;
        let other = world.agent("b").await;
        let (status, _) = world.ask("a/revoke", None).await;
        assert_eq!(status, StatusCode::OK);
        let polled = agent
            .send(&agent.request(vec![running(&order)], Span(0)))
            .await;
        let (status, error) = polled.unwrap_err();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(error.message.contains("agents token"), "{}", error.message);
        let done = report(Outcome::Succeeded);
        assert_eq!(
            agent.finish(&order, &done).await.unwrap_err().0,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(other.begin().await.job, job.id);
        assert_eq!(world.shown("a").await.state, "revoked");
        let (status, error) = world.ask("a/undrain", None).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(error.contains("was revoked by"), "{error}");
        let mut db = world.server().store.read().await.unwrap();
        let booked = queue::bookings(&mut db).await.unwrap();
        assert!(
            booked
                .iter()
                .all(|booking| booking.attempt != order.attempt)
        );
        let old = attempts::get(&mut db, &order.attempt).await.unwrap();
        assert_eq!(old.fate, Fate::Abandoned);
        drop(db);
        // The host comes back with a new token, under its name.
        let again = world.agent("a").await;
        again.poll(Vec::new(), Span(0)).await;
        assert_eq!(world.shown("a").await.state, "idle");
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_will_not_come_back_is_removed_and_its_name_stays_in_what_was() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        let job = world.queue_job("train").await;
        agent.run(Outcome::Succeeded).await;
        let remove = || async {
            let url = format!("{}/api/v1/agents/a", world.url);
            let answer = reqwest::Client::new().delete(url).send().await.unwrap();
            (answer.status(), answer.text().await.unwrap())
        };
        let (status, words) = remove().await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(words.contains("agents revoke a"), "{words}");
        world.ask("a/revoke", None).await;
        assert_eq!(remove().await.0, StatusCode::OK);
        assert_eq!(remove().await.0, StatusCode::NOT_FOUND);
        let get = |path: String| async move {
            let answer = reqwest::get(path).await.unwrap();
            answer.text().await.unwrap()
        };
        let listed: Page<Shown> =
            serde_json::from_str(&get(format!("{}/api/v1/agents", world.url)).await).unwrap();
        assert!(listed.items.is_empty());
        let path = format!("{}/api/v1/jobs/{}", world.url, job.id);
        let detail: protocol::api::JobDetail = serde_json::from_str(&get(path).await).unwrap();
        assert_eq!(detail.attempts[0].agent, "a");
        world.agent("a").await;
        assert_eq!(world.shown("a").await.state, "idle");
    })
    .await;
}

#[tokio::test]
async fn a_lost_agent_is_removed_with_what_it_had_booked() {
    let quick = Times {
        lost_after: Span(2_000),
        unreachable_after: Span(1_000),
    };
    on_both(quick, |world| async move {
        let agent = world.agent("a").await;
        let patient = Some(Span::hours(1));
        let job = world
            .queue_job_with("train", |spec| spec.limits.lost_after = patient)
            .await;
        let order = agent.begin().await;
        let words = |answer: Result<(), server::fleet::hosts::HostError>| {
            answer.err().map(|why| why.to_string()).unwrap_or_default()
        };
        world
            .until("it is lost, and its job is not", || async {
                let refused = server::fleet::hosts::remove(world.server(), "a", "ana").await;
                words(refused).contains("holds a job")
            })
            .await;
        agent
            .finish(&order, &report(Outcome::Succeeded))
            .await
            .unwrap();
        assert_eq!(world.outcome(&job.id).await, Outcome::Succeeded);
        world
            .until("it is lost again", || async {
                let removed = server::fleet::hosts::remove(world.server(), "a", "ana").await;
                removed.is_ok()
            })
            .await;
        let mut db = world.server().store.read().await.unwrap();
        assert!(queue::bookings(&mut db).await.unwrap().is_empty());
        drop(db);
        let late = agent.send(&agent.request(Vec::new(), Span(0))).await;
        assert_eq!(late.unwrap_err().0, StatusCode::UNAUTHORIZED);
    })
    .await;
}

#[tokio::test]
async fn a_name_is_taken_from_a_silent_agent_only_or_by_express_wish() {
    let quick = Times {
        lost_after: Span(3_000),
        unreachable_after: Span(800),
    };
    on_both(quick, |world| async move {
        let first = world.agent("a").await;
        let (status, error) = world.register("a", false).await.err().unwrap();
        assert_eq!(
            (status, error.code.as_str()),
            (StatusCode::CONFLICT, "name_in_use")
        );
        for word in ["heard of", "another name", "agents revoke a", "--replace"] {
            assert!(error.message.contains(word), "{}", error.message);
        }
        first.poll(Vec::new(), Span(0)).await;
        let id = world.shown("a").await.id;
        let second = world.register("a", true).await.unwrap();
        assert_eq!(world.shown("a").await.id, id);
        let late = first.send(&first.request(Vec::new(), Span(0))).await;
        assert_eq!(late.unwrap_err().0, StatusCode::UNAUTHORIZED);
        second.poll(Vec::new(), Span(0)).await;
        world
            .until("it is silent for long enough", || async {
                world.register("a", false).await.is_ok()
            })
            .await;
        assert_eq!(world.shown("a").await.id, id);
    })
    .await;
}

#[tokio::test]
async fn two_agents_with_one_identity_are_one_too_many() {
    on_both(QUICK, |world| async move {
        let mut agent = world.agent("a").await;
        agent.instance = Some("first".to_owned());
        let job = world.queue_job("train").await;
        let order = agent.begin().await;
        let mut twin = agent.clone();
        twin.instance = Some("second".to_owned());
        let (status, error) = twin
            .send(&twin.request(Vec::new(), Span(0)))
            .await
            .unwrap_err();
        assert_eq!(
            (status, error.code.as_str()),
            (StatusCode::CONFLICT, "twin")
        );
        assert!(error.message.contains("agent a is at work on another host"));
        // Nothing of what it says of the other one's attempts is believed.
        let lie = report(Outcome::Cancelled { by: "x".into() });
        let refused = twin.finish(&order, &lie).await.unwrap_err();
        assert_eq!(refused.1.code, "twin");
        // The first one goes on, over a restart too.
        agent.poll(vec![running(&order)], Span(0)).await;
        assert_eq!(world.word(&job.id).await, "running");
        // Where it is gone, its copy takes its place.
        world
            .until("the first one is silent for long enough", || async {
                let request = twin.request(vec![running(&order)], Span(0));
                twin.send(&request).await.is_ok()
            })
            .await;
        let late = agent.send(&agent.request(Vec::new(), Span(0))).await;
        assert_eq!(late.unwrap_err().1.code, "twin");
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_too_old_is_told_what_it_needs_and_keeps_its_attempt() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        let job = world.queue_job("train").await;
        let order = agent.begin().await;
        let mut old = agent.request(vec![running(&order)], Span(0));
        old.protocol = 0;
        let (status, error) = agent.send(&old).await.unwrap_err();
        assert_eq!(
            (status, error.code.as_str()),
            (StatusCode::UPGRADE_REQUIRED, "version")
        );
        let wanted = format!("install trainyard {}", env!("CARGO_PKG_VERSION"));
        assert!(error.message.contains(&wanted), "{}", error.message);
        agent.events(&order, 1, 2).await.unwrap();
        agent
            .finish(&order, &report(Outcome::Succeeded))
            .await
            .unwrap();
        assert_eq!(world.outcome(&job.id).await, Outcome::Succeeded);
    })
    .await;
}

#[tokio::test]
async fn an_answer_tells_the_servers_clock() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("a").await;
        let before = Timestamp::now();
        let answer = agent.poll(Vec::new(), Span(0)).await;
        let told = answer.now.unwrap();
        assert!(before <= told && told <= Timestamp::now());
    })
    .await;
}
