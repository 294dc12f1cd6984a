//! Whose fault it was, told from what is left.

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
        in_time: true,
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
            in_time: true,
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
        in_time: true,
        result: said(verdict, None),
        measured,
        starved: None,
        gpus: vec![Given {
            uuid: "GPU-1".into(),
            model: "H100".into(),
            node: Some(0),
            slice: false,
            caps: vec![],
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

#[test]
fn what_was_cut_off_is_told_from_what_came_to_its_end() {
    let spec = spec();
    let stopped = || {
        let (by, grace) = ("drain".to_owned(), Span::secs(30));
        Some(Cause::Stopped(StopReason::Stop { by, grace }))
    };
    let raised = || failed(FailureKind::CellRaised, "ValueError");
    let is_clean = |cause, in_time, result, oom_kills, starved| {
        let mut measured = Measured::default();
        measured.peaks.oom_kills = Some(oom_kills);
        let evidence = Evidence {
            spec: &spec,
            processes: 100,
            memory: ByteSize::gib(16),
            exit: Exit::default(),
            cause,
            in_time,
            result,
            measured,
            starved,
            gpus: Vec::new(),
        };
        judge(&evidence).clean
    };
    let code = |code| {
        let mut result = said(failed(FailureKind::CommandFailed, "it failed"), None)?;
        result.exit_code = Some(code);
        Some(result)
    };
    assert!(is_clean(None, true, said(raised(), None), 0, None));
    assert!(is_clean(None, true, code(1), 0, None));
    let told = || said(Verdict::Stopped, None);
    assert!(is_clean(stopped(), true, told(), 0, None));
    let room = Some(ByteSize::mib(1));
    for (what, cut_off) in [
        ("grace", is_clean(stopped(), false, told(), 0, None)),
        (
            "signal",
            is_clean(None, true, said(raised(), Some(9)), 0, None),
        ),
        ("shell's word", is_clean(None, true, code(137), 0, None)),
        (
            "memory",
            is_clean(None, true, said(raised(), None), 1, None),
        ),
        ("disk", is_clean(None, true, said(raised(), None), 0, room)),
        ("silence", is_clean(None, true, None, 0, None)),
    ] {
        assert!(!cut_off, "{what}");
    }
}
