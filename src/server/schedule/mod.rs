//! Who gets what: `place` looks at the queue and the fleet and says where each job goes, and of each job
//! that stays, why. Pure: no clock, no IO, no store; the same input gives the same answer.
//!
//! Order: priority, then the project that uses least, then age. Fit: labels, CPUs, memory, whole GPUs by
//! UUID. Among hosts that fit: one that has not failed the job before, then the one that keeps most GPUs
//! free and whole, then the fullest.

mod reason;
#[cfg(test)]
mod stories;

use std::collections::{BTreeMap, BTreeSet};

use protocol::spec::Resources;
use protocol::{AgentId, JobId, ProjectId, Timestamp};

/// A job that waits for a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// The job.
    pub job: JobId,
    /// Its project.
    pub project: ProjectId,
    /// Higher goes first.
    pub priority: i64,
    /// Since when it waits.
    pub since: Timestamp,
    /// What it needs.
    pub resources: Resources,
    /// Labels that its host must have.
    pub runs_on: Vec<String>,
    /// Hosts where it failed by the platform: others go first.
    pub failed_on: BTreeSet<AgentId>,
}

/// A host and what on it is free.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Its agent.
    pub agent: AgentId,
    /// Its name, for people.
    pub name: String,
    /// Why it takes nothing new; none: it does.
    pub closed: Option<String>,
    /// Its labels.
    pub labels: BTreeSet<String>,
    /// CPUs that jobs may use, in thousandths.
    pub cpu_millis: u64,
    /// Of these, not booked.
    pub cpu_free: u64,
    /// Memory that jobs may use, in bytes.
    pub memory: u64,
    /// Of this, not booked.
    pub memory_free: u64,
    /// Its GPUs.
    pub gpus: Vec<HostGpu>,
}

/// A GPU of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostGpu {
    /// Its UUID.
    pub uuid: String,
    /// Its memory in bytes.
    pub memory: u64,
    /// Whether it is healthy: not in use outside, quarantined or lost.
    pub healthy: bool,
    /// Whether an attempt has it.
    pub booked: bool,
}

/// Where a job goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The job.
    pub job: JobId,
    /// The agent that gets it.
    pub agent: AgentId,
    /// UUIDs of the GPUs that it gets.
    pub gpus: Vec<String>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Jobs that go.
    pub placements: Vec<Placement>,
    /// Jobs that stay, and why, in one sentence a person can act on.
    pub reasons: Vec<(JobId, String)>,
}

/// What each project uses now: GPUs count most, then CPUs (in thousandths).
pub type Shares = BTreeMap<ProjectId, u64>;

/// One GPU weighs as much as so many thousandths of a CPU in a project's share.
const GPU_WEIGHT: u64 = 16_000;

/// The weight of what a job uses.
#[must_use]
pub fn weight(cpu_millis: u64, gpus: usize) -> u64 {
    cpu_millis + gpus as u64 * GPU_WEIGHT
}

/// Decides. `shares` is what each project uses already.
#[must_use]
pub fn place(queue: &[Waiting], fleet: &[Host], shares: &Shares) -> Decision {
    let mut fleet = fleet.to_vec();
    let mut shares = shares.clone();
    let mut left: Vec<&Waiting> = queue.iter().collect();
    let mut decision = Decision::default();
    while let Some(index) = next_in_line(&left, &shares) {
        let job = left.swap_remove(index);
        match best(job, &fleet) {
            Some((host, gpus)) => {
                book(&mut fleet[host], job, &gpus);
                *shares.entry(job.project.clone()).or_default() +=
                    weight(job.resources.cpu_millis, job.resources.gpus as usize);
                decision.placements.push(Placement {
                    job: job.job.clone(),
                    agent: fleet[host].agent.clone(),
                    gpus,
                });
            }
            None => {
                let why = reason::of(job, &fleet);
                decision.reasons.push((job.job.clone(), why));
            }
        }
    }
    decision
}

/// The index of the job whose turn it is.
fn next_in_line(left: &[&Waiting], shares: &Shares) -> Option<usize> {
    let rank = |index: usize| {
        let job = left[index];
        let share = shares.get(&job.project).copied().unwrap_or(0);
        (-job.priority, share, job.since, &job.job)
    };
    (0..left.len()).min_by_key(|&index| rank(index))
}

/// The best host that fits now, and the GPUs that the job gets there.
fn best(job: &Waiting, fleet: &[Host]) -> Option<(usize, Vec<String>)> {
    fleet
        .iter()
        .enumerate()
        .filter(|(_, host)| host.closed.is_none())
        .filter_map(|(index, host)| Some((index, host, fit(job, host)?)))
        .min_by_key(|(_, host, gpus)| cost(job, host, gpus))
        .map(|(index, _, gpus)| (index, gpus))
}

/// Lower is better: see the module's first words.
fn cost(job: &Waiting, host: &Host, gpus: &[String]) -> (bool, u64, usize, u64, AgentId) {
    let memory: u64 = host
        .gpus
        .iter()
        .filter(|gpu| gpus.contains(&gpu.uuid))
        .map(|gpu| gpu.memory)
        .sum();
    let whole = host.gpus.iter().filter(|gpu| usable(gpu)).count() - gpus.len();
    let cpu_left = host.cpu_free - job.resources.cpu_millis;
    (
        job.failed_on.contains(&host.agent),
        memory,
        whole,
        cpu_left,
        host.agent.clone(),
    )
}

fn usable(gpu: &HostGpu) -> bool {
    gpu.healthy && !gpu.booked
}

fn has_labels(job: &Waiting, host: &Host) -> bool {
    job.runs_on.iter().all(|label| host.labels.contains(label))
}

fn large_enough(job: &Waiting, gpu: &HostGpu) -> bool {
    job.resources
        .gpu_memory
        .is_none_or(|wanted| gpu.memory >= wanted.0)
}

/// The GPUs that a job would get on a host: the smallest that are large enough. None: it does not fit now.
fn fit(job: &Waiting, host: &Host) -> Option<Vec<String>> {
    let wanted = &job.resources;
    let fits = has_labels(job, host)
        && host.cpu_free >= wanted.cpu_millis
        && host.memory_free >= wanted.memory.0;
    if !fits {
        return None;
    }
    let mut gpus: Vec<&HostGpu> = host
        .gpus
        .iter()
        .filter(|gpu| usable(gpu) && large_enough(job, gpu))
        .collect();
    gpus.sort_by_key(|gpu| (gpu.memory, gpu.uuid.clone()));
    let count = wanted.gpus as usize;
    (gpus.len() >= count).then(|| gpus[..count].iter().map(|gpu| gpu.uuid.clone()).collect())
}

fn book(host: &mut Host, job: &Waiting, gpus: &[String]) {
    host.cpu_free -= job.resources.cpu_millis;
    host.memory_free -= job.resources.memory.0;
    for gpu in &mut host.gpus {
        gpu.booked |= gpus.contains(&gpu.uuid);
    }
}
