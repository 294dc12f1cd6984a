//! What the attempts of a service share, and what is done for all of them again and again.

use std::sync::{Arc, Mutex, PoisonError};

use protocol::AttemptId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::attempts::Attempts;
use super::backoff::Backoff;
use super::clock::Clock;
use super::sight::Sight;
use super::trials::Trials;
use super::{caches, keep, orphans};
use crate::attempt;
use crate::client::{Client, ClientError};
use crate::environment;
use crate::hardware::Hardware;
use crate::host::Host;
use crate::ledger::Ledger;
use crate::{leftover, local};

/// What the attempts of a service share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) host: Host,
    pub(super) client: Client,
    pub(super) hardware: Arc<Hardware>,
    pub(super) ledger: Ledger,
    pub(super) attempts: Attempts,
    pub(super) trials: Trials,
    pub(super) clock: Clock,
    /// Something that the server should hear before a held poll ends.
    pub(super) news: Notify,
    /// Why the server wants no more calls.
    pub(super) sent_away: Mutex<Option<ClientError>>,
    /// Cancelled with `sent_away`.
    pub(super) over: CancellationToken,
}

impl Shared {
    /// The server wants no more calls from this agent.
    pub(super) fn send_away(&self, error: ClientError) {
        let mut slot = self
            .sent_away
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(error);
        self.over.cancel();
    }

    /// Ends what killed agents and killed runs left, and takes their GPUs back.
    pub(super) async fn sweep_jobs(&self) {
        self.sweep_containers().await;
        let grace = self.host.config.gpus.clean_grace;
        leftover::take_back(&self.ledger, grace, || self.gpus()).await;
        local::sweep_left(self.host.data()).await;
    }

    /// Removes containers that an engine made for an agent that was killed, and takes their GPUs back.
    async fn sweep_containers(&self) {
        let Some(containers) = orphans::remove(&self.host).await else {
            return;
        };
        let goes_on = |id: &AttemptId| orphans::goes_on(&self.host, id.as_str());
        let now = self.gpus().await;
        if let Err(error) = self.ledger.take_back(&containers, goes_on, &now) {
            tracing::error!("{error}; the next look tries again");
        }
    }

    pub(super) fn backoff(&self) -> Backoff {
        let timing = &self.host.config.timing;
        Backoff::new(timing.retry, timing.retry_most)
    }

    /// Removes what is kept too long and, below the watermark, what can be made again.
    pub(super) fn sweep_folders(&self) {
        let config = &self.host.config;
        let (data, disk, low) = (&config.data, &config.disk, Sight::is_low(config));
        keep::sweep(data, low);
        crate::checkpoints::sweep(
            data,
            || keep::living(data),
            config.jobs.keep_checkpoints,
            disk.checkpoints,
            low,
        );
        if low {
            environment::prune(data, disk, || attempt::in_use(data));
            caches::sweep(data, disk.watermark);
        }
    }
}
