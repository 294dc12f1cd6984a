//! `.trainyard.yml` as types. The docstrings are what an editor shows: they go into the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::group::Group;
use super::scalar::{
    Branches, Cpus, Cron, Duration, Image, LintEntry, OneOrMore, Size, Table, Word,
};

/// What Trainyard runs when a commit is pushed. The file is `.trainyard.yml` at the root of the repository.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Trainyard pipeline file")]
pub struct PipelineFile {
    /// Values for every job that does not say otherwise. A job's own value replaces the one here.
    #[serde(default)]
    pub defaults: Defaults,
    /// Lint tools over the notebooks of the jobs that will run: ruff and ruff-format as they are; black, isort,
    /// flake8, mypy, pylint and any other by name through nbQA. A tool's findings fail the job `lint` unless it is
    /// written as `{black: warn}`. `{nbqa: "vulture --min-confidence 80"}` gives it options.
    #[serde(default)]
    #[schemars(with = "Vec<LintEntry>")]
    pub lint: Vec<Spanned<LintEntry>>,
    /// What a newer commit of the same branch or pull request ends of older ones. Default: `queued`.
    #[serde(default)]
    pub supersede: Supersede,
    /// The jobs by name.
    pub jobs: Table<Job>,
}

/// What a newer commit ends of older ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Supersede {
    /// What no host has yet.
    #[default]
    Queued,
    /// On pull requests, what runs too.
    Running,
}

/// Values for every job that does not say otherwise.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Image that jobs run in.
    #[schemars(with = "Option<Image>")]
    pub image: Option<Spanned<Image>>,
    /// File that says which Python packages jobs need; `none` for what the image has.
    #[schemars(with = "Option<String>")]
    pub python: Option<Spanned<Word>>,
    /// When jobs run.
    pub on: Option<On>,
    /// What jobs need of a host.
    pub resources: Option<Resources>,
    /// Labels that an agent must have.
    pub runs_on: Option<Vec<Word>>,
    /// Environment variables.
    pub env: Option<Table<Word>>,
    /// Names of secrets that become environment variables.
    #[schemars(with = "Option<Vec<String>>")]
    pub secrets: Option<Vec<Spanned<Word>>>,
    /// Whether jobs reach the network.
    pub network: Option<Network>,
    /// How long a job may take.
    pub timeout: Option<Duration>,
    /// How long one cell may take.
    pub cell_timeout: Option<Duration>,
    /// How long a job may go without output.
    pub silence_timeout: Option<Duration>,
    /// How long a job may hardly use its GPUs.
    pub gpu_idle_timeout: Option<Duration>,
    /// Time that a job gets to write a checkpoint when it is stopped or took too long.
    #[schemars(with = "Option<Duration>")]
    pub grace: Option<Spanned<Duration>>,
    /// How long a job's agent may be silent before another one gets it.
    pub lost_after: Option<Duration>,
    /// What becomes of the files in `$TRAINYARD_CHECKPOINT_DIR`.
    pub checkpoints: Option<Checkpoints>,
    /// What jobs find besides the files that git itself keeps.
    pub checkout: Option<Checkout>,
    /// Further attempts after platform faults.
    pub retries: Option<u32>,
    /// Whether an equal earlier result may stand for a job.
    pub reuse: Option<bool>,
    /// Whether a notebook may be given parameters that it does not know.
    pub unknown_parameters: Option<UnknownParameters>,
}

