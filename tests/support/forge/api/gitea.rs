//! Gitea's REST API, which is Forgejo's too.

use serde_json::{Value, json};

use super::super::Face;
use super::super::payload::gitea as shapes;
use super::super::state::{Level, NAME, Source, State, Status, Token};
use super::github::word;
use super::{Answer, Ask, Denied, hooks, page};

const REPOSITORY: &[&str] = &["write:repository", "all"];
const ISSUE: &[&str] = &["write:issue", "all"];
const USER: &[&str] = &["read:user", "write:user", "all"];
/// The most of one page, unless its administrator says otherwise.
const PAGE: usize = 50;

type Answered = Result<Answer, Answer>;

pub(super) fn answer(state: &mut State, ask: &Ask) -> Answered {
    let who = state.who(ask)?;
    let who = who.as_ref();
    match (ask.method.as_str(), ask.parts().as_slice()) {
        ("GET", ["version"]) => {
            let forgejo = state.face == Face::Forgejo;
            let version = if forgejo {
                "11.0.1+gitea-1.22.0"
            } else {
                "1.22.6"
            };
            Ok(Answer::new(200, json!({"version": version})))
        }
        ("GET", ["user"]) => {
            let login = allow(state, who, Level::None, USER)?;
            Ok(Answer::new(
                200,
                json!({"id": state.user(&login), "login": login, "username": login}),
            ))
        }
        // Its one repository is there from the start.
        ("POST", ["user", "repos"]) => {
            allow(state, who, Level::Admin, REPOSITORY)?;
            match ask.field("name").as_deref() == Some(NAME) {
                true => Ok(Answer::new(201, shapes::repository(state))),
                false => Err(not_found()),
            }
        }
        (_, ["repos", owner, name, rest @ ..]) => {
            let ours = state
                .full_name()
                .eq_ignore_ascii_case(&format!("{owner}/{name}"));
            if !ours || !state.sees(who) {
                return Err(not_found());
            }
            of_repository(state, ask, who, rest)
        }
        _ => Err(not_found()),
    }
}

fn of_repository(state: &mut State, ask: &Ask, who: Option<&Token>, rest: &[&str]) -> Answered {
    match (ask.method.as_str(), rest) {
        ("GET", []) => Ok(repository(state, who)),
        ("GET", ["commits", commit, "statuses"]) => {
            let of_it = state
                .seen
                .statuses
                .iter()
                .filter(|(key, _)| key.0 == *commit);
            let items = of_it.map(|((_, context), status)| {
                json!({"context": context, "status": status.state, "description": status.description})
            });
            let items: Vec<_> = items.collect();
            Ok(page(state, ask, 30, PAGE, &items))
        }
        ("POST", ["statuses", commit]) => {
            allow(state, who, Level::Write, REPOSITORY)?;
            status(state, ask, commit)
        }
        ("GET", ["issues", number, "comments"]) => {
            // All of them: this list has no pages.
            let number: u64 = number.parse().map_err(|_| not_found())?;
            let listed = state.seen.on_since(number, ask.query("since"));
            let items = listed
                .iter()
                .map(|comment| shapes::comment_json(state, comment));
            Ok(Answer::new(200, items.collect()))
        }
        ("POST", ["issues", number, "comments"]) => {
            let by = allow(state, who, Level::Read, ISSUE)?;
            let number: u64 = number.parse().map_err(|_| not_found())?;
            state.requests.get(&number).ok_or_else(not_found)?;
            let id = state.say(number, &by, &text(ask)?);
            shown(state, id, 201)
        }
        ("PATCH", ["issues", "comments", id]) => {
            let by = allow(state, who, Level::Read, ISSUE)?;
            let id = id.parse().map_err(|_| not_found())?;
            state.edit(id, &by, text(ask)?).ok_or_else(not_found)?;
            shown(state, id, 200)
        }
        ("POST", ["issues", "comments", id, "reactions"]) => {
            let by = allow(state, who, Level::Read, ISSUE)?;
            let content = ask.body["content"].as_str().unwrap_or_default();
            let new = state.react(id, &by, content).ok_or_else(not_found)?;
            let status = if new { 201 } else { 200 };
            Ok(Answer::new(
                status,
                json!({"user": {"login": by}, "content": content}),
            ))
        }
        ("GET", ["pulls"]) => {
            let pulls = state.pulls(ask, "open");
            let items: Vec<_> = pulls.iter().map(|pull| shapes::pull(state, pull)).collect();
            Ok(page(state, ask, 30, PAGE, &items))
        }
        ("POST", ["pulls"]) => {
            let by = allow(state, who, Level::Read, REPOSITORY)?;
            let field = |name: &str| ask.field(name).ok_or_else(not_found);
            let (title, head) = (field("title")?, field("head")?);
            let number = state.open(Source::Own, &head, &title, &by, false);
            let request = state.requests[&number].clone();
            Ok(Answer::new(201, shapes::pull(state, &request)))
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
        ("GET", ["collaborators", login, "permission"]) => {
            allow(state, who, Level::Admin, REPOSITORY)?;
            permission(state, login)
        }
        (_, ["hooks", ..]) => {
            allow(state, who, Level::Admin, REPOSITORY)?;
            hooks::answer(state, ask, &rest[1..]).ok_or_else(not_found)
        }
        _ => Err(not_found()),
    }
}

fn not_found() -> Answer {
    Answer::message(404, "The target couldn't be found.")
}

fn allow(
    state: &State,
    who: Option<&Token>,
    level: Level,
    scopes: &[&str],
) -> Result<String, Answer> {
    state
        .may(who, level, scopes)
        .map_err(|denied| match denied {
            Denied::Nobody => Answer::message(401, "token is required"),
            Denied::Scope => {
                let wanted = scopes[0];
                Answer::message(
                    403,
                    &format!("token does not have at least one of required scope(s): [{wanted}]"),
                )
            }
            Denied::Level => {
                Answer::message(403, "user should have a permission to write to a repo")
            }
        })
}

fn repository(state: &mut State, who: Option<&Token>) -> Answer {
    let mut body = shapes::repository(state);
    let level = who.map_or(Level::None, |token| state.level(&token.login));
    let may = |least: Level| level >= least;
    body["permissions"] =
        json!({"admin": may(Level::Admin), "push": may(Level::Write), "pull": may(Level::Read)});
    Answer::new(200, body)
}

/// Any state is accepted; a commit that is not here is the forge's own failure.
fn status(state: &mut State, ask: &Ask, commit: &str) -> Answered {
    if !state.repo.has(commit) {
        return Err(Answer::message(500, ""));
    }
    let text = |name: &str| ask.body[name].as_str().unwrap_or_default().to_owned();
    let status = Status {
        state: text("state"),
        description: text("description"),
        url: text("target_url"),
        written: 1,
    };
    let body = json!({
        "id": state.next_id(), "status": status.state, "description": status.description,
        "target_url": status.url, "context": text("context"),
    });
    state.write((commit.to_owned(), text("context")), status);
    Ok(Answer::new(201, body))
}

fn text(ask: &Ask) -> Result<String, Answer> {
    let empty = || Answer::message(422, "[Body]: Required");
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
        shapes::comment_json(state, &comment.ok_or_else(not_found)?),
    ))
}

fn permission(state: &mut State, login: &str) -> Answered {
    if !state.users.contains_key(login) && !state.levels.contains_key(login) {
        return Err(not_found());
    }
    let word = word(state.level(login));
    let user: Value = json!({"id": state.user(login), "login": login});
    Ok(Answer::new(
        200,
        json!({"permission": word, "role_name": word, "user": user}),
    ))
}
