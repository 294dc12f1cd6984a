//! The searches of registered models and of their versions.

use super::{Condition, Order, Piece, Sql, by_bytes, direction};
use crate::store::models::{self as rows, Model};
use crate::store::versions::{ModelVersion, VERSION_ROW, model_version};
use crate::store::{Connection, Result};

/// What registered models are asked for, and sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelField {
    /// Its name.
    Name,
    /// When it or one of its versions was changed last.
    ChangedAt,
    /// A tag. Nothing is sorted by it.
    Tag(String),
}

/// What versions are asked for, and sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionField {
    /// The model's name.
    Model,
    /// Its number.
    Number,
    /// The run that made it.
    Run,
    /// Where it came from.
    Source,
    /// When it was made.
    CreatedAt,
    /// When it was changed last.
    ChangedAt,
    /// A tag. Nothing is sorted by it.
    Tag(String),
}

/// The models for which all conditions hold.
pub async fn models(
    db: &mut Connection,
    conditions: &[Condition<ModelField>],
    orders: &[Order<ModelField>],
    piece: Piece,
) -> Result<Vec<Model>> {
    let mut sql = Sql::new("SELECT m.* FROM models m WHERE 1 = 1");
    for Condition { field, test } in conditions {
        let condition = match field {
            ModelField::Name => sql.test("m.name", test),
            ModelField::ChangedAt => sql.test("m.changed_at", test),
            ModelField::Tag(name) => sql.named("m.name", ("model_tags", "model"), name, test),
        };
        sql.push(&format!(" AND {condition}"));
    }
    let mut terms = Vec::new();
    for Order { field, descending } in orders {
        let column = match field {
            ModelField::Name => by_bytes("m.name"),
            ModelField::ChangedAt => "m.changed_at".to_owned(),
            ModelField::Tag(_) => continue,
        };
        terms.push(format!("{column} {}", direction(*descending)));
    }
    if !orders.iter().any(|order| order.field == ModelField::Name) {
        terms.push(by_bytes("m.name"));
    }
    sql.push(&format!(" ORDER BY {}", terms.join(", ")));
    sql.piece(piece);
    let found = sql.fetch(db).await?;
    found.iter().map(rows::model).collect()
}

/// The versions for which all conditions hold; no candidates and no deleted ones.
pub async fn versions(
    db: &mut Connection,
    conditions: &[Condition<VersionField>],
    orders: &[Order<VersionField>],
    piece: Piece,
) -> Result<Vec<ModelVersion>> {
    let mut sql = Sql::new(format!(
        "{VERSION_ROW} WHERE v.version IS NOT NULL AND v.deleted_at IS NULL"
    ));
    for Condition { field, test } in conditions {
        let condition = match field {
            VersionField::Model => sql.test("v.model", test),
            VersionField::Number => sql.test("v.version", test),
            VersionField::Run => sql.test("v.run", test),
            VersionField::Source => {
                sql.test("COALESCE(v.source, 'runs:/' || v.run || '/model')", test)
            }
            VersionField::CreatedAt => sql.test("v.created_at", test),
            VersionField::ChangedAt => sql.test("v.changed_at", test),
            VersionField::Tag(name) => {
                sql.named("v.id", ("model_version_tags", "version"), name, test)
            }
        };
        sql.push(&format!(" AND {condition}"));
    }
    let mut terms = Vec::new();
    for Order { field, descending } in orders {
        let column = match field {
            VersionField::Model => by_bytes("v.model"),
            VersionField::Number => "v.version".to_owned(),
            VersionField::CreatedAt => "v.created_at".to_owned(),
            VersionField::ChangedAt => "v.changed_at".to_owned(),
            VersionField::Run | VersionField::Source | VersionField::Tag(_) => continue,
        };
        terms.push(format!("{column} {}", direction(*descending)));
    }
    if orders.is_empty() {
        terms.push("v.changed_at DESC".to_owned());
    }
    let sorted = |field| orders.iter().any(|order| order.field == field);
    if !sorted(VersionField::Model) {
        terms.push(by_bytes("v.model"));
    }
    if !sorted(VersionField::Number) {
        terms.push("v.version DESC".to_owned());
    }
    sql.push(&format!(" ORDER BY {}", terms.join(", ")));
    sql.piece(piece);
    let found = sql.fetch(db).await?;
    found.iter().map(model_version).collect()
}
