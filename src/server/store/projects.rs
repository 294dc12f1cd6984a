//! Rows of projects, of the refs that were seen, and of forges' deliveries.

use protocol::api::Quota;
use protocol::{CommitId, ProjectId, Span, Timestamp};
use sqlx::any::AnyRow;

use super::rows::{Columns as _, to_int, to_json};
use super::{Connection, Result};
use crate::credential::Credential;
use crate::forge::ForgeConfig;

/// A watched repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name on screens and in URLs; unique.
    pub name: String,
    /// What `git fetch` takes.
    pub url: String,
    /// What speaks for it.
    pub forge: ForgeConfig,
    /// Known after the first look at the remote.
    pub default_branch: Option<String>,
    /// Where the token for `git fetch` lies.
    pub credential: Option<Credential>,
    /// When it was added.
    pub created_at: Timestamp,
    /// When its remote was last looked at.
    pub checked_at: Option<Timestamp>,
    /// Why that failed.
    pub problem: Option<String>,
    /// What its jobs may use.
    pub quota: Quota,
}

fn project(row: &AnyRow) -> Result<Project> {
    Ok(Project {
        id: row.parsed("id")?,
        name: row.text("name")?,
        url: row.text("url")?,
        forge: row.json("forge")?,
        default_branch: row.maybe_text("default_branch")?,
        credential: row.maybe_parsed("credential")?,
        created_at: row.time("created_at")?,
        checked_at: row.maybe_time("checked_at")?,
        problem: row.maybe_text("problem")?,
        quota: quota(row)?,
    })
}

fn quota(row: &AnyRow) -> Result<Quota> {
    let of = |column: &str| {
        Ok::<_, super::StoreError>(row.maybe_int(column)?.and_then(|n| u32::try_from(n).ok()))
    };
    Ok(Quota {
        gpus: of("most_gpus")?,
        gpu_hours: of("most_gpu_hours")?,
    })
}

