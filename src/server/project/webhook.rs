//! The webhook of a project that is added: its secret, and that it is made at the forge, or how a person makes it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::setup::{Field, Webhook};
use secrecy::SecretString;

use crate::forge::hooks::{self, Form};
use crate::forge::{Credential, ForgeConfig, ForgeKind, Place};
use crate::secret::Secret;
use crate::state::Server;
use crate::store::projects::Project;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// What stands for the server's address where nobody set it.
const SOMEWHERE: &str = "https://YOUR-SERVER";

/// Where the secrets lie that were made up for webhooks. No project and no secret of a job begins with a dot, so that
/// no job gets at them.
fn file(server: &Server, project: &str) -> PathBuf {
    server.config.secrets().join(".webhooks").join(project)
}

/// Makes up a secret for a project, and writes it down for the server's user alone.
pub(super) fn make_up(server: &Server, project: &str) -> std::io::Result<(Credential, Secret)> {
    let path = std::path::absolute(file(server, project))?;
    let secret = Secret::generate("hook");
    write(&path, secret.reveal())?;
    Ok((Credential::File(path), secret))
}

/// In a file of mode 0600 in a folder of mode 0700.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Where a project's webhook leads.
pub(super) fn address(server: &Server, project: &str) -> Option<String> {
    let url = server.config.url.as_ref()?;
    Some(format!("{}/hooks/{project}", url.trim_end_matches('/')))
}

/// Makes the webhook of a project that was just added, where that can be done; `made_up` is its secret, where nobody
/// gave one.
pub(super) async fn set_up(server: &Server, project: &Project, made_up: Option<Secret>) -> Webhook {
    let Some((kind, place)) = project.forge.place() else {
        return Webhook::None;
    };
    if place.app.is_some() {
        return Webhook::App;
    }
    let url = address(server, &project.name);
    let why = match &url {
        None => {
            "the server does not know its own address: set 'url' in its configuration, or start it with 'trainyard up --url https://…'".to_owned()
        }
        Some(_) if !project.forge.speaks() => "there is no token to make it with".to_owned(),
        Some(url) => match make(server, &project.forge, place, url).await {
            Ok(()) => return Webhook::Made { url: url.clone() },
            Err(why) => why,
        },
    };
    tracing::info!(
        project = project.name,
        why,
        "its webhook has to be made by hand"
    );
    let url = url.unwrap_or_else(|| format!("{SOMEWHERE}/hooks/{}", project.name));
    let secret = match (made_up, &place.webhook_secret) {
        (Some(secret), _) => secret.reveal().to_owned(),
        (None, Some(reference)) => format!("what {reference} holds on the server"),
        (None, None) => String::new(),
    };
    let form = form(kind, place, &url, secret);
    let field = |(name, value): (&str, String)| Field {
        name: name.to_owned(),
        value,
    };
    Webhook::ByHand {
        why,
        page: form.page,
        fields: form.fields.into_iter().map(field).collect(),
    }
}

/// The form of a webhook that leads to `url`.
pub(super) fn form(kind: ForgeKind, place: &Place, url: &str, secret: String) -> Form {
    hooks::by_hand(kind, &place.web(), place.repository.as_str(), url, secret)
}

async fn make(
    server: &Server,
    config: &ForgeConfig,
    place: &Place,
    url: &str,
) -> Result<(), String> {
    let secret: SecretString = match &place.webhook_secret {
        Some(reference) => reference.read().map_err(|error| error.to_string())?,
        None => return Err("it has no secret".to_owned()),
    };
    let hooks = server.forges.hooks(config, CALL_TIMEOUT);
    let hooks = hooks.map_err(|error| error.to_string())?;
    let hooks = hooks.ok_or("nobody speaks for it")?;
    hooks
        .set(url, &secret)
        .await
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::Config;
    use crate::{fleet, names};

    #[tokio::test]
    async fn no_job_gets_at_a_secret_that_was_made_up() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::in_folder(folder.path());
        let server = Server::open(config, CancellationToken::new());
        let server = server.await.unwrap();
        let (reference, secret) = make_up(&server, "story").unwrap();
        let read = reference.read().unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(&read), secret.reveal());
        assert_eq!(fleet::secret(&server, ".webhooks", "story"), None);
        assert_eq!(fleet::secret(&server, "..", "story"), None);
        names::check("project", ".webhooks").unwrap_err();
        let kept = file(&server, "story");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&kept), 0o600);
        assert_eq!(mode(kept.parent().unwrap()), 0o700);
        let (_, other) = make_up(&server, "story").unwrap();
        assert_ne!(other.reveal(), secret.reveal());
    }
}
