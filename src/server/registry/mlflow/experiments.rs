//! Calls about experiments.

use protocol::Timestamp;

use super::ask::{self, OneExperiment};
use super::page::Pages;
use super::told::{Done, ExperimentAnswer, ExperimentMade, ExperimentsFound};
use super::{Answer, Caller, Code, Fault, check, search};
use crate::store::experiments::{self as rows, Experiment};
use crate::store::{self, Connection};

/// Most experiments of a page.
const MOST: i64 = 1_000;

/// One experiment, deleted or not.
async fn find(db: &mut Connection, id: i64) -> Answer<Experiment> {
    rows::find(db, id)
        .await?
        .ok_or_else(|| Fault::missing(format!("there is no experiment with the id {id}")))
}

/// One experiment that is not deleted.
pub(super) async fn active(db: &mut Connection, id: i64) -> Answer<Experiment> {
    let found = find(db, id).await?;
    match found.deleted_at {
        None => Ok(found),
        Some(_) => Err(Fault::invalid(format!(
            "experiment {id} is deleted: restore it first"
        ))),
    }
}

/// Whether the caller may put tags on an experiment.
fn is_callers(caller: &Caller, id: i64) -> Answer<()> {
    if caller.experiment(id) != id {
        return Err(Fault::new(
            Code::Denied,
            format!("experiment {id} is not this job's"),
        ));
    }
    Ok(())
}

fn taken(name: &str) -> Fault {
    Fault::new(
        Code::Exists,
        format!(
            "there is an experiment {} already; a deleted one keeps its name",
            check::quoted(name)
        ),
    )
}

/// Makes an experiment. The runs of a job lie in the job's own: whatever its code asks for means that.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn create(caller: Caller, ask: ask::CreateExperiment) -> Answer<ExperimentMade> {
    let name = check::experiment_name("name", ask.name)?;
    let tags = check::experiment_tags(ask.tags)?;
    if ask.artifact_location.is_some_and(|place| !place.is_empty()) {
        return Err(Fault::invalid(
            "artifact_location cannot be chosen: this server keeps the files itself; leave it out",
        ));
    }
    let mut tx = caller.begin().await?;
    let id = match caller.home {
        Some(home) => home,
        None => {
            let made = rows::insert(&mut tx, &name, Timestamp::now()).await?;
            made.ok_or_else(|| taken(&name))?
        }
    };
    rows::set_tags(&mut tx, id, &tags).await?;
    caller
        .commit(
            tx,
            ExperimentMade {
                experiment_id: id.to_string(),
            },
        )
        .await
}

/// One experiment by its id.
pub async fn get(caller: Caller, ask: OneExperiment) -> Answer<ExperimentAnswer> {
    let id = check::experiment_id(ask.experiment_id)?;
    let mut db = caller.store.read().await?;
    if !caller.may_see(None) && caller.experiment(id) != id {
        return Err(Fault::missing(format!(
            "there is no experiment with the id {id}"
        )));
    }
    let experiment = find(&mut db, id).await?.into();
    Ok(ExperimentAnswer { experiment })
}

/// One experiment by its name.
pub async fn by_name(caller: Caller, ask: OneExperiment) -> Answer<ExperimentAnswer> {
    let name = check::wanted("experiment_name", ask.experiment_name)?;
    let mut db = caller.store.read().await?;
    let found = match caller.home {
        Some(home) => rows::find(&mut db, home).await?,
        None => rows::by_name(&mut db, &name).await?,
    };
    let found = found.ok_or_else(|| {
        Fault::missing(format!("there is no experiment {}", check::quoted(&name)))
    })?;
    Ok(ExperimentAnswer {
        experiment: found.into(),
    })
}

/// Renames an experiment.
pub async fn update(caller: Caller, ask: ask::UpdateExperiment) -> Answer<Done> {
    let id = check::experiment_id(ask.experiment_id)?;
    let name = check::experiment_name("new_name", ask.new_name)?;
    let mut tx = caller.begin().await?;
    active(&mut tx, id).await?;
    if !rows::rename(&mut tx, id, &name, Timestamp::now()).await? {
        return Err(taken(&name));
    }
    caller.commit(tx, Done {}).await
}

/// Deletes an experiment with its runs; all can be restored.
pub async fn delete(caller: Caller, ask: OneExperiment) -> Answer<Done> {
    set_deleted(caller, ask, true).await
}

/// Restores an experiment with its runs.
pub async fn restore(caller: Caller, ask: OneExperiment) -> Answer<Done> {
    set_deleted(caller, ask, false).await
}

async fn set_deleted(caller: Caller, ask: OneExperiment, deleted: bool) -> Answer<Done> {
    let id = check::experiment_id(ask.experiment_id)?;
    let (verb, state) = match deleted {
        true => ("delete", "active"),
        false => ("restore", "deleted"),
    };
    let mut tx = caller.begin().await?;
    let found = find(&mut tx, id).await?;
    if found.deleted_at.is_some() == deleted {
        return Err(Fault::missing(format!(
            "there is no {state} experiment with the id {id}"
        )));
    }
    rows::set_deleted(&mut tx, id, deleted, Timestamp::now()).await?;
    caller
        .write_down(&mut tx, format!("{verb} experiment {id}"))
        .await?;
    caller.commit(tx, Done {}).await
}

/// Sets a tag.
pub async fn set_tag(caller: Caller, ask: ask::ExperimentTag) -> Answer<Done> {
    let id = check::experiment_id(ask.experiment_id)?;
    let tag = ask::KeyValue {
        key: ask.key,
        value: ask.value,
    };
    let tags = check::experiment_tags(vec![tag])?;
    let mut tx = caller.begin().await?;
    active(&mut tx, id).await?;
    is_callers(&caller, id)?;
    rows::set_tags(&mut tx, id, &tags).await?;
    caller.commit(tx, Done {}).await
}

/// Takes a tag away.
pub async fn delete_tag(caller: Caller, ask: ask::ExperimentTag) -> Answer<Done> {
    let id = check::experiment_id(ask.experiment_id)?;
    let key = check::wanted("key", ask.key)?;
    let mut tx = caller.begin().await?;
    active(&mut tx, id).await?;
    is_callers(&caller, id)?;
    if !rows::remove_tag(&mut tx, id, &key).await? {
        return Err(Fault::missing(format!(
            "experiment {id} has no tag {}",
            check::quoted(&key)
        )));
    }
    caller.commit(tx, Done {}).await
}

/// Experiments for which a filter holds.
pub async fn find_all(caller: Caller, ask: ask::SearchExperiments) -> Answer<ExperimentsFound> {
    let view = search::view(ask.view_type.as_deref())?;
    let conditions = search::experiment_conditions(ask.filter.as_deref())?;
    let orders = search::experiment_orders(&ask.order_by)?;
    let of = format!("experiments {view:?} {conditions:?} {orders:?}");
    let pages = Pages::new(ask.max_results, MOST, 50_000, ask.page_token.as_deref(), of)?;
    let mut db = caller.store.read().await?;
    let found =
        store::search::experiments(&mut db, view, &conditions, &orders, pages.piece()).await?;
    let (found, next_page_token) = pages.cut(found);
    Ok(ExperimentsFound {
        experiments: found.into_iter().map(Into::into).collect(),
        next_page_token,
    })
}
