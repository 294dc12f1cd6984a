//! Why a job stays in the queue, in one sentence a person can act on.

use protocol::ByteSize;
use protocol::spec::Resources;

use super::{Host, Waiting, has_labels, large_enough, usable};

/// Most hosts that a sentence names.
const NAMED: usize = 3;

/// The sentence. The host does not fit now; either no host ever could, or those that could are busy.
pub(super) fn of(job: &Waiting, fleet: &[Host]) -> String {
    if fleet.is_empty() {
        return "no agent is registered yet: run `trainyard agent register` on a host".to_owned();
    }
    let labelled: Vec<&Host> = fleet.iter().filter(|host| has_labels(job, host)).collect();
    if labelled.is_empty() {
        return format!(
            "no agent has the labels {} of `runs_on`",
            job.runs_on.join(", ")
        );
    }
    let able: Vec<&Host> = labelled
        .iter()
        .copied()
        .filter(|host| could(job, host))
        .collect();
    if able.is_empty() {
        let largest = largest(&labelled, &job.resources);
        return format!(
            "needs {}; no host has that: {largest}",
            wants(&job.resources)
        );
    }
    let open: Vec<&Host> = able
        .iter()
        .copied()
        .filter(|host| host.closed.is_none())
        .collect();
    if open.is_empty() {
        let closed = list(&able, |host| {
            format!(
                "{} ({})",
                host.name,
                host.closed.as_deref().unwrap_or_default()
            )
        });
        return format!("hosts that fit take nothing now: {closed}");
    }
    let free = list(&open, |host| free(job, host));
    format!("needs {}; {free}", wants(&job.resources))
}

/// Whether an empty host would do.
fn could(job: &Waiting, host: &Host) -> bool {
    let wanted = &job.resources;
    let gpus = host
        .gpus
        .iter()
        .filter(|gpu| large_enough(job, gpu))
        .count();
    host.cpu_millis >= wanted.cpu_millis
        && host.memory >= wanted.memory.0
        && gpus >= wanted.gpus as usize
}

/// `2 GPUs with 40 GiB, 4 CPUs and 16 GiB`.
fn wants(resources: &Resources) -> String {
    let mut parts = Vec::new();
    if resources.gpus > 0 {
        let each = resources
            .gpu_memory
            .map(|memory| format!(" with {memory}"))
            .unwrap_or_default();
        let plural = if resources.gpus == 1 { "" } else { "s" };
        parts.push(format!("{} GPU{plural}{each}", resources.gpus));
    }
    parts.push(format!(
        "{} and {}",
        cpus(resources.cpu_millis),
        resources.memory
    ));
    parts.join(", ")
}

fn cpus(millis: u64) -> String {
    let plural = if millis == 1_000 { "" } else { "s" };
    if millis.is_multiple_of(1_000) {
        format!("{} CPU{plural}", millis / 1_000)
    } else {
        format!("{:.1} CPUs", millis as f64 / 1_000.0)
    }
}

/// What a busy host has free of what the job wants.
fn free(job: &Waiting, host: &Host) -> String {
    let rest = format!(
        "{} and {} free",
        cpus(host.cpu_free),
        ByteSize(host.memory_free)
    );
    if job.resources.gpus == 0 {
        return format!("{} has {rest}", host.name);
    }
    let fitting = host.gpus.iter().filter(|gpu| large_enough(job, gpu));
    let (mut all, mut open) = (0, 0);
    for gpu in fitting {
        all += 1;
        open += usize::from(usable(gpu));
    }
    format!("{} has {open} of {all} such GPUs, {rest}", host.name)
}

fn largest(hosts: &[&Host], wanted: &Resources) -> String {
    let most = hosts
        .iter()
        .max_by_key(|host| {
            let gpus = if wanted.gpus > 0 { host.gpus.len() } else { 0 };
            (gpus, host.cpu_millis, host.memory)
        })
        .expect("the caller has at least one");
    format!(
        "the largest, {}, has {} GPUs, {} and {}",
        most.name,
        most.gpus.len(),
        cpus(most.cpu_millis),
        ByteSize(most.memory)
    )
}

fn list(hosts: &[&Host], word: impl Fn(&Host) -> String) -> String {
    let mut words: Vec<String> = hosts.iter().take(NAMED).map(|host| word(host)).collect();
    if hosts.len() > NAMED {
        words.push(format!("and {} more", hosts.len() - NAMED));
    }
    words.join(", ")
}
