//! Rows of forges that asked to be left alone, by whom they count (`ForgeConfig::caller`).

use protocol::{Digest, Span, Timestamp};

use super::rows::Columns as _;
use super::{Connection, Result};

/// No forge is believed that asks for a longer rest.
const LONGEST: Span = Span::hours(24);

/// Notes until when a forge asked a caller to be left alone. What is over is forgotten.
pub async fn set(
    db: &mut Connection,
    caller: &Digest,
    until: Timestamp,
    now: Timestamp,
) -> Result<()> {
    sqlx::query("DELETE FROM forge_rests WHERE rests_until <= $1")
        .bind(now.0)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "INSERT INTO forge_rests (whom, rests_until) VALUES ($1, $2) \
         ON CONFLICT (whom) DO UPDATE SET rests_until = $2",
    )
    .bind(caller.as_str())
    .bind(until.0)
    .execute(db)
    .await?;
    Ok(())
}

/// Until when a forge asked a caller to be left alone; none: it may be called.
pub async fn until(
    db: &mut Connection,
    caller: &Digest,
    now: Timestamp,
) -> Result<Option<Timestamp>> {
    let row = sqlx::query("SELECT rests_until FROM forge_rests WHERE whom = $1")
        .bind(caller.as_str())
        .fetch_optional(db)
        .await?;
    let until = row.map(|row| row.time("rests_until")).transpose()?;
    // A rest that is too long was noted before the clock went back.
    Ok(until.filter(|until| *until > now && *until <= now + LONGEST))
}
