//! A forge for stories: it speaks HTTP on a port of its own as GitHub, GitLab, Gitea or Forgejo do, and serves real
//! git. It has one repository, `octo/hello`, people who push, open requests and comment, hooks that it tells of it, and
//! the API through which verdicts come back. What a person would see is in [`ForgeWorld::seen`]; what a client did
//! wrong is in [`ForgeWorld::violations`]. It knows nothing of ours: not a type, not an address.

#![allow(
    dead_code,
    unused_imports,
    reason = "each of the crates whose tests tell stories with it uses a part"
)]

mod api;
mod app;
mod git;
mod git_http;
mod hooks;
mod lfs;
mod limits;
mod moves;
mod payload;
pub(crate) mod schema;
mod state;
mod story;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Request, State as Of};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};

pub(crate) use app::{APP_ID, INSTALLATION, PRIVATE_KEY, SLUG};
pub(crate) use git::{LINK, ZEROS};
pub(crate) use hooks::{Delivery, Hook};
pub(crate) use limits::{Limits, Refusal};
pub(crate) use payload::PROJECT;
pub(crate) use state::{Call, Check, Comment, Level, MAIN, NAME, OWNER, Seen, Status};

use state::{State, Token};

/// Which forge it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    Github,
    Gitlab,
    Gitea,
    Forgejo,
}

impl Face {
    /// Where the API begins; GitHub as an Enterprise server has it.
    fn api(self) -> &'static str {
        match self {
            Self::Github => "/api/v3",
            Self::Gitlab => "/api/v4",
            Self::Gitea | Self::Forgejo => "/api/v1",
        }
    }

    /// What the owner's token may, in the forge's words.
    pub(crate) fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::Github => &["repo"],
            Self::Gitlab => &["api"],
            Self::Gitea | Self::Forgejo => &["write:repository", "write:issue", "read:user"],
        }
    }

    /// As whom a token clones.
    fn clone_user(self) -> &'static str {
        match self {
            Self::Gitlab => "oauth2",
            Self::Github | Self::Gitea | Self::Forgejo => "x-access-token",
        }
    }

    /// Where the head of a request is found.
    fn head_ref(self, number: u64) -> String {
        match self {
            Self::Gitlab => format!("refs/merge-requests/{number}/head"),
            Self::Github | Self::Gitea | Self::Forgejo => format!("refs/pull/{number}/head"),
        }
    }
}

/// How a forge is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Connections are closed as soon as they are there.
    Cut,
    BadGateway,
}

struct Shared {
    state: Mutex<State>,
    /// For hooks.
    http: reqwest::Client,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// A forge that runs until it is dropped.
pub(crate) struct ForgeWorld {
    face: Face,
    url: String,
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl ForgeWorld {
    /// A forge with an empty, public repository.
    pub(crate) async fn start(face: Face) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::new(face, url.clone(), folder.path().to_owned());
        if face == Face::Github {
            state.limiter.limits = Some(Limits::of_github());
        }
        // One TLS library for the whole program; a second installation is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy();
        let http = http
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            http,
        });
        let door = Door {
            listener,
            shared: shared.clone(),
        };
        let service = axum::Router::new()
            .fallback(answer)
            .with_state(shared.clone());
        let serving = tokio::spawn(async move {
            let _ = axum::serve(door, service).await;
        });
        Self {
            face,
            url,
            shared,
            serving,
            _folder: folder,
        }
    }

    pub(crate) fn face(&self) -> Face {
        self.face
    }

    /// Where a browser would go.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The base of the API.
    pub(crate) fn api(&self) -> String {
        format!("{}{}", self.url, self.face.api())
    }

    pub(crate) fn clone_url(&self) -> String {
        format!("{}/{OWNER}/{NAME}.git", self.url)
    }

    /// A new token of a person, with these scopes in the forge's words.
    pub(crate) fn token(&self, login: &str, scopes: &[&str]) -> String {
        let mut state = self.shared.lock();
        let text = format!("token-{}", state.uuid());
        let token = Token {
            login: login.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ends: None,
        };
        state.user(login);
        state.tokens.insert(text.clone(), token);
        text
    }

    /// A new token of the owner that may everything that a client of ours asks for.
    pub(crate) fn owners_token(&self) -> String {
        self.token(OWNER, self.face.scopes())
    }

    pub(crate) fn revoke(&self, token: &str) {
        self.shared.lock().tokens.remove(token);
    }

    /// Whether only people with a token may read.
    pub(crate) fn private(&self, private: bool) {
        self.shared.lock().private = private;
    }

    pub(crate) fn set_permission(&self, login: &str, level: Level) {
        let mut state = self.shared.lock();
        state.user(login);
        state.levels.insert(login.to_owned(), level);
    }

    pub(crate) fn down(&self, outage: Outage) {
        self.shared.lock().outage = Some(outage);
    }

    pub(crate) fn up(&self) {
        self.shared.lock().outage = None;
    }

    /// Each call to the API takes so much longer.
    pub(crate) fn slow(&self, each: Duration) {
        self.shared.lock().slow = each;
    }

    /// The next `calls` calls to the API are refused. Who calls again before the time that it is told violates.
    pub(crate) fn limit_for(&self, calls: u32, refusal: Refusal) {
        self.shared.lock().limiter.refused = Some((calls, refusal));
    }

    /// What it counts; GitHub has [`Limits::of_github`] from the start, the others none.
    pub(crate) fn limits(&self, limits: Option<Limits>) {
        self.shared.lock().limiter.limits = limits;
    }

    /// Puts the forge's clock forward.
    pub(crate) fn advance(&self, by: Duration) {
        self.shared.lock().forward += by;
    }

    /// What a person would see.
    pub(crate) fn seen(&self) -> Seen {
        self.shared.lock().seen.clone()
    }

    /// What a client did that it should not do, each in a sentence.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// All calls to the API, in the order of their answers.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }
}

impl Drop for ForgeWorld {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Lets nobody in while the connection is to be cut.
struct Door {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if self.shared.lock().outage != Some(Outage::Cut) {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Listener::local_addr(&self.listener)
    }
}

async fn answer(Of(shared): Of<Arc<Shared>>, request: Request) -> Response {
    let (face, outage) = {
        let state = shared.lock();
        (state.face, state.outage)
    };
    let path = request.uri().path().to_owned();
    let mut response = match (outage, path.strip_prefix(face.api())) {
        (Some(_), _) => StatusCode::BAD_GATEWAY.into_response(),
        (None, Some(_)) => api::answer(&shared, request).await,
        (None, None) if face == Face::Forgejo && path == "/api/forgejo/v1/version" => {
            axum::Json(serde_json::json!({"version": "11.0.1+gitea-1.22.0"})).into_response()
        }
        (None, None) if path.starts_with("/api/") => StatusCode::NOT_FOUND.into_response(),
        (None, None) => git_http::answer(&shared, request).await,
    };
    // So that an outage meets every client at once, and not when it happens to connect anew.
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}
