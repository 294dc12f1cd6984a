//! Cell ids: where a file has none, or a wrong or repeated one, an id is derived from the cell itself, so
//! that two reads agree and an inserted cell leaves the others' ids alone.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use crate::model::Cell;

/// nbformat's rule: `^[a-zA-Z0-9-_]{1,64}$`.
pub(crate) fn is_valid(id: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=64).contains(&id.len()) && id.bytes().all(letter)
}

/// Gives every cell a valid id that no other has. The first of equal ids keeps it, as in Jupyter.
pub(super) fn repair(cells: &mut [Cell]) {
    let mut taken: HashSet<String> = HashSet::new();
    let mut wrong = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        if !is_valid(&cell.id) || !taken.insert(cell.id.clone()) {
            wrong.push(index);
        }
    }
    for index in wrong {
        let cell = &mut cells[index];
        cell.id = derive(cell.kind.word(), &cell.source, &taken);
        taken.insert(cell.id.clone());
    }
}

/// An id from a cell's kind and source that is not in `taken`.
pub(crate) fn derive(kind: &str, source: &str, taken: &HashSet<String>) -> String {
    let mut content = Sha256::new();
    content.update(kind);
    content.update([0]);
    content.update(source);
    let content = content.finalize();
    let mut repeat = 0_u64;
    loop {
        let hash = Sha256::new_with_prefix(content).chain_update(repeat.to_le_bytes());
        let id = hex::encode(&hash.finalize()[..4]);
        if !taken.contains(&id) {
            return id;
        }
        repeat += 1;
    }
}
