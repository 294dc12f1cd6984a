//! Jobs that mean no good: a kernel that breaks the protocol, a job that reaches for the driver's files.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::time::{Duration, Instant};

use protocol::driver::{HandOver, RunAs};
use protocol::event::LogStream;
use protocol::outcome::{FailureKind, LimitReached, Owner};
use rustix::process::Signal;

use crate::support::{World, lives, python};

/// A "kernel" that opens its sockets as one would, and then does what `deed` says with a connection to iopub.
const KERNEL: &str = r#"
import json, os, socket, sys, threading, time
connection = json.load(open(sys.argv[sys.argv.index('-f') + 1]))
greeting = (b'\xff' + bytes(8) + b'\x7f\x03\x00NULL').ljust(64, b'\0')
def frame(flags, body): return bytes([flags, len(body)]) + body
def ready(kind): return frame(4, b'\x05READY\x0bSocket-Type' + len(kind).to_bytes(4, 'big') + kind)
def listen(number, kind, deed):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(connection['ip'] + '-' + str(number))
    listener.listen()
    def serve():
        peer = listener.accept()[0]
        peer.sendall(greeting)
        peer.recv(64)
        peer.sendall(ready(kind))
        deed(peer)
        time.sleep(1000)
    threading.Thread(target=serve).start()
def terabyte(peer):
    peer.sendall(b'\x02' + (1 << 40).to_bytes(8, 'big'))
    try:
        while True: peer.sendall(bytes(1 << 20))
    except OSError: pass
def garbage(peer): peer.sendall(b'\xff' * 100)
def forged(peer): peer.sendall(b''.join(frame(1, part) for part in [b'<IDS|MSG>', b'0' * 64, b'{}', b'{}', b'{}']) + frame(0, b'{}'))
def closes(peer): peer.close()
def quiet(peer): pass
listen(1, b'ROUTER', quiet)
listen(4, b'ROUTER', quiet)
listen(2, b'PUB', globals()[os.environ['DEED']])
"#;

#[test]
fn a_kernel_that_breaks_the_protocol_is_ended() {
    let deeds = [
        ("terabyte", FailureKind::OutputLimit, "1099511627776 bytes"),
        ("garbage", FailureKind::KernelDied, "flags 0xff"),
        ("forged", FailureKind::KernelDied, "wrong signature"),
        ("closes", FailureKind::KernelDied, "closed"),
    ];
    for (deed, kind, words) in deeds {
        let mut world = World::cell("1");
        let bin = world.path("bin");
        fs::create_dir(&bin).unwrap();
        world.write("kernel.py", KERNEL);
        let text = format!(
            "#!/bin/sh\nexec '{}' kernel.py \"$@\"\n",
            python().display()
        );
        fs::write(bin.join("python3"), text).unwrap();
        fs::set_permissions(bin.join("python3"), fs::Permissions::from_mode(0o755)).unwrap();
        world
            .job
            .env
            .insert("PATH".into(), format!("{}:/usr/bin:/bin", bin.display()));
        world.job.env.insert("DEED".into(), deed.into());
        let began = Instant::now();
        let told = world.run();
        assert_eq!(told.failure().kind, kind, "{deed}");
        assert!(
            told.failure().message.contains(words),
            "{deed}: {}",
            told.failure().message
        );
        assert!(began.elapsed() < Duration::from_secs(30), "{deed}");
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
