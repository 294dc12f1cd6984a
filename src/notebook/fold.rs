//! The fold: output messages, one after the other, into the notebook that they make. Memory is
//! proportional to the outputs that are left. Must not know where messages come from.

mod weight;
mod widgets;

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::message::OutputMessage;
use crate::model::{Cell, Notebook, Output};

pub use weight::Weight;
pub(crate) use weight::weight;
pub(crate) use widgets::MIME as WIDGET_STATE;
use widgets::Widgets;

/// Most that a notebook keeps of its widgets, in bytes of memory, about.
pub const MOST_WIDGET_BYTES: usize = widgets::MOST;

/// A notebook that is being executed.
#[derive(Debug, Clone)]
pub struct Fold {
    notebook: Notebook,
    /// Where displays with an id stand: (cell, output).
    displays: HashMap<String, Vec<(usize, usize)>>,
    /// Cells whose outputs go when the next one arrives.
    clear_next: Vec<usize>,
    widgets: Widgets,
}

/// How a cell ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellEnd<'a> {
    /// The kernel's count (`In [n]`).
    pub execution_count: Option<u64>,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
    /// A word such as `ok`, `error`, `skipped`.
    pub status: &'a str,
}

/// A cell that the notebook does not have, or that is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the notebook has no code cell with index {0}")]
pub struct NoCodeCell(pub usize);

impl Fold {
    /// Begins with a notebook; outputs, counts, timings and widgets of an earlier execution are dropped.
    #[must_use]
    pub fn new(mut notebook: Notebook) -> Self {
        for ours in ["widgets", "trainyard"] {
            notebook.metadata.shift_remove(ours);
        }
        for cell in notebook.cells.iter_mut().filter(|cell| cell.is_code()) {
            cell.outputs.clear();
            cell.execution_count = None;
            for ours in ["execution", "trainyard"] {
                cell.metadata.shift_remove(ours);
            }
        }
        Self {
            notebook,
            displays: HashMap::new(),
            clear_next: Vec::new(),
            widgets: Widgets::default(),
        }
    }

    /// The notebook as far as it is.
    #[must_use]
    pub fn notebook(&self) -> &Notebook {
        &self.notebook
    }

    /// The notebook at the end.
    #[must_use]
    pub fn into_notebook(self) -> Notebook {
        self.notebook
    }

    /// Puts what the kernel says about its language into the metadata, as Jupyter does.
    pub fn language_info(&mut self, info: Map<String, Value>) {
        self.notebook
            .metadata
            .insert("language_info".into(), Value::Object(info));
    }

    /// A cell began, `at_ms` milliseconds after 1970.
    ///
    /// # Errors
    /// Where there is no such code cell.
    pub fn cell_started(&mut self, cell: usize, at_ms: i64) -> Result<(), NoCodeCell> {
        self.clear(cell)?;
        let cell = self.cell(cell)?;
        cell.execution_count = None;
        cell.metadata.insert(
            "execution".into(),
            json!({"iopub.execute_input": iso8601(at_ms)}),
        );
        Ok(())
    }

    /// A cell said something.
    ///
    /// # Errors
    /// Where there is no such code cell.
    pub fn output(&mut self, cell: usize, message: &OutputMessage) -> Result<(), NoCodeCell> {
        self.output_as(cell, message, message)
    }

    /// A cell said `message`; where it stands in the cell, it stands there as `kept`, which is of the same kind: so
    /// that its content may lie elsewhere ([`crate::nbformat::Elsewhere`]). A widget that captures it gets the message.
    ///
    /// # Errors
    /// Where there is no such code cell.
    pub fn output_as(
        &mut self,
        cell: usize,
        message: &OutputMessage,
        kept: &OutputMessage,
    ) -> Result<(), NoCodeCell> {
        self.cell(cell)?;
        if let OutputMessage::Widget(change) = message {
            self.widgets.change(&mut self.notebook.metadata, change);
            return Ok(());
        }
        if self.captured(cell, message) {
            self.update_by(kept);
            return Ok(());
        }
        self.show(cell, kept)
    }

