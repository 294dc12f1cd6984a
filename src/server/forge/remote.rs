//! A repository at a forge with an API: what all forges do alike, and who does what its own way.

use futures_util::future::BoxFuture;
use protocol::{CommitId, Timestamp};
use reqwest::Method;
use serde_json::Value;

use super::api::{About, Api};
use super::event::{Comment, PullRequest};
use super::{
    Forge, ForgeError, ForgeKind, Shown, StatusUpdate, Update, gitea, github, gitlab, hook,
};

/// Pull requests of one list: Gitea gives at most so many.
const PAGE: &str = "50";
/// Most bytes of a list; GitHub says 25 KB of each.
const MOST_BYTES: usize = 4 << 20;

impl Forge for Api {
    fn name(&self) -> &'static str {
        self.kind().name()
    }

    fn description_limit(&self) -> usize {
        match self.kind() {
            ForgeKind::Github => github::DESCRIPTION_LIMIT,
            ForgeKind::Gitlab => gitlab::DESCRIPTION_LIMIT,
            ForgeKind::Gitea => gitea::DESCRIPTION_LIMIT,
        }
    }

    fn listens(&self) -> bool {
        self.place().speaks()
    }

    fn checks(&self) -> bool {
        // GitHub takes check runs from an App alone, and nobody else has them.
        self.kind() == ForgeKind::Github && self.place().app.is_some()
    }

    fn pull_request(&self, number: u64) -> BoxFuture<'_, Result<Option<PullRequest>, ForgeError>> {
        Box::pin(async move {
            let number = number.to_string();
            match self.kind() {
                ForgeKind::Github | ForgeKind::Gitea => {
                    self.find(&["pulls", &number], hook::github::pull_request)
                        .await
                }
                ForgeKind::Gitlab => {
                    let path = ["merge_requests", &number];
                    self.find(&path, hook::gitlab::merge_request).await
                }
            }
        })
    }

    fn open_requests(&self) -> BoxFuture<'_, Result<Vec<PullRequest>, ForgeError>> {
        Box::pin(self.listed_requests())
    }

    fn said(
        &self,
        number: u64,
        since: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Comment>, ForgeError>> {
        Box::pin(self.said_since(number, since))
    }

    fn may_write<'a>(
        &'a self,
        login: &'a str,
        number: Option<u64>,
    ) -> BoxFuture<'a, Result<bool, ForgeError>> {
        Box::pin(self.writes(login, number))
    }

    fn members_fork<'a>(
        &'a self,
        number: u64,
        head: &'a CommitId,
    ) -> BoxFuture<'a, Result<bool, ForgeError>> {
        Box::pin(Api::members_fork(self, number, head))
    }

    fn show<'a>(
        &'a self,
        update: &'a Update,
        remembered: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Shown, ForgeError>> {
        Box::pin(async move {
            match update {
                Update::Status(status) => self.status(status).await.map(|()| Shown::unnamed()),
                Update::Check(check) if self.checks() => self.check(check, remembered).await,
                // It has none, and is told of none.
                Update::Check(_) => Ok(Shown::unnamed()),
                Update::Comment(comment) => self.stick(comment, remembered).await,
                Update::Reply(reply) => self.reply(reply, remembered).await,
                Update::Reaction(reaction) => self.react(reaction).await,
            }
        })
    }
}

impl Api {
    async fn listed_requests(&self) -> Result<Vec<PullRequest>, ForgeError> {
        let (list, query) = match self.kind() {
            ForgeKind::Github => (
                "pulls",
                [
                    ("state", "open"),
                    ("sort", "updated"),
                    ("direction", "desc"),
                    ("per_page", PAGE),
                ],
            ),
            ForgeKind::Gitea => (
                "pulls",
                [
                    ("state", "open"),
                    ("sort", "recentupdate"),
                    ("page", "1"),
                    ("limit", PAGE),
                ],
            ),
            ForgeKind::Gitlab => (
                "merge_requests",
                [
                    ("state", "opened"),
                    ("order_by", "updated_at"),
                    ("sort", "desc"),
                    ("per_page", PAGE),
                ],
            ),
        };
        let query = query.map(|(name, value)| (name, value.to_owned()));
        let request = self.below_with(Method::GET, &[list], &query)?;
        let one = match self.kind() {
            ForgeKind::Github | ForgeKind::Gitea => hook::github::pull_request,
            ForgeKind::Gitlab => hook::gitlab::merge_request,
        };
        self.read(request, About::Look, MOST_BYTES, |body| {
            let all: Vec<Value> = serde_json::from_slice(body).map_err(|e| e.to_string())?;
            // One that cannot be read is asked for by itself.
            let read = all
                .iter()
                .filter_map(|item| one(item.to_string().as_bytes()).ok());
            Ok(read.collect())
        })
        .await
    }

    async fn status(&self, update: &StatusUpdate) -> Result<(), ForgeError> {
        match self.kind() {
            ForgeKind::Github => self.github_status(update).await,
            ForgeKind::Gitlab => self.gitlab_status(update).await,
            ForgeKind::Gitea => self.gitea_status(update).await,
        }
    }
}
