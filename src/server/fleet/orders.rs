//! Puts into an order what is never stored with it: values of secrets, and the credential for git.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::Trust;
use protocol::agent_api::{AttemptOrder, Source};
use secrecy::ExposeSecret as _;

use crate::forge::{Credential, ForgeConfig};
use crate::state::Server;
use crate::store::{Connection, StoreError, projects};

/// The order as it is sent.
pub(super) async fn complete(
    server: &Server,
    db: &mut Connection,
    mut order: AttemptOrder,
) -> Result<AttemptOrder, StoreError> {
    if order.trust == Trust::Trusted {
        for name in &order.spec.secrets {
            match secret(server, &order.project_name, name) {
                Some(value) => {
                    order.secrets.insert(name.clone(), value);
                }
                None => tracing::warn!(
                    attempt = %order.attempt, secret = %name,
                    "the secret is not there any more; the job starts without it"
                ),
            }
        }
    }
    let project = projects::find(db, &order.project).await?;
    if let Some(project) = &project
        && let Some(credential) = &project.credential
    {
        let value = authorization(&project.forge, credential);
        match (&mut order.source, value) {
            (Source::Git { authorization, .. }, Ok(value)) => *authorization = Some(value),
            (Source::Git { .. }, Err(why)) => {
                tracing::warn!(attempt = %order.attempt, why, "the project's credential cannot be read");
            }
            (Source::Folder { .. }, _) => {}
        }
    }
    Ok(order)
}

/// The value of a secret, where an administrator gave one: the file `<data>/secrets/<project>/<NAME>`.
pub(crate) fn secret(server: &Server, project: &str, name: &str) -> Option<String> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    if !plain(project) || !plain(name) {
        return None;
    }
    let path = server.config.secrets().join(project).join(name);
    let value = Credential::File(path).read().ok()?;
    Some(value.expose_secret().to_owned())
}

/// The header that a forge's git takes for a token: the name before it is each forge's own.
pub(crate) fn authorization(
    forge: &ForgeConfig,
    credential: &Credential,
) -> Result<String, String> {
    let user = match forge {
        ForgeConfig::Gitlab(_) => "oauth2",
        ForgeConfig::Git | ForgeConfig::Github(_) | ForgeConfig::Gitea(_) => "x-access-token",
    };
    let token = credential.read().map_err(|error| error.to_string())?;
    let pair = format!("{user}:{}", token.expose_secret());
    Ok(format!("Basic {}", STANDARD.encode(pair)))
}
