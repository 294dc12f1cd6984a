//! As GitHub sends them.

use serde_json::{Value, json};

use super::super::app::{APP_ID, INSTALLATION, SLUG};
use super::super::hooks::{Event, Hook, Whom};
use super::super::state::{Check, Comment, MAIN, NAME, OWNER, Request, Source, State};
use super::{Change, CheckDeed, Commit, Deed, PROJECT, filled, set, source};

/// The most commits that a push names.
const COMMITS: usize = 2048;

macro_rules! template {
    ($name:literal) => {
        include_str!(concat!("../../../data/forges/github/", $name, ".json"))
    };
}

/// A recorded body about this world's repository. Its installation goes: hooks of the App get their own.
fn about_us(state: &State, template: &str, repository: &str) -> Value {
    let api = format!("{}/api/v3", state.url);
    let mut body = filled(
        template,
        &[
            (repository, "OWNER/NAME"),
            ("Codertocat", OWNER),
            ("OWNER/NAME", &state.full_name()),
            ("https://api.github.com", &api),
            ("https://github.com", &state.url),
            ("http://github.com", &state.url),
            ("\"master\"", &format!("\"{MAIN}\"")),
        ],
    );
    let fields = body.as_object_mut().unwrap();
    fields.shift_remove("installation");
    fields.shift_remove("organization");
    if let Some(repository) = fields.get_mut("repository") {
        be_repository(repository, state.private);
    }
    body
}

fn be_repository(repository: &mut Value, private: bool) {
    let visibility = if private { "private" } else { "public" };
    set(
        repository,
        [
            ("id", json!(PROJECT)),
            ("name", json!(NAME)),
            ("private", json!(private)),
            ("visibility", json!(visibility)),
            ("default_branch", json!(MAIN)),
        ],
    );
}

fn be_user(user: &mut Value, state: &mut State, login: &str) {
    let kind = if login.ends_with("[bot]") {
        "Bot"
    } else {
        "User"
    };
    set(
        user,
        [
            ("login", json!(login)),
            ("id", json!(state.user(login))),
            ("url", json!(format!("{}/api/v3/users/{login}", state.url))),
            ("html_url", json!(format!("{}/{login}", state.url))),
            ("type", json!(kind)),
        ],
    );
}

fn commit(state: &State, commit: &Commit) -> Value {
    let person = json!({"name": commit.author, "email": commit.email, "username": OWNER});
    json!({
        "id": commit.id, "tree_id": commit.tree, "distinct": true, "message": commit.message,
        "timestamp": commit.at, "url": format!("{}/{}/commit/{}", state.url, state.full_name(), commit.id),
        "author": person, "committer": person,
        "added": commit.added, "removed": commit.removed, "modified": commit.modified,
    })
}

pub(super) fn push(state: &mut State, change: &Change, by: &str) -> Vec<Event> {
    let template = match (change.is_tag(), &change.after) {
        (false, _) => template!("push.branch-new-1commit"),
        (true, Some(_)) => template!("push.tag-created"),
        (true, None) => template!("push.tag-deleted"),
    };
    let mut body = about_us(state, template, "Codertocat/Hello-World");
    be_user(&mut body["sender"], state, by);
    let commits: Vec<_> = change
        .newest(COMMITS)
        .iter()
        .map(|c| commit(state, c))
        .collect();
    let head = change.tip.as_ref().map(|tip| commit(state, tip));
    set(
        &mut body,
        [
            ("ref", json!(change.reference)),
            ("before", json!(change.before())),
            ("after", json!(change.after())),
            ("created", json!(change.before.is_none())),
            ("deleted", json!(change.after.is_none())),
            ("forced", json!(change.forced)),
            ("commits", json!(commits)),
            ("head_commit", json!(head)),
            (
                "pusher",
                json!({"name": by, "email": format!("{by}@example.org")}),
            ),
        ],
    );
    let mut events = vec![Event::new("push", "push", body)];
    events.extend(made_or_gone(state, change, by));
    events
}

