//! As Gitea and Forgejo send them.

use serde_json::{Value, json};

use super::super::hooks::Event;
use super::super::state::{Comment, MAIN, NAME, OWNER, Request, State};
use super::{Change, Commit, Deed, PROJECT, filled, set, source};

/// The most commits that a push names.
const COMMITS: usize = 5;

macro_rules! template {
    ($name:literal) => {
        include_str!(concat!("../../../data/forges/gitea/", $name, ".body.json"))
    };
}

/// A recorded body about this world's repository.
fn about_us(state: &mut State, template: &str, by: &str) -> Value {
    let mut body = filled(
        template,
        &[
            ("ci/nb-g15", &state.full_name()),
            ("nb-g15", NAME),
            ("http://127.0.0.1:13015", &state.url),
        ],
    );
    be_repository(&mut body["repository"], state, OWNER, PROJECT);
    be_user(&mut body["sender"], state, by);
    body
}

fn be_repository(repository: &mut Value, state: &mut State, owner: &str, id: u64) {
    be_user(&mut repository["owner"], state, owner);
    let url = format!("{}/{owner}/{NAME}", state.url);
    set(
        repository,
        [
            ("id", json!(id)),
            ("name", json!(NAME)),
            ("full_name", json!(format!("{owner}/{NAME}"))),
            ("private", json!(state.private)),
            ("fork", json!(owner != OWNER)),
            ("html_url", json!(url)),
            ("clone_url", json!(format!("{url}.git"))),
            ("default_branch", json!(MAIN)),
        ],
    );
}

fn be_user(user: &mut Value, state: &mut State, login: &str) {
    let email = format!("{login}@noreply.localhost");
    let fields = [
        ("id", json!(state.user(login))),
        ("login", json!(login)),
        ("username", json!(login)),
        ("email", json!(email)),
    ];
    set(user, fields);
}

fn commit(state: &State, commit: &Commit) -> Value {
    let person = json!({"name": commit.author, "email": commit.email, "username": ""});
    json!({
        "id": commit.id, "message": commit.message, "timestamp": commit.at,
        "url": format!("{}/{}/commit/{}", state.url, state.full_name(), commit.id),
        "author": person, "committer": person, "verification": null,
        "added": commit.added, "removed": commit.removed, "modified": commit.modified,
    })
}

pub(super) fn push(state: &mut State, change: &Change, by: &str) -> Vec<Event> {
    let template = match (change.is_tag(), &change.after) {
        (false, _) => template!("push.branch.1c"),
        (true, Some(_)) => template!("push.tag.created"),
        (true, None) => template!("push.tag.deleted"),
    };
    let mut body = about_us(state, template, by);
    be_user(&mut body["pusher"], state, by);
    // Newest first.
    let commits: Vec<_> = change
        .newest(COMMITS)
        .iter()
        .rev()
        .map(|c| commit(state, c))
        .collect();
    let head = change.tip.as_ref().map(|tip| commit(state, tip));
    set(
        &mut body,
        [
            ("ref", json!(change.reference)),
            ("before", json!(change.before())),
            ("after", json!(change.after())),
            ("commits", json!(commits)),
            ("head_commit", json!(head)),
        ],
    );
    let mut events = vec![Event::new("push", "push", body)];
    events.extend(made_or_gone(state, change, by));
    events
}

/// A new or deleted ref is told of a second time.
fn made_or_gone(state: &mut State, change: &Change, by: &str) -> Option<Event> {
    let tag = change.is_tag();
    let (name, template) = match (&change.before, &change.after) {
        (None, Some(_)) if tag => ("create", template!("create.tag")),
        (None, Some(_)) => ("create", template!("create.branch")),
        (Some(_), None) if tag => ("delete", template!("delete.tag")),
        (Some(_), None) => ("delete", template!("delete.branch")),
        (Some(_), Some(_)) | (None, None) => return None,
    };
    let mut body = about_us(state, template, by);
    body["ref"] = json!(change.short());
    if change.after.is_some() {
        body["sha"] = json!(change.after());
    }
    Some(Event::new(name, name, body))
}

