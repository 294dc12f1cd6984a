//! Presses of buttons of which no message came: GitHub is asked to send it again, at the server's start and at times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::{Span, Timestamp};

use crate::forge::{CLOCKS, ForgeError};
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
    /// Up to when all that GitHub sent was looked at.
    until: Option<Timestamp>,
    /// How often a message was asked for again, and when last.
    asked: BTreeMap<String, (u32, Timestamp)>,
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
        match done {
            // Who asks to be left alone is asked at the next pass.
            Ok(()) | Err(WatchError::Forge(ForgeError::RateLimited { .. })) => {}
            Err(error) => {
                tracing::warn!(%error, "whether the GitHub App missed a button that was pressed could not be asked");
            }
        }
        let pause = Duration::from(server.config.requests_interval).max(PAUSE);
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
        return Ok(());
    };
    let Some((_, place)) = project.forge.place() else {
        return Ok(());
    };
    let now = Timestamp::now();
    known.asked.retain(|_, (_, at)| *at >= now - WITHIN);
    let given_up = known.asked.iter();
    let given_up = given_up.filter(|(_, (times, _))| *times >= MOST_TIMES);
    let given_up: BTreeSet<String> = given_up.map(|(id, _)| id.clone()).collect();
    let since = known.until.map_or(now - WITHIN, |until| until - CLOCKS);
    let asked = app.send_again(&place.repository, since, &given_up);
    for id in rest::call(server, project, asked).await? {
        tracing::info!(delivery = id, "GitHub sends the press of a button again");
        let (times, at) = known.asked.entry(id).or_default();
        (*times, *at) = (*times + 1, now);
    }
    known.until = Some(now);
    Ok(())
}
