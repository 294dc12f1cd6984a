//! From a notebook and a diff to the other notebook.

use super::{CellChange, Diff, Kept, OutputStep, Step, values};
use crate::model::{Cell, Notebook, Output};

/// The later notebook, from the earlier one. Of a diff that was made from another notebook, what finds no
/// place is left out.
#[must_use]
pub fn apply(before: &Notebook, diff: &Diff<'_>) -> Notebook {
    let mut metadata = before.metadata.clone();
    values::apply(&mut metadata, &diff.metadata);
    let mut extra = before.extra.clone();
    values::apply(&mut extra, &diff.extra);
    let cells = diff.cells.iter().filter_map(|step| match step {
        Step::Kept(kept) => kept_cell(before, kept),
        Step::Added { cell, .. } => Some((*cell).clone()),
        Step::Removed { .. } => None,
    });
    Notebook {
        metadata,
        cells: cells.collect(),
        extra,
        minor: diff
            .minor
            .as_ref()
            .map_or(before.minor, |minor| minor.after),
    }
}

fn kept_cell(before: &Notebook, kept: &Kept<'_>) -> Option<Cell> {
    let cell = before.cells.get(kept.before)?;
    Some(match &kept.change {
        None => cell.clone(),
        Some(change) => changed_cell(cell, change),
    })
}

fn changed_cell(before: &Cell, change: &CellChange<'_>) -> Cell {
    let mut metadata = before.metadata.clone();
    values::apply(&mut metadata, &change.metadata);
    let mut extra = before.extra.clone();
    values::apply(&mut extra, &change.extra);
    Cell {
        id: match &change.id {
            Some(id) => id.after.clone(),
            None => before.id.clone(),
        },
        kind: match &change.kind {
            Some(kind) => kind.after.clone(),
            None => before.kind.clone(),
        },
        source: change.source.apply(&before.source),
        metadata,
        execution_count: match &change.execution_count {
            Some(count) => count.after,
            None => before.execution_count,
        },
        outputs: outputs(&before.outputs, &change.outputs),
        extra,
    }
}

fn outputs(before: &[Output], steps: &[OutputStep<'_>]) -> Vec<Output> {
    if steps.is_empty() {
        return before.to_vec();
    }
    let outputs = steps.iter().filter_map(|step| match step {
        OutputStep::Kept { before: place } => before.get(*place).cloned(),
        OutputStep::Changed { output, .. } | OutputStep::Added { output } => {
            Some((*output).clone())
        }
        OutputStep::Removed { .. } => None,
    });
    outputs.collect()
}
