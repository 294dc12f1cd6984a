//! Stories of `trainyard project doctor`: each thing that can be wrong is found and named.

use protocol::setup::{Check, Level as How};
use server::project::doctor;
use server::state::{Handle, Server};
use server::store::projects::Project;

use super::add::open;
use super::{HOOK_SECRET, Town, insert};
use crate::forge::{Face, Level};

const FACES: [Face; 3] = [Face::Github, Face::Gitlab, Face::Gitea];

async fn examine(server: &Server, project: &Project) -> Vec<Check> {
    doctor::examine(server, project).await.unwrap()
}

/// What stands at a name, in one text with what to do.
fn at(checks: &[Check], name: &str) -> (How, String) {
    let found = checks.iter().find(|check| check.name == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {checks:?}"));
    let hint = found.hint.as_deref().unwrap_or_default();
    (found.level, format!("{} -> {hint}", found.found))
}

/// A project whose webhook is there.
async fn healthy(town: &Town) -> (Handle, Project, String) {
    let handle = open(town).await;
    let token = town.forge.owners_token();
    let mut project = town.with_token(&token);
    project
        .forge
        .set_webhook_secret(town.secret("hook", "of the hook"));
    insert(&handle.server, &project).await;
    let hooks = format!("{}/hooks/story", handle.url());
    town.forge.hook(&hooks, "of the hook");
    (handle, project, token)
}

#[tokio::test]
async fn all_is_well_where_all_is_well() {
    for face in FACES {
        let town = Town::new(face).await;
        let (handle, project, token) = healthy(&town).await;
        town.forge.push("side", &[("a", "1")]).await;
        let found = examine(&handle.server, &project).await;
        let well = found.iter().all(|check| check.level == How::Ok);
        assert!(well, "{face:?}: {found:#?}");
        let names: Vec<_> = found.iter().map(|check| &*check.name).collect();
        let all = [
            "forge", "clone", "token", "statuses", "comments", "commands", "secret", "webhook",
            "messages",
        ];
        assert_eq!(names, all);
        assert!(!format!("{found:?}").contains(&token));
        assert!(town.forge.seen().statuses.is_empty(), "nothing is changed");
        handle.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_revoked_token_fails_at_all_that_needs_it() {
    for face in FACES {
        let town = Town::new(face).await;
        let (handle, project, token) = healthy(&town).await;
        town.forge.revoke(&token);
        let found = examine(&handle.server, &project).await;
        let (how, said) = at(&found, "token");
        assert_eq!(how, How::Fail);
        assert!(
            said.contains("was revoked") && said.contains("file:"),
            "{said}"
        );
        assert_eq!(at(&found, "clone").0, How::Fail);
        assert!(!format!("{found:?}").contains(&token));
        handle.stop().await.unwrap();
    }
}

#[tokio::test]
async fn who_may_not_ask_for_people_is_told_that_no_command_is_obeyed() {
    for face in FACES {
        let town = Town::new(face).await;
        let (handle, mut project, _) = healthy(&town).await;
        town.forge.set_permission("ben", Level::Write);
        let token = town.forge.token("ben", face.scopes());
        project.forge = town.with_token(&token).forge;
        let found = examine(&handle.server, &project).await;
        let (how, said) = at(&found, "commands");
        match face {
            Face::Gitea | Face::Forgejo => {
                assert_eq!(how, How::Warn);
                assert!(said.contains("administrator of the repository"), "{said}");
            }
            Face::Github | Face::Gitlab => assert_eq!(how, How::Ok, "{said}"),
        }
        handle.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_scope_that_is_missing_is_named() {
    for (face, scopes, name, words) in [
        (
            Face::Github,
            &["read:user"][..],
            "statuses",
            "Commit statuses read and write",
        ),
        (Face::Gitlab, &["read_api"], "statuses", "scope api"),
        (Face::Gitlab, &["read_api"], "comments", "scope api"),
        (
            Face::Gitea,
            &["read:repository"],
            "statuses",
            "write:repository",
        ),
        (
            Face::Gitea,
            &["write:repository"],
            "comments",
            "write:issue",
        ),
    ] {
        let town = Town::new(face).await;
        let (handle, mut project, _) = healthy(&town).await;
        let weak = town.forge.token("octo", scopes);
        let with = town.with_token(&weak);
        project.forge = with.forge;
        let found = examine(&handle.server, &project).await;
        let (how, said) = at(&found, name);
        assert_eq!(how, How::Fail, "{face:?}: {found:#?}");
        assert!(said.contains(words), "{said}");
        handle.stop().await.unwrap();
    }
}

#[tokio::test]
async fn who_may_not_look_at_webhooks_is_warned_and_no_more() {
    let town = Town::new(Face::Gitlab).await;
    let (handle, project, _) = healthy(&town).await;
    town.forge.set_permission("ada", Level::Write);
    town.secret("token", &town.forge.token("ada", &["api"]));
    let (how, said) = at(&examine(&handle.server, &project).await, "webhook");
    assert_eq!(how, How::Warn);
    assert!(said.contains("Maintainer"), "{said}");
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn a_webhook_that_is_missing_deaf_or_refused_is_told_apart() {
    let town = Town::new(Face::Github).await;
    let (handle, project, _) = healthy(&town).await;
    town.secret("hook", "another");
    town.forge.push("side", &[("a", "1")]).await;
    let found = examine(&handle.server, &project).await;
    let (how, said) = at(&found, "webhook");
    assert_eq!(how, How::Fail);
    assert!(
        said.contains("answered 401") && said.contains("secrets differ"),
        "{said}"
    );
    assert_eq!(at(&found, "messages").0, How::Warn);

    std::fs::remove_file(town.folder.path().join("hook")).unwrap();
    assert_eq!(
        at(&examine(&handle.server, &project).await, "secret").0,
        How::Fail
    );

    let elsewhere = Project {
        name: "elsewhere".to_owned(),
        ..project
    };
    let (how, said) = at(&examine(&handle.server, &elsewhere).await, "webhook");
    assert_eq!(how, How::Fail);
    assert!(said.contains("/octo/hello/settings/hooks/new"), "{said}");
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn the_app_is_looked_at_in_its_own_way() {
    let town = Town::new(Face::Github).await;
    town.forge.install_app().await;
    let handle = open(&town).await;
    let project = town.of_app();
    insert(&handle.server, &project).await;
    town.forge
        .app_hook("https://elsewhere.example/hooks", HOOK_SECRET);
    let (how, said) = at(&examine(&handle.server, &project).await, "webhook");
    assert_eq!(how, How::Fail);
    assert!(said.contains(&format!("{}/hooks", handle.url())), "{said}");

    town.forge.suspend_app(true).await;
    let found = examine(&handle.server, &project).await;
    for name in ["clone", "app"] {
        let (how, said) = at(&found, name);
        assert_eq!(how, How::Fail);
        assert!(said.contains("suspended"), "{said}");
    }
    town.forge.suspend_app(false).await;
    assert_eq!(
        at(&examine(&handle.server, &project).await, "app").0,
        How::Ok
    );
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn a_plain_remote_has_only_its_clone() {
    let town = Town::new(Face::Gitea).await;
    let server = town.server().await;
    let project = Project {
        url: town.forge.clone_url(),
        ..server::store::testing::project("story")
    };
    insert(&server, &project).await;
    let found = examine(&server, &project).await;
    assert_eq!(found.len(), 2);
    assert_eq!(at(&found, "clone").0, How::Fail, "it is private");
    town.forge.private(false);
    assert_eq!(at(&examine(&server, &project).await, "clone").0, How::Ok);
}