/// One job: a notebook or a command, what it needs and what it leaves.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Job {
    /// Path of a notebook, or a glob such as `notebooks/*.ipynb`: then each notebook is a job.
    #[schemars(with = "Option<String>")]
    pub notebook: Option<Spanned<Word>>,
    /// A command line for `sh`. `${name}` is replaced by the parameter of that name.
    #[schemars(with = "Option<String>")]
    pub command: Option<Spanned<Word>>,
    /// When it runs. Default: every push to a branch and every pull request.
    pub on: Option<On>,
    /// File that says which Python packages it needs, on top of what the image has: a
    /// `requirements.txt`, `uv.lock`, `pyproject.toml`, or a script or notebook with a PEP 723 block; `none` for what the image has.
    #[schemars(with = "Option<String>")]
    pub python: Option<Spanned<Word>>,
    /// Image that it runs in: a name, or `{build: FOLDER}` (not yet supported). Default: `trainyard/notebook`.
    #[schemars(with = "Option<Image>")]
    pub image: Option<Spanned<Image>>,
    /// Globs of the files that its result depends on. Default: every tracked file but other notebooks and documents.
    #[schemars(with = "Option<Vec<String>>")]
    pub deps: Option<Vec<Spanned<Word>>>,
    /// Values injected into the notebook, or put into the command's text.
    #[schemars(with = "std::collections::BTreeMap<String, Value>")]
    pub parameters: Table<Value>,
    /// Parameters with several values each: a job for every combination.
    #[schemars(with = "std::collections::BTreeMap<String, Vec<Value>>")]
    pub matrix: Table<Vec<Value>>,
    /// What it needs of a host.
    pub resources: Option<Resources>,
    /// Labels that its agent must have.
    pub runs_on: Option<Vec<Word>>,
    /// Volumes by the name that an administrator gave them on the agents, and where they are mounted: `{imagenet: /data}`.
    #[schemars(with = "Option<std::collections::BTreeMap<String, String>>")]
    pub volumes: Option<Spanned<Table<Word>>>,
    /// From -100 to 100: higher goes first among jobs that wait for a host. Default: 0.
    #[schemars(with = "Option<i64>", range(min = -100, max = 100))]
    pub priority: Option<Spanned<i64>>,
    /// Name of a group of which only one job of the project runs at a time, or `{group: NAME, cancel_queued: true}`:
    /// then a new job of the group cancels those that still wait.
    #[schemars(with = "Option<Group>")]
    pub concurrency: Option<Spanned<Group>>,
    /// Environment variables.
    pub env: Option<Table<Word>>,
    /// Names of secrets that become environment variables.
    #[schemars(with = "Option<Vec<String>>")]
    pub secrets: Option<Vec<Spanned<Word>>>,
    /// Whether it reaches the network. Default: `full`; untrusted commits get `none` whatever stands here.
    pub network: Option<Network>,
    /// Jobs that must succeed first; the artifacts of each lie under `$TRAINYARD_NEEDS/NAME/`.
    #[schemars(with = "Vec<String>")]
    pub needs: Vec<Spanned<Word>>,
    /// Globs of the files that it leaves, relative to the repository.
    #[schemars(with = "Vec<String>")]
    pub artifacts: Vec<Spanned<Word>>,
    /// How long it may take, such as `90m`. Default: `24h`.
    pub timeout: Option<Duration>,
    /// How long one cell may take. Default: as long as the job.
    pub cell_timeout: Option<Duration>,
    /// How long it may go without output. Default: as long as the job.
    pub silence_timeout: Option<Duration>,
    /// How long it may hardly use its GPUs (all of them under 5 %, where the agent says nothing else) before it is
    /// ended. Default: as long as the job; a warning says so.
    #[schemars(with = "Option<Duration>")]
    pub gpu_idle_timeout: Option<Spanned<Duration>>,
    /// Time that it gets to write a checkpoint when it is stopped or took too long: between SIGTERM (for a notebook
    /// an interrupt) and its kill; at most `1h`. Default: what server and agent are set to, usually `30s`.
    #[schemars(with = "Option<Duration>")]
    pub grace: Option<Spanned<Duration>>,
    /// How long its agent may be silent before another one gets it. Default: what the server is set to, usually `10m`.
    pub lost_after: Option<Duration>,
    /// What becomes of the files that it writes to `$TRAINYARD_CHECKPOINT_DIR`, where its next attempt on the same
    /// host finds them.
    pub checkpoints: Option<Checkpoints>,
    /// What it finds besides the files that git itself keeps. Default: nothing.
    pub checkout: Option<Checkout>,
    /// The model that it leaves.
    pub model: Option<Model>,
    /// The metrics that are compared with the base branch, by name.
    pub metrics: Table<Metric>,
    /// Further attempts after platform faults. Default: 2.
    pub retries: Option<u32>,
    /// Whether an equal earlier result may stand for it. Default: true.
    pub reuse: Option<bool>,
    /// Whether its notebook may be given parameters that its cell tagged `parameters` does not assign. Default: `error`.
    pub unknown_parameters: Option<UnknownParameters>,
}

