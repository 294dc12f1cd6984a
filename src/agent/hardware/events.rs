//! Faults that a GPU reports as they happen. A thread waits for NVML's events; what it hears is kept until somebody
//! asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

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
    let set = registered(nvml)?;
    ready();
    while !over.load(Ordering::Relaxed) {
        match set.wait(WAIT_MS) {
            Ok(event) => {
                let Some(fault) = fault(&event) else { continue };
                tracing::error!(uuid = fault.uuid, "a GPU reports {}", fault.reason);
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                if heard.len() < MOST && !heard.contains(&fault) {
                    heard.push(fault);
                }
            }
            Err(NvmlError::Timeout) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A set with every GPU that can be reached and tells events.
fn registered(nvml: &Nvml) -> Result<EventSet<'_>, NvmlError> {
    let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR;
    let mut set = nvml.create_event_set()?;
    for index in 0..nvml.device_count()? {
        let Ok(device) = nvml.device_by_index(index) else {
            continue;
        };
        let types = device
            .supported_event_types()
            .map_or(EventTypes::empty(), |types| types & wanted);
        if !types.is_empty() {
            set = device
                .register_events(types, set)
                .map_err(|error| error.error)?;
        }
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
