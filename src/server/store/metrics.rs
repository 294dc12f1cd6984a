//! Rows of metrics: the last value of each in a run, and its curve. A curve is read in pages that begin after a point, so
//! that a page costs the same wherever it lies.

use std::collections::{BTreeMap, HashMap};

use sqlx::any::AnyRow;

use super::rows::{Columns as _, IDS_AT_ONCE, ROWS_AT_ONCE, numbered, placeholders};
use super::{Connection, Result, StoreError};

/// One value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The metric's name.
    pub name: String,
    /// NaN and the infinities are kept as such.
    pub value: f64,
    /// Milliseconds since 1970, as the client said.
    pub at: i64,
    /// Step.
    pub step: i64,
}

/// What a float stands as: what it sorts as, and its word where it is none that both databases keep.
pub(super) fn columns(value: f64) -> (f64, &'static str) {
    if value.is_finite() {
        (value, "")
    } else if value.is_nan() {
        (0.0, "NaN")
    } else if value > 0.0 {
        (f64::MAX, "Infinity")
    } else {
        (f64::MIN, "-Infinity")
    }
}

/// The float of the columns `value` and `word`.
pub(super) fn float(row: &AnyRow) -> Result<f64> {
    match row.text("word")?.as_str() {
        "" => row
            .maybe_float("value")?
            .ok_or_else(|| unreadable("value", "it is null")),
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        other => Err(unreadable("word", &format!("'{other}' is no number"))),
    }
}

fn unreadable(column: &str, why: &str) -> StoreError {
    StoreError::Unreadable {
        column: column.to_owned(),
        why: why.to_owned(),
    }
}

fn point(row: &AnyRow, name: String) -> Result<Point> {
    Ok(Point {
        name,
        value: float(row)?,
        at: row.int("at")?,
        step: row.int("step")?,
    })
}

/// A metric's own row, as far as the next point is compared with it.
struct Last {
    id: i64,
    step: i64,
    at: i64,
    value: f64,
    word: &'static str,
    /// Whether it has to be written.
    changed: bool,
}

impl Last {
    /// The later step wins, then the later time, then the higher value.
    fn meet(&mut self, point: &Point) {
        let (value, word) = columns(point.value);
        let later = (self.step, self.at)
            .cmp(&(point.step, point.at))
            .then(self.value.total_cmp(&value));
        if later.is_lt() {
            (self.step, self.at, self.value, self.word) = (point.step, point.at, value, word);
            self.changed = true;
        }
    }
}

/// Adds points to a run's curves, and moves the last values. The same point twice is one.
pub async fn log(db: &mut Connection, run: &str, points: &[Point]) -> Result<()> {
    let mut all = known(db, run, points).await?;
    let mut next = next_id(db).await?;
    for point in points {
        let (value, word) = columns(point.value);
        match all.get_mut(point.name.as_str()) {
            Some(last) => last.meet(point),
            None => {
                let last = Last {
                    id: next,
                    step: point.step,
                    at: point.at,
                    value,
                    word,
                    changed: true,
                };
                next += 1;
                all.insert(&point.name, last);
            }
        }
    }
    write_last(db, run, &all).await?;
    for rows in points.chunks(ROWS_AT_ONCE) {
        let sql = format!(
            "INSERT INTO metric_points (metric, at, step, value, word) VALUES {} \
             ON CONFLICT (metric, at, step, value, word) DO NOTHING",
            placeholders(rows.len(), 5)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for point in rows {
            let (value, word) = columns(point.value);
            query = query
                .bind(all[point.name.as_str()].id)
                .bind(point.at)
                .bind(point.step)
                .bind(value)
                .bind(word);
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// The rows of those metrics of a run that these points belong to.
async fn known<'a>(
    db: &mut Connection,
    run: &str,
    points: &'a [Point],
) -> Result<BTreeMap<&'a str, Last>> {
    let mut names: Vec<&str> = points.iter().map(|point| point.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut all = BTreeMap::new();
    for names in names.chunks(IDS_AT_ONCE) {
        let sql = format!(
            "SELECT id, name, value, word, step, at FROM run_metrics WHERE run = $1 AND name IN ({})",
            numbered(2, names.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(run);
        for name in names {
            query = query.bind(*name);
        }
        for row in query.fetch_all(&mut *db).await? {
            let name = row.text("name")?;
            let (value, word) = columns(float(&row)?);
            let last = Last {
                id: row.int("id")?,
                step: row.int("step")?,
                at: row.int("at")?,
                value,
                word,
                changed: false,
            };
            if let Ok(place) = names.binary_search(&name.as_str()) {
                all.insert(names[place], last);
            }
        }
    }
    Ok(all)
}

async fn next_id(db: &mut Connection) -> Result<i64> {
    let row = sqlx::query("SELECT COALESCE(MAX(id), 0) AS last FROM run_metrics")
        .fetch_one(db)
        .await?;
    Ok(row.int("last")? + 1)
}

async fn write_last(db: &mut Connection, run: &str, all: &BTreeMap<&str, Last>) -> Result<()> {
    let changed: Vec<_> = all.iter().filter(|(_, last)| last.changed).collect();
    for rows in changed.chunks(ROWS_AT_ONCE) {
        let sql = format!(
            "INSERT INTO run_metrics (id, run, name, value, word, step, at) VALUES {} \
             ON CONFLICT (id) DO UPDATE SET value = excluded.value, word = excluded.word, \
             step = excluded.step, at = excluded.at",
            placeholders(rows.len(), 7)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (name, last) in rows {
            query = query
                .bind(last.id)
                .bind(run)
                .bind(**name)
                .bind(last.value)
                .bind(last.word)
                .bind(last.step)
                .bind(last.at);
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// The last value of each metric of these runs, by name.
pub async fn last(db: &mut Connection, runs: &[String]) -> Result<HashMap<String, Vec<Point>>> {
    let mut found: HashMap<String, Vec<Point>> = HashMap::new();
    for runs in runs.chunks(IDS_AT_ONCE) {
        let sql = format!(
            "SELECT run, name, value, word, step, at FROM run_metrics WHERE run IN ({})",
            numbered(1, runs.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for run in runs {
            query = query.bind(run);
        }
        for row in query.fetch_all(&mut *db).await? {
            let point = point(&row, row.text("name")?)?;
            found.entry(row.text("run")?).or_default().push(point);
        }
    }
    for list in found.values_mut() {
        list.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(found)
}

/// At most `limit` points of a run's metric, by time, step and value; those after `after`.
pub async fn history(
    db: &mut Connection,
    run: &str,
    name: &str,
    after: Option<&Point>,
    limit: u32,
) -> Result<Vec<Point>> {
    let Some(row) = sqlx::query("SELECT id FROM run_metrics WHERE run = $1 AND name = $2")
        .bind(run)
        .bind(name)
        .fetch_optional(&mut *db)
        .await?
    else {
        return Ok(Vec::new());
    };
    let metric = row.int("id")?;
    let condition = match after {
        Some(_) => "AND (at, step, value, word) > ($3, $4, $5, $6)",
        None => "",
    };
    let sql = format!(
        "SELECT value, word, step, at FROM metric_points WHERE metric = $1 {condition} \
         ORDER BY at, step, value, word LIMIT $2"
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(metric)
        .bind(i64::from(limit));
    if let Some(after) = after {
        let (value, word) = columns(after.value);
        query = query.bind(after.at).bind(after.step).bind(value).bind(word);
    }
    let rows = query.fetch_all(db).await?;
    rows.iter().map(|row| point(row, name.to_owned())).collect()
}
