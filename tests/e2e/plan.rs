//! `trainyard init` and `trainyard plan`, told to the real binary in a repository of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

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
