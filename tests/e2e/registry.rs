//! A notebook that logs to MLflow with the stock client, with no network, no address and no token: what it says is there once,
//! whoever fails meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use protocol::Outcome;
use protocol::event::EventKind;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::said;
use crate::support::project::notebook;
use crate::support::{HOST, World, until};

/// The stock client's Python is the host's. The job's container mounts it, and what it needs, as volumes.
const PYTHON: &str = "/usr/lib/python3.11";

const PIPELINE: &str = "
jobs:
  train:
    notebook: train.ipynb
    network: none
    parameters: {C: 0.5}
    resources: {cpus: 1, memory: 2GiB}
    volumes: {bin: /opt/py/bin, stdlib: /opt/py/lib/python3.11, mlflow: /opt/mlflow, jupyter: /opt/jupyter}
    env:
      PATH: /opt/py/bin:/usr/bin:/bin
      PYTHONHOME: /opt/py
      PYTHONPATH: /opt/mlflow:/opt/jupyter
      MLFLOW_DISABLE_TELEMETRY: 'true'
      GIT_PYTHON_REFRESH: quiet
      # What the model needs is not looked for in yet another process.
      MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT: '1'
";

/// So long the server is away while the code trains.
const AWAY: Duration = Duration::from_secs(30);

const CELLS: [&str; 4] = [
    "import os, pathlib, time, mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
def until(name):
    while not pathlib.Path(name).exists():
        time.sleep(0.02)
mlflow.set_experiment('what the notebook always had')
mlflow.autolog()
run = mlflow.start_run()
assert run.info.run_id == os.environ.get('MLFLOW_RUN_ID', run.info.run_id)
# The client asks once where the files of a run lie.
mlflow.log_text('begun', 'notes/begun.txt')
print('waiting', run.info.run_id)
until('go')",
    "step = 0
while not pathlib.Path('enough').exists():
    mlflow.log_metric('loss', 1 / (step + 1), step=step)
    step += 1
    if step == 100:
        pathlib.Path('half').touch()
print('points', step)
mlflow.log_param('note', 'kept')
mlflow.log_text('x' * 200_000, 'notes/long.txt')
pathlib.Path('logged').touch()
with mlflow.start_run(run_name='inner', nested=True):
    mlflow.log_metric('inner', 1.0)",
    "X, y = load_iris(return_X_y=True)
LogisticRegression(C=C, max_iter=500).fit(X, y)
pathlib.Path('fitted').touch()
mlflow.register_model(f'models:/{mlflow.last_logged_model().model_id}', 'iris')
mlflow.end_run()",
    "client = mlflow.MlflowClient()
client.log_param(run.info.run_id, 'note', 'changed')",
];

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".trainyard")
}

/// A world whose agent's jobs may mount the stock client.
async fn world() -> World {
    let mut world = World::bare("poll_interval_local = \"100ms\"").await;
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy("/usr/bin/python3.11", bin.join("python3")).unwrap();
    let packages = |of: &str| {
        let path = tools().join(of).join("lib/python3.11/site-packages");
        let path = path.canonicalize();
        path.unwrap_or_else(|error| panic!(".trainyard/{of}: {error}: run scripts/setup"))
    };
    let volumes = [
        ("bin", bin),
        ("stdlib", PYTHON.into()),
        ("mlflow", packages("mlflow")),
        ("jupyter", packages("test-python")),
    ];
    let volumes =
        volumes.map(|(name, path)| format!("[volumes.{name}]\npath = \"{}\"\n", path.display()));
    world.add_agent_with(HOST, "", &volumes.concat());
    world
}

/// The workspace of the only attempt, which is the first: nothing was done again.
fn workspace(world: &World) -> Option<PathBuf> {
    let attempts = fs::read_dir(world.path(HOST).join("attempts")).ok()?;
    let mut attempts: Vec<_> = attempts.flatten().map(|entry| entry.path()).collect();
    assert!(attempts.len() < 2, "it is tried again: {attempts:?}");
    Some(attempts.pop()?.join("workspace"))
}

/// Waits until a file lies in the attempt's workspace.
async fn until_there(world: &World, name: &str) {
    until(&format!("the code to make {name}"), async || {
        workspace(world)?.join(name).exists().then_some(())
    })
    .await;
}

async fn mlflow(world: &World, call: &str) -> Value {
    let path = format!("api/2.0/mlflow/{call}");
    let answer = world
        .api()
        .request(Method::GET, &path)
        .send()
        .await
        .unwrap();
    answer.json().await.unwrap()
}

async fn search(world: &World, experiment: &Value) -> Vec<Value> {
    let request = world
        .api()
        .request(Method::POST, "api/2.0/mlflow/runs/search");
    let asked = request.json(&json!({"experiment_ids": [experiment]}));
    let told: Value = asked.send().await.unwrap().json().await.unwrap();
    told["runs"].as_array().cloned().unwrap_or_default()
}

