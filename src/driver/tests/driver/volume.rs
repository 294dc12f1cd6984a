//! Much of everything: text, displays, messages. All of it arrives, in order, and the driver stays small.

use std::fs;
use std::time::{Duration, Instant};

use notebook::message::{OutputMessage, StreamName};
use protocol::event::LogStream;
use protocol::outcome::FailureKind;
use protocol::units::ByteSize;
use rustix::process::Signal;
use serde_json::json;

use crate::support::{Told, World};

/// A cell of about 40,000 messages: progress that is printed, flushed, and shown.
const PROGRESS: &str = "import sys\nfrom IPython.display import display\nshown = display({'text/plain': '0'}, raw=True, display_id=True)\n\
    for i in range(10_000):\n    print('step', i, flush=True)\n    print('warn', i, file=sys.stderr, flush=True)\n    \
    shown.update({'text/plain': str(i)}, raw=True)\n    display({'text/plain': f'd{i}'}, raw=True)";

/// How long a reader or a disk stands still: longer than ipykernel itself waits for what it has said to be sent.
const STALL: Duration = Duration::from_secs(12);

/// Holds that a stream of the cell is `prefix` and a number on each line, and nothing else.
fn counts(told: &Told, name: StreamName, prefix: &str) {
    let expected: String = (0..10_000).map(|i| format!("{prefix} {i}\n")).collect();
    let said = told.stream(0, name);
    if said == expected {
        return;
    }
    let pairs = said.bytes().zip(expected.bytes());
    let at = pairs
        .take_while(|(said, expected)| said == expected)
        .count();
    let mut from = 0;
    let mut near = Vec::new();
    for (place, output) in told.outputs(0).into_iter().enumerate() {
        if let OutputMessage::Stream { name: of, text } = output
            && of == name
        {
            let to = from + text.len();
            if to + 100 > at && from < at + 100 {
                near.push(format!("output {place}, bytes {from} to {to}: {text:?}"));
            }
            from = to;
        }
    }
    panic!(
        "{name:?} is not what was printed from byte {at} on ({} instead of {} bytes). Near it came:\n{}\nThe kernel said beside its cells: {:?}",
        said.len(),
        expected.len(),
        near.join("\n"),
        told.log(LogStream::Stderr)
    );
}

/// Holds that nothing of [`PROGRESS`] is missing or out of order.
fn all_is_there(told: &Told) {
    told.succeeded();
    counts(told, StreamName::Stdout, "step");
    counts(told, StreamName::Stderr, "warn");
    assert_eq!(told.log(LogStream::Stderr), "");
    let shown = |output: OutputMessage| match output {
        OutputMessage::DisplayData { data, .. } => {
            Some(data["text/plain"].as_str()?.to_owned() + "\n")
        }
        _ => None,
    };
    let displays: String = told.outputs(0).into_iter().filter_map(shown).collect();
    let expected: String = (-1..10_000)
        .map(|i| {
            if i < 0 {
                "0\n".to_owned()
            } else {
                format!("d{i}\n")
            }
        })
        .collect();
    assert!(displays == expected, "{displays}");
    let outputs = told.executed()["cells"][0]["outputs"].clone();
    assert_eq!(outputs[0]["data"]["text/plain"], json!(["9999"]));
    let kept = outputs.as_array().unwrap();
    let of = |kind: &str| {
        kept.iter()
            .filter(|output| output["output_type"] == kind)
            .count()
    };
    assert_eq!(of("display_data"), 10_001);
}

#[test]
fn a_reader_that_is_stopped_for_a_while_loses_nothing() {
    let mut running = World::cell(PROGRESS).start();
    running.until_said("step 500");
    running.signal(Signal::STOP);
    // The stall is what is told of: the kernel fills every buffer, and has to wait.
    std::thread::sleep(STALL);
    running.signal(Signal::CONT);
    all_is_there(&running.end());
}

/// A kernel ends by itself after a cell that calls `exit()`: not before all is on its way to us, and what it said before
/// is heard before its end.
#[test]
fn a_kernel_that_leaves_is_heard_out_by_a_reader_that_is_stopped() {
    for lines in [1, 900] {
        let source = format!(
            "import os, time\nprint('ready', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\n\
             for i in range({lines}): print('line', i, flush=True)\nopen('said', 'w').close()\nexit()"
        );
        let mut running = World::cell(&source).start();
        running.until_said("ready");
        running.signal(Signal::STOP);
        running.world.write("go", "");
        running.until("the last line", |world| world.path("work/said").exists());
        // With few lines it ends in this time; with many it would, if it did not wait for its reader.
        std::thread::sleep(Duration::from_secs(3));
        running.signal(Signal::CONT);
        let told = running.end();
        told.succeeded();
        let said: String = (0..lines).map(|i| format!("line {i}\n")).collect();
        assert!(
            told.stdout(0) == "ready\n".to_owned() + &said,
            "{}",
            told.stdout(0)
        );
    }
}