/// What becomes of a parameter that a notebook does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownParameters {
    /// Nothing runs.
    Error,
    /// It is set all the same.
    Allow,
}

/// When a job runs. What is not named here does not start it; a person always may.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct On {
    /// `true` for every branch, or globs of branches such as `[main, "release/*"]`.
    pub push: Option<Branches>,
    /// Whether pull requests start it.
    pub pull_request: bool,
    /// Cron expressions of five fields, in UTC, such as `"0 3 * * 1"`.
    #[schemars(with = "Option<OneOrMore<Cron>>")]
    pub schedule: Option<OneOrMore<Cron>>,
}

/// What a job needs of a host.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// CPUs, such as `4` or `0.5`. Default: 1.
    pub cpus: Option<Cpus>,
    /// Memory, such as `16GiB`. Default: `2GiB`.
    pub memory: Option<Size>,
    /// `/dev/shm`. Default: half of the memory.
    pub shm_size: Option<Size>,
    /// GPUs: whole ones, or slices where `mig` names a profile. Default: 0.
    pub gpus: Option<u32>,
    /// Memory that each GPU must have; the size that it is sold with counts.
    #[schemars(with = "Option<Size>")]
    pub gpu_memory: Option<Spanned<Size>>,
    /// Models of GPU that will do, as people write them: `A100`, `a100-80gb`, `rtx 4090`, `H100 SXM`.
    #[schemars(with = "Option<OneOrMore<Word>>")]
    pub gpu_model: Option<Spanned<OneOrMore<Word>>>,
    /// Lowest compute capability, such as `">=8.0"`.
    #[schemars(with = "Option<String>")]
    pub compute_capability: Option<Spanned<Word>>,
    /// Lowest CUDA version that the driver must run, such as `">=12.1"`.
    #[schemars(with = "Option<String>")]
    pub cuda: Option<Spanned<Word>>,
    /// MIG profile such as `1g.10gb`: then `gpus` counts slices.
    #[schemars(with = "Option<String>")]
    pub mig: Option<Spanned<Word>>,
    /// Whether all GPUs must reach each other by NVLink. Default: false.
    #[schemars(with = "Option<bool>")]
    pub nvlink: Option<Spanned<bool>>,
    /// Disk for the workspace and what the job writes, such as `100GiB`. It counts where hosts are chosen.
    pub disk: Option<Size>,
}

/// What becomes of the files in `$TRAINYARD_CHECKPOINT_DIR`.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoints {
    /// Whether they are brought to the server while the job runs, so that an attempt on another host finds them. Only
    /// files that no longer change. Default: `false`.
    pub across_hosts: bool,
    /// What they may take; above it the job is ended. Default: `50GiB`.
    pub max_size: Option<Size>,
}

/// What a job finds besides the files that git itself keeps.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checkout {
    /// Whether files that are kept in Git LFS have their content, fetched from the repository's own server; else they
    /// are pointers of three lines. Default: `false`.
    pub lfs: bool,
    /// Whether the folders of submodules have their files; else they are empty, as they always are of an untrusted
    /// commit. Default: `false`.
    pub submodules: bool,
}

/// The model that a job leaves.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name in the registry.
    #[schemars(with = "String")]
    pub name: Spanned<Word>,
    /// File or folder that the job writes, relative to the repository.
    #[schemars(with = "String")]
    pub path: Spanned<Word>,
    /// Version that it goes on from, such as `churn@champion`, `churn@latest` or `churn/3`: its files lie under
    /// `$TRAINYARD_PARENT_DIR`. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub from: Option<Spanned<Word>>,
}

/// How a metric is judged.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Which direction is better.
    pub goal: Goal,
    /// How much worse than the base branch it may be; none: it is only shown.
    #[serde(default)]
    #[schemars(with = "Option<f64>")]
    pub max_regression: Option<Spanned<f64>>,
}

/// Which direction of a metric is better.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// More is better.
    Maximize,
    /// Less is better.
    Minimize,
}

/// Whether a job reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// As the container engine gives it.
    Full,
    /// Loopback only.
    None,
}
