//! Rows as `schedule` wants them: the queue, the fleet, and what projects used.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use protocol::{AgentId, JobId, ProjectId, Span, Timestamp};

use super::recent::{WEEK, Warm};
use crate::schedule::{
    self, Booked, Demand, Group, Holder, Host, HostGpu, Project, Queue, Waiting as Waits,
};
use crate::state::Server;
use crate::store::agents::Agent;
use crate::store::attempts::Fate;
use crate::store::queue::{self, Booking, Used};
use crate::store::waiting::{Before, Queued, Waiting};
use crate::store::{Connection, Result, agents, projects};

/// So long a job is kept from a host where it failed by the platform, while others could take it.
const KEPT_FROM: Span = Span::secs(600);
/// What a project used counts half after this time.
const HALF_LIFE: Span = Span::hours(24);

/// What a pass looks at.
pub(super) struct Look {
    pub(super) now: Timestamp,
    /// All that waits; a part of it rests.
    pub(super) waiting: Waiting,
    /// Jobs that rest after a fault of the platform, of `waiting`, and the pause of each.
    pub(super) resting: Vec<(usize, Span)>,
    /// Its jobs name entries of `places`.
    pub(super) queue: Queue,
    /// For each job of `queue` its place in `waiting`.
    pub(super) places: Vec<usize>,
    pub(super) fleet: Vec<Host>,
}

/// Reads the rows; `waiting` has what waited at the last pass. None: nothing waits.
pub(super) async fn look(
    server: &Server,
    db: &mut Connection,
    mut waiting: Waiting,
    most: u32,
) -> Result<Option<Look>> {
    waiting.refresh(db, most).await?;
    if waiting.jobs.is_empty() {
        return Ok(None);
    }
    let now = Timestamp::now();
    let recent = &server.recent;
    let bookings = queue::bookings(db).await?;
    let used = recent.used(db, now).await?;
    let warm = recent.warm(db, now).await?;
    let names = names(&waiting);
    let running = bookings.iter().map(|b| (&b.project, b.job_name.as_str()));
    let usual = recent
        .usual(db, names.iter().flatten().copied().chain(running))
        .await?;
    let agents = agents::good(db).await?;
    let rows = projects::all(db).await?;
    let groups = queue::in_groups(db).await?;

    let ends: Vec<Timestamp> = bookings
        .iter()
        .map(|booking| {
            until(
                booking,
                usual.get(&(&booking.project, &booking.job_name)),
                now,
            )
        })
        .collect();
    let holders = holders(groups, &bookings, &ends);
    let fleet = hosts(server, &agents, &bookings, &ends);
    let projects = projects_of(&rows, &used, &bookings, &ends, now);
    let mut maker = Maker::new(&waiting, &names, &usual, &agents, &rows);
    maker.now = now;
    maker.holders = holders;
    maker.warm(&waiting, &warm);
    let (mut jobs, mut places, mut resting) = (Vec::new(), Vec::new(), Vec::new());
    for (place, job) in waiting.jobs.iter().enumerate() {
        if let Some(pause) = rest(server.config.retry_delay, &job.before, now) {
            resting.push((place, pause));
            continue;
        }
        if let Some(job) = maker.waits(job) {
            jobs.push(job);
            places.push(place);
        }
    }
    let queue = Queue {
        jobs,
        demands: waiting
            .demands
            .values()
            .map(|demand| named(demand.clone(), &rows))
            .collect(),
        projects,
        groups: maker.groups,
        warm: maker.hot,
    };
    Ok(Some(Look {
        now,
        resting,
        queue,
        places,
        fleet,
        waiting,
    }))
}

/// Project and name of jobs, by the number of the name; none: no job that waits has it any more.
fn names(waiting: &Waiting) -> Vec<Option<(&ProjectId, &str)>> {
    let mut names = vec![None; waiting.names.keys().len()];
    for job in &waiting.jobs {
        let (project, name) = waiting.names.key(job.name);
        names[job.name] = Some((project, name.as_str()));
    }
    names
}

/// A demand with its project's name in the place of its id.
pub(crate) fn named(mut demand: Demand, rows: &[projects::Project]) -> Demand {
    let named = rows.iter().find(|row| row.id.as_str() == demand.project);
    if let Some(row) = named {
        demand.project.clone_from(&row.name);
    }
    demand
}

