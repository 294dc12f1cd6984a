//! Everything that answers HTTP: the only axum. Handlers turn requests into calls and results into
//! answers; what is decided is decided elsewhere.

pub mod agent_api;
pub mod webhook;

use axum::Router;
use tokio::net::TcpListener;

use crate::state::{STOP_GRACE, Server};

/// All routes.
pub fn router(server: Server) -> Router {
    Router::new()
        .nest("/agent/v1", agent_api::routes())
        .merge(webhook::routes())
        .with_state(server)
}

/// Serves until the server stops; requests that are under way then have a few seconds to end.
///
/// # Errors
/// The listener's.
pub async fn serve(server: Server, listener: TcpListener) -> std::io::Result<()> {
    let shutdown = server.shutdown.clone();
    let stopping = shutdown.clone();
    let serving =
        axum::serve(listener, router(server)).with_graceful_shutdown(stopping.cancelled_owned());
    tokio::select! {
        ended = serving => ended,
        () = async { shutdown.cancelled().await; tokio::time::sleep(STOP_GRACE).await; } => Ok(()),
    }
}