    /// Whether an Output widget captures what the cell says.
    #[must_use]
    pub fn is_captured(&self, cell: usize) -> bool {
        self.widgets.captures(cell)
    }

    /// A cell said something, and no Output widget may have it.
    ///
    /// # Errors
    /// Where there is no such code cell.
    pub fn show(&mut self, cell: usize, kept: &OutputMessage) -> Result<(), NoCodeCell> {
        self.cell(cell)?;
        self.update_by(kept);
        match kept {
            OutputMessage::Stream { .. }
            | OutputMessage::Error { .. }
            | OutputMessage::DisplayData { .. }
            | OutputMessage::ExecuteResult { .. } => self.push(cell, kept),
            OutputMessage::ClearOutput { wait: false } => self.clear(cell),
            OutputMessage::ClearOutput { wait: true } => {
                if !self.clear_next.contains(&cell) {
                    self.clear_next.push(cell);
                }
                Ok(())
            }
            OutputMessage::UpdateDisplayData { .. } | OutputMessage::Widget(_) => Ok(()),
        }
    }

    /// A display has the content of the last message with its id, wherever it stands.
    fn update_by(&mut self, message: &OutputMessage) {
        match message {
            OutputMessage::DisplayData {
                data,
                metadata,
                display_id: Some(id),
            }
            | OutputMessage::ExecuteResult {
                data,
                metadata,
                display_id: Some(id),
                ..
            }
            | OutputMessage::UpdateDisplayData {
                data,
                metadata,
                display_id: id,
            } => self.update(id, data, metadata),
            OutputMessage::DisplayData { .. }
            | OutputMessage::ExecuteResult { .. }
            | OutputMessage::Stream { .. }
            | OutputMessage::Error { .. }
            | OutputMessage::ClearOutput { .. }
            | OutputMessage::Widget(_) => {}
        }
    }

    /// Output widgets that captured outputs since the last call, by comm, with all that they hold: a front end tells
    /// the kernel.
    pub fn take_captured(&mut self) -> Vec<(String, Value)> {
        self.widgets.take_untold(&mut self.notebook.metadata)
    }

    /// How many changes of widgets are not kept, because the widgets hold too much.
    #[must_use]
    pub fn widget_changes_lost(&self) -> u64 {
        self.widgets.lost()
    }

    /// A cell ended.
    ///
    /// # Errors
    /// Where there is no such code cell.
    pub fn cell_finished(&mut self, cell: usize, end: &CellEnd<'_>) -> Result<(), NoCodeCell> {
        // A clear that waits for an output that never came does nothing, as in Jupyter.
        self.clear_next.retain(|&one| one != cell);
        let cell = self.cell(cell)?;
        cell.execution_count = end.execution_count;
        if let Some(Value::Object(times)) = cell.metadata.get_mut("execution") {
            times.insert("shell.execute_reply".into(), iso8601(end.at_ms).into());
        }
        cell.metadata.insert(
            "trainyard".into(),
            json!({"duration_ms": end.duration_ms, "status": end.status}),
        );
        Ok(())
    }

    fn cell(&mut self, index: usize) -> Result<&mut Cell, NoCodeCell> {
        let cell = self.notebook.cells.get_mut(index);
        cell.filter(|cell| cell.is_code()).ok_or(NoCodeCell(index))
    }

    fn captured(&mut self, cell: usize, message: &OutputMessage) -> bool {
        self.widgets
            .capture(&mut self.notebook.metadata, cell, message)
    }

    fn clear(&mut self, cell: usize) -> Result<(), NoCodeCell> {
        self.cell(cell)?.outputs.clear();
        self.clear_next.retain(|&one| one != cell);
        self.displays.retain(|_, places| {
            places.retain(|&(at, _)| at != cell);
            !places.is_empty()
        });
        Ok(())
    }

