//! What was measured of a job: peaks, means over time, and how long its GPUs have been idle. Pure; it lies in
//! `usage.json`, so that an agent's restart forgets nothing.

use std::collections::BTreeMap;

use protocol::event::GpuSample;
use protocol::report::{GpuUsage, Usage};
use protocol::{ByteSize, Span};
use serde::{Deserialize, Serialize};

use crate::executor::Reading;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Measured {
    pub(super) peaks: Peaks,
    cpu_millis: Curve,
    memory: Curve,
    /// By UUID.
    gpus: BTreeMap<String, GpuMeasured>,
    /// What the caches that it shares held before it.
    pub(super) cache_before: Option<ByteSize>,
    /// Sentences for people.
    pub(super) notes: Vec<String>,
}

/// The most that was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Peaks {
    pub(super) memory: Option<ByteSize>,
    pub(super) cpu_time: Option<Span>,
    pub(super) processes: Option<u64>,
    pub(super) oom_kills: Option<u64>,
}

impl Peaks {
    pub(super) fn add(&mut self, reading: &Reading) {
        self.memory = self.memory.max(reading.memory_peak).max(reading.memory);
        self.cpu_time = self.cpu_time.max(reading.cpu_time);
        self.processes = self.processes.max(reading.processes);
        self.oom_kills = self.oom_kills.max(reading.oom_kills);
    }
}

/// A quantity over time. Samples are not equally far apart: each counts for the time before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Curve {
    peak: u64,
    area: f64,
    ms: u64,
}

impl Curve {
    fn add(&mut self, value: u64, passed: Span) {
        self.peak = self.peak.max(value);
        self.area += value as f64 * passed.0 as f64;
        self.ms += passed.0;
    }

    /// Mean and peak; none: it was never measured.
    fn both(&self) -> Option<(u64, u64)> {
        let mean = (self.area / self.ms as f64).round() as u64;
        (self.ms > 0).then_some((mean, self.peak))
    }
}

/// What was measured of one GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct GpuMeasured {
    utilization: Curve,
    memory: Curve,
    idle: Idle,
}

/// A time in which a GPU was hardly used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Idle {
    /// How long, up to now.
    pub(super) time: Span,
    /// The most use in that time, in percent.
    pub(super) utilization: u32,
    /// The most memory in that time.
    pub(super) memory: ByteSize,
}

impl Idle {
    fn add(&mut self, sample: &GpuSample, passed: Span, below: u32) {
        *self = match sample.utilization {
            Some(utilization) if utilization < below => Self {
                time: Span(self.time.0 + passed.0),
                utilization: self.utilization.max(utilization),
                memory: self.memory.max(sample.memory),
            },
            // Who does not tell its use is not called idle.
            Some(_) | None => Self::default(),
        };
    }
}

impl Measured {
    /// Takes CPUs and memory as they were for `passed`.
    pub(super) fn add(&mut self, cpu_millis: u64, memory: ByteSize, passed: Span) {
        self.cpu_millis.add(cpu_millis, passed);
        self.memory.add(memory.0, passed);
    }

    /// Takes GPUs as they were for `passed`; below so many percent of use one is idle.
    pub(super) fn add_gpus(&mut self, samples: &[GpuSample], passed: Span, below: u32) {
        for sample in samples {
            let gpu = self.gpus.entry(sample.uuid.clone()).or_default();
            if let Some(utilization) = sample.utilization {
                gpu.utilization.add(u64::from(utilization), passed);
            }
            gpu.memory.add(sample.memory.0, passed);
            gpu.idle.add(sample, passed, below);
        }
    }

    /// The GPUs that have been idle for at least `time`.
    pub(super) fn idle(&self, time: Span) -> Vec<(&str, Idle)> {
        self.gpus
            .iter()
            .filter(|(_, gpu)| gpu.idle.time >= time)
            .map(|(uuid, gpu)| (uuid.as_str(), gpu.idle))
            .collect()
    }

    /// The most memory that was seen in use on one of the GPUs.
    pub(super) fn gpu_memory(&self) -> Option<ByteSize> {
        let peaks = self.gpus.values().filter_map(|gpu| gpu.memory.both());
        peaks.map(|(_, peak)| ByteSize(peak)).max()
    }

