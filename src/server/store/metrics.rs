//! Metrics of runs: the last value of each is a row, and its curve lies beside it ([`curves`]). A curve is read in pages that
//! begin after a point, so that a page costs the same wherever it lies.

use std::collections::{BTreeMap, HashMap};

use sqlx::any::AnyRow;

use super::curves::{self, Added, Cell};
use super::rows::{Columns as _, IDS_AT_ONCE, ROWS_AT_ONCE, numbered, placeholders};
use super::words::{self, Words};
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

/// A float as it stands in the column `bits`: a text of it would not be exact on every database.
pub(super) fn bits(value: f64) -> i64 {
    value.to_bits().cast_signed()
}

fn exact(bits: i64) -> f64 {
    f64::from_bits(bits.cast_unsigned())
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
        value: exact(row.int("bits")?),
        at: row.int("at")?,
        step: row.int("step")?,
    })
}

/// A metric's own row, and its last point.
struct Last {
    id: i64,
    point: Point,
    /// Whether it has to be written.
    changed: bool,
}

impl Last {
    /// The later step wins, then the later time, then the higher value.
    fn meet(&mut self, point: &Point) {
        let later = (self.point.step, self.point.at)
            .cmp(&(point.step, point.at))
            .then(
                columns(self.point.value)
                    .0
                    .total_cmp(&columns(point.value).0),
            );
        if later.is_lt() {
            self.point = point.clone();
            self.changed = true;
        }
    }
}

/// Adds points to a run's curves, and moves the last values. The same point twice is one.
pub async fn log(db: &mut Connection, run: &str, points: &[Point]) -> Result<()> {
    let mut all = known(db, run, points).await?;
    let mut next = next_id(db).await?;
    let mut added: BTreeMap<&str, Added> = BTreeMap::new();
    for point in points {
        let name = point.name.as_str();
        let before = all.get(name).map(|last| Cell::of(&last.point));
        let last = all.entry(name).or_insert_with(|| {
            let id = next;
            next += 1;
            Last {
                id,
                point: point.clone(),
                changed: true,
            }
        });
        last.meet(point);
        let metric = last.id;
        let curve = added.entry(name).or_insert_with(|| Added {
            metric,
            before,
            cells: Vec::new(),
        });
        curve.cells.push(Cell::of(point));
    }
    write_last(db, run, &all).await?;
    curves::add(db, added.into_values().collect()).await
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
            "SELECT id, name, bits, step, at FROM run_metrics WHERE run = $1 AND name IN ({})",
            numbered(2, names.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(run);
        for name in names {
            query = query.bind(*name);
        }
        for row in query.fetch_all(&mut *db).await? {
            let name = row.text("name")?;
            let last = Last {
                id: row.int("id")?,
                point: point(&row, name.clone())?,
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
            "INSERT INTO run_metrics (id, run, name, value, word, bits, step, at) VALUES {} \
             ON CONFLICT (id) DO UPDATE SET value = excluded.value, word = excluded.word, \
             bits = excluded.bits, step = excluded.step, at = excluded.at",
            placeholders(rows.len(), 8)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (name, last) in rows {
            let (value, word) = columns(last.point.value);
            query = query
                .bind(last.id)
                .bind(run)
                .bind(**name)
                .bind(value)
                .bind(word)
                .bind(bits(last.point.value))
                .bind(last.point.step)
                .bind(last.point.at);
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// The last value of each metric of these runs, by name.
pub async fn last(db: &mut Connection, runs: &[String]) -> Result<HashMap<String, Vec<Point>>> {
    let mut found: HashMap<String, Vec<Point>> = HashMap::new();
    let [bits, at, step] = ["bits", "at", "step"].map(words::int);
    let all = [words::text("name"), bits, at, step];
    for (run, text) in words::of(db, ("run_metrics", "run"), &all, runs).await? {
        let (mut words, mut list) = (Words(&text), Vec::new());
        while !words.is_empty() {
            list.push(Point {
                name: words.text()?.to_owned(),
                value: exact(words.int()?),
                at: words.int()?,
                step: words.int()?,
            });
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        found.insert(run, list);
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
    let Some(row) =
        sqlx::query("SELECT id, bits, step, at FROM run_metrics WHERE run = $1 AND name = $2")
            .bind(run)
            .bind(name)
            .fetch_optional(&mut *db)
            .await?
    else {
        return Ok(Vec::new());
    };
    let last = point(&row, name.to_owned())?;
    curves::read(db, row.int("id")?, &last, after, limit).await
}
