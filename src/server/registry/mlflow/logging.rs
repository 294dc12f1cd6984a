//! Calls by which runs log: metrics, params, tags, datasets, models; and the reading of curves.

use super::super::derive;
use super::ask::{self, DatasetInput};
use super::told::{Done, History, metric};
use super::{Answer, Caller, Fault, check, page, runs};
use crate::store::datasets::{Dataset, UsedDataset};
use crate::store::logged_models::{self, ModelPoint};
use crate::store::metrics::{self, Point};
use crate::store::runs::{self as rows, Conflict, ModelRole, Run};
use crate::store::{Connection, datasets, registry};

/// Most points of a page of a curve.
const MOST_POINTS: i64 = 25_000;
/// Most datasets, and most models, of a call.
const MOST_INPUTS: usize = 1_000;
/// The tag in which clients before MLflow 3 note models.
const MODELS_TAG: &str = "mlflow.log-model.history";

/// A point of a run, and where it is also of a logged model.
struct Measured {
    point: Point,
    model: Option<(String, (String, String))>,
}

fn measured(at: &str, metric: ask::Metric) -> Answer<Measured> {
    let point = check::point(at, metric.key, metric.value, metric.timestamp, metric.step)?;
    let dataset = metric.dataset_name.unwrap_or_default();
    let digest = metric.dataset_digest.unwrap_or_default();
    check::bounded_text("dataset_name", &dataset, 500)?;
    check::bounded_text("dataset_digest", &digest, 36)?;
    check::point_names([&point.name, &dataset, &digest])?;
    let model = metric.model_id.filter(|model| !model.is_empty());
    Ok(Measured {
        point,
        model: model.map(|model| (model, (dataset, digest))),
    })
}

/// Writes points of a run, and of the logged models that they name.
async fn write(
    caller: &Caller,
    db: &mut Connection,
    run: &Run,
    measured: Vec<Measured>,
) -> Answer<()> {
    let mut of_models = Vec::new();
    for one in &measured {
        let Some((model, dataset)) = &one.model else {
            continue;
        };
        super::logged_models::find(caller, db, model).await?;
        of_models.push(ModelPoint {
            model: model.clone(),
            run: run.id.clone(),
            point: one.point.clone(),
            dataset: dataset.clone(),
        });
    }
    let points: Vec<Point> = measured.into_iter().map(|one| one.point).collect();
    if !points.is_empty() {
        metrics::log(db, &run.id, &points).await?;
    }
    logged_models::log(db, &of_models).await?;
    Ok(())
}

/// Adds params. Those that the pipeline file gave a job give way to what its code says of them: `1e-5` is `1e-05` there.
async fn add_params(
    caller: &Caller,
    db: &mut Connection,
    run: &Run,
    params: &[(String, String)],
) -> Answer<()> {
    if caller.job.as_ref().is_some_and(|job| job.run == run.id)
        && let Some(of_job) = registry::of_job(db, &run.id).await?
    {
        for (name, value) in &of_job.lineage.parameters {
            let given = derive::text(value);
            if params
                .iter()
                .any(|(other, said)| other == name && *said != given)
            {
                rows::remove_param(db, &run.id, name, &given).await?;
            }
        }
    }
    match rows::add_params(db, &run.id, params).await? {
        Some(conflict) => Err(changed(&run.id, &conflict)),
        None => Ok(()),
    }
}

fn changed(run: &str, conflict: &Conflict) -> Fault {
    let Conflict { name, before, now } = conflict;
    Fault::invalid(format!(
        "param {} of run {run} is {} already, and a param does not change: {} is not taken",
        check::quoted(name),
        check::quoted(before),
        check::quoted(now)
    ))
}

/// Logs one point of a metric.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn metric_point(caller: Caller, mut ask: ask::Metric) -> Answer<Done> {
    let id = ask::run_id(ask.run_id.take(), ask.run_uuid.take())?;
    let measured = measured("", ask)?;
    let mut tx = caller.begin().await?;
    let run = runs::writable(&caller, &mut tx, &id).await?;
    write(&caller, &mut tx, &run, vec![measured]).await?;
    caller.commit(tx, Done {}).await
}

