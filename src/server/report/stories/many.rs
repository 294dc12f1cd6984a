//! Stories of commits with many pipelines.

use protocol::TriggerKind;

use super::talk::said;
use super::*;
use crate::store::diffs;

/// The job's end is its code's.
fn red() -> Outcome {
    Outcome::Failed(Failure::new(FailureKind::CommandFailed, "exit code 1"))
}

impl World {
    /// A newer pipeline of the same commit, which this asked for.
    async fn newer(&self, number: u64, kind: TriggerKind) -> Pipeline {
        let mut newer = testing::pipeline(&self.project, number);
        newer.trigger = self.pipeline.trigger.clone();
        newer.trigger.kind = kind;
        newer.trigger_key = format!("again {number}");
        let mut tx = self.store.begin().await.unwrap();
        pipelines::insert(&mut tx, &newer).await.unwrap();
        tx.commit().await.unwrap();
        newer
    }

    /// A queued job of a pipeline.
    async fn job_of(&self, pipeline: &Pipeline, name: &str) -> Job {
        let job = testing::job(pipeline, name);
        let mut tx = self.store.begin().await.unwrap();
        jobs::insert(&mut tx, &job).await.unwrap();
        tx.commit().await.unwrap();
        job
    }

    async fn end(&self, job: &Job, outcome: Outcome) -> Job {
        let job = self.start(job).await;
        self.finish(&job, outcome).await
    }

    /// The oldest pipeline of each commit that may still change.
    async fn open(&self) -> Vec<Pipeline> {
        let mut db = self.store.read().await.unwrap();
        rows::unreported(&mut db, "", None, 100).await.unwrap()
    }
}

#[tokio::test]
async fn a_failure_among_many_that_were_asked_for_again_is_never_green() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world.pipeline.trigger.kind = TriggerKind::PullRequest { number: 5 };
        world.pipeline.trigger.reference = Some("refs/pull/5/head".into());
        let mut first = Vec::new();
        for n in 0..25 {
            let job = world.job(&format!("j{n:02}")).await;
            first.push(world.end(&job, red()).await);
        }
        let mut tx = world.store.begin().await.unwrap();
        diffs::insert(&mut tx, &world.pipeline.id, "")
            .await
            .unwrap();
        tx.commit().await.unwrap();
        world.settle().await;
        assert!(world.open().await.is_empty());
        // Each by itself, as a person at the page asks for them.
        let mut again = Vec::new();
        for (n, job) in first.iter().enumerate() {
            let of = TriggerKind::Rerun { of: job.id.clone() };
            let pipeline = world.newer(n as u64 + 2, of).await;
            again.push(world.job_of(&pipeline, &job.spec.name).await);
        }
        let shown = world.settle().await;
        assert_eq!(shown.len(), 26, "the whole and each job: {shown:?}");
        assert!(said(&world.github)[0].contains("0 of 25 jobs done"));
        for job in &again[1..] {
            world.end(job, Outcome::Succeeded).await;
        }
        world.settle().await;
        assert_eq!(world.open().await.len(), 1, "one job is open");
        world.end(&again[0], red()).await;
        let shown = world.settle().await;
        let last = [
            "trainyard failure: j00: exit code 1",
            "trainyard/j00 failure: exit code 1",
        ];
        assert_eq!(shown, last);
        let comment = said(&world.github).remove(0);
        assert!(comment.contains("1 of 25 jobs failed"), "{comment}");
        assert!(world.open().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn commits_that_stay_open_hold_up_no_newer_one() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let mut tx = world.store.begin().await.unwrap();
        for number in 2..=205 {
            let pipeline = testing::pipeline(&world.project, number);
            pipelines::insert(&mut tx, &pipeline).await.unwrap();
            let job = testing::job(&pipeline, "train");
            jobs::insert(&mut tx, &job).await.unwrap();
        }
        tx.commit().await.unwrap();
        world.pipeline = testing::pipeline(&world.project, 206);
        let newest = world.job("train").await;
        world.end(&newest, Outcome::Succeeded).await;
        world.tick().await;
        let mut db = world.store.read().await.unwrap();
        let commit = &world.pipeline.trigger.commit;
        let shown = rows::of_commit(&mut db, &world.project.id, commit).await;
        let shown = shown.unwrap();
        assert_eq!(shown.len(), 2, "the whole and the job: {shown:?}");
        drop(db);
        assert_eq!(world.github.taken(), ["trainyard success: succeeded"]);
    })
    .await;
}

