//! Calls about registered models and their aliases.

use std::collections::HashMap;

use protocol::Timestamp;
use protocol::registry::{AliasChange, valid_alias};

use super::ask::{self, OneModel};
use super::page::Pages;
use super::told::{
    self, Alias, Done, ModelAnswer, ModelsFound, RegisteredModel, VersionAnswer, VersionsFound,
};
use super::{Answer, Caller, Code, Fault, check, registering, search, versions};
use crate::store::models::{self as rows, Model};
use crate::store::versions::{self as version_rows, Stage};
use crate::store::{self, Connection, parents as parent_rows};

/// Models of a page where the client asks for nothing.
const USUAL: i64 = 100;
/// Most models of a page.
const MOST: i64 = 1_000;
/// What the history of aliases says of a change that came over MLflow's API, which has no field for a reason.
const WHY: &str = "by a client of MLflow's";

/// One registered model.
pub(super) async fn find(db: &mut Connection, name: &str) -> Answer<Model> {
    rows::find(db, name).await?.ok_or_else(|| {
        Fault::missing(format!(
            "there is no registered model {}",
            check::quoted(name)
        ))
    })
}

/// Reads all that belongs to these models, in their order.
async fn fill(db: &mut Connection, list: Vec<Model>) -> Answer<Vec<RegisteredModel>> {
    let names: Vec<String> = list.iter().map(|model| model.name.clone()).collect();
    let mut tags = version_rows::model_tags(db, &names).await?;
    let latest = version_rows::latest(db, &names).await?;
    let mut aliases = rows::aliases_of(db, &names).await?;
    let mut latest_of: HashMap<String, Vec<told::ModelVersion>> = HashMap::new();
    for version in versions::fill(db, latest).await? {
        latest_of
            .entry(version.name.clone())
            .or_default()
            .push(version);
    }
    let mut all = Vec::with_capacity(list.len());
    for model in list {
        let aliases = aliases.remove(&model.name).unwrap_or_default().into_iter();
        let alias = |alias: protocol::registry::Alias| Alias {
            alias: alias.alias,
            version: alias.version.to_string(),
        };
        all.push(RegisteredModel {
            creation_timestamp: model.created_at.0,
            last_updated_timestamp: model.changed_at.0,
            description: model.description.filter(|text| !text.is_empty()),
            // A version in the list has no aliases of its own: they stand beside it.
            latest_versions: latest_of
                .remove(&model.name)
                .unwrap_or_default()
                .into_iter()
                .map(|version| told::ModelVersion {
                    aliases: Vec::new(),
                    ..version
                })
                .collect(),
            tags: told::key_values(tags.remove(&model.name).unwrap_or_default()),
            aliases: aliases.map(alias).collect(),
            name: model.name,
        });
    }
    Ok(all)
}

async fn answer(db: &mut Connection, name: &str) -> Answer<ModelAnswer> {
    let model = find(db, name).await?;
    let registered_model = fill(db, vec![model]).await?.remove(0);
    Ok(ModelAnswer { registered_model })
}

pub(super) fn taken(name: &str) -> Fault {
    Fault::new(
        Code::Exists,
        format!(
            "there is a registered model {} already",
            check::quoted(name)
        ),
    )
}

/// Makes a registered model; one that a client outside of jobs makes belongs to no project.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn create(caller: Caller, ask: ask::CreateModel) -> Answer<ModelAnswer> {
    let name = check::model_name("name", ask.name)?;
    let tags = check::model_tags(ask.tags)?;
    let description = ask.description.filter(|text| !text.is_empty());
    check::description(description.as_deref().unwrap_or_default())?;
    let now = Timestamp::now();
    let model = Model {
        name: name.clone(),
        project: None,
        description,
        created_at: now,
        changed_at: now,
    };
    if let Some(job) = &caller.job {
        return registering::model(&caller, job, model).await;
    }
    let mut tx = caller.begin().await?;
    if !rows::insert(&mut tx, &model).await? {
        return Err(taken(&name));
    }
    version_rows::set_model_tags(&mut tx, &name, &tags).await?;
    let answer = answer(&mut tx, &name).await?;
    caller.commit(tx, answer).await
}

