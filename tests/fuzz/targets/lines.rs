//! Any bytes: each line of each cell stands at the raw line that the map says. The judge is serde: the raw text of
//! each piece of a source, and where it lies in the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use notebook::{LineMap, read};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Document<'a> {
    nbformat: u64,
    #[serde(borrow)]
    cells: Vec<Cell<'a>>,
}

#[derive(Deserialize)]
struct Cell<'a> {
    #[serde(borrow)]
    source: &'a RawValue,
}

/// Where each line of a source begins, as lines of the file.
fn places(text: &str, source: &RawValue) -> Option<Vec<u32>> {
    let pieces: Vec<&RawValue> = match source.get().starts_with('[') {
        true => serde_json::from_str(source.get()).ok()?,
        false => vec![source],
    };
    let mut joined = String::new();
    let mut begins = Vec::new();
    for piece in pieces {
        let offset = piece.get().as_ptr() as usize - text.as_ptr() as usize;
        let raw = text[..offset].matches('\n').count() + 1;
        begins.push((joined.len(), u32::try_from(raw).ok()?));
        joined += &serde_json::from_str::<String>(piece.get()).ok()?;
    }
    let raw_of = |at: usize| {
        begins
            .iter()
            .rev()
            .find(|(start, _)| *start <= at)
            .map(|(_, raw)| *raw)
    };
    let mut lines = Vec::new();
    let mut at = 0;
    while at < joined.len() {
        lines.push(raw_of(at)?);
        at += match joined[at..].find(['\n', '\r']) {
            Some(end) if joined[at + end..].starts_with("\r\n") => end + 2,
            Some(end) => end + 1,
            None => joined.len() - at,
        };
    }
    Some(lines)
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(notebook) = read(bytes) else { return };
    let map = LineMap::read(bytes).expect("a notebook is JSON");
    let text = std::str::from_utf8(bytes).expect("a notebook is text");
    let raw_lines = text.matches('\n').count() as u32 + 1;
    for (index, cell) in notebook.cells.iter().enumerate() {
        // An empty heading of nbformat 3 becomes `#`, which stands nowhere.
        if cell.source.trim_matches(['#', ' ']).is_empty() {
            continue;
        }
        let normal = cell.source.replace("\r\n", "\n").replace('\r', "\n");
        for line in 1..=normal.lines().count() {
            let raw = map
                .raw_line(index, line)
                .expect("every line of a cell has a place");
            assert!(
                (1..=raw_lines).contains(&raw),
                "cell {index}, line {line}: {raw}"
            );
        }
    }

    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Ok(document) = serde_json::from_str::<Document<'_>>(text) else {
        return;
    };
    if document.nbformat != 4 {
        return;
    }
    for (index, cell) in document.cells.iter().enumerate() {
        let Some(wanted) = places(text, cell.source) else {
            continue;
        };
        let found: Vec<Option<u32>> = (1..=wanted.len())
            .map(|line| map.raw_line(index, line))
            .collect();
        assert_eq!(
            found,
            wanted.iter().copied().map(Some).collect::<Vec<_>>(),
            "cell {index}"
        );
        assert_eq!(map.raw_line(index, wanted.len() + 1), None);
    }
});
