//! What a fork's job gets where it runs, beside what the repository's own job gets.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::Yard;
use crate::support::forge::{Face, MAIN};
use crate::support::{HOST, World};

/// It asks for all that there is.
const FILE: &str = "\
jobs:
  train:
    command: python train.py
    on: {push: [main], pull_request: true}
    deps: [train.py]
    resources: {cpus: 0.5, memory: 512MiB}
    secrets: [TOKEN]
    network: full
    volumes: {open: /open}
    model: {name: churn, path: model}
";

/// It says what it finds, and leaves something everywhere.
const PROBE: &str = "\
import json, os, pathlib, urllib.error, urllib.request
def ask(call, body=None):
    address = f\"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{call}\"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {'Content-Type': 'application/json'})
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code
cache = pathlib.Path(os.environ['XDG_CACHE_HOME']) / 'mark'
seen = cache.exists()
cache.write_text('I was here')
try:
    pathlib.Path('/open/mark').write_text('I was here')
    writes = True
except OSError:
    writes = False
pathlib.Path('model').mkdir()
pathlib.Path('model/weights').write_text('1')
found = {'secret': 'TOKEN' in os.environ, 'network': sorted(os.listdir('/sys/class/net')) != ['lo'],
         'reads': pathlib.Path('/open/data').read_text(), 'writes': writes, 'cache': seen,
         'own run': ask('runs/get?run_id=' + os.environ['MLFLOW_RUN_ID']),
         'models': ask('registered-models/search')}
ask('registered-models/create', {'name': 'by-' + os.environ['TRAINYARD_COMMIT']})
print('found', json.dumps(found))
";

/// What the job at a commit says that it found.
async fn found(world: &World, commit: &str) -> Value {
    let mut jobs = world.finished(commit).await.jobs;
    assert_eq!(jobs.len(), 1, "the base branch's file has one: {jobs:#?}");
    let job = jobs.remove(0);
    let log = world.shown(&["logs", job.id.as_str()]);
    let line = log
        .lines()
        .find_map(|line| line.trim().strip_prefix("found "));
    let line = line.unwrap_or_else(|| panic!("{:?} said\n{log}", job.state));
    serde_json::from_str(line).unwrap()
}

/// An agent with a volume for everybody, and a secret of the project.
fn equip(world: &mut World) {
    let volume = world.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("data"), "numbers").unwrap();
    std::fs::set_permissions(&volume, PermissionsExt::from_mode(0o777)).unwrap();
    let secrets = world.path("server/secrets/story");
    std::fs::create_dir_all(&secrets).unwrap();
    std::fs::write(secrets.join("TOKEN"), "of the project").unwrap();
    let path = volume.display();
    let table = format!("[volumes.open]\npath = \"{path}\"\nwritable = true\npublic = true\n");
    world.add_agent_with(HOST, "", &table);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_fork_gets_a_part_of_what_its_repository_gets_and_leaves_nothing() {
    let mut yard = Yard::new(Face::Gitea).await;
    equip(&mut yard.world);
    let files = [(".trainyard.yml", FILE), ("train.py", PROBE)];
    let own = yard.forge.push(MAIN, &files).await;
    let all = json!({
        "secret": true, "network": true, "reads": "numbers", "writes": true, "cache": false,
        "own run": 200, "models": 200
    });
    assert_eq!(found(&yard.world, &own).await, all);

    let evil = "jobs: {steal: {command: env, secrets: [TOKEN]}}";
    let changed = format!("{PROBE}# better\n");
    let files = [(".trainyard.yml", evil), ("train.py", &changed)];
    let number = yard
        .forge
        .open_from_fork("mallory", "patch", &files, "Better")
        .await;
    let head = yard.forge.head(number);
    yard.shows(&head, "trainyard/train", "pending", "waits for an approval")
        .await;
    let approve = format!("/trainyard approve {head}");
    yard.forge.comment(number, "octo", &approve).await;
    let little = json!({
        "secret": false, "network": false, "reads": "numbers", "writes": false, "cache": false,
        "own run": 200, "models": 403
    });
    assert_eq!(found(&yard.world, &head).await, little);

    // The same code comes to the main branch: what the fork's run made stands for nothing.
    let merged = yard.forge.push(MAIN, &[("train.py", &changed)]).await;
    let all = json!({
        "secret": true, "network": true, "reads": "numbers", "writes": true, "cache": true,
        "own run": 200, "models": 200
    });
    assert_eq!(found(&yard.world, &merged).await, all);
    yard.world.api().version("churn", "2").await;
    let models = yard.world.api().request(Method::GET, "api/v1/models/churn");
    let models = models.send().await.unwrap().text().await.unwrap();
    assert!(models.contains(&merged), "{models}");
    assert!(!models.contains(&head), "{models}");
    let all = yard.world.api().request(Method::GET, "api/v1/models");
    let all = all.send().await.unwrap().text().await.unwrap();
    assert!(all.contains(&format!("by-{own}")), "{all}");
    assert!(!all.contains(&format!("by-{head}")), "{all}");
}

#[test]
fn each_row_of_the_table_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let (_, table) = page.split_once("| of | it gets | held by |").unwrap();
    let rows: Vec<&str> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() > 9, "{rows:#?}");
    for row in rows {
        let held_by = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        let named: Vec<&str> = held_by.split('`').skip(1).step_by(2).collect();
        let story = held_by.starts_with("the fork's story");
        assert!(story || !named.is_empty(), "{row}");
        for test in named.chunks(2) {
            let [file, name] = test else { panic!("{row}") };
            let text = std::fs::read_to_string(root.join(file)).expect(file);
            assert!(
                text.contains(&format!("fn {name}()")),
                "{file} has no {name}"
            );
        }
    }
}
