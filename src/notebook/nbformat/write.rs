//! From a [`Notebook`] to the bytes that Jupyter would write: keys sorted, one blank of indent, text as
//! lists of lines, a line end at the end. Writes to what it is given, and opens nothing itself.

use std::io::{self, Write};

use serde_json::{Map, Value};

use super::output;
use crate::json::{self, Node, Put};
use crate::message::OutputMessage;
use crate::model::{Cell, Notebook, Output};

/// Outputs whose content lies elsewhere: the notebook holds small messages in their place, which it alone understands.
pub trait Elsewhere {
    /// Gives the text that `stand_in` of a stream stands for, in pieces.
    ///
    /// # Errors
    /// Where it cannot be read, or `take` refuses it.
    fn text(&self, stand_in: &str, take: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()>;

    /// What another output stands for.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn whole(&self, stand_in: &OutputMessage) -> io::Result<Whole>;

    /// Copies the JSON text of the MIME bundle of an output whose content is [`Whole::Json`].
    ///
    /// # Errors
    /// Where it cannot be read or `out` fails.
    fn copy(&self, stand_in: &OutputMessage, out: &mut dyn Write) -> io::Result<()>;
}

/// The content of an output that lies elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub enum Whole {
    /// All of it. Display or update: what counts is its data and metadata.
    Message(OutputMessage),
    /// A display too large to be read: its metadata; the data is copied as the JSON text that it is.
    Json {
        /// MIME type to metadata.
        metadata: Map<String, Value>,
    },
}

/// The file's text.
#[must_use]
pub fn write(notebook: &Notebook) -> String {
    let mut bytes = Vec::new();
    let written = put(notebook, &mut bytes, &|output| output::node(output));
    match written.map(|()| String::from_utf8(bytes)) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) | Err(_) => unreachable!("memory takes everything, and text is UTF-8"),
    }
}

/// Writes the file's text piece by piece. Outputs are read from `elsewhere` one by one, so that memory holds one.
///
/// # Errors
/// Where `out` or `elsewhere` fails.
pub fn write_from(
    notebook: &Notebook,
    out: &mut dyn Write,
    elsewhere: &dyn Elsewhere,
) -> io::Result<()> {
    put(notebook, out, &|output| {
        Node::Later(Box::new(move |put| put_kept(output, elsewhere, put)))
    })
}

/// How an output becomes JSON.
type ToNode<'a> = &'a dyn Fn(&'a Output) -> Node<'a>;

fn put<'a>(notebook: &'a Notebook, out: &mut dyn Write, to_node: ToNode<'a>) -> io::Result<()> {
    let mut fields = Node::fields(&notebook.extra);
    let cells = notebook.cells.iter().map(|one| cell(one, to_node));
    fields.push(("cells", Node::Array(cells.collect())));
    fields.push(("metadata", Node::Object(Node::fields(&notebook.metadata))));
    fields.push(("nbformat", Node::Integer(4)));
    fields.push(("nbformat_minor", Node::Integer(notebook.minor.max(5))));
    json::write(out, Node::Object(fields))?;
    out.write_all(b"\n")
}

fn cell<'a>(cell: &'a Cell, to_node: ToNode<'a>) -> Node<'a> {
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
        let outputs = cell.outputs.iter().map(to_node);
        fields.push(("outputs", Node::Array(outputs.collect())));
    }
    Node::Object(fields)
}

/// Puts an output with its content. What kind of output it is, the stand-in says: an update has none of its own.
fn put_kept(output: &Output, elsewhere: &dyn Elsewhere, put: &mut Put<'_>) -> io::Result<()> {
    let Some(stand_in) = output.message() else {
        return put(output::node(output));
    };
    match stand_in {
        OutputMessage::Stream { text, .. } => {
            let pieces = Node::Pieces(Box::new(move |take| elsewhere.text(text, take)));
            put(Node::Object(replaced(stand_in, [("text", pieces)])))
        }
        OutputMessage::Error { .. }
        | OutputMessage::ClearOutput { .. }
        | OutputMessage::Widget(_) => match elsewhere.whole(stand_in)? {
            Whole::Message(message) => put(Node::Object(output::fields(&message))),
            Whole::Json { .. } => put(output::node(output)),
        },
        OutputMessage::DisplayData { .. }
        | OutputMessage::ExecuteResult { .. }
        | OutputMessage::UpdateDisplayData { .. } => {
            let (data, metadata);
            let data = match elsewhere.whole(stand_in)? {
                Whole::Json { metadata: found } => {
                    metadata = found;
                    Node::Json(Box::new(move |out| elsewhere.copy(stand_in, out)))
                }
                Whole::Message(message) => {
                    (data, metadata) = message.into_display().unwrap_or_default();
                    output::bundle(&data)
                }
            };
            let metadata = Node::Object(Node::fields(&metadata));
            let fields = replaced(stand_in, [("data", data), ("metadata", metadata)]);
            put(Node::Object(fields))
        }
    }
}

/// The fields of a message, some of them with other content.
fn replaced<'a, const N: usize>(
    message: &'a OutputMessage,
    with: [(&'static str, Node<'a>); N],
) -> Vec<(&'a str, Node<'a>)> {
    let mut fields = output::fields(message);
    fields.retain(|(name, _)| with.iter().all(|(other, _)| name != other));
    fields.extend(with);
    fields
}
