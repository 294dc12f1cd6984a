//! One attempt from its order until the server has its report: fetch what it needs, book its GPUs, run it,
//! give the GPUs back, deliver. Every step may be the first one of a new process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::agent_api::AttemptOrder;
use protocol::event::{EventKind, Phase};
use protocol::report::{AttemptReport, Setting, Usage};
use protocol::{Digest, Failure, FailureKind, Outcome, Owner, Timestamp, Unnumbered};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempts::Handle;
use super::deliver::{Delivery, not_delivered, without_blobs};
use super::{Shared, checkpoints, keep, kept};
use crate::attempt::{self, AttemptDir, write_json};
use crate::checkpoints::Checkpoints;
use crate::executor::Engine;
use crate::journal::Journal;
use crate::ledger::NotBooked;
use crate::leftover;

/// Carries an attempt out, from wherever an earlier process left it.
pub(super) async fn carry(
    shared: Arc<Shared>,
    dir: AttemptDir,
    order: AttemptOrder,
    handle: Handle,
) {
    let carrier = Carrier {
        shared: &shared,
        dir: &dir,
        order: &order,
        handle: &handle,
    };
    let journal = kept::journal(&shared, &dir, &order).await;
    let desk = kept::desk(&shared, &dir, &order, &journal, &handle.control).await;
    let delivery = Delivery {
        shared: &shared,
        attempt: &order.attempt,
        generation: order.generation,
        dir: &dir,
        journal: &journal,
    };
    let over = CancellationToken::new();
    let (judged, verdict) = oneshot::channel();
    let run = async {
        let report = carrier.judge(&journal).await;
        // The other end is gone where nobody believes the attempt any more.
        let _ = judged.send(report);
        over.cancel();
        carrier.release().await;
    };
    // The barrier: blobs, then the last event, then the report, each after the one before was acknowledged.
    let told = CancellationToken::new();
    let deliver = async {
        let files = async {
            let (lost, ()) = tokio::join!(
                delivery.blobs(&over),
                delivery.registry(desk.as_ref(), &order, &over)
            );
            let report = without_blobs(verdict.await.ok()?, &lost);
            carrier.tell_end(&journal, &report).await;
            told.cancel();
            Some(report)
        };
        let checkpoints = delivery.checkpoints(&order, &over);
        let (report, story, ()) = tokio::join!(files, delivery.events(&told), checkpoints);
        let report = match story {
            Ok(()) => report?,
            Err(why) => not_delivered(
                report?,
                format!("the attempt's story could not be delivered: {why}"),
            ),
        };
        Some(delivery.finish(&report).await)
    };
    let ((), delivered) = tokio::join!(run, handle.gone.run_until_cancelled(deliver));
    drop(journal);
    let left = order.clone();
    let succeeded = delivered
        .flatten()
        .map(|report| report.outcome.is_success());
    let believed = succeeded.is_some();
    let checkpoints = Checkpoints::of(shared.host.data(), &order.job);
    let cleaned = tokio::task::spawn_blocking(move || {
        // What nobody believes any more may be the next attempt's already, elsewhere or here.
        let kept = match succeeded {
            Some(true) => checkpoints.remove(),
            Some(false) => checkpoints.leave(left.number),
            None => Ok(()),
        };
        if let Err(error) = kept {
            tracing::warn!(attempt = %left.attempt, "its checkpoints: {error}");
        }
        if believed {
            keep::reported(&dir, left)
        } else {
            keep::discard(&dir)
        }
    });
    if let Err(error) = cleaned.await {
        tracing::error!(attempt = %order.attempt, "cleaning up failed: {error}");
    }
    if handle.gone.is_cancelled() {
        shared.attempts.forget(&order.attempt);
    } else {
        shared.attempts.phase(&order.attempt, Phase::Finished);
        shared.news.notify_one();
    }
}

