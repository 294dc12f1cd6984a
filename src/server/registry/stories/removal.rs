//! Stories of versions that go, and of those that are needed and stay.

use std::num::NonZeroU32;

use protocol::Span;

use super::*;
use crate::store::{models, parents};

const DAY: Span = Span::hours(24);

impl World {
    /// The job that left a version goes on from another version.
    async fn edge(&self, job: &JobId, parent: u64) {
        let parent = version(&self.store, "digits", &VersionRef::Number(parent)).await;
        let parent = parent.unwrap().version.id;
        let mut tx = self.store.begin().await.unwrap();
        parents::insert(&mut tx, job, &parent, "digits@champion")
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    async fn alias(&self, number: u64) {
        set_alias(&self.store, "digits", "champion", Some(number), "ana", "")
            .await
            .unwrap();
    }

    async fn remove(&self, wanted: &VersionRef) -> Result<protocol::registry::Version, String> {
        remove(&self.store, "digits", wanted, "ana", "leaked labels")
            .await
            .map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn what_is_needed_stays_and_a_number_is_not_used_again() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let mut jobs = Vec::new();
        for _ in 0..3 {
            jobs.push(world.ran(&[], |_, _| {}).await.id);
            world.tick().await;
        }
        world.alias(2).await;
        world.edge(&jobs[2], 1).await;
        let refused = world.remove(&VersionRef::Number(2)).await.unwrap_err();
        assert!(refused.starts_with("version 2 of 'digits' is needed: @champion points to it."));
        let refused = world.remove(&VersionRef::Number(1)).await.unwrap_err();
        assert!(
            refused.contains("needed: version 3 of 'digits' goes on from it."),
            "{refused}"
        );
        let three = VersionRef::Number(3);
        let silent = remove(&world.store, "digits", &three, "ana", " ").await;
        assert!(matches!(silent, Err(RegistryError::NoReason)));
        world.remove(&three).await.unwrap();
        let gone = version(&world.store, "digits", &three).await.unwrap_err();
        assert_eq!(
            gone.to_string(),
            "version 3 of 'digits' was removed by ana: leaked labels"
        );
        assert!(world.remove(&three).await.is_err(), "it is gone already");

        // A job of which nobody knows yet what it leaves.
        let waits = world.ran(&[], |_, _| {}).await;
        world.edge(&waits.id, 1).await;
        let refused = world.remove(&VersionRef::Number(1)).await.unwrap_err();
        let words = format!("job {} goes on from it and is not over", waits.id);
        assert!(refused.contains(&words), "{refused}");
        world.tick().await;
        let numbers: Vec<_> = world.versions().await.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, [Some(1), Some(2), Some(4)]);
        world.remove(&VersionRef::Number(4)).await.unwrap();
        world.remove(&VersionRef::Number(1)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_files_of_what_was_removed_go_after_the_grace() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        for _ in 0..2 {
            world.ran(&[], |_, _| {}).await;
        }
        world.tick().await;
        let one = version(&world.store, "digits", &VersionRef::Number(1)).await;
        let one = one.unwrap().version;
        let links = async || {
            let mut db = world.store.read().await.unwrap();
            let attempt = &one.origin.as_ref().unwrap().attempt;
            let kept = crate::store::files::below(&mut db, one.run.as_ref().unwrap(), "", 9);
            let kept = kept.await.unwrap().len();
            let files = models::files(&mut db, &one.id).await.unwrap().len();
            let artifacts = attempts::artifacts(&mut db, attempt).await.unwrap().len();
            (files, kept, artifacts)
        };
        world.remove(&VersionRef::Number(1)).await.unwrap();
        let now = Timestamp::now();
        assert_eq!(empty(&world.store, now - DAY, now).await.unwrap(), 0);
        assert_eq!(links().await, (2, 3, 3), "the grace is not over");
        assert_eq!(empty(&world.store, now + DAY, now).await.unwrap(), 1);
        assert_eq!(links().await, (0, 1, 1), "the notebook is the run's");
        assert_eq!(empty(&world.store, now + DAY, now).await.unwrap(), 0);
        let two = version(&world.store, "digits", &VersionRef::Number(2)).await;
        assert_eq!(two.unwrap().files.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn what_grew_old_goes_by_the_rules_and_nothing_that_is_needed() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let mut left = Vec::new();
        for _ in 0..6 {
            left.push(world.ran(&[], |_, _| {}).await.id);
            world.tick().await;
        }
        for seed in 0..2 {
            let name = format!("train (seed={seed})");
            world.ran(&[], |_, job| job.spec.name = name).await;
            world.tick().await;
        }
        world.alias(1).await;
        world.edge(&left[5], 2).await;
        let model = async || super::super::model(&world.store, "digits").await.unwrap();
        let candidates: Vec<String> = model().await.items.iter().map(|v| v.id.clone()).collect();
        let mut tx = world.store.begin().await.unwrap();
        parents::insert(&mut tx, &left[4], &candidates[0], "digits@best")
            .await
            .unwrap();
        tx.commit().await.unwrap();

        let rules = Retention {
            candidates: Some(DAY),
            versions: NonZeroU32::new(2),
        };
        let later = NOW + DAY + Span::secs(1);
        let by = async |rules, now| retain(&world.store, rules, now).await.unwrap();
        assert_eq!(by(Retention::default(), later).await, 0);
        let young = Retention {
            versions: None,
            ..rules
        };
        assert_eq!(by(young, NOW + Span::secs(1)).await, 0);
        assert_eq!(by(rules, later).await, 3);
        assert_eq!(by(rules, later).await, 0);
        let items = model().await.items;
        let numbers: Vec<_> = items.iter().rev().map(|v| v.version).collect();
        assert_eq!(
            numbers,
            [Some(1), Some(2), Some(5), Some(6), None],
            "an alias, a parent, the newest two, and the parent of version 5"
        );
        assert_eq!(items[0].id, candidates[0]);
        let four = version(&world.store, "digits", &VersionRef::Number(4)).await;
        assert_eq!(
            four.unwrap_err().to_string(),
            "version 4 of 'digits' was removed by trainyard: not among the newest 2 versions (`retention.versions`)"
        );
        // A result whose model is gone stands for no other job.
        let mut db = world.store.read().await.unwrap();
        let key = jobs::get(&mut db, &left[3]).await.unwrap().key.unwrap();
        let equal = jobs::with_key(&mut db, &world.project.id, &key).await;
        let equal: Vec<JobId> = equal.unwrap().into_iter().map(|job| job.id).collect();
        assert!(!equal.contains(&left[3]) && !equal.is_empty(), "{equal:?}");
    })
    .await;
}
