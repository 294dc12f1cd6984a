//! The agent's service: asks the server what to do, carries attempts out, and delivers what they leave. It
//! must not know how an attempt is carried out.
//!
//! All that it has to remember lies under `attempts/` and `bookings/`: a service that is killed finds its
//! attempts there when it starts again, and goes on.

mod attempts;
mod backoff;
mod blobs;
mod caches;
mod carry;
mod checkpoints;
mod clock;
mod deliver;
mod events;
mod fetch;
mod gpus;
mod keep;
mod kept;
mod orphans;
mod registry;
mod room;
mod shared;
mod sight;
mod tasks;
mod trials;
#[cfg(test)]
mod world;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::agent_api::{AttemptOrder, PollAnswer, PollRequest, VERSION};
use protocol::hardware::{Gpu, Inventory};
use protocol::{AttemptId, Digest, Span, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::attempt::AttemptDir;
use crate::client::ClientError;
use crate::config::Config;
use crate::hardware::{self, Hardware, NvmlAbsent};
use crate::host::{Host, HostError};
use crate::identity::{DataLock, Identity, IdentityError};
use crate::ledger::{Ledger, LedgerError};
use crate::wish::{self, End, Wish};

use attempts::Attempts;
use clock::Clock;
use room::DiskRoom;
use shared::Shared;
use sight::Sight;
use tasks::{Carried, Next, Tasks};
use trials::Trials;

/// The most that a server may hold a poll.
const LONGEST_POLL: Span = Span::secs(20);

/// The service cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The agent has no identity, or its folder is in use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// This host cannot run attempts.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Bookings cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The server sends this agent away: its secret is revoked, its version too old, or its identity another one's.
    #[error("{0}; running jobs go on meanwhile")]
    SentAway(ClientError),
    /// The client cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The attempts' folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Attempts {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Introduces this host to the server at `url` with a one-time token; see [`Identity::register`].
///
/// # Errors
/// Where the data folder is in use or registered already, or the server refuses.
pub async fn register(
    config: &Config,
    url: &str,
    token: &str,
    replace: bool,
) -> Result<Identity, IdentityError> {
    let _lock = DataLock::take(&config.data)?;
    let hardware = Hardware::open(config);
    let hardware = Arc::new(hardware);
    let engine = Sight::begin(config).await.engine();
    let mut gpus = hardware::unjudged(sight::gpus(&hardware).await);
    if config.executors.docker {
        gpus = trials::untried(gpus, |_| true);
    }
    let inventory = hardware.inventory(config, engine, gpus);
    Identity::register(config, url, token, replace, inventory).await
}

/// A running agent. Dropped, it leaves containers and shell jobs running: the next one goes on with them.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    sight: Sight,
    disk: DiskRoom,
    /// What was asked on the host when the last poll was sent.
    wish: Wish,
    tasks: Tasks,
    /// The last look through what is kept.
    sweeping: Option<JoinHandle<()>>,
    /// Tries what the engine does.
    trying: Option<AbortOnDropHandle<()>>,
    _lock: DataLock,
}

/// What a tick came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// The server's answer was carried out.
    Done,
    /// The answer asked for nothing new.
    Quiet,
    /// Something happened here that the server should hear at once: the poll was given up.
    News,
    /// An order could not be begun; the server will repeat it.
    Refused,
}

