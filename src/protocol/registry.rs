//! The registry's words (MLflow's, with MLflow's meaning) as the public API shows them: models, their
//! versions and candidates, aliases with history, lineage, comparisons.
//!
//! | call | role | answer |
//! | --- | --- | --- |
//! | `GET models` | read | [`crate::api::Page`] of [`Model`] |
//! | `GET models/{name}` | read | [`ModelDetail`] |
//! | `GET models/{name}/{version}` | read | [`VersionDetail`] |
//! | `GET models/{name}/{version}/compare/{other}` | read | [`Comparison`] of `other` (base) and `version` |
//! | `GET models/{name}/{version}/files/{path}` | read | the file's bytes; `Range` is understood |
//! | `POST models/{name}/{version}/remove` ([`Reason`]) | run | the [`Version`] that is gone |
//! | `POST models/{name}/{version}/reproduce` | run | [`crate::api::Done`] with the job |
//! | `GET models/{name}/{version}/reproductions/{job}` | read | [`Reproduction`] |
//! | `POST models/{name}/{version}/promote` ([`Reason`]) | run | [`Version`] |
//! | `PUT models/{name}/aliases/{alias}` ([`SetAlias`]) | run | [`AliasChange`] |
//! | `POST models/{name}/aliases/{alias}/rollback` ([`Reason`]) | run | [`AliasChange`] |
//!
//! `{version}` is a [`VersionRef`].

mod compared;
mod refs;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{AttemptId, CommitId, JobId, PipelineId};
use crate::report::{MetricValue, Setting, Usage, VolumeManifest};
use crate::spec::{Goal, Parameters, Parent, Trust};
use crate::units::{ByteSize, Timestamp};

pub use compared::{Compared, Comparison, Difference, Judged, MetricDelta, Number, Reproduction};
pub use refs::{
    InvalidModelRef, InvalidVersionRef, ModelRef, VersionRef, valid_alias, valid_model,
};

/// A model: a name under which versions are counted. It belongs to the project that made it first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its name, unique on this server.
    pub name: String,
    /// The project that it belongs to; none: a client of MLflow's registered it.
    #[serde(default)]
    pub project: Option<String>,
    /// When its first version or candidate was made.
    pub created_at: Timestamp,
    /// How many versions it has.
    pub versions: u64,
    /// How many candidates wait.
    pub candidates: u64,
    /// Its newest version.
    #[serde(default)]
    pub latest: Option<Version>,
    /// Its aliases, by name.
    #[serde(default)]
    pub aliases: Vec<Alias>,
}

/// A model with its versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelDetail {
    /// The model.
    #[serde(flatten)]
    pub model: Model,
    /// The newest versions and candidates, newest first, at most 500.
    pub items: Vec<Version>,
    /// The newest changes of aliases, newest first, at most 100.
    #[serde(default)]
    pub history: Vec<AliasChange>,
    /// The best of the candidates that wait, where several were measured.
    #[serde(default)]
    pub best: Option<BestCandidate>,
}

/// The best of several candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestCandidate {
    /// Its id.
    pub id: String,
    /// The metric that ranks them: the first of the pipeline file.
    pub metric: String,
    /// Which direction is better.
    pub goal: Goal,
    /// Its value.
    pub value: Number,
    /// How many candidates have the metric.
    pub of: u64,
}

/// Whether a version counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionStatus {
    /// From the default branch, or promoted: it has a number.
    Version,
    /// From a pull request, another branch or a member of a matrix: it has none until it is promoted.
    Candidate,
}

/// What one attempt left as a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its id, which a promotion does not change.
    pub id: String,
    /// The model's name.
    pub model: String,
    /// Its number, counted from 1 in its model; none for a candidate.
    #[serde(default)]
    pub version: Option<u64>,
    /// Whether it counts.
    pub status: VersionStatus,
    /// The registry run, 32 hex digits; none: a client of MLflow's named none.
    #[serde(default)]
    pub run: Option<String>,
    /// The job that the run is of; none: it is no job's.
    #[serde(flatten)]
    pub origin: Option<Origin>,
    /// Aliases that point to it, sorted.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Last value of each metric, by name.
    #[serde(default)]
    pub metrics: Vec<MetricValue>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made a candidate a version, and why.
    #[serde(default)]
    pub promotion: Option<Promotion>,
    /// Why its job's model became a version or a candidate, in words; none: a client registered it, or it is older than
    /// these words.
    #[serde(default)]
    pub because: Option<String>,
    /// What its files show it to be, sorted: MLflow's flavours where it has an `MLmodel`, else `safetensors`, `onnx`,
    /// `joblib`, `pickle`, `saved_model`, `gguf`. Empty: nothing that is known, or nobody has looked yet.
    #[serde(default)]
    pub flavours: Vec<String>,
}

/// Which job left a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The job.
    pub job: JobId,
    /// The job's name.
    pub job_name: String,
    /// The attempt.
    pub attempt: AttemptId,
    /// The commit.
    pub commit: CommitId,
    /// First line of the commit's message.
    pub title: String,
    /// The ref that led to the commit.
    #[serde(default)]
    pub reference: Option<String>,
}

impl Version {
    /// `version 3`, or `candidate 01jd…`.
    #[must_use]
    pub fn label(&self) -> String {
        match self.version {
            Some(number) => format!("version {number}"),
            None => format!("candidate {}", self.id),
        }
    }
}