/// A new or deleted ref is told of a second time.
fn made_or_gone(state: &mut State, change: &Change, by: &str) -> Option<Event> {
    let (name, template) = match (&change.before, &change.after) {
        (None, Some(_)) => ("create", template!("create.tag")),
        (Some(_), None) => ("delete", template!("delete.tag")),
        (Some(_), Some(_)) | (None, None) => return None,
    };
    let mut body = about_us(state, template, "Codertocat/Hello-World");
    be_user(&mut body["sender"], state, by);
    let kind = if change.is_tag() { "tag" } else { "branch" };
    set(
        &mut body,
        [("ref", json!(change.short())), ("ref_type", json!(kind))],
    );
    Some(Event::new(name, name, body))
}

pub(super) fn request(state: &mut State, request: &Request, deed: &Deed, by: &str) -> Event {
    let (action, template) = match deed {
        Deed::Opened => ("opened", template!("pull_request.opened")),
        Deed::Pushed(_) => ("synchronize", template!("pull_request.synchronize")),
        Deed::Closed => ("closed", template!("pull_request.closed")),
        Deed::Reopened => ("reopened", template!("pull_request.reopened")),
        Deed::Ready => (
            "ready_for_review",
            template!("pull_request.ready_for_review"),
        ),
    };
    let mut body = about_us(state, template, "Codertocat/Hello-World");
    be_user(&mut body["sender"], state, by);
    be_pull(&mut body["pull_request"], state, request);
    set(
        &mut body,
        [("action", json!(action)), ("number", json!(request.number))],
    );
    if let Deed::Pushed(before) = deed {
        set(
            &mut body,
            [("before", json!(before)), ("after", json!(request.head))],
        );
    }
    Event::new("pull_request", "pull_request", body)
}

/// A pull request as the API gives it.
pub(crate) fn pull(state: &mut State, request: &Request) -> Value {
    let template = template!("pull_request.opened");
    let mut body = about_us(state, template, "Codertocat/Hello-World");
    let mut pull = body["pull_request"].take();
    be_pull(&mut pull, state, request);
    pull
}

fn be_pull(pull: &mut Value, state: &mut State, request: &Request) {
    let number = request.number;
    let text = pull.to_string();
    *pull = filled(
        &text,
        &[
            ("/pull/2", &format!("/pull/{number}")),
            ("/pulls/2", &format!("/pulls/{number}")),
            ("/issues/2", &format!("/issues/{number}")),
        ],
    );
    be_user(&mut pull["user"], state, &request.by);
    let word = if request.open { "open" } else { "closed" };
    let closed_at = if request.open {
        Value::Null
    } else {
        json!(state.iso())
    };
    set(
        pull,
        [
            ("id", json!(279_147_000 + number)),
            ("number", json!(number)),
            ("state", json!(word)),
            ("title", json!(request.title)),
            ("draft", json!(request.draft)),
            ("updated_at", json!(request.changed_at)),
            ("closed_at", closed_at),
        ],
    );
    be_head(&mut pull["head"], state, request);
    let base = state.known.get(&format!("refs/heads/{MAIN}")).cloned();
    let base = json!(base.unwrap_or_default());
    let label = json!(format!("{OWNER}:{MAIN}"));
    be_repository(&mut pull["base"]["repo"], state.private);
    set(
        &mut pull["base"],
        [("label", label), ("ref", json!(MAIN)), ("sha", base)],
    );
}

