//! Rows of models, of their versions, files and aliases.

use protocol::registry::{AliasChange, ModelFile, Promotion};
use protocol::{AttemptId, ByteSize, ProjectId, Timestamp};
use sqlx::any::AnyRow;

use super::rows::{Columns as _, to_int, to_json};
use super::{Connection, Result, StoreError};

mod shown;

pub use shown::{
    aliases, aliases_of, by_id, by_number, by_run, counts, latest, latest_of, unseen, versions,
};

/// A model's own row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Whose it is; none: a client registered it.
    pub project: Option<ProjectId>,
    /// What people say of it.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it or one of its versions was changed last.
    pub changed_at: Timestamp,
}

pub(super) fn model(row: &AnyRow) -> Result<Model> {
    Ok(Model {
        name: row.text("name")?,
        project: row.maybe_parsed("project")?,
        description: row.maybe_text("description")?,
        created_at: row.time("created_at")?,
        changed_at: row.time("changed_at")?,
    })
}

/// Makes a model. False where there is one of this name.
pub async fn insert(db: &mut Connection, wanted: &Model) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO models (name, project, description, created_at, changed_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING",
    )
    .bind(&wanted.name)
    .bind(wanted.project.as_ref().map(ProjectId::as_str))
    .bind(&wanted.description)
    .bind(wanted.created_at.0)
    .bind(wanted.changed_at.0)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Makes a model where there is none of this name; gives the one that is there.
pub async fn ensure(db: &mut Connection, wanted: &Model) -> Result<Model> {
    insert(db, wanted).await?;
    find(db, &wanted.name)
        .await?
        .ok_or_else(|| StoreError::Missing(format!("model {}", wanted.name)))
}

/// One model by its name.
pub async fn find(db: &mut Connection, name: &str) -> Result<Option<Model>> {
    let row = sqlx::query("SELECT * FROM models WHERE name = $1")
        .bind(name)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(model).transpose()
}

/// The newest models, made before `before`; at most `limit`.
pub async fn recent(db: &mut Connection, before: Option<&Model>, limit: u32) -> Result<Vec<Model>> {
    let (at, name) = before.map_or((i64::MAX, "~"), |m| (m.created_at.0, m.name.as_str()));
    let rows = sqlx::query(
        "SELECT * FROM models WHERE created_at < $1 OR (created_at = $1 AND name < $2) \
         ORDER BY created_at DESC, name DESC LIMIT $3",
    )
    .bind(at)
    .bind(name)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(model).collect()
}

/// Adds a job's version, or its candidate where it has no number, and why it is that.
pub async fn insert_version(
    db: &mut Connection,
    (id, model, run): (&str, &str, &str),
    number: Option<u64>,
    because: &str,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO model_versions (id, model, version, run, stage, created_at, changed_at, because) \
         VALUES ($1, $2, $3, $4, 'None', $5, $5, $6)",
    )
    .bind(id)
    .bind(model)
    .bind(number.map(to_int))
    .bind(run)
    .bind(at.0)
    .bind(because)
    .execute(db)
    .await?;
    Ok(())
}

/// The number of a model's next version.
pub async fn next_number(db: &mut Connection, model: &str) -> Result<u64> {
    let row = sqlx::query(
        "SELECT COALESCE(MAX(version), 0) AS last FROM model_versions WHERE model = $1",
    )
    .bind(model)
    .fetch_one(db)
    .await?;
    Ok(row.size("last")? + 1)
}

/// Gives a candidate its number. False where it had one before.
pub async fn promote(
    db: &mut Connection,
    id: &str,
    number: u64,
    promotion: &Promotion,
) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE model_versions SET version = $1, promoted_by = $2, promoted_why = $3, \
         promoted_at = $4, changed_at = $4 WHERE id = $5 AND version IS NULL",
    )
    .bind(to_int(number))
    .bind(&promotion.by)
    .bind(&promotion.why)
    .bind(promotion.at.0)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The candidates that an attempt left, be it as its model or by its code: each with its model's name.
pub async fn candidates_of(
    db: &mut Connection,
    attempt: &AttemptId,
) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query(
        "SELECT v.id AS id, v.model AS model FROM model_versions v JOIN runs r ON r.id = v.run \
         WHERE r.attempt = $1 AND v.version IS NULL AND v.deleted_at IS NULL ORDER BY v.id",
    )
    .bind(attempt.as_str())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.text("id")?, row.text("model")?)))
        .collect()
}

