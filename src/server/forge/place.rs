//! Where a project's repository lies at its forge.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Credential;

/// Where github.com has its API.
pub(super) const GITHUB_API: &str = "https://api.github.com";

/// Which API a forge speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForgeKind {
    /// GitHub, or GitHub Enterprise.
    Github,
    /// GitLab.
    Gitlab,
    /// Gitea, or Forgejo, which speaks the same.
    Gitea,
}

impl ForgeKind {
    /// Its name on screens.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ForgeKind::Github => "GitHub",
            ForgeKind::Gitlab => "GitLab",
            ForgeKind::Gitea => "Gitea",
        }
    }

    /// The ref of a pull request's head.
    #[must_use]
    pub fn head_of(self, number: u64) -> String {
        match self {
            ForgeKind::Github | ForgeKind::Gitea => format!("refs/pull/{number}/head"),
            ForgeKind::Gitlab => format!("refs/merge-requests/{number}/head"),
        }
    }

    /// Its word in settings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            ForgeKind::Github => "github",
            ForgeKind::Gitlab => "gitlab",
            ForgeKind::Gitea => "gitea",
        }
    }
}

impl fmt::Display for ForgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A repository at a forge, and how we may speak of it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its path there. The only source of the repository's identity: payloads are not asked.
    pub repository: Repository,
    /// Base of the REST API: `https://api.github.com`, `https://<host>/api/v3` (GitHub Enterprise),
    /// `https://<host>/api/v4` (GitLab), `https://<host>/api/v1` (Gitea, Forgejo).
    #[serde(default = "github_api")]
    pub api: String,
    /// Where the token lies; without one nothing is shown there.
    #[serde(default)]
    pub token: Option<Credential>,
    /// It is spoken for by the server's GitHub App: the repository's number there, which stays where it is renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<u64>,
    /// Where the webhook's secret lies; without one every delivery is refused.
    #[serde(default)]
    pub webhook_secret: Option<Credential>,
}

/// Rows of before the other forges name no API.
pub(super) fn github_api() -> String {
    GITHUB_API.to_owned()
}

impl Place {
    /// A repository, without token and secret.
    #[must_use]
    pub fn new(repository: Repository, api: String) -> Self {
        Self {
            repository,
            api,
            token: None,
            app: None,
            webhook_secret: None,
        }
    }

    /// Where the forge's pages are.
    #[must_use]
    pub fn web(&self) -> String {
        let api = self.api.trim_end_matches('/');
        if api == GITHUB_API {
            return "https://github.com".to_owned();
        }
        let ends = ["/api/v1", "/api/v3", "/api/v4"];
        let base = ends.into_iter().find_map(|end| api.strip_suffix(end));
        base.unwrap_or(api).to_owned()
    }

    /// Whether there is somebody to call as.
    #[must_use]
    pub fn speaks(&self) -> bool {
        self.token.is_some() || self.app.is_some()
    }
}

/// The path of a repository, such as `owner/name`: parts of letters, digits, `-`, `_`, `.`, at least two; more than
/// two only at GitLab, which has groups in groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository(String);

/// Text that is no such path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a repository: it wants owner/name")]
pub struct InvalidRepository(String);

impl InvalidRepository {
    /// A path that its forge cannot have.
    pub(super) fn of(repository: &Repository) -> Self {
        Self(repository.0.chars().take(120).collect())
    }
}

/// Deepest path: GitLab allows twenty groups.
const MOST_PARTS: usize = 21;

impl Repository {
    /// `owner/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the same one as `other`: no forge tells paths apart by case.
    #[must_use]
    pub fn is(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }

    /// Who has it: all of its path but the name.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(owner, _)| owner)
    }

    /// Its name, the last part of its path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// How many parts its path has.
    pub(super) fn parts(&self) -> usize {
        self.0.split('/').count()
    }
}

impl TryFrom<String> for Repository {
    type Error = InvalidRepository;

    fn try_from(text: String) -> Result<Self, InvalidRepository> {
        let good = |part: &str| {
            (1..=255).contains(&part.len())
                && part != "."
                && part != ".."
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        let parts = text.split('/').count();
        if (2..=MOST_PARTS).contains(&parts) && text.split('/').all(good) {
            Ok(Self(text))
        } else {
            Err(InvalidRepository(text.chars().take(120).collect()))
        }
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> String {
        repository.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_a_path_of_two_parts_and_more() {
        let groups = Repository::try_from("a/b/c".to_owned()).unwrap();
        assert!(groups.is("A/B/c") && !groups.is("a/b"));
        for wrong in ["a", "a/..", "../b", "a/b?x", "a//c", "a b/c"] {
            Repository::try_from(wrong.to_owned()).unwrap_err();
        }
    }
}
