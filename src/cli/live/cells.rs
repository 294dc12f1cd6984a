//! How cells are called on the command line: as the repository's file counts them, all of them, from 1. The cell with
//! the values that a run was given is not in that file.

use std::collections::HashMap;
use std::path::Path;

use protocol::event::CellSource;
use protocol::{JobSpec, Work};

/// The cells of the notebook that is executed; none where it is not here.
#[derive(Debug, Default)]
pub(super) struct Cells {
    executed: Vec<Executed>,
    /// How many the repository's file has.
    of: usize,
    /// Which ones they are, as the driver told, where the notebook is not here.
    told: HashMap<u32, CellSource>,
}

#[derive(Debug)]
struct Executed {
    source: CellSource,
    first_line: String,
    runs: bool,
}

impl Cells {
    /// Those of a job. A notebook that cannot be read has none: others say what is wrong with it.
    pub(super) fn of(root: &Path, spec: &JobSpec) -> Self {
        let Work::Notebook { path } = &spec.work else {
            return Self::default();
        };
        let bytes = std::fs::read(root.join(path)).unwrap_or_default();
        let Ok(read) = notebook::read(&bytes) else {
            return Self::default();
        };
        let of = read.cells.len();
        let Ok(injected) = notebook::parameters::inject(&read, &spec.parameters) else {
            return Self::default();
        };
        let cells = injected.notebook.cells.iter().zip(injected.origin);
        let executed = cells.map(|(cell, origin)| Executed {
            source: origin.map_or(CellSource::Injected, |origin| {
                CellSource::Number(u32::try_from(origin + 1).unwrap_or(u32::MAX))
            }),
            first_line: first_line(&cell.source).to_owned(),
            runs: cell.runs(),
        });
        Self {
            executed: executed.collect(),
            of,
            told: HashMap::new(),
        }
    }

    fn get(&self, cell: u32) -> Option<&Executed> {
        self.executed.get(usize::try_from(cell).ok()?)
    }

    /// The driver told which cell it is.
    pub(super) fn hear(&mut self, cell: u32, source: CellSource) {
        self.told.insert(cell, source);
    }

    /// Which cell it is. `cell` counts from 0 among those that are executed. Older drivers do not tell.
    fn source(&self, cell: u32) -> CellSource {
        let known = self.get(cell).map(|one| one.source);
        known
            .or_else(|| self.told.get(&cell).copied())
            .unwrap_or(CellSource::Number(cell.saturating_add(1)))
    }

    /// `cell 3`. `cell` counts from 0 among those that are executed.
    pub(super) fn name(&self, cell: u32) -> String {
        match self.source(cell) {
            CellSource::Injected => "values of this run".to_owned(),
            CellSource::Number(number) => format!("cell {number}"),
        }
    }

    /// `[3/14]`.
    pub(super) fn head(&self, cell: u32) -> String {
        match self.source(cell) {
            CellSource::Number(number) if self.of > 0 => format!("[{number}/{}]", self.of),
            CellSource::Number(_) | CellSource::Injected => format!("[{}]", self.name(cell)),
        }
    }

    /// The first line that says something; empty where the cell is, or where nothing is known.
    pub(super) fn first_line(&self, cell: u32) -> &str {
        self.get(cell).map_or("", |one| &one.first_line)
    }

    /// Whether it is executed; what is not known is.
    pub(super) fn runs(&self, cell: u32) -> bool {
        self.get(cell).is_none_or(|one| one.runs)
    }

    /// Whether it is known to say nothing.
    pub(super) fn is_blank(&self, cell: u32) -> bool {
        self.get(cell).is_some_and(|one| one.first_line.is_empty())
    }
}

fn first_line(source: &str) -> &str {
    let mut lines = source.lines();
    lines
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_count_as_the_repositorys_file_does() {
        let folder = tempfile::tempdir().unwrap();
        let cell = |kind: &str, tags: &[&str], source: &str| json!({"cell_type": kind, "metadata": {"tags": tags}, "source": source});
        let file = json!({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [
            cell("markdown", &[], "# T"), cell("code", &["parameters"], "lr = 1"),
            cell("code", &["skip-execution"], "x"), cell("code", &[], "\n"), cell("code", &[], "\ny"),
        ]});
        std::fs::write(folder.path().join("a.ipynb"), file.to_string()).unwrap();
        let mut spec = agent::local::notebook_spec("a.ipynb", None, "i");
        spec.parameters.insert("lr".to_owned(), json!(2));
        let cells = Cells::of(folder.path(), &spec);
        let heads: Vec<String> = (1..6).map(|cell| cells.head(cell)).collect();
        assert_eq!(
            heads,
            ["[2/5]", "[values of this run]", "[3/5]", "[4/5]", "[5/5]"]
        );
        assert_eq!(
            (cells.name(1), cells.name(5)),
            ("cell 2".into(), "cell 5".into())
        );
        assert_eq!(cells.first_line(5), "y");
        assert_eq!(
            [1, 3, 4, 5].map(|cell| (cells.runs(cell), cells.is_blank(cell))),
            [(true, false), (false, false), (false, true), (true, false)]
        );
        // Of a notebook that is not here nothing is known, and every cell is shown.
        let mut unknown = Cells::default();
        assert_eq!(unknown.head(2), "[cell 3]");
        assert!(unknown.runs(2) && !unknown.is_blank(2));
        // The driver tells how they count.
        unknown.hear(2, CellSource::Injected);
        unknown.hear(3, CellSource::Number(3));
        assert_eq!(
            [2, 3].map(|cell| unknown.head(cell)),
            ["[values of this run]", "[cell 3]"]
        );
        assert_eq!(unknown.name(3), "cell 3");
    }
}
