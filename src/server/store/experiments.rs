//! Rows of experiments: names under which runs and logged models are kept.

use protocol::Timestamp;
use sqlx::any::AnyRow;

use super::rows::{Columns as _, numbered};
use super::tags::OF_EXPERIMENT;
use super::{Connection, Result, StoreError};

/// The experiment that is there from the start.
pub const DEFAULT: i64 = 0;

/// One experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    /// Its number.
    pub id: i64,
    /// Its name, unique on this server, also among deleted ones.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was renamed, deleted or restored last.
    pub changed_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// Tags, by name.
    pub tags: Vec<(String, String)>,
}

/// An experiment without its tags.
pub(super) fn experiment(row: &AnyRow) -> Result<Experiment> {
    Ok(Experiment {
        id: row.int("id")?,
        name: row.text("name")?,
        created_at: row.time("created_at")?,
        changed_at: row.time("changed_at")?,
        deleted_at: row.maybe_time("deleted_at")?,
        tags: Vec::new(),
    })
}

/// Makes an experiment; gives its number, or none where the name is taken.
pub async fn insert(db: &mut Connection, name: &str, at: Timestamp) -> Result<Option<i64>> {
    let last = sqlx::query("SELECT COALESCE(MAX(id), 0) AS last FROM experiments")
        .fetch_one(&mut *db)
        .await?;
    let id = last.int("last")? + 1;
    let done = sqlx::query(
        "INSERT INTO experiments (id, name, created_at, changed_at) VALUES ($1, $2, $3, $3) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(id)
    .bind(name)
    .bind(at.0)
    .execute(db)
    .await?;
    Ok((done.rows_affected() == 1).then_some(id))
}

/// The number of the experiment of this name, which is made where there is none. One that was deleted is there again: what
/// is begun in it could not go on otherwise. Its runs stay deleted.
pub async fn ensure(db: &mut Connection, name: &str, at: Timestamp) -> Result<i64> {
    if let Some(found) = by_name(db, name).await? {
        if found.deleted_at.is_some() {
            sqlx::query("UPDATE experiments SET deleted_at = NULL, changed_at = $1 WHERE id = $2")
                .bind(at.0)
                .bind(found.id)
                .execute(db)
                .await?;
        }
        return Ok(found.id);
    }
    insert(db, name, at)
        .await?
        .ok_or_else(|| StoreError::Missing(format!("experiment '{name}'")))
}

/// One experiment by its number, deleted or not.
pub async fn find(db: &mut Connection, id: i64) -> Result<Option<Experiment>> {
    let row = sqlx::query("SELECT * FROM experiments WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut *db)
        .await?;
    with_tags(db, row).await
}

/// One experiment by its name, deleted or not.
pub async fn by_name(db: &mut Connection, name: &str) -> Result<Option<Experiment>> {
    let row = sqlx::query("SELECT * FROM experiments WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut *db)
        .await?;
    with_tags(db, row).await
}

async fn with_tags(db: &mut Connection, row: Option<AnyRow>) -> Result<Option<Experiment>> {
    let Some(row) = row else { return Ok(None) };
    let mut list = vec![experiment(&row)?];
    fill_tags(db, &mut list).await?;
    Ok(list.pop())
}

/// Reads the tags of all of these.
pub(super) async fn fill_tags(db: &mut Connection, list: &mut [Experiment]) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT experiment, name, value FROM experiment_tags WHERE experiment IN ({}) \
         ORDER BY name COLLATE \"binary\"",
        numbered(1, list.len())
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for one in list.iter() {
        query = query.bind(one.id);
    }
    for row in query.fetch_all(db).await? {
        let owner = row.int("experiment")?;
        let tag = (row.text("name")?, row.text("value")?);
        if let Some(one) = list.iter_mut().find(|one| one.id == owner) {
            one.tags.push(tag);
        }
    }
    Ok(())
}

/// Gives an experiment another name. False where that is taken.
pub async fn rename(db: &mut Connection, id: i64, name: &str, at: Timestamp) -> Result<bool> {
    if by_name(db, name).await?.is_some_and(|other| other.id != id) {
        return Ok(false);
    }
    sqlx::query("UPDATE experiments SET name = $1, changed_at = $2 WHERE id = $3")
        .bind(name)
        .bind(at.0)
        .bind(id)
        .execute(db)
        .await?;
    Ok(true)
}

/// Deletes an experiment with all its runs, or restores it with all of them.
pub async fn set_deleted(db: &mut Connection, id: i64, deleted: bool, at: Timestamp) -> Result<()> {
    let deleted_at = deleted.then_some(at.0);
    sqlx::query("UPDATE experiments SET deleted_at = $1, changed_at = $2 WHERE id = $3")
        .bind(deleted_at)
        .bind(at.0)
        .bind(id)
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE runs SET deleted_at = $1 WHERE experiment = $2")
        .bind(deleted_at)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Sets tags; the last of one name wins.
pub async fn set_tags(db: &mut Connection, id: i64, tags: &[(String, String)]) -> Result<()> {
    OF_EXPERIMENT.set(db, id, tags).await
}

/// Takes a tag away. False where there was none.
pub async fn remove_tag(db: &mut Connection, id: i64, name: &str) -> Result<bool> {
    OF_EXPERIMENT.remove(db, id, name).await
}
