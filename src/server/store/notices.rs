//! Rows of notices: what receivers outside of forges are to be told, and whether they took it.

use std::collections::BTreeMap;

use protocol::{PipelineId, ProjectId, Span, Timestamp};
use sqlx::any::AnyRow;

use super::pipelines::{self, Pipeline};
use super::rows::Columns as _;
use super::{Connection, Result};

/// A `next_try` further away than this was written before the clock went back.
const LONGEST_WAIT: Span = Span::hours(2);

/// One message to one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Of which pipeline it tells.
    pub pipeline: PipelineId,
    /// Name of the rule that asks for it.
    pub rule: String,
    /// What is sent.
    pub body: String,
    /// Whether it is still to be sent.
    pub open: bool,
    /// When it was written down.
    pub made_at: Timestamp,
    /// When the receiver took it.
    pub taken_at: Option<Timestamp>,
    /// How often it was not taken.
    pub tries: u32,
    /// Not before then.
    pub next_try: Timestamp,
    /// Why it was not taken the last time.
    pub problem: Option<String>,
}

fn notice(row: &AnyRow) -> Result<Notice> {
    Ok(Notice {
        pipeline: row.parsed("pipeline")?,
        rule: row.text("rule")?,
        body: row.text("body")?,
        open: row.int("open")? == 1,
        made_at: row.time("made_at")?,
        taken_at: row.maybe_time("taken_at")?,
        tries: row.small("tries")?,
        next_try: row.time("next_try")?,
        problem: row.maybe_text("problem")?,
    })
}

/// Pipelines that are over and of which nobody was told yet, oldest first.
pub async fn untold(db: &mut Connection, limit: u32) -> Result<Vec<Pipeline>> {
    let rows = sqlx::query(
        "SELECT id FROM pipelines WHERE told_at IS NULL AND NOT EXISTS \
         (SELECT 1 FROM jobs WHERE jobs.pipeline = pipelines.id AND jobs.finished_at IS NULL) \
         ORDER BY id LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await?;
    pipelines::of_rows(db, &rows).await
}

/// Notes that a pipeline is over and that all who are to be told of it stand in their rows. False where that was noted
/// before.
pub async fn mark_told(db: &mut Connection, pipeline: &PipelineId, at: Timestamp) -> Result<bool> {
    let done = sqlx::query("UPDATE pipelines SET told_at = $1 WHERE id = $2 AND told_at IS NULL")
        .bind(at.0)
        .bind(pipeline.as_str())
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes down what a receiver is to be told.
pub async fn insert(
    db: &mut Connection,
    pipeline: &PipelineId,
    rule: &str,
    body: &str,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO notices (pipeline, rule, body, open, made_at, tries, next_try) \
         VALUES ($1, $2, $3, 1, $4, 0, $4) ON CONFLICT (pipeline, rule) DO NOTHING",
    )
    .bind(pipeline.as_str())
    .bind(rule)
    .bind(body)
    .bind(at.0)
    .execute(db)
    .await?;
    Ok(())
}

/// The oldest message of a rule that is still to be sent: they go out in the order in which they were made.
pub async fn first_open(db: &mut Connection, rule: &str) -> Result<Option<Notice>> {
    let row = sqlx::query(
        "SELECT * FROM notices WHERE open = 1 AND rule = $1 ORDER BY made_at, pipeline LIMIT 1",
    )
    .bind(rule)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(notice).transpose()
}

impl Notice {
    /// Whether its time has come.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.next_try <= now || self.next_try > now + LONGEST_WAIT
    }
}

/// Notes that the receiver took it.
pub async fn taken(db: &mut Connection, notice: &Notice, at: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE notices SET open = 0, taken_at = $1, problem = NULL \
         WHERE pipeline = $2 AND rule = $3",
    )
    .bind(at.0)
    .bind(notice.pipeline.as_str())
    .bind(&notice.rule)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that the receiver did not take it, and when to try again; none: never.
pub async fn not_taken(
    db: &mut Connection,
    notice: &Notice,
    problem: &str,
    next_try: Option<Timestamp>,
) -> Result<()> {
    sqlx::query(
        "UPDATE notices SET tries = tries + 1, problem = $1, next_try = COALESCE($2, next_try), \
         open = $3 WHERE pipeline = $4 AND rule = $5",
    )
    .bind(problem)
    .bind(next_try.map(|at| at.0))
    .bind(i64::from(next_try.is_some()))
    .bind(notice.pipeline.as_str())
    .bind(&notice.rule)
    .execute(db)
    .await?;
    Ok(())
}

/// The message of a rule about a project that was tried last, else the newest.
pub async fn last(db: &mut Connection, project: &ProjectId, rule: &str) -> Result<Option<Notice>> {
    let row = sqlx::query(
        "SELECT notices.* FROM notices JOIN pipelines ON pipelines.id = notices.pipeline \
         WHERE pipelines.project = $1 AND notices.rule = $2 \
         ORDER BY CASE WHEN open = 0 OR tries > 0 THEN 0 ELSE 1 END, made_at DESC, \
         notices.pipeline DESC LIMIT 1",
    )
    .bind(project.as_str())
    .bind(rule)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(notice).transpose()
}

