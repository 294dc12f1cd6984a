//! A poll: the agent says what it has and does, and gets what is wanted minus what it reported. This is
//! its heartbeat too. The answer is held while there is nothing to say.

use std::collections::BTreeSet;

use protocol::agent_api::{AttemptStatus, PollAnswer, PollRequest, StopOrder, VERSION};
use protocol::job::{Move, State};
use protocol::{AttemptId, Failure, FailureKind, Outcome, Timestamp};
use tokio::time::Instant;

use super::{Refused, Standing, finish, orders, resume, seen, standing, tell};
use crate::state::Server;
use crate::store::agents::{self, Agent};
use crate::store::attempts::{self, Attempt, Fate};
use crate::store::jobs::{self, Job};
use crate::store::{Connection, StoreError};

/// Most attempts that an agent may report: far more than any host runs.
const MOST_ATTEMPTS: usize = 10_000;
/// The agent's row is written at least this often while nothing changes: it counts only until the agent is heard
/// of again after a start of the server, and a write is what costs most of a poll with no news.
const SEEN_EVERY: protocol::Span = protocol::Span::secs(120);

/// Answers a poll, at the latest after the time that the agent and the configuration allow.
///
/// # Errors
/// [`Refused`].
pub async fn poll(
    server: &Server,
    agent: &Agent,
    request: &PollRequest,
) -> Result<PollAnswer, Refused> {
    if request.protocol != VERSION {
        return Err(Refused::Version {
            found: request.protocol,
        });
    }
    if request.attempts.len() > MOST_ATTEMPTS {
        return Err(Refused::TooLarge(format!(
            "at most {MOST_ATTEMPTS} attempts are taken in a poll"
        )));
    }
    let until = Instant::now() + request.wait.min(server.config.poll_hold).into();
    note_agent(server, agent, request).await?;
    take_report(server, agent, request).await?;
    server.leases.reported(&agent.id);
    let mut orders = server.live.orders(&agent.id);
    loop {
        // Subscribe before you look: a change after this line wakes the wait below.
        orders.borrow_and_update();
        let answer = answer(server, agent, request).await?;
        if answer != PollAnswer::default() || Instant::now() >= until {
            server.leases.reported(&agent.id);
            return Ok(dated(answer));
        }
        tokio::select! {
            _ = orders.changed() => {}
            () = tokio::time::sleep_until(until) => {}
            () = server.shutdown.cancelled() => return Ok(dated(answer)),
        }
    }
}

fn dated(answer: PollAnswer) -> PollAnswer {
    PollAnswer {
        now: Some(Timestamp::now()),
        ..answer
    }
}

/// Keeps what the agent says of its host, where it changed.
async fn note_agent(
    server: &Server,
    agent: &Agent,
    request: &PollRequest,
) -> Result<(), StoreError> {
    let at = Timestamp::now();
    let inventory = request
        .inventory
        .as_ref()
        .filter(|_| request.inventory_hash != agent.inventory_hash);
    let changed = request.accepting != agent.accepting
        || request.closed != agent.closed
        || request.version != agent.version;
    let evicts = request.evict && has_unevicted(server, agent).await?;
    // A time to come was written before the clock went back.
    let due = at < agent.seen_at || at.since(agent.seen_at) >= SEEN_EVERY;
    if inventory.is_none() && !changed && !due && !evicts {
        return Ok(());
    }
    let mut tx = server.store.begin().await?;
    if let Some(inventory) = inventory {
        agents::set_inventory(&mut tx, &agent.id, inventory, &request.inventory_hash).await?;
    }
    agents::set_seen(
        &mut tx,
        &agent.id,
        &request.version,
        request.accepting,
        request.closed.as_deref(),
        at,
    )
    .await?;
    if request.evict {
        let by = request.closed.as_deref().unwrap_or("its host's owner");
        attempts::evict(&mut tx, &agent.id, by).await?;
    }
    tx.commit().await?;
    if inventory.is_some() || changed {
        server.live.queue_changed();
    }
    Ok(())
}

/// Whether an attempt of this agent is to go on elsewhere and has not been told so.
async fn has_unevicted(server: &Server, agent: &Agent) -> Result<bool, StoreError> {
    let mut db = server.store.read().await?;
    let all = attempts::unsettled_of_agent(&mut db, &agent.id).await?;
    Ok(all
        .iter()
        .any(|attempt| attempt.fate == Fate::Open && attempt.evicted_by.is_none()))
}

