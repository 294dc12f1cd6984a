//! Webhooks of a repository, through its forge's API.

use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{About, Api};
use super::hook::SIGNING_SECRET;
use super::place::ForgeKind;
use super::{ForgeError, bounded};

/// Most webhooks of a repository that are looked at: forges allow fewer.
const MOST: usize = 100;
/// Most bytes of an answer.
const MOST_BYTES: usize = 4 << 20;
/// What a project's webhook hears of, in GitHub's words. Not of `check_run`: only an App has check runs, and their
/// buttons (`rerequested`, `requested_action`) are told to it alone.
const GITHUB: [&str; 3] = ["push", "pull_request", "issue_comment"];
/// The same in Gitea's: its `pull_request` stands for all that can happen to one, comments too.
const GITEA: [&str; 2] = ["push", "pull_request"];
/// The same in GitLab's.
const GITLAB: [&str; 4] = [
    "push_events",
    "tag_push_events",
    "merge_requests_events",
    "note_events",
];

/// What the webhooks of a repository are, and may be made to be.
#[derive(Debug)]
pub struct Hooks(pub(super) Api);

/// A webhook as its forge has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    id: u64,
    /// Where it leads.
    pub url: String,
    /// Whether the forge sends anything.
    pub active: bool,
    /// What it should hear of and does not, in the forge's words.
    pub deaf_to: Vec<&'static str>,
}

/// What became of a message, as its forge remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// In the forge's words.
    pub event: String,
    /// When, as the forge writes it.
    pub at: String,
    /// How it was answered; 0: not at all.
    pub status: u16,
}

/// What a person fills in where no API makes the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// The page at the forge.
    pub page: String,
    /// Its fields by their names there, and what belongs into them.
    pub fields: Vec<(&'static str, String)>,
}

impl Hooks {
    /// Makes the webhook that leads to `url`, or brings the one that does up to date.
    ///
    /// # Errors
    /// [`ForgeError`]; [`ForgeError::Unauthorized`] where the token may not.
    pub async fn set(&self, url: &str, secret: &SecretString) -> Result<(), ForgeError> {
        let body = self.body(url, secret.expose_secret());
        let there = self
            .listed()
            .await?
            .into_iter()
            .find(|hook| hook.url == url);
        let request = match there {
            None => self.0.below(Method::POST, &["hooks"])?,
            Some(hook) => {
                let method = match self.0.kind() {
                    ForgeKind::Github | ForgeKind::Gitea => Method::PATCH,
                    ForgeKind::Gitlab => Method::PUT,
                };
                self.0.below(method, &["hooks", &hook.id.to_string()])?
            }
        };
        let request = request.json(&body);
        let made: Value = self
            .0
            .read(request, About::Hooks, MOST_BYTES, |body| {
                serde_json::from_slice(body).map_err(|error| error.to_string())
            })
            .await?;
        self.check(&made, secret.expose_secret())
    }

    /// A GitLab that cannot sign yet leaves the key out and says nothing.
    fn check(&self, made: &Value, secret: &str) -> Result<(), ForgeError> {
        let signs = is_true(&made["signing_token_present"]);
        if self.0.kind() == ForgeKind::Gitlab && secret.starts_with(SIGNING_SECRET) && !signs {
            return Err(ForgeError::Refused {
                forge: ForgeKind::Gitlab.name(),
                status: 200,
                message: format!(
                    "it does not sign messages; name a secret that does not begin with {SIGNING_SECRET}"
                ),
            });
        }
        Ok(())
    }

    /// The webhook that leads where `ours` says.
    ///
    /// # Errors
    /// As [`Hooks::set`].
    pub async fn find(&self, ours: impl Fn(&str) -> bool) -> Result<Option<Hook>, ForgeError> {
        let mut all = self.listed().await?.into_iter();
        Ok(all.find(|hook| ours(&hook.url)))
    }

    /// The last message of a webhook; none: there was none, or the forge does not say.
    ///
    /// # Errors
    /// As [`Hooks::set`].
    pub async fn last(&self, hook: &Hook) -> Result<Option<Sent>, ForgeError> {
        let list = match self.0.kind() {
            ForgeKind::Github => "deliveries",
            ForgeKind::Gitlab => "events",
            // Gitea shows them on its pages alone.
            ForgeKind::Gitea => return Ok(None),
        };
        let path = ["hooks", &hook.id.to_string(), list];
        let request = self.0.below_with(Method::GET, &path, &one())?;
        self.0.read(request, About::Hooks, MOST_BYTES, newest).await
    }

    async fn listed(&self) -> Result<Vec<Hook>, ForgeError> {
        let most = MOST.to_string();
        let query = match self.0.kind() {
            ForgeKind::Github | ForgeKind::Gitlab => [("per_page", most)],
            ForgeKind::Gitea => [("limit", most)],
        };
        let request = self.0.below_with(Method::GET, &["hooks"], &query)?;
        let kind = self.0.kind();
        let read = |body: &[u8]| {
            let all: Vec<Value> = serde_json::from_slice(body).map_err(|e| e.to_string())?;
            Ok(all.iter().filter_map(|hook| read(kind, hook)).collect())
        };
        self.0.read(request, About::Hooks, MOST_BYTES, read).await
    }

