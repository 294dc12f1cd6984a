//! Where a finding really stands: cells as a person counts them, and a line only where the cell's source bears it out.

use notebook::{LineMap, Notebook};
use protocol::event::Finding;

/// A notebook as its findings are held against it.
pub(super) struct Source {
    notebook: Notebook,
    map: LineMap,
}

impl Source {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            notebook: notebook::nbformat::read(bytes).ok()?,
            map: LineMap::read(bytes).ok()?,
        })
    }

    /// The cell as a person counts it (among all, from 1) of the n-th code cell (from 1).
    pub(super) fn cell_of_code(&self, nth: u32) -> Option<u32> {
        let (index, _) = self
            .notebook
            .code_cells()
            .nth(nth.checked_sub(1)? as usize)?;
        u32::try_from(index + 1).ok()
    }

    /// Lines of a cell as a person counts it.
    pub(super) fn lines(&self, cell: u32) -> Option<Vec<&str>> {
        let cell = self.notebook.cells.get(cell.checked_sub(1)? as usize)?;
        Some(cell.source.lines().collect())
    }

    /// Corrects a finding's line by what its message names, drops a line that the cell does not bear out, and
    /// adds the raw line.
    pub(super) fn believe(&self, finding: &mut Finding) {
        let Some(lines) = finding.cell.and_then(|cell| self.lines(cell)) else {
            // Not in this notebook: neither cell nor line can be believed.
            (finding.cell, finding.line, finding.column) = (None, None, None);
            return;
        };
        let claimed = finding.line;
        let names = quoted(&finding.message);
        let shows = |line: u32| {
            let text = lines.get((line as usize).checked_sub(1)?)?;
            Some(names.iter().any(|name| has_word(text, name)))
        };
        // A name may be one that stands nowhere in the cell (an attribute's type): then it proves nothing.
        let provable = (1..=lines.len()).any(|line| shows(line as u32) == Some(true));
        finding.line = match claimed.and_then(shows) {
            Some(true) => claimed,
            Some(false) | None if provable => nearest(claimed.unwrap_or(1), lines.len(), |line| {
                shows(line) == Some(true)
            }),
            // Line magics are what nbQA miscounts after.
            Some(false)
                if finding.tool == "ruff"
                    || !lines
                        .iter()
                        .any(|line| line.trim_start().starts_with(['%', '!'])) =>
            {
                claimed
            }
            Some(false) | None => None,
        };
        if finding.line != claimed {
            finding.column = None;
        }
        let width = finding
            .line
            .and_then(|line| lines.get(line as usize - 1))
            .map_or(0, |line| line.chars().count());
        finding.column = finding
            .column
            .filter(|column| *column as usize <= width + 1);
        finding.raw_line = match (finding.cell, finding.line) {
            (Some(cell), line) => self
                .map
                .raw_line(cell as usize - 1, line.unwrap_or(1) as usize),
            (None, _) => None,
        };
    }
}

/// The line closest to `from` that holds.
fn nearest(from: u32, lines: usize, holds: impl Fn(u32) -> bool) -> Option<u32> {
    (1..=u32::try_from(lines).ok()?)
        .filter(|&line| holds(line))
        .min_by_key(|line| line.abs_diff(from))
}

/// What a message quotes: names of variables, modules, functions.
fn quoted(message: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for quote in ['`', '\'', '"'] {
        names.extend(
            message
                .split(quote)
                .skip(1)
                .step_by(2)
                .filter(|name| !name.is_empty()),
        );
    }
    // `os.path` imported but unused: the line may say `import os.path as p`.
    names
        .iter()
        .map(|name| name.rsplit('.').next().unwrap_or(name))
        .collect()
}

/// Whether the text has the name, not as a part of a longer one.
fn has_word(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(part);
        let after = text[at + name.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}
