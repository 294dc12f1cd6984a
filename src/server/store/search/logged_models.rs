//! The search of logged models.

use super::{Condition, Order, Piece, Sql, Value, by_bytes, direction};
use crate::store::logged_models::{self as rows, LoggedModel};
use crate::store::{Connection, Result};

/// What logged models are asked for, and sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoggedModelField {
    /// Its id.
    Id,
    /// Its name.
    Name,
    /// What kind of model it is.
    Kind,
    /// Whether its files are there.
    Status,
    /// The run that made it.
    Run,
    /// When it was made.
    CreatedAt,
    /// When it was changed last.
    ChangedAt,
    /// What was measured of it; sorted by what was measured last, on this dataset where one is named.
    Metric(String, Option<MeasuredOn>),
    /// A setting. Nothing is sorted by it.
    Param(String),
    /// A tag. Nothing is sorted by it.
    Tag(String),
}

/// A dataset that something was measured on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredOn {
    /// Its name.
    pub name: String,
    /// Its digest; none: whatever it has.
    pub digest: Option<String>,
}

impl MeasuredOn {
    fn sql(&self, sql: &mut Sql) -> String {
        let name = sql.text(&self.name);
        match &self.digest {
            Some(digest) => {
                let digest = sql.text(digest);
                format!("(dataset = {name} AND dataset_digest = {digest})")
            }
            None => format!("dataset = {name}"),
        }
    }
}

/// The logged models of these experiments for which all conditions hold, measured on one of `datasets` where there are
/// any. Those that lack what is sorted by come last.
pub async fn logged_models(
    db: &mut Connection,
    experiments: &[i64],
    datasets: &[MeasuredOn],
    conditions: &[Condition<LoggedModelField>],
    orders: &[Order<LoggedModelField>],
    piece: Piece,
) -> Result<Vec<LoggedModel>> {
    if experiments.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new("SELECT l.* FROM logged_models l WHERE l.deleted_at IS NULL");
    let list = sql.list(experiments.iter().map(|id| Value::Int(*id)));
    sql.push(&format!(" AND l.experiment IN {list}"));
    let any: Vec<String> = datasets.iter().map(|one| one.sql(&mut sql)).collect();
    let any = match any.is_empty() {
        true => String::new(),
        false => format!(" AND ({})", any.join(" OR ")),
    };
    let mut measured = false;
    for Condition { field, test } in conditions {
        let condition = match field {
            LoggedModelField::Id => sql.test("l.id", test),
            LoggedModelField::Name => sql.test("l.name", test),
            LoggedModelField::Kind => sql.test("l.kind", test),
            LoggedModelField::Status => sql.test("l.status", test),
            LoggedModelField::Run => sql.test("l.run", test),
            LoggedModelField::CreatedAt => sql.test("l.created_at", test),
            LoggedModelField::ChangedAt => sql.test("l.changed_at", test),
            LoggedModelField::Metric(name, _) => {
                measured = true;
                sql.measured("l.id", ("logged_model_metrics", "model"), name, test, &any)
            }
            LoggedModelField::Param(name) => {
                sql.named("l.id", ("logged_model_params", "model"), name, test)
            }
            LoggedModelField::Tag(name) => {
                sql.named("l.id", ("logged_model_tags", "model"), name, test)
            }
        };
        sql.push(&format!(" AND {condition}"));
    }
    if !measured && !any.is_empty() {
        sql.push(&format!(
            " AND l.id IN (SELECT model FROM logged_model_metrics WHERE 1 = 1{any})"
        ));
    }
    let mut terms = Vec::new();
    for order in orders {
        terms.extend(order_term(&mut sql, order));
    }
    let sorted = |field| orders.iter().any(|order| order.field == field);
    if !sorted(LoggedModelField::CreatedAt) {
        terms.push("l.created_at DESC".to_owned());
    }
    if !sorted(LoggedModelField::Id) {
        terms.push(by_bytes("l.id"));
    }
    sql.push(&format!(" ORDER BY {}", terms.join(", ")));
    sql.piece(piece);
    let found = sql.fetch(db).await?;
    found.iter().map(rows::logged_model).collect()
}

fn order_term(sql: &mut Sql, order: &Order<LoggedModelField>) -> Option<String> {
    let direction = direction(order.descending);
    let text = |column: &str| format!("{column} IS NULL, {} {direction}", by_bytes(column));
    let term = match &order.field {
        LoggedModelField::Id => text("l.id"),
        LoggedModelField::Name => text("l.name"),
        LoggedModelField::Kind => text("l.kind"),
        LoggedModelField::Status => text("l.status"),
        LoggedModelField::Run => text("l.run"),
        LoggedModelField::CreatedAt => format!("l.created_at {direction}"),
        LoggedModelField::ChangedAt => format!("l.changed_at {direction}"),
        LoggedModelField::Metric(name, dataset) => {
            let name = sql.text(name);
            let dataset = match dataset {
                Some(dataset) => format!(" AND {}", dataset.sql(sql)),
                None => String::new(),
            };
            let value = format!(
                "(SELECT m.value FROM logged_model_metrics m WHERE m.model = l.id AND m.name = {name}{dataset} \
                 ORDER BY m.at DESC, m.step DESC, m.run LIMIT 1)"
            );
            format!("{value} IS NULL, {value} {direction}")
        }
        LoggedModelField::Param(_) | LoggedModelField::Tag(_) => return None,
    };
    Some(term)
}
