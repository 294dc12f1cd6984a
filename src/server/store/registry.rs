//! Rows of registry runs: what each attempt measured, was set to, and comes from.

use std::collections::{BTreeMap, HashMap};

use protocol::registry::Lineage;
use protocol::report::MetricValue;
use protocol::spec::Goal;
use protocol::{AttemptId, CommitId, JobId, ProjectId, Timestamp};
use sqlx::any::AnyRow;

use super::files::{self, KeptFile};
use super::jobs::Job;
use super::metrics::{self, Point};
use super::pipelines::Pipeline;
use super::rows::{Columns as _, to_json};
use super::runs::{self, RunStatus};
use super::{Connection, Result, experiments, jobs};
use crate::trigger;

/// The tag that is a run's name.
const NAME_TAG: &str = "mlflow.runName";
/// The tag that says why a run ended of whose attempt nobody heard any more.
const ENDED_TAG: &str = "trainyard.ended";

/// The run of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRun {
    /// 32 hex digits.
    pub id: String,
    /// Its attempt.
    pub attempt: AttemptId,
    /// The attempt's job.
    pub job: JobId,
    /// The job's project.
    pub project: ProjectId,
    /// The name of its experiment.
    pub experiment: String,
    /// The job's name.
    pub name: String,
    /// How it ended.
    pub status: RunStatus,
    /// Where it comes from.
    pub lineage: Lineage,
    /// How its metrics are judged.
    pub goals: BTreeMap<String, Goal>,
    /// The metric by which several candidates are ranked.
    pub first_metric: Option<String>,
    /// Why it left no version.
    pub problem: Option<String>,
    /// Last value of each metric, by name.
    pub metrics: Vec<MetricValue>,
    /// Settings.
    pub params: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Files, as clients find them.
    pub files: Vec<KeptFile>,
}

/// Writes a job's run with all that belongs to it: begins it, or completes one that goes on. What its code logged
/// meanwhile stands. A run that is over is left as it is.
pub async fn put_run(db: &mut Connection, run: &JobRun) -> Result<()> {
    match runs::find(db, &run.id).await? {
        None => insert_run(db, run).await,
        Some(there) if there.status == RunStatus::Running && run.status != RunStatus::Running => {
            complete(db, there, run).await
        }
        Some(_) => Ok(()),
    }
}

