//! Reading the registry, and the changes that people make: promotions and aliases. Every change says
//! who and why, and is kept.

use protocol::api::Page;
use protocol::registry::{
    AliasChange, BestCandidate, Comparison, Model, ModelDetail, ModelFile, Number, Promotion,
    Related, Removal, Version, VersionDetail, VersionRef, VersionStatus, valid_alias,
};
use protocol::{JobId, ProjectId, Timestamp};

use super::mlflow::source;
use super::{best, compare, why};
use crate::forge::bounded;
use crate::store::runs::FullRun;
use crate::store::{
    self, Connection, Store, StoreError, files, models, parents, projects, registry, retention,
    runs, versions,
};

/// Most versions of a model on one page.
const MOST_VERSIONS: u32 = 500;
/// Most changes of aliases on one page.
const MOST_CHANGES: u32 = 100;
/// Most files of a version that are shown.
const MOST_FILES: u32 = 10_000;
/// Most ancestors of a version that are shown, and most of what goes on from it.
const MOST_ANCESTORS: usize = 20;
const MOST_DESCENDANTS: u32 = 100;
/// Most models on one page.
const MOST_MODELS: u32 = 500;

/// Why the registry cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No such model.
    #[error("there is no model '{0}'; `trainyard models list` shows those that are there")]
    NoModel(String),
    /// No such version.
    #[error("model '{model}' has no {wanted}; `trainyard models show {model}` shows what it has")]
    NoVersion {
        /// The model.
        model: String,
        /// What was asked for.
        wanted: String,
    },
    /// It counts already.
    #[error("this is version {number} of '{model}' already")]
    NoCandidate {
        /// The model.
        model: String,
        /// Its number.
        number: u64,
    },
    /// Not an alias.
    #[error(
        "'{0}' is no alias: it wants a letter first, then letters, digits, '-', '_', '.'; not 'latest', nor a version such as v3"
    )]
    BadAlias(String),
    /// Nothing to go back to.
    #[error("alias '{alias}' of '{model}' has no earlier version to go back to")]
    NothingBefore {
        /// The model.
        model: String,
        /// The alias.
        alias: String,
    },
    /// It was removed.
    #[error("{wanted} of '{model}' was removed by {}: {}", removal.by, removal.why)]
    Removed {
        /// The model.
        model: String,
        /// What was asked for.
        wanted: String,
        /// Who removed it, and why.
        removal: Removal,
    },
    /// Something needs it.
    #[error(
        "{label} of '{model}' is needed: {by}. Move or take away aliases ('trainyard models alias'), and remove first what goes on from it"
    )]
    Needed {
        /// The model.
        model: String,
        /// The version.
        label: String,
        /// What needs it.
        by: String,
    },
    /// No job left it.
    #[error("{label} of '{model}' was left by no job: there is nothing to run once more")]
    NoJob {
        /// The model.
        model: String,
        /// The version.
        label: String,
    },
    /// Another job.
    #[error("job {job} is no reproduction of {label}; 'trainyard reproduce' makes one")]
    NoReproduction {
        /// The version, with its model.
        label: String,
        /// The job.
        job: JobId,
    },
    /// Nobody said why.
    #[error("say why it is removed: that is all that stays of it")]
    NoReason,
    /// No such file.
    #[error(
        "{label} of '{model}' has no file '{path}'; `trainyard models show {model} …` lists those that it has"
    )]
    NoFile {
        /// The model.
        model: String,
        /// The version.
        label: String,
        /// The path.
        path: String,
    },
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) type Result<T> = std::result::Result<T, RegistryError>;

/// The newest models; `before` is the last name of the page before.
pub async fn list(store: &Store, before: Option<&str>, limit: u32) -> Result<Page<Model>> {
    let mut db = store.read().await?;
    let limit = limit.clamp(1, MOST_MODELS);
    let before = match before {
        Some(name) => Some(own_row(&mut db, name).await?),
        None => None,
    };
    let rows = models::recent(&mut db, before.as_ref(), limit).await?;
    let next = (rows.len() == limit as usize)
        .then(|| rows.last().map(|row| row.name.clone()))
        .flatten();
    let items = shown(&mut db, rows).await?;
    Ok(Page { items, next })
}

