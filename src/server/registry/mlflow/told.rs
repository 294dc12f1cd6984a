//! What clients are told. A field without a value is left out, as protobuf's JSON does.

use protocol::Timestamp;
use serde::Serialize;

use super::place::Owner;
use crate::store::datasets::UsedDataset;
use crate::store::experiments::Experiment as ExperimentRow;
use crate::store::logged_models::{FullLoggedModel, LoggedModelStatus};
use crate::store::metrics::Point;
use crate::store::runs::{FullRun, Run as RunRow, RunStatus};
use crate::store::versions::{ModelVersion as VersionRow, Stage};

/// Whether a list has nothing in it.
fn none<T>(list: &[T]) -> bool {
    list.is_empty()
}

/// A name with its value.
#[derive(Debug, Serialize)]
pub struct KeyValue {
    pub key: String,
    pub value: String,
}

fn pairs(list: Vec<(String, String)>) -> Vec<KeyValue> {
    let pair = |(key, value)| KeyValue { key, value };
    list.into_iter().map(pair).collect()
}

/// MLflow's word for what is not deleted, and for what is.
fn stage(deleted: Option<Timestamp>) -> &'static str {
    match deleted {
        None => "active",
        Some(_) => "deleted",
    }
}

/// Nothing to tell.
#[derive(Debug, Serialize)]
pub struct Done {}

/// An answer whose fields are those of MLflow's message of the same name.
macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field:meta])* $key:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize)]
        pub struct $name {
            $($(#[$field])* pub $key: $type),*
        }
    )*};
}

