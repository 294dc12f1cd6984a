//! Who gets what: `place` looks at the queue and the fleet and says where each job goes, and of each job
//! that stays, why, and when it may be its turn. Pure: no clock, no IO, no store; the same input gives the
//! same answer, in whatever order it comes.
//!
//! Order (`line`): priority, then the project that used least, then age. Fit (`demand`): labels, volumes, CUDA,
//! CPUs, memory, disk, and GPUs by model, memory, compute capability, MIG profile and NVLink, all on one host.
//! Among hosts that fit (`fleet`): one that has not failed the job before, then the smallest GPUs that satisfy,
//! then the one that keeps fewest GPUs free, then one that has the environment, then the fullest.
//! Who does not fit gets a host reserved (`hold`) from the time when it will, and only jobs that are expected to
//! end earlier, or leave what is reserved alone, pass it.
//!
//! Equal demands are one class: what does not fit once fits no more in this pass, and is said once.

mod demand;
mod fleet;
mod here;
mod hold;
mod line;
#[cfg(test)]
mod properties;
mod reason;
mod room;
#[cfg(test)]
mod stories;
mod turns;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use protocol::api::Quota;
use protocol::hardware::{Gpu, GpuHealth, GpuKind, Inventory, VolumeGrant};
use protocol::{AgentId, JobId, Span, Timestamp};

pub use demand::Demand;
use fleet::{Class, Fleet, Stuck};
pub use here::{Lacking, gpus_here};
use line::{Line, Turn};
pub(crate) use reason::clock;
pub use reason::impossible;
use turns::{GpuTurns, GroupTurns};

/// Most hosts that are reserved at a time.
pub const MOST_RESERVED: usize = 32;

/// A job that waits for a host. Numbers name entries of its [`Queue`] and of the fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// The job.
    pub job: JobId,
    /// Its project, of [`Queue::projects`].
    pub project: usize,
    /// What it needs, of [`Queue::demands`].
    pub demand: usize,
    /// Its environment, of [`Queue::warm`].
    pub environment: Option<usize>,
    /// Its concurrency group, of [`Queue::groups`].
    pub group: Option<usize>,
    /// Higher goes first.
    pub priority: i64,
    /// Since when it waits.
    pub since: Timestamp,
    /// How long it will probably run.
    pub expected: Span,
    /// Hosts where it failed by the platform: others go first. Until then it is kept from each, where that is to come: an idle
    /// host that cannot run it would use up its tries while others are busy.
    pub failed_on: Vec<(usize, Timestamp)>,
}

/// A project that has jobs in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Project {
    /// Its name, for people.
    pub name: String,
    /// What it used of late and what runs of it will use: [`weight`] times seconds.
    pub used: u64,
    /// GPUs that it has now.
    pub gpus: u32,
    /// When they will probably come back, and how many then.
    pub gpu_ends: Vec<(Timestamp, u32)>,
    /// GPU time that it used in the last seven days.
    pub gpu_week: Span,
    /// When that will be below the quota, if nothing more is used; none: it is, or nobody can say.
    pub gpu_week_over: Option<Timestamp>,
    /// What it may use.
    pub quota: Quota,
}

/// A concurrency group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its job that has a host now.
    pub holder: Option<Holder>,
}

/// The job of a concurrency group that has a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub job: String,
    /// When it will probably end; none: nobody can say.
    pub until: Option<Timestamp>,
}

/// Everything that waits, with what jobs have in common kept once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Queue {
    /// The jobs.
    pub jobs: Vec<Waiting>,
    /// What they need.
    pub demands: Vec<Demand>,
    /// Whose they are.
    pub projects: Vec<Project>,
    /// Of which only one runs at a time.
    pub groups: Vec<Group>,
    /// For each environment the hosts that have it.
    pub warm: Vec<BTreeSet<usize>>,
}

