//! The fleet as a pass works on it: rooms in an index, so that the host for a job is found without looking
//! at each. What is given goes from here at once; nothing comes back within a pass.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use protocol::hardware::VolumeGrant;
use protocol::{Span, Timestamp};

use super::hold::End;
use super::room::{Amount, Fit, Gang, Mask, Room};
use super::view::{View, Views};
use super::{Host, HostGpu, Placement};

/// Jobs with one demand.
pub(super) struct Class {
    pub(super) need: Amount,
    pub(super) count: u32,
    pub(super) nvlink: bool,
    pub(super) view: Rc<View>,
    /// How many of its jobs fit into the open hosts at once.
    pub(super) slots: u64,
    /// The least expected time of a job that did not fit; what is expected to run as long fits no more.
    waits: Option<Span>,
    /// A room that would have fitted, but is kept for another.
    pub(super) kept: Option<usize>,
    /// When there will be room for the first of it.
    pub(super) room_at: Option<Timestamp>,
    /// Expected times of its jobs that wait, summed.
    pub(super) ahead: Span,
}

impl Class {
    pub(super) fn new(need: Amount, count: u32, nvlink: bool, view: Rc<View>, slots: u64) -> Self {
        Self {
            need,
            count,
            nvlink,
            view,
            slots,
            waits: None,
            kept: None,
            room_at: None,
            ahead: Span(0),
        }
    }

    pub(super) fn gang(&self) -> Gang<'_> {
        Gang {
            kinds: &self.view.kinds,
            count: self.count,
            nvlink: self.nvlink,
        }
    }

    pub(super) fn is_known_to_wait(&self, expected: Span) -> bool {
        self.waits.is_some_and(|least| least <= expected)
    }

    /// A search was in vain. Where nothing was kept from it, a shorter job would not have fitted either.
    pub(super) fn note_waits(&mut self, expected: Span, kept: Option<usize>) {
        let least = if kept.is_some() { expected } else { Span(0) };
        self.waits = Some(self.waits.unwrap_or(least).min(least));
        self.kept = kept.or(self.kept);
    }
}

/// Open hosts with the same kinds and numbers of devices.
pub(super) struct Pool {
    pub(super) kinds: Vec<(usize, u32)>,
    /// By the number of free devices: free CPUs and room.
    levels: Vec<BTreeSet<(u64, usize)>>,
}

/// What a choice costs; the least wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    gpu_memory: u64,
    free_gpus: u32,
    cold: bool,
    free_cpu: u64,
    room: usize,
}

/// All hosts.
pub(super) struct Fleet<'a> {
    pub(super) now: Timestamp,
    /// By agent.
    pub(super) rooms: Vec<Room<'a>>,
    /// The room of each host.
    rank: Vec<usize>,
    /// A GPU of each kind.
    pub(super) kinds: Vec<&'a HostGpu>,
    /// Rooms of each sort.
    pub(super) sorts: Vec<Vec<usize>>,
    /// How many of them are open.
    pub(super) open_of_sort: Vec<u64>,
    pub(super) pools: Vec<Pool>,
    pub(super) views: Views,
    /// Rooms that are held, and for which jobs.
    pub(super) held: Vec<(usize, usize)>,
}

type SortKey<'a> = (
    &'a BTreeSet<String>,
    &'a BTreeMap<String, VolumeGrant>,
    Option<&'a str>,
    [u64; 3],
    Vec<(usize, Option<u32>)>,
);

impl<'a> Fleet<'a> {
    pub(super) fn new(hosts: &'a [Host], now: Timestamp) -> Self {
        let mut by_agent: Vec<usize> = (0..hosts.len()).collect();
        by_agent.sort_by(|a, b| hosts[*a].agent.cmp(&hosts[*b].agent));
        let kinds = kinds(hosts);
        let mut fleet = Self {
            now,
            rooms: Vec::with_capacity(hosts.len()),
            rank: vec![0; hosts.len()],
            kinds: kinds.keys().map(|kind| kind.4).collect(),
            sorts: Vec::new(),
            open_of_sort: Vec::new(),
            pools: Vec::new(),
            views: Views::default(),
            held: Vec::new(),
        };
        let kind_of = |gpu: &'a HostGpu| kinds[&Kind::of(gpu)];
        let (mut sorts, mut pools) = (BTreeMap::new(), BTreeMap::new());
        for (rank, index) in by_agent.into_iter().enumerate() {
            let host = &hosts[index];
            let mut room = Room::new(host, index, &kind_of, now);
            let next = sorts.len();
            room.sort = *sorts.entry(sort_key(host, &kind_of)).or_insert(next);
            if room.sort == fleet.sorts.len() {
                fleet.sorts.push(Vec::new());
                fleet.open_of_sort.push(0);
            }
            fleet.sorts[room.sort].push(rank);
            fleet.open_of_sort[room.sort] += u64::from(host.closed.is_none());
            let numbers: Vec<_> = room
                .kinds
                .iter()
                .map(|(k, m)| (*k, m.count_ones()))
                .collect();
            let next = pools.len();
            room.pool = *pools.entry(numbers.clone()).or_insert(next);
            if room.pool == fleet.pools.len() {
                let all: u32 = numbers.iter().map(|(_, number)| number).sum();
                fleet.pools.push(Pool {
                    kinds: numbers,
                    levels: vec![BTreeSet::new(); all as usize + 1],
                });
            }
            fleet.rank[index] = rank;
            fleet.rooms.push(room);
            fleet.note(rank);
        }
        fleet
    }

