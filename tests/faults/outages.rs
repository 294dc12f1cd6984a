//! Outages as long as they are in life, with the times that a server has by default. By hand: `scripts/faults --outages`.
//! What each came to is a line of a file.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use protocol::job::State;
use protocol::{JobId, Outcome};
use serde_json::json;

use super::judge::text;
use crate::support::{World, until, whole};

/// A world with a job that prints a line each second, some lines of it told.
async fn training(seconds: u64) -> (World, JobId) {
    let world = World::new().await;
    let command =
        format!("i=0; while [ $i -lt {seconds} ]; do i=$((i+1)); echo line $i; sleep 1; done");
    let pipeline = format!(
        "jobs:\n  train:\n    command: \"{command}\"\n    resources: {{cpus: 0.2, memory: 256MiB}}\n"
    );
    world.project.commit(&[(".trainyard.yml", &pipeline)]);
    world.watch(&[]);
    let job = world
        .pipeline(&world.project.head())
        .await
        .jobs
        .remove(0)
        .id;
    until("lines are told", async || {
        let events = world.api().events(&job, None).await;
        text(&events).contains("line 5\n").then_some(())
    })
    .await;
    (world, job)
}

/// One attempt, all of its lines, and the job succeeded.
async fn nothing_is_missing(world: &World, job: &JobId, outage: Duration, seconds: u64) {
    let detail = until("the job ends", async || {
        let detail = world.api().job(job).await;
        detail.job.finished_at.is_some().then_some(detail)
    })
    .await;
    assert_eq!(detail.job.state.outcome(), Some(&Outcome::Succeeded));
    assert_eq!(detail.attempts.len(), 1, "{:#?}", detail.attempts);
    let events = world.api().events(job, None).await;
    whole(&events, &Outcome::Succeeded);
    let lines: String = (1..=seconds).map(|n| format!("line {n}\n")).collect();
    assert_eq!(text(&events), lines);
    let row = json!({"outage": outage.as_secs(), "lines": seconds, "events": events.len()});
    let file = std::env::var("TRAINYARD_FAULTS_FILE").expect("run scripts/faults --outages");
    let mut rows = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .unwrap();
    writeln!(rows, "{row}").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes three minutes: scripts/faults --outages"]
async fn a_blip_of_two_minutes_leaves_no_gap() {
    const OUTAGE: Duration = Duration::from_secs(120);
    let seconds = OUTAGE.as_secs() + 30;
    let (world, job) = training(seconds).await;
    world.proxy.cut(OUTAGE);
    tokio::time::sleep(OUTAGE / 2).await;
    assert!(matches!(
        world.api().job(&job).await.job.state,
        State::Running { .. }
    ));
    tokio::time::sleep(OUTAGE / 2).await;
    nothing_is_missing(&world, &job, OUTAGE, seconds).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes thirteen minutes: scripts/faults --outages"]
async fn twelve_minutes_without_the_network_cost_nothing_where_no_other_host_is_free() {
    const OUTAGE: Duration = Duration::from_secs(12 * 60);
    let seconds = OUTAGE.as_secs() + 30;
    let (world, job) = training(seconds).await;
    world.proxy.cut(OUTAGE);
    tokio::time::sleep(OUTAGE - Duration::from_secs(60)).await;
    let lost = world.api().job(&job).await.job;
    assert_eq!(
        lost.state,
        State::Queued,
        "its agent counts as lost after ten"
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    nothing_is_missing(&world, &job, OUTAGE, seconds).await;
}
