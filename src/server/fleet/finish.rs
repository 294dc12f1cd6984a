//! An attempt's last word, and what follows from it: the job finishes, or is queued again.

use protocol::agent_api::FinishAnswer;
use protocol::job::{Move, State};
use protocol::report::AttemptReport;
use protocol::{AttemptId, Failure, Outcome, Owner, Timestamp};

use super::{Refused, Standing, checkpoints, mine, resume, standing, tell};
use crate::registry::{regression, run_id};
use crate::settle;
use crate::state::Server;
use crate::store::agents::Agent;
use crate::store::attempts::{self, Attempt, Fate};
use crate::store::jobs::{self, Job};
use crate::store::{Connection, StoreError, blobs, pipelines, registry};

/// Most metrics of a report with those of its run.
const MOST_METRICS: usize = 1_000;

/// Takes the agent's report. The same one again is answered as the first was.
///
/// # Errors
/// [`Refused`]: abandoned, or an artifact that this agent did not upload.
pub async fn take(
    server: &Server,
    agent: &Agent,
    id: &AttemptId,
    report: &AttemptReport,
) -> Result<FinishAnswer, Refused> {
    let mut tx = server.store.begin().await?;
    let Some((attempt, changed)) = believe(&mut tx, agent, id, report).await? else {
        return Ok(FinishAnswer { accepted: true });
    };
    tx.commit().await?;
    after(server, &attempt, &changed);
    let succeeded = |job: &&Job| job.state.outcome().is_some_and(Outcome::is_success);
    if let Some(job) = changed.first().filter(succeeded)
        && let Err(error) = checkpoints::forget(server, &job.id).await
    {
        tracing::error!(job = %job.id, %error, "its checkpoint stays until it is old");
    }
    Ok(FinishAnswer { accepted: true })
}

/// Writes a report down; gives the attempt and the jobs that changed. None: it was written down before.
pub(super) async fn believe(
    tx: &mut Connection,
    agent: &Agent,
    id: &AttemptId,
    report: &AttemptReport,
) -> Result<Option<(Attempt, Vec<Job>)>, Refused> {
    let (mut attempt, mut job) = mine(tx, agent, id).await?;
    match standing(&attempt, &job) {
        Standing::Over => return Ok(None),
        Standing::Abandoned => return Err(Refused::Abandoned(id.clone())),
        Standing::Resumable => job = resume(tx, &attempt, &job, report.started_at).await?,
        Standing::Believed => {}
    }
    for artifact in &report.artifacts {
        if !blobs::owned(tx, &artifact.blob, &agent.id).await? {
            return Err(Refused::Invalid(format!(
                "artifact '{}': upload blob {} before the report",
                artifact.path, artifact.blob
            )));
        }
    }
    if let Some(by) = &report.withdrawn {
        attempts::set_evicted(tx, id, by).await?;
        attempt.evicted_by.get_or_insert_with(|| by.clone());
    }
    let report = with_logged(tx, id, report).await?;
    let report = judged(tx, &job, &report).await?;
    attempts::finish(tx, id, &report).await?;
    let generation = Some(attempt.generation);
    let changed = conclude(tx, &attempt, &job, report.outcome, generation).await?;
    Ok(Some((attempt, changed)))
}

/// The report with what the attempt's code logged to its run: a metric is one, whichever way it came.
async fn with_logged(
    db: &mut Connection,
    id: &AttemptId,
    report: &AttemptReport,
) -> Result<AttemptReport, StoreError> {
    let mut report = report.clone();
    for metric in registry::metrics(db, &run_id(id)).await? {
        let is_there = report.metrics.iter().any(|m| m.name == metric.name);
        if !is_there && report.metrics.len() < MOST_METRICS {
            report.metrics.push(metric);
        }
    }
    Ok(report)
}

/// The report as it counts: a success whose metric is worse than `max_regression` allows, compared with
/// the last success on the default branch (of a pull request: where it left that), is a failure.
async fn judged(
    db: &mut Connection,
    job: &Job,
    report: &AttemptReport,
) -> Result<AttemptReport, StoreError> {
    let mut report = AttemptReport {
        outcome: ended(job, report),
        ..report.clone()
    };
    let bounded = job
        .spec
        .metrics
        .values()
        .any(|m| m.max_regression.is_some());
    if bounded && report.outcome == Outcome::Succeeded {
        let pipeline = pipelines::get(db, &job.pipeline).await?;
        let base = registry::base(db, job, &pipeline).await?;
        let base = base.map(|base| base.metrics).unwrap_or_default();
        if let Some(found) = regression(&job.spec.metrics, &base, &report.metrics) {
            report.outcome = Outcome::Failed(found.failure());
        }
    }
    Ok(report)
}

