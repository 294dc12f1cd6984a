//! GitHub and GitHub Enterprise: webhooks in, commit statuses out.

mod answer;
pub mod webhook;

use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::Timestamp;
use reqwest::Url;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::credential::{Credential, CredentialError};
use super::text::bounded;
use super::{Forge, ForgeError, StatusUpdate, Verdict};

const NAME: &str = "GitHub";
/// GitHub answers 422 to a longer description.
const DESCRIPTION_LIMIT: usize = 140;
const API: &str = "https://api.github.com";
const API_VERSION: &str = "2022-11-28";

/// A project's place at GitHub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GithubConfig {
    /// `owner/name`. The only source of the repository's identity: payloads are not asked.
    pub repository: Repository,
    /// Base of the REST API; `https://<host>/api/v3` for GitHub Enterprise.
    #[serde(default = "default_api")]
    pub api: String,
    /// Where the token lies; without one no status is written.
    #[serde(default)]
    pub token: Option<Credential>,
    /// Where the webhook's secret lies; without one every delivery is refused.
    #[serde(default)]
    pub webhook_secret: Option<Credential>,
}

fn default_api() -> String {
    API.to_owned()
}

impl GithubConfig {
    /// A repository at github.com, without token and secret.
    #[must_use]
    pub fn new(repository: Repository) -> Self {
        Self {
            repository,
            api: default_api(),
            token: None,
            webhook_secret: None,
        }
    }
}

/// `owner/name` of a repository: two parts of letters, digits, `-`, `_`, `.`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository(String);

/// Text that is not `owner/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a repository of GitHub: it wants owner/name")]
pub struct InvalidRepository(String);

impl Repository {
    /// `owner/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Read from a clone URL of github.com, such as `https://github.com/owner/name.git` or
    /// `git@github.com:owner/name.git`; none for another host.
    #[must_use]
    pub fn from_clone_url(url: &str) -> Option<Self> {
        let rest = [
            "https://github.com/",
            "ssh://git@github.com/",
            "git@github.com:",
        ]
        .iter()
        .find_map(|start| url.strip_prefix(start))?;
        let rest = rest.trim_end_matches('/');
        Self::try_from(rest.strip_suffix(".git").unwrap_or(rest).to_owned()).ok()
    }
}

impl TryFrom<String> for Repository {
    type Error = InvalidRepository;

