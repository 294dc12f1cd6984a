//! A server for one agent, as far as the agent API goes: it wants attempts, takes what it gets, and fails
//! on demand. What a true server must never see (a gap, a number used twice) it writes down as a violation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use protocol::agent_api::{
    ABANDONED, ApiError, AttemptOrder, EventsAnswer, FinishAnswer, OFFSET_HEADER, PollAnswer,
    PollRequest, RegisterRequest, Registered, StopOrder, TWIN,
};
use protocol::event::Phase;
use protocol::report::AttemptReport;
use protocol::{AgentId, AttemptId, Digest, Event, Timestamp};
use tokio::sync::watch;

pub(crate) const TOKEN: &str = "one-time-token";
const SECRET: &str = "the-secret-of-this-agent";

/// What goes wrong next; each counts down.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Polls with an order whose answer gets lost on the way.
    pub(crate) lost_starts: u32,
    /// Batches that are kept, but not acknowledged.
    pub(crate) unacknowledged: u32,
    /// Batches that are forgotten, though the server lives: it wants them again.
    pub(crate) forgotten: u32,
    /// Pieces of which only half arrives.
    pub(crate) cut_pieces: u32,
    /// Complete blobs that are found to have another hash.
    pub(crate) wrong_hashes: u32,
    /// Blobs are not answered while this holds.
    pub(crate) blobs_hang: bool,
    /// The agent is not known any more.
    pub(crate) revoked: bool,
    /// The agent is too old.
    pub(crate) upgraded: bool,
    /// Another agent has the identity.
    pub(crate) twin: bool,
    /// How far the server's clock is ahead, in milliseconds.
    pub(crate) ahead: i64,
    /// Bytes of this blob are changed on the way to the agent.
    pub(crate) changed: Option<Digest>,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) faults: Faults,
    pub(crate) orders: BTreeMap<AttemptId, AttemptOrder>,
    pub(crate) stops: Vec<StopOrder>,
    pub(crate) abandoned: BTreeSet<AttemptId>,
    pub(crate) events: Vec<Event>,
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(crate) parts: BTreeMap<Digest, Vec<u8>>,
    pub(crate) reports: Vec<AttemptReport>,
    pub(crate) polls: u64,
    pub(crate) last_poll: Option<PollRequest>,
    /// Bytes of blobs that came in.
    pub(crate) received: usize,
    pub(crate) violations: Vec<String>,
}

/// The server.
pub(crate) struct Double {
    pub(crate) url: String,
    world: Shared,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let value = change(&mut self.lock());
        self.changed.send_modify(|n| *n += 1);
        value
    }

    async fn until(&self, within: Duration, holds: impl Fn(&World) -> bool) -> bool {
        let mut changes = self.changed.subscribe();
        let wait = async {
            while !holds(&self.lock()) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(within, wait).await.is_ok()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Double {
    pub(crate) async fn start() -> Self {
        let world = Shared {
            world: Arc::default(),
            changed: watch::Sender::new(0),
        };
        let routes = Router::new()
            .route("/agent/v1/register", post(register))
            .route("/agent/v1/poll", post(poll))
            .route("/agent/v1/attempts/{id}/events", post(events))
            .route("/agent/v1/attempts/{id}/finish", post(finish))
            .route("/agent/v1/blobs/{sha256}", get(fetch).head(has).patch(put))
            .route("/healthz", get(|| async { "ok" }))
            .layer(DefaultBodyLimit::max(32 << 20))
            .with_state(world.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, world, server }
    }

    /// Looks at, or changes, the world.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        self.world.change(change)
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        if !self.world.until(Duration::from_secs(60), holds).await {
            let world = self.world.lock();
            panic!(
                "in vain: {what}; events {:?}, reports {:?}",
                world.events.last(),
                world.reports
            );
        }
    }
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    let error = ApiError {
        code: code.into(),
        message: message.into(),
    };
    (status, Json(error)).into_response()
}

fn lost() -> Response {
    (StatusCode::BAD_GATEWAY, "a proxy's words").into_response()
}

fn known(world: &World, headers: &HeaderMap) -> Result<(), Box<Response>> {
    let right = headers
        .get("authorization")
        .is_some_and(|value| value == &format!("Bearer {SECRET}"));
    if world.faults.twin {
        let words = "agent host is at work on another host";
        return Err(Box::new(refuse(StatusCode::CONFLICT, TWIN, words)));
    }
    if right && !world.faults.revoked {
        return Ok(());
    }
    Err(Box::new(refuse(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "the secret was revoked: register it again",
    )))
}

fn count_down(fault: &mut u32) -> bool {
    let due = *fault > 0;
    *fault = fault.saturating_sub(1);
    due
}

async fn register(Json(request): Json<RegisterRequest>) -> Response {
    if request.token != TOKEN {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "this token is not valid",
        );
    }
    Json(Registered {
        agent: AgentId::generate(),
        secret: SECRET.into(),
    })
    .into_response()
}

fn answer(world: &World, request: &PollRequest) -> PollAnswer {
    let has = |id: &AttemptId| request.attempts.iter().find(|status| status.attempt == *id);
    let reported =
        |id: &AttemptId| world.reports.len() == world.orders.len() && world.orders.contains_key(id);
    PollAnswer {
        start: world
            .orders
            .values()
            .filter(|order| has(&order.attempt).is_none() && !reported(&order.attempt))
            .filter(|order| !world.abandoned.contains(&order.attempt))
            .cloned()
            .collect(),
        stop: world
            .stops
            .iter()
            .filter(|stop| has(&stop.attempt).is_some_and(|status| status.phase < Phase::Upload))
            .cloned()
            .collect(),
        abandoned: world
            .abandoned
            .iter()
            .filter(|id| has(id).is_some())
            .cloned()
            .collect(),
        want_inventory: false,
        now: None,
    }
}

