//! One GPU at one moment, and what its counters mean: plain values, no NVML.

use protocol::ByteSize;
use protocol::hardware::Gpu;

/// A process that has something on a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuProcess {
    /// Its id on the host.
    pub pid: u32,
    /// Its name, as `/proc/PID/comm` says it; empty where it is gone or not ours to see.
    pub name: String,
    /// What it uses of the GPU's memory, where that is known.
    pub memory: Option<ByteSize>,
}

impl GpuProcess {
    /// `python3 (pid 4711)`.
    #[must_use]
    pub fn words(&self) -> String {
        if self.name.is_empty() {
            format!("pid {}", self.pid)
        } else {
            format!("{} (pid {})", self.name, self.pid)
        }
    }
}

/// A GPU as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuReading {
    /// What it is; its health is `Healthy` or `Lost` here, the ledger knows the rest.
    pub gpu: Gpu,
    /// Memory in use, without what the driver keeps for itself.
    pub used: ByteSize,
    /// Use in percent.
    pub utilization: u32,
    /// Who is on it.
    pub processes: Vec<GpuProcess>,
    /// A fault of the hardware that makes it unfit for jobs.
    pub fault: Option<String>,
}

/// Counters that tell of a GPU's memory. None: it does not have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MemoryHealth {
    /// Errors that ECC could not correct since the last reset.
    pub(super) uncorrected: Option<u64>,
    /// Rows wait to be remapped until the GPU is reset.
    pub(super) remap_pending: Option<bool>,
    /// A row could not be remapped.
    pub(super) remap_failed: Option<bool>,
    /// Pages wait to be retired until the GPU is reset (before Ampere).
    pub(super) retire_pending: Option<bool>,
}

impl MemoryHealth {
    /// The fault in words and what to do, where there is one.
    pub(super) fn fault(self) -> Option<String> {
        if self.remap_failed == Some(true) {
            return Some("a memory row could not be remapped; the GPU wants to be replaced".into());
        }
        if self.remap_pending == Some(true) {
            return Some("a memory row waits to be remapped; reset the GPU".into());
        }
        if self.retire_pending == Some(true) {
            return Some("a memory page waits to be retired; reset the GPU".into());
        }
        match self.uncorrected {
            Some(0) | None => None,
            Some(n) => Some(format!(
                "{n} memory errors that ECC could not correct since its last reset; reset the GPU"
            )),
        }
    }
}

/// `12080` -> `12.8`.
pub(super) fn cuda_version(version: i32) -> String {
    format!("{}.{}", version / 1_000, version % 1_000 / 10)
}

/// A healthy GPU that nobody uses.
#[cfg(test)]
pub(crate) fn example(uuid: &str) -> GpuReading {
    GpuReading {
        gpu: Gpu {
            uuid: uuid.into(),
            index: 0,
            model: "NVIDIA H100 80GB HBM3".into(),
            memory: ByteSize::gib(80),
            compute_capability: "9.0".into(),
            kind: protocol::hardware::GpuKind::Whole,
            pci: None,
            numa_node: None,
            nvlink_group: None,
            health: protocol::hardware::GpuHealth::Healthy,
        },
        used: ByteSize::mib(4),
        utilization: 0,
        processes: vec![],
        fault: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_cuda_read_as_people_say_them() {
        assert_eq!(cuda_version(12_080), "12.8");
        assert_eq!(cuda_version(11_040), "11.4");
    }

    #[test]
    fn only_what_harms_a_job_is_a_fault() {
        let fine = MemoryHealth {
            uncorrected: Some(0),
            remap_pending: Some(false),
            ..Default::default()
        };
        assert_eq!(fine.fault(), None);
        assert_eq!(MemoryHealth::default().fault(), None, "a GPU without ECC");
        let sick = MemoryHealth {
            uncorrected: Some(2),
            ..fine
        };
        assert!(sick.fault().unwrap().starts_with("2 memory errors"));
        let worn = MemoryHealth {
            remap_failed: Some(true),
            ..sick
        };
        assert!(worn.fault().unwrap().contains("replaced"));
    }
}
