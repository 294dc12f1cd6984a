//! An engine that is not there yet when an agent comes back.

use agent::attempt::{self, Control};
use agent::journal::Journal;
use protocol::Outcome;
use protocol::event::EventKind;

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
