//! How a job ended and whose it is, from what is there: the driver's word, the exit, what was measured. Pure.

use protocol::driver::{DriverResult, Verdict};
use protocol::outcome::LimitReached;
use protocol::report::Usage;
use protocol::{ByteSize, Failure, FailureKind, JobSpec, Outcome, Span};

use super::StopReason;
use super::disk::{Full, Share};
use super::run::Peaks;
use super::state::{Ended, cancelled};
use crate::executor::Exit;

/// Why we ended it, where we did.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    /// Somebody asked.
    Stopped(StopReason),
    /// It filled the disk.
    DiskFull(Full),
    /// The driver did not end though its time was over.
    TooLong(Span),
}

/// All that the judge sees.
pub(super) struct Evidence<'a> {
    pub(super) spec: &'a JobSpec,
    /// Processes that a job may have.
    pub(super) processes: u64,
    /// Memory that the host's jobs may use.
    pub(super) memory: ByteSize,
    pub(super) exit: Exit,
    pub(super) cause: Option<Cause>,
    pub(super) result: Option<DriverResult>,
    pub(super) peaks: Peaks,
}

/// Judges.
pub(super) fn judge(evidence: &Evidence<'_>) -> Ended {
    let result = evidence.result.as_ref();
    Ended {
        outcome: outcome(evidence),
        usage: Usage {
            memory_peak: evidence.peaks.memory,
            cpu_time: evidence.peaks.cpu_time,
            run_time: result.map_or(Span(0), |r| r.finished_at.since(r.started_at)),
        },
        cells: result.map(|r| r.cells).unwrap_or_default(),
        ran: true,
    }
}

fn outcome(evidence: &Evidence<'_>) -> Outcome {
    let verdict = evidence.result.as_ref().map(|result| &result.verdict);
    match (verdict, &evidence.cause) {
        (Some(Verdict::Succeeded), _) => Outcome::Succeeded,
        (_, Some(Cause::DiskFull(full))) => Outcome::Failed(disk_full(full)),
        (Some(Verdict::Failed { failure }), _) => {
            Outcome::Failed(closer(failure.clone(), evidence))
        }
        (Some(Verdict::Stopped) | None, Some(Cause::Stopped(reason))) => cancelled(reason.clone()),
        (Some(Verdict::Stopped) | None, Some(Cause::TooLong(limit))) => {
            Outcome::Failed(Failure::new(
                FailureKind::ExecutorFailed,
                format!("the driver did not end by itself within {limit} and was ended"),
            ))
        }
        (Some(Verdict::Stopped), None) => Outcome::Failed(
            Failure::new(
                FailureKind::ExecutorFailed,
                "the job was ended from outside (a signal to its container)",
            )
            .hint("Was the host shut down, or the container stopped by hand?"),
        ),
        (None, None) => Outcome::Failed(silent(evidence)),
    }
}

/// A failure of the driver's, seen with what the host knows.
fn closer(failure: Failure, evidence: &Evidence<'_>) -> Failure {
    let oom = evidence.exit.oom_killed || evidence.peaks.oom_kills.is_some_and(|kills| kills > 0);
    let signal = evidence.result.as_ref().and_then(|result| result.signal);
    let code = evidence.result.as_ref().and_then(|result| result.exit_code);
    let text = format!(
        "{} {}",
        failure.message,
        failure.detail.as_deref().unwrap_or_default()
    );
    let mentions = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // "Killed something" is also true where a child of no importance was: the failure must look like it.
    let looks_killed = match failure.kind {
        FailureKind::KernelDied => signal.is_none_or(|signal| signal == 9),
        FailureKind::CommandFailed => {
            signal == Some(9) || code == Some(137) || mentions(&["Killed", "SIGKILL"])
        }
        FailureKind::CellRaised => {
            mentions(&["Killed", "SIGKILL", "signal 9", "BrokenProcessPool", "-9"])
        }
        _ => false,
    };
    if oom && looks_killed {
        return out_of_memory(evidence).with_cell(failure.cell);
    }
    let gpu = [
        "CUDA out of memory",
        "torch.OutOfMemoryError",
        "CUDA_ERROR_OUT_OF_MEMORY",
        "RESOURCE_EXHAUSTED: Out of memory",
    ];
    if failure.kind == FailureKind::CommandFailed && mentions(&gpu) {
        return Failure {
            kind: FailureKind::GpuOutOfMemory,
            ..failure
        }
        .hint("Ask for a GPU with more memory (`gpu_memory`), or make the batch smaller.");
    }
    let no_process = mentions(&[
        "can't start new thread",
        "BlockingIOError: [Errno 11]",
        "fork: Resource temporarily unavailable",
        "Cannot fork",
    ]);
    // The text alone might be the job's invention: the host must have seen many processes too. Not all of them: the
    // system counts by user, and the same user may have others outside of this container.
    let many = evidence
        .peaks
        .processes
        .is_none_or(|most| most * 2 >= evidence.processes);
    if matches!(
        failure.kind,
        FailureKind::CommandFailed | FailureKind::CellRaised
    ) && no_process
        && many
    {
        return Failure {
            kind: FailureKind::ProcessLimit,
            ..failure
        }
        .limit(LimitReached::Processes {
            limit: evidence.processes,
        })
        .hint("Start fewer processes and threads (DataLoader workers, joblib, OMP_NUM_THREADS).");
    }
    failure
}