answers! {
    /// An experiment.
    Experiment {
        experiment_id: String,
        name: String,
        artifact_location: String,
        lifecycle_stage: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")] last_update_time: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")] creation_time: Option<i64>,
        #[serde(skip_serializing_if = "none")] tags: Vec<KeyValue>,
    }
    /// The experiment that was asked for.
    ExperimentAnswer { experiment: Experiment }
    /// The experiment that was made.
    ExperimentMade { experiment_id: String }
    /// Experiments that were found.
    ExperimentsFound {
        #[serde(skip_serializing_if = "none")] experiments: Vec<Experiment>,
        #[serde(skip_serializing_if = "Option::is_none")] next_page_token: Option<String>,
    }
    /// A run's own fields.
    RunInfo {
        run_uuid: String,
        experiment_id: String,
        run_name: String,
        user_id: String,
        status: RunStatus,
        start_time: i64,
        #[serde(skip_serializing_if = "Option::is_none")] end_time: Option<i64>,
        artifact_uri: String,
        lifecycle_stage: &'static str,
        run_id: String,
    }
    /// What a run logged.
    RunData {
        #[serde(skip_serializing_if = "none")] metrics: Vec<Metric>,
        #[serde(skip_serializing_if = "none")] params: Vec<KeyValue>,
        #[serde(skip_serializing_if = "none")] tags: Vec<KeyValue>,
    }
    /// A point of a metric.
    Metric {
        key: String,
        #[serde(with = "protocol::event::float")] value: f64,
        timestamp: i64,
        step: i64,
        #[serde(skip_serializing_if = "Option::is_none")] model_id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")] dataset_name: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")] dataset_digest: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")] run_id: Option<String>,
    }
    /// What a run used.
    RunInputs {
        #[serde(skip_serializing_if = "none")] dataset_inputs: Vec<DatasetInput>,
        #[serde(skip_serializing_if = "none")] model_inputs: Vec<ModelInput>,
    }
    /// What a run made.
    RunOutputs { #[serde(skip_serializing_if = "none")] model_outputs: Vec<ModelOutput> }
    /// A logged model that a run read.
    ModelInput { model_id: String }
    /// A logged model that a run made.
    ModelOutput { model_id: String, step: i64 }
    /// A dataset that a run used.
    DatasetInput {
        #[serde(skip_serializing_if = "none")] tags: Vec<KeyValue>,
        dataset: Dataset,
    }
    /// A dataset.
    Dataset {
        name: String,
        digest: String,
        source_type: String,
        source: String,
        #[serde(skip_serializing_if = "Option::is_none")] schema: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")] profile: Option<String>,
    }
    /// A run.
    Run { info: RunInfo, data: RunData, inputs: RunInputs, outputs: RunOutputs }
    /// The run that was asked for, or made.
    RunAnswer { run: Run }
    /// The run as it is now.
    RunChanged { run_info: RunInfo }
    /// Runs that were found.
    RunsFound {
        #[serde(skip_serializing_if = "none")] runs: Vec<Run>,
        #[serde(skip_serializing_if = "Option::is_none")] next_page_token: Option<String>,
    }
    /// A piece of a curve.
    History {
        #[serde(skip_serializing_if = "none")] metrics: Vec<Metric>,
        #[serde(skip_serializing_if = "Option::is_none")] next_page_token: Option<String>,
    }
    /// Files and folders.
    Files {
        #[serde(skip_serializing_if = "Option::is_none")] root_uri: Option<String>,
        #[serde(skip_serializing_if = "none")] files: Vec<FileInfo>,
    }
    /// A file or folder.
    FileInfo {
        path: String,
        is_dir: bool,
        #[serde(skip_serializing_if = "Option::is_none")] file_size: Option<u64>,
    }
    /// A registered model.
    RegisteredModel {
        name: String,
        creation_timestamp: i64,
        last_updated_timestamp: i64,
        #[serde(skip_serializing_if = "Option::is_none")] description: Option<String>,
        #[serde(skip_serializing_if = "none")] latest_versions: Vec<ModelVersion>,
        #[serde(skip_serializing_if = "none")] tags: Vec<KeyValue>,
        #[serde(skip_serializing_if = "none")] aliases: Vec<Alias>,
    }
    /// Where an alias points.
    Alias { alias: String, version: String }
    /// The model that was asked for, or made.
    ModelAnswer { registered_model: RegisteredModel }
    /// Models that were found.
    ModelsFound {
        #[serde(skip_serializing_if = "none")] registered_models: Vec<RegisteredModel>,
        #[serde(skip_serializing_if = "Option::is_none")] next_page_token: Option<String>,
    }
    /// A version.
    ModelVersion {
        name: String,
        version: String,
        creation_timestamp: i64,
        last_updated_timestamp: i64,
        current_stage: Stage,
        #[serde(skip_serializing_if = "Option::is_none")] description: Option<String>,
        source: String,
        #[serde(skip_serializing_if = "Option::is_none")] run_id: Option<String>,
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")] run_link: Option<String>,
        #[serde(skip_serializing_if = "none")] tags: Vec<KeyValue>,
        #[serde(skip_serializing_if = "none")] aliases: Vec<String>,
    }
    /// The version that was asked for, or made.
    VersionAnswer { model_version: ModelVersion }
    /// Versions that were found.
    VersionsFound {
        #[serde(skip_serializing_if = "none")] model_versions: Vec<ModelVersion>,
        #[serde(skip_serializing_if = "Option::is_none")] next_page_token: Option<String>,
    }
    /// Where a version's files lie.
    DownloadUri { artifact_uri: String }
    /// A logged model's own fields.
    LoggedModelInfo {
        model_id: String,
        experiment_id: String,
        name: String,
        creation_timestamp_ms: i64,
        last_updated_timestamp_ms: i64,
        artifact_uri: String,
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")] model_type: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")] source_run_id: Option<String>,
        #[serde(skip_serializing_if = "none")] tags: Vec<KeyValue>,
    }
    /// What belongs to a logged model.
    LoggedModelData {
        #[serde(skip_serializing_if = "none")] params: Vec<KeyValue>,
        #[serde(skip_serializing_if = "none")] metrics: Vec<Metric>,
    }
    /// A logged model.
    LoggedModel { info: LoggedModelInfo, data: LoggedModelData }
    /// The logged model that was asked for, made or changed.
    LoggedModelAnswer { model: LoggedModel }
    /// Logged models that were found.
    LoggedModelsFound {
        #[serde(skip_serializing_if = "none")] models: Vec<LoggedModel>,
        #[serde(skip_serializing_if = "Option::is_none")] next_page_token: Option<String>,
    }
}

/// Zero is a time that nobody knows.
fn time(at: Timestamp) -> Option<i64> {
    Some(at.0).filter(|at| *at != 0)
}

impl From<ExperimentRow> for Experiment {
    fn from(row: ExperimentRow) -> Self {
        Self {
            experiment_id: row.id.to_string(),
            artifact_location: format!("mlflow-artifacts:/{}", row.id),
            name: row.name,
            lifecycle_stage: stage(row.deleted_at),
            last_update_time: time(row.changed_at),
            creation_time: time(row.created_at),
            tags: pairs(row.tags),
        }
    }
}

impl From<RunRow> for RunInfo {
    fn from(row: RunRow) -> Self {
        let owner = Owner::Run {
            experiment: row.experiment,
            run: row.id.clone(),
        };
        Self {
            run_uuid: row.id.clone(),
            experiment_id: row.experiment.to_string(),
            run_name: row.name,
            user_id: row.person,
            status: row.status,
            start_time: row.started_at.0,
            end_time: row.finished_at.map(|at| at.0),
            artifact_uri: owner.uri(),
            lifecycle_stage: stage(row.deleted_at),
            run_id: row.id,
        }
    }
}

