//! What an administrator does for the contents on a server's disk, beside the running server.

use std::fs;
use std::path::PathBuf;

use protocol::Digest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::World;
use crate::support::project::notebook;

const PIPELINE: &str = "jobs:\n  train:\n    notebook: train.ipynb\n    resources: {cpus: 0.5, memory: 512MiB}\n    \
    model: {name: digits, path: model}\n";

const TRAIN: &str = "import os, pathlib
model = pathlib.Path(os.environ['TRAINYARD_MODEL_DIR'])
model.mkdir(parents=True, exist_ok=True)
(model / 'weights').write_text('0.75')";

/// Where a content lies.
fn place(world: &World, text: &str) -> PathBuf {
    let digest = Digest::of(text);
    let name = digest.as_str();
    let folder = world.path("server/blobs/sha256").join(&name[..2]);
    folder.join(name)
}

/// A file of a run that somebody puts and takes away again: its content stays, and nothing needs it.
async fn leave_unneeded(world: &World, text: &'static str) {
    let api = world.api();
    let call = |method: Method, path: &str| api.request(method, &format!("api/2.0/{path}"));
    let made = call(Method::POST, "mlflow/runs/create").json(&json!({"experiment_id": "0"}));
    let made: Value = made.send().await.unwrap().json().await.unwrap();
    let run = made["run"]["info"]["run_id"].as_str().unwrap();
    let file = format!("mlflow-artifacts/artifacts/0/{run}/artifacts/note.txt");
    for (method, body) in [(Method::PUT, text), (Method::DELETE, "")] {
        let answer = call(method, &file).body(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_are_checked_and_what_nothing_needs_is_removed() {
    let cells = notebook(&[TRAIN]);
    let world = World::with(&[(".trainyard.yml", PIPELINE), ("train.ipynb", &cells)]).await;
    let done = world.finished(&world.project.head()).await;
    assert_eq!(done.pipeline.state, "succeeded", "{done:#?}");
    world.api().version("digits", "1").await;
    leave_unneeded(&world, "nobody needs it").await;
    // A server ended between content and row.
    let (needed, unneeded) = (place(&world, "0.75"), place(&world, "nobody needs it"));
    let stray = place(&world, "stray");
    fs::create_dir_all(stray.parent().unwrap()).unwrap();
    fs::write(&stray, "stray").unwrap();

    let config = world.path("server.toml");
    let config = config.to_str().unwrap();
    let run = |arguments: &[&str]| world.tried(&[arguments, &["--config", config]].concat());
    let json = |arguments: &[&str]| {
        let (code, text) = run(&[arguments, &["--json"]].concat());
        (code, serde_json::from_str::<Value>(&text).unwrap())
    };
    let (code, text) = run(&["fsck"]);
    assert!(code == Some(0) && text.ends_with(" are right\n"), "{text}");
    let (_, found) = json(&["fsck"]);
    assert!(found["contents"].as_u64().unwrap() >= 3, "{found}");

    let (code, text) = run(&["gc", "--dry-run"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.starts_with(
            "would be removed: 0 B, in 0 contents that nothing needs and 0 without a row"
        ),
        "they are too young: {text}"
    );
    let now = ["gc", "--older-than", "0s"];
    let (_, counted) = json(&[&now[..], &["--dry-run"]].concat());
    assert_eq!(
        (&counted["contents"], &counted["strays"]),
        (&1.into(), &1.into())
    );
    assert!(needed.exists() && unneeded.exists() && stray.exists());
    let (code, removed) = json(&now);
    assert_eq!((code, &removed), (Some(0), &counted));
    assert!(needed.exists() && !unneeded.exists() && !stray.exists());
    let (_, text) = run(&now);
    assert!(text.starts_with("removed: 0 B"), "{text}");

    fs::write(&needed, "0.57").unwrap();
    assert_eq!(run(&["fsck", "--quick"]).0, Some(0), "its length is right");
    let (code, text) = run(&["fsck"]);
    assert_eq!(code, Some(1), "{text}");
    let wrong = format!("wrong  {}", Digest::of("0.75"));
    assert!(text.contains(&wrong), "{text}");
    assert!(text.contains("model version digits 1: weights"), "{text}");
    fs::remove_file(&needed).unwrap();
    let (code, found) = json(&["fsck", "--quick"]);
    assert_eq!(code, Some(1), "{found}");
    assert_eq!(found["lost"][0]["wrong"], false);
    let (code, _) = world.tried(&["fsck", "--data", world.path("nowhere").to_str().unwrap()]);
    assert_eq!(
        code,
        Some(2),
        "a mistyped folder is no server where all is right"
    );
}
