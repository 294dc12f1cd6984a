//! The search of experiments.

use super::{Condition, Order, Piece, Sql, View, by_bytes, direction};
use crate::store::experiments::{self as rows, Experiment};
use crate::store::{Connection, Result};

/// What experiments are asked for, and sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExperimentField {
    /// Its number.
    Id,
    /// Its name.
    Name,
    /// When it was made.
    CreatedAt,
    /// When it was changed last.
    ChangedAt,
    /// A tag. Nothing is sorted by it.
    Tag(String),
}

/// The experiments for which all conditions hold.
pub async fn experiments(
    db: &mut Connection,
    view: View,
    conditions: &[Condition<ExperimentField>],
    orders: &[Order<ExperimentField>],
    piece: Piece,
) -> Result<Vec<Experiment>> {
    let mut sql = Sql::new("SELECT e.* FROM experiments e WHERE ");
    sql.push(&view.sql("e.deleted_at"));
    for Condition { field, test } in conditions {
        let condition = match field {
            ExperimentField::Id => sql.test("e.id", test),
            ExperimentField::Name => sql.test("e.name", test),
            ExperimentField::CreatedAt => sql.test("e.created_at", test),
            ExperimentField::ChangedAt => sql.test("e.changed_at", test),
            ExperimentField::Tag(name) => {
                sql.named("e.id", ("experiment_tags", "experiment"), name, test)
            }
        };
        sql.push(&format!(" AND {condition}"));
    }
    let mut terms: Vec<String> = Vec::new();
    for Order { field, descending } in orders {
        let column = match field {
            ExperimentField::Id => "e.id".to_owned(),
            ExperimentField::Name => by_bytes("e.name"),
            ExperimentField::CreatedAt => "e.created_at".to_owned(),
            ExperimentField::ChangedAt => "e.changed_at".to_owned(),
            ExperimentField::Tag(_) => continue,
        };
        terms.push(format!("{column} {}", direction(*descending)));
    }
    if orders.is_empty() {
        terms.push("e.created_at DESC, e.id ASC".to_owned());
    } else {
        terms.push("e.id DESC".to_owned());
    }
    sql.push(&format!(" ORDER BY {}", terms.join(", ")));
    sql.piece(piece);
    let found = sql.fetch(db).await?;
    let mut list = found
        .iter()
        .map(rows::experiment)
        .collect::<Result<Vec<_>>>()?;
    rows::fill_tags(db, &mut list).await?;
    Ok(list)
}
