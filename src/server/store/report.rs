//! Rows of reports: what a forge should show, what it accepted, and when to try again.

use std::collections::BTreeMap;

use protocol::{CommitId, PipelineId, ProjectId, Span, Timestamp};
use sqlx::any::AnyRow;

use super::pipelines::{self, Pipeline};
use super::rows::{Columns as _, to_json};
use super::{Connection, Result};
use crate::forge::{Shown, Update};

/// A `next_try` further away than this was written before the clock went back.
const LONGEST_WAIT: Span = Span::hours(24);

/// One thing that a forge should show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whose.
    pub project: ProjectId,
    /// What should stand there.
    pub desired: Update,
    /// What the forge took last.
    pub accepted: Option<Update>,
    /// What the forge calls it.
    pub remembered: Option<String>,
    /// Whether they differ and it is to be sent.
    pub open: bool,
    /// How often the forge did not take it since it changed.
    pub tries: u32,
    /// Not before then.
    pub next_try: Timestamp,
    /// Why the forge did not take it the last time.
    pub problem: Option<String>,
    /// When it changed last.
    pub changed_at: Timestamp,
}

fn report(row: &AnyRow) -> Result<Report> {
    Ok(Report {
        project: row.parsed("project")?,
        desired: row.json("desired")?,
        accepted: row.maybe_json("accepted")?,
        remembered: row.maybe_text("remembered")?,
        open: row.int("open")? == 1,
        tries: row.small("tries")?,
        next_try: row.time("next_try")?,
        problem: row.maybe_text("problem")?,
        changed_at: row.time("changed_at")?,
    })
}

/// Writes down what should stand in a slot. A row that says it already stays as it is; one that
/// changes is sent anew, whatever the forge said of its old form. True where it changed.
pub async fn put(
    db: &mut Connection,
    project: &ProjectId,
    desired: &Update,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO reports (project, slot, commit_id, desired, open, is_final, changed_at, \
         tries, next_try) VALUES ($1, $2, $3, $4, 1, $5, $6, 0, $6) \
         ON CONFLICT (project, slot) DO UPDATE SET commit_id = $3, desired = $4, \
         open = CASE WHEN reports.accepted = $4 THEN 0 ELSE 1 END, is_final = $5, \
         changed_at = $6, tries = 0, next_try = $6, problem = NULL \
         WHERE reports.desired <> $4",
    )
    .bind(project.as_str())
    .bind(desired.slot())
    .bind(desired.commit().map(CommitId::as_str))
    .bind(to_json(desired)?)
    .bind(i64::from(desired.is_final()))
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether anything was ever to be shown in a slot.
pub async fn is_known(db: &mut Connection, project: &ProjectId, slot: &str) -> Result<bool> {
    let row = sqlx::query("SELECT slot FROM reports WHERE project = $1 AND slot = $2")
        .bind(project.as_str())
        .bind(slot)
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

/// What is to be sent for a project now: final states first, then the oldest; at most `limit`. What
/// is not final is sent again only `quiet` after it was sent last.
pub async fn due(
    db: &mut Connection,
    project: &ProjectId,
    now: Timestamp,
    quiet: Span,
    limit: u32,
) -> Result<Vec<Report>> {
    let rows = sqlx::query(
        "SELECT * FROM reports WHERE open = 1 AND project = $1 \
         AND (next_try <= $2 OR next_try > $3) \
         AND (is_final = 1 OR accepted_at IS NULL OR accepted_at <= $4 OR accepted_at > $2) \
         ORDER BY is_final DESC, changed_at, slot LIMIT $5",
    )
    .bind(project.as_str())
    .bind(now.0)
    .bind((now + LONGEST_WAIT).0)
    .bind(now.0.saturating_sub_unsigned(quiet.0))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(report).collect()
}

/// The projects that have something to send, now or later.
pub async fn open_projects(db: &mut Connection) -> Result<Vec<ProjectId>> {
    let rows = sqlx::query("SELECT DISTINCT project FROM reports WHERE open = 1 ORDER BY project")
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| row.parsed("project")).collect()
}

