//! One pass: writes down who is to be told of what ended, and sends each receiver its oldest message.

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use protocol::{PipelineId, Span, Timestamp, TriggerKind};
use tokio_util::sync::CancellationToken;

use super::message::{Ended, Message};
use super::post::{self, PostError};
use super::rule::Rule;
use super::story::{Ends, Event, Looking, State, Story};
use crate::report;
use crate::state::Server;
use crate::store::jobs::Job;
use crate::store::notices::{self as rows, Notice};
use crate::store::pipelines::Pipeline;
use crate::store::projects::{self, Project};
use crate::store::rows::to_json;
use crate::store::{Connection, Result, jobs, requests};
use crate::{outgoing, trigger};

/// Most pipelines of one pass.
const MOST_PIPELINES: u32 = 100;
/// How far it is looked back for what failed before.
const MOST_BEFORE: u32 = 50;
/// Receivers that are told at the same time.
const AT_ONCE: usize = 8;
/// Wait after the first try that failed; it doubles with each, up to the most.
const RETRY_FIRST: Span = Span::secs(5);
const RETRY_MOST: Span = Span::secs(3_600);
/// What is older than this when it fails is given up, and what failed so often.
const LONGEST: Span = Span::hours(24);
const MOST_TRIES: u32 = 40;

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pass {
    /// Messages that receivers took.
    pub taken: usize,
    /// Messages that they did not take.
    pub not_taken: usize,
    /// When the next one that waits may be sent; none: there is none.
    pub next: Option<Timestamp>,
}

/// One pass.
///
/// # Errors
/// The store's. What a receiver answers is no error here: it stands in the row.
pub async fn tick(server: &Server, now: Timestamp) -> Result<Pass> {
    let mut db = server.store.read().await?;
    let over = rows::untold(&mut db, MOST_PIPELINES).await?;
    drop(db);
    for row in over {
        // One that cannot be read holds up no other.
        if let Err(error) = write_down(server, &row, now).await {
            tracing::error!(pipeline = %row.id, %error, "who is to be told of pipeline {} could not be found out", row.id);
        }
    }
    send(server, now).await
}

/// Writes down who is to be told of a pipeline that is over: once, and all of it or nothing.
async fn write_down(server: &Server, row: &Pipeline, now: Timestamp) -> Result<()> {
    let mut tx = server.store.begin().await?;
    if rows::mark_told(&mut tx, &row.id, now).await?
        && let Some(project) = projects::find(&mut tx, &row.project).await?
    {
        for rule in tell(&mut tx, server, &project, row, now).await? {
            tracing::info!(pipeline = %row.id, rule, "'{rule}' is to be told of pipeline {}", row.id);
        }
    }
    tx.commit().await?;
    Ok(())
}

/// Writes a message for each rule that wants one; gives their names.
async fn tell<'a>(
    tx: &mut Connection,
    server: &'a Server,
    project: &Project,
    row: &Pipeline,
    now: Timestamp,
) -> Result<Vec<&'a str>> {
    let branch = branch(tx, row).await?;
    let story = Story {
        project: &project.name,
        branch: branch.as_deref(),
        scheduled: matches!(row.trigger.kind, TriggerKind::Schedule { .. }),
        of_request: request_of(row).is_some(),
    };
    let rules = server.config.notify.iter();
    let mut rules: Vec<&Rule> = rules.filter(|rule| rule.may_tell(&story)).collect();
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let all = jobs::of_pipeline(tx, &row.id).await?;
    let ends = ends(row, &all);
    let Some(state) = ends.state() else {
        return Ok(Vec::new());
    };
    let event = match state {
        State::Failed => Event::Failed,
        State::Succeeded if has_recovered(tx, row, &ends, story.scheduled).await? => {
            Event::Recovered
        }
        State::Succeeded | State::Cancelled => Event::Finished,
    };
    rules.retain(|rule| rule.tells(&story, event));
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let view = report::of_pipeline(tx, row).await?;
    let last_end = all.iter().filter_map(|job| job.finished_at).max();
    let message = Message::of(&Ended {
        project: &project.name,
        row,
        view: &view,
        branch: story.branch,
        state,
        event,
        finished_at: last_end.unwrap_or(row.created_at),
        pages: server.config.url.as_deref(),
    });
    for rule in &rules {
        let body = to_json(&message.to(&delivery(&row.id, &rule.name)))?;
        rows::insert(tx, &row.id, &rule.name, &body, now).await?;
    }
    Ok(rules.iter().map(|rule| rule.name.as_str()).collect())
}

