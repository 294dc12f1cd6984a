//! Tags: texts by name of experiments, runs, logged models, models and versions. Each has a table of its own, all of one
//! shape.

use sqlx::{Any, Encode, Type};

use super::rows::{placeholders, text_rows};
use super::{Connection, Result};

/// A table of tags, and its column that says whose they are.
pub(super) struct Tags {
    table: &'static str,
    owner: &'static str,
}

pub(super) const OF_EXPERIMENT: Tags = Tags {
    table: "experiment_tags",
    owner: "experiment",
};
pub(super) const OF_RUN: Tags = Tags {
    table: "run_tags",
    owner: "run",
};
pub(super) const OF_LOGGED_MODEL: Tags = Tags {
    table: "logged_model_tags",
    owner: "model",
};
pub(super) const OF_MODEL: Tags = Tags {
    table: "model_tags",
    owner: "model",
};
pub(super) const OF_VERSION: Tags = Tags {
    table: "model_version_tags",
    owner: "version",
};

impl Tags {
    /// Sets tags; the last of one name wins.
    pub(super) async fn set<'q, O>(
        &self,
        db: &mut Connection,
        of: O,
        tags: &'q [(String, String)],
    ) -> Result<()>
    where
        O: 'q + Copy + Send + Encode<'q, Any> + Type<Any>,
    {
        let Self { table, owner } = self;
        for rows in text_rows(tags) {
            let sql = format!(
                "INSERT INTO {table} ({owner}, name, value) VALUES {} \
                 ON CONFLICT ({owner}, name) DO UPDATE SET value = excluded.value",
                placeholders(rows.len(), 3)
            );
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
            for (name, value) in rows {
                query = query.bind(of).bind(name).bind(value);
            }
            query.execute(&mut *db).await?;
        }
        Ok(())
    }

    /// Takes a tag away. False where there was none.
    pub(super) async fn remove<'q, O>(
        &self,
        db: &mut Connection,
        of: O,
        name: &'q str,
    ) -> Result<bool>
    where
        O: 'q + Copy + Send + Encode<'q, Any> + Type<Any>,
    {
        let Self { table, owner } = self;
        let sql = format!("DELETE FROM {table} WHERE {owner} = $1 AND name = $2");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(of).bind(name);
        Ok(query.execute(db).await?.rows_affected() == 1)
    }
}
