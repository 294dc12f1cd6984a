//! What is told of a diff, whatever it looks like: cells with their lines, unchanged ones folded, within bounds.

use std::borrow::Cow;
use std::ops::Range;

use notebook::diff::{
    CellChange, Entry, Kept, OutputStep, Part, Step, TextDiff, View, edits, lines, pairs, words,
};
use notebook::message::OutputMessage;
use notebook::{Cell, Output};

use super::{Compared, Options};
use crate::terminal::clean;

/// Longer lines are cut.
const MAX_LINE: usize = 4_000;
/// Longer texts of outputs are cut before they are compared.
const MAX_TEXT: usize = 1 << 20;

/// A cell that is shown.
pub(super) struct Shown<'a> {
    /// Its numbers among all cells, from 1.
    pub(super) before: Option<usize>,
    pub(super) after: Option<usize>,
    /// The later one, else the earlier one.
    pub(super) cell: &'a Cell,
    pub(super) what: What,
    pub(super) change: Option<&'a CellChange<'a>>,
    pub(super) source: Vec<Line<'a>>,
    pub(super) outputs: Vec<ShownOutput<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Added,
    Removed,
    Changed,
    Moved,
    MovedAndChanged,
}

/// An output that differs.
pub(super) struct ShownOutput<'a> {
    /// Its number among the cell's outputs, from 1: the later one, else the earlier one.
    pub(super) number: usize,
    pub(super) before: Option<&'a Output>,
    pub(super) after: Option<&'a Output>,
}

/// A line of a text that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// It is in both; numbers from 1.
    Same(usize, usize, Cow<'a, str>),
    /// It is gone.
    Removed(usize, Vec<Piece<'a>>),
    /// It is new.
    Added(usize, Vec<Piece<'a>>),
    /// So many that are the same are left out.
    Fold(usize),
    /// So many are left out, the same or not.
    More(usize),
}

/// A piece of a line, harmless to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) text: Cow<'a, str>,
    /// Whether it is what differs within the line.
    pub(super) marked: bool,
}

/// The cells that are shown, each made when it is its turn, and how many more there are.
pub(super) fn cells<'a>(
    compared: &Compared<'a>,
    options: &Options,
) -> (impl ExactSizeIterator<Item = Shown<'a>>, usize) {
    let seen = |step: &&Step<'_>| match step {
        Step::Added { .. } | Step::Removed { .. } => true,
        Step::Kept(kept) => {
            kept.moved
                || kept
                    .change
                    .as_ref()
                    .is_some_and(|c| c.is_seen(options.view))
        }
    };
    let mut steps: Vec<&Step<'a>> = compared.diff.cells.iter().filter(seen).collect();
    let more = steps.len().saturating_sub(options.max_cells);
    steps.truncate(options.max_cells);
    let shown = steps.into_iter();
    (shown.map(|step| cell(compared, step, options)), more)
}

fn cell<'a>(compared: &Compared<'a>, step: &'a Step<'a>, options: &Options) -> Shown<'a> {
    let outputs = |list: &'a [Output], added: bool| -> Vec<ShownOutput<'a>> {
        let list = list.iter().enumerate().filter(|_| options.view.outputs);
        let one = |(at, output)| ShownOutput {
            number: at + 1,
            before: (!added).then_some(output),
            after: added.then_some(output),
        };
        list.map(one).collect()
    };
    match step {
        Step::Kept(kept) => kept_cell(compared, kept, options),
        Step::Added { after, .. } => {
            let cell = &compared.after.cells[*after];
            Shown {
                before: None,
                after: Some(after + 1),
                cell,
                what: What::Added,
                change: None,
                source: text("", &cell.source, options),
                outputs: outputs(&cell.outputs, true),
            }
        }
        Step::Removed { before } => {
            let cell = &compared.before.cells[*before];
            Shown {
                before: Some(before + 1),
                after: None,
                cell,
                what: What::Removed,
                change: None,
                source: text(&cell.source, "", options),
                outputs: outputs(&cell.outputs, false),
            }
        }
    }
}

