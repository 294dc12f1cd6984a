//! Rows of curves. Points lie packed, so many to a row: what a curve costs is the number of its rows, be it written or read.
//! A metric that has one point has no row here: its own row is that point.

use std::collections::HashMap;

use super::metrics::{self, Point};
use super::rows::{Columns as _, IDS_AT_ONCE, ROWS_AT_ONCE, numbered, placeholders};
use super::{Connection, Result, StoreError};

/// Most points of a row: a row is written again whenever one is added, and 1.5 KiB cost no more than a small one.
const MOST: usize = 64;
/// Bytes of a packed point.
const WIDTH: usize = 24;
const SIGN: u64 = 1 << 63;

/// A packed point: time, step and value, each so that its bytes sort as it does. Both databases compare bytes alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell([u8; WIDTH]);

impl Cell {
    /// A NaN sorts after all numbers, and is one, whatever its bits were; so is zero.
    pub(super) fn of(point: &Point) -> Self {
        let value = match point.value {
            value if value.is_nan() => f64::NAN.abs(),
            value => value + 0.0,
        };
        let bits = value.to_bits();
        let value = if bits & SIGN == 0 { bits | SIGN } else { !bits };
        let numbers = [flipped(point.at), flipped(point.step), value];
        let mut cell = [0; WIDTH];
        for (place, number) in cell.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        Self(cell)
    }

    /// The point again, as of the metric of this name.
    fn point(self, name: &str) -> Point {
        let [at, step, value] = [0, 8, 16].map(|from| {
            let mut number = [0; 8];
            number.copy_from_slice(&self.0[from..from + 8]);
            u64::from_be_bytes(number)
        });
        let bits = if value & SIGN == 0 {
            !value
        } else {
            value ^ SIGN
        };
        Point {
            name: name.to_owned(),
            value: f64::from_bits(bits),
            at: unflipped(at),
            step: unflipped(step),
        }
    }
}

/// A signed number so that its bytes sort as it does.
fn flipped(number: i64) -> u64 {
    number.cast_unsigned() ^ SIGN
}

fn unflipped(number: u64) -> i64 {
    (number ^ SIGN).cast_signed()
}

fn unpacked(bytes: &[u8]) -> Result<Vec<Cell>> {
    let (cells, rest) = bytes.as_chunks::<WIDTH>();
    if cells.is_empty() || !rest.is_empty() {
        return Err(StoreError::Unreadable {
            column: "points".to_owned(),
            why: format!("{} bytes are no packed points", bytes.len()),
        });
    }
    Ok(cells.iter().map(|cell| Cell(*cell)).collect())
}

fn packed(cells: &[Cell]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.0).collect()
}

/// A row: some of a metric's points, each later than all of the row before.
struct Chunk {
    metric: i64,
    cells: Vec<Cell>,
}

/// What is added to a metric.
pub(super) struct Added {
    /// The metric's number.
    pub metric: i64,
    /// The point that its row was until now; none where the metric is new.
    pub before: Option<Cell>,
    /// Points, in any order.
    pub cells: Vec<Cell>,
}

/// Adds points to curves. The same point twice is one.
pub(super) async fn add(db: &mut Connection, all: Vec<Added>) -> Result<()> {
    let old = all.iter().filter(|added| added.before.is_some());
    let old: Vec<i64> = old.map(|added| added.metric).collect();
    let mut ends = ends(db, &old).await?;
    let mut written = Vec::new();
    for added in all {
        let (metric, cells) = (added.metric, sorted(added.cells));
        match (ends.remove(&metric), cells.first()) {
            (Some(end), Some(first)) if *first < end[0] => among(db, metric, &cells).await?,
            (Some(end), _) => {
                let known = end.len();
                let cells = sorted([end, cells].concat());
                if cells.len() > known {
                    written.extend(pieces(metric, &cells, MOST));
                }
            }
            (None, _) => {
                let cells = sorted(cells.into_iter().chain(added.before).collect());
                if cells.len() > 1 {
                    written.extend(pieces(metric, &cells, MOST));
                }
            }
        }
    }
    write(db, &written).await
}

