//! Properties of `place`, over queues and fleets that nobody thought of.

use proptest::prelude::*;
use protocol::ByteSize;

use super::stories::{NOW, booked, demand, host};
use super::*;

/// Numbers that make a job: project, priority, age, demand, expected minutes.
type Seed = (usize, i64, i64, usize, u64);

fn demands() -> Vec<Demand> {
    let mut all = vec![
        demand(1, 0),
        demand(4, 0),
        demand(1, 1),
        demand(2, 2),
        demand(8, 4),
    ];
    let mut large = demand(1, 1);
    large.resources.gpu_memory = Some(ByteSize::gib(40));
    let mut joined = demand(1, 2);
    joined.resources.nvlink = true;
    let mut wide = demand(1, 0);
    wide.resources.disk = Some(ByteSize::gib(40));
    all.extend([large, joined, wide]);
    all
}

fn queue(seeds: &[Seed], quota: Option<u32>) -> Queue {
    let job = |(number, seed): (usize, &Seed)| Waiting {
        job: format!("01{number:024}").parse().unwrap(),
        project: seed.0,
        demand: seed.3,
        environment: None,
        group: None,
        priority: seed.1,
        since: Timestamp(seed.2),
        expected: Span::secs(60 * seed.4),
        failed_on: Vec::new(),
    };
    let project = Project {
        quota: Quota {
            gpus: quota,
            gpu_hours: None,
        },
        ..Project::default()
    };
    Queue {
        jobs: seeds.iter().enumerate().map(job).collect(),
        demands: demands(),
        projects: vec![project.clone(), project],
        ..Queue::default()
    }
}

fn seeds(most: usize) -> impl Strategy<Value = Vec<Seed>> {
    prop::collection::vec(
        (0..2_usize, 0..2_i64, 0..20_i64, 0..8_usize, 1..300_u64),
        0..most,
    )
}

/// Stands for a GPU that is lent, among the hours for which one is booked.
const LENT: u64 = 4;

prop_compose! {
    fn any_host()(
        cpus in 6_u64..16,
        gpus in prop::collection::vec((prop::sample::select(vec![24_u64, 80]), any::<bool>(), 0..=LENT, 0_u32..2), 0..6),
        closed in any::<bool>(), name in "[a-z]{4}", disk in 0..100_u64, room in 0..100_u64,
    ) -> Host {
        let sizes: Vec<u64> = gpus.iter().map(|(gib, ..)| *gib).collect();
        let mut host = host(&name, cpus, &sizes);
        host.disk = ByteSize::gib(disk).0;
        host.disk_room = ByteSize::gib(room).0.min(host.disk);
        for (number, (gpu, (_, healthy, hours, link))) in host.gpus.iter_mut().zip(&gpus).enumerate() {
            gpu.trouble = (!healthy).then(|| "lost".to_owned());
            gpu.nvlink = Some(*link);
            match *hours {
                0 => {}
                LENT => {
                    let (until, by) = (NOW + Span::hours(2), "ada".to_owned());
                    gpu.lent = Some(Lent { until, by });
                }
                hours => host.bookings.push(booked(Span::hours(hours), &[number])),
            }
        }
        host.closed = closed.then(|| "drained".to_owned());
        host
    }
}

fn fleet(most: usize) -> impl Strategy<Value = Vec<Host>> {
    prop::collection::vec(any_host(), 0..most)
}

