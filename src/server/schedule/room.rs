//! A host as a pass works on it: what of it is free, what is kept, and which of its devices a job would get.

use std::collections::BTreeMap;

use protocol::{Span, Timestamp};

use super::fleet::Class;
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

    /// What is missing of `other`.
    fn short_of(&self, other: &Self) -> Self {
        let mut short = *other;
        short.take(self);
        short
    }

    /// How many of `each` fit at once.
    pub(super) fn times(&self, each: &Self) -> u64 {
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
    pub(super) pool: usize,
    /// For each bit the GPU, by UUID.
    order: Vec<usize>,
    /// Devices by kind, those with least memory first.
    pub(super) kinds: Vec<(usize, Mask)>,
    /// Devices that reach each other by NVLink.
    links: Vec<Mask>,
    pub(super) healthy: Mask,
    pub(super) free: Amount,
    /// What is booked beyond what there is: a disk that others fill has less than was promised. What comes back
    /// first makes up for it.
    pub(super) owed: Amount,
    /// Healthy devices that nobody has.
    pub(super) free_gpus: Mask,
    /// When what is taken comes back, in that order.
    pub(super) ends: Vec<End>,
    pub(super) hold: Option<Hold>,
}

/// Whether a room has what a job wants.
pub(super) enum Fit {
    /// These devices.
    Now(Mask),
    /// It has, but keeps it for another job.
    Kept,
    /// It has not.
    Not,
}

/// Which devices a job wants, and how.
#[derive(Clone, Copy)]
pub(super) struct Gang<'a> {
    /// Kinds of device that will do.
    pub(super) kinds: &'a [bool],
    pub(super) count: u32,
    /// Whether all must reach each other by NVLink.
    pub(super) nvlink: bool,
}

impl<'a> Room<'a> {
    pub(super) fn new(
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
        let (mut healthy, mut lent_out) = (0, Vec::new());
        for gpu in &order {
            let (bit, gpu) = (bits[*gpu], &host.gpus[*gpu]);
            *kinds.entry(kind_of(gpu)).or_insert(0) |= bit;
            if let Some(link) = gpu.nvlink {
                *links.entry(link).or_insert(0) |= bit;
            }
            healthy |= if gpu.trouble.is_none() { bit } else { 0 };
            if let Some(lent) = &gpu.lent {
                lent_out.push((lent.until, bit));
            }
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
                disk: host.disk_room,
            },
            owed: Amount::default(),
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
            room.owed.give(&room.free.short_of(&amount));
            room.free.take(&amount);
            room.free_gpus &= !gpus;
            let at = later(booked.until, now);
            room.ends.push(End { at, amount, gpus });
        }
        // Until its agent says that it is back, nobody else has it.
        for (until, gpus) in lent_out {
            room.free_gpus &= !gpus;
            room.ends.push(End {
                at: later(until, now),
                amount: Amount::default(),
                gpus,
            });
        }
        room.ends.sort_by_key(|end| end.at);
        room
    }

    /// Its devices of the kinds that will do.
    pub(super) fn of_kinds(&self, kinds: &[bool]) -> Mask {
        let good = self.kinds.iter().filter(|(kind, _)| kinds[*kind]);
        good.fold(0, |all, (_, mask)| all | mask)
    }

    /// These devices.
    pub(super) fn devices(&self, of: Mask) -> impl Iterator<Item = &HostGpu> {
        let bits = self.order.iter().enumerate();
        let mine = bits.filter(move |(bit, _)| of >> bit & 1 == 1);
        mine.map(|(_, gpu)| &self.host.gpus[*gpu])
    }

    /// Whether a job fits that ends at `until`, and the devices that it would get.
    pub(super) fn fits(&self, class: &Class, until: Timestamp) -> Fit {
        if !class.need.within(&self.free) {
            return Fit::Not;
        }
        let Some(gpus) = self.pick(class.gang(), self.free_gpus) else {
            return Fit::Not;
        };
        let Some(hold) = self.hold.as_ref().filter(|hold| until > hold.at) else {
            return Fit::Now(gpus);
        };
        let beside = self.pick(class.gang(), self.free_gpus & !hold.gpus);
        match beside.filter(|_| class.need.within(&hold.spare)) {
            Some(gpus) => Fit::Now(gpus),
            None => Fit::Kept,
        }
    }

    /// The devices that a job gets of these: of one kind, the smallest, where there are enough.
    pub(super) fn pick(&self, gang: Gang<'_>, of: Mask) -> Option<Mask> {
        if gang.count == 0 {
            return Some(0);
        }
        let good = || self.kinds.iter().filter(|(kind, _)| gang.kinds[*kind]);
        let alike = good().find_map(|(_, mask)| self.together(gang, mask & of));
        if alike.is_some() {
            return alike;
        }
        let all = self.of_kinds(gang.kinds) & of;
        if gang.nvlink {
            return self.together(gang, all);
        }
        if all.count_ones() < gang.count {
            return None;
        }
        let mut picked = 0;
        for (_, mask) in good() {
            picked |= lowest(mask & of, gang.count - Mask::count_ones(picked));
        }
        Some(picked)
    }

    /// NVLink neighbours together, and out of the group that has fewest left.
    fn together(&self, gang: Gang<'_>, of: Mask) -> Option<Mask> {
        let count = gang.count;
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
        if gang.nvlink {
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

/// When something comes back.
pub(super) fn later(until: Timestamp, now: Timestamp) -> Timestamp {
    if until > now { until } else { now + OVERDUE }
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
