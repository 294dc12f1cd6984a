//! What happens now, as server-sent events: a job's events for programs, fragments of pages for people.
//! Subscribe before you look; a look is repeated every few seconds, so that a missed wake costs little.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use protocol::{AttemptId, JobId, PipelineId};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::access::Who;
use super::answer::{Answer, Problem};
use super::api::{Which, attempt_meant, job_id};
use super::pages::{job, pipelines};
use super::site::Site;
use super::story::{Fragment, Story, source};
use super::views;
use crate::live::{self, Change};
use crate::store::{self, events, jobs};

/// Rows are looked at again after this time without a wake.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Fragments are sent no more often than this.
const BREATH: Duration = Duration::from_millis(100);
/// Events taken in one look.
const BATCH: u32 = 2_000;
/// Messages that wait for a slow reader; then the look waits for it.
const QUEUE: usize = 64;

type Wire = mpsc::Sender<Result<Event, Infallible>>;
type Live = Sse<axum::response::sse::KeepAliveStream<ReceiverStream<Result<Event, Infallible>>>>;

/// The reader is gone.
struct Gone;

/// Why a stream ends early.
enum End {
    Gone,
    Store(store::StoreError),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<store::StoreError> for End {
    fn from(error: store::StoreError) -> Self {
        Self::Store(error)
    }
}

fn open<F>(site: &Site, talk: impl FnOnce(Site, Wire) -> F) -> Live
where
    F: Future<Output = Result<(), End>> + Send + 'static,
{
    let (wire, received) = mpsc::channel(QUEUE);
    let talking = talk(site.clone(), wire);
    let shutdown = site.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = talking => match ended {
                Ok(()) | Err(End::Gone) => {}
                Err(End::Store(error)) => tracing::warn!(%error, "a live stream ended early"),
            }
        }
    });
    Sse::new(ReceiverStream::new(received)).keep_alive(KeepAlive::default())
}

async fn send(wire: &Wire, event: Event) -> Result<(), Gone> {
    wire.send(Ok(event)).await.map_err(|_| Gone)
}

