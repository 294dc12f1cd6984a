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

/// Fits a line through points by gradient descent, an epoch a second, and leaves what it learned.
const TRAIN: &str = "import json, random, sys, time
random.seed(0)
points = [(x, 3 * x - 1 + random.gauss(0, 0.1)) for x in (random.random() for _ in range(1000))]
a = b = 0.0
for epoch in range(1, int(sys.argv[1]) + 1):
    errors = [(a * x + b - y, x) for x, y in points]
    a -= 0.5 * sum(e * x for e, x in errors) / len(points)
    b -= 0.5 * sum(e for e, _ in errors) / len(points)
    print('epoch', epoch, 'loss', sum(e * e for e, _ in errors) / len(points), flush=True)
    time.sleep(1)
json.dump([a, b], open('model.json', 'w'))
";

/// A world with a training of an epoch a second, some epochs of it told.
async fn training(seconds: u64) -> (World, JobId) {
    let world = World::new().await;
    let pipeline = format!(
        "jobs:\n  train:\n    command: python3 train.py {seconds}\n    artifacts: [model.json]\n    \
         resources: {{cpus: 0.2, memory: 256MiB}}\n"
    );
    let files = [(".trainyard.yml", pipeline.as_str()), ("train.py", TRAIN)];
    world.project.commit(&files);
    world.watch(&[]);
    let job = world
        .pipeline(&world.project.head())
        .await
        .jobs
        .remove(0)
        .id;
    until("epochs are told", async || {
        let events = world.api().events(&job, None).await;
        text(&events).contains("epoch 5 ").then_some(())
    })
    .await;
    (world, job)
}

/// The number of each epoch, and its loss.
fn told(text: &str) -> (Vec<u64>, Vec<f64>) {
    let epoch = |line: &str| match *line.split(' ').collect::<Vec<_>>() {
        ["epoch", epoch, "loss", loss] => {
            (epoch.parse::<u64>().unwrap(), loss.parse::<f64>().unwrap())
        }
        _ => panic!("no epoch: {line:?}"),
    };
    text.lines().map(epoch).unzip()
}

/// One attempt, all of its epochs, its model, and the job succeeded.
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
    let (epochs, losses) = told(&text(&events));
    assert!(epochs.into_iter().eq(1..=seconds));
    let falls = |pair: &[f64]| pair[1] <= pair[0] + 1e-9;
    assert!(losses.windows(2).all(falls), "{losses:?}");
    let model = world
        .api()
        .artifact(&detail.attempts[0].id, "model.json")
        .await;
    let [a, b]: [f64; 2] = serde_json::from_slice(&model).unwrap();
    assert!((a - 3.0).abs() < 0.5 && (b + 1.0).abs() < 0.5, "{a} {b}");
    let row = json!({"outage": outage.as_secs(), "epochs": seconds, "events": events.len()});
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
