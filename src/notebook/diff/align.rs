//! Which cell of one notebook is which of the other. By id where ids hold, by equal content between those, by
//! likeness between these, and last by equal or much alike content that moved.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::likeness::{self, ALIKE, Bag};
use super::text;
use crate::model::Cell;

/// A cell that stands alone between the same neighbours needs less likeness to be the one that was there.
const ALIKE_ALONE: f64 = 0.25;
/// A cell that moved without its id needs more.
const ALIKE_AFAR: f64 = 0.7;
/// The likeness of cells of different kinds counts half: only the same text makes up for it.
const OTHER_KIND: f64 = 0.5;

/// Which cells belong together.
pub(super) struct Pairs {
    after_of: Vec<Option<usize>>,
    before_of: Vec<Option<usize>>,
}

impl Pairs {
    fn new(before: usize, after: usize) -> Self {
        Self {
            after_of: vec![None; before],
            before_of: vec![None; after],
        }
    }

    /// Where an earlier cell went.
    pub(super) fn after_of(&self, before: usize) -> Option<usize> {
        self.after_of[before]
    }

    /// Where a later cell came from.
    pub(super) fn before_of(&self, after: usize) -> Option<usize> {
        self.before_of[after]
    }

    /// The most pairs that do not cross each other, in order; the others moved.
    pub(super) fn in_order(&self) -> Vec<(usize, usize)> {
        let all = self.after_of.iter().enumerate();
        let pairs = all.filter_map(|(i, j)| j.map(|j| (i, j, 1.0)));
        likeness::in_order(pairs.collect())
    }

    fn join(&mut self, (i, j): (usize, usize)) {
        self.after_of[i] = Some(j);
        self.before_of[j] = Some(i);
    }

    fn part(&mut self, (i, j): (usize, usize)) {
        self.after_of[i] = None;
        self.before_of[j] = None;
    }

    /// Cells without a partner between each two neighbours that kept their order.
    fn gaps(&self) -> Vec<(Vec<usize>, Vec<usize>)> {
        let mut gaps = Vec::new();
        let mut place = (0, 0);
        let end = (self.after_of.len(), self.before_of.len());
        for (i, j) in self.in_order().into_iter().chain([end]) {
            let free = |range: Range<usize>, partners: &[Option<usize>]| -> Vec<usize> {
                range.filter(|&at| partners[at].is_none()).collect()
            };
            let (gone, come) = (
                free(place.0..i, &self.after_of),
                free(place.1..j, &self.before_of),
            );
            if !gone.is_empty() && !come.is_empty() {
                gaps.push((gone, come));
            }
            place = (i + 1, j + 1);
        }
        gaps
    }
}

/// Cells by what they are and say, as numbers: equal numbers, equal content.
struct Contents {
    before: Vec<usize>,
    after: Vec<usize>,
    /// How often each content is there, before and after.
    counts: Vec<(usize, usize)>,
}

impl Contents {
    fn new(before: &[Cell], after: &[Cell]) -> Self {
        let mut numbers: HashMap<(&str, &str), usize> = HashMap::new();
        let contents = before.iter().chain(after).map(|cell| {
            let next = numbers.len();
            let content = (cell.kind.word(), cell.source.as_str());
            *numbers.entry(content).or_insert(next)
        });
        let mut before_and_after: Vec<usize> = contents.collect();
        let after = before_and_after.split_off(before.len());
        let before = before_and_after;
        let mut counts = vec![(0, 0); numbers.len()];
        before.iter().for_each(|&content| counts[content].0 += 1);
        after.iter().for_each(|&content| counts[content].1 += 1);
        Self {
            before,
            after,
            counts,
        }
    }

    /// Whether a content is there once before and once after.
    fn is_unique(&self, content: usize) -> bool {
        self.counts[content] == (1, 1)
    }
}

/// Finds the pairs.
pub(super) fn align(before: &[Cell], after: &[Cell]) -> Pairs {
    let contents = Contents::new(before, after);
    let mut pairs = Pairs::new(before.len(), after.len());
    by_id(&mut pairs, before, after, &contents);
    for (gone, come) in pairs.gaps() {
        by_content(&mut pairs, &contents, &gone, &come);
    }
    let gaps = pairs.gaps();
    let bags = Bags::new(before, after, &pairs);
    for (gone, come) in gaps {
        let alone = gone.len() == 1 && come.len() == 1;
        let least = if alone { ALIKE_ALONE } else { ALIKE };
        let alike = bags.alike(&gone, &come, least);
        let chosen = likeness::in_order(alike);
        chosen
            .into_iter()
            .for_each(|(i, j)| pairs.join((gone[i], come[j])));
    }
    moved(&mut pairs, before, &contents, &bags);
    pairs
}

