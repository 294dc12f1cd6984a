//! Rows of the calls by which the code of an attempt writes to the registry: each is carried out once.

use protocol::AttemptId;

use super::rows::{Columns as _, to_int};
use super::{Connection, Result};

/// The last call of an attempt that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCall {
    /// Its number.
    pub number: u64,
    /// What was answered, as JSON.
    pub answer: String,
}

/// The last call of an attempt that was carried out; none: there was none.
pub async fn last(db: &mut Connection, attempt: &AttemptId) -> Result<Option<LastCall>> {
    let row = sqlx::query("SELECT number, answer FROM job_calls WHERE attempt = $1")
        .bind(attempt.as_str())
        .fetch_optional(db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(LastCall {
        number: row.size("number")?,
        answer: row.text("answer")?,
    }))
}

/// Notes a call as the last one, in the transaction that carries it out.
pub async fn note(db: &mut Connection, attempt: &AttemptId, call: &LastCall) -> Result<()> {
    sqlx::query(
        "INSERT INTO job_calls (attempt, number, answer) VALUES ($1, $2, $3) \
         ON CONFLICT (attempt) DO UPDATE SET number = excluded.number, answer = excluded.answer",
    )
    .bind(attempt.as_str())
    .bind(to_int(call.number))
    .bind(&call.answer)
    .execute(db)
    .await?;
    Ok(())
}
