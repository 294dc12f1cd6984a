//! A tree of files in memory, with the ids that git would give, and triggers.

use std::collections::BTreeMap;

use mirror::{FileEntry, FileMode, MirrorError, Tree};
use plan::{Context, Plan, PlanError, PlannedJob};
use protocol::spec::{Parameters, Trust};
use protocol::{CommitId, Digest, Timestamp, Trigger, TriggerKind};
use serde_json::{Value, json};
use trainyard_plan as plan;

/// Files by path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    contents: BTreeMap<String, Vec<u8>>,
    entries: Vec<FileEntry>,
}

impl Files {
    pub(crate) fn with(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.contents
            .insert(path.to_owned(), content.as_ref().to_vec());
        self.entries = self
            .contents
            .iter()
            .map(|(path, content)| entry(path, content))
            .collect();
        self
    }

    /// The same files, one of them said to have another size.
    pub(crate) fn sized(mut self, path: &str, bytes: u64) -> Self {
        let entries = self.entries.iter_mut();
        for entry in entries.filter(|entry| entry.path == path) {
            entry.size = bytes;
        }
        self
    }

    pub(crate) fn without(mut self, path: &str) -> Self {
        self.contents.remove(path);
        self.entries.retain(|entry| entry.path != path);
        self
    }
}

/// Equal content has equal ids: that is all that a plan asks of them.
fn entry(path: &str, content: &[u8]) -> FileEntry {
    let id = Digest::of(content).as_str()[..40].to_owned();
    FileEntry {
        path: path.to_owned(),
        id,
        mode: FileMode::Plain,
        size: content.len() as u64,
    }
}

impl Tree for Files {
    fn files(&self) -> &[FileEntry] {
        &self.entries
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, MirrorError> {
        let missing = || MirrorError::NoSuchFile {
            path: path.to_owned(),
        };
        self.contents.get(path).cloned().ok_or_else(missing)
    }
}

/// A notebook of code cells, executed `times` times.
pub(crate) fn notebook(cells: &[&str], times: u64) -> String {
    let cells: Vec<Value> = cells
        .iter()
        .enumerate()
        .map(|(n, source)| {
            let outputs = json!([{"output_type": "stream", "name": "stdout", "text": format!("run {times}\n")}]);
            json!({
                "cell_type": "code", "id": format!("c{n}"), "source": source,
                "metadata": if n == 0 { json!({"tags": ["parameters"]}) } else { json!({}) },
                "execution_count": if times == 0 { Value::Null } else { json!(times) },
                "outputs": if times == 0 { json!([]) } else { outputs },
            })
        })
        .collect();
    let mut metadata = json!({"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}});
    if times > 0 {
        metadata["language_info"] = json!({"name": "python", "version": format!("3.11.{times}")});
    }
    json!({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}).to_string()
}

pub(crate) fn commit() -> CommitId {
    "a".repeat(40).parse().unwrap()
}

pub(crate) fn trigger(kind: TriggerKind, reference: &str) -> Trigger {
    Trigger {
        kind,
        commit: commit(),
        reference: Some(reference.to_owned()),
        base: None,
        trust: Trust::Trusted,
        by: None,
        at: Timestamp(0),
        asked_in: None,
    }
}

pub(crate) fn push() -> Trigger {
    trigger(TriggerKind::Push, "refs/heads/main")
}

pub(crate) fn person(definitions: &[&str], parameters: Value) -> Trigger {
    let definitions = definitions.iter().map(|d| (*d).to_owned()).collect();
    let parameters: Parameters = parameters.as_object().unwrap().clone();
    trigger(
        TriggerKind::Person {
            definitions,
            parameters,
        },
        "refs/heads/main",
    )
}

pub(crate) fn planned(files: &Files) -> Plan {
    plan::plan(files, &push(), &Context::default()).unwrap()
}

pub(crate) fn refused(files: &Files) -> PlanError {
    plan::plan(files, &push(), &Context::default()).unwrap_err()
}

pub(crate) fn job<'a>(plan: &'a Plan, name: &str) -> &'a PlannedJob {
    let found = plan.jobs.iter().find(|job| job.spec.name == name);
    found.unwrap_or_else(|| panic!("no job {name}: {:?}", names(plan)))
}

pub(crate) fn names(plan: &Plan) -> Vec<&str> {
    plan.jobs.iter().map(|job| job.spec.name.as_str()).collect()
}
