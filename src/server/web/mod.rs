//! Everything that answers HTTP: the only axum. Handlers turn requests into calls and results into
//! answers; what is decided is decided elsewhere.

mod access;
pub mod agent_api;
mod answer;
mod api;
mod app_hook;
mod assets;
mod download;
mod guard;
mod hosts;
mod listen;
mod mlflow;
mod models;
mod pages;
mod site;
mod story;
mod stream;
pub mod throw_away;
mod usage;
mod views;
pub mod webhook;
mod writes;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Redirect;
use axum::routing::{delete, get, post, put};
use protocol::api::Role;
use tokio::net::TcpListener;

use self::access::{Access, identify, require};
use self::guard::Names;
use self::site::Site;
use crate::state::{STOP_GRACE, Server};

pub use self::listen::TlsError;

/// Most bytes of a form or of a body of the public API.
const BODY_BYTES: usize = 1 << 20;

/// All routes.
pub fn router(server: Server) -> Router {
    let names = Names::new(server.config.host_names());
    let access = Arc::new(Access::new(
        server.store.clone(),
        names,
        server.config.speaks_tls(),
    ));
    let site = Site {
        server: server.clone(),
        access: access.clone(),
    };
    let of_agents = agent_api::routes().merge(mlflow::in_job::routes(site.clone()));
    let agents = Router::new()
        .nest("/agent/v1", of_agents)
        .merge(webhook::routes())
        .with_state(server);
    let people = open()
        .merge(readers().layer(from_fn_with_state(Role::Read, require)))
        .merge(runners().layer(from_fn_with_state(Role::Run, require)))
        .merge(administrators().layer(from_fn_with_state(Role::Admin, require)))
        .fallback(answer::no_such_page)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .merge(mlflow::routes())
        .layer(from_fn_with_state(access, identify))
        .with_state(site);
    agents.merge(people)
}

/// What everybody may ask for.
fn open() -> Router<Site> {
    Router::new()
        .route("/login", get(pages::login::page).post(pages::login::log_in))
        .route("/logout", post(pages::login::log_out))
        .route("/assets/style.css", get(assets::style))
        .route("/assets/live.js", get(assets::live))
        .route("/healthz", get(api::healthy))
        .route("/readyz", get(api::ready))
}

/// What wants the role `read`.
fn readers() -> Router<Site> {
    Router::new()
        .route("/", get(pages::pipelines::list))
        .route("/pipelines", get(|| async { Redirect::permanent("/") }))
        .route("/pipelines/{id}", get(pages::pipelines::one))
        .route("/pipelines/{id}/live", get(stream::pipeline_page))
        .route("/pipelines/{id}/notebooks", get(pages::notebook::changes))
        .route("/jobs/{id}", get(pages::job::page))
        .route("/jobs/{id}/live", get(stream::job_page))
        .route(
            "/jobs/{id}/frames/{cell}/{output}",
            get(pages::notebook::frame),
        )
        .route("/agents", get(pages::agents))
        .route("/experiments", get(pages::runs::list))
        .route("/experiments/{id}", get(pages::runs::table))
        .route("/runs/compare", get(pages::runs::compare))
        .route("/runs/{id}", get(pages::runs::one))
        .route("/files/{owner}", get(pages::files::root))
        .route("/files/{owner}/{*path}", get(pages::files::page))
        .route("/images/{owner}/{*path}", get(pages::files::picture))
        .route("/frames/{owner}/{*path}", get(pages::files::framed))
        .route("/models", get(pages::models::list))
        .route("/models/{name}", get(pages::models::model))
        .route("/models/{name}/compare", get(pages::versions::compare))
        .route("/models/{name}/{version}", get(pages::models::version))
        .route("/api/v1/models", get(models::list))
        .route("/api/v1/models/{name}", get(models::model))
        .route("/api/v1/models/{name}/{version}", get(models::version))
        .route(
            "/api/v1/models/{name}/{version}/reproductions/{job}",
            get(models::reproduction),
        )
        .route(
            "/api/v1/models/{name}/{version}/files/{*path}",
            get(download::model_file),
        )
        .route(
            "/api/v1/models/{name}/{version}/compare/{other}",
            get(models::compare),
        )
        .route("/api/v1/projects", get(api::projects))
        .route("/api/v1/pipelines", get(api::pipelines))
        .route("/api/v1/pipelines/{id}", get(api::pipeline))
        .route("/api/v1/jobs/{id}", get(api::job))
        .route("/api/v1/jobs/{id}/events", get(api::job_events))
        .route("/api/v1/jobs/{id}/events/stream", get(stream::job_events))
        .route(
            "/api/v1/artifacts/{attempt}/{*path}",
            get(download::artifact),
        )
        .route("/api/v1/agents", get(api::agents))
        .route("/api/v1/agents/fit", post(hosts::fit))
        .route("/api/v1/usage", get(usage::usage))
}

