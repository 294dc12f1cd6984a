//! As GitLab sends them.

use serde_json::{Value, json};

use super::super::hooks::Event;
use super::super::state::{Comment, MAIN, NAME, OWNER, Request, State};
use super::{Change, Commit, Deed, PROJECT, filled, set, source};

/// The most commits that a push names.
const COMMITS: usize = 20;

macro_rules! template {
    ($name:literal) => {
        include_str!(concat!("../../../data/forges/gitlab/", $name, ".json"))
    };
}

/// A recorded body about this world's repository.
fn about_us(state: &mut State, template: &str, by: &str) -> Value {
    let mut body = filled(template, &[("\"master\"", &format!("\"{MAIN}\""))]);
    let url = format!("{}/{}", state.url, state.full_name());
    be_project(&mut body["project"], &state.full_name(), &url, PROJECT);
    set(
        &mut body["repository"],
        [
            ("name", json!(NAME)),
            ("homepage", json!(url)),
            ("git_http_url", json!(format!("{url}.git"))),
        ],
    );
    let id = state.user(by);
    if body.get("user").is_some() {
        let fields = [
            ("id", json!(id)),
            ("username", json!(by)),
            ("name", json!(by)),
        ];
        set(&mut body["user"], fields);
    } else {
        set(
            &mut body,
            [
                ("user_id", json!(id)),
                ("user_username", json!(by)),
                ("user_name", json!(by)),
            ],
        );
    }
    if body.get("project_id").is_some() {
        body["project_id"] = json!(PROJECT);
    }
    body
}

fn be_project(project: &mut Value, full_name: &str, url: &str, id: u64) {
    set(
        project,
        [
            ("id", json!(id)),
            ("name", json!(NAME)),
            ("web_url", json!(url)),
            ("homepage", json!(url)),
            ("git_http_url", json!(format!("{url}.git"))),
            ("http_url", json!(format!("{url}.git"))),
            ("path_with_namespace", json!(full_name)),
            ("default_branch", json!(MAIN)),
        ],
    );
}

fn commit(state: &State, commit: &Commit) -> Value {
    json!({
        "id": commit.id, "message": commit.message, "title": commit.title(), "timestamp": commit.at,
        "url": format!("{}/{}/-/commit/{}", state.url, state.full_name(), commit.id),
        "author": {"name": commit.author, "email": commit.email},
        "added": commit.added, "modified": commit.modified, "removed": commit.removed,
    })
}

pub(super) fn push(state: &mut State, change: &Change, by: &str) -> Vec<Event> {
    let (name, kind, template) = if change.is_tag() {
        ("Tag Push Hook", "tag_push_events", template!("tag_push"))
    } else {
        ("Push Hook", "push_events", template!("push"))
    };
    let mut body = about_us(state, template, by);
    let commits: Vec<_> = change
        .newest(COMMITS)
        .iter()
        .map(|c| commit(state, c))
        .collect();
    set(
        &mut body,
        [
            ("ref", json!(change.reference)),
            ("before", json!(change.before())),
            ("after", json!(change.after())),
            ("checkout_sha", json!(change.after)),
            ("commits", json!(commits)),
            ("total_commits_count", json!(change.commits.len())),
        ],
    );
    vec![Event::new(name, kind, body)]
}

pub(super) fn request(state: &mut State, request: &Request, deed: &Deed, by: &str) -> Event {
    let mut body = about_us(state, template!("merge_request"), by);
    be_merge_request(&mut body["object_attributes"], state, request);
    let action = match deed {
        Deed::Opened => "open",
        Deed::Pushed(_) | Deed::Ready => "update",
        Deed::Closed => "close",
        Deed::Reopened => "reopen",
    };
    body["object_attributes"]["action"] = json!(action);
    body["changes"] = json!({});
    match deed {
        Deed::Pushed(before) => body["object_attributes"]["oldrev"] = json!(before),
        Deed::Ready => body["changes"] = json!({"draft": {"previous": true, "current": false}}),
        Deed::Opened | Deed::Closed | Deed::Reopened => {}
    }
    Event::new("Merge Request Hook", "merge_requests_events", body)
}

