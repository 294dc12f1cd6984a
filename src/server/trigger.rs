//! What a look at a remote asks for: refs before and now -> triggers. Pure: it knows neither git nor store.

use std::collections::BTreeMap;

use protocol::{CommitId, Digest, Timestamp, Trigger, TriggerKind, Trust};

use crate::forge::event::{Change, PullRequest};

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its number at the forge.
    pub number: u64,
    /// The head that the forge told of.
    pub head: CommitId,
    /// The branch that it comes from.
    pub head_branch: String,
    /// The branch that it goes to.
    pub base_branch: String,
    /// Its title, in a line.
    pub title: String,
    /// Who opened it, where that is known.
    pub author: Option<String>,
    /// Whether it comes from another repository: untrusted.
    pub fork: bool,
    /// Whether it is neither merged nor given up.
    pub open: bool,
    /// When it changed last, by the forge's clock, where that is known.
    pub updated_at: Option<Timestamp>,
}

impl From<PullRequest> for Request {
    fn from(told: PullRequest) -> Self {
        Self {
            number: told.number,
            head: told.head,
            head_branch: told.head_branch,
            base_branch: told.base_branch,
            title: told.title,
            author: told.author,
            fork: told.fork,
            // What happened may have happened long ago.
            open: told.open.unwrap_or(told.change != Change::Closed),
            updated_at: told.updated_at,
        }
    }
}

/// The refs of a remote, as they were last planned or as they are.
pub type Refs = BTreeMap<String, CommitId>;

/// What changed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// What asks for work: branches, the default one first, then pull requests.
    pub asked: Vec<Asked>,
    /// Refs to remember without work: all that are there at the first look, tags, and heads of pull requests that are
    /// closed.
    pub noted: Vec<(String, CommitId)>,
    /// Pull requests whose heads moved and of which no forge has told.
    pub unknown: Vec<u64>,
    /// Refs that are gone.
    pub gone: Vec<String>,
}

/// What asks for work.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// At which commit, and why.
    pub trigger: Trigger,
    /// The head of the branch that a pull request goes to. What is compared with is where the two met, which git
    /// knows; the pipeline file of an untrusted commit is this one's.
    pub base: Option<CommitId>,
}

/// Compares. At the first look only the head of the default branch asks for work: a repository that is
/// added brings its history of branches, and nobody asked for those. `head` is the full name of the
/// default branch, `requests` the pull requests that are known, by number.
#[must_use]
pub fn changes(
    before: &Refs,
    now: &Refs,
    requests: &BTreeMap<u64, Request>,
    head: Option<&str>,
    first: bool,
    at: Timestamp,
) -> Changes {
    let mut changes = Changes::default();
    let mut of_requests = Vec::new();
    for (name, commit) in now {
        if before.get(name) == Some(commit) {
            continue;
        }
        let note = || (name.clone(), commit.clone());
        if let Some(number) = request_number(name) {
            match requests.get(&number) {
                Some(request) if request.open => {
                    of_requests.push(of_request(request, name, commit, now, at));
                }
                None if !first => changes.unknown.push(number),
                Some(_) | None => changes.noted.push(note()),
            }
            continue;
        }
        let watched = name.starts_with("refs/heads/");
        let is_head = head == Some(name.as_str());
        if watched && (!first || is_head) {
            let trigger = Trigger {
                kind: TriggerKind::Push,
                commit: commit.clone(),
                reference: Some(name.clone()),
                base: before.get(name).cloned(),
                // Who may push to the repository is trusted with it.
                trust: Trust::Trusted,
                by: None,
                at,
                asked_in: None,
            };
            changes.asked.push(Asked {
                trigger,
                base: None,
            });
        } else if watched || name.starts_with("refs/tags/") {
            changes.noted.push(note());
        }
    }
    changes
        .asked
        .sort_by_key(|asked| asked.trigger.reference.as_deref() != head);
    changes.asked.extend(of_requests);
    changes.gone = before
        .keys()
        .filter(|name| !now.contains_key(*name))
        .cloned()
        .collect();
    changes
}