/// What is taken of a host at a time, by what was booked and what is placed now.
fn taken(queue: &Queue, fleet: &[Host], placements: &[&Placement], at: Timestamp) -> Vec<Booked> {
    let mut all: Vec<Booked> = vec![Booked::default(); fleet.len()];
    let add = |to: &mut Booked, has: &Booked| {
        to.cpu_millis += has.cpu_millis;
        to.memory += has.memory;
        to.disk += has.disk;
        to.gpus.extend(&has.gpus);
    };
    for (to, host) in all.iter_mut().zip(fleet) {
        for has in host.bookings.iter().filter(|has| has.until > at) {
            add(to, has);
        }
    }
    for placement in placements {
        let job = &queue.jobs[placement.job];
        if NOW + job.expected > at {
            let wants = &queue.demands[job.demand].resources;
            let has = Booked {
                until: NOW + job.expected,
                cpu_millis: wants.cpu_millis,
                memory: wants.memory.0,
                disk: wants.disk.map_or(0, |disk| disk.0),
                gpus: placement.gpus.clone(),
            };
            add(&mut all[placement.host], &has);
        }
    }
    all
}

/// Whether a host can have all that: no GPU twice, and no more than it has, but for what was so before.
fn holds(host: &Host, all: &Booked) -> bool {
    let distinct: BTreeSet<_> = all.gpus.iter().collect();
    distinct.len() == all.gpus.len()
        && all.cpu_millis <= host.cpu_millis
        && all.memory <= host.memory
        && all.disk <= host.disk_room
}

/// By ids, so that places in a list do not matter.
fn by_id(queue: &Queue, fleet: &[Host], decision: &Decision) -> (Vec<String>, Vec<String>) {
    let gpus = |p: &Placement| -> Vec<&str> {
        p.gpus
            .iter()
            .map(|gpu| fleet[p.host].gpus[*gpu].uuid.as_str())
            .collect()
    };
    let went = |p: &Placement| {
        let job = &queue.jobs[p.job].job;
        format!("{job} on {} with {:?}", fleet[p.host].agent, gpus(p))
    };
    let stays = |left: &Left| {
        let why = &decision.reasons[left.reason];
        format!("{}: {why} {:?}", queue.jobs[left.job].job, left.expected)
    };
    (
        decision.placements.iter().map(went).collect(),
        decision.left.iter().map(stays).collect(),
    )
}

