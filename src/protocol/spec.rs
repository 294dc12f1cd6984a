//! What a job is asked to do: the plan makes it, the agent carries it out, nobody else changes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gpu::{AtLeast, GpuModel};
use crate::units::{ByteSize, Span};

/// The image of jobs that name none.
pub const DEFAULT_IMAGE: &str = "trainyard/notebook";

/// A job's parameters, in the order of the pipeline file.
pub type Parameters = serde_json::Map<String, Value>;

/// One unit of work, complete: with it and a checkout an agent needs to ask nothing more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Name on screens and in statuses: the key in the file, and for a member of a matrix or a glob
    /// what tells it apart: `train (lr=0.1, seed=2)`. Unique in its pipeline.
    pub name: String,
    /// The key in the file; `lint` for the lint job.
    pub definition: String,
    /// What runs.
    pub work: Work,
    /// Values injected into the notebook or put into the command's text.
    #[serde(default)]
    pub parameters: Parameters,
    /// What its workspace has besides the files that git itself keeps.
    #[serde(default, skip_serializing_if = "Checkout::is_plain")]
    pub checkout: Checkout,
    /// Name of the image that it runs in.
    pub image: String,
    /// Where its Python requirements stand; none: what the image has.
    #[serde(default)]
    pub python: Option<PythonSource>,
    /// Plain environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names of secrets that become environment variables.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Whether it reaches the network; the trust of the commit has been taken into account.
    pub network: Network,
    /// What it needs of a host.
    #[serde(default)]
    pub resources: Resources,
    /// Labels that its agent must have.
    #[serde(default)]
    pub runs_on: Vec<String>,
    /// Named volumes and where they are mounted.
    #[serde(default)]
    pub volumes: BTreeMap<String, String>,
    /// When it gets its turn.
    #[serde(default)]
    pub turn: Turn,
    /// Names of the definitions that must succeed first; all their jobs count.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Globs of the files that it leaves, relative to the workspace.
    #[serde(default)]
    pub artifacts: Vec<String>,
    /// How long it may take.
    #[serde(default)]
    pub limits: Limits,
    /// What becomes of its checkpoints.
    #[serde(default)]
    pub checkpoints: Checkpoints,
    /// The model that it leaves.
    #[serde(default)]
    pub model: Option<ModelSpec>,
    /// The version of a model that it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The metrics that are compared with the base branch.
    #[serde(default)]
    pub metrics: BTreeMap<String, MetricSpec>,
    /// The first of them in the file: several candidates for a model are ranked by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_metric: Option<String>,
    /// Further attempts after platform faults.
    pub retries: u32,
    /// Whether an equal earlier result may stand for it.
    pub reuse: bool,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// A notebook, headlessly, cell by cell.
    Notebook {
        /// Path in the repository.
        path: String,
    },
    /// A command line for `sh`, with `${parameter}` placeholders.
    Command {
        /// Its text.
        text: String,
    },
    /// Lint tools over notebooks.
    Lint {
        /// In the order of the file.
        tools: Vec<LintTool>,
        /// Paths in the repository, sorted.
        notebooks: Vec<String>,
    },
}

/// A lint tool and how much its findings weigh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LintTool {
    /// `ruff`, `ruff-format`, `black`, `isort`, `flake8`, `mypy`, `pylint`, or any other command that nbQA runs.
    pub tool: String,
    /// Through nbQA, though the tool reads notebooks itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nbqa: bool,
    /// What the tool is given besides the notebooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `error`: a finding fails the job; `warn`: it is only shown.
    pub level: LintLevel,
}

impl LintTool {
    /// The tool as a pipeline file names it, failing the job by its findings.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            tool: name.to_owned(),
            nbqa: false,
            args: Vec::new(),
            level: LintLevel::Error,
        }
    }

    /// What people call it: `nbqa ruff` where it goes through nbQA though it need not.
    #[must_use]
    pub fn name(&self) -> String {
        match self.nbqa && self.reads_notebooks() {
            true => format!("nbqa {}", self.tool),
            false => self.tool.clone(),
        }
    }

    /// Whether it gets the notebooks as they are.
    #[must_use]
    pub fn is_native(&self) -> bool {
        !self.nbqa && self.reads_notebooks()
    }

    fn reads_notebooks(&self) -> bool {
        matches!(self.tool.as_str(), "ruff" | "ruff-format")
    }
}

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LintLevel {
    /// Shown.
    Warn,
    /// Fails the job.
    Error,
}

/// The file that says which packages a job needs, on top of what its image has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "path", rename_all = "snake_case")]
pub enum PythonSource {
    /// `requirements.txt`, pinned or not.
    Requirements(String),
    /// `uv.lock`, with the `pyproject.toml` beside it.
    UvLock(String),
    /// `pyproject.toml` without a lock.
    Pyproject(String),
    /// The PEP 723 block of a script or of a notebook's first code cell.
    Script(String),
}

