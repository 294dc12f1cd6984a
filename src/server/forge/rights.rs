//! What a token may do: what its forge says of it, and what it answers to what cannot be done.

use protocol::CommitId;
use reqwest::Method;
use serde::Deserialize;

use super::api::{About, Api};
use super::update::{Reaction, StatusUpdate, Update, Verdict};
use super::{Access, Forge, ForgeError, ForgeKind, answer, bounded};

/// Most bytes of an answer.
const MOST_BYTES: usize = 1 << 20;
/// No repository has this commit.
const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// What a forge says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Whether its user may write to the repository.
    pub writes: bool,
    /// Whether its user administers the repository.
    pub administers: bool,
    /// What it was made for, where the forge says so.
    pub scopes: Option<Vec<String>>,
    /// When it ends, where it does and the forge says so.
    pub ends: Option<String>,
}

/// What the repository's own answer says.
#[derive(Default, Deserialize)]
struct Permissions {
    #[serde(default)]
    push: bool,
    #[serde(default)]
    admin: bool,
    /// GitLab's.
    #[serde(default)]
    project_access: Option<Level>,
    #[serde(default)]
    group_access: Option<Level>,
}

/// GitLab's roles: 30 is Developer, 40 Maintainer.
#[derive(Deserialize)]
struct Level {
    access_level: u64,
}

impl Api {
    /// What the forge says of the token.
    pub(super) async fn rights(&self) -> Result<Rights, ForgeError> {
        #[derive(Deserialize)]
        struct Repository {
            #[serde(default)]
            permissions: Option<Permissions>,
        }
        let request = self.below(Method::GET, &[])?;
        let response = self.send(request, About::Look).await?;
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(bounded(value, 300)).filter(|value| !value.is_empty())
        };
        let scopes = header("x-oauth-scopes");
        let mut ends = header("github-authentication-token-expiration");
        let body = answer::body(response, MOST_BYTES, self.kind()).await?;
        let repository: Repository = serde_json::from_slice(&body)
            .map_err(|error| answer::unreadable(self.kind(), error.to_string()))?;
        let may = repository.permissions.unwrap_or_default();
        let listed = |scopes: String| scopes.split(", ").map(str::to_owned).collect();
        let mut scopes: Option<Vec<String>> = scopes.map(listed);
        if self.kind() == ForgeKind::Gitlab
            && let Some(token) = self.token_itself().await
        {
            (scopes, ends) = (Some(token.scopes), token.expires_at);
        }
        let level = [&may.project_access, &may.group_access]
            .into_iter()
            .flatten();
        let level = level.map(|level| level.access_level).max().unwrap_or(0);
        Ok(Rights {
            writes: may.push || level >= 30,
            administers: may.admin || level >= 40,
            scopes,
            ends,
        })
    }

    /// GitLab's word of the token; none where it is of a kind that it says nothing of.
    async fn token_itself(&self) -> Option<TokenItself> {
        let path = ["personal_access_tokens", "self"];
        let request = self.request(Method::GET, &path).ok()?;
        let read = |body: &[u8]| serde_json::from_slice(body).map_err(|e| e.to_string());
        self.read(request, About::Look, MOST_BYTES, read).await.ok()
    }
}

#[derive(Deserialize)]
struct TokenItself {
    scopes: Vec<String>,
    #[serde(default)]
    expires_at: Option<String>,
}

