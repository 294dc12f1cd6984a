//! Deliveries to a project's webhook, as forges send them and as others would.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use axum::body;
use axum::http::Request;
use futures_util::future::join_all;
use futures_util::stream;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::door::MOST_BYTES;
use super::*;
use crate::config::Config;
use crate::forge::{Credential, ForgeConfig, ForgeEvent, Repository};
use crate::store::projects::Delivery;
use crate::store::requests;
use crate::store::testing;

const PUSH: &[u8] =
    include_bytes!("../../../../tests/data/forges/github/push.branch-new-1commit.json");
const PING: &[u8] = include_bytes!("../../../../tests/data/forges/github/ping.repo.json");
const PING_OF_APP: &[u8] = include_bytes!("../../../../tests/data/forges/github/ping.app.json");
const OPENED: &[u8] =
    include_bytes!("../../../../tests/data/forges/github/pull_request.opened.json");
const CLOSED: &[u8] =
    include_bytes!("../../../../tests/data/forges/github/pull_request.closed.json");
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
    let refused = answers.iter().find(|(status, _)| *status != 202);
    assert_eq!(refused, None);
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

/// A delivery with a body of its own, whose proof cannot be right.
fn large(length: Option<usize>, body: Body) -> Request<Body> {
    let mut request = Request::post("/hooks/hello")
        .header("host", "localhost")
        .header("x-github-event", "push")
        .header("x-hub-signature-256", signature(SECRET, b""));
    if let Some(length) = length {
        request = request.header("content-length", length.to_string());
    }
    request.body(body).unwrap()
}

#[tokio::test]
async fn a_body_above_the_limit_is_413_said_or_not() {
    let world = World::new().await;
    let said = large(Some(MOST_BYTES + 1), Body::empty());
    assert_eq!(world.send(said).await.0, 413);
    let chunk = |_| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]);
    let chunks = stream::iter((0..26).map(chunk));
    let unsaid = large(None, Body::from_stream(chunks));
    assert_eq!(world.send(unsaid).await.0, 413);
    assert!(world.stored().await.is_empty());
}

/// A body of which nothing comes; `waiting` counts who waits for it.
fn stalled(waiting: &Arc<AtomicUsize>) -> Body {
    let (waiting, mut first) = (Arc::clone(waiting), true);
    Body::from_stream(stream::poll_fn(move |_| {
        if std::mem::take(&mut first) {
            waiting.fetch_add(1, Ordering::SeqCst);
        }
        Poll::<Option<std::io::Result<Vec<u8>>>>::Pending
    }))
}

#[tokio::test]
async fn slow_senders_take_no_room_from_others() {
    const SLOW: usize = 500;
    let world = World::new().await;
    let waiting = Arc::new(AtomicUsize::new(0));
    // As many as there are megabytes of room, and more.
    let (parts, _) = large(Some(MOST_BYTES), Body::empty()).into_parts();
    let slow = (0..SLOW).map(|_| whole(&parts.headers, stalled(&waiting)));
    let all_wait = async {
        while waiting.load(Ordering::SeqCst) < SLOW {
            tokio::task::yield_now().await;
        }
        world.send(delivery("hello", "push", PUSH, &[])).await.0
    };
    let first = async {
        tokio::select! {
            answers = join_all(slow) => panic!("{answers:?}"),
            status = all_wait => status,
        }
    };
    let within = Duration::from_secs(20);
    assert_eq!(tokio::time::timeout(within, first).await, Ok(202));
}

#[tokio::test]
async fn who_has_nothing_to_prove_it_with_sends_no_body() {
    let world = World::new().await;
    let waiting = Arc::new(AtomicUsize::new(0));
    let signed = signature(SECRET, PUSH);
    for (project, event, proof) in [
        ("nobody", "push", signed.as_str()),
        ("plain", "push", &signed),
        ("hello", "", &signed),
        ("hello", "push", ""),
    ] {
        let request = Request::post(format!("/hooks/{project}"))
            .header("host", "localhost")
            .header(
                if event.is_empty() {
                    "x-event"
                } else {
                    "x-github-event"
                },
                event,
            )
            .header("x-hub-signature-256", proof)
            .body(stalled(&waiting))
            .unwrap();
        assert_eq!(world.send(request).await.0, 401, "{project} {event}");
    }
    assert_eq!(waiting.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn media_types_are_written_in_any_case() {
    let world = World::new().await;
    let capitals = [("content-type", "Application/JSON; charset=UTF-8")];
    let (status, answer) = world.send(delivery("hello", "push", PUSH, &capitals)).await;
    assert_eq!(status, 202, "{answer}");
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_with_the_server_comes_again_and_is_kept_once() {
    let world = World::new().await;
    let hook = Hook::of(&world.server, "hello").await.unwrap();
    let (parts, _) = delivery("hello", "push", PUSH, &[]).into_parts();
    let read = message(&parts.headers).unwrap();
    let now = Timestamp::now();
    let kept = hook.prove(read, &parts.headers, PUSH, now).unwrap();
    inbox::keep(&world.server, kept).await.unwrap();
    // It is stored, nobody was answered, and the server is gone.
    let config = world.server.config.clone();
    world.server.store.close().await;
    let again = World {
        server: Server::open(config, CancellationToken::new())
            .await
            .unwrap(),
        _folder: world._folder,
    };
    assert_eq!(again.stored().await.len(), 1, "it survived");
    let (status, _) = again.send(delivery("hello", "push", PUSH, &[])).await;
    assert_eq!(status, 202);
    assert_eq!(again.stored().await.len(), 1, "once");
}

/// Keeps what is logged, a line each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn each_refusal_is_a_line_in_the_log_with_its_reason() {
    let world = World::new().await;
    let log = Log::default();
    let _logged = tracing::subscriber::set_default(log.clone());
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let wrong = [("x-hub-signature-256", "sha256=00")];
    let other = signature("other", PUSH);
    let other = [("x-hub-signature-256", other.as_str())];
    for (request, words) in [
        (
            delivery("nobody", "push", PUSH, &[]),
            "there is no such project",
        ),
        (delivery("plain", "push", PUSH, &[]), "no secret is named"),
        (
            delivery("hello", "push", PUSH, &[("x-github-event", "")]),
            "its headers are no forge's",
        ),
        (delivery("hello", "push", PUSH, &wrong), "it has no proof"),
        (
            delivery("hello", "push", PUSH, &other),
            "its proof is wrong",
        ),
        (delivery("hello", "push", PUSH, &form), "is not JSON"),
        (
            large(Some(MOST_BYTES + 1), Body::empty()),
            "more than 25 MB",
        ),
    ] {
        world.send(request).await;
        let lines = std::mem::take(&mut *log.0.lock().unwrap());
        assert_eq!(lines.len(), 1, "{words}: {lines:?}");
        assert!(lines[0].contains(words), "{lines:?}");
    }
}
