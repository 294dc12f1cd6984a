//! From nbformat 3 to 4, on the JSON, by the rules of Python's `nbformat.v4.convert`.

use serde_json::{Map, Value};

use super::read::ReadError;
use crate::json::Reader;

/// Takes the cells out of the worksheets, as cells of nbformat 4.
pub(super) fn cells(
    fields: &mut Map<String, Value>,
    metadata: &mut Map<String, Value>,
) -> Result<Vec<Value>, ReadError> {
    let wrong = |problem| ReadError::NotNotebook { problem };
    let Some(Value::Array(sheets)) = fields.shift_remove("worksheets") else {
        return Err(wrong("`worksheets` is missing or not a list"));
    };
    metadata.shift_remove("name");
    // `cells` is where those of nbformat 4 go.
    for gone in ["orig_nbformat", "orig_nbformat_minor", "cells"] {
        fields.shift_remove(gone);
    }
    let mut cells = Vec::new();
    for mut sheet in sheets {
        match sheet.get_mut("cells").map(Value::take) {
            Some(Value::Array(list)) => cells.extend(list),
            _ => return Err(wrong("a worksheet has no list of `cells`")),
        }
    }
    for cell in cells.iter_mut().filter_map(Value::as_object_mut) {
        upgrade_cell(cell);
    }
    Ok(cells)
}

fn upgrade_cell(cell: &mut Map<String, Value>) {
    match cell.get("cell_type").and_then(Value::as_str) {
        Some("code") => {
            cell.shift_remove("language");
            rename(cell, "input", "source");
            rename(cell, "prompt_number", "execution_count");
            if let Some(collapsed) = cell.shift_remove("collapsed") {
                let metadata = cell
                    .entry("metadata")
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Some(metadata) = metadata.as_object_mut() {
                    metadata.insert("collapsed".into(), collapsed);
                }
            }
            if let Some(Value::Array(outputs)) = cell.get_mut("outputs") {
                for output in outputs.iter_mut().filter_map(Value::as_object_mut) {
                    upgrade_output(output);
                }
            }
        }
        Some("heading") => {
            let level = cell.shift_remove("level").and_then(|l| l.as_u64());
            let hashes = "#".repeat(level.unwrap_or(1).clamp(1, 6) as usize);
            cell.insert("cell_type".into(), "markdown".into());
            if let Some(text) = cell.get("source").and_then(joined) {
                let line = text.lines().collect::<Vec<_>>().join(" ");
                cell.insert("source".into(), format!("{hashes} {line}").into());
            }
        }
        Some("html") => {
            cell.insert("cell_type".into(), "markdown".into());
        }
        Some(_) | None => {}
    }
    if let Some(text) = cell.get("source").and_then(joined) {
        cell.insert("source".into(), text.into());
    }
}

fn upgrade_output(output: &mut Map<String, Value>) {
    match output.get("output_type").and_then(Value::as_str) {
        Some("stream") => {
            let name = output.shift_remove("stream");
            output.insert("name".into(), name.unwrap_or_else(|| "stdout".into()));
            if let Some(text) = output.get("text").and_then(joined) {
                output.insert("text".into(), text.into());
            }
        }
        Some("pyerr") => {
            output.insert("output_type".into(), "error".into());
        }
        Some("pyout") => {
            output.insert("output_type".into(), "execute_result".into());
            let count = output.shift_remove("prompt_number");
            output.insert("execution_count".into(), count.unwrap_or(Value::Null));
            bundle(output);
        }
        Some("display_data") => bundle(output),
        Some(_) | None => {}
    }
}

/// Moves what is shown from the output's own fields into `data`, under MIME types.
fn bundle(output: &mut Map<String, Value>) {
    let mut data = Map::new();
    let keys: Vec<String> = output.keys().cloned().collect();
    for key in keys {
        if matches!(key.as_str(), "output_type" | "execution_count" | "metadata") {
            continue;
        }
        let Some(value) = output.shift_remove(&key) else {
            continue;
        };
        let value = joined(&value).map_or(value, Value::String);
        let value = match (key.as_str(), &value) {
            ("json", Value::String(text)) => json(text).unwrap_or(value),
            _ => value,
        };
        data.insert(mime(&key).to_owned(), value);
    }
    output.insert("data".into(), Value::Object(data));
    if let Some(Value::Object(metadata)) = output.get_mut("metadata") {
        let old = std::mem::take(metadata);
        metadata.extend(old.into_iter().map(|(key, v)| (mime(&key).to_owned(), v)));
    }
}

/// The value of a JSON text, where it is one that may lie in an output's data.
fn json(text: &str) -> Option<Value> {
    // Document, cells, cell, outputs, output, data.
    let mut reader = Reader::inside(text, 6);
    let value = reader.value().ok()?;
    reader.end().ok()?;
    Some(value)
}

fn mime(alias: &str) -> &str {
    match alias {
        "text" => "text/plain",
        "html" => "text/html",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpeg" => "image/jpeg",
        "latex" => "text/latex",
        "json" => "application/json",
        "javascript" => "application/javascript",
        other => other,
    }
}

/// Old files hold lists of lines without their ends, too.
fn joined(value: &Value) -> Option<String> {
    let Value::Array(lines) = value else {
        return value.as_str().map(str::to_owned);
    };
    let lines: Vec<&str> = lines.iter().map(Value::as_str).collect::<Option<_>>()?;
    let with_ends = lines.first().is_some_and(|l| l.ends_with(['\n', '\r']));
    Some(lines.join(if with_ends { "" } else { "\n" }))
}

fn rename(fields: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = fields.shift_remove(from) {
        fields.insert(to.to_owned(), value);
    }
}
