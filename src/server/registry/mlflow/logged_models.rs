//! Calls about logged models.

use protocol::Timestamp;

use super::ask;
use super::page::Pages;
use super::told::{Done, LoggedModelAnswer, LoggedModelsFound};
use super::{Answer, Caller, Code, Fault, check, experiments, place, runs, search};
use crate::store::logged_models::{self as rows, LoggedModel, LoggedModelStatus};
use crate::store::runs::{self as run_rows, Run};
use crate::store::search::{LoggedModelField, MeasuredOn, Order};
use crate::store::{self, Connection};

/// Logged models of a page where the client asks for nothing.
const USUAL: i64 = 100;
/// Most logged models of a page.
const MOST: i64 = 1_000;
/// Most tags and params of a call.
const MOST_PAIRS: usize = 1_000;
/// Most datasets that a search looks at.
const MOST_DATASETS: usize = 100;

/// One logged model that the caller may look at, and that is not deleted.
pub(super) async fn find(caller: &Caller, db: &mut Connection, id: &str) -> Answer<LoggedModel> {
    Ok(find_any(caller, db, id, false).await?.0)
}

/// A logged model, and the run that made it.
async fn find_any(
    caller: &Caller,
    db: &mut Connection,
    id: &str,
    deleted: bool,
) -> Answer<(LoggedModel, Option<Run>)> {
    let missing = || Fault::missing(format!("there is no logged model {}", check::quoted(id)));
    let found = match place::is_model_id(id) {
        true => rows::find(db, id).await?,
        false => None,
    };
    let model = found
        .filter(|model| deleted || model.deleted_at.is_none())
        .ok_or_else(missing)?;
    let run = match &model.run {
        Some(run) => run_rows::find(db, run).await?,
        None => None,
    };
    let writer = run.as_ref().and_then(|run| run.attempt.as_ref());
    match caller.may_see(writer) {
        true => Ok((model, run)),
        false => Err(missing()),
    }
}

/// One logged model whose state, params and files the caller may write: it is as much its run's as the run's own.
pub(super) async fn writable(
    caller: &Caller,
    db: &mut Connection,
    id: &str,
    deleted: bool,
) -> Answer<LoggedModel> {
    let (model, run) = find_any(caller, db, id, deleted).await?;
    match (&run, &caller.job) {
        (Some(run), _) => caller.may_write(run)?,
        (None, Some(_)) => {
            return Err(Fault::new(
                Code::Denied,
                format!("logged model {id} is not this job's"),
            ));
        }
        (None, None) => {}
    }
    Ok(model)
}

/// One logged model whose tags the caller may write.
async fn taggable(caller: &Caller, db: &mut Connection, id: &str) -> Answer<LoggedModel> {
    match &caller.job {
        Some(_) => writable(caller, db, id, false).await,
        None => find(caller, db, id).await,
    }
}

async fn answer(db: &mut Connection, model: LoggedModel) -> Answer<LoggedModelAnswer> {
    let full = rows::fill(db, vec![model]).await?.remove(0);
    Ok(LoggedModelAnswer { model: full.into() })
}

fn few(pairs: &[ask::KeyValue]) -> Answer<()> {
    if pairs.len() > MOST_PAIRS {
        return Err(Fault::invalid(format!(
            "a call has at most {MOST_PAIRS} tags and params"
        )));
    }
    Ok(())
}

