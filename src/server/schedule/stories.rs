//! Stories of `place`. What they are told with is for `properties` too.

use protocol::hardware::VolumeGrant;
use protocol::spec::Resources;
use protocol::{ByteSize, Trust};

use super::*;

pub(super) const NOW: Timestamp = Timestamp(1_000_000_000);
const HOUR: Span = Span::hours(1);

/// A demand for CPUs, a GiB, and GPUs.
pub(super) fn demand(cpus: u64, gpus: u32) -> Demand {
    Demand {
        resources: Resources {
            cpu_millis: cpus * 1_000,
            memory: ByteSize::gib(1),
            gpus,
            ..Resources::default()
        },
        runs_on: Vec::new(),
        volumes: Vec::new(),
        project: String::new(),
        trust: Trust::Trusted,
    }
}

/// An open host of 64 GiB.
pub(super) fn host(name: &str, cpus: u64, gpu_gib: &[u64]) -> Host {
    Host {
        agent: AgentId::generate(),
        name: name.to_owned(),
        closed: None,
        labels: BTreeSet::new(),
        volumes: BTreeMap::new(),
        cuda: Some("12.8".to_owned()),
        cpu_millis: cpus * 1_000,
        memory: ByteSize::gib(64).0,
        disk: ByteSize::gib(500).0,
        disk_room: ByteSize::gib(500).0,
        gpus: gpu_gib
            .iter()
            .enumerate()
            .map(|(index, gib)| HostGpu {
                uuid: format!("GPU-{name}-{index}"),
                model: format!("NVIDIA A{gib}"),
                memory: ByteSize::gib(*gib).0,
                compute_capability: "8.0".to_owned(),
                profile: None,
                nvlink: None,
                trouble: None,
                lent: None,
            })
            .collect(),
        bookings: Vec::new(),
    }
}

/// What an attempt has on a host for so long.
pub(super) fn booked(after: Span, gpus: &[usize]) -> Booked {
    Booked {
        until: NOW + after,
        cpu_millis: 1_000,
        memory: ByteSize::gib(1).0,
        disk: 0,
        gpus: gpus.to_vec(),
    }
}

/// A queue that is told job by job.
#[derive(Default)]
struct Told(Queue);

impl Told {
    fn with(demands: Vec<Demand>) -> Self {
        let mut queue = Queue::default();
        for demand in demands {
            queue.demands.push(demand);
            queue.projects.push(Project::default());
            let number = queue.jobs.len();
            queue.jobs.push(Waiting {
                job: JobId::generate(),
                project: 0,
                demand: number,
                environment: None,
                group: None,
                priority: 0,
                since: Timestamp(number as i64),
                expected: HOUR,
                failed_on: Vec::new(),
            });
        }
        Self(queue)
    }

    fn job(mut self, number: usize, change: impl FnOnce(&mut Waiting)) -> Self {
        change(&mut self.0.jobs[number]);
        self
    }

    fn place(&self, fleet: &[Host]) -> Decision {
        place(&self.0, fleet, NOW)
    }
}

fn decide(demand: Demand, fleet: &[Host]) -> Decision {
    Told::with(vec![demand]).place(fleet)
}

fn reason(demand: Demand, fleet: &[Host]) -> String {
    let decision = decide(demand, fleet);
    decision.reasons[decision.left[0].reason].clone()
}

/// The jobs that go, and where.
fn went(decision: &Decision) -> Vec<(usize, usize)> {
    decision
        .placements
        .iter()
        .map(|p| (p.job, p.host))
        .collect()
}

#[test]
fn the_smallest_gpu_that_satisfies_is_taken() {
    let mut demand = demand(1, 1);
    demand.resources.gpu_memory = Some(ByteSize::gib(20));
    let fleet = [host("big", 8, &[80]), host("small", 8, &[16, 24, 80])];
    let decision = decide(demand, &fleet);
    assert_eq!(
        (decision.placements[0].host, &decision.placements[0].gpus),
        (1, &vec![1])
    );
}