impl Service {
    /// Runs an agent until `shutdown`. Jobs are left running then.
    ///
    /// # Errors
    /// Where it cannot start, or the server sends it away for good.
    pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), ServiceError> {
        let mut service = Self::open(config).await?;
        let end = service.serve(&shutdown).await;
        service.tasks.shutdown().await;
        end
    }

    /// Takes the data folder and goes on with every attempt in it.
    ///
    /// # Errors
    /// Where it cannot start.
    pub async fn open(config: Config) -> Result<Self, ServiceError> {
        let lock = DataLock::take(&config.data)?;
        let identity = Identity::read(&config.data)?;
        let client = identity.client(&config)?;
        wish::begin_anew(&config.data);
        let hardware = Arc::new(Hardware::open(&config));
        match hardware.absent() {
            None | Some(NvmlAbsent::NoDriver { .. }) => {}
            Some(
                absent @ (NvmlAbsent::Unusable { .. }
                | NvmlAbsent::Broken(_)
                | NvmlAbsent::Silent(_)),
            ) => {
                tracing::error!("no GPU is offered: {absent}; it is tried again");
            }
        }
        let ledger = Ledger::open(&config)?;
        hardware.listen();
        let sight = Sight::begin(&config).await;
        let disk = DiskRoom::begin(&config).await;
        let engine = sight.engine();
        let readings = sight::gpus(&hardware).await;
        let gpus = ledger.judged(&readings);
        let inventory = hardware.inventory(&config, engine, gpus);
        let mut service = Self {
            shared: Arc::new(Shared {
                host: Host::open(config, inventory, Arc::clone(&hardware))?,
                client,
                hardware,
                ledger,
                attempts: Attempts::default(),
                trials: Trials::default(),
                clock: Clock::default(),
                news: Notify::new(),
                sent_away: Mutex::default(),
                over: CancellationToken::new(),
            }),
            sight,
            disk,
            wish: Wish::default(),
            tasks: Tasks::default(),
            sweeping: None,
            trying: None,
            _lock: lock,
        };
        if let Some(containers) = orphans::remove(&service.shared.host).await {
            let shared = &service.shared;
            let goes_on = |id: &AttemptId| orphans::goes_on(&shared.host, id.as_str());
            shared.ledger.correct(&containers, goes_on, &readings)?;
        }
        service.resume()?;
        service.trying = service.shared.begin_to_try(&service.sight, &readings);
        tracing::info!(agent = %identity.agent, server = service.shared.client.server(), "agent started");
        Ok(service)
    }

    async fn serve(&mut self, shutdown: &CancellationToken) -> Result<(), ServiceError> {
        let over = self.shared.over.clone();
        let mut inventory = None;
        // The first poll is not held: its answer tells the server's clock.
        let mut last = Tick::News;
        let mut connected = None;
        let mut backoff = self.shared.backoff();
        let mut sweep = Instant::now();
        loop {
            let idle = self.sweeping.as_ref().is_none_or(JoinHandle::is_finished);
            if idle && sweep.elapsed() >= self.shared.host.config.timing.sweep.into() {
                sweep = Instant::now();
                self.sweep();
            }
            self.reap();
            let held = last != Tick::News;
            let began = Instant::now();
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = over.cancelled() => return Err(self.sent_away()),
                outcome = self.tick(&mut inventory, held) => outcome,
            };
            if self.is_to_end(&outcome) {
                tracing::info!("ended as it was asked to on its host");
                wish::begin_anew(self.shared.host.data());
                return Ok(());
            }
            let wait = match outcome {
                Ok(tick) => {
                    if tick != Tick::News && connected.replace(true) == Some(false) {
                        tracing::info!("the server answers again");
                    }
                    backoff.reset();
                    last = tick;
                    if held {
                        pause(tick, began, self.shared.host.config.timing.retry.into())
                    } else {
                        Duration::ZERO
                    }
                }
                Err(error) if error.is_temporary() => {
                    if connected.replace(false) != Some(false) {
                        tracing::warn!("{error}; jobs go on, trying again");
                    }
                    last = Tick::Quiet;
                    backoff.next()
                }
                Err(error) => {
                    tracing::error!("{error}");
                    if matches!(
                        error,
                        ClientError::Unauthorized(_)
                            | ClientError::Version(_)
                            | ClientError::Twin(_)
                    ) {
                        return Err(ServiceError::SentAway(error));
                    }
                    backoff.next()
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = over.cancelled() => return Err(self.sent_away()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Whether the process is to end, as somebody on the host asked.
    fn is_to_end(&self, outcome: &Result<Tick, ClientError>) -> bool {
        match self.wish.end {
            None => false,
            Some(End::Now) => true,
            // A poll that was given up may have been answered with an order.
            Some(End::WhenIdle) => {
                !matches!(outcome, Ok(Tick::News)) && self.shared.attempts.is_empty()
            }
        }
    }

    /// Removes what is left of attempts, what is kept too long and, below the watermark, what can be made again. Large
    /// folders take their time: polls go on meanwhile.
    fn sweep(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.sweeping = Some(tokio::spawn(async move {
            shared.sweep_jobs().await;
            let folders = tokio::task::spawn_blocking(move || shared.sweep_folders());
            if let Err(error) = folders.await {
                tracing::error!("looking through what is kept failed: {error}");
            }
        }));
    }

    fn sent_away(&self) -> ServiceError {
        let mut slot = self
            .shared
            .sent_away
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let error = slot.take().unwrap_or(ClientError::Abandoned);
        tracing::error!("{error}");
        ServiceError::SentAway(error)
    }

    /// One poll and what follows from its answer. `known` is the inventory's hash that the server has. A
    /// poll that is not `held` is answered at once; one that is, is given up when there is news.
    ///
    /// # Errors
    /// The call's.
    pub async fn tick(
        &mut self,
        known: &mut Option<Digest>,
        held: bool,
    ) -> Result<Tick, ClientError> {
        let shared = Arc::clone(&self.shared);
        let (request, gpus) = self.request(known.as_ref(), held).await;
        let answer = tokio::select! {
            biased;
            answer = shared.client.poll(&request) => answer?,
            () = shared.news.notified(), if held => return Ok(Tick::News),
            () = shared.gpus_change(&gpus), if held => return Ok(Tick::News),
            () = self.wish.changed(shared.host.data()), if held => return Ok(Tick::News),
        };
        shared.clock.learn(answer.now, Timestamp::now());
        *known = Some(request.inventory_hash).filter(|_| !answer.want_inventory);
        shared.attempts.forget_reported(&request.attempts);
        Ok(self.apply(answer))
    }

    /// What to tell the server, and the GPUs as it then knows them.
    async fn request(&mut self, known: Option<&Digest>, held: bool) -> (PollRequest, Vec<Gpu>) {
        let shared = &self.shared;
        let config = &shared.host.config;
        let engine = self.sight.engine();
        let gpus = shared.offered(&shared.gpus().await);
        let inventory = Inventory {
            disk_room: self.disk.now(),
            ..shared.hardware.inventory(config, engine, gpus.clone())
        };
        let inventory_hash = hardware::hash(&inventory);
        self.wish = Wish::read(&config.data);
        let closed = self.wish.closed().or_else(|| self.sight.closed(config));
        let closed = closed.or_else(|| shared.trials.closed());
        let statuses = shared.attempts.statuses().into_iter();
        let request = PollRequest {
            protocol: VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            inventory: (known != Some(&inventory_hash)).then_some(inventory),
            inventory_hash,
            attempts: statuses.map(|s| shared.clock.status(s)).collect(),
            wait: if held {
                config.timing.poll.min(LONGEST_POLL)
            } else {
                Span(0)
            },
            accepting: closed.is_none(),
            closed,
            evict: self.wish.evicts(),
        };
        (request, gpus)
    }

    fn apply(&mut self, answer: PollAnswer) -> Tick {
        let mut tick = Tick::Quiet;
        for id in &answer.abandoned {
            if self.shared.attempts.abandon(id) {
                tick = Tick::Done;
            }
        }
        for stop in answer.stop {
            if self.shared.attempts.stop(&stop) {
                tick = Tick::Done;
            }
        }
        for order in answer.start {
            let id = order.attempt.clone();
            match self.begin(order) {
                Ok(true) => tick = Tick::Done,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(attempt = %id, "the attempt cannot be begun: {error}");
                    return Tick::Refused;
                }
            }
        }
        tick
    }

    /// Begins an attempt, once: its order is on the disk before anything is done.
    fn begin(&mut self, order: AttemptOrder) -> std::io::Result<bool> {
        if self.shared.attempts.has(&order.attempt) {
            return Ok(false);
        }
        let dir = AttemptDir::create(self.shared.host.data(), &order)?;
        if keep::is_reported(&dir) {
            return Ok(false);
        }
        tracing::info!(attempt = %order.attempt, job = order.spec.name, project = order.project_name, "attempt begins");
        self.spawn(Carried::new(dir, order));
        Ok(true)
    }

    fn spawn(&mut self, carried: Carried) {
        let shared = Arc::clone(&self.shared);
        let Carried { dir, order, .. } = carried.clone();
        match carried.next() {
            Next::GoOn => {
                let entry = shared.attempts.enter(&dir, &order);
                self.tasks
                    .spawn(carried, carry::carry(shared, dir, order, entry));
            }
            Next::GiveUp => {
                let entry = shared.attempts.enter(&dir, &order);
                self.tasks
                    .spawn(carried, carry::give_up(shared, dir, order, entry));
            }
            Next::Leave => {
                tracing::error!(attempt = %order.attempt, "the attempt is left alone until the agent starts again");
                shared.attempts.forget(&order.attempt);
            }
        }
    }

    /// An attempt whose task panicked goes on from its folder, as after a restart: nobody else would end its job.
    fn reap(&mut self) {
        for carried in self.tasks.reap() {
            self.spawn(carried);
        }
    }

    /// Goes on with what an earlier process left.
    fn resume(&mut self) -> Result<(), ServiceError> {
        let path = self.shared.host.data().join("attempts");
        let found = keep::found(&path).map_err(|source| ServiceError::Attempts {
            path: path.clone(),
            source,
        })?;
        for (dir, order) in found {
            tracing::info!(attempt = %order.attempt, job = order.spec.name, "attempt goes on");
            self.spawn(Carried::new(dir, order));
        }
        Ok(())
    }
}

/// How long to wait after a tick. A server that answers at once, over and over, with nothing new, must not
/// keep both busy.
fn pause(tick: Tick, began: Instant, retry: Duration) -> Duration {
    match tick {
        Tick::Done | Tick::News => Duration::ZERO,
        Tick::Refused => retry,
        Tick::Quiet => retry.saturating_sub(began.elapsed()),
    }
}
