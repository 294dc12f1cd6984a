//! Rows of the files of runs and logged models: a path of an owner, and the content that lies there.

use protocol::{ByteSize, Digest};
use sqlx::any::AnyRow;

use super::rows::{Columns as _, to_int};
use super::{Connection, Result};

/// A file of a run or of a logged model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFile {
    /// Relative to its owner's folder.
    pub path: String,
    /// Its content.
    pub blob: Digest,
    /// Its length.
    pub size: ByteSize,
}

fn file(row: &AnyRow) -> Result<KeptFile> {
    Ok(KeptFile {
        path: row.text("path")?,
        blob: row.parsed("digest")?,
        size: ByteSize(row.size("size")?),
    })
}

/// Puts a file, over one of the same path.
pub async fn put(db: &mut Connection, owner: &str, file: &KeptFile) -> Result<()> {
    sqlx::query(
        "INSERT INTO kept_files (owner, path, digest, size) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (owner, path) DO UPDATE SET digest = excluded.digest, size = excluded.size",
    )
    .bind(owner)
    .bind(&file.path)
    .bind(file.blob.as_str())
    .bind(to_int(file.size.0))
    .execute(db)
    .await?;
    Ok(())
}

/// One file.
pub async fn find(db: &mut Connection, owner: &str, path: &str) -> Result<Option<KeptFile>> {
    let row = sqlx::query("SELECT * FROM kept_files WHERE owner = $1 AND path = $2")
        .bind(owner)
        .bind(path)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(file).transpose()
}

/// At most `limit` files of an owner, those below `folder` (empty: all); by path.
pub async fn below(
    db: &mut Connection,
    owner: &str,
    folder: &str,
    limit: u32,
) -> Result<Vec<KeptFile>> {
    let start = below_start(folder);
    let rows = sqlx::query(
        "SELECT * FROM kept_files WHERE owner = $1 AND SUBSTR(path, 1, CAST($2 AS INTEGER)) = $3 \
         ORDER BY path COLLATE \"binary\" LIMIT $4",
    )
    .bind(owner)
    .bind(i64::try_from(start.chars().count()).unwrap_or(i64::MAX))
    .bind(&start)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(file).collect()
}

/// What the paths in a folder begin with.
fn below_start(folder: &str) -> String {
    if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    }
}

/// How many files an owner has.
pub async fn count(db: &mut Connection, owner: &str) -> Result<u64> {
    let row = sqlx::query("SELECT COUNT(*) AS files FROM kept_files WHERE owner = $1")
        .bind(owner)
        .fetch_one(db)
        .await?;
    row.size("files")
}

/// Takes away the file at a path, or all below it; gives how many.
pub async fn remove(db: &mut Connection, owner: &str, path: &str) -> Result<u64> {
    let start = below_start(path);
    let done = sqlx::query(
        "DELETE FROM kept_files WHERE owner = $1 \
         AND (path = $2 OR SUBSTR(path, 1, CAST($3 AS INTEGER)) = $4)",
    )
    .bind(owner)
    .bind(path)
    .bind(i64::try_from(start.chars().count()).unwrap_or(i64::MAX))
    .bind(&start)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
