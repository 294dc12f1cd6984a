//! Rows of attempts and of what they have booked. A booking lives until the agent says that all of it
//! is free and clean, however the job ended.

use std::collections::BTreeMap;

use protocol::agent_api::AttemptOrder;
use protocol::event::{Artifact, Phase};
use protocol::job::State;
use protocol::report::AttemptReport;
use protocol::{AgentId, AttemptId, JobId, Outcome, PipelineId, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::jobs::Job;
use super::rows::{Columns as _, to_int, to_json, to_word};
use super::{Connection, Result, StoreError};

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Its agent works on it, or is to begin.
    Open,
    /// Its agent had the last word.
    Finished,
    /// Its agent was not seen for too long; it may come back until a replacement starts.
    Lost,
    /// Nobody believes it any more.
    Abandoned,
}

/// One execution of a job on one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Its job.
    pub job: JobId,
    /// Its agent.
    pub agent: AgentId,
    /// 1 for the first of its job.
    pub number: u32,
    /// Fences late writers.
    pub generation: u32,
    /// The order, without secrets.
    pub order: AttemptOrder,
    /// What became of it.
    pub fate: Fate,
    /// Who wants it to end so that its job goes on elsewhere.
    pub evicted_by: Option<String>,
    /// The last phase that the agent reported.
    pub phase: Option<Phase>,
    /// When it was given to the agent.
    pub created_at: Timestamp,
    /// When the agent began.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The agent's report.
    pub report: Option<AttemptReport>,
}