fn kept_cell<'a>(compared: &Compared<'a>, kept: &'a Kept<'a>, options: &Options) -> Shown<'a> {
    let (before, after) = (
        &compared.before.cells[kept.before],
        &compared.after.cells[kept.after],
    );
    let change = kept.change.as_deref();
    let seen = change.is_some_and(|change| change.is_seen(options.view));
    let outputs = change.filter(|_| options.view.outputs);
    Shown {
        before: Some(kept.before + 1),
        after: Some(kept.after + 1),
        cell: after,
        what: match (kept.moved, seen) {
            (true, true) => What::MovedAndChanged,
            (true, false) => What::Moved,
            (false, _) => What::Changed,
        },
        change,
        source: change.map_or_else(Vec::new, |change| {
            source(&before.source, &change.source, options)
        }),
        outputs: outputs.map_or_else(Vec::new, |change| {
            changed_outputs(before, &change.outputs, options.view)
        }),
    }
}

fn changed_outputs<'a>(
    cell: &'a Cell,
    steps: &[OutputStep<'a>],
    view: View,
) -> Vec<ShownOutput<'a>> {
    let mut shown = Vec::new();
    let mut later = 0;
    for step in steps {
        let (number, before, after) = match step {
            OutputStep::Kept { .. } => {
                later += 1;
                continue;
            }
            OutputStep::Changed { before, output, .. } => {
                later += 1;
                (later, cell.outputs.get(*before), Some(*output))
            }
            OutputStep::Added { output } => {
                later += 1;
                (later, None, Some(*output))
            }
            OutputStep::Removed { before } => (before + 1, cell.outputs.get(*before), None),
        };
        if step.is_seen(view) {
            shown.push(ShownOutput {
                number,
                before,
                after,
            });
        }
    }
    shown
}

impl Shown<'_> {
    /// Entries of metadata and other fields that are looked at.
    pub(super) fn entries(&self, view: View) -> impl Iterator<Item = &Entry> {
        let entries = self.change.into_iter();
        let entries = entries.flat_map(|change| change.metadata.iter().chain(&change.extra));
        entries.filter(move |entry| entry.is_seen(view))
    }

    /// How many lines of its source came, and how many are gone.
    pub(super) fn line_counts(&self) -> (usize, usize) {
        match (self.change, self.what) {
            (Some(change), _) => {
                let edits = change.source.0.iter();
                edits.fold((0, 0), |(come, gone), edit| {
                    (come + edit.after.len(), gone + edit.before.len())
                })
            }
            (None, What::Added) => (lines(&self.cell.source).len(), 0),
            (None, What::Removed) => (0, lines(&self.cell.source).len()),
            (None, What::Changed | What::Moved | What::MovedAndChanged) => (0, 0),
        }
    }
}

impl<'a> ShownOutput<'a> {
    /// What it is: `stdout`, `error`, or its MIME types.
    pub(super) fn kind(&self) -> String {
        let output = self.after.or(self.before);
        match output.and_then(Output::message) {
            Some(OutputMessage::Stream { name, .. }) => name.word().to_owned(),
            Some(OutputMessage::Error { .. }) => "error".to_owned(),
            Some(
                OutputMessage::DisplayData { data, .. }
                | OutputMessage::ExecuteResult { data, .. }
                | OutputMessage::UpdateDisplayData { data, .. },
            ) => {
                let types: Vec<Cow<'_, str>> =
                    data.keys().take(4).map(|mime| plain(mime, 60)).collect();
                types.join(", ")
            }
            Some(OutputMessage::ClearOutput { .. } | OutputMessage::Widget(_)) | None => {
                "of an unknown type".to_owned()
            }
        }
    }

    /// What became of it.
    pub(super) fn what(&self) -> What {
        match (self.before, self.after) {
            (None, _) => What::Added,
            (Some(_), None) => What::Removed,
            (Some(_), Some(_)) => What::Changed,
        }
    }

