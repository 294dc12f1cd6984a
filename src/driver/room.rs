//! How much a cell and a notebook may show. What is more lies beside the notebook, in files of text and of JSON lines.
//! It writes nothing itself.

use std::collections::{HashMap, HashSet};

use notebook::message::OutputMessage;
use protocol::units::ByteSize;

/// Most displays and errors of one notebook: a file of more is of no use to anybody.
const MOST_OUTPUTS: u64 = 50_000;

/// What becomes of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is shown.
    Shown,
    /// It is the first of its cell that is not shown.
    First(Full),
    /// It is not shown, and that has been said.
    Beside,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The cell's, in bytes.
    Cell(ByteSize),
    /// The notebook's, in bytes.
    Notebook(ByteSize),
    /// The notebook's, in outputs.
    Outputs(u64),
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Full::Cell(limit) => write!(f, "This cell's output is larger than {limit}"),
            Full::Notebook(limit) => write!(f, "The notebook's output is larger than {limit}"),
            Full::Outputs(limit) => write!(f, "The notebook has more than {limit} outputs"),
        }
    }
}

/// Counts what stands in the notebook.
#[derive(Debug)]
pub(crate) struct Room {
    cell_limit: ByteSize,
    notebook_limit: ByteSize,
    /// Bytes and outputs of each cell, and of all.
    cells: HashMap<u32, (u64, u64)>,
    all: (u64, u64),
    /// Cells that are cleared when their next output comes.
    clearing: HashSet<u32>,
    /// Cells whose reader has been told.
    told: HashSet<u32>,
}

impl Room {
    /// With the limits of a cell and of the whole notebook.
    #[must_use]
    pub(crate) fn new(cell_limit: ByteSize, notebook_limit: ByteSize) -> Self {
        Self {
            cell_limit,
            notebook_limit,
            cells: HashMap::new(),
            all: (0, 0),
            clearing: HashSet::new(),
            told: HashSet::new(),
        }
    }

    /// Looks at an output of a cell, `bytes` long.
    pub(crate) fn take(&mut self, cell: u32, output: &OutputMessage, bytes: u64) -> Fit {
        let outputs = match output {
            OutputMessage::ClearOutput { wait } => {
                if *wait {
                    self.clearing.insert(cell);
                } else {
                    self.clear(cell);
                }
                return Fit::Shown;
            }
            // It stands in place of what was counted; the fold bounds what it keeps of widgets.
            OutputMessage::UpdateDisplayData { .. } | OutputMessage::Widget(_) => {
                return Fit::Shown;
            }
            // Neighbours are joined.
            OutputMessage::Stream { .. } => 0,
            OutputMessage::DisplayData { .. }
            | OutputMessage::ExecuteResult { .. }
            | OutputMessage::Error { .. } => 1,
        };
        if self.clearing.remove(&cell) {
            self.clear(cell);
        }
        // Why a cell failed is shown whatever came before.
        let must = matches!(output, OutputMessage::Error { .. });
        // What is small enough again stays beside as well: what is shown is the beginning.
        if !must && self.told.contains(&cell) {
            return Fit::Beside;
        }
        if let Some(full) = self.full(cell, outputs, bytes).filter(|_| !must) {
            self.told.insert(cell);
            return Fit::First(full);
        }
        for sum in [self.cells.entry(cell).or_default(), &mut self.all] {
            *sum = (sum.0 + bytes, sum.1 + outputs);
        }
        Fit::Shown
    }

    fn full(&self, cell: u32, outputs: u64, bytes: u64) -> Option<Full> {
        let here = self.cells.get(&cell).map_or(0, |here| here.0);
        if here + bytes > self.cell_limit.0 {
            Some(Full::Cell(self.cell_limit))
        } else if self.all.0 + bytes > self.notebook_limit.0 {
            Some(Full::Notebook(self.notebook_limit))
        } else if self.all.1 + outputs > MOST_OUTPUTS {
            Some(Full::Outputs(MOST_OUTPUTS))
        } else {
            None
        }
    }

    fn clear(&mut self, cell: u32) {
        let gone = self.cells.remove(&cell).unwrap_or_default();
        self.all = (self.all.0 - gone.0, self.all.1 - gone.1);
        self.told.remove(&cell);
        self.clearing.remove(&cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notebook::message::StreamName;
    use serde_json::Map;

    fn text() -> OutputMessage {
        OutputMessage::Stream {
            name: StreamName::Stdout,
            text: String::new(),
        }
    }

    fn display() -> OutputMessage {
        OutputMessage::DisplayData {
            data: Map::new(),
            metadata: Map::new(),
            display_id: None,
        }
    }

    fn error() -> OutputMessage {
        OutputMessage::Error {
            ename: String::new(),
            evalue: String::new(),
            traceback: Vec::new(),
        }
    }

    #[test]
    fn a_full_cell_is_told_once_and_an_error_still_shown() {
        let mut room = Room::new(ByteSize(10), ByteSize(100));
        assert_eq!(room.take(0, &text(), 6), Fit::Shown);
        assert_eq!(
            room.take(0, &text(), 6),
            Fit::First(Full::Cell(ByteSize(10)))
        );
        assert_eq!(room.take(0, &display(), 1), Fit::Beside);
        assert_eq!(room.take(0, &error(), 600), Fit::Shown);
        assert_eq!(
            room.take(1, &text(), 6),
            Fit::First(Full::Notebook(ByteSize(100)))
        );
    }

    #[test]
    fn what_is_cleared_makes_room() {
        let mut room = Room::new(ByteSize(10), ByteSize(100));
        let clear = |wait| OutputMessage::ClearOutput { wait };
        for _ in 0..100 {
            assert_eq!(room.take(0, &display(), 9), Fit::Shown);
            assert_eq!(room.take(0, &clear(true), 0), Fit::Shown);
        }
        assert_eq!(room.take(0, &display(), 9), Fit::Shown);
        assert!(matches!(room.take(0, &text(), 9), Fit::First(_)));
        room.take(0, &clear(false), 0);
        assert_eq!(room.take(0, &text(), 9), Fit::Shown);
        assert!(matches!(room.take(0, &text(), 9), Fit::First(_)));
    }

    #[test]
    fn outputs_are_counted_too() {
        let mut room = Room::new(ByteSize::gib(1), ByteSize::gib(1));
        for _ in 0..MOST_OUTPUTS {
            assert_eq!(room.take(0, &display(), 1), Fit::Shown);
        }
        assert_eq!(
            room.take(1, &display(), 1),
            Fit::First(Full::Outputs(MOST_OUTPUTS))
        );
        assert_eq!(room.take(2, &text(), 1), Fit::Shown);
    }
}
