//! What an agent says of an attempt when it is over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::event::Artifact;
use crate::outcome::Outcome;
use crate::units::{ByteSize, Span, Timestamp};

/// An attempt's end, complete: the server needs nothing more to make the registry's entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// How it ended.
    pub outcome: Outcome,
    /// When the agent began with it.
    pub started_at: Timestamp,
    /// When it was over.
    pub finished_at: Timestamp,
    /// Time spent in each phase, by its word.
    #[serde(default)]
    pub phases: BTreeMap<String, Span>,
    /// Files that it left; their blobs were acknowledged.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// Last value of each metric.
    #[serde(default)]
    pub metrics: Vec<MetricValue>,
    /// Settings that the job reported.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// What it ran in.
    #[serde(default)]
    pub setting: Setting,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
    /// Code cells that ran; zero for a command.
    #[serde(default)]
    pub cells_executed: u32,
    /// Code cells in all.
    #[serde(default)]
    pub cells_total: u32,
}

/// A metric's last value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricValue {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(with = "crate::event::float")]
    pub value: f64,
    /// Its step.
    #[serde(default)]
    pub step: i64,
}

/// What an attempt ran in: the half of lineage that only the host knows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Setting {
    /// The host's name.
    #[serde(default)]
    pub host: String,
    /// `docker` or `shell`.
    #[serde(default)]
    pub executor: String,
    /// Image by name.
    #[serde(default)]
    pub image: String,
    /// Image by content: its repository digest, or its id where it has none.
    #[serde(default)]
    pub image_id: Option<String>,
    /// Key of the Python environment; none: the image's own.
    #[serde(default)]
    pub environment: Option<Digest>,
    /// The resolved requirements, one `name==version` a line, sorted.
    #[serde(default)]
    pub packages: Option<String>,
    /// Python's version.
    #[serde(default)]
    pub python: Option<String>,
    /// Model of the CPU.
    #[serde(default)]
    pub cpu_model: String,
    /// Operating system and kernel.
    #[serde(default)]
    pub system: String,
    /// GPUs that were booked: UUID and model.
    #[serde(default)]
    pub gpus: Vec<BookedGpu>,
    /// NVIDIA driver and CUDA version.
    #[serde(default)]
    pub driver: Option<crate::hardware::GpuDriver>,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
}

/// A booked GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookedGpu {
    /// Its UUID.
    pub uuid: String,
    /// Its model.
    pub model: String,
}

/// What an attempt used.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Peak of memory, where the host could tell.
    #[serde(default)]
    pub memory_peak: Option<ByteSize>,
    /// CPU time.
    #[serde(default)]
    pub cpu_time: Option<Span>,
    /// Time the job's code ran.
    #[serde(default)]
    pub run_time: Span,
}
