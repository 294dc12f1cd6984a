//! MLflow's REST API: which address is which call. What a call does is `registry::mlflow`'s.

mod files;
pub(super) mod in_job;

use std::future::Future;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, delete, get, on};
use axum::{Json, Router};
use protocol::api::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::access::{Who, require};
use super::answer::Problem;
use super::site::Site;
use crate::registry::mlflow::{
    Answer, Caller, Code, Fault, VERSION, ask, experiments, files as file_calls, logged_models,
    logging, models, runs, versions,
};

/// Most bytes of a body that is no file: a dataset's profile may have 16 MiB.
const BODY_BYTES: usize = 20 << 20;
/// What stands before the address of a call.
const API: &str = "/api/2.0/mlflow";
/// What stands before every address of MLflow's.
const ROOTS: [&str; 4] = [
    "/api/2.0/mlflow-artifacts",
    API,
    "/api/3.0/mlflow",
    "/ajax-api/",
];
/// Parts of MLflow that are not done here, by the word that follows the root.
const NOT_HERE: [&str; 18] = [
    "traces",
    "trace",
    "assessments",
    "webhooks",
    "scorers",
    "prompts",
    "datasets",
    "issues",
    "label-schemas",
    "review-queues",
    "gateway",
    "gateway-proxy",
    "workspaces",
    "jobs",
    "mcp-servers",
    "mpu",
    "presigned",
    "genai",
];

/// Whether an address is of this API, so that its errors are told in MLflow's form.
pub(super) fn is_mlflows(path: &str) -> bool {
    ROOTS.iter().any(|root| path.starts_with(root))
}

/// All routes.
pub(super) fn routes() -> Router<Site> {
    let readers = under(API, readers_of_runs())
        .merge(under(API, readers()))
        .layer(from_fn_with_state(Role::Read, require));
    let writers = under(API, writers_of_runs())
        .merge(under(API, writers()))
        .layer(from_fn_with_state(Role::Run, require));
    readers
        .merge(writers)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .merge(files::routes())
        .method_not_allowed_fallback(nowhere)
        .merge(probes())
}

/// All routes for whoever comes.
pub(super) fn open() -> Router<Site> {
    under(API, readers_of_runs())
        .merge(under(API, readers()))
        .merge(under(API, writers_of_runs()))
        .merge(under(API, writers()))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .merge(files::open())
        .method_not_allowed_fallback(nowhere)
        .fallback(nowhere)
        .merge(probes())
}

/// What clients look at before they call.
fn probes() -> Router<Site> {
    Router::new()
        .route("/api/3.0/mlflow/server-info", get(server_info))
        .route("/health", get(|| async { "OK" }))
        .route("/version", get(|| async { VERSION }))
}

