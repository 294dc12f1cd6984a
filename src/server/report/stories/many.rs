//! Stories of commits with many pipelines.

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
