//! Puts into an order what is never stored with it: values of secrets, and the credential for git.

use protocol::Trust;
use protocol::agent_api::{AttemptOrder, Source};
use secrecy::ExposeSecret as _;

use crate::credential::Credential;
use crate::state::Server;
use crate::store::{StoreError, projects};

/// The order as it is sent.
pub(super) async fn complete(
    server: &Server,
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
    let Source::Git { authorization, .. } = &mut order.source else {
        return Ok(order);
    };
    let found = projects::find(&mut *server.store.read().await?, &order.project).await?;
    if let Some(project) = found {
        let credential = project.credential.as_ref();
        match server
            .forges
            .authorization(&project.forge, credential)
            .await
        {
            Ok(value) => *authorization = value.or(authorization.take()),
            Err(error) => {
                tracing::warn!(attempt = %order.attempt, %error, "its repository is asked for as nobody");
            }
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
