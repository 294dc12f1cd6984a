//! Runs of people beside the agent (`trainyard run`), which book in its ledger. A run holds a lock as long as its process
//! lives. What one has that was killed stays booked until its job was ended: nothing but that booking tells of the job.
//!
//! ```text
//! bookings/<attempt>.run   locked by the run's process
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::AttemptId;

use super::Ledger;
use super::files::{self, Booking, LedgerError, at};
use crate::config::Config;

const ENDING: &str = ".run";
/// How long another process may take to book.
const TURN_WITHIN: Duration = Duration::from_secs(10);
const TURN_LOOK: Duration = Duration::from_millis(20);

/// A person's run beside the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// Who it is.
    pub by: String,
    /// Address of the engine that its containers are in; none: its jobs are processes of this host.
    pub engine: Option<String>,
    /// The folder that has the folders of its attempts.
    pub attempts: PathBuf,
}

impl Ledger {
    /// The ledger for a run of a person beside the agent, who may have what is lent to them.
    ///
    /// # Errors
    /// Where the disk refuses: a person may have to be the agent's user to book in its ledger.
    pub fn for_run(config: &Config, run: Runner) -> Result<Self, LedgerError> {
        let mut ledger = Self::unread(config);
        ledger.manners.run = Some(run);
        if !ledger.dir.exists() {
            fs::create_dir_all(&ledger.dir).map_err(at(&ledger.dir))?;
            files::give_to_owner(&config.data, &ledger.dir)?;
        }
        ledger.refresh()?;
        Ok(ledger)
    }

    /// Begins a run: it goes on as long as the value, and this process, live.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin_run(&self, attempt: &AttemptId) -> Result<Run, LedgerError> {
        let _turn = turn(&self.dir)?;
        Run::begin(&self.dir, attempt)
    }

    /// Bookings of runs whose process is gone. Their jobs may go on, so that they count until [`Self::take_back_left`].
    ///
    /// # Errors
    /// The disk's.
    pub fn left(&self) -> Result<BTreeMap<AttemptId, Booking>, LedgerError> {
        self.refresh()?;
        let left = self.bookings().into_values();
        let left = left.filter(|booking| booking.is_left(&self.dir));
        Ok(left.map(|one| (one.attempt.clone(), one)).collect())
    }

    /// Gives back what a run has whose process is gone and whose job was ended. Another process may have done so before,
    /// and booked anew.
    ///
    /// # Errors
    /// The disk's; what was not given back stays booked.
    pub fn take_back_left(
        &self,
        attempt: &AttemptId,
        unclean: &[(String, String)],
    ) -> Result<(), LedgerError> {
        let _turn = turn(&self.dir)?;
        self.refresh()?;
        self.give_back(attempt, unclean)
    }
}

/// A run that goes on. Dropped, what it still has is taken back by whoever looks next.
#[derive(Debug)]
pub struct Run {
    path: PathBuf,
    _lock: File,
}

impl Run {
    pub(super) fn begin(dir: &Path, attempt: &AttemptId) -> Result<Self, LedgerError> {
        let path = place(dir, attempt);
        let lock = File::create(&path).map_err(at(&path))?;
        files::give_to_owner(dir, &path)?;
        lock.lock().map_err(at(&path))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // One that stays is removed by whoever books next.
        let _ = fs::remove_file(&self.path);
    }
}

fn place(dir: &Path, attempt: &AttemptId) -> PathBuf {
    dir.join(format!("{attempt}{ENDING}"))
}

