//! Rows of blobs: which content is complete, and which agents have shown that they have it.

use protocol::{AgentId, AttemptId, Digest, Timestamp};

use super::rows::{Columns as _, to_int};
use super::{Connection, Result};

/// Notes that a blob is complete.
pub async fn note(db: &mut Connection, digest: &Digest, size: u64, at: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO blobs (digest, size, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (digest) DO NOTHING",
    )
    .bind(digest.as_str())
    .bind(to_int(size))
    .bind(at.0)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that a blob is complete, and that an agent uploaded it.
pub async fn insert(
    db: &mut Connection,
    digest: &Digest,
    size: u64,
    agent: &AgentId,
    at: Timestamp,
) -> Result<()> {
    note(db, digest, size, at).await?;
    sqlx::query(
        "INSERT INTO blob_owners (digest, agent) VALUES ($1, $2) \
         ON CONFLICT (digest, agent) DO NOTHING",
    )
    .bind(digest.as_str())
    .bind(agent.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// The length of a complete blob.
pub async fn size(db: &mut Connection, digest: &Digest) -> Result<Option<u64>> {
    let row = sqlx::query("SELECT size FROM blobs WHERE digest = $1")
        .bind(digest.as_str())
        .fetch_optional(db)
        .await?;
    row.map(|row| row.size("size")).transpose()
}

/// Whether an agent has uploaded a blob, so that its attempts may link it.
pub async fn owned(db: &mut Connection, digest: &Digest, agent: &AgentId) -> Result<bool> {
    let row = sqlx::query("SELECT digest FROM blob_owners WHERE digest = $1 AND agent = $2")
        .bind(digest.as_str())
        .bind(agent.as_str())
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

/// Forgets a blob that nothing links: no artifact, checkpoint, run or model. False where something does.
pub async fn remove_unlinked(db: &mut Connection, digest: &Digest) -> Result<bool> {
    let linked = sqlx::query(
        "SELECT digest FROM artifacts WHERE digest = $1 \
         UNION SELECT digest FROM checkpoint_files WHERE digest = $1 \
         UNION SELECT digest FROM kept_files WHERE digest = $1 \
         UNION SELECT digest FROM model_files WHERE digest = $1",
    )
    .bind(digest.as_str())
    .fetch_optional(&mut *db)
    .await?;
    if linked.is_some() {
        return Ok(false);
    }
    sqlx::query("DELETE FROM blob_owners WHERE digest = $1")
        .bind(digest.as_str())
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM blobs WHERE digest = $1")
        .bind(digest.as_str())
        .execute(db)
        .await?;
    Ok(true)
}

/// Whether an attempt left a blob.
pub async fn linked(db: &mut Connection, digest: &Digest, attempt: &AttemptId) -> Result<bool> {
    let row =
        sqlx::query("SELECT digest FROM artifacts WHERE digest = $1 AND attempt = $2 LIMIT 1")
            .bind(digest.as_str())
            .bind(attempt.as_str())
            .fetch_optional(db)
            .await?;
    Ok(row.is_some())
}

/// Complete blobs with their lengths, in the order of their digests, after this one.
pub async fn page(db: &mut Connection, after: &str, limit: u32) -> Result<Vec<(Digest, u64)>> {
    let rows =
        sqlx::query("SELECT digest, size FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $2")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?;
    let entry = |row: &sqlx::any::AnyRow| Ok((row.parsed("digest")?, row.size("size")?));
    rows.iter().map(entry).collect()
}

/// The same of those that are complete since before `before` and that nothing links.
pub async fn unlinked(
    db: &mut Connection,
    before: Timestamp,
    after: &str,
    limit: u32,
) -> Result<Vec<(Digest, u64)>> {
    let rows = sqlx::query(
        "SELECT digest, size FROM blobs WHERE digest > $1 AND created_at < $2 \
         AND NOT EXISTS (SELECT 1 FROM artifacts WHERE artifacts.digest = blobs.digest) \
         AND NOT EXISTS (SELECT 1 FROM checkpoint_files WHERE checkpoint_files.digest = blobs.digest) \
         AND NOT EXISTS (SELECT 1 FROM kept_files WHERE kept_files.digest = blobs.digest) \
         AND NOT EXISTS (SELECT 1 FROM model_files WHERE model_files.digest = blobs.digest) \
         ORDER BY digest LIMIT $3",
    )
    .bind(after)
    .bind(before.0)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    let entry = |row: &sqlx::any::AnyRow| Ok((row.parsed("digest")?, row.size("size")?));
    rows.iter().map(entry).collect()
}

/// What links a blob, in words: at most `limit` of each kind.
pub async fn links(db: &mut Connection, digest: &Digest, limit: u32) -> Result<Vec<String>> {
    const KINDS: [(&str, &str); 4] = [
        (
            "model version",
            "SELECT model_versions.model || ' ' || COALESCE(CAST(model_versions.version AS TEXT), model_versions.id) AS owner, \
          path FROM model_files \
          JOIN model_versions ON model_versions.id = model_files.version WHERE digest = $1 LIMIT $2",
        ),
        (
            "run or logged model",
            "SELECT owner, path FROM kept_files WHERE digest = $1 LIMIT $2",
        ),
        (
            "attempt",
            "SELECT attempt AS owner, path FROM artifacts WHERE digest = $1 LIMIT $2",
        ),
        (
            "checkpoint of attempt",
            "SELECT attempt AS owner, path FROM checkpoint_files WHERE digest = $1 LIMIT $2",
        ),
    ];
    let mut words = Vec::new();
    for (kind, text) in KINDS {
        let query = sqlx::query(text)
            .bind(digest.as_str())
            .bind(i64::from(limit));
        for row in query.fetch_all(&mut *db).await? {
            words.push(format!(
                "{kind} {}: {}",
                row.text("owner")?,
                row.text("path")?
            ));
        }
    }
    Ok(words)
}