/// The driver left no word.
fn silent(evidence: &Evidence<'_>) -> Failure {
    let exit = &evidence.exit;
    if exit.lost {
        return Failure::new(
            FailureKind::ExecutorFailed,
            "the job's container or process is gone, and nobody saw how it ended",
        )
        .hint("Was it removed by hand, or the host restarted?");
    }
    if exit.oom_killed || evidence.peaks.oom_kills.is_some_and(|kills| kills > 0) {
        return out_of_memory(evidence);
    }
    let how = match exit.code {
        Some(code @ 129..=192) => format!("by signal {}", code - 128),
        Some(code) => format!("with code {code}"),
        None => "and nobody saw how".into(),
    };
    Failure::new(
        FailureKind::ExecutorFailed,
        format!("the driver ended {how} before it could say how the job went"),
    )
}

fn out_of_memory(evidence: &Evidence<'_>) -> Failure {
    let limit = evidence.spec.resources.memory;
    let used = evidence.peaks.memory;
    if limit.0 == 0 {
        return Failure::new(FailureKind::OutOfMemory, "the host ran out of memory, and the job was ended for it")
            .hint("Say what the job needs (`resources: {memory: …}`), so that it gets a host that has it.");
    }
    let said = used.map_or_else(String::new, |used| format!(" (the most seen: {used})"));
    Failure::new(FailureKind::OutOfMemory, format!("the job needed more than its {limit} of memory{said}"))
        .hint(match would_fit(limit, evidence.memory) {
            Some(more) => format!(
                "Ask for more: `resources: {{memory: {more}}}` (--memory {more} of `trainyard run`); or work in smaller \
                 pieces. /dev/shm and files in memory count too."
            ),
            None => format!(
                "This host has no more for it: {} for all jobs. Work in smaller pieces, or have it run on a larger host. \
                 /dev/shm and files in memory count too.",
                evidence.memory
            ),
        })
        .limit(LimitReached::Bytes { limit, used })
}

/// Half more, in whole GiB, and not more than the host has. None: it has no more.
fn would_fit(limit: ByteSize, host: ByteSize) -> Option<String> {
    const GIB: u64 = 1 << 30;
    let more = (limit.0 + limit.0 / 2)
        .div_ceil(GIB)
        .max(1)
        .min(host.0 / GIB);
    (more * GIB > limit.0).then(|| format!("{more}GiB"))
}

fn disk_full(full: &Full) -> Failure {
    let hint = match full.of {
        Share::Checkpoints => {
            "Remove older checkpoints after each new one, or raise `checkpoints: {max_size: …}` in .trainyard.yml."
        }
        Share::Job | Share::Host => {
            "Write less to the workspace, /tmp and HOME, or have `disk` raised in the agent's configuration."
        }
    };
    Failure::new(FailureKind::DiskLimit, full.words())
        .hint(hint)
        .limit(LimitReached::Bytes {
            limit: full.limit,
            used: Some(full.used),
        })
}

trait WithCell {
    fn with_cell(self, cell: Option<protocol::outcome::CellPlace>) -> Self;
}

