//! What `nbqa.py` noted of one run: the text that a tool saw instead of each notebook, and so the true place of each
//! of its lines. The notes come from the job, so nothing in them is believed that the notebook does not bear out.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::place::Source;

/// The notes of one tool's run; empty where nbQA ran as it is.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Notes {
    separator: String,
    notebooks: BTreeMap<String, Note>,
}

/// One notebook. Cells are counted as nbQA does: code cells, from 1.
#[derive(Debug, Deserialize)]
pub(super) struct Note {
    text: String,
    /// The cell of each part of the text.
    cells: Vec<u32>,
    /// Cells that are no Python: number, line, column, words.
    pub(super) bad: Vec<(u32, Option<u32>, Option<u32>, String)>,
    /// Python that nbQA left out all the same.
    pub(super) passed: Vec<u32>,
    /// What the tool would change: unified diffs within the cell.
    pub(super) changed: Vec<(u32, String)>,
}

/// Where lines of a joined text stand.
#[derive(Debug, Default)]
pub(super) struct Joined(Vec<Option<At>>);

/// The place of one line of a joined text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    /// Among code cells, from 1.
    pub(super) nth: u32,
    /// In the cell; none: nobody knows.
    pub(super) line: Option<u32>,
    /// Whether it reads there as it read for the tool: its columns hold.
    pub(super) same: bool,
}

impl Notes {
    pub(super) fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// Notebooks by path.
    pub(super) fn notebooks(&self) -> impl Iterator<Item = (&str, &Note)> {
        self.notebooks
            .iter()
            .map(|(path, note)| (path.trim_start_matches("./"), note))
    }

    /// The places of every notebook that is known.
    pub(super) fn joined(&self, sources: &BTreeMap<String, Source>) -> BTreeMap<String, Joined> {
        let one = |(path, note): (&str, &Note)| {
            let source = sources.get(path)?;
            Some((path.to_owned(), note.joined(&self.separator, source)))
        };
        self.notebooks().filter_map(one).collect()
    }
}

impl Note {
    fn joined(&self, separator: &str, source: &Source) -> Joined {
        let mut places = Vec::new();
        let mut numbers = self.cells.iter();
        let mut part: Option<(u32, Vec<&str>)> = None;
        for line in self.text.split('\n') {
            if !separator.is_empty() && line.trim_end() == separator {
                place(part.take(), source, &mut places);
                // The separator's own line is of no cell.
                places.push(None);
                part = numbers.next().map(|&number| (number, Vec::new()));
            } else if let Some((_, lines)) = &mut part {
                lines.push(line);
            } else {
                places.push(None);
            }
        }
        place(part, source, &mut places);
        Joined(places)
    }
}

fn place(part: Option<(u32, Vec<&str>)>, source: &Source, places: &mut Vec<Option<At>>) {
    let Some((nth, joined)) = part else {
        return;
    };
    let cell = source.cell_of_code(nth);
    let lines = cell.and_then(|cell| source.lines(cell)).unwrap_or_default();
    places.extend(align(&joined, &lines).into_iter().map(|found| {
        cell.map(|_| At {
            nth,
            line: found.and_then(|(index, _)| u32::try_from(index + 1).ok()),
            same: found.is_some_and(|(_, same)| same),
        })
    }));
}

impl Joined {
    /// The place of a line (from 1); none: it is of no cell.
    pub(super) fn at(&self, line: u32) -> Option<At> {
        *self.0.get((line as usize).checked_sub(1)?)?
    }
}