async fn insert_run(db: &mut Connection, run: &JobRun) -> Result<()> {
    let ended = run.lineage.finished_at;
    let row = runs::Run {
        id: run.id.clone(),
        experiment: experiments::ensure(db, &run.experiment, ended).await?,
        name: run.name.clone(),
        person: run.lineage.by.clone().unwrap_or_default(),
        status: run.status,
        started_at: run.lineage.started_at,
        finished_at: (run.status != RunStatus::Running).then_some(ended),
        deleted_at: None,
        attempt: Some(run.attempt.clone()),
    };
    runs::insert(db, &row).await?;
    sqlx::query(
        "INSERT INTO job_runs (run, attempt, job, project, lineage, goals, problem, first_metric) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&run.id)
    .bind(run.attempt.as_str())
    .bind(run.job.as_str())
    .bind(run.project.as_str())
    .bind(to_json(&run.lineage)?)
    .bind(to_json(&run.goals)?)
    .bind(&run.problem)
    .bind(&run.first_metric)
    .execute(&mut *db)
    .await?;
    let points: Vec<Point> = run
        .metrics
        .iter()
        .map(|metric| point(metric, ended))
        .collect();
    metrics::log(db, &run.id, &points).await?;
    runs::add_params(db, &run.id, &listed(&run.params)).await?;
    runs::set_tags(db, &run.id, &listed(&run.tags)).await?;
    put_files(db, run).await
}

async fn put_files(db: &mut Connection, run: &JobRun) -> Result<()> {
    for file in &run.files {
        files::put(db, &run.id, file).await?;
    }
    Ok(())
}

/// Ends a run with what its attempt left. What the code said of itself stands beside that, and over it: its params, the
/// name that it gave the run; a metric whose last value is the same is not logged twice.
async fn complete(db: &mut Connection, there: runs::Run, run: &JobRun) -> Result<()> {
    let ended = run.lineage.finished_at;
    sqlx::query("UPDATE job_runs SET lineage = $1, goals = $2, problem = $3 WHERE run = $4")
        .bind(to_json(&run.lineage)?)
        .bind(to_json(&run.goals)?)
        .bind(&run.problem)
        .bind(&run.id)
        .execute(&mut *db)
        .await?;
    let full = runs::fill(db, vec![there]).await?.remove(0);
    let logged = |metric: &&MetricValue| {
        let same = |last: &&Point| last.name == metric.name && same(last.value, metric.value);
        !full.metrics.iter().any(|last| same(&last))
    };
    let points: Vec<Point> = run
        .metrics
        .iter()
        .filter(logged)
        .map(|metric| point(metric, ended))
        .collect();
    metrics::log(db, &run.id, &points).await?;
    let mut params = listed(&run.params);
    params.retain(|(name, _)| !full.params.iter().any(|(other, _)| other == name));
    runs::add_params(db, &run.id, &params).await?;
    let mut tags = listed(&run.tags);
    tags.retain(|(name, _)| name != NAME_TAG);
    runs::set_tags(db, &run.id, &tags).await?;
    put_files(db, run).await?;
    let row = runs::Run {
        status: run.status,
        started_at: run.lineage.started_at,
        finished_at: Some(ended),
        ..full.run
    };
    runs::update(db, &row).await?;
    runs::end_open(db, &run.attempt, run.status, ended).await
}

fn same(one: f64, other: f64) -> bool {
    one.total_cmp(&other).is_eq() || one == other
}

/// Ends the run of an attempt that left no report, and says why.
pub async fn end_run(
    db: &mut Connection,
    attempt: &AttemptId,
    why: &str,
    at: Timestamp,
) -> Result<()> {
    let row = sqlx::query("SELECT run FROM job_runs WHERE attempt = $1")
        .bind(attempt.as_str())
        .fetch_optional(&mut *db)
        .await?;
    if let Some(row) = row {
        let tag = (ENDED_TAG.to_owned(), why.to_owned());
        runs::set_tags(db, &row.text("run")?, &[tag]).await?;
    }
    runs::end_open(db, attempt, RunStatus::Killed, at).await
}

/// Open attempts that have begun and have no run yet; at most `limit`.
pub async fn without_run(db: &mut Connection, limit: u32) -> Result<Vec<AttemptId>> {
    let rows = sqlx::query(
        "SELECT attempts.id AS id FROM attempts LEFT JOIN job_runs ON job_runs.attempt = attempts.id \
         WHERE attempts.fate = 'open' AND attempts.started_at IS NOT NULL AND job_runs.run IS NULL \
         ORDER BY attempts.id LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// Attempts that are over and whose runs go on, lost ones that will not return ([`super::attempts::Attempt::may_return`]) with them; at most
/// `limit`.
pub async fn with_open_run(db: &mut Connection, limit: u32) -> Result<Vec<AttemptId>> {
    let rows = sqlx::query(
        "SELECT DISTINCT attempts.id AS id FROM runs JOIN attempts ON attempts.id = runs.attempt \
         JOIN jobs ON jobs.id = attempts.job \
         WHERE runs.status = 'RUNNING' AND runs.attempt IS NOT NULL AND (attempts.fate IN ('finished', 'abandoned') \
         OR (attempts.fate = 'lost' AND (jobs.word NOT IN ('queued', 'leased') OR attempts.generation < jobs.generation))) \
         ORDER BY attempts.id LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| row.parsed("id")).collect()
}

fn point(metric: &MetricValue, at: Timestamp) -> Point {
    Point {
        name: metric.name.clone(),
        value: metric.value,
        at: at.0,
        step: metric.step,
    }
}

fn listed(map: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let pairs = map.iter();
    pairs
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The metrics of a run, by name.
pub async fn metrics(db: &mut Connection, run: &str) -> Result<Vec<MetricValue>> {
    let mut found = metrics_of(db, &[run.to_owned()]).await?;
    Ok(found.remove(run).unwrap_or_default())
}

/// The metrics of these runs, by name.
pub async fn metrics_of(
    db: &mut Connection,
    runs: &[String],
) -> Result<HashMap<String, Vec<MetricValue>>> {
    let value = |point: Point| MetricValue {
        name: point.name,
        value: point.value,
        step: point.step,
    };
    let last = metrics::last(db, runs).await?.into_iter();
    let values = last.map(|(run, points)| (run, points.into_iter().map(value).collect()));
    Ok(values.collect())
}

/// What only a job's run has.
#[derive(Debug, Clone, PartialEq)]
pub struct OfJob {
    /// Its attempt.
    pub attempt: AttemptId,
    /// Where it comes from.
    pub lineage: Lineage,
    /// How its metrics are judged.
    pub goals: BTreeMap<String, Goal>,
    /// The metric by which several candidates are ranked.
    pub first_metric: Option<String>,
    /// Why it left no version.
    pub problem: Option<String>,
}

/// What a run has as a job's, be it the attempt's own or one that its code began; none: it is not one.
pub async fn of_job(db: &mut Connection, run: &str) -> Result<Option<OfJob>> {
    let row = sqlx::query(
        "SELECT job_runs.* FROM job_runs JOIN runs ON runs.attempt = job_runs.attempt WHERE runs.id = $1",
    )
        .bind(run)
        .fetch_optional(db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(OfJob {
        attempt: row.parsed("attempt")?,
        lineage: row.json("lineage")?,
        goals: row.json("goals")?,
        first_metric: row.maybe_text("first_metric")?,
        problem: row.maybe_text("problem")?,
    }))
}

/// The id of the run of a job that succeeded.
pub async fn succeeded_run(db: &mut Connection, job: &JobId) -> Result<Option<String>> {
    let row = sqlx::query(
        "SELECT r.id AS id FROM job_runs j JOIN runs r ON r.id = j.run \
         WHERE j.job = $1 AND r.status = 'FINISHED' ORDER BY r.finished_at DESC LIMIT 1",
    )
    .bind(job.as_str())
    .fetch_optional(db)
    .await?;
    row.map(|row| row.text("id")).transpose()
}

/// Notes why a run left no version.
pub async fn set_problem(db: &mut Connection, run: &str, problem: &str) -> Result<()> {
    sqlx::query("UPDATE job_runs SET problem = $1 WHERE run = $2")
        .bind(problem)
        .bind(run)
        .execute(db)
        .await?;
    Ok(())
}

/// Notes the run that stands for a job on the default branch.
pub async fn insert_baseline(db: &mut Connection, job: &Job, run: &str) -> Result<()> {
    sqlx::query(
        "INSERT INTO baselines (job, project, name, run) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (job) DO NOTHING",
    )
    .bind(job.id.as_str())
    .bind(job.project.as_str())
    .bind(&job.spec.name)
    .bind(run)
    .execute(db)
    .await?;
    Ok(())
}

/// What a job is compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// The commit of the job whose result it is.
    pub commit: CommitId,
    /// Its metrics.
    pub metrics: Vec<MetricValue>,
}

/// The last success on the default branch of the job with this name that is older than `job`; none: there is none.
/// Of a pull request's job it is the last one where the request left the branch: what others did since is not the
/// request's.
pub async fn base(db: &mut Connection, job: &Job, of: &Pipeline) -> Result<Option<Base>> {
    let met = trigger::met(&of.trigger);
    let mut before = job.id.to_string();
    if let Some(met) = met {
        if let Some(base) = base_at(db, job, met).await? {
            return Ok(Some(base));
        }
        let row = sqlx::query(
            "SELECT MIN(jobs.id) AS first FROM jobs JOIN pipelines ON pipelines.id = jobs.pipeline \
             WHERE pipelines.project = $1 AND pipelines.commit_id = $2",
        )
        .bind(job.project.as_str())
        .bind(met.as_str())
        .fetch_one(&mut *db)
        .await?;
        before = row.maybe_text("first")?.unwrap_or(before);
    }
    let row = sqlx::query(
        "SELECT baselines.run AS run, pipelines.commit_id AS commit_id FROM baselines \
         JOIN jobs ON jobs.id = baselines.job JOIN pipelines ON pipelines.id = jobs.pipeline \
         WHERE baselines.project = $1 AND baselines.name = $2 AND baselines.job < $3 \
         ORDER BY baselines.job DESC LIMIT 1",
    )
    .bind(job.project.as_str())
    .bind(&job.spec.name)
    .bind(before)
    .fetch_optional(&mut *db)
    .await?;
    base_of(db, row).await
}

/// The last success of the job's name at one commit of the default branch.
async fn base_at(db: &mut Connection, job: &Job, commit: &CommitId) -> Result<Option<Base>> {
    let row = sqlx::query(
        "SELECT baselines.run AS run, pipelines.commit_id AS commit_id FROM pipelines \
         JOIN jobs ON jobs.pipeline = pipelines.id JOIN baselines ON baselines.job = jobs.id \
         WHERE pipelines.project = $1 AND pipelines.commit_id = $2 AND baselines.name = $3 \
         AND baselines.job < $4 ORDER BY baselines.job DESC LIMIT 1",
    )
    .bind(job.project.as_str())
    .bind(commit.as_str())
    .bind(&job.spec.name)
    .bind(job.id.as_str())
    .fetch_optional(&mut *db)
    .await?;
    base_of(db, row).await
}

async fn base_of(db: &mut Connection, row: Option<AnyRow>) -> Result<Option<Base>> {
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Base {
        commit: row.parsed("commit_id")?,
        metrics: metrics(db, &row.text("run")?).await?,
    }))
}

/// Finished jobs, not older than `from`, that the registry has not looked at; oldest first.
pub async fn unregistered(db: &mut Connection, from: &str, limit: u32) -> Result<Vec<Job>> {
    let rows = sqlx::query(
        "SELECT jobs.id AS id FROM jobs LEFT JOIN registered_jobs ON registered_jobs.job = jobs.id \
         WHERE jobs.id >= $1 AND jobs.finished_at IS NOT NULL AND registered_jobs.job IS NULL \
         ORDER BY jobs.finished_at, jobs.id LIMIT $2",
    )
    .bind(from)
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await?;
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        list.push(jobs::get(db, &row.parsed("id")?).await?);
    }
    Ok(list)
}

/// The oldest job that the registry has still to look at, now or when it finishes.
pub async fn oldest_unregistered(db: &mut Connection, from: &str) -> Result<Option<JobId>> {
    let row = sqlx::query(
        "SELECT jobs.id AS id FROM jobs LEFT JOIN registered_jobs ON registered_jobs.job = jobs.id \
         WHERE jobs.id >= $1 AND registered_jobs.job IS NULL ORDER BY jobs.id LIMIT 1",
    )
    .bind(from)
    .fetch_optional(db)
    .await?;
    row.map(|row| row.parsed("id")).transpose()
}

/// Notes that the registry has looked at a job. False where it had before.
pub async fn mark_registered(db: &mut Connection, job: &JobId, at: Timestamp) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO registered_jobs (job, at) VALUES ($1, $2) ON CONFLICT (job) DO NOTHING",
    )
    .bind(job.as_str())
    .bind(at.0)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether the registry has looked at a job.
pub async fn is_registered(db: &mut Connection, job: &JobId) -> Result<bool> {
    let row = sqlx::query("SELECT job FROM registered_jobs WHERE job = $1")
        .bind(job.as_str())
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}
