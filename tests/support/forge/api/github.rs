//! GitHub's REST API.

use serde_json::{Value, json};

use super::super::app::{INSTALLATION, SLUG, TOKEN_LASTS};
use super::super::payload::{PROJECT, github as shapes};
use super::super::schema;
use super::super::state::{Level, NAME, State, Status, Token, iso};
use super::{Answer, Ask, Denied, checks, hooks, page};

/// The most of one page.
const PAGE: usize = 100;
const DESCRIPTION_CHARACTERS: usize = 140;
const STATUSES_OF_A_CONTEXT: u32 = 1000;
const COMMENT_CHARACTERS: usize = 65_536;
const REACTIONS: &[&str] = &[
    "+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes",
];

macro_rules! request_schema {
    ($name:literal) => {
        include_str!(concat!(
            "../../../data/forges/github/",
            $name,
            ".request.schema.json"
        ))
    };
}
pub(super) use request_schema;

type Answered = Result<Answer, Answer>;

pub(super) fn answer(state: &mut State, ask: &Ask) -> Answered {
    match (ask.method.as_str(), ask.parts().as_slice()) {
        ("GET", ["app"]) => app(state, ask),
        ("GET", ["app", "hook", rest]) => {
            proven(state, ask)?;
            hooks::of_app(state, ask, rest).ok_or_else(not_found)
        }
        ("POST", ["app", "hook", "deliveries", id, "attempts"]) => {
            proven(state, ask)?;
            hooks::again(state, id).ok_or_else(not_found)
        }
        ("POST", ["app", "installations", id, "access_tokens"]) => access_token(state, ask, id),
        ("GET", ["meta"]) => Ok(Answer::new(200, json!({"installed_version": "3.14.0"}))),
        ("GET", ["user"]) => user(state, ask),
        ("GET", ["repos", owner, name, "installation"]) => {
            ours(state, owner, name)?;
            installation(state, ask)
        }
        (_, ["repos", owner, name, rest @ ..]) => {
            ours(state, owner, name)?;
            let who = state.who(ask)?;
            if !state.sees(who.as_ref()) {
                return Err(not_found());
            }
            of_repository(state, ask, who.as_ref(), rest)
        }
        _ => Err(not_found()),
    }
}

fn of_repository(state: &mut State, ask: &Ask, who: Option<&Token>, rest: &[&str]) -> Answered {
    match (ask.method.as_str(), rest) {
        ("GET", []) => repository(state, who),
        ("POST", ["statuses", commit]) => status(state, ask, who, commit),
        ("POST", ["check-runs"]) => checks::create(state, ask, who),
        ("PATCH", ["check-runs", id]) => checks::update(state, ask, who, id),
        ("GET", ["commits", commit, "check-runs"]) => Ok(checks::list(state, ask, commit)),
        ("GET", ["issues", number, "comments"]) => comments(state, ask, number),
        ("POST", ["issues", number, "comments"]) => comment(state, ask, who, number),
        ("PATCH", ["issues", "comments", id]) => edit(state, ask, who, id),
        ("POST", ["issues", "comments", id, "reactions"]) => react(state, ask, who, id),
        ("GET", ["pulls"]) => {
            let pulls = state.pulls(ask, "open");
            let items: Vec<_> = pulls.iter().map(|pull| shapes::pull(state, pull)).collect();
            Ok(page(state, ask, 30, PAGE, &items))
        }
        ("GET", ["pulls", number]) => {
            let request = number
                .parse()
                .ok()
                .and_then(|n: u64| state.requests.get(&n))
                .cloned();
            let request = request.ok_or_else(not_found)?;
            Ok(Answer::new(200, shapes::pull(state, &request)))
        }
        ("GET", ["collaborators", login, "permission"]) => permission(state, who, login),
        (_, ["hooks", ..]) => {
            allow(state, who, Level::Admin)?;
            if who.is_some_and(|token| token.ends.is_some()) {
                return Err(Answer::message(
                    403,
                    "Resource not accessible by integration",
                ));
            }
            hooks::answer(state, ask, &rest[1..]).ok_or_else(not_found)
        }
        _ => Err(not_found()),
    }
}

pub(super) fn not_found() -> Answer {
    Answer::message(404, "Not Found")
}

pub(super) fn invalid(state: &mut State, ask: &Ask, message: &str) -> Answer {
    state.violated(format!("{} {}: {message}", ask.method, ask.raw_path));
    let errors = json!([{"code": "custom", "message": message}]);
    Answer::new(
        422,
        json!({"message": "Validation Failed", "errors": errors, "status": "422"}),
    )
}

/// Holds the body against one of GitHub's schemas.
pub(super) fn valid(state: &mut State, ask: &Ask, schema: &str) -> Result<(), Answer> {
    let schema: Value = serde_json::from_str(schema).unwrap();
    schema::check(&schema, &ask.body).map_err(|wrong| invalid(state, ask, &wrong))
}

