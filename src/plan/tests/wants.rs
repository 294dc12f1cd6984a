//! What a job may ask of a host and of the queue.

use protocol::ByteSize;
use protocol::gpu::GpuModel;
use protocol::spec::{Concurrency, Turn};
use trainyard_plan::PipelineFile;

use crate::support::{Files, planned};

fn error(line: &str) -> String {
    let text = format!("jobs:\n  t:\n    command: x\n    {line}\n");
    PipelineFile::parse(text.as_bytes())
        .unwrap_err()
        .to_string()
}

#[test]
fn demands_become_words_of_the_spec() {
    let file = r#"
jobs:
  t:
    command: x
    resources: {gpus: 2, gpu_model: [A100-80gb, 4090], compute_capability: ">=8.0", cuda: ">=12.1", nvlink: true, disk: 1TiB}
    volumes: {imagenet: /data/}
    priority: -5
    concurrency: deploy
"#;
    let plan = planned(&Files::default().with(".trainyard.yml", file));
    let spec = &plan.jobs[0].spec;
    let models: Vec<&str> = spec
        .resources
        .gpu_models
        .iter()
        .map(GpuModel::as_str)
        .collect();
    assert_eq!(models, ["A100-80gb", "4090"]);
    assert_eq!(
        spec.resources.compute_capability.unwrap().to_string(),
        ">=8.0"
    );
    assert_eq!(spec.resources.cuda.unwrap().version(), "12.1");
    assert!(spec.resources.nvlink);
    assert_eq!(spec.resources.disk, Some(ByteSize::gib(1024)));
    assert_eq!(spec.volumes["imagenet"], "/data");
    let group = Concurrency {
        group: "deploy".into(),
        cancel_queued: false,
    };
    assert_eq!(
        spec.turn,
        Turn {
            priority: -5,
            concurrency: Some(group)
        }
    );
    let said = plan.jobs[0].unversioned.iter();
    assert!(
        said.clone()
            .any(|said| said.contains("'imagenet' has no declared version"))
    );
}

#[test]
fn a_wrong_demand_names_its_place_and_the_nearest_word() {
    for (line, place, words) in [
        (
            "resources: {gpus: 1, gpu_model: H10O}",
            ":4:37",
            "did you mean 'H100'?",
        ),
        (
            "resources: {gpus: 1, gpu_model: [A100, \"rtx 4091\"]}",
            ":4:37",
            "did you mean '4090'?",
        ),
        (
            "resources: {gpus: 1, gpu_model: fast}",
            ":4:37",
            "is not a model of GPU",
        ),
        (
            "resources: {gpus: 1, gpu_model: []}",
            ":4:37",
            "names no model",
        ),
        (
            "resources: {gpu_model: A100}",
            ":4:28",
            "'gpu_model' without 'gpus': say how many",
        ),
        (
            "resources: {gpus: 1, compute_capability: 8.0}",
            ":4:46",
            "is not a lowest version such as \">=8.0\"",
        ),
        (
            "resources: {gpus: 1, cuda: newest}",
            ":4:32",
            "is not a lowest version such as \">=12.1\"",
        ),
        (
            "resources: {gpus: 1, cuda: 12}",
            ":4:32",
            "'12' is not a lowest version such as \">=12\" (in quotes)",
        ),
        (
            "resources: {gpus: 1, mig: 1g10gb}",
            ":4:31",
            "did you mean '1g.10gb'?",
        ),
        (
            "resources: {gpus: 2, mig: 1g.10gb, nvlink: true}",
            ":4:48",
            "slices of 'mig' have none",
        ),
        (
            "resources: {gpus: 1, nvlnk: true}",
            ":4:26",
            "did you mean 'nvlink'?",
        ),
        (
            "volumes: {/srv/data: /data}",
            ":4:15",
            "never a path of a host",
        ),
        (
            "volumes: {imagenet: data}",
            ":4:25",
            "no place for a volume",
        ),
        (
            "volumes: {imagenet: /data/../etc}",
            ":4:25",
            "no place for a volume",
        ),
        (
            "volumes: {imagenet: /trainyard/out}",
            ":4:25",
            "must not cover /trainyard",
        ),
        (
            "volumes: {a: /data, b: /data/}",
            ":4:28",
            "'a' and 'b' would both lie at /data",
        ),
        ("priority: 1000", ":4:15", "from -100 to 100"),
        (
            "concurrency: {group: a, cancel: true}",
            ":4:29",
            "unknown key 'cancel'",
        ),
        (
            "concurrency: \"a b\"",
            ":4:18",
            "not the name of a concurrency group",
        ),
    ] {
        let error = error(line);
        assert!(
            error.starts_with(&format!(".trainyard.yml{place}:")),
            "{line}: {error}"
        );
        assert!(error.contains(words), "{line}: {error}");
    }
    let whole = "jobs: {t: {command: x}}\nsupersede: runing";
    let error = PipelineFile::parse(whole.as_bytes())
        .unwrap_err()
        .to_string();
    assert!(error.contains("did you mean 'running'?"), "{error}");
}

#[test]
fn a_model_that_this_version_does_not_know_is_written_in_full() {
    let text = "jobs:\n  t: {command: x, resources: {gpus: 1, gpu_model: NVIDIA H300}}";
    assert!(PipelineFile::parse(text.as_bytes()).is_ok());
}
