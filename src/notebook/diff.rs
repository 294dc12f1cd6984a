//! What differs between two notebooks: cells aligned by id, then by likeness; sources by line; outputs,
//! metadata, counts and ids whole. A diff is complete: [`apply`] gives the other side from it. What of it a
//! person wants to see is a [`View`]. Must not know how it is shown.

mod align;
mod apply;
mod likeness;
mod noise;
mod outputs;
mod plain;
mod text;
mod values;

use std::ops::Range;

use serde_json::{Map, Value};

use crate::fingerprint;
use crate::model::{Cell, CellKind, Notebook, Output};
use crate::nbformat::is_derived;

pub use apply::apply;
pub use noise::{Summary, View};
pub use plain::{plain_conflict, plain_text};
pub use text::{Edit, Part, TextDiff, edits, lines, pairs, words};

/// What differs between a notebook and a later one, of which it borrows what is new. Cells count from 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Diff<'a> {
    /// Whether the fingerprints differ: the later one must be run to know what it gives.
    pub meaning_changed: bool,
    /// The kernel that is asked for, where it is another one.
    pub kernel: Option<Change<Option<String>>>,
    /// The notebook's metadata.
    pub metadata: Vec<Entry>,
    /// Top-level fields that nbformat does not name.
    pub extra: Vec<Entry>,
    /// The minor version of nbformat, where it is another one.
    pub minor: Option<Change<u64>>,
    /// All cells, in the later order; a removed one stands where it stood.
    pub cells: Vec<Step<'a>>,
}

/// One value before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<T> {
    /// In the earlier notebook.
    pub before: T,
    /// In the later one.
    pub after: T,
}

/// What became of a cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<'a> {
    /// It is in both.
    Kept(Kept<'a>),
    /// It is new.
    Added {
        /// Its place in the later notebook.
        after: usize,
        /// The cell.
        cell: &'a Cell,
    },
    /// It is gone.
    Removed {
        /// Its place in the earlier notebook.
        before: usize,
    },
}

/// A cell that is in both notebooks.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept<'a> {
    /// Its place in the earlier notebook.
    pub before: usize,
    /// Its place in the later one.
    pub after: usize,
    /// Whether it passed others on its way.
    pub moved: bool,
    /// What differs; none: nothing at all.
    pub change: Option<Box<CellChange<'a>>>,
}

/// What differs between a cell and a later one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CellChange<'a> {
    /// Its id, where it is another one.
    pub id: Option<Change<String>>,
    /// Whether one of the ids was made up of the cell's content when the file was read: it had none, or a wrong or
    /// repeated one. Then it is no difference that anybody sees.
    pub id_made_up: bool,
    /// What it is, where it is something else.
    pub kind: Option<Change<CellKind>>,
    /// Its source.
    pub source: TextDiff,
    /// Its metadata.
    pub metadata: Vec<Entry>,
    /// The kernel's count, where it is another one.
    pub execution_count: Option<Change<Option<u64>>>,
    /// Its outputs; empty: they are the same.
    pub outputs: Vec<OutputStep<'a>>,
    /// Further fields, such as `attachments`.
    pub extra: Vec<Entry>,
}

/// One value within metadata, or within other fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The keys that lead to it; never empty.
    pub path: Vec<String>,
    /// The value before; none: it was not there.
    pub before: Option<Value>,
    /// The value after; none: it is gone.
    pub after: Option<Value>,
}

/// What became of an output. Outputs count from 0.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputStep<'a> {
    /// It is the same.
    Kept {
        /// Its place among the earlier outputs.
        before: usize,
    },
    /// One of the same type stands in its place.
    Changed {
        /// Its place among the earlier outputs.
        before: usize,
        /// The later one.
        output: &'a Output,
        /// Whether nothing but the kernel's count differs.
        only_count: bool,
    },
    /// It is new.
    Added {
        /// The output.
        output: &'a Output,
    },
    /// It is gone.
    Removed {
        /// Its place among the earlier outputs.
        before: usize,
    },
}