/// What wants the role `run`.
fn runners() -> Router<Site> {
    Router::new()
        .route("/jobs/{id}/cancel", post(pages::job::cancel))
        .route("/jobs/{id}/retry", post(pages::job::retry))
        .route("/jobs/{id}/approve", post(pages::job::approve))
        .route("/api/v1/pipelines", post(writes::add_pipeline))
        .route("/api/v1/jobs/{id}/cancel", post(writes::cancel))
        .route("/api/v1/jobs/{id}/retry", post(writes::retry))
        .route("/api/v1/jobs/{id}/approve", post(writes::approve))
        .route(
            "/api/v1/models/{name}/{version}/promote",
            post(models::promote),
        )
        .route(
            "/api/v1/models/{name}/{version}/reproduce",
            post(models::reproduce),
        )
        .route(
            "/api/v1/models/{name}/{version}/remove",
            post(models::remove),
        )
        .route(
            "/api/v1/models/{name}/aliases/{alias}",
            put(models::set_alias),
        )
        .route(
            "/api/v1/models/{name}/aliases/{alias}/rollback",
            post(models::roll_back),
        )
        .layer(from_fn(api::json_writes))
}

/// What wants the role `admin`.
fn administrators() -> Router<Site> {
    Router::new()
        .route(
            "/api/v1/tokens",
            get(api::all_tokens).post(api::create_token),
        )
        .route("/api/v1/tokens/{name}", delete(api::remove_token))
        .route("/api/v1/agents/tokens", post(api::create_registration))
        .route("/api/v1/agents/{name}", delete(hosts::remove))
        .route("/api/v1/agents/{name}/drain", post(hosts::drain))
        .route("/api/v1/agents/{name}/undrain", post(hosts::undrain))
        .route("/api/v1/agents/{name}/revoke", post(hosts::revoke))
        .route("/api/v1/projects", post(writes::add_project))
        .route("/api/v1/projects/{name}/quota", put(writes::set_quota))
        .route(
            "/api/v1/projects/{name}/doctor",
            get(writes::examine_project),
        )
        .layer(from_fn(api::json_writes))
}

/// Serves until the server stops; requests that are under way then have a few seconds to end.
///
/// # Errors
/// The listener's.
pub async fn serve(server: Server, listener: TcpListener) -> std::io::Result<()> {
    let shutdown = server.shutdown.clone();
    let tls = server
        .config
        .tls
        .as_ref()
        .map(listen::acceptor)
        .transpose()
        .map_err(std::io::Error::other)?;
    let listener = listen::Listener::new(listener, tls)?;
    let service = router(server).into_make_service_with_connect_info::<listen::Peer>();
    let serving =
        axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    tokio::select! {
        ended = serving => ended,
        () = async { shutdown.cancelled().await; tokio::time::sleep(STOP_GRACE).await; } => Ok(()),
    }
}
