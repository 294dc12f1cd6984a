//! How long a cell may take, where its tags say so: `timeout=10m`, `timeout=none`.

use notebook::Cell;

use crate::units::Span;

/// What a cell's tag `timeout=…` says. None: it has no such tag. `Some(None)`: as long as it needs.
///
/// # Errors
/// A sentence, where the tag says no time, or several contradict each other.
pub fn of_tags(cell: &Cell) -> Result<Option<Option<Span>>, String> {
    let mut tags = cell.timeout_tags();
    let Some(tag) = tags.next() else {
        return Ok(None);
    };
    if let Some(other) = tags.next() {
        return Err(format!(
            "its tags `timeout={tag}` and `timeout={other}` contradict each other"
        ));
    }
    if tag == "none" {
        return Ok(Some(None));
    }
    let span: Span = tag
        .parse()
        .map_err(|why| format!("its tag `timeout=…`: {why}; `none` is no limit"))?;
    if span == Span(0) {
        return Err(format!(
            "its tag `timeout={tag}` leaves it no time; `none` is no limit"
        ));
    }
    Ok(Some(Some(span)))
}
