//! What is written to a forge: plain values, made from rows and kept in rows. Each forge has its own words for them.

use protocol::{CommitId, Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// One thing that a forge should show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "update", rename_all = "snake_case")]
pub enum Update {
    /// A commit's status.
    Status(StatusUpdate),
    /// A check run, where the forge has them and lets us write them; then there are no statuses.
    Check(CheckUpdate),
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
    /// What is to be known of the thing the next time; none: it is found by what stands in the update.
    pub remembered: Option<String>,
    /// Whether there is more of it than one call takes: another call goes on.
    pub goes_on: bool,
}

impl Shown {
    /// Of what needs no name: doing it again does no harm.
    #[must_use]
    pub fn unnamed() -> Self {
        Self {
            remembered: None,
            goes_on: false,
        }
    }

    /// Of what the forge calls `name`.
    #[must_use]
    pub fn named(name: impl ToString) -> Self {
        Self {
            remembered: Some(name.to_string()),
            goes_on: false,
        }
    }
}

impl Update {
    /// What tells it from everything else that is shown of a project. An update with the same slot takes its place.
    #[must_use]
    pub fn slot(&self) -> String {
        match self {
            Update::Status(status) => format!("status {} {}", status.commit, status.context),
            Update::Check(check) => format!("check {} {}", check.commit, check.name),
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
            Update::Check(check) => Some(&check.commit),
            Update::Comment(comment) => Some(&comment.commit),
            Update::Reply(_) | Update::Reaction(_) => None,
        }
    }

    /// Whether nothing more is expected: such ones go first, and never wait for a quiet moment.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Update::Status(status) => status.verdict.is_final(),
            Update::Check(check) => check.state.is_done(),
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

/// What one check of one commit should show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckUpdate {
    /// The commit.
    pub commit: CommitId,
    /// `trainyard` for the whole commit, `trainyard/<job>` for a job.
    pub name: String,
    /// The id of the job, or a word that is none for the whole: a press on a button comes back with it. Another id is
    /// another run of the same check.
    pub id: String,
    /// Where it stands.
    pub state: CheckState,
    /// One line for people.
    pub title: String,
    /// Markdown.
    pub summary: String,
    /// What is to be said at lines of files. Only a check that is done has them: they are added and never taken back.
    pub annotations: Vec<Annotation>,
    /// Buttons; at most three.
    pub buttons: Vec<Button>,
    /// The page that says more, where the server knows its own address.
    #[serde(default)]
    pub url: Option<String>,
}

/// Where a check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// It waits.
    Queued,
    /// It runs.
    InProgress,
    /// Green.
    Success,
    /// There was nothing to judge.
    Neutral,
    /// Red.
    Failure,
    /// Red: a limit of time.
    TimedOut,
    /// Ended by somebody, or never begun because of something else. Not green.
    Cancelled,
    /// A person has to look at it first.
    ActionRequired,
}

impl CheckState {
    /// Whether GitHub has a conclusion for it. What waits for a person has one: buttons stand on nothing else.
    #[must_use]
    pub fn is_done(self) -> bool {
        match self {
            CheckState::Queued | CheckState::InProgress => false,
            CheckState::Success
            | CheckState::Neutral
            | CheckState::Failure
            | CheckState::TimedOut
            | CheckState::Cancelled
            | CheckState::ActionRequired => true,
        }
    }
}

/// Something to say at a line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// Path in the repository.
    pub path: String,
    /// Line of the file as it lies there, from 1.
    pub line: u32,
    /// Whether it is why the check is red.
    pub is_failure: bool,
    /// A short heading.
    pub title: String,
    /// A sentence or more; never empty.
    pub message: String,
}

/// A button of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Button {
    /// Run the job again.
    Rerun,
    /// Let an untrusted commit run.
    Approve,
    /// End the job.
    Cancel,
}

impl Button {
    /// What comes back when it is pressed: `rerun`, `approve`, `cancel`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Button::Rerun => "rerun",
            Button::Approve => "approve",
            Button::Cancel => "cancel",
        }
    }
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
