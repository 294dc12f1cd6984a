//! The notebook in memory: a typed view of nbformat 4 that keeps every field it does not know.
//! Must not know how a file looks.

use serde_json::{Map, Value};

use crate::message::OutputMessage;

/// A notebook.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Notebook {
    /// Notebook metadata: `kernelspec`, `language_info` and whatever else.
    pub metadata: Map<String, Value>,
    /// All cells in order.
    pub cells: Vec<Cell>,
    /// Top-level fields that nbformat does not name.
    pub extra: Map<String, Value>,
    /// The minor version that is written: 5, or a newer one that was read.
    pub minor: u64,
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Unique in its notebook.
    pub id: String,
    /// What it is.
    pub kind: CellKind,
    /// Its text, with line ends as they came.
    pub source: String,
    /// Its metadata, tags included.
    pub metadata: Map<String, Value>,
    /// The kernel's count (`In [n]`); None for cells that are no code.
    pub execution_count: Option<u64>,
    /// What it said; empty for cells that are no code.
    pub outputs: Vec<Output>,
    /// Further fields, such as `attachments`.
    pub extra: Map<String, Value>,
}

/// What a cell is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellKind {
    /// Runs.
    Code,
    /// Text for people.
    Markdown,
    /// Text for converters.
    Raw,
    /// A kind of a newer nbformat.
    Other(String),
}

impl CellKind {
    /// nbformat's word.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            CellKind::Code => "code",
            CellKind::Markdown => "markdown",
            CellKind::Raw => "raw",
            CellKind::Other(word) => word,
        }
    }
}

impl From<&str> for CellKind {
    fn from(word: &str) -> Self {
        match word {
            "code" => CellKind::Code,
            "markdown" => CellKind::Markdown,
            "raw" => CellKind::Raw,
            other => CellKind::Other(other.to_owned()),
        }
    }
}

/// An output that a notebook keeps.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A stream, display, result or error.
    Known {
        /// What was said. Never `UpdateDisplayData`, `ClearOutput` or `Widget`.
        message: OutputMessage,
        /// Fields that nbformat does not name.
        extra: Map<String, Value>,
    },
    /// Anything else, as it came.
    Unknown(Map<String, Value>),
}

impl Output {
    /// The message, where the output is of a known type.
    #[must_use]
    pub fn message(&self) -> Option<&OutputMessage> {
        match self {
            Output::Known { message, .. } => Some(message),
            Output::Unknown(_) => None,
        }
    }
}

impl From<OutputMessage> for Output {
    fn from(message: OutputMessage) -> Self {
        Output::Known {
            message,
            extra: Map::new(),
        }
    }
}

impl Cell {
    /// A code cell without outputs.
    #[must_use]
    pub fn code(id: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            kind: CellKind::Code,
            source: source.into(),
            metadata: Map::new(),
            execution_count: None,
            outputs: Vec::new(),
            extra: Map::new(),
        }
    }

    /// Whether it is a code cell.
    #[must_use]
    pub fn is_code(&self) -> bool {
        self.kind == CellKind::Code
    }

    /// Whether it holds nothing but blank space.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.source.trim().is_empty()
    }

    /// The tags in its metadata.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        let tags = self.metadata.get("tags").and_then(Value::as_array);
        tags.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whether it has the tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags().any(|one| one == tag)
    }

    /// Whether it is passed over (`skip-execution`).
    #[must_use]
    pub fn is_skipped(&self) -> bool {
        self.has_tag("skip-execution")
    }

    /// Whether it may raise without ending the notebook (`raises-exception`).
    #[must_use]
    pub fn may_raise(&self) -> bool {
        self.has_tag("raises-exception")
    }

    /// Whether it is sent to a kernel: code that is neither blank nor skipped.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.is_code() && !self.is_blank() && !self.is_skipped()
    }
}

impl Notebook {
    /// Code cells with their index among all cells.
    pub fn code_cells(&self) -> impl Iterator<Item = (usize, &Cell)> {
        self.cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| cell.is_code())
    }

    /// Name of the kernel that the notebook asks for.
    #[must_use]
    pub fn kernel_name(&self) -> Option<&str> {
        self.text_at("kernelspec", "name")
    }

    /// Its language in lower case: what it says, else what the kernel's name tells.
    #[must_use]
    pub fn language(&self) -> Option<String> {
        let said = self
            .text_at("kernelspec", "language")
            .or_else(|| self.text_at("language_info", "name"));
        if let Some(language) = said {
            return Some(language.to_lowercase());
        }
        let kernel = self.kernel_name().unwrap_or("python3").to_lowercase();
        if kernel == "ir" {
            return Some("r".to_owned());
        }
        let known = ["python", "julia", "bash", "scala", "ruby"];
        let found = known.into_iter().find(|known| kernel.starts_with(known));
        found.map(str::to_owned)
    }

    /// A text in a section of the metadata; an empty one counts as absent.
    fn text_at(&self, section: &str, key: &str) -> Option<&str> {
        let text = self.metadata.get(section)?.get(key)?.as_str()?;
        (!text.is_empty()).then_some(text)
    }
}
