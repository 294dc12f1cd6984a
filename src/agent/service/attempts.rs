//! The attempts on this host, as the server hears of them. It does nothing itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::agent_api::{AttemptOrder, AttemptStatus, StopOrder};
use protocol::event::Phase;
use protocol::{AttemptId, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::attempt::{self, AttemptDir, Control};

/// Every attempt that the server has not heard the end of.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    entries: Mutex<BTreeMap<AttemptId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    status: AttemptStatus,
    handle: Handle,
}

/// How an attempt is asked to end.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    /// Asks the run.
    pub(super) control: Control,
    /// Nobody believes the attempt any more: nothing is delivered.
    pub(super) gone: CancellationToken,
}

impl Attempts {
    /// An attempt begins or goes on.
    pub(super) fn enter(&self, dir: &AttemptDir, order: &AttemptOrder) -> Handle {
        let handle = Handle {
            control: Control::new(),
            gone: CancellationToken::new(),
        };
        let began = std::fs::metadata(dir.order_file()).and_then(|meta| meta.modified());
        let entry = Entry {
            status: AttemptStatus {
                attempt: order.attempt.clone(),
                generation: order.generation,
                phase: attempt::phase(dir),
                started_at: began.map_or_else(|_| Timestamp::now(), Timestamp::from),
                released: false,
            },
            handle: handle.clone(),
        };
        self.lock().insert(order.attempt.clone(), entry);
        handle
    }

    pub(super) fn has(&self, id: &AttemptId) -> bool {
        self.lock().contains_key(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(super) fn statuses(&self) -> Vec<AttemptStatus> {
        self.lock()
            .values()
            .map(|entry| entry.status.clone())
            .collect()
    }

    /// An attempt entered a phase.
    pub(super) fn phase(&self, id: &AttemptId, phase: Phase) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.status.phase = entry.status.phase.max(phase);
        }
    }

    /// What an attempt had of the host is free again.
    pub(super) fn released(&self, id: &AttemptId) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.status.released = true;
        }
    }

    /// Passes a request to stop on. Answers whether it is new.
    pub(super) fn stop(&self, stop: &StopOrder) -> bool {
        let entries = self.lock();
        let Some(entry) = entries.get(&stop.attempt) else {
            return false;
        };
        let before = entry.handle.control.asked();
        entry.handle.control.stop(stop.by.clone(), stop.grace);
        entry.handle.control.asked() != before
    }

    /// Nobody believes an attempt any more. Answers whether that is new.
    pub(super) fn abandon(&self, id: &AttemptId) -> bool {
        let entries = self.lock();
        let Some(entry) = entries
            .get(id)
            .filter(|entry| !entry.handle.gone.is_cancelled())
        else {
            return false;
        };
        tracing::info!(attempt = %id, "nobody believes this attempt any more; it is ended");
        entry.handle.control.abandon();
        entry.handle.gone.cancel();
        true
    }

    /// Forgets an attempt that nobody wants to hear of.
    pub(super) fn forget(&self, id: &AttemptId) {
        self.lock().remove(id);
    }

    /// Forgets the attempts whose end the server has heard.
    pub(super) fn forget_reported(&self, reported: &[AttemptStatus]) {
        let mut entries = self.lock();
        for status in reported
            .iter()
            .filter(|s| s.phase == Phase::Finished && s.released)
        {
            entries.remove(&status.attempt);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
