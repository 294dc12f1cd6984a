//! Stories of pull requests: what runs of them, and what waits for a person first. Real git; the forge's word is
//! written down as its message would be.

use protocol::job::{Block, State};
use protocol::{Outcome, Timestamp, TriggerKind, Trust};
use server::fleet::hosts;
use server::pipelines::{self, SUPERSEDED};
use server::report::Differ;
use server::store::jobs::Job;
use server::store::pipelines::Pipeline;
use server::store::{diffs, projects, requests};
use server::trigger::Request;

use crate::commits::{Repository, git, jobs_of, only_job};
use crate::support::{Times, World, on_both};

const FILE: &str = "\
jobs:
  train:
    command: python train.py
    on: {push: [main], pull_request: true}
    deps: [train.py]
";
/// What somebody from outside would like to run.
const EVIL: &str = "jobs: {steal: {command: env, secrets: [TOKEN]}}";
const HEAD: &str = "refs/pull/7/head";

fn held() -> State {
    State::Blocked {
        on: Block::Approval,
    }
}

/// A repository whose first commit succeeded.
async fn repository(world: &World) -> Repository {
    let repository = Repository::new(world).await;
    repository.commit(&[(".trainyard.yml", FILE)]);
    repository.look(world).await;
    let agent = world.agent("a").await;
    agent.run(Outcome::Succeeded).await;
    // What is queued from now on stays so.
    hosts::drain(world.server(), "a", false, "ana")
        .await
        .unwrap();
    repository
}

/// Commits on a branch that only the pull request's ref leads to.
fn push_to_request(repository: &Repository, files: &[(&str, &str)]) {
    git(&repository.path, &["checkout", "--quiet", "--detach"]);
    repository.commit(files);
    git(&repository.path, &["update-ref", HEAD, "HEAD"]);
    git(&repository.path, &["checkout", "--quiet", "main"]);
}

/// What a forge's message of a pull request does.
async fn tell(world: &World, repository: &Repository, fork: bool, open: bool) {
    let request = Request {
        number: 7,
        head: "a".repeat(40).parse().unwrap(),
        head_branch: "patch".to_owned(),
        base_branch: "main".to_owned(),
        title: "Better".to_owned(),
        author: Some("eve".to_owned()),
        fork,
        open,
        updated_at: None,
    };
    let mut tx = world.server().store.begin().await.unwrap();
    let project = &repository.project.id;
    requests::put(&mut tx, project, &request, Timestamp::now())
        .await
        .unwrap();
    projects::remove_ref(&mut tx, project, HEAD).await.unwrap();
    tx.commit().await.unwrap();
}

async fn approve(world: &World, pipeline: &Pipeline) -> Vec<Job> {
    let (project, commit) = (&pipeline.project, &pipeline.trigger.commit);
    pipelines::approve(world.server(), project, commit, "ana")
        .await
        .unwrap()
}

#[tokio::test]
async fn a_fork_waits_for_a_person_at_each_commit_and_runs_the_base_branchs_file() {
    on_both(Times::default(), |world| async move {
        let repository = repository(&world).await;
        let change = [("train.py", "print(2)"), (".trainyard.yml", EVIL)];
        push_to_request(&repository, &change);
        tell(&world, &repository, true, true).await;

        let first = repository.look(&world).await;
        assert_eq!(first.trigger.kind, TriggerKind::PullRequest { number: 7 });
        assert_eq!(first.trigger.by.as_deref(), Some("eve"));
        assert!(
            first.trigger.base.is_some(),
            "where it left the main branch"
        );
        let job = only_job(&world, &first).await;
        assert_eq!(
            (job.spec.name.as_str(), job.trust),
            ("train", Trust::Untrusted)
        );
        assert_eq!(job.state, held());
        assert!(repository.look_all(&world).await.is_empty(), "planned once");

        push_to_request(&repository, &[("train.py", "print(3)")]);
        let second = repository.look(&world).await;
        let superseded = only_job(&world, &first).await;
        let by = SUPERSEDED.to_owned();
        assert_eq!(superseded.state.outcome(), Some(&Outcome::Cancelled { by }));
        let approved = approve(&world, &second).await;
        assert_eq!(approved.len(), 1);
        assert_eq!(approved[0].state, State::Queued);

        push_to_request(&repository, &[("train.py", "print(4)")]);
        let third = repository.look(&world).await;
        let job = only_job(&world, &third).await;
        assert_eq!(job.state, held(), "another commit was approved");
    })
    .await;
}

/// Moves the pull request's ref to a commit that was its head before.
fn push_back(repository: &Repository, head: &str) {
    git(&repository.path, &["update-ref", HEAD, head]);
}

#[tokio::test]
async fn a_head_that_was_superseded_runs_when_it_is_pushed_again() {
    on_both(Times::default(), |world| async move {
        let repository = repository(&world).await;
        tell(&world, &repository, false, true).await;
        push_to_request(&repository, &[("train.py", "print(2)")]);
        let first = repository.look(&world).await;
        push_to_request(&repository, &[("train.py", "print(3)")]);
        let second = repository.look(&world).await;
        push_back(&repository, first.trigger.commit.as_str());
        let third = repository.look(&world).await;
        assert_ne!(third.id, first.id, "what was cancelled stands for nothing");
        let ended = only_job(&world, &second).await;
        let by = SUPERSEDED.to_owned();
        assert_eq!(ended.state.outcome(), Some(&Outcome::Cancelled { by }));
        assert_eq!(only_job(&world, &third).await.state, State::Queued);
    })
    .await;
}

