//! What people ask for in comments.

use super::{FACES, Yard};
use crate::support::forge::{Comment, Level};
use crate::support::until;

/// A request whose head is planned.
async fn planned(yard: &Yard) -> (u64, String) {
    yard.forge
        .push("patch", &[("train.py", "print(2)\n")])
        .await;
    let number = yard.forge.open_request("patch", "Better", "ada").await;
    let head = yard.forge.head(number);
    yard.shows(&head, "trainyard/train", "pending", "queued")
        .await;
    (number, head)
}

/// Waits until somebody's newest comment has a reaction.
async fn thanked(yard: &Yard, number: u64, id: u64) {
    until("a thumb", async || {
        let seen = yard.forge.seen();
        let comment = seen
            .on(number)
            .into_iter()
            .find(|comment| comment.id == id)?;
        (!comment.reactions.is_empty()).then_some(())
    })
    .await;
}

/// Waits for an answer of ours that says this.
async fn answered(yard: &Yard, number: u64, words: &str) -> Comment {
    until(&format!("an answer with '{words}'"), async || {
        let seen = yard.forge.seen();
        let mut on = seen.on(number).into_iter();
        on.find(|comment| comment.by == "octo" && comment.text.contains(words))
            .cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_write_cancels_and_runs_again_with_other_values() {
    for face in FACES {
        let yard = Yard::new(face).await;
        yard.forge.set_permission("grace", Level::Write);
        let (number, head) = planned(&yard).await;
        let id = yard
            .forge
            .comment(number, "grace", "/trainyard cancel")
            .await;
        yard.job(&head, "train", "cancelled").await;
        thanked(&yard, number, id).await;
        let before = yard.pipelines(&head).await;
        let id = yard
            .forge
            .comment(number, "grace", "/trainyard rerun train lr=0.5")
            .await;
        yard.job(&head, "train", "queued").await;
        thanked(&yard, number, id).await;
        assert_eq!(yard.pipelines(&head).await, before + 1, "{face:?}");
        let id = yard
            .forge
            .comment(number, "grace", "/trainyard cancel train")
            .await;
        thanked(&yard, number, id).await;
        yard.job(&head, "train", "cancelled").await;
        yard.forge
            .comment(number, "grace", "/trainyard retry")
            .await;
        yard.job(&head, "train", "queued").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_answered_once_and_mentions_nobody() {
    for face in FACES {
        let yard = Yard::new(face).await;
        let (number, _) = planned(&yard).await;
        yard.forge
            .comment(number, "octo", "/trainyard deploy @everyone")
            .await;
        let answer = answered(&yard, number, "'deploy' is no command").await;
        assert!(!answer.text.contains("@everyone"), "{}", answer.text);
        yard.forge
            .comment(number, "octo", "/trainyard rerun train lrr=1")
            .await;
        answered(&yard, number, "did you mean 'lr'?").await;
        yard.forge.comment(number, "octo", "/trainyard retry").await;
        answered(&yard, number, "nothing failed").await;
        for delivery in yard.forge.deliveries() {
            yard.forge.redeliver(&delivery.id).await;
        }
        yard.forge
            .comment(number, "octo", "/trainyard approve")
            .await;
        answered(&yard, number, "nothing waits for an approval").await;
        let seen = yard.forge.seen();
        let told = |words: &str| {
            seen.on(number)
                .iter()
                .filter(|c| c.text.contains(words))
                .count()
        };
        assert_eq!(told("'deploy' is no command"), 1, "{face:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_while_the_server_was_down_is_done_once() {
    for face in FACES {
        let mut yard = Yard::with(face, "requests_interval = \"0s\"").await;
        let (number, head) = planned(&yard).await;
        let before = yard.pipelines(&head).await;
        // Each start finds what was said since, and what was found before.
        for (text, word) in [
            ("/trainyard rerun train lr=0.5", "queued"),
            ("/trainyard cancel", "cancelled"),
        ] {
            yard.world.kill_server().await;
            let id = yard.forge.comment(number, "octo", text).await;
            yard.world.start_server().await;
            thanked(&yard, number, id).await;
            yard.job(&head, "train", word).await;
            assert_eq!(yard.pipelines(&head).await, before + 1, "{face:?}");
        }
    }
}
