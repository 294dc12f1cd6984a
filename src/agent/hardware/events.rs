//! Faults that a GPU reports as they happen. A thread waits for NVML's events; what it hears is kept until somebody
//! asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::event::EventData;
use nvml_wrapper::{EventSet, Nvml};

use super::health::{self, GpuFault};

/// How long one wait takes at most: an ear that is not wanted any more ends within it.
const WAIT_MS: u32 = 500;
/// After an error: a GPU is lost, or the driver is being replaced.
const PAUSE: Duration = Duration::from_secs(5);
/// How often is looked for GPUs that were lost and came back.
const LOOK: Duration = Duration::from_secs(5);
/// More faults than these say nothing new.
const MOST: usize = 256;

/// Hears faults until it is dropped.
#[derive(Debug)]
pub(super) struct Ear {
    over: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<GpuFault>>>,
}

impl Ear {
    /// Begins to listen. Answers when it hears what happens from now on.
    ///
    /// # Errors
    /// The system's, where it gives no thread.
    pub(super) fn open(nvml: Arc<Nvml>) -> std::io::Result<Self> {
        let ear = Self {
            over: Arc::default(),
            heard: Arc::default(),
        };
        let (over, heard) = (Arc::clone(&ear.over), Arc::clone(&ear.heard));
        let (ready, is_ready) = sync_channel(1);
        thread::Builder::new()
            .name("gpu-events".into())
            .spawn(move || keep_listening(&nvml, &over, &heard, &ready))?;
        let _ = is_ready.recv_timeout(PAUSE);
        Ok(ear)
    }

    /// What was heard since this was asked last.
    pub(super) fn take(&self) -> Vec<GpuFault> {
        std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn keep_listening(
    nvml: &Nvml,
    over: &AtomicBool,
    heard: &Mutex<Vec<GpuFault>>,
    ready: &SyncSender<()>,
) {
    // Whoever waits for it hears the first of these; nobody does for the others.
    let ready = || {
        let _ = ready.try_send(());
    };
    let mut said = None;
    while !over.load(Ordering::Relaxed) {
        let end = listen(nvml, over, heard, ready);
        ready();
        let Err(error) = end else { continue };
        if matches!(error, NvmlError::NotSupported) {
            tracing::info!("NVML tells no events on this host");
            return;
        }
        // Once for each kind: a lost GPU may end every wait.
        let words = error.to_string();
        if said.as_ref() != Some(&words) {
            tracing::warn!("NVML tells no events: {words}; trying again");
        }
        said = Some(words);
        pause(over);
    }
}

fn pause(over: &AtomicBool) {
    let step = Duration::from_millis(WAIT_MS.into());
    for _ in 0..PAUSE.as_millis() / step.as_millis() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(step);
    }
}

/// Waits for events until it is over.
fn listen(
    nvml: &Nvml,
    over: &AtomicBool,
    heard: &Mutex<Vec<GpuFault>>,
    ready: impl Fn(),
) -> Result<(), NvmlError> {
    let mut telling = telling(nvml)?;
    let mut set = registered(nvml, &telling)?;
    ready();
    let mut looked = Instant::now();
    while !over.load(Ordering::Relaxed) {
        hear(&set, WAIT_MS, heard)?;
        if looked.elapsed() < LOOK {
            continue;
        }
        looked = Instant::now();
        let now = self::telling(nvml)?;
        if now != telling {
            // The old set ends when the new one hears: what it has meanwhile is taken first.
            let new = registered(nvml, &now)?;
            while hear(&set, 0, heard)? {}
            (set, telling) = (new, now);
        }
    }
    Ok(())
}

/// Waits for one event. Answers whether one came.
fn hear(set: &EventSet<'_>, wait_ms: u32, heard: &Mutex<Vec<GpuFault>>) -> Result<bool, NvmlError> {
    let event = match set.wait(wait_ms) {
        Ok(event) => event,
        Err(NvmlError::Timeout) => return Ok(false),
        Err(error) => return Err(error),
    };
    if let Some(fault) = fault(&event) {
        tracing::error!(uuid = fault.uuid, "a GPU reports {}", fault.reason);
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() < MOST && !heard.contains(&fault) {
            heard.push(fault);
        }
    }
    Ok(true)
}

/// The GPUs that can be reached and tell events, by their index, and which of those that matter. One that is lost may be
/// back at the next look.
fn telling(nvml: &Nvml) -> Result<Vec<(u32, EventTypes)>, NvmlError> {
    let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR;
    let types = |index| {
        let types = nvml.device_by_index(index).ok()?.supported_event_types();
        types.ok().map(|types| (index, types & wanted))
    };
    let all = (0..nvml.device_count()?).filter_map(types);
    Ok(all.filter(|(_, types)| !types.is_empty()).collect())
}

/// A set with these GPUs.
fn registered<'nvml>(
    nvml: &'nvml Nvml,
    telling: &[(u32, EventTypes)],
) -> Result<EventSet<'nvml>, NvmlError> {
    let mut set = nvml.create_event_set()?;
    for (index, types) in telling {
        let device = nvml.device_by_index(*index)?;
        set = device
            .register_events(*types, set)
            .map_err(|error| error.error)?;
    }
    Ok(set)
}

/// What an event says of its GPU; none where it says nothing.
fn fault(event: &EventData<'_>) -> Option<GpuFault> {
    let reason = match &event.event_data {
        Some(XidError::Value(number)) => health::xid(*number)?,
        Some(XidError::Unknown) => health::xid(999)?,
        None if event.event_type.contains(EventTypes::DOUBLE_BIT_ECC_ERROR) => health::xid(48)?,
        None => return None,
    };
    let uuid = event.device.uuid().inspect_err(|error| {
        tracing::error!("a GPU reports {reason}, and does not say who it is: {error}");
    });
    Some(GpuFault {
        uuid: uuid.ok()?,
        reason,
    })
}
