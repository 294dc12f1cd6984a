//! GitLab's REST API.

use serde_json::{Value, json};

use super::super::payload::{PROJECT, gitlab as shapes};
use super::super::state::{Comment, Level, State, Status, Token};
use super::{Answer, Ask, Denied, hooks, page};

const STATES: &[&str] = &[
    "pending", "running", "success", "failed", "canceled", "skipped",
];
const DESCRIPTION_CHARACTERS: usize = 255;
const READS: &[&str] = &["api", "read_api"];
const WRITES: &[&str] = &["api"];

type Answered = Result<Answer, Answer>;

pub(super) fn answer(state: &mut State, ask: &Ask) -> Answered {
    let who = state.who(ask)?;
    let who = who.as_ref();
    match (ask.method.as_str(), ask.parts().as_slice()) {
        ("GET", ["version"]) => {
            known(who)?;
            Ok(Answer::new(
                200,
                json!({"version": "17.4.0", "revision": "trainyard"}),
            ))
        }
        ("GET", ["user"]) => {
            let login = known(who)?.login.clone();
            Ok(Answer::new(200, shapes::user(state, &login)))
        }
        ("GET", ["personal_access_tokens", "self"]) => {
            let token = known(who)?.clone();
            let user = state.user(&token.login);
            let body = json!({"id": 1, "name": "trainyard", "active": true, "revoked": false, "user_id": user, "scopes": token.scopes, "expires_at": null});
            Ok(Answer::new(200, body))
        }
        ("GET", ["users"]) => Ok(users(state, ask)),
        (_, ["projects", project, rest @ ..]) => {
            if let (Some(owner), true) = (state.fork_of_number(project), rest.is_empty()) {
                return Ok(Answer::new(200, shapes::fork(state, &owner)));
            }
            let ours = *project == state.full_name() || *project == PROJECT.to_string();
            if !ours || !state.sees(who) {
                return Err(Answer::message(404, "404 Project Not Found"));
            }
            of_project(state, ask, who, rest)
        }
        _ => Err(not_found("")),
    }
}

fn of_project(state: &mut State, ask: &Ask, who: Option<&Token>, rest: &[&str]) -> Answered {
    match (ask.method.as_str(), rest) {
        ("GET", []) => {
            let mut body = shapes::project(state);
            if let Some(token) = who {
                let level = number(state.level(&token.login));
                body["permissions"] =
                    json!({"project_access": {"access_level": level}, "group_access": null});
            }
            Ok(Answer::new(200, body))
        }
        ("POST", ["statuses", commit]) => {
            allow(state, who, Level::Write, WRITES)?;
            status(state, ask, commit)
        }
        ("GET", ["merge_requests"]) => {
            let requests = state.pulls(ask, "opened");
            let items = requests
                .iter()
                .map(|request| shapes::merge_request(state, request));
            let items: Vec<_> = items.collect();
            Ok(page(state, ask, 20, 100, &items))
        }
        ("GET", ["merge_requests", iid]) => {
            let request = iid
                .parse()
                .ok()
                .and_then(|iid: u64| state.requests.get(&iid))
                .cloned();
            let request = request.ok_or_else(|| not_found(" Merge Request"))?;
            Ok(Answer::new(200, shapes::merge_request(state, &request)))
        }
        (_, ["merge_requests", iid, "notes", rest @ ..]) => {
            if ask.writes() {
                allow(state, who, Level::Read, WRITES)?;
            }
            let iid = iid
                .parse()
                .ok()
                .filter(|iid| state.requests.contains_key(iid));
            notes(
                state,
                ask,
                who,
                iid.ok_or_else(|| not_found(" Merge Request"))?,
                rest,
            )
        }
        ("GET", ["members", "all", id]) => member(state, who, id),
        (_, ["hooks", ..]) => {
            allow(state, who, Level::Admin, WRITES)?;
            hooks::answer(state, ask, &rest[1..]).ok_or_else(|| not_found(""))
        }
        _ => Err(not_found("")),
    }
}

fn not_found(what: &str) -> Answer {
    Answer::message(404, &format!("404{what} Not Found"))
}

fn known(who: Option<&Token>) -> Result<&Token, Answer> {
    who.ok_or_else(|| Answer::message(401, "401 Unauthorized"))
}

fn allow(
    state: &State,
    who: Option<&Token>,
    level: Level,
    scopes: &[&str],
) -> Result<String, Answer> {
    state.may(who, level, scopes).map_err(|denied| match denied {
        Denied::Nobody => Answer::message(401, "401 Unauthorized"),
        Denied::Scope => Answer::new(403, json!({"error": "insufficient_scope", "error_description": "The request requires higher privileges than provided by the access token.", "scope": scopes.join(" ")})),
        Denied::Level => Answer::message(403, "403 Forbidden"),
    })
}

/// Guest, reporter, developer, maintainer.
fn number(level: Level) -> u64 {
    match level {
        Level::None => 0,
        Level::Read => 20,
        Level::Write => 30,
        Level::Admin => 40,
    }
}

fn users(state: &mut State, ask: &Ask) -> Answer {
    let login = ask.query("username").unwrap_or_default().to_owned();
    let found = state.users.contains_key(&login) || state.levels.contains_key(&login);
    let users: Vec<_> = found
        .then(|| shapes::user(state, &login))
        .into_iter()
        .collect();
    Answer::new(200, json!(users))
}

