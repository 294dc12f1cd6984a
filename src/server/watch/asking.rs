//! What a look asks the forge: pull requests, and what people said under them, of which its messages did not come.

use std::collections::BTreeMap;

use protocol::{Span, Timestamp};

use super::{Known, WatchError, known_requests};
use crate::forge::{CLOCKS, Forge, ForgeError};
use crate::report::ReportConfig;
use crate::state::Server;
use crate::store::projects::Project;
use crate::store::{StoreError, requests};
use crate::trigger::{self, Request};
use crate::{inbox, pipelines, rest};

/// Most pull requests that a forge is asked for in one look; the others' turn comes with the next.
const MOST_ASKED: usize = 20;
/// What was said longer ago nobody expects to be obeyed.
const SAID_WITHIN: Span = Span::hours(24);

/// Asks for pull requests by their numbers. Whether one is known now that was not.
pub(super) async fn ask(
    server: &Server,
    project: &Project,
    numbers: &[u64],
    known: &mut Known,
) -> Result<bool, WatchError> {
    if numbers.is_empty() {
        return Ok(false);
    }
    let Some(forge) = forge(server, project)? else {
        return Ok(false);
    };
    // The newest first: they are the ones that somebody waits for.
    for number in numbers.iter().rev().take(MOST_ASKED) {
        let told = rest::call(server, project, forge.pull_request(*number)).await?;
        if let Some(told) = told {
            let request = Request::from(told);
            let mut tx = server.store.begin().await?;
            requests::put(&mut tx, &project.id, &request, Timestamp::now()).await?;
            tx.commit().await.map_err(StoreError::from)?;
            known.insert(*number, request);
        }
    }
    Ok(true)
}

/// Looks at times which pull requests are open: one may have been closed, or opened again, and git shows neither. Whoever
/// was told something wants to see that first: it may be twice as long then. Gives those that are known and open, where it looked.
pub(super) async fn list(
    server: &Server,
    project: &Project,
    told: bool,
) -> Result<Vec<Request>, WatchError> {
    let at = Timestamp::now();
    let mut db = server.store.read().await?;
    let last = requests::listed_at(&mut db, &project.id).await?;
    let known = known_requests(&mut db, project).await?;
    drop(db);
    let interval = server.config.requests_interval.0;
    let interval = Span(if told { 2 * interval } else { interval });
    let is_due = last.is_none_or(|last| last > at || at.since(last) >= interval);
    if known.is_empty() || !is_due {
        return Ok(Vec::new());
    }
    let Some(forge) = forge(server, project)? else {
        return Ok(Vec::new());
    };
    // Before it is asked: one that does not answer is not asked at each look.
    let mut tx = server.store.begin().await?;
    requests::set_listed(&mut tx, &project.id, at).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let listed = rest::call(server, project, forge.open_requests()).await?;
    let mut open: Vec<Request> = listed.into_iter().map(Request::from).collect();
    let missed = trigger::missed(&known, &open);
    let mut told = missed.reopened;
    for number in in_turn(&missed.unlisted, chance(at)) {
        let request = rest::call(server, project, forge.pull_request(*number)).await?;
        told.extend(request.map(Request::from).filter(|request| !request.open));
    }
    note(server, project, &told, at).await?;
    // Of what nobody knows nothing was planned yet.
    open.retain(|request| known.contains_key(&request.number));
    Ok(open)
}

