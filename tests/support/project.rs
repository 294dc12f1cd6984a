//! A git remote, and the folder in which its author works.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// A cell that says that it waits, and goes on when a file `go` lies in its workspace.
pub(crate) const GATE: &str = "import pathlib, time\nprint('waiting')\n\
    while not pathlib.Path('go').exists():\n    time.sleep(0.02)\nprint('through')";

/// A pipeline of one notebook, without lint.
pub(crate) const ONE_NOTEBOOK: &str =
    "jobs:\n  train:\n    notebook: train.ipynb\n    resources: {cpus: 0.5, memory: 512MiB}\n";

/// The text of a notebook whose code cells have these sources, executed `count` times.
pub(crate) fn executed(sources: &[&str], count: Option<u64>) -> String {
    let outputs = |n: u64| json!([{"output_type": "stream", "name": "stdout", "text": format!("of time {n}\n")}]);
    let cell = |(n, source): (usize, &&str)| {
        json!({
            "cell_type": "code", "id": format!("c{n}"), "metadata": {}, "source": source,
            "execution_count": count, "outputs": count.map_or(json!([]), outputs),
        })
    };
    let cells: Vec<Value> = sources.iter().enumerate().map(cell).collect();
    let kernel = json!({"name": "python3", "display_name": "Python 3", "language": "python"});
    let notebook = json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells});
    format!("{notebook:#}\n")
}

/// The same, never executed.
pub(crate) fn notebook(sources: &[&str]) -> String {
    executed(sources, None)
}

pub(crate) struct Project {
    folder: PathBuf,
}

impl Project {
    /// An empty repository, and a clone of it.
    pub(super) fn new(folder: &Path) -> Self {
        let project = Self {
            folder: folder.to_owned(),
        };
        let remote = project.remote().display().to_string();
        project.git(
            folder,
            &[
                "init",
                "--quiet",
                "--bare",
                "--initial-branch=main",
                &remote,
            ],
        );
        project.git(folder, &["clone", "--quiet", &remote, "work"]);
        project.git(&project.work(), &["switch", "--quiet", "--create", "main"]);
        project
    }

    pub(crate) fn remote(&self) -> PathBuf {
        self.folder.join("remote.git")
    }

    fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// Writes files, commits and pushes them. Gives the commit's id.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        let work = self.work();
        for (path, text) in files {
            std::fs::write(work.join(path), text).unwrap();
        }
        self.git(&work, &["add", "--all"]);
        self.git(
            &work,
            &["commit", "--quiet", "--allow-empty", "--message", "Change"],
        );
        self.git(&work, &["push", "--quiet", "origin", "main"]);
        self.git(&work, &["rev-parse", "HEAD"])
    }

    /// The id of the last commit.
    pub(crate) fn head(&self) -> String {
        self.git(&self.work(), &["rev-parse", "HEAD"])
    }

    fn git(&self, folder: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(folder)
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
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}
