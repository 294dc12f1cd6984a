//! What people ask of agents: drain one, take it back, revoke its secret, remove it. Each is written down with who asked.

use protocol::{Failure, FailureKind, Outcome, Span, Timestamp};

use super::{finish, poll};
use crate::state::Server;
use crate::store::access::{self, Audit};
use crate::store::agents::{self, Agent};
use crate::store::attempts::{self, Fate};
use crate::store::{Connection, StoreError};

/// Why an agent was not found, or the store does not answer.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is none of this name.
    #[error("there is no agent '{name}'; {}", match there.as_slice() {
        [] => "none has registered yet".to_owned(),
        there => format!("there are {}", there.join(", ")),
    })]
    Missing {
        /// The name.
        name: String,
        /// Those that there are.
        there: Vec<String>,
    },
    /// Its secret was taken away.
    #[error("agent '{name}' was revoked by {by}: it takes jobs again when it is registered anew")]
    Revoked {
        /// The name.
        name: String,
        /// Who took it.
        by: String,
    },
    /// It is at work, or may be.
    #[error(
        "agent '{name}' was heard of {silence} ago: only one that is revoked, or silent for {patience}, is removed. \
        'trainyard agents revoke {name}' takes its secret away and gives its jobs to others"
    )]
    Heard {
        /// The name.
        name: String,
        /// How long ago; since this server's start where it was not heard of yet.
        silence: Span,
        /// After how long a silence it is lost.
        patience: Span,
    },
    /// It has a job that may wait for it.
    #[error(
        "agent '{name}' holds {}: the job's `lost_after` is not over. 'trainyard agents revoke {name}' gives it to others",
        match jobs { 1 => "a job".to_owned(), n => format!("{n} jobs") }
    )]
    Busy {
        /// The name.
        name: String,
        /// How many.
        jobs: usize,
    },
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Lets an agent finish what it has and gives it nothing new. With `stop_jobs` its jobs are ended with their grace,
/// and go on elsewhere. Gives the number of jobs that it still has.
///
/// # Errors
/// [`HostError`].
pub async fn drain(
    server: &Server,
    name: &str,
    stop_jobs: bool,
    by: &str,
) -> Result<usize, HostError> {
    let at = Timestamp::now();
    let mut tx = server.store.begin().await?;
    let agent = named(&mut tx, name).await?;
    agents::set_drained(&mut tx, &agent.id, Some(by), at).await?;
    let mut action = format!("drain agent {name}");
    if stop_jobs {
        attempts::evict(&mut tx, &agent.id, &words(name, by)).await?;
        action += " and stop its jobs";
    }
    let left = attempts::unsettled_of_agent(&mut tx, &agent.id).await?;
    let left = left.iter().filter(|a| a.fate == Fate::Open).count();
    write_down(&mut tx, by, action).await?;
    tx.commit().await.map_err(StoreError::from)?;
    server.live.queue_changed();
    server.live.orders_changed();
    Ok(left)
}

/// Why an attempt is ended that is to go on elsewhere.
fn words(agent: &str, by: &str) -> String {
    format!("{by}, who drains {agent}")
}

/// Gives an agent work again.
///
/// # Errors
/// [`HostError`].
pub async fn undrain(server: &Server, name: &str, by: &str) -> Result<(), HostError> {
    let mut tx = server.store.begin().await?;
    let agent = named(&mut tx, name).await?;
    if let Some(by) = agent.revoked_by {
        let name = name.to_owned();
        return Err(HostError::Revoked { name, by });
    }
    agents::set_drained(&mut tx, &agent.id, None, Timestamp::now()).await?;
    write_down(&mut tx, by, format!("undrain agent {name}")).await?;
    tx.commit().await.map_err(StoreError::from)?;
    server.live.queue_changed();
    Ok(())
}

/// Takes an agent's secret away. Its jobs are given to others at once: nobody will hear of them again.
///
/// # Errors
/// [`HostError`].
pub async fn revoke(server: &Server, name: &str, by: &str) -> Result<(), HostError> {
    let mut tx = server.store.begin().await?;
    let agent = named(&mut tx, name).await?;
    agents::set_revoked(&mut tx, &agent.id, by).await?;
    let left = attempts::unsettled_of_agent(&mut tx, &agent.id).await?;
    let booked = attempts::booked_by(&mut tx, &agent.id).await?;
    // What it had booked is free from here on: what was lost does not come back to it.
    for lost in left.iter().filter(|attempt| attempt.fate == Fate::Lost) {
        attempts::set_fate(&mut tx, &lost.id, Fate::Abandoned).await?;
    }
    write_down(&mut tx, by, format!("revoke agent {name}")).await?;
    tx.commit().await.map_err(StoreError::from)?;
    for attempt in left {
        let outcome = Outcome::Failed(Failure::new(
            FailureKind::AgentLost,
            format!("{by} revoked agent {name}"),
        ));
        finish::without_report(server, &attempt.id, Fate::Abandoned, outcome).await?;
    }
    for (attempt, _) in booked {
        poll::free(server, &attempt).await?;
    }
    server.live.queue_changed();
    // A poll that is held learns it from its next call.
    server.live.orders_changed();
    Ok(())
}

/// Takes an agent out of the lists that will not come back: it is revoked or lost, and has no job. What it had booked is
/// free, and its secret is good no more.
///
/// # Errors
/// [`HostError`].
pub async fn remove(server: &Server, name: &str, by: &str) -> Result<(), HostError> {
    let mut tx = server.store.begin().await?;
    let agent = named(&mut tx, name).await?;
    let silence = Span::from(server.leases.silence(&agent.id));
    let patience = server.config.lost_after;
    if agent.revoked_by.is_none() && silence <= patience {
        return Err(HostError::Heard {
            name: agent.name,
            silence,
            patience,
        });
    }
    let left = attempts::unsettled_of_agent(&mut tx, &agent.id).await?;
    let jobs = left.iter().filter(|a| a.fate == Fate::Open).count();
    if jobs > 0 {
        let name = agent.name;
        return Err(HostError::Busy { name, jobs });
    }
    for lost in left {
        attempts::set_fate(&mut tx, &lost.id, Fate::Abandoned).await?;
    }
    for (attempt, _) in attempts::booked_by(&mut tx, &agent.id).await? {
        attempts::release(&mut tx, &attempt).await?;
    }
    if agent.revoked_by.is_none() {
        agents::set_revoked(&mut tx, &agent.id, by).await?;
    }
    agents::set_removed(&mut tx, &agent.id, Timestamp::now()).await?;
    write_down(&mut tx, by, format!("remove agent {name}")).await?;
    tx.commit().await.map_err(StoreError::from)?;
    server.live.queue_changed();
    Ok(())
}

async fn named(db: &mut Connection, name: &str) -> Result<Agent, HostError> {
    let mut all = agents::listed(db).await?;
    match all.iter().position(|agent| agent.name == name) {
        Some(place) => Ok(all.swap_remove(place)),
        None => Err(HostError::Missing {
            name: name.chars().take(80).collect(),
            there: all.into_iter().map(|agent| agent.name).collect(),
        }),
    }
}

async fn write_down(db: &mut Connection, by: &str, action: String) -> Result<(), StoreError> {
    let entry = Audit {
        at: Timestamp::now(),
        who: by.to_owned(),
        action,
    };
    access::write_audit(db, &entry).await
}
