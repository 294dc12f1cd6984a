//! What runs of a pull request, and what waits.

use super::{FACES, Yard};
use crate::support::forge::Face;

/// What GitHub and its like call a job that waits, and what GitLab does, is the same word.
const WAITS: &str = "pending";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_planned_at_each_head_and_the_older_one_gives_way() {
    for face in FACES {
        let yard = Yard::new(face).await;
        yard.forge
            .push("patch", &[("train.py", "print(2)\n")])
            .await;
        let number = yard.forge.open_request("patch", "Better", "ada").await;
        let first = yard.forge.head(number);
        yard.shows(&first, "trainyard/train", WAITS, "queued").await;
        let second = yard
            .forge
            .push_to_request(number, &[("train.py", "print(3)\n")])
            .await;
        yard.shows(&second, "trainyard/train", WAITS, "queued")
            .await;
        yard.job(&first, "train", "cancelled").await;
        assert_eq!(yard.forge.violations(), [""; 0], "{face:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_waits_until_somebody_who_may_approves_it_in_a_comment() {
    for face in FACES {
        let yard = Yard::new(face).await;
        let evil = "jobs: {steal: {command: env, secrets: [TOKEN]}}";
        let files = [("train.py", "print(2)\n"), (".trainyard.yml", evil)];
        let number = yard
            .forge
            .open_from_fork("mallory", "patch", &files, "Better")
            .await;
        let head = yard.forge.head(number);
        yard.shows(&head, "trainyard/train", WAITS, "waits for an approval")
            .await;
        yard.forge
            .comment(number, "mallory", "/trainyard approve")
            .await;
        let text = format!("Fine.\n\n/trainyard approve {head}\n");
        yard.forge.comment(number, "octo", &text).await;
        yard.job(&head, "train", "queued").await;
        // GitLab keeps the words of a status that stays pending.
        if face != Face::Gitlab {
            yard.shows(&head, "trainyard/train", WAITS, "queued").await;
        }
        let seen = yard.forge.seen();
        let by_mallory = seen
            .on(number)
            .into_iter()
            .find(|comment| comment.by == "mallory");
        assert!(by_mallory.unwrap().reactions.is_empty(), "{face:?}");

        let next = yard
            .forge
            .push_to_request(number, &[("train.py", "print(3)\n")])
            .await;
        yard.shows(&next, "trainyard/train", WAITS, "waits for an approval")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_messages_are_lost_is_found_by_looking() {
    for face in FACES {
        let yard = Yard::new(face).await;
        yard.forge
            .push("patch", &[("train.py", "print(2)\n")])
            .await;
        yard.forge.lose_hooks();
        let number = yard.forge.open_request("patch", "Better", "ada").await;
        let head = yard.forge.head(number);
        yard.forge.release_hooks().await;
        // Something else moves, and the forge tells of it.
        yard.forge.push("other", &[("README.md", "x\n")]).await;
        yard.shows(&head, "trainyard/train", WAITS, "queued").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_twice_makes_one_pipeline() {
    let yard = Yard::new(Face::Gitea).await;
    yard.forge.repeat_hooks();
    yard.forge
        .push("patch", &[("train.py", "print(2)\n")])
        .await;
    let number = yard.forge.open_request("patch", "Better", "ada").await;
    let head = yard.forge.head(number);
    yard.shows(&head, "trainyard/train", WAITS, "queued").await;
    for delivery in yard.forge.deliveries() {
        yard.forge.redeliver(&delivery.id).await;
    }
    let next = yard
        .forge
        .push_to_request(number, &[("train.py", "print(3)\n")])
        .await;
    yard.shows(&next, "trainyard/train", WAITS, "queued").await;
    // The branch that was pushed, and the request.
    assert_eq!(yard.pipelines(&head).await, 2);
}