/// Makes a logged model, whose files are to come.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn create(caller: Caller, ask: ask::CreateLoggedModel) -> Answer<LoggedModelAnswer> {
    let experiment = caller.experiment(check::experiment_id(ask.experiment_id)?);
    let id = format!("m-{}", runs::new_id());
    let given = |text: &String| !text.is_empty();
    let name = ask.name.filter(given);
    let name = name.unwrap_or_else(|| format!("model-{}", &id[2..10]));
    check::logged_model_name(&name)?;
    few(&ask.params)?;
    few(&ask.tags)?;
    let params = check::params(ask.params)?;
    let tags = check::tags(ask.tags)?;
    let kind = ask.model_type.filter(given);
    check::bounded_text("model_type", kind.as_deref().unwrap_or_default(), 500)?;
    // What a job's code logs outside of a run is its attempt's.
    let own = caller.job.as_ref().map(|job| job.run.clone());
    let run = ask.source_run_id.filter(given).or(own);
    let now = Timestamp::now();
    let mut tx = caller.begin().await?;
    experiments::active(&mut tx, experiment).await?;
    if let Some(run) = &run {
        runs::writable(&caller, &mut tx, run).await?;
    }
    let model = LoggedModel {
        id,
        experiment,
        name,
        kind,
        run,
        status: LoggedModelStatus::Pending,
        created_at: now,
        changed_at: now,
        deleted_at: None,
    };
    rows::insert(&mut tx, &model).await?;
    rows::add_params(&mut tx, &model.id, &params).await?;
    rows::set_tags(&mut tx, &model.id, &tags).await?;
    let answer = answer(&mut tx, model).await?;
    caller.commit(tx, answer).await
}

/// One logged model.
pub async fn get(
    caller: Caller,
    id: String,
    ask: ask::GetLoggedModel,
) -> Answer<LoggedModelAnswer> {
    let mut db = caller.store.read().await?;
    let deleted = ask.allow_deleted.unwrap_or(false);
    let (model, _) = find_any(&caller, &mut db, &id, deleted).await?;
    answer(&mut db, model).await
}

/// Says whether the files are there.
pub async fn finalize(
    caller: Caller,
    id: String,
    ask: ask::FinalizeLoggedModel,
) -> Answer<LoggedModelAnswer> {
    let status = match check::wanted("status", ask.status)?.as_str() {
        "LOGGED_MODEL_PENDING" | "1" => LoggedModelStatus::Pending,
        "LOGGED_MODEL_READY" | "2" => LoggedModelStatus::Ready,
        "LOGGED_MODEL_UPLOAD_FAILED" | "3" => LoggedModelStatus::Failed,
        other => {
            return Err(Fault::invalid(format!(
                "status {} is none of LOGGED_MODEL_PENDING, LOGGED_MODEL_READY and LOGGED_MODEL_UPLOAD_FAILED",
                check::quoted(other)
            )));
        }
    };
    let mut tx = caller.begin().await?;
    let mut model = writable(&caller, &mut tx, &id, false).await?;
    model.status = status;
    model.changed_at = Timestamp::now();
    rows::update(&mut tx, &model).await?;
    let answer = answer(&mut tx, model).await?;
    caller.commit(tx, answer).await
}

/// Deletes a logged model. Versions that were registered from it keep its files.
pub async fn delete(caller: Caller, id: String, _: ask::Nothing) -> Answer<Done> {
    let mut tx = caller.begin().await?;
    let mut model = writable(&caller, &mut tx, &id, true).await?;
    model.deleted_at = Some(Timestamp::now());
    model.changed_at = Timestamp::now();
    rows::update(&mut tx, &model).await?;
    caller
        .write_down(&mut tx, format!("delete logged model {id}"))
        .await?;
    caller.commit(tx, Done {}).await
}

/// Sets tags.
pub async fn set_tags(
    caller: Caller,
    id: String,
    ask: ask::LoggedModelPairs,
) -> Answer<LoggedModelAnswer> {
    few(&ask.tags)?;
    let tags = check::tags(ask.tags)?;
    let mut tx = caller.begin().await?;
    let model = taggable(&caller, &mut tx, &id).await?;
    rows::set_tags(&mut tx, &id, &tags).await?;
    let answer = answer(&mut tx, model).await?;
    caller.commit(tx, answer).await
}

