//! What people may do at a forge.

use protocol::CommitId;
use reqwest::Method;
use serde::Deserialize;

use super::api::{About, Api};
use super::{ForgeError, ForgeKind};

/// GitLab's number of a developer, who may push to branches that are not protected.
const DEVELOPER: u64 = 30;

impl Api {
    /// Whether somebody may write to the repository. GitLab asks for their number, the others for their name. Gitea
    /// tells it administrators of the repository alone, and the others their own (its `GetRepoPermissions`).
    pub(super) async fn writes(
        &self,
        login: &str,
        number: Option<u64>,
    ) -> Result<bool, ForgeError> {
        let found = match (self.kind(), number) {
            (ForgeKind::Github | ForgeKind::Gitea, _) => {
                let path = ["collaborators", login, "permission"];
                let request = self.below(Method::GET, &path)?;
                self.found(request, About::People, role).await?
            }
            (ForgeKind::Gitlab, Some(number)) => {
                let path = ["members", "all", &number.to_string()];
                let request = self.below(Method::GET, &path)?;
                self.found(request, About::People, member).await?
            }
            (ForgeKind::Gitlab, None) => None,
        };
        // Who is nobody there is not found.
        Ok(found.unwrap_or(false))
    }

    /// Whether a pull request comes from a fork that is its author's own, and they may write to the repository, and
    /// `head` is its head at the forge. A fork of somebody else is pushed to by others, whoever opened the request.
    pub(super) async fn members_fork(
        &self,
        number: u64,
        head: &CommitId,
    ) -> Result<bool, ForgeError> {
        let number = number.to_string();
        let found = match self.kind() {
            ForgeKind::Github | ForgeKind::Gitea => self.find(&["pulls", &number], pull).await?,
            ForgeKind::Gitlab => {
                let path = ["merge_requests", &number];
                match self.find(&path, merge_request).await? {
                    Some((origin, Some(project))) => Some(Origin {
                        owner: self.owner_of(project).await?,
                        ..origin
                    }),
                    Some((_, None)) | None => None,
                }
            }
        };
        let Some(origin) = found.filter(|origin| origin.is_own(head)) else {
            return Ok(false);
        };
        self.writes(&origin.author, origin.author_number).await
    }

    /// Whose a project of GitLab is, where it is a person's; a group has many.
    async fn owner_of(&self, project: u64) -> Result<Option<String>, ForgeError> {
        let request = self.request(Method::GET, &["projects", &project.to_string()])?;
        Ok(self.found(request, About::Look, namespace).await?.flatten())
    }
}

/// Where a pull request comes from.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    /// Who opened it.
    author: String,
    /// Their number, where the forge asks by it.
    author_number: Option<u64>,
    /// Who has the repository that it comes from; none: it is gone, or nobody's in particular.
    owner: Option<String>,
    head: String,
}

impl Origin {
    fn is_own(&self, head: &CommitId) -> bool {
        let owner = self.owner.as_deref();
        owner.is_some_and(|owner| owner.eq_ignore_ascii_case(&self.author))
            && self.head == head.as_str()
    }
}

/// As GitHub and Gitea tell of a pull request.
fn pull(body: &[u8]) -> Result<Origin, String> {
    #[derive(Deserialize)]
    struct Pull {
        user: Person,
        head: Head,
    }
    #[derive(Deserialize)]
    struct Head {
        sha: String,
        repo: Option<Repo>,
    }
    #[derive(Deserialize)]
    struct Repo {
        owner: Person,
    }
    #[derive(Deserialize)]
    struct Person {
        login: String,
    }
    let pull: Pull = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    Ok(Origin {
        author: pull.user.login,
        author_number: None,
        owner: pull.head.repo.map(|repo| repo.owner.login),
        head: pull.head.sha,
    })
}

/// As GitLab does: which project it comes from, by its number, stands beside.
fn merge_request(body: &[u8]) -> Result<(Origin, Option<u64>), String> {
    #[derive(Deserialize)]
    struct Merge {
        author: Person,
        sha: String,
        source_project_id: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Person {
        id: u64,
        username: String,
    }
    let merge: Merge = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let origin = Origin {
        author: merge.author.username,
        author_number: Some(merge.author.id),
        owner: None,
        head: merge.sha,
    };
    Ok((origin, merge.source_project_id))
}

/// Whose a project of GitLab is; none: a group's.
fn namespace(body: &[u8]) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    struct Project {
        namespace: Namespace,
    }
    #[derive(Deserialize)]
    struct Namespace {
        kind: String,
        full_path: String,
    }
    let Project { namespace } = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    Ok((namespace.kind == "user").then_some(namespace.full_path))
}

/// GitHub maps its finer roles to these words; Gitea has `owner` besides.
fn role(body: &[u8]) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Role {
        permission: String,
    }
    let role: Role = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    Ok(matches!(
        role.permission.as_str(),
        "owner" | "admin" | "write"
    ))
}

fn member(body: &[u8]) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Member {
        access_level: u64,
        /// A member who waits for approval or was blocked is none.
        #[serde(default)]
        state: Option<String>,
    }
    let member: Member = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let active = member.state.is_none_or(|state| state == "active");
    Ok(active && member.access_level >= DEVELOPER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_write() {
        for (body, may) in [
            (r#"{"permission": "admin"}"#, true),
            (r#"{"permission": "write", "role_name": "maintain"}"#, true),
            (r#"{"permission": "owner"}"#, true),
            (r#"{"permission": "read"}"#, false),
            (r#"{"permission": "none"}"#, false),
        ] {
            assert_eq!(role(body.as_bytes()), Ok(may), "{body}");
        }
        for (body, may) in [
            (r#"{"access_level": 30, "state": "active"}"#, true),
            (r#"{"access_level": 50}"#, true),
            (r#"{"access_level": 20, "state": "active"}"#, false),
            (r#"{"access_level": 40, "state": "blocked"}"#, false),
        ] {
            assert_eq!(member(body.as_bytes()), Ok(may), "{body}");
        }
        assert!(role(b"{}").is_err() && member(b"[]").is_err());
    }

    #[test]
    fn whose_a_fork_is() {
        let head: CommitId = "a".repeat(40).parse().unwrap();
        let of = |owner: &str, sha: &str| {
            let repo = if owner.is_empty() {
                "null".to_owned()
            } else {
                format!(r#"{{"owner": {{"login": "{owner}"}}}}"#)
            };
            let body = format!(
                r#"{{"user": {{"login": "ada"}}, "head": {{"sha": "{sha}", "repo": {repo}}}}}"#
            );
            pull(body.as_bytes()).unwrap().is_own(&head)
        };
        assert!(of("Ada", head.as_str()));
        assert!(!of("eve", head.as_str()) && !of("", head.as_str()));
        assert!(!of("ada", &"b".repeat(40)), "it has moved on");

        let project = |kind: &str| {
            let body = format!(r#"{{"namespace": {{"kind": "{kind}", "full_path": "ada"}}}}"#);
            namespace(body.as_bytes()).unwrap()
        };
        assert_eq!(project("user").as_deref(), Some("ada"));
        assert_eq!(project("group"), None, "others push there");
        assert!(pull(b"{}").is_err() && merge_request(b"{}").is_err() && namespace(b"{}").is_err());
    }
}