fn be_merge_request(attributes: &mut Value, state: &mut State, request: &Request) {
    let (owner, number) = source(state, request).unzip();
    let word = if request.open { "opened" } else { "closed" };
    let author = state.user(&request.by);
    let page = format!(
        "{}/{}/-/merge_requests/{}",
        state.url,
        state.full_name(),
        request.number
    );
    set(
        attributes,
        [
            ("id", json!(90_000 + request.number)),
            ("iid", json!(request.number)),
            ("title", json!(title(request))),
            ("state", json!(word)),
            ("author_id", json!(author)),
            ("source_branch", json!(request.branch)),
            ("target_branch", json!(MAIN)),
            ("source_project_id", json!(number)),
            ("target_project_id", json!(PROJECT)),
            ("draft", json!(request.draft)),
            ("work_in_progress", json!(request.draft)),
            ("updated_at", json!(request.changed_at)),
            ("url", json!(page)),
        ],
    );
    let tip = state.repo.commits(&request.head, &[], 1);
    attributes["last_commit"] = tip.first().map_or(Value::Null, |tip| commit(state, tip));
    let us = state.full_name();
    be_project(
        &mut attributes["target"],
        &us,
        &format!("{}/{us}", state.url),
        PROJECT,
    );
    match owner {
        Some(owner) => {
            let full = format!("{owner}/{NAME}");
            let url = format!("{}/{full}", state.url);
            be_project(
                &mut attributes["source"],
                &full,
                &url,
                number.unwrap_or(PROJECT),
            );
        }
        None => attributes["source"] = Value::Null,
    }
}

/// A draft is one by its title.
fn title(request: &Request) -> String {
    let mark = if request.draft { "Draft: " } else { "" };
    format!("{mark}{}", request.title)
}

pub(super) fn comment(state: &mut State, request: &Request, comment: &Comment) -> Event {
    let mut body = about_us(state, template!("note_merge_request"), &comment.by);
    be_merge_request(&mut body["merge_request"], state, request);
    let author = state.user(&comment.by);
    let action = if comment.edits == 0 {
        "create"
    } else {
        "update"
    };
    let page = body["merge_request"]["url"].as_str().unwrap_or_default();
    let page = format!("{page}#note_{}", comment.id);
    set(
        &mut body["object_attributes"],
        [
            ("id", json!(comment.id)),
            ("note", json!(comment.text)),
            ("description", json!(comment.text)),
            ("created_at", json!(spaced(&comment.at))),
            ("updated_at", json!(spaced(&comment.changed_at))),
            ("action", json!(action)),
            ("author_id", json!(author)),
            ("project_id", json!(PROJECT)),
            ("noteable_id", json!(90_000 + request.number)),
            ("url", json!(page)),
        ],
    );
    Event::new("Note Hook", "note_events", body)
}

/// A moment as the recorded notes write it.
fn spaced(iso: &str) -> String {
    iso.replace('T', " ").replace('Z', " UTC")
}

/// A merge request as the API gives it.
pub(crate) fn merge_request(state: &mut State, request: &Request) -> Value {
    let word = if request.open { "opened" } else { "closed" };
    let number = source(state, request).map(|(_, number)| number);
    let tip = state.known.get(&format!("refs/heads/{MAIN}")).cloned();
    let base = tip
        .as_ref()
        .and_then(|tip| state.repo.merge_base(tip, &request.head));
    json!({
        "id": 90_000 + request.number, "iid": request.number, "project_id": PROJECT,
        "title": title(request), "state": word, "draft": request.draft, "work_in_progress": request.draft,
        "updated_at": request.changed_at,
        "sha": request.head, "source_branch": request.branch, "target_branch": MAIN,
        "source_project_id": number, "target_project_id": PROJECT, "author": user(state, &request.by),
        "diff_refs": {"base_sha": base, "head_sha": request.head, "start_sha": tip},
        "web_url": format!("{}/{}/-/merge_requests/{}", state.url, state.full_name(), request.number),
    })
}

/// A person as the API gives them.
pub(crate) fn user(state: &mut State, login: &str) -> Value {
    let web = format!("{}/{login}", state.url);
    json!({"id": state.user(login), "username": login, "name": login, "state": "active", "web_url": web})
}

/// A person's fork as the API gives it.
pub(crate) fn fork(state: &mut State, owner: &str) -> Value {
    let full = format!("{owner}/{NAME}");
    let mut project = json!({
        "path": NAME, "visibility": "public",
        "namespace": {"path": owner, "full_path": owner, "kind": "user"},
    });
    let url = format!("{}/{full}", state.url);
    be_project(&mut project, &full, &url, super::fork_number(state, owner));
    project
}

/// The project as the API gives it.
pub(crate) fn project(state: &State) -> Value {
    let visibility = if state.private { "private" } else { "public" };
    let mut project = json!({
        "path": NAME, "visibility": visibility, "namespace": {"path": OWNER},
        "http_url_to_repo": format!("{}/{}.git", state.url, state.full_name()),
    });
    let url = format!("{}/{}", state.url, state.full_name());
    be_project(&mut project, &state.full_name(), &url, PROJECT);
    project
}
