//! Forges that asked to be left alone. Until when is a column of the project: whoever is told so notes it, and nobody
//! calls before, be it after a restart.

use protocol::Timestamp;

use crate::forge::ForgeError;
use crate::state::Server;
use crate::store::projects::{self, Project};
use crate::store::{Result as StoreResult, StoreError};
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
    let now = Timestamp::now();
    let mut db = server.store.read().await?;
    let rests = projects::rest(&mut db, &project.id, now).await?;
    drop(db);
    if let (Some(until), Some((kind, _))) = (rests, project.forge.place()) {
        let (forge, wait) = (kind.name(), until.since(now));
        return Err(ForgeError::RateLimited { forge, wait }.into());
    }
    let answer = call.await;
    if let Err(ForgeError::RateLimited { wait, .. }) = &answer {
        note(server, project, Timestamp::now() + *wait).await?;
    }
    Ok(answer?)
}

async fn note(server: &Server, project: &Project, until: Timestamp) -> StoreResult<()> {
    let mut tx = server.store.begin().await?;
    projects::set_rest(&mut tx, &project.id, until).await?;
    tx.commit().await.map_err(StoreError::from)
}
