use protocol::outcome::Owner;

use super::*;

fn exception(ename: &str, evalue: &str, traceback: &str) -> Raised {
    Raised {
        ename: ename.into(),
        evalue: evalue.into(),
        traceback: traceback.lines().map(str::to_owned).collect(),
    }
}

#[test]
fn the_line_is_that_of_the_cell_not_of_what_it_called() {
    let traceback = "\u{1b}[31mValueError\u{1b}[39m  Traceback (most recent call last)\n\
        \u{1b}[36mCell\u{1b}[39m\u{1b}[36m \u{1b}[39m\u{1b}[32mIn[12]\u{1b}[39m\u{1b}[32m, line 7\u{1b}[39m\n\
        Cell In[2], line 3, in f()";
    let raised = exception("ValueError", "x", traceback);
    assert_eq!(raised.line(12), Some(7));
    assert_eq!(raised.line(2), Some(3));
    assert_eq!(raised.line(1), None);
}

#[test]
fn limits_are_told_from_the_users_own_errors() {
    let user = Some(RunAs {
        uid: 1,
        gid: 1,
        processes: 64,
    });
    let cases = [
        (
            "BlockingIOError",
            "[Errno 11] Resource temporarily unavailable",
            "os.fork()",
            FailureKind::ProcessLimit,
        ),
        (
            "RuntimeError",
            "can't start new thread",
            "",
            FailureKind::ProcessLimit,
        ),
        (
            "OSError",
            "[Errno 28] No space left on device",
            "",
            FailureKind::DiskLimit,
        ),
        (
            "OutOfMemoryError",
            "CUDA out of memory. Tried",
            "",
            FailureKind::GpuOutOfMemory,
        ),
        (
            "BlockingIOError",
            "[Errno 11] Resource temporarily unavailable",
            "sock.recv()",
            FailureKind::CellRaised,
        ),
        ("ValueError", "x", "", FailureKind::CellRaised),
    ];
    for (ename, evalue, traceback, kind) in cases {
        let failure = raised(&exception(ename, evalue, traceback), false, user);
        assert_eq!(failure.kind, kind, "{ename}");
        assert_eq!(
            failure.hint.is_some(),
            failure.owner() == Owner::Limit,
            "{ename}"
        );
    }
}

#[test]
fn a_commands_last_lines_tell_a_limit() {
    let kind = |text: &str| {
        let mut stderr = Tail::default();
        stderr.push(text);
        command_ended(End::Code(2), "sh", &stderr, None).kind
    };
    assert_eq!(kind("/bin/sh: 1: Cannot fork\n"), FailureKind::ProcessLimit);
    assert_eq!(
        kind("OSError: [Errno 28] No space left on device\n"),
        FailureKind::DiskLimit
    );
    assert_eq!(
        kind("torch.OutOfMemoryError: CUDA out of memory. Tried\n"),
        FailureKind::GpuOutOfMemory
    );
    assert_eq!(
        kind(&("Cannot fork\n".to_owned() + &"later\n".repeat(30))),
        FailureKind::CommandFailed
    );
}

#[test]
fn a_missing_module_names_the_requirements() {
    let failure = raised(
        &exception("ModuleNotFoundError", "No module named 'sklearn.svm'", ""),
        true,
        None,
    );
    let hint = failure.hint.unwrap();
    assert!(
        hint.contains("'sklearn'") && hint.contains("requirements.txt") && hint.contains("network"),
        "{hint}"
    );
}

#[test]
fn a_clean_exit_is_no_failure() {
    assert!(exception("SystemExit", "0", "").is_clean_exit());
    assert!(exception("SystemExit", "", "").is_clean_exit());
    assert!(!exception("SystemExit", "1", "").is_clean_exit());
}

#[test]
fn a_kernel_without_classes_of_exceptions_still_says_something() {
    let failure = raised(&exception("", "2", ""), false, None);
    assert_eq!(
        (failure.message.as_str(), failure.detail),
        ("The cell ended with exit code 2.", None)
    );
}
