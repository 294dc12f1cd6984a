//! An attempt here and now, without a server: the host for it, its order, and its results beside the project.
//! It knows no pipeline file and prints nothing.

mod gpus;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::agent_api::{AttemptOrder, Source};
use protocol::event::{Artifact, ArtifactRole};
use protocol::report::AttemptReport;
use protocol::spec::{Limits, Network, Parameters, PythonSource, Resources, Turn};
use protocol::{
    AttemptId, Digest, Failure, FailureKind, JobId, JobSpec, PipelineId, ProjectId, Timestamp,
    Trust, Work,
};

use crate::attempt::{AttemptDir, forget, kept_until, write_json};
use crate::config::Config;
use crate::executor::Engine;
use crate::hardware::{Hardware, unjudged};
use crate::host::{Host, HostError};
use crate::leftover;

pub use gpus::{Desk, Held, Look};

/// In an attempt's folder: locked by the run's process, with the address of the engine that has its containers, empty
/// where its jobs are processes of this host.
const ALIVE: &str = "run.lock";

/// Where local runs keep environments and caches: `$TRAINYARD_DATA`, else below `$XDG_DATA_HOME` or
/// `~/.local/share`.
#[must_use]
pub fn data_folder() -> PathBuf {
    let var = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(data) = var("TRAINYARD_DATA") {
        return data;
    }
    let share = var("XDG_DATA_HOME").or_else(|| var("HOME").map(|home| home.join(".local/share")));
    share
        .unwrap_or_else(std::env::temp_dir)
        .join("trainyard/local")
}

/// The host for local runs. `config` says the executor; its data folder is made.
///
/// # Errors
/// Where there is no driver, or the data folder cannot be written.
pub async fn host(config: Config) -> Result<Host, HostError> {
    let engine = match config.executors.docker {
        true => Engine::connect(&config).await.ok(),
        false => None,
    };
    let facts = match &engine {
        Some(engine) => engine.facts().await.ok(),
        None => None,
    };
    let hardware = Arc::new(Hardware::open(&config));
    let gpus = unjudged(hardware.gpus());
    let inventory = hardware.inventory(&config, facts.map(|facts| facts.inventory()), gpus);
    Host::open(config, inventory, hardware)
}

/// A notebook without a pipeline file: what a job gets that asks for nothing, and the network.
#[must_use]
pub fn notebook_spec(path: &str, requirements: Option<String>, image: &str) -> JobSpec {
    JobSpec {
        name: path.to_owned(),
        definition: "notebook".into(),
        work: Work::Notebook {
            path: path.to_owned(),
        },
        parameters: Parameters::new(),
        checkout: Default::default(),
        image: image.to_owned(),
        python: requirements.map(PythonSource::Requirements),
        env: BTreeMap::new(),
        secrets: Vec::new(),
        network: Network::Full,
        resources: Resources::default(),
        runs_on: Vec::new(),
        volumes: BTreeMap::new(),
        turn: Turn::default(),
        needs: Vec::new(),
        artifacts: Vec::new(),
        limits: Limits::default(),
        checkpoints: Default::default(),
        model: None,
        metrics: BTreeMap::new(),
        first_metric: None,
        parent: None,
        retries: 0,
        reuse: false,
    }
}

/// What an earlier job of the same run left: its artifacts, and the folder of their blobs.
#[derive(Debug, Clone)]
pub struct Left {
    /// The definition.
    pub definition: String,
    /// Its artifacts.
    pub artifacts: Vec<Artifact>,
    /// Where the blobs lie.
    pub blobs: PathBuf,
}

/// An attempt of this process: no other one takes its folder for what a killed run left.
#[derive(Debug)]
pub struct Own {
    dir: AttemptDir,
    _lock: File,
}

impl Deref for Own {
    type Target = AttemptDir;

    fn deref(&self) -> &AttemptDir {
        &self.dir
    }
}

impl Own {
    fn take(dir: AttemptDir, engine: Option<&str>) -> io::Result<Self> {
        let mut file = tempfile::NamedTempFile::new_in(dir.path())?;
        file.write_all(engine.unwrap_or_default().as_bytes())?;
        // Before it has its name: who finds it finds it locked.
        file.as_file().lock()?;
        let lock = file.persist(dir.path().join(ALIVE))?;
        Ok(Self { dir, _lock: lock })
    }
}

/// The address of the engine that has the containers of this host's jobs; none: they are processes.
fn containers_in(host: &Host) -> Option<String> {
    let config = &host.config;
    config.executors.docker.then(|| Engine::address(config))
}

