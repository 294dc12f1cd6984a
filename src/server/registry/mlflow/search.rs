//! Filters and orders of each search: which names it knows, and what may be asked of them. Pure.

use super::check::quoted;
use super::filter::{self, Asked, Clause, Name};
use super::{Answer, Fault};
use crate::store::search::{
    Condition, DatasetField, ExperimentField, LoggedModelField, ModelField, Op, Order, RunField,
    Test, Value, VersionField, View,
};

/// The tag that MLflow tells prompts from models by. There are no prompts here, and clients exclude them always.
const IS_PROMPT: &str = "mlflow.prompt.is_prompt";

/// What deleted ones a search looks at: MLflow's word or number.
pub(super) fn view(text: Option<&str>) -> Answer<View> {
    match text.unwrap_or("ACTIVE_ONLY") {
        "ACTIVE_ONLY" | "1" => Ok(View::Active),
        "DELETED_ONLY" | "2" => Ok(View::Deleted),
        "ALL" | "3" => Ok(View::All),
        other => Err(Fault::invalid(format!(
            "view type {} is none of ACTIVE_ONLY, DELETED_ONLY and ALL",
            quoted(other)
        ))),
    }
}

fn unknown(name: &Name, known: &str) -> Fault {
    let kind = name.kind.as_ref().map(|kind| format!("{kind}."));
    Fault::invalid(format!(
        "{} is not known here: {known}",
        quoted(&format!("{}{}", kind.unwrap_or_default(), name.key))
    ))
}

fn wrong(name: &Name, wanted: &str) -> Fault {
    Fault::invalid(format!("{} is compared with {wanted}", quoted(&name.key)))
}

/// What may be asked of a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    /// `IN` too.
    Allowed,
    /// `IS NULL` too.
    Presence,
    /// Only single texts.
    None,
}

fn text_test(name: &Name, asked: Asked, lists: Lists) -> Answer<Test> {
    match asked {
        Asked::Text(op @ (Op::Equal | Op::NotEqual), text) => Ok(Test::Is(op, Value::Text(text))),
        Asked::Like { pattern, any_case } => Ok(Test::Like { pattern, any_case }),
        Asked::OneOf { list, not } if lists == Lists::Allowed => Ok(Test::OneOf {
            list: list.into_iter().map(Value::Text).collect(),
            not,
        }),
        Asked::There(there) if lists == Lists::Presence => Ok(Test::There(there)),
        Asked::Text(..) | Asked::Number(..) | Asked::OneOf { .. } | Asked::There(_) => {
            Err(wrong(name, "a text in quotes, by =, !=, LIKE or ILIKE"))
        }
    }
}

fn float_test(name: &Name, asked: Asked) -> Answer<Test> {
    match asked {
        Asked::Number(op, number) => match number.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Test::Is(op, Value::Float(value))),
            Ok(_) | Err(_) => Err(wrong(name, "a number")),
        },
        Asked::Text(..) | Asked::Like { .. } | Asked::OneOf { .. } | Asked::There(_) => {
            Err(wrong(name, "a number"))
        }
    }
}

fn int_test(name: &Name, asked: Asked) -> Answer<Test> {
    match asked {
        Asked::Number(op, number) => match (number.parse::<i64>(), number.parse::<f64>()) {
            (Ok(value), _) => Ok(Test::Is(op, Value::Int(value))),
            (Err(_), Ok(value)) if value.is_finite() => Ok(Test::Is(op, Value::Float(value))),
            (Err(_), _) => Err(wrong(name, "a number")),
        },
        Asked::Text(..) | Asked::Like { .. } | Asked::OneOf { .. } | Asked::There(_) => {
            Err(wrong(name, "a number"))
        }
    }
}

/// Numbers that MLflow writes as texts: ids of experiments.
fn id_test(name: &Name, asked: Asked) -> Answer<Test> {
    let id = |text: &String| {
        let id = text.parse().map(Value::Int);
        id.map_err(|_| wrong(name, "the id of an experiment in quotes"))
    };
    match asked {
        Asked::Text(op @ (Op::Equal | Op::NotEqual), text) => Ok(Test::Is(op, id(&text)?)),
        Asked::OneOf { list, not } => Ok(Test::OneOf {
            list: list.iter().map(id).collect::<Answer<_>>()?,
            not,
        }),
        Asked::Text(..) | Asked::Number(..) | Asked::Like { .. } | Asked::There(_) => Err(wrong(
            name,
            "the id of an experiment in quotes, by =, !=, IN or NOT IN",
        )),
    }
}