async fn poll(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(request): Json<PollRequest>,
) -> Response {
    let wait = Duration::from(request.wait);
    shared.change(|world| {
        world.polls += 1;
        world.last_poll = Some(request.clone());
    });
    shared
        .until(wait, |world| {
            known(world, &headers).is_err()
                || world.faults.upgraded
                || answer(world, &request) != PollAnswer::default()
        })
        .await;
    let mut world = shared.lock();
    if let Err(refusal) = known(&world, &headers) {
        return *refusal;
    }
    if world.faults.upgraded {
        let words =
            "this server speaks agent API 9, the agent speaks 1: install trainyard 9.9.9 on it";
        return refuse(StatusCode::UPGRADE_REQUIRED, "version", words);
    }
    let mut answer = answer(&world, &request);
    answer.now = Some(Timestamp(Timestamp::now().0 + world.faults.ahead));
    if !answer.start.is_empty() && count_down(&mut world.faults.lost_starts) {
        return lost();
    }
    Json(answer).into_response()
}

async fn events(
    State(shared): State<Shared>,
    Path(id): Path<AttemptId>,
    headers: HeaderMap,
    body: String,
) -> Response {
    shared.change(|world| {
        if let Err(refusal) = known(world, &headers) {
            return *refusal;
        }
        if world.abandoned.contains(&id) {
            return refuse(StatusCode::CONFLICT, ABANDONED, "a later attempt runs");
        }
        let batch: Vec<Event> = body
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let before = world.events.len();
        for event in batch {
            match world.events.get(event.seq as usize - 1) {
                Some(kept) if *kept != event => {
                    let violation =
                        format!("number {} used twice: {kept:?} and {event:?}", event.seq);
                    world.violations.push(violation);
                }
                Some(_) => {}
                None if event.seq as usize == world.events.len() + 1 => world.events.push(event),
                None => world.violations.push(format!("a gap before {}", event.seq)),
            }
        }
        if world.events.len() > before {
            if count_down(&mut world.faults.unacknowledged) {
                return lost();
            }
            if count_down(&mut world.faults.forgotten) {
                world.events.truncate(before);
            }
        }
        Json(EventsAnswer {
            next: world.events.len() as u64 + 1,
        })
        .into_response()
    })
}

fn with_offset(status: StatusCode, offset: usize) -> Response {
    (status, [(OFFSET_HEADER, offset.to_string())]).into_response()
}

async fn has(State(shared): State<Shared>, Path(blob): Path<Digest>) -> Response {
    let world = shared.lock();
    match (world.blobs.contains_key(&blob), world.parts.get(&blob)) {
        (true, _) => StatusCode::OK.into_response(),
        (false, Some(part)) => with_offset(StatusCode::NOT_FOUND, part.len()),
        (false, None) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn put(
    State(shared): State<Shared>,
    Path(blob): Path<Digest>,
    Query(query): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Response {
    shared.change(|world| world.received += body.len());
    let forever = Duration::from_secs(3600);
    shared
        .until(forever, |world| !world.faults.blobs_hang)
        .await;
    let number = |name: &str| query[name].parse::<usize>().unwrap();
    shared.change(|world| {
        let cut = count_down(&mut world.faults.cut_pieces);
        let part = world.parts.entry(blob.clone()).or_default();
        if part.len() != number("offset") {
            return with_offset(StatusCode::CONFLICT, part.len());
        }
        if cut {
            part.extend_from_slice(&body[..body.len() / 2]);
            return lost();
        }
        part.extend_from_slice(&body);
        if part.len() < number("size") {
            return with_offset(StatusCode::NO_CONTENT, part.len());
        }
        let whole = world.parts.remove(&blob).unwrap();
        if Digest::of(&whole) != blob || count_down(&mut world.faults.wrong_hashes) {
            return refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid",
                "the hash is another one",
            );
        }
        world.blobs.insert(blob, whole);
        StatusCode::CREATED.into_response()
    })
}

async fn fetch(State(shared): State<Shared>, Path(blob): Path<Digest>) -> Response {
    let world = shared.lock();
    let Some(bytes) = world.blobs.get(&blob) else {
        return refuse(StatusCode::NOT_FOUND, "not_found", "there is no such blob");
    };
    let mut bytes = bytes.clone();
    if world.faults.changed.as_ref() == Some(&blob) {
        bytes[0] ^= 1;
    }
    bytes.into_response()
}

async fn finish(State(shared): State<Shared>, Path(id): Path<AttemptId>, body: Bytes) -> Response {
    shared.change(|world| {
        if world.abandoned.contains(&id) {
            return refuse(StatusCode::CONFLICT, ABANDONED, "a later attempt runs");
        }
        let report: AttemptReport = serde_json::from_slice(&body).unwrap();
        for artifact in &report.artifacts {
            if !world.blobs.contains_key(&artifact.blob) {
                world
                    .violations
                    .push(format!("the report came before {}", artifact.path));
            }
        }
        let told = world.events.last().and_then(|event| event.body.known());
        if !matches!(told, Some(protocol::event::EventKind::Finished { .. })) {
            world.violations.push(format!(
                "the report came before the last event, after {told:?}"
            ));
        }
        if !world.reports.contains(&report) {
            world.reports.push(report);
        }
        Json(FinishAnswer { accepted: true }).into_response()
    })
}
