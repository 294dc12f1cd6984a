//! Calls about the versions of registered models.

use std::collections::BTreeSet;

use protocol::Timestamp;
use ulid::Ulid;

use super::ask::{self, OneVersion};
use super::page::Pages;
use super::place::{Owner, is_run_id};
use super::registering::{self, Wanted};
use super::source::{self, Source};
use super::told::{self, Done, DownloadUri, VersionAnswer, VersionsFound};
use super::{Answer, Caller, Code, Fault, check, logged_models, models, runs, search};
use crate::store::logged_models as logged_model_rows;
use crate::store::versions::{self as rows, ModelVersion, Stage};
use crate::store::{self, Connection, models as model_rows, parents};

/// Versions of a page where the client asks for nothing.
const USUAL: i64 = 10_000;
/// Most versions of a page.
const MOST: i64 = 50_000;
/// The tag of a logged model that says as which versions it was registered.
const VERSIONS_TAG: &str = "mlflow.modelVersions";

/// One version by its number.
pub(super) async fn find(db: &mut Connection, model: &str, number: u64) -> Answer<ModelVersion> {
    rows::find(db, model, number).await?.ok_or_else(|| {
        Fault::missing(format!(
            "registered model {} has no version {number}",
            check::quoted(model)
        ))
    })
}

/// The number of the version that an alias points to; `latest` is the highest.
pub(super) async fn of_alias(db: &mut Connection, model: &str, alias: &str) -> Answer<u64> {
    if alias.eq_ignore_ascii_case("latest") {
        let latest = model_rows::latest(db, model).await?;
        return latest.and_then(|latest| latest.version).ok_or_else(|| {
            Fault::missing(format!(
                "registered model {} has no version yet",
                check::quoted(model)
            ))
        });
    }
    let all = model_rows::aliases(db, model).await?;
    let found = all.into_iter().find(|one| one.alias == alias);
    found.map(|one| one.version).ok_or_else(|| {
        Fault::invalid(format!(
            "registered model {} has no alias {}",
            check::quoted(model),
            check::quoted(alias)
        ))
    })
}

/// Reads all that belongs to these versions, in their order.
pub(super) async fn fill(
    db: &mut Connection,
    list: Vec<ModelVersion>,
) -> Answer<Vec<told::ModelVersion>> {
    let ids: Vec<String> = list.iter().map(|version| version.id.clone()).collect();
    let mut tags = rows::tags(db, &ids).await?;
    let models: BTreeSet<&String> = list.iter().map(|version| &version.model).collect();
    let models: Vec<String> = models.into_iter().cloned().collect();
    let aliases = model_rows::aliases_of(db, &models).await?;
    let mut all = Vec::with_capacity(list.len());
    for version in list {
        let mine = aliases.get(&version.model).into_iter().flatten();
        let mine = mine.filter(|alias| alias.version == version.number);
        let mine = mine.map(|alias| alias.alias.clone()).collect();
        let tags = tags.remove(&version.id).unwrap_or_default();
        all.push(told::version(version, tags, mine));
    }
    Ok(all)
}

/// A version as it is told.
pub(super) async fn answer(db: &mut Connection, version: ModelVersion) -> Answer<VersionAnswer> {
    let model_version = fill(db, vec![version]).await?.remove(0);
    Ok(VersionAnswer { model_version })
}

/// MLflow's stages, whatever their case.
pub(super) fn stage(text: &str) -> Answer<Stage> {
    match text.to_ascii_lowercase().as_str() {
        "none" => Ok(Stage::None),
        "staging" => Ok(Stage::Staging),
        "production" => Ok(Stage::Production),
        "archived" => Ok(Stage::Archived),
        _ => Err(Fault::invalid(format!(
            "stage {} is none of None, Staging, Production and Archived",
            check::quoted(text)
        ))),
    }
}

/// Where the files of a new version lie, and what made them.
struct Origin {
    source: String,
    location: String,
    run: Option<String>,
    logged_model: Option<String>,
}

fn elsewhere(source: &str, field: &str) -> Fault {
    Fault::invalid(format!(
        "source {} is not inside what {field} names",
        check::quoted(source)
    ))
}

