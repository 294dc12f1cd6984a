//! Forgets what nobody will ask for again: deliveries of forges, notices, checkpoints of jobs that ended long ago, versions of
//! models where a rule says so, contents that nothing needs, and uploads that were never completed. What else people made or look at is not its business.

use std::time::Duration;

use protocol::{Span, Timestamp};

use crate::state::Server;
use crate::store::{StoreError, checkpoints, notices, projects};
use crate::upkeep::{self, Manner, UpkeepError};
use crate::{fleet, registry};

/// Time between two passes.
const PAUSE: Duration = Duration::from_secs(3600);
/// Deliveries are kept for so long, to see whether a forge sends one twice.
const DELIVERIES_FOR: Span = Span::hours(30 * 24);
/// What receivers were told is kept for so long.
const NOTICES_FOR: Span = Span::hours(30 * 24);
/// Most deliveries of a project that are kept.
const MOST_DELIVERIES: u32 = 10_000;
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
    let oldest = Timestamp(now.0.saturating_sub_unsigned(DELIVERIES_FOR.0));
    for project in all {
        let mut tx = server.store.begin().await?;
        projects::forget_deliveries(&mut tx, &project.id, oldest, MOST_DELIVERIES).await?;
        tx.commit().await.map_err(StoreError::from)?;
    }
    let oldest = Timestamp(now.0.saturating_sub_unsigned(NOTICES_FOR.0));
    let mut tx = server.store.begin().await?;
    notices::forget(&mut tx, oldest).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let old = Timestamp(now.0.saturating_sub_unsigned(CHECKPOINTS_FOR.0));
    let mut db = server.store.read().await?;
    let jobs = checkpoints::of_finished(&mut db, old, MOST_JOBS).await?;
    drop(db);
    for job in jobs {
        fleet::checkpoints::forget(server, &job).await?;
    }
    let gone = registry::retain(&server.store, server.config.retention, now).await?;
    if gone > 0 {
        tracing::info!(gone, "versions and candidates are removed by `retention`");
    }
    let old = Timestamp(now.0.saturating_sub_unsigned(server.config.blob_grace.0));
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
