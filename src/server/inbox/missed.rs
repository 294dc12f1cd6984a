//! Presses of buttons of which no message came: GitHub is asked to send it again, at the server's start and at times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::{Span, Timestamp};

use crate::forge::{Again, CLOCKS, ForgeError, Part};
use crate::rest;
use crate::state::Server;
use crate::store::projects;
use crate::watch::WatchError;

/// What was pressed longer ago nobody expects to be done.
const WITHIN: Span = Span::hours(24);
/// How often one message is asked for again.
const MOST_TIMES: u32 = 3;
/// The least time between two passes.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known between passes.
#[derive(Debug, Default)]
struct Known {
    /// Up to when all that GitHub sent was looked at, but for what is left.
    until: Option<Timestamp>,
    /// What is left of a list that was too long to be read at once.
    rest: Option<Part>,
    /// How often a message was asked for again, and when last.
    asked: BTreeMap<String, (u32, Timestamp)>,
}

impl Known {
    /// What is looked at next, and which messages are not asked for there.
    fn next(&mut self, now: Timestamp) -> (Part, BTreeSet<String>) {
        self.asked.retain(|_, (_, at)| *at >= now - WITHIN);
        // Further down the list stands nothing of what came of asking.
        let most = match self.rest {
            Some(_) => 1,
            None => MOST_TIMES,
        };
        let given_up = self.asked.iter().filter(|(_, (times, _))| *times >= most);
        let given_up = given_up.map(|(id, _)| id.clone()).collect();
        let since = self.until.map_or(now - WITHIN, |until| until - CLOCKS);
        let newest = Part { from: None, since };
        (self.rest.clone().unwrap_or(newest), given_up)
    }

    /// Takes in what came of it. Where more was missed than is sent again at a time, it is looked at once more.
    fn note(&mut self, again: Again, now: Timestamp) {
        for id in again.sent {
            let (times, at) = self.asked.entry(id).or_default();
            (*times, *at) = (*times + 1, now);
        }
        if again.left {
            return;
        }
        if self.rest.is_none() {
            self.until = Some(now);
        }
        self.rest = again.rest;
    }
}

/// Runs until the server stops.
pub async fn run(server: Server) {
    let mut known = Known::default();
    loop {
        let done = tokio::select! {
            // Half of a pass does no harm.
            () = server.shutdown.cancelled() => return,
            done = tick(&server, &mut known) => done,
        };
        let interval = Duration::from(server.config.requests_interval).max(PAUSE);
        let mut pause = interval;
        match done {
            Ok(()) if known.rest.is_some() => pause = PAUSE,
            // Who asks to be left alone is asked at the next pass.
            Ok(()) | Err(WatchError::Forge(ForgeError::RateLimited { .. })) => {}
            Err(error) => {
                tracing::warn!(%error, "whether the GitHub App missed a button that was pressed could not be asked");
                if let WatchError::Forge(ForgeError::Refused { .. }) = error {
                    // Perhaps nothing stands at that place any more.
                    known.rest = None;
                }
            }
        }
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One pass, where a project is spoken for by the App.
async fn tick(server: &Server, known: &mut Known) -> Result<(), WatchError> {
    let Some(app) = server.forges.app() else {
        return Ok(());
    };
    let mut db = server.store.read().await?;
    let all = projects::all(&mut db).await?;
    drop(db);
    let of_app = |project: &&projects::Project| {
        let place = project.forge.place();
        place.is_some_and(|(_, place)| place.app.is_some() && app.is_at(&place.api))
    };
    let Some(project) = all.iter().find(of_app) else {
        known.rest = None;
        return Ok(());
    };
    let Some((_, place)) = project.forge.place() else {
        return Ok(());
    };
    let now = Timestamp::now();
    let (part, given_up) = known.next(now);
    let asked = app.send_again(&place.repository, part, &given_up);
    let again = rest::call(server, project, asked).await?;
    for id in &again.sent {
        tracing::info!(delivery = id, "GitHub sends the press of a button again");
    }
    known.note(again, now);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn again(sent: &[&str], left: bool, rest: Option<Part>) -> Again {
        let sent = sent.iter().map(|id| (*id).to_owned()).collect();
        Again { sent, left, rest }
    }

    #[test]
    fn what_could_not_be_sent_again_at_once_is_looked_at_once_more() {
        let mut known = Known::default();
        let (first, _) = known.next(NOW);
        assert_eq!((&first.from, first.since), (&None, NOW - WITHIN));
        known.note(again(&["a"], true, None), NOW);
        let (part, given_up) = known.next(NOW);
        assert_eq!(part, first);
        assert!(given_up.is_empty(), "it may be asked for three times");
        known.note(again(&["a", "a"], false, None), NOW);
        let (part, given_up) = known.next(NOW);
        assert_eq!(part.since, NOW - CLOCKS);
        assert_eq!(given_up, ["a".to_owned()].into());
    }

    #[test]
    fn a_list_that_is_too_long_is_read_to_its_end() {
        let mut known = Known::default();
        let (first, _) = known.next(NOW);
        let rest = Part {
            from: Some("v1_12".to_owned()),
            since: first.since,
        };
        known.note(again(&["a"], false, Some(rest.clone())), NOW);
        let later = NOW + Span::secs(5);
        let (part, given_up) = known.next(later);
        assert_eq!(part, rest);
        assert_eq!(given_up, ["a".to_owned()].into(), "its answer stands above");
        known.note(again(&[], false, None), later);
        let (part, given_up) = known.next(later);
        let since = NOW - CLOCKS;
        assert_eq!(part, Part { from: None, since }, "all since the first look");
        assert!(given_up.is_empty());
    }
}
