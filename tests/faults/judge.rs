//! What must hold after a round.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use protocol::api::{Attempt, JobDetail};
use protocol::event::{EventKind, LogStream};
use protocol::{Event, Outcome, Owner, PipelineId};

use super::deeds::Done;
use super::plan::{Job, LEFT, MARKS, Round, name};
use super::{AGENTS, ALPHA, BETA, Hosts};
use crate::support::api::said;
use crate::support::{World, docker, until, whole};

pub(super) async fn judge(
    world: &World,
    hosts: &Hosts,
    round: &Round,
    done: &[Done],
    pipeline: &PipelineId,
) {
    let over = until("all jobs end", async || {
        let detail = world.api().pipeline(pipeline).await;
        detail.pipeline.finished_at.is_some().then_some(detail)
    })
    .await;
    assert_eq!(over.jobs.len(), round.jobs.len(), "no job is lost");
    for (index, job) in round.jobs.iter().enumerate() {
        let row = over.jobs.iter().find(|row| row.name == name(index));
        let row = row.expect("each job has its row");
        let detail = world.api().job(&row.id).await;
        believed_once(world, *job, &detail).await;
        for attempt in &detail.attempts {
            right_owner(*job, attempt, done);
            let events = world.api().events(&row.id, Some(&attempt.id)).await;
            in_order(attempt, &events);
        }
    }
    nobody_shares(world, round);
    for agent in AGENTS {
        let broken: Vec<_> = done
            .iter()
            .filter_map(|done| done.broke(hosts, agent))
            .collect();
        nothing_is_left(world, agent, &broken).await;
    }
}

/// The job ended as it had to, by one attempt, whose story and files are whole.
async fn believed_once(world: &World, job: Job, detail: &JobDetail) {
    let outcome = detail.job.state.outcome().expect("its pipeline is over");
    assert!(is_own(job, outcome), "{}: {detail:#?}", detail.job.name);
    let reported = detail.attempts.iter().filter_map(|attempt| {
        let report = attempt.report.as_ref()?;
        is_own(job, &report.outcome).then_some((attempt, report))
    });
    let reported: Vec<_> = reported.collect();
    let [(attempt, report)] = reported.as_slice() else {
        panic!(
            "{} has {} results: {detail:#?}",
            detail.job.name,
            reported.len()
        )
    };
    let events = world.api().events(&detail.job.id, Some(&attempt.id)).await;
    whole(&events, &report.outcome);
    assert_eq!(text(&events), job.says(), "{}", detail.job.name);
    if job == Job::Lines {
        let (path, size) = LEFT;
        let bytes = world.api().artifact(&attempt.id, path).await;
        assert_eq!(bytes.len() as u64, size);
        assert!(bytes.iter().all(|&byte| byte == 0));
    }
}

/// Whether an outcome is the job's own, and not the platform's.
fn is_own(job: Job, outcome: &Outcome) -> bool {
    match (outcome, job.fails()) {
        (Outcome::Succeeded, None) => true,
        (Outcome::Failed(failure), Some(kind)) => failure.kind == kind,
        (_, _) => false,
    }
}

/// What is not the job's own end is the platform's, and comes from a fault that was done.
fn right_owner(job: Job, attempt: &Attempt, done: &[Done]) {
    match &attempt.outcome {
        Some(outcome) if is_own(job, outcome) => {}
        Some(Outcome::Failed(failure)) => {
            assert_eq!(failure.kind.owner(), Owner::Platform, "{failure:#?}");
            let explains = |done: &Done| done.explains(&attempt.agent, failure.kind);
            assert!(
                done.iter().any(explains),
                "on {}: {failure:#?}",
                attempt.agent
            );
        }
        // What was to replace an attempt that came back did not begin.
        Some(Outcome::Cancelled { by }) if by.starts_with("the return of attempt") => {
            assert!(attempt.report.is_none(), "{attempt:#?}");
        }
        other => panic!("attempt {}: {other:?}", attempt.id),
    }
}