    /// Its text: what a terminal would show of it.
    pub(super) fn texts(&self) -> Texts<'a> {
        Texts {
            before: shown(self.before),
            after: shown(self.after),
        }
    }
}

/// The text of an output before and after.
pub(super) struct Texts<'a> {
    before: Cow<'a, str>,
    after: Cow<'a, str>,
}

impl Texts<'_> {
    /// Compared line by line.
    pub(super) fn lines(&self, options: &Options) -> Vec<Line<'_>> {
        text(cut(&self.before), cut(&self.after), options)
    }
}

fn shown(output: Option<&Output>) -> Cow<'_, str> {
    output
        .and_then(Output::message)
        .map_or(Cow::Borrowed(""), |message| {
            crate::terminal::output(message, false, 80)
        })
}

fn cut(text: &str) -> &str {
    crate::text::head(text, MAX_TEXT).trim_end_matches('\n')
}

/// Lines that others took the place of: where they were, and those that came.
struct Edit<'a, 't> {
    before: Range<usize>,
    after: &'a [&'t str],
}

/// Two texts compared.
fn text<'a>(before: &'a str, after: &'a str, options: &Options) -> Vec<Line<'a>> {
    let (old, new) = (lines(before), lines(after));
    let found = edits(&old, &new).into_iter();
    let found = found.map(|(before, come)| Edit {
        before,
        after: &new[come],
    });
    told(&old, &found.collect::<Vec<_>>(), options)
}

/// A source compared.
fn source<'a>(before: &'a str, diff: &'a TextDiff, options: &Options) -> Vec<Line<'a>> {
    let come = diff
        .0
        .iter()
        .map(|edit| edit.after.iter().map(String::as_str).collect());
    let come: Vec<Vec<&str>> = come.collect();
    let found = diff.0.iter().zip(&come);
    let found = found.map(|(edit, after)| Edit {
        before: edit.before.clone(),
        after,
    });
    told(&lines(before), &found.collect::<Vec<_>>(), options)
}

/// The lines of a text that differ, with some around them.
fn told<'a>(old: &[&'a str], edits: &[Edit<'_, 'a>], options: &Options) -> Vec<Line<'a>> {
    let mut out = Vec::new();
    // Next lines to tell, from 0.
    let (mut at, mut later) = (0, 0);
    for (n, edit) in edits.iter().enumerate() {
        let same = edit.before.start - at;
        put_same(&mut out, old, (at, later), same, (n > 0, true), options);
        (at, later) = (edit.before.end, later + same);
        put_edit(&mut out, old, edit, later, options);
        later += edit.after.len();
        if out.len() > options.max_lines {
            break;
        }
    }
    if !edits.is_empty() && out.len() <= options.max_lines {
        let same = old.len() - at;
        put_same(&mut out, old, (at, later), same, (true, false), options);
    }
    bounded(out, edits, options.max_lines)
}

/// Unchanged lines: those near an edit before or behind them.
fn put_same<'a>(
    out: &mut Vec<Line<'a>>,
    old: &[&'a str],
    (at, later): (usize, usize),
    count: usize,
    (behind, ahead): (bool, bool),
    options: &Options,
) {
    let first = if behind {
        options.context.min(count)
    } else {
        0
    };
    let last = if ahead {
        options.context.min(count - first)
    } else {
        0
    };
    let folded = count - first - last;
    // A fold of one line is no shorter than the line.
    let fold = if folded > 1 || options.context == 0 {
        folded
    } else {
        0
    };
    let line = |n: usize| {
        let text = old[at + n].trim_end_matches('\r');
        Line::Same(at + n + 1, later + n + 1, plain(text, MAX_LINE))
    };
    let end = if fold > 0 { first } else { first + folded };
    out.extend((0..end).map(line));
    out.extend((fold > 0).then_some(Line::Fold(fold)));
    out.extend((count - last..count).map(line));
}

