//! The server's side of the agent API: what agents say becomes rows, and rows become orders. It knows
//! neither HTTP nor forges.
//!
//! An agent's call about an attempt is believed while no replacement started: its generation is then not
//! lower than the job's.

pub mod checkpoints;
pub mod events;
pub mod finish;
pub mod hosts;
pub mod in_job;
pub mod lease;
mod orders;
pub mod poll;
#[cfg(test)]
mod properties;
pub mod register;
pub mod uploads;

pub(crate) use orders::secret;

use protocol::agent_api::{ABANDONED, ApiError, TWIN};
use protocol::job::Move;
use protocol::{AttemptId, Outcome, Timestamp};

use crate::blobs::BlobError;
use crate::disk;
use crate::live::Change;
use crate::secret;
use crate::state::Server;
use crate::store::agents::Agent;
use crate::store::attempts::{Attempt, Fate};
use crate::store::jobs::Job;
use crate::store::{Connection, StoreError, agents, attempts, jobs};

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No secret, or one that nobody has.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The attempt is not believed any more.
    #[error("attempt {0} is not believed any more: end it")]
    Abandoned(AttemptId),
    /// The call is wrong.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing, or not for this agent.
    #[error("{0}")]
    NotFound(String),
    /// More than is taken.
    #[error("{0}")]
    TooLarge(String),
    /// The server's disk is nearly full: the agent keeps what it has, and comes again.
    #[error("{0}")]
    Full(String),
    /// Another installation is at work under the same identity.
    #[error(
        "agent {agent} is at work on another host or in another data folder, which was heard of {silence} ago: \
        two must not share one identity. Stop one of them; for a host of its own, make a token with 'trainyard agents token', \
        remove this agent's agent.json, and register it. Where the other one is gone, start this one again in {patience}"
    )]
    Twin {
        /// The agent's name.
        agent: String,
        /// How long ago the other one was heard of.
        silence: protocol::Span,
        /// After how long a silence this one may speak.
        patience: protocol::Span,
    },
    /// Another agent that is still heard of has this name.
    #[error(
        "the name '{name}' is in use by an agent that was heard of {silence} ago: choose another name (`name` in the \
        agent's configuration). Where it is this host that begins anew, take the old secret away with \
        'trainyard agents revoke {name}', or register with --replace: its id goes over, and the old secret ends. \
        The name is free {patience} after the agent's last word"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// How long ago the other one was heard of; since this server's start where it was not yet.
        silence: protocol::Span,
        /// After how long a silence the name may be taken.
        patience: protocol::Span,
    },
    /// An agent of another version of the API.
    #[error("this server speaks agent API {wanted}, the agent speaks {found}: install trainyard {version} on it",
        wanted = protocol::agent_api::VERSION, version = env!("CARGO_PKG_VERSION"))]
    Version {
        /// What the agent speaks.
        found: u32,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs.
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Refused::Store(error.into())
    }
}

impl Refused {
    /// As it goes to the agent: an inner error's words stay in the server's log.
    #[must_use]
    pub fn to_api(&self) -> ApiError {
        let (code, message) = match self {
            Refused::Unauthorized(_) => ("unauthorized", self.to_string()),
            Refused::Abandoned(_) => (ABANDONED, self.to_string()),
            Refused::Invalid(_) => ("invalid", self.to_string()),
            Refused::NotFound(_) => ("not_found", self.to_string()),
            Refused::TooLarge(_) => ("too_large", self.to_string()),
            Refused::Full(_) => ("disk_full", self.to_string()),
            Refused::Version { .. } => ("version", self.to_string()),
            Refused::Twin { .. } => (TWIN, self.to_string()),
            Refused::NameInUse { .. } => ("name_in_use", self.to_string()),
            Refused::Store(_) | Refused::Blobs(_) => (
                "internal",
                "the server could not do that; its log says why".to_owned(),
            ),
        };
        ApiError {
            code: code.to_owned(),
            message,
        }
    }
}

/// Refuses to write so many bytes more where they would fill the disk.
async fn room(server: &Server, bytes: u64) -> Result<(), Refused> {
    disk::room(&server.config, bytes).await.map_err(|why| {
        tracing::warn!(why, "an agent has to wait");
        Refused::Full(why)
    })
}

