//! The forges' APIs: what all have in common. One call is one value, its answer is made under the lock.

mod checks;
mod gitea;
mod github;
mod gitlab;
mod hooks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::limits::Refusal;
use super::state::{Call, Level, Request as PullRequest, State, Status, Token, http_date};
use super::{Face, Shared, hooks as outbox};

/// No client of ours sends more.
const BODY_BYTES_MOST: usize = 10 << 20;
/// A write takes its time, so that two at once meet.
const WRITE_TAKES: Duration = Duration::from_millis(2);
/// GitHub's calls an hour.
const CALLS_AN_HOUR: u64 = 5000;

/// A call as it came.
struct Ask {
    method: String,
    /// Behind the API's base, as it came.
    raw_path: String,
    /// The same in parts, decoded.
    path: Vec<String>,
    query: BTreeMap<String, String>,
    token: Option<String>,
    etag: Option<String>,
    /// JSON; null where there was none.
    body: Value,
}

/// What a call is answered with.
struct Answer {
    status: u16,
    body: Value,
    headers: Vec<(&'static str, String)>,
}

impl Answer {
    fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            body,
            headers: Vec::new(),
        }
    }

    fn message(status: u16, message: &str) -> Self {
        Self::new(status, json!({"message": message}))
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// Why somebody may not do something.
enum Denied {
    /// There is no token.
    Nobody,
    /// The token's scopes do not reach.
    Scope,
    /// The person may not.
    Level,
}

impl Ask {
    fn read(face: Face, parts: &Parts, body: &[u8]) -> Self {
        let header = |name: &str| {
            let value = parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        };
        let raw_path = parts.uri.path()[face.api().len()..].to_owned();
        let bearer = header("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            matches!(scheme, "Bearer" | "token").then(|| token.to_owned())
        });
        let own = header("private-token").filter(|_| face == Face::Gitlab);
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(&value.replace('+', " ")))
        };
        Self {
            method: parts.method.as_str().to_owned(),
            path: raw_path.split('/').skip(1).map(decoded).collect(),
            raw_path,
            query: parts
                .uri
                .query()
                .unwrap_or_default()
                .split('&')
                .map(pair)
                .collect(),
            token: own.or(bearer),
            etag: header("if-none-match"),
            body: serde_json::from_slice(body).unwrap_or(Value::Null),
        }
    }

    fn writes(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD") && self.path[0] != "app"
    }

    fn parts(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A field of the body; GitLab takes it from the query as well.
    fn field(&self, name: &str) -> Option<String> {
        match &self.body[name] {
            Value::Null => self.query(name).map(str::to_owned),
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

/// Percent-encoded text as it was before.
pub(super) fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part
            .get(..2)
            .and_then(|code| u8::from_str_radix(code, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => bytes.extend(format!("%{part}").as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) async fn answer(shared: &Arc<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_BYTES_MOST)
        .await
        .unwrap_or_default();
    let (ask, caller, early, takes) = {
        let mut state = shared.lock();
        let ask = Ask::read(state.face, &parts, &body);
        let caller = state.caller(&ask);
        let early = state.gate(&ask);
        let takes = state.slow
            + if ask.writes() {
                WRITE_TAKES
            } else {
                Duration::ZERO
            };
        (ask, caller, early, takes)
    };
    let _writing = ask.writes().then(|| Writing {
        shared: shared.clone(),
        caller,
        path: ask.raw_path.clone(),
    });
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    let (answer, told) = {
        let mut state = shared.lock();
        let answer = early.unwrap_or_else(|| state.dispatch(&ask));
        let answer = state.finish(&ask, answer);
        (answer, !state.outbox.is_empty() || !state.again.is_empty())
    };
    if told {
        let shared = shared.clone();
        tokio::spawn(async move { outbox::flush(&shared).await });
    }
    respond(answer)
}

/// A write that is not answered yet, or will never be: its client may go.
struct Writing {
    shared: Arc<Shared>,
    caller: String,
    path: String,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.shared.lock().limiter.end(&self.caller, &self.path);
    }
}

fn respond(answer: Answer) -> Response {
    let mut response = Response::builder()
        .status(answer.status)
        .header("content-type", "application/json; charset=utf-8");
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let body = match answer.body {
        Value::Null => Body::empty(),
        body => Body::from(body.to_string()),
    };
    response.body(body).unwrap()
}

impl State {
    /// What is refused before anybody looks at it.
    fn gate(&mut self, ask: &Ask) -> Option<Answer> {
        let (now, caller) = (self.now(), self.caller(ask));
        let meets = self.face == Face::Gitlab
            && ask.raw_path.contains("/statuses/")
            && self.limiter.writes_to(&ask.raw_path);
        let wrong = ask
            .writes()
            .then(|| self.limiter.begin(&caller, &ask.raw_path, now))
            .flatten();
        let quiet_until = self.limiter.quiet_until.get(&caller);
        if quiet_until.is_some_and(|until| *until > now) {
            self.violated(format!("{}: called before it was allowed", ask.raw_path));
        }
        if let Some(refusal) = self.limiter.refusal() {
            return Some(self.refused(caller, refusal));
        }
        if meets {
            self.violated(format!("{}: two at once for one commit", ask.raw_path));
            return Some(Answer::message(409, "409 Conflict"));
        }
        self.violated(wrong?);
        let refuses = self
            .limiter
            .limits
            .as_ref()
            .and_then(|limits| limits.refuses)?;
        Some(self.refused(caller, Refusal::After(refuses)))
    }

    /// Whom it counts: a person with all of their tokens, or the App with its own.
    fn caller(&self, ask: &Ask) -> String {
        let token = ask.token.as_ref().and_then(|text| self.tokens.get(text));
        match token {
            Some(token) if token.ends.is_some() => "the App".to_owned(),
            Some(token) => token.login.clone(),
            None => "nobody".to_owned(),
        }
    }

    fn refused(&mut self, caller: String, refusal: Refusal) -> Answer {
        let (Refusal::After(seconds) | Refusal::Spent(seconds)) = refusal;
        let until = self.now() + Duration::from_secs(seconds);
        self.limiter.quiet_until.insert(caller, until);
        let status = if self.face == Face::Github { 403 } else { 429 };
        match refusal {
            Refusal::After(seconds) => {
                let message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
                Answer::message(status, message).with("retry-after", seconds)
            }
            Refusal::Spent(seconds) => {
                let answer = Answer::message(status, "API rate limit exceeded");
                let reset = self.unix() + seconds;
                match self.face {
                    Face::Github => answer
                        .with("x-ratelimit-remaining", 0)
                        .with("x-ratelimit-reset", reset),
                    Face::Gitlab | Face::Gitea | Face::Forgejo => answer
                        .with("ratelimit-remaining", 0)
                        .with("ratelimit-reset", reset),
                }
            }
        }
    }

    fn dispatch(&mut self, ask: &Ask) -> Answer {
        let answer = match self.face {
            Face::Github => github::answer(self, ask),
            Face::Gitlab => gitlab::answer(self, ask),
            Face::Gitea | Face::Forgejo => gitea::answer(self, ask),
        };
        answer.unwrap_or_else(|refused| refused)
    }

    fn finish(&mut self, ask: &Ask, mut answer: Answer) -> Answer {
        let tags = matches!(self.face, Face::Github | Face::Gitlab);
        if tags && ask.method == "GET" && answer.status == 200 {
            answer = tagged(ask, answer);
        }
        let counted = answer.status != 304;
        if self.face == Face::Github
            && !answer
                .headers
                .iter()
                .any(|(name, _)| *name == "x-ratelimit-remaining")
        {
            let (left, reset) = self.spend(u64::from(counted));
            answer = answer.with("x-ratelimit-limit", CALLS_AN_HOUR);
            answer = answer
                .with("x-ratelimit-remaining", left)
                .with("x-ratelimit-reset", reset);
        }
        // By its own clock, as its other times are.
        answer = answer.with("date", http_date(self.unix()));
        self.calls.push(Call {
            at: self.now(),
            method: ask.method.clone(),
            path: ask.raw_path.clone(),
            with_token: ask.token.is_some(),
            status: answer.status,
        });
        answer
    }

    /// Takes from the hour's calls. Gives what is left, and when the next hour begins.
    fn spend(&mut self, calls: u64) -> (u64, u64) {
        let hour = self.unix() / 3600;
        if self.limiter.hour != hour {
            (self.limiter.hour, self.limiter.spent) = (hour, 0);
        }
        self.limiter.spent += calls;
        (
            CALLS_AN_HOUR.saturating_sub(self.limiter.spent),
            (hour + 1) * 3600,
        )
    }

    /// Whose token a call has.
    fn who(&mut self, ask: &Ask) -> Result<Option<Token>, Answer> {
        let Some(text) = &ask.token else {
            if ask.writes() {
                self.violated(format!("{} {}: without a token", ask.method, ask.raw_path));
            }
            return Ok(None);
        };
        let bad = match self.face {
            Face::Github => "Bad credentials",
            Face::Gitlab => "401 Unauthorized",
            Face::Gitea | Face::Forgejo => "user does not exist [uid: 0, name: ]",
        };
        self.good_token(text)
            .map(Some)
            .ok_or_else(|| Answer::message(401, bad))
    }

    /// Whether somebody may do what wants this level, with one of these scopes.
    fn may(&self, who: Option<&Token>, level: Level, scopes: &[&str]) -> Result<String, Denied> {
        let token = who.ok_or(Denied::Nobody)?;
        if !token
            .scopes
            .iter()
            .any(|scope| scopes.contains(&scope.as_str()))
        {
            return Err(Denied::Scope);
        }
        let enough = token.ends.is_some() || self.level(&token.login) >= level;
        enough.then(|| token.login.clone()).ok_or(Denied::Level)
    }

    /// Writes a comment anew, and tells of it. None: there is no such comment.
    pub(super) fn edit(&mut self, id: u64, by: &str, text: String) -> Option<()> {
        let now = self.iso();
        let mut all = self.seen.comments.iter_mut();
        let comment = all.find(|comment| comment.id == id && comment.by == by)?;
        comment.text = text;
        comment.changed_at = now;
        comment.edits += 1;
        let comment = comment.clone();
        self.tell_comment(&comment);
        Some(())
    }

    /// Whether a reaction to a comment is new. None: there is no such comment.
    fn react(&mut self, id: &str, by: &str, what: &str) -> Option<bool> {
        let mut all = self.seen.comments.iter_mut();
        let comment = all.find(|comment| comment.id.to_string() == id)?;
        let reaction = (by.to_owned(), what.to_owned());
        let new = !comment.reactions.contains(&reaction);
        if new {
            comment.reactions.push(reaction);
        }
        Some(new)
    }

    /// The newest status of a context counts. Gives how many were written.
    fn write(&mut self, key: (String, String), status: Status) -> u32 {
        let before = self
            .seen
            .statuses
            .get(&key)
            .map_or(0, |status| status.written);
        let written = before + 1;
        self.seen.statuses.insert(key, Status { written, ..status });
        written
    }

    fn pulls(&self, ask: &Ask, open: &str) -> Vec<PullRequest> {
        let wanted = ask.query("state").unwrap_or(open);
        let fits = |request: &&PullRequest| wanted == "all" || request.open == (wanted == open);
        self.requests.values().rev().filter(fits).cloned().collect()
    }
}

/// 304 where the client has the answer.
fn tagged(ask: &Ask, answer: Answer) -> Answer {
    let hash = hex::encode(Sha256::digest(answer.body.to_string()));
    let tag = format!("W/\"{hash}\"");
    if ask.etag.as_ref() == Some(&tag) {
        return Answer::new(304, Value::Null).with("etag", tag);
    }
    answer.with("etag", tag)
}

/// A page of a list, with links to the others.
fn page(state: &State, ask: &Ask, usual: usize, most: usize, items: &[Value]) -> Answer {
    let number = |names: &[&str], usual: usize| {
        let text = names.iter().find_map(|name| ask.query(name));
        text.and_then(|text| text.parse().ok())
            .unwrap_or(usual)
            .max(1)
    };
    let size = number(&["per_page", "limit"], usual).min(most);
    let at = number(&["page"], 1);
    let last = items.len().div_ceil(size).max(1);
    let shown: Vec<_> = items.iter().skip((at - 1) * size).take(size).collect();
    let mut answer = Answer::new(200, json!(shown)).with("x-total-count", items.len());
    if at < last {
        let url = |page: usize| {
            let others = ask
                .query
                .iter()
                .filter(|(name, _)| *name != "page" && !name.is_empty());
            let others: String = others
                .map(|(name, value)| format!("{name}={value}&"))
                .collect();
            format!(
                "<{}{}{}?{others}page={page}>",
                state.url,
                state.face.api(),
                ask.raw_path
            )
        };
        let (next, end) = (url(at + 1), url(last));
        answer = answer.with("link", format!("{next}; rel=\"next\", {end}; rel=\"last\""));
    }
    if state.face == Face::Gitlab {
        let next = if at < last {
            (at + 1).to_string()
        } else {
            String::new()
        };
        answer = answer.with("x-next-page", next).with("x-total-pages", last);
    }
    answer
}
