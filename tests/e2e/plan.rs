//! `trainyard init` and `trainyard plan`, told to the real binary in a repository of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::World;

struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    fn new() -> Self {
        let repository = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn git(&self, arguments: &[&str]) {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .envs([
                ("GIT_AUTHOR_NAME", "Ada"),
                ("GIT_AUTHOR_EMAIL", "ada@example.org"),
            ])
            .envs([
                ("GIT_COMMITTER_NAME", "Ada"),
                ("GIT_COMMITTER_EMAIL", "ada@example.org"),
            ])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "change"]);
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path().join(path), text).unwrap();
    }

    fn trainyard(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(arguments)
            .current_dir(self.path())
            // Nobody listens there.
            .env("TRAINYARD_SERVER", "http://127.0.0.1:9")
            .output()
            .unwrap()
    }

    /// `(job, decision, first reason)` of each line of a plan.
    fn plan(&self, arguments: &[&str]) -> Vec<(String, String, String)> {
        let output = self.trainyard(&[&["plan", "--json"], arguments].concat());
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let jobs = report["jobs"].as_array().unwrap().iter();
        jobs.map(|job| {
            (
                text(&job["name"]),
                text(&job["decision"]),
                text(&job["why"][0]),
            )
        })
        .collect()
    }
}

/// A notebook with one parameter, executed `count` times.
fn notebook(count: u64, source: &str) -> String {
    serde_json::json!({
        "nbformat": 4, "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "cells": [
            {"cell_type": "code", "id": "a", "source": "epochs = 3", "metadata": {"tags": ["parameters"]},
             "execution_count": null, "outputs": []},
            {"cell_type": "code", "id": "b", "source": source, "metadata": {}, "execution_count": count,
             "outputs": [{"output_type": "stream", "name": "stdout", "text": format!("{count}")}]},
        ],
    })
    .to_string()
}

fn fails_with(output: &Output, words: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains(words), "{complaint}");
}

