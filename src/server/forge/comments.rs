//! Comments and reactions under pull requests. GitHub and Gitea have them alike, GitLab under other names.

use chrono::{DateTime, SecondsFormat};
use protocol::{Span, Timestamp};
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::json;

use super::api::{About, Api};
use super::event::Comment;
use super::hook::{comment_text, moment, person};
use super::{CommentUpdate, ForgeError, ForgeKind, Reaction, Reply, Shown};

/// Most pages of one pull request's comments that are looked through.
const MOST_PAGES: usize = 10;
/// Comments of a page. Gitea has no pages and gives all.
const PAGE: usize = 100;
/// Most bytes of a page.
const MOST_BYTES: usize = 32 << 20;
/// GitHub takes no longer comment; Gitea's and GitLab's limits are higher.
const COMMENT_LIMIT: usize = 65_536;
/// How far a forge's clock may be behind ours.
pub(crate) const CLOCKS: Span = Span::secs(600);
/// Who changes a comment so soon edits it not: a forge writes its two times one after the other.
const AT_ONCE: Span = Span::secs(2);

/// A comment as a forge lists it.
#[derive(Debug, Deserialize)]
struct Listed {
    id: u64,
    #[serde(default)]
    body: Option<String>,
    #[serde(default, alias = "author")]
    user: Option<Author>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    /// Written by GitLab itself.
    #[serde(default)]
    system: bool,
}

#[derive(Debug, Deserialize)]
struct Author {
    id: u64,
    #[serde(default, rename = "type")]
    kind: String,
    /// GitHub's and Gitea's word.
    #[serde(default)]
    login: Option<String>,
    /// GitLab's.
    #[serde(default)]
    username: Option<String>,
}

impl Listed {
    fn created(&self) -> Option<Timestamp> {
        moment(self.created_at.as_deref())
    }

    /// As a message would have told of it, where somebody said it since then and left it as it was.
    fn said(self, kind: ForgeKind, number: u64, since: Timestamp) -> Option<Comment> {
        let at = self.created().filter(|at| *at >= since - CLOCKS)?;
        let changed = moment(self.updated_at.as_deref());
        let edited = changed.is_some_and(|changed| changed.since(at) > AT_ONCE);
        if edited || self.system {
            return None;
        }
        let by = self.user?;
        Some(Comment {
            number,
            id: self.id,
            by: person(&by.login.or(by.username)?),
            by_id: (kind == ForgeKind::Gitlab).then_some(by.id),
            at: Some(at),
            text: comment_text(&self.body?),
        })
    }
}

/// Whom a forge takes us for. A marker in somebody else's comment makes it none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum We {
    /// The user with this id.
    User(u64),
    /// An App: GitHub tells it no user.
    Bot,
    /// The token may not ask.
    Unknown,
}

impl We {
    fn wrote(self, comment: &Listed) -> bool {
        let author = comment.user.as_ref();
        match self {
            We::User(id) => author.is_some_and(|author| author.id == id),
            We::Bot => author.is_some_and(|author| author.kind == "Bot"),
            We::Unknown => false,
        }
    }
}

impl Api {
    /// Writes a reply, unless it stands there.
    pub(super) async fn reply(
        &self,
        reply: &Reply,
        remembered: Option<&str>,
    ) -> Result<Shown, ForgeError> {
        if let Some(id) = remembered {
            return Ok(Shown::named(id));
        }
        let marker = reply.marker();
        let found = self.ours(reply.number, &marker, Some(reply.since)).await?;
        let id = match found {
            Some(id) => id,
            None => {
                self.comment(reply.number, &marked(&marker, &reply.text))
                    .await?
            }
        };
        Ok(Shown::named(id))
    }

    /// Edits the one comment of a pull request, and writes it where it is not there, or not there any more.
    pub(super) async fn stick(
        &self,
        comment: &CommentUpdate,
        remembered: Option<&str>,
    ) -> Result<Shown, ForgeError> {
        let (number, marker) = (comment.number, comment.marker());
        let text = marked(&marker, &comment.text);
        if let Some(id) = remembered {
            match self.edit(number, id, &text).await {
                // Somebody removed it, or it is another account's since the token changed.
                Err(ForgeError::Refused { status: 404, .. })
                | Err(ForgeError::Unauthorized { status: 403, .. }) => {}
                answer => return answer.map(|()| Shown::named(id)),
            }
        }
        match self.ours(number, &marker, None).await? {
            Some(id) if remembered != Some(id.to_string().as_str()) => {
                self.edit(number, &id.to_string(), &text).await?;
                Ok(Shown::named(id))
            }
            Some(_) | None => self.comment(number, &text).await.map(Shown::named),
        }
    }

    /// Gives a comment another text.
    async fn edit(&self, number: u64, id: &str, text: &str) -> Result<(), ForgeError> {
        let request = match self.kind() {
            ForgeKind::Github | ForgeKind::Gitea => {
                self.below(Method::PATCH, &["issues", "comments", id])?
            }
            ForgeKind::Gitlab => {
                let number = number.to_string();
                self.below(Method::PUT, &["merge_requests", &number, "notes", id])?
            }
        };
        let request = request.json(&json!({"body": text}));
        self.send(request, About::Request).await.map(drop)
    }

