//! How much alike two texts are, and which of many belong together without crossing each other. Every step
//! is near-linear: a text looks at a bounded number of others.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};

/// From this on, two texts count as one that was edited. 1 is the same.
pub(super) const ALIKE: f64 = 0.45;
/// Most features of a text that are looked at.
const MAX_FEATURES: usize = 2_048;
/// Texts up to this many bytes are compared by pairs of characters, too: they have too few words.
const SHORT: usize = 80;
/// Up to this many pairs, all are looked at.
const ALL_PAIRS: usize = 2_500;
/// Otherwise those whose rarest features are the same...
const RAREST: usize = 8;
/// ...where no more than this many texts have the feature...
const MOST_HOLDERS: usize = 24;
/// ...and that share most of them...
const MOST_SHARED: usize = 8;
/// ...and so many neighbours of the same relative place, to each side.
const NEIGHBOURS: usize = 4;

/// What a text consists of, its order forgotten: words and whole lines.
#[derive(Debug)]
pub(super) struct Bag {
    features: Vec<u32>,
    /// Of a short text: its pairs of characters.
    characters: Option<Vec<u32>>,
}

impl Bag {
    pub(super) fn of(text: &str) -> Self {
        let words = text
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .filter(|word| !word.is_empty());
        // A line counts more than a word: the same words may be said in any order.
        let lines = text.lines().map(str::trim).filter(|line| line.len() > 3);
        let lines = lines.map(|line| hash(&(0_u8, line)));
        let mut features: Vec<u32> = lines.take(MAX_FEATURES / 2).collect();
        features.extend(words.map(|word| hash(&word)).take(MAX_FEATURES));
        features.sort_unstable();
        let characters = (text.len() <= SHORT).then(|| {
            let chars: Vec<char> = text.trim().chars().collect();
            let mut pairs: Vec<u32> = chars.windows(2).map(|pair| hash(&pair)).collect();
            pairs.sort_unstable();
            pairs
        });
        Self {
            features,
            characters,
        }
    }

    /// Dice's measure: 0 is nothing in common, 1 is the same.
    pub(super) fn likeness(&self, other: &Self) -> f64 {
        let words = dice(&self.features, &other.features);
        match (&self.characters, &other.characters) {
            (Some(a), Some(b)) => words.max(dice(a, b)),
            (_, _) => words,
        }
    }
}

fn hash(value: &impl std::hash::Hash) -> u32 {
    let mut hash = DefaultHasher::new();
    value.hash(&mut hash);
    // Two features with one hash only make texts look more alike than they are.
    hash.finish() as u32
}

/// Of two sorted lists.
fn dice(a: &[u32], b: &[u32]) -> f64 {
    let total = a.len() + b.len();
    if total == 0 {
        return 0.0;
    }
    let (mut i, mut j, mut both) = (0, 0, 0_usize);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        match x.cmp(y) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                both += 1;
                i += 1;
                j += 1;
            }
        }
    }
    2.0 * both as f64 / total as f64
}

/// Pairs worth looking at: all of few; of many, those that share rare features or stand at the same place.
pub(super) fn candidates(before: &[&Bag], after: &[&Bag]) -> Vec<(usize, usize)> {
    let (n, m) = (before.len(), after.len());
    if n * m <= ALL_PAIRS {
        return (0..n).flat_map(|i| (0..m).map(move |j| (i, j))).collect();
    }
    let mut holders: HashMap<u32, Vec<usize>> = HashMap::new();
    for (i, bag) in before.iter().enumerate() {
        for &feature in &bag.features {
            let list = holders.entry(feature).or_default();
            if list.len() <= MOST_HOLDERS && list.last() != Some(&i) {
                list.push(i);
            }
        }
    }
    let mut out = Vec::new();
    for (j, bag) in after.iter().enumerate() {
        let middle = j * n / m;
        let near = middle.saturating_sub(NEIGHBOURS)..(middle + NEIGHBOURS + 1).min(n);
        let mut found = shared(bag, &holders);
        found.extend(near);
        found.sort_unstable();
        found.dedup();
        out.extend(found.into_iter().map(|i| (i, j)));
    }
    out
}

/// Those that share most of the rarest features of a text.
fn shared(bag: &Bag, holders: &HashMap<u32, Vec<usize>>) -> Vec<usize> {
    let known = bag
        .features
        .iter()
        .filter_map(|feature| holders.get(feature));
    let mut rare: Vec<&Vec<usize>> = known.filter(|list| list.len() <= MOST_HOLDERS).collect();
    rare.sort_by_key(|list| list.len());
    let mut votes: HashMap<usize, usize> = HashMap::new();
    for list in rare.into_iter().take(RAREST) {
        for &i in list {
            *votes.entry(i).or_default() += 1;
        }
    }
    let mut votes: Vec<(usize, usize)> = votes.into_iter().collect();
    votes.sort_unstable_by_key(|&(i, votes)| (std::cmp::Reverse(votes), i));
    let most = votes.into_iter().take(MOST_SHARED);
    most.map(|(i, _)| i).collect()
}

