//! Notebooks that end badly, early or by force.

use std::fs;
use std::time::{Duration, Instant};

use notebook::message::StreamName;
use protocol::driver::{CellCount, Verdict};
use protocol::event::{CellStatus, EventKind};
use protocol::outcome::{FailureKind, LimitReached, Owner};
use protocol::units::{ByteSize, Span};
use rustix::process::Signal;

use crate::support::{World, lives};

#[test]
fn a_cell_that_raises_ends_it_and_all_before_is_kept() {
    let told = World::notebook(&[
        ("print('kept')", &[]),
        ("def f():\n    return 1 / 0\n\nf()", &[]),
        ("print('never')", &[]),
    ])
    .run();
    let failure = told.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::CellRaised, Owner::User)
    );
    assert_eq!(failure.message, "ZeroDivisionError: division by zero");
    assert!(failure.detail.as_ref().unwrap().contains("Traceback"));
    let cell = failure.cell.as_ref().unwrap();
    assert_eq!((cell.index, cell.line), (1, Some(4)));
    assert!(cell.raw_line.is_some());
    assert_eq!(
        told.statuses(),
        [(0, CellStatus::Ok), (1, CellStatus::Error)]
    );
    let executed = told.executed();
    assert_eq!(executed["cells"][0]["outputs"][0]["text"][0], "kept\n");
    assert_eq!(
        executed["cells"][1]["outputs"][0]["ename"],
        "ZeroDivisionError"
    );
    assert_eq!(
        executed["cells"][2]["execution_count"],
        serde_json::Value::Null
    );
    assert_eq!(
        told.result.cells,
        CellCount {
            executed: 2,
            total: 3
        }
    );
}

#[test]
fn a_missing_module_and_an_input_are_answered_with_advice() {
    let told = World::cell("import no_such_package.sub").run();
    assert!(
        told.failure()
            .hint
            .as_ref()
            .unwrap()
            .contains("'no_such_package'")
    );

    let began = Instant::now();
    let told = World::cell("input('name? ')").run();
    assert_eq!(told.failure().kind, FailureKind::CellRaised);
    assert!(
        told.failure().hint.as_ref().unwrap().contains("parameter"),
        "{:?}",
        told.failure()
    );
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_kernel_that_ends_itself_is_told_from_one_that_is_killed() {
    let told = World::cell("import os, sys\nprint('last words', flush=True)\nos.write(2, b'fatal: no more\\n')\nos._exit(7)").run();
    let failure = told.failure();
    assert_eq!(
        (failure.kind, failure.cell.as_ref().unwrap().index),
        (FailureKind::KernelDied, 0)
    );
    assert!(
        failure.message.contains("exit code 7: fatal: no more"),
        "{}",
        failure.message
    );
    assert_eq!(told.stream(0, StreamName::Stderr), "fatal: no more\n");
    assert_eq!(told.statuses(), [(0, CellStatus::Interrupted)]);
    assert!(
        told.events
            .iter()
            .any(|e| matches!(e, EventKind::Kernel { status, .. } if status == "died"))
    );

    // Python itself says why it crashes, while it does.
    let crash = "import faulthandler, os\nfaulthandler.enable()\nos.abort()";
    let told = World::notebook(&[
        ("import os; _ = os.write(2, b'earlier\\n')", &[]),
        (crash, &[]),
    ])
    .run();
    let failure = told.failure();
    let reason = "signal 6 (SIGABRT): Fatal Python error: Aborted";
    assert!(failure.message.ends_with(reason), "{}", failure.message);
    let detail = failure.detail.as_ref().unwrap();
    assert!(detail.starts_with("Fatal Python error"), "{detail}");

    let mut world = World::cell(
        "import os, signal, time\nopen('t', 'w').write(str(time.time()))\nos.kill(os.getpid(), signal.SIGKILL)",
    );
    world.job.grace = Span::secs(60);
    let told = world.run();
    assert_eq!(told.result.signal, Some(9));
    assert!(told.failure().hint.as_ref().unwrap().contains("memory"));
    let died: f64 = fs::read_to_string(told.world.path("work/t"))
        .unwrap()
        .parse()
        .unwrap();
    let noticed = told.result.finished_at.0 as f64 / 1_000.0 - died;
    assert!(noticed < 5.0, "noticed after {noticed} s");
    assert_eq!(told.executed()["cells"].as_array().unwrap().len(), 1);
}

#[test]
fn a_kernel_that_leaves_while_its_process_stays_is_ended() {
    let told = World::cell("import os\nos.execv('/bin/sleep', ['sleep', '1000'])").run();
    let failure = told.failure();
    assert_eq!(failure.kind, FailureKind::KernelDied);
    assert!(
        failure.message.contains("closed its connections"),
        "{}",
        failure.message
    );
    assert!(failure.hint.as_ref().unwrap().contains("os.exec"));

    let told = World::notebook(&[("print('kept')", &[]), ("import os; os._exit(0)", &[])]).run();
    let failure = told.failure();
    assert_eq!(failure.kind, FailureKind::KernelDied);
    assert!(
        failure.message.contains("exit code 0"),
        "{}",
        failure.message
    );
    assert!(
        failure.hint.as_ref().unwrap().contains("os._exit"),
        "{:?}",
        failure.hint
    );
    assert_eq!(
        told.executed()["cells"][0]["outputs"][0]["text"][0],
        "kept\n"
    );
}

#[test]
fn a_kernel_that_never_answers_is_given_up() {
    let mut world = World::cell("1");
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    let fake = |text: &str| {
        fs::write(bin.join("python3"), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(bin.join("python3"), mode).unwrap();
    };
    let path = format!("{}:/usr/bin:/bin", bin.display());
    world.job.env.insert("PATH".into(), path.clone());
    world.job.kernel_start_timeout = Span::secs(1);
    fake("#!/bin/sh\necho thinking >&2\nexec sleep 1000\n");
    let told = world.run();
    let failure = told.failure();
    assert_eq!(failure.kind, FailureKind::KernelDied);
    assert!(
        failure.message.contains("1.0s") && failure.detail.as_ref().unwrap().contains("thinking"),
        "{failure:?}"
    );

    let mut world = World::cell("1");
    fs::create_dir(world.path("bin")).unwrap();
    let python = world.path("bin/python3");
    fs::write(
        &python,
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'ipykernel'\" >&2\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world.job.env.insert(
        "PATH".into(),
        format!("{}:/usr/bin:/bin", world.path("bin").display()),
    );
    let told = world.run();
    assert_eq!(told.failure().kind, FailureKind::ImageUnusable);
    assert!(told.failure().hint.as_ref().unwrap().contains("ipykernel"));
}

#[test]
fn a_cell_that_is_too_slow_is_interrupted_and_keeps_its_traceback() {
    let mut world = World::notebook(&[
        ("print('start')\nimport time\ntime.sleep(1000)", &[]),
        ("1", &[]),
    ]);
    world.job.limits.cell_timeout = Some(Span::secs(2));
    let told = world.run();
    let failure = told.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::CellTimeout, Owner::Limit)
    );
    assert_eq!(
        failure.limit,
        Some(LimitReached::Time {
            limit: Span::secs(2)
        })
    );
    assert_eq!(failure.cell.as_ref().unwrap().index, 0);
    assert_eq!(told.statuses(), [(0, CellStatus::Interrupted)]);
    let outputs = told.executed()["cells"][0]["outputs"].clone();
    assert_eq!(outputs[0]["text"][0], "start\n");
    assert_eq!(outputs[1]["ename"], "KeyboardInterrupt");
}