/// Logs one param.
pub async fn param(caller: Caller, ask: ask::RunPair) -> Answer<Done> {
    let id = ask::run_id(ask.run_id, ask.run_uuid)?;
    let (key, value) = (ask.key, ask.value);
    let params = check::params(vec![ask::KeyValue { key, value }])?;
    let mut tx = caller.begin().await?;
    let run = runs::writable(&caller, &mut tx, &id).await?;
    add_params(&caller, &mut tx, &run, &params).await?;
    caller.commit(tx, Done {}).await
}

/// Sets one tag.
pub async fn tag(caller: Caller, ask: ask::RunPair) -> Answer<Done> {
    let id = ask::run_id(ask.run_id, ask.run_uuid)?;
    let (key, value) = (ask.key, ask.value);
    let tags = check::tags(vec![ask::KeyValue { key, value }])?;
    let mut tx = caller.begin().await?;
    let run = runs::active(&caller, &mut tx, &id).await?;
    caller.may_tag(&run)?;
    runs::set_tags(&mut tx, run, &tags).await?;
    caller.commit(tx, Done {}).await
}

/// Logs much at once: all of it, or nothing.
pub async fn batch(caller: Caller, ask: ask::LogBatch) -> Answer<Done> {
    let id = ask::run_id(ask.run_id, None)?;
    check::batch(ask.metrics.len(), ask.params.len(), ask.tags.len())?;
    let mut all = Vec::with_capacity(ask.metrics.len());
    for (number, metric) in ask.metrics.into_iter().enumerate() {
        all.push(measured(&format!("metrics[{number}]"), metric)?);
    }
    let params = check::params(ask.params)?;
    let tags = check::tags(ask.tags)?;
    let mut tx = caller.begin().await?;
    let run = runs::active(&caller, &mut tx, &id).await?;
    match all.is_empty() && params.is_empty() {
        true => caller.may_tag(&run)?,
        false => caller.may_write(&run)?,
    }
    add_params(&caller, &mut tx, &run, &params).await?;
    write(&caller, &mut tx, &run, all).await?;
    if !tags.is_empty() {
        runs::set_tags(&mut tx, run, &tags).await?;
    }
    caller.commit(tx, Done {}).await
}

fn dataset(number: usize, input: DatasetInput) -> Answer<UsedDataset> {
    let at = |field: &str| format!("datasets[{number}].dataset.{field}");
    let given = input.dataset.ok_or_else(|| Fault::wanted(&at("name")))?;
    let text = |field: &str, value: Option<String>, most| {
        let value = check::wanted(&at(field), value)?;
        check::bounded_text(&at(field), &value, most)?;
        Ok::<_, Fault>(value)
    };
    let long = |field: &str, value: Option<String>, most| {
        if let Some(value) = &value {
            check::bounded_text(&at(field), value, most)?;
        }
        Ok::<_, Fault>(value)
    };
    let mut tags = Vec::new();
    for tag in input.tags {
        let key = check::wanted(&format!("datasets[{number}].tags.key"), tag.key)?;
        let value = tag.value.unwrap_or_default();
        check::bounded_text("tags.key", &key, 255)?;
        check::bounded_text("tags.value", &value, 500)?;
        tags.push((key, value));
    }
    Ok(UsedDataset {
        dataset: Dataset {
            name: text("name", given.name, 500)?,
            digest: text("digest", given.digest, 36)?,
            source_type: text("source_type", given.source_type, 500)?,
            source: text("source", given.source, 65_535)?,
            schema: long("schema", given.schema, 1_048_575)?,
            profile: long("profile", given.profile, 16_777_215)?,
        },
        tags,
    })
}

