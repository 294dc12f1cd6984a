//! Rows as the scheduler reads them beside the jobs that wait: no whole specs and orders, and sums instead of histories.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use protocol::{AgentId, AttemptId, JobId, ProjectId, Span, Timestamp};

use super::jobs::Job;
use super::rows::{Columns as _, to_json};
use super::{Connection, Result};
use crate::schedule::Demand;

/// Most earlier runs that say how long a job takes.
const RUNS: i64 = 9;

/// The columns of a job that only the scheduler reads: demand, time-out, environment, group.
pub(super) fn columns(job: &Job) -> Result<(String, i64, String, Option<String>)> {
    let demand = Demand::of(&job.spec, job.trust, &job.project);
    let lock = job.lineage.lock.as_ref().map_or("", |lock| lock.as_str());
    let environment = protocol::Digest::of(format!("{}\n{lock}", job.spec.image));
    let group = job.spec.turn.concurrency.as_ref();
    Ok((
        to_json(&demand)?,
        super::rows::to_int(job.spec.limits.timeout.0),
        environment.as_str().to_owned(),
        group.map(|concurrency| concurrency.group.clone()),
    ))
}

/// What an attempt has taken on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its job.
    pub job: JobId,
    /// The agent.
    pub agent: AgentId,
    /// The project whose job it is.
    pub project: ProjectId,
    /// The job's name.
    pub job_name: String,
    /// How long the job may run.
    pub timeout: Option<Span>,
    /// When the agent began, else when it was given the job.
    pub since: Timestamp,
    /// CPUs, in thousandths.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Disk in bytes.
    pub disk: u64,
    /// UUIDs.
    pub gpus: Vec<String>,
}

/// Everything that is booked.
pub async fn bookings(db: &mut Connection) -> Result<Vec<Booking>> {
    let rows = sqlx::query("SELECT attempt, gpu FROM booked_gpus ORDER BY gpu")
        .fetch_all(&mut *db)
        .await?;
    let mut gpus: HashMap<String, Vec<String>> = HashMap::new();
    for row in &rows {
        let of = gpus.entry(row.text("attempt")?).or_default();
        of.push(row.text("gpu")?);
    }
    let rows = sqlx::query(
        "SELECT bookings.*, attempts.job, jobs.project, jobs.name, jobs.timeout, \
         attempts.created_at, attempts.started_at FROM bookings \
         JOIN attempts ON attempts.id = bookings.attempt JOIN jobs ON jobs.id = attempts.job \
         ORDER BY bookings.attempt",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let attempt: AttemptId = row.parsed("attempt")?;
            let began = row.maybe_time("started_at")?;
            Ok(Booking {
                gpus: gpus.remove(attempt.as_str()).unwrap_or_default(),
                attempt,
                job: row.parsed("job")?,
                agent: row.parsed("agent")?,
                project: row.parsed("project")?,
                job_name: row.text("name")?,
                timeout: row.maybe_int("timeout")?.map(|ms| Span(ms.unsigned_abs())),
                since: began.map_or_else(|| row.time("created_at"), Ok)?,
                cpu_millis: row.size("cpu_millis")?,
                memory: row.size("memory")?,
                disk: row.size("disk")?,
            })
        })
        .collect()
}

/// Jobs of concurrency groups that have a host: (project, group), and the job with its name.
pub async fn in_groups(
    db: &mut Connection,
) -> Result<BTreeMap<(ProjectId, String), (JobId, String)>> {
    let rows = sqlx::query(
        "SELECT id, project, concurrency, name FROM jobs WHERE concurrency IS NOT NULL \
         AND word IN ('leased', 'running', 'stopping') ORDER BY id",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let group = (row.parsed("project")?, row.text("concurrency")?);
            Ok((group, (row.parsed("id")?, row.text("name")?)))
        })
        .collect()
}

