//! Forges that asked to be left alone. Until when is a row of whom they count, be it over a restart: whoever is told so
//! notes it, and nobody who speaks alike calls before.

use protocol::Timestamp;

use crate::forge::ForgeError;
use crate::state::Server;
use crate::store::projects::Project;
use crate::store::{StoreError, rests};
use crate::watch::WatchError;

/// Makes a call to a project's forge, unless it asked to be left alone; notes where it does so now.
///
/// # Errors
/// The call's, [`ForgeError::RateLimited`] where it was not made; the store's.
pub(crate) async fn call<T>(
    server: &Server,
    project: &Project,
    call: impl Future<Output = Result<T, ForgeError>>,
) -> Result<T, WatchError> {
    let (Some(caller), Some((kind, _))) = (project.forge.caller(), project.forge.place()) else {
        // It reaches no forge.
        return Ok(call.await?);
    };
    let now = Timestamp::now();
    let mut db = server.store.read().await?;
    let rests = rests::until(&mut db, &caller, now).await?;
    drop(db);
    if let Some(until) = rests {
        let (forge, wait) = (kind.name(), until.since(now));
        return Err(ForgeError::RateLimited { forge, wait }.into());
    }
    let answer = call.await;
    if let Err(ForgeError::RateLimited { wait, .. }) = &answer {
        let (mut tx, now) = (server.store.begin().await?, Timestamp::now());
        rests::set(&mut tx, &caller, now + *wait, now).await?;
        tx.commit().await.map_err(StoreError::from)?;
    }
    Ok(answer?)
}
