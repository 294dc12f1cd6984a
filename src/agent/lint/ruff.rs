//! ruff's JSON: it counts cells as people do, and lines within them. It believes ruff's words only.

use protocol::event::Finding;
use serde::Deserialize;

use super::finding;

#[derive(Deserialize)]
struct Line {
    cell: Option<u32>,
    code: Option<String>,
    filename: String,
    location: Option<Location>,
    message: String,
}

#[derive(Deserialize)]
struct Location {
    row: u32,
    column: u32,
}

/// Reads ruff's output.
pub(super) fn parse(output: &str, inside: &str) -> Result<Vec<Finding>, String> {
    let lines: Vec<Line> =
        serde_json::from_str(output).map_err(|error| format!("its output is not JSON: {error}"))?;
    let one = |line: Line| {
        let path = line
            .filename
            .strip_prefix(inside)
            .unwrap_or(&line.filename)
            .trim_start_matches('/');
        let mut finding = finding(path, line.message);
        finding.cell = line.cell;
        if let Some(place) = line
            .location
            .filter(|_| line.cell.is_some() || !path.ends_with(".ipynb"))
        {
            (finding.line, finding.column) = (Some(place.row), Some(place.column));
        }
        finding.code = line.code;
        finding
    };
    Ok(lines.into_iter().map(one).collect())
}