/// Jobs of a concurrency group that have no host yet, oldest first, at most 1,000.
pub async fn waiting_of_group(
    db: &mut Connection,
    project: &ProjectId,
    group: &str,
) -> Result<Vec<JobId>> {
    let rows = sqlx::query(
        "SELECT id FROM jobs WHERE project = $1 AND concurrency = $2 \
         AND word IN ('blocked', 'queued') ORDER BY id LIMIT 1000",
    )
    .bind(project.as_str())
    .bind(group)
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// What a project used in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The project.
    pub project: ProjectId,
    /// When the hour began.
    pub hour: Timestamp,
    /// Milliseconds of GPUs, summed.
    pub gpu_ms: u64,
    /// Milliseconds of thousandths of CPUs, summed.
    pub cpu_milli_ms: u64,
}

/// What attempts that ended since `since` used after it, by project and the hour of their end.
pub async fn used(db: &mut Connection, since: Timestamp) -> Result<Vec<Used>> {
    let rows = sqlx::query(
        "SELECT jobs.project, attempts.finished_at / 3600000 AS hour, \
         CAST(SUM(attempts.gpus * (attempts.finished_at - CASE WHEN attempts.started_at > $1 \
         THEN attempts.started_at ELSE $1 END)) AS BIGINT) AS gpu_ms, \
         CAST(SUM(attempts.cpu_millis * (attempts.finished_at - CASE WHEN attempts.started_at > $1 \
         THEN attempts.started_at ELSE $1 END)) AS BIGINT) AS cpu_ms \
         FROM attempts JOIN jobs ON jobs.id = attempts.job \
         WHERE attempts.finished_at >= $1 AND attempts.started_at <= attempts.finished_at \
         GROUP BY jobs.project, attempts.finished_at / 3600000",
    )
    .bind(since.0)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Used {
                project: row.parsed("project")?,
                hour: Timestamp(row.int("hour")?.saturating_mul(3_600_000)),
                gpu_ms: row.size("gpu_ms")?,
                cpu_milli_ms: row.size("cpu_ms")?,
            })
        })
        .collect()
}

/// The agents that ran an attempt of each environment to its end since `since`.
pub async fn warm(
    db: &mut Connection,
    since: Timestamp,
) -> Result<BTreeMap<Arc<str>, BTreeSet<AgentId>>> {
    let rows = sqlx::query(
        "SELECT DISTINCT jobs.environment, attempts.agent \
         FROM attempts JOIN jobs ON jobs.id = attempts.job \
         WHERE attempts.finished_at >= $1 AND attempts.fate = 'finished' \
         AND jobs.environment IS NOT NULL",
    )
    .bind(since.0)
    .fetch_all(db)
    .await?;
    let mut warm: BTreeMap<Arc<str>, BTreeSet<AgentId>> = BTreeMap::new();
    for row in &rows {
        let environment = row.text("environment")?.into();
        warm.entry(environment)
            .or_default()
            .insert(row.parsed("agent")?);
    }
    Ok(warm)
}

/// The median of the last runs of the jobs of this name that succeeded; none: there is none.
pub async fn usual(db: &mut Connection, project: &ProjectId, name: &str) -> Result<Option<Span>> {
    let rows = sqlx::query(
        "SELECT attempts.finished_at - attempts.started_at AS took FROM jobs \
         JOIN attempts ON attempts.job = jobs.id \
         WHERE jobs.project = $1 AND jobs.name = $2 AND jobs.word = 'succeeded' \
         AND attempts.fate = 'finished' AND attempts.started_at <= attempts.finished_at \
         ORDER BY jobs.id DESC LIMIT $3",
    )
    .bind(project.as_str())
    .bind(name)
    .bind(RUNS)
    .fetch_all(db)
    .await?;
    let mut took = rows
        .iter()
        .map(|row| row.size("took"))
        .collect::<Result<Vec<_>>>()?;
    took.sort_unstable();
    Ok(took.get(took.len() / 2).copied().map(Span))
}
