//! What clients send, as bodies or as queries. A field that is not known is passed over; a number may stand as text, as in
//! a query and in protobuf's JSON; a list of one may stand alone.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{Answer, Fault};
use crate::forge::bounded;

/// Reads a body; an empty one is an empty object.
///
/// # Errors
/// Where it is no JSON, or a field has a wrong type.
pub fn body<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    if has_nul(bytes) {
        return Err(no_nul());
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Fault::invalid(format!("body: {}", bounded(&error.to_string(), 200))))
}

/// Reads a query, in which a name may stand several times.
///
/// # Errors
/// Where a field has a wrong type.
pub fn query<T: DeserializeOwned>(pairs: Vec<(String, String)>) -> Answer<T> {
    let mut map = Map::new();
    for (name, value) in pairs {
        if value.contains('\0') {
            return Err(no_nul());
        }
        let value = Value::String(value);
        match map.get_mut(&name) {
            None => {
                map.insert(name, value);
            }
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    serde_json::from_value(Value::Object(map))
        .map_err(|error| Fault::invalid(format!("query: {}", bounded(&error.to_string(), 200))))
}

/// PostgreSQL keeps no such character: asked with one it would answer as if it were away.
fn no_nul() -> Fault {
    Fault::invalid("a text has a NUL character (\\u0000), which no text here has")
}

/// Whether a text of some JSON has a NUL: written so, and not the backslash itself.
pub(crate) fn has_nul(json: &[u8]) -> bool {
    const ESCAPE: &[u8] = b"\\u0000";
    let is_escape = |at: usize| {
        let before = json[..at].iter().rev();
        before.take_while(|byte| **byte == b'\\').count() % 2 == 0
    };
    let mut places = json.windows(ESCAPE.len()).enumerate();
    places.any(|(at, window)| window == ESCAPE && is_escape(at))
}

/// A whole number, or its text.
fn int<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::Number(number) => {
            let whole = number
                .as_f64()
                .filter(|f| f.fract() == 0.0 && f.abs() < 9e15);
            let int = number.as_i64().or_else(|| whole.map(|f| f as i64));
            int.map(Some)
                .ok_or_else(|| D::Error::custom(format!("{number} is no whole number")))
        }
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => text.parse().map(Some).map_err(D::Error::custom),
        other => Err(D::Error::custom(format!("{other} is no whole number"))),
    }
}

/// A float, its text, or MLflow's word where JSON has no such number.
fn float<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::Number(number) => Ok(number.as_f64()),
        Value::String(text) => match text.as_str() {
            "NaN" => Ok(Some(f64::NAN)),
            "Infinity" => Ok(Some(f64::INFINITY)),
            "-Infinity" => Ok(Some(f64::NEG_INFINITY)),
            text => text.parse().map(Some).map_err(D::Error::custom),
        },
        other => Err(D::Error::custom(format!("{other} is no number"))),
    }
}

/// Yes or no, or its text.
fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::Bool(flag) => Ok(Some(flag)),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        other => Err(D::Error::custom(format!(
            "{other} is neither true nor false"
        ))),
    }
}

/// A word of an enum, or its number, as text.
fn word<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(D::Error::custom(format!("{other} is no word"))),
    }
}

/// A list, one text alone, or null.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(Vec::new()),
        Value::String(one) => Ok(vec![one]),
        list => serde_json::from_value(list).map_err(D::Error::custom),
    }
}

/// A list, or null.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(from)?.unwrap_or_default())
}

/// A name with its value.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    pub key: Option<String>,
    pub value: Option<String>,
}

/// A call whose fields are those of MLflow's message of the same name.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field:meta])* $key:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field])* pub $key: $type),*
        }
    )*};
}

