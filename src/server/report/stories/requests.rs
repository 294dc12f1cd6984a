//! Stories of the one comment under a pull request.

use protocol::TriggerKind;

use super::talk::said;
use super::*;
use crate::store::diffs;

impl World {
    /// A pipeline of pull request 5 at a head made of `number`, with a job `train`.
    async fn request(&mut self, number: u64) -> Job {
        let mut pipeline = testing::pipeline(&self.project, number);
        pipeline.trigger.kind = TriggerKind::PullRequest { number: 5 };
        pipeline.trigger.reference = Some("refs/pull/5/head".into());
        pipeline.trigger_key = format!("pull:5::{number}");
        self.pipeline = pipeline;
        let job = self.job("train").await;
        let mut tx = self.store.begin().await.unwrap();
        diffs::insert(
            &mut tx,
            &self.pipeline.id,
            "**`a.ipynb`**: 1 cell changed\n",
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        job
    }

    /// The first lines of the comments.
    fn headlines(&self) -> Vec<String> {
        let texts = said(&self.github);
        texts
            .iter()
            .map(|text| text.lines().next().unwrap_or_default().to_owned())
            .collect()
    }
}

#[tokio::test]
async fn a_pull_request_has_one_comment_that_is_edited() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let job = world.request(1).await;
        world.settle().await;
        assert_eq!(world.headlines(), ["### ⏳ 0 of 1 job done"]);
        let job = world.start(&job).await;
        world.finish(&job, Outcome::Succeeded).await;
        world.settle().await;
        assert_eq!(world.headlines(), ["### ✅ 1 job succeeded"]);
        assert!(said(&world.github)[0].contains("1 cell changed"));
        // A further push; what becomes of the older head is not said any more.
        let newer = world.request(2).await;
        world.settle().await;
        assert_eq!(world.headlines(), ["### ⏳ 0 of 1 job done"]);
        let mut db = world.store.read().await.unwrap();
        let waiting = rows::unreported(&mut db, "", None, 10).await.unwrap();
        assert_eq!(waiting.len(), 1, "the older head is settled");
        assert_eq!(waiting[0].id, newer.pipeline);
    })
    .await;
}

#[tokio::test]
async fn a_comment_is_found_again_where_its_row_was_lost() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        // More than a page of others before it, one of whom copied what nobody sees.
        for n in 0..150 {
            world.github.said(5, 42, &format!("comment {n}"));
        }
        let job = world.request(1).await;
        world.settle().await;
        let ours = |world: &World| {
            let all = world.github.comments(5).into_iter();
            all.filter(|(by, _)| *by == 7)
                .map(|c| c.1)
                .collect::<Vec<_>>()
        };
        assert_eq!(ours(&world).len(), 1);
        let copied = ours(&world).remove(0);
        world.github.said(5, 42, &copied);
        testing::forget_reports(&world.store).await;
        world.restart();
        let job = world.start(&job).await;
        world.finish(&job, Outcome::Succeeded).await;
        world.settle().await;
        assert_eq!(ours(&world).len(), 1);
        assert!(ours(&world)[0].contains("1 job succeeded"));
        let last = world.github.comments(5).pop().unwrap();
        assert_eq!(last, (42, copied), "somebody else's stays as it is");
    })
    .await;
}

#[tokio::test]
async fn a_comment_that_somebody_removed_is_written_anew() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let job = world.request(1).await;
        world.settle().await;
        world.github.remove_comments();
        world.start(&job).await;
        world.settle().await;
        assert_eq!(world.headlines(), ["### ▶️ 0 of 1 job done"]);
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_runs_nothing_gets_no_comment_of_its_own() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let mut tx = world.store.begin().await.unwrap();
        let mut pipeline = testing::pipeline(&world.project, 1);
        pipeline.trigger.kind = TriggerKind::PullRequest { number: 5 };
        pipeline.trigger.reference = Some("refs/pull/5/head".into());
        pipelines::insert(&mut tx, &pipeline).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(world.settle().await, ["trainyard success: a note"]);
        assert!(world.github.comments(5).is_empty());
    })
    .await;
}
