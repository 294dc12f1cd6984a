//! The scheduler's loop: reads queue and fleet from rows, lets `schedule::place` decide, writes attempts
//! with their bookings, and wakes the polls that wait for them.

use std::collections::{BTreeMap, BTreeSet};

use protocol::agent_api::{AttemptOrder, Source};
use protocol::event::Artifact;
use protocol::hardware::GpuHealth;
use protocol::job::Move;
use protocol::{AttemptId, Outcome, Span, Timestamp};

use crate::disk;
use crate::live::Change;
use crate::schedule::{self, Host, HostGpu, Placement, Shares, Waiting};
use crate::state::Server;
use crate::store::agents::Agent;
use crate::store::attempts::{Attempt, Booking, Fate};
use crate::store::jobs::Job;
use crate::store::{
    Connection, Result, StoreError, agents, attempts, checkpoints, jobs, pipelines, projects,
};

/// Most queued jobs that one pass looks at.
const MOST_QUEUED: u32 = 2_000;

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
    let mut db = server.store.read().await?;
    let queue = jobs::with_word(&mut db, "queued", MOST_QUEUED).await?;
    if queue.is_empty() {
        return Ok(0);
    }
    if let Some(why) = disk::low(&server.config).await {
        drop(db);
        let reasons: Vec<_> = queue
            .iter()
            .map(|job| (job.id.clone(), why.clone()))
            .collect();
        write_reasons(server, &queue, &reasons).await?;
        return Ok(0);
    }
    let before = attempts::of_queued(&mut db).await?;
    let (mut waiting, mut resting) = (Vec::with_capacity(queue.len()), Vec::new());
    for job in &queue {
        let before = before.get(&job.id).map_or(&[][..], Vec::as_slice);
        match rest(server, before) {
            Some(left) => resting.push((
                job.id.clone(),
                format!("it is tried again within {left}, after a fault of the platform"),
            )),
            None => waiting.push(waits(job, before)),
        }
    }
    let fleet = agents::all(&mut db).await?;
    let bookings = attempts::bookings(&mut db).await?;
    drop(db);
    let shares = shares(&bookings);

    let hosts: Vec<Host> = fleet
        .iter()
        .map(|agent| host(server, agent, &bookings))
        .collect();
    let decision = schedule::place(&waiting, &hosts, &shares);
    let find = |id| queue.iter().find(|job| job.id == id);
    let mut placed = 0;
    for placement in &decision.placements {
        let Some(job) = find(placement.job.clone()) else {
            continue;
        };
        match lease(server, job, placement).await {
            Ok(()) => placed += 1,
            // Somebody cancelled it in between: the next pass sees that.
            Err(StoreError::Changed(_)) => server.live.queue_changed(),
            Err(error) => return Err(error),
        }
    }
    if placed > 0 {
        server.live.orders_changed();
    }
    let reasons = [decision.reasons, resting].concat();
    write_reasons(server, &queue, &reasons).await?;
    Ok(placed)
}

/// The pause of a job whose last attempt ended by a fault that its agent reported: what was broken then is
/// perhaps broken for some seconds more. None: it is over. The words do not count down, so that a pause
/// is one write.
fn rest(server: &Server, before: &[Attempt]) -> Option<Span> {
    let last = before.last()?;
    if last.fate != Fate::Finished || last.evicted_by.is_some() {
        return None;
    }
    let pause = Span(server.config.retry_delay.0 * before.len() as u64);
    let passed = Timestamp::now().since(last.finished_at?);
    (passed < pause).then_some(pause)
}

fn waits(job: &Job, before: &[Attempt]) -> Waiting {
    let failed_on: BTreeSet<_> = before
        .iter()
        .filter(|attempt| attempt.outcome.is_some())
        .map(|attempt| attempt.agent.clone())
        .collect();
    Waiting {
        job: job.id.clone(),
        project: job.project.clone(),
        priority: job.priority,
        // A retry keeps the place that its job had.
        since: job.created_at,
        resources: job.spec.resources.clone(),
        runs_on: job.spec.runs_on.clone(),
        failed_on,
    }
}

fn host(server: &Server, agent: &Agent, bookings: &[Booking]) -> Host {
    let mine: Vec<_> = bookings.iter().filter(|b| b.agent == agent.id).collect();
    let cpus: u64 = mine.iter().map(|booking| booking.cpu_millis).sum();
    let memory: u64 = mine.iter().map(|booking| booking.memory).sum();
    let booked = |uuid: &String| mine.iter().any(|booking| booking.gpus.contains(uuid));
    Host {
        agent: agent.id.clone(),
        name: agent.name.clone(),
        closed: closed(server, agent),
        labels: agent.inventory.labels.iter().cloned().collect(),
        cpu_millis: agent.inventory.cpu_millis,
        cpu_free: agent.inventory.cpu_millis.saturating_sub(cpus),
        memory: agent.inventory.memory.0,
        memory_free: agent.inventory.memory.0.saturating_sub(memory),
        gpus: agent
            .inventory
            .gpus
            .iter()
            .map(|gpu| HostGpu {
                uuid: gpu.uuid.clone(),
                memory: gpu.memory.0,
                healthy: gpu.health == GpuHealth::Healthy,
                booked: booked(&gpu.uuid),
            })
            .collect(),
    }
}

fn closed(server: &Server, agent: &Agent) -> Option<String> {
    if let Some(by) = &agent.revoked_by {
        return Some(format!("revoked by {by}"));
    }
    if let Some(by) = &agent.drained_by {
        return Some(format!("drained by {by}"));
    }
    let silence = server.leases.silence(&agent.id);
    if silence > server.config.unreachable_after.into() {
        return Some(format!("not heard of for {}", Span::from(silence)));
    }
    (!agent.accepting).then(|| agent.closed.clone().unwrap_or_else(|| "closed".to_owned()))
}

/// What each project has booked.
fn shares(bookings: &[Booking]) -> Shares {
    let mut shares = Shares::new();
    for booking in bookings {
        *shares.entry(booking.project.clone()).or_default() +=
            schedule::weight(booking.cpu_millis, booking.gpus.len());
    }
    shares
}

/// Gives a job to an agent: attempt, booking and state in one transaction.
async fn lease(server: &Server, job: &Job, placement: &Placement) -> Result<()> {
    let at = Timestamp::now();
    let id = AttemptId::generate();
    let mut tx = server.store.begin().await?;
    let before = attempts::of_job(&mut tx, &job.id).await?;
    let number = before.last().map_or(1, |attempt| attempt.number + 1);
    let order = order(&mut tx, job, &id, number, placement).await?;
    let attempt = Attempt {
        id: id.clone(),
        job: job.id.clone(),
        agent: placement.agent.clone(),
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
    placement: &Placement,
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
        gpus: placement.gpus.clone(),
        needs: needs(db, job).await?,
        checkpoint: match job.spec.checkpoints.across_hosts {
            true => checkpoints::of_job(db, &job.id).await?,
            false => None,
        },
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

/// Notes why jobs wait; only what changed is written.
async fn write_reasons(
    server: &Server,
    queue: &[Job],
    reasons: &[(protocol::JobId, String)],
) -> Result<()> {
    let before: BTreeMap<_, _> = queue.iter().map(|job| (&job.id, &job.reason)).collect();
    let new: Vec<_> = reasons
        .iter()
        .filter(|(id, why)| before.get(id).is_none_or(|old| old.as_ref() != Some(why)))
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    let mut tx = server.store.begin().await?;
    for (id, why) in new {
        jobs::set_reason(&mut tx, id, why).await?;
    }
    tx.commit().await.map_err(StoreError::from)
}