/// Of pairs with weights, those that do not cross and weigh most together.
pub(super) fn in_order(mut pairs: Vec<(usize, usize, f64)>) -> Vec<(usize, usize)> {
    // Within one `i` from the last `j` to the first, so that none follows another of its own.
    pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let width = pairs.iter().map(|pair| pair.1 + 1).max().unwrap_or(0);
    let mut best = Maxima::new(width);
    let mut previous = Vec::with_capacity(pairs.len());
    let mut end: Option<(f64, usize)> = None;
    for (at, &(_, j, weight)) in pairs.iter().enumerate() {
        let before = best.below(j);
        let total = before.map_or(0.0, |(total, _)| total) + weight;
        previous.push(before.map(|(_, at)| at));
        best.raise(j, (total, at));
        if end.is_none_or(|(most, _)| total > most) {
            end = Some((total, at));
        }
    }
    let mut chosen = Vec::new();
    let mut next = end.map(|(_, at)| at);
    while let Some(at) = next {
        chosen.push((pairs[at].0, pairs[at].1));
        next = previous[at];
    }
    chosen.reverse();
    chosen
}

/// The largest value at any place below another, in logarithmic time (a Fenwick tree).
struct Maxima {
    tree: Vec<Option<(f64, usize)>>,
}

impl Maxima {
    fn new(width: usize) -> Self {
        Self {
            tree: vec![None; width + 1],
        }
    }

    /// The largest value at a place less than `place`.
    fn below(&self, place: usize) -> Option<(f64, usize)> {
        let (mut at, mut best) = (place, None::<(f64, usize)>);
        while at > 0 {
            if let Some(value) = self.tree[at]
                && best.is_none_or(|best| value.0 > best.0)
            {
                best = Some(value);
            }
            at &= at - 1;
        }
        best
    }

    fn raise(&mut self, place: usize, value: (f64, usize)) {
        let mut at = place + 1;
        while at < self.tree.len() {
            if self.tree[at].is_none_or(|old| value.0 > old.0) {
                self.tree[at] = Some(value);
            }
            at += at & at.wrapping_neg();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likeness(a: &str, b: &str) -> f64 {
        Bag::of(a).likeness(&Bag::of(b))
    }

    #[test]
    fn an_edit_is_alike_and_another_text_is_not() {
        assert!(likeness("x = 1", "x = 2") >= ALIKE);
        let long =
            "import pandas as pd\ndf = pd.read_csv('train.csv')\ndf = df.dropna()\ndf.describe()";
        assert!(likeness(long, &long.replace("train", "test")) >= ALIKE);
        assert!(
            likeness(
                long,
                "model.fit(x, y)\nmodel.score(x_test, y_test)\nplt.show()"
            ) < ALIKE
        );
        assert!(likeness("", "") < ALIKE);
    }

    #[test]
    fn what_weighs_most_is_chosen_without_crossing() {
        let pairs = vec![
            (0, 1, 1.0),
            (1, 0, 0.9),
            (1, 1, 0.9),
            (1, 2, 0.3),
            (2, 2, 0.5),
        ];
        assert_eq!(in_order(pairs), [(0, 1), (2, 2)]);
        assert_eq!(in_order(Vec::new()), []);
        let pairs = vec![(0, 0, 0.2), (0, 2, 0.9), (1, 1, 0.5), (2, 2, 0.5)];
        assert_eq!(in_order(pairs), [(0, 0), (1, 1), (2, 2)]);
    }

    #[test]
    fn of_many_few_are_looked_at_and_the_right_one_is_among_them() {
        let text = |n: usize| format!("common = 1\nvalue_{n} = load(\"{n}.csv\")\ncommon_end()");
        let old: Vec<Bag> = (0..500).map(|n| Bag::of(&text(n))).collect();
        // The other way round, so that the place says nothing.
        let new: Vec<Bag> = (0..500).map(|n| Bag::of(&text(499 - n))).collect();
        let (old, new) = (
            old.iter().collect::<Vec<_>>(),
            new.iter().collect::<Vec<_>>(),
        );
        let found = candidates(&old, &new);
        assert!(found.len() <= 500 * (MOST_SHARED + 2 * NEIGHBOURS + 1));
        assert!((0..500).all(|j| found.contains(&(499 - j, j))));
    }
}