impl Attempt {
    /// Whether one that was lost would be believed again: nothing has begun in its place, and its job is not over.
    #[must_use]
    pub fn may_return(&self, job: &Job) -> bool {
        match job.state {
            State::Queued | State::Leased { .. } => {
                self.fate == Fate::Lost && self.generation >= job.generation
            }
            State::Blocked { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Finished { .. } => false,
        }
    }
}

fn attempt(row: &AnyRow) -> Result<Attempt> {
    Ok(Attempt {
        id: row.parsed("id")?,
        job: row.parsed("job")?,
        agent: row.parsed("agent")?,
        number: row.small("number")?,
        generation: row.small("generation")?,
        order: row.json("order_json")?,
        fate: row.word("fate")?,
        evicted_by: row.maybe_text("evicted_by")?,
        phase: match row.maybe_text("phase")? {
            Some(_) => Some(row.word("phase")?),
            None => None,
        },
        created_at: row.time("created_at")?,
        started_at: row.maybe_time("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
        outcome: row.maybe_json("outcome")?,
        report: row.maybe_json("report")?,
    })
}

/// Adds an attempt with its booking. A GPU that is booked already is a database error.
pub async fn insert(db: &mut Connection, attempt: &Attempt) -> Result<()> {
    let resources = &attempt.order.spec.resources;
    sqlx::query(
        "INSERT INTO attempts (id, job, agent, number, generation, order_json, fate, created_at, gpus, \
         cpu_millis) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(attempt.id.as_str())
    .bind(attempt.job.as_str())
    .bind(attempt.agent.as_str())
    .bind(i64::from(attempt.number))
    .bind(i64::from(attempt.generation))
    .bind(to_json(&attempt.order)?)
    .bind(to_word(&attempt.fate)?)
    .bind(attempt.created_at.0)
    .bind(i64::try_from(attempt.order.gpus.len()).unwrap_or(i64::MAX))
    .bind(to_int(resources.cpu_millis))
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "INSERT INTO bookings (attempt, agent, cpu_millis, memory, disk) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(attempt.id.as_str())
    .bind(attempt.agent.as_str())
    .bind(to_int(resources.cpu_millis))
    .bind(to_int(resources.memory.0))
    .bind(to_int(resources.disk.unwrap_or_default().0))
    .execute(&mut *db)
    .await?;
    for gpu in &attempt.order.gpus {
        sqlx::query("INSERT INTO booked_gpus (agent, gpu, attempt) VALUES ($1, $2, $3)")
            .bind(attempt.agent.as_str())
            .bind(gpu)
            .bind(attempt.id.as_str())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// One attempt by its id.
pub async fn find(db: &mut Connection, id: &AttemptId) -> Result<Option<Attempt>> {
    let row = sqlx::query("SELECT * FROM attempts WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(attempt).transpose()
}

/// One attempt by its id, which must be there.
pub async fn get(db: &mut Connection, id: &AttemptId) -> Result<Attempt> {
    find(db, id)
        .await?
        .ok_or_else(|| StoreError::Missing(format!("attempt {id}")))
}

/// The attempts of a job in the order of their numbers, but for those that were given up before they began: they stand
/// first. The last one is the one that counts: what was to replace an attempt that came back is not.
pub async fn of_job(db: &mut Connection, job: &JobId) -> Result<Vec<Attempt>> {
    let rows = sqlx::query(
        "SELECT * FROM attempts WHERE job = $1 \
         ORDER BY CASE WHEN fate = 'abandoned' AND started_at IS NULL THEN 0 ELSE 1 END, number",
    )
    .bind(job.as_str())
    .fetch_all(db)
    .await?;
    rows.iter().map(attempt).collect()
}

/// When the last attempt of each job of a pipeline began, of those where one did.
pub async fn started(
    db: &mut Connection,
    pipeline: &PipelineId,
) -> Result<BTreeMap<JobId, Timestamp>> {
    let rows = sqlx::query(
        "SELECT attempts.job, attempts.started_at FROM attempts \
         JOIN jobs ON jobs.id = attempts.job WHERE jobs.pipeline = $1 ORDER BY attempts.number",
    )
    .bind(pipeline.as_str())
    .fetch_all(db)
    .await?;
    let mut started = BTreeMap::new();
    for row in &rows {
        let job: JobId = row.parsed("job")?;
        match row.maybe_time("started_at")? {
            Some(at) => started.insert(job, at),
            None => started.remove(&job),
        };
    }
    Ok(started)
}

/// The attempts of an agent that are open or lost: what it may still say something about.
pub async fn unsettled_of_agent(db: &mut Connection, agent: &AgentId) -> Result<Vec<Attempt>> {
    let rows = sqlx::query(
        "SELECT * FROM attempts WHERE agent = $1 AND fate IN ('open', 'lost') ORDER BY id",
    )
    .bind(agent.as_str())
    .fetch_all(db)
    .await?;
    rows.iter().map(attempt).collect()
}

/// All open attempts.
pub async fn open(db: &mut Connection) -> Result<Vec<Attempt>> {
    let rows = sqlx::query("SELECT * FROM attempts WHERE fate = 'open' ORDER BY id")
        .fetch_all(db)
        .await?;
    rows.iter().map(attempt).collect()
}

/// Wants all open attempts of an agent to end, so that their jobs go on elsewhere. Gives how many are new to that.
pub async fn evict(db: &mut Connection, agent: &AgentId, by: &str) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE attempts SET evicted_by = $1 \
         WHERE agent = $2 AND fate = 'open' AND evicted_by IS NULL",
    )
    .bind(by)
    .bind(agent.as_str())
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Notes that an attempt ended for its host's sake, by whom, where nobody did yet.
pub async fn set_evicted(db: &mut Connection, id: &AttemptId, by: &str) -> Result<()> {
    sqlx::query("UPDATE attempts SET evicted_by = $1 WHERE id = $2 AND evicted_by IS NULL")
        .bind(by)
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Notes what became of an attempt.
pub async fn set_fate(db: &mut Connection, id: &AttemptId, fate: Fate) -> Result<()> {
    sqlx::query("UPDATE attempts SET fate = $1 WHERE id = $2")
        .bind(to_word(&fate)?)
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Notes the phase that the agent reported, and when it began.
pub async fn set_phase(
    db: &mut Connection,
    id: &AttemptId,
    phase: Phase,
    started_at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE attempts SET phase = $1, started_at = COALESCE(started_at, $2) WHERE id = $3",
    )
    .bind(phase.word())
    .bind(started_at.0)
    .bind(id.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// Ends an attempt without a report (lost, forgotten, or fenced before it began).
pub async fn end(
    db: &mut Connection,
    id: &AttemptId,
    fate: Fate,
    outcome: &Outcome,
    at: Timestamp,
) -> Result<()> {
    sqlx::query("UPDATE attempts SET fate = $1, outcome = $2, finished_at = $3 WHERE id = $4")
        .bind(to_word(&fate)?)
        .bind(to_json(outcome)?)
        .bind(at.0)
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Makes a lost attempt one that runs again.
pub async fn reopen(db: &mut Connection, id: &AttemptId) -> Result<()> {
    sqlx::query(
        "UPDATE attempts SET fate = 'open', outcome = NULL, finished_at = NULL \
         WHERE id = $1 AND fate = 'lost'",
    )
    .bind(id.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// Keeps the agent's report, links the artifacts, and ends the attempt.
pub async fn finish(db: &mut Connection, id: &AttemptId, report: &AttemptReport) -> Result<()> {
    sqlx::query(
        "UPDATE attempts SET fate = 'finished', phase = 'finished', outcome = $1, report = $2, \
         started_at = $3, finished_at = $4 WHERE id = $5",
    )
    .bind(to_json(&report.outcome)?)
    .bind(to_json(report)?)
    .bind(report.started_at.0)
    .bind(report.finished_at.0)
    .bind(id.as_str())
    .execute(&mut *db)
    .await?;
    for artifact in &report.artifacts {
        insert_artifact(db, id, artifact).await?;
    }
    Ok(())
}

/// Links a file to an attempt; the same one twice is one.
async fn insert_artifact(db: &mut Connection, id: &AttemptId, artifact: &Artifact) -> Result<()> {
    sqlx::query(
        "INSERT INTO artifacts (attempt, role, path, digest, size) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (attempt, role, path) DO NOTHING",
    )
    .bind(id.as_str())
    .bind(to_word(&artifact.role)?)
    .bind(&artifact.path)
    .bind(artifact.blob.as_str())
    .bind(to_int(artifact.size.0))
    .execute(db)
    .await?;
    Ok(())
}

/// The files of an attempt, by role and path.
pub async fn artifacts(db: &mut Connection, id: &AttemptId) -> Result<Vec<Artifact>> {
    let rows = sqlx::query("SELECT * FROM artifacts WHERE attempt = $1")
        .bind(id.as_str())
        .fetch_all(db)
        .await?;
    let mut files = rows
        .iter()
        .map(|row| {
            Ok(Artifact {
                role: row.word("role")?,
                path: row.text("path")?,
                blob: row.parsed("digest")?,
                size: protocol::ByteSize(row.size("size")?),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    files.sort_by(|a, b| (a.role, &a.path).cmp(&(b.role, &b.path)));
    Ok(files)
}

/// Whether an attempt has something booked.
pub async fn has_booking(db: &mut Connection, id: &AttemptId) -> Result<bool> {
    let row = sqlx::query("SELECT attempt FROM bookings WHERE attempt = $1")
        .bind(id.as_str())
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

/// The attempts that have something booked on an agent, and what became of them.
pub async fn booked_by(db: &mut Connection, agent: &AgentId) -> Result<Vec<(AttemptId, Fate)>> {
    let rows = sqlx::query(
        "SELECT attempts.id, attempts.fate FROM bookings \
         JOIN attempts ON attempts.id = bookings.attempt WHERE bookings.agent = $1 ORDER BY attempts.id",
    )
    .bind(agent.as_str())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.parsed("id")?, row.word("fate")?)))
        .collect()
}

/// Frees what an attempt had booked. True where there was something.
pub async fn release(db: &mut Connection, id: &AttemptId) -> Result<bool> {
    sqlx::query("DELETE FROM booked_gpus WHERE attempt = $1")
        .bind(id.as_str())
        .execute(&mut *db)
        .await?;
    let done = sqlx::query("DELETE FROM bookings WHERE attempt = $1")
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}
