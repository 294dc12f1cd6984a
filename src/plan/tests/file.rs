//! What is taken, and what is refused where.

use protocol::Timestamp;
use protocol::spec::LintLevel;
use trainyard_plan::{self as plan, PipelineFile};

/// The first error as a person sees it.
fn error(text: &str) -> String {
    PipelineFile::parse(text.as_bytes())
        .unwrap_err()
        .to_string()
}

const EVERYTHING: &str = r#"
defaults: {image: trainyard/notebook, python: requirements.txt}
supersede: running
lint: [ruff, {black: warn}]
jobs:
  prepare: {command: "make data"}
  train:
    notebook: notebooks/train.ipynb
    on: {push: [main, "release/*"], pull_request: true, schedule: "0 3 * * 1"}
    python: uv.lock
    image: registry.example/cuda:12
    deps: [src/**, configs/*.yml]
    parameters: {epochs: 20, name: base, layers: [64, 32]}
    matrix: {lr: [0.1, 0.01], seed: [1, 2, 3]}
    resources: {cpus: 4, memory: 16GiB, shm_size: 8GiB, gpus: 2, gpu_memory: 24GiB, gpu_model: [A100, "H100 SXM", 4090], compute_capability: ">=8.0", cuda: ">=12.1", nvlink: true, disk: 100GiB}
    volumes: {imagenet: /data}
    priority: 10
    concurrency: {group: train, cancel_queued: true}
    runs_on: [datacenter-a]
    env: {WANDB_MODE: offline, OMP_NUM_THREADS: 4}
    secrets: [HF_TOKEN]
    network: full
    needs: [prepare]
    artifacts: [reports/**]
    timeout: 24h
    cell_timeout: 1h30m
    silence_timeout: 15m
    gpu_idle_timeout: 30m
    grace: 2m
    lost_after: 1h
    checkpoints: {across_hosts: true, max_size: 10GiB}
    checkout: {lfs: true, submodules: true}
    model: {name: churn, path: model/}
    metrics: {accuracy: {goal: maximize, max_regression: 0.01}}
    retries: 2
    reuse: true
"#;

#[test]
fn every_key_is_taken() {
    let file = PipelineFile::parse(EVERYTHING.as_bytes()).unwrap();
    let train = file.job("train").unwrap();
    assert_eq!(
        train.parameters.names().collect::<Vec<_>>(),
        ["epochs", "name", "layers"]
    );
    assert_eq!(
        train
            .env
            .as_ref()
            .unwrap()
            .get("OMP_NUM_THREADS")
            .unwrap()
            .0,
        "4"
    );
    assert_eq!(train.matrix.get("lr").unwrap().len(), 2);
}

#[test]
fn schedules_tell_the_next_time() {
    let file = PipelineFile::parse(EVERYTHING.as_bytes()).unwrap();
    let schedules = file.schedules();
    assert_eq!(schedules.len(), 1);
    assert_eq!(schedules[0].definition, "train");
    // 1970-01-01 was a Thursday: the first Monday is the 5th.
    let first = schedules[0].next_after(Timestamp(0)).unwrap();
    assert_eq!(first, Timestamp((4 * 24 + 3) * 3_600_000));
    assert_eq!(
        schedules[0].next_after(first).unwrap(),
        first + protocol::Span::hours(7 * 24)
    );
}

#[test]
fn an_unknown_key_names_its_place_and_the_nearest_word() {
    assert_eq!(
        error("jobs:\n  train:\n    notebok: a.ipynb\n"),
        ".trainyard.yml:3:5: unknown key 'notebok'; did you mean 'notebook'?"
    );
    assert_eq!(
        error("jobs:\n  t:\n    command: x\n    resources: {gpu: 1}\n"),
        ".trainyard.yml:4:17: unknown key 'gpu'; did you mean 'gpus'?"
    );
    assert!(error("jobs: {t: {command: x, tim: 3}}").contains("did you mean 'timeout'?"));
    assert!(error("job: {}\n").contains("did you mean 'jobs'?"));
    // Of one letter any other is as near.
    let text = "jobs:\n  t: {command: 'x ${a}', parameters: {c: 1}}\n";
    assert!(error(text).contains("unknown parameter 'a'; known are c"));
    assert_eq!(
        error("lint: [ruf]\njobs: {t: {command: x}}\n"),
        ".trainyard.yml:1:8: unknown lint tool 'ruf'; did you mean 'ruff'? Another tool is run by {nbqa: ruf}"
    );
    assert!(error("jobs:\n  t: {command: x, network: ful}\n").contains("did you mean 'full'?"));
    assert_eq!(
        error("jobs:\n  prepare: {command: x}\n  t: {command: x, needs: [prepar]}\n"),
        ".trainyard.yml:3:27: unknown job 'prepar'; did you mean 'prepare'?"
    );
    assert_eq!(
        error("jobs:\n  t:\n    command: train --lr ${lrr}\n    parameters: {lr: 1}\n"),
        ".trainyard.yml:3:14: unknown parameter 'lrr'; did you mean 'lr'? (a variable of the shell is written $lrr, without braces)"
    );
}

#[test]
fn a_wrong_value_names_its_place_and_what_is_accepted() {
    for (text, place, words) in [
        (
            "jobs:\n  t: {command: x, grace: 2h}",
            ":2:26:",
            "'grace' is more than 1h",
        ),
        (
            "jobs:\n  t: {command: x, gpu_idle_timeout: 5m}",
            ":2:37:",
            "'gpu_idle_timeout' of a job without GPUs: say how many",
        ),
        (
            "jobs:\n  t: {command: x, timeout: soon}",
            ":2:",
            "'soon' is not a duration such as",
        ),
        (
            "jobs:\n  t: {command: x, timeout: 24}",
            ":2:",
            "'24' is not a duration",
        ),
        (
            "jobs:\n  t: {command: x, timeout: 0s}",
            ":2:",
            "ends a job before it begins",
        ),
        (
            "jobs:\n  t:\n    command: x\n    resources: {memory: lots}",
            ":4:",
            "'lots' is not a size",
        ),
        (
            "jobs:\n  t:\n    command: x\n    resources: {cpus: many}",
            ":4:",
            "'many' is not a number of CPUs",
        ),
        (
            "jobs:\n  t:\n    command: x\n    retries: yes",
            ":4:",
            "a whole number",
        ),
        ("jobs:\n  t: {command: x, reuse: maybe}", ":2:", "true"),
        ("jobs: [a, b]", ":1:7", "map"),
        (
            "jobs:\n  t: {command: x, on: {schedule: \"61 * * * *\"}}",
            ":2:",
            "not a cron expression",
        ),
        (
            "jobs:\n  t: {command: x, on: {push: 3}}",
            ":2:",
            "globs of branches",
        ),
        (
            "jobs:\n  t: {command: x, image: {bild: x}}",
            ":2:",
            "did you mean 'build'",
        ),
        (
            "jobs:\n  t: {command: x, deps: [\"a[\"]}",
            ":2:26",
            "is not a glob",
        ),
        (
            "jobs:\n  t: {command: x, deps: [/etc/*]}",
            ":2:26",
            "relative to the repository",
        ),
        (
            "jobs:\n  t: {command: x, python: ../r.txt}",
            ":2:",
            "within the repository",
        ),
        (
            "jobs:\n  t: {command: x, python: setup.cfg}",
            ":2:",
            "says nothing about packages",
        ),
        (
            "jobs:\n  t: {command: x, metrics: {a: {goal: best}}}",
            ":2:",
            "unknown value 'best'",
        ),
        (
            "jobs:\n  t: {command: x, metrics: {a: {}}}",
            ":2:",
            "'goal' is missing",
        ),
        (
            "jobs:\n  t: {command: x, model: {name: a/b, path: m}}",
            ":2:",
            "not a name of a model",
        ),
        (
            "jobs:\n  t: {command: x, secrets: [a-b]}",
            ":2:",
            "environment variable",
        ),
        (
            "jobs:\n  t: {command: x, env: {TRAINYARD_X: 1}}",
            ":2:",
            "Trainyard's own",
        ),
        (
            "jobs:\n  t: {command: x, retries: 100}",
            ":2:",
            "more than 10",
        ),
        (
            "jobs:\n  t: {command: x}\n  t: {command: y}",
            ":3:3",
            "a second time",
        ),
        (
            "jobs:\n  t: {notebook: a.ipynb, command: y}",
            ":2:",
            "one of them",
        ),
        (
            "jobs:\n  t: {}",
            ":2:3",
            "needs a 'notebook' or a 'command'",
        ),
        ("jobs:\n  lint: {command: x}", ":2:3", "Trainyard's own job"),
        (
            "jobs:\n  \"a b\": {command: x}",
            ":2:3",
            "not a name of a job",
        ),
        (
            "lint: [ruff, ruff]\njobs: {t: {command: x}}",
            ":1:14",
            "a second time",
        ),
        (
            "lint: [{nbqa: \"flake8 --select F\"}, flake8]\njobs: {t: {command: x}}",
            ":1:",
            "'flake8' stands in 'lint' a second time",
        ),
        (
            "lint: [{nbqa: \"'open\"}]\njobs: {t: {command: x}}",
            ":1:8",
            "'nbqa' is a tool and its options",
        ),
        (
            "lint: [\"a b\"]\njobs: {t: {command: x}}",
            ":1:8",
            "'a b' is not the name of a lint tool",
        ),
        (
            "lint: [{nbqa: ruff format}]\njobs: {t: {command: x}}",
            ":1:8",
            "write 'ruff-format'",
        ),
        (
            "lint: [{vulture: warn, level: warn}]\njobs: {t: {command: x}}",
            ":1:",
            "'vulture' stands beside 'nbqa' or 'level'",
        ),
        (
            "lint: [{vulture: warn, black: warn}]\njobs: {t: {command: x}}",
            ":1:",
            "one tool for each item",
        ),
        (
            "jobs:\n  t: {command: x, parameters: {a: 1}, matrix: {a: [1]}}",
            ":2:",
            "'parameters' and in 'matrix'",
        ),
        (
            "jobs:\n  t: {command: x, matrix: {a: []}}",
            ":2:",
            "no values",
        ),
        (
            "jobs:\n  t: {command: x, matrix: {a: [1, 1]}}",
            ":2:",
            "twice",
        ),
        (
            "jobs:\n  t: {command: x, resources: {gpu_memory: 1GiB}}",
            ":2:",
            "say how many",
        ),
        (
            "jobs:\n  t:\n    command: x\n    resources: {gpus: 1, gpu_memory: 80}",
            ":4:38",
            "'80' has no unit: write 80GiB",
        ),
        (
            "jobs:\n  t:\n    command: x\n    resources:\n      memory: 0",
            ":5:15",
            "'0' is no size",
        ),
        (
            "jobs:\n  t: {command: x, resources: {memory: 0GiB}}",
            ":2:",
            "'0GiB' is no size",
        ),
        ("jobs:\n  t: {command: [", ":2:", ""),
        ("jobs: {}", "", "no job"),
        ("", "", "empty"),
        ("lint: [ruff]", "", "'jobs' is missing"),
        (
            "jobs:\n  t:\n    command:\n",
            ":",
            "needs a 'notebook' or a 'command'",
        ),
    ] {
        let error = error(text);
        assert!(
            error.starts_with(&format!(".trainyard.yml{place}")),
            "{text:?}: {error}"
        );
        assert!(error.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn what_is_not_yet_supported_is_refused_at_its_place() {
    for (text, place, key) in [
        (
            "jobs:\n  t:\n    command: x\n    image: {build: docker/train}",
            ":4:12",
            "image: {build: …}",
        ),
        (
            "defaults: {image: {build: docker/train}}\njobs: {t: {command: x}}",
            ":1:19",
            "image: {build: …}",
        ),
    ] {
        assert_eq!(
            error(text),
            format!(".trainyard.yml{place}: '{key}' is not yet supported: remove it")
        );
    }
}

#[test]
fn a_circle_of_needs_is_named() {
    let text = "jobs:\n  a: {command: x, needs: [b]}\n  b: {command: x, needs: [c]}\n  c: {command: x, needs: [a]}\n";
    assert_eq!(
        error(text),
        ".trainyard.yml:4:27: a circle: a needs b needs c needs a"
    );
    assert!(error("jobs:\n  a: {command: x, needs: [a]}\n").contains("'a' needs itself"));
    assert!(error("jobs:\n  a: {command: x, needs: [lint]}\n").contains("waits for lint"));
}

#[test]
fn limits_are_said() {
    let values: Vec<String> = (0..17).map(|n| n.to_string()).collect();
    let list = values.join(", ");
    let matrix = format!("jobs:\n  t: {{command: x, matrix: {{a: [{list}], b: [{list}]}}}}\n");
    assert!(
        error(&matrix).contains("more than 256 jobs"),
        "{}",
        error(&matrix)
    );
    let jobs: String = (0..201)
        .map(|n| format!("  j{n}: {{command: x}}\n"))
        .collect();
    assert!(error(&format!("jobs:\n{jobs}")).contains("more than 200 jobs"));
    let long = format!("# {}\njobs: {{t: {{command: x}}}}", "x".repeat(300 << 10));
    assert!(error(&long).contains("more than the 262144"));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\njobs: {t: {command: x, parameters: {p: *e}}}\n";
    assert!(error(bomb).starts_with(".trainyard.yml:"));
}

#[test]
fn anchors_are_shared_as_yaml_has_them() {
    let text = "jobs:\n  a: {command: x, resources: &big {cpus: 8, memory: 32GiB}}\n  b: {command: y, resources: *big}\n";
    let file = PipelineFile::parse(text.as_bytes()).unwrap();
    assert_eq!(
        file.job("b")
            .unwrap()
            .resources
            .as_ref()
            .unwrap()
            .cpus
            .unwrap()
            .0,
        8_000
    );
}

/// Every error has a place within the file, whatever the bytes are.
#[test]
fn spoilt_files_are_refused_with_a_place_and_nothing_worse() {
    let lines = EVERYTHING.lines().count() as u64 + 60;
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let pieces: [&[u8]; 12] = [
        b"[", b"}", b": ", b"\n", b"- ", b"\"", b"&a ", b"*a", b"!!int ", b"\xff", b"${x}", b"<<: ",
    ];
    let mut refused = 0;
    for _ in 0..1_000 {
        let mut bytes = EVERYTHING.as_bytes().to_vec();
        for _ in 0..=random(4) {
            let (at, length) = (random(bytes.len()), random(6));
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, pieces[random(pieces.len())].iter().copied());
        }
        if let Err(error) = PipelineFile::parse(&bytes) {
            refused += 1;
            assert!(error.line <= lines && !error.message.is_empty(), "{error}");
        }
    }
    assert!(refused > 300, "{refused}");
}

#[test]
fn lint_tools_are_named_or_run_through_nbqa() {
    let text = "lint:\n  - ruff\n  - ruff-format\n  - {pyupgrade: warn}\n  - nbqa: ruff\n    level: warn\n  - {nbqa: \"vulture --exclude 'a b'\"}\n  - {nbqa: usort}\njobs: {t: {command: x}}\n";
    let file = PipelineFile::parse(text.as_bytes()).unwrap();
    let tools: Vec<_> = file
        .lint
        .iter()
        .map(|entry| entry.value.tool.clone())
        .collect();
    let names: Vec<_> = tools.iter().map(|tool| tool.name()).collect();
    assert_eq!(
        names,
        [
            "ruff",
            "ruff-format",
            "pyupgrade",
            "nbqa ruff",
            "vulture",
            "usort"
        ]
    );
    let native: Vec<_> = tools.iter().map(|tool| tool.is_native()).collect();
    assert_eq!(native, [true, true, false, false, false, false]);
    let warns: Vec<_> = tools
        .iter()
        .map(|tool| tool.level == LintLevel::Warn)
        .collect();
    assert_eq!(warns, [false, false, true, true, false, false]);
    assert_eq!(tools[4].args, ["--exclude", "a b"]);
    // usort is a tool, and nearly isort: whoever means it says so.
    assert!(error("lint: [usort]\njobs: {t: {command: x}}\n").contains("{nbqa: usort}"));
    assert_eq!(plan::lint_tool("nbqa ruff").unwrap().name(), "nbqa ruff");
    assert_eq!(plan::lint_tool("vulture -v").unwrap().args, ["-v"]);
    assert_eq!(
        plan::lint_tool("rufff").unwrap_err(),
        "unknown lint tool 'rufff'; did you mean 'ruff'? Another tool is run by --tool 'nbqa rufff'"
    );
    assert!(plan::lint_tool("").is_err() && plan::lint_tool("rm/x").is_err());
}
