//! What a look asks the forge: pull requests of which its messages did not come.

use std::collections::BTreeMap;

use protocol::Timestamp;

use super::{Known, WatchError, known_requests};
use crate::forge::{Forge, ForgeError};
use crate::pipelines;
use crate::report::ReportConfig;
use crate::state::Server;
use crate::store::projects::{self, Project};
use crate::store::{StoreError, requests};
use crate::trigger::{self, Request};

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
    let Some(forge) = forge(server, project).await? else {
        return Ok(false);
    };
    // The newest first: they are the ones that somebody waits for.
    for number in numbers.iter().rev().take(MOST_ASKED) {
        let told = forge.pull_request(*number).await;
        if let Some(told) = rested(server, project, told).await? {
            let request = Request::from(told);
            let mut tx = server.store.begin().await?;
            requests::put(&mut tx, &project.id, &request, Timestamp::now()).await?;
            tx.commit().await.map_err(StoreError::from)?;
            known.insert(*number, request);
        }
    }
    Ok(true)
}

/// Looks at times which pull requests are open: one may have been closed, or opened again, and git shows neither.
pub(super) async fn list(server: &Server, project: &Project) -> Result<(), WatchError> {
    let at = Timestamp::now();
    let mut db = server.store.read().await?;
    let last = requests::listed_at(&mut db, &project.id).await?;
    let known = known_requests(&mut db, project).await?;
    drop(db);
    let is_due =
        last.is_none_or(|last| last > at || at.since(last) >= server.config.requests_interval);
    if known.is_empty() || !is_due {
        return Ok(());
    }
    let Some(forge) = forge(server, project).await? else {
        return Ok(());
    };
    // Before it is asked: one that does not answer is not asked at each look.
    let mut tx = server.store.begin().await?;
    requests::set_listed(&mut tx, &project.id, at).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let listed = rested(server, project, forge.open_requests().await).await?;
    let open: Vec<Request> = listed.first.into_iter().map(Request::from).collect();
    let missed = trigger::missed(&known, &open, listed.more);
    let mut told: BTreeMap<u64, Request> = BTreeMap::new();
    told.extend(
        missed
            .reopened
            .into_iter()
            .map(|request| (request.number, request)),
    );
    for number in missed.unlisted.iter().rev().take(MOST_ASKED) {
        let request = forge.pull_request(*number).await;
        let request = rested(server, project, request).await?.map(Request::from);
        told.extend(
            request
                .filter(|request| !request.open)
                .map(|request| (*number, request)),
        );
    }
    note(server, project, told.into_values().collect(), at).await
}

/// Writes down what a list told.
async fn note(
    server: &Server,
    project: &Project,
    told: Vec<Request>,
    at: Timestamp,
) -> Result<(), WatchError> {
    let Some((kind, _)) = project.forge.place() else {
        return Ok(());
    };
    let mut ended = Vec::new();
    let mut tx = server.store.begin().await?;
    for request in &told {
        ended.extend(pipelines::told_of(&mut tx, &project.id, kind, request, at).await?);
    }
    tx.commit().await.map_err(StoreError::from)?;
    if !ended.is_empty() {
        pipelines::announce(server, &ended);
    }
    Ok(())
}

/// The project's forge; none: it asked to be left alone, or nobody speaks for the project.
async fn forge(server: &Server, project: &Project) -> Result<Option<Box<dyn Forge>>, WatchError> {
    let mut db = server.store.read().await?;
    let rests = projects::rest(&mut db, &project.id, Timestamp::now()).await?;
    if rests.is_some() || !project.forge.speaks() {
        return Ok(None);
    }
    let timeout = ReportConfig::default().call_timeout;
    Ok(Some(server.forges.connect(&project.forge, timeout.into())?))
}

/// Notes where a forge asks to be left alone.
async fn rested<T>(
    server: &Server,
    project: &Project,
    answer: Result<T, ForgeError>,
) -> Result<T, WatchError> {
    if let Err(ForgeError::RateLimited { wait, .. }) = &answer {
        let mut tx = server.store.begin().await?;
        projects::set_rest(&mut tx, &project.id, Timestamp::now() + *wait).await?;
        tx.commit().await.map_err(StoreError::from)?;
    }
    Ok(answer?)
}
