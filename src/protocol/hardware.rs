//! What a host has, as its agent found it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::Trust;
use crate::units::{ByteSize, Timestamp};

/// A host's hardware and what on it is for Trainyard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// The host's name.
    pub host: String,
    /// `linux/amd64`.
    pub platform: String,
    /// Model of the CPU.
    pub cpu_model: String,
    /// CPUs that jobs may use, in thousandths.
    pub cpu_millis: u64,
    /// Memory that jobs may use.
    pub memory: ByteSize,
    /// Size of the disk of the data folder.
    pub disk: ByteSize,
    /// What of that disk jobs may have at once: what is free above the watermark, and what attempts hold of what they asked
    /// for. None: the agent does not say, and all of the disk counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_room: Option<ByteSize>,
    /// NVIDIA driver, where there is one.
    #[serde(default)]
    pub driver: Option<GpuDriver>,
    /// GPUs; empty without a driver.
    #[serde(default)]
    pub gpus: Vec<Gpu>,
    /// Labels from the agent's configuration.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Named volumes from the agent's configuration, with their version where one is declared.
    #[serde(default)]
    pub volumes: BTreeMap<String, Option<String>>,
    /// Who may mount them, by name; of one that is not named here: trusted commits of every project.
    #[serde(default)]
    pub volume_grants: BTreeMap<String, VolumeGrant>,
    /// The container engine, where there is one.
    #[serde(default)]
    pub engine: Option<Engine>,
}

/// Who may mount a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct VolumeGrant {
    /// Whether untrusted commits may.
    #[serde(default)]
    pub public: bool,
    /// Only jobs of these projects; none: of every one.
    #[serde(default)]
    pub projects: Option<Vec<String>>,
}

impl VolumeGrant {
    /// Why a job of this project and trust may not mount the volume; none: it may.
    #[must_use]
    pub fn refusal(&self, project: &str, trust: Trust) -> Option<&'static str> {
        let others = self.projects.as_ref();
        if others.is_some_and(|projects| !projects.iter().any(|name| name == project)) {
            return Some("is not for this project");
        }
        (trust == Trust::Untrusted && !self.public)
            .then_some("is not public, and the commit is not trusted")
    }
}

/// The NVIDIA driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuDriver {
    /// Its version, such as `570.86.15`.
    pub version: String,
    /// Highest CUDA version that it runs, such as `12.8`.
    pub cuda: String,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its UUID: the only name that survives a reboot.
    pub uuid: String,
    /// NVML's index now, for people who look at `nvidia-smi`.
    pub index: u32,
    /// Its model, such as `NVIDIA H100 80GB HBM3`.
    pub model: String,
    /// Memory.
    pub memory: ByteSize,
    /// Compute capability, such as `9.0`.
    pub compute_capability: String,
    /// Whether it is a device that a job can have, and of what it is a part.
    #[serde(default)]
    pub kind: GpuKind,
    /// Its place on the PCI bus, such as `0000:1b:00.0`.
    #[serde(default)]
    pub pci: Option<String>,
    /// The NUMA node that is nearest.
    #[serde(default)]
    pub numa_node: Option<u32>,
    /// GPUs of a host with the same number reach each other by NVLink; none: by PCI alone.
    #[serde(default)]
    pub nvlink_group: Option<u32>,
    /// Whether jobs may use it now.
    pub health: GpuHealth,
}

/// What a GPU is to a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuKind {
    /// A whole GPU.
    #[default]
    Whole,
    /// A GPU in MIG mode: no device of its own, its slices are.
    Sliced,
    /// A MIG slice.
    Slice {
        /// UUID of the GPU that it is cut from.
        parent: String,
        /// Its profile as NVIDIA names it, such as `1g.10gb`.
        profile: String,
    },
}

/// Whether a GPU may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "health", rename_all = "snake_case")]
pub enum GpuHealth {
    /// It may.
    Healthy,
    /// Somebody outside Trainyard uses it; clears by itself.
    InUseOutside {
        /// Processes in words.
        by: String,
    },
    /// It is lent to a person; clears by itself.
    Reserved {
        /// Whom.
        by: String,
        /// Until when.
        until: Timestamp,
    },
    /// It did not become clean, or reports a fault.
    Quarantined {
        /// Why.
        reason: String,
    },
    /// NVML cannot reach it.
    Lost {
        /// NVML's error.
        error: String,
    },
}

impl GpuHealth {
    /// Why jobs may not use it, in words; none where they may.
    #[must_use]
    pub fn hindrance(&self, now: Timestamp) -> Option<String> {
        match self {
            GpuHealth::Healthy => None,
            GpuHealth::InUseOutside { by } => Some(format!("in use outside Trainyard: {by}")),
            GpuHealth::Reserved { by, until } => Some(format!(
                "reserved for {by}, {} more",
                until.minutes_from(now)
            )),
            GpuHealth::Quarantined { reason } => Some(format!("quarantined: {reason}")),
            GpuHealth::Lost { error } => Some(format!("lost: {error}")),
        }
    }
}

/// The container engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// `docker` or `podman`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// API version in use.
    pub api: String,
}
