//! Git over HTTP: `git http-backend` as a CGI program, behind the forge's own look at who asks.

use std::process::Stdio;
use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::io::ReaderStream;

use super::state::{Level, State, Token};
use super::{Face, Shared, git, hooks, lfs};

pub(super) async fn answer(shared: &Arc<Shared>, request: Request) -> Response {
    let pushes = request.uri().to_string().contains("git-receive-pack");
    if let Some(full) = shared.lock().led_to(request.uri()) {
        return (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, full)]).into_response();
    }
    let (root, who) = {
        let state = shared.lock();
        (state.root.clone(), state.admit(request.headers(), pushes))
    };
    let who = match who {
        Ok(who) => who,
        Err(status) => {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"forge\"")];
            return (status, challenge, "who are you?").into_response();
        }
    };
    if let Some((_, rest)) = request.uri().path().split_once("/info/lfs/") {
        let rest = rest.to_owned();
        return lfs::answer(shared, &rest, request.into_body()).await;
    }
    let (parts, body) = request.into_parts();
    let mut child = backend(&root, &parts, who.as_deref());
    tokio::spawn(feed(child.stdin.take().unwrap(), body.into_data_stream()));
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let pushed = pushes && parts.method == "POST";
    let response = respond(child, stdout, pushed).await;
    if let (true, Some(who)) = (pushed, &who) {
        shared.lock().settle(who);
        hooks::flush(shared).await;
    }
    response
}

impl State {
    /// GitLab has repositories under the name that ends with `.git`, and leads there from the other.
    fn led_to(&self, uri: &Uri) -> Option<String> {
        let (repository, rest) = uri.path().split_once("/info/refs")?;
        let leads = self.face == Face::Gitlab && !repository.ends_with(".git") && rest.is_empty();
        let query = uri.query().unwrap_or_default();
        leads.then(|| format!("{}{repository}.git/info/refs?{query}", self.url))
    }

    /// Whether somebody may fetch, or push. Gives who it is; none: nobody in particular.
    fn admit(&self, headers: &HeaderMap, pushes: bool) -> Result<Option<String>, StatusCode> {
        let who = match headers.get(header::AUTHORIZATION) {
            None if pushes || self.private => return Err(StatusCode::UNAUTHORIZED),
            None => None,
            Some(value) => Some(self.bearer(value).ok_or(StatusCode::UNAUTHORIZED)?),
        };
        if !self.sees(who.as_ref()) {
            return Err(StatusCode::NOT_FOUND);
        }
        let who = who.map(|token| token.login);
        match &who {
            Some(login) if pushes && self.level(login) < Level::Write => Err(StatusCode::FORBIDDEN),
            Some(_) | None => Ok(who),
        }
    }

    /// The token that is a password, of the one user who stands for tokens.
    fn bearer(&self, value: &HeaderValue) -> Option<Token> {
        let basic = value.to_str().ok()?.strip_prefix("Basic ")?;
        let pair = String::from_utf8(STANDARD.decode(basic).ok()?).ok()?;
        let (user, token) = pair.split_once(':')?;
        let token = self.good_token(token)?;
        (user == self.face.clone_user()).then_some(token)
    }
}

fn backend(root: &std::path::Path, parts: &axum::http::request::Parts, who: Option<&str>) -> Child {
    let header = |name: &str| {
        let value = parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .envs(git::environment())
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", super::api::decoded(parts.uri.path()))
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("HTTP_GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(who) = who {
        command.env("REMOTE_USER", who);
    }
    let length = header("content-length");
    if !length.is_empty() {
        command.env("CONTENT_LENGTH", length);
    }
    command.spawn().unwrap()
}

/// Passes a body on as it comes. The program may end before: then nobody needs the rest.
async fn feed(mut stdin: ChildStdin, mut body: BodyDataStream) {
    while let Some(Ok(bytes)) = body.next().await {
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Reads the program's header, and passes the rest on: `whole` only after its end, else as it comes.
async fn respond(mut child: Child, mut stdout: BufReader<ChildStdout>, whole: bool) -> Response {
    let mut response = Response::builder();
    let mut line = String::new();
    while stdout.read_line(&mut line).await.is_ok_and(|n| n > 0) {
        match line.trim_end().split_once(": ") {
            Some(("Status", status)) => {
                response = response.status(status.split(' ').next().unwrap_or_default());
            }
            Some((name, value)) => response = response.header(name, value),
            None => break,
        }
        line.clear();
    }
    let body = if whole {
        let mut bytes = Vec::new();
        let _ = stdout.read_to_end(&mut bytes).await;
        let _ = child.wait().await;
        Body::from(bytes)
    } else {
        Body::from_stream(ReaderStream::new(stdout))
    };
    response.body(body).unwrap()
}
