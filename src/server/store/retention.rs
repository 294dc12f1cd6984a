//! Rows of versions that go: chosen by a rule or by a person, gone at once for who asks, and emptied after a grace.

use protocol::registry::Removal;
use protocol::{AttemptId, Timestamp};
use sqlx::any::AnyRow;

use super::rows::Columns as _;
use super::{Connection, Result, files};

/// Of a version `v`: no alias points to it, no client has put it into use, no version or job goes on from it.
const FREE: &str = "NOT EXISTS (SELECT 1 FROM aliases a WHERE a.model = v.model AND a.version = v.version) \
     AND v.stage NOT IN ('Staging', 'Production') \
     AND NOT EXISTS (SELECT 1 FROM job_parents p WHERE p.version = v.id AND ( \
        NOT EXISTS (SELECT 1 FROM registered_jobs g WHERE g.job = p.job) \
        OR EXISTS (SELECT 1 FROM attempts t JOIN runs r ON r.attempt = t.id JOIN model_versions c ON c.run = r.id \
            WHERE t.job = p.job AND c.deleted_at IS NULL)))";

fn ids(rows: &[AnyRow]) -> Result<Vec<String>> {
    rows.iter().map(|row| row.text("id")).collect()
}

/// Candidates that were made before `before` and that nothing needs.
pub async fn old_candidates(
    db: &mut Connection,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT v.id AS id FROM model_versions v WHERE v.version IS NULL AND v.deleted_at IS NULL \
         AND v.created_at < $1 AND {FREE} ORDER BY v.id LIMIT $2"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(before.0)
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    ids(&rows)
}

/// Versions that are not among the newest `keep` of their model and that nothing needs.
pub async fn beyond(db: &mut Connection, keep: u32, limit: u32) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT v.id AS id FROM (SELECT id, model, version, stage, \
            ROW_NUMBER() OVER (PARTITION BY model ORDER BY version DESC) AS place \
            FROM model_versions WHERE version IS NOT NULL AND deleted_at IS NULL) v \
         WHERE v.place > $1 AND {FREE} ORDER BY v.id LIMIT $2"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::from(keep))
        .bind(i64::from(limit))
        .fetch_all(db)
        .await?;
    ids(&rows)
}

/// The stage of a version, where a client has put it into use.
pub async fn stage(db: &mut Connection, version: &str) -> Result<Option<String>> {
    let row = sqlx::query(
        "SELECT stage FROM model_versions WHERE id = $1 AND stage IN ('Staging', 'Production')",
    )
    .bind(version)
    .fetch_optional(db)
    .await?;
    row.map(|row| row.text("stage")).transpose()
}

/// Removes a version for who asks. Its number is not used again, its files stay for a grace.
pub async fn remove(db: &mut Connection, version: &str, removal: &Removal) -> Result<()> {
    sqlx::query(
        "UPDATE model_versions SET deleted_at = $1, changed_at = $1, removed_by = $2, removed_why = $3 \
         WHERE id = $4 AND deleted_at IS NULL",
    )
    .bind(removal.at.0)
    .bind(&removal.by)
    .bind(&removal.why)
    .bind(version)
    .execute(db)
    .await?;
    Ok(())
}

/// Who removed a version of a model, by its id or its number; none: nobody did.
pub async fn removed(
    db: &mut Connection,
    model: &str,
    id: &str,
    number: Option<u64>,
) -> Result<Option<Removal>> {
    let row = sqlx::query(
        "SELECT removed_by, removed_why, deleted_at FROM model_versions \
         WHERE model = $1 AND (id = $2 OR version = $3) AND removed_by IS NOT NULL",
    )
    .bind(model)
    .bind(id)
    .bind(number.map(super::rows::to_int))
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Removal {
        by: row.text("removed_by")?,
        why: row.maybe_text("removed_why")?.unwrap_or_default(),
        at: row.time("deleted_at")?,
    }))
}

/// Whose files lie at the location of a version, and in which folder.
type KeptAt = fn(&str) -> Option<(String, String)>;

