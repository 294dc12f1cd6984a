//! Tools that would write a cell otherwise: a finding for each, with the patch. The patches are unified diffs: of
//! `ruff format`, of nbQA's notes, or, without these, what nbQA prints, from which lines are missing.

use std::collections::BTreeMap;

use super::Parsed;
use super::notes::Notes;
use super::place::{Claim, Place, Source};
use super::text::below;

/// Most bytes of one patch.
const MOST_BYTES: usize = 16 << 10;

/// Cells that nbQA's notes tell of: those that the tool would change, and those that no tool could read.
pub(super) fn noted(tool: &str, notes: &Notes, sources: &BTreeMap<String, Source>) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (path, note) in notes.notebooks() {
        for (nth, line, column, words) in &note.bad {
            claims.push(Claim {
                path: path.to_owned(),
                place: Place::Noted {
                    nth: *nth,
                    line: *line,
                    column: *column,
                },
                code: Some("invalid-syntax".to_owned()),
                message: format!("{words}: {tool} could not read the cell"),
                suggestion: None,
            });
        }
        for (nth, diff) in &note.changed {
            let source = sources.get(path);
            let lines = source.and_then(|source| source.lines(source.cell_of_code(*nth)?));
            let Some(patch) = Patch::read(diff, &lines.unwrap_or_default()) else {
                continue;
            };
            // Blank lines that are only moved are nothing to stop for.
            if tool == "isort" && patch.blank {
                continue;
            }
            let place = Place::Noted {
                nth: *nth,
                line: patch.line,
                column: None,
            };
            claims.push(patch.claim(path, place, sentence(tool)));
        }
    }
    claims
}

fn sentence(tool: &str) -> String {
    match tool {
        "isort" => "imports are not sorted as isort would".to_owned(),
        "black" | "ruff-format" => format!("the cell is not formatted as {tool} would"),
        _ => format!("{tool} would change the cell"),
    }
}

/// What `ruff format --diff` said: patches on stdout, notebooks that it could not read on stderr.
pub(super) fn ruff(
    out: &str,
    err: &str,
    sources: &BTreeMap<String, Source>,
    inside: &str,
) -> Parsed {
    let mut parsed = Parsed::default();
    let headed = format!("\n{out}");
    for part in headed.split("\n--- ").skip(1) {
        let (head, rest) = part.split_once('\n').unwrap_or((part, ""));
        let place = head.rsplit_once(":cell ");
        let Some((path, cell)) =
            place.and_then(|(path, cell)| Some((path, cell.trim().parse().ok()?)))
        else {
            parsed.unread.push_str(part);
            continue;
        };
        let path = below(path, inside);
        let diff = rest.split_once('\n').map_or("", |(_, diff)| diff);
        let lines = sources.get(path).and_then(|source| source.lines(cell));
        let open = without_newline(diff, &lines.clone().unwrap_or_default());
        let diff = open.as_deref().unwrap_or(diff);
        if let Some(patch) = Patch::read(diff, &lines.unwrap_or_default()) {
            let place = Place::Cell {
                cell,
                line: patch.line,
                column: None,
            };
            parsed
                .claims
                .push(patch.claim(path, place, sentence("ruff-format")));
        }
    }
    for line in err.lines() {
        match line.strip_prefix("error: Failed to parse ") {
            Some(rest) => parsed.claims.extend(unparsed(rest, inside)),
            None if line.ends_with("would be reformatted")
                || line.contains("already formatted")
                || line.trim().is_empty() => {}
            None => parsed.unread.push_str(&format!("{line}\n")),
        }
    }
    parsed
}

/// ruff wants no newline at a cell's end, and its patch then has the same line twice: said as patches say it.
fn without_newline(diff: &str, cell: &[&str]) -> Option<String> {
    let old = cell.join("\n");
    let new = notebook::patch::apply(&old, diff).ok()?;
    (new == old && !diff.trim().is_empty()).then(|| {
        format!(
            "{}\n\\ No newline at end of file",
            diff.trim_end_matches('\n')
        )
    })
}