fn be_head(head: &mut Value, state: &mut State, request: &Request) {
    let owner = match &request.source {
        Source::Own => OWNER,
        Source::Fork(owner) | Source::Deleted(owner) => owner,
    };
    be_user(&mut head["user"], state, owner);
    let label = json!(format!("{owner}:{}", request.branch));
    let fields = [
        ("label", label),
        ("ref", json!(request.branch)),
        ("sha", json!(request.head)),
    ];
    set(head, fields);
    be_repository(&mut head["repo"], state.private);
    match source(state, request) {
        None => head["repo"] = Value::Null,
        Some((owner, _)) if owner == OWNER => {}
        Some((owner, number)) => {
            let fork = format!("{owner}/{NAME}");
            head["repo"] = filled(&head["repo"].to_string(), &[(&state.full_name(), &fork)]);
            be_user(&mut head["repo"]["owner"], state, &owner);
            set(
                &mut head["repo"],
                [("id", json!(number)), ("fork", json!(true))],
            );
        }
    }
}

pub(super) fn comment(state: &mut State, request: &Request, comment: &Comment) -> Event {
    let (action, template) = match comment.edits {
        0 => (
            "created",
            template!("issue_comment.created.with-installation"),
        ),
        _ => ("edited", template!("issue_comment.edited")),
    };
    let mut body = about_us(state, template, "Codertocat/Hello-World");
    be_user(&mut body["sender"], state, &comment.by);
    let pull = pull(state, request);
    for field in ["number", "title", "user", "state", "draft", "html_url"] {
        body["issue"][field] = pull[field].clone();
    }
    let url = &pull["html_url"];
    body["issue"]["pull_request"] = json!({"url": pull["url"], "html_url": url, "merged_at": null});
    be_comment(&mut body["comment"], state, comment);
    body["action"] = json!(action);
    Event::new("issue_comment", "issue_comment", body)
}

/// A comment as the API gives it.
pub(crate) fn comment_json(state: &mut State, comment: &Comment) -> Value {
    let template = template!("issue_comment.created.with-installation");
    let mut body = about_us(state, template, "Codertocat/Hello-World");
    let mut json = body["comment"].take();
    be_comment(&mut json, state, comment);
    json
}

fn be_comment(json: &mut Value, state: &mut State, comment: &Comment) {
    be_user(&mut json["user"], state, &comment.by);
    let repository = format!("{}/api/v3/repos/{}", state.url, state.full_name());
    let page = format!(
        "{}/{}/pull/{}",
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
                "url",
                json!(format!("{repository}/issues/comments/{}", comment.id)),
            ),
            (
                "issue_url",
                json!(format!("{repository}/issues/{}", comment.request)),
            ),
            (
                "html_url",
                json!(format!("{page}#issuecomment-{}", comment.id)),
            ),
        ],
    );
}

pub(super) fn check(state: &mut State, check: &Check, deed: &CheckDeed, by: &str) -> Event {
    let (action, template, repository) = match deed {
        CheckDeed::Created => (
            "created",
            template!("check_run.created"),
            "Codertocat/Hello-World",
        ),
        CheckDeed::Completed => (
            "completed",
            template!("check_run.completed"),
            "Codertocat/Hello-World",
        ),
        CheckDeed::Rerequested => (
            "rerequested",
            template!("check_run.rerequested"),
            "github/hello-world",
        ),
        CheckDeed::Pressed(_) => (
            "requested_action",
            template!("check_run.requested_action"),
            "electron/electron",
        ),
    };
    let mut body = about_us(state, template, repository);
    be_user(&mut body["sender"], state, by);
    let json = check_json(state, check);
    for (name, value) in json.as_object().unwrap() {
        body["check_run"][name] = value.clone();
    }
    body["check_run"]["check_suite"]["head_sha"] = json!(check.commit);
    body["check_run"]["pull_requests"] = pulls_of(state, &check.commit);
    body["action"] = json!(action);
    if let CheckDeed::Pressed(identifier) = deed {
        body["requested_action"] = json!({"identifier": identifier});
    }
    let whom = match deed {
        CheckDeed::Created | CheckDeed::Completed => Whom::Subscribers,
        CheckDeed::Rerequested | CheckDeed::Pressed(_) => Whom::App,
    };
    Event {
        whom,
        ..Event::new("check_run", "check_run", body)
    }
}

