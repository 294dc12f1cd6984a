//! Widgets: their state as nbclient keeps it, in the notebook's metadata, and the Output widgets, which take outputs
//! away from cells. What is kept is bounded. Must not know of cells other than by their index.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use serde_json::{Map, Value, json};

use super::weight::{field, weight};
use crate::message::{OutputMessage, WidgetChange};

/// Where the state stands in `metadata.widgets`.
pub(crate) const MIME: &str = "application/vnd.jupyter.widget-state+json";
/// Most that is kept of all widgets, in bytes of memory, about.
pub(super) const MOST: usize = 32 << 20;
/// What a widget costs that says nothing.
const ENTRY: usize = 200;

/// What is known of widgets beside their state in the metadata.
#[derive(Debug, Clone, Default)]
pub(super) struct Widgets {
    bytes: usize,
    /// Closed ones, the oldest first. Their views may still be shown, so that they go only where room is needed.
    closed: VecDeque<String>,
    /// Which Output widgets capture the outputs of a cell; the last one does.
    captures: HashMap<usize, Vec<String>>,
    /// Output widgets whose outputs go when the next one arrives.
    clear_next: HashSet<String>,
    /// Output widgets that captured something of which the kernel was not told.
    untold: BTreeSet<String>,
    /// Changes for which there was no room.
    lost: u64,
}

impl Widgets {
    /// Takes in a change.
    pub(super) fn change(&mut self, metadata: &mut Map<String, Value>, change: &WidgetChange) {
        let id = change.comm_id.as_str();
        if change.closed {
            self.release(id);
            if model(metadata, id).is_some() {
                self.closed.push_back(id.to_owned());
            }
            return;
        }
        // A comm that never says what it is a model of is no widget.
        let known = model(metadata, id).is_some();
        if !known && !change.state.contains_key("_model_name") {
            return;
        }
        let (old, new) = weights(metadata, change);
        let new = new + if known { 0 } else { ENTRY + id.len() };
        if !self.make_room(metadata, new.saturating_sub(old), id) {
            return self.lose(metadata);
        }
        self.bytes = (self.bytes + new).saturating_sub(old);
        store(metadata, change);
        if change.state.contains_key("msg_id") && is_output(metadata, id) {
            self.release(id);
            if let Some(cell) = change.captures {
                self.captures.entry(cell).or_default().push(id.to_owned());
            }
        }
    }

    /// Whether an Output widget captures what the cell says.
    pub(super) fn captures(&self, cell: usize) -> bool {
        self.captures.contains_key(&cell)
    }

    /// Takes an output of a cell into the Output widget that captures it. False: it stays the cell's.
    pub(super) fn capture(
        &mut self,
        metadata: &mut Map<String, Value>,
        cell: usize,
        message: &OutputMessage,
    ) -> bool {
        let Some(id) = self.captures.get(&cell).and_then(|ids| ids.last()).cloned() else {
            return false;
        };
        let clears = match message {
            OutputMessage::ClearOutput { wait: true } => {
                self.clear_next.insert(id);
                return true;
            }
            OutputMessage::ClearOutput { wait: false } => true,
            OutputMessage::Stream { .. }
            | OutputMessage::DisplayData { .. }
            | OutputMessage::ExecuteResult { .. }
            | OutputMessage::Error { .. } => self.clear_next.remove(&id),
            OutputMessage::UpdateDisplayData { .. } | OutputMessage::Widget(_) => return false,
        };
        if clears && let Some(outputs) = outputs(metadata, &id) {
            self.bytes = self.bytes.saturating_sub(weight(&json!(outputs)));
            outputs.clear();
        }
        if let OutputMessage::ClearOutput { .. } = message {
            self.untold.insert(id);
            return true;
        }
        let output = in_file(message);
        let more = weight(&output);
        if !self.make_room(metadata, more, &id) {
            return false;
        }
        let Some(outputs) = outputs(metadata, &id) else {
            return false;
        };
        append(outputs, output);
        self.bytes += more;
        self.untold.insert(id);
        true
    }

    /// Output widgets that captured something since the last call, with all that they hold.
    pub(super) fn take_untold(
        &mut self,
        metadata: &mut Map<String, Value>,
    ) -> Vec<(String, Value)> {
        let ids = std::mem::take(&mut self.untold).into_iter();
        ids.filter_map(|id| {
            let outputs = outputs(metadata, &id)?.clone();
            Some((id, Value::Array(outputs)))
        })
        .collect()
    }

