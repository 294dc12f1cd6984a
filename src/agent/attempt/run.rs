//! The stage in which the job runs: start it or find it, follow it to its end, see that it keeps its limits.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use protocol::driver::{DriverResult, JOB_FILE, OUT_DIR, RESULT_FILE};
use protocol::{ByteSize, Failure, FailureKind, Span, Work};

use super::disk::{Full, Share};
use super::follow::{Follower, open_plain};
use super::judge::{Cause, Evidence};
use super::measured::Measured;
use super::state::{Ended, Launched, Prepared, Stage, State};
use super::{Attempt, StopReason, clean, dir, judge, samples};
use crate::executor::{Container, Exit, Process, Running};
use crate::{lint, workspace};

/// Between the driver's own end of a stopped job and ours of the driver.
const DRIVER_GRACE: Duration = Duration::from_secs(10);
/// A kill that does not end the job is tried again: the engine may be away, or may have lost the call.
const KILL_AGAIN: Duration = Duration::from_secs(2);
/// How long an engine may be away when an agent looks for a job that it started.
const ENGINE_GRACE: Duration = Duration::from_secs(300);

/// A job that was followed to its end.
struct Followed {
    exit: Exit,
    /// Why we ended it, where we did.
    cause: Option<Cause>,
    /// Where it was told to end: it did so before its grace was over.
    in_time: bool,
    measured: Measured,
    /// What it held when its host ran out of room, where that was not its doing.
    starved: Option<ByteSize>,
}

