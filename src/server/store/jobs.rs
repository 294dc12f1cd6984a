//! Rows of jobs. [`advance`] is the only door through which a state is written.

use std::collections::BTreeSet;

use plan::PlannedJob;
use protocol::job::{Move, State, next};
use protocol::{
    AttemptId, CommitId, Digest, JobId, JobSpec, PipelineId, ProjectId, Timestamp, Trust,
};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::rows::{Columns as _, placeholders, to_int, to_json, to_word};
use super::{Connection, Result, StoreError, queue};

/// What a plan says of a job beside what is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// What its notebook means.
    #[serde(default)]
    pub fingerprint: Option<Digest>,
    /// Hash of the text that says which Python packages it needs.
    #[serde(default)]
    pub lock: Option<Digest>,
    /// What its result may depend on that has no version, as sentences.
    #[serde(default)]
    pub unversioned: Vec<String>,
    /// What changed since the last job of this name, as sentences, most telling first.
    #[serde(default)]
    pub changed: Vec<String>,
}

/// One unit of work.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its pipeline.
    pub pipeline: PipelineId,
    /// Its project.
    pub project: ProjectId,
    /// What is to be done.
    pub spec: JobSpec,
    /// What an equal job has in common with it.
    pub key: Option<Digest>,
    /// How far its commit is trusted.
    pub trust: Trust,
    /// What the plan says of it.
    pub lineage: Lineage,
    /// Where it stands.
    pub state: State,
    /// Rises with every write of the state.
    pub version: u64,
    /// The generation of the last attempt that started.
    pub generation: u32,
    /// Higher goes first.
    pub priority: i64,
    /// Why no host has it yet.
    pub reason: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last queued.
    pub queued_at: Option<Timestamp>,
    /// When it finished.
    pub finished_at: Option<Timestamp>,
}

fn job(row: &AnyRow) -> Result<Job> {
    Ok(Job {
        id: row.parsed("id")?,
        pipeline: row.parsed("pipeline")?,
        project: row.parsed("project")?,
        spec: row.json("spec")?,
        key: row.maybe_parsed("job_key")?,
        trust: row.word("trust")?,
        lineage: row.json("lineage")?,
        state: row.json("state")?,
        version: row.size("version")?,
        generation: row.small("generation")?,
        priority: row.int("priority")?,
        reason: row.maybe_text("reason")?,
        created_at: row.time("created_at")?,
        queued_at: row.maybe_time("queued_at")?,
        finished_at: row.maybe_time("finished_at")?,
    })
}

/// Adds a job in the state it has.
pub async fn insert(db: &mut Connection, job: &Job) -> Result<()> {
    let (demand, timeout, environment, group) = queue::columns(job)?;
    sqlx::query(
        "INSERT INTO jobs (id, pipeline, project, name, definition, job_key, trust, spec, lineage, \
         state, word, version, generation, priority, created_at, queued_at, finished_at, demand, \
         timeout, environment, concurrency) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, \
         $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
    )
    .bind(job.id.as_str())
    .bind(job.pipeline.as_str())
    .bind(job.project.as_str())
    .bind(&job.spec.name)
    .bind(&job.spec.definition)
    .bind(job.key.as_ref().map(Digest::as_str))
    .bind(to_word(&job.trust)?)
    .bind(to_json(&job.spec)?)
    .bind(to_json(&job.lineage)?)
    .bind(to_json(&job.state)?)
    .bind(job.state.word())
    .bind(to_int(job.version))
    .bind(i64::from(job.generation))
    .bind(job.priority)
    .bind(job.created_at.0)
    .bind(job.queued_at.map(|at| at.0))
    .bind(job.finished_at.map(|at| at.0))
    .bind(demand)
    .bind(timeout)
    .bind(environment)
    .bind(group)
    .execute(db)
    .await?;
    Ok(())
}

/// Keeps the plan of a job: what its key was made of.
pub async fn insert_plan(db: &mut Connection, id: &JobId, planned: &PlannedJob) -> Result<()> {
    sqlx::query("INSERT INTO plans (job, planned) VALUES ($1, $2)")
        .bind(id.as_str())
        .bind(to_json(planned)?)
        .execute(db)
        .await?;
    Ok(())
}

/// The plan of the newest job of this name in a project, whatever became of it.
pub async fn last_plan(
    db: &mut Connection,
    project: &ProjectId,
    name: &str,
) -> Result<Option<PlannedJob>> {
    let row = sqlx::query(
        "SELECT plans.planned FROM plans JOIN jobs ON jobs.id = plans.job \
         WHERE jobs.project = $1 AND jobs.name = $2 ORDER BY jobs.id DESC LIMIT 1",
    )
    .bind(project.as_str())
    .bind(name)
    .fetch_optional(db)
    .await?;
    row.map(|row| row.json("planned")).transpose()
}

