//! What came of trying whether the container engine gives GPUs. It tries nothing itself.

use std::fs;

use protocol::Timestamp;
use protocol::hardware::{GpuHealth, GpuKind};

use super::Ledger;
use super::files::{LedgerError, Tried, at};
use crate::attempt::write_json;
use crate::hardware::GpuReading;

impl Ledger {
    /// What came of it last; none: it was not tried.
    pub(crate) fn tried(&self) -> Option<Tried> {
        self.lock().tried.clone()
    }

    /// Keeps what came of it: where the engine refused, no GPU is for jobs.
    ///
    /// # Errors
    /// The disk's: then it was not tried.
    pub(crate) fn note_tried(&self, tried: Tried) -> Result<(), LedgerError> {
        write_json(&self.tried, &tried).map_err(at(&self.tried))?;
        self.lock().tried = Some(tried);
        Ok(())
    }

    /// It is as if it had not been tried. A file that stays says what was so: it is tried again when its time is over.
    pub(crate) fn forget_tried(&self) {
        let _ = fs::remove_file(&self.tried);
        self.lock().tried = None;
    }

    /// A GPU that nobody has and nobody uses, whatever the engine does with it.
    pub(crate) fn idle<'a>(&self, now: &'a [GpuReading]) -> Option<&'a GpuReading> {
        let (state, time) = (self.lock(), Timestamp::now());
        now.iter().find(|reading| {
            reading.gpu.kind != GpuKind::Sliced
                && reading.node.is_some()
                && reading.processes.is_empty()
                && !state.bookings.contains_key(&reading.gpu.uuid)
                && self.manners.by_itself(&state, reading, time) == GpuHealth::Healthy
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::{AttemptId, Digest};

    use super::*;
    use crate::config::Config;
    use crate::hardware::example;

    #[test]
    fn what_the_engine_refused_is_for_no_job_and_holds_over_a_restart() {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config {
            data: data.path().to_owned(),
            ..Config::default()
        };
        let ledger = Ledger::open(&config).unwrap();
        let readings = ["GPU-1", "GPU-2"].map(example);
        let (attempt, has) = (AttemptId::generate(), ["GPU-1".to_owned()]);
        ledger.book(&attempt, &has, &readings).unwrap();
        assert_eq!(ledger.idle(&readings).unwrap().gpu.uuid, "GPU-2");
        let tried = Tried {
            of: Digest::of("x"),
            at: Timestamp::now(),
            refused: Some("no hook".into()),
        };
        ledger.note_tried(tried.clone()).unwrap();
        let again = Ledger::open(&config).unwrap();
        for ledger in [&ledger, &again] {
            ledger.refresh().unwrap();
            assert_eq!(ledger.tried().as_ref(), Some(&tried));
            let health = ledger.judged(&readings).into_iter().map(|gpu| gpu.health);
            let refused = GpuHealth::Quarantined {
                reason: "no hook".into(),
            };
            assert!(
                health.eq([GpuHealth::Healthy, refused]),
                "it keeps what it has"
            );
            let other = ledger.book(&AttemptId::generate(), &["GPU-2".into()], &readings);
            assert!(other.is_err());
            assert_eq!(ledger.idle(&readings).unwrap().gpu.uuid, "GPU-2");
        }
        // Jobs without containers are not given GPUs by an engine.
        config.executors.docker = false;
        let shell = Ledger::look(&config).unwrap();
        assert_eq!(shell.judged(&readings)[1].health, GpuHealth::Healthy);
        again.forget_tried();
        ledger.refresh().unwrap();
        assert_eq!(ledger.judged(&readings)[1].health, GpuHealth::Healthy);
    }
}
