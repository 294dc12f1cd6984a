//! The agent API: JSON over HTTP under `/agent/v1`. New fields are optional; unknown ones are ignored.
//!
//! | call | body -> answer |
//! | --- | --- |
//! | `POST register` | [`RegisterRequest`] -> [`Registered`] |
//! | `POST poll` | [`PollRequest`] -> [`PollAnswer`], held up to `wait` |
//! | `POST attempts/{id}/events?generation=G&from=N` | NDJSON of [`crate::Event`] -> [`EventsAnswer`] |
//! | `HEAD blobs/{sha256}` | 200: complete; 404: not, with [`OFFSET_HEADER`] where a part is there |
//! | `PATCH blobs/{sha256}?attempt=ID&offset=N&size=S` | raw bytes -> 204 with [`OFFSET_HEADER`], 201 when complete; 409 wrong offset (header says the right one); 422 wrong hash |
//! | `GET blobs/{sha256}?attempt=ID` | raw bytes of a blob that the attempt needs |
//! | `POST attempts/{id}/checkpoint?generation=G` | all [`CheckpointFile`]s that the attempt has now -> 204 |
//! | `ANY attempts/{id}/registry/{address}` | a call of MLflow's API by the attempt's code -> MLflow's answer |
//! | `POST attempts/{id}/finish?generation=G` | [`crate::report::AttemptReport`] -> [`FinishAnswer`] |
//!
//! All but `register` carry `Authorization: Bearer <secret>`, and [`INSTANCE_HEADER`]: who has the secret of an agent
//! that is at work elsewhere is refused with 409 and code [`TWIN`]. Errors are [`ApiError`]; a call about an
//! attempt that is no longer believed is answered 409 with code [`ABANDONED`], and the agent ends it.
//!
//! What the table does not say:
//! - An empty batch of events only asks for the next number wanted; an agent asks so after each start.
//! - `PATCH` with a wrong offset and `HEAD` answer the offset to go on from; after 422 that is 0. A blob
//!   of no bytes is one `PATCH` with `offset=0&size=0`.
//! - An attempt stays in the polls until one that said `finished` and `released` was answered. One that is
//!   not in a poll is not on the host: where its report was taken, its booking is free; where not, it is
//!   wanted again.
//! - An agent gives up a poll that is held when it has news, and asks anew; the lost answer does not matter.
//! - A call of the registry that writes carries [`CALL_HEADER`]: its number, which rises within the attempt. The server
//!   carries each out once, and answers the last one again as it did. A file's content is a blob that was uploaded before:
//!   its `PUT` has no body and [`BLOB_HEADER`].
//! - 401 ends an agent's asking until it is registered anew; [`ApiError::code`] `version` until it is
//!   upgraded; `twin` until the other one is stopped. Its attempts run on meanwhile.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::event::{Artifact, Phase};
use crate::hardware::Inventory;
use crate::ids::{AgentId, AttemptId, CommitId, JobId, PipelineId, ProjectId};
use crate::registry::ModelFile;
use crate::spec::{JobSpec, Trust};
use crate::units::{ByteSize, Span, Timestamp};

/// Version of this API. A server refuses an agent of another one, naming what it needs.
pub const VERSION: u32 = 1;
/// Says how many bytes of a blob are there.
pub const OFFSET_HEADER: &str = "trainyard-offset";
/// [`ApiError::code`] where an attempt is not believed any more.
pub const ABANDONED: &str = "abandoned";
/// Says which installation of an agent speaks: a word that its restarts share and its copies do not.
pub const INSTANCE_HEADER: &str = "trainyard-instance";
/// [`ApiError::code`] where another installation is at work under the same identity.
pub const TWIN: &str = "twin";
/// Most bytes of a poll, registration or report.
pub const JSON_BYTES: usize = 16 << 20;
/// The number of a call that writes to the registry.
pub const CALL_HEADER: &str = "trainyard-call";
/// The hash of a file's content.
pub const BLOB_HEADER: &str = "trainyard-blob";
/// Most bytes of one batch of events.
pub const EVENTS_BATCH_BYTES: usize = 1 << 20;
/// Most files of one checkpoint.
pub const MOST_CHECKPOINT_FILES: usize = 10_000;
/// Most bytes of one piece of a blob.
pub const BLOB_PIECE_BYTES: usize = 8 << 20;

/// Most letters of an agent's name.
const NAME_LIMIT: usize = 64;

/// What is wrong with a name for an agent; none: it is one.
#[must_use]
pub fn wrong_name(name: &str) -> Option<String> {
    let ordinary = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_good = (1..=NAME_LIMIT).contains(&name.len()) && name.chars().all(ordinary);
    (!is_good)
        .then(|| format!("an agent's name has 1 to {NAME_LIMIT} letters, digits, '-', '_' or '.'"))
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// A word for programs: `abandoned`, `unauthorized`, `invalid`, `not_found`, `too_large`, `disk_full`, `version`, `twin`, `name_in_use`, `internal`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// An agent introduces itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// [`VERSION`].
    pub protocol: u32,
    /// The one-time token.
    pub token: String,
    /// Name on screens; unique among agents.
    pub name: String,
    /// Version of the agent's binary.
    pub version: String,
    /// What the host has.
    pub inventory: Inventory,
    /// Whether to take the name of an agent that is still heard of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// An agent's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Its id.
    pub agent: AgentId,
    /// Its secret; the server keeps only a hash.
    pub secret: String,
}

