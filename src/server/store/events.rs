//! Rows of events. A number is stored once: what comes again is passed over, what comes after a gap
//! is not taken.

use protocol::event::{EventKind, Finding};
use protocol::{AttemptId, Event};
use sqlx::AssertSqlSafe;

use super::rows::{Columns as _, placeholders, to_int};
use super::{Connection, Result};

/// Rows of one insert.
const CHUNK: usize = 100;

/// The next number wanted.
pub async fn next_wanted(db: &mut Connection, attempt: &AttemptId) -> Result<u64> {
    let row = sqlx::query("SELECT COALESCE(MAX(seq), 0) AS last FROM events WHERE attempt = $1")
        .bind(attempt.as_str())
        .fetch_one(db)
        .await?;
    Ok(row.size("last")? + 1)
}

/// Adds lines that are numbered without a gap from the next number wanted on. The caller has seen to that.
pub async fn append(
    db: &mut Connection,
    attempt: &AttemptId,
    lines: &[(u64, String)],
) -> Result<()> {
    for chunk in lines.chunks(CHUNK) {
        let sql = format!(
            "INSERT INTO events (attempt, seq, body) VALUES {}",
            placeholders(chunk.len(), 3)
        );
        // Placeholders only: no data stands in the text.
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (seq, body) in chunk {
            query = query
                .bind(attempt.as_str())
                .bind(to_int(*seq))
                .bind(body.as_str());
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// Events from number `from` on, as the agent sent them, at most `limit`.
pub async fn from(
    db: &mut Connection,
    attempt: &AttemptId,
    from: u64,
    limit: u32,
) -> Result<Vec<(u64, String)>> {
    let rows = sqlx::query(
        "SELECT seq, body FROM events WHERE attempt = $1 AND seq >= $2 ORDER BY seq LIMIT $3",
    )
    .bind(attempt.as_str())
    .bind(to_int(from))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.size("seq")?, row.text("body")?)))
        .collect()
}

/// What lint tools found, in the order of the story, at most `limit`.
pub async fn findings(
    db: &mut Connection,
    attempt: &AttemptId,
    limit: u32,
) -> Result<Vec<Finding>> {
    // The pattern only spares reading what is something else.
    let rows = sqlx::query(
        "SELECT body FROM events WHERE attempt = $1 AND body LIKE '%\"finding\"%' \
         ORDER BY seq LIMIT $2",
    )
    .bind(attempt.as_str())
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    let mut findings = Vec::with_capacity(rows.len());
    for row in &rows {
        let event: Option<Event> = serde_json::from_str(&row.text("body")?).ok();
        if let Some(EventKind::Finding(finding)) = event.as_ref().and_then(|e| e.body.known()) {
            findings.push(finding.clone());
        }
    }
    Ok(findings)
}
