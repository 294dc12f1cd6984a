//! Stories of trainings that go on from a version: what a pipeline file's `from` means, what the agent gets, and which edge
//! is kept.

use protocol::event::{Artifact, ArtifactRole};
use protocol::registry::{ModelDetail, Reproduction, VersionDetail, VersionRef};
use protocol::report::MetricValue;
use protocol::{ByteSize, Digest, Failure, FailureKind, JobId, Outcome, PipelineId, Timestamp};
use server::pipelines;
use server::registry::{self, Registrar, RegistryError};
use server::store::jobs::Job;
use server::store::{blobs, jobs};

use crate::commits::{Repository, only_job};
use crate::support::{Agent, Times, World, on_both, report};

fn file(from: &str) -> String {
    format!(
        "jobs:\n  train:\n    command: python train.py\n    deps: [train.py]\n    model: {{name: digits, path: model/{from}}}\n"
    )
}

/// A project whose job leaves a model.
struct Yard<'a> {
    world: &'a World,
    repository: Repository,
    agent: Agent,
}

impl<'a> Yard<'a> {
    async fn new(world: &'a World) -> Self {
        let repository = Repository::new(world).await;
        repository.look(world).await;
        let agent = world.agent("a").await;
        agent.run(Outcome::Succeeded).await;
        Self {
            world,
            repository,
            agent,
        }
    }

    /// A commit's job.
    async fn pushed(&self, from: &str, code: &str) -> Job {
        let file = file(from);
        self.repository
            .commit(&[(".trainyard.yml", &file), ("train.py", code)]);
        let pipeline = self.repository.look(self.world).await;
        only_job(self.world, &pipeline).await
    }

    /// Why a commit plans nothing.
    async fn refused(&self, from: &str, code: &str) -> String {
        let file = file(from);
        self.repository
            .commit(&[(".trainyard.yml", &file), ("train.py", code)]);
        let pipeline = self.repository.look(self.world).await;
        pipeline.problem.expect("nothing is planned").message
    }

    /// The next order is carried out, and leaves a model with these weights. Gives the parent's files that it got.
    async fn trained(&self, weights: &'static str) -> Vec<(String, String)> {
        let order = self.agent.begin().await;
        let mut parent = Vec::new();
        for file in order.parent.iter().flat_map(|parent| &parent.files) {
            let url = format!("{}/blobs/{}", self.agent.url, file.blob);
            let url = format!("{url}?attempt={}", order.attempt);
            let get = self.agent.http.get(url).bearer_auth(&self.agent.secret);
            let text = get.send().await.unwrap().error_for_status().unwrap();
            parent.push((file.path.clone(), text.text().await.unwrap()));
        }
        let server = self.world.server();
        let blob = Digest::of(weights);
        server.blobs.put(&blob, weights).await.unwrap();
        let agents = server::store::agents::all(&mut server.store.read().await.unwrap()).await;
        let size = weights.len() as u64;
        let mut tx = server.store.begin().await.unwrap();
        blobs::insert(&mut tx, &blob, size, &agents.unwrap()[0].id, Timestamp(1))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let mut done = report(Outcome::Succeeded);
        done.artifacts = vec![Artifact {
            role: ArtifactRole::Model,
            path: "w.bin".to_owned(),
            blob,
            size: ByteSize(size),
        }];
        done.metrics = vec![MetricValue {
            name: "length".to_owned(),
            value: weights.len() as f64,
            step: 0,
        }];
        self.agent.finish(&order, &done).await.unwrap();
        let mut registrar = Registrar::new(server.store.clone());
        registrar.tick(Timestamp::now()).await.unwrap();
        parent
    }

    async fn alias(&self, number: u64) {
        let store = &self.world.server().store;
        registry::set_alias(store, "digits", "champion", Some(number), "ana", "")
            .await
            .unwrap();
    }

    /// Runs the first version's job once more, with these weights.
    async fn reproduced(&self, weights: &'static str) -> Reproduction {
        let server = self.world.server();
        let one = VersionRef::Number(1);
        let (_, job) = registry::reproduce(server, "digits", &one, "ana")
            .await
            .unwrap();
        let look = || registry::reproduction(&server.store, "digits", &one, &job);
        let begun = look().await.unwrap();
        assert_eq!((begun.outcome, begun.compared), (None, None));
        self.trained(weights).await;
        look().await.unwrap()
    }

