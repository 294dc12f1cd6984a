//! From rows to what [`super::desired`] and [`super::comment`] read.

use std::collections::BTreeMap;

use protocol::job::State;
use protocol::outcome::Outcome;
use protocol::report::AttemptReport;
use protocol::{
    CommitId, Failure, FailureKind, JobId, PipelineId, Span, Timestamp, TriggerKind, Work,
};

use super::{CommitView, JobView, ModelView, PipelineView, RequestView, Reused};
use crate::store::attempts::{Attempt, Fate};
use crate::store::jobs::Job;
use crate::store::pipelines::Pipeline;
use crate::store::projects::Project;
use crate::store::{
    Connection, Result, attempts, diffs, events, jobs, models, pipelines, registry, report,
    requests,
};
use crate::trigger;

/// Most findings of a lint job: as many as an agent keeps of one tool.
const MOST_FINDINGS: u32 = 5_000;
/// How long a commit waits for the registry and for its notebooks before it is settled without them.
const PATIENCE: Span = Span::secs(600);

/// All that is known of a commit, and which of its pipelines will not change any more.
pub(super) struct Seen {
    pub(super) commit: CommitView,
    pub(super) requests: Vec<RequestView>,
    pub(super) settled: Vec<PipelineId>,
}

/// Looks at a commit; none: it has no pipeline.
pub(super) async fn of_commit(
    db: &mut Connection,
    project: &Project,
    commit: &CommitId,
    pages: Option<&str>,
    now: Timestamp,
) -> Result<Option<Seen>> {
    let rows = pipelines::newest_of_commit(db, &project.id, commit).await?;
    let Some(newest) = rows.last() else {
        return Ok(None);
    };
    let jobs = newest_jobs(db, project, commit).await?;
    let mut whole = of_row(db, newest, jobs).await?;
    whole.problem = problem(&rows).cloned();
    for row in rows.iter().rev() {
        if whole.branch.is_none() {
            whole.branch = branch_of(db, row).await?;
        }
    }
    let settled = report::settled(db, &project.id, commit, now - PATIENCE).await?;
    let commit = CommitView {
        commit: commit.clone(),
        whole,
        pages: pages.map(str::to_owned),
    };
    Ok(Some(Seen {
        requests: of_requests(db, project, &rows, &commit).await?,
        commit,
        settled,
    }))
}

/// The newest job of each name at a commit.
async fn newest_jobs(
    db: &mut Connection,
    project: &Project,
    commit: &CommitId,
) -> Result<Vec<JobView>> {
    let mut of: BTreeMap<PipelineId, Pipeline> = BTreeMap::new();
    let mut views = Vec::new();
    for job in jobs::newest_of_commit(db, &project.id, commit).await? {
        if !of.contains_key(&job.pipeline) {
            let row = pipelines::get(db, &job.pipeline).await?;
            of.insert(job.pipeline.clone(), row);
        }
        let row = &of[&job.pipeline];
        views.push(of_job(db, row, job).await?);
    }
    Ok(views)
}

/// Why nothing of the commit's file could be planned. Only who plans all of it can say that it is mended: a schedule, or
/// one job that is asked for again, does not look at the rest.
fn problem(rows: &[Pipeline]) -> Option<&Failure> {
    let tells = |row: &&Pipeline| match &row.trigger.kind {
        TriggerKind::Push | TriggerKind::PullRequest { .. } => true,
        TriggerKind::Person { definitions, .. } => definitions.is_empty() || row.problem.is_some(),
        TriggerKind::Schedule { .. }
        | TriggerKind::Rerun { .. }
        | TriggerKind::Reproduction { .. } => row.problem.is_some(),
    };
    rows.iter().rev().find(tells)?.problem.as_ref()
}

/// The pull requests whose newest head the commit is.
async fn of_requests(
    db: &mut Connection,
    project: &Project,
    rows: &[Pipeline],
    commit: &CommitView,
) -> Result<Vec<RequestView>> {
    let mut views: Vec<RequestView> = Vec::new();
    for row in rows.iter().rev() {
        let (TriggerKind::PullRequest { number }, Some(reference)) =
            (&row.trigger.kind, &row.trigger.reference)
        else {
            continue;
        };
        if views.iter().any(|view| view.number == *number) {
            continue;
        }
        let newest = pipelines::newest_of_request(db, &project.id, reference).await?;
        if newest.is_some_and(|newest| newest.id == row.id) {
            views.push(RequestView {
                number: *number,
                project: project.name.clone(),
                commit: commit.clone(),
                base: row.trigger.base.clone(),
                notebooks: diffs::find(db, &row.id).await?,
            });
        }
    }
    Ok(views)
}