    fn body(&self, url: &str, secret: &str) -> Value {
        match self.0.kind() {
            ForgeKind::Github => json!({
                "name": "web", "active": true, "events": GITHUB,
                "config": {"url": url, "content_type": "json", "secret": secret, "insecure_ssl": "0"},
            }),
            ForgeKind::Gitea => json!({
                "type": "gitea", "active": true, "events": GITEA,
                "config": {"url": url, "content_type": "json", "secret": secret},
            }),
            ForgeKind::Gitlab => {
                // A key that signs goes nowhere else: as a token it would be in each message.
                let kind = if secret.starts_with(SIGNING_SECRET) {
                    "signing_token"
                } else {
                    "token"
                };
                let mut body = json!({"url": url, kind: secret, "enable_ssl_verification": true});
                for event in GITLAB {
                    body[event] = json!(true);
                }
                body
            }
        }
    }
}

/// A query for one item of a list.
pub(super) fn one() -> [(&'static str, String); 1] {
    [("per_page", "1".to_owned())]
}

/// The first of a list of messages, the newest one.
pub(super) fn newest(body: &[u8]) -> Result<Option<Sent>, String> {
    #[derive(Deserialize)]
    struct Listed {
        #[serde(alias = "trigger")]
        event: String,
        #[serde(alias = "created_at")]
        delivered_at: String,
        /// A number, or GitLab's text: a number or words.
        #[serde(alias = "response_status")]
        status_code: Value,
    }
    let all: Vec<Listed> = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    Ok(all.into_iter().next().map(|sent| {
        let text = sent.status_code.as_str().and_then(|code| code.parse().ok());
        let number = sent
            .status_code
            .as_u64()
            .and_then(|code| code.try_into().ok());
        Sent {
            event: bounded(&sent.event, 60),
            at: bounded(&sent.delivered_at, 60),
            status: number.or(text).unwrap_or(0),
        }
    }))
}

fn read(kind: ForgeKind, hook: &Value) -> Option<Hook> {
    let id = hook["id"].as_u64()?;
    let (url, active, wanted) = match kind {
        ForgeKind::Github => (
            &hook["config"]["url"],
            is_true(&hook["active"]),
            &GITHUB[..],
        ),
        ForgeKind::Gitea => (&hook["config"]["url"], is_true(&hook["active"]), &GITEA[..]),
        ForgeKind::Gitlab => {
            // It turns off what fails too often (since 15.7).
            let works = hook["alert_status"]
                .as_str()
                .is_none_or(|word| word == "executable");
            (&hook["url"], works, &GITLAB[..])
        }
    };
    let hears = |event: &str| match kind {
        ForgeKind::Gitlab => is_true(&hook[event]),
        ForgeKind::Github | ForgeKind::Gitea => hook["events"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one == event || one == "*")),
    };
    Some(Hook {
        id,
        url: url.as_str()?.to_owned(),
        active,
        deaf_to: wanted
            .iter()
            .copied()
            .filter(|event| !hears(event))
            .collect(),
    })
}

/// GitLab has a field for each of its two proofs.
fn secret_name(secret: &str) -> &'static str {
    if secret.starts_with(SIGNING_SECRET) {
        "Signing token"
    } else {
        "Secret token"
    }
}

fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true)
}

/// What a person fills in to make the webhook that leads to `url`. `web` is where the forge's pages are.
#[must_use]
pub fn by_hand(kind: ForgeKind, web: &str, repository: &str, url: &str, secret: String) -> Form {
    let url = url.to_owned();
    let json = "application/json".to_owned();
    match kind {
        ForgeKind::Github => Form {
            page: format!("{web}/{repository}/settings/hooks/new"),
            fields: vec![
                ("Payload URL", url),
                ("Content type", json),
                ("Secret", secret),
                (
                    "Let me select individual events",
                    "Pushes, Pull requests, Issue comments".to_owned(),
                ),
            ],
        },
        ForgeKind::Gitlab => Form {
            page: format!("{web}/{repository}/-/hooks"),
            fields: vec![
                ("URL", url),
                (secret_name(&secret), secret),
                (
                    "Trigger",
                    "Push events, Tag push events, Comments, Merge request events".to_owned(),
                ),
            ],
        },
        ForgeKind::Gitea => Form {
            page: format!("{web}/{repository}/settings/hooks/gitea/new"),
            fields: vec![
                ("Target URL", url),
                ("POST Content Type", json),
                ("Secret", secret),
                (
                    "Trigger On: Custom Events",
                    "Push, all of Pull Request".to_owned(),
                ),
            ],
        },
    }
}