impl Attempt<'_> {
    pub(super) async fn run_job(&self, prepared: &Prepared, state: &mut State) -> Ended {
        let running = match self.find_again(prepared).await {
            Ok(Some(running)) => running,
            Ok(None) if self.result().is_some() || prepared.launched.is_some() => {
                let exit = Exit {
                    lost: true,
                    ..Exit::default()
                };
                let followed = Followed {
                    exit,
                    cause: None,
                    in_time: true,
                    measured: self.measured(),
                    starved: None,
                };
                return self.end(followed).await;
            }
            Ok(None) => match self.launch(prepared, state).await {
                Ok(running) => running,
                Err(failure) => return *Ended::failed(failure),
            },
            Err(failure) => return *Ended::failed(failure),
        };
        let followed = self.follow(&running).await;
        let ended = self.end(followed).await;
        if ended.outcome.is_success() {
            return ended;
        }
        // Whatever it left must not go on.
        running.kill().await;
        ended
    }

    /// What an earlier agent started. An engine that starts later than the agent, as after its upgrade, is
    /// waited for: the job may run on meanwhile.
    async fn find_again(&self, prepared: &Prepared) -> Result<Option<Running>, Failure> {
        let deadline = Instant::now() + ENGINE_GRACE;
        loop {
            match self.find(prepared).await {
                Err(failure) if prepared.launched.is_some() && Instant::now() < deadline => {
                    tracing::warn!(attempt = %self.order.attempt, "{}; trying again", failure.message);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                found => return found,
            }
        }
    }

    /// What an earlier agent started, as the engine says now.
    async fn find(&self, prepared: &Prepared) -> Result<Option<Running>, Failure> {
        if !self.in_container() {
            return Ok(match prepared.launched {
                Some(Launched::Process { pid, started }) => Some(Running::Process(Process::known(
                    pid,
                    started,
                    self.order.attempt.as_str(),
                ))),
                Some(Launched::Container) | None => None,
            });
        }
        let engine = self.engine().await?;
        let found = engine.find(&self.labels()).await;
        let found =
            found.map_err(|error| Failure::new(FailureKind::ExecutorFailed, error.to_string()))?;
        let Some(found) = found.into_iter().next() else {
            return Ok(None);
        };
        if found.only_made {
            // The agent ended between making and starting it: both are done again.
            found.container.remove().await;
            return Ok(None);
        }
        Ok(Some(Running::Container(found.container)))
    }

    async fn launch(&self, prepared: &Prepared, state: &mut State) -> Result<Running, Failure> {
        let places = self.places(prepared.environment.as_ref());
        let unwritable = |error: io::Error| {
            Failure::new(
                FailureKind::ExecutorFailed,
                format!("cannot prepare {}: {error}", self.dir.path().display()),
            )
        };
        self.prepare_contract(prepared).map_err(unwritable)?;
        if self.reached_run().is_some() {
            self.tell_elsewhere();
        }
        if !self.in_container() {
            self.refuse_volumes()?;
            return self.launch_process(prepared, state);
        }
        let spec = self.container_spec(&places, prepared)?;
        dir::write_json(&self.dir.container_file(), &spec).map_err(unwritable)?;
        let engine = self.engine().await?;
        self.refuse_silent_gpus(&engine).await?;
        self.say_unknown_gpus();
        let container = engine
            .create(&spec)
            .await
            .map_err(|error| start_failure(&error.to_string()))?;
        if !self.order.gpus.is_empty()
            && let Err(failure) = self.gpus_as_asked(&container).await
        {
            container.remove().await;
            return Err(failure);
        }
        // Before the start: one that is found is never started twice.
        state.stage = Stage::Run(Prepared {
            launched: Some(Launched::Container),
            ..prepared.clone()
        });
        if let Err(error) = container.start().await {
            container.remove().await;
            return Err(start_failure(&error.to_string()));
        }
        self.save(state);
        Ok(Running::Container(container))
    }

    /// A process of the host sees the host's folders: nothing lies where the job looks for its volume.
    fn refuse_volumes(&self) -> Result<(), Failure> {
        match self.order.spec.volumes.iter().next() {
            None => Ok(()),
            Some((name, at)) => Err(Failure::new(
                FailureKind::ExecutorFailed,
                format!(
                    "the volume '{name}' cannot be mounted at {at}: this host runs jobs without containers (`executors.docker` is off)"
                ),
            )
            .hint("Run it on a host with containers, or give the job the folder's path as a parameter.")),
        }
    }

    /// Of a GPU or slice without numbers nobody can tell whether the container has it or another one.
    fn say_unknown_gpus(&self) {
        let files = self.gpu_files();
        if let Some(slices) = files.as_ref().map(|files| files.slices)
            && slices > 0
            && files.as_ref().is_some_and(|files| files.caps.is_empty())
        {
            self.log(format!(
                "NVIDIA's driver does not tell the files of {slices} booked MIG slices: whether the container has these and no others is only counted"
            ));
        }
        let unknown = files.map_or(self.order.gpus.len(), |files| files.unknown as usize);
        if unknown > 0 {
            self.log(format!(
                "NVML does not tell the device files of {unknown} of the {} booked GPUs: whether the container has these and no others is only counted",
                self.order.gpus.len()
            ));
        }
    }

    /// Podman takes a request for GPUs and gives none, without a word.
    async fn refuse_silent_gpus(&self, engine: &crate::executor::Engine) -> Result<(), Failure> {
        if self.order.gpus.is_empty() {
            return Ok(());
        }
        let facts = engine
            .facts()
            .await
            .map_err(|error| start_failure(&error.to_string()))?;
        if facts.name == "podman" {
            return Err(Failure::new(
                FailureKind::ExecutorFailed,
                "this host's engine is Podman, which ignores requests for GPUs by Docker's API",
            )
            .hint("Use Docker with NVIDIA's container toolkit on hosts with GPUs."));
        }
        Ok(())
    }

    /// An engine that drops a request for GPUs does not write it down either. What the container really has, the
    /// driver sees before the job does.
    async fn gpus_as_asked(&self, container: &Container) -> Result<(), Failure> {
        let given = container
            .gpus()
            .await
            .map_err(|error| start_failure(&error.to_string()))?;
        let (given, asked): (BTreeSet<_>, BTreeSet<_>) =
            (given.iter().collect(), self.order.gpus.iter().collect());
        if given == asked {
            return Ok(());
        }
        Err(Failure::new(
            FailureKind::ExecutorFailed,
            format!("the container engine was asked for the GPUs {asked:?} and gives {given:?}"),
        )
        .hint("`trainyard doctor` on this host tries to give a GPU and says what is wrong."))
    }

    fn launch_process(&self, prepared: &Prepared, state: &mut State) -> Result<Running, Failure> {
        self.log("the shell executor isolates nothing: the job runs as the agent's user, with its files and its network");
        // One that was started just before an agent was killed is not known by its id.
        Process::known(0, 0, self.order.attempt.as_str()).sweep();
        let started = Process::start(
            &self.host.driver,
            &self.dir.contract(),
            self.order.attempt.as_str(),
        );
        let process = started.map_err(|error| start_failure(&error.to_string()))?;
        state.stage = Stage::Run(Prepared {
            launched: Some(Launched::Process {
                pid: process.pid,
                started: process.started,
            }),
            ..prepared.clone()
        });
        self.save(state);
        Ok(Running::Process(process))
    }

    /// The folder of the driver's contract, new.
    fn prepare_contract(&self, prepared: &Prepared) -> io::Result<()> {
        let contract = self.dir.contract();
        workspace::remove(&contract)?;
        fs::create_dir_all(contract.join(OUT_DIR))?;
        fs::create_dir_all(self.dir.agent())?;
        self.take_cache()?;
        if let Work::Lint { notebooks, .. } = &self.order.spec.work {
            lint::prepare(notebooks, &self.dir.workspace(), &self.dir.originals())?;
        }
        let places = self.places(prepared.environment.as_ref());
        let job = contract.join(JOB_FILE);
        dir::write_json(&job, &self.driver_job(&places, prepared))?;
        // The driver in a container may be another user than the agent.
        fs::set_permissions(&job, fs::Permissions::from_mode(0o644))
    }

    async fn follow(&self, running: &Running) -> Followed {
        let contract = self.dir.contract();
        let mut follower = Follower::new(&contract, self.journal);
        let mut watch = self.watch(running).await;
        let mut samples = samples::begin(self.host, &self.order.gpus);
        let mut end = std::pin::pin!(running.wait());
        let mut ticks = tokio::time::interval(self.host.config.timing.follow.into());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let longest = Instant::now() + Duration::from(self.longest());
        let (mut asked, mut kill_at, mut cause, mut over_at) = (None, None, None, None);
        let exit = loop {
            tokio::select! {
                exit = &mut end => break exit,
                reason = next_request(&self.control, asked.as_ref()) => {
                    kill_at = Some(stop(running, &reason).await);
                    over_at = Some(Instant::now() + Duration::from(self.grace_of(&reason)));
                    cause = Some(Cause::Stopped(reason.clone()));
                    asked = Some(reason);
                }
                Some(gpus) = samples.recv() => {
                    let found = self.sample(&mut watch, gpus);
                    if cause.is_none() && found.is_some() {
                        cause = found;
                        running.terminate().await;
                        let over = Instant::now() + Duration::from(self.grace());
                        (over_at, kill_at) = (Some(over), Some(over + DRIVER_GRACE));
                    }
                }
                _ = ticks.tick() => {
                    self.take(&mut follower);
                    if cause.is_none() {
                        cause = self.look(&mut watch);
                        if cause.is_none() && Instant::now() > longest {
                            cause = Some(Cause::TooLong(self.longest()));
                        }
                        if cause.is_some() {
                            kill_at = Some(Instant::now());
                        }
                    }
                    if kill_at.is_some_and(|at| Instant::now() >= at) {
                        running.kill().await;
                        kill_at = Some(Instant::now() + KILL_AGAIN);
                    }
                }
            }
        };
        let in_time = over_at.is_none_or(|over| Instant::now() < over);
        self.drain(&mut follower).await;
        let starved = tokio::task::block_in_place(|| watch.disk.starved());
        Followed {
            exit,
            cause,
            in_time,
            measured: watch.measured,
            starved,
        }
    }

    /// How long the job may take to end: the driver knows its own grace only.
    fn grace_of(&self, reason: &StopReason) -> Span {
        match reason {
            StopReason::Stop { grace, .. } => (*grace).min(self.grace()),
            StopReason::Abandon => Span(0),
        }
    }

    /// Takes new lines; a journal that refuses is tried again at the next tick.
    fn take(&self, follower: &mut Follower<'_>) -> bool {
        match follower.step() {
            Ok(more) => more,
            Err(error) => {
                tracing::error!(attempt = %self.order.attempt, "{error}");
                true
            }
        }
    }

    /// Takes all lines that are left; a journal that refuses is tried again as long as somebody believes the attempt.
    async fn drain(&self, follower: &mut Follower<'_>) {
        let drained = async {
            loop {
                match follower.step() {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        tracing::error!(attempt = %self.order.attempt, "{error}; trying again");
                        tokio::time::sleep(self.host.config.timing.retry.into()).await;
                    }
                }
            }
        };
        tokio::select! {
            () = drained => {}
            () = self.control.abandoned() => {}
        }
    }

    /// Judges by what is there.
    async fn end(&self, followed: Followed) -> Ended {
        let mut result = self.result();
        if result.is_none() && self.in_container() {
            // A driver that died handed nothing over.
            clean::sweep(self).await;
            result = self.result();
        }
        judge::judge(&Evidence {
            spec: &self.order.spec,
            processes: self.host.config.jobs.processes,
            memory: self.host.inventory.memory,
            exit: followed.exit,
            cause: followed.cause,
            in_time: followed.in_time,
            result,
            measured: followed.measured,
            starved: followed.starved,
            gpus: self.dir.gpus().unwrap_or_default(),
        })
    }

    /// The driver's last word, where it had one.
    pub(super) fn result(&self) -> Option<DriverResult> {
        let path = self.dir.contract().join(OUT_DIR).join(RESULT_FILE);
        let file = open_plain(&path).ok()?;
        serde_json::from_reader(io::BufReader::new(io::Read::take(file, 16 << 20))).ok()
    }
}

