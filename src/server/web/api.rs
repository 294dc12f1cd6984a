//! The public API: JSON under `/api/v1`, for commands and scripts. Its types are `protocol::api`.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use protocol::api::{self, Done, NewToken, Page};
use protocol::{AttemptId, JobId, PipelineId, Timestamp};
use serde::Deserialize;

use super::access::Who;
use super::answer::{Answer, Problem};
use super::site::Site;
use super::views;
use crate::fleet;
use crate::registry::mlflow::ask::has_nul;
use crate::store::{self, access as rows, attempts, events, jobs, pipelines, projects};
use crate::tokens::{self, TokenError};

/// Most items of one page of a list.
const MOST_ITEMS: u32 = 500;
/// Most bytes of one page of events; a longer event is a page of its own.
const MOST_EVENT_BYTES: usize = 1 << 20;
/// Most events of one page.
const MOST_EVENTS: u32 = 2_000;

/// Which piece of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Piece {
    #[serde(default)]
    project: Option<String>,
    #[serde(default)]
    before: Option<String>,
    #[serde(default)]
    limit: Option<u32>,
}

/// `GET /api/v1/projects`
pub(super) async fn projects(State(site): State<Site>) -> Answer<Json<Page<api::Project>>> {
    let mut db = site.store.read().await?;
    Ok(Json(views::projects(&mut db).await?))
}

/// `GET /api/v1/pipelines`
pub(super) async fn pipelines(
    State(site): State<Site>,
    Query(piece): Query<Piece>,
) -> Answer<Json<Page<api::Pipeline>>> {
    let limit = piece.limit.unwrap_or(50);
    if !(1..=MOST_ITEMS).contains(&limit) {
        return Err(Problem::invalid(format!(
            "limit {limit} is not between 1 and {MOST_ITEMS}"
        )));
    }
    let before: Option<PipelineId> = piece
        .before
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(Problem::invalid)?;
    let mut db = site.store.read().await?;
    let project = match piece.project {
        Some(name) => Some(project_named(&mut db, &name).await?.id),
        None => None,
    };
    Ok(Json(
        views::pipelines(&mut db, project.as_ref(), before.as_ref(), limit).await?,
    ))
}

/// The project of this name.
pub(super) async fn project_named(
    db: &mut store::Connection,
    name: &str,
) -> Answer<projects::Project> {
    projects::by_name(db, name)
        .await?
        .ok_or_else(|| Problem::missing(format!("project '{name}'")))
}

/// `GET /api/v1/pipelines/{id}`
pub(super) async fn pipeline(
    State(site): State<Site>,
    Path(id): Path<String>,
) -> Answer<Json<api::PipelineDetail>> {
    let id: PipelineId = id
        .parse()
        .map_err(|_| Problem::missing(format!("pipeline '{id}'")))?;
    let mut db = site.store.read().await?;
    let row = pipelines::get(&mut db, &id).await?;
    Ok(Json(views::pipeline_detail(&mut db, &row).await?))
}

/// `GET /api/v1/jobs/{id}`
pub(super) async fn job(
    State(site): State<Site>,
    Path(id): Path<String>,
) -> Answer<Json<api::JobDetail>> {
    let id = job_id(&id)?;
    let mut db = site.store.read().await?;
    let row = jobs::get(&mut db, &id).await?;
    Ok(Json(views::job_detail(&mut db, &row).await?))
}

/// The id in a path.
pub(super) fn job_id(text: &str) -> Answer<JobId> {
    text.parse()
        .map_err(|_| Problem::missing(format!("job '{text}'")))
}

/// Which events.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    /// None: those of the job's last attempt.
    #[serde(default)]
    pub(super) attempt: Option<AttemptId>,
    /// The first number wanted.
    #[serde(default)]
    pub(super) from: u64,
}

/// The attempt whose events are meant; none where the job has none yet.
pub(super) async fn attempt_meant(
    db: &mut store::Connection,
    job: &JobId,
    wanted: Option<AttemptId>,
) -> Answer<Option<AttemptId>> {
    jobs::get(db, job).await?;
    let all = attempts::of_job(db, job).await?;
    match wanted {
        None => Ok(all.last().map(|attempt| attempt.id.clone())),
        Some(id) if all.iter().any(|attempt| attempt.id == id) => Ok(Some(id)),
        Some(id) => Err(Problem::missing(format!("attempt {id} of job {job}"))),
    }
}