impl PythonSource {
    /// Path in the repository.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            PythonSource::Requirements(path)
            | PythonSource::UvLock(path)
            | PythonSource::Pyproject(path)
            | PythonSource::Script(path) => path,
        }
    }
}

/// Whether a job reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// As the container engine gives it.
    Full,
    /// Loopback only.
    None,
}

/// How far a commit is trusted. An untrusted one gets no secrets, no network, no shared caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// From a fork.
    Untrusted,
    /// From somebody who may push.
    Trusted,
}

/// What a job needs of a host. Zero or none: no demand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// CPUs, in thousandths.
    pub cpu_millis: u64,
    /// Memory.
    pub memory: ByteSize,
    /// `/dev/shm`; none: half of the memory.
    #[serde(default)]
    pub shm_size: Option<ByteSize>,
    /// GPUs: whole ones, or slices where `mig` names a profile.
    #[serde(default)]
    pub gpus: u32,
    /// Memory that each of them must have.
    #[serde(default)]
    pub gpu_memory: Option<ByteSize>,
    /// Models that will do; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_models: Vec<GpuModel>,
    /// Compute capability that each of them must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<AtLeast>,
    /// CUDA version that the host's driver must run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<AtLeast>,
    /// MIG profile of the slices, such as `1g.10gb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<String>,
    /// Whether all of them must reach each other by NVLink.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nvlink: bool,
    /// Disk for the workspace and what the job writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
}

/// When a job gets its turn among those that wait.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Turn {
    /// Higher goes first.
    #[serde(default)]
    pub priority: i64,
    /// Of a group only one job of the project runs at a time.
    #[serde(default)]
    pub concurrency: Option<Concurrency>,
}

/// A concurrency group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// Its name; a project's own.
    pub group: String,
    /// Whether a new job of the group cancels those that still wait.
    #[serde(default)]
    pub cancel_queued: bool,
}

impl Default for Resources {
    /// What a job gets that asks for nothing: one CPU and 2 GiB.
    fn default() -> Self {
        Self {
            cpu_millis: 1_000,
            memory: ByteSize::gib(2),
            shm_size: None,
            gpus: 0,
            gpu_memory: None,
            gpu_models: Vec::new(),
            compute_capability: None,
            cuda: None,
            mig: None,
            nvlink: false,
            disk: None,
        }
    }
}

/// How long a job may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// From the first cell or the command's start to its end.
    pub timeout: Span,
    /// One cell.
    #[serde(default)]
    pub cell_timeout: Option<Span>,
    /// Without any output.
    #[serde(default)]
    pub silence_timeout: Option<Span>,
    /// With all of its GPUs hardly used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_idle_timeout: Option<Span>,
    /// Between the polite end of a job that is stopped or took too long (SIGTERM, for a notebook an interrupt) and
    /// its kill: time to write a checkpoint. None: what server and agent are set to.
    #[serde(default)]
    pub grace: Option<Span>,
    /// How long its agent may be silent before another one gets it. None: what the server is set to.
    #[serde(default)]
    pub lost_after: Option<Span>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Span::hours(24),
            cell_timeout: None,
            silence_timeout: None,
            gpu_idle_timeout: None,
            grace: None,
            lost_after: None,
        }
    }
}

/// What a workspace has besides the files that git itself keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkout {
    /// The content of files in Git LFS; else they are pointers.
    #[serde(default)]
    pub lfs: bool,
    /// The files of submodules; else they are empty folders. Never of an untrusted commit.
    #[serde(default)]
    pub submodules: bool,
}

impl Checkout {
    /// Whether it has nothing besides.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of the files that a job leaves in `$TRAINYARD_CHECKPOINT_DIR`. They are there for its next attempt
/// on the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoints {
    /// Whether they are brought to the server too, for an attempt on another host.
    #[serde(default)]
    pub across_hosts: bool,
    /// What they may take of the disk; above it the job is ended.
    pub max_size: ByteSize,
}

impl Default for Checkpoints {
    /// On the host alone, up to 50 GiB.
    fn default() -> Self {
        Self {
            across_hosts: false,
            max_size: ByteSize::gib(50),
        }
    }
}

/// The model that a job leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Name in the registry.
    pub name: String,
    /// File or folder, relative to the workspace.
    pub path: String,
}

/// The version of a model that a training goes on from, fixed when the job was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// As the pipeline file names it, such as `digits@champion`.
    pub asked: String,
    /// The model's name.
    pub model: String,
    /// The version's number.
    pub version: u64,
    /// The version's id, which stays when the model gets another name.
    pub id: String,
}

/// How a metric is judged against the base branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricSpec {
    /// Which direction is better.
    pub goal: Goal,
    /// How much worse than the base it may be; none: only shown.
    #[serde(default)]
    pub max_regression: Option<f64>,
}

/// Which direction of a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// More is better.
    Maximize,
    /// Less is better.
    Minimize,
}