/// A host and what on it is taken.
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
    /// Its volumes, and who may mount them.
    pub volumes: BTreeMap<String, VolumeGrant>,
    /// The highest CUDA version that its driver runs.
    pub cuda: Option<String>,
    /// CPUs that jobs may use, in thousandths.
    pub cpu_millis: u64,
    /// Memory that jobs may use, in bytes.
    pub memory: u64,
    /// Its disk, in bytes: what a job could ever have of it.
    pub disk: u64,
    /// What of the disk jobs may have at once as it is now, in bytes, with what those have that run.
    pub disk_room: u64,
    /// Devices that a job can have: whole GPUs and slices. The first 128 by UUID count.
    pub gpus: Vec<HostGpu>,
    /// What is taken, and for how long.
    pub bookings: Vec<Booked>,
}

/// A GPU of a host, or a slice of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostGpu {
    /// Its UUID.
    pub uuid: String,
    /// NVML's name of its model.
    pub model: String,
    /// Its memory in bytes.
    pub memory: u64,
    /// Its compute capability, such as `9.0`.
    pub compute_capability: String,
    /// Of a slice: its MIG profile.
    pub profile: Option<String>,
    /// GPUs of a host with the same number reach each other by NVLink.
    pub nvlink: Option<u32>,
    /// What keeps jobs from it, in words: in use outside, quarantined or lost. A loan is none: it has an end.
    pub trouble: Option<String>,
    /// Whom it is lent to, and until when: then jobs have it again.
    pub lent: Option<Lent>,
}

/// A GPU is lent to a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lent {
    /// Until when.
    pub until: Timestamp,
    /// Whom.
    pub by: String,
}

impl Host {
    /// A host with nothing on it, open.
    #[must_use]
    pub fn empty(agent: AgentId, name: String, inventory: &Inventory) -> Self {
        let grants = &inventory.volume_grants;
        let grant = |name: &String| grants.get(name).cloned().unwrap_or_default();
        let names = inventory.volumes.keys();
        Self {
            agent,
            name,
            closed: None,
            labels: inventory.labels.iter().cloned().collect(),
            volumes: names.map(|name| (name.clone(), grant(name))).collect(),
            cuda: inventory.driver.as_ref().map(|driver| driver.cuda.clone()),
            cpu_millis: inventory.cpu_millis,
            memory: inventory.memory.0,
            disk: inventory.disk.0,
            disk_room: inventory.disk_room.unwrap_or(inventory.disk).0,
            gpus: inventory.gpus.iter().filter_map(HostGpu::of).collect(),
            bookings: Vec::new(),
        }
    }
}

impl HostGpu {
    /// A GPU as a job can have it; one in MIG mode is none, its slices are.
    fn of(gpu: &Gpu) -> Option<Self> {
        let profile = match &gpu.kind {
            GpuKind::Whole => None,
            GpuKind::Sliced => return None,
            GpuKind::Slice { profile, .. } => Some(profile.clone()),
        };
        Some(Self {
            uuid: gpu.uuid.clone(),
            model: gpu.model.clone(),
            memory: gpu.memory.0,
            compute_capability: gpu.compute_capability.clone(),
            profile,
            nvlink: gpu.nvlink_group,
            trouble: match &gpu.health {
                GpuHealth::Healthy | GpuHealth::Reserved { .. } => None,
                GpuHealth::InUseOutside { by } => Some(format!("in use by {by}")),
                GpuHealth::Quarantined { reason } => Some(format!("in quarantine: {reason}")),
                GpuHealth::Lost { error } => Some(format!("lost: {error}")),
            },
            lent: match &gpu.health {
                GpuHealth::Reserved { by, until } => Some(Lent {
                    until: *until,
                    by: by.clone(),
                }),
                GpuHealth::Healthy
                | GpuHealth::InUseOutside { .. }
                | GpuHealth::Quarantined { .. }
                | GpuHealth::Lost { .. } => None,
            },
        })
    }
}

/// What an attempt has on a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Booked {
    /// When it will probably end.
    pub until: Timestamp,
    /// CPUs, in thousandths.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Disk in bytes.
    pub disk: u64,
    /// Of [`Host::gpus`].
    pub gpus: Vec<usize>,
}

