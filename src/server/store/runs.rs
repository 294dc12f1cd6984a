//! Rows of runs: what a job left and what a client logs stand side by side, and are read alike.

use std::collections::HashMap;

use protocol::{AttemptId, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::datasets::{self, UsedDataset};
use super::metrics::{self, Point};
use super::rows::{
    Columns as _, IDS_AT_ONCE, from_word, numbered, parsed, placeholders, text_rows, to_word,
};
use super::tags::OF_RUN;
use super::words::{self, Words};
use super::{Connection, Result};

/// How a run stands, in MLflow's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunStatus {
    /// It goes on.
    Running,
    /// It will begin.
    Scheduled,
    /// It succeeded.
    Finished,
    /// It failed.
    Failed,
    /// It was ended.
    Killed,
}

/// A run's own row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// 32 hex digits.
    pub id: String,
    /// The number of its experiment.
    pub experiment: i64,
    /// Its name.
    pub name: String,
    /// Whose it is, as the client said; often empty.
    pub person: String,
    /// How it stands.
    pub status: RunStatus,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// The attempt whose code writes it: then nobody else adds to what it measured.
    pub attempt: Option<AttemptId>,
}

/// Ends the runs that an attempt began and left open.
pub async fn end_open(
    db: &mut Connection,
    attempt: &AttemptId,
    status: RunStatus,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE runs SET status = $1, finished_at = $2 \
         WHERE attempt = $3 AND status IN ('RUNNING', 'SCHEDULED')",
    )
    .bind(to_word(&status)?)
    .bind(at.0)
    .bind(attempt.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// A run with all that belongs to it but its curves.
#[derive(Debug, Clone, PartialEq)]
pub struct FullRun {
    /// Its row.
    pub run: Run,
    /// The last value of each metric, by name.
    pub metrics: Vec<Point>,
    /// Settings, by name.
    pub params: Vec<(String, String)>,
    /// Tags, by name.
    pub tags: Vec<(String, String)>,
    /// Datasets that it used.
    pub datasets: Vec<UsedDataset>,
    /// Logged models that it read.
    pub inputs: Vec<String>,
    /// Logged models that it made, each with its step.
    pub outputs: Vec<(String, i64)>,
}

pub(super) fn run(row: &AnyRow) -> Result<Run> {
    Ok(Run {
        id: row.text("id")?,
        experiment: row.int("experiment")?,
        name: row.text("name")?,
        person: row.text("person")?,
        status: row.word("status")?,
        started_at: row.time("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
        deleted_at: row.maybe_time("deleted_at")?,
        attempt: row.maybe_parsed("attempt")?,
    })
}

/// SQL of the run `r`, as words; [`from_words`] reads them.
pub(super) fn as_words() -> String {
    words::row(&[
        words::text("r.id"),
        words::int("r.experiment"),
        words::text("r.name"),
        words::text("r.person"),
        words::text("r.status"),
        words::int("r.started_at"),
        words::maybe_int("r.finished_at"),
        words::maybe_int("r.deleted_at"),
        words::maybe_text("r.attempt"),
    ])
}

/// A run, of the words of [`as_words`].
pub(super) fn from_words(mut words: Words<'_>) -> Result<Run> {
    Ok(Run {
        id: words.text()?.to_owned(),
        experiment: words.int()?,
        name: words.text()?.to_owned(),
        person: words.text()?.to_owned(),
        status: from_word("status", words.text()?)?,
        started_at: Timestamp(words.int()?),
        finished_at: words.maybe_int()?.map(Timestamp),
        deleted_at: words.maybe_int()?.map(Timestamp),
        attempt: match words.text()? {
            "" => None,
            id => Some(parsed("attempt", id)?),
        },
    })
}

/// Adds a run. False where there is one of this id.
pub async fn insert(db: &mut Connection, run: &Run) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO runs (id, experiment, name, person, status, started_at, finished_at, deleted_at, \
         attempt) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING",
    )
    .bind(&run.id)
    .bind(run.experiment)
    .bind(&run.name)
    .bind(&run.person)
    .bind(to_word(&run.status)?)
    .bind(run.started_at.0)
    .bind(run.finished_at.map(|at| at.0))
    .bind(run.deleted_at.map(|at| at.0))
    .bind(run.attempt.as_ref().map(AttemptId::as_str))
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes what may change of a run.
pub async fn update(db: &mut Connection, run: &Run) -> Result<()> {
    sqlx::query(
        "UPDATE runs SET name = $1, status = $2, finished_at = $3, deleted_at = $4 WHERE id = $5",
    )
    .bind(&run.name)
    .bind(to_word(&run.status)?)
    .bind(run.finished_at.map(|at| at.0))
    .bind(run.deleted_at.map(|at| at.0))
    .bind(&run.id)
    .execute(db)
    .await?;
    Ok(())
}

/// One run by its id, deleted or not.
pub async fn find(db: &mut Connection, id: &str) -> Result<Option<Run>> {
    let row = sqlx::query("SELECT * FROM runs WHERE id = $1")
        .bind(id)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(run).transpose()
}

/// Reads all that belongs to these runs, in their order.
pub async fn fill(db: &mut Connection, list: Vec<Run>) -> Result<Vec<FullRun>> {
    let ids: Vec<String> = list.iter().map(|run| run.id.clone()).collect();
    let mut metrics = metrics::last(db, &ids).await?;
    let mut params = named(db, "run_params", "run", &ids).await?;
    let mut tags = named(db, "run_tags", "run", &ids).await?;
    let mut datasets = datasets::of_runs(db, &ids).await?;
    let mut models = models_of(db, &ids).await?;
    let full = |run: Run| {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for (role, model, step) in models.remove(&run.id).unwrap_or_default() {
            match role {
                ModelRole::Input => inputs.push(model),
                ModelRole::Output => outputs.push((model, step)),
            }
        }
        FullRun {
            metrics: metrics.remove(&run.id).unwrap_or_default(),
            params: params.remove(&run.id).unwrap_or_default(),
            tags: tags.remove(&run.id).unwrap_or_default(),
            datasets: datasets.remove(&run.id).unwrap_or_default(),
            inputs,
            outputs,
            run,
        }
    };
    Ok(list.into_iter().map(full).collect())
}

/// Named texts of several owners: of `table`, whose column `owner` says whose.
pub(super) async fn named(
    db: &mut Connection,
    table: &'static str,
    owner: &'static str,
    ids: &[String],
) -> Result<HashMap<String, Vec<(String, String)>>> {
    let mut found: HashMap<String, Vec<(String, String)>> = HashMap::new();
    let all = [words::text("name"), words::text("value")];
    for (id, text) in words::of(db, (table, owner), &all, ids).await? {
        let (mut words, mut list) = (Words(&text), Vec::new());
        while !words.is_empty() {
            list.push((words.text()?.to_owned(), words.text()?.to_owned()));
        }
        list.sort();
        found.insert(id, list);
    }
    Ok(found)
}

/// Sets tags; the last of one name wins.
pub async fn set_tags(db: &mut Connection, run: &str, tags: &[(String, String)]) -> Result<()> {
    OF_RUN.set(db, run, tags).await
}

/// One tag of a run.
pub async fn tag(db: &mut Connection, run: &str, name: &str) -> Result<Option<String>> {
    let row = sqlx::query("SELECT value FROM run_tags WHERE run = $1 AND name = $2")
        .bind(run)
        .bind(name)
        .fetch_optional(db)
        .await?;
    row.map(|row| row.text("value")).transpose()
}

/// Takes a tag away. False where there was none.
pub async fn remove_tag(db: &mut Connection, run: &str, name: &str) -> Result<bool> {
    OF_RUN.remove(db, run, name).await
}

/// A param that has another value already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Its name.
    pub name: String,
    /// What it was set to.
    pub before: String,
    /// What it would be set to.
    pub now: String,
}