    async fn version(&self, number: u64) -> VersionDetail {
        let store = &self.world.server().store;
        registry::version(store, "digits", &VersionRef::Number(number))
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_model_that_was_removed_is_made_again_for_what_needs_it() {
    on_both(Times::default(), |world| async move {
        let yard = Yard::new(&world).await;
        let file = file("") + "  score: {command: python score.py, needs: [train]}\n";
        yard.repository
            .commit(&[(".trainyard.yml", &file), ("train.py", "one")]);
        let first = yard.repository.look(&world).await;
        yard.trained("weights").await;
        let server = world.server();
        // Whether each job is over, and the one that needs the model.
        let stand = async |pipeline: &PipelineId| {
            let mut db = server.store.read().await.unwrap();
            let jobs = jobs::of_pipeline(&mut db, pipeline).await.unwrap();
            let over = jobs.iter().map(|job| job.state.outcome().is_some());
            (over.collect::<Vec<_>>(), jobs[1].id.clone())
        };
        let again = async |score: &JobId| {
            let failure = Failure::new(FailureKind::CommandFailed, "exit code 1");
            yard.agent.run(Outcome::Failed(failure)).await;
            let at = Timestamp::now();
            let again = pipelines::rerun(server, score, Some("ana"), at).await;
            stand(&again.unwrap().id).await
        };
        let (_, score) = stand(&first.id).await;
        let (over, score) = again(&score).await;
        assert_eq!(over, [true, false], "what it left is kept");
        let one = VersionRef::Number(1);
        registry::remove(&server.store, "digits", &one, "ana", "leaked labels")
            .await
            .unwrap();
        let (over, _) = again(&score).await;
        assert_eq!(over, [false, false], "it is made again");
    })
    .await;
}

#[tokio::test]
async fn a_training_goes_on_from_the_version_that_an_alias_meant_when_it_was_planned() {
    on_both(Times::default(), |world| async move {
        let yard = Yard::new(&world).await;
        yard.pushed("", "one").await;
        assert!(yard.trained("first").await.is_empty());
        yard.alias(1).await;

        let second = yard.pushed(", from: digits@champion", "two").await;
        let parent = second.spec.parent.clone().unwrap();
        assert_eq!((&*parent.model, parent.version), ("digits", 1));
        // The alias may move: what was planned is planned.
        let store = &world.server().store;
        registry::set_alias(store, "digits", "champion", None, "ana", "")
            .await
            .unwrap();
        let needed = registry::remove(store, "digits", &VersionRef::Number(1), "ana", "old").await;
        let needed = needed.unwrap_err();
        assert!(matches!(&needed, RegistryError::Needed { .. }), "{needed}");
        let got = yard.trained("second").await;
        assert_eq!(got, [("w.bin".to_owned(), "first".to_owned())]);

        let two = yard.version(2).await;
        assert_eq!(two.lineage.unwrap().parent, Some(parent));
        assert_eq!(two.tags["trainyard.parent"], "digits/1");
        let ancestors: Vec<_> = two.ancestors.iter().map(|a| a.version).collect();
        assert_eq!(ancestors, [Some(1)]);
        assert_eq!(two.ancestors[0].asked.as_deref(), Some("digits@champion"));
        let one = yard.version(1).await;
        let descendants: Vec<_> = one.descendants.iter().map(|d| d.version).collect();
        assert_eq!(descendants, [Some(2)]);

        yard.pushed(", from: digits/2", "three").await;
        yard.trained("third").await;
        let three = yard.version(3).await;
        let ancestors: Vec<_> = three.ancestors.iter().map(|a| a.version).collect();
        assert_eq!(ancestors, [Some(2), Some(1)], "nearest first");
    })
    .await;
}

#[tokio::test]
async fn the_same_parent_is_the_same_key_however_it_is_named() {
    on_both(Times::default(), |world| async move {
        let yard = Yard::new(&world).await;
        yard.pushed("", "one").await;
        yard.trained("first").await;
        yard.alias(1).await;
        let named = yard.pushed(", from: digits@champion", "two").await;
        yard.trained("second").await;
        // By number, while the alias has moved on: an equal result stands for it.
        yard.alias(2).await;
        let again = yard.pushed(", from: digits/1", "two").await;
        assert_eq!(again.key, named.key);
        assert_eq!(
            again.state.outcome(),
            Some(&Outcome::Reused {
                of: named.id.clone()
            })
        );
        let moved = yard.pushed(", from: digits@champion", "two").await;
        assert_ne!(moved.key, named.key);
        assert_eq!(moved.state.outcome(), None, "it runs");
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_refused_with_what_is() {
    on_both(Times::default(), |world| async move {
        let yard = Yard::new(&world).await;
        let none = yard.refused(", from: digits@champion", "one").await;
        assert!(none.contains("this project has no model 'digits'"), "{none}");
        yard.pushed("", "two").await;
        yard.trained("first").await;
        yard.alias(1).await;
        let unknown = yard.refused(", from: digits@champ", "three").await;
        assert_eq!(
            unknown,
            ".trainyard.yml:5:47: 'digits@champ': model 'digits' has no alias '@champ'; it has @champion, versions up to 1"
        );
        let wrong = yard.refused(", from: digits", "four").await;
        assert!(wrong.contains("write it like digits@champion"), "{wrong}");
        // Another project's model is not told of.
        let server = world.server();
        let path = world.folder.path().join("repository");
        let url = format!("{}/.", path.to_str().unwrap());
        let other = server::project::add(server, "other", &url).await.unwrap();
        let mut db = server.store.read().await.unwrap();
        let asked = ["digits@champion".to_owned()].into();
        let parents = registry::parents(&mut db, &other.id, asked).await.unwrap();
        let why = parents["digits@champion"].clone().unwrap_err();
        assert_eq!(why, "'digits@champion': this project has no model 'digits' to go on from");
    })
    .await;
}

#[tokio::test]
async fn a_version_is_reproduced_and_nothing_else_is_moved_by_it() {
    on_both(Times::default(), |world| async move {
        let yard = Yard::new(&world).await;
        let first = yard.pushed("", "one").await;
        yard.trained("first").await;
        let store = &world.server().store;

        let same = yard.reproduced("first").await;
        assert_eq!(same.outcome, Some(Outcome::Succeeded));
        let compared = same.compared.unwrap();
        assert!(compared.same && compared.files.is_empty(), "{compared:?}");
        assert_eq!((compared.all_files, compared.metrics.len()), (1, 1));
        let job = world.job(&same.job).await;
        assert_eq!((&job.spec, job.key), (&first.spec, None));

        let other = yard.reproduced("another").await.compared.unwrap();
        assert!(!other.same);
        assert_eq!(other.files[0].what, "w.bin");
        assert_eq!(other.files[0].now, Some(Digest::of("another").to_string()));
        assert_eq!(other.metrics[0].delta, Some(2.0));

        // Asked for again it is a reproduction still.
        let again = pipelines::rerun(world.server(), &same.job, Some("ben"), Timestamp::now());
        again.await.unwrap();
        yard.trained("third").await;
        let shown: ModelDetail = registry::model(store, "digits").await.unwrap();
        assert_eq!(shown.items.len(), 1, "neither a version nor a candidate");
        // An equal commit goes by the version's own job.
        let again = yard.pushed("", "two").await;
        yard.trained("second").await;
        let back = yard.pushed("", "one").await;
        let of = first.id.clone();
        assert_eq!(back.state.outcome(), Some(&Outcome::Reused { of }));
        // Another job is no reproduction of it, nor is one of it of another version.
        for (number, job) in [(1, &again.id), (2, &same.job)] {
            let wanted = VersionRef::Number(number);
            let error = registry::reproduction(store, "digits", &wanted, job).await;
            let error = error.unwrap_err().to_string();
            assert!(error.contains("is no reproduction of version"), "{error}");
        }
    })
    .await;
}
