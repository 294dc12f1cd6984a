//! The ledger: which attempt has which GPU, and which GPU no attempt may have. Whole GPUs and MIG slices, by UUID, in
//! small durable files; it knows neither NVML nor the engine, only readings. CPUs and memory are counted by the server.
//!
//! ```text
//! bookings/<uuid>.json             the attempt that has it, and how the GPU was before
//! bookings/<uuid>.quarantine.json  why nobody may have it
//! bookings/<uuid>.reserved.json    whom it is lent to, and until when
//! bookings/<attempt>.run           a run of a person beside the agent goes on
//! engine.json                      whether the container engine gave a GPU when that was tried
//! ```
//!
//! People change these files by `trainyard gpus` and `trainyard run` while the agent runs: it reads them again before it
//! decides.

mod files;
mod judge;
mod lend;
mod runs;
mod tried;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::hardware::{Gpu, GpuHealth, GpuKind};
use protocol::{AttemptId, ByteSize, Failure, FailureKind, Span, Timestamp};
use tokio::time::Instant;

use crate::attempt::read_json;
use crate::config::Config;
use crate::hardware::{GpuFault, GpuReading};

pub use files::{Booking, LedgerError, Quarantine, Reservation, Tried};
pub use lend::{NoTime, NotLent, borrower, find, until};
pub use runs::{Run, Runner};

use files::{Kind, State, at};
use judge::Manners;

/// How often a GPU is looked at until it is clean.
const CLEAN_LOOK: Duration = Duration::from_millis(500);

/// Why an attempt does not have the GPUs that it was to have.
#[derive(Debug, Clone, PartialEq)]
pub enum NotBooked {
    /// One went to a person after the server was told that it is free: nobody's fault. Who has it, in words.
    Withdrawn(String),
    /// The platform's failure.
    Failed(Box<Failure>),
}

impl NotBooked {
    /// As the failure of a run that nobody carries out elsewhere.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            NotBooked::Withdrawn(by) => Failure::new(
                FailureKind::GpuUnclean,
                format!("a GPU was taken meanwhile by {by}"),
            ),
            NotBooked::Failed(failure) => *failure,
        }
    }
}

/// Who has what. One for each data folder.
#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    /// What came of trying the engine.
    tried: PathBuf,
    manners: Manners,
    /// As the files were when they were last read.
    state: Mutex<State>,
}

