//! GitHub's bodies, whose shapes Gitea and Forgejo share.

use protocol::CommitId;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Told, branch, comment_text, commit_or_zeros, full_ref, json, line, moment, other, person,
};
use crate::forge::event::{Asked, Change, Comment, ForgeEvent, PullRequest};

/// Reads an event.
pub(super) fn read(name: &str, body: &[u8]) -> Result<Told, String> {
    let About { repository } = json(body)?;
    let event = match name {
        "ping" => ForgeEvent::Ping,
        "push" => json::<Push>(body)?.event()?,
        "pull_request" => json::<PullRequestBody>(body)?.event(),
        "issue_comment" => comment(body)?,
        "check_run" => json::<CheckRunBody>(body)?.event(),
        "check_suite" => json::<CheckSuiteBody>(body)?.event(),
        name => other(name),
    };
    Ok(Told {
        event,
        repository: repository.map(|repository| repository.full_name),
    })
}

/// Reads a pull request as the API gives it.
pub(in crate::forge) fn pull_request(body: &[u8]) -> Result<PullRequest, String> {
    #[derive(Deserialize)]
    struct Whole {
        number: u64,
        #[serde(flatten)]
        facts: PullRequestFacts,
    }
    let whole: Whole = json(body)?;
    let change = match whole.facts.is_open() {
        Some(true) => Change::Opened,
        Some(false) => Change::Closed,
        None => return Err("it does not say whether it is open".into()),
    };
    Ok(whole.facts.told(whole.number, change, None))
}

/// What nearly all bodies have.
#[derive(Deserialize)]
struct About {
    #[serde(default)]
    repository: Option<Repository>,
}

#[derive(Deserialize, PartialEq)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct Account {
    login: String,
}

fn login(account: Option<Account>) -> Option<String> {
    account.map(|account| person(&account.login))
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    before: String,
    after: String,
    #[serde(default)]
    sender: Option<Account>,
}

impl Push {
    fn event(self) -> Result<ForgeEvent, String> {
        Ok(ForgeEvent::Push {
            before: commit_or_zeros(&self.before)?,
            after: commit_or_zeros(&self.after)?,
            reference: full_ref(self.reference)?,
            by: login(self.sender),
        })
    }
}

#[derive(Deserialize)]
struct PullRequestBody {
    action: String,
    number: u64,
    pull_request: PullRequestFacts,
    /// What an edit changed.
    #[serde(default)]
    changes: Option<Changes>,
    #[serde(default)]
    sender: Option<Account>,
}

#[derive(Deserialize)]
struct Changes {
    #[serde(default)]
    base: Option<Value>,
}

#[derive(Deserialize)]
struct PullRequestFacts {
    head: Side,
    base: Side,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    user: Option<Account>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    merged: Option<bool>,
    #[serde(default)]
    updated_at: Option<String>,
}

#[derive(Deserialize)]
struct Side {
    sha: CommitId,
    #[serde(rename = "ref")]
    branch: String,
    /// None where the fork was deleted.
    repo: Option<Repository>,
}

impl PullRequestBody {
    fn event(self) -> ForgeEvent {
        let change = match self.action.as_str() {
            "opened" => Change::Opened,
            "reopened" => Change::Reopened,
            // GitHub's word, and Gitea's.
            "synchronize" | "synchronized" => Change::Updated,
            "edited" if self.changes.is_some_and(|changes| changes.base.is_some()) => {
                Change::Updated
            }
            "ready_for_review" => Change::Ready,
            "closed" => Change::Closed,
            action => return other(&format!("pull_request.{action}")),
        };
        let by = login(self.sender);
        ForgeEvent::PullRequest(self.pull_request.told(self.number, change, by))
    }
}

impl PullRequestFacts {
    fn is_open(&self) -> Option<bool> {
        let state = self.state.as_deref()?;
        Some(state == "open" && self.merged != Some(true))
    }

    fn told(self, number: u64, change: Change, by: Option<String>) -> PullRequest {
        let open = self.is_open();
        let PullRequestFacts {
            head,
            base,
            title,
            user,
            updated_at,
            ..
        } = self;
        PullRequest {
            number,
            change,
            open,
            updated_at: moment(updated_at.as_deref()),
            fork: head.repo.is_none() || head.repo != base.repo,
            head: head.sha,
            head_branch: line(&head.branch),
            base_branch: branch(&base.branch),
            title: line(&title.unwrap_or_default()),
            author: login(user),
            by,
        }
    }
}

#[derive(Deserialize)]
struct Done {
    action: String,
}

/// A new comment. What is edited or deleted commands nothing, and Gitea's reviews have no comment.
fn comment(body: &[u8]) -> Result<ForgeEvent, String> {
    let Done { action } = json(body)?;
    if action == "created" {
        Ok(json::<CommentBody>(body)?.event())
    } else {
        Ok(other(&format!("issue_comment.{action}")))
    }
}

#[derive(Deserialize)]
struct CommentBody {
    issue: Issue,
    comment: CommentFacts,
    /// Gitea's word for a comment under a pull request.
    #[serde(default)]
    is_pull: bool,
}

#[derive(Deserialize)]
struct Issue {
    number: u64,
    /// GitHub's.
    #[serde(default)]
    pull_request: Option<Value>,
}

#[derive(Deserialize)]
struct CommentFacts {
    id: u64,
    #[serde(default)]
    body: Option<String>,
    user: Account,
    #[serde(default)]
    created_at: Option<String>,
}

impl CommentBody {
    fn event(self) -> ForgeEvent {
        if !self.is_pull && self.issue.pull_request.is_none() {
            return other("issue_comment of an issue");
        }
        ForgeEvent::Comment(Comment {
            number: self.issue.number,
            id: self.comment.id,
            by: person(&self.comment.user.login),
            by_id: None,
            at: moment(self.comment.created_at.as_deref()),
            text: comment_text(&self.comment.body.unwrap_or_default()),
        })
    }
}

#[derive(Deserialize)]
struct CheckRunBody {
    action: String,
    check_run: CheckRun,
    #[serde(default)]
    requested_action: Option<Action>,
    #[serde(default)]
    sender: Option<Account>,
}

#[derive(Deserialize)]
struct CheckRun {
    head_sha: CommitId,
    /// What we gave it; empty where it is another's.
    #[serde(default)]
    external_id: Option<String>,
}

#[derive(Deserialize)]
struct Action {
    identifier: String,
}

impl CheckRunBody {
    fn event(self) -> ForgeEvent {
        let check = self.check_run.external_id.filter(|id| !id.is_empty());
        let action = self.requested_action.map(|action| line(&action.identifier));
        match (self.action.as_str(), check) {
            ("rerequested" | "requested_action", Some(check)) => ForgeEvent::Asked(Asked {
                commit: self.check_run.head_sha,
                check: Some(line(&check)),
                action,
                by: login(self.sender),
            }),
            (action, _) => other(&format!("check_run.{action}")),
        }
    }
}

#[derive(Deserialize)]
struct CheckSuiteBody {
    action: String,
    check_suite: CheckSuite,
    #[serde(default)]
    sender: Option<Account>,
}

#[derive(Deserialize)]
struct CheckSuite {
    head_sha: CommitId,
}

impl CheckSuiteBody {
    fn event(self) -> ForgeEvent {
        match self.action.as_str() {
            "rerequested" => ForgeEvent::Asked(Asked {
                commit: self.check_suite.head_sha,
                check: None,
                action: None,
                by: login(self.sender),
            }),
            action => other(&format!("check_suite.{action}")),
        }
    }
}
