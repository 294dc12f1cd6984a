//! Passes of the scheduler over generated queues and fleets: one JSON object a line. `scripts/bench schedule` runs
//! it and makes the table. Usage: `schedule JOBS HOSTS BUSY_PERCENT SEED PASSES`.

use std::collections::BTreeMap;
use std::time::Instant;

use protocol::api::Quota;
use protocol::spec::Resources;
use protocol::{AgentId, ByteSize, JobId, Span, Timestamp, Trust};
use server::schedule::{Booked, Demand, Host, HostGpu, Project, Queue, Waiting, place};

const NOW: Timestamp = Timestamp(1_750_000_000_000);
const PROJECTS: u64 = 40;
/// Definitions in the pipeline file of each.
const DEFINITIONS: u64 = 12;
const ENVIRONMENTS: u64 = 300;
/// Kinds of host: share in percent, model, memory in GiB, compute capability, CPUs.
const KINDS: [(u64, &str, u64, &str, u64); 5] = [
    (40, "NVIDIA A100-SXM4-80GB", 80, "8.0", 128),
    (20, "NVIDIA H100 80GB HBM3", 80, "9.0", 192),
    (20, "NVIDIA L4", 24, "8.9", 96),
    (10, "Tesla T4", 16, "7.5", 64),
    (10, "NVIDIA A100-SXM4-40GB", 40, "8.0", 128),
];

/// xorshift64*: the same numbers from the same seed, on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).expect("a place in a list")]
    }
}

/// Hosts of eight GPUs each, so many percent of them booked.
fn fleet(random: &mut Random, hosts: u64, busy: u64) -> Vec<Host> {
    (0..hosts)
        .map(|number| {
            let (mut share, mut kind) = (random.below(100), KINDS[0]);
            for of in KINDS {
                kind = of;
                if share < of.0 {
                    break;
                }
                share -= of.0;
            }
            let (_, model, gib, capability, cpus) = kind;
            let gpus: Vec<HostGpu> = (0..8)
                .map(|gpu| HostGpu {
                    uuid: format!("GPU-{number:04}-{gpu}"),
                    model: model.to_owned(),
                    memory: ByteSize::gib(gib).0,
                    compute_capability: capability.to_owned(),
                    profile: None,
                    nvlink: model.contains("SXM").then_some(gpu / 4),
                    trouble: (random.below(200) == 0).then(|| "lost".to_owned()),
                    lent: None,
                })
                .collect();
            let bookings = (0..8)
                .map(|gpu| (gpu, random.below(100), 60 + random.below(20 * 3_600)))
                .filter(|(_, share, _)| *share < busy)
                .map(|(gpu, _, seconds)| Booked {
                    until: NOW + Span::secs(seconds),
                    cpu_millis: 6_000,
                    memory: ByteSize::gib(48).0,
                    disk: 0,
                    gpus: vec![gpu],
                })
                .collect();
            let labels = ["dc-a", "dc-b", "dc-c"][..1 + random.below(3) as usize].iter();
            Host {
                agent: AgentId::generate(),
                name: format!("gpu-{number:04}"),
                closed: (random.below(100) == 0).then(|| "drained".to_owned()),
                labels: labels.map(|label| (*label).to_owned()).collect(),
                volumes: BTreeMap::new(),
                cuda: Some(random.of(&["12.2", "12.4", "12.8"]).to_owned()),
                cpu_millis: cpus * 1_000,
                memory: ByteSize::gib(cpus * 8).0,
                disk: ByteSize::gib(4_000).0,
                disk_room: ByteSize::gib(4_000).0,
                gpus,
                bookings,
            }
        })
        .collect()
}