/// Waits until something changed that `of` asks about, or for a while.
async fn change(changes: &mut broadcast::Receiver<Change>, of: impl Fn(&Change) -> bool) {
    let wait = async {
        loop {
            match changes.recv().await {
                Ok(change) if of(&change) => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    let _ = tokio::time::timeout(LOOK_AGAIN, wait).await;
    live::drain(changes);
}

fn about(job: &JobId, attempt: Option<&AttemptId>, change: &Change) -> bool {
    match change {
        Change::Events { attempt: of, .. } => attempt == Some(of),
        Change::Job { job: of, .. } => of == job,
    }
}

/// `GET /api/v1/jobs/{id}/events/stream`: each event with its number as id, then `end`.
pub(super) async fn job_events(
    State(site): State<Site>,
    Path(id): Path<String>,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Answer<Live> {
    let id = job_id(&id)?;
    let mut db = site.store.read().await?;
    attempt_meant(&mut db, &id, which.attempt.clone()).await?;
    drop(db);
    let from = last_event(&headers).map_or(which.from, |last| last.saturating_add(1));
    Ok(open(&site, |site, wire| {
        follow(site, wire, id, which.attempt, from)
    }))
}

/// What a browser says that it had last, when it asks again after a break.
fn last_event(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

async fn follow(
    site: Site,
    wire: Wire,
    id: JobId,
    wanted: Option<AttemptId>,
    from: u64,
) -> Result<(), End> {
    let mut changes = site.live.subscribe();
    let mut next = from.max(1);
    let mut told: Option<AttemptId> = None;
    loop {
        let mut db = site.store.read().await?;
        let job = jobs::get(&mut db, &id).await?;
        let attempt = match &wanted {
            Some(attempt) => Some(attempt.clone()),
            None => store::attempts::of_job(&mut db, &id)
                .await?
                .pop()
                .map(|last| last.id),
        };
        // A retry begins its story anew.
        if told.is_some() && told != attempt {
            next = 1;
        }
        told.clone_from(&attempt);
        let lines = match &attempt {
            Some(attempt) => events::from(&mut db, attempt, next, BATCH).await?,
            None => Vec::new(),
        };
        drop(db);
        let more = lines.len() == BATCH as usize;
        for (seq, line) in lines {
            send(&wire, Event::default().id(seq.to_string()).data(line)).await?;
            next = seq + 1;
        }
        if more {
            continue;
        }
        if job.state.outcome().is_some() {
            let state = serde_json::to_string(&job.state).unwrap_or_default();
            send(&wire, Event::default().event("end").data(state)).await?;
            return Ok(());
        }
        change(&mut changes, |change| about(&id, attempt.as_ref(), change)).await;
    }
}

/// Where the page stands.
#[derive(Debug, Deserialize)]
pub(super) struct Place {
    #[serde(default)]
    from: u64,
}

fn fragment(id: &str, parent: &str, html: &str) -> Event {
    Event::default()
        .event("fragment")
        .data(json!({ "id": id, "parent": parent, "html": html }).to_string())
}

/// `GET /jobs/{id}/live`: fragments of the job's page.
pub(super) async fn job_page(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Query(place): Query<Place>,
    headers: HeaderMap,
) -> Answer<Live> {
    let id = job_id(&id)?;
    let seen = last_event(&headers).unwrap_or(place.from);
    let mut db = site.store.read().await?;
    jobs::get(&mut db, &id).await?;
    drop(db);
    Ok(open(&site, |site, wire| {
        show_job(site, wire, who, id, seen)
    }))
}

async fn show_job(site: Site, wire: Wire, who: Who, id: JobId, seen: u64) -> Result<(), End> {
    let mut changes = site.live.subscribe();
    let mut db = site.store.read().await?;
    let row = jobs::get(&mut db, &id).await?;
    let first = store::attempts::of_job(&mut db, &id)
        .await?
        .pop()
        .map(|last| last.id);
    drop(db);
    let mut story = Story::new(source(&site, &row).await);
    let form = job::form_of(&site, &who);
    let mut state = None;
    loop {
        let mut db = site.store.read().await?;
        let row = jobs::get(&mut db, &id).await?;
        let attempt = store::attempts::of_job(&mut db, &id)
            .await?
            .pop()
            .map(|last| last.id);
        if attempt != first || row.state.outcome().is_some() {
            // The page is drawn anew: another attempt, or all is known.
            send(&wire, Event::default().event("end").data("")).await?;
            return Ok(());
        }
        let lines = match &attempt {
            Some(attempt) => events::from(&mut db, attempt, story.next, BATCH).await?,
            None => Vec::new(),
        };
        let more = lines.len() == BATCH as usize;
        for (seq, line) in &lines {
            story.take(line);
            // What the page was drawn with, or was sent, is not sent again.
            if *seq < seen {
                story.forget_changes();
            }
        }
        let fragments = story.fragments();
        let last = fragments.len();
        if state.as_ref() != Some(&row.state) {
            let detail = views::job_detail(&mut db, &row).await?;
            state = Some(row.state.clone());
            send(
                &wire,
                fragment("verdict", "", &job::verdict_fragment(&detail, form.clone())),
            )
            .await?;
        }
        drop(db);
        for (number, piece) in (1..).zip(fragments) {
            let event = match piece {
                Fragment::Cell { id, html } => fragment(&id, "cells", &html),
                Fragment::Using { text } => fragment("using", "", &job::using_fragment(&text)),
                Fragment::Log { html } => Event::default()
                    .event("append")
                    .data(json!({ "parent": "log", "html": html }).to_string()),
            };
            // Who asks again names the last of a batch that came whole.
            let event = match number == last {
                true => event.id(story.next.to_string()),
                false => event,
            };
            send(&wire, event).await?;
        }
        if !more {
            tokio::time::sleep(BREATH).await;
            change(&mut changes, |change| about(&id, attempt.as_ref(), change)).await;
        }
    }
}

/// `GET /pipelines/{id}/live`: the table of its jobs, whenever it changes.
pub(super) async fn pipeline_page(
    State(site): State<Site>,
    Path(id): Path<String>,
) -> Answer<Live> {
    let id: PipelineId = id
        .parse()
        .map_err(|_| Problem::missing(format!("pipeline '{id}'")))?;
    let mut db = site.store.read().await?;
    store::pipelines::get(&mut db, &id).await?;
    drop(db);
    Ok(open(&site, |site, wire| show_pipeline(site, wire, id)))
}

async fn show_pipeline(site: Site, wire: Wire, id: PipelineId) -> Result<(), End> {
    let mut changes = site.live.subscribe();
    let mut sent = String::new();
    loop {
        let mut db = site.store.read().await?;
        let open = jobs::of_pipeline(&mut db, &id)
            .await?
            .iter()
            .any(|job| job.finished_at.is_none());
        let table = pipelines::jobs_fragment(&mut db, &id)
            .await
            .unwrap_or_default();
        drop(db);
        if !open {
            send(&wire, Event::default().event("end").data("")).await?;
            return Ok(());
        }
        if table != sent && !table.is_empty() {
            send(&wire, fragment("jobs", "", &table)).await?;
            sent = table;
        }
        let ours =
            |change: &Change| matches!(change, Change::Job { pipeline, .. } if *pipeline == id);
        change(&mut changes, ours).await;
    }
}