#[test]
fn a_cell_that_ignores_the_interrupt_is_killed_after_the_grace() {
    let source = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)";
    let mut world = World::cell(source);
    world.job.limits.cell_timeout = Some(Span::secs(1));
    world.job.grace = Span::secs(1);
    let told = world.run();
    assert_eq!(told.failure().kind, FailureKind::CellTimeout);
    assert_eq!(told.result.signal, Some(9));
}

#[test]
fn job_and_silence_have_limits_of_their_own() {
    let talker = "import time\nfor i in range(10000):\n    print(i, flush=True); time.sleep(0.05)";
    let mut world = World::cell(talker);
    world.job.limits.timeout = Span::secs(3);
    world.job.limits.silence_timeout = Some(Span::secs(2));
    let told = world.run();
    assert_eq!(told.failure().kind, FailureKind::JobTimeout);

    let mut world = World::cell("import time\nprint('x', flush=True)\ntime.sleep(1000)");
    world.job.limits.silence_timeout = Some(Span::secs(1));
    let told = world.run();
    assert_eq!(told.failure().kind, FailureKind::SilenceTimeout);
    assert_eq!(told.stdout(0), "x\n");
}

#[test]
fn a_cell_that_prints_without_end_reaches_the_output_limit() {
    let mut world = World::cell("while True: print('x' * 1000)");
    world.job.output.job = ByteSize::mib(1);
    let told = world.run();
    assert_eq!(
        (told.failure().kind, told.failure().owner()),
        (FailureKind::OutputLimit, Owner::Limit)
    );
    assert!(
        fs::metadata(told.world.path("out/events.ndjson"))
            .unwrap()
            .len()
            < 2 << 20
    );
}

