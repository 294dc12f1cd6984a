//! What formatters suggest, written into a notebook: only sources change. It touches no disk.

use std::collections::BTreeMap;

use notebook::ReadError;
use protocol::event::Finding;

/// A notebook with suggestions applied.
#[derive(Debug)]
pub struct Fixed {
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Cells as a person counts them, with the tools whose suggestions they got.
    pub cells: BTreeMap<u32, Vec<String>>,
    /// Suggestions that did not fit any more after an earlier one for the same cell, or as the cell is another now.
    pub left: usize,
}

/// Applies the suggestions among a notebook's findings, in their order.
///
/// # Errors
/// Where the bytes are no notebook.
pub fn apply(bytes: &[u8], findings: &[&Finding]) -> Result<Fixed, ReadError> {
    let read = notebook::read(bytes)?;
    let mut sources: BTreeMap<usize, String> = BTreeMap::new();
    let mut cells: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut left = 0;
    for finding in findings {
        let (Some(cell), Some(diff)) = (finding.cell, &finding.suggestion) else {
            continue;
        };
        let index = (cell as usize).wrapping_sub(1);
        let Some(read) = read.cells.get(index) else {
            left += 1;
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
            None => left += 1,
        }
    }
    Ok(Fixed {
        bytes: notebook::with_sources(bytes, &sources)?,
        cells,
        left,
    })
}
