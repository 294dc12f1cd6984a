//! Event sets: an XID that the description gains is an event of every set that its GPU is registered in.

use std::collections::HashMap;
use std::ffi::{c_uint, c_ulonglong};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::*;

use crate::{INVALID, TIMEOUT, UNSUPPORTED, answer, fleet, handle, put, seen, whole};

const XID: u64 = nvmlEventTypeXidCriticalError as u64;
const DOUBLE_BIT: u64 = nvmlEventTypeDoubleBitEccError as u64;
/// How often a waiting set looks at the description.
const LOOK: Duration = Duration::from_millis(10);

/// GPUs by index, and how many of their XIDs were told.
#[derive(Default)]
struct Set {
    told: HashMap<usize, usize>,
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlEventSetCreate(to: *mut nvmlEventSet_t) -> nvmlReturn_t {
    answer(|| unsafe { put(to, Box::into_raw(Box::<Set>::default()).cast()) })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    answer(|| {
        if set.is_null() {
            return Err(INVALID);
        }
        // SAFETY: a set is what `nvmlEventSetCreate` made, and is freed once.
        drop(unsafe { Box::from_raw(set.cast::<Set>()) });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: nvmlDevice_t,
    to: *mut c_ulonglong,
) -> nvmlReturn_t {
    answer(|| unsafe {
        seen(device)?;
        put(to, XID | DOUBLE_BIT)
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    answer(|| {
        let seen = whole(device)?;
        if types & !(XID | DOUBLE_BIT) != 0 {
            return Err(UNSUPPORTED);
        }
        // SAFETY: a set is what `nvmlEventSetCreate` made; one thread uses it at a time.
        let set = unsafe { set.cast::<Set>().as_mut() }.ok_or(INVALID)?;
        set.told.insert(seen.index, seen.gpu().xids.len());
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    to: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    answer(|| {
        // SAFETY: as above.
        let set = unsafe { set.cast::<Set>().as_mut() }.ok_or(INVALID)?;
        let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
        loop {
            let fleet = fleet()?;
            for (index, told) in &mut set.told {
                let xid = fleet.gpus.get(*index).and_then(|gpu| gpu.xids.get(*told));
                let Some(&xid) = xid else { continue };
                *told += 1;
                let event = nvmlEventData_t {
                    device: handle(*index, None),
                    eventType: XID,
                    eventData: xid,
                    gpuInstanceId: u32::MAX,
                    computeInstanceId: u32::MAX,
                };
                // SAFETY: the caller gives room for one event.
                return unsafe { put(to, event) };
            }
            if Instant::now() >= deadline {
                return Err(TIMEOUT);
            }
            std::thread::sleep(LOOK);
        }
    })
}
