//! Rows of checkpoints: the files that a job's next attempt goes on from. A job has one set, the last that came.

use protocol::agent_api::{Checkpoint, CheckpointFile};
use protocol::{AttemptId, ByteSize, Digest, JobId, Timestamp};

use super::rows::{Columns as _, to_int};
use super::{Connection, Result};

/// Keeps an attempt's set in the place of every earlier one of its job. Gives the contents of those.
pub async fn replace(
    db: &mut Connection,
    job: &JobId,
    attempt: &AttemptId,
    files: &[CheckpointFile],
) -> Result<Vec<Digest>> {
    let before = forget(db, job).await?;
    for file in files {
        sqlx::query(
            "INSERT INTO checkpoint_files (attempt, path, digest, size) VALUES ($1, $2, $3, $4)",
        )
        .bind(attempt.as_str())
        .bind(&file.path)
        .bind(file.blob.as_str())
        .bind(to_int(file.size.0))
        .execute(&mut *db)
        .await?;
    }
    Ok(before)
}

/// The set of a job, and the number of the attempt that left it.
pub async fn of_job(db: &mut Connection, job: &JobId) -> Result<Option<Checkpoint>> {
    let rows = sqlx::query(
        "SELECT attempts.number, checkpoint_files.path, checkpoint_files.digest, checkpoint_files.size \
         FROM checkpoint_files JOIN attempts ON attempts.id = checkpoint_files.attempt \
         WHERE attempts.job = $1 ORDER BY checkpoint_files.path",
    )
    .bind(job.as_str())
    .fetch_all(db)
    .await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let number = first.small("number")?;
    let file = |row: &sqlx::any::AnyRow| {
        Ok(CheckpointFile {
            path: row.text("path")?,
            blob: row.parsed("digest")?,
            size: ByteSize(row.size("size")?),
        })
    };
    let files = rows.iter().map(file).collect::<Result<_>>()?;
    Ok(Some(Checkpoint { number, files }))
}

/// Forgets the set of a job; gives its contents.
pub async fn forget(db: &mut Connection, job: &JobId) -> Result<Vec<Digest>> {
    let of_job = "attempt IN (SELECT id FROM attempts WHERE job = $1)";
    let select = format!("SELECT DISTINCT digest FROM checkpoint_files WHERE {of_job}");
    // Fixed words only: no data stands in the texts.
    let rows = sqlx::query(sqlx::AssertSqlSafe(select))
        .bind(job.as_str())
        .fetch_all(&mut *db)
        .await?;
    let delete = format!("DELETE FROM checkpoint_files WHERE {of_job}");
    sqlx::query(sqlx::AssertSqlSafe(delete))
        .bind(job.as_str())
        .execute(db)
        .await?;
    rows.iter().map(|row| row.parsed("digest")).collect()
}

/// Jobs that finished before `then` and still have a set, at most `limit`.
pub async fn of_finished(db: &mut Connection, then: Timestamp, limit: u32) -> Result<Vec<JobId>> {
    let rows = sqlx::query(
        "SELECT DISTINCT jobs.id FROM checkpoint_files \
         JOIN attempts ON attempts.id = checkpoint_files.attempt \
         JOIN jobs ON jobs.id = attempts.job WHERE jobs.finished_at < $1 LIMIT $2",
    )
    .bind(then.0)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| row.parsed("id")).collect()
}
