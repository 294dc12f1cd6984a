//! Stories of pull requests that end, and that are open again.

use protocol::TriggerKind;
use protocol::job::State;
use server::fleet::hosts;
use server::pipelines::CLOSED;
use server::store::jobs::Job;
use server::store::{jobs, pipelines, requests};

use super::*;

/// The jobs of a request at a commit, the newest pipeline's last.
async fn jobs_of(town: &Town<'_>, commit: &str) -> Vec<Job> {
    let mut db = town.world.server().store.read().await.unwrap();
    let commit = commit.parse().unwrap();
    let all = pipelines::of_commit(&mut db, &town.project.id, &commit);
    let mut found = Vec::new();
    for pipeline in all.await.unwrap() {
        if let TriggerKind::PullRequest { .. } = pipeline.trigger.kind {
            found.extend(jobs::of_pipeline(&mut db, &pipeline.id).await.unwrap());
        }
    }
    found
}

/// How they stand.
async fn words(town: &Town<'_>, commit: &str) -> Vec<&'static str> {
    let jobs = jobs_of(town, commit).await;
    jobs.iter().map(|job| job.state.word()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_of_a_request_ends_with_it_and_is_planned_anew_when_it_is_open_again() {
    on_both(Times::default(), |world| async move {
        let world = world
            .restart_with(|config| config.requests_interval = Span(0))
            .await;
        let agent = world.agent("gpu-1").await;
        for face in FACES {
            for lost in [false, true] {
                let mut town = Town::new(&world, &agent, face).await;
                hosts::drain(world.server(), "gpu-1", false, "ana")
                    .await
                    .unwrap();
                let commit = town.forge.push("better", &[("train.py", "print(2)")]).await;
                let number = town.forge.open_request("better", "Better", "ana").await;
                town.look().await;
                town.settle().await;
                assert_eq!(words(&town, &commit).await, ["queued"], "{face:?}");
                if lost {
                    town.forge.lose_hooks();
                }
                town.forge.close(number, "ana").await;
                if lost {
                    assert!(town.look().await.is_empty());
                }
                let ended = jobs_of(&town, &commit).await;
                let by = CLOSED.to_owned();
                let cancelled = Outcome::Cancelled { by };
                assert_eq!(
                    ended[0].state.outcome(),
                    Some(&cancelled),
                    "{face:?} {lost}"
                );
                assert!(town.look().await.is_empty());

                town.forge.reopen(number, "ana").await;
                assert_eq!(town.look().await.len(), 1, "{face:?} {lost}");
                assert!(town.look().await.is_empty(), "once");
                assert_eq!(words(&town, &commit).await, ["cancelled", "queued"]);
                hosts::undrain(world.server(), "gpu-1", "ana")
                    .await
                    .unwrap();
                town.agent.run(Outcome::Succeeded).await;
                town.settle().await;
                assert_eq!(town.state(&commit), "success", "{face:?} {lost}");
                assert_eq!(town.headline(number), "### ✅ 1 job succeeded");

                // What is over stands: nothing has to run again.
                town.forge.close(number, "ana").await;
                town.look().await;
                town.forge.reopen(number, "ana").await;
                town.look().await;
                assert_eq!(words(&town, &commit).await, ["cancelled", "succeeded"]);
                assert_eq!(town.forge.violations(), [""; 0], "{face:?}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_to_be_left_alone_is_asked_for_no_list() {
    on_both(Times::default(), |world| async move {
        let world = world
            .restart_with(|config| config.requests_interval = Span(0))
            .await;
        let agent = world.agent("gpu-1").await;
        let town = Town::new(&world, &agent, Face::Gitlab).await;
        town.forge.push("better", &[("train.py", "print(2)")]).await;
        town.forge.open_request("better", "Better", "ana").await;
        town.look().await;
        let calls = || town.forge.calls().len();
        let before = calls();
        town.look().await;
        assert_eq!(
            calls() - before,
            2,
            "the requests, and what was said under one"
        );
        town.forge.limit_for(1, Refusal::After(600));
        for _ in 0..3 {
            town.look().await;
        }
        assert_eq!(calls() - before, 3, "it was told to wait, and waited");
        assert_eq!(town.forge.violations(), [""; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_goes_on_unless_the_file_lets_it_end() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("gpu-1").await;
        let mut town = Town::new(&world, &agent, Face::Gitea).await;
        let commit = town.forge.push("better", &[("train.py", "print(2)")]).await;
        let number = town.forge.open_request("better", "Better", "ana").await;
        town.look().await;
        let order = town.agent.begin().await;
        town.forge.close(number, "ana").await;
        assert_eq!(words(&town, &commit).await, ["running"]);
        let done = crate::support::report(Outcome::Succeeded);
        town.agent.finish(&order, &done).await.unwrap();
        let over = crate::support::released(&order.attempt, order.generation);
        town.agent.poll(vec![over], Span(0)).await;

        let file = format!("supersede: running\n{FILE}");
        let files = [("train.py", "print(3)"), (".trainyard.yml", &file)];
        let commit = town.forge.push("shorter", &files).await;
        let number = town.forge.open_request("shorter", "Shorter", "ana").await;
        town.look().await;
        town.agent.begin().await;
        town.forge.close(number, "ana").await;
        let jobs = jobs_of(&town, &commit).await;
        assert!(matches!(&jobs[0].state, State::Stopping { by, .. } if by == CLOSED));
        town.settle().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_after_the_end_does_not_open_a_request_again() {
    on_both(Times::default(), |world| async move {
        let agent = world.agent("gpu-1").await;
        for face in FACES {
            let mut town = Town::new(&world, &agent, face).await;
            hosts::drain(world.server(), "gpu-1", false, "ana")
                .await
                .unwrap();
            town.forge.push("better", &[("train.py", "print(2)")]).await;
            let number = town.forge.open_request("better", "Better", "ana").await;
            town.look().await;
            // Of the push nobody hears until the request is closed; its second may be the same.
            for apart in [Span(0), Span::secs(5)] {
                town.forge.lose_hooks();
                let late = town.forge.deliveries().len();
                let change = format!("print({})", apart.0);
                let head = town
                    .forge
                    .push_to_request(number, &[("train.py", &change)])
                    .await;
                town.forge.release_hooks().await;
                town.forge.advance(apart.into());
                town.forge.close(number, "ana").await;
                for delivery in &town.forge.deliveries()[late..] {
                    assert_eq!(town.forge.redeliver(&delivery.id).await, Some(202));
                }
                town.look().await;
                let mut db = world.server().store.read().await.unwrap();
                let known = requests::find(&mut db, &town.project.id, number).await;
                assert!(!known.unwrap().unwrap().open, "{face:?} {apart}");
                drop(db);
                assert!(jobs_of(&town, &head).await.is_empty(), "{face:?} {apart}");
                town.forge.advance(Span::secs(5).into());
                town.forge.reopen(number, "ana").await;
                town.look().await;
                assert_eq!(jobs_of(&town, &head).await.len(), 1, "{face:?} {apart}");
            }
            // Nothing of it is left for the next one.
            town.forge.close(number, "ana").await;
            town.look().await;
            hosts::undrain(world.server(), "gpu-1", "ana")
                .await
                .unwrap();
            town.settle().await;
        }
    })
    .await;
}