#[test]
fn a_job_without_gpus_leaves_gpu_hosts_alone() {
    let fleet = [host("gpu", 4, &[80]), host("cpu", 64, &[])];
    assert_eq!(went(&decide(demand(1, 0), &fleet)), [(0, 1)]);
}

#[test]
fn the_fullest_host_is_filled_first() {
    let mut fleet = [
        host("a", 8, &[80; 4]),
        host("b", 8, &[80; 4]),
        host("c", 8, &[80; 4]),
    ];
    fleet[1].bookings = vec![booked(HOUR, &[0])];
    fleet[2].bookings = vec![booked(HOUR, &[0, 1])];
    assert_eq!(went(&decide(demand(1, 2), &fleet)), [(0, 2)]);
    assert_eq!(went(&decide(demand(1, 3), &fleet)), [(0, 1)]);
}

#[test]
fn a_sick_or_booked_gpu_is_not_given() {
    let mut sick = host("sick", 8, &[80, 80]);
    sick.gpus[0].trouble = Some("in quarantine: XID 79".to_owned());
    sick.bookings = vec![booked(HOUR, &[1])];
    let decision = decide(demand(1, 1), &[sick]);
    assert!(decision.placements.is_empty());
    let words = "needs 1 GPU, 1 CPU and 1 GiB; sick has 0 of 2 such GPUs, 7 CPUs and 63 GiB free (1 in quarantine: XID 79)";
    assert_eq!(decision.reasons, [words]);
    assert_eq!(decision.left[0].expected, Some(NOW + HOUR));
}

#[test]
fn who_waits_for_a_lent_gpu_is_told_by_whom_and_until_when() {
    let lent = |by: &str, after: Span| {
        Some(Lent {
            until: NOW + after,
            by: by.to_owned(),
        })
    };
    let mut node = host("node", 8, &[80, 80, 80, 24]);
    node.gpus[0].lent = lent("ada", HOUR);
    node.gpus[1].lent = lent("ada", HOUR);
    node.gpus[2].lent = lent("bob", Span::hours(30));
    let mut one = demand(1, 1);
    one.resources.gpu_memory = Some(ByteSize::gib(80));
    let decision = decide(one.clone(), std::slice::from_ref(&node));
    assert_eq!(
        decision.reasons,
        [
            "needs 1 GPU with 80 GiB, 1 CPU and 1 GiB; node has 0 of 3 such GPUs, 8 CPUs and 64 GiB free \
             (2 reserved by ada until 14:46 UTC, 1 reserved by bob until Jan 13, 19:46 UTC)"
        ]
    );
    assert_eq!(decision.left[0].expected, Some(NOW + HOUR));
    let kept = &decision.reserved[0];
    assert_eq!((kept.at, &kept.place.gpus), (NOW + HOUR, &vec![0]));
    // Its time is over, and its agent has not said so yet.
    node.gpus[0].lent = lent("ada", Span(0));
    let decision = decide(one, &[node]);
    assert!(decision.placements.is_empty());
    assert_eq!(decision.left[0].expected, Some(NOW + Span::secs(60)));
}

#[test]
fn another_host_goes_first_after_a_platform_fault() {
    let fleet = [host("a", 4, &[]), host("b", 64, &[])];
    let told = Told::with(vec![demand(1, 0)]);
    assert_eq!(went(&told.place(&fleet)), [(0, 0)]);
    let told = told.job(0, |job| job.failed_on = vec![(0, NOW)]);
    assert_eq!(went(&told.place(&fleet)), [(0, 1)]);
    assert_eq!(went(&told.place(&fleet[..1])), [(0, 0)]);
}

