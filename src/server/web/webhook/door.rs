//! What all webhooks of forges have in common: which bodies are taken at all, and why one is refused.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use protocol::agent_api::ApiError;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::forge::hook::{BadProof, Message};
use crate::forge::{CredentialError, ForgeKind};
use crate::inbox::NotKept;
use crate::store::StoreError;

/// GitHub sends no larger ones.
pub(super) const MOST_BYTES: usize = 25 << 20;
/// How long a body may take to come.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of room that are taken at a time.
const PIECE: usize = 64 << 10;
/// Pieces of bodies that are held in memory at the same time, 400 MB: whoever knows no secret cannot fill it.
static ROOM: Semaphore = Semaphore::const_new((400 << 20) / PIECE);
/// How long a body waits for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing is believed of a delivery. For the log: whoever sent it is told none of this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::web) enum Unproved {
    #[error("there is no such project")]
    NoProject,
    #[error("this server is no GitHub App: server.toml has no [github_app]")]
    NoApp,
    #[error(
        "no secret is named for the webhook: 'trainyard project add --webhook-secret', of the App [github_app] webhook_secret"
    )]
    NoSecret,
    #[error("the webhook's secret: {0}")]
    Unreadable(CredentialError),
    #[error("its headers are no forge's")]
    NoForge,
    #[error("it has no proof: the forge has no secret for this webhook")]
    None,
    #[error(
        "its proof is wrong: the secret at the forge is another one, or its time is too far from ours"
    )]
    Wrong,
}

/// Why a delivery is not taken. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub(in crate::web) enum Refused {
    /// Which of the reasons it is, an outsider is not told.
    #[error("there is no such webhook, or {}", BadProof)]
    Unproved(#[from] Unproved),
    #[error("it comes from {0}, and the project's repository is at {1}")]
    OtherForge(ForgeKind, ForgeKind),
    #[error(
        "it is about {0}, and the project's repository is {1}: after a move, give the project its new name"
    )]
    OtherRepository(String, String),
    #[error("the body has more than 25 MB")]
    TooLarge,
    #[error("the body did not come within {} s", READ_TIMEOUT.as_secs())]
    TooSlow,
    #[error("the body broke off")]
    Torn,
    #[error("too many deliveries at the same time: send it again")]
    Busy,
    #[error("the body is not JSON: set the webhook's content type to application/json")]
    NotJson,
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    NotKept(#[from] NotKept),
    #[error("the project could not be looked up: send it again")]
    Store(#[from] StoreError),
}

impl Refused {
    /// All that is known, for the log.
    pub(in crate::web) fn why(&self) -> String {
        match self {
            Refused::Unproved(why) => why.to_string(),
            Refused::Store(error) => format!("{self}: {error}"),
            Refused::OtherForge(..)
            | Refused::OtherRepository(..)
            | Refused::TooLarge
            | Refused::TooSlow
            | Refused::Torn
            | Refused::Busy
            | Refused::NotJson
            | Refused::Invalid(_)
            | Refused::NotKept(NotKept) => self.to_string(),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Refused::Unproved(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Refused::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Refused::TooSlow => (StatusCode::REQUEST_TIMEOUT, "invalid"),
            Refused::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Refused::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid"),
            Refused::Torn
            | Refused::Invalid(_)
            | Refused::OtherForge(..)
            | Refused::OtherRepository(..) => (StatusCode::BAD_REQUEST, "invalid"),
            Refused::NotKept(NotKept) | Refused::Store(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        let error = ApiError {
            code: code.to_owned(),
            message: self.to_string(),
        };
        (status, Json(error)).into_response()
    }
}

/// What the headers say, before a byte of the body is read: who comes without a proof need not send one.
pub(in crate::web) fn message(headers: &HeaderMap) -> Result<Message, Unproved> {
    let message = Message::of(|name| header(headers, name)).ok_or(Unproved::NoForge)?;
    match message.has_proof() {
        true => Ok(message),
        false => Err(Unproved::None),
    }
}

/// The body, within its limits of size and time, and the room in memory that it takes: to be held as long as it is.
pub(in crate::web) async fn whole(
    headers: &HeaderMap,
    body: Body,
) -> Result<(Vec<u8>, SemaphorePermit<'static>), Refused> {
    let length = header(headers, header::CONTENT_LENGTH.as_str());
    let length = length.and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| length > MOST_BYTES) {
        return Err(Refused::TooLarge);
    }
    tokio::time::timeout(READ_TIMEOUT, gathered(body))
        .await
        .map_err(|_| Refused::TooSlow)?
}

/// Room is taken as the body comes: who says that it is large and sends nothing takes none of it from others.
async fn gathered(body: Body) -> Result<(Vec<u8>, SemaphorePermit<'static>), Refused> {
    let mut room = room_for(0).await?;
    let (mut bytes, mut pieces) = (Vec::new(), body.into_data_stream());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Refused::Torn)?;
        if bytes.len() + piece.len() > MOST_BYTES {
            return Err(Refused::TooLarge);
        }
        let wanted = (bytes.len() + piece.len()).div_ceil(PIECE);
        room.merge(room_for(wanted.saturating_sub(room.num_permits())).await?);
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, room))
}

/// Room for so many pieces, of which one body has a few hundred.
async fn room_for(count: usize) -> Result<SemaphorePermit<'static>, Refused> {
    let count = u32::try_from(count).map_err(|_| Refused::TooLarge)?;
    let room = tokio::time::timeout(ROOM_TIMEOUT, ROOM.acquire_many(count));
    let room = room.await.map_err(|_| Refused::Busy)?;
    room.map_err(|_| Refused::Busy)
}

/// A form is signed otherwise. Media types are written in any case (RFC 9110, 8.3.1).
pub(in crate::web) fn is_json(headers: &HeaderMap) -> bool {
    header(headers, header::CONTENT_TYPE.as_str()).is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    })
}

pub(in crate::web) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