/// Takes the links to their files from versions that are gone since before `before`; gives how many. The files of what a
/// client registered are its run's, and stay; those that a job's code logged and registered (only its versions have links of
/// their own) go from its run too: nobody else could remove them.
pub async fn empty(
    db: &mut Connection,
    before: Timestamp,
    limit: u32,
    now: Timestamp,
    kept_at: KeptAt,
) -> Result<usize> {
    let rows = sqlx::query(
        "SELECT v.id AS id, r.run AS run, r.attempt AS attempt, v.run AS made_by, \
         CASE WHEN EXISTS (SELECT 1 FROM model_files WHERE model_files.version = v.id) THEN v.location END AS location \
         FROM model_versions v \
         LEFT JOIN job_runs r ON r.run = v.run AND v.source IS NULL \
         WHERE v.deleted_at IS NOT NULL AND v.deleted_at < $1 AND v.emptied_at IS NULL \
         ORDER BY v.deleted_at LIMIT $2",
    )
    .bind(before.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await?;
    for row in &rows {
        let id = row.text("id")?;
        if let (Some(run), Some(attempt)) = (row.maybe_text("run")?, row.maybe_parsed("attempt")?) {
            empty_run(db, &run, &attempt, kept_at).await?;
        }
        let location = row.maybe_text("location")?;
        if let Some((owner, folder)) = location.as_deref().and_then(kept_at) {
            let made_by = row.maybe_text("made_by")?.unwrap_or_default();
            let is_all_of_a_run = folder.is_empty() && made_by == owner;
            if !is_all_of_a_run
                && is_of_same_attempt(db, &made_by, &owner).await?
                && !is_needed(db, (&owner, &folder), kept_at).await?
            {
                files::remove(db, &owner, &folder).await?;
            }
        }
        sqlx::query("DELETE FROM model_files WHERE version = $1")
            .bind(&id)
            .execute(&mut *db)
            .await?;
        sqlx::query("UPDATE model_versions SET emptied_at = $1 WHERE id = $2")
            .bind(now.0)
            .bind(&id)
            .execute(&mut *db)
            .await?;
    }
    Ok(rows.len())
}

/// Whether a run or a logged model is of the attempt that a run is of: what a version only points to is another's.
async fn is_of_same_attempt(db: &mut Connection, run: &str, owner: &str) -> Result<bool> {
    let found = sqlx::query(
        "SELECT other.id AS id FROM runs mine JOIN runs other ON other.attempt = mine.attempt \
         WHERE mine.id = $1 AND (other.id = $2 OR other.id = (SELECT run FROM logged_models WHERE id = $3)) LIMIT 1",
    )
    .bind(run)
    .bind(owner)
    .bind(owner)
    .fetch_optional(db)
    .await?;
    Ok(found.is_some())
}

/// Whether a version that is there has files in this folder of a run or logged model, or in one above or below it.
async fn is_needed(
    db: &mut Connection,
    (owner, folder): (&str, &str),
    kept_at: KeptAt,
) -> Result<bool> {
    let rows = sqlx::query(
        "SELECT location FROM model_versions WHERE (location LIKE $1 OR (run = $2 AND source IS NULL)) \
         AND deleted_at IS NULL",
    )
    .bind(format!("%{owner}%"))
    .bind(owner)
    .fetch_all(db)
    .await?;
    for row in &rows {
        let (_, other) = match row.maybe_text("location")? {
            None => (String::new(), crate::registry::MODEL_FOLDER.to_owned()),
            // What cannot be read is not looked into, and stays.
            Some(location) => match kept_at(&location) {
                Some(kept) => kept,
                None => return Ok(true),
            },
        };
        if is_in(folder, &other) || is_in(&other, folder) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a path is a folder, or lies in it; an empty folder is all there is.
fn is_in(path: &str, folder: &str) -> bool {
    let below = path.strip_prefix(folder);
    folder.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The model's files of a job's run, unless they were registered once more.
async fn empty_run(
    db: &mut Connection,
    run: &str,
    attempt: &AttemptId,
    kept_at: KeptAt,
) -> Result<()> {
    if is_needed(db, (run, crate::registry::MODEL_FOLDER), kept_at).await? {
        return Ok(());
    }
    files::remove(db, run, crate::registry::MODEL_FOLDER).await?;
    sqlx::query("DELETE FROM artifacts WHERE attempt = $1 AND role = 'model'")
        .bind(attempt.as_str())
        .execute(db)
        .await?;
    Ok(())
}
