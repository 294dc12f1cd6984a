//! `trainyard gpus`: the GPUs of this host or of the fleet as Trainyard sees them, and what people say of them.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use agent::config::Config;
use agent::gpus::{Containers, GpuView, view};
use agent::hardware::Hardware;
use agent::ledger::{Ledger, borrower, find, until};
use anyhow::{anyhow, ensure};
use clap::{Args as ClapArgs, Subcommand};
use protocol::api::{Agent, Page};
use protocol::hardware::{Gpu, GpuDriver, GpuKind};
use protocol::{Span, Timestamp};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::client::{Client, ServerArgs};
use super::{Exit, out, signals};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard gpus                                   those of this host
  trainyard gpus --watch                           again and again, until Ctrl-C
  trainyard gpus --watch --json --interval 10s     a line of JSON every 10 s
  trainyard gpus --fleet                           those of all hosts, from the server
  trainyard gpus reserve 3 --for ada --until 18:00
  trainyard gpus release 3
  trainyard gpus clear GPU-5a1e                    it is well again: end its quarantine")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// The agent's configuration
    #[arg(
        long,
        value_name = "FILE",
        env = "TRAINYARD_AGENT_CONFIG",
        value_parser = super::agent::file(),
        global = true
    )]
    config: Option<PathBuf>,
    /// Print JSON; with --watch a line each time
    #[arg(long, global = true)]
    json: bool,
    /// Show them again and again
    #[arg(long)]
    watch: bool,
    /// Time between two looks of --watch
    #[arg(long, value_name = "TIME", default_value = "2s")]
    interval: Span,
    /// Show those of all hosts that the server knows
    #[arg(long)]
    fleet: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lend a GPU of this host to a person: no new job gets it
    Reserve {
        /// Its index, its UUID, or the UUID's beginning
        gpu: String,
        /// Whom
        #[arg(long = "for", value_name = "WHO")]
        by: String,
        /// Until when: 8h, or by this host's clock and time zone 18:00, 2026-12-24 or '2026-12-24 18:00'
        #[arg(long, value_name = "WHEN")]
        until: String,
        /// Also where it is lent to somebody else
        #[arg(long)]
        force: bool,
    },
    /// Take a GPU back that was lent
    Release {
        /// Its index, its UUID, or the UUID's beginning
        gpu: String,
    },
    /// End the quarantine of a GPU that is well again
    Clear {
        /// Its index, its UUID, or the UUID's beginning
        gpu: String,
    },
}

impl Action {
    fn word(&self) -> &'static str {
        match self {
            Action::Reserve { .. } => "reserve",
            Action::Release { .. } => "release",
            Action::Clear { .. } => "clear",
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let config = super::agent::of_host(args.config.as_deref())?;
    if let Some(action) = &args.action {
        ensure!(
            !args.fleet && !args.watch,
            "--fleet and --watch only show GPUs: '{}' is about one of this host, and is said on the host that has it",
            action.word()
        );
        return act(&config, action, args.json);
    }
    let source = match args.fleet {
        true => Source::Fleet(Client::new(&args.server)?),
        false => Source::Host(Box::new(Host::open(config))),
    };
    if !args.watch {
        source.look().await?.print(args.json)?;
        return Ok(Exit::Done);
    }
    ensure!(
        args.interval.0 >= 100,
        "--interval is {}; 100ms is the least",
        args.interval
    );
    let over = CancellationToken::new();
    signals::cancel_on_signal(over.clone())?;
    loop {
        source.look().await?.print_again(args.json)?;
        tokio::select! {
            () = over.cancelled() => return Ok(Exit::Done),
            () = tokio::time::sleep(args.interval.into()) => {}
        }
    }
}

/// Where GPUs are looked at.
enum Source {
    Host(Box<Host>),
    Fleet(Client),
}

/// What a look saw.
enum Seen {
    Host { gpus: Vec<HostRow>, none: String },
    Fleet(Vec<FleetRow>),
}

/// A GPU of this host.
#[derive(Serialize)]
struct HostRow {
    #[serde(flatten)]
    gpu: GpuView,
    driver: Option<GpuDriver>,
}

struct Host {
    config: Config,
    hardware: Hardware,
    ledger: Ledger,
}

impl Host {
    fn open(config: Config) -> Self {
        let (ledger, unread) = Ledger::shown(&config);
        if let Some(why) = unread {
            out::aside(&format!(
                "warning: {why}: who has a GPU is not known, and none is shown as free"
            ));
        }
        Self {
            hardware: Hardware::open(&config),
            ledger,
            config,
        }
    }
}

impl Source {
    async fn look(&self) -> anyhow::Result<Seen> {
        match self {
            Source::Host(host) => {
                let readings = host.hardware.gpus();
                let contained = readings
                    .iter()
                    .any(|reading| reading.processes.iter().any(|p| p.container.is_some()));
                let containers = match contained {
                    true => Containers::ask(&host.config).await,
                    false => Containers::default(),
                };
                let none = host.hardware.absent().map_or_else(
                    || "no GPUs: NVML counts none".to_owned(),
                    |why| format!("no GPUs: {why}"),
                );
                // Where the files cannot be read, that was said at the start.
                let _ = host.ledger.refresh();
                let driver = host.hardware.driver();
                let row = |gpu| HostRow {
                    gpu,
                    driver: driver.clone(),
                };
                let gpus = view(&readings, &host.ledger, &containers);
                Ok(Seen::Host {
                    gpus: gpus.into_iter().map(row).collect(),
                    none,
                })
            }
            Source::Fleet(client) => {
                let page: Page<Agent> = client.get("agents").await?;
                Ok(Seen::Fleet(fleet(page.items)))
            }
        }
    }
}

impl Seen {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        match (self, json) {
            (Seen::Host { gpus, .. }, true) => out::json(gpus),
            (Seen::Fleet(rows), true) => out::json(rows),
            (_, false) => out::say(&self.text()),
        }
    }