/// Reads a filter and makes a condition of each clause.
fn conditions<F>(
    text: Option<&str>,
    condition: impl Fn(Clause) -> Answer<Condition<F>>,
) -> Answer<Vec<Condition<F>>> {
    let clauses = filter::filter(text.unwrap_or_default())?;
    let one = |clause: Clause| {
        let at = clause.at;
        condition(clause).map_err(|fault| Fault {
            message: format!("{} (at character {at})", fault.message),
            ..fault
        })
    };
    clauses.into_iter().map(one).collect()
}

/// Reads the terms of an order; a term that stands twice is a mistake.
fn orders<F: PartialEq>(
    terms: &[String],
    field: impl Fn(&Name) -> Answer<F>,
) -> Answer<Vec<Order<F>>> {
    let mut all: Vec<Order<F>> = Vec::new();
    for term in terms.iter().filter(|term| !term.trim().is_empty()) {
        let (name, descending) = filter::order(term)?;
        let order = Order {
            field: field(&name)?,
            descending,
        };
        if all.iter().any(|before| before.field == order.field) {
            return Err(Fault::invalid(format!(
                "{} stands twice in the order",
                quoted(term)
            )));
        }
        all.push(order);
    }
    Ok(all)
}

/// The kinds of names, in the spellings that MLflow knows.
enum Kind {
    Attribute,
    Metric,
    Param,
    Tag,
    Dataset,
}

fn kind(name: &Name) -> Option<Kind> {
    match name.kind.as_deref() {
        None | Some("attribute" | "attributes" | "attr" | "run") => Some(Kind::Attribute),
        Some("metric" | "metrics") => Some(Kind::Metric),
        Some("parameter" | "parameters" | "param" | "params") => Some(Kind::Param),
        Some("tag" | "tags") => Some(Kind::Tag),
        Some("dataset" | "datasets") => Some(Kind::Dataset),
        Some(_) => None,
    }
}

const RUN_NAMES: &str = "metrics.KEY, params.KEY, tags.KEY, datasets.name|digest|context, or an attribute: run_id, \
     run_name, user_id, status, artifact_uri, start_time, end_time";

fn run_field(name: &Name) -> Answer<RunField> {
    let key = name.key.clone();
    let field = match (kind(name), name.key.as_str()) {
        (Some(Kind::Metric), _) => RunField::Metric(key),
        (Some(Kind::Param), _) => RunField::Param(key),
        (Some(Kind::Tag), _) => RunField::Tag(key),
        (Some(Kind::Dataset), "name") => RunField::Dataset(DatasetField::Name),
        (Some(Kind::Dataset), "digest") => RunField::Dataset(DatasetField::Digest),
        (Some(Kind::Dataset), "context") => RunField::Dataset(DatasetField::Context),
        (Some(Kind::Attribute), "run_id") => RunField::Id,
        (Some(Kind::Attribute), "run_name" | "run name" | "Run name" | "Run Name") => {
            RunField::Name
        }
        (Some(Kind::Attribute), "user_id") => RunField::Person,
        (Some(Kind::Attribute), "status") => RunField::Status,
        (Some(Kind::Attribute), "artifact_uri") => RunField::ArtifactUri,
        (Some(Kind::Attribute), "start_time" | "created" | "Created") => RunField::StartedAt,
        (Some(Kind::Attribute), "end_time") => RunField::FinishedAt,
        (Some(Kind::Attribute | Kind::Dataset) | None, _) => return Err(unknown(name, RUN_NAMES)),
    };
    Ok(field)
}

/// The filter of a search of runs.
///
/// # Errors
/// What is wrong with it, and at which character.
pub fn run_conditions(text: Option<&str>) -> Answer<Vec<Condition<RunField>>> {
    conditions(text, |Clause { name, asked, .. }| {
        let field = run_field(&name)?;
        let test = match &field {
            RunField::Metric(_) => float_test(&name, asked)?,
            RunField::StartedAt | RunField::FinishedAt => int_test(&name, asked)?,
            RunField::Param(_) | RunField::Tag(_) => text_test(&name, asked, Lists::Presence)?,
            RunField::Id | RunField::Dataset(_) => text_test(&name, asked, Lists::Allowed)?,
            RunField::Name | RunField::Person | RunField::Status | RunField::ArtifactUri => {
                text_test(&name, asked, Lists::None)?
            }
        };
        Ok(Condition { field, test })
    })
}

