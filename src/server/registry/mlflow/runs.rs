//! Calls about runs: their beginning, their end, and searches. What they log is in [`super::logging`].

use protocol::Timestamp;

use super::ask::{self, OneRun};
use super::page::Pages;
use super::told::{Done, RunAnswer, RunChanged, RunsFound};
use super::{Answer, Caller, Code, Fault, check, experiments, place, search};
use crate::store::runs::{self as rows, Run, RunStatus};
use crate::store::{self, Connection, experiments::DEFAULT};

/// Runs of a page where the client asks for nothing.
const USUAL: i64 = 1_000;
/// Most runs of a page.
const MOST: i64 = 50_000;
/// Most experiments of a search.
const MOST_EXPERIMENTS: usize = 10_000;
/// The tag that is a run's name.
pub(super) const NAME_TAG: &str = "mlflow.runName";
/// The tag that says whose a run is.
const PERSON_TAG: &str = "mlflow.user";

/// One run that the caller may look at, deleted or not.
pub(super) async fn find(caller: &Caller, db: &mut Connection, id: &str) -> Answer<Run> {
    let found = match place::is_run_id(id) {
        true => rows::find(db, id).await?,
        false => None,
    };
    let found = found.filter(|run| caller.may_see(run.attempt.as_ref()));
    found.ok_or_else(|| Fault::missing(format!("there is no run {}", check::quoted(id))))
}

/// One run that is not deleted.
pub(super) async fn active(caller: &Caller, db: &mut Connection, id: &str) -> Answer<Run> {
    let run = find(caller, db, id).await?;
    match run.deleted_at {
        None => Ok(run),
        Some(_) => Err(Fault::invalid(format!(
            "run {id} is deleted: restore it first"
        ))),
    }
}

/// One run whose measures its caller may add to.
pub(super) async fn writable(caller: &Caller, db: &mut Connection, id: &str) -> Answer<Run> {
    let run = active(caller, db, id).await?;
    caller.may_write(&run)?;
    Ok(run)
}

/// Whether this is the run of the attempt that asks: its beginning and its end are the attempt's.
fn is_callers_own(caller: &Caller, run: &Run) -> bool {
    let own = caller.job.as_ref().map(|job| job.run.as_str());
    own == Some(run.id.as_str())
}

/// The experiment that a call names, or the one that is there from the start.
pub(super) fn experiment_or_default(text: Option<String>) -> Answer<i64> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => check::parsed_experiment_id(&text),
        None => Ok(DEFAULT),
    }
}

/// Begins a run.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn create(caller: Caller, ask: ask::CreateRun) -> Answer<RunAnswer> {
    let experiment = caller.experiment(experiment_or_default(ask.experiment_id)?);
    let mut tags = check::tags(ask.tags)?;
    let given = ask.run_name.filter(|name| !name.is_empty());
    let tagged = tags.iter().rev().find(|(name, _)| name == NAME_TAG);
    let tagged = tagged.map(|(_, value)| value.clone());
    let id = new_id();
    let name = match (given, tagged) {
        (Some(given), Some(tagged)) if given != tagged => {
            return Err(Fault::invalid(format!(
                "run_name is {} and the tag {NAME_TAG} is {}: they are one thing",
                check::quoted(&given),
                check::quoted(&tagged)
            )));
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => format!("run-{}", &id[..8]),
    };
    check::bounded_text("run_name", &name, 8_000)?;
    tags.push((NAME_TAG.to_owned(), name.clone()));
    let person = ask.user_id.unwrap_or_default();
    check::bounded_text("user_id", &person, 256)?;
    let run = Run {
        id,
        experiment,
        name,
        person,
        status: RunStatus::Running,
        started_at: Timestamp(ask.start_time.unwrap_or(0)),
        finished_at: None,
        deleted_at: None,
        attempt: caller.job.as_ref().map(|job| job.attempt.clone()),
    };
    let mut tx = caller.begin().await?;
    experiments::active(&mut tx, experiment).await?;
    rows::insert(&mut tx, &run).await?;
    rows::set_tags(&mut tx, &run.id, &tags).await?;
    let full = rows::fill(&mut tx, vec![run]).await?.remove(0);
    caller.commit(tx, RunAnswer { run: full.into() }).await
}

/// 32 hex digits that nobody had before.
///
/// # Panics
/// Where the system gives no random bytes.
#[must_use]
pub fn new_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    hex::encode(bytes)
}

/// One run with all that it logged.
pub async fn get(caller: Caller, ask: OneRun) -> Answer<RunAnswer> {
    let id = ask::run_id(ask.run_id, ask.run_uuid)?;
    let mut db = caller.store.read().await?;
    let run = find(&caller, &mut db, &id).await?;
    let full = rows::fill(&mut db, vec![run]).await?.remove(0);
    Ok(RunAnswer { run: full.into() })
}

