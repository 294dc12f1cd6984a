//! Why a job runs: what differs between its key and that of an earlier job, in words.

use std::collections::BTreeMap;

use crate::planned::{Dep, KeyPart, PlannedJob};

/// Most sentences about files.
const MAX_FILES: usize = 10;

/// What changed since `earlier`, most telling first; empty: nothing did.
#[must_use]
pub fn explain(now: &PlannedJob, earlier: &PlannedJob) -> Vec<String> {
    if now.key == earlier.key {
        return Vec::new();
    }
    let mut reasons = Vec::new();
    for part in &now.key_parts {
        match earlier.key_parts.iter().find(|p| p.name == part.name) {
            Some(before) if before.value == part.value => {}
            Some(_) if part.name == "files" => reasons.extend(files(&now.deps, &earlier.deps)),
            before => reasons.push(changed(now, part, before)),
        }
    }
    for before in &earlier.key_parts {
        if !now.key_parts.iter().any(|part| part.name == before.name) {
            reasons.push(format!("{} is gone", before.name));
        }
    }
    reasons
}

/// A part that is new or another.
fn changed(now: &PlannedJob, part: &KeyPart, before: Option<&KeyPart>) -> String {
    let (kind, rest) = part.name.split_once(' ').unwrap_or((&part.name, ""));
    match (kind, before) {
        ("code", _) => match &now.spec.work {
            protocol::Work::Notebook { path } => format!("code of {path} changed"),
            protocol::Work::Command { .. } | protocol::Work::Lint { .. } => {
                "code changed".to_owned()
            }
        },
        ("notebook", None) => format!(
            "{rest} is new",
            rest = if rest.is_empty() { &part.value } else { rest }
        ),
        ("notebook", Some(_)) if !rest.is_empty() => format!("code of {rest} changed"),
        ("python", Some(_)) => format!("{rest} changed"),
        ("python", None) => format!("requirements now stand in {rest}"),
        ("needs", Some(_)) => format!("{rest}, which it needs, changed"),
        ("needs", None) => format!("it needs {rest} now"),
        ("modules", _) => "a Python module was added or removed".to_owned(),
        ("env", _) => "its environment variables changed".to_owned(),
        ("command", Some(_)) => "its command changed".to_owned(),
        (_, Some(before)) => format!("{}: {} -> {}", part.name, before.value, part.value),
        (_, None) => format!("{}: {} is new", part.name, part.value),
    }
}

fn files(now: &[Dep], earlier: &[Dep]) -> Vec<String> {
    let by_path = |deps: &[Dep]| -> BTreeMap<String, String> {
        deps.iter()
            .map(|dep| (dep.path.clone(), dep.id.clone()))
            .collect()
    };
    let (now, earlier) = (by_path(now), by_path(earlier));
    let mut found = Vec::new();
    for (path, id) in &now {
        match earlier.get(path) {
            Some(before) if before == id => {}
            Some(_) => found.push(format!("{path} changed")),
            None => found.push(format!("{path} is new")),
        }
    }
    found.extend(
        earlier
            .keys()
            .filter(|path| !now.contains_key(*path))
            .map(|path| format!("{path} is gone")),
    );
    if found.is_empty() {
        // Beyond the files that are kept by name.
        return vec!["a file that it depends on changed".to_owned()];
    }
    let more = found.len().saturating_sub(MAX_FILES);
    found.truncate(MAX_FILES);
    if more > 0 {
        found.push(format!("and {more} more files"));
    }
    found
}
