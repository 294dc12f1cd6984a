//! The running server: what its requests and loops share, and how it starts and ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::{AgentId, AttemptId};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::blobs::{BlobError, Blobs};
use crate::config::Config;
use crate::dispatch::Recent;
use crate::forge::Forges;
use crate::inbox::Inbox;
use crate::live::Live;
use crate::loops::keep;
use crate::store::{self, Store, StoreError};
use crate::{dispatch, fleet, housekeeping, inbox, notices, report, timetable, watch, web};

/// How long requests get to end when the server stops.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// Why the server cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data folder.
    #[error("'{}': {source}", path.display())]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// It would be open to the network without protection.
    #[error("refusing to listen on {address}: {why}")]
    Exposed {
        /// Where.
        address: SocketAddr,
        /// What is missing, and what to do.
        why: &'static str,
    },
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] web::TlsError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The HTTP side ended with an error.
    #[error("HTTP: {0}")]
    Http(std::io::Error),
}

/// The server; clones are the same one.
#[derive(Debug, Clone)]
pub struct Server(Arc<Inner>);

/// What requests and loops share.
#[derive(Debug)]
pub struct Inner {
    /// What an administrator has set.
    pub config: Config,
    /// The rows.
    pub store: Store,
    /// The contents.
    pub blobs: Blobs,
    /// The ways to forges.
    pub forges: Forges,
    /// Messages of forges on their way into rows.
    pub inbox: Inbox,
    /// Who wakes whom.
    pub live: Live,
    /// When each agent was last heard of.
    pub leases: Leases,
    /// What the scheduler reads seldom.
    pub recent: Recent,
    /// Ends loops and held requests.
    pub shutdown: CancellationToken,
}

impl Deref for Server {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Server {
    /// Opens database and folders; nothing runs yet.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn open(config: Config, shutdown: CancellationToken) -> Result<Self, ServerError> {
        std::fs::create_dir_all(&config.data).map_err(|source| ServerError::Folder {
            path: config.data.clone(),
            source,
        })?;
        let store = Store::open(&config.address()?).await?;
        refuse_exposure(&config, &store).await?;
        let blobs = Blobs::open(&config.data, config.s3.as_ref())?;
        blobs.begin()?;
        let forges = Forges::new(config.github_app.clone());
        Ok(Self(Arc::new(Inner {
            config,
            store,
            blobs,
            forges,
            inbox: Inbox::default(),
            live: Live::default(),
            leases: Leases::default(),
            recent: Recent::default(),
            shutdown,
        })))
    }

    /// Serves and works until the token is cancelled.
    ///
    /// # Errors
    /// Where the HTTP side ends with an error.
    pub async fn run(self, listener: TcpListener) -> Result<(), ServerError> {
        let (mut loops, server) = (JoinSet::new(), || self.clone());
        loops.spawn(keep(server(), "dispatch", dispatch::run));
        loops.spawn(keep(server(), "leases", fleet::lease::run));
        loops.spawn(keep(server(), "looks at remotes", watch::run));
        loops.spawn(keep(server(), "commands", inbox::run));
        loops.spawn(keep(server(), "missed buttons", inbox::hear_missed));
        loops.spawn(keep(server(), "time tables", timetable::run));
        loops.spawn(keep(server(), "reports", report::run));
        loops.spawn(keep(server(), "notices", notices::run));
        loops.spawn(keep(server(), "housekeeping", housekeeping::run));
        let served = web::serve(self.clone(), listener).await;
        self.shutdown.cancel();
        while loops.join_next().await.is_some() {}
        self.store.close().await;
        served.map_err(ServerError::Http)
    }

    /// Opens, listens where the configuration says (port 0: any), and runs in the background.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn start(config: Config) -> Result<Handle, ServerError> {
        let address = config.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServerError::Listen { address, source })?;
        let address = listener
            .local_addr()
            .map_err(|source| ServerError::Listen { address, source })?;
        let server = Self::open(config, CancellationToken::new()).await?;
        let task = tokio::spawn(server.clone().run(listener));
        Ok(Handle {
            server,
            address,
            task,
        })
    }
}

/// Beyond loopback the server wants an administrator's token and TLS, its own or a proxy's.
async fn refuse_exposure(config: &Config, store: &Store) -> Result<(), ServerError> {
    let address = config.listen;
    if address.ip().is_loopback() {
        return Ok(());
    }
    let exposed = |why| Err(ServerError::Exposed { address, why });
    if !config.speaks_tls() {
        return exposed(
            "beyond loopback it wants TLS: set [tls] certificate and key, or behind_proxy = true where a proxy speaks TLS",
        );
    }
    if !store::access::has_admin(&mut *store.read().await?).await? {
        return exposed(
            "beyond loopback it wants an administrator's token: 'trainyard token create --role admin NAME --config FILE' on this host makes one",
        );
    }
    Ok(())
}

/// A server that runs in the background.
#[derive(Debug)]
pub struct Handle {
    /// The server.
    pub server: Server,
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<Result<(), ServerError>>,
}

