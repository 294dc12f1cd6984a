//! Stories of the GitHub App's one hook.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use server::forge::{ForgeConfig, Place};
use server::state::{Handle, Server};
use server::store::projects::{self, Project};
use sha2::Sha256;

use super::{HOOK_SECRET, Town, insert};
use crate::forge::{Face, MAIN, PROJECT};

/// A server with its loops, which watches the repository as the App.
pub(super) async fn told_as_app(town: &Town) -> (Handle, Project) {
    town.forge.install_app().await;
    let handle = Server::start(town.config()).await.unwrap();
    let project = town.of_app();
    insert(&handle.server, &project).await;
    town.forge
        .app_hook(&format!("{}/hooks", handle.url()), HOOK_SECRET);
    until(&handle, |project| project.checked_at.is_some()).await;
    (handle, project)
}

/// Waits until the project's row is as wanted.
async fn until(handle: &Handle, wanted: impl Fn(&Project) -> bool) -> Project {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let mut db = handle.server.store.read().await.unwrap();
        let found = projects::by_name(&mut db, "story").await.unwrap().unwrap();
        drop(db);
        if wanted(&found) {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "in vain: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_hook_of_the_app_tells_of_each_repository() {
    let town = Town::new(Face::Github).await;
    let (handle, project) = told_as_app(&town).await;
    let commit = town.forge.push(MAIN, &[("a", "1")]).await;
    let told = town.forge.deliveries().pop().unwrap();
    assert_eq!(told.answers[0].status, Some(202));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let mut db = handle.server.store.read().await.unwrap();
        let refs = projects::refs(&mut db, &project.id).await.unwrap();
        if refs.iter().any(|(_, at)| at.as_str() == commit) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "in vain: {refs:?}");
        drop(db);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn a_suspended_app_is_the_projects_problem_until_it_is_back() {
    let town = Town::new(Face::Github).await;
    let (handle, _) = told_as_app(&town).await;
    let problem = |words: &'static str| {
        move |project: &Project| {
            let problem = project.problem.as_deref();
            problem.is_some_and(|problem| problem.contains(words))
        }
    };
    town.forge.suspend_app(true).await;
    until(&handle, problem("it is suspended there")).await;
    town.forge.suspend_app(false).await;
    until(&handle, |project| project.problem.is_none()).await;
    town.forge.uninstall_app().await;
    let found = until(&handle, problem("cannot speak for octo/hello")).await;
    assert!(found.problem.unwrap().contains("the GitHub App"));
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn what_the_apps_hook_cannot_prove_or_place_starts_nothing() {
    let town = Town::new(Face::Github).await;
    let (handle, project) = told_as_app(&town).await;
    let answered = async || {
        town.forge.push("side", &[("a", "1")]).await;
        town.forge.deliveries().pop().unwrap().answers[0].status
    };
    town.secret("app-hook", "another");
    assert_eq!(answered().await, Some(401));
    std::fs::remove_file(town.folder.path().join("app-hook")).unwrap();
    assert_eq!(answered().await, Some(401));
    let mut db = handle.server.store.read().await.unwrap();
    let kept = projects::unhandled_deliveries(&mut db, 10).await.unwrap();
    let pushes = kept.iter().filter(|kept| kept.event == "push").count();
    assert_eq!(pushes, 0, "{kept:?}");
    drop(db);

    // Another repository took the name: it has another number.
    town.secret("app-hook", HOOK_SECRET);
    let mut tx = handle.server.store.begin().await.unwrap();
    let other = Project {
        id: protocol::ProjectId::generate(),
        name: "other".to_owned(),
        forge: ForgeConfig::Github(Place {
            app: Some(PROJECT + 1),
            ..town.place()
        }),
        ..project.clone()
    };
    projects::insert(&mut tx, &other).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(answered().await, Some(202));
    let mut db = handle.server.store.read().await.unwrap();
    let of_other = projects::has_unhandled(&mut db, &other.id).await.unwrap();
    assert!(!of_other);
    drop(db);
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_no_app_and_a_wrong_body_are_refused() {
    let town = Town::new(Face::Github).await;
    let (handle, _) = told_as_app(&town).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |url: &str, signed: bool| {
        let body = "payload=%7B%7D";
        let mut mac = Hmac::<Sha256>::new_from_slice(HOOK_SECRET.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let signature = if signed {
            hex::encode(mac.finalize().into_bytes())
        } else {
            "00".repeat(32)
        };
        let request = http
            .post(format!("{url}/hooks"))
            .header("x-github-event", "push")
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, words) = post(&handle.url(), true).await;
    assert_eq!(status, 415);
    assert!(words.contains("application/json"), "{words}");
    let (status, unproved) = post(&handle.url(), false).await;
    assert_eq!(status, 401);
    handle.stop().await.unwrap();

    let config = server::config::Config {
        github_app: None,
        ..town.config()
    };
    let handle = Server::start(config).await.unwrap();
    let (status, words) = post(&handle.url(), true).await;
    assert_eq!(
        (status, words),
        (401, unproved),
        "an outsider learns nothing"
    );
    handle.stop().await.unwrap();
}