fn ours(state: &State, owner: &str, name: &str) -> Result<(), Answer> {
    let ours = state
        .full_name()
        .eq_ignore_ascii_case(&format!("{owner}/{name}"));
    ours.then_some(()).ok_or_else(not_found)
}

/// Gives the login of who may.
pub(super) fn allow(state: &State, who: Option<&Token>, level: Level) -> Result<String, Answer> {
    state
        .may(who, level, &["repo", "installation"])
        .map_err(|denied| match denied {
            Denied::Nobody => Answer::message(401, "Requires authentication"),
            Denied::Scope => {
                Answer::message(403, "Resource not accessible by personal access token")
            }
            // GitHub does not say what is there to whom may not change it.
            Denied::Level => not_found(),
        })
}

fn user(state: &mut State, ask: &Ask) -> Answered {
    let token = state
        .who(ask)?
        .ok_or_else(|| Answer::message(401, "Requires authentication"))?;
    if token.ends.is_some() {
        return Err(Answer::message(
            403,
            "Resource not accessible by integration",
        ));
    }
    let id = state.user(&token.login);
    let body = json!({"login": token.login, "id": id, "type": "User"});
    Ok(Answer::new(200, body).with("x-oauth-scopes", token.scopes.join(", ")))
}

fn repository(state: &State, who: Option<&Token>) -> Answered {
    let mut body = shapes::repository(state);
    if let Some(token) = who {
        let level = state.level(&token.login);
        let may = |least: Level| level >= least;
        body["permissions"] = json!({"admin": may(Level::Admin), "push": may(Level::Write), "pull": may(Level::Read)});
    }
    let scopes = who.map(|token| token.scopes.join(", ")).unwrap_or_default();
    Ok(Answer::new(200, body).with("x-oauth-scopes", scopes))
}

fn status(state: &mut State, ask: &Ask, who: Option<&Token>, commit: &str) -> Answered {
    allow(state, who, Level::Write)?;
    valid(state, ask, request_schema!("create-commit-status"))?;
    if !state.repo.has(commit) {
        return Err(Answer::message(
            422,
            &format!("No commit found for SHA: {commit}"),
        ));
    }
    let text = |name: &str| ask.body[name].as_str().unwrap_or_default().to_owned();
    let status = Status {
        state: text("state"),
        description: text("description"),
        url: text("target_url"),
        written: 1,
    };
    if status.description.chars().count() > DESCRIPTION_CHARACTERS {
        let message = "description is too long (maximum is 140 characters)";
        return Err(invalid(state, ask, message));
    }
    if status.description.chars().any(|c| c.len_utf8() > 3) {
        return Err(invalid(
            state,
            ask,
            "description doesn't accept 4-byte Unicode",
        ));
    }
    let context = ask.body["context"].as_str().unwrap_or("default").to_owned();
    let key = (commit.to_owned(), context);
    if state.write(key.clone(), status) > STATUSES_OF_A_CONTEXT {
        let message = "This SHA and context has reached the maximum number of statuses.";
        return Err(invalid(state, ask, message));
    }
    let mut body = ask.body.clone();
    body["id"] = json!(state.next_id());
    body["context"] = json!(key.1);
    Ok(Answer::new(201, body))
}

fn comments(state: &mut State, ask: &Ask, number: &str) -> Answered {
    let number: u64 = number.parse().map_err(|_| not_found())?;
    let listed = state.seen.on_since(number, ask.query("since"));
    let items: Vec<_> = listed
        .iter()
        .map(|c| shapes::comment_json(state, c))
        .collect();
    Ok(page(state, ask, 30, PAGE, &items))
}

fn comment(state: &mut State, ask: &Ask, who: Option<&Token>, number: &str) -> Answered {
    let by = allow(state, who, Level::Read)?;
    valid(state, ask, request_schema!("create-issue-comment"))?;
    let number: u64 = number.parse().map_err(|_| not_found())?;
    state.requests.get(&number).ok_or_else(not_found)?;
    let text = text(state, ask)?;
    let id = state.say(number, &by, &text);
    shown(state, id, 201)
}

/// A comment's text, if it is not too long.
fn text(state: &mut State, ask: &Ask) -> Result<String, Answer> {
    let text = ask.body["body"].as_str().unwrap_or_default().to_owned();
    if text.chars().count() > COMMENT_CHARACTERS {
        return Err(invalid(
            state,
            ask,
            "body is too long (maximum is 65536 characters)",
        ));
    }
    Ok(text)
}

fn shown(state: &mut State, id: u64, status: u16) -> Answered {
    let comment = state
        .seen
        .comments
        .iter()
        .find(|comment| comment.id == id)
        .cloned();
    let comment = comment.ok_or_else(not_found)?;
    Ok(Answer::new(status, shapes::comment_json(state, &comment)))
}

fn edit(state: &mut State, ask: &Ask, who: Option<&Token>, id: &str) -> Answered {
    let by = allow(state, who, Level::Read)?;
    valid(state, ask, request_schema!("update-issue-comment"))?;
    let text = text(state, ask)?;
    let id = id.parse().map_err(|_| not_found())?;
    state.edit(id, &by, text).ok_or_else(not_found)?;
    shown(state, id, 200)
}

