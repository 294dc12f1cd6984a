//! Rows of pull requests and of approvals.

use std::collections::BTreeMap;

use protocol::{CommitId, ProjectId, Timestamp};
use sqlx::any::AnyRow;

use super::rows::{Columns as _, to_int};
use super::{Connection, Result};
use crate::trigger::Request;

fn request(row: &AnyRow) -> Result<Request> {
    Ok(Request {
        number: row.size("number")?,
        head: row.parsed("head")?,
        head_branch: row.text("head_branch")?,
        base_branch: row.text("base_branch")?,
        title: row.text("title")?,
        author: row.maybe_text("author")?,
        fork: row.int("fork")? == 1,
        open: row.int("open")? == 1,
        updated_at: row.maybe_time("updated_at")?,
    })
}

/// Writes down what is known of a pull request. An author that is known stays known, and so does when it changed.
pub async fn put(
    db: &mut Connection,
    project: &ProjectId,
    request: &Request,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO pull_requests (project, number, head, head_branch, base_branch, title, \
         author, fork, open, changed_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (project, number) DO UPDATE SET head = $3, head_branch = $4, \
         base_branch = $5, title = $6, author = COALESCE($7, pull_requests.author), fork = $8, \
         open = $9, changed_at = $10, \
         updated_at = COALESCE($11, pull_requests.updated_at)",
    )
    .bind(project.as_str())
    .bind(to_int(request.number))
    .bind(request.head.as_str())
    .bind(&request.head_branch)
    .bind(&request.base_branch)
    .bind(&request.title)
    .bind(&request.author)
    .bind(i64::from(request.fork))
    .bind(i64::from(request.open))
    .bind(at.0)
    .bind(request.updated_at.map(|at| at.0))
    .execute(db)
    .await?;
    Ok(())
}

/// One pull request.
pub async fn find(
    db: &mut Connection,
    project: &ProjectId,
    number: u64,
) -> Result<Option<Request>> {
    let row = sqlx::query("SELECT * FROM pull_requests WHERE project = $1 AND number = $2")
        .bind(project.as_str())
        .bind(to_int(number))
        .fetch_optional(db)
        .await?;
    row.as_ref().map(request).transpose()
}

/// All pull requests of a project that are known, by number.
pub async fn all(db: &mut Connection, project: &ProjectId) -> Result<Vec<Request>> {
    let rows = sqlx::query("SELECT * FROM pull_requests WHERE project = $1 ORDER BY number")
        .bind(project.as_str())
        .fetch_all(db)
        .await?;
    rows.iter().map(request).collect()
}

/// The head of a pull request, by its ref, as it was last planned, and when that was seen; none: it is to be looked at.
pub async fn head(
    db: &mut Connection,
    project: &ProjectId,
    reference: &str,
) -> Result<Option<(CommitId, Timestamp)>> {
    let row = sqlx::query("SELECT commit_id, seen_at FROM refs WHERE project = $1 AND name = $2")
        .bind(project.as_str())
        .bind(reference)
        .fetch_optional(db)
        .await?;
    row.map(|row| Ok((row.parsed("commit_id")?, row.time("seen_at")?)))
        .transpose()
}

/// When a project's forge was last asked which pull requests are open; none: never.
pub async fn listed_at(db: &mut Connection, project: &ProjectId) -> Result<Option<Timestamp>> {
    let row = sqlx::query("SELECT requests_listed_at FROM projects WHERE id = $1")
        .bind(project.as_str())
        .fetch_optional(db)
        .await?;
    match row {
        Some(row) => row.maybe_time("requests_listed_at"),
        None => Ok(None),
    }
}

/// Notes that a project's forge was asked which pull requests are open.
pub async fn set_listed(db: &mut Connection, project: &ProjectId, at: Timestamp) -> Result<()> {
    sqlx::query("UPDATE projects SET requests_listed_at = $1 WHERE id = $2")
        .bind(at.0)
        .bind(project.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Up to when it is known what was said under the pull requests of a project, by number; one that is not there was never
/// asked for it.
pub async fn comments_listed(
    db: &mut Connection,
    project: &ProjectId,
) -> Result<BTreeMap<u64, Timestamp>> {
    let rows = sqlx::query(
        "SELECT number, comments_listed_at FROM pull_requests \
         WHERE project = $1 AND open = 1 AND comments_listed_at IS NOT NULL",
    )
    .bind(project.as_str())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.size("number")?, row.time("comments_listed_at")?)))
        .collect()
}

/// Notes up to when it is known what was said under a pull request.
pub async fn set_comments_listed(
    db: &mut Connection,
    project: &ProjectId,
    number: u64,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE pull_requests SET comments_listed_at = $1 WHERE project = $2 AND number = $3",
    )
    .bind(at.0)
    .bind(project.as_str())
    .bind(to_int(number))
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that somebody looked at an untrusted commit and lets it run. The first one stays named.
pub async fn approve(
    db: &mut Connection,
    project: &ProjectId,
    commit: &CommitId,
    by: &str,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO approvals (project, commit_id, approved_by, approved_at) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (project, commit_id) DO NOTHING",
    )
    .bind(project.as_str())
    .bind(commit.as_str())
    .bind(by)
    .bind(at.0)
    .execute(db)
    .await?;
    Ok(())
}

/// Who approved a commit; none: nobody.
pub async fn approved_by(
    db: &mut Connection,
    project: &ProjectId,
    commit: &CommitId,
) -> Result<Option<String>> {
    let row =
        sqlx::query("SELECT approved_by FROM approvals WHERE project = $1 AND commit_id = $2")
            .bind(project.as_str())
            .bind(commit.as_str())
            .fetch_optional(db)
            .await?;
    row.map(|row| row.text("approved_by")).transpose()
}
