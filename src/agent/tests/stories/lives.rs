//! Attempts from begin to end: what they leave, how they are stopped, how they go on after a restart.

use std::time::Duration;

use agent::attempt::{self, Control};
use agent::journal::Journal;
use protocol::event::{ArtifactRole, CellStatus, EventKind, Phase};
use protocol::spec::{ModelSpec, Network};
use protocol::{FailureKind, Outcome, Owner, Span, Work};

use crate::support::{World, engine, events, text, until};

fn notebook(path: &str) -> Work {
    Work::Notebook { path: path.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notebook_leaves_its_outputs_metrics_model_and_artifacts() {
    if !engine().await {
        return;
    }
    let world = World::new();
    world.write("lib.py", "ANSWER = 42\n").notebook(
        "nb/train.ipynb",
        &[
            "import sys, os; sys.path.insert(0, '.')\nimport json, lib\nprint('answer', lib.ANSWER, lr)",
            "from IPython.display import display\ndisplay({'application/scrapbook.scrap.json+json': {'name': 'accuracy', 'data': 0.5, 'encoder': 'json', 'version': 1}}, raw=True)",
            "os.makedirs('model', exist_ok=True); open('model/w.txt', 'w').write('weights')\njson.dump({'loss': 0.25, 'worst': float('inf')}, open('metrics.json', 'w'))\nfrom IPython.display import HTML; display(HTML('x' * 100_000))",
        ],
    );
    let mut order = world.order(notebook("nb/train.ipynb"));
    order.spec.parameters.insert("lr".into(), 0.1.into());
    order.spec.model = Some(ModelSpec {
        name: "m".into(),
        path: "model/".into(),
    });
    order.spec.artifacts = vec!["metrics.json".into()];
    let done = world.run(&order).await;
    done.succeeded();

    let metrics: Vec<(&str, f64)> = done
        .report
        .metrics
        .iter()
        .map(|m| (m.name.as_str(), m.value))
        .collect();
    let infinity = f64::INFINITY;
    assert_eq!(
        metrics,
        [("accuracy", 0.5), ("loss", 0.25), ("worst", infinity)]
    );
    assert_eq!(done.blob("w.txt"), b"weights");
    let executed = String::from_utf8(done.blob("nb/train.ipynb")).unwrap();
    assert!(executed.contains("answer 42 0.1"), "{executed}");
    let roles: Vec<ArtifactRole> = done.report.artifacts.iter().map(|a| a.role).collect();
    for role in [
        ArtifactRole::Notebook,
        ArtifactRole::Model,
        ArtifactRole::Declared,
        ArtifactRole::Output,
    ] {
        assert!(roles.contains(&role), "{role:?} is missing in {roles:?}");
    }
    assert_eq!(
        (done.report.cells_executed, done.report.cells_total),
        (4, 4)
    );
    assert_eq!(done.report.params["lr"], "0.1");
    assert!(
        done.report
            .setting
            .image_id
            .as_ref()
            .unwrap()
            .starts_with("sha256:")
    );
    let phases: Vec<Phase> = done
        .events()
        .iter()
        .filter_map(|event| match event {
            EventKind::Phase { phase, .. } => Some(*phase),
            _ => None,
        })
        .collect();
    assert_eq!(
        phases,
        [
            Phase::Workspace,
            Phase::Environment,
            Phase::Run,
            Phase::Collect
        ]
    );
    assert!(!done.dir.workspace().exists(), "the workspace is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_raises_is_the_users_and_its_place_is_known() {
    if !engine().await {
        return;
    }
    let world = World::new();
    world.notebook(
        "a.ipynb",
        &[
            "x = 1",
            "y = 2\nraise ValueError('no good')",
            "print('never')",
        ],
    );
    let mut order = world.order(notebook("a.ipynb"));
    order.spec.secrets = vec!["TOKEN".into()];
    order.secrets.insert("TOKEN".into(), "s3cret".into());
    let done = world.run(&order).await;
    let failure = done.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::CellRaised, Owner::User)
    );
    let cell = failure.cell.as_ref().unwrap();
    assert_eq!((cell.index, cell.line), (1, Some(2)));
    assert!(cell.raw_line.is_some());
    assert!(done.dir.workspace().exists(), "kept for a look");
    let told = std::fs::read_to_string(done.dir.contract().join("job.json")).unwrap();
    assert!(told.contains("\"TRAINYARD_ATTEMPT\":\"1\"") && !told.contains("s3cret"));
    assert!(attempt::kept_until(&done.dir).unwrap().is_some());
    assert!(!attempt::forget(&done.dir, protocol::Timestamp::now()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_model_that_is_missing_is_said() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let mut order = world.command("echo ${greeting}");
    order
        .spec
        .parameters
        .insert("greeting".into(), "it's $HOME".into());
    order.spec.model = Some(ModelSpec {
        name: "m".into(),
        path: "model".into(),
    });
    let done = world.run(&order).await;
    assert_eq!(done.failure().kind, FailureKind::ModelMissing);
    assert_eq!(done.text(), "it's $HOME\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_polite_and_then_not() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let order = world
        .command("trap 'echo checkpoint; exit 0' TERM; echo ready; while :; do sleep 0.1; done");
    let (dir, control) = (world.dir(&order), Control::new());
    let journal = Journal::open(&dir.journal()).unwrap();
    let run = attempt::run(&world.host, dir.clone(), &journal, control.clone());
    let stop = async {
        until("the job's word", || text(&journal).contains("ready")).await;
        control.stop("ada", Span::secs(10));
    };
    let (report, ()) = tokio::join!(run, stop);
    assert_eq!(report.outcome, Outcome::Cancelled { by: "ada".into() });
    assert!(text(&journal).contains("checkpoint"));
    assert!(world.containers(&order).is_empty());

    let order = world.command("trap '' TERM INT; echo ready; while :; do sleep 0.1; done");
    let (dir, control) = (world.dir(&order), Control::new());
    let journal = Journal::open(&dir.journal()).unwrap();
    let run = attempt::run(&world.host, dir.clone(), &journal, control.clone());
    let stop = async {
        until("the job's word", || text(&journal).contains("ready")).await;
        control.stop("ada", Span(0));
    };
    let (report, ()) = tokio::join!(run, stop);
    assert_eq!(report.outcome, Outcome::Cancelled { by: "ada".into() });
    assert!(world.containers(&order).is_empty());
}

/// Drops the run when `when` holds, as `kill -9` of the agent would, and lets another agent go on.
async fn restarted(
    world: &World,
    order: &protocol::agent_api::AttemptOrder,
    when: impl Fn(&Journal) -> bool,
) -> (protocol::report::AttemptReport, Journal) {
    let dir = world.dir(order);
    {
        let journal = Journal::open(&dir.journal()).unwrap();
        let run = attempt::run(&world.host, dir.clone(), &journal, Control::new());
        tokio::select! {
            report = run => panic!("it ended too early: {report:?}"),
            () = until("the moment to be killed", || when(&journal)) => {}
        }
    }
    let journal = Journal::open(&dir.journal()).unwrap();
    let host = world.again();
    let report = attempt::run(&host, dir, &journal, Control::new()).await;
    (report, journal)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_while_a_cell_runs_goes_on() {
    if !engine().await {
        return;
    }
    let world = World::new();
    world.notebook(
        "a.ipynb",
        &[
            "import time\nfor i in range(30):\n    print('line', i, flush=True); time.sleep(0.1)",
            "print('end')",
        ],
    );
    let order = world.order(notebook("a.ipynb"));
    let (report, journal) =
        restarted(&world, &order, |journal| journal.driver_offset() > 600).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    let events = events(&journal);
    let finished: Vec<CellStatus> = events
        .iter()
        .filter_map(|event| match event {
            EventKind::CellFinished { status, .. } => Some(*status),
            _ => None,
        })
        .collect();
    assert_eq!(
        finished,
        [CellStatus::Ok, CellStatus::Ok],
        "no cell ran twice, none is lost"
    );
    let said = serde_json::to_string(&events).unwrap();
    for i in 0..30 {
        assert_eq!(
            said.matches(&format!("line {i}\\\\n")).count()
                + said.matches(&format!("line {i}\\n")).count(),
            1,
            "line {i}"
        );
    }
    assert!(world.containers(&order).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_and_comes_back_after_the_end_reads_the_end() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let order = world.command("echo begin; sleep 1; echo end; exit 4");
    let dir = world.dir(&order);
    {
        let journal = Journal::open(&dir.journal()).unwrap();
        let run = attempt::run(&world.host, dir.clone(), &journal, Control::new());
        tokio::select! {
            report = run => panic!("it ended too early: {report:?}"),
            () = until("the first word", || text(&journal).contains("begin")) => {}
        }
    }
    let result = dir.path().join("contract/out/result.json");
    until("the driver's last word", || result.exists()).await;
    let journal = Journal::open(&dir.journal()).unwrap();
    let report = attempt::run(&world.again(), dir, &journal, Control::new()).await;
    let Outcome::Failed(failure) = report.outcome else {
        panic!("{report:?}")
    };
    assert_eq!(failure.kind, FailureKind::CommandFailed);
    assert_eq!(text(&journal), "begin\nend\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_somebody_removed_is_the_platforms() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let order = world.command("echo ready; sleep 600");
    let dir = world.dir(&order);
    let journal = Journal::open(&dir.journal()).unwrap();
    let run = attempt::run(&world.host, dir.clone(), &journal, Control::new());
    let remove = async {
        until("the job's word", || text(&journal).contains("ready")).await;
        let id = world.containers(&order).remove(0);
        let removed = std::process::Command::new("docker")
            .args(["rm", "--force", &id])
            .output()
            .unwrap();
        assert!(removed.status.success());
    };
    let (report, ()) = tokio::join!(run, remove);
    let Outcome::Failed(failure) = report.outcome else {
        panic!("{report:?}")
    };
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::ExecutorFailed, Owner::Platform),
        "{failure:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_is_killed_leaves_the_notebook_as_far_as_it_came() {
    if !engine().await {
        return;
    }
    let world = World::new();
    world.notebook(
        "a.ipynb",
        &[
            "print('first')",
            "print('second', flush=True)\nimport time; time.sleep(600)",
        ],
    );
    let order = world.order(notebook("a.ipynb"));
    let dir = world.dir(&order);
    let journal = Journal::open(&dir.journal()).unwrap();
    let run = attempt::run(&world.host, dir.clone(), &journal, Control::new());
    let kill = async {
        let said = || {
            serde_json::to_string(&events(&journal))
                .unwrap()
                .contains("second\\n")
        };
        until("the second cell's word", said).await;
        let id = world.containers(&order).remove(0);
        let killed = std::process::Command::new("docker")
            .args(["kill", "--signal", "KILL", &id])
            .output()
            .unwrap();
        assert!(killed.status.success());
    };
    let (report, ()) = tokio::join!(run, kill);
    let Outcome::Failed(failure) = &report.outcome else {
        panic!("{report:?}")
    };
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::ExecutorFailed, Owner::Platform),
        "{failure:?}"
    );
    let kept = report
        .artifacts
        .iter()
        .find(|artifact| artifact.role == ArtifactRole::Notebook)
        .unwrap();
    let kept = std::fs::read_to_string(dir.blobs().join(kept.blob.as_str())).unwrap();
    assert!(
        kept.contains("first\\n") && kept.contains("second\\n"),
        "{kept}"
    );
    assert!(world.containers(&order).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_here_is_said() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let mut order = world.command("true");
    order.spec.image = "trainyard/no-such-image:1".into();
    let done = world.run(&order).await;
    assert_eq!(
        (done.failure().kind, done.failure().owner()),
        (FailureKind::ImageUnusable, Owner::User)
    );
    assert!(done.failure().message.contains("no-such-image"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_job_says_that_nothing_is_isolated_and_leaves_no_process() {
    let world = World::with(|config| {
        config.executors.docker = false;
        config.executors.shell = true;
    });
    let mut order = world
        .command("echo hello from $TRAINYARD_ATTEMPT_ID; (setsid sleep 600 &); echo kept >out.txt");
    order.spec.network = Network::Full;
    order.spec.artifacts = vec!["out.txt".into()];
    let done = world.run(&order).await;
    done.succeeded();
    assert_eq!(done.text(), format!("hello from {}\n", order.attempt));
    assert_eq!(done.blob("out.txt"), b"kept\n");
    assert!(done.events().iter().any(
        |event| matches!(event, EventKind::Log { text, .. } if text.contains("isolates nothing"))
    ));
    let mark = format!("TRAINYARD_ATTEMPT_ID={}", order.attempt);
    until("its processes to be gone", || {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .all(|process| {
                let environ = std::fs::read(process.path().join("environ")).unwrap_or_default();
                !environ
                    .split(|byte| *byte == 0)
                    .any(|line| line == mark.as_bytes())
            })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_job_is_followed_over_a_restart() {
    let world = World::with(|config| {
        config.executors.docker = false;
        config.executors.shell = true;
    });
    let order = world.command("for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.2; done");
    let (report, journal) =
        restarted(&world, &order, |journal| text(journal).contains("line 2")).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    let expected: String = (1..=8).map(|i| format!("line {i}\n")).collect();
    assert_eq!(text(&journal), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_before_the_run_begins_is_a_cancel() {
    let world = World::new();
    let order = world.command("true");
    let (dir, control) = (world.dir(&order), Control::new());
    control.stop("ada", Span::secs(1));
    let journal = Journal::open(&dir.journal()).unwrap();
    let run = attempt::run(&world.host, dir, &journal, control);
    let report = tokio::time::timeout(Duration::from_secs(30), run)
        .await
        .unwrap();
    assert_eq!(report.outcome, Outcome::Cancelled { by: "ada".into() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_to_the_registry_leaves_the_job_what_it_set() {
    let world = World::with(|config| {
        (config.executors.docker, config.executors.shell) = (false, true);
    });
    let names = "$MLFLOW_RUN_ID $MLFLOW_HTTP_REQUEST_TIMEOUT $NO_PROXY $no_proxy";
    let mut order = world.command(&format!("echo {names}"));
    let run = "0".repeat(32);
    order.run = Some(run.clone());
    order.spec.env = [
        ("MLFLOW_RUN_ID", "mine"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "5"),
        ("NO_PROXY", ".corp"),
        ("no_proxy", ""),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let done = world.run(&order).await;
    let exceptions = ".corp,127.0.0.1,localhost";
    assert_eq!(done.said, format!("{run} 5 {exceptions} {exceptions}\n"));
}