/// The agent that a secret belongs to, which is heard of with this. `instance` is the installation that speaks.
///
/// # Errors
/// [`Refused::Unauthorized`], [`Refused::Twin`].
pub async fn authenticate(
    server: &Server,
    bearer: Option<&str>,
    instance: Option<&str>,
) -> Result<Agent, Refused> {
    let bearer = bearer.ok_or(Refused::Unauthorized(
        "this call wants 'Authorization: Bearer' with the agent's secret",
    ))?;
    let hash = secret::hash(bearer);
    let mut db = server.store.read().await?;
    let agent = agents::by_secret(&mut db, &hash).await?;
    let agent = agent
        .filter(|agent| secret::equal(agent.secret_hash.as_str(), hash.as_str()))
        .ok_or(Refused::Unauthorized(
            "no agent has this secret: register it again with a new token",
        ))?;
    if agent.revoked_by.is_some() {
        return Err(Refused::Unauthorized(
            "this agent's secret was revoked: where the host is to work again, make a token with \
             'trainyard agents token', remove the agent's agent.json, and register it again",
        ));
    }
    let patience = server.config.unreachable_after;
    let heard = server.leases.heard(&agent.id, instance, patience.into());
    heard.map_err(|silence| Refused::Twin {
        agent: agent.name.clone(),
        silence: silence.into(),
        patience,
    })?;
    Ok(agent)
}

/// An attempt of this agent, with its job.
async fn mine(
    db: &mut Connection,
    agent: &Agent,
    id: &AttemptId,
) -> Result<(Attempt, Job), Refused> {
    let attempt = attempts::find(db, id)
        .await?
        .filter(|attempt| attempt.agent == agent.id)
        .ok_or_else(|| Refused::Abandoned(id.clone()))?;
    let job = jobs::get(db, &attempt.job).await?;
    Ok((attempt, job))
}

/// What the server thinks of an attempt that its agent speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is the one that may write to its job.
    Believed,
    /// It was given up, but nothing replaced it yet: it may be believed again.
    Resumable,
    /// It had its last word.
    Over,
    /// Nobody believes it.
    Abandoned,
}

fn standing(attempt: &Attempt, job: &Job) -> Standing {
    match attempt.fate {
        Fate::Finished => Standing::Over,
        Fate::Abandoned => Standing::Abandoned,
        Fate::Open if job.state.attempt() == Some(&attempt.id) => Standing::Believed,
        Fate::Open => Standing::Abandoned,
        Fate::Lost if attempt.may_return(job) => Standing::Resumable,
        Fate::Lost => Standing::Abandoned,
    }
}

/// An attempt of this agent, with its job and what the server thinks of it. Both may change between two looks, and seem to
/// belong to different times: what would end an attempt is looked at again where nobody writes.
async fn seen(
    server: &Server,
    agent: &Agent,
    id: &AttemptId,
) -> Result<(Attempt, Job, Standing), Refused> {
    let mut db = server.store.read().await?;
    let (attempt, job) = mine(&mut db, agent, id).await?;
    drop(db);
    let first = standing(&attempt, &job);
    if first != Standing::Abandoned {
        return Ok((attempt, job, first));
    }
    let mut tx = server.store.begin().await?;
    let (attempt, job) = mine(&mut tx, agent, id).await?;
    let certain = standing(&attempt, &job);
    Ok((attempt, job, certain))
}

/// What ends the attempt that was to replace one whose agent came back.
const RETURN: &str = "the return of attempt";

/// Believes an attempt again whose agent came back; what was to replace it is fenced.
async fn resume(
    db: &mut Connection,
    attempt: &Attempt,
    job: &Job,
    since: Timestamp,
) -> Result<Job, StoreError> {
    let now = Timestamp::now();
    if let Some(replacement) = job.state.attempt() {
        let by = format!("{RETURN} {}", attempt.id);
        let outcome = Outcome::Cancelled { by };
        attempts::end(db, replacement, Fate::Abandoned, &outcome, now).await?;
    }
    attempts::reopen(db, &attempt.id).await?;
    let step = Move::Resume {
        attempt: attempt.id.clone(),
        since,
    };
    tracing::info!(job = %job.id, attempt = %attempt.id, "its agent came back: the attempt goes on");
    jobs::advance(db, job, step, Some(attempt.generation), now).await
}

/// Tells pages that jobs changed.
fn tell(server: &Server, changed: &[Job]) {
    for job in changed {
        server.live.tell(Change::Job {
            pipeline: job.pipeline.clone(),
            job: job.id.clone(),
        });
    }
}
