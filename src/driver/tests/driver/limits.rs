//! How long cells may take, and what is kept of those that took longer.

use std::fs;

use protocol::event::CellStatus;
use protocol::outcome::{FailureKind, LimitReached};
use protocol::units::Span;
use serde_json::{Value, json};

use crate::support::{World, lives};

#[test]
fn a_tag_raises_a_cells_time_and_the_traceback_is_kept() {
    let mut world = World::notebook(&[
        ("import time\ntime.sleep(1.5)", &["timeout=1m"]),
        ("print('start')\n\ntime.sleep(1000)", &[]),
        ("1", &[]),
    ]);
    world.metadata("execution", json!({"timeout": 1}));
    world.job.limits.cell_timeout = Some(Span::secs(40));
    let told = world.run();
    let failure = told.failure();
    assert_eq!(failure.kind, FailureKind::CellTimeout);
    assert_eq!(
        failure.limit,
        Some(LimitReached::Time {
            limit: Span::secs(1)
        })
    );
    assert_eq!(failure.message, "The cell ran longer than 1.0s.");
    assert!(
        failure.hint.as_ref().unwrap().contains("execution.timeout"),
        "{:?}",
        failure.hint
    );
    // Where it was, in the failure and in the notebook.
    let cell = failure.cell.as_ref().unwrap();
    assert_eq!((cell.index, cell.line), (1, Some(3)));
    assert!(
        failure
            .detail
            .as_ref()
            .unwrap()
            .contains("KeyboardInterrupt")
    );
    assert_eq!(
        told.statuses(),
        [(0, CellStatus::Ok), (1, CellStatus::Interrupted)]
    );
    assert_eq!(
        told.executed()["cells"][1]["outputs"][1]["ename"],
        "KeyboardInterrupt"
    );
}

#[test]
fn a_tag_lowers_it_and_a_swallowed_interrupt_is_told() {
    let source = "import time\nwhile True:\n    try:\n        time.sleep(1000)\n    except KeyboardInterrupt:\n        print('not now', flush=True)";
    let mut world = World::notebook(&[(source, &["timeout=1s"])]);
    world.job.grace = Span::secs(1);
    let told = world.run();
    let failure = told.failure();
    assert_eq!(
        (failure.kind, told.result.signal),
        (FailureKind::CellTimeout, Some(9))
    );
    assert!(
        failure
            .message
            .contains("An interrupt did not end it within 1.0s"),
        "{}",
        failure.message
    );
    assert!(failure.hint.as_ref().unwrap().contains("tag"));
    assert_eq!(told.stdout(0), "not now\n");
}

#[test]
fn programs_that_a_cell_started_are_interrupted_with_it() {
    for source in [
        "%%bash\necho $$ > pid\nsleep 1000\necho never",
        "!echo $$ > pid; sleep 1000; echo never",
        "import subprocess\nsubprocess.run('echo $$ > pid; sleep 1000; echo never', shell=True)",
    ] {
        let mut world = World::cell(source);
        world.job.limits.cell_timeout = Some(Span::secs(1));
        world.job.grace = Span::secs(60);
        let told = world.run();
        assert_eq!(told.failure().kind, FailureKind::CellTimeout, "{source}");
        assert_ne!(
            told.result.signal,
            Some(9),
            "{source}: killed, not interrupted"
        );
        assert!(!told.stdout(0).contains("never"));
        let pid = fs::read_to_string(told.world.path("work/pid")).unwrap();
        assert!(!lives(&pid), "{source}: {pid} lives");
    }
}

#[test]
fn a_notebook_may_allow_errors_everywhere() {
    let world = World::notebook(&[
        ("1 / 0", &[]),
        ("import sys; sys.exit(3)", &[]),
        ("print('here')", &[]),
    ]);
    world.metadata("execution", json!({"allow_errors": true}));
    let told = world.run();
    told.succeeded();
    let allowed = CellStatus::ErrorAllowed;
    assert_eq!(
        told.statuses(),
        [(0, allowed), (1, allowed), (2, CellStatus::Ok)]
    );
    assert_eq!(told.stdout(2), "here\n");
}

#[test]
fn an_option_that_cannot_be_understood_runs_nothing() {
    let cases: [(&[&str], Value, &str); 6] = [
        (
            &["timeout=soon"],
            Value::Null,
            "cell 1: its tag `timeout=…`: 'soon' is not a duration such as 90s",
        ),
        (&["timeout=10"], Value::Null, "'10' is not a duration"),
        (
            &["timeout=0s"],
            Value::Null,
            "`timeout=0s` leaves it no time",
        ),
        (&["timeout=1m", "timeout=2m"], Value::Null, "contradict"),
        (
            &[],
            json!({"timeout": "10m"}),
            "`metadata.execution.timeout` is \"10m\"",
        ),
        (
            &[],
            json!({"allow_errors": 1}),
            "`metadata.execution.allow_errors` is 1; it is true or false",
        ),
    ];
    for (tags, execution, words) in cases {
        let world = World::notebook(&[("open('ran', 'w')", tags)]);
        world.metadata("execution", execution);
        let told = world.run();
        let failure = told.failure();
        assert_eq!(failure.kind, FailureKind::NotebookInvalid);
        assert!(
            failure.message.starts_with("nb.ipynb: ") && failure.message.contains(words),
            "{}",
            failure.message
        );
        assert!(!told.world.path("work/ran").exists());
    }
}
