//! What a kernel answers to a cell, and the states and requests that go with it, as the protocol has them.

use serde::Deserialize;
use serde_json::Value;

use crate::failure::Raised;
use crate::wire::{MOST_CONTENT, Message, WireError};

/// How the kernel answered a cell.
#[derive(Debug, Deserialize)]
pub(crate) struct Reply {
    status: String,
    /// The kernel's count (`In [n]`).
    #[serde(default)]
    pub(crate) execution_count: Option<u64>,
    #[serde(default)]
    ename: String,
    #[serde(default)]
    evalue: String,
    #[serde(default)]
    traceback: Vec<String>,
    #[serde(default)]
    payload: Vec<Value>,
}

impl Reply {
    /// Reads an `execute_reply`.
    ///
    /// # Errors
    /// Where it is none.
    pub(crate) fn read(message: &Message) -> Result<Self, WireError> {
        #[derive(Deserialize)]
        struct Least {
            status: String,
            #[serde(default)]
            execution_count: Option<u64>,
            #[serde(default)]
            ename: String,
        }
        if message.raw_content().len() <= MOST_CONTENT {
            return message.content();
        }
        // An exception may have swallowed a data set. Its words stand in the notebook, as far as that can hold them.
        let Least {
            status,
            execution_count,
            ename,
        } = serde_json::from_slice(message.raw_content()).map_err(|e| WireError::Unreadable {
            part: "content",
            why: e.to_string(),
        })?;
        Ok(Self {
            status,
            execution_count,
            ename: ename.chars().take(200).collect(),
            evalue: format!("(its words are longer than {MOST_CONTENT} bytes)"),
            traceback: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// Whether the cell ran to its end.
    pub(crate) fn is_ok(&self) -> bool {
        self.status == "ok"
    }

    /// Whether it called `exit()` or `quit()`: IPython's are no exceptions but a wish beside the answer.
    pub(crate) fn leaves(&self) -> bool {
        self.payload
            .iter()
            .any(|payload| payload["source"] == "ask_exit")
    }

    /// What it raised, where it did.
    pub(crate) fn raised(&self) -> Option<Raised> {
        if self.is_ok() {
            return None;
        }
        let ename = match self.status.as_str() {
            "aborted" | "abort" => "The kernel did not run the cell",
            _ => &self.ename,
        };
        Some(Raised {
            ename: ename.to_owned(),
            evalue: self.evalue.clone(),
            traceback: self.traceback.clone(),
        })
    }
}

/// Whether a `status` says that the kernel is done.
pub(crate) fn is_idle(message: &Message) -> bool {
    #[derive(Deserialize)]
    struct Status {
        execution_state: String,
    }
    message
        .content::<Status>()
        .is_ok_and(|status| status.execution_state == "idle")
}

/// The count that an `execute_input` tells.
pub(crate) fn count_of(message: &Message) -> Option<u64> {
    #[derive(Deserialize)]
    struct Input {
        execution_count: Option<u64>,
    }
    message.content::<Input>().ok()?.execution_count
}

/// A kernel's wish that somebody types something.
#[derive(Debug, Deserialize)]
pub(crate) struct InputRequest {
    /// What the person would be shown.
    #[serde(default)]
    pub(crate) prompt: String,
    /// Whether it is a password.
    #[serde(default)]
    pub(crate) password: bool,
}

impl InputRequest {
    /// Reads an `input_request`; one that cannot be read asks for something all the same.
    pub(crate) fn read(message: &Message) -> Self {
        message.content().unwrap_or(Self {
            prompt: String::new(),
            password: false,
        })
    }
}