#[test]
fn a_job_is_kept_for_a_while_from_the_host_that_failed_it() {
    let mut fleet = [host("bad", 8, &[80]), host("good", 8, &[80])];
    fleet[1].bookings = vec![booked(HOUR, &[0])];
    let until = NOW + Span::secs(300);
    let told = Told::with(vec![demand(1, 1), demand(1, 1)]).job(0, |job| {
        job.failed_on = vec![(0, until)];
    });
    let decision = told.place(&fleet);
    assert_eq!(went(&decision), [(1, 0)], "others may have it");
    let told = Told::with(vec![demand(1, 1)]).job(0, |job| {
        job.failed_on = vec![(0, until)];
    });
    let decision = told.place(&fleet);
    assert!(decision.placements.is_empty());
    assert_eq!(decision.left[0].expected, Some(until));
    let words = "failed on bad for a fault of the platform, and is kept from it until 13:51 UTC; no other host has room";
    assert_eq!(decision.reasons, [words]);
    assert_eq!(
        went(&told.place(&fleet[..1])),
        [(0, 0)],
        "there is no other"
    );
    let told = told.job(0, |job| job.failed_on.clear());
    assert_eq!(went(&told.place(&fleet)), [(0, 0)]);
}

#[test]
fn a_host_from_which_a_job_is_kept_hides_no_other_that_failed_it_long_ago() {
    // The cheapest is the one that failed it last; the only one that never did is busy.
    let mut fleet = [
        host("last", 8, &[80]),
        host("before", 64, &[80]),
        host("busy", 8, &[80]),
    ];
    fleet[2].bookings = vec![booked(HOUR, &[0])];
    let until = NOW + Span::secs(300);
    let told = Told::with(vec![demand(1, 1)]).job(0, |job| {
        job.failed_on = vec![(0, NOW), (1, NOW), (0, until)];
    });
    assert_eq!(went(&told.place(&fleet)), [(0, 1)]);
    // A host whose time is over is waited for like any other.
    fleet[1].bookings = vec![booked(HOUR, &[0])];
    assert_eq!(went(&told.place(&fleet[..2])), []);
    assert_eq!(told.place(&fleet[..2]).left[0].expected, Some(until));
}

#[test]
fn a_host_that_has_the_environment_wins_a_tie() {
    let fleet = [host("a", 8, &[80]), host("b", 64, &[80])];
    let mut told = Told::with(vec![demand(1, 1)]);
    assert_eq!(went(&told.place(&fleet)), [(0, 0)], "the fullest");
    told.0.warm = vec![BTreeSet::from([1])];
    let mut told = told.job(0, |job| job.environment = Some(0));
    assert_eq!(went(&told.place(&fleet)), [(0, 1)]);
    let mut larger = fleet.clone();
    larger[1] = host("b", 64, &[80, 80]);
    assert_eq!(
        went(&told.place(&larger)),
        [(0, 0)],
        "no tie: it would break a pair"
    );
    told.0.jobs[0].failed_on = vec![(1, NOW)];
    assert_eq!(went(&told.place(&fleet)), [(0, 0)]);
}

#[test]
fn priority_then_the_smaller_share_then_age() {
    let mut told = Told::with(vec![demand(1, 0), demand(1, 0), demand(1, 0)]);
    told.0.projects[0].used = 4_000;
    let told = told
        .job(1, |job| job.project = 1)
        .job(2, |job| job.priority = 1);
    let order: Vec<usize> = went(&told.place(&[host("a", 8, &[])]))
        .iter()
        .map(|p| p.0)
        .collect();
    assert_eq!(order, [2, 1, 0]);
}

#[test]
fn projects_take_turns_however_many_jobs_one_has() {
    let mut told = Told::with((0..8).map(|_| demand(1, 1)).collect());
    for job in [6, 7] {
        told.0.jobs[job].project = 1;
    }
    let order: Vec<usize> = went(&told.place(&[host("a", 8, &[80; 4])]))
        .iter()
        .map(|p| p.0)
        .collect();
    assert_eq!(order, [0, 6, 1, 7]);
}