fn react(state: &mut State, ask: &Ask, who: Option<&Token>, id: &str) -> Answered {
    let by = allow(state, who, Level::Read)?;
    let content = ask.body["content"].as_str().unwrap_or_default();
    if !REACTIONS.contains(&content) {
        return Err(invalid(state, ask, "content is no reaction"));
    }
    let new = state.react(id, &by, content).ok_or_else(not_found)?;
    let body = json!({"id": state.next_id(), "content": content, "user": {"login": by}});
    Ok(Answer::new(if new { 201 } else { 200 }, body))
}

fn permission(state: &mut State, who: Option<&Token>, login: &str) -> Answered {
    allow(state, who, Level::Write)?;
    if !state.users.contains_key(login) && !state.levels.contains_key(login) {
        return Err(Answer::message(404, &format!("{login} is not a user")));
    }
    let word = word(state.level(login));
    let id = state.user(login);
    let user = json!({"login": login, "id": id});
    Ok(Answer::new(
        200,
        json!({"permission": word, "role_name": word, "user": user}),
    ))
}

pub(super) fn word(level: Level) -> &'static str {
    match level {
        Level::None => "none",
        Level::Read => "read",
        Level::Write => "write",
        Level::Admin => "admin",
    }
}

/// Whether the App itself asks.
fn proven(state: &mut State, ask: &Ask) -> Result<(), Answer> {
    let now = state.unix();
    let jwt = ask.token.as_deref().unwrap_or_default();
    let app = state
        .app
        .as_ref()
        .ok_or_else(|| Answer::message(404, "Integration not found"))?;
    app.proves(jwt, now).map_err(|wrong| {
        state.violated(format!("{} {}: {wrong}", ask.method, ask.raw_path));
        Answer::message(401, wrong)
    })
}

fn app(state: &mut State, ask: &Ask) -> Answered {
    proven(state, ask)?;
    let body = json!({
        "id": super::super::APP_ID, "slug": SLUG, "name": "Trainyard", "owner": {"login": "octo"},
        "html_url": format!("{}/apps/{SLUG}", state.url), "permissions": permissions(), "events": EVENTS,
    });
    Ok(Answer::new(200, body))
}

const EVENTS: [&str; 4] = ["push", "pull_request", "issue_comment", "check_run"];

fn permissions() -> Value {
    json!({
        "checks": "write", "contents": "read", "issues": "write", "metadata": "read", "pull_requests": "write",
        "statuses": "write",
    })
}

fn installation(state: &mut State, ask: &Ask) -> Answered {
    proven(state, ask)?;
    let suspended = state.suspended.then(|| state.iso());
    let body = json!({
        "id": INSTALLATION, "app_id": super::super::APP_ID, "app_slug": SLUG, "account": {"login": "octo"},
        "suspended_at": suspended, "permissions": permissions(), "events": EVENTS,
        "html_url": format!("{}/settings/installations/{INSTALLATION}", state.url),
    });
    Ok(Answer::new(200, body))
}

/// What a token is to be good for. One that is to read code alone writes nothing.
fn narrowed(state: &mut State, ask: &Ask) -> Result<&'static str, Answer> {
    let is_other = |all: &Value, ours: Value| {
        let all = all.as_array();
        all.is_some_and(|all| all.iter().any(|one| *one != ours))
    };
    let by_name = is_other(&ask.body["repositories"], json!(NAME));
    if by_name || is_other(&ask.body["repository_ids"], json!(PROJECT)) {
        let message = "There is at least one repository that does not exist or is not accessible";
        return Err(invalid(state, ask, message));
    }
    match &ask.body["permissions"] {
        Value::Null => Ok("installation"),
        asked if *asked == json!({"contents": "read"}) => Ok("contents"),
        asked => {
            let message = format!("no story asks for {asked}");
            Err(invalid(state, ask, &message))
        }
    }
}

fn access_token(state: &mut State, ask: &Ask, id: &str) -> Answered {
    proven(state, ask)?;
    if id != INSTALLATION.to_string() {
        return Err(not_found());
    }
    if state.suspended {
        return Err(Answer::message(403, "This installation has been suspended"));
    }
    let scope = narrowed(state, ask)?;
    // Long, as those of the newer format.
    let text = format!("ghs_{}", state.uuid().repeat(14));
    let ends = state.now() + TOKEN_LASTS;
    let login = format!("{SLUG}[bot]");
    let token = Token {
        login,
        scopes: vec![scope.to_owned()],
        ends: Some(ends),
    };
    state.tokens.insert(text.clone(), token);
    let expires_at = iso(state.unix() + TOKEN_LASTS.as_secs());
    let body = json!({"token": text, "expires_at": expires_at, "permissions": permissions(), "repository_selection": "selected"});
    Ok(Answer::new(201, body))
}
