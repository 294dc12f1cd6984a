//! Rows of agents and of the one-time tokens they register with. Secrets are kept as SHA-256 only.

use std::collections::HashMap;

use protocol::hardware::{Gpu, GpuDriver, GpuHealth, Inventory};
use protocol::{AgentId, Digest, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::rows::{Columns as _, to_json};
use super::{Connection, Result};

/// An agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its name; unique.
    pub name: String,
    /// Hash of its secret.
    pub secret_hash: Digest,
    /// Version of its binary.
    pub version: String,
    /// What its host has.
    pub inventory: Inventory,
    /// Hash of the inventory's JSON, as the agent counts it.
    pub inventory_hash: Digest,
    /// Whether it takes new attempts.
    pub accepting: bool,
    /// Why it does not.
    pub closed: Option<String>,
    /// Who wants it to take nothing new.
    pub drained_by: Option<String>,
    /// Who took its secret away.
    pub revoked_by: Option<String>,
    /// When somebody took it out of the lists. Its secret is revoked then.
    pub removed_at: Option<Timestamp>,
    /// When it registered.
    pub registered_at: Timestamp,
    /// When it was last heard of, to within some minutes: since its start the server knows better.
    pub seen_at: Timestamp,
}

fn agent(row: &AnyRow) -> Result<Agent> {
    Ok(Agent {
        id: row.parsed("id")?,
        name: row.text("name")?,
        secret_hash: row.parsed("secret_hash")?,
        version: row.text("version")?,
        inventory: row.json("inventory")?,
        inventory_hash: row.parsed("inventory_hash")?,
        accepting: row.int("accepting")? != 0,
        closed: row.maybe_text("closed")?,
        drained_by: row.maybe_text("drained_by")?,
        revoked_by: row.maybe_text("revoked_by")?,
        removed_at: row.maybe_time("removed_at")?,
        registered_at: row.time("registered_at")?,
        seen_at: row.time("seen_at")?,
    })
}

/// Adds an agent, or gives one that registers anew under its name a new secret; its id stays. Gives the id.
pub async fn register(db: &mut Connection, agent: &Agent) -> Result<AgentId> {
    let row = sqlx::query(
        "INSERT INTO agents (id, name, secret_hash, version, inventory, inventory_hash, accepting, \
         registered_at, seen_at) VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7) \
         ON CONFLICT (name) DO UPDATE SET secret_hash = $3, version = $4, inventory = $5, \
         inventory_hash = $6, accepting = 1, closed = NULL, revoked_by = NULL, removed_at = NULL, \
         registered_at = $7, seen_at = $7, shown = NULL RETURNING id",
    )
    .bind(agent.id.as_str())
    .bind(&agent.name)
    .bind(agent.secret_hash.as_str())
    .bind(&agent.version)
    .bind(to_json(&agent.inventory)?)
    .bind(agent.inventory_hash.as_str())
    .bind(agent.registered_at.0)
    .fetch_one(db)
    .await?;
    row.parsed("id")
}

/// All agents that ever were, oldest first: attempts are told with their names.
pub async fn all(db: &mut Connection) -> Result<Vec<Agent>> {
    let rows = sqlx::query("SELECT * FROM agents ORDER BY id")
        .fetch_all(db)
        .await?;
    rows.iter().map(agent).collect()
}

/// Those that nobody removed, oldest first.
pub async fn listed(db: &mut Connection) -> Result<Vec<Agent>> {
    let mut all = all(db).await?;
    all.retain(|agent| agent.removed_at.is_none());
    Ok(all)
}

/// Those whose secrets are good, oldest first: nobody else will ever take a job.
pub async fn good(db: &mut Connection) -> Result<Vec<Agent>> {
    let mut all = all(db).await?;
    all.retain(|agent| agent.revoked_by.is_none());
    Ok(all)
}