    /// Puts a room into the index.
    fn note(&mut self, rank: usize) {
        let room = &self.rooms[rank];
        if room.host.closed.is_none() {
            let level = room.free_gpus.count_ones() as usize;
            self.pools[room.pool].levels[level].insert((room.free.cpu, rank));
        }
    }

    fn forget(&mut self, rank: usize) {
        let room = &self.rooms[rank];
        let level = room.free_gpus.count_ones() as usize;
        self.pools[room.pool].levels[level].remove(&(room.free.cpu, rank));
    }

    /// The best room for a job that is expected to run so long and failed on these hosts, and the devices that it gets there.
    ///
    /// # Errors
    /// [`Stuck`]
    pub(super) fn search(
        &self,
        class: &Class,
        expected: Span,
        failed_on: &[(usize, Timestamp)],
        warm: Option<&BTreeSet<usize>>,
    ) -> Result<(usize, Mask), Stuck> {
        let search = Search {
            fleet: self,
            class,
            expected,
            warm,
            kept: Cell::new(None),
        };
        if failed_on.is_empty() {
            let found = search.best(&|_| true);
            return found.ok_or(Stuck::Full(search.kept.get()));
        }
        let of = |room: usize| {
            let host = self.rooms[room].index;
            failed_on.iter().filter(move |(on, _)| *on == host)
        };
        let until = |room: usize| of(room).map(|(_, until)| *until).max();
        let barred = |room: usize| until(room).is_some_and(|until| until > self.now);
        let found = search.best(&|room| of(room).next().is_none());
        if let Some(found) = found.or_else(|| search.best(&|room| !barred(room))) {
            return Ok(found);
        }
        let Some((room, gpus)) = search.best(&barred) else {
            return Err(Stuck::Full(search.kept.get()));
        };
        match until(room) {
            // Where it is kept from all that could ever take it, waiting for another is in vain.
            Some(until) if class.view.open.iter().any(|room| !barred(*room)) => {
                Err(Stuck::Failed(room, until))
            }
            Some(_) | None => Ok((room, gpus)),
        }
    }

    /// Gives a room's devices to a job.
    pub(super) fn book(
        &mut self,
        class: &Class,
        rank: usize,
        gpus: Mask,
        expected: Span,
        job: usize,
    ) -> Placement {
        self.forget(rank);
        let until = self.now + expected;
        let room = &mut self.rooms[rank];
        room.free.take(&class.need);
        room.free_gpus &= !gpus;
        if let Some(hold) = &mut room.hold
            && until > hold.at
        {
            hold.spare.take(&class.need);
        }
        let end = End {
            at: until,
            amount: class.need,
            gpus,
        };
        let place = room.ends.partition_point(|other| other.at <= until);
        room.ends.insert(place, end);
        let placement = room.placement(job, gpus);
        self.note(rank);
        placement
    }
}

/// Why a job goes nowhere now.
pub(super) enum Stuck {
    /// No room fits; with one that would, were it not kept for another.
    Full(Option<usize>),
    /// Only this room fits, from whose host the job is kept so long.
    Failed(usize, Timestamp),
}

/// What a search has in its hand.
struct Search<'f, 'a> {
    fleet: &'f Fleet<'a>,
    class: &'f Class,
    expected: Span,
    warm: Option<&'f BTreeSet<usize>>,
    /// A room that fits, but is kept for another.
    kept: Cell<Option<usize>>,
}

impl Search<'_, '_> {
    fn best(&self, allowed: &dyn Fn(usize) -> bool) -> Option<(usize, Mask)> {
        let mut best: Option<(Cost, Mask)> = None;
        for (least, pool) in &self.class.view.pools {
            if best.is_some_and(|(cost, _)| cost.gpu_memory < *least) {
                break;
            }
            let found = self.in_pool(*least, &self.fleet.pools[*pool], allowed);
            best = best.into_iter().chain(found).min_by_key(|(cost, _)| *cost);
        }
        best.map(|(cost, gpus)| (cost.room, gpus))
    }

