//! The registry in the public API. Its types are `protocol::registry`; what a change means is decided there.

use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use protocol::api::{Done, Page};
use protocol::registry::{
    AliasChange, Comparison, Model, ModelDetail, Reason, Reproduction, SetAlias, Version,
    VersionDetail, VersionRef,
};
use serde::Deserialize;

use super::access::Who;
use super::answer::{Answer, Problem};
use super::api::{Sent, write_down};
use super::site::Site;
use crate::registry::{self, RegistryError};
use crate::store;

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Store(error) => error.into(),
            missing @ (RegistryError::NoModel(_)
            | RegistryError::NoVersion { .. }
            | RegistryError::Removed { .. }
            | RegistryError::NoFile { .. }
            | RegistryError::NoReproduction { .. }) => Self::not_found(missing),
            wrong @ (RegistryError::BadAlias(_) | RegistryError::NoReason) => Self::invalid(wrong),
            state @ (RegistryError::NoCandidate { .. }
            | RegistryError::NothingBefore { .. }
            | RegistryError::NoJob { .. }
            | RegistryError::Needed { .. }) => Self::conflict(state),
        }
    }
}

/// Which piece of the list.
#[derive(Debug, Deserialize)]
pub(super) struct Piece {
    before: Option<String>,
    limit: Option<u32>,
}

/// `GET /api/v1/models`
pub(super) async fn list(
    State(site): State<Site>,
    Query(piece): Query<Piece>,
) -> Answer<Json<Page<Model>>> {
    let limit = piece.limit.unwrap_or(50);
    let page = registry::list(&site.store, piece.before.as_deref(), limit).await?;
    Ok(Json(page))
}

/// `GET /api/v1/models/{name}`
pub(super) async fn model(
    State(site): State<Site>,
    Path(name): Path<String>,
) -> Answer<Json<ModelDetail>> {
    Ok(Json(registry::model(&site.store, &name).await?))
}

/// The version in a path.
pub(super) fn version_ref(text: &str) -> Answer<VersionRef> {
    text.parse().map_err(Problem::invalid)
}

/// `GET /api/v1/models/{name}/{version}`
pub(super) async fn version(
    State(site): State<Site>,
    Path((name, version)): Path<(String, String)>,
) -> Answer<Json<VersionDetail>> {
    let version = version_ref(&version)?;
    Ok(Json(registry::version(&site.store, &name, &version).await?))
}

/// `GET /api/v1/models/{name}/{version}/compare/{other}`: `other` is the base.
pub(super) async fn compare(
    State(site): State<Site>,
    Path((name, version, other)): Path<(String, String, String)>,
) -> Answer<Json<Comparison>> {
    let (base, now) = (version_ref(&other)?, version_ref(&version)?);
    Ok(Json(
        registry::compare_versions(&site.store, &name, &base, &now).await?,
    ))
}

/// `POST /api/v1/models/{name}/{version}/promote`
pub(super) async fn promote(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path((name, version)): Path<(String, String)>,
    Sent(reason): Sent<Reason>,
) -> Answer<Json<Version>> {
    let wanted = version_ref(&version)?;
    let made = registry::promote(&site.store, &name, &wanted, who.name(), &reason.why).await?;
    note(&site, &who, format!("promote {name} {}", made.label())).await?;
    Ok(Json(made))
}

/// `POST /api/v1/models/{name}/{version}/remove`
pub(super) async fn remove(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path((name, version)): Path<(String, String)>,
    Sent(reason): Sent<Reason>,
) -> Answer<Json<Version>> {
    let wanted = version_ref(&version)?;
    let gone = registry::remove(&site.store, &name, &wanted, who.name(), &reason.why).await?;
    note(&site, &who, format!("remove {name} {}", gone.label())).await?;
    Ok(Json(gone))
}

/// `POST /api/v1/models/{name}/{version}/reproduce`
pub(super) async fn reproduce(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path((name, version)): Path<(String, String)>,
) -> Answer<Json<Done>> {
    let wanted = version_ref(&version)?;
    let (version, job) = registry::reproduce(&site, &name, &wanted, who.name()).await?;
    Ok(Json(Done {
        message: format!("the job of {name} {} runs once more", version.label()),
        job: Some(job),
    }))
}

/// `GET /api/v1/models/{name}/{version}/reproductions/{job}`
pub(super) async fn reproduction(
    State(site): State<Site>,
    Path((name, version, job)): Path<(String, String, String)>,
) -> Answer<Json<Reproduction>> {
    let wanted = version_ref(&version)?;
    let job = job.parse().map_err(Problem::invalid)?;
    Ok(Json(
        registry::reproduction(&site.store, &name, &wanted, &job).await?,
    ))
}

/// `PUT /api/v1/models/{name}/aliases/{alias}`
pub(super) async fn set_alias(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path((name, alias)): Path<(String, String)>,
    Sent(wanted): Sent<SetAlias>,
) -> Answer<Json<AliasChange>> {
    let SetAlias { version, why } = wanted;
    let change = registry::set_alias(&site.store, &name, &alias, version, who.name(), &why).await?;
    note(&site, &who, said(&name, &change)).await?;
    Ok(Json(change))
}

/// `POST /api/v1/models/{name}/aliases/{alias}/rollback`
pub(super) async fn roll_back(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path((name, alias)): Path<(String, String)>,
    Sent(reason): Sent<Reason>,
) -> Answer<Json<AliasChange>> {
    let change = registry::roll_back(&site.store, &name, &alias, who.name(), &reason.why).await?;
    note(&site, &who, said(&name, &change)).await?;
    Ok(Json(change))
}

fn said(model: &str, change: &AliasChange) -> String {
    match change.version {
        Some(version) => format!("alias {model}@{} to version {version}", change.alias),
        None => format!("take away alias {model}@{}", change.alias),
    }
}

async fn note(site: &Site, who: &Who, action: String) -> store::Result<()> {
    let mut tx = site.store.begin().await?;
    write_down(&mut tx, who, action).await?;
    store::commit(tx).await
}
