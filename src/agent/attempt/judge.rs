//! How a job ended and whose it is, from what is there: the driver's word, the exit, what was measured. Pure.

use protocol::driver::{DriverResult, Verdict};
use protocol::outcome::LimitReached;
use protocol::{ByteSize, Failure, FailureKind, JobSpec, Outcome, Owner, Span};

use super::StopReason;
use super::dir::Given;
use super::disk::{Full, Share};
use super::measured::Measured;
use super::state::{Ended, cancelled};
use crate::executor::Exit;

const GIB: u64 = 1 << 30;

/// Why we ended it, where we did.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    /// Somebody asked.
    Stopped(StopReason),
    /// It filled the disk.
    DiskFull(Full),
    /// The driver did not end though its time was over.
    TooLong(Span),
    /// It hardly used its GPUs for as long as it says itself that it may.
    GpusIdle(GpusIdle),
}

/// All of a job's GPUs were idle for too long.
#[derive(Debug, Clone)]
pub(super) struct GpusIdle {
    pub(super) limit: Span,
    /// How many it has.
    pub(super) count: usize,
    /// Idle: used less than this, in percent.
    pub(super) below: u32,
    /// The most use in that time, in percent.
    pub(super) utilization: u64,
    /// The most memory of one in that time.
    pub(super) memory: ByteSize,
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
    pub(super) measured: Measured,
    /// What the job held when its host's disk ran full just before its end, where that was not its doing.
    pub(super) starved: Option<ByteSize>,
    /// The GPUs that it had.
    pub(super) gpus: Vec<Given>,
}

