//! The one place that calls NVML. It turns what NVML says into plain values, GPU by GPU: an error of one
//! GPU says nothing of the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    EccCounter, MemoryError, P2pCapabilitiesIndex, P2pStatus,
};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_FI_DEV_REMAPPED_COR, NVML_FI_DEV_REMAPPED_FAILURE,
    NVML_FI_DEV_REMAPPED_PENDING, NVML_FI_DEV_REMAPPED_UNC,
};
use protocol::ByteSize;
use protocol::event::GpuSample;
use protocol::hardware::{Gpu, GpuDriver, GpuHealth, GpuKind};

use super::absent::{NvmlAbsent, unloaded};
use super::events::Ear;
use super::gpu::{GpuProcess, GpuReading, cuda_version, pci_address, profile};
use super::health::{Counters, GpuFault};
use super::{links, mig, process};

/// How long a look at the links holds: there are many, each is a call, and they hardly change.
const LINKS_HOLD: Duration = Duration::from_secs(60);
/// The most NVLinks that a GPU has; NVML ends the count earlier where it has fewer.
const MOST_LINKS: u32 = 32;

/// The loaded library.
#[derive(Debug)]
pub struct Nvml {
    nvml: Arc<nvml_wrapper::Nvml>,
    /// GPUs with their slices as they were last seen, by index: a lost one cannot say who it is.
    seen: Mutex<BTreeMap<u32, Vec<Gpu>>>,
    links: Mutex<Option<Links>>,
    /// Listens for faults, where somebody asked for that.
    ear: Mutex<Option<Ear>>,
}

/// Which GPUs NVLink joined when that was looked at.
#[derive(Debug)]
struct Links {
    at: Instant,
    /// Of so many GPUs.
    count: u32,
    /// By index.
    groups: BTreeMap<u32, u32>,
}

impl Nvml {
    /// Loads NVIDIA's library.
    ///
    /// # Errors
    /// Where there is no driver, or a broken one.
    pub fn load(library: &Path) -> Result<Self, NvmlAbsent> {
        let loaded = nvml_wrapper::Nvml::builder()
            .lib_path(library.as_os_str())
            .init();
        match loaded {
            Ok(nvml) => Ok(Self {
                nvml: Arc::new(nvml),
                seen: Mutex::default(),
                links: Mutex::default(),
                ear: Mutex::default(),
            }),
            Err(NvmlError::LibloadingError(error)) => Err(unloaded(library, &error.to_string())),
            Err(NvmlError::FailedToLoadSymbol(why)) => Err(NvmlAbsent::Unusable {
                library: library.display().to_string(),
                why,
            }),
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

    /// Begins to listen for faults.
    pub(super) fn listen(&self) {
        let mut ear = self.ear.lock().unwrap_or_else(PoisonError::into_inner);
        match Ear::open(Arc::clone(&self.nvml)) {
            Ok(new) => *ear = Some(new),
            Err(error) => tracing::error!("nobody listens for faults of GPUs: {error}"),
        }
    }

    /// The faults since this was asked last.
    pub(super) fn take_faults(&self) -> Vec<GpuFault> {
        let ear = self.ear.lock().unwrap_or_else(PoisonError::into_inner);
        ear.as_ref().map(Ear::take).unwrap_or_default()
    }

    /// Every GPU now, and behind one in MIG mode its slices.
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
        let groups = self.held_groups(count);
        let mut readings = Vec::new();
        for index in 0..count {
            let group = groups.get(&index).copied();
            match self.read_one(index, group) {
                Ok(found) => {
                    seen.insert(index, found.iter().map(|r| r.gpu.clone()).collect());
                    readings.extend(found);
                }
                Err(error) => match seen.get(&index) {
                    Some(gpus) => readings.extend(gpus.iter().map(|gpu| lost(gpu, &error))),
                    None => readings.push(lost(&unknown(index), &error)),
                },
            }
        }
        readings
    }

    /// How much these GPUs and slices are used now; one that does not answer is left out. Found by going through all of
    /// them: not every driver finds a slice by its UUID.
    #[must_use]
    pub fn uses(&self, uuids: &[String]) -> Vec<GpuSample> {
        let count = self.nvml.device_count().unwrap_or(0);
        let all = (0..count).filter_map(|index| self.nvml.device_by_index(index).ok());
        all.flat_map(|device| uses(&device, uuids)).collect()
    }

    fn read_one(&self, index: u32, group: Option<u32>) -> Result<Vec<GpuReading>, NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let memory = device.memory_info()?;
        let capability = device.cuda_compute_capability()?;
        let sliced = device.mig_mode().is_ok_and(|mode| mode.current != 0);
        let pci = device.pci_info().ok().map(|pci| pci_address(&pci.bus_id));
        let counters = counters(&device);
        let mut whole = GpuReading {
            gpu: Gpu {
                uuid: device.uuid()?,
                index,
                model: device.name()?,
                memory: ByteSize(memory.total),
                compute_capability: format!("{}.{}", capability.major, capability.minor),
                kind: if sliced {
                    GpuKind::Sliced
                } else {
                    GpuKind::Whole
                },
                numa_node: pci
                    .as_deref()
                    .and_then(numa_node)
                    .or_else(|| device.numa_node_id().ok()),
                pci,
                nvlink_group: group,
                health: GpuHealth::Healthy,
            },
            node: device.minor_number().ok(),
            caps: vec![],
            used: ByteSize(memory.used),
            utilization: device.utilization_rates().ok().map(|rates| rates.gpu),
            processes: if sliced { vec![] } else { processes(&device) },
            fault: counters.fault(),
            notes: counters.notes(),
        };
        // Drivers before 510, and some systems: only its memory then tells that somebody is on it.
        if !sliced && device.running_compute_processes_count().is_err() {
            whole.notes.push("its processes cannot be seen".to_owned());
        }
        let slices = if sliced {
            slices(&device, &whole)?
        } else {
            vec![]
        };
        Ok([vec![whole], slices].concat())
    }

