//! A look at the job's source for code that sends what it logs to another registry: nothing of that would stand here, and
//! nobody would know why.

use std::io::{self, Read as _};

use notebook::LineMap;
use notebook::nbformat::{self, MAX_BYTES};
use protocol::Work;
use protocol::event::{EventKind, Finding};
use protocol::spec::LintLevel;

use super::Attempt;
use super::follow::open_plain;

/// What is looked for.
const CALL: &str = "set_tracking_uri(";
/// Most that are told.
const MOST: usize = 10;

impl Attempt<'_> {
    /// Tells of each such place, once, before the job starts.
    pub(super) fn tell_elsewhere(&self) {
        for finding in self.elsewhere() {
            self.tell(EventKind::Finding(finding));
        }
    }

    fn elsewhere(&self) -> Vec<Finding> {
        match &self.order.spec.work {
            Work::Notebook { path } => match self.source(path) {
                Ok(bytes) => in_notebook(path, &bytes),
                Err(_) => Vec::new(),
            },
            Work::Command { text } => {
                let scripts = text.split_whitespace().filter(|word| word.ends_with(".py"));
                let of = |path| match self.source(path) {
                    Ok(bytes) => in_script(path, &String::from_utf8_lossy(&bytes)),
                    Err(_) => Vec::new(),
                };
                scripts.flat_map(of).take(MOST).collect()
            }
            Work::Lint { .. } => Vec::new(),
        }
    }

    /// A file of the checkout. What cannot be read is not judged here.
    fn source(&self, path: &str) -> io::Result<Vec<u8>> {
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = open_plain(&self.dir.workspace().join(path))?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The lines with such a call, from 1. A comment is none.
fn lines(source: &str) -> impl Iterator<Item = u32> {
    let numbered = source.lines().zip(1..);
    let called = |line: &str| {
        let code = line.split('#').next().unwrap_or_default();
        code.contains(CALL)
    };
    numbered.filter_map(move |(line, number)| called(line).then_some(number))
}

fn in_script(path: &str, text: &str) -> Vec<Finding> {
    let at = |line| Finding {
        line: Some(line),
        ..finding(path)
    };
    lines(text).take(MOST).map(at).collect()
}

fn in_notebook(path: &str, bytes: &[u8]) -> Vec<Finding> {
    let (Ok(read), Ok(map)) = (nbformat::read(bytes), LineMap::read(bytes)) else {
        return Vec::new();
    };
    let number = |index: usize| u32::try_from(index + 1).ok();
    let cells = read.code_cells().enumerate();
    let of = |(nth, (index, cell)): (usize, (usize, &notebook::Cell))| {
        let at = |line: u32| Finding {
            cell: number(index),
            code_cell: number(nth),
            line: Some(line),
            raw_line: map.raw_line(index, line as usize),
            ..finding(path)
        };
        lines(&cell.source).map(at).collect::<Vec<_>>()
    };
    cells.flat_map(of).take(MOST).collect()
}

fn finding(path: &str) -> Finding {
    Finding {
        tool: "mlflow".to_owned(),
        level: LintLevel::Warn,
        path: path.to_owned(),
        cell: None,
        code_cell: None,
        line: None,
        column: None,
        raw_line: None,
        code: None,
        message: "set_tracking_uri sends what this code logs to another registry: no run, metric or model of it stands here. \
            In a job the address is set already (MLFLOW_TRACKING_URI): take the call away, or keep it if that is meant"
            .to_owned(),
        suggestion: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_at_its_cell_and_line() {
        let cells = [
            "import mlflow",
            "x = 1\nmlflow.set_tracking_uri('http://elsewhere:5000')",
            "# mlflow.set_tracking_uri('x')\nmlflow.get_tracking_uri()",
        ];
        let cell = |source: &&str| {
            serde_json::json!({"cell_type": "code", "id": "a", "metadata": {}, "source": source,
                               "execution_count": null, "outputs": []})
        };
        let mut all: Vec<serde_json::Value> = cells.iter().map(cell).collect();
        for (index, cell) in all.iter_mut().enumerate() {
            cell["id"] = format!("c{index}").into();
        }
        all.insert(
            0,
            serde_json::json!({"cell_type": "markdown", "id": "m", "metadata": {}, "source": CALL}),
        );
        let text =
            serde_json::json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": all});
        let text = format!("{text:#}");
        let found = in_notebook("a.ipynb", text.as_bytes());
        assert_eq!(found.len(), 1, "{found:?}");
        let at = (found[0].cell, found[0].code_cell, found[0].line);
        assert_eq!(at, (Some(3), Some(2), Some(2)));
        assert!(found[0].raw_line.is_some());
        assert_eq!(
            in_script("a.py", "a\nb.set_tracking_uri(c)\n")[0].line,
            Some(2)
        );
        assert_eq!(in_notebook("a.ipynb", b"{"), Vec::new());
    }
}