/// Makes the attempt's folder, ready for [`crate::attempt::run`], which gets the GPUs that are held.
///
/// # Errors
/// A failure with words for a person: the disk refuses.
pub fn prepare(
    host: &Host,
    root: &Path,
    spec: JobSpec,
    left: &[Left],
    held: &Held,
    run: Option<String>,
) -> Result<Own, Failure> {
    let name = root.file_name().map_or_else(
        || "project".into(),
        |name| name.to_string_lossy().into_owned(),
    );
    let mut needs: BTreeMap<String, Vec<Artifact>> = BTreeMap::new();
    for one in left
        .iter()
        .filter(|one| spec.needs.contains(&one.definition))
    {
        needs
            .entry(one.definition.clone())
            .or_default()
            .extend(one.artifacts.clone());
    }
    let order = AttemptOrder {
        attempt: held.attempt.clone(),
        generation: 1,
        job: JobId::generate(),
        number: 1,
        pipeline: PipelineId::generate(),
        project: project_of(root),
        project_name: name,
        source: Source::Folder {
            path: root.display().to_string(),
        },
        trust: Trust::Trusted,
        secrets: secrets(&spec),
        gpus: held.uuids.clone(),
        spec,
        needs,
        parent: None,
        checkpoint: None,
        run,
    };
    let disk = |error: io::Error| {
        Failure::new(
            FailureKind::Internal,
            format!("cannot write {}: {error}", host.data().display()),
        )
    };
    let dir = AttemptDir::create(host.data(), &order).map_err(disk)?;
    let dir = Own::take(dir, containers_in(host).as_deref()).map_err(disk)?;
    dir.give_gpus(&order.gpus, &held.readings).map_err(disk)?;
    fs::create_dir_all(dir.needs_blobs()).map_err(disk)?;
    for one in left
        .iter()
        .filter(|one| order.needs.contains_key(&one.definition))
    {
        for artifact in &one.artifacts {
            let name = artifact.blob.as_str();
            fs::copy(one.blobs.join(name), dir.needs_blobs().join(name)).map_err(disk)?;
        }
    }
    Ok(dir)
}

/// Opens the socket on which the attempt's code asks for a registry: whoever answers there is its registry.
///
/// # Errors
/// Where the disk refuses.
pub fn registry_socket(dir: &AttemptDir) -> io::Result<tokio::net::UnixListener> {
    crate::registry::open(&dir.agent())
}

/// The same folder is the same project, so that its caches are found again.
fn project_of(root: &Path) -> ProjectId {
    let digest = Digest::of(root.as_os_str().as_encoded_bytes());
    digest.as_str()[..26]
        .parse()
        .unwrap_or_else(|_| ProjectId::generate())
}

/// Secrets come from the environment of whoever runs it.
fn secrets(spec: &JobSpec) -> BTreeMap<String, String> {
    let value = |name: &String| Some((name.clone(), std::env::var(name).ok()?));
    spec.secrets.iter().filter_map(value).collect()
}

/// Copies what an attempt left to `into`: the notebook as `<name>.executed.ipynb`, declared files by their path,
/// the model below `model/`, and the report. Answers the notebook's place, where there is one.
///
/// # Errors
/// Where the disk refuses.
pub fn deliver(
    dir: &AttemptDir,
    report: &AttemptReport,
    into: &Path,
) -> io::Result<Option<PathBuf>> {
    fs::create_dir_all(into)?;
    let mut notebook = None;
    for artifact in &report.artifacts {
        let place = match artifact.role {
            ArtifactRole::Notebook => {
                let name = Path::new(&artifact.path)
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let place = into.join(format!("{name}.executed.ipynb"));
                notebook = Some(place.clone());
                place
            }
            ArtifactRole::Model => into.join("model").join(&artifact.path),
            ArtifactRole::Declared => into.join(&artifact.path),
            // They are in the notebook.
            ArtifactRole::Output => continue,
        };
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(dir.blobs().join(artifact.blob.as_str()), place)?;
    }
    write_json(&into.join("report.json"), report)?;
    Ok(notebook)
}

/// A folder for the results of one run, `<root>/.trainyard/runs/<id>`, which git does not see.
///
/// # Errors
/// Where the disk refuses.
pub fn results_folder(root: &Path, attempt: &AttemptDir) -> io::Result<PathBuf> {
    let own = root.join(".trainyard");
    fs::create_dir_all(&own)?;
    let ignore = own.join(".gitignore");
    if !ignore.exists() {
        fs::write(&ignore, "*\n")?;
    }
    Ok(own
        .join("runs")
        .join(attempt.path().file_name().unwrap_or_default()))
}

