//! Stories of jobs that write checkpoints: a later attempt goes on from them, and a stop leaves time for one.

use agent::attempt::{self, Control};
use agent::journal::Journal;
use protocol::agent_api::AttemptOrder;
use protocol::report::AttemptReport;
use protocol::{AttemptId, ByteSize, FailureKind, Outcome, Span, Work};

use crate::support::{World, engine, events, text, until};

/// The next attempt of the same job.
fn next(order: &AttemptOrder) -> AttemptOrder {
    AttemptOrder {
        attempt: AttemptId::generate(),
        generation: order.generation + 1,
        number: order.number + 1,
        ..order.clone()
    }
}

/// Runs until the job said `word`, then drains it. What it said, and how it ended.
async fn drained(world: &World, order: &AttemptOrder, word: &str) -> (String, AttemptReport) {
    let (dir, control) = (world.dir(order), Control::new());
    let journal = Journal::open(&dir.journal()).unwrap();
    let run = attempt::run(&world.host, dir, &journal, control.clone());
    let stop = async {
        let said = || serde_json::to_string(&events(&journal)).unwrap();
        until("the job's word", || said().contains(word)).await;
        control.stop("drain", Span::secs(20));
    };
    let (report, ()) = tokio::join!(run, stop);
    (text(&journal), report)
}

const TRAIN: &str = r#"
import os, pathlib, signal, time
folder = pathlib.Path(os.environ["TRAINYARD_CHECKPOINT_DIR"])
done = folder / "epoch"
epoch = int(done.read_text()) if done.exists() else 0
print("attempt", os.environ["TRAINYARD_ATTEMPT"], "begins at epoch", epoch, flush=True)
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
while epoch < 3 or os.environ["TRAINYARD_ATTEMPT"] == "1":
    time.sleep(0.05)
    if told:
        # What takes a while, takes it out of the grace.
        time.sleep(1)
        part = folder / "epoch.tmp"
        part.write_text("2")
        part.rename(done)
        raise SystemExit(3)
    if epoch == 2:
        break
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_command_saves_and_its_next_attempt_goes_on_from_there() {
    for docker in [true, false] {
        if docker && !engine().await {
            continue;
        }
        let world = World::with(|config| {
            config.executors.docker = docker;
            config.executors.shell = !docker;
        });
        let mut order = world.python(TRAIN);
        order.spec.limits.grace = Some(Span::secs(20));
        let (said, report) = drained(&world, &order, "begins").await;
        assert_eq!(said, "attempt 1 begins at epoch 0\n");
        let by = "drain".to_owned();
        assert_eq!(report.outcome, Outcome::Cancelled { by });
        let done = world.run(&next(&order)).await;
        done.succeeded();
        assert_eq!(done.text(), "attempt 2 begins at epoch 2\n");
        // Another job has a folder of its own.
        let mut other = world.python(TRAIN);
        other.number = 2;
        other.spec.work = Work::Command {
            text: "ls $TRAINYARD_CHECKPOINT_DIR; echo end".into(),
        };
        assert_eq!(world.run(&other).await.succeeded().text(), "end\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notebook_is_interrupted_and_may_save() {
    if !engine().await {
        return;
    }
    let world = World::new();
    world.notebook(
        "a.ipynb",
        &[
            "import os, pathlib, time\nsaved = pathlib.Path(os.environ['TRAINYARD_CHECKPOINT_DIR'], 'epoch')",
            "if saved.exists():\n    print('found', saved.read_text())\nelse:\n    try:\n        print('trains', flush=True)\n        time.sleep(600)\n    except KeyboardInterrupt:\n        saved.write_text('7')\n        raise",
        ],
    );
    let order = world.order(Work::Notebook {
        path: "a.ipynb".into(),
    });
    let (_, report) = drained(&world, &order, "trains").await;
    assert!(
        matches!(report.outcome, Outcome::Cancelled { .. }),
        "{:?}",
        report.outcome
    );
    let done = world.run(&next(&order)).await;
    let said = serde_json::to_string(&done.succeeded().events()).unwrap();
    assert!(said.contains("found 7"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_that_take_too_much_end_the_job_and_say_which_key() {
    let world = World::with(|config| {
        config.executors.docker = false;
        config.executors.shell = true;
    });
    let mut order = world
        .command("head -c 3000000 /dev/zero > $TRAINYARD_CHECKPOINT_DIR/model.pt; exec sleep 600");
    order.spec.checkpoints.max_size = ByteSize::mib(2);
    let done = world.run(&order).await;
    let failure = done.failure();
    assert_eq!(failure.kind, FailureKind::DiskLimit);
    assert!(failure.message.contains("max_size"), "{}", failure.message);
}