/// What a source means, with the run and the logged model that the call names: it has to lie in one of them.
async fn origin(
    caller: &Caller,
    db: &mut Connection,
    text: String,
    run: Option<String>,
    model: Option<String>,
) -> Answer<Origin> {
    match source::read(&text)? {
        Source::Run { run: named } => {
            if run.as_deref() != Some(named.as_str()) || model.is_some() {
                return Err(elsewhere(&text, "run_id"));
            }
            runs::active(caller, db, &named)
                .await
                .map_err(|_| elsewhere(&text, "run_id"))?;
            Ok(Origin {
                location: text.clone(),
                source: text,
                run,
                logged_model: None,
            })
        }
        Source::LoggedModel(named) => {
            if model.as_deref() != Some(named.as_str()) {
                return Err(elsewhere(&text, "model_id"));
            }
            let found = logged_models::find(caller, db, &named).await;
            let found = found.map_err(|_| elsewhere(&text, "model_id"))?;
            let owner = Owner::Model {
                experiment: found.experiment,
                model: found.id,
            };
            Ok(Origin {
                source: text,
                location: owner.uri(),
                run: run.or(found.run),
                logged_model: Some(named),
            })
        }
        Source::Files(place) => {
            let (named, field) = match &place.owner {
                Owner::Run { run: named, .. } => {
                    (run.as_deref() == Some(named) && model.is_none(), "run_id")
                }
                Owner::Model { model: named, .. } => (model.as_deref() == Some(named), "model_id"),
            };
            if !named || !is_there(caller, db, &place.owner).await {
                return Err(elsewhere(&text, field));
            }
            Ok(Origin {
                location: text.clone(),
                source: text,
                run,
                logged_model: model,
            })
        }
        Source::Version {
            model: name,
            number,
        } => {
            sees_models(caller, &text)?;
            let number = check::number(Some(number))?;
            copied(db, &text, &name, number, run, model).await
        }
        Source::Alias { model: name, alias } => {
            sees_models(caller, &text)?;
            models::find(db, &name).await?;
            let number = of_alias(db, &name, &alias).await?;
            copied(db, &text, &name, number, run, model).await
        }
    }
}

/// Code that nobody trusts looks at no model: it is not told which there are.
fn sees_models(caller: &Caller, source: &str) -> Answer<()> {
    match caller.may_see(None) {
        true => Ok(()),
        false => Err(elsewhere(source, "run_id")),
    }
}

/// Whether the owner of files is there for this caller, in the experiment that the path names.
async fn is_there(caller: &Caller, db: &mut Connection, owner: &Owner) -> bool {
    match owner {
        Owner::Run { experiment, run } => {
            let found = runs::find(caller, db, run).await;
            found.is_ok_and(|run| run.experiment == *experiment)
        }
        Owner::Model { experiment, model } => {
            let found = logged_models::find(caller, db, model).await;
            found.is_ok_and(|model| model.experiment == *experiment)
        }
    }
}

/// A version of another model, registered again: it has the other's run and files.
async fn copied(
    db: &mut Connection,
    text: &str,
    name: &str,
    number: u64,
    run: Option<String>,
    model: Option<String>,
) -> Answer<Origin> {
    let version = find(db, name, number).await?;
    let made_by = version.run.as_ref().map(|(run, _)| run.clone());
    if model.is_some() || run.is_some() && run != made_by {
        return Err(elsewhere(text, "run_id"));
    }
    Ok(Origin {
        source: format!("models:/{name}/{number}"),
        location: told::location(&version),
        run: made_by,
        logged_model: None,
    })
}