/// For each line of a joined cell the index of the cell's line, and whether it reads the same. Blank lines come and go
/// (autopep8), magics become calls: lines are paired by their order where all of them pair, else by text that is there
/// once.
fn align(joined: &[&str], cell: &[&str]) -> Vec<Option<(usize, bool)>> {
    let said = |lines: &[&str]| -> Vec<usize> {
        (0..lines.len())
            .filter(|&at| !lines[at].trim().is_empty())
            .collect()
    };
    let (ours, theirs) = (said(cell), said(joined));
    let mut found = vec![None; joined.len()];
    if ours.len() == theirs.len() {
        for (&here, &there) in theirs.iter().zip(&ours) {
            found[here] = alike(joined[here], cell[there]).map(|same| (there, same));
        }
        gaps(&theirs, &ours, joined.len(), cell.len(), &mut found);
    } else {
        let mut once: BTreeMap<&str, Option<usize>> = BTreeMap::new();
        for &at in &ours {
            let entry = once.entry(cell[at].trim_end());
            entry.and_modify(|seen| *seen = None).or_insert(Some(at));
        }
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for &at in &theirs {
            *seen.entry(joined[at].trim_end()).or_default() += 1;
        }
        for &at in &theirs {
            let text = joined[at].trim_end();
            if seen.get(text) == Some(&1) {
                found[at] = once.get(text).copied().flatten().map(|there| (there, true));
            }
        }
    }
    found
}

/// Blank lines, where as many stand between the same two lines.
fn gaps(
    theirs: &[usize],
    ours: &[usize],
    joined: usize,
    cell: usize,
    found: &mut [Option<(usize, bool)>],
) {
    let edges = |lines: &[usize], end: usize| -> Vec<(usize, usize)> {
        let starts = std::iter::once(0).chain(lines.iter().map(|at| at + 1));
        let ends = lines.iter().copied().chain(std::iter::once(end));
        starts.zip(ends).collect()
    };
    for (there, here) in edges(theirs, joined).into_iter().zip(edges(ours, cell)) {
        if there.1 - there.0 == here.1 - here.0 {
            for at in 0..there.1 - there.0 {
                found[there.0 + at] = Some((here.0 + at, true));
            }
        }
    }
}

/// Whether a line of the joined text is this line of the cell; true: with the same columns.
fn alike(joined: &str, cell: &str) -> Option<bool> {
    let bare = |line: &str| line.replace(';', "").trim_end().to_owned();
    if bare(joined) == bare(cell) {
        return Some(true);
    }
    // A magic has become a call, or a cell that was indented as a whole is not so any more.
    (is_magic(joined) || joined.trim() == cell.trim()).then_some(false)
}

/// nbQA's stand-ins: `hash("410f32b2")`, `hash(0x410F32B2)`, `# CELL MAGIC "11657df0"`.
fn is_magic(line: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit());
    let token = |text: &str| {
        let text = text.trim_end_matches(')');
        let quoted = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        quoted.or(text.strip_prefix("0x")).is_some_and(hex)
    };
    let line = line.trim();
    line.strip_prefix("# CELL MAGIC ").is_some_and(token)
        || line
            .rsplit_once("hash(")
            .is_some_and(|(_, rest)| token(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(joined: &[&str], cell: &[&str]) -> Vec<Option<usize>> {
        let found = align(joined, cell);
        found.into_iter().map(|one| Some(one?.0 + 1)).collect()
    }

    #[test]
    fn blank_lines_that_were_added_are_of_no_line() {
        let cell = [
            "%matplotlib inline",
            "x = 1",
            "",
            "def f():",
            "    return x;",
        ];
        let joined = [
            "hash(\"410f32b2\")",
            "x = 1",
            "",
            "",
            "def f():",
            "    return x",
            "",
        ];
        let expected = [Some(1), Some(2), None, None, Some(4), Some(5), None];
        assert_eq!(lines(&joined, &cell), expected);
        assert_eq!(align(&joined, &cell)[0], Some((0, false)), "no column");
    }

    #[test]
    fn a_cell_that_was_left_out_has_no_lines() {
        assert_eq!(
            lines(&["hash(0x53B6A896)", ""], &["%run a \\", "  b", "x"]),
            [None, None]
        );
    }

    #[test]
    fn text_that_is_not_the_cells_has_no_line() {
        assert_eq!(lines(&["x = 2", "y"], &["x = 1", "y"]), [None, Some(2)]);
        assert_eq!(lines(&["x", "x", "y"], &["x", "y"]), [None, None, Some(2)]);
        assert_eq!(lines(&["a hash(b)"], &["%x"]), [None]);
    }
}