/// A candidate became a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// A version or candidate was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// One end of the edge between a version and what a training went on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Related {
    /// The version's id; none: the job has left none yet.
    #[serde(default)]
    pub id: Option<String>,
    /// Its model.
    #[serde(default)]
    pub model: Option<String>,
    /// Its number; none for a candidate.
    #[serde(default)]
    pub version: Option<u64>,
    /// As the pipeline file named the parent, such as `digits@champion`.
    #[serde(default)]
    pub asked: Option<String>,
    /// The job that goes on, where the version is one that it leaves.
    #[serde(default)]
    pub job: Option<JobId>,
    /// Whether the version was removed.
    #[serde(default)]
    pub removed: bool,
}

impl Related {
    /// `version 3`, or `candidate 01jd…`.
    #[must_use]
    pub fn label(&self) -> String {
        match (self.version, &self.id) {
            (Some(number), _) => format!("version {number}"),
            (None, Some(id)) => format!("candidate {id}"),
            (None, None) => "a version to come".to_owned(),
        }
    }
}

/// A version with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionDetail {
    /// The version.
    #[serde(flatten)]
    pub version: Version,
    /// Settings, by name: of the pipeline file, and those that the job reported.
    pub params: BTreeMap<String, String>,
    /// Tags of the run (`trainyard.*`), as MLflow's clients will see them.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// How the metrics are judged.
    #[serde(default)]
    pub goals: BTreeMap<String, Goal>,
    /// Where it comes from; none: no job's run made it.
    #[serde(default)]
    pub lineage: Option<Lineage>,
    /// Its files, by path.
    pub files: Vec<ModelFile>,
    /// Changes of the aliases that point or pointed to it, newest first, at most 100.
    #[serde(default)]
    pub history: Vec<AliasChange>,
    /// What it went on from, what that went on from, and so on, nearest first, at most 20.
    #[serde(default)]
    pub ancestors: Vec<Related>,
    /// Versions that went on from it, and jobs that do, oldest first, at most 100.
    #[serde(default)]
    pub descendants: Vec<Related>,
    /// Why it counts, and why aliases point or pointed to it: a sentence each.
    #[serde(default)]
    pub why: Vec<String>,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Path relative to the model's folder.
    pub path: String,
    /// Its content.
    pub blob: Digest,
    /// Its length.
    pub size: ByteSize,
}

/// Where a result comes from: what is needed to make it again, and to know what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The project.
    pub project: String,
    /// Its repository, without credentials.
    pub repository: String,
    /// The commit.
    pub commit: CommitId,
    /// Whether files differed from the commit. Never for what the server ran.
    #[serde(default)]
    pub dirty: bool,
    /// The ref that led to the commit.
    #[serde(default)]
    pub reference: Option<String>,
    /// What asked: `push`, `pull_request`, `schedule`, `rerun`, `person`.
    pub trigger: String,
    /// Who asked.
    #[serde(default)]
    pub by: Option<String>,
    /// How far the commit was trusted.
    pub trust: Trust,
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// Path of the notebook, or text of the command.
    pub work: String,
    /// Hash of what the notebook means.
    #[serde(default)]
    pub fingerprint: Option<Digest>,
    /// Hash of the pipeline file's bytes.
    #[serde(default)]
    pub pipeline_file: Option<Digest>,
    /// Hash of all that the result depends on.
    #[serde(default)]
    pub key: Option<Digest>,
    /// Parameters as they were injected.
    #[serde(default)]
    pub parameters: Parameters,
    /// Files that it depends on, each with git's hash of its content.
    #[serde(default)]
    pub deps: BTreeMap<String, String>,
    /// Volumes that were mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<MountedVolume>,
    /// The version of a model that it went on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The lock file or requirements: path, and hash of its bytes.
    #[serde(default)]
    pub lock: Option<LockFile>,
    /// What could not be versioned, in words.
    #[serde(default)]
    pub unversioned: Vec<String>,
    /// Environment, packages, image, GPUs, driver, host.
    #[serde(default)]
    pub setting: Setting,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// When it was over.
    pub finished_at: Timestamp,
}

/// A volume that a job could read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedVolume {
    /// The name that administrators gave it.
    pub name: String,
    /// Where the job found it.
    pub at: String,
    /// The version that administrators declared, or the `.dvc` file of the commit and its hash; none: what it held has
    /// none.
    #[serde(default)]
    pub version: Option<String>,
    /// Without a version what the host saw in it, unverified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<VolumeManifest>,
}

/// A file that fixes the Python environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFile {
    /// Path in the repository.
    pub path: String,
    /// Hash of its bytes.
    pub digest: Digest,
}

/// A name that points to one version of a model, such as `champion`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The alias.
    pub alias: String,
    /// The version's number.
    pub version: u64,
}

/// An alias was set, moved or taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasChange {
    /// The alias.
    pub alias: String,
    /// Where it points since then; none: it was taken away.
    #[serde(default)]
    pub version: Option<u64>,
    /// Where it pointed before.
    #[serde(default)]
    pub previous: Option<u64>,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// Sets an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAlias {
    /// The version's number; none takes the alias away.
    #[serde(default)]
    pub version: Option<u64>,
    /// Why; kept in the history.
    #[serde(default)]
    pub why: String,
}

/// Why somebody asks for a change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// Kept in the history.
    #[serde(default)]
    pub why: String,
}
