//! Adds projects: a repository to watch, under a name. Whether a remote can be reached the watch loop
//! finds out; what can be known without a network is refused here.

use std::time::Duration;

use mirror::{Deadline, MirrorError};
use protocol::api::{NewProject, Quota};
use protocol::{ProjectId, Timestamp};

use crate::forge::{Address, AddressError, Credential, CredentialError, ForgeConfig};
use crate::names::{self, BadName};
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
    Forge(#[from] AddressError),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Adds a repository that needs no credential, for this host itself.
///
/// # Errors
/// [`AddError`]; then nothing was added.
pub async fn add(server: &Server, name: &str, url: &str) -> Result<Project, AddError> {
    add_for(server, NewProject::new(name, url), "local").await
}

/// Adds a project for `by`, and wakes the loop that looks at remotes.
///
/// # Errors
/// [`AddError`]; then nothing was added.
pub async fn add_for(server: &Server, wanted: NewProject, by: &str) -> Result<Project, AddError> {
    names::check("project", &wanted.name)?;
    let url = wanted.url.trim().to_owned();
    let credential: Option<Credential> =
        wanted.credential.as_deref().map(str::parse).transpose()?;
    let forge = forge(&wanted, &url, credential.clone())?;
    look(url.clone()).await?;
    let project = Project {
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
    Ok(project)
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
            "quota of project {}: {} GPUs at once, {} GPU-hours in seven days",
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

/// What speaks for the repository.
fn forge(
    wanted: &NewProject,
    url: &str,
    token: Option<Credential>,
) -> Result<ForgeConfig, AddError> {
    let webhook_secret: Option<Credential> = wanted
        .webhook_secret
        .as_deref()
        .map(str::parse)
        .transpose()?;
    let address = Address {
        url,
        forge: wanted.forge.as_deref(),
        repository: wanted.repository.as_deref(),
        api: wanted.api.as_deref(),
    };
    let config = address.find()?;
    if config == ForgeConfig::Git && webhook_secret.is_some() {
        return Err(AddressError::NoForge("webhook_secret").into());
    }
    Ok(config.with(token, webhook_secret))
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
        let error = forge(&wanted, &wanted.url, None).unwrap_err();
        assert!(error.to_string().contains("webhook_secret"), "{error}");
    }

    #[test]
    fn secrets_go_with_the_forge() {
        let wanted = NewProject {
            webhook_secret: Some("env:SECRET".into()),
            ..NewProject::new("p", "https://github.com/a/b")
        };
        let config = forge(&wanted, &wanted.url, Some(Credential::Env("TOKEN".into()))).unwrap();
        assert!(config.speaks() && config.webhook_secret().is_some());
    }
}
