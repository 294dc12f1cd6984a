//! Whether this host can do what it offers. Its engine is tried, not believed: by a container of the agent's own before GPUs
//! are offered, once for an engine, a driver and a set of GPUs, and where attempts fail in a row because none is started.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::hardware::{Engine as EngineWords, Gpu, GpuHealth, GpuKind};
use protocol::report::AttemptReport;
use protocol::spec::DEFAULT_IMAGE;
use protocol::{Digest, FailureKind, Outcome, Owner, Timestamp};
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::sight::{Seen, Sight};
use crate::executor::Engine;
use crate::hardware::GpuReading;
use crate::ledger::Tried;
use crate::trial::{Failed, Trial};
use crate::workspace;

/// After so many attempts in a row that failed by the executor the engine is tried.
const IN_A_ROW: u32 = 3;
/// Label of the agent's own containers; its value is the data folder's. Nobody takes them for an attempt's.
const LABEL: &str = "trainyard.trial";
/// How the names of their folders begin, in the data folder.
const FOLDER: &str = "trial-";
/// What a GPU is meanwhile.
const BEING_TRIED: &str = "whether the container engine gives it is being tried";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trials {
    state: Mutex<State>,
    /// Something is to be tried now.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Attempts that failed by the executor, in a row.
    failed: u32,
    /// One of these had GPUs.
    had_gpus: bool,
    /// Why the host takes nothing new.
    closed: Option<String>,
    /// The GPUs are being tried.
    trying: bool,
    /// GPUs were seen.
    met: bool,
}

impl Trials {
    /// Takes in how an attempt ended here.
    pub(super) fn heard(&self, report: &AttemptReport, had_gpus: bool) {
        let mut state = self.lock();
        match &report.outcome {
            Outcome::Failed(failure) if failure.kind == FailureKind::ExecutorFailed => {
                state.failed += 1;
                state.had_gpus |= had_gpus;
                if state.failed >= IN_A_ROW {
                    self.wanted.notify_one();
                }
            }
            // Something else of the platform's says nothing of the executor.
            Outcome::Failed(failure) if failure.kind.owner() == Owner::Platform => {}
            Outcome::Failed(_) | Outcome::Succeeded => {
                (state.failed, state.had_gpus) = (0, false);
            }
            Outcome::Cancelled { .. } | Outcome::Reused { .. } | Outcome::Skipped { .. } => {}
        }
    }

    /// Why the host takes nothing new.
    pub(super) fn closed(&self) -> Option<String> {
        self.lock().closed.clone()
    }

    /// From now on GPUs are not offered, until they were tried.
    fn begin(&self) {
        self.lock().trying = true;
    }

    /// Takes in that GPUs are seen. Answers whether none were before.
    fn meet(&self) -> bool {
        !std::mem::replace(&mut self.lock().met, true)
    }

    fn is_trying(&self) -> bool {
        self.lock().trying
    }

    /// Whether a container is to show that the engine starts any.
    fn doubts(&self) -> bool {
        let state = self.lock();
        state.failed >= IN_A_ROW || state.closed.is_some()
    }