/// What was not taken of a pipeline, and why, by rule.
pub async fn problems_of(
    db: &mut Connection,
    pipeline: &PipelineId,
) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query(
        "SELECT rule, problem FROM notices WHERE pipeline = $1 AND problem IS NOT NULL \
         ORDER BY rule",
    )
    .bind(pipeline.as_str())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.text("rule")?, row.text("problem")?)))
        .collect()
}

/// The newest rule of each project that was not told something since then, and why.
pub async fn problems(
    db: &mut Connection,
    since: Timestamp,
) -> Result<BTreeMap<ProjectId, (String, String)>> {
    let rows = sqlx::query(
        "SELECT pipelines.project AS project, rule, notices.problem AS problem FROM notices \
         JOIN pipelines ON pipelines.id = notices.pipeline \
         WHERE notices.problem IS NOT NULL AND made_at >= $1 ORDER BY made_at, pipeline",
    )
    .bind(since.0)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let why = (row.text("rule")?, row.text("problem")?);
            Ok((row.parsed("project")?, why))
        })
        .collect()
}

/// Pipelines of a project that were made before `newer` and are over or not, newest first: what schedules asked for,
/// or what is at the same ref, whoever asked for it.
pub async fn before(
    db: &mut Connection,
    newer: &Pipeline,
    scheduled: bool,
    limit: u32,
) -> Result<Vec<Pipeline>> {
    let rows = sqlx::query(
        "SELECT id FROM pipelines WHERE project = $1 AND id < $2 \
         AND (($3 = 1 AND trigger_kind = 'schedule') OR ($3 = 0 AND reference = $4)) \
         ORDER BY id DESC LIMIT $5",
    )
    .bind(newer.project.as_str())
    .bind(newer.id.as_str())
    .bind(i64::from(scheduled))
    .bind(&newer.trigger.reference)
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await?;
    pipelines::of_rows(db, &rows).await
}

/// Forgets what was taken or given up, and was made before `before`.
pub async fn forget(db: &mut Connection, before: Timestamp) -> Result<()> {
    sqlx::query("DELETE FROM notices WHERE open = 0 AND made_at < $1")
        .bind(before.0)
        .execute(db)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::job::{Move, State};
    use protocol::{CommitId, Outcome};
    use sqlx::Connection as _;

    use super::*;
    use crate::store::jobs::{self, Job};
    use crate::store::migrate::MIGRATIONS;
    use crate::store::{Address, Store, projects, testing};

    /// A database as the version before wrote it.
    async fn before(path: &std::path::Path) -> Connection {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}?mode=rwc", path.display());
        let mut db = Connection::connect(&url).await.unwrap();
        let table = "CREATE TABLE migrations (version BIGINT, name TEXT, applied_at BIGINT)";
        sqlx::raw_sql(table).execute(&mut db).await.unwrap();
        for migration in MIGRATIONS.iter().filter(|m| m.version < 403) {
            sqlx::raw_sql(migration.sql).execute(&mut db).await.unwrap();
            sqlx::query("INSERT INTO migrations VALUES ($1, $2, 1)")
                .bind(migration.version)
                .bind(migration.name)
                .execute(&mut db)
                .await
                .unwrap();
        }
        db
    }

    async fn insert_as_before(db: &mut Connection, pipeline: &Pipeline) {
        let commit: &CommitId = &pipeline.trigger.commit;
        sqlx::query(
            "INSERT INTO pipelines (id, project, number, trigger_key, trigger_kind, \
             trigger_json, commit_id, subject, author, notes, created_at) \
             VALUES ($1, $2, $3, $4, 'push', $5, $6, '', '', '[]', 3)",
        )
        .bind(pipeline.id.as_str())
        .bind(pipeline.project.as_str())
        .bind(i64::try_from(pipeline.number).unwrap())
        .bind(&pipeline.trigger_key)
        .bind(serde_json::to_string(&pipeline.trigger).unwrap())
        .bind(commit.as_str())
        .execute(db)
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn nobody_is_told_of_what_ended_before_there_were_notices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let mut db = before(&path).await;
        let project = testing::project("digits");
        projects::insert(&mut db, &project).await.unwrap();
        let (over, open) = (
            testing::pipeline(&project, 1),
            testing::pipeline(&project, 2),
        );
        insert_as_before(&mut db, &over).await;
        insert_as_before(&mut db, &open).await;
        let done = Job {
            state: State::Finished {
                outcome: Outcome::Succeeded,
            },
            finished_at: Some(Timestamp(9)),
            ..testing::job(&over, "train")
        };
        let waits = testing::job(&open, "train");
        jobs::insert(&mut db, &done).await.unwrap();
        jobs::insert(&mut db, &waits).await.unwrap();
        db.close().await.unwrap();

        let store = Store::open(&Address::Sqlite(path)).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        assert_eq!(untold(&mut tx, 10).await.unwrap(), []);
        let cancel = Move::Cancel { by: "ana".into() };
        jobs::advance(&mut tx, &waits, cancel, None, Timestamp(10))
            .await
            .unwrap();
        let found = untold(&mut tx, 10).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, open.id);
        assert!(mark_told(&mut tx, &open.id, Timestamp(11)).await.unwrap());
        assert!(!mark_told(&mut tx, &open.id, Timestamp(12)).await.unwrap());
        assert_eq!(untold(&mut tx, 10).await.unwrap(), []);
    }
}