    /// Appends an output; a stream grows where the last output is the same stream.
    fn push(&mut self, index: usize, message: &OutputMessage) -> Result<(), NoCodeCell> {
        if self.clear_next.contains(&index) {
            self.clear(index)?;
        }
        let outputs = &mut self.cell(index)?.outputs;
        if let (
            OutputMessage::Stream { name, text },
            Some(Output::Known {
                message:
                    OutputMessage::Stream {
                        name: last,
                        text: so_far,
                    },
                ..
            }),
        ) = (message, outputs.last_mut())
            && name == last
        {
            so_far.push_str(text);
            return Ok(());
        }
        outputs.push(Output::from(message.clone()));
        let place = (index, outputs.len() - 1);
        let id = match message {
            OutputMessage::DisplayData { display_id, .. }
            | OutputMessage::ExecuteResult { display_id, .. } => display_id.as_ref(),
            OutputMessage::Stream { .. }
            | OutputMessage::Error { .. }
            | OutputMessage::UpdateDisplayData { .. }
            | OutputMessage::ClearOutput { .. }
            | OutputMessage::Widget(_) => None,
        };
        if let Some(id) = id {
            self.displays.entry(id.clone()).or_default().push(place);
        }
        Ok(())
    }

    /// Replaces the content of every display with this id, in earlier cells too.
    fn update(&mut self, id: &str, data: &Map<String, Value>, metadata: &Map<String, Value>) {
        for &(cell, output) in self.displays.get(id).into_iter().flatten() {
            let shown = self.notebook.cells.get_mut(cell);
            let shown = shown.and_then(|cell| cell.outputs.get_mut(output));
            if let Some(Output::Known {
                message:
                    OutputMessage::DisplayData {
                        data: old,
                        metadata: old_metadata,
                        ..
                    }
                    | OutputMessage::ExecuteResult {
                        data: old,
                        metadata: old_metadata,
                        ..
                    },
                ..
            }) = shown
            {
                old.clone_from(data);
                old_metadata.clone_from(metadata);
            }
        }
    }
}

