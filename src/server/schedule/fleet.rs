//! The fleet as a pass works on it: rooms in an index, so that the host for a job is found without looking
//! at each. What is given goes from here at once; nothing comes back within a pass.

use std::collections::{BTreeMap, BTreeSet};

use protocol::hardware::VolumeGrant;
use protocol::{Span, Timestamp};

use super::demand::Demand;
use super::hold::{End, Hold};
use super::{Host, HostGpu, Placement};

/// Devices of a host, a bit for each.
pub(super) type Mask = u128;
/// Who has overrun what was expected is expected to take so much more.
const OVERDUE: Span = Span::secs(60);

/// CPUs in thousandths, memory and disk in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Amount {
    pub(super) cpu: u64,
    pub(super) memory: u64,
    pub(super) disk: u64,
}

impl Amount {
    pub(super) fn within(&self, other: &Self) -> bool {
        self.cpu <= other.cpu && self.memory <= other.memory && self.disk <= other.disk
    }

    pub(super) fn take(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_sub(other.cpu);
        self.memory = self.memory.saturating_sub(other.memory);
        self.disk = self.disk.saturating_sub(other.disk);
    }

    pub(super) fn give(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.disk = self.disk.saturating_add(other.disk);
    }

    /// How many of `each` fit at once.
    fn times(&self, each: &Self) -> u64 {
        let of = |all: u64, one: u64| all.checked_div(one).unwrap_or(u64::MAX);
        let memory = of(self.memory, each.memory).min(of(self.disk, each.disk));
        of(self.cpu, each.cpu).min(memory)
    }
}

/// A host.
pub(super) struct Room<'a> {
    pub(super) host: &'a Host,
    /// Its place in the fleet as it was given.
    pub(super) index: usize,
    /// Hosts of one sort are alike when they are empty.
    pub(super) sort: usize,
    pool: usize,
    /// For each bit the GPU, by UUID.
    order: Vec<usize>,
    /// Devices by kind, those with least memory first.
    kinds: Vec<(usize, Mask)>,
    /// Devices that reach each other by NVLink.
    links: Vec<Mask>,
    pub(super) healthy: Mask,
    pub(super) free: Amount,
    /// Healthy devices that nobody has.
    pub(super) free_gpus: Mask,
    /// When what is taken comes back, in that order.
    pub(super) ends: Vec<End>,
    pub(super) hold: Option<Hold>,
}

/// Jobs with one demand.
pub(super) struct Class {
    pub(super) need: Amount,
    pub(super) count: u32,
    pub(super) nvlink: bool,
    /// Kinds of device that will do.
    kinds: Vec<bool>,
    /// Sorts of host that will do when they are empty.
    pub(super) sorts: Vec<bool>,
    /// Pools of hosts to look in, the one with the smallest GPUs first, with what these weigh.
    pools: Vec<(u64, usize)>,
    /// How many of its jobs fit into the open hosts at once.
    pub(super) slots: u64,
    /// The least expected time of a job that did not fit; what is expected to run as long fits no more.
    waits: Option<Span>,
    /// When there will be room for the first of it.
    pub(super) room_at: Option<Timestamp>,
    /// Expected times of its jobs that wait, summed.
    pub(super) ahead: Span,
}

impl Class {
    pub(super) fn is_known_to_wait(&self, expected: Span) -> bool {
        self.waits.is_some_and(|least| least <= expected)
    }

    pub(super) fn note_waits(&mut self, expected: Span) {
        let least = self.waits.unwrap_or(expected);
        self.waits = Some(least.min(expected));
    }
}

