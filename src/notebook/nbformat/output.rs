//! One output of nbformat 4 in a file, to and from the message it came from.

use serde_json::{Map, Value};

use super::read::text_of;
use crate::json::{Fault, Node, Reader};
use crate::message::{OutputMessage, StreamName};
use crate::model::Output;

/// Reads an output. One whose fields are not those of its type is kept as it came.
pub(crate) fn read(value: Value) -> Option<Output> {
    let Value::Object(mut fields) = value else {
        return None;
    };
    let read = match fields.get("output_type").and_then(Value::as_str) {
        Some("stream") => stream(&mut fields),
        Some("display_data") => display(&mut fields),
        Some("execute_result") => result(&mut fields),
        Some("error") => error(&fields),
        Some(_) | None => None,
    };
    let Some(message) = read else {
        return Some(Output::Unknown(fields));
    };
    for known in known_fields(&message) {
        fields.shift_remove(*known);
    }
    Some(Output::Known {
        message,
        extra: fields,
    })
}

/// What `output` looks like in a file.
pub(super) fn node(output: &Output) -> Node<'_> {
    match output {
        Output::Unknown(fields) => Node::Object(Node::fields(fields)),
        Output::Known { message, extra } => {
            let mut all = Node::fields(extra);
            all.extend(fields(message));
            Node::Object(all)
        }
    }
}

/// A MIME bundle; text is written as lines where Jupyter does so.
pub(super) fn bundle(data: &Map<String, Value>) -> Node<'_> {
    let fields = data.iter().map(|(mime, value)| {
        let lines = mime.starts_with("text/")
            || mime == "application/javascript"
            || mime == "image/svg+xml";
        match value {
            Value::String(text) if lines => (mime.as_str(), Node::Lines(text)),
            value => (mime.as_str(), Node::Value(value)),
        }
    });
    Node::Object(fields.collect())
}

/// Joins the texts of a MIME bundle that are written as lists of lines.
pub(super) fn join_bundle(data: &mut Map<String, Value>) {
    for (mime, value) in data.iter_mut() {
        let json = mime == "application/json"
            || (mime.starts_with("application/") && mime.ends_with("+json"));
        if !json
            && value.is_array()
            && let Some(text) = text_of(value)
        {
            *value = Value::String(text);
        }
    }
}

fn known_fields(message: &OutputMessage) -> &'static [&'static str] {
    match message {
        OutputMessage::Stream { .. } => &["output_type", "name", "text"],
        OutputMessage::DisplayData { .. } => &["output_type", "data", "metadata"],
        OutputMessage::ExecuteResult { .. } => {
            &["output_type", "data", "metadata", "execution_count"]
        }
        OutputMessage::Error { .. } => &["output_type", "ename", "evalue", "traceback"],
        OutputMessage::UpdateDisplayData { .. }
        | OutputMessage::ClearOutput { .. }
        | OutputMessage::Widget(_) => &[],
    }
}

/// The fields of a message in a file.
pub(super) fn fields(message: &OutputMessage) -> Vec<(&str, Node<'_>)> {
    match message {
        OutputMessage::Stream { name, text } => vec![
            ("output_type", Node::Text("stream")),
            ("name", Node::Text(name.word())),
            ("text", Node::Lines(text)),
        ],
        OutputMessage::DisplayData { data, metadata, .. }
        | OutputMessage::UpdateDisplayData { data, metadata, .. } => vec![
            ("output_type", Node::Text("display_data")),
            ("data", bundle(data)),
            ("metadata", Node::Object(Node::fields(metadata))),
        ],
        OutputMessage::ExecuteResult {
            execution_count,
            data,
            metadata,
            ..
        } => vec![
            ("output_type", Node::Text("execute_result")),
            (
                "execution_count",
                execution_count.map_or(Node::Null, Node::Integer),
            ),
            ("data", bundle(data)),
            ("metadata", Node::Object(Node::fields(metadata))),
        ],
        OutputMessage::Error {
            ename,
            evalue,
            traceback,
        } => vec![
            ("output_type", Node::Text("error")),
            ("ename", Node::Text(ename)),
            ("evalue", Node::Text(evalue)),
            (
                "traceback",
                Node::Array(traceback.iter().map(|line| Node::Text(line)).collect()),
            ),
        ],
        // A fold never leaves one in a notebook; an empty stream says nothing.
        OutputMessage::ClearOutput { .. } | OutputMessage::Widget(_) => vec![
            ("output_type", Node::Text("stream")),
            ("name", Node::Text("stdout")),
            ("text", Node::Lines("")),
        ],
    }
}

fn stream(fields: &mut Map<String, Value>) -> Option<OutputMessage> {
    let name = stream_name(fields)?;
    let text = text_of(fields.get_mut("text")?)?;
    Some(OutputMessage::Stream { name, text })
}

fn stream_name(fields: &Map<String, Value>) -> Option<StreamName> {
    match fields.get("name")?.as_str()? {
        "stdout" => Some(StreamName::Stdout),
        "stderr" => Some(StreamName::Stderr),
        _ => None,
    }
}

/// Reads a field of an output, given those before it (Jupyter sorts them). The text of a stream is joined; what may not be
/// one is kept as it came.
pub(super) fn field(
    reader: &mut Reader<'_>,
    key: &str,
    before: &Map<String, Value>,
) -> Result<Value, Fault> {
    let of_stream = || {
        before
            .get("output_type")
            .is_some_and(|word| word == "stream")
    };
    if key == "text" && of_stream() && stream_name(before).is_some() {
        reader.joined()
    } else {
        reader.value()
    }
}

fn display(fields: &mut Map<String, Value>) -> Option<OutputMessage> {
    let (data, metadata) = data_and_metadata(fields)?;
    Some(OutputMessage::DisplayData {
        data,
        metadata,
        display_id: None,
    })
}

fn result(fields: &mut Map<String, Value>) -> Option<OutputMessage> {
    let execution_count = fields.get("execution_count").and_then(Value::as_u64);
    let (data, metadata) = data_and_metadata(fields)?;
    Some(OutputMessage::ExecuteResult {
        execution_count,
        data,
        metadata,
        display_id: None,
    })
}

/// Takes both, or leaves the fields alone.
fn data_and_metadata(
    fields: &mut Map<String, Value>,
) -> Option<(Map<String, Value>, Map<String, Value>)> {
    fields.get("data")?.as_object()?;
    if fields.get("metadata").is_some_and(|m| !m.is_object()) {
        return None;
    }
    let mut take = |key| match fields.get_mut(key).map(Value::take) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let mut data = take("data");
    join_bundle(&mut data);
    Some((data, take("metadata")))
}

fn error(fields: &Map<String, Value>) -> Option<OutputMessage> {
    let text = |key: &str| fields.get(key)?.as_str().map(str::to_owned);
    let lines = fields.get("traceback")?.as_array()?.iter();
    Some(OutputMessage::Error {
        ename: text("ename")?,
        evalue: text("evalue")?,
        traceback: lines
            .map(|line| line.as_str().map(str::to_owned))
            .collect::<Option<_>>()?,
    })
}