    /// For the report of a job whose code ran so long.
    pub(super) fn usage(&self, run_time: Span) -> Usage {
        let (cpus, memory) = (self.cpu_millis.both(), self.memory.both());
        Usage {
            memory_peak: self.peaks.memory,
            memory_mean: memory.map(|(mean, _)| ByteSize(mean)),
            cpu_time: self.peaks.cpu_time,
            cpu_millis_peak: cpus.map(|(_, peak)| peak),
            cpu_millis_mean: cpus.map(|(mean, _)| mean),
            run_time,
            gpus: self
                .gpus
                .iter()
                .filter_map(|(uuid, gpu)| gpu.usage(uuid))
                .collect(),
            notes: self.notes.clone(),
        }
    }
}

impl GpuMeasured {
    fn usage(&self, uuid: &str) -> Option<GpuUsage> {
        let percent = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let (utilization, memory) = (self.utilization.both(), self.memory.both()?);
        Some(GpuUsage {
            uuid: uuid.to_owned(),
            utilization_mean: utilization.map(|(mean, _)| percent(mean)),
            utilization_peak: utilization.map(|(_, peak)| percent(peak)),
            memory_mean: ByteSize(memory.0),
            memory_peak: ByteSize(memory.1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(utilization: Option<u32>, gib: u64) -> Vec<GpuSample> {
        vec![GpuSample {
            uuid: "GPU-1".into(),
            utilization,
            memory: ByteSize::gib(gib),
        }]
    }

    #[test]
    fn means_are_over_time_not_over_samples() {
        let mut measured = Measured::default();
        measured.add(4_000, ByteSize::gib(4), Span::secs(1));
        measured.add(0, ByteSize::gib(1), Span::secs(3));
        measured.add_gpus(&sample(Some(80), 10), Span::secs(1), 5);
        measured.add_gpus(&sample(Some(0), 2), Span::secs(3), 5);
        let usage = measured.usage(Span::secs(4));
        assert_eq!(usage.cpu_millis_mean, Some(1_000));
        assert_eq!(usage.cpu_millis_peak, Some(4_000));
        assert_eq!(usage.memory_mean, Some(ByteSize::mib(1_792)));
        let gpu = &usage.gpus[0];
        assert_eq!(
            (gpu.utilization_mean, gpu.utilization_peak),
            (Some(20), Some(80))
        );
        assert_eq!(
            (gpu.memory_mean, gpu.memory_peak),
            (ByteSize::gib(4), ByteSize::gib(10))
        );
        assert_eq!(measured.gpu_memory(), Some(ByteSize::gib(10)));
        assert_eq!(Measured::default().usage(Span(0)), Usage::default());
    }

    #[test]
    fn a_gpu_is_idle_from_its_last_use_on() {
        let mut measured = Measured::default();
        let idle = |measured: &Measured| measured.idle(Span::secs(10)).len();
        measured.add_gpus(&sample(Some(4), 1), Span::secs(9), 5);
        assert_eq!(idle(&measured), 0);
        measured.add_gpus(&sample(Some(2), 3), Span::secs(1), 5);
        let [("GPU-1", seen)] = measured.idle(Span::secs(10))[..] else {
            panic!("{measured:?}")
        };
        assert_eq!((seen.utilization, seen.memory), (4, ByteSize::gib(3)));
        measured.add_gpus(&sample(Some(5), 1), Span::secs(1), 5);
        assert_eq!(idle(&measured), 0);
        // A slice, whose use nobody tells.
        measured.add_gpus(&sample(None, 1), Span::secs(100), 5);
        assert_eq!(idle(&measured), 0);
    }

    #[test]
    fn it_is_read_back_as_it_was() {
        let mut measured = Measured::default();
        measured.add_gpus(&sample(Some(3), 1), Span::secs(9), 5);
        measured.notes.push("a note".into());
        let text = serde_json::to_string(&measured).unwrap();
        assert_eq!(serde_json::from_str::<Measured>(&text).unwrap(), measured);
        assert_eq!(
            serde_json::from_str::<Measured>("{}").unwrap(),
            Measured::default()
        );
    }
}
