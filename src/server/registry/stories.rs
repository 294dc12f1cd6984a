//! Stories of the registry on both databases: from finished attempts to versions, and what people do
//! with them.

mod attempts_end;
mod bases;
mod removal;
mod versions;

use std::collections::BTreeMap;

use plan::{Dep, PlannedJob};
use protocol::event::{Artifact, ArtifactRole};
use protocol::job::State;
use protocol::registry::{Judged, VersionRef, VersionStatus};
use protocol::report::{AttemptReport, BookedGpu, MetricValue, Setting, Usage};
use protocol::spec::{Goal, MetricSpec, ModelSpec, PythonSource};
use protocol::{
    AgentId, ByteSize, Digest, Failure, FailureKind, JobId, Outcome, Timestamp, TriggerKind, Trust,
};

use super::*;
use crate::store::jobs::{Job, Lineage};
use crate::store::pipelines::Pipeline;
use crate::store::projects::Project;
use crate::store::testing::{self, on_both};
use crate::store::{Store, agents, attempts, blobs, jobs, pipelines, projects, registry as rows};

const NOW: Timestamp = Timestamp(1_000_000);

/// A project with a default branch, and an agent that ran everything.
struct World {
    store: Store,
    project: Project,
    agent: AgentId,
    pipelines: u64,
    /// Whether somebody gave values to what is planned.
    given: bool,
}

