//! What happens in a round, from its seed and number alone.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use protocol::FailureKind;

use crate::support::project::notebook;

/// Of the short form: chosen once, so that a change is not blamed for what another seed finds.
pub(super) const SHORT_SEED: u64 = 776;
pub(super) const SHORT_ROUNDS: u32 = 3;

/// One round.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) seed: u64,
    pub(super) number: u32,
    pub(super) jobs: Vec<Job>,
    /// One after the other.
    pub(super) faults: Vec<Fault>,
}

/// A job, and how it would end without faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    /// Prints lines and leaves a file.
    Lines,
    /// Prints lines from cells.
    Notebook,
    /// Says which two GPUs it has, and prints lines.
    Gpus,
    /// Exits with 3.
    Wrong,
    /// Runs into its time-out.
    Slow,
}

#[derive(Debug)]
pub(super) struct Fault {
    pub(super) when: When,
    pub(super) deed: Deed,
}

/// What a fault waits for; when all is over, it waits no longer.
#[derive(Debug)]
pub(super) struct When {
    /// Index of a job.
    pub(super) job: usize,
    /// So many events of its last attempt are with the server.
    pub(super) events: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    /// `kill -9` of the job's agent, and a start after a pause.
    KillAgent(Duration),
    /// `kill -9`, and a start after a pause.
    KillServer(Duration),
    /// `kill -9` of all of them, and a start after a pause.
    KillAll(Duration),
    /// `kill -9` of all drivers of the job's agent: of its containers' first processes, where it has containers.
    KillDriver,
    /// All containers of the job's agent are removed.
    RemoveContainer,
    /// Nothing comes through for a time.
    Cut(Duration),
    /// Every message comes late for a time.
    Delay(Duration, Duration),
    /// The answer to a message with these words gets lost.
    LoseAnswer(&'static str),
    /// A request with these words comes once more after a time, behind later ones.
    Repeat(&'static str, Duration),
    /// The job's agent stands still for a time.
    Stop(Duration),
    /// A GPU of the job's host reports an XID.
    Xid(usize),
    /// A GPU of the job's host does not answer for a time.
    LoseGpu(usize, Duration),
    /// Somebody uses a GPU of the job's host for a time.
    UseGpu(usize, Duration),
    /// Somebody takes all of the disk of the job's agent for a time.
    FillDisk(Duration),
    /// Somebody takes all of the server's disk for a time.
    FillServerDisk(Duration),
    /// The server's wall clock is so many seconds off for a time.
    StepClock(i64, Duration),
    /// The engine of the job's agent is away for a time. Containers run on.
    CutEngine(Duration),
    /// The same, and the containers end with it.
    RestartEngine(Duration),
}

/// Of each host with containers: the fleet `mixed`.
const GPUS: usize = 4;
/// Events of a job's story that are enough to be near its end.
const MOST_EVENTS: usize = 14;

impl Round {
    pub(super) fn new(seed: u64, number: u32) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number.into()));
        let mut jobs = vec![Job::Lines, Job::Notebook, Job::Gpus];
        let more = [Job::Lines, Job::Gpus, Job::Gpus, Job::Wrong, Job::Slow];
        for _ in 0..rng.usize(1..=2) {
            jobs.push(more[rng.usize(..more.len())]);
        }
        let fault = |_| Fault {
            when: When {
                job: rng.usize(..jobs.len()),
                events: rng.usize(..MOST_EVENTS),
            },
            deed: Deed::any(&mut rng),
        };
        let faults = (0..3).map(fault).collect();
        Self {
            seed,
            number,
            jobs,
            faults,
        }
    }

    /// Whether agents need disks that can be filled.
    pub(super) fn fills_disks(&self) -> bool {
        let fills = |fault: &Fault| matches!(fault.deed, Deed::FillDisk(_));
        self.faults.iter().any(fills)
    }

    /// Whether the server needs one.
    pub(super) fn fills_the_servers(&self) -> bool {
        let fills = |fault: &Fault| matches!(fault.deed, Deed::FillServerDisk(_));
        self.faults.iter().any(fills)
    }

    /// The project's files.
    pub(super) fn files(&self) -> Vec<(&'static str, String)> {
        let mut pipeline = "defaults: {retries: 10, reuse: false}\njobs:\n".to_owned();
        for (index, job) in self.jobs.iter().enumerate() {
            pipeline += &format!(
                "  {}:\n{}    resources: {{cpus: 0.2, memory: 256MiB, gpus: {}}}\n",
                name(index),
                job.definition(),
                job.gpus(),
            );
        }
        let cells: Vec<String> = (0..CELLS).map(cell_source).collect();
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        vec![
            (".trainyard.yml", pipeline),
            ("cells.ipynb", notebook(&cells)),
        ]
    }
}

/// Of a job in the pipeline file.
pub(super) fn name(index: usize) -> String {
    format!("job{index}")
}

/// Cells of the notebook, and lines that each prints.
const CELLS: usize = 3;
const CELL_LINES: usize = 10;
/// Lines of a command.
const LINES: usize = 40;
/// What [`Job::Lines`] leaves.
pub(super) const LEFT: (&str, u64) = ("out.bin", 3_000_000);

fn cell_source(cell: usize) -> String {
    let (from, to) = (cell * CELL_LINES + 1, (cell + 1) * CELL_LINES + 1);
    format!(
        "import time\nfor n in range({from}, {to}):\n    print('line', n, flush=True)\n    time.sleep(0.05)"
    )
}

