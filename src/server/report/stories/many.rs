//! Stories of commits with many pipelines.

use protocol::TriggerKind;

use super::*;

#[tokio::test]
async fn a_pipeline_that_newer_ones_push_out_of_view_does_not_wait_forever() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world.job("train").await;
        let mut tx = world.store.begin().await.unwrap();
        for number in 2..=21 {
            let mut newer = testing::pipeline(&world.project, number);
            newer.trigger.commit = world.pipeline.trigger.commit.clone();
            newer.trigger_key = format!("again {number}");
            pipelines::insert(&mut tx, &newer).await.unwrap();
        }
        tx.commit().await.unwrap();
        world.tick().await;
        let mut db = world.store.read().await.unwrap();
        let waiting = rows::unreported(&mut db, "", 100).await.unwrap();
        assert!(waiting.is_empty(), "{waiting:?}");
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
        let waiting = rows::unreported(&mut db, "", 100).await.unwrap();
        assert!(waiting.is_empty(), "{waiting:?}");
    })
    .await;
}