pub(super) fn request(state: &mut State, request: &Request, deed: &Deed, by: &str) -> Event {
    let template = match deed {
        Deed::Pushed(_) => template!("pull_request.synchronized"),
        Deed::Closed => template!("pull_request.closed.fork"),
        Deed::Opened | Deed::Reopened | Deed::Ready => template!("pull_request.opened.fork"),
    };
    let (action, kind) = match deed {
        Deed::Opened => ("opened", "pull_request"),
        Deed::Pushed(_) => ("synchronized", "pull_request_sync"),
        Deed::Closed => ("closed", "pull_request"),
        Deed::Reopened => ("reopened", "pull_request"),
        // A draft is one by its title, and ready when that changes.
        Deed::Ready => ("edited", "pull_request"),
    };
    let mut body = about_us(state, template, by);
    be_pull(&mut body["pull_request"], state, request);
    if *deed == Deed::Ready {
        body["changes"] = json!({"title": {"from": format!("WIP: {}", request.title)}});
    }
    set(
        &mut body,
        [("action", json!(action)), ("number", json!(request.number))],
    );
    Event::new("pull_request", kind, body)
}

/// A pull request as the API gives it.
pub(crate) fn pull(state: &mut State, request: &Request) -> Value {
    let mut body = about_us(state, template!("pull_request.opened.fork"), OWNER);
    let mut pull = body["pull_request"].take();
    be_pull(&mut pull, state, request);
    pull
}

fn be_pull(pull: &mut Value, state: &mut State, request: &Request) {
    be_user(&mut pull["user"], state, &request.by);
    let page = format!(
        "{}/{}/pulls/{}",
        state.url,
        state.full_name(),
        request.number
    );
    let mark = if request.draft { "WIP: " } else { "" };
    let word = if request.open { "open" } else { "closed" };
    let main = state
        .known
        .get(&format!("refs/heads/{MAIN}"))
        .cloned()
        .unwrap_or_default();
    let merge_base = state.repo.merge_base(&main, &request.head);
    set(
        pull,
        [
            ("id", json!(request.number)),
            ("number", json!(request.number)),
            ("title", json!(format!("{mark}{}", request.title))),
            ("state", json!(word)),
            ("draft", json!(request.draft)),
            ("updated_at", json!(request.changed_at)),
            ("url", json!(page)),
            ("html_url", json!(page)),
            ("merge_base", json!(merge_base)),
        ],
    );
    set(
        &mut pull["base"],
        [
            ("label", json!(MAIN)),
            ("ref", json!(MAIN)),
            ("sha", json!(main)),
        ],
    );
    pull["base"]["repo_id"] = json!(PROJECT);
    be_repository(&mut pull["base"]["repo"], state, OWNER, PROJECT);
    let head = [
        ("label", json!(request.branch)),
        ("ref", json!(request.branch)),
    ];
    set(&mut pull["head"], head);
    pull["head"]["sha"] = json!(request.head);
    match source(state, request) {
        Some((owner, id)) => {
            pull["head"]["repo_id"] = json!(id);
            be_repository(&mut pull["head"]["repo"], state, &owner, id);
        }
        None => set(
            &mut pull["head"],
            [("repo_id", json!(-1)), ("repo", Value::Null)],
        ),
    }
}

pub(super) fn comment(state: &mut State, request: &Request, comment: &Comment) -> Event {
    let (action, template) = match comment.edits {
        0 => ("created", template!("issue_comment.created")),
        _ => ("edited", template!("issue_comment.edited")),
    };
    let mut body = about_us(state, template, &comment.by);
    be_user(&mut body["issue"]["user"], state, &request.by);
    let page = format!(
        "{}/{}/pulls/{}",
        state.url,
        state.full_name(),
        request.number
    );
    set(
        &mut body["issue"],
        [
            ("number", json!(request.number)),
            ("title", json!(request.title)),
            ("html_url", json!(page)),
        ],
    );
    be_comment(&mut body["comment"], state, comment);
    set(
        &mut body,
        [("action", json!(action)), ("is_pull", json!(true))],
    );
    Event::new("issue_comment", "pull_request_comment", body)
}

/// A comment as the API gives it.
pub(crate) fn comment_json(state: &mut State, comment: &Comment) -> Value {
    let mut body = about_us(state, template!("issue_comment.created"), OWNER);
    let mut json = body["comment"].take();
    be_comment(&mut json, state, comment);
    json
}

fn be_comment(json: &mut Value, state: &mut State, comment: &Comment) {
    be_user(&mut json["user"], state, &comment.by);
    let page = format!(
        "{}/{}/pulls/{}",
        state.url,
        state.full_name(),
        comment.request
    );
    set(
        json,
        [
            ("id", json!(comment.id)),
            ("body", json!(comment.text)),
            ("created_at", json!(comment.at)),
            ("updated_at", json!(comment.changed_at)),
            (
                "html_url",
                json!(format!("{page}#issuecomment-{}", comment.id)),
            ),
            ("pull_request_url", json!(page)),
        ],
    );
}

/// The repository as the API gives it.
pub(crate) fn repository(state: &mut State) -> Value {
    about_us(state, template!("push.branch.1c"), OWNER)["repository"].take()
}