impl World {
    async fn new(store: Store) -> Self {
        let mut tx = store.begin().await.unwrap();
        let mut project = testing::project("digits");
        project.url = "https://x:token@git.example/digits.git".into();
        projects::insert(&mut tx, &project).await.unwrap();
        projects::checked(&mut tx, &project.id, Some("main"), NOW)
            .await
            .unwrap();
        let agent = agents::register(&mut tx, &testing::agent("gpu-1"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        Self {
            store,
            project,
            agent,
            pipelines: 0,
            given: false,
        }
    }

    /// A pipeline with one finished job `train`, changed by `edit` before it is written.
    async fn finished(
        &mut self,
        outcome: Outcome,
        edit: impl FnOnce(&mut Pipeline, &mut Job),
    ) -> Job {
        self.pipelines += 1;
        let mut pipeline = testing::pipeline(&self.project, self.pipelines);
        let mut job = testing::job(&pipeline, "train");
        job.spec.model = Some(ModelSpec {
            name: "digits".into(),
            path: "model".into(),
        });
        job.spec.parameters.insert("epochs".into(), 20.into());
        job.spec.python = Some(PythonSource::Requirements("requirements.txt".into()));
        let spec = MetricSpec {
            goal: Goal::Maximize,
            max_regression: None,
        };
        job.spec.metrics = BTreeMap::from([("accuracy".to_owned(), spec)]);
        job.spec.volumes = BTreeMap::from([("night".to_owned(), "/data".to_owned())]);
        job.lineage = Lineage {
            fingerprint: Some(Digest::of("cells")),
            lock: Some(Digest::of("requirements")),
            unversioned: vec!["open network".into()],
            changed: vec!["src/model.py changed".into()],
        };
        job.state = State::Finished { outcome };
        job.finished_at = Some(NOW);
        edit(&mut pipeline, &mut job);
        let mut tx = self.store.begin().await.unwrap();
        pipelines::insert(&mut tx, &pipeline).await.unwrap();
        jobs::insert(&mut tx, &job).await.unwrap();
        let plan = PlannedJob {
            given: self.given,
            ..planned(&job)
        };
        jobs::insert_plan(&mut tx, &job.id, &plan).await.unwrap();
        tx.commit().await.unwrap();
        job
    }

    /// The same, with an attempt that reported these metrics and left a model.
    async fn ran(
        &mut self,
        metrics: &[(&str, f64)],
        edit: impl FnOnce(&mut Pipeline, &mut Job),
    ) -> Job {
        let job = self.finished(Outcome::Succeeded, edit).await;
        self.attempt(&job, 1, report(Outcome::Succeeded, metrics))
            .await;
        job
    }

    async fn attempt(&self, job: &Job, number: u32, report: AttemptReport) {
        let mut tx = self.store.begin().await.unwrap();
        for artifact in &report.artifacts {
            let (blob, size) = (&artifact.blob, artifact.size.0);
            blobs::insert(&mut tx, blob, size, &self.agent, NOW)
                .await
                .unwrap();
        }
        let attempt = testing::attempt(&self.project, job, &self.agent, number, &[]);
        attempts::insert(&mut tx, &attempt).await.unwrap();
        attempts::finish(&mut tx, &attempt.id, &report)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    async fn tick(&self) -> usize {
        Registrar::new(self.store.clone()).tick(NOW).await.unwrap()
    }

    /// `(number, job)` of each version and candidate, oldest first.
    async fn versions(&self) -> Vec<(Option<u64>, JobId)> {
        match model(&self.store, "digits").await {
            Ok(detail) => {
                let items = detail.items.into_iter().rev();
                items
                    .map(|version| (version.version, version.origin.unwrap().job))
                    .collect()
            }
            Err(RegistryError::NoModel(_)) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The plan that led to a job, with one file that it depends on.
fn planned(job: &Job) -> PlannedJob {
    PlannedJob {
        spec: job.spec.clone(),
        key: Digest::of("key"),
        key_parts: Vec::new(),
        fingerprint: job.lineage.fingerprint.clone(),
        deps: vec![Dep {
            path: "src/model.py".into(),
            id: "9f86d081".into(),
        }],
        volumes: BTreeMap::from([("night".to_owned(), Some("2026-11".to_owned()))]),
        lock: job.lineage.lock.clone(),
        pipeline_file: Some(Digest::of("jobs:")),
        trust: job.trust,
        unversioned: Vec::new(),
        given: false,
    }
}

fn report(outcome: Outcome, metrics: &[(&str, f64)]) -> AttemptReport {
    let model_file = |path: &str| Artifact {
        role: ArtifactRole::Model,
        path: path.into(),
        blob: Digest::of(path),
        size: ByteSize(7),
    };
    AttemptReport {
        outcome,
        withdrawn: None,
        started_at: Timestamp(1_000),
        finished_at: Timestamp(9_000),
        phases: BTreeMap::new(),
        artifacts: vec![
            model_file("model.joblib"),
            model_file("classes.json"),
            Artifact {
                role: ArtifactRole::Notebook,
                ..model_file("train.ipynb")
            },
        ],
        metrics: metrics
            .iter()
            .map(|(name, value)| MetricValue {
                name: (*name).into(),
                value: *value,
                step: 3,
            })
            .collect(),
        params: BTreeMap::from([("solver".into(), "lbfgs".into())]),
        setting: Setting {
            host: "gpu-1".into(),
            executor: "docker".into(),
            image: "trainyard/notebook".into(),
            image_id: Some("sha256:1234".into()),
            environment: Some(Digest::of("lock")),
            packages: Some("numpy==2.1.0\nscikit-learn==1.5.2".into()),
            gpus: vec![BookedGpu {
                uuid: "GPU-1".into(),
                model: "H100".into(),
            }],
            ..Setting::default()
        },
        usage: Usage::default(),
        cells_executed: 3,
        cells_total: 3,
    }
}

#[tokio::test]
async fn a_success_on_the_default_branch_is_a_version_with_lineage() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let job = world.ran(&[("accuracy", 0.962)], |_, _| {}).await;
        assert_eq!(world.tick().await, 1);
        assert_eq!(world.tick().await, 0, "derived once");
        assert_eq!(world.versions().await, [(Some(1), job.id.clone())]);

        let shown = version(&world.store, "digits", &VersionRef::Latest)
            .await
            .unwrap();
        assert_eq!(shown.version.status, VersionStatus::Version);
        assert_eq!(shown.version.run.as_ref().unwrap().len(), 32);
        let paths: Vec<_> = shown.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(
            paths,
            ["classes.json", "model.joblib"],
            "the notebook is no file of the model"
        );
        assert_eq!(shown.params["epochs"], "20");
        assert_eq!(shown.params["solver"], "lbfgs");
        let lineage = shown.lineage.as_ref().unwrap();
        assert_eq!(lineage.repository, "https://git.example/digits.git");
        assert_eq!(lineage.fingerprint, Some(Digest::of("cells")));
        assert_eq!(lineage.deps["src/model.py"], "9f86d081");
        let volume = &lineage.volumes[0];
        assert_eq!((&*volume.name, &*volume.at), ("night", "/data"));
        assert_eq!(volume.version.as_deref(), Some("2026-11"));
        assert_eq!(lineage.pipeline_file, Some(Digest::of("jobs:")));
        assert_eq!(lineage.unversioned, ["open network"]);
        let lock = lineage.lock.as_ref().unwrap();
        assert_eq!(
            (lock.path.as_str(), &lock.digest),
            ("requirements.txt", &Digest::of("requirements"))
        );
        assert_eq!(lineage.setting.image_id.as_deref(), Some("sha256:1234"));
        assert_eq!(lineage.job, job.id);
        assert_eq!(shown.tags["trainyard.gpus"], "H100 GPU-1");
        assert_eq!(shown.tags["mlflow.source.git.branch"], "main");
        assert!(
            !format!("{shown:?}").contains("token"),
            "no credential is kept"
        );
    })
    .await;
}

#[tokio::test]
async fn numbers_that_json_and_sqlite_lack_are_kept() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let given = [
            ("inf", f64::INFINITY),
            ("minus", f64::NEG_INFINITY),
            ("nan", f64::NAN),
            ("tiny", 5e-324),
            ("zero", -0.0),
        ];
        world.ran(&given, |_, _| {}).await;
        world.tick().await;
        let kept = version(&world.store, "digits", &VersionRef::Number(1))
            .await
            .unwrap();
        for (metric, (name, value)) in kept.version.metrics.iter().zip(given) {
            assert_eq!((metric.name.as_str(), metric.step), (name, 3));
            assert!(
                metric.value == value || (metric.value.is_nan() && value.is_nan()),
                "{name}"
            );
        }
        assert_eq!(kept.version.metrics.len(), given.len());
    })
    .await;
}