/// Where a job goes. Numbers are places in what [`place`] was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The job.
    pub job: usize,
    /// The host that gets it.
    pub host: usize,
    /// The host's GPUs that it gets.
    pub gpus: Vec<usize>,
}

/// A job that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// The job.
    pub job: usize,
    /// Why, of [`Decision::reasons`].
    pub reason: usize,
    /// When it will probably start; none: nobody can say.
    pub expected: Option<Timestamp>,
}

/// What is kept for a job that does not fit yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// From when.
    pub at: Timestamp,
    /// For whom and where.
    pub place: Placement,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Jobs that go, in the order of their turns.
    pub placements: Vec<Placement>,
    /// Jobs that stay, in the order of their turns.
    pub left: Vec<Left>,
    /// Why, in one sentence a person can act on.
    pub reasons: Vec<String>,
    /// What is reserved.
    pub reserved: Vec<Reservation>,
}

/// One GPU weighs as much as so many thousandths of a CPU in what a project uses.
const GPU_WEIGHT: u64 = 16_000;

/// The weight of what a job uses.
#[must_use]
pub fn weight(cpu_millis: u64, gpus: u32) -> u64 {
    cpu_millis + u64::from(gpus) * GPU_WEIGHT
}

/// Decides.
#[must_use]
pub fn place(queue: &Queue, fleet: &[Host], now: Timestamp) -> Decision {
    let fleet = Fleet::new(fleet, now);
    let mut pass = Pass {
        queue,
        classes: queue.demands.iter().map(|_| None).collect(),
        gpus: queue.projects.iter().map(|project| project.gpus).collect(),
        gpu_turns: queue.projects.iter().map(|_| None).collect(),
        groups: queue
            .groups
            .iter()
            .map(|group| GroupTurns::new(group, now))
            .collect(),
        fleet,
        decision: Decision {
            left: Vec::with_capacity(queue.jobs.len()),
            ..Decision::default()
        },
        reasons: BTreeMap::new(),
    };
    let mut line = Line::new(queue);
    while let Some(turn) = line.next() {
        if pass.consider(&turn) {
            let wants = &queue.demands[turn.demand()].resources;
            let seconds = turn.expected.0 / 1_000;
            line.charge(weight(wants.cpu_millis, wants.gpus).saturating_mul(seconds.max(1)));
        }
    }
    pass.finish()
}

/// Why a job stays; equal whys are one sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// No host has room for this demand now, or ever.
    Room(usize),
    /// Its project has as many GPUs as it may have at once.
    Gpus(usize, u32),
    /// Its project used as many GPU-hours as it may in a week.
    Hours(usize),
    /// Another job of its concurrency group has a host.
    Group(usize),
    /// It failed a moment ago on the host of this room, and no other has room.
    Failed(usize, Timestamp),
}

struct Pass<'a> {
    queue: &'a Queue,
    fleet: Fleet<'a>,
    /// By demand, made when the first job of it has its turn.
    classes: Vec<Option<Class>>,
    /// GPUs that each project has.
    gpus: Vec<u32>,
    /// When jobs that its quota keeps back have their turns; made when the first one is.
    gpu_turns: Vec<Option<GpuTurns>>,
    groups: Vec<GroupTurns>,
    decision: Decision,
    reasons: BTreeMap<Why, usize>,
}