/// Open hosts with the same kinds and numbers of devices.
struct Pool {
    kinds: Vec<(usize, u32)>,
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
    kinds: Vec<&'a HostGpu>,
    /// Rooms of each sort.
    pub(super) sorts: Vec<Vec<usize>>,
    pools: Vec<Pool>,
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
            pools: Vec::new(),
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
            }
            fleet.sorts[room.sort].push(rank);
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

    /// What a demand means for this fleet.
    pub(super) fn class(&self, demand: &Demand) -> Class {
        let wants = &demand.resources;
        let kinds: Vec<bool> = match wants.gpus {
            0 => vec![false; self.kinds.len()],
            _ => self.kinds.iter().map(|gpu| demand.admits(gpu)).collect(),
        };
        let mut class = Class {
            need: Amount {
                cpu: wants.cpu_millis,
                memory: wants.memory.0,
                disk: wants.disk.unwrap_or_default().0,
            },
            count: wants.gpus,
            nvlink: wants.nvlink && wants.gpus > 1,
            sorts: Vec::new(),
            pools: self.pools_for(wants.gpus, &kinds),
            kinds,
            slots: 0,
            waits: None,
            room_at: None,
            ahead: Span(0),
        };
        let will_do = |rooms: &Vec<usize>| {
            let room = &self.rooms[rooms[0]];
            demand.lack_beside_gpus(room.host).is_none() && room.pick(&class, Mask::MAX).is_some()
        };
        class.sorts = self.sorts.iter().map(will_do).collect();
        for (rooms, _) in self
            .sorts
            .iter()
            .zip(&class.sorts)
            .filter(|(_, good)| **good)
        {
            let host = self.rooms[rooms[0]].host;
            let all = Amount {
                cpu: host.cpu_millis,
                memory: host.memory,
                disk: host.disk,
            };
            let gpus = u64::from(self.rooms[rooms[0]].of_kinds(&class).count_ones());
            let each = gpus.checked_div(class.count.into()).unwrap_or(u64::MAX);
            let open = rooms
                .iter()
                .filter(|room| self.rooms[**room].host.closed.is_none());
            let times = all.times(&class.need).min(each).min(1 << 20);
            class.slots += times * open.count() as u64;
        }
        class
    }

    /// Pools that have the kinds, those with the smallest GPUs first. Without GPUs: hosts without first.
    fn pools_for(&self, count: u32, kinds: &[bool]) -> Vec<(u64, usize)> {
        let mut pools = Vec::new();
        for (number, pool) in self.pools.iter().enumerate() {
            if count == 0 {
                pools.push((u64::from(!pool.kinds.is_empty()), number));
                continue;
            }
            let good = pool.kinds.iter().filter(|(kind, _)| kinds[*kind]);
            let least = good.map(|(kind, _)| self.kinds[*kind].memory).min();
            pools.extend(least.map(|least| (least.saturating_mul(count.into()), number)));
        }
        pools.sort_unstable();
        pools
    }

    /// The best room for a job that is expected to run so long, and the devices that it gets there.
    pub(super) fn search(
        &self,
        class: &Class,
        expected: Span,
        failed_on: &[usize],
        warm: Option<&BTreeSet<usize>>,
    ) -> Option<(usize, Mask)> {
        let search = Search {
            fleet: self,
            class,
            expected,
            warm,
        };
        if failed_on.is_empty() {
            return search.best(&|_| true);
        }
        let other = |room: usize| !failed_on.contains(&self.rooms[room].index);
        search.best(&other).or_else(|| search.best(&|_| true))
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

/// What a search has in its hand.
struct Search<'f, 'a> {
    fleet: &'f Fleet<'a>,
    class: &'f Class,
    expected: Span,
    warm: Option<&'f BTreeSet<usize>>,
}

impl Search<'_, '_> {
    fn best(&self, allowed: &dyn Fn(usize) -> bool) -> Option<(usize, Mask)> {
        let mut best: Option<(Cost, Mask)> = None;
        for (least, pool) in &self.class.pools {
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
        if !self.class.sorts[room.sort] {
            return None;
        }
        let gpus = room.fits(self.class, self.fleet.now + self.expected)?;
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

impl<'a> Room<'a> {
    fn new(
        host: &'a Host,
        index: usize,
        kind_of: &dyn Fn(&'a HostGpu) -> usize,
        now: Timestamp,
    ) -> Self {
        let mut order: Vec<usize> = (0..host.gpus.len()).collect();
        order.sort_by(|a, b| host.gpus[*a].uuid.cmp(&host.gpus[*b].uuid));
        order.truncate(Mask::BITS as usize);
        let mut bits = vec![0; host.gpus.len()];
        for (bit, gpu) in order.iter().enumerate() {
            bits[*gpu] = 1_u128 << bit;
        }
        let (mut kinds, mut links) = (BTreeMap::new(), BTreeMap::new());
        let mut healthy = 0;
        for gpu in &order {
            let (bit, gpu) = (bits[*gpu], &host.gpus[*gpu]);
            *kinds.entry(kind_of(gpu)).or_insert(0) |= bit;
            if let Some(link) = gpu.nvlink {
                *links.entry(link).or_insert(0) |= bit;
            }
            healthy |= if gpu.healthy { bit } else { 0 };
        }
        let mut room = Self {
            host,
            index,
            sort: 0,
            pool: 0,
            order,
            kinds: kinds.into_iter().collect(),
            links: links.into_values().collect(),
            healthy,
            free: Amount {
                cpu: host.cpu_millis,
                memory: host.memory,
                disk: host.disk,
            },
            free_gpus: healthy,
            ends: Vec::with_capacity(host.bookings.len()),
            hold: None,
        };
        for booked in &host.bookings {
            let amount = Amount {
                cpu: booked.cpu_millis,
                memory: booked.memory,
                disk: booked.disk,
            };
            let gpus = booked.gpus.iter().fold(0, |all, gpu| all | bits[*gpu]);
            room.free.take(&amount);
            room.free_gpus &= !gpus;
            let at = if booked.until > now {
                booked.until
            } else {
                now + OVERDUE
            };
            room.ends.push(End { at, amount, gpus });
        }
        room.ends.sort_by_key(|end| end.at);
        room
    }

    /// Its devices of the kinds that will do.
    pub(super) fn of_kinds(&self, class: &Class) -> Mask {
        let good = self.kinds.iter().filter(|(kind, _)| class.kinds[*kind]);
        good.fold(0, |all, (_, mask)| all | mask)
    }

    /// The devices that a job would get that ends at `until`. None: it does not fit now.
    pub(super) fn fits(&self, class: &Class, until: Timestamp) -> Option<Mask> {
        if !class.need.within(&self.free) {
            return None;
        }
        match self.hold.as_ref().filter(|hold| until > hold.at) {
            Some(hold) if !class.need.within(&hold.spare) => None,
            Some(hold) => self.pick(class, self.free_gpus & !hold.gpus),
            None => self.pick(class, self.free_gpus),
        }
    }

    /// The devices that a job gets of these: of one kind, the smallest, where there are enough.
    pub(super) fn pick(&self, class: &Class, of: Mask) -> Option<Mask> {
        if class.count == 0 {
            return Some(0);
        }
        let good = || self.kinds.iter().filter(|(kind, _)| class.kinds[*kind]);
        let alike = good().find_map(|(_, mask)| self.together(class, mask & of));
        if alike.is_some() {
            return alike;
        }
        let all = self.of_kinds(class) & of;
        if class.nvlink {
            return self.together(class, all);
        }
        if all.count_ones() < class.count {
            return None;
        }
        let mut picked = 0;
        for (_, mask) in good() {
            picked |= lowest(mask & of, class.count - Mask::count_ones(picked));
        }
        Some(picked)
    }

    /// NVLink neighbours together, and out of the group that has fewest left.
    fn together(&self, class: &Class, of: Mask) -> Option<Mask> {
        let count = class.count;
        if of.count_ones() < count {
            return None;
        }
        let alone = self.links.iter().fold(of, |rest, link| rest & !link);
        if count == 1 && alone != 0 {
            return Some(lowest(alone, 1));
        }
        let mut groups: Vec<Mask> = self.links.iter().map(|link| link & of).collect();
        let enough = groups.iter().filter(|group| group.count_ones() >= count);
        if let Some(group) = enough.min_by_key(|g| (g.count_ones(), g.trailing_zeros())) {
            return Some(lowest(*group, count));
        }
        if class.nvlink {
            return None;
        }
        groups.sort_by_key(|group| {
            (
                std::cmp::Reverse(group.count_ones()),
                group.trailing_zeros(),
            )
        });
        groups.push(alone);
        let mut picked: Mask = 0;
        for group in groups {
            picked |= lowest(group, count - picked.count_ones());
        }
        Some(picked)
    }

    pub(super) fn placement(&self, job: usize, gpus: Mask) -> Placement {
        let bits = self.order.iter().enumerate();
        let mine = bits.filter(|(bit, _)| gpus >> bit & 1 == 1);
        Placement {
            job,
            host: self.index,
            gpus: mine.map(|(_, gpu)| *gpu).collect(),
        }
    }
}

/// The first `count` of these devices.
fn lowest(mut of: Mask, count: u32) -> Mask {
    let mut picked = 0;
    for _ in 0..count.min(of.count_ones()) {
        let bit = of & of.wrapping_neg();
        picked |= bit;
        of &= !bit;
    }
    picked
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