#[test]
fn what_a_large_job_waits_for_is_kept_and_only_short_jobs_pass() {
    let mut node = host("node", 64, &[80, 80]);
    node.bookings = vec![booked(HOUR, &[0])];
    let two = demand(1, 2);
    let one = demand(1, 1);
    let told = Told::with(vec![two, one.clone(), one])
        .job(1, |job| job.expected = Span::hours(2))
        .job(2, |job| job.expected = Span::secs(60));
    let decision = told.place(&[node]);
    assert_eq!(went(&decision), [(2, 0)]);
    let kept = &decision.reserved[0];
    assert_eq!(
        (kept.at, kept.place.job, kept.place.gpus.len()),
        (NOW + HOUR, 0, 2)
    );
    assert_eq!(decision.left[0].expected, Some(NOW + HOUR));
}

#[test]
fn a_long_job_passes_where_it_touches_nothing_that_is_kept() {
    let mut node = host("node", 64, &[80, 80, 24]);
    node.bookings = vec![booked(HOUR, &[0])];
    let mut two = demand(4, 2);
    two.resources.gpu_memory = Some(ByteSize::gib(80));
    let told = Told::with(vec![two, demand(1, 1), demand(60, 0)])
        .job(1, |job| job.expected = Span::hours(9))
        .job(2, |job| job.expected = Span::hours(9));
    let decision = told.place(&[node]);
    assert_eq!(
        went(&decision),
        [(1, 0)],
        "60 CPUs would leave too few for the first"
    );
    assert!(
        decision.reasons[1].contains("is kept for a job that waits longer"),
        "{decision:?}"
    );
}

#[test]
fn nvlink_neighbours_are_taken_together() {
    let mut node = host("node", 64, &[80; 4]);
    for (gpu, link) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
        node.gpus[gpu].nvlink = Some(link);
    }
    let two = decide(demand(1, 2), std::slice::from_ref(&node));
    assert_eq!(two.placements[0].gpus, [0, 2]);
    node.bookings = vec![booked(HOUR, &[0])];
    let one = decide(demand(1, 1), std::slice::from_ref(&node));
    assert_eq!(one.placements[0].gpus, [2], "the pair stays whole");
    let mut three = demand(1, 3);
    assert_eq!(
        decide(three.clone(), std::slice::from_ref(&node))
            .placements
            .len(),
        1
    );
    three.resources.nvlink = true;
    let words = "needs 3 GPUs joined by NVLink; the nearest, node, has 2 that are";
    assert_eq!(reason(three, &[node]), words);
}

#[test]
fn slices_are_given_to_those_who_ask_for_their_profile() {
    let mut node = host("node", 8, &[10, 10, 80]);
    for slice in &mut node.gpus[..2] {
        slice.profile = Some("1g.10gb".to_owned());
        slice.model = "NVIDIA A100-SXM4-80GB MIG 1g.10gb".to_owned();
    }
    let fleet = [node];
    assert_eq!(decide(demand(1, 1), &fleet).placements[0].gpus, [2]);
    let mut slice = demand(1, 2);
    slice.resources.mig = Some("1g.10gb".to_owned());
    slice.resources.gpu_models = vec!["a100-80gb".parse().unwrap()];
    assert_eq!(decide(slice.clone(), &fleet).placements[0].gpus, [0, 1]);
    slice.resources.mig = Some("2g.20gb".to_owned());
    let words = "node has no MIG slice of the profile 2g.20gb; there are 1g.10gb";
    assert_eq!(reason(slice, &fleet), words);
}