/// Whether a run goes on. Where nobody can tell, it does.
pub(super) fn lives(dir: &Path, attempt: &AttemptId) -> bool {
    match File::open(place(dir, attempt)) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Removes the locks of runs that were killed. To be called with the [`turn`].
pub(super) fn sweep(dir: &Path) -> Result<(), LedgerError> {
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let run = name.strip_suffix(ENDING).and_then(|id| id.parse().ok());
        if run.is_some_and(|id| !lives(dir, &id)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at(&path)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

/// The turn to book: agent and runs are processes of their own, and one of them looks and writes at a time.
pub(super) fn turn(dir: &Path) -> Result<File, LedgerError> {
    let file = File::open(dir).map_err(at(dir))?;
    let deadline = Instant::now() + TURN_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(at(dir)(error)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(TURN_LOOK);
            }
            Err(TryLockError::WouldBlock) => {
                let why = "another process books in it, and does not come to an end";
                return Err(at(dir)(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::hardware::GpuHealth;
    use protocol::{Span, Timestamp};

    use crate::hardware::{GpuReading, example};

    use super::*;

    struct World {
        dir: tempfile::TempDir,
        /// The agent's.
        ledger: Ledger,
        readings: [GpuReading; 2],
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let ledger = Ledger::open(&Self::config(&dir)).unwrap();
            let readings = ["GPU-1", "GPU-2"].map(example);
            Self {
                dir,
                ledger,
                readings,
            }
        }

        fn config(dir: &tempfile::TempDir) -> Config {
            Config {
                data: dir.path().to_owned(),
                ..Config::default()
            }
        }

        fn run_of(&self, by: &str) -> Ledger {
            let run = Runner {
                by: by.to_owned(),
                engine: None,
                attempts: self.dir.path().join("attempts"),
            };
            Ledger::for_run(&Self::config(&self.dir), run).unwrap()
        }

        /// Why an attempt does not get a GPU; none: it does.
        fn refused(&self, ledger: &Ledger, uuid: &str) -> Option<String> {
            let attempt = AttemptId::generate();
            let booked = ledger.book(&attempt, &[uuid.to_owned()], &self.readings);
            if booked.is_ok() {
                ledger.give_back(&attempt, &[]).unwrap();
            }
            booked.err().map(|why| why.into_failure().message)
        }
    }

    #[test]
    fn what_a_run_has_the_agent_has_not_until_it_is_over() {
        let world = World::new();
        let (ada, attempt) = (world.run_of("ada"), AttemptId::generate());
        let run = ada.begin_run(&attempt).unwrap();
        ada.book(&attempt, &["GPU-1".into()], &world.readings)
            .unwrap();
        let said = world.refused(&world.ledger, "GPU-1").unwrap();
        assert!(
            said.contains("by `trainyard run` of ada, which has GPU 0 (GPU-1)"),
            "{said}"
        );
        assert_eq!(world.refused(&world.ledger, "GPU-2"), None);
        // The server hears of it too, and the agent leaves it alone.
        world.ledger.notice(&[], &world.readings).unwrap();
        world
            .ledger
            .take_back(&[], |_| false, &world.readings)
            .unwrap();
        let by = "`trainyard run` of ada".to_owned();
        let judged = world.ledger.judged(&world.readings);
        let health: Vec<_> = judged.into_iter().map(|gpu| gpu.health).collect();
        assert_eq!(health, [GpuHealth::InUseOutside { by }, GpuHealth::Healthy]);
        ada.give_back(&attempt, &[]).unwrap();
        drop(run);
        assert_eq!(world.refused(&world.ledger, "GPU-1"), None);
    }

    #[test]
    fn what_a_killed_run_has_is_free_when_its_job_was_ended() {
        let world = World::new();
        let (ada, attempt) = (world.run_of("ada"), AttemptId::generate());
        let run = ada.begin_run(&attempt).unwrap();
        ada.book(&attempt, &["GPU-1".into()], &world.readings)
            .unwrap();
        let lock = world.dir.path().join(format!("bookings/{attempt}.run"));
        // A process that is killed gives its lock up, and removes no file.
        drop(run);
        fs::write(&lock, "").unwrap();
        for ledger in [&world.ledger, &world.run_of("bob")] {
            let said = world.refused(ledger, "GPU-1").unwrap();
            assert!(said.contains("`trainyard run` of ada"), "{said}");
        }
        assert!(!lock.exists());
        let left = world.ledger.left().unwrap();
        assert!(left.into_keys().eq([attempt.clone()]));
        // Another run took it back before and has the GPU now: that stays.
        let bob = world.run_of("bob");
        bob.take_back_left(&attempt, &[]).unwrap();
        let (bobs, uuids) = (AttemptId::generate(), ["GPU-1".to_owned()]);
        let run = bob.begin_run(&bobs).unwrap();
        bob.book(&bobs, &uuids, &world.readings).unwrap();
        world.ledger.take_back_left(&attempt, &[]).unwrap();
        let looked = Ledger::look(&World::config(&world.dir)).unwrap();
        assert_eq!(looked.bookings()["GPU-1"].attempt, bobs);
        bob.give_back(&bobs, &[]).unwrap();
        drop(run);
        assert_eq!(world.refused(&world.ledger, "GPU-1"), None);
    }

    #[test]
    fn what_the_agent_has_and_what_others_were_lent_a_run_has_not() {
        let world = World::new();
        let attempt = AttemptId::generate();
        let ledger = &world.ledger;
        ledger
            .book(&attempt, &["GPU-1".into()], &world.readings)
            .unwrap();
        let until = Timestamp::now() + Span::hours(1);
        let gpu = &world.readings[1].gpu;
        ledger.reserve(gpu, "ada", until, false).unwrap();
        let (ada, bob) = (world.run_of("ada"), world.run_of("bob"));
        let said = world.refused(&ada, "GPU-1").unwrap();
        assert!(
            said.contains(&format!("still booked by attempt {attempt}")),
            "{said}"
        );
        let said = world.refused(&bob, "GPU-2").unwrap();
        assert!(
            said.contains("by ada, to whom GPU 0 (GPU-2) is lent"),
            "{said}"
        );
        assert_eq!(world.refused(&ada, "GPU-2"), None, "it is lent to her");
    }
}