fn sorted(mut cells: Vec<Cell>) -> Vec<Cell> {
    cells.sort_unstable();
    cells.dedup();
    cells
}

fn pieces(metric: i64, cells: &[Cell], most: usize) -> Vec<Chunk> {
    let chunk = |cells: &[Cell]| Chunk {
        metric,
        cells: cells.to_vec(),
    };
    cells.chunks(most).map(chunk).collect()
}

/// The last row of each of these curves.
async fn ends(db: &mut Connection, metrics: &[i64]) -> Result<HashMap<i64, Vec<Cell>>> {
    let mut found = HashMap::new();
    for metrics in metrics.chunks(IDS_AT_ONCE) {
        let sql = format!(
            "SELECT c.metric, c.points FROM run_metrics m JOIN metric_chunks c ON c.metric = m.id AND c.begins = \
             (SELECT l.begins FROM metric_chunks l WHERE l.metric = m.id ORDER BY l.begins DESC LIMIT 1) \
             WHERE m.id IN ({})",
            numbered(1, metrics.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for metric in metrics {
            query = query.bind(*metric);
        }
        for row in query.fetch_all(&mut *db).await? {
            found.insert(row.int("metric")?, unpacked(&row.bytes("points")?)?);
        }
    }
    Ok(found)
}

/// Adds points that do not all come last: each to the row in whose range it is.
async fn among(db: &mut Connection, metric: i64, mut cells: &[Cell]) -> Result<()> {
    while let Some(first) = cells.first() {
        let (old, next) = around(db, metric, *first).await?;
        let here = cells.partition_point(|cell| next.is_none_or(|next| *cell < next));
        let (now, later) = cells.split_at(here);
        cells = later;
        let all = sorted([&old, now].concat());
        if all.len() == old.len() {
            continue;
        }
        if all[0] != old[0] {
            sqlx::query("DELETE FROM metric_chunks WHERE metric = $1 AND begins = $2")
                .bind(metric)
                .bind(packed(&old[..1]))
                .execute(&mut *db)
                .await?;
        }
        // Even pieces: what comes next may belong into any of them.
        let even = all.len().div_ceil(all.len().div_ceil(MOST));
        write(db, &pieces(metric, &all, even)).await?;
    }
    Ok(())
}

/// The row in whose range a point is, or the first one, and where the row after it begins.
async fn around(db: &mut Connection, metric: i64, cell: Cell) -> Result<(Vec<Cell>, Option<Cell>)> {
    let wanted = "SELECT c.points, (SELECT n.begins FROM metric_chunks n WHERE n.metric = c.metric \
                  AND n.begins > c.begins ORDER BY n.begins LIMIT 1) AS next FROM metric_chunks c";
    let within =
        format!("{wanted} WHERE c.metric = $1 AND c.begins <= $2 ORDER BY c.begins DESC LIMIT 1");
    let found = sqlx::query(sqlx::AssertSqlSafe(within))
        .bind(metric)
        .bind(packed(&[cell]))
        .fetch_optional(&mut *db)
        .await?;
    let row = if let Some(row) = found {
        row
    } else {
        let first = format!("{wanted} WHERE c.metric = $1 ORDER BY c.begins LIMIT 1");
        sqlx::query(sqlx::AssertSqlSafe(first))
            .bind(metric)
            .fetch_one(db)
            .await?
    };
    let next = row.maybe_bytes("next")?;
    let next = next.map(|next| unpacked(&next)).transpose()?;
    Ok((unpacked(&row.bytes("points")?)?, next.map(|next| next[0])))
}

async fn write(db: &mut Connection, chunks: &[Chunk]) -> Result<()> {
    for rows in chunks.chunks(ROWS_AT_ONCE) {
        let sql = format!(
            "INSERT INTO metric_chunks (metric, begins, points) VALUES {} \
             ON CONFLICT (metric, begins) DO UPDATE SET points = excluded.points",
            placeholders(rows.len(), 3)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for Chunk { metric, cells } in rows {
            query = query
                .bind(*metric)
                .bind(packed(&cells[..1]))
                .bind(packed(cells));
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// At most `limit` points of a curve, in order, and only those after `after`. `alone` is what the metric's row says: the
/// curve, where it has no other point.
pub(super) async fn read(
    db: &mut Connection,
    metric: i64,
    alone: &Point,
    after: Option<&Point>,
    limit: u32,
) -> Result<Vec<Point>> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let rows = i64::try_from(limit.div_ceil(MOST) + 1).unwrap_or(i64::MAX);
    // Bytes that sort before each point's.
    let mut last = after.map_or(Cell([0; WIDTH]), Cell::of);
    let mut found = Vec::new();
    while found.len() < limit {
        let known = found.len();
        for cells in from(db, metric, last, rows).await? {
            found.extend(cells.into_iter().filter(|cell| *cell > last));
        }
        match found.last() {
            Some(end) if found.len() > known => last = *end,
            Some(_) => break,
            None => {
                found.extend(Some(Cell::of(alone)).filter(|cell| *cell > last));
                break;
            }
        }
    }
    found.truncate(limit);
    Ok(found
        .into_iter()
        .map(|cell| cell.point(&alone.name))
        .collect())
}

/// The next rows of a curve from that on in whose range `cell` is.
async fn from(db: &mut Connection, metric: i64, cell: Cell, rows: i64) -> Result<Vec<Vec<Cell>>> {
    let found = sqlx::query(
        "SELECT points FROM metric_chunks WHERE metric = $1 AND begins >= COALESCE((SELECT f.begins FROM metric_chunks f \
         WHERE f.metric = $1 AND f.begins <= $2 ORDER BY f.begins DESC LIMIT 1), $2) ORDER BY begins LIMIT $3",
    )
    .bind(metric)
    .bind(packed(&[cell]))
    .bind(rows)
    .fetch_all(db)
    .await?;
    found
        .iter()
        .map(|row| unpacked(&row.bytes("points")?))
        .collect()
}

/// Packs the points of earlier versions, which had a row each, and writes the exact bits of last values.
pub(super) async fn pack(db: &mut Connection) -> Result<()> {
    let mut after = i64::MIN;
    loop {
        let rows = sqlx::query(
            "SELECT id, value, word FROM run_metrics WHERE id > $1 ORDER BY id LIMIT 10000",
        )
        .bind(after)
        .fetch_all(&mut *db)
        .await?;
        for row in &rows {
            after = row.int("id")?;
            sqlx::query("UPDATE run_metrics SET bits = $1 WHERE id = $2")
                .bind(metrics::bits(metrics::float(row)?))
                .bind(after)
                .execute(&mut *db)
                .await?;
            pack_one(db, after).await?;
        }
        if rows.is_empty() {
            break;
        }
    }
    sqlx::query("DROP TABLE metric_points").execute(db).await?;
    Ok(())
}

async fn pack_one(db: &mut Connection, metric: i64) -> Result<()> {
    const ROWS: i64 = 10_000;
    let mut offset = 0;
    loop {
        let rows = sqlx::query(
            "SELECT at, step, value, word FROM metric_points WHERE metric = $1 \
             ORDER BY at, step, value, word LIMIT $2 OFFSET $3",
        )
        .bind(metric)
        .bind(ROWS)
        .bind(offset)
        .fetch_all(&mut *db)
        .await?;
        let mut cells = Vec::with_capacity(rows.len());
        for row in &rows {
            cells.push(Cell::of(&Point {
                name: String::new(),
                value: metrics::float(row)?,
                at: row.int("at")?,
                step: row.int("step")?,
            }));
        }
        let Some(first) = cells.first() else {
            return Ok(());
        };
        let before = Some(*first);
        add(
            db,
            vec![Added {
                metric,
                before,
                cells,
            }],
        )
        .await?;
        offset += ROWS;
    }
}
