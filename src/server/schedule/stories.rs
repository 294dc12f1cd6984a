//! Stories and properties of `place`.

use proptest::prelude::*;
use protocol::ByteSize;

use super::*;

fn waiting(project: &ProjectId, cpus: u64, gpus: u32) -> Waiting {
    Waiting {
        job: JobId::generate(),
        project: project.clone(),
        priority: 0,
        since: Timestamp(0),
        resources: Resources {
            cpu_millis: cpus * 1_000,
            memory: ByteSize::gib(1),
            shm_size: None,
            gpus,
            gpu_memory: None,
        },
        runs_on: Vec::new(),
        failed_on: BTreeSet::new(),
    }
}

fn host(name: &str, cpus: u64, gpu_gib: &[u64]) -> Host {
    let memory = ByteSize::gib(64).0;
    Host {
        agent: AgentId::generate(),
        name: name.to_owned(),
        closed: None,
        labels: BTreeSet::new(),
        cpu_millis: cpus * 1_000,
        cpu_free: cpus * 1_000,
        memory,
        memory_free: memory,
        gpus: gpu_gib
            .iter()
            .enumerate()
            .map(|(index, gib)| HostGpu {
                uuid: format!("GPU-{name}-{index}"),
                memory: ByteSize::gib(*gib).0,
                healthy: true,
                booked: false,
            })
            .collect(),
    }
}

fn decide(queue: &[Waiting], fleet: &[Host]) -> Decision {
    place(queue, fleet, &Shares::new())
}

#[test]
fn the_smallest_gpu_that_satisfies_is_taken() {
    let project = ProjectId::generate();
    let mut job = waiting(&project, 1, 1);
    job.resources.gpu_memory = Some(ByteSize::gib(20));
    let fleet = [host("big", 8, &[80]), host("small", 8, &[16, 24, 80])];
    let decision = decide(&[job], &fleet);
    assert_eq!(decision.placements[0].gpus, ["GPU-small-1"]);
}

#[test]
fn a_job_without_gpus_leaves_gpu_hosts_alone() {
    let project = ProjectId::generate();
    let fleet = [host("gpu", 4, &[80]), host("cpu", 64, &[])];
    let decision = decide(&[waiting(&project, 1, 0)], &fleet);
    assert_eq!(decision.placements[0].agent, fleet[1].agent);
}

#[test]
fn a_sick_or_booked_gpu_is_not_given() {
    let project = ProjectId::generate();
    let mut sick = host("sick", 8, &[80, 80]);
    sick.gpus[0].healthy = false;
    sick.gpus[1].booked = true;
    let decision = decide(&[waiting(&project, 1, 1)], &[sick]);
    assert!(decision.placements.is_empty());
    let reason = &decision.reasons[0].1;
    assert!(
        reason.starts_with("needs 1 GPU, 1 CPU and 1 GiB; sick has 0 of 2 such GPUs"),
        "{reason}"
    );
}

#[test]
fn another_host_goes_first_after_a_platform_fault() {
    let project = ProjectId::generate();
    let fleet = [host("a", 4, &[]), host("b", 64, &[])];
    let mut job = waiting(&project, 1, 0);
    assert_eq!(
        decide(&[job.clone()], &fleet).placements[0].agent,
        fleet[0].agent
    );
    job.failed_on.insert(fleet[0].agent.clone());
    assert_eq!(
        decide(&[job.clone()], &fleet).placements[0].agent,
        fleet[1].agent
    );
    let only = &fleet[..1];
    assert_eq!(decide(&[job], only).placements[0].agent, fleet[0].agent);
}

#[test]
fn priority_then_the_smaller_share_then_age() {
    let (busy, idle) = (ProjectId::generate(), ProjectId::generate());
    let mut first = waiting(&busy, 1, 0);
    first.since = Timestamp(1);
    let mut second = waiting(&idle, 1, 0);
    second.since = Timestamp(2);
    let mut urgent = waiting(&busy, 1, 0);
    urgent.since = Timestamp(3);
    urgent.priority = 1;
    let shares = Shares::from([(busy, 4_000)]);
    let queue = [first.clone(), second.clone(), urgent.clone()];
    let decision = place(&queue, &[host("a", 8, &[])], &shares);
    let order: Vec<_> = decision.placements.iter().map(|p| &p.job).collect();
    assert_eq!(order, [&urgent.job, &second.job, &first.job]);
}

