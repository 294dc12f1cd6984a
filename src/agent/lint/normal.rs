//! nbQA reads only notebooks whose sources are lists of lines: of others it says that nothing is wrong, or breaks.
//! So the tools get them in that form, and the original is kept for the places of findings. What is no notebook at all
//! they do not get.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::bad;

/// Rewrites, in the workspace, the notebooks that nbQA would not read; originals go to `originals`. So does a notebook
/// that cannot be read: [`super::read`] says what is wrong with it.
///
/// # Errors
/// Where the disk refuses.
pub(crate) fn prepare(notebooks: &[String], workspace: &Path, originals: &Path) -> io::Result<()> {
    let root = workspace.canonicalize()?;
    for path in notebooks {
        // A link would lead out of the workspace.
        let plain = workspace
            .join(path)
            .canonicalize()
            .is_ok_and(|real| real == root.join(path));
        let place = workspace.join(path);
        let (true, Ok(bytes)) = (plain, bad::bytes(&place)) else {
            continue;
        };
        let kept = originals.join(path);
        if let Some(parent) = kept.parent() {
            fs::create_dir_all(parent)?;
        }
        let bytes = bytes.and_then(|bytes| notebook::read(&bytes).map(|_| bytes));
        let Ok(bytes) = bytes else {
            fs::rename(&place, kept)?;
            continue;
        };
        if let Some(lines) = in_lines(&bytes) {
            fs::write(kept, bytes)?;
            fs::write(place, lines)?;
        }
    }
    Ok(())
}

/// The notebook with every source as a list of lines; none where it is so already, or no notebook.
fn in_lines(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut notebook: Value = serde_json::from_slice(bytes).ok()?;
    let mut changed = false;
    for cell in notebook.get_mut("cells")?.as_array_mut()? {
        if let Some(source) = cell.get_mut("source")
            && let Some(text) = source.as_str()
        {
            let lines: Vec<Value> = text.split_inclusive('\n').map(Value::from).collect();
            *source = Value::Array(lines);
            changed = true;
        }
    }
    changed.then(|| serde_json::to_vec_pretty(&notebook).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_become_lists_and_nothing_else_changes() {
        let text = br#"{"cells": [{"source": "a\nb"}, {"source": ["c"]}], "x": 1}"#;
        let lines: Value = serde_json::from_slice(&in_lines(text).unwrap()).unwrap();
        assert_eq!(
            lines,
            serde_json::json!({"cells": [{"source": ["a\n", "b"]}, {"source": ["c"]}], "x": 1})
        );
        assert_eq!(in_lines(br#"{"cells": [{"source": ["c"]}]}"#), None);
    }
}
