//! Notebooks that run to their end, and what is kept of them.

use std::fs;

use notebook::message::{OutputMessage, StreamName};
use protocol::driver::{CellCount, DriverWork};
use protocol::event::{CellSource, CellStatus, EventKind, LogStream, OutputContent};
use protocol::outcome::FailureKind;
use serde_json::json;

use crate::support::{World, notebook_of};

#[test]
fn a_plain_notebook_runs_cell_by_cell() {
    let told = World::notebook(&[("x = 20\nprint('hello')", &[]), ("", &[]), ("x + 1", &[])]).run();
    told.succeeded();
    assert_eq!(
        told.result.cells,
        CellCount {
            executed: 2,
            total: 2
        }
    );
    let kinds: Vec<&str> = told
        .events
        .iter()
        .map(|event| match event {
            EventKind::Kernel { status, .. } => status.as_str(),
            EventKind::CellStarted { .. } => "started",
            EventKind::Output { .. } => "output",
            EventKind::CellFinished { .. } => "finished",
            other => panic!("{other:?}"),
        })
        .collect();
    let expected =
        "starting ready started output finished started finished started output finished ended";
    assert_eq!(kinds.join(" "), expected);
    assert_eq!(told.stdout(0), "hello\n");
    assert_eq!(told.statuses()[1], (1, CellStatus::Skipped));
    let OutputMessage::ExecuteResult {
        data,
        execution_count,
        ..
    } = &told.outputs(2)[0]
    else {
        panic!()
    };
    assert_eq!(
        (data["text/plain"].as_str(), *execution_count),
        (Some("21"), Some(2))
    );

    let executed = told.executed();
    assert_eq!(
        executed["cells"][0]["outputs"][0]["text"],
        json!(["hello\n"])
    );
    assert_eq!(executed["cells"][2]["execution_count"], 2);
    assert_eq!(executed["metadata"]["language_info"]["name"], "python");
}

#[test]
fn a_display_is_updated_from_a_later_cell() {
    let told = World::notebook(&[
        ("from IPython.display import display\nhandle = display('before', display_id='d')", &[]),
        ("handle.update('after')", &[]),
        ("from IPython.display import clear_output\nprint('gone')\nclear_output()\nprint('kept')", &[]),
    ])
    .run();
    told.succeeded();
    let executed = told.executed();
    assert_eq!(
        executed["cells"][0]["outputs"][0]["data"]["text/plain"],
        json!(["'after'"])
    );
    assert_eq!(
        executed["cells"][2]["outputs"][0]["text"],
        json!(["kept\n"])
    );
    assert!(told.outputs(1).iter().any(
        |o| matches!(o, OutputMessage::UpdateDisplayData { display_id, .. } if display_id == "d")
    ));
}

#[test]
fn tags_let_a_cell_raise_or_pass_it_over() {
    let told = World::notebook(&[
        ("raise ValueError('expected')", &["raises-exception"]),
        ("open('ran', 'w')", &["skip-execution"]),
        ("print('still here')", &[]),
    ])
    .run();
    told.succeeded();
    let expected = [
        (0, CellStatus::ErrorAllowed),
        (1, CellStatus::Skipped),
        (2, CellStatus::Ok),
    ];
    assert_eq!(told.statuses(), expected);
    assert!(!told.world.path("work/ran").exists());
    assert_eq!(
        told.executed()["cells"][0]["outputs"][0]["ename"],
        "ValueError"
    );
    assert_eq!(
        told.result.cells,
        CellCount {
            executed: 2,
            total: 2
        }
    );
}

#[test]
fn parameters_stand_behind_the_defaults_and_places_are_those_of_the_repository() {
    let mut world = World::notebook(&[
        ("lr = 1\nepochs = 2", &["parameters"]),
        ("print(lr, epochs)\n\nraise KeyError(lr)", &[]),
    ]);
    let parameters = json!({"lr": 0.5, "colour": "red"});
    world.job.work = DriverWork::Notebook {
        path: "nb.ipynb".into(),
        parameters: parameters.as_object().unwrap().clone(),
    };
    let told = world.run();
    assert_eq!(told.stdout(2), "0.5 2\n");
    let source = |event: &EventKind| match event {
        EventKind::CellStarted { source, .. } => *source,
        _ => None,
    };
    let sources: Vec<CellSource> = told.events.iter().filter_map(source).collect();
    let expected = [
        CellSource::Number(1),
        CellSource::Injected,
        CellSource::Number(2),
    ];
    assert_eq!(sources, expected);
    let failure = told.failure();
    let cell = failure.cell.as_ref().unwrap();
    assert_eq!(
        (cell.path.as_str(), cell.index, cell.line),
        ("nb.ipynb", 1, Some(3))
    );
    assert!(
        told.log(protocol::event::LogStream::Platform)
            .contains("colour")
    );
    assert_eq!(
        told.executed()["cells"][1]["metadata"]["tags"],
        json!(["injected-parameters"])
    );
}

#[test]
fn forty_thousand_lines_arrive_in_order_without_loss() {
    let told = World::cell("import sys\nfor i in range(40000):\n    print(i, flush=True)").run();
    told.succeeded();
    let expected: String = (0..40_000).map(|i| format!("{i}\n")).collect();
    assert!(
        told.stdout(0) == expected,
        "{} bytes of {}",
        told.stdout(0).len(),
        expected.len()
    );
    let outputs = told
        .events
        .iter()
        .filter(|event| matches!(event, EventKind::Output { .. }))
        .count();
    assert!(outputs < 2_000, "{outputs} events");
}