/// The lines that are gone, then those that came, with the words that differ marked. More than are shown
/// anyway are not looked at.
fn put_edit<'a>(
    out: &mut Vec<Line<'a>>,
    old: &[&'a str],
    edit: &Edit<'_, 'a>,
    later: usize,
    options: &Options,
) {
    let max = options.max_lines + 1;
    let gone = &old[edit.before.clone()];
    let gone = &gone[..gone.len().min(max)];
    let come = &edit.after[..edit.after.len().min(max)];
    let mut removed: Vec<Vec<Piece<'_>>> = gone.iter().map(|line| whole(line)).collect();
    let mut added: Vec<Vec<Piece<'_>>> = come.iter().map(|line| whole(line)).collect();
    let pairs = if options.words {
        pairs(gone, come)
    } else {
        Vec::new()
    };
    for (i, j) in pairs {
        let parts = words(gone[i], come[j]);
        if parts.iter().any(|part| matches!(part, Part::Same(_))) {
            removed[i] = pieces(&parts, |part| !matches!(part, Part::Added(_)));
            added[j] = pieces(&parts, |part| !matches!(part, Part::Removed(_)));
        }
    }
    let first = edit.before.start + 1;
    let lines = removed.into_iter().enumerate();
    out.extend(lines.map(|(n, pieces)| Line::Removed(first + n, pieces)));
    let lines = added.into_iter().enumerate();
    out.extend(lines.map(|(n, pieces)| Line::Added(later + n + 1, pieces)));
}

fn whole(line: &str) -> Vec<Piece<'_>> {
    vec![Piece {
        text: plain(line, MAX_LINE),
        marked: false,
    }]
}

fn pieces<'a>(parts: &[Part<'a>], keep: impl Fn(&Part<'_>) -> bool) -> Vec<Piece<'a>> {
    let mut left = MAX_LINE;
    let mut pieces = Vec::new();
    for part in parts.iter().filter(|part| keep(part)) {
        if left == 0 {
            break;
        }
        let text = plain(part.text(), left);
        left = left.saturating_sub(part.text().len());
        pieces.push(Piece {
            text,
            marked: !matches!(part, Part::Same(_)),
        });
    }
    pieces
}

/// The whole line.
pub(super) fn joined<'a>(pieces: &[Piece<'a>]) -> Cow<'a, str> {
    match pieces {
        [one] => one.text.clone(),
        pieces => pieces.iter().map(|piece| &*piece.text).collect(),
    }
}

/// At most so many lines, and the number of those left out.
fn bounded<'a>(mut out: Vec<Line<'a>>, edits: &[Edit<'_, '_>], max: usize) -> Vec<Line<'a>> {
    if out.len() > max {
        let all: usize = edits.iter().map(|e| e.before.len() + e.after.len()).sum();
        out.truncate(max);
        let told = out.iter().filter(|line| match line {
            Line::Removed(..) | Line::Added(..) => true,
            Line::Same(..) | Line::Fold(_) | Line::More(_) => false,
        });
        let more = all.saturating_sub(told.count());
        out.push(Line::More(more.max(1)));
    }
    out
}

/// Text of one line, harmless wherever it is shown: control characters and those that turn the direction of
/// writing are seen instead of obeyed.
pub(super) fn plain(text: &str, max: usize) -> Cow<'_, str> {
    let head = crate::text::head(text, max);
    let seen = |all, byte| all & matches!(byte, b' '..=b'~');
    if head.len() == text.len() && text.bytes().fold(true, seen) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(head.len());
    for c in head.chars() {
        match c {
            '\t' => out.push(c),
            c => out.push(crate::text::seen(c)),
        }
    }
    if head.len() < text.len() {
        out.push('…');
    }
    Cow::Owned(out)
}

/// A value of metadata on one line.
pub(super) fn value(value: Option<&serde_json::Value>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(value) => plain(&clean(&value.to_string(), false), 200).into_owned(),
    }
}