/// One pipeline.
pub(crate) async fn of_pipeline(db: &mut Connection, row: &Pipeline) -> Result<PipelineView> {
    let mut views = Vec::new();
    for job in jobs::of_pipeline(db, &row.id).await? {
        views.push(of_job(db, row, job).await?);
    }
    of_row(db, row, views).await
}

/// A pipeline with these jobs.
async fn of_row(db: &mut Connection, row: &Pipeline, jobs: Vec<JobView>) -> Result<PipelineView> {
    Ok(PipelineView {
        branch: branch_of(db, row).await?,
        id: row.id.clone(),
        number: row.number,
        problem: row.problem.clone(),
        nothing: row.notes.last().cloned().filter(|_| jobs.is_empty()),
        jobs,
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

async fn of_job(db: &mut Connection, pipeline: &Pipeline, job: Job) -> Result<JobView> {
    let tried = attempts::of_job(db, &job.id).await?;
    let fault = match &job.state {
        State::Queued | State::Leased { .. } => tried.iter().rev().find_map(platform_fault),
        State::Blocked { .. }
        | State::Running { .. }
        | State::Stopping { .. }
        | State::Finished { .. } => None,
    };
    let gpu_ms = tried.iter().map(gpu_ms).sum();
    let findings = findings(db, &job, &tried).await?;
    let report = measured(tried);
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
    let base = match (&report, &reused) {
        (None, None) => None,
        (Some(_), _) | (_, Some(_)) => registry::base(db, &job, pipeline).await?,
    };
    let result = reused.as_ref().map_or(&job.id, |reused| &reused.of);
    Ok(JobView {
        model: model(db, result).await?,
        id: job.id,
        name: job.spec.name,
        definition: job.spec.definition,
        work: job.spec.work,
        parameters: job.spec.parameters,
        state: job.state,
        reason: job.reason,
        needs: job.spec.needs,
        fault,
        report,
        reused,
        base,
        metrics: job.spec.metrics,
        first_metric: job.spec.first_metric,
        unversioned: job.lineage.unversioned,
        findings,
        gpu_ms,
    })
}

fn platform_fault(attempt: &Attempt) -> Option<Failure> {
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

/// What an attempt that is over had of GPUs: one that runs would change what is said all the time.
fn gpu_ms(attempt: &Attempt) -> u64 {
    match (attempt.started_at, attempt.finished_at) {
        (Some(from), Some(to)) => to.since(from).0 * attempt.order.gpus.len() as u64,
        _ => 0,
    }
}

/// The report of the attempt that did what it was asked, whatever became of its metrics.
fn measured(attempts: Vec<Attempt>) -> Option<AttemptReport> {
    let did = |outcome: &Outcome| match outcome {
        Outcome::Succeeded => true,
        Outcome::Failed(failure) => failure.kind == FailureKind::MetricRegressed,
        Outcome::Reused { .. } | Outcome::Skipped { .. } | Outcome::Cancelled { .. } => false,
    };
    attempts
        .into_iter()
        .rev()
        .filter(|attempt| attempt.fate == Fate::Finished)
        .filter_map(|attempt| attempt.report)
        .find(|report| did(&report.outcome))
}

/// What the last attempt of a lint job found, once the job is over: before that there may be another attempt.
async fn findings(
    db: &mut Connection,
    job: &Job,
    tried: &[Attempt],
) -> Result<Vec<protocol::event::Finding>> {
    match (&job.spec.work, job.state.outcome(), tried.last()) {
        (Work::Lint { .. }, Some(_), Some(last)) => {
            events::findings(db, &last.id, MOST_FINDINGS).await
        }
        _ => Ok(Vec::new()),
    }
}

async fn model(db: &mut Connection, job: &JobId) -> Result<Option<ModelView>> {
    let Some(run) = registry::succeeded_run(db, job).await? else {
        return Ok(None);
    };
    let left = models::by_run(db, &run).await?;
    Ok(left.map(|left| ModelView {
        name: left.model,
        version: left.version,
        id: left.id,
    }))
}

async fn stands_for(db: &mut Connection, of: &JobId) -> Result<Option<Reused>> {
    let Some(job) = jobs::find(db, of).await? else {
        return Ok(None);
    };
    let pipeline = pipelines::get(db, &job.pipeline).await?;
    let report = measured(attempts::of_job(db, of).await?);
    Ok(Some(Reused {
        of: of.clone(),
        commit: pipeline.trigger.commit,
        number: pipeline.number,
        metrics: report.map(|report| report.metrics).unwrap_or_default(),
    }))
}