/// `GET /api/v1/jobs/{id}/events`
pub(super) async fn job_events(
    State(site): State<Site>,
    Path(id): Path<String>,
    Query(which): Query<Which>,
) -> Answer<Response> {
    let id = job_id(&id)?;
    let mut db = site.store.read().await?;
    let mut text = String::new();
    if let Some(attempt) = attempt_meant(&mut db, &id, which.attempt).await? {
        for (_, event) in events::from(&mut db, &attempt, which.from, MOST_EVENTS).await? {
            if !text.is_empty() && text.len() + event.len() > MOST_EVENT_BYTES {
                break;
            }
            text += &event;
            text.push('\n');
        }
    }
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response())
}

/// `GET /api/v1/agents`
pub(super) async fn agents(State(site): State<Site>) -> Answer<Json<Page<api::Agent>>> {
    let mut db = site.store.read().await?;
    Ok(Json(views::agents(&mut db, &site, Timestamp::now()).await?))
}

/// `GET /api/v1/tokens`
pub(super) async fn all_tokens(State(site): State<Site>) -> Answer<Json<Page<api::Token>>> {
    Ok(Json(Page {
        items: tokens::list(&site.store).await?,
        next: None,
    }))
}

/// `POST /api/v1/tokens`
pub(super) async fn create_token(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Sent(wanted): Sent<NewToken>,
) -> Answer<Json<api::CreatedToken>> {
    Ok(Json(
        tokens::create(&site.store, &wanted, who.name()).await?,
    ))
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => error.into(),
            wrong @ TokenError::Name(_) => Self::invalid(wrong),
            taken @ TokenError::Taken(_) => Self::conflict(taken),
            TokenError::Missing(name) => Self::missing(format!("token '{name}'")),
        }
    }
}

/// `DELETE /api/v1/tokens/{name}`
pub(super) async fn remove_token(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
) -> Answer<Json<Done>> {
    tokens::remove(&site.store, &name, who.name()).await?;
    Ok(Json(
        format!("token '{name}' and its sessions are gone").into(),
    ))
}

/// `POST /api/v1/agents/tokens`
pub(super) async fn create_registration(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
) -> Answer<Json<api::RegistrationToken>> {
    let (secret, expires_at) = fleet::register::token(&site, fleet::register::TOKEN_LIFE).await?;
    let mut tx = site.store.begin().await?;
    write_down(&mut tx, &who, "create registration token".to_owned()).await?;
    store::commit(tx).await?;
    Ok(Json(api::RegistrationToken {
        token: secret.reveal().to_owned(),
        expires_at,
    }))
}

/// `GET /healthz`: the process answers.
pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the database answers too.
pub(super) async fn ready(State(site): State<Site>) -> Answer<&'static str> {
    let mut db = site.store.read().await?;
    rows::has_admin(&mut db).await?;
    Ok("ok\n")
}

/// A write under `/api/` is JSON or has no body: what a form of another page can send is refused.
pub(super) async fn json_writes(request: Request, next: Next) -> Response {
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or(""));
    let api = request.uri().path().starts_with("/api/");
    match kind {
        Some(kind) if api && !kind.starts_with("application/json") => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid",
            "send application/json",
        )
        .into_response(),
        Some(_) | None => next.run(request).await,
    }
}

/// A body of JSON. What is wrong with it is said in the API's own shape.
pub(super) struct Sent<T>(pub(super) T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head.clone(), body);
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                Problem::new(rejection.status(), "invalid", rejection.body_text())
            })?;
        if has_nul(&bytes) {
            return Err(Problem::invalid(
                "a text has a NUL character (\\u0000), which no text here has",
            ));
        }
        let request = Request::from_parts(head, Body::from(bytes));
        match Json::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(
                rejection.status(),
                "invalid",
                rejection.body_text(),
            )),
        }
    }
}

/// Writes into the audit log who did what.
pub(super) async fn write_down(
    db: &mut store::Connection,
    who: &Who,
    action: String,
) -> store::Result<()> {
    let entry = rows::Audit {
        at: Timestamp::now(),
        who: who.name().to_owned(),
        action,
    };
    rows::write_audit(db, &entry).await
}
