//! What a look asks the forge: pull requests of which its messages did not come.

use protocol::{Span, Timestamp};

use super::{Known, WatchError, known_requests};
use crate::forge::{Forge, ForgeError};
use crate::report::ReportConfig;
use crate::state::Server;
use crate::store::projects::Project;
use crate::store::{StoreError, requests};
use crate::trigger::{self, Request};
use crate::{pipelines, rest};

/// Most pull requests that a forge is asked for in one look; the others' turn comes with the next.
const MOST_ASKED: usize = 20;

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
/// was told something wants to see that first: it may be twice as long then.
pub(super) async fn list(server: &Server, project: &Project, told: bool) -> Result<(), WatchError> {
    let at = Timestamp::now();
    let mut db = server.store.read().await?;
    let last = requests::listed_at(&mut db, &project.id).await?;
    let known = known_requests(&mut db, project).await?;
    drop(db);
    let interval = server.config.requests_interval.0;
    let interval = Span(if told { 2 * interval } else { interval });
    let is_due = last.is_none_or(|last| last > at || at.since(last) >= interval);
    if known.is_empty() || !is_due {
        return Ok(());
    }
    let Some(forge) = forge(server, project)? else {
        return Ok(());
    };
    // Before it is asked: one that does not answer is not asked at each look.
    let mut tx = server.store.begin().await?;
    requests::set_listed(&mut tx, &project.id, at).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let listed = rest::call(server, project, forge.open_requests()).await?;
    let open: Vec<Request> = listed.into_iter().map(Request::from).collect();
    let missed = trigger::missed(&known, &open);
    let mut told = missed.reopened;
    // The last digits of the time are as good as chance: no rhythm of looks leaves the same ones out.
    let turn = usize::try_from(at.0).unwrap_or(0);
    for number in in_turn(&missed.unlisted, turn) {
        let request = rest::call(server, project, forge.pull_request(*number)).await?;
        told.extend(request.map(Request::from).filter(|request| !request.open));
    }
    note(server, project, &told, at).await
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
    use super::*;

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