impl Ledger {
    /// Opens the ledger of an agent's data folder, which is made where it is missing. To be called by the one agent that
    /// uses the folder.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn open(config: &Config) -> Result<Self, LedgerError> {
        let ledger = Self::unread(config);
        fs::create_dir_all(&ledger.dir).map_err(at(&ledger.dir))?;
        files::tidy(&ledger.dir)?;
        ledger.refresh()?;
        Ok(ledger)
    }

    /// The ledger as it is, to be looked at; a folder that is missing has no bookings.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn look(config: &Config) -> Result<Self, LedgerError> {
        let ledger = Self::unread(config);
        ledger.refresh()?;
        Ok(ledger)
    }

    /// The same for people who look, with why it cannot be read: then no GPU is shown as free.
    #[must_use]
    pub fn shown(config: &Config) -> (Self, Option<LedgerError>) {
        let ledger = Self::unread(config);
        let why = ledger.refresh().err();
        if why.is_some() {
            let blind = "who has it cannot be read".to_owned();
            ledger.lock().blind = Some(blind);
        }
        (ledger, why)
    }

    /// A ledger that knows nothing yet: all GPUs are nobody's.
    #[must_use]
    pub fn unread(config: &Config) -> Self {
        Self {
            dir: config.data.join("bookings"),
            tried: config.data.join("engine.json"),
            manners: Manners {
                ignore: config.gpus.ignore.clone(),
                shell: !config.executors.docker,
                run: None,
            },
            state: Mutex::default(),
        }
    }

    /// Reads the files again: people may have changed them. Of a file that cannot be read what was known stays, and
    /// nobody gets its GPU.
    ///
    /// # Errors
    /// Where the folder cannot be read; what was known stays.
    pub fn refresh(&self) -> Result<(), LedgerError> {
        let mut state = self.lock();
        let mut read = State::read(&self.dir, &state)?;
        // One that cannot be read is as one that is not there: it is tried again.
        read.tried = read_json(&self.tried).unwrap_or_default();
        for (uuid, quarantine) in &state.heard {
            read.hear(uuid, quarantine);
        }
        for (uuid, why) in &read.unreadable {
            if state.unreadable.get(uuid) != Some(why) {
                tracing::error!(%uuid, "nobody gets this GPU: {why}");
            }
        }
        *state = read;
        Ok(())
    }

    /// Takes in what GPUs reported and how they are now: faults become quarantines that a person has to end; other
    /// quarantines end by themselves where the GPU is clean again.
    ///
    /// # Errors
    /// The disk's. The faults count all the same, and are written down by a later call.
    pub fn notice(&self, faults: &[GpuFault], now: &[GpuReading]) -> Result<(), LedgerError> {
        let since = Timestamp::now();
        for fault in faults {
            let quarantine = Quarantine {
                reason: fault.reason.clone(),
                since,
                until_cleared: true,
            };
            let mut state = self.lock();
            state.hear(&fault.uuid, &quarantine);
            // Somebody may have ended the one that was known: what the files say now decides.
            state.heard.entry(fault.uuid.clone()).or_insert(quarantine);
        }
        self.refresh()?;
        let mut state = self.lock();
        for (uuid, quarantine) in state.heard.clone() {
            files::write(&self.dir, &uuid, Kind::Quarantine, &quarantine)?;
            state.heard.remove(&uuid);
        }
        let clean: Vec<String> = state
            .quarantines
            .iter()
            .filter(|(uuid, quarantine)| {
                let reading = now.iter().find(|reading| reading.gpu.uuid == **uuid);
                let dirt = |reading| self.manners.dirt(reading, ByteSize(0));
                !quarantine.until_cleared && reading.is_some_and(|reading| dirt(reading).is_none())
            })
            .map(|(uuid, _)| uuid.clone())
            .collect();
        for uuid in clean {
            files::remove(&self.dir, &uuid, Kind::Quarantine)?;
            state.quarantines.remove(&uuid);
            tracing::info!(%uuid, "a GPU is clean again and leaves its quarantine");
        }
        Ok(())
    }

    /// A quarantine that ends by itself. The first reason stays: it is what somebody has to look at.
    fn quarantine(&self, state: &mut State, uuid: &str, reason: &str) -> Result<(), LedgerError> {
        if state.quarantines.contains_key(uuid) {
            return Ok(());
        }
        let quarantine = Quarantine {
            reason: reason.to_owned(),
            since: Timestamp::now(),
            until_cleared: false,
        };
        files::write(&self.dir, uuid, Kind::Quarantine, &quarantine)?;
        state.quarantines.insert(uuid.to_owned(), quarantine);
        Ok(())
    }

    /// Books GPUs for an attempt: all of them or none. An attempt that has them already keeps them as they
    /// are, whatever is on them: it is its own.
    ///
    /// # Errors
    /// [`NotBooked`] where one is not there, not healthy, not free, or somebody else's.
    pub fn book(
        &self,
        attempt: &AttemptId,
        uuids: &[String],
        now: &[GpuReading],
    ) -> Result<(), NotBooked> {
        let broken = |error: LedgerError| {
            let words = format!("GPUs could not be booked: {error}");
            refuse(FailureKind::ExecutorFailed, words)
        };
        let _turn = runs::turn(&self.dir).map_err(broken)?;
        runs::sweep(&self.dir).map_err(broken)?;
        self.refresh().map_err(broken)?;
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
            let run = self.manners.run.as_ref();
            new.push((
                uuid.clone(),
                Booking {
                    attempt: attempt.clone(),
                    since: Timestamp::now(),
                    used_before,
                    run: run.map(|run| run.by.clone()),
                    engine: run.and_then(|run| run.engine.clone()),
                    folder: run.map(|run| run.attempts.join(attempt.as_str())),
                },
            ));
        }
        for (uuid, booking) in new {
            files::write(&self.dir, &uuid, Kind::Booking, &booking).map_err(broken)?;
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
    ) -> Result<ByteSize, NotBooked> {
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
        let unclean =
            |why: String| Err(refuse(FailureKind::GpuUnclean, format!("{name} is {why}")));
        if let Some(booking) = state.bookings.get(uuid) {
            // A person's run beside the agent took it meanwhile.
            if booking.run.is_some() {
                let by = format!("{}, which has {name}", booking.holder());
                return Err(NotBooked::Withdrawn(by));
            }
            return unclean(format!("still booked by {}", booking.holder()));
        }
        if reading.gpu.kind == GpuKind::Sliced {
            return unclean("in MIG mode: its slices are booked, not the GPU".into());
        }
        let time = Timestamp::now();
        let health = self.manners.judge(state, reading, time);
        match (&health, health.hindrance(time)) {
            (_, None) => Ok(reading.used),
            (GpuHealth::Lost { error }, Some(_)) => Err(refuse(
                FailureKind::GpuLost,
                format!("{name} does not answer: {error}"),
            )),
            (GpuHealth::Reserved { by, .. }, Some(_)) => Err(NotBooked::Withdrawn(format!(
                "{by}, to whom {name} is lent"
            ))),
            (
                GpuHealth::Healthy | GpuHealth::InUseOutside { .. } | GpuHealth::Quarantined { .. },
                Some(why),
            ) => unclean(why),
        }
    }

    /// What stands in the way of giving back an attempt's GPUs; none: they are clean.
    #[must_use]
    pub fn unclean(&self, attempt: &AttemptId, now: &[GpuReading]) -> Vec<(String, String)> {
        let state = self.lock();
        booked_by(&state, attempt)
            .filter_map(|(uuid, booking)| {
                let reading = now.iter().find(|reading| reading.gpu.uuid == *uuid);
                let why = match reading {
                    None => Some("it fell off the bus; restart the host".to_owned()),
                    Some(reading) => self.manners.dirt(reading, booking.used_before),
                };
                why.map(|why| (uuid.clone(), why))
            })
            .collect()
    }

    /// What broke of an attempt's GPUs while it had them; none: nothing that explains its end.
    #[must_use]
    pub fn broken(&self, attempt: &AttemptId, now: &[GpuReading]) -> Option<String> {
        let state = self.lock();
        booked_by(&state, attempt).find_map(|(uuid, booking)| {
            let Some(reading) = now.iter().find(|reading| reading.gpu.uuid == *uuid) else {
                return Some(format!("GPU {uuid} fell off the bus"));
            };
            let name = format!("GPU {} ({uuid})", reading.gpu.index);
            if let GpuHealth::Lost { error } = &reading.gpu.health {
                return Some(format!("{name} does not answer: {error}"));
            }
            let reported = judge::quarantine(&state, &reading.gpu)
                .filter(|quarantine| quarantine.until_cleared && quarantine.since >= booking.since)
                .map(|quarantine| &quarantine.reason);
            let why = reported.or(reading.fault.as_ref())?;
            Some(format!("{name} reports: {why}"))
        })
    }

    /// Waits until an attempt's GPUs are clean, at most so long, as `look` shows them. Answers with those that are not, and
    /// why.
    pub async fn until_clean<Look: Future<Output = Vec<GpuReading>>>(
        &self,
        attempt: &AttemptId,
        within: Span,
        look: impl Fn() -> Look,
    ) -> Vec<(String, String)> {
        let deadline = Instant::now() + Duration::from(within);
        loop {
            let unclean = self.unclean(attempt, &look().await);
            if unclean.is_empty() || Instant::now() >= deadline {
                return unclean;
            }
            tokio::time::sleep(CLEAN_LOOK).await;
        }
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
            self.quarantine(&mut state, uuid, reason)?;
        }
        let booked: Vec<String> = booked_by(&state, attempt)
            .map(|(uuid, _)| uuid.clone())
            .collect();
        for uuid in booked {
            files::remove(&self.dir, &uuid, Kind::Booking)?;
            state.bookings.remove(&uuid);
        }
        Ok(())
    }

    /// Makes the bookings what containers and attempts' folders say after a restart: a container has the GPUs that its
    /// labels name, unless another that goes on has booked them since, and who has neither container nor folder has nothing;
    /// its GPUs are looked at before they are free.
    ///
    /// # Errors
    /// The disk's.
    pub fn correct(
        &self,
        containers: &[(AttemptId, Vec<String>)],
        has_folder: impl Fn(&AttemptId) -> bool,
        now: &[GpuReading],
    ) -> Result<(), LedgerError> {
        let mut state = self.lock();
        for (attempt, uuids) in containers {
            for uuid in uuids {
                // A dead container that the engine does not remove keeps nothing from whom its GPU was given to.
                let is_kept = |booked: &Booking| {
                    booked.attempt == *attempt
                        || booked.run.is_some()
                        || has_folder(&booked.attempt)
                };
                if state.bookings.get(uuid).is_some_and(is_kept) {
                    continue;
                }
                tracing::warn!(%attempt, %uuid, "a container has a GPU that was not booked for it; it is now");
                let booking = Booking {
                    attempt: attempt.clone(),
                    since: Timestamp::now(),
                    used_before: ByteSize(0),
                    run: None,
                    engine: None,
                    folder: None,
                };
                files::write(&self.dir, uuid, Kind::Booking, &booking)?;
                state.bookings.insert(uuid.clone(), booking);
            }
        }
        drop(state);
        self.take_back(containers, has_folder, now)
    }

    /// Takes back what the agent's attempts have that have neither container nor folder. To be called at any time with containers
    /// that were looked for before: an attempt has its folder before its booking, and gives back before the folder goes.
    ///
    /// # Errors
    /// The disk's.
    pub fn take_back(
        &self,
        containers: &[(AttemptId, Vec<String>)],
        has_folder: impl Fn(&AttemptId) -> bool,
        now: &[GpuReading],
    ) -> Result<(), LedgerError> {
        let having: BTreeSet<AttemptId> = self
            .bookings()
            .into_values()
            .filter(|booking| booking.run.is_none())
            .map(|booking| booking.attempt)
            .collect();
        let gone = having
            .into_iter()
            .filter(|id| !has_folder(id) && !containers.iter().any(|(other, _)| other == id));
        for attempt in gone {
            tracing::warn!(%attempt, "nothing is left of an attempt that has GPUs; they are taken back");
            self.give_back(&attempt, &self.unclean(&attempt, now))?;
        }
        Ok(())
    }

    /// The GPUs with their health as jobs see it. What runs on a booked GPU is its attempt's.
    #[must_use]
    pub fn judged(&self, now: &[GpuReading]) -> Vec<Gpu> {
        let (state, time) = (self.lock(), Timestamp::now());
        let judged = |reading: &GpuReading| Gpu {
            health: self.manners.judge(&state, reading, time),
            ..reading.gpu.clone()
        };
        now.iter().map(judged).collect()
    }

    /// People's processes on a GPU that an attempt has, in words; empty where there are none.
    #[must_use]
    pub fn beside(&self, reading: &GpuReading) -> String {
        match self.lock().bookings.get(&reading.gpu.uuid) {
            Some(booking) if booking.run.is_none() => self.manners.beside(reading),
            Some(_) | None => String::new(),
        }
    }

    /// The attempts that have GPUs.
    #[must_use]
    pub fn bookings(&self) -> BTreeMap<String, Booking> {
        self.lock().bookings.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn booked_by<'a>(
    state: &'a State,
    attempt: &'a AttemptId,
) -> impl Iterator<Item = (&'a String, &'a Booking)> {
    state
        .bookings
        .iter()
        .filter(move |(_, booking)| booking.attempt == *attempt)
}

fn refuse(kind: FailureKind, message: String) -> NotBooked {
    NotBooked::Failed(Box::new(Failure::new(kind, message)))
}

#[cfg(test)]
mod tests;
