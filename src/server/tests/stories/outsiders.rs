//! Stories of what somebody from outside sends to stop the others: commits that cannot be used, and such that git cannot
//! give. Real git; the forge's word is written down as its message would be.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use mirror::Mirror;
use protocol::{CommitId, FailureKind, Outcome, Timestamp};
use server::fleet::hosts;
use server::store::projects::Delivery;
use server::store::{projects, requests};
use server::trigger::Request;
use server::{housekeeping, watch};

use crate::commits::{Repository, git, jobs_of};
use crate::support::{Times, World, on_both};

const FILE: &str = "\
jobs:
  train:
    command: python train.py
    on: {push: [main], pull_request: true}
    deps: [train.py]
";

async fn repository(world: &World) -> Repository {
    let repository = Repository::new(world).await;
    repository.commit(&[(".trainyard.yml", FILE)]);
    repository.look(world).await;
    world.agent("a").await.run(Outcome::Succeeded).await;
    // What is queued from now on stays so.
    hosts::drain(world.server(), "a", false, "ana")
        .await
        .unwrap();
    repository
}

fn head_of(number: u64) -> String {
    format!("refs/pull/{number}/head")
}

/// What a forge's message of a pull request from a fork does.
async fn tell(world: &World, repository: &Repository, number: u64, open: bool) {
    let request = Request {
        number,
        head: "a".repeat(40).parse().unwrap(),
        head_branch: "patch".to_owned(),
        base_branch: "main".to_owned(),
        title: "Better".to_owned(),
        author: Some("eve".to_owned()),
        fork: true,
        open,
        updated_at: None,
    };
    let mut tx = world.server().store.begin().await.unwrap();
    requests::put(&mut tx, &repository.project.id, &request, Timestamp::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// A commit to which only the pull request's ref leads.
fn push(repository: &Repository, number: u64, text: &str) {
    git(&repository.path, &["checkout", "--quiet", "--detach"]);
    repository.commit(&[("train.py", text)]);
    let head = head_of(number);
    git(&repository.path, &["update-ref", &head, "HEAD"]);
    git(&repository.path, &["checkout", "--quiet", "main"]);
}

/// What git answers to this input.
fn said(folder: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("git")
        .args(["-c", "user.name=Eve", "-c", "user.email=eve@example.org"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A commit of a few hundred bytes that names a million files: each folder has the next one ten times.
fn push_many_files(repository: &Repository, number: u64) {
    let path = &repository.path;
    let mut id = said(path, &["hash-object", "-w", "--stdin"], "x");
    for level in 0..6 {
        let kind = if level == 0 {
            "100644 blob"
        } else {
            "040000 tree"
        };
        let entries = (0..10).map(|n| format!("{kind} {id}\tn{n}\n"));
        id = said(path, &["mktree"], &entries.collect::<String>());
    }
    let commit = said(path, &["commit-tree", &id, "-p", "main"], "Look at this");
    git(path, &["update-ref", &head_of(number), &commit]);
}

async fn problem(world: &World, repository: &Repository) -> Option<String> {
    let mut db = world.server().store.read().await.unwrap();
    let project = projects::find(&mut db, &repository.project.id).await;
    project.unwrap().unwrap().problem
}

/// The commits that the mirror keeps though no branch leads to them.
fn kept(world: &World, repository: &Repository) -> Vec<CommitId> {
    let mirror = Mirror::open(&world.server().config.mirrors(), &repository.project.url).unwrap();
    let refs = mirror.refs().unwrap().into_iter();
    let kept = refs.filter(|r| r.name.starts_with("refs/trainyard/commits/"));
    kept.map(|r| r.commit).collect()
}

#[tokio::test]
async fn a_commit_that_nobody_can_use_is_red_and_stops_no_other() {
    on_both(Times::default(), |world| async move {
        let repository = repository(&world).await;
        push_many_files(&repository, 7);
        push(&repository, 8, "print(8)");
        tell(&world, &repository, 7, true).await;
        tell(&world, &repository, 8, true).await;
        let made = repository.look_all(&world).await;
        assert_eq!(made.len(), 2, "{made:?}");
        let failure = made[0].problem.as_ref().unwrap();
        assert_eq!(failure.kind, FailureKind::CommitUnusable);
        assert!(failure.message.contains("files"), "{}", failure.message);
        assert_eq!(made[0].subject, "Look at this");
        assert_eq!(made[0].trigger.base, None, "nothing compares it");
        assert_eq!(jobs_of(&world, &made[1]).await.len(), 1);
        assert!(repository.look_all(&world).await.is_empty(), "once");
        assert_eq!(problem(&world, &repository).await, None);

        // What nobody asks for any more is not kept: the first is over, and of the second a job waits.
        assert_eq!(kept(&world, &repository).len(), 2);
        housekeeping::tick(world.server(), Timestamp::now())
            .await
            .unwrap();
        assert_eq!(kept(&world, &repository).len(), 2, "both are open");
        tell(&world, &repository, 7, false).await;
        tell(&world, &repository, 8, false).await;
        housekeeping::tick(world.server(), Timestamp::now())
            .await
            .unwrap();
        let second = &made[1].trigger.commit;
        assert_eq!(kept(&world, &repository), std::slice::from_ref(second));
    })
    .await;
}

#[tokio::test]
async fn a_ref_that_git_cannot_give_holds_up_no_other_and_is_looked_at_again() {
    on_both(Times::default(), |world| async move {
        let repository = repository(&world).await;
        push(&repository, 7, "print(7)");
        push(&repository, 8, "print(8)");
        git(&repository.path, &["tag", "v1"]);
        tell(&world, &repository, 7, true).await;
        tell(&world, &repository, 8, true).await;
        let delivery = Delivery {
            project: repository.project.id.clone(),
            delivery: "one".to_owned(),
            event: "push".to_owned(),
            body: "{}".to_owned(),
            asks: false,
            comment: None,
            received_at: Timestamp::now(),
        };
        let mut tx = world.server().store.begin().await.unwrap();
        projects::insert_delivery(&mut tx, &delivery).await.unwrap();
        tx.commit().await.unwrap();
        let name = format!("{}:train.py", head_of(7));
        let blob = said(&repository.path, &["rev-parse", &name], "");
        let objects = repository.path.join(".git/objects");
        let file = objects.join(&blob[..2]).join(&blob[2..]);
        let away = world.folder.path().join("away");
        std::fs::rename(&file, &away).unwrap();

        let look = async || {
            let mut db = world.server().store.read().await.unwrap();
            let project = projects::find(&mut db, &repository.project.id).await;
            drop(db);
            watch::look(world.server(), &project.unwrap().unwrap()).await
        };
        let error = look().await.unwrap_err().to_string();
        assert!(error.starts_with("refs/pull/7/head: fetching"), "{error}");
        assert_eq!(problem(&world, &repository).await, Some(error));
        let mut db = world.server().store.read().await.unwrap();
        let project = &repository.project.id;
        let refs = projects::refs(&mut db, project).await.unwrap();
        let mut names: Vec<_> = refs.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["refs/heads/main", "refs/pull/8/head", "refs/tags/v1"]
        );
        assert!(!projects::has_unhandled(&mut db, project).await.unwrap());
        drop(db);
        look().await.unwrap_err();
        assert!(problem(&world, &repository).await.is_some(), "it stays");

        std::fs::rename(&away, &file).unwrap();
        let made = look().await.unwrap();
        assert_eq!(made[0].trigger.reference, Some(head_of(7)));
        assert_eq!(problem(&world, &repository).await, None);
    })
    .await;
}