/// The value of a name in a list of a run's.
fn value<'a>(list: &'a Value, key: &str) -> &'a Value {
    let found = list
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["key"] == key);
    &found.unwrap_or_else(|| panic!("{key}: {list}"))["value"]
}

/// What a Python with the stock client prints that asks the server.
fn stock(world: &World, text: &str) -> String {
    let output = Command::new(tools().join("mlflow/bin/python"))
        .args(["-c", text])
        .env("MLFLOW_TRACKING_URI", &world.api().url)
        .env("NO_PROXY", "127.0.0.1")
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notebook_logs_with_no_network_while_server_and_agent_fail_and_nothing_is_missing_or_twice()
 {
    let mut world = world().await;
    let files = [
        (".trainyard.yml", PIPELINE),
        ("train.ipynb", &notebook(&CELLS)),
    ];
    world.project.commit(&files);
    world.watch(&[]);
    let job = world.waiting(&world.project.head(), 1).await;
    world.kill_server().await;
    let away = Instant::now();
    world.open_gate(HOST);
    until_there(&world, "half").await;
    world.kill_agent(HOST).await;
    world.start_agent(HOST);
    tokio::time::sleep_until((away + AWAY).into()).await;
    fs::write(workspace(&world).unwrap().join("enough"), "").unwrap();
    until_there(&world, "logged").await;
    world.start_server().await;
    until_there(&world, "fitted").await;
    let pipeline = world.finished(&world.project.head()).await;
    let events = world.api().events(&job, None).await;
    assert_eq!(
        pipeline.jobs[0].state.outcome(),
        Some(&Outcome::Succeeded),
        "{}\n{pipeline:#?}",
        said(&events)
    );
    let refused: Vec<&str> = events
        .iter()
        .filter_map(|event| match event.body.known()? {
            EventKind::Finding(finding) => Some(finding.message.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("does not change"), "{refused:?}");

    let attempt = world.api().job(&job).await.attempts.remove(0);
    let words = said(&events);
    let after = |name: &str| {
        let mut words = words.split_whitespace();
        words.find(|word| *word == name);
        words.next().unwrap()
    };
    let (id, points) = (after("waiting"), after("points").parse::<u64>().unwrap());
    let run = until("the run ends", async || {
        let run = mlflow(&world, &format!("runs/get?run_id={id}")).await["run"].take();
        (run["info"]["status"] != "RUNNING").then_some(run)
    })
    .await;
    assert_eq!(run["info"]["status"], "FINISHED");
    let data = &run["data"];
    assert_eq!(
        value(&data["tags"], "trainyard.attempt"),
        attempt.id.as_str()
    );
    assert_eq!(
        value(&data["tags"], "mlflow.source.git.commit"),
        &world.project.head()
    );
    assert!(
        value(&data["tags"], "trainyard.image_id")
            .as_str()
            .unwrap()
            .contains("sha256:")
    );
    assert_eq!(value(&data["params"], "C"), "0.5");
    assert_eq!(value(&data["params"], "note"), "kept");
    assert_eq!(value(&data["params"], "max_iter"), "500", "autolog's");
    assert!(
        value(&data["metrics"], "training_accuracy_score")
            .as_f64()
            .unwrap()
            > 0.9
    );
    let steps = steps(&world, id).await;
    assert!(points > 100, "{points}");
    assert_eq!(steps, (0..points).collect::<Vec<_>>());

    let all = search(&world, &run["info"]["experiment_id"]).await;
    let mut names: Vec<_> = all
        .iter()
        .map(|run| run["info"]["run_name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["inner", "train"]);
    assert_eq!(
        world.api().version("iris", "1").await.version.version,
        Some(1)
    );
    let versions = mlflow(&world, "model-versions/search").await;
    assert_eq!(versions["model_versions"].as_array().unwrap().len(), 1);
    let found = stock(
        &world,
        &format!(
            "import mlflow; from sklearn.datasets import load_iris
print(len(mlflow.artifacts.load_text('runs:/{id}/notes/long.txt')))
model = mlflow.sklearn.load_model('models:/iris/1')
print(model.score(*load_iris(return_X_y=True)) > 0.9, len(mlflow.search_logged_models(experiment_ids=['{}'])))",
            run["info"]["experiment_id"].as_str().unwrap()
        ),
    );
    assert_eq!(found, "200000\nTrue 1", "one model, autolog's");
}

/// The steps of the curve `loss` of a run.
async fn steps(world: &World, id: &str) -> Vec<u64> {
    let call = format!("metrics/get-history?run_id={id}&metric_key=loss");
    let curve = mlflow(world, &call).await;
    let points = curve["metrics"].as_array().unwrap().iter();
    points.map(|m| m["step"].as_u64().unwrap_or(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disk_damages_of_the_calls_of_a_job_costs_those_alone() {
    let mut world = world().await;
    let cells = [
        "import pathlib, time, mlflow
def until(name):
    while not pathlib.Path(name).exists():
        time.sleep(0.02)
run = mlflow.start_run()
mlflow.log_text('begun', 'notes/begun.txt')
print('waiting', run.info.run_id)
until('go')",
        "for step in range(20):
    mlflow.log_metric('loss', step, step=step)
pathlib.Path('logged').touch()
until('enough')
mlflow.log_param('note', 'kept')",
    ];
    let files = [
        (".trainyard.yml", PIPELINE),
        ("train.ipynb", &notebook(&cells)),
    ];
    world.project.commit(&files);
    world.watch(&[]);
    let job = world.waiting(&world.project.head(), 1).await;
    world.kill_server().await;
    world.open_gate(HOST);
    until_there(&world, "logged").await;
    world.kill_agent(HOST).await;
    let workspace = workspace(&world).unwrap();
    let calls = workspace.with_file_name("registry").join("calls.ndjson");
    let text = fs::read_to_string(&calls).unwrap();
    let lines = text.split_inclusive('\n');
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    let logged = lines
        .iter_mut()
        .filter(|line| line.contains("runs/log-metric"));
    let damaged = logged.skip(6).step_by(5).take(2);
    assert_eq!(
        damaged
            .map(|line| line.replace_range(..20, "00000000000000000000"))
            .count(),
        2
    );
    fs::write(&calls, lines.concat()).unwrap();
    world.start_agent(HOST);
    world.start_server().await;
    fs::write(workspace.join("enough"), "").unwrap();
    let pipeline = world.finished(&world.project.head()).await;
    let events = world.api().events(&job, None).await;
    assert_eq!(
        pipeline.jobs[0].state.outcome(),
        Some(&Outcome::Succeeded),
        "{}",
        said(&events)
    );
    let told = events.iter().filter(|event| match event.body.known() {
        Some(EventKind::Log { text, .. }) => text.contains("damaged on the host's disk"),
        _ => false,
    });
    assert_eq!(told.count(), 1);
    let words = said(&events);
    let id = words.split_whitespace().nth(1).unwrap();
    let steps = steps(&world, id).await;
    let whole: Vec<u64> = (0..20).filter(|step| ![6, 11].contains(step)).collect();
    assert_eq!(steps, whole);
    let run = mlflow(&world, &format!("runs/get?run_id={id}")).await;
    assert_eq!(value(&run["run"]["data"]["params"], "note"), "kept");
}

#[test]
fn a_local_run_has_a_registry_that_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("project");
    fs::create_dir(&root).unwrap();
    let python = tools().join("mlflow/bin/python");
    let pipeline = format!(
        "jobs: {{train: {{command: {} train.py, parameters: {{lr: 0.5}}}}}}\n",
        python.display()
    );
    fs::write(root.join(".trainyard.yml"), pipeline).unwrap();
    let code = "import mlflow
mlflow.set_experiment('mine')
with mlflow.start_run() as run:
    mlflow.log_metric('acc', 0.5)
    mlflow.log_text('hello', 'a.txt')
found = mlflow.get_run(run.info.run_id)
tags = found.data.tags
print('from', tags['mlflow.source.git.commit'], tags.get('trainyard.dirty'), found.data.params, tags['mlflow.source.name'],
    len(tags['trainyard.key']), tags['trainyard.host'] != '')
print('found', found.data.metrics, mlflow.artifacts.load_text(f'runs:/{run.info.run_id}/a.txt'), mlflow.get_tracking_uri())
";
    fs::write(root.join("train.py"), code).unwrap();
    let git = |arguments: &[&str]| git(&root, arguments);
    git(&["init", "--quiet"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message=Begin"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let run = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_trainyard"))
            .args([&["run", "train", "--executor", "shell"], more].concat())
            .current_dir(&root)
            .env("TRAINYARD_DATA", folder.path().join("data"))
            .env("TMPDIR", &temporary)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{complaint}");
        assert!(
            said.contains("found {'acc': 0.5} hello http://127.0.0.1:"),
            "{said}\n{complaint}"
        );
        said
    };
    // Where it comes from is known there, as in a job.
    let work = format!("{} train.py 64 True", python.display());
    let said = run(&[]);
    let from = format!("from {} None {{'lr': '0.5'}} {work}", commit.trim());
    assert!(said.contains(&from), "{said}");
    fs::write(root.join("train.py"), format!("{code}\n")).unwrap();
    let said = run(&["-p", "lr=2"]);
    let from = format!("from {} true {{'lr': '2'}} {work}", commit.trim());
    assert!(said.contains(&from), "{said}");
    let left: Vec<_> = fs::read_dir(&temporary)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "nothing is kept");
}

/// What git says in a folder.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ana", "-c", "user.email=ana@example.org"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
