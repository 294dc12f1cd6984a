//! The sentences about a diff, the same wherever it is shown.

use std::borrow::Cow;

use notebook::diff::{Entry, Summary};
use notebook::{Cell, CellKind};

use super::story::{Line, Shown, What, plain, value};
use super::{Compared, File, Options};

/// `train.ipynb: 2 cells changed, 1 added; the code means something else`.
pub(super) fn headline(compared: &Compared<'_>, options: &Options) -> String {
    let summary = compared.diff.summary(options.view);
    let what = match compared.file {
        File::Added => format!("new, with {}", cells(summary.added)),
        File::Removed => format!("removed, with {}", cells(summary.removed)),
        File::Kept => counts(&summary),
    };
    format!("{what}; {}", meaning(compared))
}

/// What it means for whoever runs notebooks.
pub(super) fn meaning(compared: &Compared<'_>) -> &'static str {
    match (compared.file, compared.diff.meaning_changed) {
        (File::Removed, _) => "nothing is left to run",
        (File::Added | File::Kept, true) => "what runs has changed",
        (File::Added | File::Kept, false) => "what runs is the same",
    }
}

fn counts(summary: &Summary) -> String {
    let mut parts = Vec::new();
    let numbers = [
        (summary.changed, "changed"),
        (summary.added, "added"),
        (summary.removed, "removed"),
        (summary.moved, "moved"),
    ];
    for (number, word) in numbers.into_iter().filter(|(number, _)| *number > 0) {
        parts.push(if parts.is_empty() {
            format!("{} {word}", cells(number))
        } else {
            format!("{number} {word}")
        });
    }
    if summary.notebook {
        parts.push("kernel or metadata changed".to_owned());
    }
    if parts.is_empty() {
        parts.push("nothing to show".to_owned());
    }
    parts.join(", ")
}

fn cells(number: usize) -> String {
    match number {
        1 => "1 cell".to_owned(),
        number => format!("{number} cells"),
    }
}

/// What differs and is not looked at; none: nothing.
pub(super) fn hidden(compared: &Compared<'_>, options: &Options) -> Option<String> {
    let summary = compared.diff.summary(options.view);
    let mut parts = Vec::new();
    if !options.view.outputs && summary.outputs > 0 {
        parts.push(format!("outputs of {}", cells(summary.outputs)));
    }
    if !options.view.metadata {
        if summary.noise > 0 {
            let noise = cells(summary.noise);
            parts.push(format!("counts, ids or metadata of {noise}"));
        }
        if summary.notebook_hidden {
            parts.push("metadata of the notebook".to_owned());
        }
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// `cell 7 [train] changed`, without what the notebook says of itself.
pub(super) fn title(shown: &Shown<'_>) -> String {
    let mut title = place(shown);
    for tag in tags(shown.cell) {
        title.push_str(&format!(" [{tag}]"));
    }
    format!("{title} {}", what(shown))
}

/// `cell 7`, `markdown cell 7`.
pub(super) fn place(shown: &Shown<'_>) -> String {
    let number = shown.after.or(shown.before).unwrap_or(0);
    match &shown.cell.kind {
        CellKind::Code => format!("cell {number}"),
        CellKind::Markdown => format!("markdown cell {number}"),
        CellKind::Raw => format!("raw cell {number}"),
        CellKind::Other(kind) => format!("{} cell {number}", plain(kind, 40)),
    }
}

pub(super) fn tags(cell: &Cell) -> Vec<Cow<'_, str>> {
    cell.tags().take(4).map(|tag| plain(tag, 40)).collect()
}

/// What became of it.
pub(super) fn what(shown: &Shown<'_>) -> String {
    let before = shown.before.unwrap_or(0);
    match shown.what {
        What::Added | What::Removed => word(shown.what).to_owned(),
        What::Changed if shown.before == shown.after => word(shown.what).to_owned(),
        What::Changed => format!("changed (was cell {before})"),
        What::Moved => format!("moved (was cell {before})"),
        What::MovedAndChanged => format!("moved and changed (was cell {before})"),
    }
}

pub(super) fn word(what: What) -> &'static str {
    match what {
        What::Added => "added",
        What::Removed => "removed",
        What::Changed => "changed",
        What::Moved => "moved",
        What::MovedAndChanged => "moved and changed",
    }
}

/// `tags: ["a"] -> ["b"]`.
pub(super) fn entry(entry: &Entry) -> String {
    let path: Vec<Cow<'_, str>> = entry.path.iter().map(|key| plain(key, 60)).collect();
    let (before, after) = (value(entry.before.as_ref()), value(entry.after.as_ref()));
    format!("{}: {before} -> {after}", path.join("."))
}

/// What differs of a cell besides its source and outputs, a sentence each.
pub(super) fn notes(shown: &Shown<'_>, options: &Options) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(change) = shown.change {
        if let Some(kind) = &change.kind {
            let (before, after) = (kind.before.word(), kind.after.word());
            notes.push(format!(
                "type: {} -> {}",
                plain(before, 40),
                plain(after, 40)
            ));
        }
        if options.view.metadata {
            if let Some(id) = change.id_change() {
                notes.push(format!(
                    "id: {} -> {}",
                    plain(&id.before, 64),
                    plain(&id.after, 64)
                ));
            }
            if let Some(count) = &change.execution_count {
                let text = |count: Option<u64>| count.map_or("none".to_owned(), |n| n.to_string());
                notes.push(format!(
                    "count: {} -> {}",
                    text(count.before),
                    text(count.after)
                ));
            }
        }
    }
    notes.extend(shown.entries(options.view).take(50).map(entry));
    let more = shown.entries(options.view).count().saturating_sub(50);
    notes.extend((more > 0).then(|| format!("and {more} more")));
    notes
}

