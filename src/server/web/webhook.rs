//! `POST /hooks/{project}`: a forge says that something moved. Whose it is and its headers come first, then the raw
//! body, which is proved before anything is read of it; what is believed is stored, then the answer is given, then the
//! watch loop is woken. The message is a hint to look: git says what moved.

mod door;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use protocol::Timestamp;
use secrecy::SecretString;

pub(super) use self::door::{Refused, Unproved, is_json, message, whole};
use super::app_hook;
use crate::forge::hook::{BadProof, Message};
use crate::forge::{ForgeKind, Place, bounded};
use crate::inbox;
use crate::state::Server;
use crate::store::projects::{self, Project};

/// The routes: a project's, and the GitHub App's.
pub fn routes() -> Router<Server> {
    Router::new()
        .route("/hooks", post(app_hook::receive))
        .route("/hooks/{project}", post(receive))
}

async fn receive(
    State(server): State<Server>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let taken = take(&server, &name, &headers, body).await;
    taken.inspect_err(|refused| {
        let (project, why) = (bounded(&name, 100), refused.why());
        tracing::warn!(project, why, "a delivery was refused");
    })?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Takes a delivery, or says why not.
async fn take(server: &Server, name: &str, headers: &HeaderMap, body: Body) -> Result<(), Refused> {
    let hook = Hook::of(server, name).await?;
    let message = message(headers)?;
    let (body, _room) = whole(headers, body).await?;
    let message = hook.prove(message, headers, &body, Timestamp::now())?;
    Ok(inbox::keep(server, message).await?)
}

/// A project's webhook.
struct Hook {
    project: Project,
    kind: ForgeKind,
    place: Place,
    secret: SecretString,
}

impl Hook {
    /// That of a project, with its secret.
    async fn of(server: &Server, name: &str) -> Result<Self, Refused> {
        let mut db = server.store.read().await?;
        let project = projects::by_name(&mut db, name).await?;
        let project = project.ok_or(Unproved::NoProject)?;
        let place = project.forge.place();
        let secret = place.and_then(|(_, place)| place.webhook_secret.clone());
        let (Some((kind, place)), Some(reference)) = (place, secret) else {
            return Err(Unproved::NoSecret.into());
        };
        Ok(Self {
            kind,
            place: place.clone(),
            secret: reference.read().map_err(Unproved::Unreadable)?,
            project,
        })
    }

    /// Proves and reads a delivery.
    fn prove(
        &self,
        message: Message,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<inbox::Message, Refused> {
        let proved = message
            .prove(&self.secret, body, now)
            .map_err(|BadProof| Unproved::Wrong)?;
        if message.kind != self.kind {
            return Err(Refused::OtherForge(message.kind, self.kind));
        }
        if !is_json(headers) {
            return Err(Refused::NotJson);
        }
        let told = message
            .read(proved)
            .map_err(|error| Refused::Invalid(error.to_string()))?;
        let ours = &self.place.repository;
        if let Some(other) = told.repository.filter(|named| !ours.is(named)) {
            let other = bounded(&other, 200);
            return Err(Refused::OtherRepository(other, ours.as_str().to_owned()));
        }
        Ok(inbox::Message {
            project: self.project.id.clone(),
            kind: self.kind,
            delivery: message.delivery(proved),
            name: message.name,
            event: told.event,
            at: now,
        })
    }
}