#[test]
fn a_large_output_is_a_blob_and_stands_in_the_notebook() {
    let told = World::cell("from IPython.display import HTML, display\ndisplay(HTML('x' * 5_000_000))\nprint('y' * 200_000)").run();
    told.succeeded();
    let stored = told.events.iter().filter(|event| {
        matches!(event, EventKind::Output { content: OutputContent::Stored { bytes, .. }, .. } if bytes.0 > 5_000_000)
    });
    assert_eq!(stored.count(), 1);
    let events = fs::read_to_string(told.world.path("out/events.ndjson")).unwrap();
    assert!(events.lines().all(|line| line.len() <= 64 << 10));
    assert_eq!(told.stdout(0).len(), 200_001);
    // What is too large to be read again stands there as it came, in one piece.
    let outputs = &told.executed()["cells"][0]["outputs"];
    let html = outputs[0]["data"]["text/html"].as_str().unwrap();
    assert_eq!(html.len(), 5_000_000);
    assert!(outputs[0]["data"]["text/plain"].is_string());
    assert_eq!(outputs[0]["metadata"], json!({}));
}

#[test]
fn what_a_thread_says_late_is_kept() {
    let source = "import threading, time\ndef late():\n    time.sleep(0.3)\n    print('late')\n\
        thread = threading.Thread(target=late)\nthread.start()";
    let told = World::notebook(&[(source, &[]), ("thread.join()\nprint('second')", &[])]).run();
    told.succeeded();
    // To which of the two cells it belongs is the kernel's choice.
    assert_eq!(told.stdout(0) + &told.stdout(1), "late\nsecond\n");
}

/// What a program writes to the kernel's own file descriptors: each text once, in the cell that it was written in, also
/// where that is over at once, and with its characters whole.
#[test]
fn a_program_that_the_kernel_calls_is_heard_once() {
    let told = World::notebook(&[
        ("!echo shell", &[]),
        ("import os; os.system('echo below') and None", &[]),
        (
            "import os, subprocess, sys\nprint('first', flush=True)\nsubprocess.run(['echo', 'second'])\n\
            print('third')\nwritten = os.write(2, b'beside\\n')",
            &[],
        ),
        (
            "import os\nwritten = [os.write(1, '€'.encode() * 100) for _ in range(1_000)]",
            &[],
        ),
        ("written = os.write(1, b'last')", &[]),
    ])
    .run();
    told.succeeded();
    assert_eq!(told.stdout(0).trim_end(), "shell");
    assert_eq!(told.stdout(1), "below\n");
    // A print writes its text and its line end: what a program says may stand between them.
    let said = told.stdout(2);
    for word in ["first", "second", "third"] {
        assert_eq!(said.matches(word).count(), 1, "{said:?}");
    }
    assert_eq!(said.len(), "first\nsecond\nthird\n".len(), "{said:?}");
    assert_eq!(told.stream(2, StreamName::Stderr), "beside\n");
    assert!(told.stdout(3) == "€".repeat(100_000));
    assert_eq!(told.stdout(4), "last");
    assert_eq!(told.log(LogStream::Stdout), "");
    assert_eq!(told.log(LogStream::Stderr), "");
}

#[test]
fn leaving_early_with_zero_is_well() {
    for source in ["import sys; sys.exit(0)", "quit()", "raise SystemExit"] {
        let told = World::notebook(&[(source, &[]), ("print('never')", &[])]).run();
        told.succeeded();
        assert_eq!(told.statuses(), [(0, CellStatus::Ok)], "{source}");
        assert_eq!(
            told.result.cells,
            CellCount {
                executed: 1,
                total: 2
            }
        );
    }
    for (source, words) in [
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise SystemExit('no data')", "SystemExit: no data"),
    ] {
        let told = World::notebook(&[
            // What may raise may leave, too, and the next cell runs, as with nbclient.
            ("import sys; sys.exit(0)", &["raises-exception"]),
            (source, &[]),
        ])
        .run();
        let failure = told.failure();
        assert_eq!(
            (failure.kind, failure.message.as_str()),
            (FailureKind::CellRaised, words)
        );
        assert_eq!(failure.cell.as_ref().unwrap().index, 1);
    }
}

#[test]
fn what_is_no_notebook_is_said_to_be_none() {
    let world = World::cell("1");
    world.write("nb.ipynb", "{\"cells\": [}");
    let told = world.run();
    assert_eq!(told.failure().kind, FailureKind::NotebookInvalid);
    assert!(
        told.failure().message.starts_with("nb.ipynb: "),
        "{}",
        told.failure().message
    );

    let world = World::cell("1");
    let mut notebook = notebook_of(&json!([]));
    notebook["metadata"]["kernelspec"] = json!({"name": "fortran", "language": "fortran"});
    world.write("nb.ipynb", &notebook.to_string());
    let told = world.run();
    assert_eq!(told.failure().kind, FailureKind::NotebookInvalid);
    assert!(
        told.failure().message.contains("'fortran'") && told.failure().message.contains("python3")
    );

    let mut world = World::cell("1");
    world.job.work = DriverWork::Notebook {
        path: "../nb.ipynb".into(),
        parameters: Default::default(),
    };
    assert_eq!(world.run().failure().kind, FailureKind::NotebookInvalid);
}

#[test]
fn a_notebook_that_is_too_large_is_refused_before_it_is_read() {
    let world = World::cell("1");
    let file = fs::File::create(world.path("work/nb.ipynb")).unwrap();
    file.set_len(500_000_000).unwrap();
    let told = world.run();
    let failure = told.failure();
    assert_eq!(failure.kind, FailureKind::NotebookInvalid);
    assert!(
        failure.message.contains("500000000 bytes")
            && failure.message.contains("clear its outputs"),
        "{}",
        failure.message
    );
    assert!(told.peak_memory < 16 << 20, "{}", told.peak_memory);
}