impl Handle {
    /// Its address for clients on this host.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it, and waits until it did.
    ///
    /// # Errors
    /// What it ended with.
    pub async fn stop(self) -> Result<(), ServerError> {
        self.server.shutdown.cancel();
        self.wait().await
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// What it ended with.
    pub async fn wait(self) -> Result<(), ServerError> {
        match self.task.await {
            Ok(ended) => ended,
            Err(error) => Err(ServerError::Http(std::io::Error::other(error))),
        }
    }
}

/// When agents were last heard of, by monotonic time since this server's start: after a start nothing
/// expires for one full period, and a clock that jumps ends no lease.
#[derive(Debug, Default)]
pub struct Leases {
    heard: Mutex<All>,
    missing: Mutex<HashMap<AttemptId, Instant>>,
}

#[derive(Debug)]
struct All {
    /// No silence began before.
    since: Instant,
    agents: HashMap<AgentId, Heard>,
}

#[derive(Debug)]
struct Heard {
    at: Instant,
    /// When it said last what it has; none: not since the server's start.
    reported: Option<Instant>,
    /// Which installation spoke last; none: one of an earlier version.
    instance: Option<String>,
}

impl Default for All {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            agents: HashMap::new(),
        }
    }
}

impl All {
    fn silence(&self, agent: &AgentId) -> Duration {
        let last = self.agents.get(agent).map(|heard| heard.at);
        last.map_or(self.since, |at| at.max(self.since)).elapsed()
    }
}

impl Leases {
    fn all(&self) -> MutexGuard<'_, All> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody could be heard until now: the database was away, or this process stood still. All silences begin anew.
    pub(crate) fn begin_anew(&self) {
        self.all().since = Instant::now();
    }

    /// Notes that an agent registered: whatever installation speaks next is it.
    pub(crate) fn registered(&self, agent: &AgentId) {
        let now = Instant::now();
        let fresh = Heard {
            at: now,
            reported: Some(now),
            instance: None,
        };
        self.all().agents.insert(agent.clone(), fresh);
    }

    /// Notes that an agent was heard of, from this installation. One that comes while another was heard of within
    /// `patience` is refused.
    ///
    /// # Errors
    /// How long ago the other one was heard of.
    pub(crate) fn heard(
        &self,
        agent: &AgentId,
        instance: Option<&str>,
        patience: Duration,
    ) -> Result<(), Duration> {
        let all = &mut self.all().agents;
        let before = all.get(agent);
        let other = before.filter(|heard| {
            let both = heard.instance.as_deref().zip(instance);
            both.is_some_and(|(known, speaks)| known != speaks)
        });
        if let Some(silence) = other.map(|heard| heard.at.elapsed())
            && silence <= patience
        {
            return Err(silence);
        }
        let fresh = Heard {
            at: Instant::now(),
            reported: before.and_then(|heard| heard.reported),
            instance: instance.map(str::to_owned),
        };
        all.insert(agent.clone(), fresh);
        Ok(())
    }

    /// Notes that what an agent has is known as of now: its poll was taken, or held until now.
    pub(crate) fn reported(&self, agent: &AgentId) {
        if let Some(heard) = self.all().agents.get_mut(agent) {
            heard.at = Instant::now();
            heard.reported = Some(heard.at);
        }
    }

    /// How long an agent has not said what it has; none: it did not since the server's start. One that comes back may have
    /// begun what waits, and one that does not come back begins nothing: until it said so, it is given nothing.
    pub(crate) fn unreported(&self, agent: &AgentId) -> Option<Duration> {
        let reported = self.all().agents.get(agent)?.reported?;
        Some(reported.elapsed())
    }

    /// How long an agent has been silent; since the server's start where it was not heard yet.
    #[must_use]
    pub fn silence(&self, agent: &AgentId) -> Duration {
        self.all().silence(agent)
    }

    /// How long ago an agent was heard of; none: not since the server's start.
    #[must_use]
    pub fn last_heard(&self, agent: &AgentId) -> Option<Duration> {
        let all = self.all();
        all.agents.get(agent).map(|heard| heard.at.elapsed())
    }

    /// How long an agent has polled without a word of an attempt that it had begun.
    pub(crate) fn missing(&self, attempt: &AttemptId) -> Duration {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing
            .entry(attempt.clone())
            .or_insert_with(Instant::now)
            .elapsed()
    }

    /// Notes that an attempt was reported, or is over.
    pub(crate) fn found(&self, attempt: &AttemptId) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.remove(attempt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_heard_again_has_not_said_yet_what_it_has() {
        let (leases, agent) = (Leases::default(), AgentId::generate());
        let reported = || leases.all().agents[&agent].reported;
        assert_eq!(leases.unreported(&agent), None);
        leases.heard(&agent, None, Duration::ZERO).unwrap();
        assert_eq!(leases.unreported(&agent), None, "nor had it before");
        leases.registered(&agent);
        let registered = reported();
        leases.heard(&agent, None, Duration::ZERO).unwrap();
        assert_eq!(reported(), registered);
        leases.reported(&agent);
        assert_eq!(reported(), Some(leases.all().agents[&agent].at));
    }

    #[test]
    fn silences_begin_anew_where_nobody_could_be_heard() {
        let (leases, agent) = (Leases::default(), AgentId::generate());
        leases.heard(&agent, None, Duration::ZERO).unwrap();
        let hour = Duration::from_secs(3_600);
        let ago = Instant::now().checked_sub(hour).unwrap();
        let mut all = leases.all();
        all.since = ago;
        all.agents.get_mut(&agent).unwrap().at = ago;
        drop(all);
        assert!(leases.silence(&agent) >= hour);
        leases.begin_anew();
        assert!(leases.silence(&agent) < hour);
    }
}