/// Compares two notebooks. Near-linear in their size, whatever they hold.
#[must_use]
pub fn diff<'a>(before: &Notebook, after: &'a Notebook) -> Diff<'a> {
    Diff {
        meaning_changed: fingerprint(before) != fingerprint(after),
        kernel: change(
            before.kernel_name().map(str::to_owned),
            after.kernel_name().map(str::to_owned),
        ),
        metadata: values::diff(&before.metadata, &after.metadata),
        extra: values::diff(&before.extra, &after.extra),
        minor: change(before.minor, after.minor),
        cells: steps(before, after),
    }
}

impl Diff<'_> {
    /// Whether nothing differs that stands in the files.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let unseen = |change: &Option<Box<CellChange<'_>>>| {
            change
                .as_ref()
                .is_none_or(|change| change.is_of_made_up_ids())
        };
        let same = |step: &Step<'_>| match step {
            Step::Kept(kept) => !kept.moved && unseen(&kept.change),
            Step::Added { .. } | Step::Removed { .. } => false,
        };
        self.metadata.is_empty()
            && self.extra.is_empty()
            && self.minor.is_none()
            && self.cells.iter().all(same)
    }
}

fn change<T: PartialEq>(before: T, after: T) -> Option<Change<T>> {
    (before != after).then_some(Change { before, after })
}

fn cell_change<'a>(before: &Cell, after: &'a Cell) -> Option<Box<CellChange<'a>>> {
    let id = change(&before.id, &after.id).map(Change::cloned);
    let change = CellChange {
        id_made_up: id.is_some() && (is_derived(before) || is_derived(after)),
        id,
        kind: change(&before.kind, &after.kind).map(Change::cloned),
        source: TextDiff::new(&before.source, &after.source),
        metadata: values::diff(&before.metadata, &after.metadata),
        execution_count: change(before.execution_count, after.execution_count),
        outputs: outputs::diff(&before.outputs, &after.outputs),
        extra: values::diff(&before.extra, &after.extra),
    };
    (change != CellChange::default()).then(|| Box::new(change))
}

impl<T: Clone> Change<&T> {
    fn cloned(self) -> Change<T> {
        Change {
            before: self.before.clone(),
            after: self.after.clone(),
        }
    }
}

/// The steps from one list of cells to the other.
fn steps<'a>(before: &Notebook, after: &'a Notebook) -> Vec<Step<'a>> {
    let pairs = align::align(&before.cells, &after.cells);
    let mut steps = Vec::with_capacity(after.cells.len() + 16);
    let mut place = (0, 0);
    for (i, j) in pairs.in_order() {
        gap(&mut steps, before, after, &pairs, (place.0..i, place.1..j));
        steps.push(kept(before, after, (i, j), false));
        place = (i + 1, j + 1);
    }
    let rest = (place.0..before.cells.len(), place.1..after.cells.len());
    gap(&mut steps, before, after, &pairs, rest);
    steps
}

/// What stands between two cells that kept their order: what went first, then what came.
fn gap<'a>(
    steps: &mut Vec<Step<'a>>,
    before: &Notebook,
    after: &'a Notebook,
    pairs: &align::Pairs,
    (gone, come): (Range<usize>, Range<usize>),
) {
    let removed = gone.filter(|&i| pairs.after_of(i).is_none());
    steps.extend(removed.map(|before| Step::Removed { before }));
    steps.extend(come.map(|j| match pairs.before_of(j) {
        Some(i) => kept(before, after, (i, j), true),
        None => Step::Added {
            after: j,
            cell: &after.cells[j],
        },
    }));
}

fn kept<'a>(
    before: &Notebook,
    after: &'a Notebook,
    (i, j): (usize, usize),
    moved: bool,
) -> Step<'a> {
    Step::Kept(Kept {
        before: i,
        after: j,
        moved,
        change: cell_change(&before.cells[i], &after.cells[j]),
    })
}

/// Fields of a cell or a notebook.
type Fields = Map<String, Value>;

#[cfg(test)]
mod tests;
