//! Rows of logged models: what a run left as a model before anybody registered it.

use std::collections::HashMap;

use protocol::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::metrics::{self, Point};
use super::rows::{
    Columns as _, IDS_AT_ONCE, ROWS_AT_ONCE, numbered, placeholders, text_rows, to_word,
};
use super::runs::named;
use super::tags::OF_LOGGED_MODEL;
use super::{Connection, Result};

/// Whether its files are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoggedModelStatus {
    /// They are on their way.
    Pending,
    /// They are.
    Ready,
    /// They never came.
    Failed,
}

/// A logged model's own row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedModel {
    /// `m-` and 32 hex digits.
    pub id: String,
    /// The number of its experiment.
    pub experiment: i64,
    /// Its name.
    pub name: String,
    /// What kind of model it is, as the client said.
    pub kind: Option<String>,
    /// The run that made it.
    pub run: Option<String>,
    /// Whether its files are there.
    pub status: LoggedModelStatus,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub changed_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
}

/// A value that was measured of a logged model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelPoint {
    /// The logged model.
    pub model: String,
    /// The run that measured it.
    pub run: String,
    /// The value.
    pub point: Point,
    /// The dataset that it was measured on, by name and digest; empty: none that was named.
    pub dataset: (String, String),
}

/// A logged model with all that belongs to it but its files.
#[derive(Debug, Clone, PartialEq)]
pub struct FullLoggedModel {
    /// Its row.
    pub model: LoggedModel,
    /// Settings, by name.
    pub params: Vec<(String, String)>,
    /// Tags, by name.
    pub tags: Vec<(String, String)>,
    /// What was measured.
    pub metrics: Vec<ModelPoint>,
}

pub(super) fn logged_model(row: &AnyRow) -> Result<LoggedModel> {
    Ok(LoggedModel {
        id: row.text("id")?,
        experiment: row.int("experiment")?,
        name: row.text("name")?,
        kind: row.maybe_text("kind")?,
        run: row.maybe_text("run")?,
        status: row.word("status")?,
        created_at: row.time("created_at")?,
        changed_at: row.time("changed_at")?,
        deleted_at: row.maybe_time("deleted_at")?,
    })
}

