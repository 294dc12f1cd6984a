//! GitHub, as far as statuses, comments and reactions go.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, Query, Request, State as Shared};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde_json::{Value, json};

pub(super) const TOKEN: &str = "ghp_example";
/// Whom the token speaks for.
const US: u64 = 7;

type Header = Option<(&'static str, &'static str)>;

#[derive(Clone, Default)]
pub(super) struct Github(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    /// What it took, in order: `context state: description` of a status.
    taken: Vec<String>,
    /// All comments, in order.
    comments: Vec<Comment>,
    /// Answers that are given instead, the first one next: status, header, body.
    faults: Vec<(u16, Header, &'static str)>,
    /// Writes that are done and answered with an error.
    lost: usize,
    calls: usize,
    /// How long it thinks about each.
    slow: Duration,
}

#[derive(Clone)]
struct Comment {
    id: u64,
    request: u64,
    by: u64,
    text: String,
}

impl Comment {
    fn json(&self) -> Json<Value> {
        let user = json!({"id": self.by, "type": "User"});
        Json(json!({"id": self.id, "body": self.text, "user": user}))
    }
}

impl Github {
    /// Answers on a port of its own; gives the address of its API.
    pub(super) async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let of_repository = Router::new()
            .route("/statuses/{sha}", post(status))
            .route("/issues/{number}/comments", get(list).post(comment))
            .route("/issues/comments/{id}", patch(edit))
            .route("/issues/comments/{id}/reactions", post(react));
        let router = Router::new()
            .nest("/api/v3/repos/octo/hello", of_repository.clone())
            .nest("/api/v3/repos/octo/other", of_repository)
            .route("/api/v3/user", get(|| async { Json(json!({"id": US})) }))
            .layer(middleware::from_fn_with_state(self.clone(), door))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/api/v3")
    }

    pub(super) fn fail(&self, status: u16, header: Header, body: &'static str) {
        self.0.lock().unwrap().faults.push((status, header, body));
    }

    pub(super) fn slow(&self, each: Duration) {
        self.0.lock().unwrap().slow = each;
    }

    /// The next write is done, and nobody hears of it.
    pub(super) fn lose_answer(&self) {
        self.0.lock().unwrap().lost += 1;
    }

    /// What it took since the last call.
    pub(super) fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().taken)
    }

    /// How often it was called since the last call of this.
    pub(super) fn calls(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    /// Somebody writes a comment.
    pub(super) fn said(&self, request: u64, by: u64, text: &str) -> u64 {
        let mut inside = self.0.lock().unwrap();
        let id = 100 + inside.comments.len() as u64;
        let text = text.to_owned();
        inside.comments.push(Comment {
            id,
            request,
            by,
            text,
        });
        id
    }

    /// Somebody removes all comments.
    pub(super) fn remove_comments(&self) {
        self.0.lock().unwrap().comments.clear();
    }

    /// All comments are this one's.
    pub(super) fn is_by(&self, by: u64) {
        let mut inside = self.0.lock().unwrap();
        inside.comments.iter_mut().for_each(|c| c.by = by);
    }

    /// Who wrote what under a pull request.
    pub(super) fn comments(&self, request: u64) -> Vec<(u64, String)> {
        let inside = self.0.lock().unwrap();
        let these = inside.comments.iter().filter(|c| c.request == request);
        these.map(|c| (c.by, c.text.clone())).collect()
    }
}

/// Counts, checks the token, and fails where it should.
async fn door(Shared(github): Shared<Github>, request: Request, next: Next) -> Response {
    let is_write = request.method() != "GET";
    let slow = github.0.lock().unwrap().slow;
    tokio::time::sleep(slow).await;
    {
        let mut inside = github.0.lock().unwrap();
        inside.calls += 1;
        if request.headers()["authorization"] != format!("Bearer {TOKEN}") {
            let body = Json(json!({"message": "Bad credentials"}));
            return (StatusCode::UNAUTHORIZED, body).into_response();
        }
        if is_write && !inside.faults.is_empty() {
            let (status, header, body) = inside.faults.remove(0);
            let status = StatusCode::from_u16(status).unwrap();
            return match header {
                Some(header) => (status, [header], body).into_response(),
                None => (status, body).into_response(),
            };
        }
    }
    let answer = next.run(request).await;
    let mut inside = github.0.lock().unwrap();
    if is_write && inside.lost > 0 {
        inside.lost -= 1;
        return StatusCode::BAD_GATEWAY.into_response();
    }
    answer
}

async fn status(
    Shared(github): Shared<Github>,
    Path(sha): Path<String>,
    Json(body): Json<Value>,
) -> StatusCode {
    assert_eq!(sha.len(), 40);
    let word = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let line = format!(
        "{} {}: {}",
        word("context"),
        word("state"),
        word("description")
    );
    github.0.lock().unwrap().taken.push(line);
    StatusCode::CREATED
}

#[derive(serde::Deserialize)]
struct Page {
    page: usize,
    per_page: usize,
}

async fn list(
    Shared(github): Shared<Github>,
    Path(number): Path<u64>,
    Query(page): Query<Page>,
) -> Json<Vec<Value>> {
    let inside = github.0.lock().unwrap();
    let these = inside.comments.iter().filter(|c| c.request == number);
    let these = these.skip((page.page - 1) * page.per_page);
    let shown = these.take(page.per_page).map(|comment| comment.json().0);
    Json(shown.collect())
}

async fn comment(
    Shared(github): Shared<Github>,
    Path(number): Path<u64>,
    Json(body): Json<Value>,
) -> Response {
    let id = github.said(number, US, body["body"].as_str().unwrap());
    let inside = github.0.lock().unwrap();
    let written = inside.comments.iter().find(|c| c.id == id).unwrap();
    (StatusCode::CREATED, written.json()).into_response()
}

async fn edit(
    Shared(github): Shared<Github>,
    Path(id): Path<u64>,
    Json(body): Json<Value>,
) -> Response {
    let mut inside = github.0.lock().unwrap();
    let found = inside.comments.iter_mut().find(|c| c.id == id);
    let Some(comment) = found else {
        return StatusCode::NOT_FOUND.into_response();
    };
    comment.text = body["body"].as_str().unwrap().to_owned();
    comment.json().into_response()
}

async fn react(
    Shared(github): Shared<Github>,
    Path(id): Path<u64>,
    Json(body): Json<Value>,
) -> Response {
    let mut inside = github.0.lock().unwrap();
    if !inside.comments.iter().any(|c| c.id == id) {
        let gone = Json(json!({"message": "Not Found"}));
        return (StatusCode::NOT_FOUND, gone).into_response();
    }
    let line = format!("{} on {id}", body["content"].as_str().unwrap());
    inside.taken.push(line);
    StatusCode::CREATED.into_response()
}