/// One registered model.
pub async fn get(caller: Caller, ask: OneModel) -> Answer<ModelAnswer> {
    let name = check::model_name("name", ask.name)?;
    answer(&mut *caller.store.read().await?, &name).await
}

/// Says something else of a model.
pub async fn update(caller: Caller, ask: OneModel) -> Answer<ModelAnswer> {
    let name = check::model_name("name", ask.name)?;
    let description = ask.description.as_deref().unwrap_or_default();
    check::description(description)?;
    let mut tx = caller.begin().await?;
    find(&mut tx, &name).await?;
    version_rows::describe(&mut tx, &name, Some(description), Timestamp::now()).await?;
    let answer = answer(&mut tx, &name).await?;
    caller.commit(tx, answer).await
}

/// A model that a project's jobs fill is theirs by its name.
fn not_a_projects(model: &Model, verb: &str) -> Answer<()> {
    if model.project.is_some() {
        return Err(Fault::new(
            Code::Denied,
            format!(
                "model {} is filled by a project's jobs: it cannot be {verb} from here",
                check::quoted(&model.name)
            ),
        ));
    }
    Ok(())
}

/// Gives a model another name.
pub async fn rename(caller: Caller, ask: OneModel) -> Answer<ModelAnswer> {
    let name = check::model_name("name", ask.name)?;
    let new_name = check::model_name("new_name", ask.new_name)?;
    let mut tx = caller.begin().await?;
    not_a_projects(&find(&mut tx, &name).await?, "renamed")?;
    if new_name != name {
        if rows::find(&mut tx, &new_name).await?.is_some() {
            return Err(taken(&new_name));
        }
        version_rows::rename(&mut tx, &name, &new_name, Timestamp::now()).await?;
    }
    let action = format!("rename model {name} to {new_name}");
    caller.write_down(&mut tx, action).await?;
    let answer = answer(&mut tx, &new_name).await?;
    caller.commit(tx, answer).await
}

/// Removes a model with its versions, for good.
pub async fn delete(caller: Caller, ask: OneModel) -> Answer<Done> {
    let name = check::model_name("name", ask.name)?;
    let mut tx = caller.begin().await?;
    not_a_projects(&find(&mut tx, &name).await?, "deleted")?;
    if parent_rows::any_of_model(&mut tx, &name).await? {
        return Err(Fault::new(
            Code::Denied,
            format!("jobs went on from versions of '{name}': it cannot be deleted"),
        ));
    }
    version_rows::remove_model(&mut tx, &name).await?;
    caller
        .write_down(&mut tx, format!("delete model {name}"))
        .await?;
    caller.commit(tx, Done {}).await
}

/// The newest version of each stage, or of the stages that are asked for.
pub async fn latest_versions(caller: Caller, ask: OneModel) -> Answer<VersionsFound> {
    let name = check::model_name("name", ask.name)?;
    let stages = ask.stages.iter().map(|stage| versions::stage(stage));
    let stages = stages.collect::<Answer<Vec<Stage>>>()?;
    let mut db = caller.store.read().await?;
    find(&mut db, &name).await?;
    let mut found = version_rows::latest(&mut db, &[name]).await?;
    found.retain(|version| stages.is_empty() || stages.contains(&version.stage));
    Ok(VersionsFound {
        model_versions: versions::fill(&mut db, found).await?,
        next_page_token: None,
    })
}

/// Models for which a filter holds.
pub async fn find_all(caller: Caller, ask: ask::SearchModels) -> Answer<ModelsFound> {
    let conditions = search::model_conditions(ask.filter.as_deref())?;
    let orders = search::model_orders(&ask.order_by)?;
    let of = format!("models {conditions:?} {orders:?}");
    let pages = Pages::new(ask.max_results, USUAL, MOST, ask.page_token.as_deref(), of)?;
    let mut db = caller.store.read().await?;
    let found = match conditions {
        Some(conditions) => {
            store::search::models(&mut db, &conditions, &orders, pages.piece()).await?
        }
        None => Vec::new(),
    };
    let (found, next_page_token) = pages.cut(found);
    Ok(ModelsFound {
        registered_models: fill(&mut db, found).await?,
        next_page_token,
    })
}