/// How an attempt ended. Of one that its host withdrew while somebody cancelled its job, that somebody's wish counts.
fn ended(job: &Job, report: &AttemptReport) -> Outcome {
    if report.withdrawn.is_some()
        && let State::Stopping { by, .. } = &job.state
    {
        return Outcome::Cancelled { by: by.clone() };
    }
    report.end()
}

/// Ends an attempt that will have no report: lost, forgotten, or never begun.
///
/// # Errors
/// The store's.
pub async fn without_report(
    server: &Server,
    id: &AttemptId,
    fate: Fate,
    outcome: Outcome,
) -> Result<(), StoreError> {
    let mut tx = server.store.begin().await?;
    let Some((attempt, changed)) = give_up(&mut tx, id, fate, outcome).await? else {
        return Ok(());
    };
    tx.commit().await?;
    after(server, &attempt, &changed);
    Ok(())
}

/// Writes down that an attempt ended without a report; gives it and the jobs that changed. None: nobody believed it.
pub(super) async fn give_up(
    tx: &mut Connection,
    id: &AttemptId,
    fate: Fate,
    outcome: Outcome,
) -> Result<Option<(Attempt, Vec<Job>)>, StoreError> {
    let attempt = attempts::get(tx, id).await?;
    let job = jobs::get(tx, &attempt.job).await?;
    if standing(&attempt, &job) != Standing::Believed {
        return Ok(None);
    }
    attempts::end(tx, id, fate, &outcome, Timestamp::now()).await?;
    let changed = conclude(tx, &attempt, &job, outcome, None).await?;
    // Where nothing will replace it, it cannot come back either.
    if changed
        .first()
        .is_some_and(|job| job.state != State::Queued)
    {
        attempts::set_fate(tx, id, Fate::Abandoned).await?;
    }
    Ok(Some((attempt, changed)))
}

/// Moves the job of an attempt that ended; gives it and every other job that changed with it. `started`
/// is the generation of an attempt that certainly began.
async fn conclude(
    tx: &mut Connection,
    attempt: &Attempt,
    job: &Job,
    outcome: Outcome,
    started: Option<u32>,
) -> Result<Vec<Job>, StoreError> {
    let at = Timestamp::now();
    let faults = platform_faults(tx, &attempt.job).await?;
    let step = match outcome {
        Outcome::Failed(failure) if failure.owner() == Owner::Platform => {
            if faults <= job.spec.retries || matches!(job.state, State::Stopping { .. }) {
                Move::Retry {
                    attempt: attempt.id.clone(),
                    failure,
                }
            } else {
                Move::Finish {
                    attempt: attempt.id.clone(),
                    outcome: Outcome::Failed(used_up(failure, faults)),
                }
            }
        }
        // Ended for its host's sake: unless somebody cancelled the job too, it goes on elsewhere.
        Outcome::Cancelled { .. } if is_evicted(attempt, job) => Move::Requeue {
            attempt: attempt.id.clone(),
        },
        outcome => Move::Finish {
            attempt: attempt.id.clone(),
            outcome,
        },
    };
    let job = jobs::advance(tx, job, step, started, at).await?;
    let mut changed = vec![job.clone()];
    if job.state.outcome().is_some() {
        changed.extend(settle::after(tx, &job, at).await?);
    }
    Ok(changed)
}

pub(super) fn is_evicted(attempt: &Attempt, job: &Job) -> bool {
    attempt.evicted_by.is_some() && !matches!(job.state, State::Stopping { .. })
}

/// How many attempts of a job ended by a fault of the platform.
async fn platform_faults(tx: &mut Connection, job: &protocol::JobId) -> Result<u32, StoreError> {
    let all = attempts::of_job(tx, job).await?;
    let faults = all.iter().filter(|attempt| match &attempt.outcome {
        Some(Outcome::Failed(failure)) => failure.owner() == Owner::Platform,
        Some(
            Outcome::Succeeded
            | Outcome::Reused { .. }
            | Outcome::Skipped { .. }
            | Outcome::Cancelled { .. },
        )
        | None => false,
    });
    Ok(u32::try_from(faults.count()).unwrap_or(u32::MAX))
}

fn used_up(mut failure: Failure, attempts: u32) -> Failure {
    if attempts > 1 {
        failure.message = format!("{} (after {attempts} attempts)", failure.message);
    }
    failure
}

fn after(server: &Server, attempt: &Attempt, changed: &[Job]) {
    server.leases.found(&attempt.id);
    for job in changed {
        tracing::info!(job = %job.id, state = job.state.word(), "moved");
    }
    tell(server, changed);
    server.live.attempt_finished();
    server.live.queue_changed();
}