/// The pause of a job whose last attempt ended by a fault that its agent reported: what was broken then is
/// perhaps broken for some seconds more. None: it is over.
fn rest(delay: Span, before: &[Before], now: Timestamp) -> Option<Span> {
    let last = before.last()?;
    if last.fate != Fate::Finished || last.evicted {
        return None;
    }
    let pause = Span(delay.0 * before.len() as u64);
    let finished = last.finished_at?;
    // What ended later than now ended before the clock went back, who knows when.
    (finished <= now && now.since(finished) < pause).then_some(pause)
}

/// Until when a job is kept from the host where it ended: no longer than now where that was no fault of the host, or nobody
/// knows when it was, since the clock went back.
fn kept_until(before: &Before, now: Timestamp) -> Timestamp {
    let fault = before
        .finished_at
        .filter(|at| !before.evicted && *at <= now);
    fault.map_or(now, |at| at + KEPT_FROM)
}

/// When an attempt will probably end. One that has overrun what is usual is expected to take a quarter more of
/// what it took, up to its time-out.
fn until(booking: &Booking, usual: Option<&Span>, now: Timestamp) -> Timestamp {
    let timeout = booking
        .timeout
        .unwrap_or(protocol::spec::Limits::default().timeout);
    let expected = booking.since + usual.copied().unwrap_or(timeout).min(timeout);
    if expected > now {
        return expected;
    }
    let took = now.since(booking.since);
    let longer = now + Span(took.0 / 4);
    longer.min((booking.since + timeout).max(now))
}

/// Makes rows what `schedule` knows of them.
#[derive(Default)]
struct Maker<'a> {
    /// By the number of a job's name: its project, of the queue.
    projects: Vec<Option<usize>>,
    /// By the number of a job's name: its project, and how long it usually takes.
    names: Vec<Option<(&'a ProjectId, Option<Span>)>>,
    /// The number of each agent's host.
    numbers: HashMap<&'a AgentId, usize>,
    holders: BTreeMap<(ProjectId, String), Holder>,
    groups: Vec<Group>,
    group_numbers: BTreeMap<(ProjectId, String), usize>,
    /// By the number of an environment: its number in `hot`, where a host has it.
    warm: Vec<Option<usize>>,
    hot: Vec<BTreeSet<usize>>,
    now: Timestamp,
}

impl<'a> Maker<'a> {
    fn new(
        waiting: &Waiting,
        names: &[Option<(&'a ProjectId, &'a str)>],
        usual: &HashMap<(&'a ProjectId, &'a str), Span>,
        agents: &'a [Agent],
        rows: &'a [projects::Project],
    ) -> Self {
        let numbers: HashMap<&ProjectId, usize> = rows.iter().map(|r| &r.id).zip(0..).collect();
        let of = |(project, _): &(ProjectId, String)| numbers.get(project).copied();
        let takes = |of: &(&'a ProjectId, &'a str)| (of.0, usual.get(of).copied());
        Self {
            projects: waiting.names.keys().map(of).collect(),
            names: names.iter().map(|of| of.as_ref().map(takes)).collect(),
            numbers: agents.iter().map(|agent| &agent.id).zip(0..).collect(),
            ..Self::default()
        }
    }

    /// Takes in which hosts have which environment.
    fn warm(&mut self, waiting: &Waiting, warm: &Warm) {
        for environment in waiting.environments.keys() {
            let agents = warm.get(environment.as_str());
            let hosts = agents.map(|agents| {
                let known = agents.iter().filter_map(|agent| self.numbers.get(agent));
                known.copied().collect()
            });
            self.warm.push(hosts.as_ref().map(|_| self.hot.len()));
            self.hot.extend(hosts);
        }
    }

    /// None: its project is gone.
    fn waits(&mut self, job: &Queued) -> Option<Waits> {
        let failed = job.before.iter().filter(|before| before.ended);
        let (project, usual) = self.names[job.name]?;
        Some(Waits {
            job: job.id.clone(),
            project: self.projects[job.name]?,
            demand: job.demand,
            environment: job.environment.and_then(|of| self.warm[of]),
            group: job
                .concurrency
                .as_ref()
                .map(|name| self.group(project, name)),
            priority: job.priority,
            since: job.created_at,
            expected: usual.unwrap_or(job.timeout).min(job.timeout),
            failed_on: failed
                .filter_map(|before| Some((self.number(before)?, kept_until(before, self.now))))
                .collect(),
        })
    }

    /// The number of the host where an attempt was.
    fn number(&self, before: &Before) -> Option<usize> {
        self.numbers.get(&before.agent).copied()
    }

