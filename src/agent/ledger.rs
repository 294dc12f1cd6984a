//! The ledger: which attempt has which GPU, and which GPU no attempt may have. Whole GPUs, by UUID, in
//! small durable files; it knows neither NVML nor the engine, only readings. CPUs and memory are counted
//! by the server.
//!
//! ```text
//! bookings/<uuid>.json             the attempt that has it, and how the GPU was before
//! bookings/<uuid>.quarantine.json  why nobody may have it
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::hardware::{Gpu, GpuHealth};
use protocol::{AttemptId, ByteSize, Failure, FailureKind, Timestamp};
use serde::{Deserialize, Serialize};

use crate::attempt::{read_json, write_json};
use crate::hardware::{GpuProcess, GpuReading};

/// More memory than before in use, and nobody there: what a dead process left behind.
const LEFT_BEHIND: u64 = 256 << 20;
/// An idle GPU may have this much in use: contexts of services, the driver's own.
const IDLE: u64 = 1 << 30;
const QUARANTINE: &str = ".quarantine.json";

/// An attempt has a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Since when.
    pub since: Timestamp,
    /// Memory in use on the GPU before it.
    pub used_before: ByteSize,
}

/// Nobody may have a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Why, and what to do.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// The ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {source}", path.display())]
pub struct LedgerError {
    path: PathBuf,
    source: io::Error,
}

/// Who has what. One for each data folder.
#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    /// Names of processes that may be on a GPU beside a job.
    ignore: Vec<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bookings: BTreeMap<String, Booking>,
    quarantines: BTreeMap<String, Quarantine>,
}

