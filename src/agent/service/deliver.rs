//! Bringing an attempt's story and files to the server, however often that takes. It must not know what an
//! attempt is about. The parts: `events`, `blobs`, and the report, which goes last.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::pending;

use protocol::event::Artifact;
use protocol::report::{AttemptReport, Setting};
use protocol::{AttemptId, Digest, Failure, FailureKind, Outcome, Owner};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::attempt::AttemptDir;
use crate::client::{ClientError, UNKNOWN};
use crate::journal::Journal;

/// So often a server may refuse a report of which it may only miss a blob.
const MOST_REFUSALS: u32 = 3;

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
    /// Delivers the report. Blobs that the server misses after all are brought again. Where it will never take the
    /// report, it gets one without what the attempt left: the job must come to its end.
    /// Gives the one that was taken.
    pub(super) async fn finish(self, report: &AttemptReport) -> AttemptReport {
        let mut backoff = self.shared.backoff();
        let mut report = Cow::Borrowed(report);
        let mut refusals = 0;
        loop {
            let client = &self.shared.client;
            let dated = self.shared.clock.report(&report);
            let call = || client.finish(self.attempt, self.generation, &dated);
            match self.persist(call).await {
                Ok(accepted) => {
                    let word = report.outcome.word();
                    let why = platforms(&report.outcome);
                    tracing::info!(attempt = %self.attempt, outcome = word, why, believed = accepted, "attempt reported");
                    return report.into_owned();
                }
                Err(error) => {
                    tracing::error!(attempt = %self.attempt, "the report is not taken: {error}; trying again");
                    refusals += 1;
                    if is_for_good(&error, refusals) {
                        report = Cow::Owned(bare(&report, &error.to_string()));
                    }
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

/// What went wrong with the platform, for its own log. What the user's code said is not for it.
fn platforms(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Failed(failure) if failure.owner() == Owner::Platform => Some(&failure.message),
        Outcome::Failed(_)
        | Outcome::Succeeded
        | Outcome::Reused { .. }
        | Outcome::Skipped { .. }
        | Outcome::Cancelled { .. } => None,
    }
}

/// Whether a server that refused a report so often will never take it. What only stands between here and the server may
/// refuse too, and ends some time.
fn is_for_good(error: &ClientError, refusals: u32) -> bool {
    match error {
        ClientError::Refused { status: 413, .. } => true,
        ClientError::Refused {
            status: 400 | 422,
            code,
            ..
        } => code != UNKNOWN && refusals >= MOST_REFUSALS,
        ClientError::Refused { .. }
        | ClientError::Setting(_)
        | ClientError::Transport { .. }
        | ClientError::Busy { .. }
        | ClientError::Unauthorized(_)
        | ClientError::Version(_)
        | ClientError::Abandoned
        | ClientError::WrongHash(_)
        | ClientError::Twin(_)
        | ClientError::Registry { .. }
        | ClientError::Disk { .. } => false,
    }
}

/// A report of the end alone: without all that can be large or wrong of it.
fn bare(report: &AttemptReport, why: &str) -> AttemptReport {
    let report = AttemptReport {
        phases: BTreeMap::new(),
        artifacts: Vec::new(),
        metrics: Vec::new(),
        params: BTreeMap::new(),
        setting: Setting {
            packages: None,
            ..report.setting.clone()
        },
        ..report.clone()
    };
    not_delivered(
        report,
        format!("the server does not take the report: {why}"),
    )
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

#[cfg(test)]
mod tests {
    use protocol::ByteSize;
    use protocol::event::ArtifactRole;

    use super::*;
    use crate::service::world::World;

    fn artifact(number: u32) -> Artifact {
        Artifact {
            path: format!("{}/{number}", "a".repeat(2_000)),
            blob: Digest::of(b"a"),
            size: ByteSize(1),
            role: ArtifactRole::Declared,
        }
    }

    #[tokio::test]
    async fn a_report_that_is_too_large_ends_the_job_all_the_same() {
        let world = World::new().await;
        let mut report = world.report();
        report.artifacts = (0..10_000).map(artifact).collect();
        world.delivery().finish(&report).await;
        let mut taken = world.taken();
        let taken: AttemptReport = serde_json::from_slice(&taken.remove(0)).unwrap();
        let Outcome::Failed(failure) = &taken.outcome else {
            panic!("a success without its files: {:?}", taken.outcome)
        };
        assert_eq!(failure.kind, FailureKind::UploadFailed);
        assert!(failure.message.contains("at most 16 MiB"), "{failure:?}");
        assert!(taken.artifacts.is_empty());
    }

    #[tokio::test]
    async fn a_report_that_the_server_finds_wrong_three_times_is_told_without_what_may_be_wrong() {
        let world = World::new().await;
        world.refuse("wrong", 422);
        let mut report = world.report();
        report.params.insert("p".into(), "wrong".into());
        world.delivery().finish(&report).await;
        let bodies = world.taken();
        assert_eq!(bodies.len(), 1);
        let taken: AttemptReport = serde_json::from_slice(&bodies[0]).unwrap();
        assert!(matches!(taken.outcome, Outcome::Failed(_)) && taken.params.is_empty());
        assert_eq!(world.refused(), 3);
    }
}