#[test]
fn told_to_stop_it_interrupts_and_keeps_what_there_is() {
    let mut running =
        World::cell("import time\nprint('working', flush=True)\ntime.sleep(1000)").start();
    running.until_said("working");
    running.signal(Signal::TERM);
    let told = running.end();
    assert_eq!(told.result.verdict, Verdict::Stopped);
    assert_eq!(told.result.signal, None, "nothing was cut off");
    assert_eq!(told.statuses(), [(0, CellStatus::Interrupted)]);
    assert_eq!(
        told.executed()["cells"][0]["outputs"][0]["text"][0],
        "working\n"
    );
}

#[test]
fn told_to_stop_it_says_that_the_kernel_had_to_be_killed() {
    let source = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf', flush=True)\nwhile True: time.sleep(1)";
    let mut world = World::cell(source);
    world.job.grace = Span::secs(1);
    let mut running = world.start();
    running.until_said("deaf");
    running.signal(Signal::TERM);
    let told = running.end();
    assert_eq!(
        (told.result.verdict, told.result.signal),
        (Verdict::Stopped, Some(9))
    );
}

#[test]
fn told_to_stop_while_the_kernel_starts_it_stops() {
    let mut running = World::cell("1").start();
    running.until_said("starting");
    running.signal(Signal::TERM);
    assert_eq!(running.end().result.verdict, Verdict::Stopped);
}

#[test]
fn nothing_of_the_job_outlives_it() {
    let source = "import subprocess\n\
        child = subprocess.Popen(['sleep', '1000'])\n\
        away = subprocess.run(['sh', '-c', 'setsid sleep 1001 >/dev/null 2>&1 & echo $!'], capture_output=True, text=True)\n\
        import os, time\n\
        read, write = os.pipe()\n\
        if os.fork() == 0:\n\
        \x20   os.setsid()\n\
        \x20   if os.fork() == 0:\n\
        \x20       for fd in (0, 1, 2): os.close(fd)\n\
        \x20       os.write(write, str(os.getpid()).encode())\n\
        \x20       time.sleep(1000)\n\
        \x20   os._exit(0)\n\
        print(child.pid, away.stdout.strip(), os.read(read, 99).decode())";
    let told = World::cell(source).run();
    told.succeeded();
    let said = told.stdout(0);
    let pids: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(pids.len(), 3, "{said}");
    for pid in pids {
        assert!(!lives(pid), "{pid} lives");
    }
}

#[test]
fn the_notebook_is_written_while_it_runs() {
    let mut running = World::notebook(&[
        ("print('first')", &[]),
        ("import time\ntime.sleep(1000)", &[]),
    ])
    .start();
    running.until("the notebook", |world| {
        fs::read_to_string(world.path("out/executed.ipynb"))
            .is_ok_and(|text| text.contains("first\\n"))
    });
    running.signal(Signal::TERM);
    assert_eq!(running.end().result.verdict, Verdict::Stopped);
}

#[test]
fn what_a_notebook_leaves_running_does_not_keep_it_from_its_end() {
    let cells = [
        "import subprocess\nleft = subprocess.Popen(['sleep', '600'])\nprint(left.pid)",
        "import os, threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\nprint(os.getpid())",
    ];
    for cell in cells {
        let mut world = World::cell(cell);
        world.job.grace = Span::secs(60);
        let began = Instant::now();
        let told = world.run();
        told.succeeded();
        assert!(!lives(told.stdout(0).trim()));
        assert!(began.elapsed() < Duration::from_secs(30), "{cell}");
    }
}

/// The threads of the kernel that answer and that send what is said stop in an order in which none waits for ever: here
/// with the moments drawn out in which they did.
#[test]
fn the_threads_of_a_kernel_do_not_wait_for_each_other_at_its_end() {
    // At that end the cell's names are gone.
    let source = "import time\ndef draw_out(kernel, sleep):\n    loop = kernel.iopub_thread.io_loop\n    \
        close, shut_down = loop.close, kernel.control_handlers['shutdown_request']\n    \
        def slow_close(*args, **more):\n        sleep(2)\n        close(*args, **more)\n    \
        async def slow_answer(*args):\n        await shut_down(*args)\n        sleep(0.5)\n    \
        loop.close = slow_close\n    kernel.control_handlers['shutdown_request'] = slow_answer\n\
        draw_out(get_ipython().kernel, time.sleep)";
    let told = World::cell(source).run();
    told.succeeded();
    let Some(EventKind::Kernel { status, detail }) = told.events.last() else {
        panic!("{:?}", told.events.last())
    };
    assert_eq!(
        (status.as_str(), detail.as_deref()),
        ("ended", Some("exit code 0"))
    );
}