/// The order of a search of runs.
///
/// # Errors
/// What is wrong with it.
pub fn run_orders(terms: &[String]) -> Answer<Vec<Order<RunField>>> {
    orders(terms, |name| match run_field(name)? {
        RunField::Dataset(_) => Err(unknown(name, "runs are not sorted by their datasets")),
        field => Ok(field),
    })
}

const EXPERIMENT_NAMES: &str = "tags.KEY, name, experiment_id, creation_time, last_update_time";

fn experiment_field(name: &Name) -> Answer<ExperimentField> {
    match (name.kind.as_deref(), name.key.as_str()) {
        (Some("tag" | "tags"), key) => Ok(ExperimentField::Tag(key.to_owned())),
        (None | Some("attribute"), "name") => Ok(ExperimentField::Name),
        (None | Some("attribute"), "experiment_id") => Ok(ExperimentField::Id),
        (None | Some("attribute"), "creation_time") => Ok(ExperimentField::CreatedAt),
        (None | Some("attribute"), "last_update_time") => Ok(ExperimentField::ChangedAt),
        (None | Some(_), _) => Err(unknown(name, EXPERIMENT_NAMES)),
    }
}

/// The filter of a search of experiments.
pub(super) fn experiment_conditions(text: Option<&str>) -> Answer<Vec<Condition<ExperimentField>>> {
    conditions(text, |Clause { name, asked, .. }| {
        let field = experiment_field(&name)?;
        let test = match &field {
            ExperimentField::Id => id_test(&name, asked)?,
            ExperimentField::Name => text_test(&name, asked, Lists::None)?,
            ExperimentField::CreatedAt | ExperimentField::ChangedAt => int_test(&name, asked)?,
            ExperimentField::Tag(_) => text_test(&name, asked, Lists::Presence)?,
        };
        Ok(Condition { field, test })
    })
}

/// The order of a search of experiments.
pub(super) fn experiment_orders(terms: &[String]) -> Answer<Vec<Order<ExperimentField>>> {
    orders(terms, |name| match experiment_field(name)? {
        ExperimentField::Tag(_) => Err(unknown(name, "experiments are not sorted by tags")),
        field => Ok(field),
    })
}

/// Whether a condition only keeps prompts away, or asks for nothing but prompts.
fn about_prompts(clause: &Clause) -> Option<bool> {
    let is_tag = matches!(clause.name.kind.as_deref(), Some("tag" | "tags"));
    if !is_tag || clause.name.key != IS_PROMPT {
        return None;
    }
    match &clause.asked {
        Asked::Text(Op::Equal, text) => Some(text.eq_ignore_ascii_case("true")),
        Asked::Text(Op::NotEqual, text) => Some(text.eq_ignore_ascii_case("false")),
        Asked::Text(..)
        | Asked::Number(..)
        | Asked::Like { .. }
        | Asked::OneOf { .. }
        | Asked::There(_) => None,
    }
}

/// The clauses of a filter that are not about prompts; none where only prompts are asked for.
fn without_prompts(text: Option<&str>) -> Answer<Option<Vec<Clause>>> {
    let mut kept = Vec::new();
    for clause in filter::filter(text.unwrap_or_default())? {
        match about_prompts(&clause) {
            None => kept.push(clause),
            Some(false) => {}
            Some(true) => return Ok(None),
        }
    }
    Ok(Some(kept))
}

/// The filter of a search of registered models; none: it asks for what there is not.
pub(super) fn model_conditions(text: Option<&str>) -> Answer<Option<Vec<Condition<ModelField>>>> {
    let Some(clauses) = without_prompts(text)? else {
        return Ok(None);
    };
    let condition = |Clause { name, asked, .. }: Clause| {
        let (field, lists) = match (name.kind.as_deref(), name.key.as_str()) {
            (Some("tag" | "tags"), key) => (ModelField::Tag(key.to_owned()), Lists::None),
            (None | Some("attribute"), "name") => (ModelField::Name, Lists::Allowed),
            (None | Some(_), _) => return Err(unknown(&name, "name, tags.KEY")),
        };
        let test = text_test(&name, asked, lists)?;
        Ok(Condition { field, test })
    };
    Ok(Some(
        clauses.into_iter().map(condition).collect::<Answer<_>>()?,
    ))
}