/// Tries what cannot be done: a status of no commit, a sign on no comment. A forge refuses who may not first.
///
/// # Errors
/// [`ForgeError::Unauthorized`] where the token may not; others where that could not be found out.
pub async fn try_to(forge: &dyn Forge, access: Access) -> Result<(), ForgeError> {
    let update = match access {
        // Only an App writes checks, and its permissions are written down.
        Access::Read | Access::Hooks | Access::Checks | Access::People => return Ok(()),
        Access::Statuses => Update::Status(nothing()),
        Access::Comments => Update::Reaction(Reaction {
            number: 0,
            comment: 0,
        }),
    };
    match forge.show(&update, None).await {
        Err(ForgeError::UnknownCommit { .. } | ForgeError::Refused { .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

fn nothing() -> StatusUpdate {
    let commit: Result<CommitId, _> = NO_COMMIT.parse();
    StatusUpdate {
        commit: commit.expect("forty zeros are an id"),
        context: "trainyard".to_owned(),
        verdict: Verdict::Pending,
        description: "whether it may be written".to_owned(),
        url: None,
        branch: Some("trainyard".to_owned()),
    }
}

impl Rights {
    /// Whether the forge tells the token who may write to the repository: by that commands are obeyed.
    #[must_use]
    pub fn knows_people(&self, kind: ForgeKind) -> bool {
        match kind {
            ForgeKind::Github => self.writes,
            ForgeKind::Gitlab => true,
            ForgeKind::Gitea => self.administers,
        }
    }
}

/// What a person sets so that a token may.
#[must_use]
pub fn needed(kind: ForgeKind, access: Access) -> &'static str {
    match (kind, access) {
        (ForgeKind::Github, Access::Read) => {
            "fine-grained token: this repository, Contents and Pull requests read; classic: scope repo"
        }
        (ForgeKind::Github, Access::Statuses) => {
            "fine-grained token: Commit statuses read and write; classic: scope repo"
        }
        (ForgeKind::Github, Access::Checks) => "a GitHub App: Checks read and write",
        (ForgeKind::Github, Access::Comments) => {
            "fine-grained token: Issues and Pull requests read and write; classic: scope repo"
        }
        (ForgeKind::Github, Access::Hooks) => {
            "fine-grained token: Webhooks read and write; classic: scope admin:repo_hook; of an administrator of the repository"
        }
        (ForgeKind::Github, Access::People) => {
            "fine-grained token: Metadata read; classic: scope repo; of somebody who may write to the repository"
        }
        (ForgeKind::Gitlab, Access::People) => {
            "scope api or read_api, of somebody who sees the members"
        }
        (ForgeKind::Gitea, Access::People) => {
            "permission repository: read, of an administrator of the repository: Gitea tells it nobody else"
        }
        (ForgeKind::Gitlab, Access::Read) => "scope api, role Developer",
        // Its pipeline policy: who may not push to a protected branch may not write a status for it either.
        (ForgeKind::Gitlab, Access::Statuses | Access::Checks) => {
            "scope api, role Developer; Maintainer where the branch is protected, as the default branch is (Settings, Access tokens)"
        }
        (ForgeKind::Gitlab, Access::Comments) => {
            "scope api, role Developer (Settings, Access tokens)"
        }
        (ForgeKind::Gitlab, Access::Hooks) => {
            "scope api, role Maintainer (Settings, Access tokens)"
        }
        (ForgeKind::Gitea, Access::Read) => "permission repository: read",
        (ForgeKind::Gitea, Access::Statuses | Access::Checks) => {
            "permission repository: read and write (write:repository), of somebody who may write to it"
        }
        (ForgeKind::Gitea, Access::Comments) => "permission issue: read and write (write:issue)",
        (ForgeKind::Gitea, Access::Hooks) => {
            "permission repository: read and write, of an administrator of the repository"
        }
    }
}

/// What the App needs in a repository and was not given: permissions with their level, then events.
#[must_use]
pub fn missing_of_app(installation: &super::app::Installation) -> Vec<String> {
    let permissions = [
        ("checks", "write"),
        ("contents", "read"),
        ("issues", "write"),
        ("pull_requests", "write"),
        ("statuses", "write"),
    ];
    let given = |name: &str, level: &str| {
        let has = installation.permissions.get(name).map(String::as_str);
        has == Some(level) || matches!(has, Some("write" | "admin"))
    };
    let events = ["push", "pull_request", "issue_comment", "check_run"];
    let hears = |event: &&str| installation.events.iter().any(|has| has == event);
    let permissions = permissions
        .into_iter()
        .filter(|(name, level)| !given(name, level));
    permissions
        .map(|(name, level)| format!("{name}: {level}"))
        .chain(
            events
                .iter()
                .filter(|event| !hears(event))
                .map(|event| format!("event {event}")),
        )
        .collect()
}
