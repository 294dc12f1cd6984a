//! A container of Trainyard's own, in which nothing happens: whether the engine starts it, and gives it the GPU that it was
//! asked for and no other. That is tried, not believed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::driver::{DriverJob, DriverResult, JOB_FILE, OUT_DIR, RESULT_FILE, Verdict};
use protocol::spec::Network;
use protocol::{ByteSize, FailureKind, Span};

use crate::attempt::{DRIVER, Given, driver_argv, files, nothing_but, read_json, write_json};
use crate::executor::{ContainerSpec, Engine, EngineError, MountSpec};
use crate::hardware::GpuReading;

/// How long the container may take.
const WITHIN: Duration = Duration::from_secs(120);

/// What a container is made of.
pub(crate) struct Trial<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) driver: &'a Path,
    /// Id of the image.
    pub(crate) image: String,
    /// An empty folder, for the driver's contract.
    pub(crate) folder: &'a Path,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// The container did not run as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failed {
    /// The engine did not start it, or did not give what it was to have.
    #[error("{0}")]
    Refused(String),
    /// Nobody can tell: the engine was not reached, or the disk refused.
    #[error("{0}")]
    Untried(String),
}

impl From<EngineError> for Failed {
    fn from(error: EngineError) -> Self {
        let words = error.to_string();
        match error {
            EngineError::Refused { .. } => Failed::Refused(words),
            EngineError::Unreachable { .. }
            | EngineError::NoImage { .. }
            | EngineError::Pull { .. }
            | EngineError::Call(_) => Failed::Untried(words),
        }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Failed::Untried(error.to_string())
    }
}

impl Trial<'_> {
    /// Runs the container, with a GPU where one is named. Answers how long it took.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) async fn run(&self, gpu: Option<&GpuReading>) -> Result<Span, Failed> {
        let began = Instant::now();
        fs::create_dir(self.folder.join(OUT_DIR))?;
        write_json(&self.folder.join(JOB_FILE), &job(gpu))?;
        let container = self.engine.create(&self.spec(gpu)).await?;
        let ended = match container.start().await {
            Ok(()) => tokio::time::timeout(WITHIN, container.wait())
                .await
                .map_err(|_| Failed::Refused(format!("no end within {WITHIN:?}"))),
            Err(error) => Err(error.into()),
        };
        container.remove().await;
        let exit = ended?;
        let result: Option<DriverResult> = read_json(&self.folder.join(OUT_DIR).join(RESULT_FILE))?;
        match result.map(|result| result.verdict) {
            // Whether the image has something to run is not what was asked.
            Some(Verdict::Failed { failure }) if failure.kind == FailureKind::ExecutorFailed => {
                Err(Failed::Refused(failure.message))
            }
            Some(Verdict::Succeeded | Verdict::Failed { .. }) => Ok(Span::from(began.elapsed())),
            Some(Verdict::Stopped) => Err(Failed::Untried("the container was stopped".into())),
            None if exit.lost => Err(Failed::Untried("the container was removed".into())),
            None => Err(Failed::Refused(format!(
                "the driver said nothing (exit code {:?})",
                exit.code
            ))),
        }
    }

    fn spec(&self, gpu: Option<&GpuReading>) -> ContainerSpec {
        ContainerSpec {
            name: self.name.clone(),
            image: self.image.clone(),
            argv: driver_argv(),
            user: "0:0".into(),
            workdir: "/".into(),
            env: BTreeMap::new(),
            labels: self.labels.clone(),
            mounts: vec![
                MountSpec::writable(self.folder, protocol::driver::MOUNT),
                MountSpec::read_only(self.driver, DRIVER),
            ],
            network: Network::None,
            capabilities: &["CHOWN", "DAC_OVERRIDE"],
            memory: Some(ByteSize::mib(256).0),
            cpu_millis: None,
            processes: Some(64),
            shm: None,
            gpus: gpu.map(|gpu| gpu.gpu.uuid.clone()).into_iter().collect(),
        }
    }
}

fn job(gpu: Option<&GpuReading>) -> DriverJob {
    nothing_but(&[], gpu.map(|gpu| files(&[Given::of(gpu)])))
}