async fn own_row(db: &mut Connection, name: &str) -> Result<models::Model> {
    models::find(db, name)
        .await?
        .ok_or_else(|| RegistryError::NoModel(bounded(name, 100)))
}

/// Models as people are shown them, in their order.
async fn shown(db: &mut Connection, rows: Vec<models::Model>) -> Result<Vec<Model>> {
    let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    let counts = models::counts(db, &names).await?;
    let mut latest = models::latest_of(db, &names).await?;
    let mut aliases = models::aliases_of(db, &names).await?;
    let projects = projects::all(db).await?;
    let project = |id: &ProjectId| {
        let found = projects.iter().find(|project| project.id == *id)?;
        Some(found.name.clone())
    };
    let model = |row: models::Model| {
        let (versions, candidates) = counts.get(&row.name).copied().unwrap_or_default();
        Model {
            project: row.project.as_ref().and_then(project),
            created_at: row.created_at,
            versions,
            candidates,
            latest: latest.remove(&row.name),
            aliases: aliases.remove(&row.name).unwrap_or_default(),
            name: row.name,
        }
    };
    Ok(rows.into_iter().map(model).collect())
}

/// One model with its versions.
pub async fn model(store: &Store, name: &str) -> Result<ModelDetail> {
    let mut db = store.read().await?;
    let row = own_row(&mut db, name).await?;
    let items = models::versions(&mut db, name, MOST_VERSIONS).await?;
    let mut model = shown(&mut db, vec![row]).await?;
    Ok(ModelDetail {
        best: best_candidate(&mut db, &items).await?,
        items,
        history: models::alias_changes(&mut db, name, MOST_CHANGES).await?,
        model: model.remove(0),
    })
}

/// The best of the candidates by the first metric of the newest one's pipeline file; of equal ones the newest.
async fn best_candidate(
    db: &mut Connection,
    items: &[Version],
) -> store::Result<Option<BestCandidate>> {
    let candidates = || {
        let waiting = items.iter();
        waiting.filter(|version| version.status == VersionStatus::Candidate)
    };
    let newest = candidates().find_map(|version| version.run.as_ref());
    let Some(run) = newest else { return Ok(None) };
    let Some(of_job) = registry::of_job(db, run).await? else {
        return Ok(None);
    };
    let first = of_job.first_metric.as_ref();
    let Some((metric, goal)) = first.and_then(|name| of_job.goals.get_key_value(name)) else {
        return Ok(None);
    };
    let measured = candidates().filter_map(|version| {
        let found = version.metrics.iter().find(|found| found.name == *metric);
        Some((version, found?.value))
    });
    Ok(
        best(*goal, measured).map(|(version, value, of)| BestCandidate {
            id: version.id.clone(),
            metric: metric.clone(),
            goal: *goal,
            value: Number(value),
            of,
        }),
    )
}

/// One version with all that is known of it.
pub async fn version(store: &Store, model: &str, wanted: &VersionRef) -> Result<VersionDetail> {
    let mut db = store.read().await?;
    detail(&mut db, model, wanted).await
}

pub(super) async fn detail(
    db: &mut Connection,
    model: &str,
    wanted: &VersionRef,
) -> Result<VersionDetail> {
    let version = resolve(db, model, wanted).await?;
    let (run, of_job) = match &version.run {
        Some(run) => (full_run(db, run).await?, registry::of_job(db, run).await?),
        None => (None, None),
    };
    let (lineage, goals) = of_job.map_or_else(Default::default, |of_job| {
        (Some(of_job.lineage), of_job.goals)
    });
    let (params, tags) = run.map_or_else(Default::default, |run| (run.params, run.tags));
    let points_here = |change: &AliasChange| {
        version.version.is_some()
            && (change.version == version.version || change.previous == version.version)
    };
    let history = models::alias_changes(db, model, MOST_CHANGES).await?;
    let history: Vec<AliasChange> = history.into_iter().filter(points_here).collect();
    Ok(VersionDetail {
        why: why::why(&version, &history),
        ancestors: ancestors(db, &version.id).await?,
        descendants: parents::children(db, &version.id, MOST_DESCENDANTS).await?,
        files: files_of(db, &version).await?,
        params: params.into_iter().collect(),
        tags: tags.into_iter().collect(),
        goals,
        lineage,
        history,
        version,
    })
}

