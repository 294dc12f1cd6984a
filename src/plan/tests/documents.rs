//! The schema, the documents and the examples follow the types. `TRAINYARD_REGENERATE=1` writes the schema anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use trainyard_plan::{PipelineFile, schema};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

#[test]
fn the_schema_in_the_documents_is_that_of_the_types() {
    let path = root().join("docs/trainyard.schema.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("TRAINYARD_REGENERATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(
        kept == text,
        "{} is out of date: run this test with TRAINYARD_REGENERATE=1",
        path.display()
    );
}

/// Names of all properties, at any depth.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    if let Some(map) = value.as_object() {
        if let Some(properties) = map.get("properties").and_then(Value::as_object) {
            found.extend(properties.keys().cloned());
        }
        map.values().for_each(|value| keys(value, found));
    }
    if let Some(list) = value.as_array() {
        list.iter().for_each(|value| keys(value, found));
    }
}

#[test]
fn every_key_is_documented() {
    let mut all = BTreeSet::new();
    keys(&schema(), &mut all);
    assert!(all.len() > 35, "{all:?}");
    let text = std::fs::read_to_string(root().join("docs/pipeline.md")).unwrap();
    let missing: Vec<&String> = all
        .iter()
        .filter(|key| !text.contains(&format!("`{key}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/pipeline.md does not mention {missing:?}"
    );
}

/// Pipeline files below a folder of the project.
fn pipeline_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pipeline_files(&path, found);
        } else if path.file_name().is_some_and(|n| n == ".trainyard.yml")
            || path
                .parent()
                .is_some_and(|p| p.ends_with("runner-configs/pipeline"))
        {
            found.push(path);
        }
    }
}

#[test]
fn the_examples_are_right() {
    let mut found = Vec::new();
    for folder in ["runner-configs", "examples"] {
        pipeline_files(&root().join(folder), &mut found);
    }
    assert!(found.len() >= 3, "{found:?}");
    for path in found {
        let bytes = std::fs::read(&path).unwrap();
        PipelineFile::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn the_files_in_the_documents_are_right() {
    let mut seen = 0;
    for document in ["docs/pipeline.md", "README.md"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            if block.lines().any(|line| line == "jobs:") {
                PipelineFile::parse(block.as_bytes())
                    .unwrap_or_else(|e| panic!("{document}: {e}\n{block}"));
                seen += 1;
            }
        }
    }
    assert!(seen > 0, "no document shows a file");
}