    /// On a terminal in the place of what was there.
    fn print_again(&self, json: bool) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Line<'a, T> {
            at: Timestamp,
            gpus: &'a [T],
        }
        let at = Timestamp::now();
        match (self, json) {
            (Seen::Host { gpus, .. }, true) => {
                out::raw(&serde_json::to_string(&Line { at, gpus })?)
            }
            (Seen::Fleet(gpus), true) => out::raw(&serde_json::to_string(&Line { at, gpus })?),
            (_, false) if std::io::stdout().is_terminal() => out::screen(&self.text()),
            (_, false) => out::say(&format!("\n{}", self.text())),
        }
    }

    fn text(&self) -> String {
        match self {
            Seen::Host { gpus, none } if gpus.is_empty() => none.clone(),
            Seen::Host { gpus, .. } => table(gpus),
            Seen::Fleet(rows) if rows.is_empty() => "no host of the fleet has a GPU".to_owned(),
            Seen::Fleet(rows) => {
                let hosts = rows.chunk_by(|a, b| a.host == b.host).map(host_table);
                hosts.collect::<Vec<_>>().join("\n\n")
            }
        }
    }
}

fn table(gpus: &[HostRow]) -> String {
    let now = Timestamp::now();
    let driver = gpus.first().and_then(|row| row.driver.as_ref());
    let rows = gpus.iter().map(|HostRow { gpu: row, .. }| {
        [
            row.gpu.index.to_string(),
            model(&row.gpu),
            row.gpu.memory.to_string(),
            row.used.to_string(),
            row.utilization_percent
                .map_or_else(String::new, |percent| format!("{percent} %")),
            row.gpu
                .nvlink_group
                .map_or_else(String::new, |group| group.to_string()),
            row.state(now),
            row.gpu.uuid.clone(),
        ]
    });
    let rows = out::drawn(
        [
            "GPU", "MODEL", "MEMORY", "USED", "USE", "NVLINK", "STATE", "UUID",
        ],
        rows,
    );
    format!(" {}\n{rows}", words(driver))
}

/// The GPUs of one host of the fleet, below a line that says which.
fn host_table(gpus: &[FleetRow]) -> String {
    let first = gpus.first();
    let host = first.map_or("", |row| row.host.as_str());
    let driver = words(first.and_then(|row| row.driver.as_ref()));
    let rows = out::drawn(
        ["GPU", "MODEL", "MEMORY", "STATE", "ATTEMPT"],
        gpus.iter().map(|row| {
            [
                row.gpu.index.to_string(),
                model(&row.gpu),
                row.gpu.memory.to_string(),
                row.state.clone(),
                row.attempt.clone().unwrap_or_default(),
            ]
        }),
    );
    format!(
        " {}: {driver}\n{rows}",
        render::terminal::clean(host, false)
    )
}

/// `driver 570.86.15, CUDA 12.8`
fn words(driver: Option<&GpuDriver>) -> String {
    match driver {
        Some(driver) => {
            let words = format!("driver {}, CUDA {}", driver.version, driver.cuda);
            render::terminal::clean(&words, false)
        }
        None => "driver unknown".to_owned(),
    }
}

