//! Tools that say a line a finding: `path:line:column: words`, or `path:cell_N:line:column: words` where nbQA has
//! counted itself.

use std::collections::BTreeMap;

use super::Parsed;
use super::place::{Claim, Place, Source};

/// Lines of nbQA, pylint and mypy that say nothing.
const NOISE: [&str; 6] = [
    "Notebook(s) would be left unchanged",
    "To apply these changes, remove the `--nbqa-diff` flag",
    "************* Module ",
    "Success: no issues found",
    "Found ",
    "No valid Python notebooks found",
];

/// Beginnings of lines that the tools write beside their findings, and which say how many there were.
const COUNTS: [&str; 7] = [
    "reformatted ",
    "would reformat ",
    "All done! ",
    "Oh no! ",
    "Fixing ",
    "Skipped ",
    "warning: No Python files found under the given path(s)",
];
/// Ends of such lines.
const COUNTED: [&str; 4] = [
    " reformatted.",
    " left unchanged.",
    " would be reformatted.",
    " failed to reformat.",
];

/// What a tool said on its standard error that is neither a finding nor a count of them.
pub(super) fn beside(err: &str) -> String {
    let says = |line: &&str| {
        let text = line.trim();
        let noise = NOISE
            .iter()
            .chain(&COUNTS)
            .any(|begin| text.starts_with(begin))
            || COUNTED.iter().any(|end| text.ends_with(end))
            || text.starts_with("error: cannot format ") && text.contains(": Cannot parse");
        !noise && !text.is_empty()
    };
    err.lines()
        .filter(says)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Reads what a tool said. `inside` is the workspace as the tool saw it.
pub(super) fn parse(
    tool: &str,
    output: &str,
    sources: &BTreeMap<String, Source>,
    inside: &str,
) -> Parsed {
    let mut parsed = Parsed::default();
    for line in output.lines() {
        match one(tool, line, sources, inside) {
            Line::Claim(claim) => parsed.claims.push(claim),
            Line::Note => {}
            Line::Unread => {
                parsed.unread.push_str(line);
                parsed.unread.push('\n');
            }
        }
    }
    parsed
}

enum Line {
    Claim(Claim),
    /// Belongs to the finding before, or says nothing.
    Note,
    Unread,
}

fn one(tool: &str, line: &str, sources: &BTreeMap<String, Source>, inside: &str) -> Line {
    let text = line.trim_start();
    if text.is_empty() || NOISE.iter().any(|noise| text.starts_with(noise)) {
        return Line::Note;
    }
    let Some((path, rest)) = split_path(text, sources, inside) else {
        return Line::Unread;
    };
    let Some((place, words)) = split_place(tool, rest) else {
        return Line::Unread;
    };
    let (code, message) = match code_of(words) {
        Words::Note => return Line::Note,
        Words::Finding(code, message) => (code, message),
    };
    // A file without a line is a finding only where the tool says that it is one.
    if place == Place::Whole && code.is_none() && !words.starts_with("error") {
        return Line::Unread;
    }
    Line::Claim(Claim {
        path: path.to_owned(),
        place,
        code: code.map(str::to_owned),
        message: message.to_owned(),
        suggestion: None,
    })
}

/// The path that a line begins with, and what follows its colon.
fn split_path<'a>(
    text: &'a str,
    sources: &BTreeMap<String, Source>,
    inside: &str,
) -> Option<(&'a str, &'a str)> {
    let text = below(text, inside);
    let notebook = sources
        .keys()
        .filter(|path| {
            text.strip_prefix(path.as_str())
                .is_some_and(|rest| rest.starts_with(':'))
        })
        .max_by_key(|path| path.len());
    if let Some(path) = notebook {
        return Some((&text[..path.len()], &text[path.len() + 1..]));
    }
    let end = [".py:", ".pyi:", ".ipynb:"]
        .iter()
        .filter_map(|end| text.find(end).map(|at| at + end.len()))
        .min()?;
    Some((&text[..end - 1], &text[end..]))
}

/// A path relative to the workspace.
pub(super) fn below<'a>(path: &'a str, inside: &str) -> &'a str {
    let inner = path
        .strip_prefix(inside)
        .and_then(|rest| rest.strip_prefix('/'));
    inner.unwrap_or(path).trim_start_matches("./")
}

/// `cell_2:6:5: words`, `6:5 - words`, ` words`.
fn split_place<'a>(tool: &str, rest: &'a str) -> Option<(Place, &'a str)> {
    let mut rest = rest;
    let mut nth = None;
    if let Some(after) = rest.strip_prefix("cell_") {
        let (number, after) = number(after)?;
        nth = Some(number);
        rest = after.strip_prefix(':')?;
    }
    if nth.is_none() && rest.starts_with(' ') {
        return Some((Place::Whole, rest.trim_start()));
    }
    let (line, mut rest) = number(rest)?;
    let mut column = None;
    while let Some((found, after)) = rest.strip_prefix(':').and_then(number) {
        column = column.or(Some(found));
        rest = after;
    }
    let words = rest.strip_prefix(':').or_else(|| rest.strip_prefix(" -"))?;
    // pylint counts columns from 0.
    let from_one = |column: u32| match tool {
        "pylint" => column.checked_add(1),
        _ => Some(column),
    };
    let (line, column) = (
        Some(line).filter(|&line| line > 0),
        column.and_then(from_one),
    );
    let place = match (nth, line) {
        (Some(nth), line) => Place::Counted { nth, line, column },
        (None, Some(line)) => Place::Line { line, column },
        (None, None) => Place::Whole,
    };
    Some((place, words.trim()))
}

fn number(text: &str) -> Option<(u32, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

enum Words<'a> {
    Note,
    Finding(Option<&'a str>, &'a str),
}

/// `F401 'os' imported` (flake8), `C0114: Missing (symbol)` (pylint), `error: Incompatible …  [assignment]` (mypy).
fn code_of(words: &str) -> Words<'_> {
    if words.starts_with("note:") || words.starts_with("information:") {
        return Words::Note;
    }
    let levelled = ["error:", "warning:", "info:"]
        .iter()
        .find_map(|level| words.strip_prefix(level));
    if let Some(text) = levelled {
        let text = text.trim();
        let brackets = [("  [", ']'), (" (", ')')]
            .into_iter()
            .find_map(|(open, close)| {
                let (message, code) = text.strip_suffix(close)?.rsplit_once(open)?;
                (!code.is_empty() && !code.contains(char::is_whitespace)).then_some((code, message))
            });
        return match brackets {
            Some((code, message)) => Words::Finding(Some(code), message.trim_end()),
            None => Words::Finding(None, text),
        };
    }
    let Some((first, message)) = words.split_once(' ') else {
        return Words::Finding(None, words);
    };
    let code = first.strip_suffix(':').unwrap_or(first);
    let letters = code.trim_end_matches(|c: char| c.is_ascii_digit());
    let like_a_code = !letters.is_empty()
        && letters.len() < code.len()
        && letters.chars().all(|c| c.is_ascii_uppercase());
    match like_a_code {
        true => Words::Finding(Some(code), message.trim()),
        false => Words::Finding(None, words),
    }
}