impl Ledger {
    /// Opens the ledger in `dir`, which is made where it is missing.
    ///
    /// # Errors
    /// Where the disk refuses or a file is not the ledger's.
    pub fn open(dir: &Path, ignore: &[String]) -> Result<Self, LedgerError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        Self::look(dir, ignore)
    }

    /// The ledger in `dir` as it is, to be looked at; a folder that is missing has no bookings.
    ///
    /// # Errors
    /// Where a file cannot be read or is not the ledger's.
    pub fn look(dir: &Path, ignore: &[String]) -> Result<Self, LedgerError> {
        let mut state = State::default();
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            entries => Some(entries.map_err(at(dir))?),
        };
        for entry in entries.into_iter().flatten() {
            let path = entry.map_err(at(dir))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if let Some(uuid) = name.strip_suffix(QUARANTINE) {
                let quarantine = read_json(&path).map_err(at(&path))?;
                state
                    .quarantines
                    .extend(quarantine.map(|q| (uuid.to_owned(), q)));
            } else if let Some(uuid) = name.strip_suffix(".json") {
                let booking = read_json(&path).map_err(at(&path))?;
                state.bookings.extend(booking.map(|b| (uuid.to_owned(), b)));
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            ignore: ignore.to_vec(),
            state: Mutex::new(state),
        })
    }

    /// Books GPUs for an attempt: all of them or none. An attempt that has them already keeps them as they
    /// are, whatever is on them: it is its own.
    ///
    /// # Errors
    /// The platform's failure where one is not there, not healthy, not free, or somebody else's.
    pub fn book(
        &self,
        attempt: &AttemptId,
        uuids: &[String],
        now: &[GpuReading],
    ) -> Result<(), Box<Failure>> {
        let mut state = self.lock();
        let mine = |state: &State, uuid: &String| {
            state
                .bookings
                .get(uuid)
                .is_some_and(|booking| booking.attempt == *attempt)
        };
        let mut new = Vec::new();
        for uuid in uuids.iter().filter(|uuid| !mine(&state, uuid)) {
            let used_before = self.bookable(&state, uuid, now)?;
            new.push((
                uuid.clone(),
                Booking {
                    attempt: attempt.clone(),
                    since: Timestamp::now(),
                    used_before,
                },
            ));
        }
        for (uuid, booking) in new {
            write_json(&self.booking_file(&uuid), &booking).map_err(|error| {
                refuse(
                    FailureKind::Internal,
                    format!("GPU {uuid} could not be booked: {error}"),
                )
            })?;
            state.bookings.insert(uuid, booking);
        }
        Ok(())
    }

    /// Memory in use on a GPU that may be booked.
    fn bookable(
        &self,
        state: &State,
        uuid: &str,
        now: &[GpuReading],
    ) -> Result<ByteSize, Box<Failure>> {
        let reading = now
            .iter()
            .find(|reading| reading.gpu.uuid == uuid)
            .ok_or_else(|| {
                refuse(
                    FailureKind::GpuLost,
                    format!("GPU {uuid} is not on this host any more"),
                )
            })?;
        let name = format!("GPU {} ({uuid})", reading.gpu.index);
        if let Some(booking) = state.bookings.get(uuid) {
            return Err(refuse(
                FailureKind::GpuUnclean,
                format!("{name} is still booked by attempt {}", booking.attempt),
            ));
        }
        match self.judge(state, reading) {
            GpuHealth::Healthy => Ok(reading.used),
            GpuHealth::InUseOutside { by } => Err(refuse(
                FailureKind::GpuUnclean,
                format!("{name} is in use outside Trainyard: {by}"),
            )),
            GpuHealth::Quarantined { reason } => Err(refuse(
                FailureKind::GpuUnclean,
                format!("{name} is quarantined: {reason}"),
            )),
            GpuHealth::Lost { error } => Err(refuse(
                FailureKind::GpuLost,
                format!("{name} does not answer: {error}"),
            )),
        }
    }

    /// What stands in the way of giving back an attempt's GPUs; none: they are clean.
    #[must_use]
    pub fn unclean(&self, attempt: &AttemptId, now: &[GpuReading]) -> Vec<(String, String)> {
        let state = self.lock();
        let booked = state
            .bookings
            .iter()
            .filter(|(_, booking)| booking.attempt == *attempt);
        booked
            .filter_map(|(uuid, booking)| {
                let reading = now.iter().find(|reading| reading.gpu.uuid == *uuid);
                let why = match reading {
                    None => Some("it fell off the bus; restart the host".to_owned()),
                    Some(reading) => self.dirt(reading, booking.used_before),
                };
                why.map(|why| (uuid.clone(), why))
            })
            .collect()
    }

    /// Gives an attempt's GPUs back. Those in `unclean` are quarantined with the reason.
    ///
    /// # Errors
    /// The disk's; what was not given back stays booked.
    pub fn give_back(
        &self,
        attempt: &AttemptId,
        unclean: &[(String, String)],
    ) -> Result<(), LedgerError> {
        let mut state = self.lock();
        for (uuid, reason) in unclean {
            let quarantine = Quarantine {
                reason: reason.clone(),
                since: Timestamp::now(),
            };
            let path = self.dir.join(format!("{uuid}{QUARANTINE}"));
            write_json(&path, &quarantine).map_err(|source| LedgerError { path, source })?;
            state.quarantines.insert(uuid.clone(), quarantine);
        }
        let booked: Vec<String> = state
            .bookings
            .iter()
            .filter(|(_, booking)| booking.attempt == *attempt)
            .map(|(uuid, _)| uuid.clone())
            .collect();
        for uuid in booked {
            remove(self.booking_file(&uuid))?;
            state.bookings.remove(&uuid);
        }
        Ok(())
    }

    /// Ends quarantines of GPUs that are clean again, so that nobody has to.
    ///
    /// # Errors
    /// The disk's.
    pub fn clear_quarantines(&self, now: &[GpuReading]) -> Result<(), LedgerError> {
        let mut state = self.lock();
        let clean: Vec<String> = state
            .quarantines
            .keys()
            .filter(|uuid| {
                let reading = now.iter().find(|reading| reading.gpu.uuid == **uuid);
                reading.is_some_and(|reading| self.dirt(reading, ByteSize(0)).is_none())
            })
            .cloned()
            .collect();
        for uuid in clean {
            remove(self.dir.join(format!("{uuid}{QUARANTINE}")))?;
            state.quarantines.remove(&uuid);
            tracing::info!(%uuid, "a GPU is clean again and leaves its quarantine");
        }
        Ok(())
    }

    /// The GPUs with their health as jobs see it. What runs on a booked GPU is its attempt's.
    #[must_use]
    pub fn judged(&self, now: &[GpuReading]) -> Vec<Gpu> {
        let state = self.lock();
        let judged = |reading: &GpuReading| Gpu {
            health: self.judge(&state, reading),
            ..reading.gpu.clone()
        };
        now.iter().map(judged).collect()
    }

    /// The attempts that have GPUs.
    #[must_use]
    pub fn bookings(&self) -> BTreeMap<String, Booking> {
        self.lock().bookings.clone()
    }

    fn judge(&self, state: &State, reading: &GpuReading) -> GpuHealth {
        let uuid = &reading.gpu.uuid;
        if let GpuHealth::Lost { error } = &reading.gpu.health {
            return GpuHealth::Lost {
                error: error.clone(),
            };
        }
        if let Some(quarantine) = state.quarantines.get(uuid) {
            return GpuHealth::Quarantined {
                reason: quarantine.reason.clone(),
            };
        }
        if let Some(fault) = &reading.fault {
            return GpuHealth::Quarantined {
                reason: fault.clone(),
            };
        }
        if state.bookings.contains_key(uuid) {
            return GpuHealth::Healthy;
        }
        let foreign = self.foreign(reading);
        if !foreign.is_empty() {
            return GpuHealth::InUseOutside { by: foreign };
        }
        if reading.processes.is_empty() && reading.used.0 > IDLE {
            let by = format!(
                "{} by processes that cannot be seen from here",
                reading.used
            );
            return GpuHealth::InUseOutside { by };
        }
        GpuHealth::Healthy
    }

    /// Why a GPU is not clean.
    fn dirt(&self, reading: &GpuReading, used_before: ByteSize) -> Option<String> {
        if let GpuHealth::Lost { error } = &reading.gpu.health {
            return Some(format!("it does not answer: {error}"));
        }
        if let Some(fault) = &reading.fault {
            return Some(fault.clone());
        }
        let foreign = self.foreign(reading);
        if !foreign.is_empty() {
            return Some(format!("{foreign} is still on it"));
        }
        let most = used_before.0.max(IDLE - LEFT_BEHIND) + LEFT_BEHIND;
        (reading.used.0 > most && reading.processes.is_empty()).then(|| {
            format!(
                "{} of its memory stay in use without a process; reset the GPU",
                reading.used
            )
        })
    }

    /// Processes that are not on the list of known ones, in words.
    fn foreign(&self, reading: &GpuReading) -> String {
        let foreign = reading
            .processes
            .iter()
            .filter(|p| !self.ignore.contains(&p.name));
        foreign
            .map(GpuProcess::words)
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn booking_file(&self, uuid: &str) -> PathBuf {
        self.dir.join(format!("{uuid}.json"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse(kind: FailureKind, message: String) -> Box<Failure> {
    Box::new(Failure::new(kind, message))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError { path, source }
}

fn remove(path: PathBuf) -> Result<(), LedgerError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LedgerError { path, source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