/// How long the job of an attempt gets to end.
fn grace(server: &Server, job: &Job) -> protocol::Span {
    job.spec.limits.grace.unwrap_or(server.config.stop_grace)
}

/// Takes what the agent says of its attempts, one transaction each, and only where something changed.
async fn take_report(server: &Server, agent: &Agent, request: &PollRequest) -> Result<(), Refused> {
    for status in &request.attempts {
        server.leases.found(&status.attempt);
        let mut db = server.store.read().await?;
        let Some((attempt, job)) = look(&mut db, agent, &status.attempt).await? else {
            continue;
        };
        drop(db);
        if says_something_new(&attempt, &job, status) {
            let mut tx = server.store.begin().await?;
            let changed = take_status(&mut tx, agent, status).await?;
            tx.commit().await?;
            tell(server, &changed);
        }
        if status.released {
            free(server, &status.attempt).await?;
        }
    }
    take_silence(server, agent, request).await
}

async fn look(
    db: &mut Connection,
    agent: &Agent,
    id: &AttemptId,
) -> Result<Option<(Attempt, Job)>, StoreError> {
    let attempt = attempts::find(db, id).await?;
    match attempt.filter(|attempt| attempt.agent == agent.id) {
        Some(attempt) => {
            let job = jobs::get(db, &attempt.job).await?;
            Ok(Some((attempt, job)))
        }
        None => Ok(None),
    }
}

fn says_something_new(attempt: &Attempt, job: &Job, status: &AttemptStatus) -> bool {
    match standing(attempt, job) {
        Standing::Believed => {
            matches!(job.state, State::Leased { .. }) || attempt.phase != Some(status.phase)
        }
        Standing::Resumable => true,
        Standing::Over | Standing::Abandoned => false,
    }
}

/// Writes what a status says; gives the jobs that changed.
pub(super) async fn take_status(
    tx: &mut Connection,
    agent: &Agent,
    status: &AttemptStatus,
) -> Result<Vec<Job>, StoreError> {
    // Read again: this is the transaction that writes.
    let Some((attempt, job)) = look(tx, agent, &status.attempt).await? else {
        return Ok(Vec::new());
    };
    let changed = match (standing(&attempt, &job), &job.state) {
        (Standing::Believed, State::Leased { .. }) => {
            let step = Move::Start {
                attempt: attempt.id.clone(),
                at: status.started_at,
            };
            let at = Timestamp::now();
            vec![jobs::advance(tx, &job, step, Some(attempt.generation), at).await?]
        }
        (Standing::Resumable, _) => vec![resume(tx, &attempt, &job, status.started_at).await?],
        (Standing::Believed, _) => Vec::new(),
        (Standing::Over | Standing::Abandoned, _) => return Ok(Vec::new()),
    };
    attempts::set_phase(tx, &attempt.id, status.phase, status.started_at).await?;
    Ok(changed)
}

/// Frees what an attempt had booked, and lets the scheduler know.
pub(super) async fn free(server: &Server, attempt: &AttemptId) -> Result<(), StoreError> {
    let mut db = server.store.read().await?;
    if !attempts::has_booking(&mut db, attempt).await? {
        return Ok(());
    }
    drop(db);
    let mut tx = server.store.begin().await?;
    attempts::release(&mut tx, attempt).await?;
    tx.commit().await?;
    server.live.queue_changed();
    Ok(())
}

