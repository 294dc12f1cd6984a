//! The search of runs.

use super::{Condition, Op, Order, Piece, Sql, Test, Value, View, by_bytes, direction};
use crate::store::rows::Columns as _;
use crate::store::runs::{self as rows, Run};
use crate::store::words::Words;
use crate::store::{Connection, Result};

/// What runs are asked for, and sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunField {
    /// Its id.
    Id,
    /// Its name.
    Name,
    /// Whose it is.
    Person,
    /// How it stands.
    Status,
    /// Where its files lie.
    ArtifactUri,
    /// When it began.
    StartedAt,
    /// When it ended.
    FinishedAt,
    /// The last value of a metric.
    Metric(String),
    /// A setting.
    Param(String),
    /// A tag.
    Tag(String),
    /// What a dataset that it used is. Nothing is sorted by it.
    Dataset(DatasetField),
}

/// What a dataset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatasetField {
    /// Its name.
    Name,
    /// Its digest.
    Digest,
    /// What it was used for.
    Context,
}

/// Where the files of the run `r` lie, as clients are told.
const ARTIFACT_URI: &str = "('mlflow-artifacts:/' || r.experiment || '/' || r.id || '/artifacts')";

/// The runs of these experiments for which all conditions hold. Those that lack what is sorted by come last, a NaN before
/// them.
pub async fn runs(
    db: &mut Connection,
    experiments: &[i64],
    view: View,
    conditions: &[Condition<RunField>],
    orders: &[Order<RunField>],
    piece: Piece,
) -> Result<Vec<Run>> {
    if experiments.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new(format!("SELECT {} AS words FROM runs r", rows::as_words()));
    let mut others = Vec::new();
    for (number, condition) in conditions.iter().enumerate() {
        match said(condition) {
            Some(said) => join_said(&mut sql, number, said),
            None => others.push(condition),
        }
    }
    let mut terms = Vec::new();
    for (number, order) in orders.iter().enumerate() {
        terms.push(order_term(&mut sql, number, order));
    }
    if !orders
        .iter()
        .any(|order| order.field == RunField::StartedAt)
    {
        terms.push("r.started_at DESC".to_owned());
    }
    terms.push(by_bytes("r.id"));
    let list = sql.list(experiments.iter().map(|id| Value::Int(*id)));
    sql.push(&format!(
        " WHERE r.experiment IN {list} AND {}",
        view.sql("r.deleted_at")
    ));
    for condition in others {
        let text = condition_text(&mut sql, condition);
        sql.push(&format!(" AND {text}"));
    }
    sql.push(&format!(" ORDER BY {}", terms.join(", ")));
    sql.piece(piece);
    let found = sql.fetch(db).await?;
    found
        .iter()
        .map(|row| rows::from_words(Words(&row.text("words")?)))
        .collect()
}

/// A param or a tag whose text is said: its table, its name and the text.
type Said<'a> = (&'static str, &'a str, &'a str);

fn said(Condition { field, test }: &Condition<RunField>) -> Option<Said<'_>> {
    let Test::Is(Op::Equal, Value::Text(text)) = test else {
        return None;
    };
    match field {
        RunField::Param(name) => Some(("run_params", name, text)),
        RunField::Tag(name) => Some(("run_tags", name, text)),
        RunField::Id
        | RunField::Name
        | RunField::Person
        | RunField::Status
        | RunField::ArtifactUri
        | RunField::StartedAt
        | RunField::FinishedAt
        | RunField::Metric(_)
        | RunField::Dataset(_) => None,
    }
}

/// Joins what has the text that is said: the search may begin with it. The index has short texts only.
fn join_said(sql: &mut Sql, number: usize, (table, name, text): Said<'_>) {
    let short = if text.chars().count() <= 200 {
        format!(" AND length(s{number}.value) <= 200")
    } else {
        String::new()
    };
    let (name, text) = (sql.text(name), sql.text(text));
    sql.push(&format!(
        " JOIN {table} s{number} ON s{number}.run = r.id AND s{number}.name = {name} \
         AND s{number}.value = {text}{short}"
    ));
}

fn condition_text(sql: &mut Sql, Condition { field, test }: &Condition<RunField>) -> String {
    match field {
        RunField::Id => sql.test("r.id", test),
        RunField::Name => sql.test("r.name", test),
        RunField::Person => sql.test("r.person", test),
        RunField::Status => sql.test("r.status", test),
        RunField::ArtifactUri => sql.test(ARTIFACT_URI, test),
        RunField::StartedAt => sql.test("r.started_at", test),
        RunField::FinishedAt => sql.test("r.finished_at", test),
        RunField::Metric(name) => sql.measured("r.id", ("run_metrics", "run"), name, test, ""),
        RunField::Param(name) => sql.named("r.id", ("run_params", "run"), name, test),
        RunField::Tag(name) => sql.named("r.id", ("run_tags", "run"), name, test),
        RunField::Dataset(field) => dataset_text(sql, *field, test),
    }
}

fn dataset_text(sql: &mut Sql, field: DatasetField, test: &Test) -> String {
    let column = match field {
        DatasetField::Name => "d.name",
        DatasetField::Digest => "d.digest",
        DatasetField::Context => {
            let test = sql.test("value", test);
            return format!(
                "r.id IN (SELECT run FROM run_dataset_tags WHERE name = 'mlflow.data.context' AND {test})"
            );
        }
    };
    let test = sql.test(column, test);
    format!(
        "r.id IN (SELECT u.run FROM run_datasets u JOIN datasets d ON d.id = u.dataset WHERE {test})"
    )
}

/// A term of `ORDER BY`; what it sorts by is joined where it is no column of the run.
fn order_term(sql: &mut Sql, number: usize, order: &Order<RunField>) -> String {
    let direction = direction(order.descending);
    let plain = |column: &str| format!("{column} IS NULL, {column} {direction}");
    let text = |column: &str| format!("{column} IS NULL, {} {direction}", by_bytes(column));
    let mut join = |table: &str, name: &str| {
        let alias = format!("o{number}");
        let name = sql.text(name);
        sql.push(&format!(
            " LEFT JOIN {table} {alias} ON {alias}.run = r.id AND {alias}.name = {name}"
        ));
        alias
    };
    match &order.field {
        RunField::Id => text("r.id"),
        RunField::Name => text("r.name"),
        RunField::Person => text("r.person"),
        RunField::Status => text("r.status"),
        RunField::ArtifactUri => text(ARTIFACT_URI),
        RunField::StartedAt => plain("r.started_at"),
        RunField::FinishedAt => plain("r.finished_at"),
        RunField::Metric(name) => {
            let alias = join("run_metrics", name);
            format!(
                "CASE WHEN {alias}.word = 'NaN' THEN 1 WHEN {alias}.word IS NULL THEN 2 ELSE 0 END, \
                 {alias}.value {direction}"
            )
        }
        RunField::Param(name) => {
            let alias = join("run_params", name);
            text(&format!("{alias}.value"))
        }
        RunField::Tag(name) => {
            let alias = join("run_tags", name);
            text(&format!("{alias}.value"))
        }
        RunField::Dataset(_) => "r.started_at DESC".to_owned(),
    }
}