#[test]
fn every_reason_says_what_to_do() {
    let project = ProjectId::generate();
    let reason = |job: Waiting, fleet: &[Host]| decide(&[job], fleet).reasons[0].1.clone();
    let job = waiting(&project, 16, 0);
    assert!(reason(job.clone(), &[]).contains("trainyard agent register"));
    let small = reason(job.clone(), &[host("a", 8, &[])]);
    assert!(
        small.contains("needs 16 CPUs") && small.contains("the largest, a, has 0 GPUs, 8 CPUs"),
        "{small}"
    );
    let mut closed = host("a", 32, &[]);
    closed.closed = Some("drained".to_owned());
    assert!(reason(job.clone(), &[closed]).contains("a (drained)"));
    let mut picky = job;
    picky.runs_on = vec!["berlin".to_owned()];
    assert!(reason(picky, &[host("a", 32, &[])]).contains("berlin"));
}

prop_compose! {
    fn any_job(projects: Vec<ProjectId>)(
        project in 0..projects.len(), cpus in 0_u64..6, gpus in 0_u32..4,
        memory in 0_u64..40, gpu_memory in proptest::option::of(8_u64..90),
        priority in -1_i64..2, since in 0_i64..5,
    ) -> Waiting {
        let mut job = waiting(&projects[project], cpus, gpus);
        job.resources.memory = ByteSize::gib(memory);
        job.resources.gpu_memory = gpu_memory.map(ByteSize::gib);
        job.priority = priority;
        job.since = Timestamp(since);
        job
    }
}

prop_compose! {
    fn any_host()(
        cpus in 0_u64..12, gpus in prop::collection::vec((8_u64..90, any::<bool>(), any::<bool>()), 0..5),
        closed in any::<bool>(), name in "[a-z]{4}",
    ) -> Host {
        let sizes: Vec<u64> = gpus.iter().map(|(gib, _, _)| *gib).collect();
        let mut host = host(&name, cpus, &sizes);
        for (gpu, (_, healthy, booked)) in host.gpus.iter_mut().zip(&gpus) {
            (gpu.healthy, gpu.booked) = (*healthy, *booked);
        }
        host.closed = closed.then(|| "drained".to_owned());
        host
    }
}

proptest! {
    #[test]
    fn nothing_is_given_twice_and_nothing_is_forgotten(
        queue in prop::collection::vec(any_job(vec![ProjectId::generate(), ProjectId::generate()]), 0..12),
        fleet in prop::collection::vec(any_host(), 0..5),
    ) {
        let decision = decide(&queue, &fleet);
        prop_assert_eq!(&decision, &decide(&queue, &fleet), "the same again");
        prop_assert_eq!(decision.placements.len() + decision.reasons.len(), queue.len());
        for host in &fleet {
            let mine: Vec<_> = decision.placements.iter().filter(|p| p.agent == host.agent).collect();
            prop_assert!(host.closed.is_none() || mine.is_empty());
            let asked = |p: &Placement| queue.iter().find(|job| job.job == p.job).unwrap();
            let cpus: u64 = mine.iter().map(|p| asked(p).resources.cpu_millis).sum();
            let memory: u64 = mine.iter().map(|p| asked(p).resources.memory.0).sum();
            prop_assert!(cpus <= host.cpu_free && memory <= host.memory_free);
            let mut given = BTreeSet::new();
            for placement in mine {
                let job = asked(placement);
                prop_assert_eq!(placement.gpus.len(), job.resources.gpus as usize);
                for uuid in &placement.gpus {
                    let gpu = host.gpus.iter().find(|gpu| gpu.uuid == *uuid).unwrap();
                    prop_assert!(usable(gpu) && large_enough(job, gpu));
                    prop_assert!(given.insert(uuid.clone()), "given twice");
                }
            }
        }
    }
}
