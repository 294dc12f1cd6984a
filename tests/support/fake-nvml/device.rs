//! What one GPU or slice is and does.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};
use std::mem;

use nvml_wrapper_sys::bindings::field_id::*;
use nvml_wrapper_sys::bindings::*;

use crate::fleet::{Gpu, Process};
use crate::{
    Answer, INVALID, NOT_FOUND, TOO_SMALL, UNKNOWN, UNSUPPORTED, WRONG_VERSION, answer, handle,
    put, put_text, seen, whole,
};

const MIB: u64 = 1 << 20;

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetUUID(
    device: nvmlDevice_t,
    to: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = seen(device)?;
        let uuid = seen.slice().map_or(&seen.gpu().uuid, |slice| &slice.uuid);
        put_text(to, length, uuid)
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetName(
    device: nvmlDevice_t,
    to: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = seen(device)?;
        let name = &seen.gpu().name;
        match seen.slice() {
            None => put_text(to, length, name),
            Some(slice) => put_text(to, length, &format!("{name} MIG {}", slice.profile)),
        }
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetMinorNumber(
    device: nvmlDevice_t,
    to: *mut c_uint,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = whole(device)?;
        put(to, seen.gpu().minor.unwrap_or(seen.index as c_uint))
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(
    device: nvmlDevice_t,
    to: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    answer(|| unsafe { put(to, pci(&seen(device)?.gpu().pci)?) })
}

/// `00000000:1B:00.0` as NVML gives it.
fn pci(text: &str) -> Result<nvmlPciInfo_t, nvmlReturn_t> {
    // SAFETY: numbers and arrays of numbers may be zero.
    let mut info: nvmlPciInfo_t = unsafe { mem::zeroed() };
    let mut parts = text
        .split([':', '.'])
        .map(|part| u32::from_str_radix(part, 16).map_err(|_| UNKNOWN));
    let mut next = || parts.next().unwrap_or(Err(UNKNOWN));
    (info.domain, info.bus, info.device) = (next()?, next()?, next()?);
    // SAFETY: the buffer is our own, of the length that is said.
    unsafe { put_text(info.busId.as_mut_ptr(), info.busId.len() as c_uint, text)? };
    Ok(info)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetNumaNodeId(
    device: nvmlDevice_t,
    to: *mut c_uint,
) -> nvmlReturn_t {
    answer(|| unsafe { put(to, whole(device)?.gpu().numa_node.ok_or(UNSUPPORTED)?) })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    to: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let version = (mem::size_of::<nvmlMemory_v2_t>() | (2 << 24)) as c_uint;
        if to.is_null() {
            return Err(INVALID);
        }
        if (*to).version != version {
            return Err(WRONG_VERSION);
        }
        let seen = seen(device)?;
        let gpu = seen.gpu();
        let (total, used, reserved) = seen
            .slice()
            .map_or((gpu.memory, gpu.used, gpu.reserved), |slice| {
                (slice.memory, slice.used, 0)
            });
        put(
            to,
            nvmlMemory_v2_t {
                version,
                total: total * MIB,
                reserved: reserved * MIB,
                free: total.saturating_sub(used + reserved) * MIB,
                used: used * MIB,
            },
        )
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: nvmlDevice_t,
    major: *mut c_int,
    minor: *mut c_int,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let capability = seen(device)?.gpu().compute_capability;
        put(major, capability.0)?;
        put(minor, capability.1)
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: nvmlDevice_t,
    to: *mut nvmlUtilization_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = whole(device)?;
        // NVML tells no use of a GPU in MIG mode.
        if seen.gpu().mig.is_some() {
            return Err(UNSUPPORTED);
        }
        let gpu = seen.gpu().utilization;
        put(to, nvmlUtilization_t { gpu, memory: 0 })
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = seen(device)?;
        let gpu = seen.gpu();
        match (seen.slice(), &gpu.mig) {
            (Some(slice), _) => put_processes(&slice.processes, count, to),
            (None, None) => put_processes(&gpu.processes, count, to),
            (None, Some(slots)) => {
                let all: Vec<Process> = slots
                    .iter()
                    .flatten()
                    .flat_map(|slice| slice.processes.clone())
                    .chain(gpu.processes.clone())
                    .collect();
                put_processes(&all, count, to)
            }
        }
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = seen(device)?;
        let none = seen.slice().is_some();
        put_processes(if none { &[] } else { &seen.gpu().graphics }, count, to)
    })
}

/// Where there is not enough room, the count is the answer; no process is no error.
unsafe fn put_processes(
    processes: &[Process],
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
) -> Answer {
    const UNAVAILABLE: u64 = u64::MAX;
    if count.is_null() {
        return Err(INVALID);
    }
    // SAFETY: the caller says how many there is room for behind `to`.
    unsafe {
        let room = *count as usize;
        *count = processes.len() as c_uint;
        if processes.is_empty() {
            return Ok(());
        }
        if room < processes.len() {
            return Err(TOO_SMALL);
        }
        for (n, process) in processes.iter().enumerate() {
            let info = nvmlProcessInfo_t {
                pid: process.pid,
                usedGpuMemory: process.memory.map_or(UNAVAILABLE, |mib| mib * MIB),
                gpuInstanceId: u32::MAX,
                computeInstanceId: u32::MAX,
            };
            put(to.add(n), info)?;
        }
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = whole(device)?;
        // As on hardware: only data center GPUs from Ampere on have the mode.
        if seen.gpu().compute_capability.0 < 8 {
            return Err(UNSUPPORTED);
        }
        let mode = c_uint::from(seen.gpu().mig.is_some());
        put(current, mode)?;
        put(pending, mode)
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(
    device: nvmlDevice_t,
    to: *mut c_uint,
) -> nvmlReturn_t {
    answer(|| unsafe {
        put(
            to,
            whole(device)?.gpu().mig.as_ref().map_or(0, Vec::len) as c_uint,
        )
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    to: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = whole(device)?;
        let slots = seen.gpu().mig.as_ref().ok_or(NOT_FOUND)?;
        slots
            .get(index as usize)
            .ok_or(INVALID)?
            .as_ref()
            .ok_or(NOT_FOUND)?;
        put(to, handle(seen.index, Some(index as usize)))
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetAttributes_v2(
    device: nvmlDevice_t,
    to: *mut nvmlDeviceAttributes_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = seen(device)?;
        let slice = seen.slice().ok_or(UNSUPPORTED)?;
        let slices = slice.profile.split('g').next().and_then(|n| n.parse().ok());
        let mut attributes: nvmlDeviceAttributes_t = mem::zeroed();
        attributes.gpuInstanceSliceCount = slices.ok_or(UNKNOWN)?;
        attributes.computeInstanceSliceCount = attributes.gpuInstanceSliceCount;
        attributes.memorySizeMB = slice.memory;
        put(to, attributes)
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: nvmlMemoryErrorType_t,
    _counter: nvmlEccCounterType_t,
    to: *mut c_ulonglong,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let uncorrected = whole(device)?.gpu().uncorrected.ok_or(UNSUPPORTED)?;
        let wanted = kind == nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED;
        put(to, if wanted { uncorrected } else { 0 })
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = whole(device)?;
        for n in 0..usize::try_from(count).map_err(|_| INVALID)? {
            let value = &mut *values.add(n);
            match field(seen.gpu(), value.fieldId) {
                Some(number) => {
                    value.nvmlReturn = crate::SUCCESS;
                    value.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
                    value.value.uiVal = number;
                }
                None => value.nvmlReturn = UNSUPPORTED,
            }
        }
        Ok(())
    })
}

fn field(gpu: &Gpu, id: c_uint) -> Option<c_uint> {
    let remap = gpu.remap;
    match id {
        NVML_FI_DEV_REMAPPED_COR => Some(remap?.correctable as c_uint),
        NVML_FI_DEV_REMAPPED_UNC => Some(remap?.uncorrectable as c_uint),
        NVML_FI_DEV_REMAPPED_PENDING => Some(remap?.pending.into()),
        NVML_FI_DEV_REMAPPED_FAILURE => Some(remap?.failed.into()),
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => gpu.recovery_action,
        _ => None,
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetRetiredPagesPendingStatus(
    device: nvmlDevice_t,
    to: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = whole(device)?;
        // Ampere and later remap rows instead.
        if seen.gpu().remap.is_some() {
            return Err(UNSUPPORTED);
        }
        put(to, seen.gpu().retire_pending.into())
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    device: nvmlDevice_t,
    to: *mut c_ulonglong,
) -> nvmlReturn_t {
    answer(|| unsafe { put(to, whole(device)?.gpu().throttle) })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: nvmlDevice_t,
    link: c_uint,
    to: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = whole(device)?;
        let links = &seen.gpu().nvlinks;
        if links.is_empty() {
            return Err(UNSUPPORTED);
        }
        let link = links.get(link as usize).ok_or(INVALID)?;
        put(to, link.is_some().into())
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: nvmlDevice_t,
    link: c_uint,
    to: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let seen = whole(device)?;
        let remote = seen.gpu().nvlinks.get(link as usize).ok_or(INVALID)?;
        if seen.gpu().hides_link_ends {
            return Err(UNSUPPORTED);
        }
        put(to, pci(remote.as_ref().ok_or(UNSUPPORTED)?)?)
    })
}

/// Two GPUs speak NVLink where a link of one ends at the other, or at a switch at which one of the other's ends.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetP2PStatus(
    device: nvmlDevice_t,
    other: nvmlDevice_t,
    capability: nvmlGpuP2PCapsIndex_t,
    to: *mut nvmlGpuP2PStatus_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        if capability != nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_NVLINK {
            return Err(UNSUPPORTED);
        }
        let (one, two) = (whole(device)?, whole(other)?);
        let ends = |gpu: &Gpu| {
            gpu.nvlinks
                .clone()
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        };
        let (ones, twos) = (ends(one.gpu()), ends(two.gpu()));
        let joined = ones.contains(&two.gpu().pci) || ones.iter().any(|end| twos.contains(end));
        let status = match joined {
            true => nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK,
            false => nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED,
        };
        put(to, status)
    })
}
