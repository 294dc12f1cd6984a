//! Agents that are killed, stopped, drained and replaced while a job runs.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_goes_on_with_its_job() {
    let mut host = Host::new("").await;
    let file = host.path("go");
    host.order(&counted(500, &file), |_| {});
    host.server
        .until("lines arrive", |world| world.events.len() > 3)
        .await;
    host.kill();
    host.start();
    host.server
        .until("the attempt is in the polls of the new agent", |world| {
            world
                .last_poll
                .as_ref()
                .is_some_and(|poll| !poll.attempts.is_empty())
        })
        .await;
    host.kill();
    std::fs::write(&file, "").unwrap();
    host.start();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.output(), lines(500));
    let ran = std::fs::read_to_string(host.path("go.ran")).unwrap();
    assert_eq!(ran, "x\n", "the job ran once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_outlives_its_agent_and_leaves_nothing_behind() {
    let mut host = Host::with_executor("docker = true\n", "").await;
    let id = host.order(
        "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo done > out.bin",
        |order| order.spec.network = Network::None,
    );
    host.server
        .until("lines arrive", |world| {
            world.events.iter().any(|event| {
                matches!(
                    event.body.known(),
                    Some(EventKind::Log {
                        stream: LogStream::Stdout,
                        ..
                    })
                )
            })
        })
        .await;
    host.kill();
    host.start();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.output(), lines(40));
    host.server.with(|world| {
        let report = &world.reports[0];
        assert_eq!(report.setting.executor, "docker");
        assert_eq!(world.blobs[&report.artifacts[0].blob], b"done\n");
    });
    let left = Command::new("docker")
        .args(["ps", "--all", "--quiet", "--filter", &format!("name={id}")])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&left.stdout),
        "",
        "its container is removed"
    );
    wait("its folder is removed", || host.attempts().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_while_it_uploads_reports_once() {
    let mut host = Host::new("").await;
    host.server.with(|world| world.faults.blobs_hang = true);
    let file = host.path("go");
    std::fs::write(&file, "").unwrap();
    host.order(&counted(100, &file), |_| {});
    host.server
        .until("the upload begins", |world| world.received > 0)
        .await;
    host.kill();
    host.server.with(|world| world.faults.blobs_hang = false);
    host.start();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.output(), lines(100));
    assert_eq!(std::fs::read_to_string(host.path("go.ran")).unwrap(), "x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_told_to_end_leaves_its_job_running() {
    let mut host = Host::new("").await;
    let file = host.path("go");
    host.order(&counted(10, &file), |_| {});
    wait("the job runs", || host.path("go.ran").exists()).await;
    assert_eq!(host.terminate().await, Some(0));
    std::fs::write(&file, "").unwrap();
    host.start();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(std::fs::read_to_string(host.path("go.ran")).unwrap(), "x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_drained_on_its_host_takes_nothing_new_and_lets_jobs_go() {
    let mut host = Host::new("").await;
    let id = host.order(
        "trap 'echo saved; exit 0' TERM; echo line 1; while :; do sleep 0.05; done",
        |order| order.spec.artifacts.clear(),
    );
    host.server
        .until("the job runs", |world| world.events.len() > 3)
        .await;
    let ask = |host: &Host, words: &[&str]| {
        let asked = host.command(words).env("USER", "eva").output().unwrap();
        assert!(asked.status.success(), "{asked:?}");
    };
    ask(&host, &["agent", "drain"]);
    host.server
        .until("the server hears it", |world| {
            world.last_poll.as_ref().is_some_and(|poll| {
                let why = poll.closed.as_deref().unwrap_or_default();
                !poll.accepting && !poll.evict && why == "drained on its host by eva"
            })
        })
        .await;
    ask(&host, &["agent", "drain", "--stop-jobs"]);
    let evicts = |world: &double::World| world.last_poll.as_ref().is_some_and(|poll| poll.evict);
    host.server.until("and that jobs are to go", evicts).await;
    host.server.with(|world| {
        world.stops.push(StopOrder {
            attempt: id,
            by: "drained on its host by eva".into(),
            grace: Span::secs(5),
        });
    });
    let by = "drained on its host by eva".to_owned();
    assert_eq!(host.reported().await, Outcome::Cancelled { by });
    assert_eq!(host.output(), "line 1\nsaved\n");
    // The wish outlives the agent.
    host.kill();
    host.start();
    host.server.until("still drained", evicts).await;
    ask(&host, &["agent", "undrain"]);
    host.server
        .until("it takes jobs again", |world| {
            world.last_poll.as_ref().is_some_and(|poll| poll.accepting)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_to_stop_when_idle_ends_after_its_job() {
    let mut host = Host::new("").await;
    let file = host.path("go");
    host.order(&counted(10, &file), |_| {});
    wait("the job runs", || host.path("go.ran").exists()).await;
    let mut stop = host
        .command(&["agent", "stop", "--when-idle"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    host.server
        .until("it takes nothing new", |world| {
            world.last_poll.as_ref().is_some_and(|poll| !poll.accepting)
        })
        .await;
    assert!(stop.try_wait().unwrap().is_none(), "its job still runs");
    std::fs::write(&file, "").unwrap();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.exit().await, Some(0));
    let said = stop.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        "the agent has ended\n"
    );
    // The next one is not bound by it.
    host.start();
    host.server
        .until("it takes jobs", |world| {
            world.last_poll.as_ref().is_some_and(|poll| poll.accepting)
        })
        .await;
    let stop = host.command(&["agent", "stop"]).output().unwrap();
    assert!(stop.status.success(), "{stop:?}");
    assert_eq!(host.exit().await, Some(0));
    let none = host.command(&["agent", "stop"]).output().unwrap();
    assert!(String::from_utf8_lossy(&none.stdout).contains("no agent runs"));
}

/// What an upgrade is: another binary and driver at another path; the old ones are gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_upgraded_finishes_the_job_that_it_had() {
    for executor in ["docker = false\nshell = true\n", "docker = true\n"] {
        let mut host = Host::with_executor(executor, "").await;
        host.kill();
        host.install("first");
        host.start();
        host.order(
            "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo done > out.bin",
            |order| order.spec.network = Network::None,
        );
        host.server
            .until("the job says something", |world| {
                let said = |kind: &EventKind| {
                    matches!(
                        kind,
                        EventKind::Log {
                            stream: LogStream::Stdout,
                            ..
                        }
                    )
                };
                world
                    .events
                    .iter()
                    .filter_map(|event| event.body.known())
                    .any(said)
            })
            .await;
        assert_eq!(host.terminate().await, Some(0));
        host.install("second");
        std::fs::remove_dir_all(host.path("first")).unwrap();
        host.start();
        assert_eq!(host.reported().await, Outcome::Succeeded);
        assert_eq!(host.output(), lines(40));
        host.server.with(|world| {
            let report = &world.reports[0];
            assert_eq!(world.blobs[&report.artifacts[0].blob], b"done\n");
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_a_container_is_not_run_without_its_volume() {
    let host = Host::new("[volumes.data]\npath = \"/usr\"\n").await;
    host.order("echo line 1", |order| {
        order.spec.volumes = BTreeMap::from([("data".to_owned(), "/data".to_owned())]);
    });
    let Outcome::Failed(failure) = host.reported().await else {
        panic!("it ran without its volume");
    };
    assert_eq!(failure.kind, FailureKind::ExecutorFailed);
    assert!(
        failure
            .message
            .contains("'data' cannot be mounted at /data"),
        "{failure:?}"
    );
}
