//! Stories of reports on both databases: rows change, and a forge that speaks HTTP shows what it should.

mod alike;
mod github;
mod many;
mod requests;
mod talk;

use std::time::Duration;

use protocol::job::Move;
use protocol::{AttemptId, Failure, FailureKind, Outcome, Span, Timestamp};

use self::github::{Github, TOKEN};
use super::{ReportConfig, Reporter};
use crate::forge::{Credential, ForgeConfig, Forges, Place, Repository};
use crate::registry::Registrar;
use crate::store::jobs::Job;
use crate::store::pipelines::Pipeline;
use crate::store::projects::Project;
use crate::store::testing::{self, on_both};
use crate::store::{Store, jobs, pipelines, projects, report as rows};

struct World {
    store: Store,
    github: Github,
    project: Project,
    pipeline: Pipeline,
    token: tempfile::NamedTempFile,
    now: Timestamp,
    registrar: Registrar,
    reporter: Reporter,
}

fn quick() -> ReportConfig {
    ReportConfig {
        patience: Span::secs(60),
        write_gap: Span(0),
        quiet: Span(0),
        retry_first: Span::secs(2),
        retry_most: Span::secs(60),
        ..ReportConfig::default()
    }
}

impl World {
    async fn new(store: Store) -> Self {
        let github = Github::default();
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), TOKEN).unwrap();
        let repository = Repository::try_from("octo/hello".to_owned()).unwrap();
        let mut config = Place::new(repository, github.start().await);
        config.token = Some(Credential::File(token.path().to_owned()));
        let mut project = testing::project("hello");
        project.forge = ForgeConfig::Github(config);
        let pipeline = testing::pipeline(&project, 1);
        let mut tx = store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        tx.commit().await.unwrap();
        let registrar = Registrar::new(store.clone());
        let reporter = Reporter::new(store.clone(), Forges::default(), quick());
        let now = Timestamp::now();
        Self {
            store,
            github,
            project,
            pipeline,
            token,
            now,
            registrar,
            reporter,
        }
    }

    /// A queued job of the world's one pipeline.
    async fn job(&self, name: &str) -> Job {
        let job = testing::job(&self.pipeline, name);
        let mut tx = self.store.begin().await.unwrap();
        if pipelines::find(&mut tx, &self.pipeline.id)
            .await
            .unwrap()
            .is_none()
        {
            pipelines::insert(&mut tx, &self.pipeline).await.unwrap();
        }
        jobs::insert(&mut tx, &job).await.unwrap();
        tx.commit().await.unwrap();
        job
    }

    async fn step(&self, job: &Job, step: Move) -> Job {
        let mut tx = self.store.begin().await.unwrap();
        let job = jobs::advance(&mut tx, job, step, None, self.now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        job
    }

    async fn start(&self, job: &Job) -> Job {
        let attempt = AttemptId::generate();
        let job = self
            .step(
                job,
                Move::Lease {
                    attempt: attempt.clone(),
                },
            )
            .await;
        self.step(
            &job,
            Move::Start {
                attempt,
                at: self.now,
            },
        )
        .await
    }

    async fn finish(&self, job: &Job, outcome: Outcome) -> Job {
        let attempt = job.state.attempt().unwrap().clone();
        self.step(job, Move::Finish { attempt, outcome }).await
    }

    async fn tick(&mut self) {
        self.reporter.tick(self.now).await.unwrap();
    }

    /// Passes until one sends nothing; gives what was taken.
    async fn settle(&mut self) -> Vec<String> {
        for _ in 0..50 {
            self.registrar.tick(self.now).await.unwrap();
            let pass = self.reporter.tick(self.now).await.unwrap();
            if pass.accepted + pass.refused == 0 {
                return self.github.taken();
            }
        }
        panic!("it never comes to rest");
    }

    fn restart(&mut self) {
        self.reporter = Reporter::new(self.store.clone(), Forges::default(), quick());
    }

    fn wait(&mut self, span: Span) {
        self.now = self.now + span;
    }

    async fn problems(&self) -> Vec<String> {
        let mut db = self.store.read().await.unwrap();
        let all = rows::problems(&mut db, Timestamp(0)).await.unwrap();
        all.into_values().collect()
    }
}

