//! The driver's contract: a folder, mounted at [`MOUNT`] in a container.
//!
//! ```text
//! /trainyard/job.json           in, read-only: [`DriverJob`]
//! /trainyard/out/events.ndjson  out: one [`crate::event::Unnumbered`] a line
//! /trainyard/out/blobs/<sha256> out: JSON of output messages above 64 KiB
//! /trainyard/out/rest/           out: what cells said past their limit, `cell-3.txt` and `cell-3.ndjson`
//! /trainyard/out/executed.ipynb out: the notebook with its outputs
//! /trainyard/out/result.json    out, last: [`DriverResult`]
//! ```
//!
//! `out/` belongs to the driver: the job's code cannot write there. Where there is no `result.json`
//! the agent judges from what is there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::outcome::Failure;
use crate::spec::{Limits, Parameters};
use crate::units::{ByteSize, Span, Timestamp};

/// Where the folder lies in a container.
pub const MOUNT: &str = "/trainyard";
/// Where the folder of the agent's socket lies in a container: a folder, so that an agent that starts again can open its
/// socket anew.
pub const AGENT_MOUNT: &str = "/trainyard-agent";
/// Name of the socket in that folder.
pub const AGENT_SOCKET: &str = "registry.sock";
/// The header by which the agent tells requests of a job's code apart. One that comes again has the same number.
pub const REQUEST_HEADER: &str = "trainyard-request";
/// The variable that says where clients of MLflow find the registry.
pub const TRACKING_VARIABLE: &str = "MLFLOW_TRACKING_URI";
/// Name of the job file.
pub const JOB_FILE: &str = "job.json";
/// Name of the folder that the driver writes to.
pub const OUT_DIR: &str = "out";
/// Name of the event file in the out folder.
pub const EVENTS_FILE: &str = "events.ndjson";
/// Name of the executed notebook in the out folder.
pub const NOTEBOOK_FILE: &str = "executed.ipynb";
/// Name of the result in the out folder.
pub const RESULT_FILE: &str = "result.json";
/// Name of the folder of large outputs in the out folder.
pub const BLOBS_DIR: &str = "blobs";
/// Name of the folder of what the job's code gives to the registry, until the agent has it, in the out folder.
pub const BODIES_DIR: &str = "bodies";
/// Name of the folder of what is not shown in the notebook, in the out folder.
pub const REST_DIR: &str = "rest";
/// Outputs whose JSON is longer become blobs.
pub const INLINE_LIMIT: usize = 64 << 10;

/// How much a job may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputLimits {
    /// Of one cell in the executed notebook. The rest lies beside it, as an artifact.
    pub cell: ByteSize,
    /// Of all cells in the executed notebook. The rest lies beside it, as artifacts.
    pub notebook: ByteSize,
    /// In all, as events, blobs and artifacts; past it the job is ended.
    pub job: ByteSize,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self {
            cell: ByteSize::mib(64),
            notebook: ByteSize::mib(256),
            job: ByteSize::gib(1),
        }
    }
}

/// What the driver is to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriverJob {
    /// What to run.
    pub work: DriverWork,
    /// Folder to run in: the workspace.
    pub workdir: String,
    /// Environment of the job, complete: the driver's own is not inherited.
    pub env: BTreeMap<String, String>,
    /// Time limits.
    pub limits: Limits,
    /// How long a kernel may take to its first answer.
    pub kernel_start_timeout: Span,
    /// Time between a polite end (interrupt, SIGTERM) and SIGKILL.
    pub grace: Span,
    /// How much it may say.
    #[serde(default)]
    pub output: OutputLimits,
    /// As whom the job's code runs. None: as the driver itself (`shell` executor).
    #[serde(default)]
    pub user: Option<RunAs>,
    /// Folders that are handed to the agent's user at the end, so that an ordinary user can collect
    /// and remove what the job's user left. None: nothing is handed over.
    #[serde(default)]
    pub hand_over: Option<HandOver>,
    /// GPUs that must be there, and no other; the driver looks before anything of the job runs. None: it does not look.
    #[serde(default)]
    pub gpus: Option<GpuFiles>,
    /// How the job's code reaches the registry. None: it does not.
    #[serde(default)]
    pub registry: Option<RegistryDoor>,
}

/// How a job's code reaches the registry: the driver listens on loopback, and passes on to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryDoor {
    /// Path of the agent's socket.
    pub socket: String,
    /// What the code's environment has besides [`TRACKING_VARIABLE`] when the driver listens.
    pub env: BTreeMap<String, String>,
}

/// GPUs as a container has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GpuFiles {
    /// Numbers of their device files, `/dev/nvidia<number>`; a MIG slice has its GPU's.
    pub nodes: Vec<u32>,
    /// How many more they are, of which nobody knows the number.
    #[serde(default)]
    pub unknown: u32,
    /// How many of them are MIG slices.
    #[serde(default)]
    pub slices: u32,
    /// Numbers of the files that open the slices, `/dev/nvidia-caps/nvidia-cap<number>`; empty where nobody knows them all.
    #[serde(default)]
    pub caps: Vec<u32>,
}

/// What the driver runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum DriverWork {
    /// A notebook.
    Notebook {
        /// Path of the source, relative to the working folder.
        path: String,
        /// Injected as papermill would.
        parameters: Parameters,
    },
    /// A command.
    Command {
        /// Program and arguments; `${parameter}` has been replaced already.
        argv: Vec<String>,
    },
}

/// An ordinary user, by numbers: a static binary has no name service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// How many processes and threads the job may have, to say so where it reaches that. The container's pids limit
    /// enforces it, and the driver needs no process of its own. RLIMIT_NPROC would not do: it counts a user's
    /// processes over all containers of a host, so that one job would fail for what another one starts.
    pub processes: u64,
}

/// What is given to whom after the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    /// New owner.
    pub uid: u32,
    /// New group.
    pub gid: u32,
    /// Absolute paths of folders; links are not followed.
    pub paths: Vec<String>,
}

/// The driver's last word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriverResult {
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// When the job's code began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Code cells that ran, of how many; zeros for a command.
    #[serde(default)]
    pub cells: CellCount,
    /// Exit code of a command.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Signal that ended the command or the kernel.
    #[serde(default)]
    pub signal: Option<i32>,
}

/// The driver's verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// All ran.
    Succeeded,
    /// It was told to stop (SIGTERM) and did.
    Stopped,
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// Code cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CellCount {
    /// That ran to their end or raised.
    pub executed: u32,
    /// In the notebook, without skipped and empty ones.
    pub total: u32,
}