/// Ends an attempt that cannot be carried out here: its job, and then itself, as the platform's failure.
pub(super) async fn give_up(
    shared: Arc<Shared>,
    dir: AttemptDir,
    order: AttemptOrder,
    handle: Handle,
) {
    let carrier = Carrier {
        shared: &shared,
        dir: &dir,
        order: &order,
        handle: &handle,
    };
    let config = &shared.host.config;
    let engine = config.executors.docker.then(|| Engine::address(config));
    let mut backoff = shared.backoff();
    while let Err(why) = leftover::end(&order.attempt, engine.as_deref()).await {
        tracing::error!(attempt = %order.attempt, "its job may go on: {why}; trying again");
        tokio::time::sleep(backoff.next()).await;
    }
    let failure = Failure::new(
        FailureKind::Internal,
        "the agent failed again and again while it carried the attempt out",
    )
    .hint("The agent's log has its words; please report them.");
    let report = carrier.unrun(NotRun::Failed(Box::new(failure)));
    carrier.write_down(&report).await;
    carry(shared, dir, order, handle).await;
}

/// Why an attempt does not run.
enum NotRun {
    /// The host's owner has what was offered: who, in words.
    Withdrawn(String),
    /// The platform's failure.
    Failed(Box<Failure>),
}

impl From<Box<Failure>> for NotRun {
    fn from(failure: Box<Failure>) -> Self {
        NotRun::Failed(failure)
    }
}

impl From<NotBooked> for NotRun {
    fn from(why: NotBooked) -> Self {
        match why {
            NotBooked::Withdrawn(by) => NotRun::Withdrawn(by),
            NotBooked::Failed(failure) => NotRun::Failed(failure),
        }
    }
}

struct Carrier<'a> {
    shared: &'a Shared,
    dir: &'a AttemptDir,
    order: &'a AttemptOrder,
    handle: &'a Handle,
}