/// Registers a version.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn create(caller: Caller, ask: ask::CreateVersion) -> Answer<VersionAnswer> {
    let name = check::model_name("name", ask.name)?;
    let source = check::wanted("source", ask.source)?;
    let tags = check::model_tags(ask.tags)?;
    let given = |text: &String| !text.is_empty();
    let description = ask.description.unwrap_or_default();
    check::description(&description)?;
    let run_link = ask.run_link.unwrap_or_default();
    check::bounded_text("run_link", &run_link, 500)?;
    let run = ask.run_id.filter(given);
    if let Some(run) = run.as_deref().filter(|run| !is_run_id(run)) {
        return Err(Fault::invalid(format!(
            "run_id {} is no run's",
            check::quoted(run)
        )));
    }
    let now = Timestamp::now();
    let mut tx = caller.begin().await?;
    if caller.may_see(None) {
        models::find(&mut tx, &name).await?;
    }
    let origin = origin(&caller, &mut tx, source, run, ask.model_id.filter(given)).await?;
    let run = match origin.run {
        Some(run) => Some(runs::find(&caller, &mut tx, &run).await?),
        None => None,
    };
    if let Some(job) = &caller.job {
        let wanted = Wanted {
            name,
            source: origin.source,
            location: origin.location,
            run,
            run_link,
            description,
            tags,
        };
        return registering::version(&caller, job, tx, wanted).await;
    }
    let version = ModelVersion {
        id: Ulid::generate().to_string().to_lowercase(),
        number: model_rows::next_number(&mut tx, &name).await?,
        run: run.map(|run| (run.id, run.experiment)),
        source: Some(origin.source),
        location: Some(origin.location),
        run_link: Some(run_link),
        description: Some(description),
        stage: Stage::None,
        created_at: now,
        changed_at: now,
        deleted_at: None,
        of_job: false,
        model: name,
    };
    rows::insert(&mut tx, &version).await?;
    rows::set_tags(&mut tx, &version.id, &tags).await?;
    rows::touch(&mut tx, &version.model, now).await?;
    if let Some(model) = &origin.logged_model {
        note_version(&mut tx, model, &version).await?;
    }
    let answer = answer(&mut tx, version).await?;
    caller.commit(tx, answer).await
}

/// A logged model says in a tag as which versions it was registered.
async fn note_version(db: &mut Connection, model: &str, version: &ModelVersion) -> Answer<()> {
    let before = logged_model_rows::tag(db, model, VERSIONS_TAG).await?;
    let mut all: Vec<serde_json::Value> = before
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    all.push(serde_json::json!({"name": version.model, "version": version.number}));
    let value = serde_json::Value::Array(all).to_string();
    let tags = [(VERSIONS_TAG.to_owned(), value)];
    logged_model_rows::set_tags(db, model, &tags).await?;
    Ok(())
}

/// One version.
pub async fn get(caller: Caller, ask: OneVersion) -> Answer<VersionAnswer> {
    let (name, number) = (
        check::model_name("name", ask.name)?,
        check::number(ask.version)?,
    );
    let mut db = caller.store.read().await?;
    let version = find(&mut db, &name, number).await?;
    answer(&mut db, version).await
}

/// Where a version's files lie.
pub async fn download_uri(caller: Caller, ask: OneVersion) -> Answer<DownloadUri> {
    let (name, number) = (
        check::model_name("name", ask.name)?,
        check::number(ask.version)?,
    );
    let mut db = caller.store.read().await?;
    let version = find(&mut db, &name, number).await?;
    Ok(DownloadUri {
        artifact_uri: told::location(&version),
    })
}

/// Says something else of a version.
pub async fn update(caller: Caller, ask: OneVersion) -> Answer<VersionAnswer> {
    let (name, number) = (
        check::model_name("name", ask.name)?,
        check::number(ask.version)?,
    );
    check::description(ask.description.as_deref().unwrap_or_default())?;
    let mut tx = caller.begin().await?;
    let mut version = find(&mut tx, &name, number).await?;
    version.description = ask.description;
    version.changed_at = Timestamp::now();
    rows::update(&mut tx, &version).await?;
    let answer = answer(&mut tx, version).await?;
    caller.commit(tx, answer).await
}