/// A disk that takes nothing for a while: a file system of its own, frozen. Only root can make one.
#[test]
fn a_disk_that_blocks_for_a_while_loses_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("passed over: only root can freeze a file system");
        return;
    }
    let mut world = World::cell(PROGRESS);
    let disk = Disk::mount(&world);
    world.job.output.cell = ByteSize::gib(1);
    let mut running = world.start();
    running.until_said("step 500");
    disk.freeze(true);
    std::thread::sleep(STALL);
    let length = || fs::metadata(disk.0.join("events.ndjson")).unwrap().len();
    let frozen_at = length();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(length(), frozen_at, "the disk was frozen");
    disk.freeze(false);
    all_is_there(&running.end());
}

/// A small ext4 in a file, mounted as the driver's out folder until it is dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(world: &World) -> Self {
        let (image, out) = (world.path("disk"), world.path("out"));
        fs::create_dir(&out).unwrap();
        fs::File::create(&image)
            .unwrap()
            .set_len(256 << 20)
            .unwrap();
        tool("mkfs.ext4", &["-q", image.to_str().unwrap()]);
        tool(
            "mount",
            &["-o", "loop", image.to_str().unwrap(), out.to_str().unwrap()],
        );
        Self(out)
    }

    fn freeze(&self, frozen: bool) {
        let how = if frozen { "--freeze" } else { "--unfreeze" };
        tool("fsfreeze", &[how, self.0.to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Thawed first: also a test that failed leaves nothing behind.
        for (program, how) in [("fsfreeze", "--unfreeze"), ("umount", "--lazy")] {
            let _ = std::process::Command::new(program)
                .arg(how)
                .arg(&self.0)
                .output();
        }
    }
}

fn tool(program: &str, arguments: &[&str]) {
    let done = std::process::Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {done:?}");
}

#[test]
fn a_cell_past_its_limit_is_cut_and_the_rest_lies_beside() {
    let source = "from IPython.display import display\nfor i in range(100_000): print('line', i)\n\
        display({'text/plain': 'beside'}, raw=True)\nraise ValueError('seen')";
    let mut world = World::notebook(&[("print('before')", &[]), (source, &[])]);
    world.job.output.cell = ByteSize(200_000);
    let told = world.run();
    assert_eq!(told.failure().message, "ValueError: seen");
    let outputs = told.executed()["cells"][1]["outputs"].clone();
    let outputs = outputs.as_array().unwrap();
    let text = |index: usize| {
        let lines = outputs[index]["text"].as_array().unwrap().iter();
        lines.map(|line| line.as_str().unwrap()).collect::<String>()
    };
    assert!(
        text(1).contains("[trainyard] This cell's output is larger than 195 KiB; the rest is in the artifact outputs/cell-2.*"),
        "{}",
        text(1)
    );
    let rest = fs::read_to_string(told.world.path("out/rest/cell-2.txt")).unwrap();
    let all: String = (0..100_000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(text(0) + &rest, all);
    let beside = fs::read_to_string(told.world.path("out/rest/cell-2.ndjson")).unwrap();
    let beside: serde_json::Value = serde_json::from_str(&beside).unwrap();
    assert_eq!(beside["data"]["text/plain"], "beside");
    assert_eq!(outputs.len(), 3);
    assert_eq!(outputs[2]["ename"], "ValueError");
    assert_eq!(told.stdout(0), "before\n");
}

#[test]
fn the_whole_notebook_has_a_limit_too_and_so_has_the_job() {
    let print = "print('x' * 99_999)";
    let mut world = World::notebook(&[(print, &[]), (print, &[]), ("print('y')", &[])]);
    world.job.output.notebook = ByteSize(150_000);
    let told = world.run();
    told.succeeded();
    let size = |cell: u32| told.stdout(cell).len();
    assert_eq!(
        (size(0), told.stream(1, StreamName::Stderr).is_empty()),
        (100_000, false)
    );
    let rest = fs::metadata(told.world.path("out/rest/cell-2.txt")).unwrap();
    assert_eq!(size(1) + rest.len() as usize, 100_000);

    let mut world = World::cell("while True: print('x' * 1000)");
    world.job.output.cell = ByteSize::mib(1);
    world.job.output.job = ByteSize::mib(4);
    assert_eq!(world.run().failure().kind, FailureKind::OutputLimit);
}

/// Large things of every kind go through the driver without being held by it.
#[test]
fn memory_does_not_grow_with_what_is_said() {
    let source = "from IPython.display import display\nimport os\n\
        display({'text/html': '\\n'.join(['<p>\"é\"</p>'] * 4_000_000)}, raw=True)\n\
        print('line\\n' * 6_000_000)\nfor i in range(200_000): print(i)\nprint('\\udcff\\x00')";
    let began = Instant::now();
    let mut world = World::cell(source);
    world.job.output.cell = ByteSize::mib(128);
    let told = world.run();
    told.succeeded();
    let html = told.executed()["cells"][0]["outputs"][0]["data"]["text/html"].clone();
    assert_eq!(
        html.as_str().unwrap().matches("<p>\"é\"</p>").count(),
        4_000_000
    );
    let said = told.stdout(0);
    assert_eq!(said.matches("line\n").count(), 6_000_000);
    assert!(
        said.ends_with("199999\n\u{fffd}\0\n"),
        "{:?}",
        &said[said.len() - 20..]
    );
    // 52 MB in one message are held once; nothing else is.
    let peak = told.peak_memory;
    assert!(peak < 120 << 20, "{peak} bytes after {:?}", began.elapsed());
}
