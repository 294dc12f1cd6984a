//! Commands, and what the driver does for every job.

use std::fs;
use std::process::Command;

use protocol::driver::Verdict;
use protocol::event::LogStream;
use protocol::outcome::{FailureKind, Owner};
use protocol::units::Span;
use rustix::process::Signal;

use crate::support::{World, lives};

#[test]
fn a_command_is_heard_on_both_streams() {
    let told = World::command(
        "echo out; echo err >&2; printf 'caf\\303'; sleep 0.3; printf '\\251\\377\\n'; pwd",
    )
    .run();
    told.succeeded();
    assert_eq!(told.result.exit_code, Some(0));
    let workdir = told.world.path("work");
    assert_eq!(
        told.log(LogStream::Stdout),
        format!("out\ncafé\u{fffd}\n{}\n", workdir.display())
    );
    assert_eq!(told.log(LogStream::Stderr), "err\n");
}

#[test]
fn its_environment_is_the_jobs_alone() {
    let mut world = World::command("env");
    world.job.env.insert("ANSWER".into(), "42".into());
    let told = world.run();
    let said = told.log(LogStream::Stdout);
    assert!(
        said.contains("ANSWER=42") && !said.contains("CARGO"),
        "{said}"
    );
}

#[test]
fn it_starts_with_no_signal_blocked() {
    let told = World::command("grep SigBlk /proc/self/status").run();
    assert_eq!(told.log(LogStream::Stdout), "SigBlk:\t0000000000000000\n");
}

#[test]
fn its_exit_code_is_the_verdict() {
    let told = World::command("echo 'no data' >&2; exit 3").run();
    let failure = told.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::CommandFailed, Owner::User)
    );
    assert_eq!(
        (told.result.exit_code, failure.detail.as_deref()),
        (Some(3), Some("no data\n"))
    );

    let told = World::command("kill -SEGV $$").run();
    assert_eq!(told.result.signal, Some(11));
    assert!(told.failure().message.contains("SIGSEGV"));

    let mut world = World::command("");
    world.job.work = protocol::driver::DriverWork::Command {
        argv: vec!["no-such-program".into()],
    };
    let told = world.run();
    assert_eq!(told.failure().kind, FailureKind::CommandFailed);
    assert!(told.failure().message.contains("'no-such-program'"));
}

#[test]
fn megabytes_without_a_line_end_are_kept() {
    let told = World::command("head -c 5000000 /dev/zero | tr '\\0' x").run();
    told.succeeded();
    assert_eq!(told.log(LogStream::Stdout), "x".repeat(5_000_000));
}

#[test]
fn told_to_stop_it_is_asked_first_and_killed_after_the_grace() {
    let mut running =
        World::command("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
            .start();
    running.until_said("ready");
    running.signal(Signal::TERM);
    let told = running.end();
    assert_eq!(told.result.verdict, Verdict::Stopped);
    assert_eq!(told.log(LogStream::Stdout), "ready\nbye\n");

    let mut world = World::command("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    world.job.grace = Span(200);
    let mut running = world.start();
    running.until_said("ready");
    running.signal(Signal::TERM);
    let told = running.end();
    assert_eq!(
        (told.result.verdict, told.result.signal),
        (Verdict::Stopped, Some(9))
    );
}

#[test]
fn a_program_that_a_shell_started_has_the_grace_though_the_shell_dies_at_once() {
    let inner =
        "trap 'sleep 0.5; echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = World::command(&format!("sh -c \"{inner}\"; true")).start();
    running.until_said("ready");
    running.signal(Signal::TERM);
    let told = running.end();
    assert_eq!(told.result.verdict, Verdict::Stopped);
    assert_eq!(told.log(LogStream::Stdout), "ready\nsaved\n");
}

#[test]
fn its_time_is_limited() {
    let mut world = World::command("sleep 1000");
    world.job.limits.timeout = Span(500);
    let told = world.run();
    assert_eq!(
        (told.failure().kind, told.result.signal),
        (FailureKind::JobTimeout, Some(15))
    );
}

#[test]
fn orphans_are_reaped_and_do_not_outlive_it() {
    // The subshell ends at once: its child is an orphan, which ends while the job runs and must not stay a zombie.
    let orphan =
        "(sh -c 'echo $$ > orphan; exec sleep 0.1' &) ; (setsid sleep 1000 & echo $! > stays)";
    let mut running = World::command(&format!("{orphan}; echo started; sleep 1000")).start();
    running.until_said("started");
    running.until("the orphan to be reaped", |world| {
        let pid = fs::read_to_string(world.path("work/orphan")).unwrap_or_default();
        !pid.trim().is_empty() && !fs::exists(format!("/proc/{}", pid.trim())).unwrap()
    });
    running.signal(Signal::TERM);
    let told = running.end();
    let stays = fs::read_to_string(told.world.path("work/stays")).unwrap();
    assert!(!lives(&stays), "{stays} lives");
}

#[test]
fn a_job_file_that_cannot_be_read_is_named() {
    let driver = || Command::new(env!("CARGO_BIN_EXE_trainyard-driver"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("job.json"), "{\"work\":").unwrap();
    let output = driver()
        .args(["run", "--dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("job.json: EOF"),
        "{output:?}"
    );
    assert_eq!(
        driver().arg("walk").output().unwrap().status.code(),
        Some(2)
    );
    assert!(driver().arg("--version").output().unwrap().status.success());
}
