//! Why a job stays in the queue, in one sentence a person can act on; and why one can never go.

use std::collections::{BTreeMap, BTreeSet};

use protocol::gpu::GpuModel;
use protocol::spec::Resources;
use protocol::{ByteSize, Span, Timestamp};

use super::demand::{Demand, Lack};
use super::fleet::{Class, Fleet};
use super::room::Room;
use super::{Group, Host, HostGpu, Lent, Project};

/// Most hosts, models or labels that a sentence names.
const NAMED: usize = 3;
/// Most sorts of host that are looked at for the nearest one.
const LOOKED_AT: usize = 64;

/// Why no host of these could ever fulfil a demand, with the nearest that could; none: one could, or there is
/// no host.
#[must_use]
pub fn impossible(demand: &Demand, fleet: &[Host]) -> Option<String> {
    let able = fleet.iter().any(|host| demand.lack(host).is_none());
    (!able && !fleet.is_empty()).then(|| never(demand, fleet.iter().collect()))
}

/// Of jobs that no host has room for.
pub(super) fn of(demand: &Demand, class: &Class, fleet: &Fleet<'_>) -> String {
    if fleet.rooms.is_empty() {
        return "no agent is registered yet: run `trainyard agent register` on a host".to_owned();
    }
    if !class.view.sorts.contains(&true) {
        let sorts = fleet.sorts.iter().take(LOOKED_AT);
        return never(
            demand,
            sorts.map(|rooms| fleet.rooms[rooms[0]].host).collect(),
        );
    }
    if class.view.open.is_empty() {
        let able = fleet
            .rooms
            .iter()
            .filter(|room| class.view.sorts[room.sort]);
        let closed = list(able, |room| {
            let why = room.host.closed.as_deref().unwrap_or_default();
            format!("{} ({why})", room.host.name)
        });
        return format!("hosts that fit take nothing now: {closed}");
    }
    if let Some(kept) = class.kept {
        return format!(
            "needs {}; what {} has free is kept for a job that waits longer",
            wants(&demand.resources),
            fleet.rooms[kept].host.name
        );
    }
    let nearest = class.view.nearest.get_or_init(|| nearest(class, fleet));
    let named = nearest.iter().take(NAMED).map(|rank| &fleet.rooms[*rank]);
    let mut free: Vec<String> = named.map(|room| free(class, room, fleet.now)).collect();
    if class.view.open.len() > NAMED {
        free.push(format!("and {} more", class.view.open.len() - NAMED));
    }
    format!("needs {}; {}", wants(&demand.resources), free.join("; "))
}

/// The open hosts that have most free of what the class wants, the first of them first.
fn nearest(class: &Class, fleet: &Fleet<'_>) -> Vec<usize> {
    let ranked = |rank: &usize| {
        let room = &fleet.rooms[*rank];
        let gpus = (room.free_gpus & room.of_kinds(&class.view.kinds)).count_ones();
        let most = std::cmp::Reverse((gpus, room.free.cpu, room.free.memory));
        (most, *rank)
    };
    let mut rooms: Vec<_> = class.view.open.iter().map(ranked).collect();
    if rooms.len() > NAMED {
        rooms.select_nth_unstable(NAMED);
        rooms.truncate(NAMED);
    }
    rooms.sort_unstable();
    rooms.into_iter().map(|(_, rank)| rank).collect()
}

/// Of jobs whose project has as many GPUs as it may.
pub(super) fn of_gpus(project: &Project, has: u32, wanted: u32) -> String {
    let most = project.quota.gpus.unwrap_or(0);
    if wanted > most {
        return format!(
            "needs {}, and the quota of {} is {most} at once",
            gpus(wanted),
            project.name
        );
    }
    format!(
        "needs {}; {} has {has} of the {most} that its quota gives it at once",
        gpus(wanted),
        project.name
    )
}

/// Of jobs whose project used up its GPU-hours.
pub(super) fn of_hours(project: &Project) -> String {
    let hours = project.gpu_week.0 as f64 / 3_600_000.0;
    format!(
        "{} used {hours:.0} of the {} GPU-hours that its quota gives it in seven days",
        project.name,
        project.quota.gpu_hours.unwrap_or(0)
    )
}

/// Of jobs that failed a moment ago on the only host that has room.
pub(super) fn of_failed(fleet: &Fleet<'_>, room: usize, until: Timestamp) -> String {
    format!(
        "failed on {} for a fault of the platform, and is kept from it until {}; no other host has room",
        fleet.rooms[room].host.name,
        clock(until, fleet.now)
    )
}

/// Of jobs whose group is busy.
pub(super) fn of_group(group: &Group, holder: &str) -> String {
    format!(
        "of the concurrency group '{}' one job runs at a time: it waits for {holder}",
        group.name
    )
}