/// The volume in which a job with GPUs writes when it sees which: it is heard also where nobody believes its attempt any
/// more.
pub(super) const MARKS: &str = "marks";
const CONTAINERS: &str = "    runs_on: [containers]\n";
const PROCESSES: &str = "    runs_on: [processes]\n";

/// Between two lines.
const PAUSE: &str = "sleep 0.05";

/// A command line that prints so many lines, and does more after each.
fn printing(lines: usize, more: &str) -> String {
    format!("i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i; {more}; done")
}

impl Job {
    fn definition(self) -> String {
        let command = |text: String| format!("    command: \"{text}\"\n");
        match self {
            Job::Lines => {
                let (path, size) = LEFT;
                let text = format!(
                    "{}; head -c {size} /dev/zero > {path}",
                    printing(LINES, PAUSE)
                );
                command(text) + &format!("    artifacts: [{path}]\n")
            }
            Job::Notebook => "    notebook: cells.ipynb\n".to_owned() + CONTAINERS,
            Job::Gpus => {
                // A file of its own for each attempt, whatever became of the others.
                let has = "echo $(date +%s%N) /dev/nvidia[0-9]* >> $me";
                let more = format!("{has}; {PAUSE}");
                let printing = printing(LINES, &more);
                let text = format!("me=/{MARKS}/$(date +%s%N)-$$; {has}; {printing}");
                command(text) + CONTAINERS + &format!("    volumes: {{{MARKS}: /{MARKS}}}\n")
            }
            Job::Wrong => command(format!("{}; exit 3", printing(LINES / 2, PAUSE))) + PROCESSES,
            Job::Slow => {
                command(format!("{}; sleep 600", printing(LINES / 2, PAUSE))) + "    timeout: 4s\n"
            }
        }
    }

    fn gpus(self) -> usize {
        match self {
            Job::Gpus => 2,
            Job::Lines | Job::Notebook | Job::Wrong | Job::Slow => 0,
        }
    }

    /// What its believed attempt says, whole.
    pub(super) fn says(self) -> String {
        let lines = match self {
            Job::Lines | Job::Gpus => LINES,
            Job::Notebook => CELLS * CELL_LINES,
            Job::Wrong | Job::Slow => LINES / 2,
        };
        (1..=lines).map(|n| format!("line {n}\n")).collect()
    }

    /// The failure that it ends with; none: it succeeds.
    pub(super) fn fails(self) -> Option<FailureKind> {
        match self {
            Job::Lines | Job::Notebook | Job::Gpus => None,
            Job::Wrong => Some(FailureKind::CommandFailed),
            Job::Slow => Some(FailureKind::JobTimeout),
        }
    }
}

impl Deed {
    fn any(rng: &mut Rng) -> Self {
        let pause = Duration::from_millis(rng.u64(..1_500));
        let gpu = rng.usize(..GPUS);
        let time = Duration::from_millis(rng.u64(200..2_000));
        match rng.u32(..146) {
            0..18 => Deed::KillAgent(pause),
            18..32 => Deed::KillServer(pause),
            32..38 => Deed::KillAll(pause),
            38..48 => Deed::KillDriver,
            48..54 => Deed::RemoveContainer,
            54..64 => Deed::Cut(Duration::from_millis(rng.u64(200..3_000))),
            64..70 => Deed::Delay(
                Duration::from_millis(rng.u64(50..400)),
                Duration::from_secs(3),
            ),
            70..80 => Deed::LoseAnswer(ANSWERS[rng.usize(..ANSWERS.len())]),
            80..90 => Deed::Repeat(
                REQUESTS[rng.usize(..REQUESTS.len())],
                Duration::from_millis(rng.u64(200..2_000)),
            ),
            90..95 => Deed::Stop(Duration::from_millis(rng.u64(500..1_800))),
            95..100 => Deed::Stop(Duration::from_millis(rng.u64(6_000..9_000))),
            100..105 => Deed::Xid(gpu),
            105..110 => Deed::LoseGpu(gpu, time),
            110..115 => Deed::UseGpu(gpu, time),
            115..123 => Deed::FillDisk(Duration::from_millis(rng.u64(500..4_000))),
            123..131 => Deed::StepClock(
                STEPS[rng.usize(..STEPS.len())],
                Duration::from_millis(rng.u64(500..4_000)),
            ),
            131..136 => Deed::CutEngine(Duration::from_millis(rng.u64(500..4_000))),
            136..140 => Deed::RestartEngine(Duration::from_millis(rng.u64(500..4_000))),
            _ => Deed::FillServerDisk(Duration::from_millis(rng.u64(500..4_000))),
        }
    }
}

/// Seconds that a clock is stepped by.
const STEPS: [i64; 6] = [-86_400, -3_600, -30, 30, 3_600, 86_400];
/// An order to start, a batch of events, the last piece of a blob, a report.
const ANSWERS: [&str; 4] = ["\"start\":[{", "\"next\":", "HTTP/1.1 201", "\"accepted\":"];
const REQUESTS: [&str; 4] = [
    "POST /agent/v1/poll",
    "/events?",
    "PATCH /agent/v1/blobs/",
    "/finish?",
];

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} round {}: jobs {:?};",
            self.seed, self.number, self.jobs
        )?;
        for fault in &self.faults {
            let When { job, events } = fault.when;
            write!(
                f,
                " after {events} events of {}: {:?};",
                name(job),
                fault.deed
            )?;
        }
        Ok(())
    }
}