    /// Which GPUs NVLink joins, as it was seen lately.
    fn held_groups(&self, count: u32) -> BTreeMap<u32, u32> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = links
            .as_ref()
            .filter(|links| links.count == count && links.at.elapsed() < LINKS_HOLD);
        if let Some(links) = fresh {
            return links.groups.clone();
        }
        let groups = self.groups(count);
        *links = Some(Links {
            at: Instant::now(),
            count,
            groups: groups.clone(),
        });
        groups
    }

    /// Which GPUs NVLink joins, by index.
    fn groups(&self, count: u32) -> BTreeMap<u32, u32> {
        let devices: Vec<(u32, Device<'_>, String)> = (0..count)
            .filter_map(|index| {
                let device = self.nvml.device_by_index(index).ok()?;
                let pci = pci_address(&device.pci_info().ok()?.bus_id);
                Some((index, device, pci))
            })
            .collect();
        let mut found = Vec::new();
        for (index, device, pci) in &devices {
            match link_ends(device) {
                Some(ends) => found.extend(ends.into_iter().map(|end| (pci.clone(), end))),
                // Links whose ends are not told: the driver's word for each pair is the next best.
                None => found.extend(
                    devices
                        .iter()
                        .filter(|(other, _, _)| other != index)
                        .filter(|(_, other, _)| speaks_nvlink(device, other))
                        .map(|(_, _, end)| (pci.clone(), end.clone())),
                ),
            }
        }
        let addresses: Vec<String> = devices.iter().map(|(_, _, pci)| pci.clone()).collect();
        devices
            .iter()
            .zip(links::groups(&addresses, &found))
            .filter_map(|((index, _, _), group)| Some((*index, group?)))
            .collect()
    }
}

/// The other ends of a GPU's active links; none where there are some whose end nobody tells.
fn link_ends(device: &Device<'_>) -> Option<Vec<String>> {
    let mut ends = Vec::new();
    for link in 0..MOST_LINKS {
        let link = device.link_wrapper_for(link);
        match link.is_active() {
            Ok(true) => ends.push(pci_address(&link.remote_pci_info().ok()?.bus_id)),
            Ok(false) => {}
            Err(_) => break,
        }
    }
    Some(ends)
}

fn speaks_nvlink(device: &Device<'_>, other: &Device<'_>) -> bool {
    matches!(
        device.p2p_status(other, P2pCapabilitiesIndex::NvLink),
        Ok(P2pStatus::Ok)
    )
}

/// The use of a GPU and of its slices, of those that are asked for.
fn uses(device: &Device<'_>, uuids: &[String]) -> Vec<GpuSample> {
    let wanted = |device: &Device<'_>| device.uuid().ok().filter(|uuid| uuids.contains(uuid));
    if let Some(uuid) = wanted(device) {
        let utilization = device.utilization_rates().ok().map(|rates| rates.gpu);
        return used(device, uuid, utilization).into_iter().collect();
    }
    let slots = device.mig_device_count().unwrap_or(0);
    let slices = (0..slots).filter_map(|slot| device.mig_device_by_index(slot).ok());
    slices
        .filter_map(|slice| used(&slice, wanted(&slice)?, None))
        .collect()
}

fn used(device: &Device<'_>, uuid: String, utilization: Option<u32>) -> Option<GpuSample> {
    Some(GpuSample {
        uuid,
        utilization,
        memory: ByteSize(device.memory_info().ok()?.used),
    })
}