/// Keeps what people said under these pull requests since that was last known, as the forge's messages would have: of a
/// comment of which one came, or comes later, it is the same.
pub(super) async fn comments(
    server: &Server,
    project: &Project,
    open: &[Request],
) -> Result<(), WatchError> {
    let Some(forge) = forge(server, project)? else {
        return Ok(());
    };
    let at = Timestamp::now();
    let mut db = server.store.read().await?;
    let listed = requests::comments_listed(&mut db, &project.id).await?;
    drop(db);
    // What was said before the project was there was not said to us.
    let earliest = project.created_at.max(at - SAID_WITHIN);
    for (number, since) in unheard(open, &listed, earliest, chance(at)) {
        let said = match rest::call(server, project, forge.said(number, since)).await {
            Ok(said) => said,
            // One that is gone, or odd, keeps nobody from hearing of the others.
            Err(WatchError::Forge(
                error @ (ForgeError::Refused { .. } | ForgeError::Unreadable { .. }),
            )) => {
                let name = &project.name;
                tracing::warn!(project = name, number, %error, "what was said under a pull request could not be listed");
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut tx = server.store.begin().await?;
        let new = inbox::keep_listed(&mut tx, &project.id, said, at).await?;
        requests::set_comments_listed(&mut tx, &project.id, number, at).await?;
        tx.commit().await.map_err(StoreError::from)?;
        if new {
            server.live.somebody_asked();
        }
    }
    Ok(())
}

/// The last digits of the time are as good as chance: no rhythm of looks leaves the same ones out.
fn chance(at: Timestamp) -> usize {
    usize::try_from(at.0).unwrap_or(0)
}

/// The pull requests under which something may have been said that nobody listed, and since when; those first that were
/// listed longest ago. Of many, half are others at each turn: those that cannot be listed stay in front. A comment changes
/// its request's time, by the forge's clock.
fn unheard(
    open: &[Request],
    listed: &BTreeMap<u64, Timestamp>,
    earliest: Timestamp,
    turn: usize,
) -> Vec<(u64, Timestamp)> {
    let mut unheard: Vec<(u64, Timestamp)> = open
        .iter()
        .filter_map(|request| {
            let known = listed.get(&request.number).copied();
            let since = known.unwrap_or(earliest).max(earliest);
            let changed = request.updated_at;
            let may_be = changed.is_none_or(|changed| changed >= since - CLOCKS);
            may_be.then_some((request.number, since))
        })
        .collect();
    unheard.sort_by_key(|(_, since)| *since);
    if unheard.len() > MOST_ASKED {
        let behind = &mut unheard[MOST_ASKED / 2..];
        behind.rotate_left(turn % behind.len());
        unheard.truncate(MOST_ASKED);
    }
    unheard
}

/// Some of the numbers, others at each turn; the newest at the first.
fn in_turn(numbers: &[u64], turn: usize) -> impl Iterator<Item = &u64> {
    let turns = numbers.len().div_ceil(MOST_ASKED).max(1);
    numbers
        .iter()
        .rev()
        .skip(turn % turns * MOST_ASKED)
        .take(MOST_ASKED)
}

/// Writes down what a list told.
async fn note(
    server: &Server,
    project: &Project,
    told: &[Request],
    at: Timestamp,
) -> Result<(), WatchError> {
    let Some((kind, _)) = project.forge.place() else {
        return Ok(());
    };
    let mut ended = Vec::new();
    let mut tx = server.store.begin().await?;
    for request in told {
        ended.extend(pipelines::told_of(&mut tx, &project.id, kind, (request, true), at).await?);
    }
    tx.commit().await.map_err(StoreError::from)?;
    if !ended.is_empty() {
        pipelines::announce(server, &ended);
    }
    Ok(())
}

/// The project's forge; none: nobody speaks for the project.
fn forge(server: &Server, project: &Project) -> Result<Option<Box<dyn Forge>>, ForgeError> {
    if !project.forge.speaks() {
        return Ok(None);
    }
    let timeout = ReportConfig::default().call_timeout;
    server
        .forges
        .connect(&project.forge, timeout.into())
        .map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn comments_are_listed_where_something_changed_and_by_turns() {
        let (earliest, minute) = (Timestamp(1_000_000_000), Span::secs(60));
        let request = |number: u64, updated_at: Timestamp| Request {
            number,
            head: "a".repeat(40).parse().unwrap(),
            head_branch: String::new(),
            base_branch: String::new(),
            title: String::new(),
            author: None,
            fork: false,
            open: true,
            updated_at: Some(updated_at),
        };
        let hour = earliest + Span::hours(1);
        let open = [
            request(1, earliest - Span::hours(1)),
            request(2, hour),
            request(3, hour - minute),
            request(4, hour),
            request(5, earliest),
        ];
        // The first is too old; of the second all is known; the clock of the third may differ.
        let listed = [(2, hour + Span::hours(1)), (3, hour)].into();
        let since = unheard(&open, &listed, earliest, 7);
        assert_eq!(since, [(4, earliest), (5, earliest), (3, hour)]);

        let mut listed = BTreeMap::new();
        let open: Vec<_> = (0..30).map(|number| request(number, hour)).collect();
        for turn in 0..2 {
            let asked = unheard(&open, &listed, earliest, 7);
            assert_eq!(asked.len(), MOST_ASKED);
            let then = hour + Span(turn);
            listed.extend(asked.into_iter().map(|(number, _)| (number, then)));
        }
        assert_eq!(listed.len(), 30);

        // Those that cannot be listed, however many, hide no other.
        let turns = 0..open.len();
        let asked = turns.flat_map(|turn| unheard(&open, &BTreeMap::new(), earliest, turn));
        let asked: BTreeSet<u64> = asked.map(|(number, _)| number).collect();
        assert_eq!(asked.len(), 30);
    }

    #[test]
    fn each_request_has_its_turn() {
        let numbers: Vec<u64> = (1..=45).collect();
        let turns = (7..10).flat_map(|turn| in_turn(&numbers, turn).copied());
        let mut asked: Vec<u64> = turns.collect();
        asked.sort_unstable();
        assert_eq!(asked, numbers);
        assert_eq!(in_turn(&numbers[..3], 5).count(), 3);
        assert_eq!(in_turn(&[], 5).count(), 0);
    }
}
