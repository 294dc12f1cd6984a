//! The one place that calls NVML. It turns what NVML says into plain values, GPU by GPU: an error of one
//! GPU says nothing of the others.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use protocol::ByteSize;
use protocol::hardware::{Gpu, GpuDriver, GpuHealth, GpuKind};

use super::gpu::{GpuProcess, GpuReading, MemoryHealth, cuda_version};

/// NVML's field ids for row remapping.
const REMAP_PENDING: FieldId = FieldId(144);
const REMAP_FAILED: FieldId = FieldId(145);

/// NVML is not there, or not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NvmlAbsent {
    /// There is no NVIDIA driver on this host.
    #[error("no NVIDIA driver (libnvidia-ml.so.1 was not found)")]
    NoDriver,
    /// There is one, and it does not work.
    #[error("the NVIDIA driver does not answer: {0}")]
    Broken(String),
}

/// The loaded library.
#[derive(Debug)]
pub struct Nvml {
    nvml: nvml_wrapper::Nvml,
    /// GPUs as they were last seen, by index: a lost one cannot say who it is.
    seen: Mutex<BTreeMap<u32, Gpu>>,
}

impl Nvml {
    /// Loads `libnvidia-ml.so.1`.
    ///
    /// # Errors
    /// Where there is no driver, or a broken one.
    pub fn load() -> Result<Self, NvmlAbsent> {
        match nvml_wrapper::Nvml::init() {
            Ok(nvml) => Ok(Self {
                nvml,
                seen: Mutex::default(),
            }),
            Err(NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound) => {
                Err(NvmlAbsent::NoDriver)
            }
            Err(error) => Err(NvmlAbsent::Broken(error.to_string())),
        }
    }

    /// Versions of the driver and of CUDA.
    #[must_use]
    pub fn driver(&self) -> Option<GpuDriver> {
        Some(GpuDriver {
            version: self.nvml.sys_driver_version().ok()?,
            cuda: cuda_version(self.nvml.sys_cuda_driver_version().ok()?),
        })
    }

    /// Every GPU now.
    #[must_use]
    pub fn read(&self) -> Vec<GpuReading> {
        let count = match self.nvml.device_count() {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!(%error, "NVML does not count its GPUs");
                0
            }
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let count = count.max(seen.keys().last().map_or(0, |index| index + 1));
        let mut readings = Vec::new();
        for index in 0..count {
            match self.read_one(index) {
                Ok(reading) => {
                    seen.insert(index, reading.gpu.clone());
                    readings.push(reading);
                }
                Err(error) => match seen.get(&index) {
                    Some(gpu) => readings.push(lost(gpu, &error)),
                    None => tracing::warn!(index, %error, "a GPU does not say who it is"),
                },
            }
        }
        readings
    }

    fn read_one(&self, index: u32) -> Result<GpuReading, NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let memory = device.memory_info()?;
        let capability = device.cuda_compute_capability()?;
        Ok(GpuReading {
            gpu: Gpu {
                uuid: device.uuid()?,
                index,
                model: device.name()?,
                memory: ByteSize(memory.total),
                compute_capability: format!("{}.{}", capability.major, capability.minor),
                kind: GpuKind::Whole,
                pci: None,
                numa_node: None,
                nvlink_group: None,
                health: GpuHealth::Healthy,
            },
            used: ByteSize(memory.used),
            utilization: device.utilization_rates().map_or(0, |rates| rates.gpu),
            processes: processes(&device),
            fault: memory_health(&device).fault(),
        })
    }
}

fn lost(gpu: &Gpu, error: &NvmlError) -> GpuReading {
    GpuReading {
        gpu: Gpu {
            health: GpuHealth::Lost {
                error: error.to_string(),
            },
            ..gpu.clone()
        },
        used: ByteSize(0),
        utilization: 0,
        processes: vec![],
        fault: None,
    }
}

/// Compute and graphics processes, each once.
fn processes(device: &Device<'_>) -> Vec<GpuProcess> {
    let compute = device.running_compute_processes().unwrap_or_default();
    let graphics = device.running_graphics_processes().unwrap_or_default();
    let by_pid: BTreeMap<_, _> = compute
        .into_iter()
        .chain(graphics)
        .map(|process| (process.pid, process.used_gpu_memory))
        .collect();
    let process = |(pid, used)| GpuProcess {
        pid,
        name: std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .map(|name| name.trim_end().to_owned())
            .unwrap_or_default(),
        memory: match used {
            UsedGpuMemory::Used(bytes) => Some(ByteSize(bytes)),
            UsedGpuMemory::Unavailable => None,
        },
    };
    by_pid.into_iter().map(process).collect()
}

fn memory_health(device: &Device<'_>) -> MemoryHealth {
    let field = |id| {
        let values = device.field_values_for(&[id]).ok()?;
        match values.into_iter().next()?.ok()?.value.ok()? {
            SampleValue::U32(n) => Some(n != 0),
            SampleValue::U64(n) => Some(n != 0),
            SampleValue::I64(n) => Some(n != 0),
            SampleValue::F64(n) => Some(n != 0.0),
        }
    };
    MemoryHealth {
        uncorrected: device
            .total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)
            .ok(),
        remap_pending: field(REMAP_PENDING),
        remap_failed: field(REMAP_FAILED),
        retire_pending: device.are_pages_pending_retired().ok(),
    }
}