    fn group(&mut self, project: &ProjectId, name: &str) -> usize {
        let key = (project.clone(), name.to_owned());
        let next = self.groups.len();
        let number = *self.group_numbers.entry(key.clone()).or_insert(next);
        if number == next {
            self.groups.push(Group {
                name: name.to_owned(),
                holder: self.holders.get(&key).cloned(),
            });
        }
        number
    }
}

/// The jobs of concurrency groups that have a host, and when they will probably end.
fn holders(
    groups: BTreeMap<(ProjectId, String), (JobId, String)>,
    bookings: &[Booking],
    ends: &[Timestamp],
) -> BTreeMap<(ProjectId, String), Holder> {
    let ends: HashMap<&JobId, Timestamp> = bookings
        .iter()
        .zip(ends)
        .map(|(booking, end)| (&booking.job, *end))
        .collect();
    let holder = |(job, name): (JobId, String)| Holder {
        until: ends.get(&job).copied(),
        job: name,
    };
    groups
        .into_iter()
        .map(|(group, held)| (group, holder(held)))
        .collect()
}

/// What each project used of late, and has.
fn projects_of(
    rows: &[projects::Project],
    used: &[Used],
    bookings: &[Booking],
    ends: &[Timestamp],
    now: Timestamp,
) -> Vec<Project> {
    let number: HashMap<&ProjectId, usize> = rows.iter().map(|row| &row.id).zip(0..).collect();
    let mut all: Vec<Project> = rows
        .iter()
        .map(|row| Project {
            name: row.name.clone(),
            quota: row.quota,
            ..Project::default()
        })
        .collect();
    for hour in used {
        let Some(project) = number.get(&hour.project).map(|n| &mut all[*n]) else {
            continue;
        };
        let age = now.since(hour.hour).0 as f64 / HALF_LIFE.0 as f64;
        let weight = hour.cpu_milli_ms as f64 + hour.gpu_ms as f64 * schedule::weight(0, 1) as f64;
        let decayed = weight / 1_000.0 * 0.5_f64.powf(age);
        project.used = project.used.saturating_add(decayed as u64);
        project.gpu_week = Span(project.gpu_week.0.saturating_add(hour.gpu_ms));
    }
    for (booking, end) in bookings.iter().zip(ends) {
        let Some(project) = number.get(&booking.project).map(|n| &mut all[*n]) else {
            continue;
        };
        let gpus = u32::try_from(booking.gpus.len()).unwrap_or(u32::MAX);
        let seconds = end.since(booking.since).0 / 1_000;
        let weight = schedule::weight(booking.cpu_millis, gpus).saturating_mul(seconds);
        project.used = project.used.saturating_add(weight);
        project.gpus = project.gpus.saturating_add(gpus);
        if gpus > 0 {
            project.gpu_ends.push((*end, gpus));
        }
        let so_far = now
            .since(booking.since)
            .0
            .min(WEEK.0)
            .saturating_mul(gpus.into());
        project.gpu_week = Span(project.gpu_week.0.saturating_add(so_far));
    }
    for (row, project) in rows.iter().zip(&mut all) {
        project.gpu_week_over = week_over(&row.id, project, used);
    }
    all
}

/// When the GPU time that a project used in seven days will be below its quota, by the hours that leave these days. None: it
/// is, or what runs now alone is more.
fn week_over(id: &ProjectId, project: &Project, used: &[Used]) -> Option<Timestamp> {
    let most = Span::hours(project.quota.gpu_hours?.into());
    if project.gpu_week < most {
        return None;
    }
    let mine = used.iter().filter(|hour| hour.project == *id);
    let mut hours: Vec<&Used> = mine.collect();
    hours.sort_by_key(|hour| hour.hour);
    let mut left = project.gpu_week.0;
    let enough = hours.into_iter().find(|hour| {
        left = left.saturating_sub(hour.gpu_ms);
        left < most.0
    })?;
    // Of what ended in an hour the last has left a week after the hour's end.
    Some(enough.hour + Span::hours(1) + WEEK)
}

fn hosts(server: &Server, agents: &[Agent], bookings: &[Booking], ends: &[Timestamp]) -> Vec<Host> {
    let mut by_agent: HashMap<&AgentId, Vec<(&Booking, Timestamp)>> = HashMap::new();
    for (booking, end) in bookings.iter().zip(ends) {
        by_agent
            .entry(&booking.agent)
            .or_default()
            .push((booking, *end));
    }
    let host = |agent: &Agent| {
        let mut host = empty_host(agent);
        host.closed = closed(server, agent);
        let mine = by_agent.get(&agent.id).map_or(&[][..], Vec::as_slice);
        host.bookings = mine
            .iter()
            .map(|(b, end)| booked(b, *end, &host.gpus))
            .collect();
        host
    };
    agents.iter().map(host).collect()
}

