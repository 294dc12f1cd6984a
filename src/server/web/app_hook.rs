//! `POST /hooks`: GitHub tells the App of all repositories where it is installed. Proved as a project's webhook is;
//! which projects a message is about is decided after.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use protocol::Timestamp;

use super::webhook::{Refused, header, is_json, whole};
use crate::forge::ForgeKind;
use crate::forge::hook::{BadProof, Message};
use crate::inbox::{self, AppMessage};
use crate::state::Server;

pub(super) async fn receive(
    State(server): State<Server>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let (body, _room) = whole(&headers, body).await?;
    let message = take(&server, &headers, &body).inspect_err(|refused| {
        tracing::warn!("a delivery to the GitHub App was refused: {refused}");
    })?;
    inbox::keep_for_app(&server, message).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Proves and reads a delivery.
fn take(server: &Server, headers: &HeaderMap, body: &[u8]) -> Result<AppMessage, Refused> {
    let at = Timestamp::now();
    let app = server.forges.app().ok_or(Refused::Unproved)?;
    let Some(reference) = app.webhook_secret() else {
        tracing::warn!("[github_app] names no webhook_secret");
        return Err(Refused::Unproved);
    };
    let secret = reference.read().map_err(|error| {
        tracing::error!(%error, "the secret of the GitHub App's webhook cannot be read");
        Refused::Unproved
    })?;
    let message = Message::of(|name| header(headers, name)).ok_or(Refused::Unproved)?;
    let proved = message
        .prove(&secret, body, at)
        .map_err(|BadProof| Refused::Unproved)?;
    match message.kind {
        ForgeKind::Github => {}
        other @ (ForgeKind::Gitlab | ForgeKind::Gitea) => {
            return Err(Refused::OtherForge(other, ForgeKind::Github));
        }
    }
    if !is_json(headers) {
        return Err(Refused::NotJson);
    }
    let told = message
        .read_for_app(proved)
        .map_err(|error| Refused::Invalid(error.to_string()))?;
    Ok(AppMessage {
        delivery: message.delivery(proved),
        name: message.name,
        told,
        at,
    })
}