/// Cells with one id belong together, unless ids say nothing here.
fn by_id(pairs: &mut Pairs, before: &[Cell], after: &[Cell], contents: &Contents) {
    // Of equal ids the first has it, as in a file that is read.
    let later = after.iter().enumerate().rev();
    let places: HashMap<&str, usize> = later.map(|(j, cell)| (cell.id.as_str(), j)).collect();
    let mut same: Vec<(usize, usize)> = Vec::new();
    for (i, cell) in before.iter().enumerate() {
        if let Some(&j) = places.get(cell.id.as_str())
            && pairs.before_of(j).is_none()
        {
            pairs.join((i, j));
            same.push((i, j));
        }
    }
    if !ids_hold(before, after, contents, &same) {
        same.into_iter().for_each(|pair| pairs.part(pair));
        return;
    }
    // Of equal cells (blank ones) without ids in the file, the first has the first derived id: an id that
    // seems to have passed others is no proof there.
    let ordered: HashSet<(usize, usize)> = pairs.in_order().into_iter().collect();
    for (i, &content) in contents.before.iter().enumerate() {
        if let Some(j) = pairs.after_of(i)
            && contents.after[j] == content
            && !contents.is_unique(content)
            && !ordered.contains(&(i, j))
        {
            pairs.part((i, j));
        }
    }
}

/// Whether ids stay with their cells. Cells that are there once in both notebooks tell: tools that number
/// cells, or that make new ids, give most of them another one. Where all were edited, their likeness tells.
fn ids_hold(
    before: &[Cell],
    after: &[Cell],
    contents: &Contents,
    same_id: &[(usize, usize)],
) -> bool {
    let mut later: Vec<Option<usize>> = vec![None; contents.counts.len()];
    for (j, &content) in contents.after.iter().enumerate() {
        later[content] = Some(j);
    }
    let (mut same, mut other) = (0_usize, 0_usize);
    for (i, &content) in contents.before.iter().enumerate() {
        if let Some(j) = later[content].filter(|_| contents.is_unique(content)) {
            let holds = before[i].id == after[j].id;
            same += usize::from(holds);
            other += usize::from(!holds);
        }
    }
    if same + other > 0 {
        return same >= other;
    }
    let alike = same_id.iter().filter(|&&(i, j)| {
        let (old, new) = (&before[i].source, &after[j].source);
        old == new || Bag::of(old).likeness(&Bag::of(new)) >= ALIKE
    });
    alike.count() * 2 >= same_id.len()
}

/// Equal cells of a gap, in order.
fn by_content(pairs: &mut Pairs, contents: &Contents, gone: &[usize], come: &[usize]) {
    let old: Vec<usize> = gone.iter().map(|&i| contents.before[i]).collect();
    let new: Vec<usize> = come.iter().map(|&j| contents.after[j]).collect();
    let mut place = (0, 0);
    let end = (old.len()..old.len(), new.len()..new.len());
    for (removed, added) in text::edits(&old, &new).into_iter().chain([end]) {
        let equal = (place.0..removed.start).zip(place.1..added.start);
        equal.for_each(|(i, j)| pairs.join((gone[i], come[j])));
        place = (removed.end, added.end);
    }
}

/// Bags of the cells that have no partner yet.
struct Bags<'a> {
    before: &'a [Cell],
    after: &'a [Cell],
    old: HashMap<usize, Bag>,
    new: HashMap<usize, Bag>,
}

impl<'a> Bags<'a> {
    fn new(before: &'a [Cell], after: &'a [Cell], pairs: &Pairs) -> Self {
        let bags = |cells: &[Cell], partners: &[Option<usize>]| -> HashMap<usize, Bag> {
            let free = cells.iter().enumerate().zip(partners);
            let free = free.filter(|(_, partner)| partner.is_none());
            free.map(|((at, cell), _)| (at, Bag::of(&cell.source)))
                .collect()
        };
        Self {
            before,
            after,
            old: bags(before, &pairs.after_of),
            new: bags(after, &pairs.before_of),
        }
    }

    /// Pairs of places in the two lists that are alike at least `least`, and how much.
    fn alike(&self, gone: &[usize], come: &[usize], least: f64) -> Vec<(usize, usize, f64)> {
        let old: Vec<&Bag> = gone.iter().map(|i| &self.old[i]).collect();
        let new: Vec<&Bag> = come.iter().map(|j| &self.new[j]).collect();
        let mut alike = Vec::new();
        for (i, j) in likeness::candidates(&old, &new) {
            let same_kind = self.before[gone[i]].kind == self.after[come[j]].kind;
            let factor = if same_kind { 1.0 } else { OTHER_KIND };
            let likeness = old[i].likeness(new[j]) * factor;
            if likeness >= least {
                alike.push((i, j, likeness));
            }
        }
        alike
    }
}

/// Cells that are left and found elsewhere: the most alike first.
fn moved(pairs: &mut Pairs, before: &[Cell], contents: &Contents, bags: &Bags<'_>) {
    let free = |partners: &[Option<usize>], words: &HashMap<usize, Bag>| -> Vec<usize> {
        let free = (0..partners.len()).filter(|&at| partners[at].is_none());
        free.filter(|at| words.contains_key(at)).collect()
    };
    let (gone, come) = (
        free(&pairs.after_of, &bags.old),
        free(&pairs.before_of, &bags.new),
    );
    let mut alike = bags.alike(&gone, &come, ALIKE_AFAR);
    // Blank cells, and those of which there are several, are not worth an arrow.
    alike.retain(|&(i, j, _)| {
        let (old, new) = (contents.before[gone[i]], contents.after[come[j]]);
        !before[gone[i]].is_blank() && (old != new || contents.is_unique(old))
    });
    alike.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
    for (i, j, _) in alike {
        if pairs.after_of(gone[i]).is_none() && pairs.before_of(come[j]).is_none() {
            pairs.join((gone[i], come[j]));
        }
    }
}
