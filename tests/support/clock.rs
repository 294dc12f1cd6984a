//! A server's wall clock that a story steps while it runs.

use std::fs;
use std::path::{Path, PathBuf};

use super::built::library;

/// The clock of a process that was started with [`Clock::environment`]: the fake library reads it from a file.
pub(crate) struct Clock {
    file: PathBuf,
}

impl Clock {
    /// One that is right, kept in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        let clock = Self {
            file: folder.join("clock"),
        };
        clock.step(0);
        clock
    }

    /// What a process must find in its environment.
    pub(super) fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("LD_PRELOAD", library("fake-clock")),
            ("TRAINYARD_TEST_CLOCK", self.file.clone()),
        ]
    }

    /// From now on the clock is off by so many seconds.
    pub(crate) fn step(&self, seconds: i64) {
        let new = self.file.with_extension("new");
        fs::write(&new, (seconds * 1_000).to_string()).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }
}
