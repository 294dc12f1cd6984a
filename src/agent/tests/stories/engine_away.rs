//! An engine that is away when an agent wants something of it.

use std::path::PathBuf;
use std::time::Duration;

use agent::attempt::{self, Control};
use agent::journal::Journal;
use protocol::event::EventKind;
use protocol::{Outcome, Span};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::support::{World, engine, events, text, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_on_is_found_when_the_engine_answers() {
    if !engine().await {
        return;
    }
    let world = World::with(|config| {
        let socket = config.data.join("engine.sock");
        config.executors.docker_host = Some(format!("unix://{}", socket.display()));
    });
    let socket = world.host.data().join("engine.sock");
    let there = || std::os::unix::fs::symlink("/var/run/docker.sock", &socket).unwrap();
    there();
    let order = world.command("echo ready; until [ -e go ]; do sleep 0.1; done; echo done");
    let dir = world.dir(&order);
    {
        let journal = Journal::open(&dir.journal()).unwrap();
        let run = attempt::run(&world.host, dir.clone(), &journal, Control::new());
        tokio::select! {
            report = run => panic!("it ended too early: {report:?}"),
            () = until("the job's word", || text(&journal).contains("ready")) => {}
        }
    }
    std::fs::remove_file(&socket).unwrap();
    let journal = Journal::open(&dir.journal()).unwrap();
    let host = world.again();
    let run = attempt::run(&host, dir.clone(), &journal, Control::new());
    let engine_comes = async {
        let goes_on = || {
            events(&journal).iter().any(|event| {
                matches!(event, EventKind::Phase { detail: Some(detail), .. } if detail.contains("restart"))
            })
        };
        until("the agent to go on", goes_on).await;
        std::fs::write(dir.workspace().join("go"), "").unwrap();
        there();
    };
    let (report, ()) = tokio::join!(run, engine_comes);
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(text(&journal), "ready\ndone\n");
    assert!(world.containers(&order).is_empty());
}

/// How long an engine is away: longer than the agent leaves a driver that it has killed.
const AWAY: Duration = Duration::from_secs(11);

/// The engine behind a door. Who is inside when it is shut is put out.
async fn door(socket: PathBuf, open: watch::Receiver<bool>) {
    let listener = UnixListener::bind(socket).unwrap();
    loop {
        let (mut caller, _) = listener.accept().await.unwrap();
        let mut open = open.clone();
        tokio::spawn(async move {
            let pass = async {
                let mut engine = UnixStream::connect("/var/run/docker.sock").await.unwrap();
                // A caller that hangs up is no news.
                let _ = tokio::io::copy_bidirectional(&mut caller, &mut engine).await;
            };
            tokio::select! {
                biased;
                _ = open.wait_for(|open| !open) => {}
                () = pass => {}
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_could_not_be_killed_is_killed_when_the_engine_answers() {
    if !engine().await {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let (opens, open) = watch::channel(true);
    let door = tokio::spawn(door(socket.clone(), open));
    let there = || socket.exists();
    until("the door", there).await;
    let host = format!("unix://{}", socket.display());
    let world = World::with(|config| config.executors.docker_host = Some(host));
    let order = world.command("echo ready; exec sleep 600");
    let (dir, control) = (world.dir(&order), Control::new());
    let journal = Journal::open(&dir.journal()).unwrap();
    let run = attempt::run(&world.host, dir, &journal, control.clone());
    let mut run = std::pin::pin!(run);
    tokio::select! {
        report = &mut run => panic!("it ended too early: {report:?}"),
        () = until("the job's word", || text(&journal).contains("ready")) => {}
    }
    opens.send(false).unwrap();
    control.stop("ada", Span(0));
    let early = tokio::time::timeout(AWAY, &mut run).await;
    assert!(early.is_err(), "it ended without an engine: {early:?}");
    opens.send(true).unwrap();
    let report = tokio::time::timeout(Duration::from_secs(60), run).await;
    let by = "ada".to_owned();
    assert_eq!(report.unwrap().outcome, Outcome::Cancelled { by });
    assert!(world.containers(&order).is_empty());
    door.abort();
}