/// What differs of the notebook itself, a sentence each.
pub(super) fn notebook_notes(compared: &Compared<'_>, options: &Options) -> Vec<String> {
    // Of a file that is new or gone all of it differs, and none of it is news.
    if compared.file != File::Kept {
        return Vec::new();
    }
    let diff = compared.diff;
    let mut notes = Vec::new();
    if let Some(kernel) = &diff.kernel {
        let name =
            |name: &Option<String>| plain(name.as_deref().unwrap_or("none"), 100).into_owned();
        notes.push(format!(
            "kernel: {} -> {}",
            name(&kernel.before),
            name(&kernel.after)
        ));
    }
    if let Some(minor) = diff.minor.as_ref().filter(|_| options.view.metadata) {
        notes.push(format!("nbformat: 4.{} -> 4.{}", minor.before, minor.after));
    }
    let is_kernel =
        |one: &&Entry| one.path.len() == 2 && one.path[0] == "kernelspec" && one.path[1] == "name";
    let entries = diff.metadata.iter().chain(&diff.extra);
    let entries = entries.filter(|one| one.is_seen(options.view) && !is_kernel(one));
    let all: Vec<&Entry> = entries.collect();
    notes.extend(all.iter().take(100).map(|one| entry(one)));
    let more = all.len().saturating_sub(100);
    notes.extend((more > 0).then(|| format!("and {more} more")));
    notes
}

/// `12 lines`.
pub(super) fn line_word(number: usize) -> String {
    match number {
        1 => "1 line".to_owned(),
        number => format!("{number} lines"),
    }
}

/// What stands for lines that are left out.
pub(super) fn left_out(line: &Line) -> Option<String> {
    match line {
        Line::Fold(number) => Some(format!("{} the same", line_word(*number))),
        Line::More(number) => Some(format!("and {number} more changed lines")),
        Line::Same(..) | Line::Removed(..) | Line::Added(..) => None,
    }
}

/// `and 12 more cells`.
pub(super) fn more_cells(number: usize) -> Option<String> {
    (number > 0).then(|| match number {
        1 => "and 1 more cell".to_owned(),
        number => format!("and {number} more cells"),
    })
}
