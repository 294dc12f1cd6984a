//! GitLab's bodies. A header names the event for people ("Push Hook"); the body's `object_kind` is what counts.

use protocol::CommitId;
use serde::Deserialize;

use super::{
    Told, branch, comment_text, commit_or_zeros, full_ref, json, line, moment, other, person,
};
use crate::forge::event::{Change, Comment, ForgeEvent, PullRequest};

/// Reads an event.
pub(super) fn read(name: &str, body: &[u8]) -> Result<Told, String> {
    let about: About = json(body)?;
    let event = match about.object_kind.as_deref() {
        Some("push" | "tag_push") => json::<Push>(body)?.event()?,
        Some("merge_request") => json::<MergeRequestBody>(body)?.event(),
        Some("note") => json::<NoteBody>(body)?.event(),
        Some(kind) => other(kind),
        None => other(name),
    };
    Ok(Told {
        event,
        repository: about
            .project
            .and_then(|project| project.path_with_namespace),
    })
}

/// Reads a merge request as the API gives it.
pub(in crate::forge) fn merge_request(body: &[u8]) -> Result<PullRequest, String> {
    #[derive(Deserialize)]
    struct Whole {
        iid: u64,
        state: String,
        sha: CommitId,
        source_branch: String,
        target_branch: String,
        #[serde(default)]
        title: Option<String>,
        #[serde(default)]
        source_project_id: Option<u64>,
        target_project_id: u64,
        #[serde(default)]
        author: Option<User>,
        #[serde(default)]
        updated_at: Option<String>,
    }
    let whole: Whole = json(body)?;
    let open = is_open(&whole.state);
    Ok(PullRequest {
        number: whole.iid,
        change: match open {
            true => Change::Opened,
            false => Change::Closed,
        },
        open: Some(open),
        updated_at: moment(whole.updated_at.as_deref()),
        head: whole.sha,
        head_branch: line(&whole.source_branch),
        base_branch: branch(&whole.target_branch),
        title: line(&whole.title.unwrap_or_default()),
        author: whole.author.map(|user| person(&user.username)),
        // None where the fork was deleted.
        fork: whole.source_project_id != Some(whole.target_project_id),
        by: None,
    })
}

/// `closed`, `merged`, and `locked` while it is being merged, are others.
fn is_open(state: &str) -> bool {
    state == "opened"
}

/// What nearly all bodies have.
#[derive(Deserialize)]
struct About {
    #[serde(default)]
    object_kind: Option<String>,
    #[serde(default)]
    project: Option<Project>,
}

#[derive(Deserialize)]
struct Project {
    #[serde(default)]
    path_with_namespace: Option<String>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    id: Option<u64>,
    username: String,
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    before: String,
    after: String,
    #[serde(default)]
    user_username: Option<String>,
    #[serde(default)]
    user_name: Option<String>,
}

impl Push {
    fn event(self) -> Result<ForgeEvent, String> {
        let by = self.user_username.or(self.user_name);
        Ok(ForgeEvent::Push {
            before: commit_or_zeros(&self.before)?,
            after: commit_or_zeros(&self.after)?,
            reference: full_ref(self.reference)?,
            by: by.map(|name| person(&name)),
        })
    }
}

#[derive(Deserialize)]
struct MergeRequestBody {
    object_attributes: MergeRequest,
    /// What an update changed, besides commits.
    #[serde(default)]
    changes: Changes,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Deserialize, Default)]
struct Changes {
    #[serde(default)]
    draft: Option<Draft>,
    #[serde(default)]
    target_branch: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Draft {
    #[serde(default)]
    current: Option<bool>,
}

#[derive(Deserialize)]
struct MergeRequest {
    #[serde(default)]
    action: Option<String>,
    /// Some bodies of GitLab's own examples have none; such a one cannot be worked on.
    #[serde(default)]
    iid: Option<u64>,
    #[serde(default)]
    source_project_id: Option<u64>,
    #[serde(default)]
    target_project_id: Option<u64>,
    #[serde(default)]
    source_branch: Option<String>,
    #[serde(default)]
    target_branch: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    last_commit: Option<LastCommit>,
    /// There where an update brought commits.
    #[serde(default)]
    oldrev: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
}

#[derive(Deserialize)]
struct LastCommit {
    id: CommitId,
}

impl MergeRequestBody {
    fn event(self) -> ForgeEvent {
        let MergeRequest {
            action,
            iid,
            source_project_id,
            target_project_id,
            source_branch,
            target_branch,
            title,
            last_commit,
            oldrev,
            state,
            updated_at,
        } = self.object_attributes;
        let action = action.unwrap_or_default();
        let change = match action.as_str() {
            "open" => Some(Change::Opened),
            "reopen" => Some(Change::Reopened),
            "update" if oldrev.is_some() || self.changes.target_branch.is_some() => {
                Some(Change::Updated)
            }
            "update" if self.changes.draft.and_then(|draft| draft.current) == Some(false) => {
                Some(Change::Ready)
            }
            "close" | "merge" => Some(Change::Closed),
            _ => None,
        };
        let facts = (change, iid, last_commit, target_branch);
        let (Some(change), Some(number), Some(head), Some(base_branch)) = facts else {
            return other(&format!("merge_request.{action}"));
        };
        ForgeEvent::PullRequest(PullRequest {
            number,
            change,
            open: state.as_deref().map(is_open),
            updated_at: moment(updated_at.as_deref()),
            head: head.id,
            head_branch: line(&source_branch.unwrap_or_default()),
            base_branch: branch(&base_branch),
            title: line(&title.unwrap_or_default()),
            author: None,
            fork: source_project_id.is_none() || source_project_id != target_project_id,
            by: self.user.map(|user| person(&user.username)),
        })
    }
}

#[derive(Deserialize)]
struct NoteBody {
    object_attributes: Note,
    #[serde(default)]
    merge_request: Option<Noted>,
    user: User,
}

#[derive(Deserialize)]
struct Note {
    id: u64,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    noteable_type: Option<String>,
    /// `create` or `update`; older versions, which told of new ones only, have none.
    #[serde(default)]
    action: Option<String>,
    /// Written by GitLab itself.
    #[serde(default)]
    system: bool,
}

#[derive(Deserialize)]
struct Noted {
    iid: u64,
}

impl NoteBody {
    fn event(self) -> ForgeEvent {
        let note = self.object_attributes;
        let new = note
            .action
            .as_deref()
            .is_none_or(|action| action == "create");
        match self.merge_request {
            Some(request) if new && !note.system => ForgeEvent::Comment(Comment {
                number: request.iid,
                id: note.id,
                by: person(&self.user.username),
                by_id: self.user.id,
                at: moment(note.created_at.as_deref()),
                text: comment_text(&note.note.unwrap_or_default()),
            }),
            Some(_) | None => {
                let about = note.noteable_type.unwrap_or_default();
                other(&format!("note.{about}"))
            }
        }
    }
}
