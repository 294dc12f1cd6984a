//! What the pages of experiments and runs read beside the rows themselves: counts, chosen values, names that occur, what
//! belongs together. One statement for a whole page, never one for a row.

use std::collections::{BTreeMap, HashMap};

use protocol::spec::Goal;
use protocol::{AttemptId, Timestamp};
use sqlx::any::AnyRow;

use super::experiments::{Experiment, experiment};
use super::metrics::float;
use super::rows::{Columns as _, numbered, to_int};
use super::runs::{Run, run};
use super::search::Piece;
use super::{Connection, Result};

/// So many of an experiment's newest runs say whose it is.
const LOOKED_AT: u32 = 20;

/// An experiment in a list. Its tags are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its row.
    pub experiment: Experiment,
    /// How many runs it has; of one that is not deleted only those that are not either.
    pub runs: u64,
    /// When its newest run began.
    pub last_run: Option<Timestamp>,
    /// The project whose job it is of.
    pub project: Option<String>,
}

/// Experiments whose name has this text in it, whatever its case; those with the newest runs first.
pub async fn experiments(
    db: &mut Connection,
    deleted: bool,
    name: &str,
    piece: Piece,
) -> Result<Vec<Listed>> {
    let not = if deleted { "NOT " } else { "" };
    let alive = of_view(deleted, "r.");
    let sql = format!(
        "SELECT * FROM (SELECT e.*, \
         (SELECT MAX(r.started_at) FROM runs r WHERE r.experiment = e.id {alive}) AS last_run \
         FROM experiments e WHERE e.deleted_at IS {not}NULL AND LOWER(e.name) LIKE LOWER($1) ESCAPE '\\') found \
         ORDER BY COALESCE(found.last_run, found.created_at) DESC, found.id DESC LIMIT $2 OFFSET $3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(contains(name))
        .bind(i64::from(piece.limit))
        .bind(to_int(piece.offset))
        .fetch_all(&mut *db)
        .await?;
    let ids = rows
        .iter()
        .map(|row| row.int("id"))
        .collect::<Result<Vec<_>>>()?;
    let counts = counts(db, &ids, deleted).await?;
    let mut owners = owners(db, &ids).await?;
    let listed = |row: &AnyRow| {
        let experiment = experiment(row)?;
        Ok(Listed {
            runs: counts.get(&experiment.id).copied().unwrap_or(0),
            last_run: row.maybe_time("last_run")?,
            project: owners.remove(&experiment.id),
            experiment,
        })
    };
    rows.iter().map(listed).collect()
}

/// What keeps deleted runs from being counted, and those of a deleted experiment in it.
fn of_view(deleted: bool, of: &str) -> String {
    if deleted {
        String::new()
    } else {
        format!("AND {of}deleted_at IS NULL")
    }
}

/// A pattern for what has this text in it.
fn contains(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// How many runs each of these experiments has.
async fn counts(db: &mut Connection, ids: &[i64], deleted: bool) -> Result<HashMap<i64, u64>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "SELECT experiment, COUNT(*) AS runs FROM runs WHERE experiment IN ({}) {} GROUP BY experiment",
        numbered(1, ids.len()),
        of_view(deleted, "")
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for id in ids {
        query = query.bind(*id);
    }
    let rows = query.fetch_all(db).await?;
    let pair = |row: &AnyRow| Ok((row.int("experiment")?, row.size("runs")?));
    rows.iter().map(pair).collect()
}

/// The names of the projects that these experiments are of.
pub async fn owners(db: &mut Connection, ids: &[i64]) -> Result<HashMap<i64, String>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "SELECT e.id AS id, (SELECT p.name FROM job_runs j JOIN projects p ON p.id = j.project \
         WHERE j.run IN (SELECT r.id FROM runs r WHERE r.experiment = e.id ORDER BY r.started_at DESC LIMIT {LOOKED_AT}) \
         LIMIT 1) AS project FROM experiments e WHERE e.id IN ({})",
        numbered(1, ids.len())
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for id in ids {
        query = query.bind(*id);
    }
    let mut found = HashMap::new();
    for row in query.fetch_all(db).await? {
        if let Some(project) = row.maybe_text("project")? {
            found.insert(row.int("id")?, project);
        }
    }
    Ok(found)
}

/// Named values of runs, that are read alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// Last values of metrics.
    Metrics,
    /// Settings.
    Params,
    /// Tags.
    Tags,
}

impl Named {
    fn table(self) -> &'static str {
        match self {
            Named::Metrics => "run_metrics",
            Named::Params => "run_params",
            Named::Tags => "run_tags",
        }
    }
}

/// At most `limit` names that these runs have: those that most of them have first, and of those the ones that differ.
pub async fn names(
    db: &mut Connection,
    what: Named,
    runs: &[String],
    limit: u32,
) -> Result<Vec<String>> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT name, COUNT(*) AS runs FROM {} WHERE run IN ({}) GROUP BY name \
         ORDER BY COUNT(*) DESC, CASE WHEN MIN(value) = MAX(value) THEN 1 ELSE 0 END, name COLLATE \"binary\" LIMIT {limit}",
        what.table(),
        numbered(1, runs.len())
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for run in runs {
        query = query.bind(run);
    }
    let rows = query.fetch_all(db).await?;
    rows.iter().map(|row| row.text("name")).collect()
}

/// What of a run has a name: run and name.
pub type Place = (String, String);