impl Carrier<'_> {
    /// The report: the one that is there, or the one that the run comes to. It is on the disk when this
    /// returns.
    async fn judge(&self, journal: &Journal) -> AttemptReport {
        let there = self.dir.report().unwrap_or_else(|error| {
            tracing::error!(attempt = %self.order.attempt, "report.json: {error}; judged anew");
            None
        });
        let report = match there {
            Some(report) => report,
            None => match self.prepare(journal).await {
                Ok(()) => {
                    let report = attempt::run(
                        &self.shared.host,
                        self.dir.clone(),
                        journal,
                        self.handle.control.clone(),
                    )
                    .await;
                    let report = self.blame_gpus(report).await;
                    let had_gpus = !self.order.gpus.is_empty();
                    self.shared.trials.heard(&report, had_gpus);
                    report
                }
                Err(why) => self.unrun(why),
            },
        };
        self.write_down(&report).await;
        self.shared
            .attempts
            .phase(&self.order.attempt, Phase::Upload);
        report
    }

    /// Fetches what the attempt needs and books its GPUs. One that was told to stop meanwhile goes straight
    /// to its run, which knows how to end it.
    async fn prepare(&self, journal: &Journal) -> Result<(), NotRun> {
        tokio::select! {
            fetched = self.fetch_needs(journal) => fetched?,
            _ = self.handle.control.stopped() => return Ok(()),
        }
        tokio::select! {
            restored = self.restore(journal) => restored?,
            _ = self.handle.control.stopped() => return Ok(()),
        }
        if self.order.gpus.is_empty() {
            return Ok(());
        }
        let now = self.shared.gpus().await;
        self.shared
            .ledger
            .book(&self.order.attempt, &self.order.gpus, &now)?;
        // Once: of a GPU that is lost meanwhile nobody could tell again what it was.
        let given = match self.dir.gpus() {
            Ok(given) if !given.is_empty() => Ok(()),
            Ok(_) => self.dir.give_gpus(&self.order.gpus, &now),
            Err(error) => Err(error),
        };
        given.map_err(|error| {
            let words = format!("the GPUs in {}: {error}", self.dir.path().display());
            Box::new(Failure::new(FailureKind::ExecutorFailed, words))
        })?;
        Ok(())
    }

    /// A job whose GPU broke under it did not fail by itself.
    async fn blame_gpus(&self, mut report: AttemptReport) -> AttemptReport {
        let Outcome::Failed(failure) = &report.outcome else {
            return report;
        };
        if self.order.gpus.is_empty() || failure.kind.owner() == Owner::Platform {
            return report;
        }
        let now = self.shared.gpus().await;
        if let Some(why) = self.shared.ledger.broken(&self.order.attempt, &now) {
            let words = format!("{why}. The job ended with: {}", failure.message);
            report.outcome = Outcome::Failed(Failure::new(FailureKind::GpuLost, words));
        }
        report
    }

    async fn restore(&self, journal: &Journal) -> Result<(), Box<Failure>> {
        let limit = self.shared.host.config.jobs.checkout_timeout;
        let restore = checkpoints::restore(self.shared, self.order);
        let why = match tokio::time::timeout(limit.into(), restore).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => format!("not within {limit}"),
        };
        let sentence = format!("the checkpoint of an earlier attempt could not be fetched: {why}");
        kept::say(journal, self.order, &sentence);
        Err(Box::new(Failure::new(
            FailureKind::CheckoutFailed,
            sentence,
        )))
    }

    async fn fetch_needs(&self, journal: &Journal) -> Result<(), Box<Failure>> {
        let deadline =
            Instant::now() + Duration::from(self.shared.host.config.jobs.checkout_timeout);
        let folder = self.dir.needs_blobs();
        for (owner, path, blob) in needed(self.order) {
            let place = folder.join(blob.as_str());
            if place.exists() {
                continue;
            }
            let fetch = self.shared.fetch(&self.order.attempt, blob, &place);
            let fetched = tokio::time::timeout_at(deadline, fetch).await;
            let why = match fetched {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!(
                    "not within {}",
                    self.shared.host.config.jobs.checkout_timeout
                ),
            };
            let sentence = format!("{path} of '{owner}' could not be fetched: {why}");
            kept::say(journal, self.order, &sentence);
            return Err(Box::new(Failure::new(
                FailureKind::CheckoutFailed,
                sentence,
            )));
        }
        Ok(())
    }

    /// The report of an attempt that did not run.
    fn unrun(&self, why: NotRun) -> AttemptReport {
        let (failure, withdrawn) = match why {
            NotRun::Failed(failure) => (*failure, None),
            NotRun::Withdrawn(by) => {
                // The server is to know of it before it gives the job away again.
                self.shared.news.notify_one();
                let words = format!("it was not begun for the sake of {by}");
                (Failure::new(FailureKind::GpuUnclean, words), Some(by))
            }
        };
        let host = &self.shared.host;
        let now = Timestamp::now();
        AttemptReport {
            outcome: Outcome::Failed(failure),
            withdrawn,
            started_at: now,
            finished_at: now,
            phases: BTreeMap::new(),
            artifacts: vec![],
            metrics: vec![],
            params: BTreeMap::new(),
            setting: Setting {
                host: host.inventory.host.clone(),
                image: self.order.spec.image.clone(),
                cpu_model: host.inventory.cpu_model.clone(),
                system: host.system.clone(),
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Setting::default()
            },
            usage: Usage::default(),
            cells_executed: 0,
            cells_total: 0,
        }
    }

    /// Keeps the report, so that nothing runs twice.
    async fn write_down(&self, report: &AttemptReport) {
        let path = self.dir.report_file();
        self.insist(|| {
            if path.exists() {
                return Ok(());
            }
            write_json(&path, report).map_err(|error| format!("{}: {error}", path.display()))
        })
        .await;
    }

    /// Writes the phase `upload` and the last event, once.
    async fn tell_end(&self, journal: &Journal, report: &AttemptReport) {
        self.insist(|| end(journal, &report.end()).map_err(|error| error.to_string()))
            .await;
    }

    /// Does what must be done before the attempt goes on, as soon as the disk lets it.
    async fn insist(&self, mut what: impl FnMut() -> Result<(), String>) {
        let mut backoff = self.shared.backoff();
        while let Err(error) = what() {
            tracing::error!(attempt = %self.order.attempt, "{error}; trying again");
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = self.handle.gone.cancelled() => return,
            }
        }
    }

    /// Gives back what the attempt had of the host, GPUs when they are clean or their grace is over.
    async fn release(&self) {
        let attempt = &self.order.attempt;
        let shared = self.shared;
        if !self.order.gpus.is_empty() {
            let grace = shared.host.config.gpus.clean_grace;
            let ledger = &shared.ledger;
            let unclean = ledger.until_clean(attempt, grace, || shared.gpus()).await;
            for (uuid, reason) in &unclean {
                tracing::error!(%attempt, uuid, "a GPU is quarantined: {reason}");
            }
            let mut backoff = shared.backoff();
            while let Err(error) = shared.ledger.give_back(attempt, &unclean) {
                tracing::error!(%attempt, "{error}; trying again");
                tokio::time::sleep(backoff.next()).await;
            }
        }
        shared.attempts.released(attempt);
        shared.news.notify_one();
    }
}

