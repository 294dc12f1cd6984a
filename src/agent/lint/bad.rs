//! Notebooks that cannot be read: no tool sees them, as each would say so in words of its own. Each is one finding, with
//! the sentence that `trainyard inspect` says.

use std::fs;
use std::io;
use std::path::Path;

use notebook::ReadError;
use notebook::nbformat::MAX_BYTES;
use protocol::event::Finding;
use protocol::spec::LintLevel;
use protocol::{Failure, FailureKind};

use crate::collect::small;

/// Who found it.
const NAME: &str = "trainyard";
/// Most names in a headline.
const MOST_NAMES: usize = 10;

/// The bytes of a notebook; one that is too long is refused before it is read.
///
/// # Errors
/// The outer one where there is no such file, or it is a link, a folder or the like.
pub(super) fn bytes(path: &Path) -> io::Result<Result<Vec<u8>, ReadError>> {
    let about = fs::symlink_metadata(path)?;
    if !about.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if about.len() > MAX_BYTES as u64 {
        return Ok(Err(ReadError::TooLarge { most: MAX_BYTES }));
    }
    // One that grows meanwhile is refused when it is parsed.
    small(path, MAX_BYTES as u64 + 1).map(Ok)
}

/// The finding for a notebook that cannot be read. Lines and columns are those of the file, as it has no cells.
pub(super) fn unreadable(path: &str, error: &ReadError) -> Finding {
    let (cell, line, column) = match error {
        ReadError::Cell { cell, .. } => (Some(*cell), None, None),
        ReadError::MergeConflict { line } => (None, Some(*line), None),
        ReadError::NotUtf8 { line, column }
        | ReadError::NotJson { line, column, .. }
        | ReadError::Truncated { line, column, .. } => (None, Some(*line), Some(*column)),
        ReadError::Empty
        | ReadError::TooLarge { .. }
        | ReadError::NotNotebook { .. }
        | ReadError::Unsupported { .. }
        | ReadError::Newer { .. }
        | ReadError::TooManyCells { .. } => (None, None, None),
    };
    // The place has fields of its own.
    let place = match (cell, line, column) {
        (Some(cell), _, _) => format!("cell {cell}: "),
        (None, Some(line), Some(column)) => format!("line {line}, column {column}: "),
        (None, Some(line), None) => format!("line {line}: "),
        (None, None, _) => String::new(),
    };
    let sentence = error.to_string();
    let message = sentence.strip_prefix(&place).unwrap_or(&sentence);
    let number = |number: Option<usize>| number.and_then(|number| u32::try_from(number).ok());
    Finding {
        cell: number(cell),
        line: number(line),
        column: number(column),
        raw_line: number(line),
        ..finding(path, message)
    }
}

/// The finding for a notebook that is not there.
pub(super) fn missing(path: &str) -> Finding {
    finding(path, "there is no such file")
}

fn finding(path: &str, message: &str) -> Finding {
    Finding {
        tool: NAME.to_owned(),
        level: LintLevel::Error,
        path: path.to_owned(),
        cell: None,
        code_cell: None,
        line: None,
        column: None,
        raw_line: None,
        code: None,
        message: message.to_owned(),
        suggestion: None,
    }
}

/// The failure that these findings are; none where there are none.
pub(super) fn failure(findings: &[Finding]) -> Option<Failure> {
    let message = match findings {
        [] => return None,
        [one] => format!("{}: {}", super::place_of(one), one.message),
        many => {
            let paths: Vec<&str> = many.iter().map(|finding| finding.path.as_str()).collect();
            format!(
                "{} notebooks cannot be read: {}",
                many.len(),
                listed(&paths)
            )
        }
    };
    Some(Failure::new(FailureKind::NotebookInvalid, message))
}

/// Names with commas, the first ten.
pub(super) fn listed(names: &[&str]) -> String {
    let shown = names[..names.len().min(MOST_NAMES)].join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
