//! What changes a key and what does not.

mod triggers;
mod wrong;

use plan::{Context, PlanError, explain};
use protocol::spec::{LintLevel, Network, Parent, PythonSource, Trust};
use protocol::{TriggerKind, Work};
use serde_json::json;
use trainyard_plan as plan;

use crate::support::{Files, job, names, notebook, person, planned, push, refused, trigger};

const FILE: &str = "\
defaults: {python: requirements.txt}
lint: [ruff, {black: warn}]
jobs:
  train:
    notebook: notebooks/train.ipynb
    parameters: {epochs: 20}
    model: {name: digits, path: model/}
  report:
    command: python report.py --epochs ${epochs}
    parameters: {epochs: 20}
    needs: [train]
";

const CELLS: [&str; 2] = ["epochs = 1", "from src import model"];

fn repository() -> Files {
    Files::default()
        .with(".trainyard.yml", FILE)
        .with("README.md", "hello")
        .with("LICENSE", "MIT")
        .with("notebooks/train.ipynb", notebook(&CELLS, 0))
        .with("notebooks/other.ipynb", notebook(&["print('scratch')"], 0))
        .with("src/model.py", "x = 1\n")
        .with("report.py", "print(1)\n")
        .with("requirements.txt", "scikit-learn==1.6\n")
}

/// Which jobs have another key, and why.
fn changes(before: &Files, after: &Files) -> Vec<(String, Vec<String>)> {
    let (before, after) = (planned(before), planned(after));
    let changed = after.jobs.iter().filter_map(|now| {
        let earlier = job(&before, &now.spec.name);
        (now.key != earlier.key).then(|| (now.spec.name.clone(), explain(now, earlier)))
    });
    changed.collect()
}

/// Asserts which jobs run again, and the reasons.
fn assert_changes(after: &Files, expected: &[(&str, &[&str])]) {
    let found = changes(&repository(), after);
    let found: Vec<(&str, Vec<&str>)> = found
        .iter()
        .map(|(name, why)| (name.as_str(), why.iter().map(String::as_str).collect()))
        .collect();
    let expected: Vec<(&str, Vec<&str>)> = expected.iter().map(|(n, w)| (*n, w.to_vec())).collect();
    assert_eq!(found, expected);
}

const REPORT: (&str, &[&str]) = ("report", &["train, which it needs, changed"]);

#[test]
fn a_plan_has_every_job_with_its_inputs() {
    let plan = planned(&repository());
    assert_eq!(names(&plan), ["lint", "train", "report"]);
    let (lint, train, report) = (&plan.jobs[0], &plan.jobs[1], &plan.jobs[2]);
    let Work::Lint { tools, notebooks } = &lint.spec.work else {
        panic!("{:?}", lint.spec.work)
    };
    assert_eq!(notebooks, &["notebooks/train.ipynb"]);
    assert_eq!(tools[1].level, LintLevel::Warn);
    assert_eq!(
        (lint.spec.network, lint.spec.needs.len()),
        (Network::None, 0)
    );
    assert_eq!(train.spec.needs, ["lint"]);
    assert_eq!(report.spec.needs, ["lint", "train"]);
    assert_eq!(
        train.spec.python,
        Some(PythonSource::Requirements("requirements.txt".into()))
    );
    let paths: Vec<&str> = train.deps.iter().map(|dep| dep.path.as_str()).collect();
    assert_eq!(paths, ["report.py", "src/model.py"]);
    assert!(train.fingerprint.is_some() && report.fingerprint.is_none());
    assert!(
        train
            .unversioned
            .iter()
            .any(|what| what.contains("network"))
    );
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<plan::Plan>(&text).unwrap(), plan);
}

#[test]
fn the_same_files_give_the_same_keys() {
    assert_changes(&repository(), &[]);
}

#[test]
fn a_commit_that_only_executes_the_notebook_again_changes_nothing() {
    for times in [1, 2] {
        let after = repository()
            .with("notebooks/train.ipynb", notebook(&CELLS, times))
            .with(
                "notebooks/other.ipynb",
                notebook(&["print('scratch')"], times),
            );
        assert_changes(&after, &[]);
    }
}

#[test]
fn documents_and_other_notebooks_change_nothing() {
    let after = repository()
        .with("README.md", "hello again")
        .with("docs/guide.md", "new")
        .with("LICENSE", "Apache")
        .with(".github/workflows/x.yml", "on: push")
        .with("notebooks/other.ipynb", notebook(&["print('more')"], 0));
    assert_changes(&after, &[]);
}

