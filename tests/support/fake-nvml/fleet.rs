//! The description: which GPUs there are, and how they are now. Read again when the file changes, so that a
//! test can break a GPU while a process looks at it.

use std::ffi::CStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

/// All of a host. Sizes are in MiB.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fleet {
    pub(crate) driver: String,
    /// `12080` is 12.8.
    pub(crate) cuda: i32,
    pub(crate) gpus: Vec<Gpu>,
    /// As long as this is so, whoever begins with NVML waits.
    #[serde(default)]
    pub(crate) hangs: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gpu {
    pub(crate) uuid: String,
    pub(crate) name: String,
    pub(crate) memory: u64,
    #[serde(default)]
    pub(crate) used: u64,
    /// Kept by the driver for itself.
    #[serde(default)]
    pub(crate) reserved: u64,
    pub(crate) compute_capability: (i32, i32),
    /// `/dev/nvidia<minor>`; the index where it is left out.
    pub(crate) minor: Option<u32>,
    /// As NVML writes it: `00000000:1B:00.0`.
    pub(crate) pci: String,
    pub(crate) numa_node: Option<u32>,
    #[serde(default)]
    pub(crate) utilization: u32,
    #[serde(default)]
    pub(crate) processes: Vec<Process>,
    #[serde(default)]
    pub(crate) graphics: Vec<Process>,
    /// PCI address of what is at the other end of each NVLink; null: the link is down.
    #[serde(default)]
    pub(crate) nvlinks: Vec<Option<String>>,
    /// The links work, and nobody tells what is at their other end.
    #[serde(default)]
    pub(crate) hides_link_ends: bool,
    /// Slots for MIG slices, null for holes; left out: MIG is off.
    pub(crate) mig: Option<Vec<Option<Slice>>>,
    /// Errors that ECC could not correct; left out: no ECC.
    pub(crate) uncorrected: Option<u64>,
    /// Row remapping of Ampere and later; left out: it has none.
    pub(crate) remap: Option<Remap>,
    #[serde(default)]
    pub(crate) retire_pending: bool,
    /// What NVIDIA's driver wants to be done: 0 nothing, 1 a reset, 2 a reboot, 3 and 4 a drain.
    pub(crate) recovery_action: Option<u32>,
    /// Bits of `nvmlClocksThrottleReasons`.
    #[serde(default)]
    pub(crate) throttle: u64,
    /// XIDs so far; one that is added is an event.
    #[serde(default)]
    pub(crate) xids: Vec<u64>,
    /// It fell off the bus.
    #[serde(default)]
    pub(crate) lost: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slice {
    pub(crate) uuid: String,
    /// `1g.10gb`.
    pub(crate) profile: String,
    pub(crate) memory: u64,
    #[serde(default)]
    pub(crate) used: u64,
    #[serde(default)]
    pub(crate) processes: Vec<Process>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Left out: NVML cannot tell.
    pub(crate) memory: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Remap {
    pub(crate) correctable: u64,
    pub(crate) uncorrectable: u64,
    pub(crate) pending: bool,
    pub(crate) failed: bool,
}

/// What tells one state of a file from the next.
type Stamp = (u64, i64, i64, u64);

static READ: Mutex<Option<(Stamp, Arc<Fleet>)>> = Mutex::new(None);

/// The description as it is now; none where it cannot be read, which is said on standard error.
pub(crate) fn now() -> Option<Arc<Fleet>> {
    let path = path()?;
    let read = || -> Result<Arc<Fleet>, String> {
        let meta = fs::metadata(&path).map_err(|error| error.to_string())?;
        let stamp = (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
        let mut kept = READ.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, fleet)) = kept.as_ref()
            && *known == stamp
        {
            return Ok(Arc::clone(fleet));
        }
        let bytes = fs::read(&path).map_err(|error| error.to_string())?;
        let fleet = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let fleet = Arc::new(fleet);
        *kept = Some((stamp, Arc::clone(&fleet)));
        Ok(fleet)
    };
    // One that is gone is a story that is over.
    let was_read = || {
        READ.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    };
    read()
        .inspect_err(|error| {
            if path.exists() || !was_read() {
                eprintln!("fake-nvml: {}: {error}", path.display());
            }
        })
        .ok()
}

/// `$FAKE_NVML`, else `fleet.json` beside this library.
fn path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("FAKE_NVML") {
        return Some(path.into());
    }
    // SAFETY: `dladdr` is given an address of this library and room for its answer, which it fills with a name
    // that lives as long as the library.
    let library = unsafe {
        let mut found: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(path as fn() -> _ as *const libc::c_void, &raw mut found) == 0 {
            return None;
        }
        CStr::from_ptr(found.dli_fname)
    };
    let library = PathBuf::from(std::ffi::OsStr::from_bytes(library.to_bytes()));
    Some(library.parent()?.join("fleet.json"))
}
