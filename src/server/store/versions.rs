//! Rows of registered models and versions as clients write them: tags, stages, descriptions, where the files lie.

use std::collections::HashMap;

use protocol::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::rows::{Columns as _, to_int, to_word};
use super::runs::named;
use super::tags::{OF_MODEL, OF_VERSION};
use super::{Connection, Result};

/// MLflow's stages; aliases have taken their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// In none.
    None,
    /// Being tried.
    Staging,
    /// In use.
    Production,
    /// No longer.
    Archived,
}

/// A version's own row. Candidates are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelVersion {
    /// Its id.
    pub id: String,
    /// The model's name.
    pub model: String,
    /// Its number; 0 of a candidate that is being made, which has none.
    pub number: u64,
    /// The run that made it, and the number of that run's experiment.
    pub run: Option<(String, i64)>,
    /// What the client named as its source; none for what a job left.
    pub source: Option<String>,
    /// Where the client finds its files; none for what a job left.
    pub location: Option<String>,
    /// Where the run can be looked at, as the client said.
    pub run_link: Option<String>,
    /// What people say of it.
    pub description: Option<String>,
    /// Its stage.
    pub stage: Stage,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub changed_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// Whether a job left it, be it as its model or by its code.
    pub of_job: bool,
}

/// A version with its run's experiment.
pub(super) const VERSION_ROW: &str = "SELECT v.*, r.experiment AS experiment \
     FROM model_versions v LEFT JOIN runs r ON r.id = v.run";

pub(super) fn model_version(row: &AnyRow) -> Result<ModelVersion> {
    let run = row.maybe_text("run")?;
    let source = row.maybe_text("source")?;
    // What a job's code registers is a candidate at first.
    let was_promoted = row.maybe_text("promoted_by")?.is_some();
    Ok(ModelVersion {
        of_job: source.is_none() || was_promoted,
        id: row.text("id")?,
        model: row.text("model")?,
        number: row.size("version")?,
        run: run.zip(row.maybe_int("experiment")?),
        source,
        location: row.maybe_text("location")?,
        run_link: row.maybe_text("run_link")?,
        description: row.maybe_text("description")?,
        stage: row.word("stage")?,
        created_at: row.time("created_at")?,
        changed_at: row.time("changed_at")?,
        deleted_at: row.maybe_time("deleted_at")?,
    })
}

/// One version by its number; none where it was deleted.
pub async fn find(db: &mut Connection, model: &str, number: u64) -> Result<Option<ModelVersion>> {
    let sql =
        format!("{VERSION_ROW} WHERE v.model = $1 AND v.version = $2 AND v.deleted_at IS NULL");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(model)
        .bind(to_int(number))
        .fetch_optional(db)
        .await?;
    row.as_ref().map(model_version).transpose()
}