/// What tells a message from all others.
fn delivery(pipeline: &PipelineId, rule: &str) -> String {
    format!("{pipeline}.{rule}")
}

/// The pull request at whose head a pipeline is.
fn request_of(row: &Pipeline) -> Option<u64> {
    trigger::request_number(row.trigger.reference.as_deref()?)
}

/// The branch of a pipeline; of a pull request the one that it goes to.
async fn branch(db: &mut Connection, row: &Pipeline) -> Result<Option<String>> {
    let Some(number) = request_of(row) else {
        return Ok(row.trigger.branch().map(str::to_owned));
    };
    let request = requests::find(db, &row.project, number).await?;
    Ok(request.map(|request| request.base_branch))
}

fn ends(row: &Pipeline, jobs: &[Job]) -> Ends {
    let jobs = jobs.iter();
    let ends = jobs.map(|job| (job.spec.definition.as_str(), job.state.outcome()));
    Ends::of(row.problem.is_some(), ends)
}

/// Whether something of a pipeline that succeeded failed when it ran last: of a schedule among what schedules asked
/// for, else at the same ref.
async fn has_recovered(
    db: &mut Connection,
    row: &Pipeline,
    now: &Ends,
    scheduled: bool,
) -> Result<bool> {
    let mut looking = Looking::back_from(now);
    for before in rows::before(db, row, scheduled, MOST_BEFORE).await? {
        let all = jobs::of_pipeline(db, &before.id).await?;
        if let Some(found) = looking.at(&ends(&before, &all)) {
            return Ok(found);
        }
    }
    Ok(false)
}

/// Sends each receiver its oldest message, where its time has come.
async fn send(server: &Server, now: Timestamp) -> Result<Pass> {
    let mut pass = Pass::default();
    let mut due = Vec::new();
    let mut db = server.store.read().await?;
    for rule in &server.config.notify {
        match rows::first_open(&mut db, &rule.name).await? {
            Some(notice) if notice.is_due(now) => {
                due.push(call(rule.clone(), notice, now, server.shutdown.clone()));
            }
            Some(notice) => {
                let next = notice.next_try;
                pass.next = Some(pass.next.map_or(next, |soonest| soonest.min(next)));
            }
            None => {}
        }
    }
    drop(db);
    let answers: Vec<Answer> = stream::iter(due).buffer_unordered(AT_ONCE).collect().await;
    for (notice, answer) in answers.into_iter().flatten() {
        match answer {
            Ok(()) => pass.taken += 1,
            Err(_) => pass.not_taken += 1,
        }
        note(server, &notice, answer, now).await?;
    }
    Ok(pass)
}

/// What became of a message; none: the server stops before there is an answer, and it goes out again after its start.
type Answer = Option<(Notice, std::result::Result<(), PostError>)>;

fn call(
    rule: Rule,
    notice: Notice,
    now: Timestamp,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let delivery = delivery(&notice.pipeline, &rule.name);
        let sent = post::post(&rule, &delivery, notice.body.clone(), now);
        let answer = shutdown.run_until_cancelled(sent).await?;
        Some((notice, answer))
    })
}

async fn note(
    server: &Server,
    notice: &Notice,
    answer: std::result::Result<(), PostError>,
    now: Timestamp,
) -> Result<()> {
    let mut tx = server.store.begin().await?;
    match answer {
        Ok(()) => rows::taken(&mut tx, notice, now).await?,
        Err(error) => {
            let next = next_try(notice, &error, now);
            let mut problem = error.to_string();
            if next.is_none() {
                problem = format!("given up: {problem}");
            }
            if notice.problem.as_ref() != Some(&problem) {
                let (pipeline, rule) = (&notice.pipeline, &notice.rule);
                tracing::warn!(%pipeline, rule, problem, "'{rule}' was not told of pipeline {pipeline}");
            }
            rows::not_taken(&mut tx, notice, &problem, next).await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

/// When a message that was not taken is sent again; none: it is given up.
fn next_try(notice: &Notice, error: &PostError, now: Timestamp) -> Option<Timestamp> {
    let asked = match error {
        PostError::Never(_) => return None,
        PostError::Later { wait, .. } => *wait,
    };
    let too_old = now.since(notice.made_at) >= LONGEST || notice.tries + 1 >= MOST_TRIES;
    let usual = outgoing::wait(
        RETRY_FIRST,
        RETRY_MOST,
        notice.tries,
        notice.pipeline.as_str(),
    );
    (!too_old).then(|| now + asked.map_or(usual, |asked| asked.max(usual)))
}