/// Takes a tag away.
pub async fn delete_tag(caller: Caller, id: String, key: String) -> Answer<Done> {
    let key = check::wanted("key", Some(key))?;
    let mut tx = caller.begin().await?;
    taggable(&caller, &mut tx, &id).await?;
    if !rows::remove_tag(&mut tx, &id, &key).await? {
        return Err(Fault::missing(format!(
            "logged model {id} has no tag {}",
            check::quoted(&key)
        )));
    }
    caller.commit(tx, Done {}).await
}

/// Adds params.
pub async fn add_params(caller: Caller, id: String, ask: ask::LoggedModelPairs) -> Answer<Done> {
    few(&ask.params)?;
    let params = check::params(ask.params)?;
    let mut tx = caller.begin().await?;
    writable(&caller, &mut tx, &id, false).await?;
    if !rows::add_params(&mut tx, &id, &params).await? {
        return Err(Fault::new(
            Code::Invalid,
            format!(
                "logged model {id} has one of these params already, and a param does not change"
            ),
        ));
    }
    caller.commit(tx, Done {}).await
}

fn measured_on(name: Option<String>, digest: Option<String>) -> Answer<Option<MeasuredOn>> {
    let given = |text: &String| !text.is_empty();
    match (name.filter(given), digest.filter(given)) {
        (Some(name), digest) => Ok(Some(MeasuredOn { name, digest })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Fault::wanted("dataset_name")),
    }
}

fn order(term: ask::LoggedModelOrder) -> Answer<Order<LoggedModelField>> {
    let name = check::wanted("order_by.field_name", term.field_name)?;
    let dataset = measured_on(term.dataset_name, term.dataset_digest)?;
    let field = match name.split_once('.') {
        Some(("metrics", metric)) => {
            check::name("order_by.field_name", metric)?;
            Some(LoggedModelField::Metric(metric.to_owned(), dataset))
        }
        Some(_) => None,
        None => search::logged_model_attribute(name.trim()),
    };
    let field = field.ok_or_else(|| {
        Fault::invalid(format!(
            "logged models are not sorted by {}: by metrics.KEY or an attribute",
            check::quoted(&name)
        ))
    })?;
    Ok(Order {
        field,
        descending: !term.ascending.unwrap_or(true),
    })
}

/// Logged models for which a filter holds.
pub async fn find_all(caller: Caller, ask: ask::SearchLoggedModels) -> Answer<LoggedModelsFound> {
    if ask.experiment_ids.is_empty() {
        return Err(Fault::wanted("experiment_ids"));
    }
    let experiments = runs::experiment_ids(&ask.experiment_ids)?;
    let conditions = search::logged_model_conditions(ask.filter.as_deref())?;
    if ask.datasets.len() > MOST_DATASETS || ask.order_by.len() > MOST_DATASETS {
        return Err(Fault::invalid(format!(
            "a search has at most {MOST_DATASETS} datasets and terms of an order"
        )));
    }
    let datasets = ask.datasets.into_iter().map(|one| {
        measured_on(one.dataset_name, one.dataset_digest)?
            .ok_or_else(|| Fault::wanted("datasets.dataset_name"))
    });
    let datasets = datasets.collect::<Answer<Vec<_>>>()?;
    let orders = ask.order_by.into_iter().map(order);
    let orders = orders.collect::<Answer<Vec<_>>>()?;
    let of = format!("logged models {experiments:?} {datasets:?} {conditions:?} {orders:?}");
    let wanted = ask.max_results.filter(|wanted| *wanted != 0);
    let pages = Pages::new(wanted, USUAL, MOST, ask.page_token.as_deref(), of)?;
    let mut db = caller.store.read().await?;
    let piece = pages.piece();
    let found = store::search::logged_models(
        &mut db,
        &experiments,
        &datasets,
        &conditions,
        &orders,
        piece,
    )
    .await?;
    let (found, next_page_token) = pages.cut(found);
    let full = rows::fill(&mut db, found).await?;
    Ok(LoggedModelsFound {
        models: full.into_iter().map(Into::into).collect(),
        next_page_token,
    })
}