/// Judges.
pub(super) fn judge(evidence: &Evidence<'_>) -> Ended {
    let result = evidence.result.as_ref();
    Ended {
        outcome: outcome(evidence),
        usage: evidence
            .measured
            .usage(result.map_or(Span(0), |r| r.finished_at.since(r.started_at))),
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
        (Some(Verdict::Stopped) | None, Some(Cause::GpusIdle(idle))) => {
            Outcome::Failed(gpus_idle(idle))
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
    if let (Some(held), true) = (evidence.starved, may_want_disk(failure.kind)) {
        return starved(failure, held);
    }
    let oom = evidence.exit.oom_killed
        || evidence
            .measured
            .peaks
            .oom_kills
            .is_some_and(|kills| kills > 0);
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
    if says_gpu_memory(&failure, &text) {
        return gpu_out_of_memory(failure, evidence);
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
        .measured
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

/// How a job ends that cannot write.
fn may_want_disk(kind: FailureKind) -> bool {
    kind == FailureKind::DiskLimit || kind.owner() == Owner::User
}

/// Its host had no room for it, because of others.
fn starved(failure: Failure, held: ByteSize) -> Failure {
    let message = format!(
        "the host's disk ran full while the job held {held} of it. The job ended with: {}",
        failure.message
    );
    Failure {
        kind: FailureKind::ExecutorFailed,
        message,
        limit: None,
        ..failure
    }
    .hint("Who else fills this host's disk? Below `disk.watermark` the agent takes no jobs.")
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
    if exit.oom_killed
        || evidence
            .measured
            .peaks
            .oom_kills
            .is_some_and(|kills| kills > 0)
    {
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
    let used = evidence.measured.peaks.memory;
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

/// Whether a failure says in a library's own words that a GPU's memory was used up. Of a cell only the message counts:
/// its traceback quotes code.
fn says_gpu_memory(failure: &Failure, text: &str) -> bool {
    const WORDS: [&str; 6] = [
        "CUDA out of memory",
        "torch.OutOfMemoryError",
        "CUDA_ERROR_OUT_OF_MEMORY",
        "cudaErrorMemoryAllocation",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "RESOURCE_EXHAUSTED: Out of memory",
    ];
    let said = |text: &str| WORDS.iter().any(|words| text.contains(words));
    match failure.kind {
        FailureKind::GpuOutOfMemory => true,
        FailureKind::CommandFailed => said(text),
        FailureKind::CellRaised => said(&failure.message),
        _ => false,
    }
}

/// With what the job asked for and had, what was seen of it, and what would fit.
fn gpu_out_of_memory(failure: Failure, evidence: &Evidence<'_>) -> Failure {
    let sizes = evidence.gpus.iter().map(|gpu| gpu.memory);
    let size = sizes.filter(|size| size.0 > 0).min();
    let asked = evidence.spec.resources.gpu_memory;
    let used = evidence.measured.gpu_memory();
    let known = [
        size.map(|size| format!("the GPU has {size}")),
        asked.map(|asked| format!("the job asked for {asked}")),
        used.map(|used| format!("the most seen in use was {used}")),
    ];
    let known: Vec<String> = known.into_iter().flatten().collect();
    let mut message = failure.message.clone();
    if !known.is_empty() {
        message = format!("{} ({})", message.trim_end_matches('.'), known.join(", "));
    }
    let failure = Failure {
        kind: FailureKind::GpuOutOfMemory,
        message,
        ..failure
    };
    match size.or(asked) {
        Some(limit) => failure.limit(LimitReached::Bytes { limit, used }).hint(format!(
            "Ask for a GPU with more memory, such as `resources: {{gpu_memory: {}GiB}}`; or make the batch smaller.",
            half_more(limit)
        )),
        None => failure.hint("Ask for a GPU with more memory (`gpu_memory`), or make the batch smaller."),
    }
}

fn gpus_idle(idle: &GpusIdle) -> Failure {
    let who = match idle.count {
        1 => "the job's GPU".to_owned(),
        count => format!("all {count} GPUs of the job"),
    };
    let message = format!(
        "{who} stayed under {} % of use for {}, and the job was ended; the most seen in that time was {} %, with {} of memory in use",
        idle.below, idle.limit, idle.utilization, idle.memory
    );
    Failure::new(FailureKind::GpuIdle, message)
        .hint("Where that is as it should be, raise `gpu_idle_timeout` in .trainyard.yml. Else: does the job wait for data, or for CPUs (`cpus`), or does it need no GPU?")
        .limit(LimitReached::Time { limit: idle.limit })
}

/// Half more, in whole GiB, and not more than the host has. None: it has no more.
fn would_fit(limit: ByteSize, host: ByteSize) -> Option<String> {
    let more = half_more(limit).min(host.0 / GIB);
    (more * GIB > limit.0).then(|| format!("{more}GiB"))
}

/// In whole GiB.
fn half_more(limit: ByteSize) -> u64 {
    (limit.0 + limit.0 / 2).div_ceil(GIB).max(1)
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
    use super::super::measured::Peaks;
    use super::*;
    use protocol::Timestamp;
    use protocol::driver::CellCount;
    use protocol::event::GpuSample;

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
        let mut measured = Measured::default();
        measured.peaks = peaks;
        let evidence = Evidence {
            spec: &spec(),
            processes: 100,
            memory: ByteSize::gib(16),
            exit,
            cause,
            result,
            measured,
            starved: None,
            gpus: Vec::new(),
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
    fn a_job_whose_host_ran_out_of_disk_did_not_fail_by_itself() {
        let ended = |kind| {
            let evidence = Evidence {
                spec: &spec(),
                processes: 100,
                memory: ByteSize::gib(16),
                exit: Exit::default(),
                cause: None,
                result: said(failed(kind, "no space left"), None),
                measured: Measured::default(),
                starved: Some(ByteSize::mib(3)),
                gpus: Vec::new(),
            };
            let Outcome::Failed(failure) = judge(&evidence).outcome else {
                panic!("it failed")
            };
            assert!(failure.message.contains("no space left"), "{failure:?}");
            failure.kind
        };
        for kind in [
            FailureKind::DiskLimit,
            FailureKind::CommandFailed,
            FailureKind::CellRaised,
        ] {
            assert_eq!(ended(kind), FailureKind::ExecutorFailed);
        }
        // No disk would have helped.
        for kind in [FailureKind::JobTimeout, FailureKind::OutputLimit] {
            assert_eq!(ended(kind), kind);
        }
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

    /// A failure of a job that asked for 40 GiB, on a GPU of 80 GiB of which 70 were seen in use.
    fn on_a_gpu(cause: Option<Cause>, verdict: Verdict) -> Failure {
        let mut spec = spec();
        spec.resources.gpu_memory = Some(ByteSize::gib(40));
        let mut measured = Measured::default();
        let sample = GpuSample {
            uuid: "GPU-1".into(),
            utilization: Some(90),
            memory: ByteSize::gib(70),
        };
        measured.add_gpus(&[sample], Span::secs(5), 5);
        let evidence = Evidence {
            spec: &spec,
            processes: 100,
            memory: ByteSize::gib(16),
            exit: Exit::default(),
            cause,
            result: said(verdict, None),
            measured,
            starved: None,
            gpus: vec![Given {
                uuid: "GPU-1".into(),
                model: "H100".into(),
                node: Some(0),
                slice: false,
                memory: ByteSize::gib(80),
            }],
        };
        match judge(&evidence).outcome {
            Outcome::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn gpu_memory_that_is_used_up_says_what_was_asked_had_and_seen() {
        let torch = "OutOfMemoryError: CUDA out of memory.";
        for kind in [
            FailureKind::GpuOutOfMemory,
            FailureKind::CommandFailed,
            FailureKind::CellRaised,
        ] {
            let failure = on_a_gpu(None, failed(kind, torch));
            assert_eq!(failure.kind, FailureKind::GpuOutOfMemory);
            assert_eq!(
                failure.message,
                "OutOfMemoryError: CUDA out of memory (the GPU has 80 GiB, the job asked for 40 GiB, \
                 the most seen in use was 70 GiB)"
            );
            assert_eq!(
                failure.limit,
                Some(LimitReached::Bytes {
                    limit: ByteSize::gib(80),
                    used: Some(ByteSize::gib(70))
                })
            );
            assert!(failure.hint.unwrap().contains("gpu_memory: 120GiB"));
        }
        // A traceback quotes code that looks for these words.
        let quoting = Failure::new(FailureKind::CellRaised, "ValueError: no").detail(torch);
        let failure = on_a_gpu(None, Verdict::Failed { failure: quoting });
        assert_eq!(failure.kind, FailureKind::CellRaised);
    }

    #[test]
    fn gpus_that_idle_too_long_are_the_limits() {
        let idle = |count| {
            Some(Cause::GpusIdle(GpusIdle {
                limit: Span::secs(1_800),
                count,
                below: 5,
                utilization: 3,
                memory: ByteSize::gib(2),
            }))
        };
        let failure = on_a_gpu(idle(1), Verdict::Stopped);
        assert_eq!(failure.kind, FailureKind::GpuIdle);
        assert_eq!(
            failure.message,
            "the job's GPU stayed under 5 % of use for 30m00s, and the job was ended; the most seen in that \
             time was 3 %, with 2 GiB of memory in use"
        );
        assert_eq!(
            failure.limit,
            Some(LimitReached::Time {
                limit: Span::secs(1_800)
            })
        );
        let several = on_a_gpu(idle(8), Verdict::Stopped);
        assert!(several.message.starts_with("all 8 GPUs of the job stayed"));
    }
}
