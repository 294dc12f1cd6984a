//! Who is asking, and whether they may: a layer before every route but the agents' and the webhooks'.
//!
//! Until an administrator's token exists, whoever asks over loopback may do everything; from then on
//! everybody needs a token (API, commands) or a session that a token began (pages).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::Timestamp;
use protocol::api::Role;

use super::answer::{Problem, in_form};
use super::guard::{Names, asks_at_home, session_of};
use super::listen::Peer;
use crate::secret::{self, Secret};
use crate::store::access as rows;
use crate::store::{self, Result, Store};

/// A token's last use is written down this often.
const USED_EVERY: Duration = Duration::from_secs(60);

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// Somebody on this host, while no administrator's token exists.
    Local,
    /// The holder of a token; `session` where a page's session brought it.
    Holder {
        /// The token's name.
        name: String,
        /// What it allows.
        role: Role,
        /// The session's secret, which form tokens are made from.
        session: Option<String>,
    },
    /// Nobody that is known.
    Nobody,
}

impl Who {
    /// What they may do; none: nothing.
    pub(crate) fn role(&self) -> Option<Role> {
        match self {
            Who::Local => Some(Role::Admin),
            Who::Holder { role, .. } => Some(*role),
            Who::Nobody => None,
        }
    }

    /// The name for the audit log and for `by`.
    pub(crate) fn name(&self) -> &str {
        match self {
            Who::Local => "local",
            Who::Holder { name, .. } => name,
            Who::Nobody => "nobody",
        }
    }
}

/// What the layer needs to know.
pub(crate) struct Access {
    store: Store,
    names: Names,
    /// Whether the listener itself, or the named proxy before it, speaks TLS.
    pub(crate) tls: bool,
    /// Form tokens of people without a session are made from it.
    local_secret: String,
    used: Mutex<HashMap<String, Instant>>,
}

impl Access {
    /// `names`: the host names, beside the loopback ones, under which the server may be asked for.
    pub(crate) fn new(store: Store, names: Names, tls: bool) -> Self {
        let local_secret = Secret::generate("local").reveal().to_owned();
        Self {
            store,
            names,
            tls,
            local_secret,
            used: Mutex::default(),
        }
    }

    /// The secret that the form tokens of this person's pages are made from.
    pub(crate) fn form_secret<'a>(&'a self, who: &'a Who) -> &'a str {
        match who {
            Who::Holder {
                session: Some(session),
                ..
            } => session,
            Who::Holder { session: None, .. } | Who::Local | Who::Nobody => &self.local_secret,
        }
    }

    /// Whether `Host` and, for a write, `Origin` are this server's own.
    fn is_for_us(&self, method: &Method, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        // An origin that cannot be read as text is there, and is not ours.
        let origin = headers
            .get(header::ORIGIN)
            .map(|value| value.to_str().unwrap_or("null"));
        self.names.host_is_ours(host) && (reads || self.names.origin_is_ours(origin, host))
    }

    async fn who(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<Who> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let mut db = self.store.read().await?;
        let given = text(header::AUTHORIZATION).and_then(token_of);
        let bearer = given.as_deref();
        let session = text(header::COOKIE).and_then(session_of);
        let (token, session) = if let Some(bearer) = bearer {
            (
                rows::token_by_hash(&mut db, &secret::hash(bearer)).await?,
                None,
            )
        } else if let Some(session) = session {
            let hash = secret::hash(session);
            let token = rows::token_of_session(&mut db, &hash, Timestamp::now()).await?;
            (token, Some(session.to_owned()))
        } else {
            (None, None)
        };
        if let Some(token) = token {
            drop(db);
            self.note_use(&token.name).await?;
            return Ok(Who::Holder {
                name: token.name,
                role: token.role,
                session,
            });
        }
        // A wrong token is a mistake to be told, not a stranger who is let in for being local; whoever
        // comes through a proxy on this host only looks local.
        let local = bearer.is_none()
            && peer.ip().is_loopback()
            && asks_at_home(headers)
            && !rows::has_admin(&mut db).await?;
        Ok(if local { Who::Local } else { Who::Nobody })
    }

