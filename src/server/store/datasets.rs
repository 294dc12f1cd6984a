//! Rows of datasets: what runs used. One that several runs of an experiment used is one.

use std::collections::HashMap;

use sqlx::any::AnyRow;

use super::rows::{Columns as _, IDS_AT_ONCE, numbered, placeholders, text_rows};
use super::{Connection, Result};

/// A dataset, as the client described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// A hash of its content, made by the client.
    pub digest: String,
    /// What the source is, such as `http`.
    pub source_type: String,
    /// Where it came from.
    pub source: String,
    /// Its columns.
    pub schema: Option<String>,
    /// Its measures.
    pub profile: Option<String>,
}

/// A dataset that a run used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedDataset {
    /// The dataset.
    pub dataset: Dataset,
    /// Tags, by name; `mlflow.data.context` says what it was used for.
    pub tags: Vec<(String, String)>,
}

/// Notes that a run used a dataset. What was noted before stays as it is.
pub async fn use_one(
    db: &mut Connection,
    experiment: i64,
    run: &str,
    used: &UsedDataset,
) -> Result<()> {
    let dataset = ensure(db, experiment, &used.dataset).await?;
    let done = sqlx::query(
        "INSERT INTO run_datasets (run, dataset) VALUES ($1, $2) ON CONFLICT (run, dataset) DO NOTHING",
    )
    .bind(run)
    .bind(dataset)
    .execute(&mut *db)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    for rows in text_rows(&used.tags) {
        let sql = format!(
            "INSERT INTO run_dataset_tags (run, dataset, name, value) VALUES {}",
            placeholders(rows.len(), 4)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (name, value) in rows {
            query = query.bind(run).bind(dataset).bind(name).bind(value);
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

async fn ensure(db: &mut Connection, experiment: i64, wanted: &Dataset) -> Result<i64> {
    let found =
        sqlx::query("SELECT id FROM datasets WHERE experiment = $1 AND name = $2 AND digest = $3")
            .bind(experiment)
            .bind(&wanted.name)
            .bind(&wanted.digest)
            .fetch_optional(&mut *db)
            .await?;
    if let Some(row) = found {
        return row.int("id");
    }
    let last = sqlx::query("SELECT COALESCE(MAX(id), 0) AS last FROM datasets")
        .fetch_one(&mut *db)
        .await?;
    let id = last.int("last")? + 1;
    sqlx::query(
        "INSERT INTO datasets (id, experiment, name, digest, source_type, source, schema_text, profile) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id)
    .bind(experiment)
    .bind(&wanted.name)
    .bind(&wanted.digest)
    .bind(&wanted.source_type)
    .bind(&wanted.source)
    .bind(&wanted.schema)
    .bind(&wanted.profile)
    .execute(db)
    .await?;
    Ok(id)
}

fn dataset(row: &AnyRow) -> Result<Dataset> {
    Ok(Dataset {
        name: row.text("name")?,
        digest: row.text("digest")?,
        source_type: row.text("source_type")?,
        source: row.text("source")?,
        schema: row.maybe_text("schema_text")?,
        profile: row.maybe_text("profile")?,
    })
}

/// The datasets that these runs used, in the order in which they became known.
pub async fn of_runs(
    db: &mut Connection,
    runs: &[String],
) -> Result<HashMap<String, Vec<UsedDataset>>> {
    let mut found: HashMap<String, Vec<(i64, UsedDataset)>> = HashMap::new();
    for runs in runs.chunks(IDS_AT_ONCE) {
        let sql = format!(
            "SELECT u.run AS run, d.* FROM run_datasets u JOIN datasets d ON d.id = u.dataset \
             WHERE u.run IN ({}) ORDER BY d.id",
            numbered(1, runs.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for run in runs {
            query = query.bind(run);
        }
        for row in query.fetch_all(&mut *db).await? {
            let used = UsedDataset {
                dataset: dataset(&row)?,
                tags: Vec::new(),
            };
            let list = found.entry(row.text("run")?).or_default();
            list.push((row.int("id")?, used));
        }
    }
    let users: Vec<String> = found.keys().cloned().collect();
    for runs in users.chunks(IDS_AT_ONCE) {
        let sql = format!(
            "SELECT run, dataset, name, value FROM run_dataset_tags WHERE run IN ({}) \
             ORDER BY name COLLATE \"binary\"",
            numbered(1, runs.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for run in runs {
            query = query.bind(run);
        }
        for row in query.fetch_all(&mut *db).await? {
            let (run, id) = (row.text("run")?, row.int("dataset")?);
            let list = found.get_mut(&run);
            let used = list.and_then(|list| list.iter_mut().find(|(other, _)| *other == id));
            if let Some((_, used)) = used {
                used.tags.push((row.text("name")?, row.text("value")?));
            }
        }
    }
    let plain = |list: Vec<(i64, UsedDataset)>| list.into_iter().map(|(_, used)| used).collect();
    Ok(found
        .into_iter()
        .map(|(run, list)| (run, plain(list)))
        .collect())
}