/// What a version went on from, nearest first.
async fn ancestors(db: &mut Connection, version: &str) -> store::Result<Vec<Related>> {
    let mut found: Vec<Related> = Vec::new();
    let mut of = version.to_owned();
    while found.len() < MOST_ANCESTORS {
        let Some(parent) = parents::of_version(db, &of).await? else {
            break;
        };
        let Some(id) = parent.id.clone() else { break };
        of = id;
        found.push(parent);
    }
    Ok(found)
}

/// The files of a version: what a job's attempt left, or what lay there when its code registered it; of what a client
/// registered, what lies there now.
pub(super) async fn files_of(
    db: &mut Connection,
    version: &Version,
) -> store::Result<Vec<ModelFile>> {
    let own = models::files(db, &version.id).await?;
    if !own.is_empty() {
        return Ok(own);
    }
    let Some((owner, folder)) = location(db, version).await? else {
        return Ok(own);
    };
    let skip = if folder.is_empty() {
        0
    } else {
        folder.len() + 1
    };
    let kept = files::below(db, &owner, &folder, MOST_FILES).await?;
    let file = |file: files::KeptFile| ModelFile {
        path: file.path[skip..].to_owned(),
        blob: file.blob,
        size: file.size,
    };
    Ok(kept.into_iter().map(file).collect())
}

/// The owner and the folder of the files, where a client said so.
async fn location(
    db: &mut Connection,
    version: &Version,
) -> store::Result<Option<(String, String)>> {
    let Some(number) = version.version else {
        return Ok(None);
    };
    let row = versions::find(db, &version.model, number).await?;
    let location = row.and_then(|row| row.location);
    Ok(location.as_deref().and_then(source::kept_at))
}

async fn full_run(db: &mut Connection, id: &str) -> Result<Option<FullRun>> {
    let Some(run) = runs::find(db, id).await? else {
        return Ok(None);
    };
    Ok(runs::fill(db, vec![run]).await?.pop())
}

pub(super) async fn resolve(
    db: &mut Connection,
    model: &str,
    wanted: &VersionRef,
) -> Result<Version> {
    own_row(db, model).await?;
    let found = match wanted {
        VersionRef::Number(number) => models::by_number(db, model, *number).await?,
        VersionRef::Latest => models::latest(db, model).await?,
        VersionRef::Id(id) => models::by_id(db, model, id).await?,
        VersionRef::Alias(alias) => {
            let all = models::aliases(db, model).await?;
            match all.into_iter().find(|a| a.alias == *alias) {
                Some(alias) => models::by_number(db, model, alias.version).await?,
                None => None,
            }
        }
    };
    if let Some(found) = found {
        return Ok(found);
    }
    let removal = match wanted {
        VersionRef::Number(number) => retention::removed(db, model, "", Some(*number)).await?,
        VersionRef::Id(id) => retention::removed(db, model, id, None).await?,
        VersionRef::Latest | VersionRef::Alias(_) => None,
    };
    let model = model.to_owned();
    let wanted = match wanted {
        VersionRef::Number(number) => format!("version {number}"),
        VersionRef::Latest => "version yet".to_owned(),
        VersionRef::Id(id) => format!("candidate {id}"),
        VersionRef::Alias(alias) => format!("alias '{alias}'"),
    };
    Err(match removal {
        Some(removal) => RegistryError::Removed {
            model,
            wanted,
            removal,
        },
        None => RegistryError::NoVersion { model, wanted },
    })
}