/// Whether an agent takes new jobs, by its row: it is good, not drained, and open.
pub async fn is_open(db: &mut Connection, id: &AgentId) -> Result<bool> {
    let row = sqlx::query(
        "SELECT id FROM agents WHERE id = $1 AND accepting = 1 AND revoked_by IS NULL AND drained_by IS NULL",
    )
    .bind(id.as_str())
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// The agent of this name.
pub async fn by_name(db: &mut Connection, name: &str) -> Result<Option<Agent>> {
    let row = sqlx::query("SELECT * FROM agents WHERE name = $1")
        .bind(name)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(agent).transpose()
}

/// The agent whose secret has this hash.
pub async fn by_secret(db: &mut Connection, hash: &Digest) -> Result<Option<Agent>> {
    let row = sqlx::query("SELECT * FROM agents WHERE secret_hash = $1")
        .bind(hash.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(agent).transpose()
}

/// GPUs that a host showed, and does not show while its driver is at fault: it has them all the same.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Shown {
    /// The driver that it had.
    pub driver: Option<GpuDriver>,
    /// At most [`MOST_SHOWN`].
    pub gpus: Vec<Gpu>,
}

/// Most GPUs that are remembered of a host.
const MOST_SHOWN: usize = 64;

impl Shown {
    /// What is to be remembered once `now` is shown after `before`; none: nothing is at fault. A host whose driver works
    /// says itself what it has: its GPUs may have been taken out, or cut anew.
    fn next(self, before: Inventory, now: &Inventory) -> Option<Self> {
        let lost = |gpu: &Gpu| matches!(gpu.health, GpuHealth::Lost { .. });
        if now.driver.is_some() && !now.gpus.iter().any(lost) {
            return None;
        }
        let mut gpus: Vec<Gpu> = Vec::new();
        for gpu in before.gpus.into_iter().chain(self.gpus) {
            let known = |other: &Gpu| other.uuid == gpu.uuid;
            if !lost(&gpu) && !now.gpus.iter().any(known) && !gpus.iter().any(known) {
                gpus.push(gpu);
            }
        }
        gpus.truncate(MOST_SHOWN);
        let driver = now.driver.clone().or(before.driver).or(self.driver);
        Some(Self { driver, gpus })
    }
}

/// Of agents whose drivers are at fault, what they showed before.
pub async fn shown(db: &mut Connection) -> Result<HashMap<AgentId, Shown>> {
    let rows = sqlx::query("SELECT id, shown FROM agents WHERE shown IS NOT NULL")
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| Ok((row.parsed("id")?, row.json("shown")?)))
        .collect()
}

/// Keeps a new inventory.
pub async fn set_inventory(
    db: &mut Connection,
    id: &AgentId,
    inventory: &Inventory,
    hash: &Digest,
) -> Result<()> {
    let row = sqlx::query("SELECT inventory, shown FROM agents WHERE id = $1")
        .bind(id.as_str())
        .fetch_one(&mut *db)
        .await?;
    let shown: Shown = row.maybe_json("shown")?.unwrap_or_default();
    let shown = shown.next(row.json("inventory")?, inventory);
    sqlx::query("UPDATE agents SET inventory = $1, inventory_hash = $2, shown = $3 WHERE id = $4")
        .bind(to_json(inventory)?)
        .bind(hash.as_str())
        .bind(shown.as_ref().map(to_json).transpose()?)
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Notes that an agent was heard of, its version, and whether it takes new attempts.
pub async fn set_seen(
    db: &mut Connection,
    id: &AgentId,
    version: &str,
    accepting: bool,
    closed: Option<&str>,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE agents SET version = $1, accepting = $2, closed = $3, seen_at = $4 WHERE id = $5",
    )
    .bind(version)
    .bind(i64::from(accepting))
    .bind(closed)
    .bind(at.0)
    .bind(id.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// Notes who wants an agent to take nothing new; none: nobody does any more.
pub async fn set_drained(
    db: &mut Connection,
    id: &AgentId,
    by: Option<&str>,
    at: Timestamp,
) -> Result<()> {
    sqlx::query("UPDATE agents SET drained_by = $1, drained_at = $2 WHERE id = $3")
        .bind(by)
        .bind(by.map(|_| at.0))
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Notes who took an agent's secret away.
pub async fn set_revoked(db: &mut Connection, id: &AgentId, by: &str) -> Result<()> {
    sqlx::query("UPDATE agents SET revoked_by = $1 WHERE id = $2")
        .bind(by)
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Takes an agent out of the lists.
pub async fn set_removed(db: &mut Connection, id: &AgentId, at: Timestamp) -> Result<()> {
    sqlx::query("UPDATE agents SET removed_at = $1 WHERE id = $2")
        .bind(at.0)
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Adds a one-time token, by its hash.
pub async fn insert_token(
    db: &mut Connection,
    hash: &Digest,
    created_at: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO registration_tokens (token_hash, created_at, expires_at) VALUES ($1, $2, $3)",
    )
    .bind(hash.as_str())
    .bind(created_at.0)
    .bind(expires_at.0)
    .execute(db)
    .await?;
    Ok(())
}

/// Uses a token up. False where there is none, or it was used or is too old.
pub async fn use_token(db: &mut Connection, hash: &Digest, at: Timestamp) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE registration_tokens SET used_at = $1 \
         WHERE token_hash = $2 AND used_at IS NULL AND expires_at > $1",
    )
    .bind(at.0)
    .bind(hash.as_str())
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes which agent used a token.
pub async fn token_used_by(db: &mut Connection, hash: &Digest, agent: &AgentId) -> Result<()> {
    sqlx::query("UPDATE registration_tokens SET agent = $1 WHERE token_hash = $2")
        .bind(agent.as_str())
        .bind(hash.as_str())
        .execute(db)
        .await?;
    Ok(())
}