/// The plan of a job.
pub async fn plan(db: &mut Connection, id: &JobId) -> Result<Option<PlannedJob>> {
    let row = sqlx::query("SELECT planned FROM plans WHERE job = $1")
        .bind(id.as_str())
        .fetch_optional(db)
        .await?;
    row.map(|row| row.json("planned")).transpose()
}

/// Takes one step and writes the state after it; gives the job as it is then. `started` is the
/// generation of the attempt that starts or resumes with this step.
///
/// # Errors
/// [`StoreError::Illegal`] where the state does not know the move, [`StoreError::Changed`] where the
/// row is not the one that was read.
pub async fn advance(
    db: &mut Connection,
    before: &Job,
    step: Move,
    started: Option<u32>,
    at: Timestamp,
) -> Result<Job> {
    let mut after = before.clone();
    after.state = next(&before.state, step)?;
    after.version = before.version + 1;
    after.generation = started.map_or(before.generation, |g| g.max(before.generation));
    match &after.state {
        State::Queued => after.queued_at = Some(at),
        State::Finished { .. } => after.finished_at = Some(at),
        State::Blocked { .. }
        | State::Leased { .. }
        | State::Running { .. }
        | State::Stopping { .. } => {}
    }
    after.reason = None;
    let written = sqlx::query(
        "UPDATE jobs SET state = $1, word = $2, version = $3, generation = $4, reason = NULL, \
         queued_at = $5, finished_at = $6 WHERE id = $7 AND version = $8",
    )
    .bind(to_json(&after.state)?)
    .bind(after.state.word())
    .bind(to_int(after.version))
    .bind(i64::from(after.generation))
    .bind(after.queued_at.map(|at| at.0))
    .bind(after.finished_at.map(|at| at.0))
    .bind(before.id.as_str())
    .bind(to_int(before.version))
    .execute(db)
    .await?;
    if written.rows_affected() == 1 {
        Ok(after)
    } else {
        Err(StoreError::Changed(before.id.clone()))
    }
}

/// One job by its id.
pub async fn find(db: &mut Connection, id: &JobId) -> Result<Option<Job>> {
    let row = sqlx::query("SELECT * FROM jobs WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(job).transpose()
}

/// One job by its id, which must be there.
pub async fn get(db: &mut Connection, id: &JobId) -> Result<Job> {
    find(db, id)
        .await?
        .ok_or_else(|| StoreError::Missing(format!("job {id}")))
}

/// The job of an attempt, with any attempt of it, believed or not.
pub async fn of_attempt(db: &mut Connection, attempt: &AttemptId) -> Result<Option<Job>> {
    let row = sqlx::query(
        "SELECT jobs.* FROM jobs JOIN attempts ON attempts.job = jobs.id WHERE attempts.id = $1",
    )
    .bind(attempt.as_str())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(job).transpose()
}

/// The jobs of a pipeline, in the order they were planned.
pub async fn of_pipeline(db: &mut Connection, pipeline: &PipelineId) -> Result<Vec<Job>> {
    let rows = sqlx::query("SELECT * FROM jobs WHERE pipeline = $1 ORDER BY id")
        .bind(pipeline.as_str())
        .fetch_all(db)
        .await?;
    rows.iter().map(job).collect()
}

/// The newest job of each name at a commit, over all of its pipelines, in the order in which the names came.
pub async fn newest_of_commit(
    db: &mut Connection,
    project: &ProjectId,
    commit: &CommitId,
) -> Result<Vec<Job>> {
    let rows = sqlx::query(
        "SELECT jobs.* FROM jobs JOIN (\
           SELECT MIN(jobs.id) AS first, MAX(jobs.id) AS newest FROM jobs \
           JOIN pipelines ON pipelines.id = jobs.pipeline \
           WHERE pipelines.project = $1 AND pipelines.commit_id = $2 \
           AND pipelines.trigger_kind <> 'reproduction' GROUP BY jobs.name\
         ) AS names ON names.newest = jobs.id ORDER BY names.first",
    )
    .bind(project.as_str())
    .bind(commit.as_str())
    .fetch_all(db)
    .await?;
    rows.iter().map(job).collect()
}

/// The jobs of a commit that are not over, oldest first.
pub async fn open_of_commit(
    db: &mut Connection,
    project: &ProjectId,
    commit: &CommitId,
) -> Result<Vec<Job>> {
    let rows = sqlx::query(
        "SELECT jobs.* FROM jobs JOIN pipelines ON pipelines.id = jobs.pipeline \
         WHERE pipelines.project = $1 AND pipelines.commit_id = $2 AND jobs.finished_at IS NULL \
         ORDER BY jobs.id",
    )
    .bind(project.as_str())
    .bind(commit.as_str())
    .fetch_all(db)
    .await?;
    rows.iter().map(job).collect()
}

/// The jobs of a commit that ended since then, oldest first.
pub async fn ended_since(
    db: &mut Connection,
    project: &ProjectId,
    commit: &CommitId,
    since: Timestamp,
) -> Result<Vec<Job>> {
    let rows = sqlx::query(
        "SELECT jobs.* FROM jobs JOIN pipelines ON pipelines.id = jobs.pipeline \
         WHERE pipelines.project = $1 AND pipelines.commit_id = $2 AND jobs.finished_at >= $3 \
         ORDER BY jobs.id",
    )
    .bind(project.as_str())
    .bind(commit.as_str())
    .bind(since.0)
    .fetch_all(db)
    .await?;
    rows.iter().map(job).collect()
}

/// How many jobs of a pipeline stand at one word, and when the last of them ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The word of the state.
    pub word: String,
    /// When the last of them ended.
    pub last_end: Option<Timestamp>,
}

