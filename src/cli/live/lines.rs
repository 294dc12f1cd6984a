//! Lines of an attempt's story: what a tool found and how it ended. Pure.

use protocol::event::{Finding, ToolRun};
use render::terminal;

/// Most lines of a suggestion that are shown.
const PATCH_LINES: usize = 40;

/// A line for the terminal. Names, paths and words in it may be a job's: nothing of them moves the cursor. Where colours
/// are wanted they stay, for some are our own.
pub(super) fn harmless(text: &str, colour: bool) -> String {
    format!("{}\n", terminal::clean(text.trim_end(), colour))
}

/// `path, cell 3, line 2, column 5 (line 40 of the file): error: F841 words [ruff]`.
pub(super) fn finding_line(finding: &Finding) -> String {
    let mut place = finding.path.clone();
    if let Some(cell) = finding.cell {
        place.push_str(&format!(", cell {cell}"));
    }
    if let Some(line) = finding.line {
        place.push_str(&format!(", line {line}"));
    }
    if let Some(column) = finding.column {
        place.push_str(&format!(", column {column}"));
    }
    // Of the whole file the line is the raw one already.
    if let Some(raw) = finding.raw_line.filter(|_| finding.cell.is_some()) {
        place.push_str(&format!(" (line {raw} of the file)"));
    }
    let code = finding
        .code
        .as_ref()
        .map_or_else(String::new, |code| format!("{code} "));
    let level = match finding.level {
        protocol::spec::LintLevel::Warn => "warning",
        protocol::spec::LintLevel::Error => "error",
    };
    format!(
        "{place}: {level}: {code}{} [{}]",
        terminal::clean(&finding.message, false),
        finding.tool
    )
}

/// What a tool suggests, indented; the beginning of a long one.
pub(super) fn patch_lines(finding: &Finding) -> Vec<String> {
    let Some(patch) = &finding.suggestion else {
        return Vec::new();
    };
    let indented = |line: &str| format!("    {}", terminal::clean(line, false));
    let mut lines: Vec<String> = patch.lines().take(PATCH_LINES).map(indented).collect();
    let more = patch.lines().count().saturating_sub(PATCH_LINES);
    if more > 0 {
        lines.push(format!("    … {more} lines more"));
    }
    lines
}

/// `flake8: 12 findings in 2.4s (read in 1.3 ms)`, `flake8: failed in 1.1s (exit code 2)`.
pub(super) fn tool_line(run: &ToolRun) -> String {
    let found = match run.findings {
        0 if run.failed => "failed".to_owned(),
        0 => "nothing found".to_owned(),
        1 => "1 finding".to_owned(),
        n => format!("{n} findings"),
    };
    match run.code {
        None => format!("{}: {found}; it had not ended", run.tool),
        Some(code) if run.failed => {
            let failed = if run.findings == 0 {
                ""
            } else {
                ", then it failed"
            };
            format!(
                "{}: {found}{failed} in {} (exit code {code})",
                run.tool, run.took
            )
        }
        Some(_) => {
            let read = run.read_us as f64 / 1_000.0;
            format!(
                "{}: {found} in {} (read in {read:.1} ms)",
                run.tool, run.took
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_job_names_does_not_reach_the_terminal() {
        let finding: Finding = serde_json::from_value(json!({
            "tool": "ruff\u{1b}]0;title\u{7}", "path": "a\u{1b}[2J.ipynb", "level": "error",
            "code": "\u{9b}1AF841", "message": "unused",
        }))
        .unwrap();
        let line = harmless(&finding_line(&finding), false);
        assert_eq!(line, "a.ipynb: error: F841 unused [ruff]\n");
        let ours = "\u{1b}[1mbold\u{1b}[0m";
        assert_eq!(
            harmless(&format!("{ours} x\u{1b}[3A"), true),
            format!("{ours} x\n")
        );
    }
}
