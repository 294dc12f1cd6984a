//! Stories of what is said under pull requests.

use super::*;
use crate::forge::{Reaction, Reply, Update};

impl World {
    async fn say(&self, update: Update) {
        let mut tx = self.store.begin().await.unwrap();
        rows::put(&mut tx, &self.project.id, &update, self.now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    fn reply(&self, answers: &str, text: &str) -> Update {
        Update::Reply(Reply {
            number: 5,
            answers: answers.into(),
            text: text.into(),
            since: self.now,
        })
    }
}

/// The texts of comments without the lines that nobody sees.
pub(super) fn said(github: &Github) -> Vec<String> {
    let texts = github.comments(5).into_iter().map(|(_, text)| text);
    texts
        .map(|text| {
            let shown = text.lines().filter(|line| !line.starts_with("<!--"));
            shown.collect::<Vec<_>>().join("\n")
        })
        .collect()
}

#[tokio::test]
async fn a_reply_is_written_once_whatever_became_of_its_answer() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let reply = world.reply("delivery-1", "Runs again: #4.");
        world.say(reply.clone()).await;
        world.github.lose_answer();
        world.tick().await;
        assert_eq!(world.problems().await.len(), 1);
        world.restart();
        world.wait(Span::secs(5));
        world.settle().await;
        assert!(world.problems().await.is_empty());
        world.say(reply).await;
        world.settle().await;
        let again = world.reply("delivery-2", "Runs again: #4.");
        world.say(again).await;
        world.settle().await;
        assert_eq!(said(&world.github), ["Runs again: #4."; 2]);
    })
    .await;
}

#[tokio::test]
async fn a_marker_in_somebody_elses_comment_makes_it_none_of_ours() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world.say(world.reply("delivery-1", "Done.")).await;
        // Markers are made of what anybody may read: this one was there before us.
        world.github.lose_answer();
        world.tick().await;
        world.github.is_by(666);
        world.wait(Span::secs(5));
        world.settle().await;
        let by: Vec<_> = world.github.comments(5).into_iter().map(|c| c.0).collect();
        assert_eq!(by, [666, 7]);
    })
    .await;
}

#[tokio::test]
async fn a_comment_gets_a_thumb_and_one_that_is_gone_holds_nothing_up() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        let comment = world.github.said(5, 42, "/trainyard retry");
        for comment in [comment + 1, comment] {
            world
                .say(Update::Reaction(Reaction { number: 5, comment }))
                .await;
        }
        assert_eq!(world.settle().await, [format!("+1 on {comment}")]);
        assert_eq!(
            world.problems().await,
            ["GitHub refuses it (404): Not Found"]
        );
        world.wait(Span::hours(2));
        world.github.calls();
        world.settle().await;
        assert_eq!(world.github.calls(), 0, "it is not tried for ever");
    })
    .await;
}

#[tokio::test]
async fn a_token_that_may_not_comment_goes_on_with_statuses() {
    on_both(|store| async move {
        let mut world = World::new(store).await;
        world.say(world.reply("delivery-1", "Done.")).await;
        let denied = r#"{"message":"Resource not accessible by personal access token"}"#;
        world.github.fail(403, None, denied);
        world.job("train").await;
        assert_eq!(world.settle().await.len(), 2);
        let problem = world.problems().await.remove(0);
        assert!(
            problem.contains("write access to pull requests"),
            "{problem}"
        );
    })
    .await;
}