#[test]
fn an_imported_module_runs_the_jobs_and_not_the_linters() {
    let after = repository().with("src/model.py", "x = 2\n");
    let why: &[&str] = &["src/model.py changed"];
    let both: &[&str] = &["src/model.py changed", "train, which it needs, changed"];
    assert_changes(&after, &[("train", why), ("report", both)]);
}

#[test]
fn code_of_the_notebook_runs_linters_and_jobs() {
    let after = repository().with(
        "notebooks/train.ipynb",
        notebook(&["epochs = 1", "x = 3"], 0),
    );
    assert_changes(
        &after,
        &[
            ("lint", &["code of notebooks/train.ipynb changed"]),
            ("train", &["code of notebooks/train.ipynb changed"]),
            REPORT,
        ],
    );
}

#[test]
fn blanks_at_the_end_of_a_line_are_the_linters_business() {
    let after = repository().with(
        "notebooks/train.ipynb",
        notebook(&["epochs = 1", "from src import model  "], 0),
    );
    assert_changes(
        &after,
        &[("lint", &["code of notebooks/train.ipynb changed"])],
    );
}

#[test]
fn settings_of_a_tool_run_the_linters() {
    let after = repository().with("ruff.toml", "line-length = 80");
    let changed = changes(&repository(), &after);
    assert_eq!(
        changed[0],
        ("lint".to_owned(), vec!["ruff.toml is new".to_owned()])
    );
}

#[test]
fn whatever_a_lint_tool_may_read_runs_it_again() {
    let lint = |tools: &str, path: &str| -> bool {
        let text = FILE.replacen("lint: [ruff, {black: warn}]", &format!("lint: {tools}"), 1);
        let before = repository().with(".trainyard.yml", text.as_str());
        let after = before.clone().with(path, "x = 2\n");
        changes(&before, &after)
            .iter()
            .any(|(job, _)| job == "lint")
    };
    for settings in [
        ".flake8",
        "pylintrc",
        "sub/.pylintrc",
        "base.toml",
        "tox.ini",
        "setup.cfg",
    ] {
        assert!(lint("[ruff]", settings), "{settings}");
    }
    assert!(!lint("[ruff]", "src/model.py"));
    assert!(lint("[pylint]", "src/model.py") && lint("[flake8]", "src/model.py"));
    // A tool that is not known, or options, may name any file.
    assert!(!lint("[flake8]", "words.txt"));
    assert!(lint("[{nbqa: vulture}]", "words.txt"));
    assert!(lint("[{nbqa: flake8 --config words.txt}]", "words.txt"));
}

#[test]
fn lint_gets_the_cpus_that_jobs_get_but_no_more_than_tools() {
    let cpus = |defaults: &str| {
        let text = FILE.replacen(
            "requirements.txt",
            &format!("requirements.txt{defaults}"),
            1,
        );
        let plan = planned(&repository().with(".trainyard.yml", text.as_str()));
        plan.jobs[0].spec.resources.cpu_millis
    };
    assert_eq!(cpus(""), 1_000);
    assert_eq!(cpus(", resources: {cpus: 8}"), 2_000);
    assert_eq!(cpus(", resources: {cpus: 0.5}"), 1_000);
}

#[test]
fn a_parameter_runs_its_job() {
    let text = FILE.replacen("{epochs: 20}", "{epochs: 30}", 1);
    assert_changes(
        &repository().with(".trainyard.yml", text),
        &[("train", &["parameter epochs: 20 -> 30"]), REPORT],
    );
}

#[test]
fn requirements_run_the_jobs() {
    let after = repository().with("requirements.txt", "scikit-learn==1.7\n");
    let both: &[&str] = &["requirements.txt changed", "train, which it needs, changed"];
    assert_changes(
        &after,
        &[("train", &["requirements.txt changed"]), ("report", both)],
    );
}

#[test]
fn included_requirements_count() {
    let before = repository()
        .with("requirements.txt", "-r base.txt\n")
        .with("base.txt", "a==1\n");
    let after = before.clone().with("base.txt", "a==2\n");
    let changed = changes(&before, &after);
    assert_eq!(
        changed[0],
        (
            "train".to_owned(),
            vec!["requirements.txt changed".to_owned()]
        )
    );
    let gone = refused(&before.without("base.txt")).to_string();
    assert_eq!(
        gone,
        ".trainyard.yml:1:20: 'requirements.txt' includes 'base.txt', which is not in the repository"
    );
}

