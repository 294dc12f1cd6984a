//! Stories of people whose word cannot be weighed: the forge does not tell our token who may write.

use std::time::Duration;

use protocol::Timestamp;
use server::state::Handle;
use server::store::projects;

use super::add::open;
use super::{Town, insert};
use crate::forge::{Face, Level};

/// Waits until all that people asked for is done with.
async fn until_done(handle: &Handle) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let mut db = handle.server.store.read().await.unwrap();
        let all = projects::asked(&mut db, Timestamp(i64::MAX), 10).await;
        let asked = all.unwrap();
        if asked.is_empty() {
            return;
        }
        drop(db);
        assert!(tokio::time::Instant::now() < deadline, "in vain: {asked:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_command_that_nobody_can_weigh_is_answered_once_and_is_the_projects_problem() {
    let town = Town::new(Face::Gitea).await;
    let handle = open(&town).await;
    town.forge.set_permission("ben", Level::Write);
    let token = town.forge.token("ben", Face::Gitea.scopes());
    let mut project = town.with_token(&token);
    project
        .forge
        .set_webhook_secret(town.secret("hook", "of the hook"));
    insert(&handle.server, &project).await;
    let hooks = format!("{}/hooks/story", handle.url());
    town.forge.hook(&hooks, "of the hook");
    town.forge.push("better", &[("train.py", "print(2)")]).await;
    let number = town.forge.open_request("better", "Better", "octo").await;
    for _ in 0..2 {
        town.forge.comment(number, "octo", "/trainyard retry").await;
        until_done(&handle).await;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let replies = loop {
        let seen = town.forge.seen();
        let said = seen.on(number).into_iter();
        let replies: Vec<_> = said
            .filter(|said| said.text.contains("Not done"))
            .cloned()
            .collect();
        if !replies.is_empty() {
            break replies;
        }
        assert!(tokio::time::Instant::now() < deadline, "no answer came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(replies.len(), 1);
    assert!(replies[0].text.contains("project doctor"), "{replies:?}");
    let mut db = handle.server.store.read().await.unwrap();
    let problems = projects::commands_problems(&mut db).await.unwrap();
    assert_eq!(problems.len(), 1);
    let why = &problems[0].1;
    assert!(why.contains("an administrator's token"), "{why}");
    drop(db);

    // With another token it is obeyed, and no problem any more.
    town.secret("token", &town.forge.owners_token());
    town.forge.comment(number, "octo", "/trainyard retry").await;
    until_done(&handle).await;
    let mut db = handle.server.store.read().await.unwrap();
    let problems = projects::commands_problems(&mut db).await.unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    drop(db);
    handle.stop().await.unwrap();
}
