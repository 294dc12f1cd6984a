//! GPUs that are not there: the fake library that NVML's callers load, over a description that a story can change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// A folder with `libnvidia-ml.so.1` and the description beside it, for `LD_LIBRARY_PATH` or `gpus.library`.
pub(crate) struct FakeGpus {
    folder: tempfile::TempDir,
}

impl FakeGpus {
    /// The fleet of `tests/data/gpus/NAME.json`.
    pub(crate) fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A copy: the library looks for its description beside itself.
        fs::copy(built(), folder.path().join("libnvidia-ml.so.1")).unwrap();
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

/// The library, built once for each process that tests.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--package", "fake-nvml"])
            .args(["--message-format", "json"])
            .current_dir(root())
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        let lines = String::from_utf8(output.stdout).unwrap();
        let artifact = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["target"]["name"] == "fake_nvml")
            .find_map(|message| Some(message["filenames"].as_array()?.first()?.clone()));
        let path = artifact.expect("cargo says where the library is");
        PathBuf::from(path.as_str().unwrap())
    })
}

/// The workspace's folder.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own
        .ancestors()
        .find(|folder| folder.join("Cargo.lock").exists());
    root.expect("a workspace").to_owned()
}
