//! One attempt, from its order to its report: a machine of stages, each with its data on the disk, so that an
//! agent that was killed goes on where it was. It knows neither the server nor the queue.

mod cache;
mod clean;
mod collect;
mod control;
pub(crate) mod dir;
mod disk;
mod elsewhere;
mod follow;
mod held;
pub(crate) mod job;
mod judge;
mod measured;
mod numbers;
mod places;
mod rebuild;
mod run;
mod samples;
mod state;
mod told;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::agent_api::{AttemptOrder, Source};
use protocol::driver::{OUT_DIR, RESULT_FILE};
use protocol::event::{EventKind, LogStream, Phase};
use protocol::report::{AttemptReport, BookedGpu, Setting, VolumeManifest};
use protocol::{Failure, FailureKind, Outcome, Timestamp, Trust, Unnumbered};

use crate::environment::{self, NotReady, Request};
use crate::executor::{Engine, EngineError, Image};
use crate::host::Host;
use crate::journal::Journal;
use crate::manifest::manifest;
use crate::workspace;

pub use clean::{forget, kept_until};
pub use control::{Control, StopReason};
pub use dir::AttemptDir;
pub(crate) use dir::{Given, files, read_json, write_json};
pub(crate) use disk::free;
pub(crate) use held::in_use;
pub(crate) use job::{ATTEMPT_LABEL, DRIVER, GPUS_LABEL, driver_argv, nothing_but};
pub(crate) use places::cache_of;

use state::{Ended, Prepared, Stage, State};

/// Longest look at a volume without a version.
const MANIFEST: std::time::Duration = std::time::Duration::from_secs(20);

/// Carries out an attempt as far as its report, which is left in `report.json` too. Called again after the agent was
/// killed, it goes on: a job that still runs is found and followed from where the journal ends.
///
/// Writes every event but two, which are the caller's: the phase `upload`, and the last one (`finished`).
/// Before the call, blobs of needed jobs lie in [`AttemptDir::needs_blobs`]; after it, those to upload in
/// [`AttemptDir::blobs`].
///
/// It always answers a report: whatever goes wrong is a failure in it, with its owner.
pub async fn run(
    host: &Host,
    dir: AttemptDir,
    journal: &Journal,
    control: Control,
) -> AttemptReport {
    match dir.report() {
        Ok(Some(report)) => return report,
        Ok(None) => {}
        Err(error) => tracing::warn!(
            "{}: report.json is made anew: {error}",
            dir.path().display()
        ),
    }
    let order = match dir.order() {
        Ok(order) => order,
        Err(error) => {
            let failure = Failure::new(
                FailureKind::Internal,
                format!(
                    "the order in {} cannot be read: {error}",
                    dir.path().display()
                ),
            );
            return collect::bare_report(Outcome::Failed(failure));
        }
    };
    let attempt = Attempt {
        host,
        dir,
        journal,
        control,
        order,
    };
    attempt.carry_out().await
}

/// The phase that an attempt is in, as its folder says: what a new process tells before it has gone on.
#[must_use]
pub fn phase(dir: &AttemptDir) -> Phase {
    if dir.report_file().exists() {
        return Phase::Upload;
    }
    match dir::read_json::<State>(&dir.state_file()) {
        Ok(Some(state)) => state.stage.phase(),
        Ok(None) | Err(_) => Phase::Workspace,
    }
}

/// In what an attempt runs, as far as its folder says.
#[must_use]
pub fn setting(dir: &AttemptDir) -> Setting {
    let state = dir::read_json::<State>(&dir.state_file());
    let state = state.ok().flatten();
    state.map(|state| state.setting).unwrap_or_default()
}

/// What is known of the end of an attempt's job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobEnd {
    /// It runs, or has not begun.
    NotYet,
    /// It is over, and was not cut off: what it wrote, it wrote to the end.
    Clean,
    /// It is over, and may have been cut off in the middle of a file.
    CutOff,
}

