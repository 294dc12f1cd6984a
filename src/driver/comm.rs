//! What a comm message means for the notebook: new state of a widget, or its end. Knows not where state is kept.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use notebook::fold::{MOST_WIDGET_BYTES, Weight};
use notebook::message::{WidgetBuffer, WidgetChange};
use protocol::units::ByteSize;
use serde::Deserialize;
use serde_json::Value;

use crate::wire::{Message, WireError};

/// The messages that are read here.
pub(crate) const KINDS: [&str; 3] = ["comm_open", "comm_msg", "comm_close"];

#[derive(Deserialize)]
struct Content {
    comm_id: String,
    #[serde(default)]
    data: Value,
}

/// Why a change of a widget is not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommError {
    /// It is no comm message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No notebook keeps so much.
    #[error("it is more than the {} that are kept of all widgets", ByteSize(MOST_WIDGET_BYTES as u64))]
    TooLarge,
}

/// Reads a message of [`KINDS`]. None: it says nothing that a notebook keeps. `cell_of` tells whose request a
/// `msg_id` is.
///
/// # Errors
/// Where it is no comm message, or too large for any notebook.
pub(crate) fn change(
    mut message: Message,
    cell_of: impl Fn(&str) -> Option<u32>,
) -> Result<Option<WidgetChange>, CommError> {
    let buffers = message.take_buffers();
    let heavy = |content| match serde_json::from_str(content) {
        Ok(Weight(weight)) => weight > MOST_WIDGET_BYTES,
        Err(_) => false,
    };
    if message.large_content().is_some_and(heavy)
        || buffers.iter().map(Vec::len).sum::<usize>() > MOST_WIDGET_BYTES
    {
        return Err(CommError::TooLarge);
    }
    let mut content: Content = message.content()?;
    let mut change = WidgetChange {
        comm_id: content.comm_id,
        closed: message.kind == "comm_close",
        ..WidgetChange::default()
    };
    if change.closed {
        return Ok(Some(change));
    }
    // An echo repeats what a front end said, which is us.
    let Some(Value::Object(state)) = content.data.get_mut("state").map(Value::take) else {
        return Ok(None);
    };
    if content.data["method"] == "echo_update" {
        return Ok(None);
    }
    let captured = state.get("msg_id").and_then(Value::as_str);
    change.captures = captured
        .and_then(cell_of)
        .and_then(|cell| usize::try_from(cell).ok());
    change.state = state;
    let paths = content.data["buffer_paths"]
        .as_array()
        .into_iter()
        .flatten();
    let paths = paths.map(|path| path.as_array().cloned().unwrap_or_default());
    change.buffers = paths
        .zip(buffers)
        .map(|(path, bytes)| WidgetBuffer {
            path,
            data: BASE64_STANDARD.encode(bytes),
        })
        .collect();
    Ok(Some(change))
}