    /// The widget captures nothing any more.
    fn release(&mut self, id: &str) {
        self.captures.retain(|_, ids| {
            ids.retain(|one| one != id);
            !ids.is_empty()
        });
    }

    /// Whether `more` bytes fit, after closed widgets other than `keep` have gone for them.
    fn make_room(&mut self, metadata: &mut Map<String, Value>, more: usize, keep: &str) -> bool {
        while self.bytes + more > MOST {
            let Some(at) = self.closed.iter().position(|id| id != keep) else {
                return false;
            };
            let Some(id) = self.closed.remove(at) else {
                return false;
            };
            let gone = models(metadata).and_then(|models| models.swap_remove(&id));
            let bytes = gone.map_or(0, |gone| ENTRY + id.len() + held(&gone));
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        true
    }

    /// Says in the notebook that something is missing.
    fn lose(&mut self, metadata: &mut Map<String, Value>) {
        self.lost += 1;
        metadata.insert(
            "trainyard".into(),
            json!({"widget_changes_not_kept": self.lost}),
        );
    }

    /// Changes that are not kept, because there are too many widgets.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

fn models(metadata: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    let widgets = metadata.get_mut("widgets")?;
    widgets.get_mut(MIME)?.get_mut("state")?.as_object_mut()
}

fn model<'a>(metadata: &'a mut Map<String, Value>, id: &str) -> Option<&'a mut Value> {
    models(metadata)?.get_mut(id)
}

/// The outputs that an Output widget holds.
fn outputs<'a>(metadata: &'a mut Map<String, Value>, id: &str) -> Option<&'a mut Vec<Value>> {
    let state = model(metadata, id)?.get_mut("state")?.as_object_mut()?;
    let outputs = state.entry("outputs").or_insert_with(|| json!([]));
    outputs.as_array_mut()
}

fn is_output(metadata: &mut Map<String, Value>, id: &str) -> bool {
    model(metadata, id).is_some_and(|model| {
        model["model_name"] == "OutputModel" && model["model_module"] == "@jupyter-widgets/output"
    })
}

/// Puts a change into the state, in the form of `@jupyter-widgets/schema` 2.0.
fn store(metadata: &mut Map<String, Value>, change: &WidgetChange) {
    if models(metadata).is_none() {
        metadata.insert(
            "widgets".into(),
            json!({MIME: {"state": {}, "version_major": 2, "version_minor": 0}}),
        );
    }
    let Some(models) = models(metadata) else {
        return;
    };
    let model = models
        .entry(change.comm_id.as_str())
        .or_insert_with(|| json!({"state": {}}));
    for name in ["model_name", "model_module", "model_module_version"] {
        if let Some(value) = change.state.get(&format!("_{name}")) {
            model[name] = value.clone();
        }
    }
    if let Some(state) = model["state"].as_object_mut() {
        let new = change.state.iter();
        state.extend(new.map(|(key, value)| (key.clone(), value.clone())));
    }
    for buffer in &change.buffers {
        let new = json!({"data": buffer.data, "encoding": "base64", "path": buffer.path});
        match old_buffer(model, &buffer.path) {
            Some(old) => *old = new,
            None => match model.get_mut("buffers").and_then(Value::as_array_mut) {
                Some(buffers) => buffers.push(new),
                None => model["buffers"] = json!([new]),
            },
        }
    }
}

fn old_buffer<'a>(model: &'a mut Value, path: &[Value]) -> Option<&'a mut Value> {
    let buffers = model.get_mut("buffers")?.as_array_mut()?.iter_mut();
    let mut buffers = buffers.filter(|old| old["path"].as_array().is_some_and(|old| old == path));
    buffers.next()
}

/// About what a change replaces, and what it puts there.
fn weights(metadata: &mut Map<String, Value>, change: &WidgetChange) -> (usize, usize) {
    let mut model = model(metadata, &change.comm_id);
    let (mut old, mut new) = (0, 0);
    for (key, value) in &change.state {
        let before = model.as_ref().and_then(|model| model["state"].get(key));
        old += before.map_or(0, |value| field(key, value));
        new += field(key, value);
    }
    for buffer in &change.buffers {
        let before = model
            .as_mut()
            .and_then(|model| old_buffer(model, &buffer.path));
        old += before.map_or(0, |before| binary(before));
        new += buffer.data.len() + ENTRY;
    }
    (old, new)
}