#[tokio::test]
async fn a_forge_shows_what_the_rows_say_and_nothing_twice() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let job = world.job("train").await;
        assert_eq!(
            world.settle().await,
            [
                "trainyard pending: queued: waits for a host",
                "trainyard/train pending: queued: waits for a host"
            ]
        );
        let job = world.start(&job).await;
        assert_eq!(
            world.settle().await,
            [
                "trainyard pending: running",
                "trainyard/train pending: running"
            ]
        );
        world.restart();
        assert!(
            world.settle().await.is_empty(),
            "a restart says nothing twice"
        );
        world.finish(&job, Outcome::Succeeded).await;
        world.restart();
        assert_eq!(
            world.settle().await,
            [
                "trainyard success: succeeded",
                "trainyard/train success: succeeded"
            ]
        );
        let mut db = world.store.read().await.unwrap();
        assert!(
            rows::unreported(&mut db, "", None, 10)
                .await
                .unwrap()
                .is_empty(),
            "it is settled"
        );
    })
    .await;
}

#[tokio::test]
async fn final_states_go_first_and_steps_in_between_are_left_out() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let (a, b) = (world.job("a").await, world.job("b").await);
        world.start(&b).await;
        let a = world.start(&a).await;
        world
            .finish(
                &a,
                Outcome::Failed(Failure::new(FailureKind::CommandFailed, "exit code 1")),
            )
            .await;
        assert_eq!(
            world.settle().await,
            [
                "trainyard failure: a: exit code 1",
                "trainyard/a failure: exit code 1",
                "trainyard/b pending: running",
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn writes_of_a_project_keep_their_distance() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world.job("train").await;
        let config = ReportConfig {
            write_gap: Span::secs(1),
            ..quick()
        };
        world.reporter = Reporter::new(world.store.clone(), Forges::default(), config);
        world.github.slow(Duration::from_millis(50));
        world.tick().await;
        assert_eq!(world.github.calls(), 1, "one at a time");
        let pass = world.reporter.tick(world.now).await.unwrap();
        assert_eq!(world.github.calls(), 0);
        let next = pass.next.unwrap();
        assert!(next >= world.now + Span(1_050), "counted from the answer");
        world.now = next;
        world.tick().await;
        assert_eq!(world.github.calls(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_report_survives_a_forge_that_is_down() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let job = world.job("train").await;
        let job = world.start(&job).await;
        world.finish(&job, Outcome::Succeeded).await;
        world.github.fail(502, None, "<html>bad gateway");
        world.github.fail(500, None, "");
        world.tick().await;
        assert_eq!(
            world.problems().await,
            ["GitHub could not be reached: answer 502: <html>bad gateway"]
        );
        world.tick().await;
        assert_eq!(world.github.calls(), 1, "it is left alone for a while");
        world.wait(Span::secs(3));
        world.tick().await;
        world.restart();
        world.wait(Span::secs(6));
        assert_eq!(
            world.settle().await,
            [
                "trainyard success: succeeded",
                "trainyard/train success: succeeded"
            ]
        );
        assert!(world.problems().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_limit_is_kept_for_the_whole_project() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world.job("train").await;
        world.github.fail(
            403,
            Some(("retry-after", "30")),
            r#"{"message":"slow down"}"#,
        );
        world.tick().await;
        assert_eq!(world.github.calls(), 1);
        world.wait(Span::secs(20));
        world.tick().await;
        assert_eq!(
            world.github.calls(),
            0,
            "no other context is tried meanwhile"
        );
        world.restart();
        world.tick().await;
        assert_eq!(world.github.calls(), 0, "nor after a restart");
        world.wait(Span::secs(15));
        assert_eq!(world.settle().await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_wrong_token_is_shown_and_a_new_one_is_read() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world.job("train").await;
        std::fs::write(world.token.path(), "old").unwrap();
        world.tick().await;
        assert_eq!(
            world.problems().await,
            ["GitHub refuses the token (401): Bad credentials. It needs write access to commit statuses of octo/hello"]
        );
        std::fs::write(world.token.path(), TOKEN).unwrap();
        world.wait(Span::secs(60));
        assert_eq!(world.settle().await.len(), 2);
        assert!(world.problems().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_revoked_token_is_not_tried_for_ever() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let job = world.job("train").await;
        std::fs::write(world.token.path(), "revoked").unwrap();
        for _ in 0..60 {
            world.tick().await;
            world.wait(Span::secs(90));
        }
        assert_eq!(world.github.calls(), 10);
        assert!(world.problems().await[0].contains("refuses the token"));
        // Something else to say is a reason to try once.
        world.start(&job).await;
        for _ in 0..20 {
            world.tick().await;
            world.wait(Span::hours(1));
        }
        assert_eq!(world.github.calls(), 1);
        std::fs::write(world.token.path(), TOKEN).unwrap();
        assert_eq!(
            world.settle().await,
            [
                "trainyard pending: running",
                "trainyard/train pending: running"
            ]
        );
        assert!(world.problems().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_a_repository_that_moved_did_not_show_stands_there_once_it_is_back() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let job = world.job("train").await;
        let job = world.start(&job).await;
        world.finish(&job, Outcome::Succeeded).await;
        world.github.fail(301, None, "");
        assert!(world.settle().await.is_empty());
        let problem = &world.problems().await[0];
        assert!(problem.contains("octo/hello has moved"), "{problem}");
        world.wait(Span::secs(60));
        assert_eq!(world.settle().await.len(), 2, "nothing is lost");
        assert!(world.problems().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_a_forge_refuses_is_shown_and_tried_again_when_it_changes() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let job = world.job("train").await;
        let full = r#"{"message":"Validation Failed","errors":[{"message":"This SHA and context has reached the maximum number of statuses."}]}"#;
        world.github.fail(422, None, full);
        world.tick().await;
        world.wait(Span::hours(1));
        assert_eq!(world.settle().await, ["trainyard/train pending: queued: waits for a host"]);
        assert!(world.problems().await[0].contains("maximum number of statuses"));
        world.start(&job).await;
        assert_eq!(world.settle().await, ["trainyard pending: running", "trainyard/train pending: running"]);
        assert!(world.problems().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_the_forge_does_not_know_is_given_up_in_the_end() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        for _ in 0..9 {
            world
                .github
                .fail(422, None, r#"{"message":"No commit found for SHA: 0000"}"#);
        }
        let mut tx = world.store.begin().await.unwrap();
        let mut wrong = testing::pipeline(&world.project, 2);
        wrong.problem = Some(Failure::new(
            FailureKind::PipelineFileWrong,
            ".trainyard.yml:1:1: x",
        ));
        pipelines::insert(&mut tx, &wrong).await.unwrap();
        tx.commit().await.unwrap();
        for _ in 0..30 {
            world.tick().await;
            world.wait(Span::secs(120));
        }
        assert_eq!(world.github.calls(), 7, "six times again, then no more");
        assert!(world.problems().await[0].contains("does not know commit 0000"));
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_plans_nothing_has_one_status() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let mut tx = world.store.begin().await.unwrap();
        let mut wrong = testing::pipeline(&world.project, 2);
        let words = ".trainyard.yml:7:5: unknown key 'notebok'; did you mean 'notebook'?";
        wrong.problem = Some(Failure::new(FailureKind::PipelineFileWrong, words));
        let mut none = testing::pipeline(&world.project, 3);
        none.notes = vec!["no .trainyard.yml: `trainyard init` writes a first one".into()];
        pipelines::insert(&mut tx, &wrong).await.unwrap();
        pipelines::insert(&mut tx, &none).await.unwrap();
        tx.commit().await.unwrap();
        let mut shown = world.settle().await;
        shown.sort();
        assert_eq!(
            shown,
            [
                format!("trainyard failure: {words}"),
                "trainyard success: no .trainyard.yml: `trainyard init` writes a first one".into(),
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn a_plain_remote_is_told_nothing() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let project = testing::project("plain");
        let pipeline = testing::pipeline(&project, 1);
        let mut tx = world.store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        pipelines::insert(&mut tx, &pipeline).await.unwrap();
        jobs::insert(&mut tx, &testing::job(&pipeline, "train"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        world.settle().await;
        let mut db = world.store.read().await.unwrap();
        let commit = &pipeline.trigger.commit;
        assert!(
            rows::of_commit(&mut db, &project.id, commit)
                .await
                .unwrap()
                .is_empty()
        );
        let waiting = rows::unreported(&mut db, "", None, 10).await.unwrap();
        assert!(waiting.iter().all(|p| p.project != project.id));
    })
    .await;
}
