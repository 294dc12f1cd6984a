//! The routes of `protocol::agent_api`. Bodies are bounded; all but `register` want the agent's secret.

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use protocol::agent_api::{
    BLOB_PIECE_BYTES, CheckpointFile, EVENTS_BATCH_BYTES, EventsAnswer, FinishAnswer,
    INSTANCE_HEADER, JSON_BYTES, OFFSET_HEADER, PollAnswer, PollRequest, RegisterRequest,
    Registered,
};
use protocol::report::AttemptReport;
use protocol::{AttemptId, Digest};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::blobs::Piece;
use crate::fleet::{self, Refused};
use crate::state::Server;
use crate::store::agents::Agent;

/// A batch of events may end with a line that is longer than its rest.
const EVENTS_BYTES: usize = EVENTS_BATCH_BYTES + (1 << 20);

/// The routes under `/agent/v1`.
pub fn routes() -> Router<Server> {
    Router::new()
        .route("/register", post(register))
        .route("/poll", post(poll))
        .route("/attempts/{id}/finish", post(finish))
        .route("/attempts/{id}/checkpoint", post(checkpoint))
        .layer(DefaultBodyLimit::max(JSON_BYTES))
        .merge(
            Router::new()
                .route("/attempts/{id}/events", post(events))
                .layer(DefaultBodyLimit::max(EVENTS_BYTES)),
        )
        .merge(
            Router::new()
                .route(
                    "/blobs/{digest}",
                    get(read_blob).head(head_blob).patch(append_blob),
                )
                .layer(DefaultBodyLimit::max(BLOB_PIECE_BYTES + 1)),
        )
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match &self {
            Refused::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Refused::Abandoned(_) | Refused::Twin { .. } | Refused::NameInUse { .. } => {
                StatusCode::CONFLICT
            }
            Refused::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refused::NotFound(_) => StatusCode::NOT_FOUND,
            Refused::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refused::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            Refused::Version { .. } => StatusCode::UPGRADE_REQUIRED,
            Refused::Store(_) | Refused::Blobs(_) => {
                tracing::error!(error = %self, "an agent's call failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        (status, Json(self.to_api())).into_response()
    }
}

/// The agent that calls.
pub(super) struct Caller(pub(super) Agent);

impl FromRequestParts<Server> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Refused> {
        let text = |name| parts.headers.get(name).and_then(|v| v.to_str().ok());
        let bearer =
            text(header::AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
        let instance = text(INSTANCE_HEADER);
        fleet::authenticate(server, bearer, instance)
            .await
            .map(Caller)
    }
}

/// Reads a body as JSON and says what is wrong with it.
fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused::Invalid(format!("body: {error}")))
}

fn digest(text: &str) -> Result<Digest, Refused> {
    text.parse()
        .map_err(|error: protocol::digest::InvalidDigest| Refused::Invalid(error.to_string()))
}

pub(super) fn attempt(text: &str) -> Result<AttemptId, Refused> {
    text.parse()
        .map_err(|error: protocol::ids::InvalidId| Refused::Invalid(error.to_string()))
}

async fn register(State(server): State<Server>, body: Bytes) -> Result<Json<Registered>, Refused> {
    let request: RegisterRequest = json(&body)?;
    Ok(Json(fleet::register::register(&server, &request).await?))
}

async fn poll(
    State(server): State<Server>,
    Caller(agent): Caller,
    body: Bytes,
) -> Result<Json<PollAnswer>, Refused> {
    let request: PollRequest = json(&body)?;
    Ok(Json(fleet::poll::poll(&server, &agent, &request).await?))
}

async fn events(
    State(server): State<Server>,
    Caller(agent): Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<EventsAnswer>, Refused> {
    let id = attempt(&id)?;
    let text = std::str::from_utf8(&body)
        .map_err(|error| Refused::Invalid(format!("events are UTF-8: {error}")))?;
    Ok(Json(fleet::events::take(&server, &agent, &id, text).await?))
}

async fn checkpoint(
    State(server): State<Server>,
    Caller(agent): Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    let id = attempt(&id)?;
    let files: Vec<CheckpointFile> = json(&body)?;
    fleet::checkpoints::take(&server, &agent, &id, &files).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn finish(
    State(server): State<Server>,
    Caller(agent): Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<FinishAnswer>, Refused> {
    let id = attempt(&id)?;
    let report: AttemptReport = json(&body)?;
    Ok(Json(
        fleet::finish::take(&server, &agent, &id, &report).await?,
    ))
}

/// An answer about a blob: the code, and how many bytes are there.
fn piece(status: StatusCode, offset: Option<u64>) -> Response {
    let mut headers = HeaderMap::new();
    if let Some(offset) = offset {
        headers.insert(OFFSET_HEADER, HeaderValue::from(offset));
    }
    (status, headers).into_response()
}

async fn head_blob(
    State(server): State<Server>,
    Caller(agent): Caller,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let found = fleet::uploads::head(&server, &agent, &digest(&name)?).await?;
    Ok(match found {
        Piece::Complete => piece(StatusCode::OK, None),
        Piece::Partial(0) => piece(StatusCode::NOT_FOUND, None),
        Piece::Partial(offset) | Piece::WrongOffset(offset) => {
            piece(StatusCode::NOT_FOUND, Some(offset))
        }
        Piece::WrongHash => piece(StatusCode::NOT_FOUND, None),
    })
}

#[derive(Deserialize)]
struct Append {
    offset: u64,
    size: u64,
}

async fn append_blob(
    State(server): State<Server>,
    Caller(agent): Caller,
    Path(name): Path<String>,
    Query(query): Query<Append>,
    body: Bytes,
) -> Result<Response, Refused> {
    let digest = digest(&name)?;
    let taken =
        fleet::uploads::append(&server, &agent, &digest, query.offset, query.size, body).await?;
    Ok(match taken {
        Piece::Complete => piece(StatusCode::CREATED, Some(query.size)),
        Piece::Partial(offset) => piece(StatusCode::NO_CONTENT, Some(offset)),
        Piece::WrongOffset(offset) => piece(StatusCode::CONFLICT, Some(offset)),
        Piece::WrongHash => piece(StatusCode::UNPROCESSABLE_ENTITY, Some(0)),
    })
}

#[derive(Deserialize)]
struct ReadBlob {
    attempt: String,
}

async fn read_blob(
    State(server): State<Server>,
    Caller(agent): Caller,
    Path(name): Path<String>,
    Query(query): Query<ReadBlob>,
) -> Result<Response, Refused> {
    let digest = digest(&name)?;
    let stream = fleet::uploads::read(&server, &agent, &digest, &attempt(&query.attempt)?).await?;
    Ok(Body::from_stream(stream).into_response())
}
