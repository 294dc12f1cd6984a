//! Folders of an attempt: made before, removed after, kept for a while where somebody may want to look.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use protocol::driver::{JOB_FILE, OUT_DIR};
use protocol::spec::Network;
use protocol::{Failure, FailureKind, Span, Timestamp};

use super::job::{DRIVER, nothing_but};
use super::state::Prepared;
use super::{Attempt, AttemptDir, dir};
use crate::checkpoints::Checkpoints;
use crate::executor::{ContainerSpec, MountSpec};
use crate::workspace;

/// `/tmp` and HOME of the job, empty; and all that the job may write to is its user's.
pub(super) fn make_folders(dir: &AttemptDir, user: (u32, u32)) -> Result<(), Failure> {
    let made = || -> io::Result<()> {
        for folder in [dir.tmp(), dir.home()] {
            workspace::remove(&folder)?;
            fs::create_dir_all(&folder)?;
        }
        fs::set_permissions(dir.tmp(), fs::Permissions::from_mode(0o1777))?;
        for folder in [dir.workspace(), dir.tmp(), dir.home()] {
            workspace::give(&folder, user)?;
        }
        Ok(())
    };
    made().map_err(|error| {
        Failure::new(
            FailureKind::CheckoutFailed,
            format!("cannot write {}: {error}", dir.path().display()),
        )
    })
}

/// Removes what the job had; of a failed one the files stay for a while.
pub(super) fn leave(dir: &AttemptDir, keep: Option<Span>) -> io::Result<()> {
    workspace::remove(&dir.needs_blobs())?;
    if let Some(keep) = keep {
        return dir::write_json(&dir.kept_until_file(), &(Timestamp::now() + keep));
    }
    workspace::remove(&dir.container_file())?;
    for folder in [
        dir.workspace(),
        dir.tmp(),
        dir.home(),
        dir.needs(),
        dir.contract(),
        dir.originals(),
    ] {
        workspace::remove(&folder)?;
    }
    Ok(())
}

/// Until when a failed attempt's files are kept; none: they are not.
///
/// # Errors
/// Where the mark cannot be read.
pub fn kept_until(dir: &AttemptDir) -> io::Result<Option<Timestamp>> {
    dir::read_json(&dir.kept_until_file())
}

/// Forgets an attempt that no other one of its job follows, with the job's checkpoints: all of it, or all but what is
/// kept until later than `now`. Answers whether nothing is left. To be called again when the time is over.
///
/// # Errors
/// Where the disk refuses.
pub fn forget(dir: &AttemptDir, now: Timestamp) -> io::Result<bool> {
    if kept_until(dir)?.is_some_and(|until| until > now) {
        for path in [dir.blobs(), dir.journal()] {
            workspace::remove(&path)?;
        }
        return Ok(false);
    }
    if let (Ok(order), Some(data)) = (dir.order(), dir.path().ancestors().nth(2)) {
        Checkpoints::of(data, &order.job).remove()?;
    }
    workspace::remove(dir.path())?;
    Ok(true)
}

/// Hands over what a driver that died could not, where the agent is an ordinary user: another driver with nothing
/// else to do. Root needs none.
pub(super) async fn sweep(attempt: &Attempt<'_>) {
    if rustix::process::geteuid().is_root() {
        return;
    }
    if let Err(error) = try_sweep(attempt).await {
        tracing::warn!(attempt = %attempt.order.attempt, "what the job left could not be handed over: {error}");
    }
}

/// Of a cleaning container. An attempt's other containers are not found by them.
fn labels(attempt: &Attempt<'_>) -> BTreeMap<String, String> {
    let mut labels = attempt.helper_labels();
    labels.insert("trainyard.sweep".to_owned(), String::new());
    labels
}

async fn try_sweep(attempt: &Attempt<'_>) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let contract = attempt.dir.path().join("sweep");
    let job = nothing_but(&["/left", "/left-checkpoints"], None);
    fs::create_dir_all(contract.join(OUT_DIR)).map_err(|e| words(&e))?;
    dir::write_json(&contract.join(JOB_FILE), &job).map_err(|e| words(&e))?;
    let state: Option<super::State> =
        dir::read_json(&attempt.dir.state_file()).map_err(|e| words(&e))?;
    let image = match state.map(|state| state.stage) {
        Some(super::Stage::Run(Prepared { image, .. })) => image,
        Some(
            super::Stage::Workspace | super::Stage::Environment | super::Stage::Collect { .. },
        )
        | None => None,
    };
    let engine = attempt.engine().await.map_err(|failure| failure.message)?;
    let labels = labels(attempt);
    let spec = ContainerSpec {
        name: format!(
            "trainyard-{}-{}-sweep",
            attempt.order.attempt, attempt.order.generation
        ),
        image: image.map_or_else(|| attempt.order.spec.image.clone(), |image| image.id),
        argv: super::job::driver_argv(),
        user: "0:0".into(),
        workdir: "/".into(),
        env: Default::default(),
        labels: labels.clone(),
        mounts: vec![
            MountSpec::writable(&contract, protocol::driver::MOUNT),
            MountSpec::writable(attempt.dir.path(), "/left"),
            MountSpec::writable(attempt.checkpoints().files(), "/left-checkpoints"),
            MountSpec::read_only(&attempt.host.driver, DRIVER),
        ],
        network: Network::None,
        capabilities: &["CHOWN", "DAC_OVERRIDE"],
        memory: Some(256 << 20),
        cpu_millis: None,
        processes: Some(64),
        shm: None,
        gpus: Vec::new(),
    };
    // One that an earlier agent left is ended: this one does the same.
    for found in engine.find(&labels).await.map_err(|e| words(&e))? {
        found.container.remove().await;
    }
    let container = engine.create(&spec).await.map_err(|e| words(&e))?;
    let ran = match container.start().await {
        Ok(()) => tokio::time::timeout(std::time::Duration::from_secs(120), container.wait())
            .await
            .map(drop)
            .map_err(|_| "the cleaning container did not end within 120 s".to_owned()),
        Err(error) => Err(words(&error)),
    };
    container.remove().await;
    workspace::remove(&contract).map_err(|e| words(&e))?;
    ran
}
