//! Bringing an attempt's story and files to the server, however often that takes. It must not know what an
//! attempt is about. The parts: `events`, `blobs`, and the report, which goes last.

use std::future::pending;

use protocol::event::Artifact;
use protocol::report::AttemptReport;
use protocol::{AttemptId, Digest, Failure, FailureKind, Outcome};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::attempt::AttemptDir;
use crate::client::ClientError;
use crate::journal::Journal;

/// Delivers one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery<'a> {
    pub(super) shared: &'a Shared,
    pub(super) attempt: &'a AttemptId,
    pub(super) generation: u32,
    pub(super) dir: &'a AttemptDir,
    pub(super) journal: &'a Journal,
}

impl Delivery<'_> {
    /// Delivers the report. Blobs that the server misses after all are brought again.
    pub(super) async fn finish(self, report: &AttemptReport) {
        let mut backoff = self.shared.backoff();
        loop {
            let client = &self.shared.client;
            let dated = self.shared.clock.report(report);
            let call = || client.finish(self.attempt, self.generation, &dated);
            match self.persist(call).await {
                Ok(accepted) => {
                    let word = report.outcome.word();
                    tracing::info!(attempt = %self.attempt, outcome = word, believed = accepted, "attempt reported");
                    return;
                }
                Err(error) => {
                    tracing::error!(attempt = %self.attempt, "the report is not taken: {error}; trying again");
                    tokio::time::sleep(backoff.next()).await;
                    let closing = CancellationToken::new();
                    closing.cancel();
                    self.blobs(&closing).await;
                }
            }
        }
    }

    /// Calls until the server answers. Where it does not believe the attempt, or sends the agent away, the
    /// whole service hears of it and this waits to be dropped. What is left are refusals.
    pub(super) async fn persist<T, F>(self, mut call: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut backoff = self.shared.backoff();
        loop {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_temporary() => {
                    tracing::debug!(attempt = %self.attempt, "{error}");
                    tokio::time::sleep(backoff.next()).await;
                }
                Err(ClientError::Abandoned) => {
                    self.shared.attempts.abandon(self.attempt);
                    return pending().await;
                }
                Err(
                    error @ (ClientError::Unauthorized(_)
                    | ClientError::Version(_)
                    | ClientError::Twin(_)),
                ) => {
                    self.shared.send_away(error);
                    return pending().await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The report of an attempt whose blobs cannot all be delivered: what is missing is not in it.
pub(super) fn without_blobs(mut report: AttemptReport, lost: &[(Digest, String)]) -> AttemptReport {
    let Some((blob, why)) = lost.first() else {
        return report;
    };
    let missing = |artifact: &Artifact| lost.iter().any(|(blob, _)| *blob == artifact.blob);
    let named = report.artifacts.iter().find(|artifact| missing(artifact));
    let name = named.map_or_else(
        || format!("an output ({})", blob.short()),
        |a| a.path.clone(),
    );
    report.artifacts.retain(|artifact| !missing(artifact));
    not_delivered(report, format!("{name} could not be uploaded: {why}"))
}

/// A success of which something is missing is none.
pub(super) fn not_delivered(mut report: AttemptReport, why: String) -> AttemptReport {
    if report.outcome.is_success() {
        report.outcome = Outcome::Failed(
            Failure::new(FailureKind::UploadFailed, why)
                .hint("look at the agent's log, and at the disks of agent and server"),
        );
    }
    report
}