fn member(state: &mut State, who: Option<&Token>, id: &str) -> Answered {
    allow(state, who, Level::Read, READS)?;
    let logins: Vec<_> = state.levels.keys().cloned().collect();
    let login = logins
        .into_iter()
        .find(|login| state.user(login).to_string() == id);
    let login = login.filter(|login| state.level(login) > Level::None);
    let login = login.ok_or_else(|| not_found(""))?;
    let mut body = shapes::user(state, &login);
    body["access_level"] = json!(number(state.level(&login)));
    Ok(Answer::new(200, body))
}

fn status(state: &mut State, ask: &Ask, commit: &str) -> Answered {
    if !state.repo.has(commit) {
        return Err(not_found(" Commit"));
    }
    let word = ask.field("state").unwrap_or_default();
    if !STATES.contains(&word.as_str()) {
        let error = json!({"error": "state does not have a valid value"});
        return Err(wrong(state, ask, error));
    }
    let description = ask.field("description").unwrap_or_default();
    if description.chars().count() > DESCRIPTION_CHARACTERS {
        let message =
            json!({"message": {"description": ["is too long (maximum is 255 characters)"]}});
        return Err(wrong(state, ask, message));
    }
    let name = ask
        .field("name")
        .or(ask.field("context"))
        .unwrap_or_else(|| "default".to_owned());
    let key = (commit.to_owned(), name.clone());
    let before = state
        .seen
        .statuses
        .get(&key)
        .map(|status| status.state.as_str());
    if stays(before, &word) {
        let deed = if word == "pending" { "enqueue" } else { "run" };
        let message = format!(
            "Cannot transition status via :{deed} from :{} (Reason(s): Status cannot transition via \"{deed}\")",
            before.unwrap()
        );
        return Err(Answer::message(400, &message));
    }
    let reference = ask.field("ref");
    of_pipeline(state, ask, commit, reference.clone());
    let url = ask.field("target_url").unwrap_or_default();
    let body = json!({
        "id": state.next_id(), "sha": commit, "ref": reference, "status": word, "name": name,
        "description": description, "target_url": url,
    });
    state.write(
        key,
        Status {
            state: word,
            description,
            url,
            written: 1,
        },
    );
    Ok(Answer::new(201, body))
}

fn wrong(state: &mut State, ask: &Ask, body: Value) -> Answer {
    state.violated(format!("{} {}: {body}", ask.method, ask.raw_path));
    Answer::new(400, body)
}

/// A status that is not over goes forward only; one that is over is followed by a new one.
fn stays(before: Option<&str>, now: &str) -> bool {
    match before {
        Some("pending") => now == "pending",
        Some("running") => now == "pending" || now == "running",
        Some(_) | None => false,
    }
}

/// A status belongs to the pipeline of its commit and ref; without a ref each makes another.
fn of_pipeline(state: &mut State, ask: &Ask, commit: &str, reference: Option<String>) {
    let pipeline = (commit.to_owned(), reference);
    if pipeline.1.is_none() {
        state.violated(format!(
            "{}: a status without ref makes another pipeline",
            ask.raw_path
        ));
    } else if state.seen.pipelines.contains(&pipeline) {
        return;
    }
    state.seen.pipelines.push(pipeline);
}

fn notes(state: &mut State, ask: &Ask, who: Option<&Token>, iid: u64, rest: &[&str]) -> Answered {
    match (ask.method.as_str(), rest) {
        ("GET", []) => {
            let mut listed: Vec<_> = state.seen.on(iid).into_iter().cloned().collect();
            if ask.query("sort") != Some("asc") {
                listed.reverse();
            }
            let items: Vec<_> = listed.iter().map(|comment| note(state, comment)).collect();
            Ok(page(state, ask, 20, 100, &items))
        }
        ("POST", []) => {
            let by = allow(state, who, Level::Read, WRITES)?;
            let text = text(ask)?;
            let id = state.say(iid, &by, &text);
            shown(state, id, 201)
        }
        ("PUT", [id]) => {
            let by = allow(state, who, Level::Read, WRITES)?;
            let id = id.parse().map_err(|_| not_found(" Note"))?;
            state
                .edit(id, &by, text(ask)?)
                .ok_or_else(|| not_found(" Note"))?;
            shown(state, id, 200)
        }
        ("POST", [id, "award_emoji"]) => {
            let by = allow(state, who, Level::Read, WRITES)?;
            let name = ask.field("name").unwrap_or_default();
            let new = state
                .react(id, &by, &name)
                .ok_or_else(|| not_found(" Note"))?;
            if !new {
                return Err(not_found(" Award Emoji Name has already been taken"));
            }
            Ok(Answer::new(
                201,
                json!({"id": state.next_id(), "name": name, "awardable_type": "Note"}),
            ))
        }
        _ => Err(not_found("")),
    }
}

fn text(ask: &Ask) -> Result<String, Answer> {
    let empty = || Answer::new(400, json!({"error": "body is missing"}));
    ask.field("body")
        .filter(|text| !text.is_empty())
        .ok_or_else(empty)
}

fn shown(state: &mut State, id: u64, status: u16) -> Answered {
    let comment = state
        .seen
        .comments
        .iter()
        .find(|comment| comment.id == id)
        .cloned();
    Ok(Answer::new(
        status,
        note(state, &comment.ok_or_else(|| not_found(" Note"))?),
    ))
}

fn note(state: &mut State, comment: &Comment) -> Value {
    json!({
        "id": comment.id, "body": comment.text, "author": shapes::user(state, &comment.by), "system": false,
        "noteable_type": "MergeRequest", "noteable_iid": comment.request, "project_id": PROJECT,
        "created_at": comment.at, "updated_at": comment.changed_at,
    })
}
