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
        dir.parent(),
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

/// What the job could write to, where it is there. The order, which has the forge's authorization, is none of it.
fn left(attempt: &Attempt<'_>) -> Vec<MountSpec> {
    let dir = &attempt.dir;
    let folders = [
        (dir.workspace(), "/left/workspace"),
        (dir.home(), "/left/home"),
        (dir.tmp(), "/left/tmp"),
        (dir.contract(), "/left/contract"),
        (attempt.checkpoints().files(), "/left/checkpoints"),
    ];
    let there = folders.into_iter().filter(|(folder, _)| folder.is_dir());
    there
        .map(|(folder, at)| MountSpec::writable(folder, at))
        .collect()
}

async fn try_sweep(attempt: &Attempt<'_>) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let contract = attempt.dir.path().join("sweep");
    let left = left(attempt);
    let paths: Vec<&str> = left.iter().map(|mount| mount.at.as_str()).collect();
    let job = nothing_but(&paths, None);
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
    let mut mounts = vec![
        MountSpec::writable(&contract, protocol::driver::MOUNT),
        MountSpec::read_only(&attempt.host.driver, DRIVER),
    ];
    mounts.extend(left);
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
        mounts,
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use protocol::{AttemptId, JobId, PipelineId, ProjectId};
    use serde_json::json;

    use super::*;
    use crate::attempt::{ATTEMPT_LABEL, Control};
    use crate::config::Config;
    use crate::executor::testing::{self, IMAGE};
    use crate::hardware::Hardware;
    use crate::host::Host;
    use crate::journal::Journal;

    fn host(data: &Path) -> Host {
        let config = Config {
            data: data.to_owned(),
            ..Config::default()
        };
        let hardware = Arc::new(Hardware::open(&config));
        let inventory = hardware.inventory(&config, None, Vec::new());
        Host::open(config, inventory, hardware).expect("a driver; run scripts/setup")
    }

    fn attempt<'a>(host: &'a Host, journal: &'a Journal) -> Attempt<'a> {
        let order = json!({
            "attempt": AttemptId::generate(), "generation": 1, "number": 1,
            "job": JobId::generate(), "pipeline": PipelineId::generate(), "project": ProjectId::generate(),
            "project_name": "story", "source": {"from": "folder", "path": "/nowhere"}, "trust": "trusted",
            "spec": {
                "name": "train", "definition": "train", "work": {"work": "command", "text": "true"},
                "image": IMAGE, "network": "none", "retries": 0, "reuse": false,
            },
        });
        let order = serde_json::from_value(order).unwrap();
        let dir = AttemptDir::create(host.data(), &order).unwrap();
        let made = Checkpoints::of(host.data(), &order.job);
        fs::create_dir_all(made.files()).unwrap();
        Attempt {
            host,
            dir,
            journal,
            control: Control::new(),
            order,
        }
    }

    #[tokio::test]
    async fn a_cleaning_container_ends_no_other_container() {
        let data = tempfile::tempdir().unwrap();
        let host = host(data.path());
        let Some((engine, image)) = testing::engine(&host.config).await else {
            return;
        };
        let journal = Journal::open(&data.path().join("journal")).unwrap();
        let [cleaned, other] = [(); 2].map(|()| attempt(&host, &journal));
        for labels in [cleaned.labels(), other.labels()] {
            let spec = ContainerSpec {
                name: format!("trainyard-{}", labels[ATTEMPT_LABEL]),
                image: image.id.clone(),
                argv: vec!["true".into()],
                user: "1000:1000".into(),
                workdir: "/".into(),
                env: Default::default(),
                labels,
                mounts: Vec::new(),
                network: Network::None,
                capabilities: &[],
                memory: None,
                cpu_millis: None,
                processes: None,
                shm: None,
                gpus: Vec::new(),
            };
            engine.create(&spec).await.unwrap();
        }
        assert_eq!(try_sweep(&cleaned).await, Ok(()));
        let mut left = Vec::new();
        for found in engine.find(&host.labels()).await.unwrap() {
            left.push(found.labels[ATTEMPT_LABEL].clone());
            found.container.remove().await;
        }
        left.sort();
        let mut both = [cleaned, other].map(|attempt| attempt.order.attempt.to_string());
        both.sort();
        assert_eq!(left, both);
    }
}