/// No host would do, not even empty: says what the nearest one lacks.
fn never(demand: &Demand, fleet: Vec<&Host>) -> String {
    let lacks = fleet
        .iter()
        .filter_map(|host| Some((demand.lack(host)?, *host)));
    let nearest = lacks.max_by(|(a, one), (b, other)| {
        (a, size(one), &other.name).cmp(&(b, size(other), &one.name))
    });
    let Some((lack, host)) = nearest else {
        return "no host would do".to_owned();
    };
    let (resources, name) = (&demand.resources, &host.name);
    match lack {
        Lack::Label(_) => format!(
            "no agent has the labels {} of `runs_on`",
            demand.runs_on.join(", ")
        ),
        Lack::Volume(volume) => {
            let known = fleet.iter().flat_map(|host| host.volumes.keys());
            format!("no agent has the volume '{volume}'{}", there_are(known))
        }
        Lack::Grant(volume, why) => format!("the volume '{volume}' of {name} {why}"),
        Lack::Gpus => {
            let has = match (fleet.as_slice(), demand.runs_on.is_empty()) {
                ([one], _) => format!("{} has none", one.name),
                (_, true) => "no host has one".to_owned(),
                (_, false) => "no host with its labels has one".to_owned(),
            };
            format!("needs {}; {has}", gpus_of(resources))
        }
        Lack::Model => {
            let models = fleet
                .iter()
                .flat_map(|host| host.gpus.iter().map(|gpu| &gpu.model));
            format!(
                "{} GPU of the model {}{}",
                nobody_has(&fleet),
                models_of(resources),
                there_are(models)
            )
        }
        Lack::Profile => profiles(resources, &fleet),
        Lack::Capability => {
            let bound = resources.compute_capability.map(|c| c.version());
            let found = best(
                host,
                |gpu| capability(&gpu.compute_capability),
                |gpu| gpu.compute_capability.clone(),
            );
            format!(
                "needs a GPU of compute capability {} or higher; the nearest, of {name}, has {found}",
                bound.unwrap_or_default()
            )
        }
        Lack::GpuMemory => format!(
            "needs {}; no such GPU has so much memory: the largest, of {name}, has {}",
            gpus_of(resources),
            best(
                host,
                |gpu| gpu.memory,
                |gpu| ByteSize(gpu.memory).to_string()
            )
        ),
        Lack::Count(has) => format!(
            "needs {} on one host; the nearest, {name}, has {has}",
            gpus_of(resources)
        ),
        Lack::Nvlink(has) => format!(
            "needs {} joined by NVLink; the nearest, {name}, has {has} that are",
            gpus_of(resources)
        ),
        Lack::Cuda => format!(
            "needs CUDA {} or newer; the driver of {name} runs {}",
            resources
                .cuda
                .map(|cuda| cuda.version())
                .unwrap_or_default(),
            host.cuda.as_deref().unwrap_or("none: it has none")
        ),
        Lack::Room => format!(
            "needs {}; no host has that: the nearest, {name}, has {}, {} and {} of disk",
            wants(resources),
            cpus(host.cpu_millis),
            ByteSize(host.memory),
            ByteSize(host.disk)
        ),
    }
}

/// `no host has a`; of a fleet of one: `gpu-3 has no`.
fn nobody_has(fleet: &[&Host]) -> String {
    match fleet {
        [one] => format!("{} has no", one.name),
        _ => "no host has a".to_owned(),
    }
}

/// Larger hosts are nearer to a demand than smaller ones that lack the same.
fn size(host: &Host) -> (usize, u64, u64) {
    (host.gpus.len(), host.cpu_millis, host.memory)
}

fn profiles(resources: &Resources, fleet: &[&Host]) -> String {
    let all = || fleet.iter().flat_map(|host| &host.gpus);
    match &resources.mig {
        Some(profile) => {
            let known = all().filter_map(|gpu| gpu.profile.as_ref());
            format!(
                "{} MIG slice of the profile {profile}{}",
                nobody_has(fleet),
                there_are(known)
            )
        }
        None => format!(
            "needs {}; such GPUs are cut into MIG slices: ask for one with `mig`",
            gpus_of(resources)
        ),
    }
}

/// The most of a host's GPUs, in words.
fn best<K: Ord>(
    host: &Host,
    key: impl Fn(&HostGpu) -> K,
    word: impl Fn(&HostGpu) -> String,
) -> String {
    let most = host.gpus.iter().max_by_key(|gpu| key(gpu));
    most.map_or_else(String::new, word)
}

fn capability(text: &str) -> Vec<u32> {
    text.split('.')
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// `; there are a, b and 2 more`
fn there_are<'a>(words: impl Iterator<Item = &'a String>) -> String {
    let known: BTreeSet<&String> = words.collect();
    if known.is_empty() {
        return "; there is none".to_owned();
    }
    let mut named: Vec<String> = known.iter().take(4 * NAMED).map(|w| (*w).clone()).collect();
    if known.len() > named.len() {
        named.push(format!("and {} more", known.len() - named.len()));
    }
    format!("; there are {}", named.join(", "))
}