impl From<FullRun> for Run {
    fn from(full: FullRun) -> Self {
        let run = full.run.id.clone();
        let metric = |point| metric(point, Some(run.clone()));
        let model_output = |(model_id, step)| ModelOutput { model_id, step };
        Self {
            data: RunData {
                metrics: full.metrics.into_iter().map(metric).collect(),
                params: pairs(full.params),
                tags: pairs(full.tags),
            },
            inputs: RunInputs {
                dataset_inputs: full.datasets.into_iter().map(DatasetInput::from).collect(),
                model_inputs: full
                    .inputs
                    .into_iter()
                    .map(|model_id| ModelInput { model_id })
                    .collect(),
            },
            outputs: RunOutputs {
                model_outputs: full.outputs.into_iter().map(model_output).collect(),
            },
            info: full.run.into(),
        }
    }
}

/// A point of a run's metric.
pub(super) fn metric(point: Point, run_id: Option<String>) -> Metric {
    Metric {
        key: point.name,
        value: point.value,
        timestamp: point.at,
        step: point.step,
        model_id: None,
        dataset_name: None,
        dataset_digest: None,
        run_id,
    }
}

impl From<UsedDataset> for DatasetInput {
    fn from(used: UsedDataset) -> Self {
        let dataset = used.dataset;
        Self {
            tags: pairs(used.tags),
            dataset: Dataset {
                name: dataset.name,
                digest: dataset.digest,
                source_type: dataset.source_type,
                source: dataset.source,
                schema: dataset.schema,
                profile: dataset.profile,
            },
        }
    }
}

impl From<FullLoggedModel> for LoggedModel {
    fn from(full: FullLoggedModel) -> Self {
        let row = full.model;
        let owner = Owner::Model {
            experiment: row.experiment,
            model: row.id.clone(),
        };
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let measured = |one: crate::store::logged_models::ModelPoint| Metric {
            model_id: Some(one.model),
            dataset_name: given(one.dataset.0),
            dataset_digest: given(one.dataset.1),
            ..metric(one.point, Some(one.run))
        };
        Self {
            info: LoggedModelInfo {
                model_id: row.id,
                experiment_id: row.experiment.to_string(),
                name: row.name,
                creation_timestamp_ms: row.created_at.0,
                last_updated_timestamp_ms: row.changed_at.0,
                artifact_uri: owner.uri(),
                status: match row.status {
                    LoggedModelStatus::Pending => "LOGGED_MODEL_PENDING",
                    LoggedModelStatus::Ready => "LOGGED_MODEL_READY",
                    LoggedModelStatus::Failed => "LOGGED_MODEL_UPLOAD_FAILED",
                },
                model_type: row.kind,
                source_run_id: row.run,
                tags: pairs(full.tags),
            },
            data: LoggedModelData {
                params: pairs(full.params),
                metrics: full.metrics.into_iter().map(measured).collect(),
            },
        }
    }
}

/// A version with its tags and aliases.
pub(super) fn version(
    row: VersionRow,
    tags: Vec<(String, String)>,
    aliases: Vec<String>,
) -> ModelVersion {
    ModelVersion {
        source: source(&row),
        name: row.model,
        version: row.number.to_string(),
        creation_timestamp: row.created_at.0,
        last_updated_timestamp: row.changed_at.0,
        current_stage: row.stage,
        description: row.description,
        run_id: row.run.map(|(run, _)| run),
        status: "READY",
        run_link: row.run_link,
        tags: pairs(tags),
        aliases,
    }
}

/// What a version has as its source: what a job left is its run's model.
fn source(row: &VersionRow) -> String {
    match (&row.source, &row.run) {
        (Some(source), _) => source.clone(),
        (None, Some((run, _))) => format!("runs:/{run}/{}", super::super::derive::MODEL_FOLDER),
        (None, None) => String::new(),
    }
}

/// Where a version's files lie.
pub(super) fn location(row: &VersionRow) -> String {
    match (&row.location, &row.run) {
        (Some(location), _) => location.clone(),
        (None, Some((run, experiment))) => {
            let owner = Owner::Run {
                experiment: *experiment,
                run: run.clone(),
            };
            format!("{}/{}", owner.uri(), super::super::derive::MODEL_FOLDER)
        }
        (None, None) => String::new(),
    }
}

/// Named texts as they stand in an answer.
pub(super) fn key_values(list: Vec<(String, String)>) -> Vec<KeyValue> {
    pairs(list)
}