/// The first request to stop, or another one than the last.
async fn next_request(control: &super::Control, asked: Option<&StopReason>) -> StopReason {
    match asked {
        None => control.stopped().await,
        Some(known) => control.changed_from(known).await,
    }
}

/// Passes a request on; answers when the driver's time is over, or the kill is tried again.
async fn stop(running: &Running, reason: &StopReason) -> Instant {
    match reason {
        StopReason::Stop { grace, .. } if grace.0 > 0 => {
            running.terminate().await;
            Instant::now() + Duration::from(*grace) + DRIVER_GRACE
        }
        StopReason::Stop { .. } | StopReason::Abandon => {
            running.kill().await;
            Instant::now() + KILL_AGAIN
        }
    }
}

fn start_failure(words: &str) -> Failure {
    let failure = Failure::new(
        FailureKind::ExecutorFailed,
        format!("the job could not be started: {words}"),
    );
    if words.contains("could not select device driver") {
        failure.hint("See that `nvidia-smi` answers on the host; then install NVIDIA's container toolkit there (`nvidia-ctk runtime configure`) and restart the engine.")
    } else if words.contains("exec format error") {
        Failure {
            kind: FailureKind::ImageUnusable,
            ..failure
        }
        .hint("The image is for another platform than this host.")
    } else {
        failure.hint("`trainyard doctor` looks at the engine and says what to do.")
    }
}

/// For the judge's tests and the disk's message.
impl Full {
    pub(super) fn words(&self) -> String {
        let (used, limit) = (self.used, self.limit);
        match self.of {
            Share::Host => format!("the host's disk ran out while the job held {used} of it"),
            Share::Job => format!("the job wrote {used}, more than the {limit} that it may"),
            Share::Checkpoints => format!(
                "the job's checkpoints took {used}, more than the {limit} that they may (`checkpoints: {{max_size: …}}`)"
            ),
        }
    }
}
