//! Adds a project: checks its name and address, guesses its forge, and wakes the loop that looks at it.

use protocol::{ProjectId, Timestamp};

use crate::forge::ForgeConfig;
use crate::forge::github::{GithubConfig, Repository};
use crate::state::Server;
use crate::store::StoreError;
use crate::store::projects::{self, Project};

/// Longest name of a project.
const NAME_LIMIT: usize = 64;
/// Longest address.
const URL_LIMIT: usize = 2_000;

/// Why a project cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The name.
    #[error(
        "a project's name has 1 to {NAME_LIMIT} letters, digits, '-', '_' or '.', and begins with a letter or digit"
    )]
    Name,
    /// The name is taken.
    #[error("there is a project '{name}' already, at {url}")]
    Taken {
        /// The name.
        name: String,
        /// Where that one lies.
        url: String,
    },
    /// The address.
    #[error(transparent)]
    Url(#[from] mirror::MirrorError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Adds a project. Its forge is GitHub where the address says so, without tokens until they are configured.
///
/// # Errors
/// [`AddError`].
pub async fn add(server: &Server, name: &str, url: &str) -> Result<Project, AddError> {
    let ordinary = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || name.len() > NAME_LIMIT || !name.chars().all(ordinary) {
        return Err(AddError::Name);
    }
    let url: String = url.trim().chars().take(URL_LIMIT).collect();
    mirror::check_url(&url)?;
    let project = Project {
        id: ProjectId::generate(),
        name: name.to_owned(),
        forge: match Repository::from_clone_url(&url) {
            Some(repository) => ForgeConfig::Github(GithubConfig::new(repository)),
            None => ForgeConfig::Git,
        },
        url,
        default_branch: None,
        credential: None,
        created_at: Timestamp::now(),
        checked_at: None,
        problem: None,
    };
    let mut tx = server.store.begin().await?;
    if let Some(there) = projects::by_name(&mut tx, name).await? {
        return Err(AddError::Taken {
            name: there.name,
            url: there.url,
        });
    }
    projects::insert(&mut tx, &project).await?;
    tx.commit().await.map_err(StoreError::from)?;
    server.live.refs_changed();
    tracing::info!(project = project.name, url = project.url, "added");
    Ok(project)
}
