//! Formatters (black, isort through nbQA) say a diff for each cell that they would change: a finding for each.

use std::collections::BTreeMap;

use protocol::event::Finding;

use super::finding;
use super::place::Source;

/// Reads the diffs.
pub(super) fn parse(
    output: &str,
    tool: &str,
    sources: &BTreeMap<String, Source>,
) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let mut cell = None;
    let mut diff: Option<Diff<'_>> = None;
    for line in output.lines() {
        let number = line
            .strip_prefix("Cell ")
            .and_then(|number| number.trim().parse::<u32>().ok());
        if let Some(number) = number {
            findings.extend(diff.take().and_then(|diff| diff.finding(tool, sources)));
            cell = Some(number);
        } else if let (Some(path), Some(cell)) = (line.strip_prefix("--- "), cell) {
            diff = Some(Diff {
                path: path.trim(),
                nth: cell,
                start: None,
                removed: Vec::new(),
                added: Vec::new(),
            });
        } else if let Some(diff) = &mut diff {
            diff.take(line);
        }
    }
    findings.extend(diff.take().and_then(|diff| diff.finding(tool, sources)));
    Ok(findings)
}

/// The change of one cell.
struct Diff<'a> {
    path: &'a str,
    /// Among code cells, from 1.
    nth: u32,
    /// First line of the first hunk.
    start: Option<u32>,
    removed: Vec<&'a str>,
    added: Vec<&'a str>,
}

impl<'a> Diff<'a> {
    fn take(&mut self, line: &'a str) {
        if let Some(hunk) = line.strip_prefix("@@ -") {
            let digits = hunk
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(hunk.len());
            self.start = self.start.or(hunk[..digits].parse().ok());
        } else if let Some(text) = line.strip_prefix('-') {
            self.removed.push(text);
        } else if !line.starts_with("+++")
            && let Some(text) = line.strip_prefix('+')
        {
            self.added.push(text);
        }
    }

    fn finding(&self, tool: &str, sources: &BTreeMap<String, Source>) -> Option<Finding> {
        // Blank lines that are only moved are nothing to stop for.
        let blank = |lines: &[&str]| lines.iter().all(|line| line.trim().is_empty());
        if tool == "isort" && blank(&self.removed) && blank(&self.added) {
            return None;
        }
        let source = sources.get(self.path.trim_start_matches("./"))?;
        let message = match tool {
            "isort" => "imports are not sorted as isort would",
            _ => "the cell is not formatted as black would",
        };
        let mut finding = finding(self.path.trim_start_matches("./"), message);
        finding.cell = source.cell_of_code(self.nth);
        let lines = finding.cell.and_then(|cell| source.lines(cell))?;
        // Where a removed line stands, else where the hunk begins.
        let removed = self.removed.iter().find(|line| !line.trim().is_empty());
        let at = removed.and_then(|text| lines.iter().position(|line| line == text));
        finding.line = match at {
            Some(index) => u32::try_from(index + 1).ok(),
            None => self.start.filter(|start| *start as usize <= lines.len()),
        };
        Some(finding)
    }
}
