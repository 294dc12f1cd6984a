//! NVIDIA's management library as far as nvml-wrapper calls it for us, over GPUs that a JSON file describes. It is
//! loaded by the real loader in the place of `libnvidia-ml.so.1`, and keeps NVML's conventions: sizes are asked with
//! INSUFFICIENT_SIZE, structs say their version, holes of MIG are NOT_FOUND, a lost GPU answers GPU_IS_LOST.

// The names are NVML's.
#![allow(non_snake_case)]
// NVML's own manual says what each pointer must be; only its callers' wrapper calls us.
#![allow(clippy::missing_safety_doc)]

mod device;
mod events;
mod fleet;

use std::ffi::{c_char, c_int, c_uint};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use device::*;
use events::*;
use fleet::{Fleet, Gpu, Slice};
use nvml_wrapper_sys::bindings::*;

pub(crate) const SUCCESS: nvmlReturn_t = nvmlReturn_enum_NVML_SUCCESS;
pub(crate) const INVALID: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
pub(crate) const UNSUPPORTED: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
pub(crate) const NOT_FOUND: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
pub(crate) const TOO_SMALL: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
pub(crate) const WRONG_VERSION: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
pub(crate) const LOST: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST;
pub(crate) const TIMEOUT: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_TIMEOUT;
pub(crate) const UNKNOWN: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_UNKNOWN;

/// What a function came to; `?` works in its body.
pub(crate) type Answer = Result<(), nvmlReturn_t>;

pub(crate) fn answer(body: impl FnOnce() -> Answer) -> nvmlReturn_t {
    match body() {
        Ok(()) => SUCCESS,
        Err(code) => code,
    }
}

pub(crate) fn fleet() -> Result<Arc<Fleet>, nvmlReturn_t> {
    fleet::now().ok_or(UNKNOWN)
}

/// Writes through a pointer of the caller's.
pub(crate) unsafe fn put<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(INVALID);
    }
    // SAFETY: the caller of NVML gives a pointer to a T of its own.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes text with its NUL into a buffer of the caller's.
pub(crate) unsafe fn put_text(to: *mut c_char, length: c_uint, text: &str) -> Answer {
    if text.len() + 1 > length as usize {
        return Err(TOO_SMALL);
    }
    for (n, byte) in text.bytes().chain([0]).enumerate() {
        // SAFETY: the buffer has `length` bytes, and the text with its NUL is not longer.
        unsafe { put(to.add(n), byte as c_char)? };
    }
    Ok(())
}

/// What a handle stands for.
pub(crate) struct Seen {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) index: usize,
    slice: Option<usize>,
}

impl Seen {
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.fleet.gpus[self.index]
    }

    pub(crate) fn slice(&self) -> Option<&Slice> {
        self.gpu().mig.as_ref()?.get(self.slice?)?.as_ref()
    }
}

/// Handles are numbers: the GPU's index, and behind it the slot of a slice, each plus one.
pub(crate) fn handle(index: usize, slice: Option<usize>) -> nvmlDevice_t {
    let number = (index + 1) | (slice.map_or(0, |slot| slot + 1) << 16);
    std::ptr::without_provenance_mut(number)
}

/// The GPU or slice of a handle, as the description has it now.
pub(crate) fn seen(device: nvmlDevice_t) -> Result<Seen, nvmlReturn_t> {
    let number = device.addr();
    let fleet = fleet()?;
    let index = (number & 0xffff).checked_sub(1).ok_or(INVALID)?;
    let gpu = fleet.gpus.get(index).ok_or(INVALID)?;
    if gpu.lost {
        return Err(LOST);
    }
    let seen = Seen {
        slice: (number >> 16).checked_sub(1),
        index,
        fleet: Arc::clone(&fleet),
    };
    if seen.slice.is_some() && seen.slice().is_none() {
        return Err(INVALID);
    }
    Ok(seen)
}

/// A whole GPU: what has no meaning for slices.
pub(crate) fn whole(device: nvmlDevice_t) -> Result<Seen, nvmlReturn_t> {
    let seen = seen(device)?;
    match seen.slice {
        None => Ok(seen),
        Some(_) => Err(UNSUPPORTED),
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    answer(|| {
        while fleet()?.hangs {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlSystemGetDriverVersion(
    to: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    answer(|| unsafe { put_text(to, length, &fleet()?.driver) })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(to: *mut c_int) -> nvmlReturn_t {
    answer(|| unsafe { put(to, fleet()?.cuda) })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetCount_v2(to: *mut c_uint) -> nvmlReturn_t {
    answer(|| unsafe { put(to, fleet()?.gpus.len() as c_uint) })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    to: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let device = handle(index as usize, None);
        seen(device)?;
        put(to, device)
    })
}

/// Each of our functions fits the type that nvml-wrapper calls it by: a wrong signature does not compile.
macro_rules! held_against_the_wrapper {
    ($($name:ident),* $(,)?) => {
        // It is never called: it only has to compile.
        #[allow(dead_code)]
        fn held_against_the_wrapper(lib: &mut NvmlLib) {
            $( lib.$name = Ok($name); )*
        }
    };
}

held_against_the_wrapper! {
    nvmlInit_v2,
    nvmlShutdown,
    nvmlSystemGetDriverVersion,
    nvmlSystemGetCudaDriverVersion_v2,
    nvmlDeviceGetCount_v2,
    nvmlDeviceGetHandleByIndex_v2,
    nvmlDeviceGetUUID,
    nvmlDeviceGetName,
    nvmlDeviceGetMinorNumber,
    nvmlDeviceGetPciInfo_v3,
    nvmlDeviceGetNumaNodeId,
    nvmlDeviceGetMemoryInfo_v2,
    nvmlDeviceGetCudaComputeCapability,
    nvmlDeviceGetUtilizationRates,
    nvmlDeviceGetComputeRunningProcesses_v3,
    nvmlDeviceGetGraphicsRunningProcesses_v3,
    nvmlDeviceGetMigMode,
    nvmlDeviceGetMaxMigDeviceCount,
    nvmlDeviceGetMigDeviceHandleByIndex,
    nvmlDeviceGetAttributes_v2,
    nvmlDeviceGetTotalEccErrors,
    nvmlDeviceGetFieldValues,
    nvmlDeviceGetRetiredPagesPendingStatus,
    nvmlDeviceGetCurrentClocksThrottleReasons,
    nvmlDeviceGetNvLinkState,
    nvmlDeviceGetNvLinkRemotePciInfo_v2,
    nvmlDeviceGetP2PStatus,
    nvmlEventSetCreate,
    nvmlDeviceGetSupportedEventTypes,
    nvmlDeviceRegisterEvents,
    nvmlEventSetWait_v2,
    nvmlEventSetFree,
}