fn models_of(resources: &Resources) -> String {
    let models: Vec<String> = resources
        .gpu_models
        .iter()
        .map(|model| format!("'{}'", model.as_str()))
        .collect();
    models.join(" or ")
}

/// `2 GPUs with 40 GiB, 4 CPUs and 16 GiB`.
fn wants(resources: &Resources) -> String {
    let mut parts = Vec::new();
    if resources.gpus > 0 {
        parts.push(gpus_of(resources));
    }
    parts.push(format!(
        "{} and {}",
        cpus(resources.cpu_millis),
        resources.memory
    ));
    if let Some(disk) = resources.disk {
        parts.push(format!("{disk} of disk"));
    }
    parts.join(", ")
}

/// `2 GPUs (A100 or H100) with 40 GiB`.
pub(super) fn gpus_of(resources: &Resources) -> String {
    let mut text = match &resources.mig {
        Some(profile) => {
            let plural = if resources.gpus == 1 { "" } else { "s" };
            format!("{} MIG slice{plural} of {profile}", resources.gpus)
        }
        None => gpus(resources.gpus),
    };
    let models: Vec<&str> = resources.gpu_models.iter().map(GpuModel::as_str).collect();
    if !models.is_empty() {
        text.push_str(&format!(" ({})", models.join(" or ")));
    }
    if let Some(memory) = resources.gpu_memory {
        text.push_str(&format!(" with {memory}"));
    }
    text
}

fn gpus(count: u32) -> String {
    format!("{count} GPU{}", if count == 1 { "" } else { "s" })
}

fn cpus(millis: u64) -> String {
    let plural = if millis == 1_000 { "" } else { "s" };
    if millis.is_multiple_of(1_000) {
        format!("{} CPU{plural}", millis / 1_000)
    } else {
        format!("{:.1} CPUs", millis as f64 / 1_000.0)
    }
}

/// What a busy host has free of what the job wants, and who has the rest beside jobs.
fn free(class: &Class, room: &Room<'_>, now: Timestamp) -> String {
    let name = &room.host.name;
    let mut rest = format!("{} and {}", cpus(room.free.cpu), ByteSize(room.free.memory));
    if class.need.disk > 0 {
        rest.push_str(&format!(", {} of disk", ByteSize(room.free.disk)));
    }
    rest.push_str(" free");
    if class.count == 0 {
        return format!("{name} has {rest}");
    }
    let all = room.of_kinds(&class.view.kinds);
    let (all, open) = (all.count_ones(), (all & room.free_gpus).count_ones());
    let others = others(room.devices(room.of_kinds(&class.view.kinds)), now);
    format!("{name} has {open} of {all} such GPUs, {rest}{others}")
}

/// ` (2 reserved by ada until 18:00 UTC, 1 in quarantine: XID 79)`; of many loans those whose time is over first.
fn others<'a>(gpus: impl Iterator<Item = &'a HostGpu>, now: Timestamp) -> String {
    let mut lent: BTreeMap<&Lent, u32> = BTreeMap::new();
    let mut trouble: BTreeMap<&str, u32> = BTreeMap::new();
    for gpu in gpus {
        match (&gpu.lent, &gpu.trouble) {
            (Some(to), _) => *lent.entry(to).or_default() += 1,
            (None, Some(why)) => *trouble.entry(why).or_default() += 1,
            (None, None) => {}
        }
    }
    let loan = |(lent, count): (&Lent, u32)| {
        let until = clock(lent.until, now);
        format!("{count} reserved by {} until {until}", lent.by)
    };
    let why = |(why, count): (&str, u32)| format!("{count} {why}");
    let (all, loans) = (lent.len() + trouble.len(), lent.into_iter().map(loan));
    let mut words: Vec<String> = loans
        .chain(trouble.into_iter().map(why))
        .take(NAMED)
        .collect();
    if all > NAMED {
        words.push(format!("and {} more", all - NAMED));
    }
    match words.is_empty() {
        true => String::new(),
        false => format!(" ({})", words.join(", ")),
    }
}

/// `14:25 UTC`, with the day where it is not within the next hours.
pub(crate) fn clock(at: Timestamp, now: Timestamp) -> String {
    let form = match at.since(now) {
        soon if soon < Span::hours(12) => "%H:%M UTC",
        _ => "%b %-d, %H:%M UTC",
    };
    chrono::DateTime::<chrono::Utc>::from_timestamp_millis(at.0)
        .map_or_else(|| "much later".to_owned(), |at| at.format(form).to_string())
}

fn list<'a, 'h: 'a>(
    rooms: impl Iterator<Item = &'a Room<'h>>,
    word: impl Fn(&Room<'_>) -> String,
) -> String {
    let rooms: Vec<_> = rooms.collect();
    let mut words: Vec<String> = rooms.iter().take(NAMED).map(|room| word(room)).collect();
    if rooms.len() > NAMED {
        words.push(format!("and {} more", rooms.len() - NAMED));
    }
    words.join("; ")
}
