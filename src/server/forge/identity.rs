//! As whom a forge is called, and how that is said to each of them.

use std::sync::Arc;

use reqwest::RequestBuilder;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};

use super::app::{App, Purpose};
use super::{Credential, CredentialError, ForgeError, ForgeKind, Place, Repository};

/// As whom a forge is called.
#[derive(Debug, Clone)]
pub(super) enum Identity {
    /// As nobody; why.
    Nobody(CredentialError),
    /// As whoever the token stands for.
    Token(Credential),
    /// As the GitHub App itself, which may look at its installations and get tokens for them.
    App(Arc<App>),
    /// As the GitHub App in one repository, of this number where it is known.
    Installed(Arc<App>, Option<u64>),
}

impl Identity {
    /// Whom a project speaks as.
    pub(super) fn of(kind: ForgeKind, place: &Place, app: Option<&Arc<App>>) -> Self {
        match (&place.token, place.app, app) {
            (_, Some(number), Some(app)) if app.is_at(&place.api) => {
                Identity::Installed(app.clone(), Some(number))
            }
            (_, Some(_), _) => Identity::Nobody(CredentialError::NoApp {
                api: place.api.clone(),
            }),
            (Some(token), None, _) => Identity::Token(token.clone()),
            (None, None, _) => Identity::Nobody(CredentialError::Unreadable {
                reference: format!("of {kind}'s token"),
                why: "the project has none".into(),
            }),
        }
    }

    /// Says it in a request.
    pub(super) async fn sign(
        &self,
        request: RequestBuilder,
        kind: ForgeKind,
        repository: &Repository,
    ) -> Result<RequestBuilder, ForgeError> {
        let token = match self {
            Identity::Nobody(why) => return Err(why.clone().into()),
            Identity::Token(reference) => reference.read()?,
            Identity::App(app) => app.jwt()?,
            Identity::Installed(app, number) => {
                app.token(repository, *number, Purpose::Speak).await?
            }
        };
        let (header, value) = match kind {
            ForgeKind::Github => ("authorization", said("Bearer ", &token)?),
            ForgeKind::Gitlab => ("private-token", said("", &token)?),
            ForgeKind::Gitea => ("authorization", said("token ", &token)?),
        };
        Ok(request.header(header, value))
    }

    /// What was said was refused: a token that was lent is not offered again.
    pub(super) fn refused(&self, repository: &Repository) {
        match self {
            Identity::Installed(app, _) => app.forget(repository),
            Identity::Nobody(_) | Identity::Token(_) | Identity::App(_) => {}
        }
    }
}

/// A header that no log shows.
fn said(scheme: &str, token: &SecretString) -> Result<HeaderValue, ForgeError> {
    let text = SecretString::from(format!("{scheme}{}", token.expose_secret()));
    let value = HeaderValue::from_str(text.expose_secret());
    let mut value = value.map_err(|_| CredentialError::Unreadable {
        reference: "of the token".to_owned(),
        why: "it has characters that no token has".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}