/// Routes by what follows `root` in their address.
fn under(
    root: &str,
    routes: impl IntoIterator<Item = (&'static str, MethodRouter<Site>)>,
) -> Router<Site> {
    let routes = routes.into_iter();
    routes.fold(Router::new(), |router, (path, route)| {
        router.route(&format!("{root}/{path}"), route)
    })
}

/// What reads runs and what belongs to them.
fn readers_of_runs() -> [(&'static str, MethodRouter<Site>); 6] {
    [
        ("experiments/get", read(experiments::get)),
        ("experiments/get-by-name", read(experiments::by_name)),
        ("runs/get", read(runs::get)),
        ("metrics/get-history", read(logging::history)),
        ("artifacts/list", read(file_calls::list_of_run)),
        (
            "logged-models/{id}",
            of_one(MethodFilter::GET, logged_models::get),
        ),
    ]
}

/// What else reads: searches, and registered models.
fn readers() -> [(&'static str, MethodRouter<Site>); 10] {
    [
        (
            "experiments/search",
            read(experiments::find_all).merge(write(experiments::find_all)),
        ),
        ("runs/search", write(runs::find_all)),
        ("registered-models/get", read(models::get)),
        ("registered-models/search", read(models::find_all)),
        (
            "registered-models/get-latest-versions",
            read(models::latest_versions).merge(write(models::latest_versions)),
        ),
        ("registered-models/alias", read(models::by_alias)),
        ("model-versions/get", read(versions::get)),
        ("model-versions/search", read(versions::find_all)),
        (
            "model-versions/get-download-uri",
            read(versions::download_uri),
        ),
        ("logged-models/search", write(logged_models::find_all)),
    ]
}

/// What writes runs and what belongs to them, or registers what they made.
fn writers_of_runs() -> [(&'static str, MethodRouter<Site>); 22] {
    [
        ("experiments/create", write(experiments::create)),
        (
            "experiments/set-experiment-tag",
            write(experiments::set_tag),
        ),
        (
            "experiments/delete-experiment-tag",
            write(experiments::delete_tag),
        ),
        ("runs/create", write(runs::create)),
        ("runs/update", write(runs::update)),
        ("runs/delete", write(runs::delete)),
        ("runs/restore", write(runs::restore)),
        ("runs/log-metric", write(logging::metric_point)),
        ("runs/log-parameter", write(logging::param)),
        ("runs/set-tag", write(logging::tag)),
        ("runs/delete-tag", write(runs::delete_tag)),
        ("runs/log-batch", write(logging::batch)),
        ("runs/log-inputs", write(logging::inputs)),
        ("runs/outputs", write(logging::outputs)),
        ("runs/log-model", write(logging::model)),
        ("logged-models", write(logged_models::create)),
        (
            "logged-models/{id}",
            of_one(MethodFilter::PATCH, logged_models::finalize)
                .merge(of_one(MethodFilter::DELETE, logged_models::delete)),
        ),
        (
            "logged-models/{id}/tags",
            of_one(MethodFilter::PATCH, logged_models::set_tags),
        ),
        (
            "logged-models/{id}/params",
            of_one(MethodFilter::POST, logged_models::add_params),
        ),
        ("logged-models/{id}/tags/{key}", delete(delete_model_tag)),
        ("registered-models/create", write(models::create)),
        ("model-versions/create", write(versions::create)),
    ]
}

/// What else changes something: the upkeep of experiments, models and versions.
fn writers() -> [(&'static str, MethodRouter<Site>); 14] {
    [
        ("experiments/update", write(experiments::update)),
        ("experiments/delete", write(experiments::delete)),
        ("experiments/restore", write(experiments::restore)),
        ("registered-models/rename", write(models::rename)),
        (
            "registered-models/update",
            call(MethodFilter::PATCH, models::update),
        ),
        (
            "registered-models/delete",
            call(MethodFilter::DELETE, models::delete),
        ),
        ("registered-models/set-tag", write(models::set_tag)),
        (
            "registered-models/delete-tag",
            call(MethodFilter::DELETE, models::delete_tag),
        ),
        (
            "registered-models/alias",
            write(models::set_alias).merge(call(MethodFilter::DELETE, models::delete_alias)),
        ),
        (
            "model-versions/update",
            call(MethodFilter::PATCH, versions::update),
        ),
        (
            "model-versions/delete",
            call(MethodFilter::DELETE, versions::delete),
        ),
        (
            "model-versions/transition-stage",
            write(versions::transition),
        ),
        ("model-versions/set-tag", write(versions::set_tag)),
        (
            "model-versions/delete-tag",
            call(MethodFilter::DELETE, versions::delete_tag),
        ),
    ]
}

/// A call that is asked by a query.
fn read<A, R, F>(carry_out: fn(Caller, A) -> F) -> MethodRouter<Site>
where
    A: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: Future<Output = Answer<R>> + Send + 'static,
{
    call(MethodFilter::GET, carry_out)
}

/// A call that is asked by a POST.
fn write<A, R, F>(carry_out: fn(Caller, A) -> F) -> MethodRouter<Site>
where
    A: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: Future<Output = Answer<R>> + Send + 'static,
{
    call(MethodFilter::POST, carry_out)
}

fn call<A, R, F>(method: MethodFilter, carry_out: fn(Caller, A) -> F) -> MethodRouter<Site>
where
    A: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: Future<Output = Answer<R>> + Send + 'static,
{
    on(
        method,
        move |Asker(caller): Asker, Asked(ask): Asked<A>| async move {
            told(carry_out(caller, ask).await)
        },
    )
}

/// A call about the one that the address names.
fn of_one<A, R, F>(
    method: MethodFilter,
    carry_out: fn(Caller, String, A) -> F,
) -> MethodRouter<Site>
where
    A: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: Future<Output = Answer<R>> + Send + 'static,
{
    on(
        method,
        move |Asker(caller): Asker, Path(id): Path<String>, Asked(ask): Asked<A>| async move {
            told(carry_out(caller, id, ask).await)
        },
    )
}

async fn delete_model_tag(
    Asker(caller): Asker,
    Path((id, key)): Path<(String, String)>,
) -> Response {
    told(logged_models::delete_tag(caller, id, key).await)
}

/// Who asks: whoever a layer before put there, such as an attempt ([`in_job`]), or a person or program outside of jobs.
struct Asker(Caller);

impl FromRequestParts<Site> for Asker {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Fault> {
        if let Some(caller) = parts.extensions.get::<Caller>() {
            return Ok(Self(caller.clone()));
        }
        let who = parts.extensions.get::<Who>().unwrap_or(&Who::Nobody);
        Ok(Self(Caller {
            store: site.store.clone(),
            by: who.name().to_owned(),
            home: None,
            job: None,
        }))
    }
}

fn told<R: Serialize>(answer: Answer<R>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(fault) => fault.into_response(),
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.body())).into_response()
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        let code = match problem.status() {
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::Denied,
            StatusCode::NOT_FOUND => Code::NoEndpoint,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            status if status.is_server_error() => Code::Internal,
            _ => Code::Invalid,
        };
        Fault::new(code, problem.message())
    }
}

/// What a call asks: of a GET its query, else its body.
struct Asked<A>(A);

impl<A: DeserializeOwned> FromRequest<Site> for Asked<A> {
    type Rejection = Fault;

    async fn from_request(request: Request, site: &Site) -> Result<Self, Fault> {
        if request.method() == Method::GET {
            let pairs = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
                .map_err(|error| Fault::invalid(format!("query: {error}")))?;
            return ask::query(pairs.0).map(Self);
        }
        let json = speaks_json(request.headers());
        let body = Bytes::from_request(request, site)
            .await
            .map_err(|error| Fault::invalid(format!("body: {error}")))?;
        // A page elsewhere can send text/plain without asking the browser's leave.
        if !json && !body.is_empty() {
            return Err(Fault::invalid(
                "a body is JSON, and its content type is application/json",
            ));
        }
        ask::body(&body).map(Self)
    }
}

fn speaks_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// What clients look at before they call.
async fn server_info() -> Json<Value> {
    Json(json!({
        "store_type": "SqlStore",
        "workspaces_enabled": false,
        "trace_archival_enabled": false,
        "multipart_uploads_enabled": false,
        "multipart_downloads_enabled": false,
        "presigned_upload_run_id_supported": false,
        "presigned_upload_model_id_supported": false,
        "features_enabled": {"gateway": false},
    }))
}

/// What is asked for under an address of MLflow's that is nobody's here.
async fn nowhere(uri: Uri) -> Fault {
    no_such_call(uri.path())
}

/// Why there is no such call.
pub(super) fn no_such_call(path: &str) -> Fault {
    let rest = ROOTS.iter().find_map(|root| path.strip_prefix(root));
    let rest = rest.unwrap_or(path).trim_start_matches('/');
    let first = rest.split('/').next().unwrap_or_default();
    let words = "docs/mlflow.md says what this server does of MLflow's API";
    if NOT_HERE.contains(&first) {
        return Fault::new(
            Code::NotImplemented,
            format!("this server does not do MLflow's {first}: {words}"),
        );
    }
    Fault::new(
        Code::NoEndpoint,
        format!("there is no call of this address and method: {words}"),
    )
}