impl WithCell for Failure {
    fn with_cell(mut self, cell: Option<protocol::outcome::CellPlace>) -> Self {
        self.cell = cell;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Timestamp;
    use protocol::driver::CellCount;

    fn spec() -> JobSpec {
        serde_json::from_value(serde_json::json!({
            "name": "train", "definition": "train", "work": {"work": "command", "text": "true"},
            "image": "i", "network": "none", "retries": 0, "reuse": false,
        }))
        .unwrap()
    }

    fn said(verdict: Verdict, signal: Option<i32>) -> Option<DriverResult> {
        Some(DriverResult {
            verdict,
            started_at: Timestamp(0),
            finished_at: Timestamp(5),
            cells: CellCount::default(),
            exit_code: None,
            signal,
        })
    }

    fn kind(
        exit: Exit,
        cause: Option<Cause>,
        result: Option<DriverResult>,
        peaks: Peaks,
    ) -> Result<Outcome, FailureKind> {
        let evidence = Evidence {
            spec: &spec(),
            processes: 100,
            memory: ByteSize::gib(16),
            exit,
            cause,
            result,
            peaks,
        };
        match judge(&evidence).outcome {
            Outcome::Failed(failure) => Err(failure.kind),
            other => Ok(other),
        }
    }

    fn failed(kind: FailureKind, message: &str) -> Verdict {
        Verdict::Failed {
            failure: Failure::new(kind, message),
        }
    }

    #[test]
    fn what_would_fit_is_what_the_host_has() {
        let gib = ByteSize::gib;
        let fits = |limit, host| would_fit(limit, host);
        assert_eq!(fits(gib(2), gib(16)).as_deref(), Some("3GiB"));
        assert_eq!(fits(gib(12), gib(16)).as_deref(), Some("16GiB"));
        assert_eq!(fits(gib(16), gib(16)), None);
        assert_eq!(fits(ByteSize(100 << 20), gib(16)).as_deref(), Some("1GiB"));
    }

    #[test]
    fn a_kernel_that_was_killed_for_memory_is_the_limits() {
        let oom = Peaks {
            oom_kills: Some(1),
            memory: Some(ByteSize::gib(2)),
            ..Peaks::default()
        };
        let died = said(failed(FailureKind::KernelDied, "died"), Some(9));
        assert_eq!(
            kind(Exit::default(), None, died.clone(), oom),
            Err(FailureKind::OutOfMemory)
        );
        assert_eq!(
            kind(Exit::default(), None, died, Peaks::default()),
            Err(FailureKind::KernelDied)
        );
        // A child was killed, the cell failed of something else.
        let raised = said(failed(FailureKind::CellRaised, "ValueError: no"), None);
        assert_eq!(
            kind(Exit::default(), None, raised, oom),
            Err(FailureKind::CellRaised)
        );
    }

    #[test]
    fn without_a_word_the_exit_counts() {
        let exit = |code, oom_killed| Exit {
            code: Some(code),
            oom_killed,
            lost: false,
        };
        assert_eq!(
            kind(exit(137, true), None, None, Peaks::default()),
            Err(FailureKind::OutOfMemory)
        );
        assert_eq!(
            kind(exit(137, false), None, None, Peaks::default()),
            Err(FailureKind::ExecutorFailed)
        );
        let lost = Exit {
            lost: true,
            ..Exit::default()
        };
        assert_eq!(
            kind(lost, None, None, Peaks::default()),
            Err(FailureKind::ExecutorFailed)
        );
    }

    #[test]
    fn a_stop_is_a_cancel_unless_the_job_was_done() {
        let stop = || {
            Some(Cause::Stopped(StopReason::Stop {
                by: "ada".into(),
                grace: Span::secs(1),
            }))
        };
        let by_ada = Ok(Outcome::Cancelled { by: "ada".into() });
        assert_eq!(
            kind(
                Exit::default(),
                stop(),
                said(Verdict::Stopped, None),
                Peaks::default()
            ),
            by_ada
        );
        assert_eq!(
            kind(Exit::default(), stop(), None, Peaks::default()),
            by_ada
        );
        assert_eq!(
            kind(
                Exit::default(),
                stop(),
                said(Verdict::Succeeded, None),
                Peaks::default()
            ),
            Ok(Outcome::Succeeded)
        );
        assert_eq!(
            kind(
                Exit::default(),
                None,
                said(Verdict::Stopped, None),
                Peaks::default()
            ),
            Err(FailureKind::ExecutorFailed)
        );
    }

    #[test]
    fn the_process_limit_wants_more_than_words() {
        let words = || said(failed(FailureKind::CommandFailed, "sh: Cannot fork"), None);
        let peak = |n| Peaks {
            processes: Some(n),
            ..Peaks::default()
        };
        assert_eq!(
            kind(Exit::default(), None, words(), peak(100)),
            Err(FailureKind::ProcessLimit)
        );
        assert_eq!(
            kind(Exit::default(), None, words(), peak(3)),
            Err(FailureKind::CommandFailed)
        );
    }
}
