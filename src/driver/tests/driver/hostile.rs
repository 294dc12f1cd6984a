//! Jobs that mean no good: a kernel that breaks the protocol, a job that reaches for the driver's files.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::time::{Duration, Instant};

use protocol::driver::{HandOver, RunAs};
use protocol::event::{CellStatus, LogStream};
use protocol::outcome::{FailureKind, LimitReached, Owner};
use protocol::units::{ByteSize, Span};
use rustix::process::Signal;

use crate::support::{World, lives, python};

/// A "kernel" that opens its sockets and answers as one would, until `DEED` says otherwise.
const KERNEL: &str = include_str!("hostile_kernel.py");

/// What a kernel does, how that ends, and words of the failure.
type Deed = (&'static str, FailureKind, &'static str);

fn does(deed: &str) -> World {
    let mut world = World::cell("1");
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    world.write("kernel.py", KERNEL);
    let python = python();
    let text = format!("#!/bin/sh\nexec '{}' kernel.py \"$@\"\n", python.display());
    fs::write(bin.join("python3"), text).unwrap();
    fs::set_permissions(bin.join("python3"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    world.job.env.insert("PATH".into(), path);
    world.job.env.insert("DEED".into(), deed.into());
    world.job.grace = Span::secs(1);
    world
}

#[test]
fn a_kernel_that_breaks_the_protocol_is_ended() {
    let deeds: [Deed; 14] = [
        // Before it has said who it is.
        ("terabyte", FailureKind::OutputLimit, "1099511627776 bytes"),
        ("greets_wrongly", FailureKind::KernelDied, "0xFF"),
        ("closes", FailureKind::KernelDied, "closed"),
        // Answering a cell.
        ("garbage", FailureKind::KernelDied, "flags 0xff"),
        ("forged", FailureKind::KernelDied, "wrong signature"),
        ("no_json", FailureKind::KernelDied, "cannot be read"),
        ("parts_missing", FailureKind::KernelDied, "without header"),
        ("long_header", FailureKind::KernelDied, "header"),
        (
            "many_frames",
            FailureKind::KernelDied,
            "more than 1024 frames",
        ),
        ("hangs_up", FailureKind::KernelDied, "closed"),
        (
            "terabyte_late",
            FailureKind::OutputLimit,
            "1099511627776 bytes",
        ),
        ("floods", FailureKind::OutputLimit, "said more than"),
        ("floods_states", FailureKind::CellTimeout, "2.0s"),
        ("never_answers", FailureKind::CellTimeout, "2.0s"),
    ];
    for (deed, kind, words) in deeds {
        let mut world = does(deed);
        world.job.output.job = ByteSize::mib(32);
        world.job.limits.cell_timeout = match kind {
            FailureKind::CellTimeout => Some(Span::secs(2)),
            _ => None,
        };
        let began = Instant::now();
        let told = world.run();
        let failure = told.failure();
        assert_eq!(failure.kind, kind, "{deed}: {}", failure.message);
        assert!(
            failure.message.contains(words),
            "{deed}: {}",
            failure.message
        );
        assert!(began.elapsed() < Duration::from_secs(60), "{deed}");
        assert!(told.peak_memory < 256 << 20, "{deed}: {}", told.peak_memory);
    }
}

/// What is merely odd is taken as what it says, and costs no more memory than it must.
#[test]
fn a_kernel_that_is_odd_is_borne_with() {
    for (deed, words) in [
        ("answers_twice", ""),
        ("never_idle", "last words about the cell were lost"),
        ("for_nobody", ""),
        ("unknown_kind", ""),
        ("grows_in_memory", "is not kept"),
        ("largest_message", ""),
    ] {
        let told = does(deed).run();
        told.succeeded();
        assert_eq!(told.statuses(), [(0, CellStatus::Ok)], "{deed}");
        let log = told.log(LogStream::Platform);
        assert!(log.contains(words), "{deed}: {log}");
        assert!(told.peak_memory < 256 << 20, "{deed}: {}", told.peak_memory);
    }
}

/// As root the job becomes an ordinary user who can touch nothing of the driver's; an ordinary user cannot become
/// another one, and then nothing of the job runs.
#[test]
fn a_job_with_a_user_is_that_user_and_nothing_more() {
    let reach = "id -u; id -G; grep -E 'CapEff|CapPrm|NoNewPrivs' /proc/self/status; cat /proc/self/oom_score_adj\n\
        for deed in 'touch out/x' 'rm -f out/events.ndjson' 'mv out away' 'rm job.json'; do\n\
          (cd .. && sh -c \"$deed\" 2>/dev/null) && echo \"could: $deed\"; done\n\
        echo '{}' 2>/dev/null > ../out/result.json && echo 'could: forge'\n\
        kill -9 $PPID 2>/dev/null && echo 'could: kill'\n\
        ln -s /etc link; mkdir deep; echo x > deep/file; echo done";
    let mut world = World::command(reach);
    let user = RunAs {
        uid: 54_321,
        gid: 54_322,
        processes: 4_000,
    };
    let agent = (54_400, 54_401);
    world.job.user = Some(user);
    world.job.hand_over = Some(HandOver {
        uid: agent.0,
        gid: agent.1,
        paths: vec![world.job.workdir.clone()],
    });
    if !rustix::process::geteuid().is_root() {
        let told = world.run();
        assert_eq!(told.failure().owner(), Owner::Platform);
        assert!(!told.world.path("work/deep").exists());
        return;
    }
    // The worst case: the folder above belongs to the job's own user.
    for folder in ["", "work"] {
        chown(world.path(folder), Some(user.uid), Some(user.gid)).unwrap();
    }
    let told = world.run();
    told.succeeded();
    let said = told.log(LogStream::Stdout);
    let expected = "54321\n54322\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n1000\ndone\n";
    assert_eq!(said, expected);
    for path in [
        "",
        "out",
        "out/events.ndjson",
        "out/result.json",
        "work",
        "work/deep/file",
    ] {
        let owner = fs::symlink_metadata(told.world.path(path)).unwrap();
        assert_eq!((owner.uid(), owner.gid()), agent, "{path}");
    }
    assert_eq!(
        fs::symlink_metadata(told.world.path("work/link"))
            .unwrap()
            .uid(),
        agent.0
    );
    assert_eq!(fs::metadata("/etc").unwrap().uid(), 0);
}

#[test]
fn the_kernel_does_not_outlive_a_driver_that_is_killed() {
    let mut running =
        World::cell("import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(1000)")
            .start();
    running.until_said("pid ");
    let events = fs::read_to_string(running.world.path("out/events.ndjson")).unwrap();
    let (_, after) = events.split_once("pid ").unwrap();
    let pid: String = after.chars().take_while(char::is_ascii_digit).collect();
    assert!(lives(&pid));
    running.signal(Signal::KILL);
    running.child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while lives(&pid) {
        assert!(Instant::now() < deadline, "{pid} lives");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!running.world.path("out/result.json").exists());
}

#[test]
fn a_job_that_forks_to_its_limit_is_told_so() {
    let mut world = World::command("exec prlimit --nproc=60 sh -c 'while :; do sleep 1000 & done'");
    let user = RunAs {
        uid: 54_323,
        gid: 54_323,
        processes: 60,
    };
    // Root has no such limit.
    let root = rustix::process::geteuid().is_root();
    if root {
        world.job.user = Some(user);
        chown(world.path(""), Some(user.uid), Some(user.gid)).unwrap();
    }
    let told = world.run();
    let failure = told.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::ProcessLimit, Owner::Limit)
    );
    let limit = LimitReached::Processes { limit: 60 };
    assert_eq!(failure.limit, root.then_some(limit));
    let theirs = fs::read_dir("/proc").unwrap().flatten();
    let theirs = theirs.filter(|entry| entry.metadata().is_ok_and(|m| m.uid() == user.uid));
    assert_eq!(theirs.count(), 0);
}
