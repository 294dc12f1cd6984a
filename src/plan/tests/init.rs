//! The first file that is written for a repository.

use plan::{Context, PipelineFile, first_file};
use serde_json::json;
use trainyard_plan as plan;

use crate::support::{Files, job, names, notebook, push};

#[test]
fn the_first_file_runs_the_repository_as_it_stands() {
    let cells = [
        "epochs = 20  # rounds\nname = 'base'\nfast = True\npath = data / 'x'\n",
        "import torch",
    ];
    let files = Files::default()
        .with("requirements.txt", "torch\n")
        .with("notebooks/Train model.ipynb", notebook(&cells, 0))
        .with(
            "notebooks/scratch.ipynb",
            json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}).to_string(),
        )
        .with("notebooks/broken.ipynb", "{")
        .with("train.py", "print(1)\n");
    let first = first_file(&files).unwrap();
    let file = PipelineFile::parse(first.text.as_bytes())
        .unwrap_or_else(|e| panic!("{e}\n{}", first.text));
    assert_eq!(
        file.jobs.names().collect::<Vec<_>>(),
        ["train-model", "train"]
    );
    assert!(
        first
            .text
            .contains("# scratch: {notebook: notebooks/scratch.ipynb}"),
        "{}",
        first.text
    );
    assert!(
        first.text.contains("# resources: {gpus: 1"),
        "{}",
        first.text
    );
    assert!(
        first
            .seen
            .iter()
            .any(|s| s.starts_with("notebooks/broken.ipynb: ")),
        "{:?}",
        first.seen
    );
    let files = files.with(".trainyard.yml", &first.text);
    let planned = plan::plan(&files, &push(), &Context::default()).unwrap();
    assert_eq!(names(&planned), ["lint", "train-model", "train"]);
    let parameters = &job(&planned, "train-model").spec.parameters;
    assert_eq!(
        json!(parameters),
        json!({"epochs": 20, "name": "base", "fast": true})
    );
    assert!(planned.notes.is_empty(), "{:?}", planned.notes);

    // What is commented out must be right too, once somebody takes the marks away.
    let bare = |line: &str| match line.trim_start().strip_prefix("# ") {
        Some(rest) if line.starts_with("  ") => line.replacen(&format!("# {rest}"), rest, 1),
        Some(_) | None => line.to_owned(),
    };
    let uncommented = first.text.lines().map(bare).collect::<Vec<_>>().join("\n");
    PipelineFile::parse(uncommented.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{uncommented}"));
}

#[test]
fn notebooks_of_one_name_become_jobs_of_different_names() {
    let files = Files::default()
        .with("a/train.ipynb", notebook(&["x = 1"], 0))
        .with("b/train.ipynb", notebook(&["x = 1"], 0))
        .with("train.py", "x");
    let first = first_file(&files).unwrap();
    let file = PipelineFile::parse(first.text.as_bytes()).unwrap();
    assert_eq!(
        file.jobs.names().collect::<Vec<_>>(),
        ["train", "train-2", "train-script"]
    );
}

#[test]
fn nothing_to_run_is_said() {
    let files = Files::default().with("README.md", "hello");
    assert!(
        first_file(&files)
            .unwrap_err()
            .to_string()
            .contains("no notebook and no train.py")
    );
}