/// Links a file to a version.
pub async fn insert_file(db: &mut Connection, version: &str, file: &ModelFile) -> Result<()> {
    sqlx::query("INSERT INTO model_files (version, path, digest, size) VALUES ($1, $2, $3, $4)")
        .bind(version)
        .bind(&file.path)
        .bind(file.blob.as_str())
        .bind(to_int(file.size.0))
        .execute(db)
        .await?;
    Ok(())
}

/// Keeps what the files of a version show it to be.
pub async fn set_flavours(db: &mut Connection, version: &str, flavours: &[String]) -> Result<()> {
    sqlx::query("UPDATE model_versions SET flavours = $1 WHERE id = $2")
        .bind(to_json(&flavours)?)
        .bind(version)
        .execute(db)
        .await?;
    Ok(())
}

/// One file of a version.
pub async fn file(db: &mut Connection, version: &str, path: &str) -> Result<Option<ModelFile>> {
    let row = sqlx::query("SELECT * FROM model_files WHERE version = $1 AND path = $2")
        .bind(version)
        .bind(path)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(model_file).transpose()
}

fn model_file(row: &AnyRow) -> Result<ModelFile> {
    Ok(ModelFile {
        path: row.text("path")?,
        blob: row.parsed("digest")?,
        size: ByteSize(row.size("size")?),
    })
}

/// The files of a version, by path.
pub async fn files(db: &mut Connection, version: &str) -> Result<Vec<ModelFile>> {
    let rows = sqlx::query("SELECT * FROM model_files WHERE version = $1")
        .bind(version)
        .fetch_all(db)
        .await?;
    let mut files = rows.iter().map(model_file).collect::<Result<Vec<_>>>()?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Carries out a change of an alias and keeps it in the history.
pub async fn change_alias(db: &mut Connection, model: &str, change: &AliasChange) -> Result<()> {
    match change.version {
        Some(version) => {
            sqlx::query(
                "INSERT INTO aliases (model, alias, version) VALUES ($1, $2, $3) \
                 ON CONFLICT (model, alias) DO UPDATE SET version = $3",
            )
            .bind(model)
            .bind(&change.alias)
            .bind(to_int(version))
            .execute(&mut *db)
            .await?;
        }
        None => {
            sqlx::query("DELETE FROM aliases WHERE model = $1 AND alias = $2")
                .bind(model)
                .bind(&change.alias)
                .execute(&mut *db)
                .await?;
        }
    }
    let last =
        sqlx::query("SELECT COALESCE(MAX(number), 0) AS last FROM alias_changes WHERE model = $1")
            .bind(model)
            .fetch_one(&mut *db)
            .await?;
    sqlx::query(
        "INSERT INTO alias_changes (model, number, alias, version, previous, who, why, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(model)
    .bind(last.int("last")? + 1)
    .bind(&change.alias)
    .bind(change.version.map(to_int))
    .bind(change.previous.map(to_int))
    .bind(&change.by)
    .bind(&change.why)
    .bind(change.at.0)
    .execute(db)
    .await?;
    Ok(())
}

fn alias_change(row: &AnyRow) -> Result<AliasChange> {
    let number = |column: &str| match row.maybe_int(column)? {
        Some(_) => row.size(column).map(Some),
        None => Ok(None),
    };
    Ok(AliasChange {
        alias: row.text("alias")?,
        version: number("version")?,
        previous: number("previous")?,
        by: row.text("who")?,
        why: row.text("why")?,
        at: row.time("at")?,
    })
}

/// The newest changes of a model's aliases, at most `limit`.
pub async fn alias_changes(
    db: &mut Connection,
    model: &str,
    limit: u32,
) -> Result<Vec<AliasChange>> {
    let rows =
        sqlx::query("SELECT * FROM alias_changes WHERE model = $1 ORDER BY number DESC LIMIT $2")
            .bind(model)
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?;
    rows.iter().map(alias_change).collect()
}

/// The newest changes of one alias, at most `limit`.
pub async fn changes_of_alias(
    db: &mut Connection,
    model: &str,
    alias: &str,
    limit: u32,
) -> Result<Vec<AliasChange>> {
    let rows = sqlx::query(
        "SELECT * FROM alias_changes WHERE model = $1 AND alias = $2 \
         ORDER BY number DESC LIMIT $3",
    )
    .bind(model)
    .bind(alias)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(alias_change).collect()
}