    async fn note_use(&self, name: &str) -> Result<()> {
        let due = {
            let mut used = self
                .used
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let due = used.get(name).is_none_or(|at| at.elapsed() > USED_EVERY);
            if due {
                used.insert(name.to_owned(), Instant::now());
            }
            due
        };
        if due {
            let mut tx = self.store.begin().await?;
            rows::set_used(&mut tx, name, Timestamp::now()).await?;
            store::commit(tx).await?;
        }
        Ok(())
    }
}

/// The token in an `Authorization` header: a bearer's, or the password where a client knows only names and passwords.
fn token_of(value: &str) -> Option<String> {
    if let Some(token) = value.strip_prefix("Bearer ") {
        return Some(token.to_owned());
    }
    let basic = STANDARD.decode(value.strip_prefix("Basic ")?.trim()).ok();
    let basic = basic.and_then(|bytes| String::from_utf8(bytes).ok());
    let password = basic.as_deref().and_then(|pair| pair.split_once(':'));
    // What cannot be read is a wrong token, not none.
    Some(password.map_or_else(String::new, |(_, password)| password.to_owned()))
}

/// Refuses requests that are not for us, and says to the routes who asks.
pub(crate) async fn identify(
    State(access): State<std::sync::Arc<Access>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    if !access.is_for_us(request.method(), request.headers()) {
        let words = "this server does not answer under that name (Host or Origin); its names are set by 'names' in its configuration";
        let problem = Problem::new(StatusCode::FORBIDDEN, "forbidden", words);
        return in_form(request.uri().path(), problem);
    }
    // PostgreSQL keeps no such character, and would be asked for it in vain.
    if request.uri().to_string().contains("%00") {
        let problem = Problem::invalid("an address has no NUL character (%00)");
        return in_form(request.uri().path(), problem);
    }
    match access.who(request.headers(), peer).await {
        Ok(who) => {
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Err(error) => in_form(request.uri().path(), Problem::from(error)),
    }
}

/// Lets only holders of at least this role pass; others get 401 or 403, and on pages the login.
pub(crate) async fn require(State(role): State<Role>, request: Request, next: Next) -> Response {
    let who = request
        .extensions()
        .get::<Who>()
        .cloned()
        .unwrap_or(Who::Nobody);
    let api = request.uri().path().starts_with("/api/");
    match who.role() {
        Some(has) if has >= role => next.run(request).await,
        Some(has) => {
            let words = format!(
                "'{}' has the role {}; this wants {}",
                who.name(),
                has.word(),
                role.word()
            );
            let problem = Problem::new(StatusCode::FORBIDDEN, "forbidden", words);
            in_form(request.uri().path(), problem)
        }
        None if api => {
            let words = "an API token is wanted: 'trainyard token create' makes one; set TRAINYARD_TOKEN (for MLflow's clients \
                 MLFLOW_TRACKING_TOKEN), or send it as Authorization: Bearer";
            let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", words);
            in_form(request.uri().path(), problem)
        }
        None => {
            let here = request
                .uri()
                .path_and_query()
                .map_or("/", |path| path.as_str());
            Redirect::to(&format!("/login?next={}", encode(here))).into_response()
        }
    }
}

/// Percent-encodes a path for a query.
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Where to go after the login: a path of this server and nothing else.
pub(crate) fn safe_next(next: &str) -> &str {
    // Browsers leave out a tab.
    let odd = |c: char| c == '\\' || c.is_control();
    let own = next.starts_with('/') && !next.starts_with("//") && !next.contains(odd);
    if own { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_login_nobody_is_sent_elsewhere() {
        for (next, safe) in [
            ("/jobs/1?x=y", "/jobs/1?x=y"),
            ("//evil.example", "/"),
            ("https://evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("", "/"),
        ] {
            assert_eq!(safe_next(next), safe);
        }
    }
}
