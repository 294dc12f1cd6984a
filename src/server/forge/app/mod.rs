//! The GitHub App that this server may be: it proves itself with its key, and gets tokens of an hour for the
//! repositories where it is installed. Tokens are kept in memory alone.

mod jwt;
mod missed;

pub(crate) use missed::{Again, Part};

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::DateTime;
use futures_util::future::BoxFuture;
use protocol::{Span, Timestamp};
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::api::{About, Api, Identity};
use super::hooks::{self, Sent};
use super::{Credential, CredentialError, ForgeError, ForgeKind, Place, Repository};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A token is not used in the last minutes before its end: what begins with it has time to end.
const SPARE: Span = Span::secs(300);
/// Most bytes of an answer.
const MOST_BYTES: usize = 1 << 20;

/// What an administrator says of the App; secrets by reference.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppConfig {
    /// Its id or its client id; GitHub takes both.
    pub id: AppId,
    /// Where its private key lies, in PEM.
    pub private_key: Credential,
    /// Where the secret of its webhook lies; without one every delivery is refused.
    #[serde(default)]
    pub webhook_secret: Option<Credential>,
    /// Base of the REST API.
    #[serde(default = "super::place::github_api")]
    pub api: String,
}

/// A number, or the text of a client id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum AppId {
    /// The App's id.
    Number(u64),
    /// The App's client id, or its id as text.
    Text(String),
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppId::Number(id) => write!(f, "{id}"),
            AppId::Text(id) => f.write_str(id),
        }
    }
}

/// What a token is for: no more is asked for than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// To call the API: all that the App was given in the repository.
    Speak,
    /// To clone. Agents get it: it reads the code of the one repository.
    Clone,
}

/// The App.
#[derive(Debug)]
pub struct App {
    config: AppConfig,
    /// Whoever holds the inner lock asks for all that wait.
    tokens: Mutex<HashMap<For, Slot>>,
}

/// What a token is for: the repository in lower case, its number where it is known, and the purpose.
type For = (String, Option<u64>, Purpose);

type Slot = Arc<tokio::sync::Mutex<Kept>>;

/// What is remembered between calls.
#[derive(Debug, Default)]
enum Kept {
    #[default]
    Nothing,
    Token {
        token: SecretString,
        ends: Timestamp,
    },
    /// GitHub asked to wait.
    Wait { until: Timestamp },
}

impl Kept {
    /// What it comes to at this time; none: GitHub has to be asked.
    fn now(&self, now: Timestamp) -> Option<Result<SecretString, ForgeError>> {
        match self {
            Kept::Token { token, ends } => (*ends - SPARE > now).then(|| Ok(token.clone())),
            Kept::Wait { until } => (*until > now).then(|| {
                Err(ForgeError::RateLimited {
                    forge: ForgeKind::Github.name(),
                    wait: until.since(now),
                })
            }),
            Kept::Nothing => None,
        }
    }
}

/// The App's installation that reaches a repository.
#[derive(Debug, Clone, Deserialize)]
pub struct Installation {
    id: u64,
    /// Since when its owner has it suspended.
    #[serde(default)]
    suspended_at: Option<String>,
    /// What it may, by GitHub's words: `checks` → `write`.
    #[serde(default)]
    pub permissions: BTreeMap<String, String>,
    /// What it hears of.
    #[serde(default)]
    pub events: Vec<String>,
    /// Where its owner changes it.
    #[serde(default)]
    pub html_url: String,
}

#[derive(Deserialize)]
struct NewToken {
    token: String,
    expires_at: String,
}

