//! Where a finding really stands: cells as a person counts them and as nbQA does, and a line only where the cell's
//! source bears it out.

use std::collections::BTreeMap;

use notebook::{LineMap, Notebook, ReadError};
use protocol::event::Finding;
use protocol::spec::LintLevel;

use super::notes::Joined;

/// Most characters of a finding's message.
const MESSAGE_CHARS: usize = 2_000;

/// What a tool claims to have found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// In the repository.
    pub(super) path: String,
    pub(super) place: Place,
    pub(super) code: Option<String>,
    pub(super) message: String,
    /// A unified diff of the cell.
    pub(super) suggestion: Option<String>,
}

/// Where, in the words of whoever counted. Lines and columns from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere in particular.
    Whole,
    /// A line of the file: of a script, or of what nbQA joined.
    Line { line: u32, column: Option<u32> },
    /// A tool that reads notebooks itself: cell among all, its own line.
    Cell {
        cell: u32,
        line: Option<u32>,
        column: Option<u32>,
    },
    /// Known from the notes of nbQA's run: cell among code cells.
    Noted {
        nth: u32,
        line: Option<u32>,
        column: Option<u32>,
    },
    /// nbQA's own words, whose lines are sometimes wrong: cell among code cells.
    Counted {
        nth: u32,
        line: Option<u32>,
        column: Option<u32>,
    },
}

/// A notebook as its findings are held against it.
#[derive(Debug)]
pub(super) struct Source {
    notebook: Notebook,
    map: LineMap,
}

/// What claims are held against.
#[derive(Debug, Default)]
pub(super) struct Known<'a> {
    pub(super) sources: Option<&'a BTreeMap<String, Source>>,
    pub(super) joined: BTreeMap<String, Joined>,
}

impl Known<'_> {
    /// The claim as a finding, without its tool and level, which the caller sets.
    pub(super) fn settle(&self, claim: Claim) -> Finding {
        let mut finding = Finding {
            tool: String::new(),
            level: LintLevel::Error,
            cell: None,
            code_cell: None,
            line: None,
            column: None,
            raw_line: None,
            code: claim.code,
            message: claim.message.chars().take(MESSAGE_CHARS).collect(),
            suggestion: claim.suggestion,
            path: claim.path,
        };
        let Some(source) = self.sources.and_then(|all| all.get(&finding.path)) else {
            if let Place::Line { line, column } = claim.place
                && !finding.path.ends_with(".ipynb")
            {
                (finding.line, finding.column) = (Some(line), column);
            }
            return finding;
        };
        let place = match claim.place {
            Place::Line { line, column } => self.in_joined(&finding.path, line, column),
            other => other,
        };
        source.put(&mut finding, place);
        finding
    }

    /// A line of what nbQA joined, as the notes tell it.
    fn in_joined(&self, path: &str, line: u32, column: Option<u32>) -> Place {
        match self.joined.get(path).and_then(|joined| joined.at(line)) {
            Some(at) => Place::Noted {
                nth: at.nth,
                line: at.line,
                column: column.filter(|_| at.same),
            },
            None => Place::Whole,
        }
    }
}

impl Source {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut notebook = notebook::nbformat::read(bytes)?;
        // They may be much, and no finding is about them.
        for cell in &mut notebook.cells {
            cell.outputs = Vec::new();
        }
        Ok(Self {
            notebook,
            map: LineMap::read(bytes)?,
        })
    }

    /// Whether these tools are for it; a notebook that says no language is taken to be Python, as nbQA does.
    pub(super) fn is_python(&self) -> bool {
        let language = self.notebook.language();
        language.is_none_or(|language| language.to_lowercase().starts_with("python"))
    }

    /// The cell as a person counts it (among all, from 1) of the n-th code cell (from 1).
    pub(super) fn cell_of_code(&self, nth: u32) -> Option<u32> {
        let (index, _) = self
            .notebook
            .code_cells()
            .nth(nth.checked_sub(1)? as usize)?;
        u32::try_from(index + 1).ok()
    }

    /// The reverse; none where the cell is no code.
    fn code_of_cell(&self, cell: u32) -> Option<u32> {
        let mut code = self.notebook.code_cells();
        let nth = code.position(|(index, _)| index + 1 == cell as usize)?;
        u32::try_from(nth + 1).ok()
    }

    /// Lines of a cell as a person counts it.
    pub(super) fn lines(&self, cell: u32) -> Option<Vec<&str>> {
        let cell = self.notebook.cells.get(cell.checked_sub(1)? as usize)?;
        Some(cell.source.lines().collect())
    }

    /// Whether nbQA takes lines of this cell for those of another: it ends lines where Python's `str.splitlines` does,
    /// and tools do not.
    fn is_shifted(&self, cell: u32) -> bool {
        let odd = |c: char| {
            matches!(
                c,
                '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
            )
        };
        let before = self.notebook.code_cells();
        before
            .take_while(|(index, _)| *index < cell as usize)
            .any(|(_, cell)| cell.source.contains(odd))
    }

    /// Writes a place into a finding, as far as the notebook bears it out.
    fn put(&self, finding: &mut Finding, place: Place) {
        let (cell, line, column, counted) = match place {
            Place::Whole | Place::Line { .. } => return,
            Place::Cell { cell, line, column } => (Some(cell), line, column, false),
            Place::Noted { nth, line, column } => (self.cell_of_code(nth), line, column, false),
            Place::Counted { nth, line, column } => (self.cell_of_code(nth), line, column, true),
        };
        let Some((cell, lines)) = cell.and_then(|cell| Some((cell, self.lines(cell)?))) else {
            return; // Not in this notebook: neither cell nor line can be believed.
        };
        if counted && self.is_shifted(cell) {
            return;
        }
        finding.cell = Some(cell);
        finding.code_cell = self.code_of_cell(cell);
        finding.line = match counted {
            true => borne_out(line, &lines, &finding.message),
            false => line,
        };
        let text = |line: u32| lines.get((line as usize).checked_sub(1)?);
        finding.line = finding.line.filter(|&line| text(line).is_some());
        let width = finding
            .line
            .and_then(text)
            .map_or(0, |text| text.chars().count());
        finding.column = column
            .filter(|&column| column as usize <= width + 1 && column > 0)
            .filter(|_| finding.line.is_some() && finding.line == line);
        let line = finding.line.unwrap_or(1);
        finding.raw_line = self.map.raw_line(cell as usize - 1, line as usize);
    }
}

/// A line of nbQA's own count: believed in a cell where it counts right, else the one line that has what the message
/// names, else none.
fn borne_out(claimed: Option<u32>, lines: &[&str], message: &str) -> Option<u32> {
    if !lines.iter().any(|line| moves(line)) {
        return claimed;
    }
    let names = quoted(message);
    let mut showing = (1..)
        .zip(lines)
        .filter(|(_, text)| names.iter().any(|name| has_word(text, name)));
    match (showing.next(), showing.next()) {
        (Some((line, _)), None) => Some(line),
        (Some(_) | None, _) => None,
    }
}

/// Whether nbQA miscounts in a cell with such a line: autopep8 moves the blank lines around definitions before it counts.
fn moves(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty()
        || line.starts_with(['%', '!', '@', '?'])
        || ["def ", "class ", "async "]
            .iter()
            .any(|word| line.starts_with(word))
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
    if name.is_empty() {
        return false;
    }
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(part);
        let after = text[at + name.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}