/// The order of a search of registered models.
pub(super) fn model_orders(terms: &[String]) -> Answer<Vec<Order<ModelField>>> {
    orders(terms, |name| match (&name.kind, name.key.as_str()) {
        (None, "name") => Ok(ModelField::Name),
        (None, "timestamp" | "last_updated_timestamp") => Ok(ModelField::ChangedAt),
        (None | Some(_), _) => Err(unknown(name, "name, timestamp, last_updated_timestamp")),
    })
}

const VERSION_NAMES: &str = "name, version_number, run_id, source_path, tags.KEY";

/// The filter of a search of versions; none: it asks for what there is not.
pub(super) fn version_conditions(
    text: Option<&str>,
) -> Answer<Option<Vec<Condition<VersionField>>>> {
    let Some(clauses) = without_prompts(text)? else {
        return Ok(None);
    };
    let condition = |Clause { name, asked, .. }: Clause| {
        let attribute = matches!(name.kind.as_deref(), None | Some("attribute"));
        let (field, test) = match (name.kind.as_deref(), name.key.as_str()) {
            (Some("tag" | "tags"), key) => {
                let field = VersionField::Tag(key.to_owned());
                (field, text_test(&name, asked, Lists::None)?)
            }
            (_, "name") if attribute => (
                VersionField::Model,
                text_test(&name, asked, Lists::Allowed)?,
            ),
            (_, "run_id") if attribute => {
                (VersionField::Run, text_test(&name, asked, Lists::Allowed)?)
            }
            (_, "source_path") if attribute => {
                (VersionField::Source, text_test(&name, asked, Lists::None)?)
            }
            (_, "version_number") if attribute => (VersionField::Number, int_test(&name, asked)?),
            _ => return Err(unknown(&name, VERSION_NAMES)),
        };
        Ok(Condition { field, test })
    };
    Ok(Some(
        clauses.into_iter().map(condition).collect::<Answer<_>>()?,
    ))
}

/// The order of a search of versions.
pub(super) fn version_orders(terms: &[String]) -> Answer<Vec<Order<VersionField>>> {
    orders(terms, |name| {
        let attribute = matches!(name.kind.as_deref(), None | Some("attribute"));
        match name.key.as_str() {
            "name" if attribute => Ok(VersionField::Model),
            "version_number" if attribute => Ok(VersionField::Number),
            "creation_timestamp" if attribute => Ok(VersionField::CreatedAt),
            "last_updated_timestamp" if attribute => Ok(VersionField::ChangedAt),
            _ => Err(unknown(
                name,
                "name, version_number, creation_timestamp, last_updated_timestamp",
            )),
        }
    })
}

const LOGGED_MODEL_NAMES: &str = "metrics.KEY, params.KEY, tags.KEY, or an attribute: name, model_id, model_type, status, \
     source_run_id, creation_timestamp, last_updated_timestamp";

/// An attribute of a logged model.
pub(super) fn logged_model_attribute(key: &str) -> Option<LoggedModelField> {
    match key {
        "name" => Some(LoggedModelField::Name),
        "model_id" => Some(LoggedModelField::Id),
        "model_type" => Some(LoggedModelField::Kind),
        "status" => Some(LoggedModelField::Status),
        "source_run_id" => Some(LoggedModelField::Run),
        "creation_timestamp" | "creation_time" | "creation_timestamp_ms" => {
            Some(LoggedModelField::CreatedAt)
        }
        "last_updated_timestamp" | "last_updated_time" | "last_updated_timestamp_ms" => {
            Some(LoggedModelField::ChangedAt)
        }
        _ => None,
    }
}

