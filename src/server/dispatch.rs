//! The scheduler's loop: reads queue and fleet from rows (`look`), lets `schedule::place` decide, writes
//! attempts with their bookings, and wakes the polls that wait for them.

mod look;
mod recent;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use protocol::agent_api::{AttemptOrder, Source};
use protocol::event::Artifact;
use protocol::job::Move;
use protocol::{AgentId, AttemptId, JobId, Outcome, Span, Timestamp};

use look::{Look, look};
pub(crate) use look::{empty_host, named};
pub use recent::Recent;

use crate::disk;
use crate::live::Change;
use crate::registry;
use crate::schedule::{self, Decision};
use crate::state::Server;
use crate::store::attempts::{Attempt, Fate};
use crate::store::jobs::Job;
use crate::store::waiting::{self, Waiting};
use crate::store::{
    Connection, Result, StoreError, agents, attempts, checkpoints, jobs, pipelines, projects,
};

/// Most queued jobs that one pass looks at, those of the highest priority and the oldest.
const MOST_QUEUED: u32 = 200_000;
/// Most jobs that one pass gives to agents; the next pass follows at once.
const MOST_LEASED: usize = 1_000;
/// Reasons that one transaction writes: agents' calls write between two of them.
const REASONS_AT_ONCE: usize = 500;
/// Expected starts are said to within so much where they are so near, and to within [`FAR`] later: they would change all
/// the time, and each change is a write.
const GRAINS: [(Span, Span); 2] = [
    (Span::hours(2), Span::secs(300)),
    (Span::hours(12), Span::secs(1_800)),
];
const FAR: Span = Span::hours(3);

/// Runs until the server stops: woken by the queue, and at every tick as a safety net.
pub async fn run(server: Server) {
    loop {
        if let Err(error) = tick(&server).await {
            tracing::error!(%error, "the queue could not be worked on; the next pass tries again");
        }
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = server.live.queue_change() => {}
            () = tokio::time::sleep(server.config.tick.into()) => {}
        }
    }
}