/// Rows of these names of these runs.
async fn chosen(
    db: &mut Connection,
    (what, columns): (Named, &'static str),
    runs: &[String],
    names: &[String],
) -> Result<Vec<AnyRow>> {
    if runs.is_empty() || names.is_empty() {
        return Ok(Vec::new());
    }
    let sql = chosen_sql(what, columns, runs.len(), names.len());
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for text in runs.iter().chain(names) {
        query = query.bind(text);
    }
    Ok(query.fetch_all(db).await?)
}

/// The statement for so many runs and names.
pub(super) fn chosen_sql(what: Named, columns: &str, runs: usize, names: usize) -> String {
    format!(
        "SELECT run, name, {columns} FROM {} WHERE run IN ({}) AND name IN ({})",
        what.table(),
        numbered(1, runs),
        numbered(1 + runs, names)
    )
}

/// The last values of these metrics of these runs.
pub async fn metrics(
    db: &mut Connection,
    runs: &[String],
    names: &[String],
) -> Result<HashMap<Place, f64>> {
    let rows = chosen(db, (Named::Metrics, "value, word"), runs, names).await?;
    let one = |row: &AnyRow| {
        let place = (row.text("run")?, row.text("name")?);
        Ok((place, float(row)?))
    };
    rows.iter().map(one).collect()
}

/// These params or tags of these runs.
pub async fn texts(
    db: &mut Connection,
    what: Named,
    runs: &[String],
    names: &[String],
) -> Result<HashMap<Place, String>> {
    let rows = chosen(db, (what, "value"), runs, names).await?;
    let one = |row: &AnyRow| {
        let place = (row.text("run")?, row.text("name")?);
        Ok((place, row.text("value")?))
    };
    rows.iter().map(one).collect()
}

/// The runs of these ids that there are, deleted or not, in the order of the ids.
pub async fn runs(db: &mut Connection, ids: &[String]) -> Result<Vec<Run>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT r.* FROM runs r WHERE r.id IN ({})",
        numbered(1, ids.len())
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for id in ids {
        query = query.bind(id);
    }
    let rows = query.fetch_all(db).await?;
    let mut found = rows.iter().map(run).collect::<Result<Vec<_>>>()?;
    found.sort_by_key(|run| ids.iter().position(|id| *id == run.id));
    Ok(found)
}

/// The newest runs within a run, at most `limit`; deleted ones are none.
pub async fn nested(db: &mut Connection, parent: &str, limit: u32) -> Result<Vec<Run>> {
    let sql = nested_sql(limit);
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(parent)
        .fetch_all(db)
        .await?;
    rows.iter().map(run).collect()
}

/// How the metrics of these runs are judged, as their jobs say; of two that differ the later run's counts.
pub async fn goals(db: &mut Connection, runs: &[String]) -> Result<BTreeMap<String, Goal>> {
    if runs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = format!(
        "SELECT j.goals AS goals FROM job_runs j JOIN runs r ON r.id = j.run WHERE j.run IN ({}) \
         ORDER BY r.started_at, r.id COLLATE \"binary\"",
        numbered(1, runs.len())
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for run in runs {
        query = query.bind(run);
    }
    let mut all = BTreeMap::new();
    for row in query.fetch_all(db).await? {
        all.extend(row.json::<BTreeMap<String, Goal>>("goals")?);
    }
    Ok(all)
}

/// The statement for at most so many.
pub(super) fn nested_sql(limit: u32) -> String {
    format!(
        "SELECT r.* FROM runs r JOIN run_tags t ON t.run = r.id \
         WHERE t.name = 'mlflow.parentRunId' AND t.value = $1 AND length(t.value) <= 200 \
         AND r.deleted_at IS NULL ORDER BY r.started_at DESC, r.id COLLATE \"binary\" LIMIT {limit}"
    )
}

/// A version that a run made: the model's name, its number where it has one, its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The model.
    pub model: String,
    /// None: a candidate.
    pub number: Option<u64>,
    /// Its id.
    pub id: String,
}

/// The newest versions that a run made, at most `limit`.
pub async fn versions(db: &mut Connection, run: &str, limit: u32) -> Result<Vec<Made>> {
    let rows = sqlx::query(
        "SELECT model, version, id FROM model_versions WHERE run = $1 AND deleted_at IS NULL \
         ORDER BY id DESC LIMIT $2",
    )
    .bind(run)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    let made = |row: &AnyRow| {
        Ok(Made {
            model: row.text("model")?,
            number: match row.maybe_int("version")? {
                Some(_) => Some(row.size("version")?),
                None => None,
            },
            id: row.text("id")?,
        })
    };
    rows.iter().map(made).collect()
}

/// The names of logged models, by their ids.
pub async fn logged_models(db: &mut Connection, ids: &[String]) -> Result<HashMap<String, String>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "SELECT id, name FROM logged_models WHERE id IN ({})",
        numbered(1, ids.len())
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for id in ids {
        query = query.bind(id);
    }
    let rows = query.fetch_all(db).await?;
    let pair = |row: &AnyRow| Ok((row.text("id")?, row.text("name")?));
    rows.iter().map(pair).collect()
}

/// The run of an attempt, once there is one.
pub async fn run_of(db: &mut Connection, attempt: &AttemptId) -> Result<Option<String>> {
    let row = sqlx::query("SELECT run FROM job_runs WHERE attempt = $1")
        .bind(attempt.as_str())
        .fetch_optional(db)
        .await?;
    row.map(|row| row.text("run")).transpose()
}
