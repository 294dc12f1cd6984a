//! `POST /hooks`: GitHub tells the App of all repositories where it is installed. Proved as a project's webhook is;
//! which projects a message is about is decided after.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use protocol::Timestamp;
use secrecy::SecretString;

use super::webhook::{Refused, Unproved, is_json, message, whole};
use crate::forge::ForgeKind;
use crate::forge::hook::{BadProof, Message};
use crate::inbox::{self, AppMessage};
use crate::state::Server;

pub(super) async fn receive(
    State(server): State<Server>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    take(&server, &headers, body).await.inspect_err(|refused| {
        let why = refused.why();
        tracing::warn!(why, "a delivery to the GitHub App was refused");
    })?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Takes a delivery, or says why not.
async fn take(server: &Server, headers: &HeaderMap, body: Body) -> Result<(), Refused> {
    let app = server.forges.app().ok_or(Unproved::NoApp)?;
    let reference = app.webhook_secret().ok_or(Unproved::NoSecret)?;
    let secret = reference.read().map_err(Unproved::Unreadable)?;
    let message = message(headers)?;
    let (body, _room) = whole(headers, body).await?;
    let message = prove(&secret, message, headers, &body)?;
    Ok(inbox::keep_for_app(server, message).await?)
}

/// Proves and reads a delivery.
fn prove(
    secret: &SecretString,
    message: Message,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<AppMessage, Refused> {
    let at = Timestamp::now();
    let proved = message
        .prove(secret, body, at)
        .map_err(|BadProof| Unproved::Wrong)?;
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