/// Sets a tag.
pub async fn set_tag(caller: Caller, ask: ask::ModelTag) -> Answer<Done> {
    let name = check::model_name("name", ask.name)?;
    let (key, value) = (ask.key, ask.value);
    let tags = check::model_tags(vec![ask::KeyValue { key, value }])?;
    let mut tx = caller.begin().await?;
    find(&mut tx, &name).await?;
    version_rows::set_model_tags(&mut tx, &name, &tags).await?;
    caller.commit(tx, Done {}).await
}

/// Takes a tag away; one that is not there is fine.
pub async fn delete_tag(caller: Caller, ask: ask::ModelTag) -> Answer<Done> {
    let name = check::model_name("name", ask.name)?;
    let key = check::wanted("key", ask.key)?;
    let mut tx = caller.begin().await?;
    find(&mut tx, &name).await?;
    version_rows::remove_model_tag(&mut tx, &name, &key).await?;
    caller.commit(tx, Done {}).await
}

fn alias_name(alias: Option<String>) -> Answer<String> {
    let alias = check::wanted("alias", alias)?;
    if !valid_alias(&alias) {
        return Err(Fault::invalid(format!(
            "{} is no alias: a letter first, then letters, digits, '-', '_', '.'; not 'latest', nor a version such as v3",
            check::quoted(&alias)
        )));
    }
    Ok(alias)
}

/// Points an alias to a version.
pub async fn set_alias(caller: Caller, ask: ask::ModelAlias) -> Answer<Done> {
    let name = check::model_name("name", ask.name)?;
    let alias = alias_name(ask.alias)?;
    let number = check::number(ask.version)?;
    let mut tx = caller.begin().await?;
    versions::find(&mut tx, &name, number).await?;
    move_alias(&mut tx, &caller, &name, alias, Some(number)).await?;
    caller.commit(tx, Done {}).await
}

/// Takes an alias away; one that is not there is fine.
pub async fn delete_alias(caller: Caller, ask: ask::ModelAlias) -> Answer<Done> {
    let name = check::model_name("name", ask.name)?;
    let alias = check::wanted("alias", ask.alias)?;
    let mut tx = caller.begin().await?;
    find(&mut tx, &name).await?;
    move_alias(&mut tx, &caller, &name, alias, None).await?;
    caller.commit(tx, Done {}).await
}

/// Moves an alias and keeps who did it; nothing happens where it points there already.
pub(super) async fn move_alias(
    tx: &mut store::Transaction,
    caller: &Caller,
    name: &str,
    alias: String,
    version: Option<u64>,
) -> Answer<()> {
    let now = rows::aliases(tx, name).await?;
    let previous = now.iter().find(|a| a.alias == alias).map(|a| a.version);
    if previous == version {
        return Ok(());
    }
    let action = match version {
        Some(version) => format!("alias {name}@{alias} to version {version}"),
        None => format!("take away alias {name}@{alias}"),
    };
    let change = AliasChange {
        alias,
        version,
        previous,
        by: caller.by.clone(),
        why: WHY.to_owned(),
        at: Timestamp::now(),
    };
    rows::change_alias(tx, name, &change).await?;
    caller.write_down(tx, action).await?;
    Ok(())
}

/// The version that an alias points to.
pub async fn by_alias(caller: Caller, ask: ask::ModelAlias) -> Answer<VersionAnswer> {
    let name = check::model_name("name", ask.name)?;
    let alias = check::wanted("alias", ask.alias)?;
    let mut db = caller.store.read().await?;
    find(&mut db, &name).await?;
    let number = versions::of_alias(&mut db, &name, &alias).await?;
    let version = versions::find(&mut db, &name, number).await?;
    versions::answer(&mut db, version).await
}
