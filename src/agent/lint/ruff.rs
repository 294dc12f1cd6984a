//! ruff's JSON. Natively it counts cells as people do, and lines within them; through nbQA it says the lines of what
//! was joined.

use serde::Deserialize;

use super::Parsed;
use super::place::{Claim, Place};
use super::text::below;

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

/// Reads what `ruff check` said.
pub(super) fn parse(output: &str, inside: &str) -> Parsed {
    // nbQA adds its own words after the list.
    let end = output.rfind(']').map_or(0, |at| at + 1);
    let lines: Vec<Line> = match serde_json::from_str(&output[..end]) {
        Ok(lines) => lines,
        Err(error) => {
            return Parsed {
                unread: output.to_owned(),
                broken: Some(format!("its output is not JSON: {error}")),
                ..Parsed::default()
            };
        }
    };
    let one = |line: Line| Claim {
        path: below(&line.filename, inside).to_owned(),
        place: match (line.cell, line.location) {
            (Some(cell), place) => Place::Cell {
                cell,
                line: place.as_ref().map(|place| place.row),
                column: place.map(|place| place.column),
            },
            (None, Some(place)) => Place::Line {
                line: place.row,
                column: Some(place.column),
            },
            (None, None) => Place::Whole,
        },
        code: line.code,
        message: line.message,
        suggestion: None,
    };
    Parsed {
        claims: lines.into_iter().map(one).collect(),
        ..Parsed::default()
    }
}