/// What a forge's list of open pull requests tells that nobody told before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missed {
    /// Open again.
    pub reopened: Vec<Request>,
    /// Not in the list: over, or on a further page of it.
    pub unlisted: Vec<u64>,
}

/// Compares the list with what is known. One that nobody knows is found by its head, when that moves.
#[must_use]
pub fn missed(known: &BTreeMap<u64, Request>, open: &[Request]) -> Missed {
    let is_closed = |request: &&Request| known.get(&request.number).is_some_and(|k| !k.open);
    let listed = |number: u64| open.iter().any(|request| request.number == number);
    let unlisted = known
        .values()
        .filter(|known| known.open && !listed(known.number));
    Missed {
        reopened: open.iter().filter(is_closed).cloned().collect(),
        unlisted: unlisted.map(|request| request.number).collect(),
    }
}

/// What the head of an open pull request asks for.
fn of_request(
    request: &Request,
    reference: &str,
    head: &CommitId,
    now: &Refs,
    at: Timestamp,
) -> Asked {
    let trigger = Trigger {
        kind: TriggerKind::PullRequest {
            number: request.number,
        },
        commit: head.clone(),
        reference: Some(reference.to_owned()),
        base: None,
        trust: match request.fork {
            true => Trust::Untrusted,
            false => Trust::Trusted,
        },
        by: request.author.clone(),
        at,
        asked_in: None,
    };
    let base = format!("refs/heads/{}", request.base_branch);
    Asked {
        trigger,
        base: now.get(&base).cloned(),
    }
}

/// The pull request whose head a ref is, as GitHub and Gitea, and as GitLab name it.
pub(crate) fn request_number(reference: &str) -> Option<u64> {
    ["refs/pull/", "refs/merge-requests/"]
        .iter()
        .find_map(|start| reference.strip_prefix(start))?
        .strip_suffix("/head")?
        .parse()
        .ok()
}

/// Where the pull request, at whose head a trigger works, left the branch that it goes to; none where it works at no
/// request's head.
pub(crate) fn met(trigger: &Trigger) -> Option<&CommitId> {
    request_number(trigger.reference.as_deref()?)?;
    trigger.base.as_ref()
}

/// The key of what was asked for in a message, whatever became of the jobs that it is about since.
#[must_use]
pub fn key_of_asked(asked_in: &str) -> String {
    format!("asked:{asked_in}")
}