    fn try_from(text: String) -> Result<Self, InvalidRepository> {
        let part = |part: &str| {
            (1..=100).contains(&part.len())
                && part != "."
                && part != ".."
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        match text.split_once('/') {
            Some((owner, name)) if part(owner) && part(name) => Ok(Self(text)),
            Some(_) | None => Err(InvalidRepository(text.chars().take(120).collect())),
        }
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> String {
        repository.0
    }
}

/// A repository at GitHub, ready for calls.
#[derive(Debug)]
pub struct Github {
    config: GithubConfig,
    api: Url,
    client: reqwest::Client,
}

impl Github {
    /// Prepares calls that take at most `timeout` each. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ForgeError::Transport`] where the address is none, would send the token in clear over a
    /// network, or the client cannot be made.
    pub fn connect(config: GithubConfig, timeout: Duration) -> Result<Self, ForgeError> {
        let wrong = |message: String| ForgeError::Transport {
            forge: NAME,
            message,
        };
        let api = Url::parse(&config.api)
            .map_err(|e| wrong(format!("'{}' is no address of an API: {e}", config.api)))?;
        if api.scheme() != "https" && !is_loopback(&api) {
            return Err(wrong(format!(
                "'{api}' would carry the token in clear: use https"
            )));
        }
        // One TLS library for the whole program; a second installation is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder();
        if is_loopback(&api) {
            // A proxy would not find this host's own address.
            client = client.no_proxy();
        }
        let client = client
            .user_agent(concat!("trainyard/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            .connect_timeout(timeout)
            // A redirect would carry the token to an address that nobody configured.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| wrong(e.to_string()))?;
        Ok(Self {
            config,
            api,
            client,
        })
    }

    async fn post_status(&self, update: &StatusUpdate) -> Result<(), ForgeError> {
        let token = match &self.config.token {
            Some(reference) => reference.read()?,
            None => {
                return Err(CredentialError::Unreadable {
                    reference: "of GitHub's token".into(),
                    why: "the project has none".into(),
                }
                .into());
            }
        };
        let url = format!(
            "{}/repos/{}/statuses/{}",
            self.api.as_str().trim_end_matches('/'),
            self.config.repository.as_str(),
            update.commit
        );
        let response = self
            .client
            .post(url)
            .bearer_auth(token.expose_secret())
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", API_VERSION)
            .json(&StatusBody::of(update))
            .send()
            .await
            .map_err(|e| ForgeError::Transport {
                forge: NAME,
                message: causes(&e.without_url()),
            })?;
        answer::judge(
            response,
            &self.config.repository,
            &update.commit,
            Timestamp::now(),
        )
        .await
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

/// An error with its causes: the outermost of an HTTP client says too little.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    bounded(&text, 300)
}

impl Forge for Github {
    fn name(&self) -> &'static str {
        NAME
    }

    fn description_limit(&self) -> usize {
        DESCRIPTION_LIMIT
    }

    fn shows_statuses(&self) -> bool {
        self.config.token.is_some()
    }

    fn set_status<'a>(&'a self, update: &'a StatusUpdate) -> BoxFuture<'a, Result<(), ForgeError>> {
        Box::pin(self.post_status(update))
    }
}

/// The body of "create a commit status".
#[derive(Debug, Serialize)]
struct StatusBody {
    state: &'static str,
    context: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_url: Option<String>,
}

impl StatusBody {
    fn of(update: &StatusUpdate) -> Self {
        Self {
            state: state_word(update.verdict),
            // GitHub's column for contexts holds 255 characters.
            context: narrow(&bounded(&update.context, 255)),
            description: narrow(&bounded(&update.description, DESCRIPTION_LIMIT)),
            target_url: update.url.clone(),
        }
    }
}

/// GitHub refuses characters that UTF-8 writes in four bytes ("doesn't accept 4-byte Unicode").
fn narrow(text: &str) -> String {
    text.chars()
        .map(|c| if c.len_utf8() > 3 { '\u{fffd}' } else { c })
        .collect()
}

/// GitHub's four words.
fn state_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pending | Verdict::Running => "pending",
        Verdict::Success | Verdict::Neutral => "success",
        Verdict::Failure => "failure",
        Verdict::Error | Verdict::Cancelled => "error",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn update(verdict: Verdict, description: &str) -> StatusUpdate {
        StatusUpdate {
            commit: "6113728f27ae82c7b1a177c8d03f9e96e0adf246".parse().unwrap(),
            context: "trainyard/train (lr=0.1)".into(),
            verdict,
            description: description.into(),
            url: Some("https://ci.example.com/jobs/1".into()),
        }
    }

    /// Holds a body against GitHub's own schema, with the keywords that it uses and no others.
    fn check(schema: &Value, body: &Value) -> Result<(), String> {
        let body = body.as_object().ok_or("no object")?;
        for required in schema["required"].as_array().ok_or("no list")? {
            let name = required.as_str().ok_or("no name")?;
            body.get(name).ok_or(format!("{name} is missing"))?;
        }
        for (name, value) in body {
            let property = schema["properties"][name]
                .as_object()
                .ok_or(format!("{name} is no property"))?;
            for (keyword, wanted) in property {
                match keyword.as_str() {
                    "description" | "default" => {}
                    "type" => {
                        let kind = match value {
                            Value::String(_) => json!("string"),
                            Value::Null => json!("null"),
                            other => return Err(format!("{name} is {other}")),
                        };
                        let listed = wanted.as_array().is_some_and(|kinds| kinds.contains(&kind));
                        if *wanted != kind && !listed {
                            return Err(format!("{name} is {kind}, not {wanted}"));
                        }
                    }
                    "enum" if wanted.as_array().is_some_and(|words| words.contains(value)) => {}
                    "enum" => return Err(format!("{value} is not one of {wanted}")),
                    other => return Err(format!("the check does not know {other}")),
                }
            }
        }
        Ok(())
    }

    #[test]
    fn bodies_fit_githubs_schema() {
        let schema: Value = serde_json::from_str(include_str!(
            "../../tests/data/github/create-commit-status.request.schema.json"
        ))
        .unwrap();
        for verdict in [
            Verdict::Pending,
            Verdict::Running,
            Verdict::Success,
            Verdict::Neutral,
            Verdict::Failure,
            Verdict::Error,
            Verdict::Cancelled,
        ] {
            let mut update = update(verdict, "accuracy 0.962");
            let body = serde_json::to_value(StatusBody::of(&update)).unwrap();
            check(&schema, &body).unwrap();
            update.url = None;
            let body = serde_json::to_value(StatusBody::of(&update)).unwrap();
            check(&schema, &body).unwrap();
            assert!(body.get("target_url").is_none());
        }
        for wrong in [
            json!({"context": "x"}),
            json!({"state": "green"}),
            json!({"state": "error", "x": ""}),
        ] {
            check(&schema, &wrong).unwrap_err();
        }
    }

    #[test]
    fn what_github_would_refuse_is_not_sent() {
        let body = StatusBody::of(&update(Verdict::Success, &"🐛ü".repeat(200)));
        assert_eq!(body.description.chars().count(), 140);
        assert!(body.description.chars().all(|c| c.len_utf8() < 4));
        assert!(body.description.starts_with("\u{fffd}ü"));
    }

    #[test]
    fn a_repository_is_owner_and_name() {
        for url in [
            "https://github.com/octo/hello.world",
            "https://github.com/octo/hello.world.git",
            "git@github.com:octo/hello.world.git",
            "ssh://git@github.com/octo/hello.world.git/",
        ] {
            let repository = Repository::from_clone_url(url).unwrap();
            assert_eq!(repository.as_str(), "octo/hello.world", "{url}");
        }
        for other in [
            "https://gitlab.com/a/b",
            "https://github.com/a",
            "https://github.com/a/b/c",
            "/srv/a/b",
        ] {
            assert_eq!(Repository::from_clone_url(other), None, "{other}");
        }
        for wrong in ["a", "a/..", "../b", "a/b?x", "a/b/c", "a b/c"] {
            Repository::try_from(wrong.to_owned()).unwrap_err();
        }
    }

    #[test]
    fn a_token_never_crosses_a_network_in_clear() {
        let mut config = GithubConfig::new(Repository::try_from("o/r".to_owned()).unwrap());
        let timeout = Duration::from_secs(1);
        config.api = "http://github.example.com/api/v3".into();
        assert!(Github::connect(config.clone(), timeout).is_err());
        config.api = "http://127.0.0.1:9/".into();
        assert!(Github::connect(config.clone(), timeout).is_ok());
        config.api = "no address".into();
        assert!(Github::connect(config, timeout).is_err());
    }
}