proptest! {
    #[test]
    fn nothing_is_given_twice_and_nothing_is_forgotten(
        seeds in seeds(16), fleet in fleet(5), quota in prop::option::of(0_u32..6),
    ) {
        let queue = queue(&seeds, quota);
        let decision = place(&queue, &fleet, NOW);
        let mut seen: Vec<usize> = decision.placements.iter().map(|p| p.job).collect();
        seen.extend(decision.left.iter().map(|left| left.job));
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..queue.jobs.len()).collect::<Vec<_>>());
        let all: Vec<&Placement> = decision.placements.iter().collect();
        let before = taken(&queue, &fleet, &[], NOW);
        for ((host, all), before) in fleet.iter().zip(taken(&queue, &fleet, &all, NOW)).zip(before) {
            prop_assert!(all == before || holds(host, &all), "{}: {:?}", host.name, all);
        }
        let mut gpus = [0, 0];
        for placement in &decision.placements {
            let (job, host) = (&queue.jobs[placement.job], &fleet[placement.host]);
            let wants = &queue.demands[job.demand];
            prop_assert!(host.closed.is_none());
            prop_assert_eq!(placement.gpus.len(), wants.resources.gpus as usize);
            gpus[job.project] += wants.resources.gpus;
            for gpu in &placement.gpus {
                let gpu = &host.gpus[*gpu];
                prop_assert!(gpu.trouble.is_none() && gpu.lent.is_none() && wants.admits(gpu));
            }
            let links: BTreeSet<_> = placement.gpus.iter().map(|gpu| host.gpus[*gpu].nvlink).collect();
            prop_assert!(!wants.resources.nvlink || links.len() == 1);
        }
        prop_assert!(quota.is_none_or(|most| gpus.iter().all(|has| *has <= most)));
    }

    #[test]
    fn the_order_of_what_it_is_given_does_not_matter(
        (seeds, mixed) in seeds(16).prop_flat_map(|seeds| {
            let order = Just((0..seeds.len()).collect::<Vec<_>>()).prop_shuffle();
            (Just(seeds), order)
        }),
        (fleet, turned) in fleet(5).prop_flat_map(|fleet| (Just(fleet.clone()), Just(fleet).prop_shuffle())),
    ) {
        let queue = queue(&seeds, None);
        let decision = place(&queue, &fleet, NOW);
        prop_assert_eq!(&decision, &place(&queue, &fleet, NOW), "the same again");
        let other = Queue {
            jobs: mixed.iter().map(|number| queue.jobs[*number].clone()).collect(),
            ..queue.clone()
        };
        let again = place(&other, &turned, NOW);
        prop_assert_eq!(by_id(&queue, &fleet, &decision), by_id(&other, &turned, &again));
    }

    #[test]
    fn who_passes_delays_nobody_for_whom_something_is_kept(seeds in seeds(24), fleet in fleet(4)) {
        let queue = queue(&seeds, None);
        let decision = place(&queue, &fleet, NOW);
        for kept in &decision.reserved {
            let mut all: Vec<&Placement> = decision.placements.iter().collect();
            // Its own time is not over at the start that it was promised.
            let mut queue = queue.clone();
            queue.jobs[kept.place.job].expected = Span::hours(100);
            all.push(&kept.place);
            let at = taken(&queue, &fleet, &all, kept.at);
            let host = &fleet[kept.place.host];
            prop_assert!(holds(host, &at[kept.place.host]), "{kept:?} {:?}", at[kept.place.host]);
        }
    }

    #[test]
    fn a_large_job_starts_within_its_reservation_however_many_small_ones_come(
        small in prop::collection::vec((0_u64..200, 1_u64..200), 0..60), busy in prop::collection::vec(1_u64..200, 4),
    ) {
        let minutes = |n: u64| Span::secs(60 * n);
        let mut node = host("node", 64, &[80; 4]);
        node.bookings = busy.iter().enumerate().map(|(gpu, n)| booked(minutes(*n), &[gpu])).collect();
        // The large job and those that come later, each with its hour of coming.
        let mut coming: Vec<(Timestamp, Waiting)> = small
            .iter()
            .map(|(after, takes)| (*after, 2, *takes))
            .chain([(0, 4, 60)])
            .enumerate()
            .map(|(number, (after, demand, takes))| {
                let at = NOW + minutes(after);
                let seed = (0, 0, if demand == 4 { 0 } else { at.0 }, demand, takes);
                let mut job = queue(&[seed], None).jobs.remove(0);
                job.job = format!("01{number:024}").parse().unwrap();
                (at, job)
            })
            .collect();
        let (mut now, mut waiting, mut promised) = (NOW, Vec::new(), None);
        loop {
            waiting.extend(coming.extract_if(.., |(at, _)| *at <= now).map(|(_, job)| job));
            let queue = Queue { jobs: waiting.clone(), ..queue(&[], None) };
            let decision = place(&queue, std::slice::from_ref(&node), now);
            let large = queue.jobs.iter().position(|job| job.demand == 4);
            let started = decision.placements.iter().any(|p| Some(p.job) == large);
            if started {
                prop_assert!(promised.is_none_or(|at| now <= at), "{now:?} after {promised:?}");
                break;
            }
            promised = promised.or(decision.reserved.first().map(|kept| kept.at));
            prop_assert!(promised.is_some_and(|at| now < at), "{now:?}: nothing is kept, or it passed");
            for p in &decision.placements {
                node.bookings.push(Booked {
                    until: now + queue.jobs[p.job].expected,
                    gpus: p.gpus.clone(),
                    ..booked(Span(0), &[])
                });
            }
            waiting = decision.left.iter().map(|left| queue.jobs[left.job].clone()).collect();
            let ends = node.bookings.iter().map(|has| has.until);
            now = ends.chain(coming.iter().map(|(at, _)| *at)).filter(|at| *at > now).min().unwrap();
            node.bookings.retain(|has| has.until > now);
        }
    }
}
