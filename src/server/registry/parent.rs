//! What a pipeline file's `from` means: a fixed version, of the project's own models or of those that are no project's.

use std::collections::BTreeSet;

use plan::Parents;
use protocol::ProjectId;
use protocol::agent_api::ParentModel;
use protocol::registry::{ModelFile, ModelRef, VersionRef};
use protocol::spec::Parent;

use super::catalog::{self, RegistryError};
use crate::store::{self, Connection, models};

/// Aliases and names that are named where one is not there.
const MOST_NAMED: usize = 10;

/// The versions that these texts mean now, or why they mean none, for people.
///
/// # Errors
/// The store's.
pub async fn parents(
    db: &mut Connection,
    project: &ProjectId,
    asked: BTreeSet<String>,
) -> store::Result<Parents> {
    let mut found = Parents::new();
    for text in asked {
        let meant = match text.parse::<ModelRef>() {
            Ok(wanted) => meant(db, project, &text, &wanted).await?,
            Err(error) => Err(error.to_string()),
        };
        found.insert(text, meant);
    }
    Ok(found)
}

async fn meant(
    db: &mut Connection,
    project: &ProjectId,
    text: &str,
    wanted: &ModelRef,
) -> store::Result<Result<Parent, String>> {
    let ModelRef { model, version } = wanted;
    let row = models::find(db, model).await?;
    let Some(row) =
        row.filter(|row| row.project.is_none() || row.project.as_ref() == Some(project))
    else {
        // Whether another project has one is not told.
        return Ok(Err(format!(
            "'{text}': this project has no model '{model}' to go on from"
        )));
    };
    let found = match catalog::resolve(db, &row.name, version).await {
        Ok(found) => found,
        Err(RegistryError::Store(error)) => return Err(error),
        Err(_) => return Ok(Err(format!("'{text}': {}", there(db, wanted).await?))),
    };
    let Some(number) = found.version else {
        return Ok(Err(format!(
            "'{text}' is a candidate: only a version can be gone on from"
        )));
    };
    if catalog::files_of(db, &found).await?.is_empty() {
        return Ok(Err(format!("'{text}' has no files to go on from")));
    }
    Ok(Ok(Parent {
        asked: text.to_owned(),
        model: row.name,
        version: number,
        id: found.id,
    }))
}

/// What a model has, where what was asked for is not there.
async fn there(db: &mut Connection, wanted: &ModelRef) -> store::Result<String> {
    let ModelRef { model, version } = wanted;
    let aliases = models::aliases(db, model).await?;
    let aliases = aliases.iter().take(MOST_NAMED);
    let mut has: Vec<String> = aliases.map(|alias| format!("@{}", alias.alias)).collect();
    match models::latest(db, model)
        .await?
        .and_then(|latest| latest.version)
    {
        Some(latest) => has.push(format!("versions up to {latest}")),
        None => has.push("no version yet".to_owned()),
    }
    let what = match version {
        VersionRef::Alias(alias) => format!("alias '@{alias}'"),
        VersionRef::Number(number) => format!("version {number}"),
        VersionRef::Latest => "version".to_owned(),
        VersionRef::Id(id) => format!("candidate {id}"),
    };
    Ok(format!(
        "model '{model}' has no {what}; it has {}",
        has.join(", ")
    ))
}

/// A parent with its files; those of a version that was emptied are none.
///
/// # Errors
/// The store's.
pub async fn files(db: &mut Connection, parent: &Parent) -> store::Result<ParentModel> {
    let files: Vec<ModelFile> = match models::by_number(db, &parent.model, parent.version).await? {
        Some(version) if version.id == parent.id => catalog::files_of(db, &version).await?,
        // It has another name now, or was removed and has its files still.
        Some(_) | None => models::files(db, &parent.id).await?,
    };
    Ok(ParentModel {
        model: parent.model.clone(),
        version: parent.version,
        files,
    })
}