/// Sets what a project may use.
pub async fn set_quota(db: &mut Connection, id: &ProjectId, quota: &Quota) -> Result<()> {
    sqlx::query("UPDATE projects SET most_gpus = $1, most_gpu_hours = $2 WHERE id = $3")
        .bind(quota.gpus.map(i64::from))
        .bind(quota.gpu_hours.map(i64::from))
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Adds a project. A name that is taken is a database error.
pub async fn insert(db: &mut Connection, project: &Project) -> Result<()> {
    sqlx::query(
        "INSERT INTO projects (id, name, url, forge, default_branch, credential, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(project.id.as_str())
    .bind(&project.name)
    .bind(&project.url)
    .bind(to_json(&project.forge)?)
    .bind(&project.default_branch)
    .bind(project.credential.as_ref().map(ToString::to_string))
    .bind(project.created_at.0)
    .execute(db)
    .await?;
    Ok(())
}

/// All projects, oldest first.
pub async fn all(db: &mut Connection) -> Result<Vec<Project>> {
    let rows = sqlx::query("SELECT * FROM projects ORDER BY id")
        .fetch_all(db)
        .await?;
    rows.iter().map(project).collect()
}

/// One project by its id.
pub async fn find(db: &mut Connection, id: &ProjectId) -> Result<Option<Project>> {
    let row = sqlx::query("SELECT * FROM projects WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(project).transpose()
}

/// One project by its name.
pub async fn by_name(db: &mut Connection, name: &str) -> Result<Option<Project>> {
    let row = sqlx::query("SELECT * FROM projects WHERE name = $1")
        .bind(name)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(project).transpose()
}

/// Notes that a look at the remote is done with: all that it showed was planned.
pub async fn checked(
    db: &mut Connection,
    id: &ProjectId,
    default_branch: Option<&str>,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE projects SET checked_at = $1, problem = NULL, \
         default_branch = COALESCE($2, default_branch) WHERE id = $3",
    )
    .bind(at.0)
    .bind(default_branch)
    .bind(id.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// Notes why a look at the remote failed.
pub async fn set_problem(db: &mut Connection, id: &ProjectId, problem: &str) -> Result<()> {
    sqlx::query("UPDATE projects SET problem = $1 WHERE id = $2")
        .bind(problem)
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Notes why what people ask for at a project's forge is not obeyed; none: it is.
pub async fn set_commands_problem(
    db: &mut Connection,
    id: &ProjectId,
    problem: Option<&str>,
) -> Result<()> {
    sqlx::query(
        "UPDATE projects SET commands_problem = $1 \
         WHERE id = $2 AND COALESCE(commands_problem, '') <> COALESCE($1, '')",
    )
    .bind(problem)
    .bind(id.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// Why what people ask for at projects' forges is not obeyed.
pub async fn commands_problems(db: &mut Connection) -> Result<Vec<(ProjectId, String)>> {
    let rows = sqlx::query(
        "SELECT id, commands_problem FROM projects WHERE commands_problem IS NOT NULL ORDER BY id",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.parsed("id")?, row.text("commands_problem")?)))
        .collect()
}

/// The refs of a project and the commit of each that was last planned.
pub async fn refs(db: &mut Connection, id: &ProjectId) -> Result<Vec<(String, CommitId)>> {
    let rows = sqlx::query("SELECT name, commit_id FROM refs WHERE project = $1 ORDER BY seen_at")
        .bind(id.as_str())
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| Ok((row.text("name")?, row.parsed("commit_id")?)))
        .collect()
}

/// Notes that a ref was seen at a commit.
pub async fn set_ref(
    db: &mut Connection,
    id: &ProjectId,
    name: &str,
    commit: &CommitId,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO refs (project, name, commit_id, seen_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (project, name) DO UPDATE SET commit_id = $3, seen_at = $4",
    )
    .bind(id.as_str())
    .bind(name)
    .bind(commit.as_str())
    .bind(at.0)
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets a ref that the remote does not have any more.
pub async fn remove_ref(db: &mut Connection, id: &ProjectId, name: &str) -> Result<()> {
    sqlx::query("DELETE FROM refs WHERE project = $1 AND name = $2")
        .bind(id.as_str())
        .bind(name)
        .execute(db)
        .await?;
    Ok(())
}

/// Nobody waits longer between two tries of what a person asked for: a later time was set before the clock went back.
const LONGEST_PAUSE: Span = Span::hours(1);

/// Stands in the place of the forge's word for what no message told, and a list did.
pub const LISTED: &str = "listed";

/// A verified message of a forge, or a comment that it lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Whose.
    pub project: ProjectId,
    /// The forge's id of the message.
    pub delivery: String,
    /// The forge's word for what happened, or [`LISTED`].
    pub event: String,
    /// The body as it came.
    pub body: String,
    /// Whether a person asks for something, which is done once; others only say where to look.
    pub asks: bool,
    /// The comment that it tells of, by the forge's number of it. What tells of the same one is the same.
    pub comment: Option<u64>,
    /// When it came.
    pub received_at: Timestamp,
}

fn delivery(row: &AnyRow) -> Result<Delivery> {
    Ok(Delivery {
        project: row.parsed("project")?,
        delivery: row.text("delivery")?,
        event: row.text("event")?,
        body: row.text("body")?,
        asks: row.int("asks")? == 1,
        comment: row
            .maybe_int("comment_id")?
            .and_then(|id| u64::try_from(id).ok()),
        received_at: row.time("received_at")?,
    })
}

/// Keeps a delivery. False where the same one came before: a forge repeats itself.
pub async fn insert_delivery(db: &mut Connection, delivery: &Delivery) -> Result<bool> {
    if let Some(comment) = delivery.comment
        && knows_comment(db, &delivery.project, comment).await?
    {
        return Ok(false);
    }
    let done = sqlx::query(
        "INSERT INTO deliveries (project, delivery, event, body, asks, received_at, comment_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (project, delivery) DO NOTHING",
    )
    .bind(delivery.project.as_str())
    .bind(&delivery.delivery)
    .bind(&delivery.event)
    .bind(&delivery.body)
    .bind(i64::from(delivery.asks))
    .bind(delivery.received_at.0)
    .bind(delivery.comment.map(to_int))
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether something told of a comment.
async fn knows_comment(db: &mut Connection, project: &ProjectId, comment: u64) -> Result<bool> {
    let row = sqlx::query(
        "SELECT delivery FROM deliveries WHERE project = $1 AND comment_id = $2 LIMIT 1",
    )
    .bind(project.as_str())
    .bind(to_int(comment))
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// The forge's word of the newest message of a project, and when it came.
pub async fn last_delivery(
    db: &mut Connection,
    project: &ProjectId,
) -> Result<Option<(String, Timestamp)>> {
    let row = sqlx::query(
        "SELECT event, received_at FROM deliveries WHERE project = $1 AND event <> $2 \
         ORDER BY received_at DESC, delivery LIMIT 1",
    )
    .bind(project.as_str())
    .bind(LISTED)
    .fetch_optional(db)
    .await?;
    row.map(|row| Ok((row.text("event")?, row.time("received_at")?)))
        .transpose()
}

/// Deliveries that nobody has handled, oldest first, at most `limit`.
pub async fn unhandled_deliveries(db: &mut Connection, limit: u32) -> Result<Vec<Delivery>> {
    let rows = sqlx::query(
        "SELECT * FROM deliveries WHERE handled_at IS NULL ORDER BY received_at, delivery LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(delivery).collect()
}

/// What people asked for and nobody has done, and may be tried now: at most `limit`, the first of each project before
/// the second of any. Of a project, what was tried before comes last, else the oldest first.
pub async fn asked(db: &mut Connection, now: Timestamp, limit: u32) -> Result<Vec<Delivery>> {
    let rows = sqlx::query(
        "SELECT deliveries.*, ROW_NUMBER() OVER (PARTITION BY project \
         ORDER BY next_try, received_at, COALESCE(comment_id, 0), delivery) AS place \
         FROM deliveries WHERE handled_at IS NULL AND asks = 1 AND (next_try <= $1 OR next_try > $2) \
         ORDER BY place, project LIMIT $3",
    )
    .bind(now.0)
    .bind((now + LONGEST_PAUSE).0)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(delivery).collect()
}

/// Notes that what one delivery asks for could not be done: nothing that people ask for in its project is tried before
/// `then`, and this only behind the others.
pub async fn asked_later(
    db: &mut Connection,
    project: &ProjectId,
    delivery: &str,
    then: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE deliveries SET next_try = $1 + CASE WHEN delivery = $3 THEN 1 ELSE 0 END \
         WHERE project = $2 AND handled_at IS NULL AND asks = 1",
    )
    .bind(then.0)
    .bind(project.as_str())
    .bind(delivery)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that what one delivery asked for is done.
pub async fn delivery_handled(
    db: &mut Connection,
    project: &ProjectId,
    delivery: &str,
    at: Timestamp,
) -> Result<()> {
    sqlx::query("UPDATE deliveries SET handled_at = $1 WHERE project = $2 AND delivery = $3")
        .bind(at.0)
        .bind(project.as_str())
        .bind(delivery)
        .execute(db)
        .await?;
    Ok(())
}

/// Projects that have deliveries that say where to look, and that nobody has handled.
pub async fn with_unhandled(db: &mut Connection) -> Result<Vec<ProjectId>> {
    let rows = sqlx::query(
        "SELECT DISTINCT project FROM deliveries WHERE handled_at IS NULL AND asks = 0",
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| row.parsed("project")).collect()
}

/// Whether a project has such deliveries.
pub async fn has_unhandled(db: &mut Connection, project: &ProjectId) -> Result<bool> {
    let row = sqlx::query(
        "SELECT delivery FROM deliveries WHERE project = $1 AND handled_at IS NULL AND asks = 0 LIMIT 1",
    )
    .bind(project.as_str())
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// Notes that what a project's deliveries up to `until` told of was looked after. What a person asks for is not.
pub async fn deliveries_handled(
    db: &mut Connection,
    project: &ProjectId,
    until: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE deliveries SET handled_at = $1 \
         WHERE project = $2 AND handled_at IS NULL AND asks = 0 AND received_at <= $1",
    )
    .bind(until.0)
    .bind(project.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// Which deliveries are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// What a person asks for, to be done once.
    Asks,
    /// What says where to look.
    Hints,
}

/// Forgets a project's deliveries of one kind that came before `before`, and all but the newest `most` of it. What a
/// person asked for stays until it was done; a hint may go unhandled, as long as a newer one asks for a look.
pub async fn forget_deliveries(
    db: &mut Connection,
    project: &ProjectId,
    word: Word,
    before: Timestamp,
    most: u32,
) -> Result<()> {
    let asks = match word {
        Word::Asks => 1,
        Word::Hints => 0,
    };
    sqlx::query(
        "DELETE FROM deliveries WHERE project = $1 AND asks = $4 \
         AND (asks = 0 OR handled_at IS NOT NULL) AND (received_at < $2 OR received_at <= \
         (SELECT received_at FROM deliveries WHERE project = $1 AND asks = $4 \
          ORDER BY received_at DESC LIMIT 1 OFFSET $3))",
    )
    .bind(project.as_str())
    .bind(before.0)
    .bind(i64::from(most))
    .bind(asks)
    .execute(db)
    .await?;
    Ok(())
}
