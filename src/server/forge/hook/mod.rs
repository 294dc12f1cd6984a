//! A forge's message: its headers say who sends it, the raw body is proved, and only then read. It stores nothing.

mod app;
pub(super) mod github;
pub(super) mod gitlab;
mod proof;
#[cfg(test)]
mod tests;

use chrono::DateTime;
use protocol::{Digest, Timestamp};
use secrecy::SecretString;
use serde::Deserialize;

pub use app::AppTold;
pub(super) use proof::SIGNING_SECRET;
pub use proof::{BadProof, Verified};

use super::{ForgeEvent, ForgeKind, bounded};

/// Most characters of a delivery's id that are kept.
const MOST_ID: usize = 100;
/// Most characters of an event's name that are kept.
const MOST_NAME: usize = 60;

/// What the headers of a message say. Nobody has proved them: they choose how the body is proved and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sends it.
    pub kind: ForgeKind,
    /// The event's name, in the forge's words.
    pub name: String,
    /// The same for the same message sent twice, where the forge gives it an id.
    id: Option<String>,
    proof: proof::Proof,
}

/// A body that is not what its event's name says.
#[derive(Debug, thiserror::Error)]
#[error("the body is not a '{event}' event: {why}")]
pub struct Unreadable {
    event: String,
    why: String,
}

/// What a message said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What happened.
    pub event: ForgeEvent,
    /// The repository that it names, to be held against the project's; none: it names none.
    pub repository: Option<String>,
}

/// The headers of the events' names, by forge. Gitea also sends GitHub's, and Forgejo also Gitea's: the first one
/// that is there counts.
const EVENTS: [(&str, ForgeKind); 4] = [
    ("x-forgejo-event", ForgeKind::Gitea),
    ("x-gitea-event", ForgeKind::Gitea),
    ("x-gitlab-event", ForgeKind::Gitlab),
    ("x-github-event", ForgeKind::Github),
];

impl Message {
    /// Reads the headers; none where no forge sends such ones.
    pub fn of<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let (name, kind) = EVENTS
            .into_iter()
            .find_map(|(event, kind)| Some((header(event)?, kind)))?;
        let id = match kind {
            ForgeKind::Github => header("x-github-delivery"),
            // GitLab sends a message again under the key of its first try, and before 17.4 has none.
            ForgeKind::Gitlab => {
                header("idempotency-key").or_else(|| header("x-gitlab-event-uuid"))
            }
            ForgeKind::Gitea => header("x-gitea-delivery").or_else(|| header("x-github-delivery")),
        };
        Some(Self {
            kind,
            name: bounded(name, MOST_NAME),
            id: id
                .map(|id| bounded(id, MOST_ID))
                .filter(|id| !id.is_empty()),
            proof: proof::Proof::of(kind, header),
        })
    }

    /// Whether there is anything in the headers that could prove it.
    #[must_use]
    pub fn has_proof(&self) -> bool {
        self.proof.is_there()
    }

    /// Checks the proof over the body as it came, in constant time.
    ///
    /// # Errors
    /// [`BadProof`].
    pub fn prove<'a>(
        &self,
        secret: &SecretString,
        body: &'a [u8],
        now: Timestamp,
    ) -> Result<Verified<'a>, BadProof> {
        self.proof.check(secret, body, now)
    }

    /// The same for the same message sent twice.
    #[must_use]
    pub fn delivery(&self, body: Verified<'_>) -> String {
        match &self.id {
            Some(id) => id.clone(),
            None => Digest::of(body.bytes()).to_string(),
        }
    }

    /// Reads what happened. The list of commits in a push is left where it is: git is asked.
    ///
    /// # Errors
    /// [`Unreadable`] where an event that is known lacks what its name promises.
    pub fn read(&self, body: Verified<'_>) -> Result<Told, Unreadable> {
        let told = match self.kind {
            ForgeKind::Github | ForgeKind::Gitea => github::read(&self.name, body.bytes()),
            ForgeKind::Gitlab => gitlab::read(&self.name, body.bytes()),
        };
        told.map_err(|why| self.unreadable(why))
    }

    /// The same of a message to the GitHub App, which says whose it is.
    ///
    /// # Errors
    /// As [`Message::read`].
    pub fn read_for_app(&self, body: Verified<'_>) -> Result<AppTold, Unreadable> {
        app::read(&self.name, body.bytes()).map_err(|why| self.unreadable(why))
    }

    fn unreadable(&self, why: String) -> Unreadable {
        Unreadable {
            event: self.name.clone(),
            why,
        }
    }
}

/// What is read of every body.
fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| bounded(&error.to_string(), 300))
}

/// An event that asks for no work.
fn other(name: &str) -> ForgeEvent {
    ForgeEvent::Other {
        name: bounded(name, MOST_NAME),
    }
}

/// A ref as git writes it.
fn full_ref(reference: String) -> Result<String, String> {
    if reference.starts_with("refs/") && reference.len() <= 1_024 {
        Ok(reference)
    } else {
        Err("its ref is no full ref".into())
    }
}

/// All zeros is every forge's word for "no commit".
fn commit_or_zeros(text: &str) -> Result<Option<protocol::CommitId>, String> {
    let commit: protocol::CommitId = text.parse().map_err(|error| format!("{error}"))?;
    let zeros = commit.as_str().bytes().all(|byte| byte == b'0');
    Ok((!zeros).then_some(commit))
}

/// A moment as forges write it: RFC 3339, or `2015-05-17 18:21:36 UTC` as GitLab may; none: it is neither.
pub(super) fn moment(text: Option<&str>) -> Option<Timestamp> {
    let text = text?;
    let spaced = |text: &str| {
        let text = text.replace(" UTC", " +0000");
        DateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S %z").ok()
    };
    let at = DateTime::parse_from_rfc3339(text).ok();
    let at = at.or_else(|| spaced(text))?;
    Some(Timestamp(at.timestamp_millis()))
}

/// The name of somebody at a forge.
pub(super) fn person(name: &str) -> String {
    bounded(name, 100)
}

/// The branch that a pull request goes to, which is looked for in git: git has none with control characters, and no
/// database keeps all of them.
fn branch(name: &str) -> String {
    let kept = name.chars().filter(|c| !c.is_control());
    kept.take(1_024).collect()
}

/// A pull request's title or a branch, made fit for a line.
fn line(text: &str) -> String {
    bounded(text, 255)
}

/// A comment's text: commands stand in its first lines.
pub(super) fn comment_text(text: &str) -> String {
    text.chars().take(4_000).collect()
}