impl Pass<'_> {
    /// A job's turn: true where it goes.
    fn consider(&mut self, turn: &Turn) -> bool {
        let number = turn.number();
        if let Some((why, start)) = self.barred(turn) {
            self.leave(number, why, start);
            return false;
        }
        let demand = &self.queue.demands[turn.demand()];
        let class = match &mut self.classes[turn.demand()] {
            Some(class) => class,
            none => none.insert(self.fleet.class(demand)),
        };
        let expected = rounded_up(turn.expected);
        let mut found = None;
        if !class.is_known_to_wait(expected) {
            let failed_on = match turn.failed {
                true => self.queue.jobs[number].failed_on.as_slice(),
                false => &[],
            };
            let warm = turn.environment().map(|of| &self.queue.warm[of]);
            match self.fleet.search(class, expected, failed_on, warm) {
                Ok(room) => found = Some(room),
                Err(Stuck::Failed(room, until)) => {
                    self.leave(number, Why::Failed(room, until), Some(until));
                    return false;
                }
                Err(Stuck::Full(kept)) => {
                    class.note_waits(expected, kept);
                    self.fleet.reserve(class, number);
                }
            }
        }
        let Some((room, gpus)) = found else {
            let start = self.fleet.expected_start(class, number, turn.expected);
            self.leave(number, Why::Room(turn.demand()), start);
            return false;
        };
        let placement = self.fleet.book(class, room, gpus, expected, number);
        self.decision.placements.push(placement);
        self.began(turn, demand.resources.gpus);
        true
    }

    /// Counts a job that goes against its project's quota and its group.
    fn began(&mut self, turn: &Turn, gpus: u32) {
        let until = self.fleet.now + turn.expected;
        self.gpus[turn.project()] += gpus;
        if gpus > 0 && self.queue.projects[turn.project()].quota.gpus.is_some() {
            self.gpu_turns(turn.project()).take(gpus, until);
        }
        if let Some(group) = turn.group() {
            self.groups[group].take(until);
        }
    }

    fn gpu_turns(&mut self, project: usize) -> &mut GpuTurns {
        let new = || GpuTurns::new(&self.queue.projects[project], self.fleet.now);
        self.gpu_turns[project].get_or_insert_with(new)
    }

    /// What keeps a job back, whatever the hosts have, and when that will be over.
    fn barred(&mut self, job: &Turn) -> Option<(Why, Option<Timestamp>)> {
        let project = &self.queue.projects[job.project()];
        let wanted = self.queue.demands[job.demand()].resources.gpus;
        if let Some(group) = job.group()
            && self.groups[group].holder.is_some()
        {
            let start = self.groups[group].next(job.expected);
            return Some((Why::Group(group), start));
        }
        if wanted == 0 {
            return None;
        }
        if let Some(most) = project.quota.gpus
            && self.gpus[job.project()].saturating_add(wanted) > most
        {
            let turns = self.gpu_turns(job.project());
            let start = turns.next(wanted, most, job.expected);
            return Some((Why::Gpus(job.project(), wanted), start));
        }
        let hours = project.quota.gpu_hours;
        hours
            .is_some_and(|hours| project.gpu_week >= Span::hours(hours.into()))
            .then_some((Why::Hours(job.project()), project.gpu_week_over))
    }

    fn leave(&mut self, job: usize, why: Why, expected: Option<Timestamp>) {
        let next = self.reasons.len();
        let reason = *self.reasons.entry(why).or_insert(next);
        self.decision.left.push(Left {
            job,
            reason,
            expected,
        });
    }

    fn finish(mut self) -> Decision {
        let mut reasons = vec![String::new(); self.reasons.len()];
        for (why, index) in &self.reasons {
            reasons[*index] = match *why {
                Why::Room(demand) => {
                    let class = self.classes[demand].as_ref();
                    let demand = &self.queue.demands[demand];
                    class.map_or_else(String::new, |class| reason::of(demand, class, &self.fleet))
                }
                Why::Gpus(project, wanted) => {
                    let has = self.gpus[project];
                    reason::of_gpus(&self.queue.projects[project], has, wanted)
                }
                Why::Failed(room, until) => reason::of_failed(&self.fleet, room, until),
                Why::Hours(project) => reason::of_hours(&self.queue.projects[project]),
                Why::Group(group) => reason::of_group(
                    &self.queue.groups[group],
                    self.groups[group].holder.as_deref().unwrap_or_default(),
                ),
            };
        }
        self.decision.reasons = reasons;
        self.decision.reserved = self.fleet.reservations();
        self.decision
    }
}

/// An expected time, rounded up by at most a quarter: so many fewer different ones are tried in vain.
fn rounded_up(expected: Span) -> Span {
    let bits = u64::BITS - expected.0.leading_zeros();
    let step = 1_u64 << bits.saturating_sub(3);
    Span(expected.0.div_ceil(step).saturating_mul(step))
}