/// Demands as people make them: most want one GPU, few eight.
fn demand(random: &mut Random) -> Demand {
    let gpus = random.of(&[0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 4, 8]);
    let mut resources = Resources {
        cpu_millis: 1_000 * random.of(&[1, 2, 4, 8, 16]),
        memory: ByteSize::gib(random.of(&[2, 4, 8, 16, 32, 64, 96])),
        gpus,
        ..Resources::default()
    };
    if gpus > 0 {
        match random.below(4) {
            0 => resources.gpu_memory = Some(ByteSize::gib(random.of(&[16, 24, 40, 80]))),
            1 => {
                let model = random.of(&["A100", "H100", "a100-80gb", "L4", "T4"]);
                resources.gpu_models = vec![model.parse().expect("a model")];
            }
            2 => resources.compute_capability = ">=8.0".parse().ok(),
            _ => resources.nvlink = gpus <= 4 && random.below(4) == 0,
        }
    }
    let label = (random.below(10) == 0).then(|| random.of(&["dc-a", "dc-b", "dc-c"]).to_owned());
    Demand {
        resources,
        runs_on: label.into_iter().collect(),
        volumes: Vec::new(),
        project: String::new(),
        trust: Trust::Trusted,
    }
}

/// A definition in a project's pipeline file: many jobs come from it.
#[derive(Clone, Copy)]
struct Definition {
    demand: usize,
    environment: usize,
    /// Its median.
    seconds: u64,
}

fn queue(random: &mut Random, jobs: u64, hosts: u64) -> Queue {
    let mut queue = Queue {
        projects: (0..PROJECTS)
            .map(|number| project(random, number))
            .collect(),
        ..Queue::default()
    };
    for _ in 0..ENVIRONMENTS {
        let warm = (0..random.below(8)).map(|_| random.below(hosts) as usize);
        queue.warm.push(warm.collect());
    }
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut definitions = Vec::new();
    for _ in 0..PROJECTS * DEFINITIONS {
        let wants = demand(random);
        let key = serde_json::to_string(&wants).expect("a demand is JSON");
        let demand = *numbers.entry(key).or_insert_with(|| {
            queue.demands.push(wants);
            queue.demands.len() - 1
        });
        definitions.push(Definition {
            demand,
            environment: random.below(ENVIRONMENTS) as usize,
            seconds: 30 + random.below(8 * 3_600),
        });
    }
    for number in 0..jobs {
        // A few projects have most of the jobs.
        let project = random.below(PROJECTS) * random.below(PROJECTS) / PROJECTS;
        let definition = definitions[(project * DEFINITIONS + random.below(DEFINITIONS)) as usize];
        let failed = (random.below(500) == 0).then(|| random.below(hosts) as usize);
        queue.jobs.push(Waiting {
            job: JobId::generate(),
            project: project as usize,
            demand: definition.demand,
            environment: Some(definition.environment),
            group: None,
            priority: random.of(&[0, 0, 0, 0, 0, 0, 0, 0, 10, -10]),
            since: NOW - Span::secs(random.below(100_000)) - Span(number % 1_000),
            // Members of a matrix take different times.
            expected: Span::secs(definition.seconds * (80 + random.below(40)) / 100),
            failed_on: failed.into_iter().map(|host| (host, NOW)).collect(),
        });
    }
    queue
}

fn project(random: &mut Random, number: u64) -> Project {
    Project {
        name: format!("project-{number}"),
        used: random.below(1_000_000_000),
        gpus: 0,
        gpu_ends: Vec::new(),
        gpu_week: Span(0),
        gpu_week_over: None,
        quota: Quota {
            gpus: number.is_multiple_of(10).then_some(64),
            gpu_hours: None,
        },
    }
}

/// A line of `/proc/self/status` in bytes.
fn memory(of: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(of));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}

fn main() {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let [jobs, hosts, busy, seed, passes] = numbers[..] else {
        eprintln!("usage: schedule JOBS HOSTS BUSY_PERCENT SEED PASSES");
        std::process::exit(2);
    };
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let fleet = fleet(&mut random, hosts, busy);
    let queue = queue(&mut random, jobs, hosts);
    for _ in 0..passes {
        let start = Instant::now();
        let decision = place(&queue, &fleet, NOW);
        let took = start.elapsed();
        println!(
            "{}",
            serde_json::json!({
                "ms": took.as_secs_f64() * 1_000.0,
                "placed": decision.placements.len(),
                "left": decision.left.len(),
                "reserved": decision.reserved.len(),
                "reasons": decision.reasons.len(),
                "demands": queue.demands.len(),
                "gpus": fleet.iter().map(|host| host.gpus.len()).sum::<usize>(),
                "peak": memory("VmHWM:"),
            })
        );
    }
}