fn booked(booking: &Booking, until: Timestamp, gpus: &[HostGpu]) -> Booked {
    let place = |uuid: &String| gpus.iter().position(|gpu| gpu.uuid == *uuid);
    Booked {
        until,
        cpu_millis: booking.cpu_millis,
        memory: booking.memory,
        disk: booking.disk,
        gpus: booking.gpus.iter().filter_map(place).collect(),
    }
}

/// A host with nothing on it, open.
pub(crate) fn empty_host(agent: &Agent) -> Host {
    Host::empty(agent.id.clone(), agent.name.clone(), &agent.inventory)
}

fn closed(server: &Server, agent: &Agent) -> Option<String> {
    if let Some(by) = &agent.drained_by {
        return Some(format!("drained by {by}"));
    }
    match server.leases.unreported(&agent.id) {
        None => return Some("not heard of since the server started".to_owned()),
        Some(silence) if silence > server.config.unreachable_after.into() => {
            return Some(format!("not heard of for {}", Span::from(silence)));
        }
        Some(_) => {}
    }
    (!agent.accepting).then(|| agent.closed.clone().unwrap_or_else(|| "closed".to_owned()))
}

impl Look {
    /// The id of a job of the queue.
    pub(super) fn job(&self, number: usize) -> &JobId {
        &self.waiting.jobs[self.places[number]].id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_is_over_when_enough_has_left_it() {
        let id = ProjectId::generate();
        let hour = |at: u64, gpu_hours: u64| Used {
            project: id.clone(),
            hour: Timestamp(0) + Span::hours(at),
            gpu_ms: Span::hours(gpu_hours).0,
            cpu_milli_ms: 0,
        };
        let mut other = hour(1, 100);
        other.project = ProjectId::generate();
        let used = [hour(9, 4), hour(3, 2), other, hour(5, 4)];
        let over = |gpu_hours, used_in_all| {
            let project = Project {
                gpu_week: Span::hours(used_in_all),
                quota: protocol::api::Quota {
                    gpus: None,
                    gpu_hours,
                },
                ..Project::default()
            };
            week_over(&id, &project, &used)
        };
        let leaves = |at: u64| Some(Timestamp(0) + Span::hours(at + 1) + WEEK);
        assert_eq!(over(None, 10), None);
        assert_eq!(over(Some(11), 10), None, "it is not used up");
        assert_eq!(over(Some(10), 10), leaves(3));
        assert_eq!(over(Some(8), 10), leaves(5), "below, not at the quota");
        assert_eq!(over(Some(2), 14), None, "four are of what runs now");
    }

    #[test]
    fn a_job_rests_after_a_reported_fault_and_no_longer_where_the_clock_goes_back() {
        let before = |fate, evicted| Before {
            agent: AgentId::generate(),
            fate,
            finished_at: Some(Timestamp(100_000)),
            ended: true,
            evicted,
        };
        let rests = |before: &[Before], now| rest(Span::secs(10), before, Timestamp(now));
        let reported = [before(Fate::Lost, false), before(Fate::Finished, false)];
        assert_eq!(rests(&reported, 119_999), Some(Span::secs(20)));
        assert_eq!(rests(&reported, 120_000), None);
        assert_eq!(rests(&reported, 99_999), None, "the clock went back");
        assert_eq!(rests(&[before(Fate::Lost, false)], 100_001), None);
        assert_eq!(rests(&[before(Fate::Finished, true)], 100_001), None);
    }

    #[test]
    fn a_job_is_kept_from_a_host_after_a_fault_and_not_after_it_was_sent_away() {
        let ended = |at, evicted| Before {
            agent: AgentId::generate(),
            fate: Fate::Finished,
            finished_at: Some(Timestamp(at)),
            ended: true,
            evicted,
        };
        let now = Timestamp(100_000);
        let until = |at, evicted| kept_until(&ended(at, evicted), now);
        assert_eq!(until(90_000, false), Timestamp(90_000) + KEPT_FROM);
        assert_eq!(until(90_000, true), now);
        assert_eq!(until(100_001, false), now, "the clock went back");
    }
}
