//! Bodies of hooks: what real forges sent, with the fields of this world in their place.

pub(super) mod gitea;
pub(super) mod github;
pub(super) mod gitlab;

use serde_json::Value;

use super::Face;
use super::git::{Commit, ZEROS};
use super::hooks::Event;
use super::state::{Check, Comment, Request, Source, State};

/// The repository's number; GitLab's addresses have it.
pub(crate) const PROJECT: u64 = 15;

/// A ref that was moved by a push.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) reference: String,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
    pub(super) forced: bool,
    /// Oldest first, all of them.
    pub(super) commits: Vec<Commit>,
    /// What the ref points to now.
    pub(super) tip: Option<Commit>,
}

impl Change {
    pub(super) fn before(&self) -> &str {
        self.before.as_deref().unwrap_or(ZEROS)
    }

    pub(super) fn after(&self) -> &str {
        self.after.as_deref().unwrap_or(ZEROS)
    }

    pub(super) fn is_tag(&self) -> bool {
        self.reference.starts_with("refs/tags/")
    }

    /// Without `refs/heads/` or `refs/tags/`.
    pub(super) fn short(&self) -> &str {
        self.reference.splitn(3, '/').nth(2).unwrap()
    }

    /// The newest `most` commits, oldest first.
    pub(super) fn newest(&self, most: usize) -> &[Commit] {
        &self.commits[self.commits.len().saturating_sub(most)..]
    }
}

/// What happened to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    Opened,
    /// Its head was this before.
    Pushed(String),
    Closed,
    Reopened,
    /// It is a draft no longer.
    Ready,
}

/// What happened to a check run.
#[derive(Debug, Clone)]
pub(super) enum CheckDeed {
    Created,
    Completed,
    Rerequested,
    /// An action was pressed: its identifier.
    Pressed(String),
}

pub(super) fn push(state: &mut State, change: &Change, by: &str) -> Vec<Event> {
    match state.face {
        Face::Github => github::push(state, change, by),
        Face::Gitlab => gitlab::push(state, change, by),
        Face::Gitea | Face::Forgejo => gitea::push(state, change, by),
    }
}

pub(super) fn request(state: &mut State, request: &Request, deed: &Deed, by: &str) -> Event {
    match state.face {
        Face::Github => github::request(state, request, deed, by),
        Face::Gitlab => gitlab::request(state, request, deed, by),
        Face::Gitea | Face::Forgejo => gitea::request(state, request, deed, by),
    }
}

pub(super) fn comment(state: &mut State, request: &Request, comment: &Comment) -> Event {
    match state.face {
        Face::Github => github::comment(state, request, comment),
        Face::Gitlab => gitlab::comment(state, request, comment),
        Face::Gitea | Face::Forgejo => gitea::comment(state, request, comment),
    }
}

/// Of a check run: only GitHub has them.
pub(super) fn check(state: &mut State, check: &Check, deed: &CheckDeed, by: &str) -> Event {
    github::check(state, check, deed, by)
}

/// A recorded body in which words stand for others, one after another.
fn filled(template: &str, words: &[(&str, &str)]) -> Value {
    let mut text = template.to_owned();
    for (old, new) in words {
        text = text.replace(old, new);
    }
    serde_json::from_str(&text).unwrap()
}

/// Writes fields of an object, those that a template has not included.
fn set<const N: usize>(object: &mut Value, fields: [(&str, Value); N]) {
    for (name, value) in fields {
        object[name] = value;
    }
}

/// Whose repository holds a request's commits, and its number; none where it is deleted.
fn source(state: &mut State, request: &Request) -> Option<(String, u64)> {
    match &request.source {
        Source::Own => Some((super::state::OWNER.to_owned(), PROJECT)),
        Source::Fork(owner) => Some((owner.clone(), fork_number(state, owner))),
        Source::Deleted(_) => None,
    }
}

impl State {
    /// Whose fork has this number, as GitLab's API is asked for it.
    pub(super) fn fork_of_number(&mut self, number: &str) -> Option<String> {
        let owners: Vec<_> = self.forks.keys().cloned().collect();
        let mut owners = owners.into_iter();
        owners.find(|owner| fork_number(self, owner).to_string() == number)
    }
}

pub(super) fn fork_number(state: &mut State, owner: &str) -> u64 {
    10_000 + state.user(owner)
}
