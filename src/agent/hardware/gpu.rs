//! One GPU at one moment: plain values, no NVML.

use protocol::ByteSize;
use protocol::hardware::Gpu;

/// A process that has something on a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuProcess {
    /// Its id on the host.
    pub pid: u32,
    /// Its name, as `/proc/PID/comm` says it; empty where it is gone or not ours to see.
    pub name: String,
    /// Whose it is; none where that cannot be seen.
    pub user: Option<String>,
    /// Id of the container that it runs in.
    pub container: Option<String>,
    /// What it uses of the GPU's memory, where that is known.
    pub memory: Option<ByteSize>,
}

impl GpuProcess {
    /// `python3 of ada (pid 4711)`.
    #[must_use]
    pub fn words(&self) -> String {
        let of = self
            .user
            .as_ref()
            .map_or_else(String::new, |user| format!(" of {user}"));
        if self.name.is_empty() {
            format!("pid {}{of}", self.pid)
        } else {
            format!("{}{of} (pid {})", self.name, self.pid)
        }
    }
}

/// A GPU or a MIG slice as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuReading {
    /// What it is; its health is `Healthy` or `Lost` here, the ledger knows the rest.
    pub gpu: Gpu,
    /// Number of its device file, `/dev/nvidia<node>`; a slice has its GPU's.
    pub node: Option<u32>,
    /// Of a slice: numbers of the files that open it, `/dev/nvidia-caps/nvidia-cap<number>`; empty where nobody tells.
    pub caps: Vec<u32>,
    /// Memory in use, without what the driver keeps for itself.
    pub used: ByteSize,
    /// Use in percent; NVML tells none of slices.
    pub utilization: Option<u32>,
    /// Who is on it. Of a GPU in MIG mode the slices say that.
    pub processes: Vec<GpuProcess>,
    /// A fault of the hardware that makes it unfit for jobs.
    pub fault: Option<String>,
    /// What is worth knowing and no fault.
    pub notes: Vec<String>,
}

/// `12080` -> `12.8`.
pub(super) fn cuda_version(version: i32) -> String {
    format!("{}.{}", version / 1_000, version % 1_000 / 10)
}

/// `00000000:1B:00.0` -> `0000:1b:00.0`, as Linux writes it.
pub(super) fn pci_address(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 && domain.starts_with("0000") => {
            format!("{}:{rest}", &domain[4..])
        }
        Some(_) | None => lower,
    }
}

/// The profile of a slice: from its name (`... MIG 1g.10gb`), else from what it has of its GPU, where NVIDIA rounds
/// memory up.
pub(super) fn profile(name: &str, slices: u32, memory_mib: u64) -> String {
    match name.split_once(" MIG ") {
        Some((_, profile)) => profile.to_owned(),
        None => format!("{slices}g.{}gb", memory_mib.div_ceil(1_024)),
    }
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
        node: Some(0),
        caps: vec![],
        used: ByteSize::mib(4),
        utilization: Some(0),
        processes: vec![],
        fault: None,
        notes: vec![],
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
    fn a_place_on_the_bus_is_written_as_linux_does() {
        assert_eq!(pci_address("00000000:1B:00.0"), "0000:1b:00.0");
        assert_eq!(pci_address("00010000:01:00.0"), "00010000:01:00.0");
        assert_eq!(pci_address("0000:01:00.0"), "0000:01:00.0");
    }

    #[test]
    fn a_slice_is_called_by_its_profile() {
        assert_eq!(
            profile("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 3, 1),
            "3g.40gb"
        );
        assert_eq!(profile("NVIDIA H100 80GB HBM3", 1, 9_856), "1g.10gb");
    }

    #[test]
    fn a_process_is_named_with_its_user_where_that_is_known() {
        let process = GpuProcess {
            pid: 7,
            name: "python3".into(),
            user: Some("ada".into()),
            container: None,
            memory: None,
        };
        assert_eq!(process.words(), "python3 of ada (pid 7)");
        let hidden = GpuProcess {
            name: String::new(),
            user: None,
            ..process
        };
        assert_eq!(hidden.words(), "pid 7");
    }
}