#[tokio::test]
async fn a_head_that_was_done_and_is_pushed_again_ends_the_one_between() {
    on_both(Times::default(), |world| async move {
        let repository = repository(&world).await;
        tell(&world, &repository, false, true).await;
        push_to_request(&repository, &[("train.py", "print(2)")]);
        let first = repository.look(&world).await;
        let job = only_job(&world, &first).await;
        pipelines::cancel_by_hand(world.server(), &job.id, "ana")
            .await
            .unwrap();
        push_to_request(&repository, &[("train.py", "print(3)")]);
        let second = repository.look(&world).await;
        push_back(&repository, first.trigger.commit.as_str());
        assert_eq!(repository.look(&world).await.id, first.id);
        let ended = only_job(&world, &second).await;
        let by = SUPERSEDED.to_owned();
        assert_eq!(ended.state.outcome(), Some(&Outcome::Cancelled { by }));
    })
    .await;
}

#[tokio::test]
async fn no_way_leads_around_the_approval() {
    on_both(Times::default(), |world| async move {
        let repository = repository(&world).await;
        push_to_request(&repository, &[("train.py", "print(2)")]);
        tell(&world, &repository, true, true).await;
        let job = only_job(&world, &repository.look(&world).await).await;
        pipelines::cancel_by_hand(world.server(), &job.id, "eve")
            .await
            .unwrap();
        let again = pipelines::rerun(world.server(), &job.id, Some("eve"), Timestamp::now())
            .await
            .unwrap();
        let job = only_job(&world, &again).await;
        assert_eq!(job.state, held());
        assert_eq!(approve(&world, &again).await.len(), 1);
        pipelines::cancel_by_hand(world.server(), &job.id, "ana")
            .await
            .unwrap();
        let after = pipelines::rerun(world.server(), &job.id, Some("ana"), Timestamp::now())
            .await
            .unwrap();
        assert_eq!(only_job(&world, &after).await.state, State::Queued);
    })
    .await;
}

#[tokio::test]
async fn a_fork_that_changes_nothing_that_counts_needs_no_approval() {
    on_both(Times::default(), |world| async move {
        let repository = repository(&world).await;
        push_to_request(&repository, &[("README.md", "Hello")]);
        tell(&world, &repository, true, true).await;
        let job = only_job(&world, &repository.look(&world).await).await;
        let outcome = job.state.outcome();
        assert!(
            matches!(outcome, Some(Outcome::Reused { .. })),
            "{outcome:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_branch_of_the_repository_itself_runs_at_once() {
    on_both(Times::default(), |world| async move {
        let repository = repository(&world).await;
        push_to_request(&repository, &[("train.py", "print(2)")]);
        assert!(
            repository.look_all(&world).await.is_empty(),
            "nobody told of it"
        );
        tell(&world, &repository, false, true).await;
        let pipeline = repository.look(&world).await;
        let job = only_job(&world, &pipeline).await;
        assert_eq!((job.state, job.trust), (State::Queued, Trust::Trusted));
        // The message comes again.
        tell(&world, &repository, false, true).await;
        assert_eq!(repository.look(&world).await.id, pipeline.id);
        assert_eq!(jobs_of(&world, &pipeline).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_closed_request_runs_nothing_until_it_is_open_again() {
    on_both(Times::default(), |world| async move {
        let repository = repository(&world).await;
        push_to_request(&repository, &[("train.py", "print(2)")]);
        tell(&world, &repository, false, false).await;
        assert!(repository.look_all(&world).await.is_empty());
        tell(&world, &repository, false, true).await;
        let job = only_job(&world, &repository.look(&world).await).await;
        assert_eq!(job.state, State::Queued);
    })
    .await;
}

/// A notebook with one cell of code.
fn notebook(source: &str) -> String {
    format!(
        r#"{{"nbformat": 4, "nbformat_minor": 5, "metadata": {{}}, "cells": [{{"cell_type": "code",
        "id": "a", "metadata": {{}}, "source": "{source}", "outputs": [], "execution_count": null}}]}}"#
    )
}

#[tokio::test]
async fn what_a_request_changes_in_notebooks_is_compared_once_and_has_a_page() {
    on_both(Times::default(), |world| async move {
        let repository = repository(&world).await;
        repository.commit(&[("a.ipynb", &notebook("epochs = 10"))]);
        repository.look_all(&world).await;
        let broken = ("b.ipynb", "no notebook");
        let change = notebook("epochs = 20");
        push_to_request(&repository, &[("a.ipynb", &change), broken]);
        tell(&world, &repository, false, true).await;
        let pipeline = repository.look(&world).await;

        let server = world.server();
        let mut differ = Differ::new(server.store.clone(), server.config.mirrors());
        assert_eq!(differ.tick().await.unwrap(), 1);
        assert_eq!(differ.tick().await.unwrap(), 0);
        let mut db = server.store.read().await.unwrap();
        let text = diffs::find(&mut db, &pipeline.id).await.unwrap().unwrap();
        assert!(text.contains("-epochs = 10\n+epochs = 20\n"), "{text}");
        assert!(
            text.contains("`b.ipynb` cannot be read as a notebook"),
            "{text}"
        );

        let page = format!("{}/pipelines/{}", world.url, pipeline.id);
        let shown = reqwest::get(&page).await.unwrap().text().await.unwrap();
        assert!(shown.contains("What it changes in notebooks"), "{shown}");
        let answer = reqwest::get(format!("{page}/notebooks")).await.unwrap();
        let policy = answer.headers()["content-security-policy"].clone();
        assert!(policy.to_str().unwrap().starts_with("default-src 'none'"));
        let shown = answer.text().await.unwrap();
        assert!(shown.contains("a.ipynb") && shown.contains("20"), "{shown}");
    })
    .await;
}
