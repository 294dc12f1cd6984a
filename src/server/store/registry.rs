//! Rows of registry runs: what each attempt measured, was set to, and comes from.

use std::collections::BTreeMap;

use protocol::registry::Lineage;
use protocol::report::MetricValue;
use protocol::spec::Goal;
use protocol::{AttemptId, CommitId, JobId, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::jobs::Job;
use super::pipelines::Pipeline;
use super::rows::{Columns as _, to_json, to_word};
use super::{Connection, Result, StoreError, jobs};
use crate::trigger;

/// How a run ended, in MLflow's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunStatus {
    /// Its attempt succeeded.
    Finished,
    /// Its attempt failed.
    Failed,
    /// Its attempt was ended.
    Killed,
}

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// 32 hex digits.
    pub id: String,
    /// Its attempt.
    pub attempt: AttemptId,
    /// The attempt's job.
    pub job: JobId,
    /// The job's project.
    pub project: ProjectId,
    /// The job's name.
    pub name: String,
    /// How it ended.
    pub status: RunStatus,
    /// Where it comes from.
    pub lineage: Lineage,
    /// How its metrics are judged.
    pub goals: BTreeMap<String, Goal>,
    /// Why it left no version.
    pub problem: Option<String>,
    /// Last value of each metric, by name.
    pub metrics: Vec<MetricValue>,
    /// Settings.
    pub params: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// Adds a run with all that belongs to it. The same one twice is one.
pub async fn insert_run(db: &mut Connection, run: &Run) -> Result<()> {
    let done = sqlx::query(
        "INSERT INTO runs (id, attempt, job, project, name, status, lineage, goals, problem, \
         started_at, finished_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(&run.id)
    .bind(run.attempt.as_str())
    .bind(run.job.as_str())
    .bind(run.project.as_str())
    .bind(&run.name)
    .bind(to_word(&run.status)?)
    .bind(to_json(&run.lineage)?)
    .bind(to_json(&run.goals)?)
    .bind(&run.problem)
    .bind(run.lineage.started_at.0)
    .bind(run.lineage.finished_at.0)
    .execute(&mut *db)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    for metric in &run.metrics {
        insert_metric(db, &run.id, metric).await?;
    }
    for (name, value) in &run.params {
        sqlx::query("INSERT INTO run_params (run, name, value) VALUES ($1, $2, $3)")
            .bind(&run.id)
            .bind(name)
            .bind(value)
            .execute(&mut *db)
            .await?;
    }
    for (name, value) in &run.tags {
        sqlx::query("INSERT INTO run_tags (run, name, value) VALUES ($1, $2, $3)")
            .bind(&run.id)
            .bind(name)
            .bind(value)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// SQLite keeps NaN as null and both databases write infinity differently: those stand as words. A
/// null float is never bound: the driver gives it another type than a float that is there.
async fn insert_metric(db: &mut Connection, run: &str, metric: &MetricValue) -> Result<()> {
    let word = match metric.value {
        value if value.is_finite() => None,
        value if value.is_nan() => Some("NaN"),
        value if value > 0.0 => Some("Infinity"),
        _ => Some("-Infinity"),
    };
    sqlx::query(
        "INSERT INTO run_metrics (run, name, value, word, step) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(run)
    .bind(&metric.name)
    .bind(if word.is_none() { metric.value } else { 0.0 })
    .bind(word)
    .bind(metric.step)
    .execute(db)
    .await?;
    Ok(())
}

fn metric(row: &AnyRow) -> Result<MetricValue> {
    let value = match (
        row.maybe_text("word")?.as_deref(),
        row.maybe_float("value")?,
    ) {
        (None, Some(value)) => value,
        (Some("NaN"), _) => f64::NAN,
        (Some("Infinity"), _) => f64::INFINITY,
        (Some("-Infinity"), _) => f64::NEG_INFINITY,
        (word, value) => {
            return Err(StoreError::Unreadable {
                column: "word".to_owned(),
                why: format!("{word:?} and {value:?} are no number"),
            });
        }
    };
    Ok(MetricValue {
        name: row.text("name")?,
        value,
        step: row.int("step")?,
    })
}

/// The metrics of a run, by name.
pub async fn metrics(db: &mut Connection, run: &str) -> Result<Vec<MetricValue>> {
    let rows = sqlx::query("SELECT * FROM run_metrics WHERE run = $1")
        .bind(run)
        .fetch_all(db)
        .await?;
    let mut metrics = rows.iter().map(metric).collect::<Result<Vec<_>>>()?;
    metrics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(metrics)
}

/// One run by its id, with all that belongs to it.
pub async fn find_run(db: &mut Connection, id: &str) -> Result<Option<Run>> {
    let Some(row) = sqlx::query("SELECT * FROM runs WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut *db)
        .await?
    else {
        return Ok(None);
    };
    let params = sqlx::query("SELECT name, value FROM run_params WHERE run = $1")
        .bind(id)
        .fetch_all(&mut *db)
        .await?;
    let tags = sqlx::query("SELECT name, value FROM run_tags WHERE run = $1")
        .bind(id)
        .fetch_all(&mut *db)
        .await?;
    Ok(Some(Run {
        id: row.text("id")?,
        attempt: row.parsed("attempt")?,
        job: row.parsed("job")?,
        project: row.parsed("project")?,
        name: row.text("name")?,
        status: row.word("status")?,
        lineage: row.json("lineage")?,
        goals: row.json("goals")?,
        problem: row.maybe_text("problem")?,
        metrics: metrics(db, id).await?,
        params: named(&params)?,
        tags: named(&tags)?,
    }))
}

fn named(rows: &[AnyRow]) -> Result<BTreeMap<String, String>> {
    rows.iter()
        .map(|row| Ok((row.text("name")?, row.text("value")?)))
        .collect()
}

/// The id of the run of a job that succeeded.
pub async fn succeeded_run(db: &mut Connection, job: &JobId) -> Result<Option<String>> {
    let row = sqlx::query(
        "SELECT id FROM runs WHERE job = $1 AND status = 'FINISHED' ORDER BY finished_at DESC LIMIT 1",
    )
    .bind(job.as_str())
    .fetch_optional(db)
    .await?;
    row.map(|row| row.text("id")).transpose()
}

/// Notes why a run left no version.
pub async fn set_problem(db: &mut Connection, run: &str, problem: &str) -> Result<()> {
    sqlx::query("UPDATE runs SET problem = $1 WHERE id = $2")
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
