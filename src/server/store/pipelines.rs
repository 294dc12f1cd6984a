//! Rows of pipelines.

use protocol::{CommitId, Failure, PipelineId, ProjectId, Timestamp, Trigger};
use serde_json::Value;
use sqlx::any::AnyRow;

use super::rows::{Columns as _, to_json};
use super::{Connection, Result, StoreError};

/// One trigger at one commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Its id.
    pub id: PipelineId,
    /// Whose.
    pub project: ProjectId,
    /// Counts within the project, from 1; what people say.
    pub number: u64,
    /// Equal for triggers that ask for the same.
    pub trigger_key: String,
    /// What asked.
    pub trigger: Trigger,
    /// The first line of the commit's message.
    pub subject: String,
    /// Who wrote the commit.
    pub author: String,
    /// Why nothing could be planned.
    pub problem: Option<Failure>,
    /// What is worth saying about the plan.
    pub notes: Vec<String>,
    /// Whether its file lets what is newer end what runs, of a pull request.
    pub supersede_running: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

fn pipeline(row: &AnyRow) -> Result<Pipeline> {
    Ok(Pipeline {
        id: row.parsed("id")?,
        project: row.parsed("project")?,
        number: row.size("number")?,
        trigger_key: row.text("trigger_key")?,
        trigger: row.json("trigger_json")?,
        subject: row.text("subject")?,
        author: row.text("author")?,
        problem: row.maybe_json("problem")?,
        notes: row.json("notes")?,
        supersede_running: row.int("supersede_running")? == 1,
        created_at: row.time("created_at")?,
    })
}

/// The number of the project's next pipeline.
pub async fn next_number(db: &mut Connection, project: &ProjectId) -> Result<u64> {
    let row =
        sqlx::query("SELECT COALESCE(MAX(number), 0) AS last FROM pipelines WHERE project = $1")
            .bind(project.as_str())
            .fetch_one(db)
            .await?;
    Ok(row.size("last")? + 1)
}

/// Adds a pipeline.
pub async fn insert(db: &mut Connection, pipeline: &Pipeline) -> Result<()> {
    let trigger = serde_json::to_value(&pipeline.trigger).unwrap_or_default();
    sqlx::query(
        "INSERT INTO pipelines (id, project, number, trigger_key, trigger_kind, trigger_json, \
         commit_id, reference, subject, author, problem, notes, created_at, supersede_running) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(pipeline.id.as_str())
    .bind(pipeline.project.as_str())
    .bind(super::rows::to_int(pipeline.number))
    .bind(&pipeline.trigger_key)
    .bind(trigger.get("trigger").and_then(Value::as_str).unwrap_or(""))
    .bind(trigger.to_string())
    .bind(pipeline.trigger.commit.as_str())
    .bind(&pipeline.trigger.reference)
    .bind(&pipeline.subject)
    .bind(&pipeline.author)
    .bind(pipeline.problem.as_ref().map(to_json).transpose()?)
    .bind(to_json(&pipeline.notes)?)
    .bind(pipeline.created_at.0)
    .bind(i64::from(pipeline.supersede_running))
    .execute(db)
    .await?;
    Ok(())
}

/// One pipeline by its id.
pub async fn find(db: &mut Connection, id: &PipelineId) -> Result<Option<Pipeline>> {
    let row = sqlx::query("SELECT * FROM pipelines WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(pipeline).transpose()
}

/// One pipeline by its id, which must be there.
pub async fn get(db: &mut Connection, id: &PipelineId) -> Result<Pipeline> {
    find(db, id)
        .await?
        .ok_or_else(|| StoreError::Missing(format!("pipeline {id}")))
}

/// The pipelines whose ids stand in these rows, in their order.
///
/// # Errors
/// [`StoreError::Missing`], or the database's.
pub(super) async fn of_rows(db: &mut Connection, rows: &[AnyRow]) -> Result<Vec<Pipeline>> {
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        list.push(get(db, &row.parsed("id")?).await?);
    }
    Ok(list)
}

/// The pipeline that a trigger made before.
pub async fn by_trigger(
    db: &mut Connection,
    project: &ProjectId,
    trigger_key: &str,
) -> Result<Option<Pipeline>> {
    let row = sqlx::query("SELECT * FROM pipelines WHERE project = $1 AND trigger_key = $2")
        .bind(project.as_str())
        .bind(trigger_key)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(pipeline).transpose()
}

/// The newest pipelines, of one project or of all, made before `before`; at most `limit`.
pub async fn recent(
    db: &mut Connection,
    project: Option<&ProjectId>,
    before: Option<&PipelineId>,
    limit: u32,
) -> Result<Vec<Pipeline>> {
    // Ids sort by time, and '~' sorts behind each of them.
    let before = before.map_or("~", PipelineId::as_str);
    let rows =
        match project {
            Some(project) => sqlx::query(
                "SELECT * FROM pipelines WHERE project = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
            )
            .bind(project.as_str())
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?,
            None => {
                sqlx::query("SELECT * FROM pipelines WHERE id < $1 ORDER BY id DESC LIMIT $2")
                    .bind(before)
                    .bind(i64::from(limit))
                    .fetch_all(db)
                    .await?
            }
        };
    rows.iter().map(pipeline).collect()
}

/// The pipelines of one commit, oldest first.
pub async fn of_commit(
    db: &mut Connection,
    project: &ProjectId,
    commit: &CommitId,
) -> Result<Vec<Pipeline>> {
    let rows =
        sqlx::query("SELECT * FROM pipelines WHERE project = $1 AND commit_id = $2 ORDER BY id")
            .bind(project.as_str())
            .bind(commit.as_str())
            .fetch_all(db)
            .await?;
    rows.iter().map(pipeline).collect()
}

/// The newest pipeline of each kind of trigger and ref at a commit, oldest first: re-runs and schedules pile up behind
/// them. What a person only looks at says nothing of the commit.
pub async fn newest_of_commit(
    db: &mut Connection,
    project: &ProjectId,
    commit: &CommitId,
) -> Result<Vec<Pipeline>> {
    let rows = sqlx::query(
        "SELECT * FROM pipelines WHERE id IN (SELECT MAX(id) FROM pipelines \
         WHERE project = $1 AND commit_id = $2 AND trigger_kind <> 'reproduction' \
         GROUP BY trigger_kind, reference) ORDER BY id",
    )
    .bind(project.as_str())
    .bind(commit.as_str())
    .fetch_all(db)
    .await?;
    rows.iter().map(pipeline).collect()
}

/// The newest pipeline of a commit at a ref that stands for it.
pub async fn newest_at(
    db: &mut Connection,
    project: &ProjectId,
    reference: &str,
    commit: &CommitId,
) -> Result<Option<Pipeline>> {
    let row = sqlx::query(
        "SELECT * FROM pipelines WHERE project = $1 AND commit_id = $2 AND reference = $3 \
         AND trigger_kind <> 'reproduction' ORDER BY id DESC LIMIT 1",
    )
    .bind(project.as_str())
    .bind(commit.as_str())
    .bind(reference)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(pipeline).transpose()
}

/// The newest pipeline that a pull request itself asked for, by its ref.
pub async fn newest_of_request(
    db: &mut Connection,
    project: &ProjectId,
    reference: &str,
) -> Result<Option<Pipeline>> {
    let row = sqlx::query(
        "SELECT * FROM pipelines WHERE project = $1 AND trigger_kind = 'pull_request' \
         AND reference = $2 ORDER BY id DESC LIMIT 1",
    )
    .bind(project.as_str())
    .bind(reference)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(pipeline).transpose()
}

/// A commit that a pipeline is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOf {
    /// The commit.
    pub commit: CommitId,
    /// The ref that led to it.
    pub reference: Option<String>,
    /// Whether some of the pipeline's jobs are not over.
    pub goes_on: bool,
}