fn model(gpu: &Gpu) -> String {
    match &gpu.kind {
        GpuKind::Whole => gpu.model.clone(),
        GpuKind::Sliced => format!("{} (MIG)", gpu.model),
        GpuKind::Slice { profile, .. } => format!("MIG {profile}"),
    }
}

/// A GPU of the fleet.
#[derive(Serialize)]
struct FleetRow {
    host: String,
    driver: Option<GpuDriver>,
    #[serde(flatten)]
    gpu: Gpu,
    /// `free`, `booked`, or why no job gets it.
    state: String,
    attempt: Option<String>,
}

fn fleet(agents: Vec<Agent>) -> Vec<FleetRow> {
    let now = Timestamp::now();
    let mut rows = Vec::new();
    for agent in agents {
        let Some(inventory) = agent.inventory else {
            continue;
        };
        for gpu in inventory.gpus {
            let attempt = agent.gpu_bookings.get(&gpu.uuid).map(ToString::to_string);
            let open = match &attempt {
                Some(_) => "booked",
                None if gpu.kind == GpuKind::Sliced => "cut into slices",
                None => "free",
            };
            let state = gpu.health.hindrance(now).unwrap_or_else(|| open.to_owned());
            rows.push(FleetRow {
                host: agent.name.clone(),
                driver: inventory.driver.clone(),
                state: match agent.state.as_str() {
                    "idle" | "busy" => state,
                    elsewise => format!("{state} · host {elsewise}"),
                },
                attempt,
                gpu,
            });
        }
    }
    rows
}

fn act(config: &Config, action: &Action, json: bool) -> anyhow::Result<Exit> {
    let ledger = Ledger::look(config)?;
    let hardware = Hardware::open(config);
    let gpus = ledger.judged(&hardware.gpus());
    let named = |text: &str| {
        let absent = hardware.absent().filter(|_| gpus.is_empty());
        find(&gpus, text).map_err(|why| match absent {
            Some(absent) => anyhow!("{why}: {absent}"),
            None => anyhow!(why),
        })
    };
    let (gpu, words) = match action {
        Action::Reserve {
            gpu,
            by,
            until: when,
            force,
        } => {
            let by = borrower(by).map_err(|why| anyhow!("--for: {why}"))?;
            let now = Timestamp::now();
            let (gpu, end) = (named(gpu)?, until(when, now)?);
            ledger.reserve(gpu, by, end, *force)?;
            let rest = match ledger.bookings().contains_key(&gpu.uuid) {
                true => "; the job that has it keeps it to its end",
                false => "",
            };
            let left = end.minutes_from(now);
            (gpu, format!("is lent to {by}, {left} from now{rest}"))
        }
        Action::Release { gpu } => {
            let gpu = named(gpu)?;
            let words = match ledger.release(&gpu.uuid)? {
                true => "is for jobs again",
                false => "was not lent",
            };
            (gpu, words.to_owned())
        }
        Action::Clear { gpu } => {
            let gpu = named(gpu)?;
            let was = ledger.clear(&gpu.uuid)?;
            let now = ledger.judged(&hardware.gpus());
            let now = now.iter().find(|other| other.uuid == gpu.uuid);
            (gpu, cleared(was, now.unwrap_or(gpu)))
        }
    };
    if json {
        let now = ledger.judged(&hardware.gpus());
        out::json(&now.iter().find(|other| other.uuid == gpu.uuid))?;
        return Ok(Exit::Done);
    }
    out::say(&format!("GPU {} ({}) {words}", gpu.index, gpu.uuid))?;
    Ok(Exit::Done)
}

/// What became of a GPU whose quarantine was to end, given how it is now.
fn cleared(was: bool, gpu: &Gpu) -> String {
    match (was, gpu.health.hindrance(Timestamp::now())) {
        (true, None) => "is in quarantine no more".to_owned(),
        (true, Some(why)) => format!("is in quarantine no more; it is {why} all the same"),
        (false, None) => "is in no quarantine: there is nothing to clear".to_owned(),
        (false, Some(why)) => match &gpu.kind {
            GpuKind::Slice { parent, .. } => format!(
                "has no quarantine of its own: it is {why}. Where that is of the GPU that it is cut from: clear {parent}"
            ),
            GpuKind::Whole | GpuKind::Sliced => {
                format!("has no quarantine that a person could end: it is {why}")
            }
        },
    }
}
