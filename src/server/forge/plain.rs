//! A plain git remote: nobody to tell.

use futures_util::future::BoxFuture;
use protocol::{CommitId, Timestamp};

use super::event::{Comment, PullRequest};
use super::{Forge, ForgeError, Shown, Update};

/// A remote that is only git. It shows nothing; the pages do.
#[derive(Debug, Clone, Copy)]
pub struct PlainGit;

impl Forge for PlainGit {
    fn name(&self) -> &'static str {
        "git"
    }

    fn description_limit(&self) -> usize {
        140
    }

    fn listens(&self) -> bool {
        false
    }

    fn checks(&self) -> bool {
        false
    }

    fn pull_request(&self, _: u64) -> BoxFuture<'_, Result<Option<PullRequest>, ForgeError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn open_requests(&self) -> BoxFuture<'_, Result<Vec<PullRequest>, ForgeError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn said(&self, _: u64, _: Timestamp) -> BoxFuture<'_, Result<Vec<Comment>, ForgeError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn may_write<'a>(
        &'a self,
        _: &'a str,
        _: Option<u64>,
    ) -> BoxFuture<'a, Result<bool, ForgeError>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    fn members_fork<'a>(
        &'a self,
        _: u64,
        _: &'a CommitId,
    ) -> BoxFuture<'a, Result<bool, ForgeError>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    fn show<'a>(
        &'a self,
        _: &'a Update,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Shown, ForgeError>> {
        Box::pin(std::future::ready(Ok(Shown::unnamed())))
    }
}
