//! What formatters suggest, written into a notebook: only sources change. It touches no disk.

use std::collections::BTreeMap;

use notebook::ReadError;
use protocol::event::Finding;

/// A notebook with suggestions applied.
#[derive(Debug)]
pub struct Fixed<'a> {
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Cells as a person counts them, with the tools whose suggestions they got.
    pub cells: BTreeMap<u32, Vec<String>>,
    /// Findings whose suggestions did not fit any more after an earlier one for the same cell, or as the cell is
    /// another now.
    pub left: Vec<&'a Finding>,
}

/// Applies the suggestions among a notebook's findings, in their order.
///
/// # Errors
/// Where the bytes are no notebook.
pub fn apply<'a>(bytes: &[u8], findings: &[&'a Finding]) -> Result<Fixed<'a>, ReadError> {
    let read = notebook::read(bytes)?;
    let mut sources: BTreeMap<usize, String> = BTreeMap::new();
    let mut cells: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut left = Vec::new();
    for finding in findings {
        let (Some(cell), Some(diff)) = (finding.cell, &finding.suggestion) else {
            continue;
        };
        let index = (cell as usize).wrapping_sub(1);
        let Some(read) = read.cells.get(index) else {
            left.push(*finding);
            continue;
        };
        let now = sources.get(&index).unwrap_or(&read.source);
        let new = notebook::patch::apply(now, diff).ok().or_else(|| {
            // Another tool has said the very same.
            let same = notebook::patch::apply(&read.source, diff).ok();
            same.filter(|same| same == now)
        });
        match new {
            Some(new) => {
                sources.insert(index, new);
                cells.entry(cell).or_default().push(finding.tool.clone());
            }
            None => left.push(*finding),
        }
    }
    Ok(Fixed {
        bytes: notebook::with_sources(bytes, &sources)?,
        cells,
        left,
    })
}
