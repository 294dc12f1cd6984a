//! What wakes whom. Nothing is remembered here: a wake that is missed is made good by the next pass,
//! because every loop derives its work again from rows. Subscribe before you look.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::{AgentId, AttemptId, JobId, PipelineId};
use tokio::sync::{Notify, broadcast, watch};

/// Changes that a slow subscriber may fall behind before it has to look at the rows again.
const BACKLOG: usize = 1024;

/// Something that a page may want to show at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An attempt has events up to, not including, `next`.
    Events {
        /// The attempt.
        attempt: AttemptId,
        /// The next number wanted.
        next: u64,
    },
    /// A job has another state, or a job was made.
    Job {
        /// Its pipeline.
        pipeline: PipelineId,
        /// The job.
        job: JobId,
    },
}

/// Throws away what is there: for who looks at the rows next, one look answers all of it.
pub fn drain(changes: &mut broadcast::Receiver<Change>) {
    use broadcast::error::TryRecvError;
    while !matches!(
        changes.try_recv(),
        Err(TryRecvError::Empty | TryRecvError::Closed)
    ) {}
}

/// Returns when a job moved. Whoever fell behind looks at the rows anyway.
pub async fn job_change(changes: &mut broadcast::Receiver<Change>) {
    use broadcast::error::RecvError;
    loop {
        match changes.recv().await {
            Ok(Change::Job { .. }) | Err(RecvError::Lagged(_)) => return,
            Ok(Change::Events { .. }) => {}
            // The server ends: the token says so too.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The wires between requests and loops.
#[derive(Debug)]
pub struct Live {
    changes: broadcast::Sender<Change>,
    orders: Mutex<HashMap<AgentId, watch::Sender<u64>>>,
    queue: Notify,
    refs: Notify,
    asked: Notify,
    finished: Notify,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            changes: broadcast::Sender::new(BACKLOG),
            orders: Mutex::default(),
            queue: Notify::new(),
            refs: Notify::new(),
            asked: Notify::new(),
            finished: Notify::new(),
        }
    }
}

impl Live {
    /// Every change from now on. A subscriber that falls behind is told so and looks at the rows.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Tells subscribers of a change.
    pub fn tell(&self, change: Change) {
        // No subscriber is no error.
        let _ = self.changes.send(change);
    }

    /// Wakes the scheduler: something was queued, or a host has room.
    pub fn queue_changed(&self) {
        self.queue.notify_one();
    }

    /// Returns when the queue changed since the last call.
    pub async fn queue_change(&self) {
        self.queue.notified().await;
    }

    /// Wakes all held polls: there may be orders for any agent.
    pub fn orders_changed(&self) {
        for orders in self.agents().values() {
            orders.send_modify(|count| *count += 1);
        }
    }

    /// Wakes an agent's held poll: there is an order for it.
    pub fn orders_for(&self, agent: &AgentId) {
        if let Some(orders) = self.agents().get(agent) {
            orders.send_modify(|count| *count += 1);
        }
    }

    /// Changes when there are orders for an agent.
    #[must_use]
    pub fn orders(&self, agent: &AgentId) -> watch::Receiver<u64> {
        let mut agents = self.agents();
        match agents.get(agent) {
            Some(orders) => orders.subscribe(),
            None => agents.entry(agent.clone()).or_default().subscribe(),
        }
    }

    /// One entry an agent that polled since the start.
    fn agents(&self) -> MutexGuard<'_, HashMap<AgentId, watch::Sender<u64>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the loop that looks at remotes: a forge said that something moved.
    pub fn refs_changed(&self) {
        self.refs.notify_one();
    }

    /// Returns when a forge said that something moved since the last call.
    pub async fn refs_change(&self) {
        self.refs.notified().await;
    }

    /// Wakes the loop that obeys: somebody asked for something at a forge.
    pub fn somebody_asked(&self) {
        self.asked.notify_one();
    }

    /// Returns when somebody asked for something at a forge since the last call.
    pub async fn somebody_asks(&self) {
        self.asked.notified().await;
    }

    /// Wakes those who wait for attempts that finished (registry and report).
    pub fn attempt_finished(&self) {
        self.finished.notify_waiters();
    }

    /// Returns when an attempt finished after the call began to wait.
    pub async fn attempt_finish(&self) {
        self.finished.notified().await;
    }
}
