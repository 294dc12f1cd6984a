//! Stories of models: a training goes on from a version, people ask where a version comes from, and take its files home.

use protocol::Outcome;

use crate::support::World;
use crate::support::api::said;
use crate::support::project::notebook;

/// Trains on what the parent left, where there is one.
const TRAIN: &str = "import json, os, pathlib
folder = os.environ.get('TRAINYARD_PARENT_DIR')
before = float(pathlib.Path(folder, 'deep/weights').read_text()) if folder else 0.5
if folder:
    try:
        pathlib.Path(folder, 'deep/weights').write_text('9')
        print('the parent can be written')
    except OSError:
        print('read-only')
model = pathlib.Path(os.environ['TRAINYARD_MODEL_DIR'], 'deep')
model.mkdir(parents=True)
(model / 'weights').write_text(str(before + 0.25))
pathlib.Path('metrics.json').write_text(json.dumps({'accuracy': before + 0.25}))
print('from', before)";

fn pipeline(from: &str) -> String {
    format!(
        "jobs:\n  train:\n    notebook: train.ipynb\n    resources: {{cpus: 0.5, memory: 512MiB}}\n    \
         model: {{name: digits, path: model{from}}}\n    metrics: {{accuracy: {{goal: maximize}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_goes_on_from_a_version_and_its_lineage_says_so() {
    let cells = notebook(&[TRAIN]);
    let world = World::with(&[(".trainyard.yml", &pipeline("")), ("train.ipynb", &cells)]).await;
    let first = world.finished(&world.project.head()).await;
    assert_eq!(first.pipeline.state, "succeeded", "{first:#?}");
    world.api().version("digits", "1").await;
    let why = ["--why", "the first"];
    world.shown(&[&["models", "alias", "digits", "champion", "1"], &why[..]].concat());

    world
        .project
        .commit(&[(".trainyard.yml", &pipeline(", from: digits@champion"))]);
    let second = world.finished(&world.project.head()).await;
    let job = &second.jobs[0];
    assert_eq!(
        job.state.outcome(),
        Some(&Outcome::Succeeded),
        "{second:#?}"
    );
    let text = said(&world.api().events(&job.id, None).await);
    assert_eq!(text, "read-only\nfrom 0.75\n");
    world.api().version("digits", "2").await;

    let why = world.shown(&["models", "why", "digits", "2"]);
    for words in [
        "digits version 2",
        "It is version 2 because 'train' succeeded on the default branch main.",
        "WENT ON FROM",
        "version 1 (as digits@champion)",
        "train.ipynb",
    ] {
        assert!(why.contains(words), "{words} in {why}");
    }
    let why = world.shown(&["models", "why", "digits", "@champion"]);
    assert!(
        why.contains("@champion points here since") && why.contains("(the first)."),
        "{why}"
    );
    assert!(why.contains("GOES ON IN"), "{why}");
    let (code, _) = world.ended(&["models", "rm", "digits", "1", "--why", "old"]);
    assert_eq!(code, Some(2), "it is needed");

    let (code, text) = world.ended(&["reproduce", "digits", "1"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with("the same: files 1, metrics 1\n"), "{text}");
    let shown = world.shown(&["models", "show", "digits", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        shown["items"].as_array().unwrap().len(),
        2,
        "it leaves no version"
    );

    let to = world.path("home");
    let to = to.to_str().unwrap();
    let done = world.shown(&[
        "models", "download", "digits", "latest", "--to", to, "--json",
    ]);
    let done: serde_json::Value = serde_json::from_str(&done).unwrap();
    assert_eq!((&done["files"], &done["fetched"]), (&1.into(), &3.into()));
    let weights = std::fs::read_to_string(format!("{to}/deep/weights")).unwrap();
    assert_eq!(weights, "1.0");
    let again = world.shown(&["models", "download", "digits", "2", "--to", to, "--json"]);
    assert!(again.contains("\"fetched\": 0"), "{again}");
    let (code, _) = world.ended(&["models", "download", "digits", "1", "--to", to]);
    assert_eq!(code, Some(2), "what is there differs");
}