/// All checks of a commit are asked for again.
pub(crate) fn check_suite(state: &mut State, commit: &str, by: &str) -> Event {
    let template = template!("check_suite.rerequested");
    let mut body = about_us(state, template, "Codertocat/Hello-World");
    be_user(&mut body["sender"], state, by);
    let pulls = pulls_of(state, commit);
    set(
        &mut body["check_suite"],
        [("head_sha", json!(commit)), ("pull_requests", pulls)],
    );
    body["check_suite"]["app"]["id"] = json!(APP_ID);
    let whom = Whom::App;
    Event {
        whom,
        ..Event::new("check_suite", "check_suite", body)
    }
}

/// Those of the repository's own branches: GitHub leaves those of forks out.
fn pulls_of(state: &State, commit: &str) -> Value {
    let own = |request: &&Request| {
        request.open && request.head == commit && request.source == Source::Own
    };
    let short = |request: &Request| {
        json!({
            "number": request.number,
            "head": {"ref": request.branch, "sha": request.head, "repo": {"id": PROJECT, "name": NAME}},
            "base": {"ref": MAIN, "repo": {"id": PROJECT, "name": NAME}},
        })
    };
    state.requests.values().filter(own).map(short).collect()
}

/// A check run as the API gives it, and a hook shows it.
pub(crate) fn check_json(state: &State, check: &Check) -> Value {
    let repository = format!("{}/api/v3/repos/{}", state.url, state.full_name());
    json!({
        "id": check.id, "name": check.name, "head_sha": check.commit, "external_id": check.external_id,
        "status": check.status, "conclusion": check.conclusion, "details_url": check.details_url,
        "url": format!("{repository}/check-runs/{}", check.id),
        "html_url": format!("{}/{}/runs/{}", state.url, state.full_name(), check.id),
        "started_at": check.started_at, "completed_at": check.completed_at,
        "app": {"id": APP_ID, "slug": SLUG, "name": "Trainyard", "owner": {"login": OWNER}},
        "output": {
            "title": check.title, "summary": check.summary, "text": check.text,
            "annotations_count": check.annotations.len(),
            "annotations_url": format!("{repository}/check-runs/{}/annotations", check.id),
        },
    })
}

/// The repository as the API gives it.
pub(crate) fn repository(state: &State) -> Value {
    let template = template!("pull_request.opened");
    about_us(state, template, "Codertocat/Hello-World")["repository"].take()
}

/// What a new hook hears first.
pub(crate) fn ping(state: &mut State, hook: &Hook) -> Event {
    let template = if hook.app {
        template!("ping.app")
    } else {
        template!("ping.repo")
    };
    let mut body = about_us(state, template, "Octocoders/Hello-World");
    be_user(&mut body["sender"], state, OWNER);
    body["hook_id"] = json!(hook.id);
    body["hook"]["id"] = json!(hook.id);
    let whom = Whom::Hook(hook.id);
    Event {
        whom,
        ..Event::new("ping", "ping", body)
    }
}

/// Something became of the App's installation, in GitHub's word.
pub(crate) fn installation(state: &mut State, action: &str) -> Event {
    let template = match action {
        "created" => template!("installation.created"),
        "suspend" | "unsuspend" => template!("installation.suspend"),
        _ => template!("installation.deleted"),
    };
    let mut body: Value = filled(template, &[("https://api.github.com", &state.url)]);
    be_user(&mut body["sender"], state, OWNER);
    be_user(&mut body["installation"]["account"], state, OWNER);
    set(
        &mut body["installation"],
        [("id", json!(INSTALLATION)), ("app_id", json!(APP_ID))],
    );
    body["action"] = json!(action);
    if matches!(action, "created" | "deleted") {
        body["repositories"] = json!([{
            "id": PROJECT, "name": NAME, "full_name": state.full_name(), "private": state.private,
        }]);
    }
    let whom = Whom::App;
    Event {
        whom,
        ..Event::new("installation", "installation", body)
    }
}