/// The commits of a project's pipelines that were made since then, or go on.
pub async fn commits(
    db: &mut Connection,
    project: &ProjectId,
    since: Timestamp,
) -> Result<Vec<CommitOf>> {
    let rows = sqlx::query(
        "SELECT commit_id, reference, MAX(goes_on) AS goes_on FROM \
         (SELECT commit_id, reference, created_at, CASE WHEN EXISTS (SELECT 1 FROM jobs \
          WHERE jobs.pipeline = pipelines.id AND jobs.finished_at IS NULL) THEN 1 ELSE 0 END \
          AS goes_on FROM pipelines WHERE project = $1) AS all_of_it \
         WHERE created_at >= $2 OR goes_on = 1 GROUP BY commit_id, reference",
    )
    .bind(project.as_str())
    .bind(since.0)
    .fetch_all(db)
    .await?;
    let commit = |row: &AnyRow| {
        Ok(CommitOf {
            commit: row.parsed("commit_id")?,
            reference: row.maybe_text("reference")?,
            goes_on: row.int("goes_on")? == 1,
        })
    };
    rows.iter().map(commit).collect()
}

/// Other pipelines of the same kind of trigger and ref with jobs that no host has yet, or, with `running`,
/// that are not over. It begins at these jobs, which are few.
pub async fn unsettled(
    db: &mut Connection,
    stands: &Pipeline,
    running: bool,
) -> Result<Vec<PipelineId>> {
    let rows = sqlx::query(
        "SELECT id FROM pipelines WHERE id IN (SELECT pipeline FROM jobs \
         WHERE word IN ('blocked', 'queued', $1, $2) AND project = $3) \
         AND reference = $4 AND id <> $5 \
         AND trigger_kind = (SELECT trigger_kind FROM pipelines WHERE id = $5) ORDER BY id",
    )
    .bind(if running { "leased" } else { "queued" })
    .bind(if running { "running" } else { "queued" })
    .bind(stands.project.as_str())
    .bind(&stands.trigger.reference)
    .bind(stands.id.as_str())
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// The pipelines at a ref with jobs that are not over, oldest first. It begins at these jobs, which are few.
pub async fn open_at(
    db: &mut Connection,
    project: &ProjectId,
    reference: &str,
) -> Result<Vec<Pipeline>> {
    let rows = sqlx::query(
        "SELECT * FROM pipelines WHERE id IN (SELECT pipeline FROM jobs \
         WHERE word IN ('blocked', 'queued', 'leased', 'running') AND project = $1) \
         AND reference = $2 ORDER BY id",
    )
    .bind(project.as_str())
    .bind(reference)
    .fetch_all(db)
    .await?;
    rows.iter().map(pipeline).collect()
}

/// Takes its trigger from a pipeline: asked for again, the same one makes another.
pub async fn stands_no_more(db: &mut Connection, id: &PipelineId) -> Result<()> {
    sqlx::query("UPDATE pipelines SET trigger_key = $1 WHERE id = $2")
        .bind(format!("ended:{id}"))
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}
