//! How a job ended and whose it is, from what is there: the driver's word, the exit, what was measured. Pure.

#[cfg(test)]
mod tests;

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
    /// Where it was told to end: it did so before its grace was over.
    pub(super) in_time: bool,
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
        clean: is_clean(evidence),
    }
}

/// Whether nothing cut the job off: no signal, no want of memory or disk, no end of its grace.
fn is_clean(evidence: &Evidence<'_>) -> bool {
    let Some(result) = &evidence.result else {
        return false;
    };
    let cut_off = match &evidence.cause {
        None => false,
        Some(Cause::Stopped(_) | Cause::GpusIdle(_)) => !evidence.in_time,
        Some(Cause::DiskFull(_) | Cause::TooLong(_)) => true,
    };
    // A shell tells so of a signal to what it ran.
    let by_signal = result.signal.is_some() || result.exit_code.is_some_and(|code| code > 128);
    !cut_off && !by_signal && !was_oom(evidence) && evidence.starved.is_none()
}

fn was_oom(evidence: &Evidence<'_>) -> bool {
    let kills = evidence.measured.peaks.oom_kills;
    evidence.exit.oom_killed || kills.is_some_and(|kills| kills > 0)
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
    let oom = was_oom(evidence);
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
            "Write less to the workspace, /tmp, HOME and the caches, or have `disk` raised in the agent's configuration."
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