/// Renames a run, or ends it. The run of an attempt ends with the attempt, whatever its code says of it.
pub async fn update(caller: Caller, ask: ask::UpdateRun) -> Answer<RunChanged> {
    let id = ask::run_id(ask.run_id, ask.run_uuid)?;
    let status = ask.status.as_deref().map(status).transpose()?;
    let name = ask.run_name.filter(|name| !name.is_empty());
    let mut tx = caller.begin().await?;
    let mut run = active(&caller, &mut tx, &id).await?;
    match status.is_some() || ask.end_time.is_some() {
        true => caller.may_write(&run)?,
        false => caller.may_tag(&run)?,
    }
    if !is_callers_own(&caller, &run) {
        run.status = status.unwrap_or(run.status);
        run.finished_at = ask.end_time.map(Timestamp).or(run.finished_at);
    }
    if let Some(name) = name {
        check::bounded_text("run_name", &name, 8_000)?;
        rows::set_tags(&mut tx, &id, &[(NAME_TAG.to_owned(), name.clone())]).await?;
        run.name = name;
    }
    rows::update(&mut tx, &run).await?;
    caller
        .commit(
            tx,
            RunChanged {
                run_info: run.into(),
            },
        )
        .await
}

/// MLflow's word or number.
fn status(text: &str) -> Answer<RunStatus> {
    match text {
        "RUNNING" | "1" => Ok(RunStatus::Running),
        "SCHEDULED" | "2" => Ok(RunStatus::Scheduled),
        "FINISHED" | "3" => Ok(RunStatus::Finished),
        "FAILED" | "4" => Ok(RunStatus::Failed),
        "KILLED" | "5" => Ok(RunStatus::Killed),
        other => Err(Fault::invalid(format!(
            "status {} is none of RUNNING, SCHEDULED, FINISHED, FAILED and KILLED",
            check::quoted(other)
        ))),
    }
}

/// Deletes a run; it can be restored.
pub async fn delete(caller: Caller, ask: OneRun) -> Answer<Done> {
    set_deleted(caller, ask, Some(Timestamp::now())).await
}

/// Restores a run.
pub async fn restore(caller: Caller, ask: OneRun) -> Answer<Done> {
    set_deleted(caller, ask, None).await
}

async fn set_deleted(caller: Caller, ask: OneRun, at: Option<Timestamp>) -> Answer<Done> {
    let id = ask::run_id(ask.run_id, ask.run_uuid)?;
    let mut tx = caller.begin().await?;
    let mut run = find(&caller, &mut tx, &id).await?;
    caller.may_tag(&run)?;
    if is_callers_own(&caller, &run) {
        return Err(Fault::new(
            Code::Denied,
            format!("run {id} is this job's own: a person may delete it"),
        ));
    }
    run.deleted_at = at;
    rows::update(&mut tx, &run).await?;
    let verb = if at.is_some() { "delete" } else { "restore" };
    caller
        .write_down(&mut tx, format!("{verb} run {id}"))
        .await?;
    caller.commit(tx, Done {}).await
}

/// Sets tags of a run, be it a job's or not; the one that is its name renames it.
pub(super) async fn set_tags(
    db: &mut Connection,
    mut run: Run,
    tags: &[(String, String)],
) -> Answer<()> {
    rows::set_tags(db, &run.id, tags).await?;
    let of = |wanted: &str| {
        let found = tags.iter().rev().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone())
    };
    if let Some(name) = of(NAME_TAG) {
        run.name = name;
        rows::update(db, &run).await?;
    }
    Ok(())
}

/// Takes a tag away.
pub async fn delete_tag(caller: Caller, ask: ask::RunPair) -> Answer<Done> {
    let id = ask::run_id(ask.run_id, ask.run_uuid)?;
    let key = check::wanted("key", ask.key)?;
    check::not_ours(&key)?;
    let mut tx = caller.begin().await?;
    let run = active(&caller, &mut tx, &id).await?;
    match key == PERSON_TAG || key.starts_with("mlflow.source.") {
        true => caller.may_write(&run)?,
        false => caller.may_tag(&run)?,
    }
    if !rows::remove_tag(&mut tx, &id, &key).await? {
        return Err(Fault::missing(format!(
            "run {id} has no tag {}",
            check::quoted(&key)
        )));
    }
    caller.commit(tx, Done {}).await
}

/// Runs for which a filter holds.
pub async fn find_all(caller: Caller, ask: ask::SearchRuns) -> Answer<RunsFound> {
    let view = search::view(ask.run_view_type.as_deref())?;
    let conditions = search::run_conditions(ask.filter.as_deref())?;
    let orders = search::run_orders(&ask.order_by)?;
    let experiments = experiment_ids(&ask.experiment_ids)?;
    let of = format!("runs {experiments:?} {view:?} {conditions:?} {orders:?}");
    let pages = Pages::new(ask.max_results, USUAL, MOST, ask.page_token.as_deref(), of)?;
    let mut db = caller.store.read().await?;
    let found = store::search::runs(
        &mut db,
        &experiments,
        view,
        &conditions,
        &orders,
        pages.piece(),
    )
    .await?;
    let (found, next_page_token) = pages.cut(found);
    let full = rows::fill(&mut db, found).await?;
    Ok(RunsFound {
        runs: full.into_iter().map(Into::into).collect(),
        next_page_token,
    })
}

/// The experiments of a search.
pub(super) fn experiment_ids(texts: &[String]) -> Answer<Vec<i64>> {
    if texts.len() > MOST_EXPERIMENTS {
        return Err(Fault::invalid(format!(
            "a search looks at no more than {MOST_EXPERIMENTS} experiments"
        )));
    }
    texts
        .iter()
        .map(|text| check::parsed_experiment_id(text))
        .collect()
}