#[test]
fn a_first_file_is_written_and_its_plan_explains_itself() {
    let repository = Repository::new();
    fails_with(
        &repository.trainyard(&["init"]),
        "no notebook and no train.py",
    );
    repository.write("train.ipynb", &notebook(1, "import model"));
    repository.write("model.py", "x = 1\n");
    repository.write("requirements.txt", "numpy\n");
    fails_with(&repository.trainyard(&["plan"]), "trainyard init");
    let output = repository.trainyard(&["init"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("found train.ipynb, with 1 parameter")
    );
    fails_with(&repository.trainyard(&["init"]), "--force");
    assert!(
        repository
            .plan(&[])
            .iter()
            .all(|(_, decision, _)| decision == "run")
    );

    let decided = |lint: (&str, &str), train: (&str, &str)| {
        let row = |name: &str, (decision, why): (&str, &str)| {
            (name.to_owned(), decision.to_owned(), why.to_owned())
        };
        vec![row("lint", lint), row("train", train)]
    };
    let without_commit = |rows: Vec<(String, String, String)>| -> Vec<(String, String, String)> {
        let cut = |why: String| match why.split_once(" since ") {
            Some((begin, _)) => begin.to_owned(),
            None => why,
        };
        rows.into_iter()
            .map(|(name, decision, why)| (name, decision, cut(why)))
            .collect()
    };
    let same = ("cached", "nothing that it depends on changed");

    // Executed again, and documented: nothing runs, neither as it is nor once it is committed.
    repository.commit();
    repository.write("train.ipynb", &notebook(2, "import model"));
    repository.write("README.md", "words\n");
    assert_eq!(without_commit(repository.plan(&[])), decided(same, same));
    repository.commit();
    assert_eq!(without_commit(repository.plan(&[])), decided(same, same));
    assert_eq!(
        without_commit(repository.plan(&["--commit", "HEAD"])),
        decided(same, same)
    );

    // An imported module runs the notebook; its code runs the linters too.
    repository.write("model.py", "x = 2\n");
    assert_eq!(
        without_commit(repository.plan(&[])),
        decided(same, ("run", "model.py changed"))
    );
    repository.commit();
    repository.write("train.ipynb", &notebook(2, "import model as m"));
    let code = ("run", "code of train.ipynb changed");
    assert_eq!(repository.plan(&[]), decided(code, code));
    repository.write("train.ipynb", "{");
    fails_with(&repository.trainyard(&["plan"]), "train.ipynb: ");
}

#[test]
fn a_wrong_file_is_named_with_its_place() {
    let repository = Repository::new();
    repository.write(
        ".trainyard.yml",
        "jobs:\n  train:\n    comand: python train.py\n",
    );
    let wanted = ".trainyard.yml:3:5: unknown key 'comand'; did you mean 'command'?";
    fails_with(&repository.trainyard(&["plan"]), wanted);
    fails_with(
        &repository.trainyard(&["plan", "--commit", "nowhere"]),
        "'nowhere' is no commit",
    );
}

#[test]
fn what_a_job_needs_is_shown_and_that_no_host_was_asked() {
    let repository = Repository::new();
    repository.write(
        ".trainyard.yml",
        "jobs:\n  train:\n    command: python train.py\n    runs_on: [dc-a, fast]\n    volumes: {imagenet: /data}\n    \
         resources: {cpus: 4, memory: 16GiB, disk: 100GiB, gpus: 2, gpu_memory: 24GiB, gpu_model: [A100, H100], \
         compute_capability: '>=8.0', cuda: '>=12.1', nvlink: true}\n  \
         small: {command: x, resources: {cpus: 0.5, gpus: 1, mig: 1g.10gb}}\n",
    );
    let plan = |arguments: &[&str]| {
        let output = repository.trainyard(&[&["plan"], arguments].concat());
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = plan(&[]);
    for needs in [
        " 4 CPUs, 16 GiB, 2 GPUs (A100 or H100) of 24 GiB by NVLink, compute >=8.0, CUDA >=12.1, \
         100 GiB of disk, volumes imagenet, on dc-a fast ",
        " 0.5 CPU, 2 GiB, 1 MIG slice 1g.10gb ",
    ] {
        assert!(shown.contains(needs), "{shown}");
    }
    assert!(
        shown.contains("note: hosts were not asked: cannot reach http://127.0.0.1:9/"),
        "{shown}"
    );
    let report: Value = serde_json::from_str(&plan(&["--json"])).unwrap();
    assert!(report["hosts"]["not_asked"].is_string());
    let needs = &report["jobs"][0]["needs"];
    assert_eq!(
        (&needs["cuda"], &needs["nvlink"], &needs["gpu_models"]),
        (&json!(">=12.1"), &json!(true), &json!(["A100", "H100"]))
    );
    assert_eq!(
        (&needs["runs_on"], &needs["volumes"], &needs["cpu_millis"]),
        (&json!(["dc-a", "fast"]), &json!(["imagenet"]), &json!(4000))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_host_of_the_server_could_run_is_refused() {
    let world = World::new().await;
    world.project.commit(&[(
        ".trainyard.yml",
        "jobs:\n  large: {command: x, resources: {gpus: 4, gpu_model: H100}}\n  small: {command: x}\n",
    )]);
    world.watch(&[]);
    let work = world.path("work").display().to_string();
    let (exit, shown) = world.ended(&["plan", &work]);
    assert_eq!(exit, Some(1), "{shown}");
    let line = |job: &str| {
        let found = shown
            .lines()
            .find(|line| line.trim_start().starts_with(job));
        found.unwrap_or_else(|| panic!("{job}: {shown}")).to_owned()
    };
    let large = line("large");
    assert!(
        large.contains("refused") && large.contains("needs 4 GPUs (H100); host has none"),
        "{shown}"
    );
    assert!(line("small").contains(" run "), "{shown}");
    assert!(
        shown.contains("1 to run, 0 cached where they succeeded before, 0 ignored, 1 refused"),
        "{shown}"
    );
    assert!(!shown.contains("not asked"), "{shown}");
    let (_, json) = world.ended(&["plan", &work, "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        report["hosts"],
        json!({"not_asked": null, "registered": 1, "project": "story"})
    );
    assert_eq!(report["jobs"][0]["decision"], "refused");
}