/// Equal for triggers that ask for the same: planning one twice makes one pipeline. Schedules are the same
/// in the same minute; re-runs and people always ask anew, by the message and its command, or by the time of asking.
#[must_use]
pub fn key(trigger: &Trigger) -> String {
    if let Some(asked_in) = &trigger.asked_in {
        return key_of_asked(asked_in);
    }
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
        TriggerKind::Reproduction { of } => format!("reproduction:{of}:{at}"),
        TriggerKind::Person {
            definitions,
            parameters,
        } => {
            let values = serde_json::to_string(parameters).unwrap_or_default();
            let values = Digest::of(values);
            format!("person:{commit}:{}:{values}:{at}", definitions.join(","))
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
        look_with(&[], before, now, first)
    }

    fn look_with(
        requests: &[Request],
        before: &[(&str, u8)],
        now: &[(&str, u8)],
        first: bool,
    ) -> Changes {
        let known = requests.iter().map(|r| (r.number, r.clone())).collect();
        let (before, now) = (refs(before), refs(now));
        changes(&before, &now, &known, Some(MAIN), first, Timestamp(7))
    }

    fn asked(changes: &Changes) -> Vec<(&str, &CommitId)> {
        let triggers = changes.asked.iter().map(|asked| &asked.trigger);
        triggers
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
        assert_eq!(seen.asked[0].trigger.base, Some(commit(1)));
        assert_eq!(look(&[(MAIN, 2)], &[(MAIN, 2)], false), Changes::default());
    }

    #[test]
    fn new_branches_ask_behind_the_default_one_and_tags_do_not() {
        let now = [(MAIN, 2), ("refs/heads/a", 3), ("refs/tags/v1", 3)];
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
        assert!(seen.asked.is_empty());
    }

    #[test]
    fn a_branch_that_went_back_asks_again() {
        let there = look(&[(MAIN, 1)], &[(MAIN, 2)], false);
        let back = look(&[(MAIN, 2)], &[(MAIN, 1)], false);
        let again = look(&[(MAIN, 1)], &[(MAIN, 2)], false);
        assert_ne!(key(&there.asked[0].trigger), key(&back.asked[0].trigger));
        assert_eq!(key(&there.asked[0].trigger), key(&again.asked[0].trigger));
    }

    #[test]
    fn the_same_is_asked_for_once_and_other_values_are_something_else() {
        let person = |value: u64, asked_in: Option<&str>| {
            let mut trigger = look(&[], &[(MAIN, 1)], true).asked.remove(0).trigger;
            trigger.kind = TriggerKind::Person {
                definitions: vec!["train".to_owned()],
                parameters: serde_json::Map::from_iter([("lr".to_owned(), value.into())]),
            };
            trigger.asked_in = asked_in.map(str::to_owned);
            key(&trigger)
        };
        assert_eq!(person(1, None), person(1, None));
        assert_ne!(person(1, None), person(2, None));
        assert_eq!(person(1, Some("m/0")), person(1, Some("m/0")));
        assert_ne!(person(1, Some("m/0")), person(1, Some("m/1")));
    }

    fn request(number: u64, fork: bool, open: bool) -> Request {
        Request {
            number,
            head: commit(9),
            head_branch: "x".to_owned(),
            base_branch: "main".to_owned(),
            title: String::new(),
            author: Some("ana".to_owned()),
            fork,
            open,
            updated_at: None,
        }
    }

    #[test]
    fn the_head_of_an_open_request_asks_where_git_has_it() {
        let known = [
            request(1, false, true),
            request(2, true, true),
            request(3, true, false),
        ];
        let before = [(MAIN, 1), ("refs/pull/1/head", 4)];
        let now = [
            (MAIN, 1),
            ("refs/pull/1/head", 5),
            ("refs/pull/1/merge", 8),
            ("refs/merge-requests/2/head", 6),
            ("refs/pull/3/head", 7),
        ];
        let seen = look_with(&known, &before, &now, false);
        let told: Vec<_> = seen
            .asked
            .iter()
            .map(|asked| {
                (
                    asked.trigger.trust,
                    asked.trigger.commit.clone(),
                    asked.base.clone(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (Trust::Untrusted, commit(6), Some(commit(1))),
                (Trust::Trusted, commit(5), Some(commit(1))),
            ]
        );
        assert_eq!(seen.noted, [("refs/pull/3/head".to_owned(), commit(7))]);
        assert!(seen.unknown.is_empty());
    }

    #[test]
    fn a_list_tells_what_is_open_again_and_what_is_not_open_any_more() {
        let known: BTreeMap<u64, Request> = [(1, true), (2, false), (3, true)]
            .map(|(number, open)| (number, request(number, false, open)))
            .into();
        let open = [1, 2, 9].map(|number| request(number, false, true));
        let seen = missed(&known, &open);
        assert_eq!(seen.reopened, [request(2, false, true)]);
        assert_eq!(seen.unlisted, [3]);
    }

    #[test]
    fn a_request_that_nobody_told_of_is_asked_for_unless_it_was_always_there() {
        let now = [(MAIN, 1), ("refs/pull/7/head", 4)];
        assert_eq!(look(&[(MAIN, 1)], &now, false).unknown, [7]);
        let first = look(&[], &now, true);
        assert_eq!(first.noted, [("refs/pull/7/head".to_owned(), commit(4))]);
        assert!(first.unknown.is_empty());
    }
}
