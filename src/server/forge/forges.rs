//! The ways to the projects' forges: for calls of their API, and for git.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

use super::api::{Api, Identity};
use super::app::{App, AppConfig, Purpose};
use super::hooks::Hooks;
use super::rights::Rights;
use super::{Credential, CredentialError, Forge, ForgeConfig, ForgeError, ForgeKind, PlainGit};

/// What all projects share on their way to forges. Clones share it too.
#[derive(Debug, Clone, Default)]
pub struct Forges {
    app: Option<Arc<App>>,
}

impl Forges {
    /// With the GitHub App that the server is, where it is one.
    #[must_use]
    pub fn new(app: Option<AppConfig>) -> Self {
        Self {
            app: app.map(App::new),
        }
    }

    /// The GitHub App.
    #[must_use]
    pub fn app(&self) -> Option<&Arc<App>> {
        self.app.as_ref()
    }

    /// Forgets the App's tokens of a repository: git was refused, or what the App may there has changed.
    pub fn forget(&self, config: &ForgeConfig) {
        if let (Some(app), Some((_, place))) = (&self.app, config.place())
            && place.app.is_some()
        {
            app.forget(&place.repository);
        }
    }

    /// The forge that `config` describes. Nothing is sent yet.
    ///
    /// # Errors
    /// Where the HTTP client cannot be made: no root certificates on this host, or a wrong address.
    pub fn connect(
        &self,
        config: &ForgeConfig,
        timeout: Duration,
    ) -> Result<Box<dyn Forge>, ForgeError> {
        Ok(match self.api(config, timeout)? {
            None => Box::new(PlainGit),
            Some(api) => Box::new(api),
        })
    }

    /// The webhooks of the repository; none of a plain remote.
    ///
    /// # Errors
    /// As [`Forges::connect`].
    pub fn hooks(
        &self,
        config: &ForgeConfig,
        timeout: Duration,
    ) -> Result<Option<Hooks>, ForgeError> {
        Ok(self.api(config, timeout)?.map(Hooks))
    }

    /// What the forge says of the token; none of a plain remote.
    ///
    /// # Errors
    /// [`ForgeError`].
    pub async fn rights(
        &self,
        config: &ForgeConfig,
        timeout: Duration,
    ) -> Result<Option<Rights>, ForgeError> {
        match self.api(config, timeout)? {
            Some(api) => api.rights().await.map(Some),
            None => Ok(None),
        }
    }

    fn api(&self, config: &ForgeConfig, timeout: Duration) -> Result<Option<Api>, ForgeError> {
        let Some((kind, place)) = config.place() else {
            return Ok(None);
        };
        let identity = Identity::of(kind, place, self.app.as_ref());
        Api::connect(kind, place.clone(), identity, timeout).map(Some)
    }

    /// The header with which git asks for a repository; none: it asks as nobody. `credential` is the project's own.
    ///
    /// # Errors
    /// Where the credential cannot be read, or the App gets no token.
    pub async fn authorization(
        &self,
        config: &ForgeConfig,
        credential: Option<&Credential>,
    ) -> Result<Option<String>, ForgeError> {
        let kind = config.place().map(|(kind, _)| kind);
        let token = match (config.place(), credential) {
            (Some((_, place)), _) if place.app.is_some() => {
                let app = self.app.as_ref().filter(|app| app.is_at(&place.api));
                let app = app.ok_or_else(|| CredentialError::NoApp {
                    api: place.api.clone(),
                })?;
                app.token(&place.repository, place.app, Purpose::Clone)
                    .await?
            }
            (_, Some(credential)) => credential.read()?,
            (_, None) => return Ok(None),
        };
        Ok(Some(basic(kind, &token)))
    }
}

/// Forges take a token as the password of a user of their own choice.
fn basic(kind: Option<ForgeKind>, token: &SecretString) -> String {
    let user = match kind {
        Some(ForgeKind::Gitlab) => "oauth2",
        Some(ForgeKind::Github | ForgeKind::Gitea) | None => "x-access-token",
    };
    let pair = format!("{user}:{}", token.expose_secret());
    format!("Basic {}", STANDARD.encode(pair))
}