/// Adds a version or candidate that a client registers.
pub async fn insert(db: &mut Connection, version: &ModelVersion) -> Result<()> {
    sqlx::query(
        "INSERT INTO model_versions (id, model, version, run, source, location, run_link, \
         description, stage, created_at, changed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(&version.id)
    .bind(&version.model)
    .bind((version.number > 0).then(|| to_int(version.number)))
    .bind(version.run.as_ref().map(|(run, _)| run.as_str()))
    .bind(&version.source)
    .bind(&version.location)
    .bind(&version.run_link)
    .bind(&version.description)
    .bind(to_word(&version.stage)?)
    .bind(version.created_at.0)
    .bind(version.changed_at.0)
    .execute(db)
    .await?;
    Ok(())
}

/// Writes what may change of a version.
pub async fn update(db: &mut Connection, version: &ModelVersion) -> Result<()> {
    sqlx::query(
        "UPDATE model_versions SET description = $1, stage = $2, changed_at = $3, deleted_at = $4 \
         WHERE id = $5",
    )
    .bind(&version.description)
    .bind(to_word(&version.stage)?)
    .bind(version.changed_at.0)
    .bind(version.deleted_at.map(|at| at.0))
    .bind(&version.id)
    .execute(db)
    .await?;
    Ok(())
}

/// Moves all other versions of a stage to the archive.
pub async fn archive_others(db: &mut Connection, version: &ModelVersion) -> Result<()> {
    sqlx::query(
        "UPDATE model_versions SET stage = 'Archived', changed_at = $1 \
         WHERE model = $2 AND stage = $3 AND id <> $4 AND deleted_at IS NULL",
    )
    .bind(version.changed_at.0)
    .bind(&version.model)
    .bind(to_word(&version.stage)?)
    .bind(&version.id)
    .execute(db)
    .await?;
    Ok(())
}

/// The newest version of each stage, of these models.
pub async fn latest(db: &mut Connection, models: &[String]) -> Result<Vec<ModelVersion>> {
    let mut found = Vec::new();
    for model in models {
        let sql = format!(
            "{VERSION_ROW} WHERE v.model = $1 AND v.deleted_at IS NULL AND v.version IN \
             (SELECT MAX(version) FROM model_versions WHERE model = $1 AND deleted_at IS NULL GROUP BY stage) \
             ORDER BY v.version"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(model)
            .fetch_all(&mut *db)
            .await?;
        for row in &rows {
            found.push(model_version(row)?);
        }
    }
    Ok(found)
}

/// Tags of versions, by the version's id.
pub async fn tags(
    db: &mut Connection,
    ids: &[String],
) -> Result<HashMap<String, Vec<(String, String)>>> {
    named(db, "model_version_tags", "version", ids).await
}

/// Tags of models, by name.
pub async fn model_tags(
    db: &mut Connection,
    names: &[String],
) -> Result<HashMap<String, Vec<(String, String)>>> {
    named(db, "model_tags", "model", names).await
}

/// Sets tags of a version; the last of one name wins.
pub async fn set_tags(db: &mut Connection, id: &str, tags: &[(String, String)]) -> Result<()> {
    OF_VERSION.set(db, id, tags).await
}

/// Sets tags of a model; the last of one name wins.
pub async fn set_model_tags(
    db: &mut Connection,
    model: &str,
    tags: &[(String, String)],
) -> Result<()> {
    OF_MODEL.set(db, model, tags).await
}

/// Takes a version's tag away; one that is not there is fine.
pub async fn remove_tag(db: &mut Connection, id: &str, name: &str) -> Result<()> {
    OF_VERSION.remove(db, id, name).await?;
    Ok(())
}

/// Takes a model's tag away; one that is not there is fine.
pub async fn remove_model_tag(db: &mut Connection, model: &str, name: &str) -> Result<()> {
    OF_MODEL.remove(db, model, name).await?;
    Ok(())
}

/// Notes that a model or one of its versions was changed.
pub async fn touch(db: &mut Connection, model: &str, at: Timestamp) -> Result<()> {
    sqlx::query("UPDATE models SET changed_at = $1 WHERE name = $2")
        .bind(at.0)
        .bind(model)
        .execute(db)
        .await?;
    Ok(())
}

/// Says something else of a model.
pub async fn describe(
    db: &mut Connection,
    model: &str,
    description: Option<&str>,
    at: Timestamp,
) -> Result<()> {
    sqlx::query("UPDATE models SET description = $1, changed_at = $2 WHERE name = $3")
        .bind(description)
        .bind(at.0)
        .bind(model)
        .execute(db)
        .await?;
    Ok(())
}

/// Gives a model another name; its versions and aliases go with it. The name has to be free.
pub async fn rename(db: &mut Connection, model: &str, name: &str, at: Timestamp) -> Result<()> {
    sqlx::query("UPDATE models SET name = $1, changed_at = $2 WHERE name = $3")
        .bind(name)
        .bind(at.0)
        .bind(model)
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE model_versions SET changed_at = $1 WHERE model = $2")
        .bind(at.0)
        .bind(name)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes a model with its versions, candidates and aliases. Runs and contents stay.
pub async fn remove_model(db: &mut Connection, model: &str) -> Result<()> {
    for statement in [
        "DELETE FROM aliases WHERE model = $1",
        "DELETE FROM alias_changes WHERE model = $1",
        "DELETE FROM model_files WHERE version IN (SELECT id FROM model_versions WHERE model = $1)",
        "DELETE FROM model_version_tags WHERE version IN (SELECT id FROM model_versions WHERE model = $1)",
        "DELETE FROM model_versions WHERE model = $1",
        "DELETE FROM model_tags WHERE model = $1",
        "DELETE FROM models WHERE name = $1",
    ] {
        sqlx::query(statement).bind(model).execute(&mut *db).await?;
    }
    Ok(())
}