#[tokio::test]
async fn a_project_whose_forge_cannot_be_called_yet_waits_and_holds_up_no_other() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let mut other = testing::project("other");
        let repository = Repository::try_from("octo/other".to_owned()).unwrap();
        let in_clear = "http://forge.example/api/v3".to_owned();
        other.forge = ForgeConfig::Github(Place::new(repository, in_clear));
        let mut tx = world.store.begin().await.unwrap();
        projects::insert(&mut tx, &other).await.unwrap();
        for number in 1..=200 {
            let pipeline = testing::pipeline(&other, number);
            pipelines::insert(&mut tx, &pipeline).await.unwrap();
        }
        tx.commit().await.unwrap();
        let job = world.job("train").await;
        world.end(&job, Outcome::Succeeded).await;
        assert_eq!(world.settle().await.len(), 2);
        assert_eq!(world.open().await.len(), 100, "a part of what waits");
    })
    .await;
}

#[tokio::test]
async fn nights_that_succeed_do_not_hide_the_job_of_the_push_that_failed() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let train = world.job("train").await;
        world.end(&train, red()).await;
        let night = || TriggerKind::Schedule {
            definitions: vec!["nightly".into()],
        };
        for number in 2..=25 {
            let pipeline = world.newer(number, night()).await;
            let job = world.job_of(&pipeline, "nightly").await;
            world.end(&job, Outcome::Succeeded).await;
        }
        assert_eq!(
            world.settle().await,
            [
                "trainyard failure: train: exit code 1",
                "trainyard/nightly success: succeeded",
                "trainyard/train failure: exit code 1",
            ]
        );
        assert!(world.open().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_plan_that_went_wrong_stays_red_until_all_is_planned_again() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let words = "job 'train' wants the secret TOKEN, which this server does not have";
        world.pipeline.problem = Some(Failure::new(FailureKind::PipelineFileWrong, words));
        let mut tx = world.store.begin().await.unwrap();
        pipelines::insert(&mut tx, &world.pipeline).await.unwrap();
        tx.commit().await.unwrap();
        let only = |definitions: Vec<String>| TriggerKind::Person {
            definitions,
            parameters: Default::default(),
        };
        let one = world.newer(2, only(vec!["lint".into()])).await;
        let lint = world.job_of(&one, "lint").await;
        world.end(&lint, Outcome::Succeeded).await;
        let red = format!("trainyard failure: {words}");
        assert_eq!(
            world.settle().await,
            [&red, "trainyard/lint success: succeeded"]
        );
        let all = world.newer(3, only(Vec::new())).await;
        let lint = world.job_of(&all, "lint").await;
        world.end(&lint, Outcome::Succeeded).await;
        assert_eq!(world.settle().await, ["trainyard success: succeeded"]);
    })
    .await;
}

#[tokio::test]
async fn a_newer_job_speaks_for_its_name_and_an_open_one_is_not_settled() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let (a, b) = (world.job("a").await, world.job("b").await);
        world.end(&b, red()).await;
        let of = TriggerKind::Rerun { of: b.id.clone() };
        let newer = world.newer(2, of).await;
        let again = world.job_of(&newer, "b").await;
        world.end(&again, Outcome::Succeeded).await;
        world.settle().await;
        let open = world.open().await;
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].id, world.pipeline.id, "'a' is not over");
        world.end(&a, Outcome::Succeeded).await;
        assert_eq!(
            world.settle().await,
            [
                "trainyard success: 2 succeeded",
                "trainyard/a success: succeeded"
            ]
        );
        assert!(world.open().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_reproduction_moves_no_status_of_its_commit() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let job = world.job("train").await;
        let job = world.start(&job).await;
        world.finish(&job, Outcome::Succeeded).await;
        assert!(!world.settle().await.is_empty());

        let commit = world.pipeline.trigger.commit.clone();
        world.pipeline = testing::pipeline(&world.project, 2);
        world.pipeline.trigger.commit = commit;
        world.pipeline.trigger.kind = TriggerKind::Reproduction { of: job.id };
        let again = world.job("train").await;
        assert!(world.settle().await.is_empty(), "it waits");
        let again = world.start(&again).await;
        let failure = Failure::new(FailureKind::CommandFailed, "exit code 1");
        world.finish(&again, Outcome::Failed(failure)).await;
        assert!(world.settle().await.is_empty(), "it failed");
        let mut db = world.store.read().await.unwrap();
        let waiting = rows::unreported(&mut db, "", None, 100).await.unwrap();
        assert!(waiting.is_empty(), "{waiting:?}");
    })
    .await;
}
