//! What a comm message means for the notebook: new state of a widget, or its end. Knows not where state is kept.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use notebook::message::{WidgetBuffer, WidgetChange};
use serde::Deserialize;
use serde_json::Value;

use crate::wire::{Message, WireError};

/// The messages that are read here.
pub(crate) const KINDS: [&str; 3] = ["comm_open", "comm_msg", "comm_close"];

/// More than the notebook keeps of all widgets.
const MOST_BUFFERS: usize = 16 << 20;

#[derive(Deserialize)]
struct Content {
    comm_id: String,
    #[serde(default)]
    data: Value,
}

/// Reads a message of [`KINDS`]. None: it says nothing that a notebook keeps. `cell_of` tells whose request a
/// `msg_id` is.
///
/// # Errors
/// Where it is no comm message.
pub(crate) fn change(
    mut message: Message,
    cell_of: impl Fn(&str) -> Option<u32>,
) -> Result<Option<WidgetChange>, WireError> {
    let buffers = message.take_buffers();
    let bytes: usize = buffers.iter().map(Vec::len).sum();
    if bytes > MOST_BUFFERS {
        return Err(WireError::Unreadable {
            part: "binary state",
            why: format!("it is {bytes} bytes long, of which at most {MOST_BUFFERS} are kept"),
        });
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
