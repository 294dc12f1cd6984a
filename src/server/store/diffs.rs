//! Rows of what pull requests change in notebooks.

use protocol::PipelineId;

use super::pipelines::{self, Pipeline};
use super::rows::Columns as _;
use super::{Connection, Result};

/// Pipelines of pull requests, not older than `from`, whose notebooks were not compared yet; oldest first.
pub async fn missing(db: &mut Connection, from: &str, limit: u32) -> Result<Vec<Pipeline>> {
    let rows = sqlx::query(
        "SELECT pipelines.id AS id FROM pipelines \
         LEFT JOIN notebook_diffs ON notebook_diffs.pipeline = pipelines.id \
         WHERE pipelines.id >= $1 AND pipelines.trigger_kind = 'pull_request' \
         AND notebook_diffs.pipeline IS NULL ORDER BY pipelines.id LIMIT $2",
    )
    .bind(from)
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await?;
    pipelines::of_rows(db, &rows).await
}

/// Keeps the Markdown of one; empty: no notebook differs.
pub async fn insert(db: &mut Connection, pipeline: &PipelineId, markdown: &str) -> Result<()> {
    sqlx::query(
        "INSERT INTO notebook_diffs (pipeline, markdown) VALUES ($1, $2) \
         ON CONFLICT (pipeline) DO NOTHING",
    )
    .bind(pipeline.as_str())
    .bind(markdown)
    .execute(db)
    .await?;
    Ok(())
}

/// The Markdown of one; none: it was not compared yet.
pub async fn find(db: &mut Connection, pipeline: &PipelineId) -> Result<Option<String>> {
    let row = sqlx::query("SELECT markdown FROM notebook_diffs WHERE pipeline = $1")
        .bind(pipeline.as_str())
        .fetch_optional(db)
        .await?;
    row.map(|row| row.text("markdown")).transpose()
}
