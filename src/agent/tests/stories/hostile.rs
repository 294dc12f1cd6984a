//! Jobs that do their worst: right owner and kind, the host unharmed, nothing left behind.

use protocol::agent_api::AttemptOrder;
use protocol::outcome::LimitReached;
use protocol::{ByteSize, FailureKind, Outcome, Owner, Trust};

use crate::support::{Done, World, engine, until};

/// Runs it, and looks that nothing is left.
async fn endure(world: &World, order: &AttemptOrder) -> Done {
    let done = world.run(order).await;
    assert!(world.containers(order).is_empty(), "a container is left");
    assert_eq!(done.dir.report().unwrap().as_ref(), Some(&done.report));
    let forgotten = agent::attempt::forget(&done.dir, protocol::Timestamp(i64::MAX)).unwrap();
    assert!(forgotten && !done.dir.path().exists(), "files are left");
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_forks_to_the_limit() {
    if !engine().await {
        return;
    }
    let world = World::with(|config| config.jobs.processes = 200);
    let order = world.python(
        "import os, time\n\
         children = []\n\
         try:\n\
         \x20   while True:\n\
         \x20       pid = os.fork()\n\
         \x20       if pid == 0:\n\
         \x20           time.sleep(600)\n\
         finally:\n\
         \x20   time.sleep(1)\n",
    );
    let done = endure(&world, &order).await;
    let failure = done.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::ProcessLimit, Owner::Limit),
        "{failure:?}"
    );
    assert_eq!(failure.limit, Some(LimitReached::Processes { limit: 200 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_driver_is_killed_without_a_container() {
    let world = World::with(|config| {
        config.executors.docker = false;
        config.executors.shell = true;
    });
    // It leaves the driver's process group, and asks to outlive it.
    let order = world.command("setsid sleep 600 & echo $! >pid; kill -9 $PPID; sleep 600");
    let done = world.run(&order).await;
    let failure = done.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::ExecutorFailed, Owner::Platform),
        "{failure:?}"
    );
    let pid = std::fs::read_to_string(done.dir.workspace().join("pid")).unwrap();
    let gone = || match std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    until("the end of what was left", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_job_does_not_begin_where_none_is_isolated() {
    let world = World::with(|config| {
        config.executors.docker = false;
        config.executors.shell = true;
    });
    let mut order = world.command("echo I was here");
    order.trust = Trust::Untrusted;
    let done = world.run(&order).await;
    let failure = done.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::ExecutorFailed, Owner::Platform),
        "another host may take it"
    );
    assert!(!done.text().contains("I was here"), "{}", done.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_forks_to_the_limit_and_says_that_it_went_well() {
    if !engine().await {
        return;
    }
    let world = World::with(|config| config.jobs.processes = 100);
    let order = world.python(
        "import os, time\n\
         try:\n\
         \x20   while True:\n\
         \x20       if os.fork() == 0:\n\
         \x20           time.sleep(600)\n\
         except BlockingIOError:\n\
         \x20   os._exit(0)\n",
    );
    // Its word counts, and what it left does not outlive it.
    endure(&world, &order).await.succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fills_memory() {
    if !engine().await {
        return;
    }
    let world = World::new();
    world.notebook(
        "eat.ipynb",
        &[
            "print('before')",
            "x = []\nwhile True:\n    x.append(bytearray(16 << 20))",
        ],
    );
    let mut order = world.order(protocol::Work::Notebook {
        path: "eat.ipynb".into(),
    });
    order.spec.resources.memory = ByteSize::mib(256);
    let done = world.run(&order).await;
    let failure = done.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::OutOfMemory, Owner::Limit),
        "{failure:?}"
    );
    let Some(LimitReached::Bytes {
        limit,
        used: Some(used),
    }) = &failure.limit
    else {
        panic!("{failure:?}")
    };
    assert_eq!(*limit, ByteSize::mib(256));
    assert!(*used > ByteSize::mib(128), "{used}");
    assert!(
        failure.hint.as_ref().unwrap().contains("memory: 1GiB"),
        "{failure:?}"
    );
    // The cell before is kept.
    assert!(
        String::from_utf8(done.blob("eat.ipynb"))
            .unwrap()
            .contains("before\\n")
    );
    assert!(world.containers(&order).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fills_tmp() {
    if !engine().await {
        return;
    }
    let world = World::with(|config| config.disk.job = Some(ByteSize::mib(64)));
    let order = world.command("head -c 128M /dev/zero >/tmp/a; sleep 100");
    let done = endure(&world, &order).await;
    let failure = done.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::DiskLimit, Owner::Limit),
        "{failure:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fills_the_caches_that_it_shares() {
    let world = World::with(|config| {
        (config.executors.docker, config.executors.shell) = (false, true);
        config.disk.job = Some(ByteSize::mib(32));
    });
    let fills = |bytes| format!("head -c {bytes} /dev/zero >$XDG_CACHE_HOME/{bytes}");
    for earlier in ["20M", "21M"] {
        let done = endure(&world, &world.command(&fills(earlier))).await;
        assert_eq!(done.report.outcome, Outcome::Succeeded);
    }
    let order = world.command(&format!("{}; sleep 100", fills("64M")));
    let done = endure(&world, &order).await;
    let failure = done.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::DiskLimit, Owner::Limit),
        "{failure:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fills_the_disk_with_what_it_logs() {
    let world = World::with(|config| {
        (config.executors.docker, config.executors.shell) = (false, true);
        config.disk.job = Some(ByteSize::mib(8));
    });
    let mut order = world.python(
        "import os, urllib.request\n\
         print(os.environ['MLFLOW_HTTP_REQUEST_TIMEOUT'], flush=True)\n\
         place = os.environ['MLFLOW_TRACKING_URI'] + '/api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/a'\n\
         ask = urllib.request.Request(place, data=bytes(32 << 20), method='PUT')\n\
         print(urllib.request.urlopen(ask).status)\n",
    );
    order.run = Some("0".repeat(32));
    // Nobody serves the agent's socket: all of it lies with the driver.
    let done = endure(&world, &order).await;
    let failure = done.failure();
    assert_eq!(failure.kind, FailureKind::DiskLimit, "{failure:?}");
    assert_eq!(done.said, "1200\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_kills_everything_it_can() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let done = endure(
        &world,
        &world.command("kill -9 1; kill -9 -1; echo alive; exit 3"),
    )
    .await;
    let failure = done.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::CommandFailed, Owner::User),
        "{failure:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_forges_its_story() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let order = world.command(
        "for f in /trainyard/out/result.json /trainyard/out/events.ndjson /trainyard/job.json /trainyard/x; do \
           echo '{\"verdict\":\"succeeded\"}' 2>/dev/null >$f && echo wrote $f; done; \
         mv /trainyard/out /trainyard/other 2>/dev/null && echo moved; \
         rm -rf /trainyard/out 2>/dev/null; ln -sfn /tmp /trainyard/out 2>/dev/null && echo linked; exit 7",
    );
    let done = endure(&world, &order).await;
    assert_eq!(
        done.failure().kind,
        FailureKind::CommandFailed,
        "{:?}",
        done.failure()
    );
    assert!(done.failure().message.contains('7'), "{:?}", done.failure());
    assert_eq!(done.text(), "", "it could write");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_leaves_processes_links_and_locked_folders() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let mut order = world.command(
        "mkdir -p out/locked && echo secret >out/locked/file && chmod 000 out/locked; \
         ln -s /etc/shadow out/shadow; ln -s / out/root; mkfifo out/pipe; echo fine >out/fine; \
         (setsid sleep 600 &) ; echo done",
    );
    order.spec.artifacts = vec!["out/**".into()];
    let done = world.run(&order).await;
    done.succeeded();
    let paths: Vec<&str> = done
        .report
        .artifacts
        .iter()
        .map(|a| a.path.as_str())
        .collect();
    assert_eq!(paths, ["out/fine", "out/locked/file"]);
    assert!(world.containers(&order).is_empty());
    assert!(agent::attempt::forget(&done.dir, protocol::Timestamp::now()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_may_is_little() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let order = world.python(
        "import os, socket\n\
         status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)\n\
         print('uid', os.getuid(), 'caps', status['CapEff'], status['CapBnd'], 'nnp', status['NoNewPrivs'], 'seccomp', status['Seccomp'])\n\
         print('nets', sorted(os.listdir('/sys/class/net')), 'me', socket.gethostbyname(socket.gethostname()))\n\
         for path in ['/x', '/usr/x', '/needs/x', '/etc/x']:\n\
         \x20   try:\n\
         \x20       open(path, 'w'); print('wrote', path)\n\
         \x20   except OSError as e: print(path, e.errno)\n\
         for path in [os.environ['HOME'], '/tmp', '/var/tmp', os.environ['XDG_CACHE_HOME'], '/dev/shm', '.']:\n\
         \x20   open(path + '/x', 'w').write('y')\n\
         print('docker', os.path.exists('/var/run/docker.sock'))\n",
    );
    let done = endure(&world, &order).await;
    let text = done.text();
    assert_eq!(done.report.outcome, Outcome::Succeeded, "{text}");
    let uid = world.host.job_user.0;
    assert_ne!(uid, 0);
    assert!(
        text.contains(&format!("uid {uid} caps 0000000000000000 ")),
        "{text}"
    );
    assert!(text.contains("nnp 1 seccomp 2"), "{text}");
    assert!(text.contains("nets ['lo'] me 127.0.0.1"), "{text}");
    assert!(
        !text.contains("wrote") && text.contains("docker False"),
        "{text}"
    );
}