/// Adds params, all or none: gives the first that has another value already.
pub async fn add_params(
    db: &mut Connection,
    run: &str,
    params: &[(String, String)],
) -> Result<Option<Conflict>> {
    for rows in text_rows(params) {
        let sql = format!(
            "SELECT name, value FROM run_params WHERE run = $1 AND name IN ({})",
            numbered(2, rows.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(run);
        for (name, _) in &rows {
            query = query.bind(*name);
        }
        for row in query.fetch_all(&mut *db).await? {
            let (name, before) = (row.text("name")?, row.text("value")?);
            let now = rows.iter().find(|(other, _)| *other == name);
            if let Some((_, now)) = now.filter(|(_, now)| *now != before) {
                let now = (*now).to_owned();
                return Ok(Some(Conflict { name, before, now }));
            }
        }
    }
    for rows in text_rows(params) {
        let sql = format!(
            "INSERT INTO run_params (run, name, value) VALUES {} ON CONFLICT (run, name) DO NOTHING",
            placeholders(rows.len(), 3)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (name, value) in rows {
            query = query.bind(run).bind(name).bind(value);
        }
        query.execute(&mut *db).await?;
    }
    Ok(None)
}

/// Takes a param away where it has this value.
pub async fn remove_param(db: &mut Connection, run: &str, name: &str, value: &str) -> Result<()> {
    sqlx::query("DELETE FROM run_params WHERE run = $1 AND name = $2 AND value = $3")
        .bind(run)
        .bind(name)
        .bind(value)
        .execute(db)
        .await?;
    Ok(())
}

/// What a logged model is to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelRole {
    /// The run read it.
    Input,
    /// The run made it.
    Output,
}

/// Notes that a run read or made a logged model.
pub async fn link_model(
    db: &mut Connection,
    run: &str,
    role: ModelRole,
    model: &str,
    step: i64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO run_models (run, role, model, step) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (run, role, model, step) DO NOTHING",
    )
    .bind(run)
    .bind(to_word(&role)?)
    .bind(model)
    .bind(step)
    .execute(db)
    .await?;
    Ok(())
}

type Links = HashMap<String, Vec<(ModelRole, String, i64)>>;

async fn models_of(db: &mut Connection, runs: &[String]) -> Result<Links> {
    let mut found = Links::new();
    for runs in runs.chunks(IDS_AT_ONCE) {
        let sql = format!(
            "SELECT run, role, model, step FROM run_models WHERE run IN ({})",
            numbered(1, runs.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for run in runs {
            query = query.bind(run);
        }
        for row in query.fetch_all(&mut *db).await? {
            let link = (row.word("role")?, row.text("model")?, row.int("step")?);
            found.entry(row.text("run")?).or_default().push(link);
        }
    }
    Ok(found)
}