/// At which words the jobs of these pipelines stand.
pub async fn tallies(db: &mut Connection, of: &[PipelineId]) -> Result<Vec<Tally>> {
    if of.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT pipeline, word, MAX(finished_at) AS last_end FROM jobs \
         WHERE pipeline IN {} GROUP BY pipeline, word",
        placeholders(1, of.len())
    );
    // Placeholders only: no data stands in the text.
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for id in of {
        query = query.bind(id.as_str());
    }
    let rows = query.fetch_all(db).await?;
    rows.iter()
        .map(|row| {
            Ok(Tally {
                pipeline: row.parsed("pipeline")?,
                word: row.text("word")?,
                last_end: row.maybe_time("last_end")?,
            })
        })
        .collect()
}

/// The blocked jobs of a pipeline, oldest first.
pub async fn blocked_in(db: &mut Connection, pipeline: &PipelineId) -> Result<Vec<Job>> {
    let rows =
        sqlx::query("SELECT * FROM jobs WHERE word = 'blocked' AND pipeline = $1 ORDER BY id")
            .bind(pipeline.as_str())
            .fetch_all(db)
            .await?;
    rows.iter().map(job).collect()
}

/// The blocked jobs of a project that are equal to one with this key, oldest first, at most `limit`.
pub async fn blocked_with_key(
    db: &mut Connection,
    project: &ProjectId,
    key: &Digest,
    limit: u32,
) -> Result<Vec<Job>> {
    let rows = sqlx::query(
        "SELECT * FROM jobs WHERE word = 'blocked' AND project = $1 AND job_key = $2 ORDER BY id LIMIT $3",
    )
    .bind(project.as_str())
    .bind(key.as_str())
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(job).collect()
}

/// How many jobs stand at each word.
pub async fn counts(db: &mut Connection) -> Result<Vec<(String, u64)>> {
    let rows = sqlx::query("SELECT word, COUNT(*) AS jobs FROM jobs GROUP BY word ORDER BY word")
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| Ok((row.text("word")?, row.size("jobs")?)))
        .collect()
}

/// Jobs of a project with this key that succeeded or are not finished, newest first, at most 50.
pub async fn with_key(db: &mut Connection, project: &ProjectId, key: &Digest) -> Result<Vec<Job>> {
    let rows = sqlx::query(
        "SELECT * FROM jobs WHERE project = $1 AND job_key = $2 \
         AND (word = 'succeeded' OR finished_at IS NULL) \
         AND NOT EXISTS (SELECT 1 FROM job_runs JOIN model_versions ON model_versions.run = job_runs.run \
            WHERE job_runs.job = jobs.id AND model_versions.source IS NULL \
            AND model_versions.deleted_at IS NOT NULL) \
         ORDER BY id DESC LIMIT 50",
    )
    .bind(project.as_str())
    .bind(key.as_str())
    .fetch_all(db)
    .await?;
    rows.iter().map(job).collect()
}

/// Of these jobs those that left a version of a model which was removed: its files are gone, or will be.
pub async fn without_model(db: &mut Connection, of: &BTreeSet<&JobId>) -> Result<BTreeSet<JobId>> {
    if of.is_empty() {
        return Ok(BTreeSet::new());
    }
    let sql = format!(
        "SELECT DISTINCT job_runs.job AS job FROM job_runs \
         JOIN model_versions ON model_versions.run = job_runs.run \
         WHERE model_versions.source IS NULL AND model_versions.deleted_at IS NOT NULL \
         AND job_runs.job IN {}",
        placeholders(1, of.len())
    );
    // Placeholders only: no data stands in the text.
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for id in of {
        query = query.bind(id.as_str());
    }
    let rows = query.fetch_all(db).await?;
    rows.iter().map(|row| row.parsed("job")).collect()
}

/// The newest job of the same name in the project that ran and succeeded before this one was made.
pub async fn last_success_before(db: &mut Connection, before: &Job) -> Result<Option<Job>> {
    let row = sqlx::query(
        "SELECT * FROM jobs WHERE project = $1 AND name = $2 AND word = 'succeeded' AND id < $3 \
         ORDER BY id DESC LIMIT 1",
    )
    .bind(before.project.as_str())
    .bind(&before.spec.name)
    .bind(before.id.as_str())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(job).transpose()
}