calls! {
    /// Makes an experiment.
    CreateExperiment {
        name: Option<String>,
        artifact_location: Option<String>,
        #[serde(deserialize_with = "list")] tags: Vec<KeyValue>,
    }
    /// Names an experiment.
    OneExperiment { experiment_id: Option<String>, experiment_name: Option<String> }
    /// Renames an experiment.
    UpdateExperiment { experiment_id: Option<String>, new_name: Option<String> }
    /// Sets or takes away an experiment's tag.
    ExperimentTag { experiment_id: Option<String>, key: Option<String>, value: Option<String> }
    /// Asks for experiments.
    SearchExperiments {
        #[serde(deserialize_with = "word")] view_type: Option<String>,
        #[serde(deserialize_with = "int")] max_results: Option<i64>,
        filter: Option<String>,
        #[serde(deserialize_with = "texts")] order_by: Vec<String>,
        page_token: Option<String>,
    }
    /// Begins a run.
    CreateRun {
        experiment_id: Option<String>,
        user_id: Option<String>,
        run_name: Option<String>,
        #[serde(deserialize_with = "int")] start_time: Option<i64>,
        #[serde(deserialize_with = "list")] tags: Vec<KeyValue>,
    }
    /// Names a run.
    OneRun { run_id: Option<String>, run_uuid: Option<String> }
    /// Changes a run.
    UpdateRun {
        run_id: Option<String>,
        run_uuid: Option<String>,
        #[serde(deserialize_with = "word")] status: Option<String>,
        #[serde(deserialize_with = "int")] end_time: Option<i64>,
        run_name: Option<String>,
    }
    /// Asks for runs.
    SearchRuns {
        #[serde(deserialize_with = "texts")] experiment_ids: Vec<String>,
        filter: Option<String>,
        #[serde(deserialize_with = "word")] run_view_type: Option<String>,
        #[serde(deserialize_with = "int")] max_results: Option<i64>,
        #[serde(deserialize_with = "texts")] order_by: Vec<String>,
        page_token: Option<String>,
    }
    /// Sets or takes away one thing of a run: a param or a tag.
    RunPair {
        run_id: Option<String>,
        run_uuid: Option<String>,
        key: Option<String>,
        value: Option<String>,
    }
    /// A point of a metric; alone it says of which run.
    Metric {
        run_id: Option<String>,
        run_uuid: Option<String>,
        key: Option<String>,
        #[serde(deserialize_with = "float")] value: Option<f64>,
        #[serde(deserialize_with = "int")] timestamp: Option<i64>,
        #[serde(deserialize_with = "int")] step: Option<i64>,
        model_id: Option<String>,
        dataset_name: Option<String>,
        dataset_digest: Option<String>,
    }
    /// Logs much at once.
    LogBatch {
        run_id: Option<String>,
        #[serde(deserialize_with = "list")] metrics: Vec<Metric>,
        #[serde(deserialize_with = "list")] params: Vec<KeyValue>,
        #[serde(deserialize_with = "list")] tags: Vec<KeyValue>,
    }
    /// Notes what a run used.
    LogInputs {
        run_id: Option<String>,
        #[serde(deserialize_with = "list")] datasets: Vec<DatasetInput>,
        #[serde(deserialize_with = "list")] models: Vec<ModelLink>,
    }
    /// A dataset that a run used.
    DatasetInput {
        #[serde(deserialize_with = "list")] tags: Vec<KeyValue>,
        dataset: Option<Dataset>,
    }
    /// A dataset.
    Dataset {
        name: Option<String>,
        digest: Option<String>,
        source_type: Option<String>,
        source: Option<String>,
        schema: Option<String>,
        profile: Option<String>,
    }
    /// A logged model that a run read or made.
    ModelLink {
        model_id: Option<String>,
        #[serde(deserialize_with = "int")] step: Option<i64>,
    }
    /// Notes what a run made.
    LogOutputs {
        run_id: Option<String>,
        #[serde(deserialize_with = "list")] models: Vec<ModelLink>,
    }
    /// Notes a model in a run's tag, as clients before MLflow 3 do.
    LogModel { run_id: Option<String>, model_json: Option<String> }
    /// Asks for a curve.
    MetricHistory {
        run_id: Option<String>,
        run_uuid: Option<String>,
        metric_key: Option<String>,
        #[serde(deserialize_with = "int")] max_results: Option<i64>,
        page_token: Option<String>,
    }
    /// Asks for the files of a run.
    ListArtifacts {
        run_id: Option<String>,
        run_uuid: Option<String>,
        path: Option<String>,
    }
    /// Asks for the files at a path of this server.
    ListFiles { path: Option<String> }
    /// Makes a registered model.
    CreateModel {
        name: Option<String>,
        description: Option<String>,
        #[serde(deserialize_with = "list")] tags: Vec<KeyValue>,
    }
    /// Names a registered model, and perhaps what it is to be.
    OneModel {
        name: Option<String>,
        new_name: Option<String>,
        description: Option<String>,
        #[serde(deserialize_with = "texts")] stages: Vec<String>,
    }
    /// Sets or takes away a model's tag.
    ModelTag { name: Option<String>, key: Option<String>, value: Option<String> }
    /// Sets, reads or takes away an alias.
    ModelAlias { name: Option<String>, alias: Option<String>, #[serde(deserialize_with = "word")] version: Option<String> }
    /// Asks for registered models, or for versions.
    SearchModels {
        filter: Option<String>,
        #[serde(deserialize_with = "int")] max_results: Option<i64>,
        #[serde(deserialize_with = "texts")] order_by: Vec<String>,
        page_token: Option<String>,
    }
    /// Registers a version.
    CreateVersion {
        name: Option<String>,
        source: Option<String>,
        run_id: Option<String>,
        run_link: Option<String>,
        description: Option<String>,
        model_id: Option<String>,
        #[serde(deserialize_with = "list")] tags: Vec<KeyValue>,
    }
    /// Names a version, and perhaps what it is to be.
    OneVersion {
        name: Option<String>,
        #[serde(deserialize_with = "word")] version: Option<String>,
        description: Option<String>,
        stage: Option<String>,
        #[serde(deserialize_with = "flag")] archive_existing_versions: Option<bool>,
    }
    /// Sets or takes away a version's tag.
    VersionTag {
        name: Option<String>,
        #[serde(deserialize_with = "word")] version: Option<String>,
        key: Option<String>,
        value: Option<String>,
    }
    /// Makes a logged model.
    CreateLoggedModel {
        experiment_id: Option<String>,
        name: Option<String>,
        model_type: Option<String>,
        source_run_id: Option<String>,
        #[serde(deserialize_with = "list")] params: Vec<KeyValue>,
        #[serde(deserialize_with = "list")] tags: Vec<KeyValue>,
    }
    /// Asks for a logged model that the address names.
    GetLoggedModel { #[serde(deserialize_with = "flag")] allow_deleted: Option<bool> }
    /// Says whether a logged model's files are there.
    FinalizeLoggedModel { #[serde(deserialize_with = "word")] status: Option<String> }
    /// Adds tags or params of a logged model.
    LoggedModelPairs {
        #[serde(deserialize_with = "list")] tags: Vec<KeyValue>,
        #[serde(deserialize_with = "list")] params: Vec<KeyValue>,
    }
    /// Asks for logged models.
    SearchLoggedModels {
        #[serde(deserialize_with = "texts")] experiment_ids: Vec<String>,
        filter: Option<String>,
        #[serde(deserialize_with = "list")] datasets: Vec<DatasetName>,
        #[serde(deserialize_with = "int")] max_results: Option<i64>,
        #[serde(deserialize_with = "list")] order_by: Vec<LoggedModelOrder>,
        page_token: Option<String>,
    }
    /// Names a dataset.
    DatasetName { dataset_name: Option<String>, dataset_digest: Option<String> }
    /// A term of an order of logged models.
    LoggedModelOrder {
        field_name: Option<String>,
        #[serde(deserialize_with = "flag")] ascending: Option<bool>,
        dataset_name: Option<String>,
        dataset_digest: Option<String>,
    }
    /// Nothing.
    Nothing {}
}

/// The run that a call names by either of two fields.
pub(super) fn run_id(run_id: Option<String>, run_uuid: Option<String>) -> Answer<String> {
    let given = |id: &String| !id.is_empty();
    run_id
        .filter(given)
        .or(run_uuid.filter(given))
        .ok_or_else(|| Fault::wanted("run_id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_refused_wherever_it_stands_and_a_backslash_is_none() {
        for bad in [
            &br#"{"name": "a\u0000b"}"#[..],
            br#"{"unknown": ["\\\u0000"]}"#,
            br#"{"\u0000": 1}"#,
        ] {
            assert!(
                body::<OneModel>(bad).is_err(),
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
        for good in [
            &br#"{"name": "a\\u0000b"}"#[..],
            br#"{"name": "\\\\u0000 \u0001"}"#,
        ] {
            assert!(
                body::<OneModel>(good).is_ok(),
                "{}",
                String::from_utf8_lossy(good)
            );
        }
        assert!(query::<OneModel>(vec![("name".into(), "a\0".into())]).is_err());
    }

    #[test]
    fn a_number_stands_as_text_too() {
        let metric: Metric =
            body(br#"{"value": "NaN", "timestamp": "12", "step": 3, "unknown": {}}"#).unwrap();
        assert!(metric.value.unwrap().is_nan());
        assert_eq!((metric.timestamp, metric.step), (Some(12), Some(3)));
        let metric: Metric = body(br#"{"value": "-Infinity", "step": null}"#).unwrap();
        assert_eq!((metric.value, metric.step), (Some(f64::NEG_INFINITY), None));
        for bad in [
            r#"{"value": "x"}"#,
            r#"{"value": true}"#,
            r#"{"timestamp": 1.5}"#,
            r#"{"key": 1}"#,
            "[]x",
            "{",
        ] {
            assert!(body::<Metric>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_query_is_read_as_a_body_is() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let one: SearchModels =
            query(vec![pair("order_by", "name"), pair("max_results", "5")]).unwrap();
        assert_eq!((one.order_by.len(), one.max_results), (1, Some(5)));
        let two = vec![
            pair("order_by", "a"),
            pair("order_by", "b"),
            pair("order_by", "c"),
        ];
        assert_eq!(
            query::<SearchModels>(two).unwrap().order_by,
            ["a", "b", "c"]
        );
        let empty: SearchModels = body(b"").unwrap();
        assert!(empty.filter.is_none());
    }
}