/// Removes failed attempts whose time is over, and ends and removes what killed runs left. What runs is left alone.
pub async fn sweep(data: &Path, now: Timestamp) {
    let Ok(attempts) = fs::read_dir(data.join("attempts")) else {
        return;
    };
    for entry in attempts.flatten() {
        let dir = AttemptDir::open(entry.path());
        let over = match kept_until(&dir) {
            Ok(Some(until)) => until <= now,
            Ok(None) => end_left(&dir).await,
            Err(_) => false,
        };
        if over && let Err(error) = forget(&dir, now) {
            tracing::warn!("cannot remove {}: {error}", dir.path().display());
        }
    }
}

/// Removes the folder of a killed run whose job was ended. Only what a run has made goes, and nothing that a process holds.
pub(crate) fn remove_left(folder: &Path, attempt: &AttemptId) {
    let is_its = folder.is_absolute() && folder.ends_with(attempt.as_str());
    let alive = File::open(folder.join(ALIVE)).ok().filter(|_| is_its);
    // Held meanwhile: no run does the same.
    let Some(_alive) = alive.filter(|alive| alive.try_lock().is_ok()) else {
        return;
    };
    if let Err(error) = forget(&AttemptDir::open(folder), Timestamp::now()) {
        tracing::warn!(%attempt, "cannot remove {}: {error}", folder.display());
    }
}

/// Ends and removes what killed runs left in the folder of an agent, whose own attempts are left alone.
pub(crate) async fn sweep_left(data: &Path) {
    let entries = fs::read_dir(data.join("attempts"));
    for entry in entries.into_iter().flatten().flatten() {
        let dir = AttemptDir::open(entry.path());
        if is_runs(&dir) && end_left(&dir).await {
            let now = Timestamp::now();
            if let Err(error) = forget(&dir, now) {
                tracing::warn!("cannot remove {}: {error}", dir.path().display());
            }
        }
    }
}

/// Whether an attempt is a person's run and no agent's.
pub(crate) fn is_runs(dir: &AttemptDir) -> bool {
    dir.path().join(ALIVE).exists()
}

/// Ends what goes on of an attempt whose run was killed. Answers whether it was killed and nothing goes on.
async fn end_left(dir: &AttemptDir) -> bool {
    let name = dir.path().file_name().unwrap_or_default();
    let Some(Ok(attempt)) = name.to_str().map(str::parse) else {
        return false;
    };
    let Ok(mut alive) = File::open(dir.path().join(ALIVE)) else {
        return false;
    };
    // Held meanwhile: no other run does the same.
    if alive.try_lock().is_err() {
        return false;
    }
    let mut engine = String::new();
    let read = io::Read::read_to_string(&mut alive, &mut engine);
    let ended = match read {
        Ok(_) => leftover::end(&attempt, (!engine.is_empty()).then_some(&engine)).await,
        Err(error) => Err(error.to_string()),
    };
    match &ended {
        Ok(()) => tracing::info!(%attempt, "what a killed run left was ended and is removed"),
        Err(why) => tracing::warn!(%attempt, "a killed run's job may go on: {why}"),
    }
    ended.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::ATTEMPT_VARIABLE;

    #[test]
    fn the_same_folder_is_the_same_project() {
        assert_eq!(project_of(Path::new("/a")), project_of(Path::new("/a")));
        assert_ne!(project_of(Path::new("/a")), project_of(Path::new("/b")));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_killed_run_left_is_ended_and_removed_and_what_runs_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let attempts: [AttemptId; 2] = std::array::from_fn(|_| AttemptId::generate());
        let dirs = attempts.each_ref().map(|id| {
            let path = data.path().join("attempts").join(id.as_str());
            fs::create_dir_all(&path).unwrap();
            AttemptDir::open(path)
        });
        let [runs, killed] = dirs.map(|dir| Own::take(dir, None).unwrap());
        let mut jobs = attempts.each_ref().map(|id| {
            let mut job = std::process::Command::new("sleep");
            job.arg("600").env(ATTEMPT_VARIABLE, id.as_str());
            job.spawn().unwrap()
        });
        let left = killed.path().to_owned();
        // A process that is killed gives its lock up, and removes nothing.
        drop(killed);
        // A process that begins elsewhere has copies of this one's locks for a moment.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while left.exists() {
            assert!(std::time::Instant::now() < until, "it is never swept");
            sweep(data.path(), Timestamp::now()).await;
        }
        assert!(runs.path().exists());
        jobs[1].wait().unwrap();
        assert!(jobs[0].try_wait().unwrap().is_none(), "it is not touched");
        let left = runs.path().to_owned();
        drop(runs);
        // The agent of the folder does the same, and leaves its own attempts alone.
        let own = data
            .path()
            .join("attempts")
            .join(AttemptId::generate().as_str());
        fs::create_dir_all(&own).unwrap();
        while left.exists() {
            assert!(std::time::Instant::now() < until, "it is never swept");
            sweep_left(data.path()).await;
        }
        assert!(own.exists());
        jobs[0].wait().unwrap();
    }
}