/// Notes the datasets and models that a run used.
pub async fn inputs(caller: Caller, ask: ask::LogInputs) -> Answer<Done> {
    let id = ask::run_id(ask.run_id, None)?;
    if ask.datasets.len().max(ask.models.len()) > MOST_INPUTS {
        return Err(Fault::invalid(format!(
            "a call has at most {MOST_INPUTS} datasets and models"
        )));
    }
    let inputs = ask.datasets.into_iter().enumerate();
    let used = inputs
        .map(|(number, input)| dataset(number, input))
        .collect::<Answer<Vec<_>>>()?;
    let mut tx = caller.begin().await?;
    let run = runs::writable(&caller, &mut tx, &id).await?;
    for one in &used {
        datasets::use_one(&mut tx, run.experiment, &id, one).await?;
    }
    link(&caller, &mut tx, &id, ModelRole::Input, ask.models).await?;
    caller.commit(tx, Done {}).await
}

/// Notes the models that a run made.
pub async fn outputs(caller: Caller, ask: ask::LogOutputs) -> Answer<Done> {
    let id = ask::run_id(ask.run_id, None)?;
    if ask.models.is_empty() {
        return Err(Fault::wanted("models"));
    }
    if ask.models.len() > MOST_INPUTS {
        return Err(Fault::invalid(format!(
            "a call has at most {MOST_INPUTS} models"
        )));
    }
    let mut tx = caller.begin().await?;
    runs::writable(&caller, &mut tx, &id).await?;
    link(&caller, &mut tx, &id, ModelRole::Output, ask.models).await?;
    caller.commit(tx, Done {}).await
}

async fn link(
    caller: &Caller,
    db: &mut Connection,
    run: &str,
    role: ModelRole,
    models: Vec<ask::ModelLink>,
) -> Answer<()> {
    for link in models {
        let model = check::wanted("models.model_id", link.model_id)?;
        super::logged_models::find(caller, db, &model).await?;
        rows::link_model(db, run, role, &model, link.step.unwrap_or(0)).await?;
    }
    Ok(())
}

/// Notes a model in a run's tag.
pub async fn model(caller: Caller, ask: ask::LogModel) -> Answer<Done> {
    let id = ask::run_id(ask.run_id, None)?;
    let text = check::wanted("model_json", ask.model_json)?;
    let noted = serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .filter(|model| {
            let fields = ["artifact_path", "flavors", "utc_time_created", "run_id"];
            fields.iter().all(|field| model.get(field).is_some())
        })
        .ok_or_else(|| {
            Fault::invalid(
                "model_json is no model: it has artifact_path, flavors, utc_time_created and run_id",
            )
        })?;
    let mut tx = caller.begin().await?;
    let run = runs::writable(&caller, &mut tx, &id).await?;
    let before = rows::tag(&mut tx, &id, MODELS_TAG).await?;
    let mut all: Vec<serde_json::Value> = before
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    all.push(noted);
    let value = serde_json::Value::Array(all).to_string();
    check::bounded_text("model_json", &value, 100_000)?;
    rows::set_tags(&mut tx, &run.id, &[(MODELS_TAG.to_owned(), value)]).await?;
    caller.commit(tx, Done {}).await
}

/// A piece of a curve, by time, step and value.
pub async fn history(caller: Caller, ask: ask::MetricHistory) -> Answer<History> {
    let id = ask::run_id(ask.run_id, ask.run_uuid)?;
    let key = check::wanted("metric_key", ask.metric_key)?;
    let limit = ask.max_results.unwrap_or(MOST_POINTS);
    if limit < 1 {
        return Err(Fault::invalid(format!(
            "max_results is {limit}: it is at least 1"
        )));
    }
    let limit = usize::try_from(limit.min(MOST_POINTS)).unwrap_or(1);
    let of = format!("curve {id} {key}");
    let after = page::after(ask.page_token.as_deref(), &of)?;
    let mut db = caller.store.read().await?;
    runs::find(&caller, &mut db, &id).await?;
    let wanted = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let mut points = metrics::history(&mut db, &id, &key, after.as_ref(), wanted).await?;
    let more = points.len() > limit;
    points.truncate(limit);
    let last = points.last().filter(|_| more);
    Ok(History {
        next_page_token: last.map(|last| page::token_after(last, &of)),
        metrics: points
            .into_iter()
            .map(|point| metric(point, None))
            .collect(),
    })
}
