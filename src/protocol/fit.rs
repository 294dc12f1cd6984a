//! Whether hosts could run jobs that are not there yet: `POST agents/fit` of the public API, for `trainyard plan`.

use serde::{Deserialize, Serialize};

use crate::outcome::Failure;
use crate::spec::{JobSpec, Resources};

/// Most jobs of a question.
pub const MOST_ASKED: usize = 1_000;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitQuestion {
    /// Addresses by which the repository is known: its folder, its remotes. The first that a project has says whose
    /// quota and volumes count.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// What the jobs need; at most [`MOST_ASKED`].
    pub jobs: Vec<Needs>,
}

/// What a job needs of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Needs {
    /// CPUs, memory, disk and GPUs.
    #[serde(flatten)]
    pub resources: Resources,
    /// Labels that its host must have.
    #[serde(default)]
    pub runs_on: Vec<String>,
    /// Names of the volumes that it mounts.
    #[serde(default)]
    pub volumes: Vec<String>,
}

impl Needs {
    /// Those of a job.
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        Self {
            resources: spec.resources.clone(),
            runs_on: spec.runs_on.clone(),
            volumes: spec.volumes.keys().cloned().collect(),
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitAnswer {
    /// The project that the repository is.
    #[serde(default)]
    pub project: Option<String>,
    /// How many hosts are registered.
    pub hosts: u64,
    /// For each job why it would be refused when it is planned; none: it would not be.
    pub refusals: Vec<Option<Failure>>,
}