    /// A container was started, or not. Answers whether GPUs are to be tried again.
    fn learn(&self, started: Result<(), String>, again: protocol::Span) -> bool {
        let mut state = self.lock();
        match started {
            Ok(()) => {
                if state.closed.take().is_some() {
                    tracing::info!("the container engine starts containers again");
                }
                state.failed = 0;
                std::mem::take(&mut state.had_gpus)
            }
            Err(why) => {
                if state.closed.is_none() {
                    tracing::error!("this host takes nothing new: {why}");
                }
                state.closed = Some(format!(
                    "the container engine starts nothing, neither jobs nor a container of the agent's own: {why}; it is tried again every {again}"
                ));
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// GPUs of which those that are free are not offered yet.
pub(super) fn untried(mut gpus: Vec<Gpu>, is_free: impl Fn(&Gpu) -> bool) -> Vec<Gpu> {
    let healthy = gpus
        .iter_mut()
        .filter(|gpu| gpu.health == GpuHealth::Healthy);
    for gpu in healthy.filter(|gpu| gpu.kind != GpuKind::Sliced && is_free(gpu)) {
        let reason = BEING_TRIED.to_owned();
        gpu.health = GpuHealth::Quarantined { reason };
    }
    gpus
}

/// Tries what is to be tried, for as long as the agent runs.
pub(super) async fn keep_trying(shared: Arc<Shared>, mut engine: watch::Receiver<Seen>) {
    let every = Duration::from(shared.host.config.timing.trial);
    loop {
        let seen = engine.borrow_and_update().clone();
        if let Ok(words) = seen {
            shared.try_engine(&words).await;
        }
        tokio::select! {
            changed = engine.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = shared.trials.wanted.notified() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
}

impl Shared {
    /// Begins to try what the engine does; none: jobs run without one. GPUs that were not tried with it are not offered before.
    pub(super) fn begin_to_try(
        self: &Arc<Self>,
        sight: &Sight,
        readings: &[GpuReading],
    ) -> Option<AbortOnDropHandle<()>> {
        let engine = sight.follow()?;
        if !readings.is_empty() {
            self.trials.meet();
        }
        let of = sight
            .engine()
            .and_then(|seen| self.trial_of(&seen, readings));
        let known = self.ledger.tried().map(|tried| tried.of);
        if of.is_some() && of != known {
            self.trials.begin();
        }
        let task = tokio::spawn(keep_trying(Arc::clone(self), engine));
        Some(AbortOnDropHandle::new(task))
    }

    /// The GPUs as the server is told of them.
    pub(super) fn offered(&self, readings: &[GpuReading]) -> Vec<Gpu> {
        let gpus = self.ledger.judged(readings);
        // A driver that answers late: what it has was not there to be tried when the agent began.
        let docker = self.host.config.executors.docker;
        if docker && !readings.is_empty() && self.trials.meet() {
            self.trials.begin();
            self.trials.wanted.notify_one();
        }
        if !self.trials.is_trying() {
            return gpus;
        }
        let booked = self.ledger.bookings();
        untried(gpus, |gpu| !booked.contains_key(&gpu.uuid))
    }

    /// What GPUs are tried with: where this changes, they are tried again. None: there is nothing to try.
    fn trial_of(&self, engine: &EngineWords, readings: &[GpuReading]) -> Option<Digest> {
        let whole = readings
            .iter()
            .filter(|reading| reading.gpu.kind != GpuKind::Sliced);
        let mut uuids: Vec<&str> = whole.map(|reading| reading.gpu.uuid.as_str()).collect();
        uuids.sort_unstable();
        let driver = self.hardware.driver();
        let of = (&engine.name, &engine.version, &driver, &uuids);
        let text = serde_json::to_vec(&of).expect("names become JSON");
        (!uuids.is_empty()).then(|| Digest::of(text))
    }

    async fn try_engine(&self, words: &EngineWords) {
        let every = self.host.config.timing.trial;
        if self.trials.doubts() {
            let again = match self.container(None).await {
                Ok(()) => self.trials.learn(Ok(()), every),
                Err(Failed::Refused(why)) => self.trials.learn(Err(why), every),
                Err(Failed::Untried(why)) => {
                    tracing::warn!(
                        "whether the engine starts containers could not be tried: {why}"
                    );
                    false
                }
            };
            if again {
                self.ledger.forget_tried();
            }
            self.news.notify_one();
        }
        self.try_gpus(words).await;
    }

    /// Tries a GPU, where that was not done with these.
    async fn try_gpus(&self, engine: &EngineWords) {
        let readings = self.gpus().await;
        let of = self.trial_of(engine, &readings);
        let every = self.host.config.timing.trial;
        let now = Timestamp::now();
        let known = self
            .ledger
            .tried()
            .filter(|tried| Some(&tried.of) == of.as_ref());
        let holds = known.is_some_and(|tried| tried.refused.is_none() || now < tried.at + every);
        if let Some(of) = of.filter(|_| !holds) {
            self.trials.begin();
            self.news.notify_one();
            self.try_one(of, engine, &readings).await;
        }
        let was = std::mem::take(&mut self.trials.lock().trying);
        if was {
            self.news.notify_one();
        }
    }

    async fn try_one(&self, of: Digest, engine: &EngineWords, readings: &[GpuReading]) {
        let before = self.ledger.tried().and_then(|tried| tried.refused);
        let tried = match engine.name.as_str() {
            "podman" => Err(Failed::Refused(
                "Podman ignores requests for GPUs by Docker's API".into(),
            )),
            _ => match self.ledger.idle(readings) {
                Some(gpu) => self.container(Some(gpu)).await,
                None => Err(Failed::Untried("no GPU is free".into())),
            },
        };
        let refused = match tried {
            Ok(()) => None,
            Err(Failed::Refused(why)) => Some(format!(
                "the container engine does not give it to a container: {why}; `trainyard doctor` on the host says what to do"
            )),
            // Each job looks for itself.
            Err(Failed::Untried(why)) => {
                tracing::warn!("whether the engine gives GPUs could not be tried: {why}");
                return self.ledger.forget_tried();
            }
        };
        match &refused {
            Some(why) if before.as_ref() != Some(why) => {
                tracing::error!("no GPU is offered: {why}")
            }
            None if before.is_some() => tracing::info!("the container engine gives GPUs again"),
            Some(_) | None => {}
        }
        let at = Timestamp::now();
        if let Err(error) = self.ledger.note_tried(Tried { of, at, refused }) {
            tracing::error!("{error}");
        }
    }

    /// Runs a container of the agent's own. One that an earlier agent left is ended.
    async fn container(&self, gpu: Option<&GpuReading>) -> Result<(), Failed> {
        let engine = Engine::connect(&self.host.config).await?;
        let image = engine.some_image(DEFAULT_IMAGE).await?;
        let image = image.ok_or_else(|| Failed::Untried("no image is on this host".into()))?;
        let data = Digest::of(self.host.data().as_os_str().as_encoded_bytes());
        let labels = [(LABEL.to_owned(), data.short().to_owned())].into();
        for found in engine.find(&labels).await? {
            found.container.remove().await;
        }
        let folder = self.trial_folder()?;
        let trial = Trial {
            engine: &engine,
            driver: &self.host.driver,
            image,
            folder: folder.path(),
            name: format!("trainyard-trial-{}", data.short()),
            labels,
        };
        trial.run(gpu).await.map(drop)
    }

    /// An empty folder, which goes when it is dropped. What an agent that was killed left of one goes now, where it can.
    fn trial_folder(&self) -> io::Result<TempDir> {
        for entry in fs::read_dir(self.host.data())?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(FOLDER) {
                let _ = workspace::remove(&entry.path());
            }
        }
        let mut folder = tempfile::Builder::new();
        folder.prefix(FOLDER).tempdir_in(self.host.data())
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Failure, Span};

    use super::*;
    use crate::hardware::example;
    use crate::service::world::World;

    #[tokio::test]
    async fn gpus_of_a_driver_that_answers_late_are_tried_before_they_are_offered() {
        let offers = async |docker| {
            let mut world = World::new().await;
            let shared = Arc::get_mut(&mut world.shared).unwrap();
            shared.host.config.executors.docker = docker;
            assert_eq!(world.shared.offered(&[]), []);
            let gpus = world.shared.offered(&[example("GPU-1")]);
            gpus[0].health.clone()
        };
        let reason = BEING_TRIED.to_owned();
        assert_eq!(offers(true).await, GpuHealth::Quarantined { reason });
        // Nothing tries them, and nothing takes their place.
        assert_eq!(offers(false).await, GpuHealth::Healthy);
    }

    async fn ends(trials: &Trials, outcomes: &[Outcome]) {
        let world = World::new().await;
        for outcome in outcomes {
            let report = AttemptReport {
                outcome: outcome.clone(),
                ..world.report()
            };
            trials.heard(&report, true);
        }
    }

    fn failed(kind: FailureKind) -> Outcome {
        Outcome::Failed(Failure::new(kind, "x"))
    }

    #[tokio::test]
    async fn only_attempts_in_a_row_that_are_not_started_raise_doubts() {
        let executor = || failed(FailureKind::ExecutorFailed);
        let trials = Trials::default();
        ends(&trials, &[executor(), executor(), Outcome::Succeeded]).await;
        ends(&trials, &[executor(), failed(FailureKind::CellRaised)]).await;
        ends(&trials, &[executor(), executor()]).await;
        assert!(!trials.doubts());
        // What says nothing of the executor does not end the row.
        ends(&trials, &[failed(FailureKind::CheckoutFailed), executor()]).await;
        assert!(trials.doubts());
        assert_eq!(trials.closed(), None, "a container decides");
        assert!(!trials.learn(Err("no space left".into()), Span::secs(300)));
        let closed = trials.closed().unwrap();
        assert!(
            closed.contains("no space left") && closed.ends_with("every 5m00s"),
            "{closed}"
        );
        assert!(
            trials.learn(Ok(()), Span::secs(300)),
            "the GPUs are tried too"
        );
        assert!(trials.closed().is_none() && !trials.doubts());
    }
}