/// The slices of a GPU in MIG mode. NVML's count is a maximum: slots between may be empty.
fn slices(device: &Device<'_>, whole: &GpuReading) -> Result<Vec<GpuReading>, NvmlError> {
    let mut found = Vec::new();
    for slot in 0..device.mig_device_count()? {
        let slice = match device.mig_device_by_index(slot) {
            Ok(slice) => slice,
            Err(NvmlError::NotFound) => continue,
            Err(error) => return Err(error),
        };
        let (memory, name) = (slice.memory_info()?, slice.name()?);
        let (slices, mib) = slice.attributes().map_or((0, 0), |attributes| {
            (
                attributes.gpu_instance_slice_count,
                attributes.memory_size_mb,
            )
        });
        found.push(GpuReading {
            gpu: Gpu {
                uuid: slice.uuid()?,
                memory: ByteSize(memory.total),
                kind: GpuKind::Slice {
                    parent: whole.gpu.uuid.clone(),
                    profile: profile(&name, slices, mib),
                },
                // Slices reach each other by memory copies only.
                nvlink_group: None,
                ..whole.gpu.clone()
            },
            caps: mig::files(&slice, whole.node),
            used: ByteSize(memory.used),
            utilization: None,
            processes: processes(&slice),
            ..whole.clone()
        });
    }
    Ok(found)
}

fn lost(gpu: &Gpu, error: &NvmlError) -> GpuReading {
    GpuReading {
        gpu: Gpu {
            health: GpuHealth::Lost {
                error: match error {
                    NvmlError::GpuLost => "it fell off the bus; restart the host".to_owned(),
                    other => other.to_string(),
                },
            },
            ..gpu.clone()
        },
        node: None,
        caps: vec![],
        used: ByteSize(0),
        utilization: None,
        processes: vec![],
        fault: None,
        notes: vec![],
    }
}

/// A GPU that could not say who it is since this process began.
fn unknown(index: u32) -> Gpu {
    Gpu {
        uuid: format!("unknown-{index}"),
        index,
        model: "unknown".into(),
        memory: ByteSize(0),
        compute_capability: "0.0".into(),
        kind: GpuKind::Whole,
        pci: None,
        numa_node: None,
        nvlink_group: None,
        health: GpuHealth::Healthy,
    }
}

/// The NUMA node of a PCI device; the kernel writes -1 where there is one node only.
fn numa_node(pci: &str) -> Option<u32> {
    let path = format!("/sys/bus/pci/devices/{pci}/numa_node");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
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
    let process = |(pid, used)| {
        let identity = process::identify(pid);
        GpuProcess {
            pid,
            name: identity.name,
            user: identity.user,
            container: identity.container,
            memory: match used {
                UsedGpuMemory::Used(bytes) => Some(ByteSize(bytes)),
                UsedGpuMemory::Unavailable => None,
            },
        }
    };
    by_pid.into_iter().map(process).collect()
}

fn counters(device: &Device<'_>) -> Counters {
    let field = |id| {
        let values = device.field_values_for(&[FieldId(id)]).ok()?;
        match values.into_iter().next()?.ok()?.value.ok()? {
            SampleValue::U32(n) => Some(u64::from(n)),
            SampleValue::U64(n) => Some(n),
            SampleValue::I64(n) => u64::try_from(n).ok(),
            // No counter is a fraction.
            SampleValue::F64(_) => None,
        }
    };
    let throttle = device
        .current_throttle_reasons()
        .unwrap_or(ThrottleReasons::empty());
    Counters {
        uncorrected: device
            .total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)
            .ok(),
        remapped: field(NVML_FI_DEV_REMAPPED_COR)
            .zip(field(NVML_FI_DEV_REMAPPED_UNC))
            .map(|(corrected, uncorrected)| corrected + uncorrected),
        remap_pending: field(NVML_FI_DEV_REMAPPED_PENDING).map(|n| n != 0),
        remap_failed: field(NVML_FI_DEV_REMAPPED_FAILURE).map(|n| n != 0),
        retire_pending: device.are_pages_pending_retired().ok(),
        recovery: field(NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
        hot: throttle.intersects(
            ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::SW_THERMAL_SLOWDOWN,
        ),
        brake: throttle.contains(ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_library_is_not_a_missing_driver() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libnvidia-ml.so.1");
        let said = |library: &Path| Nvml::load(library).unwrap_err().to_string();
        let path = file.display().to_string();
        assert!(said(&file).contains("there is no such file"));
        std::fs::write(&file, "no library").unwrap();
        let text = said(&file);
        assert!(
            text.matches(&path).count() == 1 && text.contains("management library"),
            "{text}"
        );
        // The head of a library for RISC-V.
        let mut head = [0_u8; 64];
        head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        (head[16], head[18], head[20]) = (3, 243, 1);
        std::fs::write(&file, head).unwrap();
        let other = said(&file);
        assert!(
            other.contains(&path) && other.contains("another kind of machine"),
            "{other}"
        );
        let foreign = said(Path::new("libm.so.6"));
        assert!(foreign.contains("nvmlInit"), "{foreign}");
        let missing = Nvml::load(Path::new("libnvidia-ml-of-nobody.so.1")).unwrap_err();
        assert!(matches!(missing, NvmlAbsent::NoDriver { .. }), "{missing}");
    }
}
