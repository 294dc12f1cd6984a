//! Tools that say a line a finding: `path:cell_N:line:column: words` (flake8, mypy through nbQA).

use std::collections::BTreeMap;

use protocol::event::Finding;

use super::finding;
use super::place::Source;

/// Reads what flake8 or mypy said.
pub(super) fn parse(
    output: &str,
    sources: &BTreeMap<String, Source>,
) -> Result<Vec<Finding>, String> {
    Ok(output
        .lines()
        .filter_map(|line| one(line, sources))
        .collect())
}

fn one(line: &str, sources: &BTreeMap<String, Source>) -> Option<Finding> {
    let (place, words) = line.split_once(": ")?;
    let mut parts = place.split(':');
    let path = parts.next()?.trim_start_matches("./");
    let rest: Vec<&str> = parts.collect();
    let (cell, numbers) = match rest.split_first() {
        Some((first, numbers)) if first.starts_with("cell_") => {
            (first.strip_prefix("cell_")?.parse().ok(), numbers)
        }
        _ => (None, rest.as_slice()),
    };
    if numbers.is_empty() || path.contains(char::is_whitespace) && !sources.contains_key(path) {
        return None;
    }
    let (code, message) = code_of(words)?;
    let mut finding = finding(path, message);
    finding.code = code;
    finding.cell = cell.and_then(|nth| sources.get(path)?.cell_of_code(nth));
    finding.line = numbers.first().and_then(|number| number.parse().ok());
    finding.column = numbers.get(1).and_then(|number| number.parse().ok());
    finding.line?;
    Some(finding)
}

/// `F401 'os' imported` of flake8, `error: Incompatible …  [assignment]` of mypy. Notes are no findings.
fn code_of(words: &str) -> Option<(Option<String>, String)> {
    if words.starts_with("note:") {
        return None;
    }
    if let Some(text) = words.strip_prefix("error: ") {
        return Some(match text.rsplit_once("  [") {
            Some((message, code)) => (
                Some(code.trim_end_matches(']').to_owned()),
                message.to_owned(),
            ),
            None => (None, text.to_owned()),
        });
    }
    let (code, message) = words.split_once(' ')?;
    let digits = code.chars().filter(char::is_ascii_digit).count();
    let like_a_code = digits >= 1
        && code.starts_with(|c: char| c.is_ascii_uppercase())
        && code.chars().all(|c| c.is_ascii_alphanumeric());
    like_a_code.then(|| (Some(code.to_owned()), message.to_owned()))
}
