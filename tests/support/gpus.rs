//! GPUs that are not there: the fake library that NVML's callers load, over a description that a story can change.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::built::{library, root};

/// A folder with `libnvidia-ml.so.1` and the description beside it, for `LD_LIBRARY_PATH` or `gpus.library`.
pub(crate) struct FakeGpus {
    folder: tempfile::TempDir,
}

impl FakeGpus {
    /// The fleet of `tests/data/gpus/NAME.json`.
    pub(crate) fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A copy: the library looks for its description beside itself.
        fs::copy(
            library("fake-nvml"),
            folder.path().join("libnvidia-ml.so.1"),
        )
        .unwrap();
        let fleet = root().join(format!("tests/data/gpus/{name}.json"));
        fs::copy(&fleet, folder.path().join("fleet.json"))
            .unwrap_or_else(|error| panic!("{}: {error}", fleet.display()));
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.folder().join("libnvidia-ml.so.1")
    }

    /// Changes the description, for whoever looks at it now.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.folder().join("fleet.json");
        let mut fleet: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut fleet);
        let new = self.folder().join("fleet.json.new");
        fs::write(&new, fleet.to_string()).unwrap();
        fs::rename(&new, &path).unwrap();
    }
}
