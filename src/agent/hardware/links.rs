//! Which GPUs NVLink joins. Pure: it gets the ends of links, and answers with groups.

use std::collections::BTreeMap;

/// Groups of GPUs that a chain of links joins, whatever is between them (an NVSwitch has an address like a GPU):
/// for each GPU its group's number, counted by the first GPU; none for one that no link leads to another.
/// `links` are pairs of PCI addresses.
pub(super) fn groups(gpus: &[String], links: &[(String, String)]) -> Vec<Option<u32>> {
    let mut joined = Union::default();
    for (a, b) in links {
        joined.join(a, b);
    }
    let roots: Vec<String> = gpus.iter().map(|gpu| joined.root(gpu)).collect();
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for root in &roots {
        *sizes.entry(root).or_default() += 1;
    }
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    let mut found = Vec::with_capacity(roots.len());
    for root in &roots {
        if sizes[root.as_str()] < 2 {
            found.push(None);
            continue;
        }
        let next = numbers.len() as u32;
        found.push(Some(*numbers.entry(root).or_insert(next)));
    }
    found
}

/// Sets that are joined pair by pair.
#[derive(Debug, Default)]
struct Union {
    parents: BTreeMap<String, String>,
}

impl Union {
    fn root(&self, of: &str) -> String {
        let mut at = of;
        while let Some(parent) = self.parents.get(at) {
            at = parent;
        }
        at.to_owned()
    }

    fn join(&mut self, a: &str, b: &str) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.parents.insert(b, a);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(gpus: &[&str], links: &[(&str, &str)]) -> Vec<Option<u32>> {
        let gpus: Vec<String> = gpus.iter().map(|&gpu| gpu.to_owned()).collect();
        let links: Vec<_> = links
            .iter()
            .map(|&(a, b)| (a.to_owned(), b.to_owned()))
            .collect();
        groups(&gpus, &links)
    }

    #[test]
    fn a_switch_joins_all_that_are_at_it() {
        let links = [("a", "switch"), ("b", "switch"), ("d", "switch")];
        assert_eq!(
            of(&["a", "b", "c", "d"], &links),
            [Some(0), Some(0), None, Some(0)]
        );
    }

    #[test]
    fn pairs_are_groups_of_their_own_and_a_chain_is_one() {
        let pairs = [("a", "b"), ("b", "a"), ("c", "d")];
        assert_eq!(
            of(&["a", "b", "c", "d"], &pairs),
            [Some(0), Some(0), Some(1), Some(1)]
        );
        let chain = [("c", "d"), ("a", "b"), ("b", "c")];
        assert_eq!(of(&["a", "b", "c", "d"], &chain), [Some(0); 4]);
    }

    #[test]
    fn a_link_to_nothing_else_makes_no_group() {
        assert_eq!(of(&["a", "b"], &[("a", "cpu")]), [None, None]);
        assert_eq!(of(&[], &[]), [None; 0]);
    }
}
