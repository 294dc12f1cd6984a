//! What demands see of the fleet: which hosts would do for them when empty, and where to look first. Many demands
//! see the same, so each part is worked out once: by what it is of labels, of devices, and of both.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use protocol::gpu::{AtLeast, GpuModel};
use protocol::{ByteSize, Timestamp, Trust};

use super::demand::Demand;
use super::fleet::{Class, Fleet};
use super::room::{Amount, Gang, Mask};

/// The hosts that would do for a class.
pub(super) struct View {
    /// Kinds of device that will do.
    pub(super) kinds: Vec<bool>,
    /// Sorts of host that will do when they are empty.
    pub(super) sorts: Vec<bool>,
    /// Pools of hosts to look in, the one with the smallest GPUs first, with what these weigh.
    pub(super) pools: Vec<(u64, usize)>,
    /// The open rooms of these sorts.
    pub(super) open: Vec<usize>,
    /// In the end: those of them that have most free, and how many there are.
    pub(super) nearest: OnceCell<Vec<usize>>,
    /// When so many devices will be free together, as it was found for the first class that asked.
    pub(super) room_at: std::cell::RefCell<BTreeMap<Ask, Option<Timestamp>>>,
}

/// What makes classes of one view wait equally long: devices and NVLink; without devices CPUs and memory.
pub(super) type Ask = (u32, bool, u64, u64);
/// What a demand says of devices.
type Devices = (
    Vec<GpuModel>,
    Option<ByteSize>,
    Option<AtLeast>,
    Option<String>,
);
/// What it says of everything else but amounts.
type Place = (Vec<String>, Vec<String>, String, Trust, Option<AtLeast>);

/// What was worked out.
#[derive(Default)]
pub(super) struct Views {
    kinds: BTreeMap<Devices, Rc<Vec<bool>>>,
    places: BTreeMap<Place, Rc<Vec<bool>>>,
    gangs: BTreeMap<(Vec<bool>, u32, bool), Rc<Vec<bool>>>,
    all: HashMap<(Vec<bool>, Vec<bool>, u32), Rc<View>>,
}

impl Fleet<'_> {
    /// What a demand means for this fleet.
    pub(super) fn class(&mut self, demand: &Demand) -> Class {
        let wants = &demand.resources;
        let need = Amount {
            cpu: wants.cpu_millis,
            memory: wants.memory.0,
            disk: wants.disk.unwrap_or_default().0,
        };
        let (count, nvlink) = (wants.gpus, wants.nvlink && wants.gpus > 1);
        let mut views = std::mem::take(&mut self.views);
        let kinds = self.will_do(&mut views, demand);
        let gang = Gang {
            kinds: &kinds,
            count,
            nvlink,
        };
        let places = self.places(&mut views, demand);
        let gangs = self.gangs(&mut views, gang);
        let sorts: Vec<bool> = (0..self.sorts.len())
            .map(|sort| places[sort] && gangs[sort] && need.within(&self.of_sort(sort)))
            .collect();
        let key = (kinds.to_vec(), sorts, count);
        let view = match views.all.get(&key) {
            Some(view) => view.clone(),
            None => {
                let view = Rc::new(self.view(key.0.clone(), key.1.clone(), count));
                views.all.insert(key, view.clone());
                view
            }
        };
        self.views = views;
        let slots = self.slots(&view, &need, gang);
        Class::new(need, count, nvlink, view, slots)
    }

    /// The devices that will do, by kind.
    fn will_do(&self, views: &mut Views, demand: &Demand) -> Rc<Vec<bool>> {
        let wants = &demand.resources;
        if wants.gpus == 0 {
            return Rc::new(vec![false; self.kinds.len()]);
        }
        let models = wants.gpu_models.clone();
        let key = (
            models,
            wants.gpu_memory,
            wants.compute_capability,
            wants.mig.clone(),
        );
        let all = || self.kinds.iter().map(|gpu| demand.admits(gpu)).collect();
        views
            .kinds
            .entry(key)
            .or_insert_with(|| Rc::new(all()))
            .clone()
    }

    /// The sorts of host that have labels, volumes and CUDA.
    fn places(&self, views: &mut Views, demand: &Demand) -> Rc<Vec<bool>> {
        let Demand {
            runs_on,
            volumes,
            project,
            trust,
            resources,
        } = demand;
        let key = (
            runs_on.clone(),
            volumes.clone(),
            project.clone(),
            *trust,
            resources.cuda,
        );
        let hosts = || self.sorts.iter().map(|rooms| self.rooms[rooms[0]].host);
        let all = || {
            hosts()
                .map(|host| demand.lacks_place(host).is_none())
                .collect()
        };
        views
            .places
            .entry(key)
            .or_insert_with(|| Rc::new(all()))
            .clone()
    }

    /// The sorts of host that have the devices.
    fn gangs(&self, views: &mut Views, gang: Gang<'_>) -> Rc<Vec<bool>> {
        let key = (gang.kinds.to_vec(), gang.count, gang.nvlink);
        let rooms = || self.sorts.iter().map(|rooms| &self.rooms[rooms[0]]);
        let all = || {
            rooms()
                .map(|room| room.pick(gang, Mask::MAX).is_some())
                .collect()
        };
        views
            .gangs
            .entry(key)
            .or_insert_with(|| Rc::new(all()))
            .clone()
    }

    fn of_sort(&self, sort: usize) -> Amount {
        let host = self.rooms[self.sorts[sort][0]].host;
        Amount {
            cpu: host.cpu_millis,
            memory: host.memory,
            disk: host.disk,
        }
    }

    fn view(&self, kinds: Vec<bool>, sorts: Vec<bool>, count: u32) -> View {
        let open = |rank: &usize| self.rooms[*rank].host.closed.is_none();
        let good = self.sorts.iter().zip(&sorts).filter(|(_, good)| **good);
        let mut rooms: Vec<usize> = good
            .flat_map(|(rooms, _)| rooms)
            .copied()
            .filter(open)
            .collect();
        rooms.sort_unstable();
        View {
            pools: self.pools_for(count, &kinds),
            kinds,
            sorts,
            open: rooms,
            nearest: OnceCell::new(),
            room_at: std::cell::RefCell::default(),
        }
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

    /// How many of such jobs the open hosts hold at once.
    fn slots(&self, view: &View, need: &Amount, gang: Gang<'_>) -> u64 {
        let good = (0..self.sorts.len()).filter(|sort| view.sorts[*sort]);
        let of = |sort: usize| {
            let gpus = self.rooms[self.sorts[sort][0]]
                .of_kinds(gang.kinds)
                .count_ones();
            let each = gpus.checked_div(gang.count).map_or(u64::MAX, u64::from);
            let times = self.of_sort(sort).times(need).min(each).min(1 << 20);
            times * self.open_of_sort[sort]
        };
        good.map(of).sum()
    }
}
