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
    /// Who has what the host had offered, where the job was not begun for that: it goes on elsewhere, and nobody is to
    /// blame. `outcome` is then what a server is to believe that does not know this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
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

impl AttemptReport {
    /// How it ended, with its host's word on what was withdrawn.
    #[must_use]
    pub fn end(&self) -> Outcome {
        match &self.withdrawn {
            Some(by) => Outcome::Cancelled { by: by.clone() },
            None => self.outcome.clone(),
        }
    }
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
    /// What was in volumes without a declared version when the attempt began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeManifest>,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
}

/// What a volume held, by names, sizes and times: not verified, no content was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeManifest {
    /// The volume's name.
    pub name: String,
    /// Files that were looked at.
    pub files: u64,
    /// Their sizes together.
    pub bytes: ByteSize,
    /// Hash of their paths, sizes and times of change; none: the time for it was over.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// Whether it was all of the volume.
    pub whole: bool,
}

/// A booked GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookedGpu {
    /// Its UUID.
    pub uuid: String,
    /// Its model.
    pub model: String,
}

/// What an attempt used. Means are over time; peaks and means are those of samples, where nothing better is known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Peak of memory, where the host could tell.
    #[serde(default)]
    pub memory_peak: Option<ByteSize>,
    /// Mean of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mean: Option<ByteSize>,
    /// CPU time.
    #[serde(default)]
    pub cpu_time: Option<Span>,
    /// Most CPUs in use between two samples, in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis_peak: Option<u64>,
    /// Mean of CPUs in use, in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis_mean: Option<u64>,
    /// Time the job's code ran.
    #[serde(default)]
    pub run_time: Span,
    /// The GPUs that were booked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuUsage>,
    /// What is worth saying about it, such as a GPU that was hardly used; a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What an attempt used of one GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuUsage {
    /// Its UUID.
    pub uuid: String,
    /// Peak of utilisation in percent; none of a MIG slice.
    #[serde(default)]
    pub utilization_peak: Option<u32>,
    /// Mean of utilisation in percent.
    #[serde(default)]
    pub utilization_mean: Option<u32>,
    /// Peak of memory.
    pub memory_peak: ByteSize,
    /// Mean of memory.
    pub memory_mean: ByteSize,
}

impl Usage {
    /// What was used, by name and words: mean and peak of each. Empty where nothing was measured.
    #[must_use]
    pub fn words(&self) -> Vec<(String, String)> {
        let mut words = Vec::new();
        let cpus = |millis: u64| millis as f64 / 1_000.0;
        if let (Some(mean), Some(peak)) = (self.cpu_millis_mean, self.cpu_millis_peak) {
            let text = format!("mean {:.1}, peak {:.1}", cpus(mean), cpus(peak));
            words.push(("CPUs used".to_owned(), text));
        }
        if let Some(peak) = self.memory_peak {
            let mean = self.memory_mean;
            let mean = mean.map_or_else(String::new, |mean| format!("mean {mean}, "));
            words.push(("Memory used".to_owned(), format!("{mean}peak {peak}")));
        }
        for (number, gpu) in self.gpus.iter().enumerate() {
            let name = match self.gpus.len() {
                1 => "GPU used".to_owned(),
                n => format!("GPU {} of {n} used", number + 1),
            };
            let memory = format!("memory mean {}, peak {}", gpu.memory_mean, gpu.memory_peak);
            let text = match (gpu.utilization_mean, gpu.utilization_peak) {
                (Some(mean), Some(peak)) => format!("mean {mean} %, peak {peak} %; {memory}"),
                (_, _) => memory,
            };
            words.push((name, text));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_an_earlier_version_is_read_and_shown() {
        let usage: Usage =
            serde_json::from_str(r#"{"memory_peak":1073741824,"cpu_time":5,"run_time":9}"#)
                .unwrap();
        assert_eq!(
            usage.words(),
            [("Memory used".to_owned(), "peak 1 GiB".to_owned())]
        );
    }

    #[test]
    fn each_gpu_has_its_line() {
        let gpu = |utilization| GpuUsage {
            uuid: "GPU-1".into(),
            utilization_peak: utilization,
            utilization_mean: utilization,
            memory_peak: ByteSize::gib(2),
            memory_mean: ByteSize::gib(1),
        };
        let usage = Usage {
            gpus: vec![gpu(Some(40)), gpu(None)],
            ..Usage::default()
        };
        let lines: Vec<String> = usage
            .words()
            .into_iter()
            .map(|(name, text)| format!("{name}: {text}"))
            .collect();
        assert_eq!(
            lines,
            [
                "GPU 1 of 2 used: mean 40 %, peak 40 %; memory mean 1 GiB, peak 2 GiB",
                "GPU 2 of 2 used: memory mean 1 GiB, peak 2 GiB"
            ]
        );
    }
}
