//! From a [`Notebook`] to the bytes that Jupyter would write: keys sorted, one blank of indent, text as
//! lists of lines, a line end at the end.

use serde_json::Value;

use super::output;
use crate::json::{self, Node};
use crate::model::{Cell, Notebook};

/// The file's text.
#[must_use]
pub fn write(notebook: &Notebook) -> String {
    let mut fields = Node::fields(&notebook.extra);
    fields.push((
        "cells",
        Node::Array(notebook.cells.iter().map(cell).collect()),
    ));
    fields.push(("metadata", Node::Object(Node::fields(&notebook.metadata))));
    fields.push(("nbformat", Node::Integer(4)));
    fields.push(("nbformat_minor", Node::Integer(notebook.minor.max(5))));
    let mut text = json::write(Node::Object(fields));
    text.push('\n');
    text
}

fn cell(cell: &Cell) -> Node<'_> {
    let extra = cell.extra.iter().map(|(key, value)| match value {
        Value::Object(attachments) if key == "attachments" => {
            let bundles = attachments.iter().map(|(name, bundle)| match bundle {
                Value::Object(data) => (name.as_str(), output::bundle(data)),
                other => (name.as_str(), Node::Value(other)),
            });
            (key.as_str(), Node::Object(bundles.collect()))
        }
        value => (key.as_str(), Node::Value(value)),
    });
    let mut fields: Vec<(&str, Node<'_>)> = extra.collect();
    fields.push(("cell_type", Node::Text(cell.kind.word())));
    fields.push(("id", Node::Text(&cell.id)));
    fields.push(("metadata", Node::Object(Node::fields(&cell.metadata))));
    fields.push(("source", Node::Lines(&cell.source)));
    if cell.is_code() {
        let count = cell.execution_count.map_or(Node::Null, Node::Integer);
        fields.push(("execution_count", count));
        let outputs = cell.outputs.iter().map(output::node);
        fields.push(("outputs", Node::Array(outputs.collect())));
    }
    Node::Object(fields)
}
