//! Stories of what a commit does: it runs, it is refused, it is known already.

use protocol::event::ArtifactRole;
use protocol::{Digest, Failure, FailureKind, Outcome};

use crate::support::api::said;
use crate::support::project::{ONE_NOTEBOOK, executed, notebook};
use crate::support::{World, whole};

/// A notebook that writes a model and measures it, behind lint.
const TRAINED: &str = "lint: [ruff]
jobs:
  train:
    notebook: train.ipynb
    resources: {cpus: 0.5, memory: 512MiB}
    model: {name: digits, path: model}
    metrics: {accuracy: {goal: maximize}}
    parameters: {rate: 0.5}
";
const TRAIN: &str = "import json
import pathlib

pathlib.Path('model').mkdir()
pathlib.Path('model/weights').write_text('0.5')
pathlib.Path('metrics.json').write_text(json.dumps({'accuracy': 0.75}))
print('trained', epochs)";

#[tokio::test(flavor = "multi_thread")]
async fn a_push_lints_and_runs_a_notebook_and_keeps_what_it_leaves() {
    let cells = ["epochs = 3", TRAIN];
    let world = World::with(&[
        (".trainyard.yml", TRAINED),
        ("train.ipynb", &notebook(&cells)),
    ])
    .await;
    let pipeline = world.finished(&world.project.head()).await;
    assert_eq!(pipeline.pipeline.state, "succeeded", "{pipeline:#?}");
    let names: Vec<_> = pipeline.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["lint", "train"]);
    for job in &pipeline.jobs {
        assert_eq!(job.state.outcome(), Some(&Outcome::Succeeded));
        let detail = world.api().job(&job.id).await;
        assert_eq!(detail.attempts.len(), 1);
        whole(
            &world.api().events(&job.id, None).await,
            &Outcome::Succeeded,
        );
    }

    let train = world.api().job(&pipeline.jobs[1].id).await;
    let attempt = &train.attempts[0];
    assert_eq!(attempt.agent, "host");
    assert_eq!(
        said(&world.api().events(&train.job.id, None).await),
        "trained 3\n"
    );
    let kept = attempt
        .artifacts
        .iter()
        .find(|artifact| artifact.role == ArtifactRole::Notebook);
    let bytes = world.api().artifact(&attempt.id, &kept.unwrap().path).await;
    let executed: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(executed["cells"][2]["execution_count"], 3);
    let output = executed["cells"][2]["outputs"][0]["text"].to_string();
    assert!(output.contains("trained 3"), "{output}");
    // Cells are called as the repository's file counts them, also far from that file.
    let logs = world.shown(&["logs", &train.job.id.to_string()]);
    let heads = logs.lines().filter(|line| line.starts_with('['));
    let heads: Vec<&str> = heads.map(str::trim_end).collect();
    assert_eq!(heads, ["[values of this run]", "[cell 1]", "[cell 2]"]);

    let version = world.api().version("digits", "1").await;
    let lineage = version.lineage.as_ref().unwrap();
    assert_eq!(lineage.commit.as_str(), world.project.head());
    assert_eq!(
        (&lineage.job, &lineage.attempt),
        (&train.job.id, &attempt.id)
    );
    assert!(lineage.fingerprint.is_some() && lineage.setting.image_id.is_some());
    let metrics = &version.version.metrics;
    assert_eq!(
        (metrics[0].name.as_str(), metrics[0].value),
        ("accuracy", 0.75)
    );
    assert_eq!(version.files.len(), 1);
    assert_eq!(version.files[0].blob, Digest::of(b"0.5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fix_runs_and_what_changes_no_meaning_is_reused() {
    let wrong = notebook(&["print(1 / 0)"]);
    let world = World::with(&[(".trainyard.yml", ONE_NOTEBOOK), ("train.ipynb", &wrong)]).await;
    let first = world.finished(&world.project.head()).await;
    let Some(Outcome::Failed(failure)) = first.jobs[0].state.outcome() else {
        panic!("it divided by zero: {first:#?}")
    };
    assert_eq!(failure.kind, FailureKind::CellRaised);
    assert_eq!(failure.cell.as_ref().map(|cell| cell.index), Some(0));

    // What failed is not known to succeed: the next commit runs it, though it changes a document only.
    let again = world.project.commit(&[("README.md", "One.\n")]);
    let again = world.finished(&again).await;
    assert_eq!(again.pipeline.state, "failed");
    assert_eq!(world.api().job(&again.jobs[0].id).await.attempts.len(), 1);

    let fixed = ["print(1 / 2)"];
    let fix = world.project.commit(&[("train.ipynb", &notebook(&fixed))]);
    let fix = world.finished(&fix).await;
    assert_eq!(fix.jobs[0].state.outcome(), Some(&Outcome::Succeeded));

    for (path, text) in [
        ("README.md", "Two.\n"),
        ("train.ipynb", &executed(&fixed, Some(7))),
    ] {
        let commit = world.project.commit(&[(path, text)]);
        let pipeline = world.finished(&commit).await;
        assert_eq!(pipeline.pipeline.state, "succeeded");
        let of = fix.jobs[0].id.clone();
        assert_eq!(
            pipeline.jobs[0].state.outcome(),
            Some(&Outcome::Reused { of }),
            "{path}"
        );
        assert!(
            world
                .api()
                .job(&pipeline.jobs[0].id)
                .await
                .attempts
                .is_empty()
        );
    }
}

/// Pushes files, and gives the failure of the pipeline, which has no jobs.
async fn refused(world: &World, files: &[(&str, &str)]) -> Failure {
    let commit = world.project.commit(files);
    let pipeline = world.finished(&commit).await;
    assert_eq!(pipeline.pipeline.state, "failed");
    assert!(pipeline.jobs.is_empty(), "{:#?}", pipeline.jobs);
    pipeline.pipeline.problem.expect("it says why")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_is_red_where_it_is_wrong_and_queues_nothing() {
    let world = World::with(&[("train.ipynb", &notebook(&["1"]))]).await;
    let unknown = "jobs:\n  train:\n    notebok: train.ipynb\n";
    let cycle = "jobs:\n  a: {command: ls, needs: [b]}\n  b: {command: ls, needs: [a]}\n";
    for (text, place, word) in [
        (unknown, ".trainyard.yml:3:5", "'notebook'"),
        (cycle, ".trainyard.yml:3:28", "a needs b needs a"),
    ] {
        let failure = refused(&world, &[(".trainyard.yml", text)]).await;
        assert_eq!(failure.kind, FailureKind::PipelineFileWrong);
        let message = failure.message;
        assert!(
            message.contains(place) && message.contains(word),
            "{message}"
        );
    }
    for (text, word) in [
        ("{\"cells\":\n [", "line 2"),
        ("{\"cells\": 3}", "nbformat"),
    ] {
        let files = [(".trainyard.yml", ONE_NOTEBOOK), ("train.ipynb", text)];
        let failure = refused(&world, &files).await;
        assert_eq!(failure.kind, FailureKind::NotebookInvalid);
        let message = failure.message;
        assert!(
            message.contains("train.ipynb") && message.contains(word),
            "{message}"
        );
    }
}