/// What the server has of a story has no gap; whoever reported told all of it.
fn in_order(attempt: &Attempt, events: &[Event]) {
    match &attempt.report {
        Some(report) => whole(events, &report.outcome),
        None => {
            let numbers = events.iter().map(|event| event.seq);
            assert!(numbers.eq(1..=events.len() as u64), "{}", attempt.id);
        }
    }
}

/// GPUs that an attempt saw, and from when to when, by its host's clock.
#[derive(Debug)]
struct Use {
    file: PathBuf,
    gpus: Vec<String>,
    from: u64,
    to: u64,
}

impl Use {
    /// None: the attempt was killed before it wrote a line.
    fn read(file: PathBuf) -> Option<Self> {
        let text = std::fs::read_to_string(&file).unwrap();
        let saw = text.lines().map(|line| line.split_once(' ').unwrap());
        let saw: Vec<(u64, &str)> = saw.map(|(at, gpus)| (at.parse().unwrap(), gpus)).collect();
        let ((from, gpus), (to, _)) = (*saw.first()?, *saw.last()?);
        assert!(saw.iter().all(|(_, now)| *now == gpus), "{saw:?}");
        Some(Self {
            file,
            gpus: gpus.split_whitespace().map(str::to_owned).collect(),
            from,
            to,
        })
    }
}

/// No two attempts had a GPU of a host at the same time, believed or not: what they wrote on their hosts says it.
fn nobody_shares(world: &World, round: &Round) {
    let mut all = 0;
    for agent in [ALPHA, BETA] {
        let files = std::fs::read_dir(marks(world, agent)).unwrap();
        let uses: Vec<Use> = files
            .filter_map(|file| Use::read(file.unwrap().path()))
            .collect();
        all += uses.len();
        for (n, one) in uses.iter().enumerate() {
            assert_eq!(one.gpus.len(), 2, "{one:?}");
            for other in &uses[..n] {
                let together = one.from <= other.to && other.from <= one.to;
                let share = one.gpus.iter().any(|gpu| other.gpus.contains(gpu));
                let (a, b) = (one.file.display(), other.file.display());
                assert!(!(together && share), "{a} and {b}: {one:?} {other:?}");
            }
        }
    }
    let jobs = round.jobs.iter().filter(|job| **job == Job::Gpus);
    assert!(all >= jobs.count(), "each job with GPUs wrote: {all}");
}

/// Where attempts on an agent's host write which GPUs they see.
pub(super) fn marks(world: &World, agent: &str) -> PathBuf {
    world.path(&format!("{agent}-{MARKS}"))
}

/// What a job printed, whether cells or a command did.
pub(super) fn text(events: &[Event]) -> String {
    let log = |event: &Event| match event.body.known()? {
        EventKind::Log {
            stream: LogStream::Stdout,
            text,
        } => Some(text.clone()),
        _ => None,
    };
    said(events) + &events.iter().filter_map(log).collect::<String>()
}

/// Neither bookings nor containers nor folders, and in quarantine no GPU but one that was broken; the agent is idle again.
async fn nothing_is_left(world: &World, agent: &str, broken: &[String]) {
    until("an agent is idle", async || {
        let agents = world.api().agents().await;
        let row = agents.into_iter().find(|row| row.name == agent)?;
        (row.state == "idle" && row.jobs.is_empty()).then_some(())
    })
    .await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left = left(world, agent, broken);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{agent} still has {left:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Folders of attempts that go on, bookings, and containers.
fn left(world: &World, agent: &str, broken: &[String]) -> Vec<String> {
    let files = |folder: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(world.path(agent).join(folder));
        let entries = entries.into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    // The workspace of one that failed is kept for a person.
    let going = files("attempts").into_iter();
    let going = going.filter(|folder| !folder.join("reported").exists());
    let booked = files("bookings").into_iter();
    let names: Vec<_> = broken
        .iter()
        .map(|gpu| format!("{gpu}.quarantine.json"))
        .collect();
    let booked = booked.filter(|file| !names.iter().any(|name| file.ends_with(name)));
    let containers = world.containers(agent).into_iter();
    let containers = containers.map(|id| docker::described(&id));
    let paths = going.chain(booked).map(|path| path.display().to_string());
    paths.chain(containers).collect()
}
