//! Commits that a mirror keeps though no branch leads to them: heads of pull requests. They are let go when nobody asks
//! for them any more.

use std::collections::BTreeSet;

use mirror::{Deadline, Mirror};
use protocol::{CommitId, Span, Timestamp};

use super::{WatchError, blocking, known_requests};
use crate::state::Server;
use crate::store::pipelines;
use crate::store::projects::{self, Project};
use crate::trigger;

/// Commits of pipelines that are younger may be asked for again.
const KEPT_FOR: Span = Span::hours(30 * 24);
/// Most commits that are let go in a pass.
const MOST: usize = 1_000;
/// A mirror that is being fetched to has its turn at the next pass.
const LOCK_TIMEOUT: Span = Span::secs(10);

/// Lets go of what a project's mirror keeps, but for heads of open pull requests, and commits of pipelines that go on,
/// or are young and of no request that is over. Gives how many.
///
/// # Errors
/// [`WatchError`].
pub(crate) async fn let_go(
    server: &Server,
    project: &Project,
    now: Timestamp,
) -> Result<usize, WatchError> {
    let mut db = server.store.read().await?;
    let requests = known_requests(&mut db, project).await?;
    let is_over = |reference: &str| {
        let number = trigger::request_number(reference);
        let request = number.and_then(|number| requests.get(&number));
        request.is_some_and(|request| !request.open)
    };
    let refs = projects::refs(&mut db, &project.id).await?;
    let heads = refs.into_iter().filter(|(name, _)| !is_over(name));
    let mut wanted: BTreeSet<CommitId> = heads.map(|(_, commit)| commit).collect();
    let since = Timestamp(now.0.saturating_sub_unsigned(KEPT_FOR.0));
    for of in pipelines::commits(&mut db, &project.id, since).await? {
        if of.goes_on || !of.reference.as_deref().is_some_and(is_over) {
            wanted.insert(of.commit);
        }
    }
    drop(db);
    let (root, url) = (server.config.mirrors(), project.url.clone());
    blocking(move || {
        let deadline = Deadline::within(LOCK_TIMEOUT.into());
        let mirror = Mirror::open(&root, &url)?;
        Ok(mirror.let_go(|commit| wanted.contains(commit), MOST, &deadline)?)
    })
    .await
}