/// What a model holds.
fn held(model: &Value) -> usize {
    let state = model["state"].as_object().into_iter().flatten();
    let state = state.map(|(key, value)| field(key, value));
    let buffers = model["buffers"].as_array().into_iter().flatten();
    state.chain(buffers.map(binary)).sum()
}

fn binary(buffer: &Value) -> usize {
    buffer["data"].as_str().map_or(0, str::len) + ENTRY
}

/// An output as it stands in a file. Display ids do not: nothing updates what a widget holds.
fn in_file(message: &OutputMessage) -> Value {
    let mut value = json!(message);
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("display_id");
    }
    value
}

/// Appends an output; a stream grows where the last output is the same stream.
fn append(outputs: &mut Vec<Value>, output: Value) {
    if output["output_type"] == "stream"
        && let Some(last) = outputs.last_mut()
        && last["output_type"] == "stream"
        && last["name"] == output["name"]
        && let (Some(Value::String(so_far)), Some(text)) =
            (last.get_mut("text"), output["text"].as_str())
    {
        so_far.push_str(text);
        return;
    }
    outputs.push(output);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::Fold;
    use crate::message::{StreamName, WidgetBuffer};
    use crate::model::{Cell, Notebook};

    fn fold() -> Fold {
        let cells = vec![Cell::code("a", "x"), Cell::code("b", "x")];
        Fold::new(Notebook {
            cells,
            ..Notebook::default()
        })
    }

    fn change(comm_id: &str, state: Value) -> WidgetChange {
        WidgetChange {
            comm_id: comm_id.into(),
            state: state.as_object().unwrap().clone(),
            ..WidgetChange::default()
        }
    }

    fn says(fold: &mut Fold, cell: usize, text: &str) {
        let text = text.into();
        let name = StreamName::Stdout;
        fold.output(cell, &OutputMessage::Stream { name, text })
            .unwrap();
    }

    fn told(fold: &mut Fold, change: WidgetChange) {
        fold.output(0, &OutputMessage::Widget(change)).unwrap();
    }

    fn state(fold: &Fold) -> Value {
        fold.notebook().metadata["widgets"][MIME]["state"].clone()
    }

    fn output_widget(fold: &mut Fold, id: &str) {
        let state = json!({"_model_name": "OutputModel", "_model_module": "@jupyter-widgets/output", "msg_id": "", "outputs": []});
        told(fold, change(id, state));
    }

    fn captures(fold: &mut Fold, id: &str, cell: Option<usize>) {
        let mut change = change(
            id,
            json!({"msg_id": if cell.is_some() { "s-1" } else { "" }}),
        );
        change.captures = cell;
        told(fold, change);
    }

    #[test]
    fn a_widgets_state_grows_by_its_changes() {
        let mut fold = fold();
        told(
            &mut fold,
            change(
                "m",
                json!({"_model_name": "IntModel", "_model_module": "c", "_model_module_version": "2", "value": 1, "max": 9}),
            ),
        );
        let mut binary = change("m", json!({"value": 2}));
        let buffer = |data: &str| WidgetBuffer {
            path: vec!["image".into(), 0.into()],
            data: data.into(),
        };
        binary.buffers = vec![buffer("QQ==")];
        told(&mut fold, binary.clone());
        binary.buffers = vec![buffer("Qg==")];
        told(&mut fold, binary);
        told(&mut fold, change("no widget", json!({"value": 2})));
        let expected = json!({"m": {
            "model_name": "IntModel", "model_module": "c", "model_module_version": "2",
            "state": {"_model_name": "IntModel", "_model_module": "c", "_model_module_version": "2", "value": 2, "max": 9},
            "buffers": [{"data": "Qg==", "encoding": "base64", "path": ["image", 0]}],
        }});
        assert_eq!(state(&fold), expected);
        // A view of it may still be shown.
        told(
            &mut fold,
            WidgetChange {
                closed: true,
                ..change("m", json!({}))
            },
        );
        assert_eq!(state(&fold), expected);
        // The next execution has widgets of its own.
        assert!(
            !Fold::new(fold.into_notebook())
                .notebook()
                .metadata
                .contains_key("widgets")
        );
    }

    #[test]
    fn an_output_widget_takes_what_a_cell_says() {
        let mut fold = fold();
        output_widget(&mut fold, "out");
        output_widget(&mut fold, "inner");
        captures(&mut fold, "out", Some(0));
        says(&mut fold, 0, "a\n");
        says(&mut fold, 0, "b\n");
        captures(&mut fold, "inner", Some(0));
        says(&mut fold, 0, "nested");
        captures(&mut fold, "inner", None);
        let shown = OutputMessage::DisplayData {
            data: Map::from_iter([("text/plain".to_owned(), "d".into())]),
            metadata: Map::new(),
            display_id: Some("id".into()),
        };
        fold.output(0, &shown).unwrap();
        says(&mut fold, 1, "another cell");
        captures(&mut fold, "out", None);
        says(&mut fold, 0, "outside");
        let in_out = json!([
            {"output_type": "stream", "name": "stdout", "text": "a\nb\n"},
            {"output_type": "display_data", "data": {"text/plain": "d"}, "metadata": {}},
        ]);
        assert_eq!(state(&fold)["out"]["state"]["outputs"], in_out);
        assert_eq!(
            state(&fold)["inner"]["state"]["outputs"][0]["text"],
            "nested"
        );
        for (cell, text) in [(0, "outside"), (1, "another cell")] {
            let outputs = &fold.notebook().cells[cell].outputs;
            assert_eq!(outputs.len(), 1);
            assert!(
                matches!(outputs[0].message(), Some(OutputMessage::Stream { text: said, .. }) if said == text)
            );
        }
        let untold = fold.take_captured();
        assert_eq!(untold.len(), 2);
        assert!(untold.contains(&("out".to_owned(), in_out)));
        assert!(fold.take_captured().is_empty());
    }

    #[test]
    fn an_output_widget_is_cleared_and_let_go() {
        let mut fold = fold();
        output_widget(&mut fold, "out");
        captures(&mut fold, "out", Some(0));
        says(&mut fold, 0, "one");
        fold.output(0, &OutputMessage::ClearOutput { wait: true })
            .unwrap();
        assert_eq!(state(&fold)["out"]["state"]["outputs"][0]["text"], "one");
        says(&mut fold, 0, "two");
        assert_eq!(state(&fold)["out"]["state"]["outputs"][0]["text"], "two");
        fold.output(0, &OutputMessage::ClearOutput { wait: false })
            .unwrap();
        assert_eq!(state(&fold)["out"]["state"]["outputs"], json!([]));
        told(
            &mut fold,
            WidgetChange {
                closed: true,
                ..change("out", json!({}))
            },
        );
        says(&mut fold, 0, "three");
        assert_eq!(fold.notebook().cells[0].outputs.len(), 1);
    }

    #[test]
    fn what_is_kept_of_widgets_is_bounded() {
        let mut fold = fold();
        let large = |n: usize| {
            change(
                &format!("m{n}"),
                json!({"_model_name": "HTMLModel", "value": "x".repeat(2 << 20)}),
            )
        };
        for n in 0..10 {
            told(&mut fold, large(n));
        }
        told(
            &mut fold,
            WidgetChange {
                closed: true,
                ..change("m3", json!({}))
            },
        );
        for n in 10..16 {
            told(&mut fold, large(n));
        }
        // The closed one went first; then there is no room.
        let kept = state(&fold);
        assert!(kept.get("m3").is_none() && kept.get("m15").is_some());
        assert_eq!(fold.widget_changes_lost(), 0);
        told(&mut fold, large(16));
        assert!(state(&fold).get("m16").is_none());
        assert_eq!(fold.widget_changes_lost(), 1);
        assert_eq!(
            fold.notebook().metadata["trainyard"]["widget_changes_not_kept"],
            1
        );
        // What replaces as much still fits, and what makes room is room.
        told(
            &mut fold,
            change("m0", json!({"value": "y".repeat(2 << 20)})),
        );
        told(&mut fold, change("m1", json!({"value": ""})));
        told(&mut fold, large(17));
        assert!(state(&fold).get("m17").is_some());
        assert_eq!(fold.widget_changes_lost(), 1);

        // A full widget leaves the rest to the cell: nothing is lost.
        output_widget(&mut fold, "out");
        captures(&mut fold, "out", Some(0));
        says(&mut fold, 0, &"z".repeat(3 << 20));
        assert_eq!(fold.notebook().cells[0].outputs.len(), 1);
    }
}