/// `2026-01-31T12:00:00.123000Z`, as Jupyter writes times. Days to dates by Howard Hinnant's
/// `civil_from_days`.
fn iso8601(at_ms: i64) -> String {
    let (days, ms) = (at_ms.div_euclid(86_400_000), at_ms.rem_euclid(86_400_000));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    let micros = ms % 1_000 * 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::StreamName;

    fn fold(cells: usize) -> Fold {
        let cells = (0..cells).map(|n| Cell::code(format!("c{n}"), "x"));
        let cells = cells.collect();
        Fold::new(Notebook {
            cells,
            ..Notebook::default()
        })
    }

    fn stream(name: StreamName, text: &str) -> OutputMessage {
        let text = text.to_owned();
        OutputMessage::Stream { name, text }
    }

    fn shown(text: &str) -> Map<String, Value> {
        Map::from_iter([("text/plain".to_owned(), text.into())])
    }

    fn display(text: &str, id: Option<&str>) -> OutputMessage {
        OutputMessage::DisplayData {
            data: shown(text),
            metadata: Map::new(),
            display_id: id.map(str::to_owned),
        }
    }

    fn update(text: &str, id: &str) -> OutputMessage {
        OutputMessage::UpdateDisplayData {
            data: shown(text),
            metadata: Map::new(),
            display_id: id.to_owned(),
        }
    }

    /// The outputs of a cell in short.
    fn told(fold: &Fold, cell: usize) -> Vec<String> {
        let outputs = fold.notebook().cells[cell].outputs.iter();
        outputs
            .map(|output| match output.message() {
                Some(OutputMessage::Stream { name, text }) => format!("{}: {text}", name.word()),
                Some(
                    OutputMessage::DisplayData { data, .. }
                    | OutputMessage::ExecuteResult { data, .. },
                ) => format!("display: {}", data["text/plain"].as_str().unwrap()),
                Some(OutputMessage::Error { ename, .. }) => format!("error: {ename}"),
                other => panic!("{other:?} does not belong in a notebook"),
            })
            .collect()
    }

    #[test]
    fn neighbouring_streams_of_one_name_are_one_output() {
        let mut fold = fold(1);
        for (name, text) in [
            (StreamName::Stdout, "10%\r"),
            (StreamName::Stdout, "20%\r"),
            (StreamName::Stderr, "warning\n"),
            (StreamName::Stdout, "done\n"),
        ] {
            fold.output(0, &stream(name, text)).unwrap();
        }
        assert_eq!(
            told(&fold, 0),
            ["stdout: 10%\r20%\r", "stderr: warning\n", "stdout: done\n"]
        );
    }

    #[test]
    fn an_update_reaches_every_place_of_its_display() {
        let mut fold = fold(2);
        fold.output(0, &display("one", Some("a"))).unwrap();
        fold.output(0, &display("other", None)).unwrap();
        fold.output(1, &display("two", Some("a"))).unwrap();
        assert_eq!(told(&fold, 0), ["display: two", "display: other"]);
        fold.output(1, &update("three", "a")).unwrap();
        fold.output(1, &update("nobody", "b")).unwrap();
        assert_eq!(told(&fold, 0), ["display: three", "display: other"]);
        assert_eq!(told(&fold, 1), ["display: three"]);
    }

    #[test]
    fn a_cleared_display_is_not_updated() {
        let mut fold = fold(1);
        fold.output(0, &display("old", Some("a"))).unwrap();
        fold.output(0, &OutputMessage::ClearOutput { wait: false })
            .unwrap();
        fold.output(0, &display("new", None)).unwrap();
        fold.output(0, &update("wrong", "a")).unwrap();
        assert_eq!(told(&fold, 0), ["display: new"]);
    }

    #[test]
    fn a_waiting_clear_waits_for_the_next_output() {
        let mut fold = fold(1);
        let wait = OutputMessage::ClearOutput { wait: true };
        fold.output(0, &stream(StreamName::Stdout, "epoch 1"))
            .unwrap();
        fold.output(0, &wait).unwrap();
        assert_eq!(told(&fold, 0), ["stdout: epoch 1"]);
        fold.output(0, &stream(StreamName::Stdout, "epoch 2"))
            .unwrap();
        assert_eq!(told(&fold, 0), ["stdout: epoch 2"]);
        fold.output(0, &wait).unwrap();
        let end = CellEnd {
            execution_count: Some(1),
            at_ms: 1_500,
            duration_ms: 1_500,
            status: "ok",
        };
        fold.cell_finished(0, &end).unwrap();
        assert_eq!(told(&fold, 0), ["stdout: epoch 2"]);
    }

    #[test]
    fn an_execution_replaces_what_an_earlier_one_left() {
        let mut before = Cell::code("a", "1");
        before.execution_count = Some(9);
        before
            .outputs
            .push(stream(StreamName::Stdout, "old").into());
        before
            .metadata
            .insert("trainyard".into(), json!({"status": "error"}));
        before.metadata.insert("tags".into(), json!(["keep"]));
        let mut fold = Fold::new(Notebook {
            cells: vec![before],
            ..Notebook::default()
        });
        assert!(told(&fold, 0).is_empty());
        fold.cell_started(0, 1_767_225_600_123).unwrap();
        let end = CellEnd {
            execution_count: Some(1),
            at_ms: 1_767_225_601_000,
            duration_ms: 877,
            status: "ok",
        };
        fold.cell_finished(0, &end).unwrap();
        assert_eq!(
            Value::Object(fold.into_notebook().cells[0].metadata.clone()),
            json!({
                "tags": ["keep"],
                "execution": {
                    "iopub.execute_input": "2026-01-01T00:00:00.123000Z",
                    "shell.execute_reply": "2026-01-01T00:00:01.000000Z",
                },
                "trainyard": {"duration_ms": 877, "status": "ok"},
            })
        );
    }

    #[test]
    fn a_cell_that_is_not_there_is_an_error() {
        let mut fold = fold(1);
        let said = stream(StreamName::Stdout, "x");
        assert_eq!(fold.output(1, &said), Err(NoCodeCell(1)));
        assert_eq!(fold.cell_started(7, 0), Err(NoCodeCell(7)));
    }

    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(iso8601(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(iso8601(951_782_400_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(iso8601(-1), "1969-12-31T23:59:59.999000Z");
    }
}