#[test]
fn a_volume_is_for_those_who_may_mount_it() {
    let mut node = host("node", 8, &[]);
    let grant = |projects: Option<&str>| VolumeGrant {
        public: false,
        projects: projects.map(|name| vec![name.to_owned()]),
    };
    node.volumes.insert("imagenet".to_owned(), grant(None));
    node.volumes
        .insert("secret".to_owned(), grant(Some("digits")));
    let wants = |volume: &str, trust| Demand {
        volumes: vec![volume.to_owned()],
        project: "churn".to_owned(),
        trust,
        ..demand(1, 0)
    };
    let fleet = [node];
    assert_eq!(
        decide(wants("imagenet", Trust::Trusted), &fleet)
            .placements
            .len(),
        1
    );
    for (volume, trust, words) in [
        (
            "imagenet",
            Trust::Untrusted,
            "the volume 'imagenet' of node is not public",
        ),
        (
            "secret",
            Trust::Trusted,
            "the volume 'secret' of node is not for this project",
        ),
        (
            "imagenett",
            Trust::Trusted,
            "no agent has the volume 'imagenett'; there are imagenet, secret",
        ),
    ] {
        let reason = reason(wants(volume, trust), &fleet);
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn quotas_and_groups_keep_jobs_back() {
    let fleet = [host("a", 8, &[80; 4])];
    let mut told = Told::with(vec![demand(1, 2), demand(1, 1), demand(1, 0)]);
    told.0.projects[0] = Project {
        name: "digits".to_owned(),
        gpus: 1,
        quota: Quota {
            gpus: Some(2),
            gpu_hours: Some(10),
        },
        ..Project::default()
    };
    let decision = told.place(&fleet);
    assert_eq!(went(&decision), [(1, 0), (2, 0)]);
    let words = "needs 2 GPUs; digits has 2 of the 2 that its quota gives it at once";
    assert_eq!(decision.reasons, [words]);
    // Nobody knows when what runs ends.
    assert_eq!(decision.left[0].expected, None);
    told.0.projects[0].gpu_ends = vec![(NOW + Span::hours(3), 1)];
    let decision = told.place(&fleet);
    assert_eq!(decision.left[0].expected, Some(NOW + Span::hours(3)));
    told.0.projects[0].gpu_week = Span::hours(10);
    told.0.projects[0].gpu_week_over = Some(NOW + Span::hours(5));
    let decision = told.place(&fleet);
    assert_eq!(went(&decision), [(2, 0)]);
    assert_eq!(decision.left[1].expected, Some(NOW + Span::hours(5)));
    assert!(
        decision.reasons[1].contains("10 of the 10 GPU-hours"),
        "{decision:?}"
    );

    let mut told = Told::with(vec![demand(1, 0), demand(1, 0)]);
    told.0.groups = vec![Group {
        name: "deploy".to_owned(),
        holder: None,
    }];
    let told = told
        .job(0, |job| job.group = Some(0))
        .job(1, |job| job.group = Some(0));
    let decision = told.place(&fleet);
    assert_eq!(went(&decision), [(0, 0)]);
    let words = "of the concurrency group 'deploy' one job runs at a time: it waits for a job that starts now";
    assert_eq!(decision.reasons, [words]);
    assert_eq!(decision.left[0].expected, Some(NOW + HOUR));
}

#[test]
fn a_disk_that_others_fill_is_not_given_away_and_refuses_nothing_for_ever() {
    let mut wants = demand(1, 0);
    wants.resources.disk = Some(ByteSize::gib(300));
    let mut full = host("full", 8, &[]);
    full.disk_room = ByteSize::gib(30).0;
    assert_eq!(impossible(&wants, std::slice::from_ref(&full)), None);
    let decision = Told::with(vec![wants.clone()]).place(&[full.clone()]);
    assert_eq!(went(&decision), []);
    let words =
        "needs 1 CPU and 1 GiB, 300 GiB of disk; full has 8 CPUs and 64 GiB, 30 GiB of disk free";
    assert_eq!(decision.reasons, [words]);
    assert_eq!(decision.left[0].expected, None, "nobody knows");
    // What a job that runs has asked for comes back with its end.
    full.disk_room = ByteSize::gib(310).0;
    full.bookings = vec![Booked {
        disk: ByteSize::gib(100).0,
        ..booked(HOUR, &[])
    }];
    let decision = Told::with(vec![wants.clone()]).place(&[full.clone()]);
    assert_eq!(decision.left[0].expected, Some(NOW + HOUR));
    // Others took of what it was promised: its end gives back the rest.
    let mut promised = full.clone();
    promised.disk_room = ByteSize::gib(310).0;
    promised.bookings = [(HOUR, 200), (Span::hours(2), 150)]
        .map(|(after, gib)| Booked {
            disk: ByteSize::gib(gib).0,
            ..booked(after, &[])
        })
        .to_vec();
    let decision = Told::with(vec![wants.clone()]).place(&[promised.clone()]);
    assert_eq!(decision.left[0].expected, Some(NOW + Span::hours(2)));
    promised.disk_room = ByteSize::gib(299).0;
    let decision = Told::with(vec![wants.clone()]).place(&[promised]);
    assert_eq!(decision.left[0].expected, None);
    let roomy = host("roomy", 8, &[]);
    let decision = Told::with(vec![wants]).place(&[full, roomy]);
    assert_eq!(went(&decision), [(0, 1)]);
}

#[test]
fn every_reason_says_what_to_do() {
    let plain = demand(16, 0);
    assert!(reason(plain.clone(), &[]).contains("trainyard agent register"));
    let small = reason(plain.clone(), &[host("a", 8, &[])]);
    assert!(
        small.contains("no host has that: the nearest, a, has 8 CPUs"),
        "{small}"
    );
    let mut labelled = plain.clone();
    labelled.runs_on = vec!["dc-a".to_owned()];
    let wrong = reason(labelled, &[host("a", 64, &[])]);
    assert_eq!(wrong, "no agent has the labels dc-a of `runs_on`");
    let mut drained = host("a", 64, &[]);
    drained.closed = Some("drained".to_owned());
    assert_eq!(
        reason(plain, &[drained]),
        "hosts that fit take nothing now: a (drained)"
    );
}

#[test]
fn what_no_host_could_ever_fulfil_names_the_nearest_that_could() {
    let fleet = [host("small", 8, &[24]), host("large", 64, &[80, 80])];
    let cannot = |change: &dyn Fn(&mut Resources)| {
        let mut demand = demand(1, 1);
        change(&mut demand.resources);
        impossible(&demand, &fleet)
    };
    assert_eq!(cannot(&|_| ()), None);
    assert_eq!(impossible(&demand(1, 9), &[]), None, "nobody knows yet");
    let model = |text: &str| vec![text.parse().unwrap()];
    for (words, said) in [
        (
            "needs 4 GPUs on one host; the nearest, large, has 2",
            cannot(&|r| r.gpus = 4),
        ),
        (
            "the largest, of large, has 80 GiB",
            cannot(&|r| r.gpu_memory = Some(ByteSize::gib(94))),
        ),
        (
            "no host has a GPU of the model 'H100'; there are NVIDIA A24, NVIDIA A80",
            cannot(&|r| r.gpu_models = model("H100")),
        ),
        (
            "needs a GPU of compute capability 9.0 or higher; the nearest, of large, has 8.0",
            cannot(&|r| r.compute_capability = ">=9.0".parse().ok()),
        ),
        (
            "needs CUDA 13.0 or newer; the driver of large runs 12.8",
            cannot(&|r| r.cuda = ">=13.0".parse().ok()),
        ),
        (
            "the nearest, large, has 64 CPUs",
            cannot(&|r| r.cpu_millis = 128_000),
        ),
    ] {
        let said = said.unwrap_or_default();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn those_behind_are_told_when_their_turn_will_be() {
    let mut node = host("node", 64, &[80, 80]);
    node.bookings = vec![booked(HOUR, &[0]), booked(HOUR, &[1])];
    let told = Told::with((0..5).map(|_| demand(1, 1)).collect());
    // Of one demand, as rows give them.
    let told = (0..5).fold(told, |told, n| told.job(n, |job| job.demand = 0));
    let decision = told.place(&[node]);
    let starts: Vec<u64> = decision
        .left
        .iter()
        .map(|left| left.expected.unwrap().since(NOW).0 / HOUR.0)
        .collect();
    assert_eq!(starts, [1, 1, 2, 2, 3]);
}
