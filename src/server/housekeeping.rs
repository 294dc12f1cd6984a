//! Forgets what nobody will ask for again: deliveries of forges, commits that mirrors keep, notices, checkpoints of jobs
//! that ended long ago, versions of models where a rule says so, contents that nothing needs, and uploads that were never
//! completed. What else people made or look at is not its business.

use std::time::Duration;

use protocol::{Span, Timestamp};

use crate::state::Server;
use crate::store::projects::{self, Project, Word};
use crate::store::{StoreError, checkpoints, notices};
use crate::upkeep::{self, Manner, UpkeepError};
use crate::{fleet, registry, watch};

/// Time between two passes.
const PAUSE: Duration = Duration::from_secs(3600);
/// Deliveries are kept for so long, to see whether a forge sends one twice.
const DELIVERIES_FOR: Span = Span::hours(30 * 24);
/// What receivers were told is kept for so long.
const NOTICES_FOR: Span = Span::hours(30 * 24);
/// Most deliveries of a project that are kept.
const MOST_DELIVERIES: u32 = 10_000;
/// What people asked for is kept for longer: one that is forgotten and comes again would be obeyed again.
const ASKED_FOR: Span = Span::hours(365 * 24);
/// Most of a project's that were done and are kept.
const MOST_ASKED: u32 = 100_000;
/// The checkpoint of a job that did not succeed is kept for so long after its end.
const CHECKPOINTS_FOR: Span = Span::hours(7 * 24);
/// Most checkpoints that are removed in a pass.
const MOST_JOBS: u32 = 1_000;
/// Most contents that are removed in a pass.
const MOST_CONTENTS: u64 = 10_000;
/// An upload that did not grow for so long is never completed: its agent is gone, or gave the attempt up.
const PARTS_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs until the server stops: once at its start, then every hour.
pub async fn run(server: Server) {
    loop {
        if let Err(error) = tick(&server, Timestamp::now()).await {
            tracing::error!(%error, "old rows and files could not be removed; tried again in an hour");
        }
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// One pass.
///
/// # Errors
/// [`UpkeepError`]; what was removed before stays removed.
pub async fn tick(server: &Server, now: Timestamp) -> Result<(), UpkeepError> {
    let mut db = server.store.read().await?;
    let all = projects::all(&mut db).await?;
    drop(db);
    let before = |span: Span| Timestamp(now.0.saturating_sub_unsigned(span.0));
    for project in all {
        let mut tx = server.store.begin().await?;
        for (word, span, most) in [
            (Word::Hints, DELIVERIES_FOR, MOST_DELIVERIES),
            (Word::Asks, ASKED_FOR, MOST_ASKED),
        ] {
            projects::forget_deliveries(&mut tx, &project.id, word, before(span), most).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        let_go(server, &project, now).await;
    }
    let mut tx = server.store.begin().await?;
    notices::forget(&mut tx, before(NOTICES_FOR)).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let mut db = server.store.read().await?;
    let jobs = checkpoints::of_finished(&mut db, before(CHECKPOINTS_FOR), MOST_JOBS).await?;
    drop(db);
    for job in jobs {
        fleet::checkpoints::forget(server, &job).await?;
    }
    let gone = registry::retain(&server.store, server.config.retention, now).await?;
    if gone > 0 {
        tracing::info!(gone, "versions and candidates are removed by `retention`");
    }
    let old = before(server.config.blob_grace);
    registry::empty(&server.store, old, now).await?;
    let (store, blobs) = (&server.store, &server.blobs);
    let gone = upkeep::unlinked(store, blobs, old, MOST_CONTENTS, Manner::Remove).await?;
    if gone.contents > 0 {
        tracing::info!(contents = gone.contents, bytes = %gone.bytes, "contents that nothing needs are removed");
    }
    let parts = server.blobs.forget_parts(PARTS_FOR).await?;
    if parts > 0 {
        tracing::info!(parts, "uploads that were never completed are removed");
    }
    Ok(())
}

/// Lets go of commits that a project's mirror keeps for nobody. A remote's trouble keeps nothing else from being removed.
async fn let_go(server: &Server, project: &Project, now: Timestamp) {
    let name = &project.name;
    match watch::let_go(server, project, now).await {
        Ok(0) => {}
        Ok(commits) => tracing::info!(
            project = name,
            commits,
            "commits of pull requests that are over, or of old pipelines, are let go"
        ),
        Err(error) => {
            tracing::warn!(project = name, %error, "commits could not be let go; tried again in an hour");
        }
    }
}