#[tokio::test]
async fn what_is_not_the_default_branch_leaves_candidates() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world
            .ran(&[], |pipeline, _| {
                pipeline.trigger.kind = TriggerKind::PullRequest { number: 7 }
            })
            .await;
        world
            .ran(&[], |pipeline, _| {
                pipeline.trigger.reference = Some("refs/heads/try".into())
            })
            .await;
        world
            .ran(&[], |_, job| job.spec.name = "train (lr=0.1)".into())
            .await;
        world
            .ran(&[], |pipeline, _| {
                let parameters = serde_json::Map::from_iter([("epochs".to_owned(), 1.into())]);
                pipeline.trigger.kind = TriggerKind::Person {
                    definitions: vec![],
                    parameters,
                };
            })
            .await;
        world.given = true;
        let repeated = world
            .ran(&[], |pipeline, _| {
                let of = JobId::generate();
                pipeline.trigger.kind = TriggerKind::Rerun { of };
            })
            .await;
        world.given = false;
        let fork = world
            .ran(&[], |pipeline, job| {
                pipeline.trigger.trust = Trust::Untrusted;
                job.trust = Trust::Untrusted;
            })
            .await;
        assert_eq!(world.tick().await, 6);
        let items = model(&world.store, "digits").await.unwrap().items;
        let why = items.iter().find_map(|version| {
            let job = &version.origin.as_ref()?.job;
            version.because.as_deref().filter(|_| *job == repeated.id)
        });
        assert_eq!(why, Some("it repeats a run with other parameters"));
        let left = world.versions().await;
        assert_eq!(left.len(), 5, "an untrusted commit writes nothing");
        assert!(
            left.iter()
                .all(|(number, job)| number.is_none() && *job != fork.id)
        );
    })
    .await;
}

#[tokio::test]
async fn a_merged_candidate_becomes_the_version() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let pull = world
            .ran(&[("accuracy", 0.9)], |pipeline, _| {
                pipeline.trigger.kind = TriggerKind::PullRequest { number: 7 };
            })
            .await;
        world.tick().await;
        assert_eq!(world.versions().await, [(None, pull.id.clone())]);
        let of = pull.id.clone();
        let merged = world
            .finished(Outcome::Reused { of: of.clone() }, |_, _| {})
            .await;
        let again = world.finished(Outcome::Reused { of }, |_, _| {}).await;
        assert_eq!(world.tick().await, 2);
        assert_eq!(
            world.versions().await,
            [(Some(1), pull.id)],
            "promoted, and only once"
        );
        let promotion = version(&world.store, "digits", &VersionRef::Number(1))
            .await
            .unwrap();
        let promotion = promotion.version.promotion.unwrap();
        assert_eq!(promotion.by, "trainyard");
        assert!(
            promotion.why.starts_with("equal to commit 00000"),
            "{}",
            promotion.why
        );

        let mut db = world.store.read().await.unwrap();
        let push = testing::pipeline(&world.project, 99);
        let base = rows::base(&mut db, &again, &push).await.unwrap();
        assert_eq!(
            base.unwrap().metrics[0].value,
            0.9,
            "an equal result is a base too"
        );
        let none = rows::base(&mut db, &merged, &push).await.unwrap();
        assert!(none.is_none(), "the pull request itself was none");
    })
    .await;
}

#[tokio::test]
async fn a_name_that_cannot_be_used_holds_up_nobody() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let named = |name: &'static str| {
            move |_: &mut Pipeline, job: &mut Job| {
                job.spec.model = Some(ModelSpec {
                    name: name.into(),
                    path: "model".into(),
                });
            }
        };
        let bad = world.ran(&[], named("../../x")).await;
        let mine = world.ran(&[], named("digits")).await;
        world.tick().await;
        let mut other = testing::project("other");
        other.default_branch = Some("main".into());
        let mut tx = world.store.begin().await.unwrap();
        projects::insert(&mut tx, &other).await.unwrap();
        tx.commit().await.unwrap();
        world.project = other;
        let theirs = world.ran(&[], named("digits")).await;
        let empty = world
            .finished(Outcome::Succeeded, |_, job| {
                job.spec.model.as_mut().unwrap().name = "empty".into()
            })
            .await;
        let mut nothing = report(Outcome::Succeeded, &[]);
        nothing.artifacts.clear();
        world.attempt(&empty, 1, nothing).await;
        assert_eq!(world.tick().await, 2);
        assert_eq!(world.versions().await, [(Some(1), mine.id)]);
        let mut db = world.store.read().await.unwrap();
        for (job, expected) in [
            (bad, "is no name for a model"),
            (theirs, "is not this project's"),
            (empty, "left no file of the model"),
        ] {
            let run = rows::succeeded_run(&mut db, &job.id)
                .await
                .unwrap()
                .unwrap();
            let run = rows::of_job(&mut db, &run).await.unwrap().unwrap();
            let problem = run.problem.unwrap_or_default();
            assert!(problem.contains(expected), "{problem}");
        }
    })
    .await;
}