/// Writes the last event, once.
fn end(journal: &Journal, outcome: &Outcome) -> Result<(), crate::journal::JournalError> {
    let last = journal.read(journal.last(), usize::MAX)?;
    let ended = last
        .last()
        .and_then(|event| event.body.known())
        .is_some_and(|kind| matches!(kind, EventKind::Finished { .. }));
    if !ended {
        journal.append(Unnumbered::now(
            EventKind::Phase {
                phase: Phase::Upload,
                detail: None,
            }
            .into(),
        ))?;
        let outcome = outcome.clone();
        journal.append(Unnumbered::now(EventKind::Finished { outcome }.into()))?;
    }
    journal.sync()
}

/// Whose files a job finds, each with its path and content: those of the jobs that it needs, then those of the model that
/// it goes on from.
fn needed(order: &AttemptOrder) -> impl Iterator<Item = (&str, &str, &Digest)> {
    let left = order.needs.iter().flat_map(|(definition, artifacts)| {
        let files = artifacts.iter();
        files.map(move |file| (definition.as_str(), file.path.as_str(), &file.blob))
    });
    let parent = order.parent.iter().flat_map(|parent| {
        let files = parent.files.iter();
        files.map(move |file| (parent.model.as_str(), file.path.as_str(), &file.blob))
    });
    left.chain(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::ATTEMPT_VARIABLE;
    use crate::service::world::World;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_attempt_that_is_given_up_ends_its_job_and_is_reported_as_the_platforms() {
        let world = World::new().await;
        let (dir, order) = world.ordered();
        let mut job = std::process::Command::new("sleep");
        job.arg("600").env(ATTEMPT_VARIABLE, order.attempt.as_str());
        let mut job = job.spawn().unwrap();
        let handle = world.shared.attempts.enter(&dir, &order);
        give_up(Arc::clone(&world.shared), dir.clone(), order, handle).await;
        job.wait().unwrap();
        let mut taken = world.taken();
        let report: AttemptReport = serde_json::from_slice(&taken.remove(0)).unwrap();
        let Outcome::Failed(failure) = report.outcome else {
            panic!("{:?}", report.outcome)
        };
        assert_eq!(failure.kind, FailureKind::Internal);
        assert!(!dir.path().exists(), "nothing of it is left");
        let statuses = world.shared.attempts.statuses();
        assert!(
            statuses
                .iter()
                .all(|status| status.phase == Phase::Finished && status.released)
        );
    }
}
