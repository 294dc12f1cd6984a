//! Libraries that stand in for the system's, built by cargo when a story wants them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

/// The library of a package of `tests/support`, built once for each process that tests.
pub(crate) fn library(package: &'static str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap();
    built
        .entry(package)
        .or_insert_with(|| build(package))
        .clone()
}

fn build(package: &str) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--package", package])
        .args(["--message-format", "json"])
        .current_dir(root())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let name = package.replace('-', "_");
    let artifact = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == *name)
        .find_map(|message| Some(message["filenames"].as_array()?.first()?.clone()));
    let path = artifact.expect("cargo says where the library is");
    PathBuf::from(path.as_str().unwrap())
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own
        .ancestors()
        .find(|folder| folder.join("Cargo.lock").exists());
    root.expect("a workspace").to_owned()
}