#[test]
fn what_does_not_change_a_result_changes_no_key() {
    let text = FILE.replacen(
        "    parameters",
        "    timeout: 2h\n    grace: 2m\n    lost_after: 1h\n    checkpoints: {across_hosts: true}\n    retries: 0\n    reuse: false\n    on: {push: true}\n    resources: {memory: 8GiB, cpus: 4}\n    parameters",
        1,
    );
    let text = text.replacen("{python", "{gpu_idle_timeout: 30m, python", 1);
    let after = repository().with(".trainyard.yml", text);
    assert_changes(&after, &[]);
    let plan = planned(&after);
    let limits = &job(&plan, "train").spec.limits;
    assert_eq!(limits.gpu_idle_timeout, Some(protocol::Span::secs(1_800)));
}

#[test]
fn what_may_change_a_result_changes_the_key() {
    for line in [
        "env: {A: b}",
        "secrets: [TOKEN]",
        "network: none",
        "resources: {gpus: 1}",
        "runs_on: [fast]",
        "artifacts: [out/**]",
        "image: other/image",
        "checkout: {lfs: true}",
        "metrics: {accuracy: {goal: maximize}}",
        "needs: [prepare]",
        "python: none",
    ] {
        let prepare = "jobs:\n  prepare: {command: make}\n";
        let before = FILE.replacen("jobs:\n", prepare, 1);
        let after = before.replacen("    parameters", &format!("    {line}\n    parameters"), 1);
        assert_ne!(before, after);
        let before = repository().with(".trainyard.yml", before);
        let changed = changes(&before, &before.clone().with(".trainyard.yml", after));
        assert_eq!(
            changed.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
            ["train", "report"],
            "{line}"
        );
        assert_eq!(
            changed[0].1.len(),
            if line.starts_with("python") { 2 } else { 1 },
            "{line}: {:?}",
            changed[0].1
        );
    }
}

#[test]
fn deps_narrow_what_counts() {
    let text = FILE.replacen(
        "    parameters",
        "    deps: [src/**, nothing/*]\n    parameters",
        1,
    );
    let before = repository().with(".trainyard.yml", text);
    let plan = planned(&before);
    let paths: Vec<&str> = job(&plan, "train")
        .deps
        .iter()
        .map(|d| d.path.as_str())
        .collect();
    assert_eq!(paths, ["src/model.py"]);
    assert_eq!(
        plan.notes,
        ["train: no file matches 'nothing/*' of its 'deps'"]
    );
    let changed = changes(&before, &before.clone().with("report.py", "print(2)\n"));
    assert_eq!(
        changed,
        [("report".to_owned(), vec!["report.py changed".to_owned()])]
    );
}

#[test]
fn a_notebook_that_another_runs_counts_by_what_it_means() {
    let before = repository().with(
        "notebooks/train.ipynb",
        notebook(&["epochs = 1", "%run other.ipynb"], 0),
    );
    let executed = before
        .clone()
        .with("notebooks/other.ipynb", notebook(&["print('scratch')"], 3));
    assert_eq!(changes(&before, &executed), []);
    let changed = before
        .clone()
        .with("notebooks/other.ipynb", notebook(&["print('more')"], 0));
    assert_eq!(
        changes(&before, &changed)[0],
        (
            "train".to_owned(),
            vec!["notebooks/other.ipynb changed".to_owned()]
        )
    );
}

#[test]
fn a_matrix_and_a_glob_make_several_jobs() {
    let text = "jobs:\n  train:\n    notebook: notebooks/*.ipynb\n    matrix: {epochs: [1, 2]}\n";
    let plan = planned(&repository().with(".trainyard.yml", text));
    assert_eq!(
        names(&plan),
        [
            "train (notebooks/other.ipynb, epochs=1)",
            "train (notebooks/other.ipynb, epochs=2)",
            "train (notebooks/train.ipynb, epochs=1)",
            "train (notebooks/train.ipynb, epochs=2)",
        ]
    );
    assert_eq!(
        job(&plan, "train (notebooks/train.ipynb, epochs=2)")
            .spec
            .parameters["epochs"],
        json!(2)
    );
    let keys: std::collections::BTreeSet<_> = plan.jobs.iter().map(|j| j.key.clone()).collect();
    assert_eq!(keys.len(), 4);
}