/// The filter of a search of logged models.
pub(super) fn logged_model_conditions(
    text: Option<&str>,
) -> Answer<Vec<Condition<LoggedModelField>>> {
    conditions(text, |Clause { name, asked, .. }| {
        let key = name.key.clone();
        let field = match kind(&name) {
            Some(Kind::Metric) => LoggedModelField::Metric(key, None),
            Some(Kind::Param) => LoggedModelField::Param(key),
            Some(Kind::Tag) => LoggedModelField::Tag(key),
            Some(Kind::Attribute) => {
                logged_model_attribute(&key).ok_or_else(|| unknown(&name, LOGGED_MODEL_NAMES))?
            }
            Some(Kind::Dataset) | None => return Err(unknown(&name, LOGGED_MODEL_NAMES)),
        };
        let test = match &field {
            LoggedModelField::Metric(..) => float_test(&name, asked)?,
            LoggedModelField::CreatedAt | LoggedModelField::ChangedAt => int_test(&name, asked)?,
            LoggedModelField::Status => lowered(text_test(&name, asked, Lists::Allowed)?),
            LoggedModelField::Id
            | LoggedModelField::Name
            | LoggedModelField::Kind
            | LoggedModelField::Run
            | LoggedModelField::Param(_)
            | LoggedModelField::Tag(_) => text_test(&name, asked, Lists::Allowed)?,
        };
        Ok(Condition { field, test })
    })
}

/// Statuses are kept in small letters: `READY` is `ready`.
fn lowered(test: Test) -> Test {
    let lower = |value: Value| match value {
        Value::Text(text) => Value::Text(text.to_lowercase()),
        other @ (Value::Int(_) | Value::Float(_)) => other,
    };
    match test {
        Test::Is(op, value) => Test::Is(op, lower(value)),
        Test::OneOf { list, not } => Test::OneOf {
            list: list.into_iter().map(lower).collect(),
            not,
        },
        other @ (Test::Like { .. } | Test::There(_)) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_asked_what_fits_it() {
        for good in [
            "metrics.loss < 0.5",
            "params.lr = '0.1' and tags.a LIKE '%x' AND tags.b IS NULL",
            "attributes.status = 'FINISHED'",
            "run_id IN ('a', 'b')",
            "start_time > 5",
            "datasets.context = 'training'",
        ] {
            assert!(run_conditions(Some(good)).is_ok(), "{good}");
        }
        for bad in [
            "metrics.loss = 'x'",
            "metrics.loss LIKE 'x'",
            "params.lr = 0.1",
            "params.lr < '1'",
            "status IN ('a')",
            "run_id IS NULL",
            "start_time = 'x'",
            "nothing = 'x'",
            "weird.x = 'x'",
            "datasets.x = 'x'",
            "metrics.loss = 1e999",
        ] {
            assert!(run_conditions(Some(bad)).is_err(), "{bad}");
        }
        assert!(experiment_conditions(Some("experiment_id IN ('1', '2')")).is_ok());
        for bad in [
            "experiment_id = 'x'",
            "name IN ('a')",
            "creation_time = 'x'",
            "params.x = 'a'",
        ] {
            assert!(experiment_conditions(Some(bad)).is_err(), "{bad}");
        }
        for bad in [
            "version_number = 'x'",
            "run_id = 1",
            "source_path IN ('a')",
            "other = 'x'",
        ] {
            assert!(version_conditions(Some(bad)).is_err(), "{bad}");
        }
        assert!(version_conditions(Some("name = 'a' AND version_number > 1")).is_ok());
        assert!(logged_model_conditions(Some("status = 'READY' AND metrics.a > 1")).is_ok());
    }

    #[test]
    fn there_are_no_prompts() {
        let away = "name = 'a' AND tag.`mlflow.prompt.is_prompt` != 'true'";
        assert_eq!(model_conditions(Some(away)).unwrap().unwrap().len(), 1);
        let only = "tags.`mlflow.prompt.is_prompt` = 'true'";
        assert_eq!(model_conditions(Some(only)).unwrap(), None);
        assert_eq!(version_conditions(Some(only)).unwrap(), None);
    }

    #[test]
    fn an_order_names_each_column_once() {
        let terms = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert!(run_orders(&terms(&["metrics.a DESC", "start_time"])).is_ok());
        assert!(run_orders(&terms(&["metrics.a DESC", "metrics.a"])).is_err());
        assert!(run_orders(&terms(&["datasets.name"])).is_err());
        assert!(experiment_orders(&terms(&["tags.a"])).is_err());
        assert!(model_orders(&terms(&["timestamp DESC"])).is_ok());
        assert!(model_orders(&terms(&["name; DROP TABLE models"])).is_err());
        assert!(version_orders(&terms(&["run_id"])).is_err());
    }
}
