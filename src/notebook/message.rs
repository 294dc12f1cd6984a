//! Output messages of a kernel, as the Jupyter messaging protocol 5.3 names them
//! (<https://jupyter-client.readthedocs.io/en/stable/messaging.html>), without the envelope.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One message that a cell's execution put on the kernel's iopub channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "output_type", rename_all = "snake_case")]
pub enum OutputMessage {
    /// Text on standard output or standard error.
    Stream {
        /// Which of the two.
        name: StreamName,
        /// The text, with carriage returns and backspaces as they came.
        text: String,
    },
    /// A display in several MIME types.
    DisplayData {
        /// MIME type to content.
        data: Map<String, Value>,
        /// MIME type to metadata.
        #[serde(default)]
        metadata: Map<String, Value>,
        /// The id by which later messages may replace this display.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        display_id: Option<String>,
    },
    /// The value of a cell's last expression.
    ExecuteResult {
        /// The kernel's count (`Out[n]`).
        execution_count: Option<u64>,
        /// MIME type to content.
        data: Map<String, Value>,
        /// MIME type to metadata.
        #[serde(default)]
        metadata: Map<String, Value>,
        /// The id by which later messages may replace this display.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        display_id: Option<String>,
    },
    /// An exception.
    Error {
        /// Class of the exception.
        ename: String,
        /// Its message.
        evalue: String,
        /// Lines with ANSI colours.
        traceback: Vec<String>,
    },
    /// New content for every display with this id.
    UpdateDisplayData {
        /// MIME type to content.
        data: Map<String, Value>,
        /// MIME type to metadata.
        #[serde(default)]
        metadata: Map<String, Value>,
        /// The id of the displays to replace.
        display_id: String,
    },
    /// Removes the cell's outputs, now or when the next one arrives.
    ClearOutput {
        /// True: when the next one arrives.
        wait: bool,
    },
    /// A widget was made, changed or closed.
    Widget(WidgetChange),
}

/// A comm message, reduced to what a notebook keeps of it. The channel of a widget is a comm
/// (<https://github.com/jupyter-widgets/ipywidgets/blob/main/packages/schema/messages.md>).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WidgetChange {
    /// The comm, which is the widget's model.
    pub comm_id: String,
    /// New values of its state.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub state: Map<String, Value>,
    /// Values of its state that are no JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buffers: Vec<WidgetBuffer>,
    /// Where the state has a `msg_id`: the cell whose request that is. An Output widget takes that cell's outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captures: Option<usize>,
    /// Whether it was closed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

/// A binary value of a widget's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WidgetBuffer {
    /// Where it belongs in the state: keys and indices.
    pub path: Vec<Value>,
    /// The bytes in base64.
    pub data: String,
}

type Object = Map<String, Value>;

impl OutputMessage {
    /// Data and metadata of a display, a result or an update; none of anything else.
    #[must_use]
    pub fn display(&self) -> Option<(&Object, &Object)> {
        match self {
            OutputMessage::DisplayData { data, metadata, .. }
            | OutputMessage::ExecuteResult { data, metadata, .. }
            | OutputMessage::UpdateDisplayData { data, metadata, .. } => Some((data, metadata)),
            OutputMessage::Stream { .. }
            | OutputMessage::Error { .. }
            | OutputMessage::ClearOutput { .. }
            | OutputMessage::Widget(_) => None,
        }
    }

    /// The same, owned.
    #[must_use]
    pub fn into_display(self) -> Option<(Object, Object)> {
        match self {
            OutputMessage::DisplayData { data, metadata, .. }
            | OutputMessage::ExecuteResult { data, metadata, .. }
            | OutputMessage::UpdateDisplayData { data, metadata, .. } => Some((data, metadata)),
            OutputMessage::Stream { .. }
            | OutputMessage::Error { .. }
            | OutputMessage::ClearOutput { .. }
            | OutputMessage::Widget(_) => None,
        }
    }
}

/// The two text streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StreamName {
    /// Jupyter's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            StreamName::Stdout => "stdout",
            StreamName::Stderr => "stderr",
        }
    }
}
