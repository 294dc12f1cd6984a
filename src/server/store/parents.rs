//! Rows of parents: the version of a model that a job goes on from. The edge of a version is that of the job whose attempt wrote
//! its run, be it the attempt's own run or one that its code began.

use protocol::JobId;
use protocol::registry::Related;
use sqlx::any::AnyRow;

use super::rows::Columns as _;
use super::{Connection, Result};

/// Notes what a job goes on from.
pub async fn insert(db: &mut Connection, job: &JobId, version: &str, asked: &str) -> Result<()> {
    sqlx::query(
        "INSERT INTO job_parents (job, version, asked) VALUES ($1, $2, $3) \
         ON CONFLICT (job) DO NOTHING",
    )
    .bind(job.as_str())
    .bind(version)
    .bind(asked)
    .execute(db)
    .await?;
    Ok(())
}

/// Lets a job go on from what another one went on from.
pub async fn copy(db: &mut Connection, from: &JobId, to: &JobId) -> Result<()> {
    sqlx::query(
        "INSERT INTO job_parents (job, version, asked) \
         SELECT $1, version, asked FROM job_parents WHERE job = $2",
    )
    .bind(to.as_str())
    .bind(from.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// A version that a job goes on from, removed or not.
const PARENT: &str = "SELECT v.id AS id, v.model AS model, v.version AS version, p.asked AS asked, \
     v.deleted_at AS deleted_at, CAST(NULL AS TEXT) AS job \
     FROM job_parents p JOIN model_versions v ON v.id = p.version";

fn related(row: &AnyRow) -> Result<Related> {
    Ok(Related {
        id: row.maybe_text("id")?,
        model: row.maybe_text("model")?,
        version: match row.maybe_int("version")? {
            Some(_) => Some(row.size("version")?),
            None => None,
        },
        asked: row.maybe_text("asked")?,
        job: row.maybe_parsed("job")?,
        removed: row.maybe_time("deleted_at")?.is_some(),
    })
}

/// What the job went on from that left a version.
pub async fn of_version(db: &mut Connection, version: &str) -> Result<Option<Related>> {
    let sql = format!(
        "{PARENT} JOIN attempts t ON t.job = p.job JOIN runs r ON r.attempt = t.id \
         JOIN model_versions c ON c.run = r.id WHERE c.id = $1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(version)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(related).transpose()
}

/// Whether a job went on from a version of this model.
pub async fn any_of_model(db: &mut Connection, model: &str) -> Result<bool> {
    let row = sqlx::query(
        "SELECT p.job AS job FROM job_parents p JOIN model_versions v ON v.id = p.version \
         WHERE v.model = $1 LIMIT 1",
    )
    .bind(model)
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// What needs a version: versions that went on from it, and jobs that do and of which nobody knows yet what they leave;
/// oldest first.
pub async fn children(db: &mut Connection, version: &str, limit: u32) -> Result<Vec<Related>> {
    let rows = sqlx::query(
        "SELECT DISTINCT c.id AS id, c.model AS model, c.version AS version, p.asked AS asked, p.job AS job, \
         c.deleted_at AS deleted_at \
         FROM job_parents p LEFT JOIN attempts t ON t.job = p.job LEFT JOIN runs r ON r.attempt = t.id \
         LEFT JOIN model_versions c ON c.run = r.id AND c.deleted_at IS NULL \
         WHERE p.version = $1 AND (c.id IS NOT NULL \
            OR NOT EXISTS (SELECT 1 FROM registered_jobs g WHERE g.job = p.job)) \
         ORDER BY p.job, c.id LIMIT $2",
    )
    .bind(version)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(related).collect()
}