/// How an attempt's job ended, as its folder says. Where its driver has said its last word and nobody has judged it yet,
/// the job counts as cut off.
pub(crate) fn job_end(dir: &AttemptDir) -> JobEnd {
    match dir::read_json::<State>(&dir.state_file()).map(|state| state.map(|state| state.stage)) {
        Ok(Some(Stage::Collect { ended, .. })) if ended.clean => JobEnd::Clean,
        Ok(Some(Stage::Collect { .. })) => JobEnd::CutOff,
        Ok(Some(Stage::Workspace | Stage::Environment | Stage::Run(_)) | None) | Err(_) => {
            let said = dir.contract().join(OUT_DIR).join(RESULT_FILE).exists();
            match said || dir.report_file().exists() {
                true => JobEnd::CutOff,
                false => JobEnd::NotYet,
            }
        }
    }
}

/// What all stages share.
struct Attempt<'a> {
    host: &'a Host,
    dir: AttemptDir,
    journal: &'a Journal,
    control: Control,
    order: AttemptOrder,
}

impl Attempt<'_> {
    async fn carry_out(&self) -> AttemptReport {
        let (mut state, resumed) = self.load();
        let mut first = true;
        loop {
            self.announce(&state.stage, resumed && first).await;
            first = false;
            let began = Instant::now();
            let phase = state.stage.phase();
            let next = match state.stage.clone() {
                Stage::Workspace => self.workspace().await,
                Stage::Environment => self.environment(&mut state.setting).await,
                Stage::Run(prepared) => Ok(Stage::collect(
                    self.run_job(&prepared, &mut state).await,
                    self.journal,
                )),
                Stage::Collect { ended, from } => return self.collect(&state, &ended, from).await,
            };
            *state.phases.entry(phase.word().into()).or_default() += began.elapsed();
            state.stage = next.unwrap_or_else(|ended| Stage::collect(*ended, self.journal));
            self.save(&state);
        }
    }

    /// The state of an interrupted try, or a new one.
    fn load(&self) -> (State, bool) {
        match dir::read_json(&self.dir.state_file()) {
            Ok(Some(state)) => (state, true),
            Ok(None) => (State::new(self.setting()), false),
            Err(error) => {
                tracing::warn!(attempt = %self.order.attempt, "state.json cannot be read, the attempt begins anew: {error}");
                (State::new(self.setting()), false)
            }
        }
    }

    /// A state that cannot be written costs a restart its memory, not the job its result.
    fn save(&self, state: &State) {
        // From then on nobody reads the driver's lines again.
        if matches!(state.stage, Stage::Collect { .. }) {
            self.sync_story();
        }
        if let Err(error) = dir::write_json(&self.dir.state_file(), state) {
            tracing::error!(attempt = %self.order.attempt, "cannot write state.json: {error}");
        }
    }

    /// Makes the story so far durable, before what says that it is whole.
    fn sync_story(&self) {
        if let Err(error) = self.journal.sync() {
            tracing::error!(attempt = %self.order.attempt, "{error}");
        }
    }

    fn setting(&self) -> Setting {
        let inventory = &self.host.inventory;
        let given = self.dir.gpus().unwrap_or_default();
        let booked = |uuid: &String| BookedGpu {
            uuid: uuid.clone(),
            model: given
                .iter()
                .find(|gpu| gpu.uuid == *uuid)
                .map_or_else(String::new, |gpu| gpu.model.clone()),
        };
        Setting {
            host: inventory.host.clone(),
            executor: if self.in_container() {
                "docker"
            } else {
                "shell"
            }
            .into(),
            image: if self.in_container() {
                self.order.spec.image.clone()
            } else {
                String::new()
            },
            cpu_model: inventory.cpu_model.clone(),
            system: self.host.system.clone(),
            gpus: self.order.gpus.iter().map(booked).collect(),
            // It may have answered later than the agent began.
            driver: self.host.hardware.driver(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            ..Setting::default()
        }
    }

    fn in_container(&self) -> bool {
        self.host.config.executors.docker
    }

    /// Writes an event that the story must have. A full disk is waited for until there is room, or until nobody believes
    /// the attempt any more.
    async fn insist(&self, kind: EventKind) {
        let written = async {
            while let Err(error) = self.journal.append(Unnumbered::now(kind.clone().into())) {
                tracing::error!(attempt = %self.order.attempt, "{error}; trying again");
                tokio::time::sleep(self.host.config.timing.retry.into()).await;
            }
        };
        tokio::select! {
            () = written => {}
            () = self.control.abandoned() => {}
        }
    }

    /// Writes an event that may be missing. A journal that refuses is said once, in the log: the attempt goes on.
    fn tell(&self, kind: EventKind) {
        if let Err(error) = self.journal.append(Unnumbered::now(kind.into())) {
            tracing::error!(attempt = %self.order.attempt, "{error}");
        }
    }

    fn log(&self, text: impl Into<String>) {
        self.tell(EventKind::Log {
            stream: LogStream::Platform,
            text: text.into() + "\n",
        });
    }

    async fn announce(&self, stage: &Stage, resumed: bool) {
        let collecting = matches!(stage, Stage::Collect { .. });
        if !(resumed && collecting) {
            self.insist(EventKind::Phase {
                phase: stage.phase(),
                detail: resumed.then(|| "goes on after a restart of the agent".into()),
            })
            .await;
        }
    }

    async fn workspace(&self) -> Result<Stage, Box<Ended>> {
        if self.order.trust == Trust::Untrusted && !self.in_container() {
            let message = "this host isolates no job, and an untrusted commit's must be";
            let failure = Failure::new(FailureKind::ExecutorFailed, message)
                .hint("Let it run where agents run jobs in containers (`executors.docker`).");
            return Err(Ended::failed(failure));
        }
        let flag = Arc::new(AtomicBool::new(false));
        let deadline = mirror::Deadline::within(self.host.config.jobs.checkout_timeout.into())
            .or_when(Arc::clone(&flag));
        let (mirrors, dir, order) = (
            self.host.data().join("mirrors"),
            self.dir.clone(),
            self.order.clone(),
        );
        let (user, checkpoints) = (self.host.job_user, self.checkpoints());
        let mut work = tokio::task::spawn_blocking(move || {
            workspace::prepare(&mirrors, &dir, &order, &deadline)?;
            clean::make_folders(&dir, user)?;
            checkpoints.take(&order, user).map_err(|error| {
                let message = format!("cannot make the folder for checkpoints: {error}");
                Failure::new(FailureKind::CheckoutFailed, message)
            })
        });
        let done = tokio::select! {
            done = &mut work => done,
            reason = self.control.stopped() => {
                flag.store(true, Ordering::Relaxed);
                // It looks at the flag often; a disk that hangs must not hang the answer.
                let _ = tokio::time::timeout(Duration::from_secs(10), work).await;
                return Err(Ended::stopped(reason));
            }
        };
        match done {
            Ok(Ok(())) => Ok(Stage::Environment),
            Ok(Err(failure)) => Err(Ended::failed(failure)),
            Err(error) => Err(Ended::failed(Failure::new(
                FailureKind::Internal,
                format!("making the workspace broke off: {error}"),
            ))),
        }
    }

    async fn environment(&self, setting: &mut Setting) -> Result<Stage, Box<Ended>> {
        let image = match self.in_container() {
            true => Some(self.image().await?),
            false => None,
        };
        setting.image_id = image.as_ref().map(|(_, image)| image.identity.clone());
        let mut prepared = Prepared {
            image: image.as_ref().map(|(_, image)| image.clone()),
            environment: None,
            launched: None,
        };
        if let Some(source) = &self.order.spec.python {
            let workspace = self.dir.workspace();
            let request = Request {
                source,
                workspace: &workspace,
                code: self.code(),
                trust: self.order.trust,
                project: &self.order.project,
                labels: self.helper_labels(),
                container: image.as_ref().map(|(engine, image)| (engine, image)),
            };
            let environment = match environment::prepare(self.host, &request, &self.control).await {
                Ok(environment) => environment,
                Err(NotReady::Failed(failure)) => return Err(Ended::failed(failure)),
                Err(NotReady::Stopped(reason)) => return Err(Ended::stopped(reason)),
            };
            let packages = environment.packages.lines().count();
            self.insist(EventKind::Phase {
                phase: Phase::Environment,
                detail: Some(match environment.built_in {
                    Some(took) => format!(
                        "built in {took}: {packages} packages ({})",
                        environment.key.short()
                    ),
                    None => format!(
                        "was here already: {packages} packages ({})",
                        environment.key.short()
                    ),
                }),
            })
            .await;
            setting.environment = Some(environment.key.clone());
            setting.packages = Some(environment.packages.clone());
            setting.python = Some(environment.python.clone());
            prepared.environment = Some(environment);
        }
        setting.volumes = self.manifests().await;
        Ok(Stage::Run(prepared))
    }

    /// A name of the workspace's files that no others have: a folder's may have changed since.
    fn code(&self) -> String {
        let (project, attempt) = (&self.order.project, &self.order.attempt);
        match &self.order.source {
            Source::Git { commit, .. } => {
                let with = self.order.spec.checkout;
                format!(
                    "{project} {commit} lfs={} submodules={}",
                    with.lfs, with.submodules
                )
            }
            Source::Folder { .. } => format!("{project} {attempt}"),
        }
    }

    /// What is in the volumes that no administrator gave a version. A file system that does not answer costs the job
    /// nothing but this.
    async fn manifests(&self) -> Vec<VolumeManifest> {
        let volumes = self.order.spec.volumes.keys().filter_map(|name| {
            let volume = self.host.config.volumes.get(name)?;
            (volume.version.is_none()).then(|| (name.clone(), volume.path.clone()))
        });
        let mut found = Vec::new();
        for (name, path) in volumes {
            let look = tokio::task::spawn_blocking(move || manifest(&name, &path, MANIFEST));
            if let Ok(Ok(manifest)) = tokio::time::timeout(MANIFEST * 2, look).await {
                found.push(manifest);
            }
        }
        found
    }

    async fn image(&self) -> Result<(Engine, Image), Box<Ended>> {
        let engine = self.engine().await.map_err(Ended::failed)?;
        let jobs = &self.host.config.jobs;
        let pull = (!jobs.offline).then(|| jobs.pull_timeout.into());
        let image = tokio::select! {
            image = engine.image(&self.order.spec.image, pull) => image,
            reason = self.control.stopped() => return Err(Ended::stopped(reason)),
        };
        let image = image.map_err(|error| Ended::failed(image_failure(&error)))?;
        Ok((engine, image))
    }

    async fn engine(&self) -> Result<Engine, Failure> {
        Engine::connect(&self.host.config).await.map_err(|error| {
            Failure::new(FailureKind::ExecutorFailed, error.to_string())
                .hint("`trainyard doctor` looks at the engine and says what to do.")
        })
    }
}

fn image_failure(error: &EngineError) -> Failure {
    match error {
        EngineError::NoImage { .. } => Failure::new(FailureKind::ImageUnusable, error.to_string())
            .hint("Correct `image:`, or bring the image to the host (docker pull, docker load; trainyard/notebook is built from Trainyard's `images/notebook`)."),
        EngineError::Pull { .. } => Failure::new(FailureKind::ExecutorFailed, error.to_string())
            .hint("Does the host reach the registry? Where it may not: bring the image by `docker load`."),
        EngineError::Unreachable { .. } | EngineError::Refused { .. } | EngineError::Call(_) => {
            Failure::new(FailureKind::ExecutorFailed, error.to_string())
                .hint("`trainyard doctor` looks at the engine and says what to do.")
        }
    }
}

/// When a report is made.
fn now() -> Timestamp {
    Timestamp::now()
}