/// What an agent has and does. Also its heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PollRequest {
    /// [`VERSION`].
    pub protocol: u32,
    /// Version of the agent's binary.
    pub version: String,
    /// Hash of the inventory's JSON.
    pub inventory_hash: Digest,
    /// The inventory, at start and whenever its hash changed or the server asks.
    #[serde(default)]
    pub inventory: Option<Inventory>,
    /// Every attempt on this host that is not forgotten yet.
    #[serde(default)]
    pub attempts: Vec<AttemptStatus>,
    /// How long the server may hold the answer while there is nothing to say; at most 20 s.
    pub wait: Span,
    /// False: finish what runs, take nothing new (drain, disk watermark); the reason stands in `closed`.
    pub accepting: bool,
    /// Why nothing new is taken.
    #[serde(default)]
    pub closed: Option<String>,
    /// Whether the host is to be free: its attempts are to be stopped with their grace, and their jobs go on elsewhere.
    #[serde(default)]
    pub evict: bool,
}

/// Where an attempt stands on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptStatus {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its generation.
    pub generation: u32,
    /// Its phase.
    pub phase: Phase,
    /// When the agent began with it.
    pub started_at: Timestamp,
    /// Whether its CPUs, memory and GPUs are free and clean again.
    pub released: bool,
}

/// What an agent is to do: what is wanted minus what it reported, computed afresh each time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PollAnswer {
    /// Attempts to begin; one that the agent already has is ignored.
    #[serde(default)]
    pub start: Vec<AttemptOrder>,
    /// Attempts to end, with a report.
    #[serde(default)]
    pub stop: Vec<StopOrder>,
    /// Attempts to end and forget: nobody believes them, no report is wanted.
    #[serde(default)]
    pub abandoned: Vec<AttemptId>,
    /// Whether the next poll must bring the inventory.
    #[serde(default)]
    pub want_inventory: bool,
    /// The server's clock when it answered: the agent puts the times that it sends right by it.
    #[serde(default)]
    pub now: Option<Timestamp>,
}

/// Ends an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// Which.
    pub attempt: AttemptId,
    /// Who or what asked; becomes the outcome's `by`.
    pub by: String,
    /// Time to write a checkpoint.
    pub grace: Span,
}

/// All that an agent needs for an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptOrder {
    /// The attempt.
    pub attempt: AttemptId,
    /// Fences late writers.
    pub generation: u32,
    /// The job.
    pub job: JobId,
    /// 1 for the first attempt of the job.
    pub number: u32,
    /// Its pipeline.
    pub pipeline: PipelineId,
    /// Its project.
    pub project: ProjectId,
    /// The project's name on screens.
    pub project_name: String,
    /// Where its files come from.
    pub source: Source,
    /// How far its commit is trusted.
    pub trust: Trust,
    /// What to do.
    pub spec: JobSpec,
    /// Values of the secrets in `spec.secrets`.
    #[serde(default)]
    pub secrets: std::collections::BTreeMap<String, String>,
    /// UUIDs of the GPUs that were booked for it.
    #[serde(default)]
    pub gpus: Vec<String>,
    /// What the jobs that it needs left, by the name of the definition.
    #[serde(default)]
    pub needs: std::collections::BTreeMap<String, Vec<Artifact>>,
    /// The version of a model that it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentModel>,
    /// What it goes on from, where an earlier attempt brought that to the server.
    #[serde(default)]
    pub checkpoint: Option<Checkpoint>,
    /// Its run in the registry. None: the server takes no calls of its code.
    #[serde(default)]
    pub run: Option<String>,
}

impl AttemptOrder {
    /// The name of the experiment in which the job's runs lie.
    #[must_use]
    pub fn experiment(&self) -> String {
        format!("{}/{}", self.project_name, self.spec.definition)
    }
}

/// A version of a model with its files, for `$TRAINYARD_PARENT_DIR`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentModel {
    /// The model's name.
    pub model: String,
    /// The version's number.
    pub version: u64,
    /// Its files.
    pub files: Vec<ModelFile>,
}

/// What an earlier attempt of a job left for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Number of that attempt. A host that has the folder of this attempt or of a later one has what is newer.
    pub number: u32,
    /// The files.
    pub files: Vec<CheckpointFile>,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointFile {
    /// Path below `$TRAINYARD_CHECKPOINT_DIR`, with `/`, relative and without `..`.
    pub path: String,
    /// Its content.
    pub blob: Digest,
    /// Its length.
    pub size: ByteSize,
}

/// Where an attempt's files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Source {
    /// A commit of a repository.
    Git {
        /// URL for `git fetch`.
        url: String,
        /// The commit.
        commit: CommitId,
        /// A ref that leads to it, for servers that refuse to serve bare commits.
        #[serde(default)]
        reference: Option<String>,
        /// Value of the HTTP `Authorization` header, where one is needed.
        #[serde(default)]
        authorization: Option<String>,
    },
    /// A folder of this host as it is (`trainyard run`): tracked and untracked files, not ignored ones.
    Folder {
        /// Absolute path.
        path: String,
    },
}

/// Events were made durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsAnswer {
    /// The next number wanted. Lower than what was sent after a gap, higher after a repeat.
    pub next: u64,
}

/// A report was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishAnswer {
    /// True where the attempt is the believed one, or was when it finished: the agent may forget it.
    pub accepted: bool,
}