/// Adds a logged model.
pub async fn insert(db: &mut Connection, model: &LoggedModel) -> Result<()> {
    sqlx::query(
        "INSERT INTO logged_models (id, experiment, name, kind, run, status, created_at, changed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&model.id)
    .bind(model.experiment)
    .bind(&model.name)
    .bind(&model.kind)
    .bind(&model.run)
    .bind(to_word(&model.status)?)
    .bind(model.created_at.0)
    .bind(model.changed_at.0)
    .execute(db)
    .await?;
    Ok(())
}

/// One logged model by its id, deleted or not.
pub async fn find(db: &mut Connection, id: &str) -> Result<Option<LoggedModel>> {
    let row = sqlx::query("SELECT * FROM logged_models WHERE id = $1")
        .bind(id)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(logged_model).transpose()
}

/// Writes what may change of a logged model.
pub async fn update(db: &mut Connection, model: &LoggedModel) -> Result<()> {
    sqlx::query(
        "UPDATE logged_models SET status = $1, changed_at = $2, deleted_at = $3 WHERE id = $4",
    )
    .bind(to_word(&model.status)?)
    .bind(model.changed_at.0)
    .bind(model.deleted_at.map(|at| at.0))
    .bind(&model.id)
    .execute(db)
    .await?;
    Ok(())
}

/// Sets tags; the last of one name wins.
pub async fn set_tags(db: &mut Connection, id: &str, tags: &[(String, String)]) -> Result<()> {
    OF_LOGGED_MODEL.set(db, id, tags).await
}

/// One tag of a logged model.
pub async fn tag(db: &mut Connection, id: &str, name: &str) -> Result<Option<String>> {
    let row = sqlx::query("SELECT value FROM logged_model_tags WHERE model = $1 AND name = $2")
        .bind(id)
        .bind(name)
        .fetch_optional(db)
        .await?;
    row.map(|row| row.text("value")).transpose()
}

/// Takes a tag away. False where there was none.
pub async fn remove_tag(db: &mut Connection, id: &str, name: &str) -> Result<bool> {
    OF_LOGGED_MODEL.remove(db, id, name).await
}

/// Adds params. False, and nothing is added, where one has a value already.
pub async fn add_params(
    db: &mut Connection,
    id: &str,
    params: &[(String, String)],
) -> Result<bool> {
    for rows in text_rows(params) {
        let sql = format!(
            "SELECT name FROM logged_model_params WHERE model = $1 AND name IN ({}) LIMIT 1",
            numbered(2, rows.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id);
        for (name, _) in &rows {
            query = query.bind(*name);
        }
        if query.fetch_optional(&mut *db).await?.is_some() {
            return Ok(false);
        }
    }
    for rows in text_rows(params) {
        let sql = format!(
            "INSERT INTO logged_model_params (model, name, value) VALUES {}",
            placeholders(rows.len(), 3)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (name, value) in rows {
            query = query.bind(id).bind(name).bind(value);
        }
        query.execute(&mut *db).await?;
    }
    Ok(true)
}

/// Adds what was measured. The same point twice is one.
pub async fn log(db: &mut Connection, points: &[ModelPoint]) -> Result<()> {
    for rows in points.chunks(ROWS_AT_ONCE) {
        let sql = format!(
            "INSERT INTO logged_model_metrics \
             (model, run, name, at, step, value, word, dataset, dataset_digest) VALUES {} \
             ON CONFLICT (model, name, at, step, run, dataset, dataset_digest) DO NOTHING",
            placeholders(rows.len(), 9)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for one in rows {
            let (value, word) = metrics::columns(one.point.value);
            query = query
                .bind(&one.model)
                .bind(&one.run)
                .bind(&one.point.name)
                .bind(one.point.at)
                .bind(one.point.step)
                .bind(value)
                .bind(word)
                .bind(&one.dataset.0)
                .bind(&one.dataset.1);
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// Reads all that belongs to these logged models, in their order.
pub async fn fill(db: &mut Connection, list: Vec<LoggedModel>) -> Result<Vec<FullLoggedModel>> {
    let ids: Vec<String> = list.iter().map(|model| model.id.clone()).collect();
    let mut params = named(db, "logged_model_params", "model", &ids).await?;
    let mut tags = named(db, "logged_model_tags", "model", &ids).await?;
    let mut metrics = measured(db, &ids).await?;
    let full = |model: LoggedModel| FullLoggedModel {
        params: params.remove(&model.id).unwrap_or_default(),
        tags: tags.remove(&model.id).unwrap_or_default(),
        metrics: metrics.remove(&model.id).unwrap_or_default(),
        model,
    };
    Ok(list.into_iter().map(full).collect())
}

async fn measured(db: &mut Connection, ids: &[String]) -> Result<HashMap<String, Vec<ModelPoint>>> {
    let mut found: HashMap<String, Vec<ModelPoint>> = HashMap::new();
    for ids in ids.chunks(IDS_AT_ONCE) {
        let sql = format!(
            "SELECT * FROM logged_model_metrics WHERE model IN ({}) \
             ORDER BY name COLLATE \"binary\", at, step",
            numbered(1, ids.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for id in ids {
            query = query.bind(id);
        }
        for row in query.fetch_all(&mut *db).await? {
            let point = ModelPoint {
                model: row.text("model")?,
                run: row.text("run")?,
                point: Point {
                    name: row.text("name")?,
                    value: metrics::float(&row)?,
                    at: row.int("at")?,
                    step: row.int("step")?,
                },
                dataset: (row.text("dataset")?, row.text("dataset_digest")?),
            };
            found.entry(point.model.clone()).or_default().push(point);
        }
    }
    Ok(found)
}
