//! Adds projects: a repository to watch, under a name. Whether a remote can be reached the watch loop
//! finds out; what can be known without it is refused here.

pub mod doctor;
mod webhook;

use std::path::PathBuf;
use std::time::Duration;

use mirror::{Deadline, MirrorError};
use protocol::api::{NewProject, Quota};
use protocol::setup::Webhook;
use protocol::{ProjectId, Timestamp};

use crate::forge::{Address, AddressError, Credential, CredentialError, ForgeConfig, Place, found};
use crate::names::{self, BadName};
use crate::secret::Secret;
use crate::state::Server;
use crate::store::access::Audit;
use crate::store::projects::Project;
use crate::store::{StoreError, access, projects};

/// A repository on this host answers within this time.
const LOCAL_LOOK: Duration = Duration::from_secs(10);

/// Why a project is not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// Its name.
    #[error(transparent)]
    Name(#[from] BadName),
    /// There is one of this name.
    #[error("there is a project '{name}' already, at {url}")]
    Taken {
        /// The name.
        name: String,
        /// Where that one lies.
        url: String,
    },
    /// Its address, or what lies there.
    #[error(transparent)]
    Repository(#[from] MirrorError),
    /// Its credential is no reference.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// What is said of its forge.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The GitHub App.
    #[error("{0}")]
    App(String),
    /// The secret of its webhook cannot be kept.
    #[error("a secret for the webhook cannot be written below {}: {source}", folder.display())]
    Secret {
        /// The folder of secrets.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Adds a repository that needs no credential, for this host itself.
///
/// # Errors
/// [`AddError`]; then nothing was added.
pub async fn add(server: &Server, name: &str, url: &str) -> Result<Project, AddError> {
    let added = add_for(server, NewProject::new(name, url), "local").await?;
    Ok(added.project)
}

/// A project that was added.
#[derive(Debug)]
pub struct Added {
    /// The project.
    pub project: Project,
    /// What became of its webhook.
    pub webhook: Webhook,
}

/// Adds a project for `by`, wakes the loop that looks at remotes, and makes the webhook where that can be done.
///
/// # Errors
/// [`AddError`]; then nothing was added.
pub async fn add_for(server: &Server, wanted: NewProject, by: &str) -> Result<Added, AddError> {
    names::check("project", &wanted.name)?;
    let url = wanted.url.trim().to_owned();
    let credential: Option<Credential> =
        wanted.credential.as_deref().map(str::parse).transpose()?;
    if credential.is_some() || wanted.app {
        mirror::check_credential(&url)?;
        wanted
            .api
            .as_deref()
            .map(mirror::check_credential)
            .transpose()?;
    }
    let forge = forge(server, &wanted, &url, credential.clone()).await?;
    look(url.clone()).await?;
    let mut project = Project {
        id: ProjectId::generate(),
        name: wanted.name,
        url,
        forge,
        default_branch: None,
        credential,
        created_at: Timestamp::now(),
        checked_at: None,
        problem: None,
        quota: Quota::default(),
    };
    let mut tx = server.store.begin().await?;
    if let Some(there) = projects::by_name(&mut tx, &project.name).await? {
        return Err(AddError::Taken {
            name: there.name,
            url: there.url,
        });
    }
    // Only now: another project's secret would be overwritten.
    let made_up = make_up_secret(server, &mut project)?;
    projects::insert(&mut tx, &project).await?;
    let entry = Audit {
        at: project.created_at,
        who: by.to_owned(),
        action: format!("add project {}", project.name),
    };
    access::write_audit(&mut tx, &entry).await?;
    tx.commit().await.map_err(StoreError::from)?;
    server.live.refs_changed();
    tracing::info!(project = project.name, url = project.url, by, "added");
    // The forge tries a new webhook at once: the project has to be there.
    let webhook = webhook::set_up(server, &project, made_up).await;
    Ok(Added { project, webhook })
}

/// Makes up a secret for the webhook of a forge where nobody named one.
fn make_up_secret(server: &Server, project: &mut Project) -> Result<Option<Secret>, AddError> {
    let bare = |place: &Place| place.app.is_none() && place.webhook_secret.is_none();
    let wants = project.forge.place().is_some_and(|(_, place)| bare(place));
    if !wants {
        return Ok(None);
    }
    let (reference, secret) =
        webhook::make_up(server, &project.name).map_err(|source| AddError::Secret {
            folder: server.config.secrets(),
            source,
        })?;
    project.forge.set_webhook_secret(reference);
    Ok(Some(secret))
}

/// Sets what the jobs of a project may use, for `by`; gives the project as it is then.
///
/// # Errors
/// The store's.
pub async fn set_quota(
    server: &Server,
    project: &Project,
    quota: Quota,
    by: &str,
) -> Result<Project, StoreError> {
    let said = |limit: Option<u32>| limit.map_or("all".to_owned(), |limit| limit.to_string());
    let mut tx = server.store.begin().await?;
    projects::set_quota(&mut tx, &project.id, &quota).await?;
    let entry = Audit {
        at: Timestamp::now(),
        who: by.to_owned(),
        action: format!(
            "quota of project {}: GPUs at once {}, GPU-hours in seven days {}",
            project.name,
            said(quota.gpus),
            said(quota.gpu_hours)
        ),
    };
    access::write_audit(&mut tx, &entry).await?;
    tx.commit().await?;
    server.live.queue_changed();
    Ok(Project {
        quota,
        ..project.clone()
    })
}

/// What speaks for the repository; a host whose name does not say it is asked.
async fn forge(
    server: &Server,
    wanted: &NewProject,
    url: &str,
    token: Option<Credential>,
) -> Result<ForgeConfig, AddError> {
    let address = Address {
        url,
        forge: wanted.forge.as_deref(),
        repository: wanted.repository.as_deref(),
        api: wanted.api.as_deref(),
    };
    let asked = found::ask(&address.strangers()).await;
    let config = address.find(asked.as_ref())?;
    if wanted.app {
        return of_app(server, wanted, config).await;
    }
    with_secrets(config, wanted, token)
}

fn with_secrets(
    config: ForgeConfig,
    wanted: &NewProject,
    token: Option<Credential>,
) -> Result<ForgeConfig, AddError> {
    let webhook_secret: Option<Credential> = wanted
        .webhook_secret
        .as_deref()
        .map(str::parse)
        .transpose()?;
    if config == ForgeConfig::Git && webhook_secret.is_some() {
        return Err(AddressError::NoForge("webhook_secret").into());
    }
    Ok(config.with(token, webhook_secret))
}

/// The same as the GitHub App, which has to be installed in the repository.
async fn of_app(
    server: &Server,
    wanted: &NewProject,
    config: ForgeConfig,
) -> Result<ForgeConfig, AddError> {
    let wrong = |words: &str| Err(AddError::App(words.to_owned()));
    if wanted.credential.is_some() || wanted.webhook_secret.is_some() {
        return wrong(
            "the GitHub App needs neither 'credential' nor 'webhook_secret': leave them out",
        );
    }
    let ForgeConfig::Github(mut place) = config else {
        return wrong("the GitHub App is for repositories at GitHub");
    };
    let app = server.forges.app().filter(|app| app.is_at(&place.api));
    let Some(app) = app else {
        let api = &place.api;
        return wrong(&format!(
            "the server's configuration names no GitHub App at {api}: set [github_app]"
        ));
    };
    let number = app.number_of(&place.repository).await;
    place.app = Some(number.map_err(|error| AddError::App(error.to_string()))?);
    Ok(ForgeConfig::Github(place))
}

/// Refuses an address that git may not fetch from, and a path of this host without a repository.
async fn look(url: String) -> Result<(), MirrorError> {
    mirror::check_url(&url)?;
    if !(url.starts_with('/') || url.starts_with("file://")) {
        return Ok(());
    }
    let looked = tokio::task::spawn_blocking(move || {
        mirror::remote_refs(&url, None, &Deadline::within(LOCAL_LOOK)).map(|_| ())
    });
    match looked.await {
        Ok(looked) => looked,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_would_do_nothing_is_refused() {
        let wanted = NewProject {
            webhook_secret: Some("env:SECRET".into()),
            ..NewProject::new("p", "/srv/git/b.git")
        };
        let error = with_secrets(ForgeConfig::Git, &wanted, None).unwrap_err();
        assert!(error.to_string().contains("webhook_secret"), "{error}");
    }
}
