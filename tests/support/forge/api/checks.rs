//! GitHub's check runs: an App's alone.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::payload::{self, CheckDeed, github as shapes};
use super::super::state::{Check, State, Token};
use super::github::{invalid, not_found, request_schema, valid};
use super::{Answer, Ask};

/// Of a summary, and of a text.
const TEXT_BYTES: usize = 65_535;
const MESSAGE_BYTES: usize = 64 << 10;
const TITLE_CHARACTERS: usize = 255;

pub(super) fn create(state: &mut State, ask: &Ask, who: Option<&Token>) -> Result<Answer, Answer> {
    apps(state, ask, who)?;
    valid(state, ask, request_schema!("create-check-run"))?;
    limits(state, ask)?;
    let commit = ask.body["head_sha"].as_str().unwrap_or_default();
    if !state.repo.has(commit) {
        return Err(Answer::message(
            422,
            &format!("No commit found for SHA: {commit}"),
        ));
    }
    let check = Check {
        id: state.next_id(),
        commit: commit.to_owned(),
        name: String::new(),
        external_id: String::new(),
        status: "queued".to_owned(),
        conclusion: None,
        details_url: String::new(),
        title: String::new(),
        summary: String::new(),
        text: String::new(),
        annotations: Vec::new(),
        actions: Vec::new(),
        started_at: Value::Null,
        completed_at: Value::Null,
    };
    let id = check.id;
    state.seen.checks.push(check);
    take(state, ask, id, &CheckDeed::Created, 201)
}

pub(super) fn update(
    state: &mut State,
    ask: &Ask,
    who: Option<&Token>,
    id: &str,
) -> Result<Answer, Answer> {
    apps(state, ask, who)?;
    valid(state, ask, request_schema!("update-check-run"))?;
    limits(state, ask)?;
    let id = id.parse().map_err(|_| not_found())?;
    take(state, ask, id, &CheckDeed::Completed, 200)
}

/// The runs of a commit, of each name the newest: so GitHub does where nothing else is asked for.
pub(super) fn list(state: &State, ask: &Ask, commit: &str) -> Answer {
    let mut newest = BTreeMap::new();
    for check in state
        .seen
        .checks
        .iter()
        .filter(|check| check.commit == commit)
    {
        newest.insert(&check.name, check);
    }
    let name = ask.query("check_name");
    let asked = |check: &&&Check| name.is_none_or(|name| check.name == name);
    let runs = newest.values().filter(asked);
    let runs: Vec<_> = runs.map(|check| shapes::check_json(state, check)).collect();
    Answer::new(200, json!({"total_count": runs.len(), "check_runs": runs}))
}

/// Writes what a call says into a check run, and tells of it: GitHub does when one is made, and when it completes.
fn take(
    state: &mut State,
    ask: &Ask,
    id: u64,
    deed: &CheckDeed,
    status: u16,
) -> Result<Answer, Answer> {
    let mut all = state.seen.checks.iter_mut();
    let check = all.find(|check| check.id == id).ok_or_else(not_found)?;
    let before = check.status.clone();
    write(check, &ask.body);
    let check = check.clone();
    let completes = check.status == "completed" && before != "completed";
    if matches!(deed, CheckDeed::Created) || completes {
        let by = format!("{}[bot]", super::super::SLUG);
        let event = payload::check(state, &check, deed, &by);
        state.outbox.push(event);
    }
    Ok(Answer::new(status, shapes::check_json(state, &check)))
}

fn write(check: &mut Check, body: &Value) {
    let text = |value: &Value, into: &mut String| {
        if let Some(text) = value.as_str() {
            text.clone_into(into);
        }
    };
    text(&body["name"], &mut check.name);
    text(&body["external_id"], &mut check.external_id);
    text(&body["details_url"], &mut check.details_url);
    text(&body["status"], &mut check.status);
    if let Some(conclusion) = body["conclusion"].as_str() {
        check.conclusion = Some(conclusion.to_owned());
        check.status = "completed".to_owned();
    } else if check.status != "completed" {
        check.conclusion = None;
    }
    for (field, into) in [
        ("started_at", &mut check.started_at),
        ("completed_at", &mut check.completed_at),
    ] {
        if !body[field].is_null() {
            *into = body[field].clone();
        }
    }
    let output = &body["output"];
    text(&output["title"], &mut check.title);
    text(&output["summary"], &mut check.summary);
    text(&output["text"], &mut check.text);
    check.annotations.extend(
        output["annotations"]
            .as_array()
            .cloned()
            .unwrap_or_default(),
    );
    // Whether GitHub keeps them where a call says nothing is not written down: a client had better say.
    if let Some(actions) = body["actions"].as_array() {
        check.actions.clone_from(actions);
    }
}

fn apps(state: &mut State, ask: &Ask, who: Option<&Token>) -> Result<(), Answer> {
    if who.is_some_and(|token| token.ends.is_some()) {
        return Ok(());
    }
    state.violated(format!("{} {}: not by an App", ask.method, ask.raw_path));
    Err(Answer::message(
        403,
        "You must authenticate via a GitHub App.",
    ))
}

/// What the schema does not say.
fn limits(state: &mut State, ask: &Ask) -> Result<(), Answer> {
    let output = &ask.body["output"];
    let bytes = |value: &Value| value.as_str().map_or(0, str::len);
    for field in ["summary", "text"] {
        if bytes(&output[field]) > TEXT_BYTES {
            return Err(invalid(state, ask, &format!("{field} exceeds 65535 bytes")));
        }
    }
    if ask.body["status"] == json!("completed") && ask.body["conclusion"].is_null() {
        return Err(invalid(state, ask, "completed without a conclusion"));
    }
    for annotation in output["annotations"].as_array().into_iter().flatten() {
        if let Some(wrong) = wrong(annotation) {
            return Err(invalid(state, ask, wrong));
        }
    }
    Ok(())
}

fn wrong(annotation: &Value) -> Option<&'static str> {
    let (start, end) = (&annotation["start_line"], &annotation["end_line"]);
    let columns = ["start_column", "end_column"]
        .iter()
        .any(|name| !annotation[name].is_null());
    let bytes = annotation["message"].as_str().map_or(0, str::len);
    let title = annotation["title"]
        .as_str()
        .map_or(0, |title| title.chars().count());
    if columns && start != end {
        return Some("columns of an annotation over several lines");
    }
    if start.as_u64().is_none_or(|line| line == 0) || end.as_u64() < start.as_u64() {
        return Some("an annotation without lines");
    }
    if bytes == 0 || bytes > MESSAGE_BYTES {
        return Some("an annotation's message is empty or exceeds 64 KB");
    }
    (title > TITLE_CHARACTERS).then_some("an annotation's title exceeds 255 characters")
}
