//! Text by line, and a changed line by word. Knows nothing of notebooks.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::likeness::{self, Bag};

/// Longer lines (in words) are not compared by word.
const MAX_WORDS: usize = 4_000;
/// More lines (before times after) of one edit are paired by place alone.
const MAX_PAIRS: usize = 2_500;

/// The lines that differ, from above to below; empty: none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextDiff(pub Vec<Edit>);

/// Lines that others took the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The earlier lines, counted from 0; empty: nothing is gone.
    pub before: Range<usize>,
    /// The later ones, without line ends; empty: nothing came.
    pub after: Vec<String>,
}

/// A piece of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// It is in both.
    Same(&'a str),
    /// It is gone.
    Removed(&'a str),
    /// It is new.
    Added(&'a str),
}

/// The lines of a text; joined by line ends they are the text again. An empty text has none.
#[must_use]
pub fn lines(text: &str) -> Vec<&str> {
    if text.is_empty() {
        return Vec::new();
    }
    let ends = memchr::memchr_iter(b'\n', text.as_bytes());
    let mut start = 0;
    let mut lines: Vec<&str> = Vec::with_capacity(text.len() / 32 + 1);
    lines.extend(ends.map(|end| &text[std::mem::replace(&mut start, end + 1)..end]));
    lines.push(&text[start..]);
    lines
}

impl TextDiff {
    /// Compares two texts line by line.
    #[must_use]
    pub fn new(before: &str, after: &str) -> Self {
        if before == after {
            return Self::default();
        }
        let (before, after) = (lines(before), lines(after));
        let edit = |(gone, come): (Range<usize>, Range<usize>)| Edit {
            before: gone,
            after: after[come].iter().map(|&line| line.to_owned()).collect(),
        };
        Self(edits(&before, &after).into_iter().map(edit).collect())
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The later text. Lines that the earlier one does not have count as empty.
    pub(super) fn apply(&self, before: &str) -> String {
        let before = lines(before);
        let part = |range: Range<usize>| {
            let end = range.end.min(before.len());
            &before[range.start.min(end)..end]
        };
        let mut out: Vec<&str> = Vec::with_capacity(before.len());
        let mut at = 0;
        for edit in &self.0 {
            out.extend(part(at..edit.before.start));
            out.extend(edit.after.iter().map(String::as_str));
            at = edit.before.end;
        }
        out.extend(part(at..before.len()));
        out.join("\n")
    }
}

/// The words, blanks and signs that differ between two lines. Where hardly anything is common to both, one
/// is gone and the other came, as a whole.
#[must_use]
pub fn words<'a>(before: &'a str, after: &'a str) -> Vec<Part<'a>> {
    let whole = || {
        let both = [Part::Removed(before), Part::Added(after)];
        both.into_iter().filter(|part| !part.text().is_empty())
    };
    let (old, new) = (split(before), split(after));
    if old.len() > MAX_WORDS || new.len() > MAX_WORDS {
        return whole().collect();
    }
    let mut parts = Vec::new();
    let (mut at, mut same) = ((0, 0), 0);
    for (gone, come) in edits(&old, &new) {
        same += put(
            &mut parts,
            Part::Same,
            joined(before, &old[at.0..gone.start]),
        );
        put(
            &mut parts,
            Part::Removed,
            joined(before, &old[gone.clone()]),
        );
        put(&mut parts, Part::Added, joined(after, &new[come.clone()]));
        at = (gone.end, come.end);
    }
    same += put(&mut parts, Part::Same, joined(before, &old[at.0..]));
    // Marks all over a line are harder to read than none.
    if same * 4 < before.trim().len().max(after.trim().len()) {
        return whole().collect();
    }
    parts
}

/// Which of the lines that are gone became which of those that came, in order. Others have no partner.
#[must_use]
pub fn pairs(before: &[&str], after: &[&str]) -> Vec<(usize, usize)> {
    if before.len() == after.len() || before.len() * after.len() > MAX_PAIRS {
        return (0..before.len().min(after.len())).map(|n| (n, n)).collect();
    }
    let bags = |lines: &[&str]| lines.iter().map(|line| Bag::of(line)).collect::<Vec<_>>();
    let (old, new) = (bags(before), bags(after));
    let mut candidates = Vec::new();
    for (i, old) in old.iter().enumerate() {
        for (j, new) in new.iter().enumerate() {
            let alike = old.likeness(new);
            if alike >= likeness::ALIKE {
                candidates.push((i, j, alike));
            }
        }
    }
    likeness::in_order(candidates)
}

impl<'a> Part<'a> {
    /// The piece.
    #[must_use]
    pub fn text(self) -> &'a str {
        match self {
            Part::Same(text) | Part::Removed(text) | Part::Added(text) => text,
        }
    }
}

/// The ranges that differ between two lists. Bounded in time by similar's limits of its search.
#[must_use]
pub fn edits<T: Hash + Eq>(before: &[T], after: &[T]) -> Vec<(Range<usize>, Range<usize>)> {
    // Most lists differ in one place, and most of those have nothing in common there.
    let equal = |(a, b): &(&T, &T)| a == b;
    let head = before.iter().zip(after).take_while(equal).count();
    let (old, new) = (&before[head..], &after[head..]);
    let tail = old.iter().rev().zip(new.iter().rev());
    let tail = tail.take_while(equal).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    if old.is_empty() && new.is_empty() {
        return Vec::new();
    }
    let whole = (head..head + old.len(), head..head + new.len());
    let small = old.len() * new.len() <= 16;
    if small && old.iter().all(|item| !new.contains(item)) {
        return vec![whole];
    }
    let shifted = |range: Range<usize>| range.start + head..range.end + head;
    let found = searched(old, new).into_iter();
    found
        .map(|(gone, come)| (shifted(gone), shifted(come)))
        .collect()
}

/// [`edits`] of lists that differ at both ends.
fn searched<T: Hash + Eq>(before: &[T], after: &[T]) -> Vec<(Range<usize>, Range<usize>)> {
    let mut numbers = Numbers::with_capacity_and_hasher(before.len(), Default::default());
    let old: Vec<u32> = before
        .iter()
        .map(|item| number(&mut numbers, item))
        .collect();
    if !after.iter().any(|item| numbers.contains_key(item)) {
        return vec![(0..before.len(), 0..after.len())];
    }
    let new: Vec<u32> = after
        .iter()
        .map(|item| number(&mut numbers, item))
        .collect();
    let mut edits: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    for op in capture_diff_slices(Algorithm::Histogram, &old, &new) {
        if let DiffOp::Equal { .. } = op {
            continue;
        }
        let (gone, come) = (op.old_range(), op.new_range());
        match edits.last_mut() {
            // A removal right before an addition is one edit.
            Some(last) if last.0.end == gone.start && last.1.end == come.start => {
                last.0.end = gone.end;
                last.1.end = come.end;
            }
            Some(_) | None => edits.push((gone, come)),
        }
    }
    edits
}

/// A number for each item, the same for equal ones.
type Numbers<'a, T> = HashMap<&'a T, u32, foldhash::fast::RandomState>;

fn number<'a, T: Hash + Eq>(numbers: &mut Numbers<'a, T>, item: &'a T) -> u32 {
    let next = numbers.len() as u32;
    *numbers.entry(item).or_insert(next)
}

/// Words, runs of blanks, single signs.
fn split(line: &str) -> Vec<&str> {
    let class = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 0,
        c if c.is_whitespace() => 1,
        _ => 2,
    };
    let mut out = Vec::new();
    let mut start = 0;
    let mut last = None;
    for (at, c) in line.char_indices() {
        let this = class(c);
        if last.is_some_and(|last| last != this || this == 2) {
            out.push(&line[start..at]);
            start = at;
        }
        last = Some(this);
    }
    if start < line.len() {
        out.push(&line[start..]);
    }
    out
}

/// Neighbouring pieces of `line` as one.
fn joined<'a>(line: &'a str, pieces: &[&'a str]) -> &'a str {
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
        return "";
    };
    let offset = |piece: &str| piece.as_ptr() as usize - line.as_ptr() as usize;
    &line[offset(first)..offset(last) + last.len()]
}

/// Appends a piece that is not empty; its length without blanks at its ends.
fn put<'a>(parts: &mut Vec<Part<'a>>, part: fn(&'a str) -> Part<'a>, text: &'a str) -> usize {
    if !text.is_empty() {
        parts.push(part(text));
    }
    text.trim().len()
}
