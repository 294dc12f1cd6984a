//! Cell ids: where a file has none, or a wrong or repeated one, an id is derived from the cell itself, so
//! that two reads agree and an inserted cell leaves the others' ids alone.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use crate::model::Cell;

/// nbformat's rule: `^[a-zA-Z0-9-_]{1,64}$`.
pub(crate) fn is_valid(id: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=64).contains(&id.len()) && id.bytes().all(letter)
}

/// Gives every cell a valid id that no other has. The first of equal ids keeps it, as in Jupyter.
pub(super) fn repair(cells: &mut [Cell]) {
    let mut ids = Ids::default();
    let mut wrong = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        if !is_valid(&cell.id) || !ids.taken.insert(cell.id.clone()) {
            wrong.push(index);
        }
    }
    for index in wrong {
        cells[index].id = ids.derive(&cells[index]);
    }
}

/// An id for a cell that is put among `cells`.
pub(crate) fn derive(cell: &Cell, cells: &[Cell]) -> String {
    let mut ids = Ids::default();
    ids.taken.extend(cells.iter().map(|cell| cell.id.clone()));
    ids.derive(cell)
}

#[derive(Default)]
struct Ids {
    taken: HashSet<String>,
    /// How many ids were tried for a content: many equal cells must not cost the square of their number.
    tried: HashMap<String, u64>,
}

impl Ids {
    /// An id from a cell's kind and source that is not taken; it is, then. Of equal cells each but the first has a
    /// number behind it.
    fn derive(&mut self, cell: &Cell) -> String {
        let stem = stem(cell);
        let tried = self.tried.entry(stem.clone()).or_default();
        loop {
            let id = match *tried {
                0 => stem.clone(),
                number => format!("{stem}-{number}"),
            };
            *tried += 1;
            if self.taken.insert(id.clone()) {
                return id;
            }
        }
    }
}

fn stem(cell: &Cell) -> String {
    let kind = Sha256::new_with_prefix(cell.kind.word());
    let content = kind.chain_update([0]).chain_update(&cell.source);
    hex::encode(&content.finalize()[..4])
}

/// Whether a cell's id says no more than its content does: where a file has none, reading gives such a one.
pub(crate) fn is_derived(cell: &Cell) -> bool {
    let rest = cell.id.strip_prefix(&stem(cell));
    rest.is_some_and(|rest| match rest.strip_prefix('-') {
        Some(number) => number.bytes().all(|byte| byte.is_ascii_digit()),
        None => rest.is_empty(),
    })
}

impl Cell {
    /// Its id; none where that says no more than the cell's content does: reading made it up, of a file that has none,
    /// or a wrong or repeated one.
    #[must_use]
    pub fn own_id(&self) -> Option<&str> {
        (!is_derived(self)).then_some(&self.id)
    }
}
