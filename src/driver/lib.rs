//! The driver: runs a notebook or a command beside the job's code and writes what happens to a folder
//! (`protocol::driver`). Knows neither server nor agent nor container engine. One thread, one `poll`.
#![deny(unsafe_code)]

mod clock;
mod comm;
mod command;
mod failure;
pub mod foreign;
mod gpus;
mod kept;
mod kernel;
mod kernelspec;
mod large;
mod out;
mod process;
mod relay;
mod reply;
mod room;
mod run;
mod script;
mod signals;
mod sockets;
mod story;
mod tail;
mod watch;
mod wire;
mod zmtp;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::driver::{
    CellCount, DriverJob, DriverResult, DriverWork, JOB_FILE, RESULT_FILE, TRACKING_VARIABLE,
    Verdict,
};
use protocol::outcome::Failure;
use protocol::units::Timestamp;

use crate::out::Out;
use crate::relay::Relay;
use crate::script::Script;
use crate::signals::Signals;
use crate::story::{Story, StoryError};

/// Longest job file.
const LONGEST_JOB: u64 = 16 << 20;
/// How long is tried to end what the job left running.
const END_ALL: Duration = Duration::from_secs(10);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The job file cannot be read.
    #[error("{path}: {why}")]
    Job {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The out folder cannot be used.
    #[error("{path}: {error}")]
    Out {
        /// The folder.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// Signals cannot be taken.
    #[error("signals cannot be taken: {0}")]
    Signals(io::Error),
}

/// How the work ended, before the result is written.
struct Ending {
    verdict: Verdict,
    started_at: Timestamp,
    cells: CellCount,
    exit_code: Option<i32>,
    signal: Option<i32>,
}

impl Ending {
    /// An end that has nothing but its verdict yet.
    fn of(verdict: Verdict) -> Self {
        Self {
            verdict,
            started_at: Timestamp::now(),
            cells: CellCount::default(),
            exit_code: None,
            signal: None,
        }
    }
}

/// Runs the job in the contract's folder, and writes its result.
///
/// # Errors
/// Where not even a result can be written.
pub fn run(contract: &Path) -> Result<DriverResult, DriverError> {
    let mut job = read_job(&contract.join(JOB_FILE))?;
    let signals = Signals::take().map_err(DriverError::Signals)?;
    process::adopt_orphans();
    let out_error = |error| DriverError::Out {
        path: contract.join(protocol::driver::OUT_DIR),
        error,
    };
    let out = Out::open(contract, job.user).map_err(out_error)?;
    let mut story = Story::new(out.clone(), &job.output).map_err(out_error)?;
    let relay = open_relay(&mut job, &out, &mut story);
    let started_at = Timestamp::now();
    let seen = job
        .gpus
        .as_ref()
        .map(|wanted| gpus::check(wanted, Path::new("/dev")));
    let ending = match seen {
        Some(Err(failure)) => Ending::of(Verdict::Failed { failure: *failure }),
        Some(Ok(())) | None => work(&job, &signals, &mut story, relay),
    };
    let result = close(&job, contract, &out, &mut story, ending, started_at);
    result.map_err(out_error)
}

fn read_job(path: &Path) -> Result<DriverJob, DriverError> {
    let error = |why: String| DriverError::Job {
        path: path.to_owned(),
        why,
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST_JOB).read_to_string(&mut text))
        .map_err(|e| error(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| error(e.to_string()))
}

/// Listens for what the job's code says to the registry, and tells the code where. A job that asks for nothing of it does
/// not fail because that cannot be.
fn open_relay(job: &mut DriverJob, out: &Out, story: &mut Story) -> Option<Relay> {
    let door = job.registry.take()?;
    let bodies = out.path().join(protocol::driver::BODIES_DIR);
    let opened = Relay::open(&door.socket, bodies).and_then(|relay| Ok((relay.url()?, relay)));
    match opened {
        Ok((url, relay)) => {
            job.env.extend(door.env);
            job.env.insert(TRACKING_VARIABLE.to_owned(), url);
            Some(relay)
        }
        Err(error) => {
            let note = format!(
                "Calls of MLflow's API are not taken, nothing listens on loopback: {error}"
            );
            let _ = story.note(&note);
            None
        }
    }
}

fn work(job: &DriverJob, signals: &Signals, story: &mut Story, relay: Option<Relay>) -> Ending {
    let failed = |failure: Failure| Ending::of(Verdict::Failed { failure });
    match &job.work {
        DriverWork::Notebook { path, parameters } => {
            let script = match Script::read(Path::new(&job.workdir), path, parameters) {
                Ok(script) => script,
                Err(failure) => return failed(*failure),
            };
            story.fold_into(script.notebook.clone());
            if !script.unknown.is_empty() {
                let names = script.unknown.join(", ");
                let note = format!(
                    "The cell tagged `parameters` does not have: {names}. They are set all the same."
                );
                if let Err(error) = story.note(&note) {
                    return failed(failure::story(&error));
                }
            }
            run::run(job, &script, signals, story, relay)
        }
        DriverWork::Command { argv } => match command::run(job, argv, signals, story, relay) {
            Ok(ending) => ending,
            Err(error) => failed(failure::story(&error)),
        },
    }
}

/// Ends what is left, closes the story, gives the files away, and says the last word.
fn close(
    job: &DriverJob,
    contract: &Path,
    out: &Out,
    story: &mut Story,
    ending: Ending,
    started_at: Timestamp,
) -> io::Result<DriverResult> {
    if !process::end_all(END_ALL) {
        let _ = story.note("Processes of the job do not react to SIGKILL.");
    }
    out.release_reserve();
    let closed = story.close().and(out.sync().map_err(StoryError::Io));
    let verdict = match (ending.verdict, closed) {
        (Verdict::Succeeded, Err(error)) => Verdict::Failed {
            failure: failure::story(&error),
        },
        (verdict, _) => verdict,
    };
    let result = DriverResult {
        verdict,
        started_at: ending.started_at.max(started_at),
        finished_at: Timestamp::now(),
        cells: ending.cells,
        exit_code: ending.exit_code,
        signal: ending.signal,
    };
    let json = serde_json::to_vec_pretty(&result)?;
    // Given away before the last word: whoever reads the result may take everything.
    if let Some(order) = &job.hand_over {
        for trouble in out::hand_over(order, contract) {
            eprintln!("trainyard-driver: not handed over: {trouble}");
        }
    }
    out.replace(RESULT_FILE, |file| file.write_all(&json))?;
    if let Some(order) = &job.hand_over {
        out.give_result(order)?;
    }
    out.sync()?;
    Ok(result)
}