/// One file of a version.
pub async fn file(
    store: &Store,
    model: &str,
    wanted: &VersionRef,
    path: &str,
) -> Result<ModelFile> {
    let mut db = store.read().await?;
    let version = resolve(&mut db, model, wanted).await?;
    let found = match location(&mut db, &version).await? {
        Some((owner, folder)) => {
            let below = match folder.as_str() {
                "" => path.to_owned(),
                folder => format!("{folder}/{path}"),
            };
            let kept = files::find(&mut db, &owner, &below).await?;
            kept.map(|file| ModelFile {
                path: path.to_owned(),
                blob: file.blob,
                size: file.size,
            })
        }
        None => models::file(&mut db, &version.id, path).await?,
    };
    found.ok_or_else(|| RegistryError::NoFile {
        model: model.to_owned(),
        label: version.label(),
        path: bounded(path, 200),
    })
}

/// Two versions side by side.
pub async fn compare_versions(
    store: &Store,
    model: &str,
    base: &VersionRef,
    now: &VersionRef,
) -> Result<Comparison> {
    let mut db = store.read().await?;
    let base = detail(&mut db, model, base).await?;
    let now = detail(&mut db, model, now).await?;
    Ok(compare(&base, &now))
}

/// Makes a candidate the model's next version.
pub async fn promote(
    store: &Store,
    model: &str,
    wanted: &VersionRef,
    by: &str,
    why: &str,
) -> Result<Version> {
    let mut tx = store.begin().await?;
    let candidate = resolve(&mut tx, model, wanted).await?;
    if let (VersionStatus::Version, Some(number)) = (candidate.status, candidate.version) {
        return Err(RegistryError::NoCandidate {
            model: model.to_owned(),
            number,
        });
    }
    let number = models::next_number(&mut tx, model).await?;
    let promotion = Promotion {
        by: bounded(by, 100),
        why: bounded(why, 1_000),
        at: Timestamp::now(),
    };
    models::promote(&mut tx, &candidate.id, number, &promotion).await?;
    let version = resolve(&mut tx, model, &VersionRef::Id(candidate.id)).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(version)
}

/// Points an alias to a version, or takes it away where `number` is none.
pub async fn set_alias(
    store: &Store,
    model: &str,
    alias: &str,
    number: Option<u64>,
    by: &str,
    why: &str,
) -> Result<AliasChange> {
    if !valid_alias(alias) {
        return Err(RegistryError::BadAlias(bounded(alias, 64)));
    }
    let mut tx = store.begin().await?;
    if let Some(number) = number {
        resolve(&mut tx, model, &VersionRef::Number(number)).await?;
    }
    let change = move_alias(&mut tx, model, alias, number, by, why).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(change)
}

async fn move_alias(
    db: &mut Connection,
    model: &str,
    alias: &str,
    number: Option<u64>,
    by: &str,
    why: &str,
) -> Result<AliasChange> {
    own_row(db, model).await?;
    let now = models::aliases(db, model).await?;
    let previous = now.iter().find(|a| a.alias == alias).map(|a| a.version);
    if number.is_none() && previous.is_none() {
        return Err(RegistryError::NoVersion {
            model: model.to_owned(),
            wanted: format!("alias '{alias}'"),
        });
    }
    let change = AliasChange {
        alias: alias.to_owned(),
        version: number,
        previous,
        by: bounded(by, 100),
        why: bounded(why, 1_000),
        at: Timestamp::now(),
    };
    models::change_alias(db, model, &change).await?;
    Ok(change)
}

/// Points an alias to where it pointed before its last move. Twice is back again.
pub async fn roll_back(
    store: &Store,
    model: &str,
    alias: &str,
    by: &str,
    why: &str,
) -> Result<AliasChange> {
    let mut tx = store.begin().await?;
    own_row(&mut tx, model).await?;
    let changes = models::changes_of_alias(&mut tx, model, alias, 1).await?;
    let before = changes
        .first()
        .and_then(|change| change.previous)
        .ok_or_else(|| RegistryError::NothingBefore {
            model: model.to_owned(),
            alias: bounded(alias, 64),
        })?;
    resolve(&mut tx, model, &VersionRef::Number(before)).await?;
    let change = move_alias(&mut tx, model, alias, Some(before), by, why).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(change)
}
