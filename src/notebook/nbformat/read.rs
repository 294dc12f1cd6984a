//! From the bytes of a file to a [`Notebook`], with errors that name the place.

use std::io;

use serde_json::{Map, Value};

use super::{ids, output, upgrade};
use crate::json::{Fault, Reader, place};
use crate::model::{Cell, CellKind, Notebook};

/// Longer files are refused.
pub const MAX_BYTES: usize = 384 << 20;
/// More cells are refused.
pub const MAX_CELLS: usize = 100_000;

/// Why a file is not a notebook that can be read. Lines, columns and cells count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The file is empty.
    #[error("the file is empty; a notebook is a JSON document: save it again in Jupyter")]
    Empty,
    /// Too long: of a file that is given whole longer than [`MAX_BYTES`].
    #[error("the file is larger than {} MiB, the most that is read; clear its outputs", .most >> 20)]
    TooLarge {
        /// The most bytes that are read.
        most: usize,
    },
    /// Not UTF-8.
    #[error(
        "line {line}, column {column}: this is not UTF-8 text; save the notebook again in Jupyter"
    )]
    NotUtf8 {
        /// Line of the first wrong byte.
        line: usize,
        /// Column of the first wrong byte.
        column: usize,
    },
    /// Conflict markers of git.
    #[error("line {line}: git left a merge conflict here; resolve it, then commit again")]
    MergeConflict {
        /// Line of the marker.
        line: usize,
    },
    /// Not JSON.
    #[error("line {line}, column {column}: not JSON: {problem}")]
    NotJson {
        /// Line of the problem.
        line: usize,
        /// Column of the problem.
        column: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// JSON that ends in the middle.
    #[error("line {line}, column {column}: the file is cut off: {problem}")]
    Truncated {
        /// Line where what is not finished begins.
        line: usize,
        /// Its column.
        column: usize,
        /// What is not finished.
        problem: &'static str,
    },
    /// JSON, but no notebook.
    #[error("this is JSON but not a notebook: {problem}")]
    NotNotebook {
        /// What is missing or wrong.
        problem: &'static str,
    },
    /// A version that is newer than what is read.
    #[error(
        "nbformat {major} is newer than what this version of Trainyard reads (3 and 4): save the notebook as nbformat 4, or upgrade Trainyard"
    )]
    Newer {
        /// The major version.
        major: u64,
    },
    /// A version that is not read.
    #[error("nbformat {major} is not read (3 and 4 are); open the notebook in Jupyter and save it")]
    Unsupported {
        /// The major version.
        major: u64,
    },
    /// More than [`MAX_CELLS`].
    #[error("the notebook has {cells} cells, more than the {MAX_CELLS} that are read")]
    TooManyCells {
        /// How many.
        cells: usize,
    },
    /// A cell that is none.
    #[error("cell {cell}: {problem}")]
    Cell {
        /// The cell, from 1.
        cell: usize,
        /// What is missing or wrong.
        problem: &'static str,
    },
}

impl ReadError {
    /// For a version that is neither 3 nor 4.
    pub(crate) fn of_version(major: u64) -> Self {
        match major {
            5.. => ReadError::Newer { major },
            0..5 => ReadError::Unsupported { major },
        }
    }
}

/// Reads a notebook, brings it to nbformat 4.5 and repairs ids that are missing, wrong or repeated.
///
/// # Errors
/// Where it is not a notebook of nbformat 3 or 4, see [`ReadError`].
pub fn read(bytes: &[u8]) -> Result<Notebook, ReadError> {
    let text = text(bytes)?;
    let mut reader = Reader::new(text);
    let mut document = document(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|fault| parse_error(text, &fault))?;
    if document.get("nbformat").and_then(Value::as_u64) != Some(4) {
        // What has another meaning there is kept as it is.
        let value = Reader::new(text).value();
        document = value.map_err(|fault| parse_error(text, &fault))?;
    }
    let Value::Object(fields) = document else {
        return Err(ReadError::NotNotebook {
            problem: "its top level is not an object",
        });
    };
    notebook(fields)
}

/// Reads a notebook of nbformat 4 from where its bytes come from: memory never holds the file's text. None: it has to be
/// [`read`] whole, as one of nbformat 3, or one that is wrong: only that tells where.
#[must_use]
pub fn read_in_pieces(source: &mut dyn io::Read) -> Option<Notebook> {
    let mut reader = Reader::in_pieces(source);
    let document = document(&mut reader).ok()?;
    reader.end().ok()?;
    match document {
        Value::Object(fields) if fields.get("nbformat").and_then(Value::as_u64) == Some(4) => {
            notebook(fields).ok()
        }
        _ => None,
    }
}

/// The whole of a file of nbformat 4. Texts of cells and streams, most of what there is, are joined as they are read:
/// Jupyter writes them as lists of lines.
fn document(reader: &mut Reader<'_>) -> Result<Value, Fault> {
    fields(reader, |reader, key, _| match key {
        "cells" => list(reader, |reader| fields(reader, cell_field)),
        _ => reader.value(),
    })
}

fn cell_field(
    reader: &mut Reader<'_>,
    key: &str,
    before: &Map<String, Value>,
) -> Result<Value, Fault> {
    let code = before.get("cell_type").is_some_and(|word| word == "code");
    match key {
        "source" => reader.joined(),
        "outputs" if code => list(reader, |reader| fields(reader, output::field)),
        _ => reader.value(),
    }
}

