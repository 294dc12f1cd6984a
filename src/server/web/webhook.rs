//! `POST /hooks/{project}`: a forge says that something moved. The raw body is proved before anything is
//! read of it; what is believed is stored first, then the answer is given, then the watch loop is woken.
//! The message is a hint to look: git says what moved.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, body};
use protocol::Timestamp;
use protocol::agent_api::ApiError;
use secrecy::SecretString;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::app_hook;
use crate::forge::hook::{BadProof, Message};
use crate::forge::{ForgeKind, Place};
use crate::inbox::{self, NotKept};
use crate::state::Server;
use crate::store::StoreError;
use crate::store::projects::{self, Project};

/// GitHub sends no larger ones.
const MOST_BYTES: usize = 25 << 20;
/// How long a body may take to come.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Megabytes of bodies that are held in memory at the same time: whoever knows no secret cannot fill it.
static ROOM: Semaphore = Semaphore::const_new(400);
/// How long a body waits for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);

/// The routes: a project's, and the GitHub App's.
pub fn routes() -> Router<Server> {
    Router::new()
        .route("/hooks", post(app_hook::receive))
        .route("/hooks/{project}", post(receive))
}

/// Why a delivery is not taken. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// Which of the reasons it is, an outsider is not told.
    #[error("there is no such webhook, or {}", BadProof)]
    Unproved,
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

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Refused::Unproved => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Refused::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Refused::TooSlow => (StatusCode::REQUEST_TIMEOUT, "invalid"),
            Refused::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Refused::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid"),
            Refused::Invalid(_) | Refused::OtherForge(..) | Refused::OtherRepository(..) => {
                (StatusCode::BAD_REQUEST, "invalid")
            }
            Refused::NotKept(NotKept) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Refused::Store(error) => {
                tracing::error!(%error, "the project of a delivery could not be looked up");
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

async fn receive(
    State(server): State<Server>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let (body, _room) = whole(&headers, body).await?;
    let hook = Hook::of(&server, &name).await?;
    let now = Timestamp::now();
    let message = hook.take(&headers, &body, now).inspect_err(|refused| {
        tracing::warn!(
            project = hook.project.name,
            "a delivery was refused: {refused}"
        );
    })?;
    inbox::keep(&server, message).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// The body, within its limits of size and time, and the room in memory that it takes: to be held as long as it is.
pub(super) async fn whole(
    headers: &HeaderMap,
    body: Body,
) -> Result<(body::Bytes, SemaphorePermit<'static>), Refused> {
    let length = header(headers, header::CONTENT_LENGTH.as_str())
        .and_then(|length| length.parse().ok())
        .unwrap_or(MOST_BYTES);
    if length > MOST_BYTES {
        return Err(Refused::TooLarge);
    }
    // A body without a length may grow to the most.
    let megabytes = u32::try_from(length >> 20)
        .unwrap_or(u32::MAX)
        .saturating_add(1);
    let room = tokio::time::timeout(ROOM_TIMEOUT, ROOM.acquire_many(megabytes))
        .await
        .map_err(|_| Refused::Busy)?
        .map_err(|_| Refused::Busy)?;
    let body = tokio::time::timeout(READ_TIMEOUT, body::to_bytes(body, MOST_BYTES))
        .await
        .map_err(|_| Refused::TooSlow)?
        .map_err(|_| Refused::TooLarge)?;
    Ok((body, room))
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
        let project = project.ok_or(Refused::Unproved)?;
        let place = project.forge.place();
        let secret = place.and_then(|(_, place)| place.webhook_secret.clone());
        let (Some((kind, place)), Some(reference)) = (place, secret) else {
            let name = &project.name;
            tracing::warn!(
                project = name,
                "a delivery for project {name} was refused: it names no secret for its webhook"
            );
            return Err(Refused::Unproved);
        };
        match reference.read() {
            Ok(secret) => Ok(Self {
                kind,
                place: place.clone(),
                secret,
                project,
            }),
            Err(error) => {
                tracing::error!(project = project.name, %error, "the webhook's secret cannot be read");
                Err(Refused::Unproved)
            }
        }
    }

    /// Proves and reads a delivery.
    fn take(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<inbox::Message, Refused> {
        let message = Message::of(|name| header(headers, name)).ok_or(Refused::Unproved)?;
        let proved = message
            .prove(&self.secret, body, now)
            .map_err(|BadProof| Refused::Unproved)?;
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
            let other = crate::forge::bounded(&other, 200);
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

/// A form is signed otherwise.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    header(headers, header::CONTENT_TYPE.as_str())
        .is_some_and(|kind| kind.split(';').next().unwrap_or_default().trim() == "application/json")
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::Sha256;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt as _;

    use super::*;
    use crate::config::Config;
    use crate::forge::{Credential, ForgeConfig, ForgeEvent, Repository};
    use crate::store::projects::Delivery;
    use crate::store::requests;
    use crate::store::testing;

    const PUSH: &[u8] =
        include_bytes!("../../../tests/data/forges/github/push.branch-new-1commit.json");
    const PING: &[u8] = include_bytes!("../../../tests/data/forges/github/ping.repo.json");
    const PING_OF_APP: &[u8] = include_bytes!("../../../tests/data/forges/github/ping.app.json");
    const OPENED: &[u8] =
        include_bytes!("../../../tests/data/forges/github/pull_request.opened.json");
    const CLOSED: &[u8] =
        include_bytes!("../../../tests/data/forges/github/pull_request.closed.json");
    const SECRET: &str = "hook-s3cret";

    struct World {
        server: Server,
        _folder: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let secret = folder.path().join("hook");
            std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
            let config = Config::in_folder(folder.path().join("data"));
            let server = Server::open(config, CancellationToken::new())
                .await
                .unwrap();
            let repository = Repository::try_from("codertocat/hello-world".to_owned()).unwrap();
            let mut github = Place::new(repository, "https://api.github.com".to_owned());
            github.webhook_secret = Some(Credential::File(secret));
            let mut hello = testing::project("hello");
            hello.forge = ForgeConfig::Github(github);
            let mut tx = server.store.begin().await.unwrap();
            projects::insert(&mut tx, &hello).await.unwrap();
            projects::insert(&mut tx, &testing::project("plain"))
                .await
                .unwrap();
            tx.commit().await.unwrap();
            Self {
                server,
                _folder: folder,
            }
        }

        /// Sends a request through the server's own router; gives status and answer.
        async fn send(&self, request: Request<Body>) -> (u16, String) {
            let router = crate::web::router(self.server.clone());
            let response = router.oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let body = body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }

        async fn stored(&self) -> Vec<Delivery> {
            let mut db = self.server.store.read().await.unwrap();
            projects::unhandled_deliveries(&mut db, 100).await.unwrap()
        }

        /// Whether the watch loop was woken since the last call.
        async fn woken(&self) -> bool {
            let wait = Duration::from_millis(20);
            tokio::time::timeout(wait, self.server.live.refs_change())
                .await
                .is_ok()
        }
    }

    fn signature(secret: &str, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(body);
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    }

    /// A delivery as GitHub sends it; `changes` replace headers, an empty one takes it away.
    fn delivery(
        project: &str,
        event: &str,
        body: &'static [u8],
        changes: &[(&str, &str)],
    ) -> Request<Body> {
        let signed = signature(SECRET, body);
        let mut headers = vec![
            ("host", "localhost"),
            ("content-type", "application/json"),
            ("x-github-event", event),
            ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("x-hub-signature-256", signed.as_str()),
        ];
        for (name, value) in changes {
            headers.retain(|(known, _)| known != name);
            headers.push((name, value));
        }
        let request = Request::post(format!("/hooks/{project}"));
        headers
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .fold(request, |request, (name, value)| {
                request.header(name, value)
            })
            .body(Body::from(body))
            .unwrap()
    }

    #[tokio::test]
    async fn a_push_is_stored_once_and_wakes_the_watch_loop() {
        let world = World::new().await;
        let (status, _) = world.send(delivery("hello", "push", PUSH, &[])).await;
        assert_eq!(status, 202);
        assert!(world.woken().await);
        let stored = world.stored().await;
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].event, "push");
        let event: ForgeEvent = serde_json::from_str(&stored[0].body).unwrap();
        let ForgeEvent::Push {
            reference, after, ..
        } = event
        else {
            panic!("{event:?}")
        };
        assert_eq!(reference, "refs/heads/master");
        assert_eq!(
            after.unwrap().as_str(),
            "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
        );

        let (status, _) = world.send(delivery("hello", "push", PUSH, &[])).await;
        assert_eq!(status, 202, "a repeat is answered the same");
        assert!(!world.woken().await, "and does nothing");
        assert_eq!(world.stored().await.len(), 1);
    }

    #[tokio::test]
    async fn what_comes_at_the_same_time_is_kept_once_each() {
        let world = World::new().await;
        let ids: Vec<String> = (0..700).map(|n| (n % 600).to_string()).collect();
        let sent = ids.iter().map(|id| {
            let one = delivery("hello", "push", PUSH, &[("x-github-delivery", id)]);
            world.send(one)
        });
        let answers = futures_util::future::join_all(sent).await;
        assert!(answers.iter().all(|(status, _)| *status == 202));
        let mut db = world.server.store.read().await.unwrap();
        let kept = projects::unhandled_deliveries(&mut db, 1_000)
            .await
            .unwrap();
        assert_eq!(kept.len(), 600);
    }

    #[tokio::test]
    async fn a_pull_request_is_written_down_with_its_message_once() {
        let world = World::new().await;
        let request = async || {
            let mut db = world.server.store.read().await.unwrap();
            let hello = projects::by_name(&mut db, "hello").await.unwrap().unwrap();
            requests::find(&mut db, &hello.id, 2).await.unwrap()
        };
        let opened = || delivery("hello", "pull_request", OPENED, &[]);
        assert_eq!(world.send(opened()).await.0, 202);
        assert!(world.woken().await);
        let known = request().await.unwrap();
        assert!(known.open && !known.fork);
        assert_eq!(
            (known.head_branch.as_str(), known.base_branch.as_str()),
            ("changes", "master")
        );
        let closed = delivery(
            "hello",
            "pull_request",
            CLOSED,
            &[("x-github-delivery", "2")],
        );
        assert_eq!(world.send(closed).await.0, 202);
        assert!(!request().await.unwrap().open);
        assert_eq!(world.send(opened()).await.0, 202);
        assert!(!request().await.unwrap().open, "a repeat says nothing new");
    }

    #[tokio::test]
    async fn a_ping_is_answered_and_wakes_nobody() {
        let world = World::new().await;
        let (status, _) = world
            .send(delivery("hello", "ping", PING_OF_APP, &[]))
            .await;
        assert_eq!(status, 202);
        assert!(!world.woken().await);
    }

    #[tokio::test]
    async fn what_is_not_proved_is_401_and_leaves_nothing() {
        let world = World::new().await;
        let other = signature("other", PUSH);
        let of_another_body = signature(SECRET, PING);
        let mut answers = std::collections::BTreeSet::new();
        for request in [
            delivery("hello", "push", PUSH, &[("x-hub-signature-256", "")]),
            delivery("hello", "push", PUSH, &[("x-github-event", "")]),
            delivery(
                "hello",
                "push",
                PUSH,
                &[("x-hub-signature-256", "sha256=00")],
            ),
            delivery("hello", "push", PUSH, &[("x-hub-signature-256", &other)]),
            delivery(
                "hello",
                "push",
                PUSH,
                &[("x-hub-signature-256", &of_another_body)],
            ),
            delivery("plain", "push", PUSH, &[]),
            delivery("nobody", "push", PUSH, &[]),
        ] {
            let (status, answer) = world.send(request).await;
            assert_eq!(status, 401, "{answer}");
            answers.insert(answer);
        }
        assert_eq!(
            answers.len(),
            1,
            "an outsider learns nothing of projects: {answers:?}"
        );
        assert!(world.stored().await.is_empty());
        assert!(!world.woken().await);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused_in_words() {
        let world = World::new().await;
        let form = "application/x-www-form-urlencoded";
        for (request, expected, words) in [
            (
                delivery("hello", "push", PUSH, &[("content-type", form)]),
                415,
                "application/json",
            ),
            (
                delivery("hello", "ping", PING, &[]),
                400,
                "it is about Octocoders/Hello-World, and the project's repository is codertocat/hello-world",
            ),
            (
                delivery("hello", "push", PUSH, &[("x-gitea-event", "push")]),
                400,
                "it comes from Gitea, and the project's repository is at GitHub",
            ),
            (
                delivery("hello", "push", PING_OF_APP, &[]),
                400,
                "not a 'push' event",
            ),
            (
                delivery("hello", "push", b"{", &[]),
                400,
                "not a 'push' event",
            ),
        ] {
            let (status, answer) = world.send(request).await;
            assert_eq!(status, expected, "{answer}");
            assert!(answer.contains(words), "{answer}");
        }
        assert!(world.stored().await.is_empty());
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_413_said_or_not() {
        let world = World::new().await;
        let said = Request::post("/hooks/hello")
            .header("host", "localhost")
            .header("content-length", (MOST_BYTES + 1).to_string())
            .body(Body::empty())
            .unwrap();
        assert_eq!(world.send(said).await.0, 413);
        let chunk = |_| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]);
        let chunks = futures_util::stream::iter((0..26).map(chunk));
        let unsaid = Request::post("/hooks/hello")
            .header("host", "localhost")
            .body(Body::from_stream(chunks))
            .unwrap();
        assert_eq!(world.send(unsaid).await.0, 413);
        assert!(world.stored().await.is_empty());
    }
}