    /// Thumbs up on a comment; twice is once.
    pub(super) async fn react(&self, reaction: &Reaction) -> Result<Shown, ForgeError> {
        let id = reaction.comment.to_string();
        let request = match self.kind() {
            ForgeKind::Github | ForgeKind::Gitea => self
                .below(Method::POST, &["issues", "comments", &id, "reactions"])?
                .json(&json!({"content": "+1"})),
            ForgeKind::Gitlab => {
                let number = reaction.number.to_string();
                let path = ["merge_requests", &number, "notes", &id, "award_emoji"];
                self.below(Method::POST, &path)?
                    .json(&json!({"name": "thumbsup"}))
            }
        };
        match self.send(request, About::Request).await {
            // GitLab's way to say that it stands there.
            Err(ForgeError::Refused { message, .. }) if message.contains("already been taken") => {}
            answer => drop(answer?),
        }
        Ok(Shown::unnamed())
    }

    /// Writes a comment; gives its id.
    async fn comment(&self, number: u64, text: &str) -> Result<u64, ForgeError> {
        let request = self
            .talk(Method::POST, number, &[])?
            .json(&json!({"body": text}));
        self.read(request, About::Request, MOST_BYTES, |body| {
            let comment: Result<Listed, _> = serde_json::from_slice(body);
            comment.map(|comment| comment.id).map_err(|e| e.to_string())
        })
        .await
    }

    /// The comment of ours that begins with `marker`: the oldest one, or, of those not older than `since`, any.
    async fn ours(
        &self,
        number: u64,
        marker: &str,
        since: Option<Timestamp>,
    ) -> Result<Option<u64>, ForgeError> {
        let mut we = None;
        for page in 1..=MOST_PAGES {
            let listed = self.listed(number, page, since).await?;
            let marks = |comment: &&Listed| {
                let body = comment.body.as_deref();
                body.is_some_and(|body| body.starts_with(marker))
            };
            for comment in listed.iter().filter(marks) {
                let we = match we {
                    Some(we) => we,
                    None => *we.insert(self.we().await?),
                };
                if we.wrote(comment) {
                    return Ok(Some(comment.id));
                }
            }
            if self.kind() == ForgeKind::Gitea || listed.len() < PAGE {
                break;
            }
        }
        Ok(None)
    }

    /// What people said under a pull request since then, the oldest first.
    pub(super) async fn said_since(
        &self,
        number: u64,
        since: Timestamp,
    ) -> Result<Vec<Comment>, ForgeError> {
        let kind = self.kind();
        let mut said = Vec::new();
        for page in 1..=MOST_PAGES {
            let listed = self.listed(number, page, Some(since)).await?;
            let is_old = |one: &Listed| one.created().is_some_and(|at| at < since - CLOCKS);
            let is_last = match kind {
                ForgeKind::Gitea => true,
                ForgeKind::Github => listed.len() < PAGE,
                ForgeKind::Gitlab => listed.len() < PAGE || listed.last().is_some_and(is_old),
            };
            let listed = listed.into_iter();
            said.extend(listed.filter_map(|one| one.said(kind, number, since)));
            if is_last {
                break;
            }
        }
        said.sort_by_key(|comment| comment.id);
        Ok(said)
    }

    /// A page of comments, the oldest first; with `since` those that are not older, which GitLab gives as the newest
    /// first.
    async fn listed(
        &self,
        number: u64,
        page: usize,
        since: Option<Timestamp>,
    ) -> Result<Vec<Listed>, ForgeError> {
        let pages = [("per_page", PAGE.to_string()), ("page", page.to_string())];
        let since_then = since
            .and_then(|at| iso(at - CLOCKS))
            .map(|at| ("since", at));
        let query: Vec<_> = match self.kind() {
            ForgeKind::Gitea => since_then.into_iter().collect(),
            ForgeKind::Github => pages.into_iter().chain(since_then).collect(),
            ForgeKind::Gitlab => {
                let sort = if since.is_some() { "desc" } else { "asc" };
                let order = [("order_by", "created_at"), ("sort", sort)];
                let order = order.map(|(name, word)| (name, word.to_owned()));
                pages.into_iter().chain(order).collect()
            }
        };
        let request = self.talk(Method::GET, number, &query)?;
        self.read(request, About::Request, MOST_BYTES, |body| {
            serde_json::from_slice(body).map_err(|e| e.to_string())
        })
        .await
    }

    /// Whom the forge takes us for.
    async fn we(&self) -> Result<We, ForgeError> {
        let request = self.request(Method::GET, &["user"])?;
        let answer = self.read(request, About::Look, MOST_BYTES, |body| {
            let user: Result<Author, _> = serde_json::from_slice(body);
            user.map(|user| user.id).map_err(|e| e.to_string())
        });
        match (answer.await, self.kind()) {
            (Ok(id), _) => Ok(We::User(id)),
            (Err(ForgeError::Unauthorized { status: 403, .. }), ForgeKind::Github) => Ok(We::Bot),
            (Err(ForgeError::Unauthorized { status: 403, .. }), _) => Ok(We::Unknown),
            (Err(error), _) => Err(error),
        }
    }

    /// The list of comments of a pull request.
    fn talk(
        &self,
        method: Method,
        number: u64,
        query: &[(&str, String)],
    ) -> Result<RequestBuilder, ForgeError> {
        let number = number.to_string();
        let path = match self.kind() {
            ForgeKind::Github | ForgeKind::Gitea => ["issues", &number, "comments"],
            ForgeKind::Gitlab => ["merge_requests", &number, "notes"],
        };
        self.below_with(method, &path, query)
    }
}

/// A text behind its marker, which no page shows.
fn marked(marker: &str, text: &str) -> String {
    let whole = format!("{marker}\n{text}");
    whole.chars().take(COMMENT_LIMIT).collect()
}

fn iso(at: Timestamp) -> Option<String> {
    let at = DateTime::from_timestamp_millis(at.0)?;
    Some(at.to_rfc3339_opts(SecondsFormat::Secs, true))
}