    fn in_pool(
        &self,
        least: u64,
        pool: &Pool,
        allowed: &dyn Fn(usize) -> bool,
    ) -> Option<(Cost, Mask)> {
        // Where all devices are of one kind the first that fits is the best, but for a warm one.
        let alike = pool.kinds.len() < 2 || self.class.count == 0;
        let mut best: Option<(Cost, Mask)> = None;
        for level in pool.levels.iter().skip(self.class.count as usize) {
            let mut fitting = level
                .range((self.class.need.cpu, 0)..)
                .filter(|(_, room)| allowed(*room))
                .filter_map(|(_, room)| self.cost(*room, least));
            let first = match alike {
                true => fitting.next(),
                false => fitting.min_by_key(|(cost, _)| *cost),
            };
            best = best.into_iter().chain(first).min_by_key(|(cost, _)| *cost);
            if alike && best.is_some() {
                break;
            }
        }
        let cold = best.map(|(cost, _)| cost);
        match cold.filter(|cost| alike && cost.cold) {
            Some(cold) => self.warm_instead(cold, least, allowed).or(best),
            None => best,
        }
    }

    /// A room that has the environment and costs no more otherwise.
    fn warm_instead(
        &self,
        cold: Cost,
        least: u64,
        allowed: &dyn Fn(usize) -> bool,
    ) -> Option<(Cost, Mask)> {
        let pool = self.fleet.rooms[cold.room].pool;
        let rooms = self.warm?.iter().map(|host| self.fleet.rank[*host]);
        rooms
            .filter(|room| {
                let room = &self.fleet.rooms[*room];
                room.pool == pool && room.host.closed.is_none()
            })
            .filter(|room| allowed(*room))
            .filter_map(|room| self.cost(room, least))
            .filter(|(cost, _)| *cost < cold)
            .min_by_key(|(cost, _)| *cost)
    }

    /// What a room costs; none: it does not fit now.
    fn cost(&self, rank: usize, least: u64) -> Option<(Cost, Mask)> {
        let room = &self.fleet.rooms[rank];
        if !self.class.view.sorts[room.sort] {
            return None;
        }
        let gpus = match room.fits(self.class, self.fleet.now + self.expected) {
            Fit::Now(gpus) => gpus,
            Fit::Kept => {
                self.kept.set(Some(rank));
                return None;
            }
            Fit::Not => return None,
        };
        let memory = match self.class.count {
            0 => least,
            _ => self.fleet.memory(room, gpus),
        };
        let cost = Cost {
            gpu_memory: memory,
            free_gpus: (room.free_gpus & !gpus).count_ones(),
            cold: !self.warm.is_some_and(|warm| warm.contains(&room.index)),
            free_cpu: room.free.cpu,
            room: rank,
        };
        Some((cost, gpus))
    }
}

impl Fleet<'_> {
    fn memory(&self, room: &Room<'_>, gpus: Mask) -> u64 {
        let of = |(kind, mask): &(usize, Mask)| {
            let count = u64::from((mask & gpus).count_ones());
            count * self.kinds[*kind].memory
        };
        room.kinds.iter().map(of).sum()
    }
}

/// What makes GPUs the same to every demand; those with least memory come first.
#[derive(Debug, Clone, Copy)]
struct Kind<'a>(u64, &'a str, &'a str, Option<&'a str>, &'a HostGpu);

impl<'a> Kind<'a> {
    fn of(gpu: &'a HostGpu) -> Self {
        Self(
            gpu.memory,
            &gpu.model,
            &gpu.compute_capability,
            gpu.profile.as_deref(),
            gpu,
        )
    }

    fn key(&self) -> (u64, &'a str, &'a str, Option<&'a str>) {
        (self.0, self.1, self.2, self.3)
    }
}

impl PartialEq for Kind<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Kind<'_> {}
impl PartialOrd for Kind<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Kind<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

fn kinds(hosts: &[Host]) -> BTreeMap<Kind<'_>, usize> {
    let all: BTreeSet<Kind<'_>> = hosts
        .iter()
        .flat_map(|host| host.gpus.iter().map(Kind::of))
        .collect();
    all.into_iter().zip(0..).collect()
}

fn sort_key<'a>(host: &'a Host, kind_of: &dyn Fn(&'a HostGpu) -> usize) -> SortKey<'a> {
    let mut gpus: Vec<_> = host.gpus.iter().map(|g| (kind_of(g), g.nvlink)).collect();
    gpus.sort_unstable();
    (
        &host.labels,
        &host.volumes,
        host.cuda.as_deref(),
        [host.cpu_millis, host.memory, host.disk],
        gpus,
    )
}
