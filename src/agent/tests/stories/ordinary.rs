//! The same stories with the agent as an ordinary user in Docker's group: told by root, who becomes one.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use crate::support::engine;

/// An ordinary user whom nobody is.
const USER: &str = "54321";
/// Says that this process is that user already.
const TOLD: &str = "TRAINYARD_TEST_ORDINARY";

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_is_enough() {
    let root = rustix::process::geteuid().is_root();
    if !engine().await || !root || std::env::var_os(TOLD).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o1777)).unwrap();
    open(folder.path());
    let program = |from: &Path, name: &str| {
        let to = folder.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        to
    };
    let stories = program(&std::env::current_exe().unwrap(), "stories");
    let driver = program(&agent::host::find_driver().unwrap(), "driver");
    let group = fs::metadata("/var/run/docker.sock")
        .unwrap()
        .gid()
        .to_string();
    let told = Command::new("setpriv")
        .args(["--reuid", USER, "--regid", USER, "--groups", &group, "--"])
        .arg(stories)
        .args([
            "hostile::",
            "lives::a_notebook",
            "lives::an_agent_that",
            "lint::every_tool",
            "--test-threads",
            "2",
        ])
        .env(TOLD, "1")
        .env("TRAINYARD_DRIVER", driver)
        .env("TMPDIR", folder.path())
        .env("HOME", folder.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&told.stdout);
    assert!(
        told.status.success(),
        "{words}{}",
        String::from_utf8_lossy(&told.stderr)
    );
    assert!(words.contains("test result: ok. 16 passed"), "{words}");
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left.len(), 2, "left behind: {left:?}");
}
