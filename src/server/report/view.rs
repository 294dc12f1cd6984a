//! From rows to what [`super::desired`] reads.

use protocol::job::State;
use protocol::outcome::Outcome;
use protocol::report::AttemptReport;
use protocol::{CommitId, JobId, ProjectId};

use super::{CommitView, JobView, PipelineView, Reused};
use crate::store::attempts::{Attempt, Fate};
use crate::store::jobs::Job;
use crate::store::pipelines::Pipeline;
use crate::store::{Connection, Result, attempts, jobs, pipelines, registry, requests};
use crate::trigger;

/// Most pipelines of a commit that are looked at, the newest: re-runs pile up.
const MOST_PIPELINES: usize = 20;

/// All that is known of a commit.
pub(super) async fn of_commit(
    db: &mut Connection,
    project: &ProjectId,
    commit: &CommitId,
    pages: Option<&str>,
) -> Result<CommitView> {
    let mut rows = pipelines::of_commit(db, project, commit).await?;
    let mut views = Vec::new();
    for row in rows.split_off(rows.len().saturating_sub(MOST_PIPELINES)) {
        views.push(of_pipeline(db, row).await?);
    }
    Ok(CommitView {
        commit: commit.clone(),
        pipelines: views,
        pages: pages.map(str::to_owned),
    })
}

async fn of_pipeline(db: &mut Connection, row: Pipeline) -> Result<PipelineView> {
    let mut views = Vec::new();
    for job in jobs::of_pipeline(db, &row.id).await? {
        views.push(of_job(db, job).await?);
    }
    Ok(PipelineView {
        branch: branch_of(db, &row).await?,
        id: row.id,
        problem: row.problem,
        nothing: row
            .notes
            .into_iter()
            .next_back()
            .filter(|_| views.is_empty()),
        jobs: views,
    })
}

/// The branch of a push, or that a pull request comes from; of one from another repository the ref of its head, for
/// there is no such branch here.
async fn branch_of(db: &mut Connection, row: &Pipeline) -> Result<Option<String>> {
    if let Some(branch) = row.trigger.branch() {
        return Ok(Some(branch.to_owned()));
    }
    let reference = row.trigger.reference.as_deref();
    let Some(number) = reference.and_then(trigger::request_number) else {
        return Ok(None);
    };
    let request = requests::find(db, &row.project, number).await?;
    Ok(match request {
        Some(request) if !request.fork => Some(request.head_branch),
        Some(_) | None => reference.map(str::to_owned),
    })
}

async fn of_job(db: &mut Connection, job: Job) -> Result<JobView> {
    let tried = attempts::of_job(db, &job.id).await?;
    let fault = match &job.state {
        State::Queued | State::Leased { .. } => tried.iter().rev().find_map(platform_fault),
        State::Blocked { .. }
        | State::Running { .. }
        | State::Stopping { .. }
        | State::Finished { .. } => None,
    };
    let report = succeeded(tried);
    let base = match &report {
        Some(_) => registry::base_metrics(db, &job.project, &job.spec.name, &job.id).await?,
        None => Vec::new(),
    };
    let reused = match &job.state {
        State::Finished {
            outcome: Outcome::Reused { of },
        } => stands_for(db, of).await?,
        State::Finished { .. }
        | State::Blocked { .. }
        | State::Queued
        | State::Leased { .. }
        | State::Running { .. }
        | State::Stopping { .. } => None,
    };
    Ok(JobView {
        id: job.id,
        name: job.spec.name,
        state: job.state,
        reason: job.reason,
        needs: job.spec.needs,
        fault,
        report,
        reused,
        base,
        metrics: job.spec.metrics,
        unversioned: job.lineage.unversioned,
    })
}

fn platform_fault(attempt: &Attempt) -> Option<protocol::Failure> {
    match attempt.outcome.as_ref()? {
        Outcome::Failed(failure) if failure.owner() == protocol::Owner::Platform => {
            Some(failure.clone())
        }
        Outcome::Failed(_)
        | Outcome::Succeeded
        | Outcome::Reused { .. }
        | Outcome::Skipped { .. }
        | Outcome::Cancelled { .. } => None,
    }
}

/// The report of the attempt that succeeded.
fn succeeded(attempts: Vec<Attempt>) -> Option<AttemptReport> {
    attempts
        .into_iter()
        .rev()
        .filter(|attempt| attempt.fate == Fate::Finished)
        .filter_map(|attempt| attempt.report)
        .find(|report| report.outcome == Outcome::Succeeded)
}

async fn stands_for(db: &mut Connection, of: &JobId) -> Result<Option<Reused>> {
    let Some(job) = jobs::find(db, of).await? else {
        return Ok(None);
    };
    let pipeline = pipelines::get(db, &job.pipeline).await?;
    let report = succeeded(attempts::of_job(db, of).await?);
    Ok(Some(Reused {
        commit: pipeline.trigger.commit,
        number: pipeline.number,
        metrics: report.map(|report| report.metrics).unwrap_or_default(),
    }))
}