/// One pass: everything that can start is given to an agent. Gives the number of jobs that were.
///
/// # Errors
/// The store's; what was placed before stays placed.
pub async fn tick(server: &Server) -> Result<usize> {
    // Where the pass ends by an error, the next one reads everything anew.
    let mut kept = server.recent.waiting.lock().await;
    let mut db = server.store.read().await?;
    let waiting = std::mem::take(&mut *kept);
    let Some(mut seen) = look(server, &mut db, waiting, MOST_QUEUED).await? else {
        return Ok(0);
    };
    drop(db);
    if let Some(why) = disk::low(&server.config).await {
        let why: Arc<str> = why.into();
        let all = (0..seen.waiting.jobs.len()).map(|place| (place, why.clone()));
        note(server, &mut seen.waiting, all).await?;
        *kept = seen.waiting;
        return Ok(0);
    }
    // Tens of milliseconds where very much waits: not on a thread that answers requests.
    let deciding = tokio::task::spawn_blocking(move || {
        let decision = schedule::place(&seen.queue, &seen.fleet, seen.now);
        (seen, decision)
    });
    let (mut seen, decision) = match deciding.await {
        Ok(decided) => decided,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    let placed = lease_all(server, &seen, &decision).await?;
    let why = reasons(&seen, &decision);
    note(server, &mut seen.waiting, why.into_iter()).await?;
    let given = decision.placements.iter().take(MOST_LEASED);
    let gone = given.map(|placement| seen.places[placement.job]);
    seen.waiting.forget(&gone.collect());
    *kept = seen.waiting;
    Ok(placed)
}

/// Why jobs wait: their places, and the words.
fn reasons(seen: &Look, decision: &Decision) -> Vec<(usize, Arc<str>)> {
    // The words do not count down, so that a pause is one write.
    let resting = seen.resting.iter().map(|(place, pause)| {
        let words = format!("it is tried again within {pause}, after a fault of the platform");
        (*place, words.into())
    });
    let mut said: HashMap<(usize, Option<Timestamp>), Arc<str>> = HashMap::new();
    let left = decision.left.iter().map(|left| {
        let start = left.expected.map(|at| rounded(at, seen.now));
        let words = said.entry((left.reason, start)).or_insert_with(|| {
            let why = &decision.reasons[left.reason];
            match start {
                Some(at) => format!("{why}; it starts about {}", schedule::clock(at, seen.now)),
                None => why.clone(),
            }
            .into()
        });
        (seen.places[left.job], words.clone())
    });
    resting.chain(left).collect()
}

/// Gives jobs to agents, each in a transaction of its own.
async fn lease_all(server: &Server, seen: &Look, decision: &Decision) -> Result<usize> {
    let mut placed = 0;
    for placement in decision.placements.iter().take(MOST_LEASED) {
        let host = &seen.fleet[placement.host];
        let gpus = placement
            .gpus
            .iter()
            .map(|gpu| host.gpus[*gpu].uuid.clone());
        let given = Given {
            agent: host.agent.clone(),
            gpus: gpus.collect(),
        };
        match lease(server, seen.job(placement.job), &given).await {
            Ok(()) => placed += 1,
            // Somebody cancelled it in between: the next pass sees that.
            Err(StoreError::Changed(_) | StoreError::Illegal(_)) => server.live.queue_changed(),
            Err(error) => return Err(error),
        }
    }
    if decision.placements.len() > MOST_LEASED {
        server.live.queue_changed();
    }
    Ok(placed)
}

/// What a job gets.
struct Given {
    agent: AgentId,
    gpus: Vec<String>,
}

/// Gives a job to an agent: attempt, booking and state in one transaction.
async fn lease(server: &Server, job: &JobId, given: &Given) -> Result<()> {
    let at = Timestamp::now();
    let id = AttemptId::generate();
    let mut tx = server.store.begin().await?;
    let job = &jobs::get(&mut tx, job).await?;
    // Read again: somebody may have drained it since the look.
    if !agents::is_open(&mut tx, &given.agent).await? {
        return Err(StoreError::Changed(job.id.clone()));
    }
    let before = attempts::of_job(&mut tx, &job.id).await?;
    let number = before.iter().map(|attempt| attempt.number).max();
    let number = number.map_or(1, |last| last + 1);
    let order = order(&mut tx, job, &id, number, given).await?;
    let attempt = Attempt {
        id: id.clone(),
        job: job.id.clone(),
        agent: given.agent.clone(),
        number,
        // Later than every earlier attempt's; the job takes it over when this attempt starts.
        generation: number,
        order,
        fate: Fate::Open,
        evicted_by: None,
        phase: None,
        created_at: at,
        started_at: None,
        finished_at: None,
        outcome: None,
        report: None,
    };
    let lease = Move::Lease { attempt: id };
    jobs::advance(&mut tx, job, lease, None, at).await?;
    attempts::insert(&mut tx, &attempt).await?;
    tx.commit().await?;
    server.live.orders_for(&given.agent);
    server.live.tell(Change::Job {
        pipeline: job.pipeline.clone(),
        job: job.id.clone(),
    });
    tracing::info!(job = %job.id, attempt = %attempt.id, agent = %attempt.agent, "leased");
    Ok(())
}

/// The order, without secrets: those are put in when it is sent.
async fn order(
    db: &mut Connection,
    job: &Job,
    attempt: &AttemptId,
    number: u32,
    given: &Given,
) -> Result<AttemptOrder> {
    let pipeline = pipelines::get(db, &job.pipeline).await?;
    let project = projects::find(db, &job.project)
        .await?
        .ok_or_else(|| StoreError::Missing(format!("project {}", job.project)))?;
    Ok(AttemptOrder {
        attempt: attempt.clone(),
        generation: number,
        job: job.id.clone(),
        number,
        pipeline: pipeline.id.clone(),
        project: project.id.clone(),
        project_name: project.name,
        source: Source::Git {
            url: project.url,
            commit: pipeline.trigger.commit.clone(),
            reference: pipeline.trigger.reference.clone(),
            authorization: None,
        },
        trust: job.trust,
        spec: job.spec.clone(),
        secrets: BTreeMap::new(),
        gpus: given.gpus.clone(),
        needs: needs(db, job).await?,
        parent: match &job.spec.parent {
            Some(parent) => Some(registry::parent_files(db, parent).await?),
            None => None,
        },
        checkpoint: match job.spec.checkpoints.across_hosts {
            true => checkpoints::of_job(db, &job.id).await?,
            false => None,
        },
        run: Some(registry::run_id(attempt)),
    })
}

/// What the jobs that this one needs left, by the name of the definition.
async fn needs(db: &mut Connection, job: &Job) -> Result<BTreeMap<String, Vec<Artifact>>> {
    let mut needs: BTreeMap<String, Vec<Artifact>> = BTreeMap::new();
    if job.spec.needs.is_empty() {
        return Ok(needs);
    }
    for other in jobs::of_pipeline(db, &job.pipeline).await? {
        if !job.spec.needs.contains(&other.spec.definition) {
            continue;
        }
        let files = result_files(db, &other).await?;
        needs
            .entry(other.spec.definition)
            .or_default()
            .extend(files);
    }
    Ok(needs)
}

/// The files of a succeeded job, or of the one whose result stands for it.
async fn result_files(db: &mut Connection, job: &Job) -> Result<Vec<Artifact>> {
    let source = match job.state.outcome() {
        Some(Outcome::Reused { of }) => of,
        _ => &job.id,
    };
    let all = attempts::of_job(db, source).await?;
    let succeeded = all
        .iter()
        .rev()
        .find(|attempt| attempt.outcome == Some(Outcome::Succeeded));
    match succeeded {
        Some(attempt) => attempts::artifacts(db, &attempt.id).await,
        None => Ok(Vec::new()),
    }
}

/// Notes why jobs wait; only what changed is written, those whose turn is next first. Where the queue changes meanwhile
/// the rest is for the next pass: nobody's order waits for it.
async fn note(
    server: &Server,
    waiting: &mut Waiting,
    reasons: impl Iterator<Item = (usize, Arc<str>)>,
) -> Result<()> {
    let changed =
        |(place, why): &(usize, Arc<str>)| waiting.jobs[*place].reason.as_ref() != Some(why);
    let new: Vec<_> = reasons.filter(changed).collect();
    for some in new.chunks(REASONS_AT_ONCE) {
        let mut alike: HashMap<&str, Vec<&JobId>> = HashMap::new();
        for (place, why) in some {
            alike.entry(why).or_default().push(&waiting.jobs[*place].id);
        }
        let mut tx = server.store.begin().await?;
        for (why, jobs) in alike {
            waiting::set_reason(&mut tx, &jobs, why).await?;
        }
        tx.commit().await?;
        for (place, why) in some {
            waiting.jobs[*place].reason = Some(why.clone());
        }
        let change = server.live.queue_change();
        if tokio::time::timeout(Duration::ZERO, change).await.is_ok() {
            server.live.queue_changed();
            return Ok(());
        }
    }
    Ok(())
}

/// An expected start, to within the grain.
fn rounded(at: Timestamp, now: Timestamp) -> Timestamp {
    let ahead = at.since(now);
    let grain = GRAINS.iter().find(|(near, _)| ahead < *near);
    let grain = grain.map_or(FAR, |(_, grain)| *grain).0.cast_signed();
    Timestamp(at.0.saturating_add(grain - 1) / grain * grain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_is_said_less_exactly() {
        let now = Timestamp(0) + Span::hours(24);
        let said = |minutes: u64| {
            let at = now + Span::secs(minutes * 60);
            rounded(at, now).since(now).0 / 60_000
        };
        assert_eq!([said(0), said(1), said(118)], [0, 5, 120]);
        assert_eq!([said(121), said(719)], [150, 720]);
        assert_eq!([said(721), said(1_000)], [900, 1_080]);
    }
}