/// `a.ipynb:8:1:12: Expected a parameter`: cell, line, column.
fn unparsed(rest: &str, inside: &str) -> Option<Claim> {
    let (place, message) = rest.split_once(": ")?;
    let mut parts = place.rsplitn(4, ':');
    let mut number = || parts.next()?.parse::<u32>().ok();
    let (column, line, cell) = (number()?, number()?, number()?);
    Some(Claim {
        path: below(parts.next()?, inside).to_owned(),
        place: Place::Cell {
            cell,
            line: Some(line),
            column: Some(column),
        },
        code: Some("invalid-syntax".to_owned()),
        message: message.to_owned(),
        suggestion: None,
    })
}

/// What black said of notebooks that it could not format: a fault of the code, not of black.
pub(super) fn black(err: &str, inside: &str) -> Vec<Claim> {
    let one = |line: &str| {
        let rest = line.strip_prefix("error: cannot format ")?;
        let (path, message) = rest.split_once(": ")?;
        message.starts_with("Cannot parse").then(|| Claim {
            path: below(path, inside).to_owned(),
            place: Place::Whole,
            code: Some("invalid-syntax".to_owned()),
            message: message.to_owned(),
            suggestion: None,
        })
    };
    err.lines().filter_map(one).collect()
}

/// What nbQA prints of its own: removed and added lines for each cell, and nothing around them.
pub(super) fn printed(output: &str, tool: &str, sources: &BTreeMap<String, Source>) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut nth = None;
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(number) = line.strip_prefix("Cell ") {
            nth = number.trim().parse::<u32>().ok();
        } else if let (Some(path), Some(nth)) = (line.strip_prefix("--- "), nth) {
            let path = path.trim().trim_start_matches("./");
            let mut diff = String::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("Cell ")) {
                if !line.starts_with("+++ ") {
                    diff.push_str(line);
                    diff.push('\n');
                }
            }
            let source = sources.get(path);
            let cell = source.and_then(|source| source.lines(source.cell_of_code(nth)?));
            let Some(patch) = Patch::read(&diff, &cell.unwrap_or_default()) else {
                continue;
            };
            if tool == "isort" && patch.blank {
                continue;
            }
            let place = Place::Noted {
                nth,
                line: patch.line,
                column: None,
            };
            claims.push(patch.claim(path, place, sentence(tool)));
        }
    }
    claims
}

/// A patch of one cell, held against the cell.
struct Patch<'a> {
    diff: &'a str,
    /// The first line of the cell that is not as it was.
    line: Option<u32>,
    /// Only blank lines are different.
    blank: bool,
    /// It gives the new text: it holds for the cell.
    whole: bool,
}

impl<'a> Patch<'a> {
    /// None: nothing is changed.
    fn read(diff: &'a str, cell: &[&str]) -> Option<Self> {
        let changed = || {
            let lines = diff.lines();
            lines.filter(|line| line.starts_with(['+', '-']))
        };
        let removed = changed()
            .filter_map(|line| line.strip_prefix('-'))
            .find(|line| !line.trim().is_empty());
        changed().next()?;
        let whole = notebook::patch::apply(&cell.join("\n"), diff).is_ok();
        let line = match whole {
            true => first_change(diff),
            false => removed
                .and_then(|text| cell.iter().position(|line| line == &text))
                .map(|at| at as u32 + 1),
        };
        Some(Self {
            diff,
            line: line.filter(|&line| line as usize <= cell.len()),
            blank: changed().all(|line| line[1..].trim().is_empty()),
            whole,
        })
    }

    fn claim(&self, path: &str, place: Place, message: String) -> Claim {
        let diff = self.diff.trim_end_matches('\n');
        Claim {
            path: path.to_owned(),
            place,
            code: None,
            message,
            suggestion: (self.whole && diff.len() <= MOST_BYTES).then(|| diff.to_owned()),
        }
    }
}

/// The line of the old text where the first hunk changes it.
fn first_change(diff: &str) -> Option<u32> {
    let mut line: Option<u32> = None;
    for text in diff.lines() {
        match (text.strip_prefix("@@ -"), line) {
            (Some(hunk), None) => {
                let end = hunk.find(|c: char| !c.is_ascii_digit())?;
                line = Some(hunk[..end].parse::<u32>().ok()?.max(1));
            }
            (None, Some(at)) if text.starts_with(['-', '+']) => return Some(at),
            (None, Some(at)) => line = Some(at.saturating_add(1)),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    None
}
