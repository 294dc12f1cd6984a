//! Where what Output widgets captured is seen without a browser's widgets: behind the views of these widgets. Must not
//! know how a page looks.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::fold::{WIDGET_STATE, weight};
use crate::message::{OutputMessage, StreamName};
use crate::model::{Cell, Notebook, Output};
use crate::nbformat::read_output;

/// What a display has that shows a widget.
const VIEW: &str = "application/vnd.jupyter.widget-view+json";
/// How a widget's state names another one.
const REFERENCE: &str = "IPY_MODEL_";
/// Most outputs that are shown for one view.
const MOST_OUTPUTS: usize = 1_000;
/// Most that is shown for all views together, by its weight in memory, in bytes: any number of views may show one widget.
const MOST_BYTES: usize = 64 << 20;
/// What looking at one widget counts for, in bytes.
const VISIT: usize = 64;
/// Stands where more would be shown.
const LEFT_OUT: &str = "[more of what widgets captured is left out here and below]\n";

impl Notebook {
    /// The notebook as people see it: behind each view of a widget the outputs that it, or one within it, captured.
    #[must_use]
    pub fn with_captured(mut self) -> Self {
        let mut room = MOST_BYTES;
        let cells = self.cells.iter();
        let shown: Vec<Option<Vec<Output>>> =
            cells.map(|cell| self.within(cell, &mut room)).collect();
        for (cell, outputs) in self.cells.iter_mut().zip(shown) {
            if let Some(outputs) = outputs {
                cell.outputs = outputs;
            }
        }
        self
    }

    /// The outputs of a cell with those that its widgets captured; None: there are none, and nothing changes.
    #[must_use]
    pub fn captured(&self, cell: &Cell) -> Option<Vec<Output>> {
        let mut room = MOST_BYTES;
        self.within(cell, &mut room)
    }

    /// The same, within a room that it takes from.
    fn within(&self, cell: &Cell, room: &mut usize) -> Option<Vec<Output>> {
        let state = self.metadata.get("widgets")?.get(WIDGET_STATE)?;
        let models = state.get("state")?.as_object()?;
        let mut all = Vec::new();
        let mut any = false;
        for output in &cell.outputs {
            all.push(output.clone());
            let mut found = Vec::new();
            if let Some(id) = view(output) {
                gather(models, id, room, &mut found);
            }
            any |= !found.is_empty();
            all.append(&mut found);
        }
        any.then_some(all)
    }
}

/// The model of the widget that an output shows.
fn view(output: &Output) -> Option<&str> {
    match output.message()? {
        OutputMessage::DisplayData { data, .. } | OutputMessage::ExecuteResult { data, .. } => {
            data.get(VIEW)?.get("model_id")?.as_str()
        }
        OutputMessage::Stream { .. }
        | OutputMessage::Error { .. }
        | OutputMessage::UpdateDisplayData { .. }
        | OutputMessage::ClearOutput { .. }
        | OutputMessage::Widget(_) => None,
    }
}

/// Adds the outputs of a model and of those that it holds, in its order; of each once. What does not fit into the room
/// uses it up: nobody waits for further views to be looked through.
fn gather<'a>(
    models: &'a Map<String, Value>,
    id: &'a str,
    room: &mut usize,
    found: &mut Vec<Output>,
) {
    let (mut next, mut seen) = (vec![id], HashSet::new());
    while let Some(id) = next.pop().filter(|_| *room > 0) {
        *room = room.saturating_sub(VISIT);
        let Some(state) = models.get(id).map(|model| &model["state"]) else {
            continue;
        };
        if found.len() >= MOST_OUTPUTS || !seen.insert(id) {
            continue;
        }
        let outputs = state["outputs"].as_array().into_iter().flatten();
        for output in outputs.take(MOST_OUTPUTS.saturating_sub(found.len())) {
            *room = room.saturating_sub(weight(output));
            if *room == 0 {
                found.push(left_out());
                return;
            }
            found.extend(read_output(output.clone()));
        }
        let children = state["children"].as_array().into_iter().flatten();
        let children = children.filter_map(|child| child.as_str()?.strip_prefix(REFERENCE));
        let from = next.len();
        next.extend(children);
        next[from..].reverse();
    }
}

fn left_out() -> Output {
    Output::from(OutputMessage::Stream {
        name: StreamName::Stderr,
        text: LEFT_OUT.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_captured_stands_behind_its_view() {
        let said = |text: &str| json!({"output_type": "stream", "name": "stdout", "text": text});
        let shows = |id: &str| json!({"output_type": "display_data", "metadata": {}, "data": {"text/plain": "view", VIEW: {"model_id": id}}});
        let state = json!({
            "box": {"state": {"children": ["IPY_MODEL_slider", "IPY_MODEL_out", "IPY_MODEL_box", "IPY_MODEL_gone"]}},
            "slider": {"state": {"value": 3}},
            "out": {"state": {"outputs": [said("captured"), "no output"]}},
        });
        let cell = |outputs: Value| json!({"cell_type": "code", "metadata": {}, "source": "", "outputs": outputs});
        let file = json!({
            "nbformat": 4, "nbformat_minor": 5,
            "metadata": {"widgets": {WIDGET_STATE: {"state": state}}},
            "cells": [cell(json!([shows("out"), said("after")])), cell(json!([shows("slider")])), cell(json!([shows("box")]))],
        });
        let notebook = crate::read(file.to_string().as_bytes()).unwrap();
        let before = notebook.cells.clone();
        let shown = notebook.with_captured();
        let texts = |cell: usize| -> Vec<&str> {
            let outputs = shown.cells[cell].outputs.iter();
            outputs
                .map(|output| match output.message() {
                    Some(OutputMessage::Stream { text, .. }) => text.as_str(),
                    _ => "view",
                })
                .collect()
        };
        assert_eq!(texts(0), ["view", "captured", "after"]);
        assert_eq!(shown.cells[1], before[1]);
        // A box that holds itself is not gone through for ever.
        assert_eq!(texts(2), ["view", "captured"]);
    }

    #[test]
    fn one_widget_in_many_views_has_a_bound() {
        let text = "x".repeat(1 << 20);
        let said = json!({"output_type": "stream", "name": "stdout", "text": text});
        let view = json!({"output_type": "display_data", "metadata": {}, "data": {VIEW: {"model_id": "out"}}});
        let cell =
            json!({"cell_type": "code", "metadata": {}, "source": "", "outputs": vec![view; 50]});
        let file = json!({
            "nbformat": 4, "nbformat_minor": 5,
            "metadata": {"widgets": {WIDGET_STATE: {"state": {"out": {"state": {"outputs": [said]}}}}}},
            "cells": [cell, cell, cell],
        });
        let shown = crate::read(file.to_string().as_bytes())
            .unwrap()
            .with_captured();
        let outputs = shown.cells.iter().flat_map(|cell| &cell.outputs);
        let texts: Vec<&str> = outputs
            .filter_map(|output| match output.message() {
                Some(OutputMessage::Stream { text, .. }) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        let (last, whole) = texts.split_last().unwrap();
        assert_eq!(*last, LEFT_OUT);
        assert_eq!(whole.len(), 63, "each with a little beside its text");
        assert!(whole.iter().all(|one| *one == text));
    }
}