/// Whether anything that is to be sent for a project changed after `since`.
pub async fn changed_since(
    db: &mut Connection,
    project: &ProjectId,
    since: Timestamp,
) -> Result<bool> {
    let row = sqlx::query(
        "SELECT slot FROM reports WHERE open = 1 AND project = $1 AND changed_at > $2 LIMIT 1",
    )
    .bind(project.as_str())
    .bind(since.0)
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// Ends the waits of what a forge did not take.
pub async fn try_now(db: &mut Connection, project: &ProjectId, now: Timestamp) -> Result<()> {
    sqlx::query("UPDATE reports SET next_try = $1 WHERE open = 1 AND project = $2 AND tries > 0")
        .bind(now.0)
        .bind(project.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Notes that the forge took `sent` and what it made of it. Where another update is desired by now, the row stays
/// open.
pub async fn accepted(
    db: &mut Connection,
    project: &ProjectId,
    sent: &Update,
    shown: &Shown,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE reports SET accepted = $1, accepted_at = $2, remembered = $3, \
         open = CASE WHEN desired = $1 THEN 0 ELSE 1 END, tries = 0, problem = NULL \
         WHERE project = $4 AND slot = $5",
    )
    .bind(to_json(sent)?)
    .bind(now.0)
    .bind(&shown.remembered)
    .bind(project.as_str())
    .bind(sent.slot())
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that the forge took a part of `sent`: what is to be known for the next part.
pub async fn went_on(
    db: &mut Connection,
    project: &ProjectId,
    sent: &Update,
    remembered: &str,
) -> Result<()> {
    sqlx::query(
        "UPDATE reports SET remembered = $1, tries = 0, problem = NULL \
         WHERE project = $2 AND slot = $3",
    )
    .bind(remembered)
    .bind(project.as_str())
    .bind(sent.slot())
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that the forge did not take `sent`, and when to try again; none: not before it changes. A
/// row that changed in between is left alone.
pub async fn not_accepted(
    db: &mut Connection,
    project: &ProjectId,
    sent: &Update,
    problem: &str,
    next_try: Option<Timestamp>,
) -> Result<()> {
    sqlx::query(
        "UPDATE reports SET tries = tries + 1, problem = $1, next_try = COALESCE($2, next_try), \
         open = $3 WHERE project = $4 AND slot = $5 AND desired = $6",
    )
    .bind(problem)
    .bind(next_try.map(|at| at.0))
    .bind(i64::from(next_try.is_some()))
    .bind(project.as_str())
    .bind(sent.slot())
    .bind(to_json(sent)?)
    .execute(db)
    .await?;
    Ok(())
}

/// Why a forge does not show what it should of a commit; each reason once, the newest first.
pub async fn problems_of(
    db: &mut Connection,
    project: &ProjectId,
    commit: &CommitId,
) -> Result<Vec<String>> {
    let rows = sqlx::query(
        "SELECT problem, MAX(changed_at) AS at FROM reports WHERE project = $1 AND commit_id = $2 \
         AND problem IS NOT NULL GROUP BY problem ORDER BY at DESC",
    )
    .bind(project.as_str())
    .bind(commit.as_str())
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| row.text("problem")).collect()
}

/// Why the forges of projects do not show something, the newest reason of each project since then.
pub async fn problems(
    db: &mut Connection,
    since: Timestamp,
) -> Result<BTreeMap<ProjectId, String>> {
    let rows = sqlx::query(
        "SELECT project, problem FROM reports WHERE problem IS NOT NULL AND changed_at = \
         (SELECT MAX(newest.changed_at) FROM reports AS newest \
         WHERE newest.project = reports.project AND newest.problem IS NOT NULL) \
         AND changed_at >= $1",
    )
    .bind(since.0)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.parsed("project")?, row.text("problem")?)))
        .collect()
}

/// All that should be shown of a commit.
pub async fn of_commit(
    db: &mut Connection,
    project: &ProjectId,
    commit: &CommitId,
) -> Result<Vec<Report>> {
    let rows =
        sqlx::query("SELECT * FROM reports WHERE project = $1 AND commit_id = $2 ORDER BY slot")
            .bind(project.as_str())
            .bind(commit.as_str())
            .fetch_all(db)
            .await?;
    rows.iter().map(report).collect()
}

/// Of each commit the oldest pipeline, not older than `from`, whose statuses may still change; oldest first, those behind
/// `after`.
pub async fn unreported(
    db: &mut Connection,
    from: &str,
    after: Option<&PipelineId>,
    limit: u32,
) -> Result<Vec<Pipeline>> {
    let rows = sqlx::query(
        "SELECT MIN(pipelines.id) AS id FROM pipelines \
         LEFT JOIN reported_pipelines ON reported_pipelines.pipeline = pipelines.id \
         WHERE pipelines.id >= $1 AND reported_pipelines.pipeline IS NULL \
         GROUP BY pipelines.project, pipelines.commit_id \
         HAVING MIN(pipelines.id) > $3 ORDER BY id LIMIT $2",
    )
    .bind(from)
    .bind(i64::from(limit))
    .bind(after.map_or("", PipelineId::as_str))
    .fetch_all(&mut *db)
    .await?;
    pipelines::of_rows(db, &rows).await
}

/// Pipelines of a commit whose statuses will not change any more, of those that are not marked: their jobs are over
/// and known to the registry, their notebooks compared, or `long_ago` was long enough to wait for that.
pub async fn settled(
    db: &mut Connection,
    project: &ProjectId,
    commit: &CommitId,
    long_ago: Timestamp,
) -> Result<Vec<PipelineId>> {
    let rows = sqlx::query(
        "SELECT pipelines.id AS id FROM pipelines \
         LEFT JOIN reported_pipelines ON reported_pipelines.pipeline = pipelines.id \
         WHERE pipelines.project = $1 AND pipelines.commit_id = $2 \
         AND reported_pipelines.pipeline IS NULL \
         AND NOT EXISTS (SELECT jobs.id FROM jobs \
           LEFT JOIN registered_jobs ON registered_jobs.job = jobs.id \
           WHERE jobs.pipeline = pipelines.id AND (jobs.finished_at IS NULL \
             OR (registered_jobs.job IS NULL AND jobs.finished_at >= $3))) \
         AND (pipelines.trigger_kind <> 'pull_request' OR pipelines.created_at < $3 \
           OR EXISTS (SELECT notebook_diffs.pipeline FROM notebook_diffs \
             WHERE notebook_diffs.pipeline = pipelines.id)) \
         ORDER BY pipelines.id",
    )
    .bind(project.as_str())
    .bind(commit.as_str())
    .bind(long_ago.0)
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// Notes that the statuses of a pipeline stand in their rows and will not change.
pub async fn mark_reported(db: &mut Connection, pipeline: &PipelineId) -> Result<()> {
    sqlx::query(
        "INSERT INTO reported_pipelines (pipeline) VALUES ($1) ON CONFLICT (pipeline) DO NOTHING",
    )
    .bind(pipeline.as_str())
    .execute(db)
    .await?;
    Ok(())
}
