//! Hooks through the API: registering them, and what they were answered.

use serde_json::{Value, json};

use super::super::Face;
use super::super::hooks::{Delivery, Hook};
use super::super::state::{State, iso};
use super::{Answer, Ask, page};

/// What GitLab sends when its flags say so.
const FLAGS: [&str; 4] = [
    "push_events",
    "tag_push_events",
    "merge_requests_events",
    "note_events",
];

/// Numbers of the tries of one delivery.
const TRIES: usize = 1_000;

/// None: there is no such place. `rest` is what stands behind `hooks`.
pub(super) fn answer(state: &mut State, ask: &Ask, rest: &[&str]) -> Option<Answer> {
    match (ask.method.as_str(), rest) {
        ("GET", []) => {
            let shown = state.hooks.iter().filter(|hook| !hook.app);
            let items: Vec<_> = shown.map(|hook| json(state.face, hook)).collect();
            Some(page(state, ask, 30, 100, &items))
        }
        ("POST", []) => Some(create(state, ask)),
        ("GET", [id]) => {
            let hook = state.hooks.iter().find(|hook| hook.id.to_string() == *id)?;
            Some(Answer::new(200, json(state.face, hook)))
        }
        ("PATCH" | "PUT", [id]) => {
            let (face, signs) = (state.face, state.signs);
            let hook = state
                .hooks
                .iter_mut()
                .find(|hook| hook.id.to_string() == *id)?;
            write(face, signs, hook, ask);
            Some(Answer::new(200, json(face, hook)))
        }
        // Gitea and Forgejo show it on their pages alone.
        ("GET", [id, "deliveries" | "events"])
            if matches!(state.face, Face::Github | Face::Gitlab) =>
        {
            Some(told(state, ask, id.parse().ok()?))
        }
        _ => None,
    }
}

/// The App's own hook, which only the App sees.
pub(super) fn of_app(state: &State, ask: &Ask, rest: &str) -> Option<Answer> {
    let hook = state.hooks.iter().find(|hook| hook.app)?;
    match rest {
        "config" => Some(Answer::new(
            200,
            json!({"url": hook.url, "content_type": "json", "insecure_ssl": "0", "secret": "********"}),
        )),
        "deliveries" => Some(told(state, ask, hook.id)),
        _ => None,
    }
}

/// What a hook was told, newest first.
fn told(state: &State, ask: &Ask, hook: u64) -> Answer {
    let told = state.deliveries.iter().enumerate().rev();
    let of_it = told.filter(|(_, delivery)| delivery.hook == hook);
    let items: Vec<_> = of_it
        .flat_map(|(place, delivery)| sent(state.face, place, delivery))
        .collect();
    page(state, ask, 30, 100, &items)
}

fn create(state: &mut State, ask: &Ask) -> Answer {
    let mut hook = Hook {
        id: 0,
        url: String::new(),
        secret: String::new(),
        events: Vec::new(),
        active: true,
        form: state.face == Face::Github,
        app: false,
    };
    write(state.face, state.signs, &mut hook, ask);
    if !hook.url.starts_with("http") {
        return Answer::message(422, "Validation Failed: url is missing");
    }
    let gitea = matches!(state.face, Face::Gitea | Face::Forgejo);
    if gitea && ask.body["config"]["content_type"].is_null() {
        return Answer::message(422, "Missing config option: content_type");
    }
    if state.face == Face::Github && state.hooks.iter().any(|other| other.url == hook.url) {
        return Answer::message(
            422,
            "Validation Failed: Hook already exists on this repository",
        );
    }
    hook.id = state.next_id();
    let (id, body) = (hook.id, json(state.face, &hook));
    state.hooks.push(hook);
    state.ping(id);
    Answer::new(201, body)
}

fn write(face: Face, signs: bool, hook: &mut Hook, ask: &Ask) {
    let text = |value: &Value, into: &mut String| {
        if let Some(text) = value.as_str() {
            text.clone_into(into);
        }
    };
    if face == Face::Gitlab {
        text(&ask.body["url"], &mut hook.url);
        text(&ask.body["token"], &mut hook.secret);
        if signs {
            text(&ask.body["signing_token"], &mut hook.secret);
        }
        for flag in FLAGS {
            // Pushes are told of unless somebody says no.
            let has = hook.events.iter().any(|event| event == flag);
            let usual = has || (hook.id == 0 && flag == "push_events");
            let on = ask.body[flag].as_bool().unwrap_or(usual);
            hook.events.retain(|event| event != flag);
            if on {
                hook.events.push(flag.to_owned());
            }
        }
        return;
    }
    let config = &ask.body["config"];
    text(&config["url"], &mut hook.url);
    text(&config["secret"], &mut hook.secret);
    if let Some(kind) = config["content_type"].as_str() {
        hook.form = kind == "form";
    }
    if let Some(events) = ask.body["events"].as_array() {
        hook.events = events
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
    }
    if hook.events.is_empty() {
        hook.events = vec!["push".to_owned()];
    }
    hook.active = ask.body["active"].as_bool().unwrap_or(face == Face::Github);
}

/// As the API shows it: never with its secret.
fn json(face: Face, hook: &Hook) -> Value {
    match face {
        Face::Gitlab => {
            let signs = hook.secret.starts_with("whsec_");
            let mut json = json!({
                "id": hook.id, "url": hook.url, "enable_ssl_verification": true, "alert_status": "executable",
                "token_present": !signs && !hook.secret.is_empty(), "signing_token_present": signs,
            });
            for flag in FLAGS {
                json[flag] = json!(
                    hook.events
                        .iter()
                        .any(|event| event == flag || event == "*")
                );
            }
            json
        }
        Face::Github => json!({
            "id": hook.id, "type": "Repository", "name": "web", "active": hook.active, "events": hook.events,
            "config": {"url": hook.url, "content_type": if hook.form { "form" } else { "json" }, "insecure_ssl": "0", "secret": "********"},
        }),
        Face::Gitea | Face::Forgejo => json!({
            "id": hook.id, "type": "gitea", "active": hook.active, "events": hook.events,
            "config": {"url": hook.url, "content_type": "json"},
        }),
    }
}

/// Sends again what was sent once, by the number of a try.
pub(super) fn again(state: &mut State, number: &str) -> Option<Answer> {
    let number: usize = number.parse().ok()?;
    let delivery = state.deliveries.get(number / TRIES)?;
    state.again.push(delivery.id.clone());
    Some(Answer::new(202, json!({})))
}

/// Each time that something was sent, newest first. `place` is its place among all that was.
fn sent(face: Face, place: usize, delivery: &Delivery) -> Vec<Value> {
    let body: Value = serde_json::from_str(&delivery.body).unwrap_or_default();
    let times = delivery.answers.iter().enumerate().rev();
    times
        .map(|(n, answer)| {
            let id = place * TRIES + n;
            let code = answer.status.unwrap_or(0);
            let word = if (200..300).contains(&code) { "OK" } else { "failed" };
            match face {
                Face::Gitlab => json!({
                    "id": id, "trigger": delivery.event, "response_status": code.to_string(),
                    "created_at": iso(answer.at),
                }),
                Face::Github | Face::Gitea | Face::Forgejo => json!({
                    "id": id, "guid": delivery.id, "delivered_at": iso(answer.at), "redelivery": n > 0,
                    "duration": 0.1, "status": word, "status_code": code, "event": delivery.event,
                    "action": body["action"],
                }),
            }
        })
        .collect()
}