impl App {
    pub(super) fn new(config: AppConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            tokens: Mutex::default(),
        })
    }

    /// Whether it is registered where this API is.
    #[must_use]
    pub fn is_at(&self, api: &str) -> bool {
        let plain = |api: &str| api.trim_end_matches('/').to_ascii_lowercase();
        plain(&self.config.api) == plain(api)
    }

    /// Where the secret of its webhook lies.
    #[must_use]
    pub fn webhook_secret(&self) -> Option<&Credential> {
        self.config.webhook_secret.as_ref()
    }

    /// Proves that the caller is the App.
    pub(super) fn jwt(&self) -> Result<SecretString, CredentialError> {
        let reference = &self.config.private_key;
        let key = reference.read()?;
        let id = self.config.id.to_string();
        let jwt = jwt::sign(&id, key.expose_secret(), Timestamp::now());
        jwt.map(SecretString::from)
            .map_err(|why| CredentialError::Unreadable {
                reference: reference.to_string(),
                why,
            })
    }

    /// A token for a repository, asked for by its number where that is known, so that one which took its name is no way
    /// in: the token that is kept, or a new one.
    ///
    /// # Errors
    /// [`ForgeError::App`] where it is not installed there or suspended; others of the call.
    pub(super) fn token<'a>(
        self: &'a Arc<Self>,
        repository: &'a Repository,
        number: Option<u64>,
        purpose: Purpose,
    ) -> BoxFuture<'a, Result<SecretString, ForgeError>> {
        // Boxed: a call as the installed App asks for a token by a call as the App itself.
        Box::pin(async move {
            let slot = self.slot(repository, number, purpose);
            let mut kept = slot.lock().await;
            if let Some(standing) = kept.now(Timestamp::now()) {
                return standing;
            }
            let asked = self.ask(repository, number, purpose).await;
            *kept = match &asked {
                Ok((token, ends)) => Kept::Token {
                    token: token.clone(),
                    ends: *ends,
                },
                Err(ForgeError::RateLimited { wait, .. }) => Kept::Wait {
                    until: Timestamp::now() + *wait,
                },
                Err(_) => Kept::Nothing,
            };
            asked.map(|(token, _)| token)
        })
    }

    /// Forgets a repository's tokens.
    pub(super) fn forget(&self, repository: &Repository) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|(of, ..), _| !repository.is(of));
    }

    /// The installation that reaches a repository.
    ///
    /// # Errors
    /// [`ForgeError::App`] where there is none or it is suspended; others of the call.
    pub async fn installation(
        self: &Arc<Self>,
        repository: &Repository,
    ) -> Result<Installation, ForgeError> {
        self.installation_by(&self.itself(repository)?).await
    }

    /// The repository's number at GitHub, which stays where it is renamed.
    ///
    /// # Errors
    /// As [`App::installation`].
    pub async fn number_of(self: &Arc<Self>, repository: &Repository) -> Result<u64, ForgeError> {
        #[derive(Deserialize)]
        struct Numbered {
            id: u64,
        }
        let api = self.within(repository, Identity::Installed(Arc::clone(self), None))?;
        let request = api.below(Method::GET, &[])?;
        let found: Numbered = api.read(request, About::Look, MOST_BYTES, read).await?;
        Ok(found.id)
    }

    /// Where its webhook leads, and what became of its last message.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn hook(
        self: &Arc<Self>,
        repository: &Repository,
    ) -> Result<(String, Option<Sent>), ForgeError> {
        #[derive(Deserialize)]
        struct Leads {
            #[serde(default)]
            url: Option<String>,
        }
        let api = self.itself(repository)?;
        let path = ["app", "hook", "config"];
        let request = api.request(Method::GET, &path)?;
        let leads: Leads = api.read(request, About::Hooks, MOST_BYTES, read).await?;
        let path = ["app", "hook", "deliveries"];
        let request = api.asked(Method::GET, &path, &hooks::one())?;
        let last = api.read(request, About::Hooks, MOST_BYTES, hooks::newest);
        Ok((leads.url.unwrap_or_default(), last.await?))
    }

    /// The API as the App itself.
    fn itself(self: &Arc<Self>, repository: &Repository) -> Result<Api, ForgeError> {
        self.within(repository, Identity::App(Arc::clone(self)))
    }

    fn within(&self, repository: &Repository, identity: Identity) -> Result<Api, ForgeError> {
        let place = Place::new(repository.clone(), self.config.api.clone());
        Api::connect(ForgeKind::Github, place, identity, CALL_TIMEOUT)
    }

    fn slot(&self, repository: &Repository, number: Option<u64>, purpose: Purpose) -> Slot {
        let key = (repository.as_str().to_ascii_lowercase(), number, purpose);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tokens.entry(key).or_default())
    }

    async fn ask(
        self: &Arc<Self>,
        repository: &Repository,
        number: Option<u64>,
        purpose: Purpose,
    ) -> Result<(SecretString, Timestamp), ForgeError> {
        let api = self.itself(repository)?;
        let installation = self.installation_by(&api).await?;
        let id = installation.id.to_string();
        let path = ["app", "installations", &id, "access_tokens"];
        let mut body = match number {
            Some(number) => json!({"repository_ids": [number]}),
            None => json!({"repositories": [repository.name()]}),
        };
        match purpose {
            Purpose::Speak => {}
            Purpose::Clone => body["permissions"] = json!({"contents": "read"}),
        }
        let request = api.request(Method::POST, &path)?.json(&body);
        let made: NewToken = api.read(request, About::Look, MOST_BYTES, read).await?;
        let ends = DateTime::parse_from_rfc3339(&made.expires_at);
        let ends = ends.map_err(|error| ForgeError::Unreadable {
            forge: ForgeKind::Github.name(),
            message: format!("the end of a token, '{}': {error}", made.expires_at),
        })?;
        tracing::debug!(repository = repository.as_str(), ?purpose, ends = %made.expires_at, "the GitHub App has a token");
        Ok((made.token.into(), Timestamp(ends.timestamp_millis())))
    }

    async fn installation_by(&self, api: &Api) -> Result<Installation, ForgeError> {
        let refused = |why: String| ForgeError::App {
            repository: api.place().repository.as_str().to_owned(),
            why,
        };
        match api.find(&["installation"], read::<Installation>).await {
            Ok(Some(found)) if found.suspended_at.is_some() => Err(refused(format!(
                "it is suspended there: who suspended it, the App's owner or the repository's, lets it work again, at {}",
                found.html_url
            ))),
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(refused(format!(
                "it is not installed there: install it {}",
                self.page(api).await
            ))),
            Err(ForgeError::Unauthorized {
                status: 401,
                message,
                ..
            }) => Err(refused(format!(
                "GitHub does not believe it ({message}): look at id and private_key of [github_app], and at this host's clock"
            ))),
            Err(error) => Err(error),
        }
    }

    /// Where a person installs it.
    async fn page(&self, api: &Api) -> String {
        #[derive(Deserialize)]
        struct Page {
            html_url: String,
        }
        let page = async {
            let request = api.request(Method::GET, &["app"])?;
            api.read(request, About::Look, MOST_BYTES, read::<Page>)
                .await
        };
        match page.await {
            Ok(page) => format!("at {}/installations/new", page.html_url),
            // What is said without it is enough.
            Err(_) => "from its page at GitHub".to_owned(),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_until_five_minutes_before_its_end() {
        let ends = Timestamp(1_000_000_000);
        let kept = Kept::Token {
            token: "t".into(),
            ends,
        };
        assert!(kept.now(ends - Span::secs(301)).unwrap().is_ok());
        assert!(kept.now(ends - Span::secs(300)).is_none());
        let wait = Kept::Wait { until: ends };
        assert!(wait.now(ends - Span::secs(1)).unwrap().is_err());
        assert!(wait.now(ends).is_none());
    }
}
