//! What is written to a forge: plain values, made from rows and kept in rows. Each forge has its own words for them.

use protocol::{CommitId, Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// One thing that a forge should show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "update", rename_all = "snake_case")]
pub enum Update {
    /// A commit's status.
    Status(StatusUpdate),
    /// The one comment under a pull request that says how it stands.
    Comment(CommentUpdate),
    /// An answer under a pull request.
    Reply(Reply),
    /// A sign on somebody's comment that it was read and done.
    Reaction(Reaction),
}

/// What a forge made of an [`Update`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What the forge calls the thing, for the next time; none: it is found by what stands in the update.
    pub remembered: Option<String>,
}

impl Shown {
    /// Of what needs no name: doing it again does no harm.
    #[must_use]
    pub fn unnamed() -> Self {
        Self { remembered: None }
    }

    /// Of what the forge calls `name`.
    #[must_use]
    pub fn named(name: impl ToString) -> Self {
        Self {
            remembered: Some(name.to_string()),
        }
    }
}

impl Update {
    /// What tells it from everything else that is shown of a project. An update with the same slot takes its place.
    #[must_use]
    pub fn slot(&self) -> String {
        match self {
            Update::Status(status) => format!("status {} {}", status.commit, status.context),
            Update::Comment(comment) => comment_slot(comment.number),
            Update::Reply(reply) => format!("reply {} {}", reply.number, reply.answers),
            Update::Reaction(reaction) => {
                format!("reaction {} {}", reaction.number, reaction.comment)
            }
        }
    }

    /// The commit that it is about, where it is about one.
    #[must_use]
    pub fn commit(&self) -> Option<&CommitId> {
        match self {
            Update::Status(status) => Some(&status.commit),
            Update::Comment(comment) => Some(&comment.commit),
            Update::Reply(_) | Update::Reaction(_) => None,
        }
    }

    /// Whether nothing more is expected: such ones go first, and never wait for a quiet moment.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Update::Status(status) => status.verdict.is_final(),
            Update::Comment(comment) => comment.is_final,
            Update::Reply(_) | Update::Reaction(_) => true,
        }
    }
}

/// What one context of one commit should show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusUpdate {
    /// The commit.
    pub commit: CommitId,
    /// `trainyard` for the whole commit, `trainyard/<job>` for a job.
    pub context: String,
    /// The verdict; each forge has its own words for it.
    pub verdict: Verdict,
    /// One line for people.
    pub description: String,
    /// The page that says more, where the server knows its own address.
    #[serde(default)]
    pub url: Option<String>,
    /// The branch that led to it, without `refs/heads/`: GitLab files statuses under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// The slot of a pull request's one comment.
#[must_use]
pub fn comment_slot(number: u64) -> String {
    format!("comment {number}")
}

/// What the one comment under a pull request should say: it is edited, and not followed by another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommentUpdate {
    /// The number of the pull request.
    pub number: u64,
    /// The head that it speaks of.
    pub commit: CommitId,
    /// Whose it is: two projects, perhaps of two servers, may watch one repository, and each has its comment.
    pub project: String,
    /// Markdown.
    pub text: String,
    /// Whether it is all that is to be said of this head.
    pub is_final: bool,
}

impl CommentUpdate {
    /// An invisible line by which the comment is found again where its row was lost.
    pub(super) fn marker(&self) -> String {
        let digest = Digest::of(&self.project);
        format!("<!-- trainyard comment {} -->", &digest.as_str()[..32])
    }
}

/// A comment that is written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The number of the pull request.
    pub number: u64,
    /// What it answers: the id of a delivery, for example. One reply to each.
    pub answers: String,
    /// Markdown.
    pub text: String,
    /// When what it answers came: no reply to it is older.
    pub since: Timestamp,
}

impl Reply {
    /// An invisible line by which the comment is found again: whether a call that failed wrote it, nobody says.
    pub(super) fn marker(&self) -> String {
        let digest = Digest::of(format!("{} {}", self.number, self.answers));
        format!("<!-- trainyard reply {} -->", &digest.as_str()[..32])
    }
}

/// Thumbs up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    /// The number of the pull request.
    pub number: u64,
    /// The comment's id at the forge.
    pub comment: u64,
}

/// Every verdict that some forge can tell apart; a forge with fewer words maps it to its nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It waits.
    Pending,
    /// It runs.
    Running,
    /// Green.
    Success,
    /// There was nothing to judge. Shown as green where a forge has no grey.
    Neutral,
    /// Red, by the commit: its code, or a limit.
    Failure,
    /// Red, not by the commit: the platform.
    Error,
    /// Ended by somebody, or never begun because of something else. Not green.
    Cancelled,
}

impl Verdict {
    /// Whether nothing more is expected.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Verdict::Pending | Verdict::Running => false,
            Verdict::Success
            | Verdict::Neutral
            | Verdict::Failure
            | Verdict::Error
            | Verdict::Cancelled => true,
        }
    }
}