/// Reads an object whose fields are read by `each`, which is given those before; what is none is read as it is.
fn fields(
    reader: &mut Reader<'_>,
    each: impl Fn(&mut Reader<'_>, &str, &Map<String, Value>) -> Result<Value, Fault>,
) -> Result<Value, Fault> {
    if reader.peek()? != b'{' {
        return reader.value();
    }
    let mut map = Map::new();
    reader.object(|reader, key| {
        let value = each(reader, &key, &map)?;
        map.insert(key, value);
        Ok(())
    })?;
    Ok(Value::Object(map))
}

/// Reads a list whose values are read by `each`; what is none is read as it is.
fn list(
    reader: &mut Reader<'_>,
    each: impl Fn(&mut Reader<'_>) -> Result<Value, Fault>,
) -> Result<Value, Fault> {
    if reader.peek()? != b'[' {
        return reader.value();
    }
    let mut values = Vec::new();
    reader.array(|reader| {
        values.push(each(reader)?);
        Ok(())
    })?;
    Ok(Value::Array(values))
}

/// The text of a file, without a byte order mark.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, ReadError> {
    if bytes.len() > MAX_BYTES {
        return Err(ReadError::TooLarge { most: MAX_BYTES });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let (line, column) = place(&good, good.len());
        ReadError::NotUtf8 { line, column }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(ReadError::Empty);
    }
    Ok(text)
}

/// The error for a fault, in words that help.
pub(crate) fn parse_error(text: &str, fault: &Fault) -> ReadError {
    let (line, column) = place(text, fault.at);
    let markers = ["<<<<<<< ", "=======", ">>>>>>> ", "||||||| "];
    let here = text.lines().nth(line - 1).unwrap_or_default();
    if markers.iter().any(|marker| here.starts_with(marker)) {
        return ReadError::MergeConflict { line };
    }
    let problem = fault.problem;
    if fault.truncated {
        ReadError::Truncated {
            line,
            column,
            problem,
        }
    } else {
        ReadError::NotJson {
            line,
            column,
            problem,
        }
    }
}

/// Takes text that a file holds as one string or as a list of lines; what is none stays as it is.
pub(crate) fn text_of(value: &mut Value) -> Option<String> {
    match value {
        Value::String(text) => Some(std::mem::take(text)),
        Value::Array(lines) => lines.iter().map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn notebook(mut fields: Map<String, Value>) -> Result<Notebook, ReadError> {
    let wrong = |problem| ReadError::NotNotebook { problem };
    let major = match fields.shift_remove("nbformat") {
        None => return Err(wrong("`nbformat` is missing")),
        Some(major) => major
            .as_u64()
            .ok_or_else(|| wrong("`nbformat` is not a number"))?,
    };
    let minor = fields.shift_remove("nbformat_minor");
    let minor = minor.and_then(|minor| minor.as_u64()).unwrap_or(0);
    let mut metadata = match fields.shift_remove("metadata") {
        None => Map::new(),
        Some(Value::Object(metadata)) => metadata,
        Some(_) => return Err(wrong("`metadata` is not an object")),
    };
    let cells = match major {
        4 => match fields.shift_remove("cells") {
            Some(Value::Array(cells)) => cells,
            Some(_) => return Err(wrong("`cells` is not a list")),
            None => return Err(wrong("`cells` is missing")),
        },
        3 => upgrade::cells(&mut fields, &mut metadata)?,
        _ => return Err(ReadError::of_version(major)),
    };
    if cells.len() > MAX_CELLS {
        return Err(ReadError::TooManyCells { cells: cells.len() });
    }
    // What Jupyter never writes to a file.
    for transient in ["orig_nbformat", "orig_nbformat_minor", "signature"] {
        metadata.shift_remove(transient);
    }
    let cells = cells.into_iter().enumerate();
    let mut cells = cells
        .map(|(index, value)| {
            cell(value).map_err(|problem| ReadError::Cell {
                cell: index + 1,
                problem,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    ids::repair(&mut cells);
    Ok(Notebook {
        metadata,
        cells,
        extra: fields,
        minor: if major == 4 { minor.max(5) } else { 5 },
    })
}

fn cell(value: Value) -> Result<Cell, &'static str> {
    let Value::Object(mut fields) = value else {
        return Err("it is not an object");
    };
    let kind = match fields.shift_remove("cell_type") {
        Some(Value::String(word)) => CellKind::from(word.as_str()),
        Some(_) => return Err("its `cell_type` is not text"),
        None => return Err("it has no `cell_type`"),
    };
    let mut source = fields
        .shift_remove("source")
        .ok_or("it has no `source`; add one, empty where there is nothing to say")?;
    let source = text_of(&mut source).ok_or("its `source` is neither text nor a list of lines")?;
    let mut metadata = match fields.shift_remove("metadata") {
        None => Map::new(),
        Some(Value::Object(metadata)) => metadata,
        Some(_) => return Err("its `metadata` is not an object"),
    };
    metadata.shift_remove("trusted");
    let id = match fields.shift_remove("id") {
        Some(Value::String(id)) => id,
        _ => String::new(),
    };
    let (mut execution_count, mut outputs) = (None, Vec::new());
    if kind == CellKind::Code {
        execution_count = fields
            .shift_remove("execution_count")
            .and_then(|count| count.as_u64());
        outputs = match fields.shift_remove("outputs") {
            None => Vec::new(),
            Some(Value::Array(list)) => list
                .into_iter()
                .map(|one| output::read(one).ok_or("one of its `outputs` is not an object"))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err("its `outputs` is not a list"),
        };
    }
    if let Some(Value::Object(attachments)) = fields.get_mut("attachments") {
        for bundle in attachments.values_mut().filter_map(Value::as_object_mut) {
            output::join_bundle(bundle);
        }
    }
    Ok(Cell {
        id,
        kind,
        source,
        metadata,
        execution_count,
        outputs,
        extra: fields,
    })
}
