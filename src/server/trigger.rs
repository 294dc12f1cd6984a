//! What a look at a remote asks for: refs before and now -> triggers. Pure: it knows neither git nor store.

use std::collections::BTreeMap;

use protocol::{CommitId, Timestamp, Trigger, TriggerKind, Trust};

/// The refs of a remote, as they were last planned or as they are.
pub type Refs = BTreeMap<String, CommitId>;

/// What changed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// What asks for work, the default branch first.
    pub triggers: Vec<Trigger>,
    /// Refs to remember without work: all that are there at the first look, and tags.
    pub noted: Vec<(String, CommitId)>,
    /// Refs that are gone.
    pub gone: Vec<String>,
}

/// Compares. At the first look only the head of the default branch asks for work: a repository that is
/// added brings its history of branches, and nobody asked for those. `head` is the full name of the
/// default branch.
#[must_use]
pub fn changes(
    before: &Refs,
    now: &Refs,
    head: Option<&str>,
    first: bool,
    at: Timestamp,
) -> Changes {
    let mut changes = Changes::default();
    for (name, commit) in now {
        if before.get(name) == Some(commit) {
            continue;
        }
        let watched = name.starts_with("refs/heads/");
        let is_head = head == Some(name.as_str());
        if watched && (!first || is_head) {
            changes.triggers.push(Trigger {
                kind: TriggerKind::Push,
                commit: commit.clone(),
                reference: Some(name.clone()),
                base: before.get(name).cloned(),
                // Who may push to the repository is trusted with it.
                trust: Trust::Trusted,
                by: None,
                at,
            });
        } else if watched || name.starts_with("refs/tags/") {
            changes.noted.push((name.clone(), commit.clone()));
        }
    }
    changes
        .triggers
        .sort_by_key(|trigger| trigger.reference.as_deref() != head);
    changes.gone = before
        .keys()
        .filter(|name| !now.contains_key(*name))
        .cloned()
        .collect();
    changes
}

/// Equal for triggers that ask for the same: planning one twice makes one pipeline. Schedules are the same
/// in the same minute; re-runs and people always ask anew, by the time of asking.
#[must_use]
pub fn key(trigger: &Trigger) -> String {
    let reference = trigger.reference.as_deref().unwrap_or("");
    let (commit, at) = (&trigger.commit, trigger.at.0);
    match &trigger.kind {
        TriggerKind::Push => {
            let base = trigger.base.as_ref().map_or("", CommitId::as_str);
            format!("push:{reference}:{base}:{commit}")
        }
        TriggerKind::PullRequest { number } => {
            let base = trigger.base.as_ref().map_or("", CommitId::as_str);
            format!("pull:{number}:{base}:{commit}")
        }
        TriggerKind::Schedule { definitions } => {
            format!("schedule:{}:{}", at / 60_000, definitions.join(","))
        }
        TriggerKind::Rerun { of } => format!("rerun:{of}:{at}"),
        TriggerKind::Person { definitions, .. } => {
            format!("person:{commit}:{}:{at}", definitions.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "refs/heads/main";

    fn commit(n: u8) -> CommitId {
        format!("{n:040x}").parse().unwrap()
    }

    fn refs(list: &[(&str, u8)]) -> Refs {
        list.iter()
            .map(|(name, n)| ((*name).to_owned(), commit(*n)))
            .collect()
    }

    fn look(before: &[(&str, u8)], now: &[(&str, u8)], first: bool) -> Changes {
        changes(&refs(before), &refs(now), Some(MAIN), first, Timestamp(7))
    }

    fn asked(changes: &Changes) -> Vec<(&str, &CommitId)> {
        changes
            .triggers
            .iter()
            .map(|t| (t.reference.as_deref().unwrap(), &t.commit))
            .collect()
    }

    #[test]
    fn the_first_look_asks_for_the_head_of_the_default_branch_only() {
        let seen = look(
            &[],
            &[(MAIN, 1), ("refs/heads/old", 2), ("refs/tags/v1", 3)],
            true,
        );
        assert_eq!(asked(&seen), [(MAIN, &commit(1))]);
        assert_eq!(seen.noted.len(), 2);
    }

    #[test]
    fn a_branch_that_moved_asks_and_names_where_it_was() {
        let seen = look(&[(MAIN, 1)], &[(MAIN, 2)], false);
        assert_eq!(asked(&seen), [(MAIN, &commit(2))]);
        assert_eq!(seen.triggers[0].base, Some(commit(1)));
        assert_eq!(look(&[(MAIN, 2)], &[(MAIN, 2)], false), Changes::default());
    }

    #[test]
    fn new_branches_ask_behind_the_default_one_and_tags_do_not() {
        let now = [
            (MAIN, 2),
            ("refs/heads/a", 3),
            ("refs/tags/v1", 3),
            ("refs/pull/1/head", 4),
        ];
        let seen = look(&[(MAIN, 1)], &now, false);
        assert_eq!(
            asked(&seen),
            [(MAIN, &commit(2)), ("refs/heads/a", &commit(3))]
        );
        assert_eq!(seen.noted, [("refs/tags/v1".to_owned(), commit(3))]);
    }

    #[test]
    fn a_branch_that_is_gone_is_forgotten() {
        let seen = look(&[(MAIN, 1), ("refs/heads/a", 3)], &[(MAIN, 1)], false);
        assert_eq!(seen.gone, ["refs/heads/a"]);
        assert!(seen.triggers.is_empty());
    }

    #[test]
    fn a_branch_that_went_back_asks_again() {
        let there = look(&[(MAIN, 1)], &[(MAIN, 2)], false);
        let back = look(&[(MAIN, 2)], &[(MAIN, 1)], false);
        let again = look(&[(MAIN, 1)], &[(MAIN, 2)], false);
        assert_ne!(key(&there.triggers[0]), key(&back.triggers[0]));
        assert_eq!(key(&there.triggers[0]), key(&again.triggers[0]));
    }
}