#[test]
fn data_that_dvc_keeps_counts_by_its_file() {
    let text = "jobs:\n  t:\n    command: x\n    deps: [data/raw/**, ./data/set]\n    volumes: {night: /workspace/data/night, other: /data/night}\n";
    let with = |set: &str, night: &str| {
        Files::default()
            .with(".trainyard.yml", text)
            .with("data/raw.dvc", "outs: raw")
            .with("data/set.dvc", set)
            .with("data/night.dvc", night)
            .with("data/unused.dvc", "x")
    };
    let plan = planned(&with("outs: 1", "outs: 1"));
    let first = &plan.jobs[0];
    let paths: Vec<&str> = first.deps.iter().map(|dep| dep.path.as_str()).collect();
    assert_eq!(paths, ["data/raw.dvc", "data/set.dvc"]);
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);
    let night = first.volumes["night"].as_deref().unwrap();
    assert!(night.starts_with("data/night.dvc "), "{night}");
    assert_eq!(first.volumes["other"], None);
    let said = |name: &str| first.unversioned.iter().any(|said| said.contains(name));
    assert!(
        said("'other'") && !said("'night'"),
        "{:?}",
        first.unversioned
    );
    let set = planned(&with("outs: 2", "outs: 1"));
    assert_eq!(explain(&set.jobs[0], first), ["data/set.dvc changed"]);
    let volume = planned(&with("outs: 1", "outs: 2"));
    assert_ne!(volume.jobs[0].key, first.key);
    // Where neither file nor DVC's is there, it is said.
    let gone = Files::default().with(".trainyard.yml", text);
    assert_eq!(planned(&gone).notes.len(), 2);
}

#[test]
fn a_parent_has_a_part_by_the_version_that_it_means() {
    let text = |from: &str| {
        let model = format!("model: {{name: digits, path: model/{from}}}");
        FILE.replace("model: {name: digits, path: model/}", &model)
    };
    let with = |from: &str| repository().with(".trainyard.yml", text(from));
    let meant = |asked: &str, version: u64| {
        let parent = Parent {
            asked: asked.into(),
            model: "digits".into(),
            version,
            id: format!("id-{version}"),
        };
        (asked.to_owned(), Ok(parent))
    };
    let mut parents: plan::Parents = [
        meant("digits@champion", 3),
        meant("digits/3", 3),
        meant("digits@latest", 4),
    ]
    .into();
    parents.insert(
        "digits@gone".into(),
        Err("'digits@gone': it has @champion".into()),
    );
    let train = |from: &str, trigger: &protocol::Trigger| {
        let context = Context {
            parents: Some(&parents),
            base_file: Some(&text(from).into_bytes()),
            ..Context::default()
        };
        plan::plan(&with(from), trigger, &context).map(|plan| job(&plan, "train").clone())
    };
    let of = |from: &str| train(from, &push()).unwrap();
    let champion = of(", from: digits@champion");
    assert_eq!(champion.spec.parent.as_ref().unwrap().version, 3);
    assert_eq!(
        champion.key,
        of(", from: digits/3").key,
        "it is the same version"
    );
    let latest = of(", from: digits@latest");
    assert_eq!(
        explain(&latest, &champion),
        ["parent model: digits/3 -> digits/4"]
    );
    assert_ne!(champion.key, of("").key);
    assert_eq!(of("").key, job(&planned(&repository()), "train").key);
    let gone = train(", from: digits@gone", &push())
        .unwrap_err()
        .to_string();
    assert_eq!(gone, ".trainyard.yml:7:47: 'digits@gone': it has @champion");

    // Who asks no server has none, and is told; an untrusted commit gets none.
    let alone = planned(&with(", from: digits@champion"));
    assert_eq!(job(&alone, "train").spec.parent, None);
    assert!(
        alone.notes[0].contains("is known to the server alone"),
        "{:?}",
        alone.notes
    );
    let mut untrusted = push();
    untrusted.trust = Trust::Untrusted;
    let theirs = train(", from: digits@champion", &untrusted).unwrap();
    assert_eq!((theirs.spec.parent, theirs.key), (None, champion.key));

    let asked = plan::asked_parents(text(", from: digits/3").as_bytes());
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), ["digits/3"]);
    assert!(plan::asked_parents(b"jobs: [").is_empty());
    let wrong = refused(&with(", from: digits")).to_string();
    assert!(
        wrong.starts_with(".trainyard.yml:7:47: 'digits' names no version"),
        "{wrong}"
    );
}

#[test]
fn a_pep_723_block_is_the_requirements() {
    let cells = ["# /// script\n# dependencies = [\"numpy\"]\n# ///\nepochs = 1"];
    let before = repository().with("notebooks/train.ipynb", notebook(&cells, 0));
    let train = job(&planned(&before), "train").clone();
    assert_eq!(
        train.spec.python,
        Some(PythonSource::Script("notebooks/train.ipynb".into()))
    );
    assert!(train.lock.is_some());
}