/// What it means that an agent does not speak of an attempt: an order that it never got is sent again;
/// one that is to stop and never began is over; one that it had begun is forgotten if that lasts; and
/// what nobody believes any more holds nothing on that host.
async fn take_silence(
    server: &Server,
    agent: &Agent,
    request: &PollRequest,
) -> Result<(), Refused> {
    let reported: BTreeSet<_> = request.attempts.iter().map(|s| &s.attempt).collect();
    let mut db = server.store.read().await?;
    let unsettled = attempts::unsettled_of_agent(&mut db, &agent.id).await?;
    let booked = attempts::booked_by(&mut db, &agent.id).await?;
    let mut silent = Vec::new();
    for attempt in unsettled {
        if attempt.fate == Fate::Open && !reported.contains(&attempt.id) {
            let job = jobs::get(&mut db, &attempt.job).await?;
            silent.push((attempt, job));
        }
    }
    drop(db);
    for (attempt, job) in silent {
        let began = attempt.started_at.is_some();
        let outcome = match &job.state {
            State::Stopping { attempt: of, by } if *of == attempt.id && !began => {
                Outcome::Cancelled { by: by.clone() }
            }
            State::Leased { attempt: of } if *of == attempt.id && !began => {
                match &attempt.evicted_by {
                    Some(by) => Outcome::Cancelled { by: by.clone() },
                    None => continue,
                }
            }
            State::Running { attempt: of, .. } | State::Stopping { attempt: of, .. }
                if *of == attempt.id
                    && server.leases.missing(&attempt.id)
                        > server.config.unreachable_after.into() =>
            {
                Outcome::Failed(forgotten(agent))
            }
            State::Blocked { .. }
            | State::Queued
            | State::Leased { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Finished { .. } => continue,
        };
        server.leases.found(&attempt.id);
        finish::without_report(server, &attempt.id, Fate::Abandoned, outcome).await?;
        free(server, &attempt.id).await?;
    }
    for (attempt, fate) in booked {
        if reported.contains(&attempt) {
            continue;
        }
        match fate {
            Fate::Open => {}
            Fate::Finished | Fate::Abandoned => free(server, &attempt).await?,
            Fate::Lost => {
                // The agent is back and does not know it: it will never come back. Read again: this is the
                // transaction that writes, and another poll may have brought it back.
                let mut tx = server.store.begin().await?;
                if attempts::get(&mut tx, &attempt).await?.fate != Fate::Lost {
                    continue;
                }
                attempts::set_fate(&mut tx, &attempt, Fate::Abandoned).await?;
                tx.commit().await?;
                free(server, &attempt).await?;
            }
        }
    }
    Ok(())
}

fn forgotten(agent: &Agent) -> Failure {
    Failure::new(
        FailureKind::AgentLost,
        format!(
            "agent {} does not know this attempt any more: its data folder was lost or replaced",
            agent.name
        ),
    )
}

/// What is wanted minus what was reported.
async fn answer(
    server: &Server,
    agent: &Agent,
    request: &PollRequest,
) -> Result<PollAnswer, Refused> {
    let mut db = server.store.read().await?;
    let mut answer = PollAnswer {
        want_inventory: request.inventory.is_none()
            && request.inventory_hash != agent.inventory_hash,
        ..PollAnswer::default()
    };
    let (mut reported, mut doubtful) = (BTreeSet::new(), Vec::new());
    for status in &request.attempts {
        reported.insert(&status.attempt);
        let Some((attempt, job)) = look(&mut db, agent, &status.attempt).await? else {
            answer.abandoned.push(status.attempt.clone());
            continue;
        };
        match (standing(&attempt, &job), &job.state) {
            (Standing::Abandoned, _) => doubtful.push(attempt.id),
            (Standing::Believed, State::Stopping { by, .. }) => answer.stop.push(StopOrder {
                attempt: attempt.id,
                by: by.clone(),
                grace: grace(server, &job),
            }),
            (Standing::Believed, _) => answer.stop.extend(attempt.evicted_by.map(|by| StopOrder {
                attempt: attempt.id,
                by,
                grace: grace(server, &job),
            })),
            (Standing::Resumable | Standing::Over, _) => {}
        }
    }
    let mut orders = Vec::new();
    for attempt in attempts::unsettled_of_agent(&mut db, &agent.id).await? {
        let open = attempt.fate == Fate::Open && attempt.evicted_by.is_none();
        if !open || reported.contains(&attempt.id) {
            continue;
        }
        let job = jobs::get(&mut db, &attempt.job).await?;
        let leased = matches!(&job.state, State::Leased { attempt: of } if *of == attempt.id);
        if leased {
            orders.push(attempt.order);
        }
    }
    // A forge may be asked for a token, and somebody may write: no connection is held meanwhile.
    drop(db);
    for id in doubtful {
        if seen(server, agent, &id).await?.2 == Standing::Abandoned {
            answer.abandoned.push(id);
        }
    }
    for order in orders {
        answer.start.push(orders::complete(server, order).await?);
    }
    Ok(answer)
}