/// Moves a version to a stage.
pub async fn transition(caller: Caller, ask: OneVersion) -> Answer<VersionAnswer> {
    let (name, number) = (
        check::model_name("name", ask.name)?,
        check::number(ask.version)?,
    );
    let stage = stage(&check::wanted("stage", ask.stage)?)?;
    let archive = ask.archive_existing_versions.unwrap_or(false);
    if archive && !matches!(stage, Stage::Staging | Stage::Production) {
        return Err(Fault::invalid(
            "archive_existing_versions goes with the stages Staging and Production only",
        ));
    }
    let mut tx = caller.begin().await?;
    let mut version = find(&mut tx, &name, number).await?;
    version.stage = stage;
    version.changed_at = Timestamp::now();
    rows::update(&mut tx, &version).await?;
    if archive {
        rows::archive_others(&mut tx, &version).await?;
    }
    rows::touch(&mut tx, &name, version.changed_at).await?;
    caller
        .write_down(&mut tx, format!("stage {name} {number} as {stage:?}"))
        .await?;
    let answer = answer(&mut tx, version).await?;
    caller.commit(tx, answer).await
}

/// Deletes a version, and the aliases that point to it. Its number is not used again.
pub async fn delete(caller: Caller, ask: OneVersion) -> Answer<Done> {
    let (name, number) = (
        check::model_name("name", ask.name)?,
        check::number(ask.version)?,
    );
    let now = Timestamp::now();
    let mut tx = caller.begin().await?;
    let mut version = find(&mut tx, &name, number).await?;
    if version.of_job {
        return Err(Fault::new(
            Code::Denied,
            format!(
                "version {number} of '{name}' was left by a job of this server: it cannot be deleted from here"
            ),
        ));
    }
    if !parents::children(&mut tx, &version.id, 1).await?.is_empty() {
        return Err(Fault::new(
            Code::Denied,
            format!("a training went on from version {number} of '{name}': it cannot be deleted"),
        ));
    }
    for alias in model_rows::aliases(&mut tx, &name).await? {
        if alias.version == number {
            models::move_alias(&mut tx, &caller, &name, alias.alias, None).await?;
        }
    }
    version.deleted_at = Some(now);
    version.changed_at = now;
    rows::update(&mut tx, &version).await?;
    rows::touch(&mut tx, &name, now).await?;
    caller
        .write_down(&mut tx, format!("delete version {number} of {name}"))
        .await?;
    caller.commit(tx, Done {}).await
}

/// Versions for which a filter holds.
pub async fn find_all(caller: Caller, ask: ask::SearchModels) -> Answer<VersionsFound> {
    let conditions = search::version_conditions(ask.filter.as_deref())?;
    let orders = search::version_orders(&ask.order_by)?;
    let of = format!("versions {conditions:?} {orders:?}");
    // Clients ask for 200,000 at once where they mean all.
    let wanted = ask.max_results.map(|wanted| match wanted {
        wanted if wanted <= 200_000 => wanted.min(MOST),
        more => more,
    });
    let pages = Pages::new(wanted, USUAL, MOST, ask.page_token.as_deref(), of)?;
    let mut db = caller.store.read().await?;
    let found = match conditions {
        Some(conditions) => {
            store::search::versions(&mut db, &conditions, &orders, pages.piece()).await?
        }
        None => Vec::new(),
    };
    let (found, next_page_token) = pages.cut(found);
    Ok(VersionsFound {
        model_versions: fill(&mut db, found).await?,
        next_page_token,
    })
}

/// Sets a tag.
pub async fn set_tag(caller: Caller, ask: ask::VersionTag) -> Answer<Done> {
    let (name, number) = (
        check::model_name("name", ask.name)?,
        check::number(ask.version)?,
    );
    let (key, value) = (ask.key, ask.value);
    let tags = check::model_tags(vec![ask::KeyValue { key, value }])?;
    let mut tx = caller.begin().await?;
    let version = find(&mut tx, &name, number).await?;
    rows::set_tags(&mut tx, &version.id, &tags).await?;
    caller.commit(tx, Done {}).await
}

/// Takes a tag away; one that is not there is fine.
pub async fn delete_tag(caller: Caller, ask: ask::VersionTag) -> Answer<Done> {
    let (name, number) = (
        check::model_name("name", ask.name)?,
        check::number(ask.version)?,
    );
    let key = check::wanted("key", ask.key)?;
    let mut tx = caller.begin().await?;
    let version = find(&mut tx, &name, number).await?;
    rows::remove_tag(&mut tx, &version.id, &key).await?;
    caller.commit(tx, Done {}).await
}
