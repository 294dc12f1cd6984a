//! What follows from refs that moved: events of pushes, heads of requests.

use super::Face;
use super::payload::{self, Change, Deed};
use super::state::{Request, Source, State};

/// GitLab tells of no ref of a push that moves more.
const REFS_TOLD: usize = 3;

impl State {
    /// Looks which branches and tags moved since the last look, as one push by a person, and tells of it.
    pub(super) fn settle(&mut self, by: &str) {
        let now = self.repo.refs();
        let before = std::mem::replace(&mut self.known, now.clone());
        let names = before
            .keys()
            .chain(now.keys().filter(|name| !before.contains_key(*name)));
        let moved: Vec<_> = names
            .filter(|name| before.get(*name) != now.get(*name))
            .collect();
        let told = self.face != Face::Gitlab || moved.len() <= REFS_TOLD;
        for name in moved {
            let change = self.change(name, before.get(name), now.get(name));
            if told {
                let events = payload::push(self, &change, by);
                self.outbox.extend(events);
            }
            self.follow(&change, by);
        }
    }

    fn change(&self, name: &str, before: Option<&String>, after: Option<&String>) -> Change {
        let forced = match (before, after) {
            (Some(before), Some(after)) => !self.repo.is_ancestor(before, after),
            _ => false,
        };
        let mut change = Change {
            reference: name.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
            forced,
            commits: Vec::new(),
            tip: after.and_then(|after| self.repo.commits(after, &[], 1).pop()),
        };
        if let (Some(after), false) = (after, change.is_tag()) {
            // A new branch brings what no other ref has.
            let others = self.known.iter().filter(|(other, _)| *other != name);
            let without = before.map_or_else(
                || others.map(|(_, id)| id.as_str()).collect(),
                |before| vec![before.as_str()],
            );
            change.commits = self.repo.commits(after, &without, usize::from(u16::MAX));
        }
        change
    }

    /// Requests of a branch go where it goes.
    fn follow(&mut self, change: &Change, by: &str) {
        let Some(branch) = change.reference.strip_prefix("refs/heads/") else {
            return;
        };
        let of_it = |request: &&Request| {
            request.open && request.source == Source::Own && request.branch == branch
        };
        let numbers: Vec<_> = self
            .requests
            .values()
            .filter(of_it)
            .map(|r| r.number)
            .collect();
        for number in numbers {
            match &change.after {
                Some(head) => self.head_moved(number, head, by),
                // GitLab leaves it open.
                None if self.face == Face::Gitlab => {}
                None => self.turn(number, false, Deed::Closed, by),
            }
        }
    }

    /// A request has a new head.
    pub(super) fn head_moved(&mut self, number: u64, head: &str, by: &str) {
        let request = self.requests.get_mut(&number).unwrap();
        let before = std::mem::replace(&mut request.head, head.to_owned());
        let reference = self.face.head_ref(number);
        self.repo.set(&reference, head);
        self.tell(number, &Deed::Pushed(before), by);
    }

    /// A request is closed or opened again.
    pub(super) fn turn(&mut self, number: u64, open: bool, deed: Deed, by: &str) {
        self.requests.get_mut(&number).unwrap().open = open;
        self.tell(number, &deed, by);
    }

    pub(super) fn tell(&mut self, number: u64, deed: &Deed, by: &str) {
        let now = self.iso();
        let request = self.requests.get_mut(&number).unwrap();
        request.changed_at = now;
        let request = request.clone();
        let event = payload::request(self, &request, deed, by);
        self.outbox.push(event);
    }
}
