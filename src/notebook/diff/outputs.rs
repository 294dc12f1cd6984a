//! Outputs of a cell: which are the same, which took another's place. Must not know what they look like.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;

use super::values::identical_fields;
use super::{Fields, OutputStep, text};
use crate::message::OutputMessage;
use crate::model::Output;

/// The steps from one list to the other; empty where they are the same.
pub(super) fn diff<'a>(before: &[Output], after: &'a [Output]) -> Vec<OutputStep<'a>> {
    let same = |(a, b): (&Output, &Output)| same(a, b);
    if before.len() == after.len() && before.iter().zip(after).all(same) {
        return Vec::new();
    }
    if let ([old], [new]) = (before, after)
        && kind(old) == kind(new)
    {
        return vec![changed(before, after, (0, 0))];
    }
    let marks = |outputs: &[Output]| outputs.iter().map(mark).collect::<Vec<u64>>();
    let mut steps = Vec::with_capacity(after.len());
    let mut place = (0, 0);
    for (gone, come) in text::edits(&marks(before), &marks(after)) {
        // Two outputs may have one mark and not be the same, though nobody has seen it.
        steps.extend(
            (place.0..gone.start)
                .zip(place.1..)
                .map(|pair| changed(before, after, pair)),
        );
        place = (gone.end, come.end);
        let mut gone = gone.peekable();
        for j in come {
            match gone.next_if(|&i| kind(&before[i]) == kind(&after[j])) {
                Some(i) => steps.push(changed(before, after, (i, j))),
                None => steps.push(OutputStep::Added { output: &after[j] }),
            }
        }
        steps.extend(gone.map(|before| OutputStep::Removed { before }));
    }
    let rest = (place.0..before.len()).zip(place.1..after.len());
    steps.extend(rest.map(|pair| changed(before, after, pair)));
    steps
}

fn changed<'a>(before: &[Output], after: &'a [Output], (i, j): (usize, usize)) -> OutputStep<'a> {
    if same(&before[i], &after[j]) {
        return OutputStep::Kept { before: i };
    }
    OutputStep::Changed {
        before: i,
        output: &after[j],
        only_count: only_count(&before[i], &after[j]),
    }
}

/// nbformat's word for what an output is.
fn kind(output: &Output) -> &str {
    match output {
        Output::Known { message, .. } => match message {
            OutputMessage::Stream { name, .. } => name.word(),
            OutputMessage::DisplayData { .. } => "display_data",
            OutputMessage::ExecuteResult { .. } => "execute_result",
            OutputMessage::Error { .. } => "error",
            OutputMessage::UpdateDisplayData { .. } => "update_display_data",
            OutputMessage::ClearOutput { .. } => "clear_output",
            OutputMessage::Widget(_) => "widget",
        },
        Output::Unknown(fields) => fields
            .get("output_type")
            .and_then(Value::as_str)
            .unwrap_or_default(),
    }
}

/// Whether two results differ in nothing but the kernel's count.
fn only_count(a: &Output, b: &Output) -> bool {
    let result = |output: &Output| match output.message() {
        Some(OutputMessage::ExecuteResult { .. }) => true,
        Some(_) | None => false,
    };
    match (a, b) {
        (
            Output::Known { message, extra },
            Output::Known {
                message: other,
                extra: more,
            },
        ) if result(a) && result(b) => same_bundle(message, other) && identical_fields(extra, more),
        (_, _) => false,
    }
}

/// Whether two outputs are written alike.
fn same(a: &Output, b: &Output) -> bool {
    match (a, b) {
        (Output::Unknown(a), Output::Unknown(b)) => identical_fields(a, b),
        (
            Output::Known { message, extra },
            Output::Known {
                message: other,
                extra: more,
            },
        ) => message == other && identical_fields(extra, more) && same_bundle(message, other),
        (Output::Known { .. }, Output::Unknown(_)) | (Output::Unknown(_), Output::Known { .. }) => {
            false
        }
    }
}

/// Whether what is displayed is written alike; what is no display has nothing to differ.
fn same_bundle(message: &OutputMessage, other: &OutputMessage) -> bool {
    match (message.display(), other.display()) {
        (Some((data, metadata)), Some((others, more))) => {
            identical_fields(data, others) && identical_fields(metadata, more)
        }
        (_, _) => true,
    }
}

/// A hash of what an output says: the same for outputs that are the same.
fn mark(output: &Output) -> u64 {
    let mut hash = DefaultHasher::new();
    kind(output).hash(&mut hash);
    match output {
        Output::Unknown(fields) => hash_fields(fields, &mut hash),
        Output::Known { message, .. } => match message {
            OutputMessage::Stream { text, .. } => text.hash(&mut hash),
            OutputMessage::Error {
                ename,
                evalue,
                traceback,
            } => (ename, evalue, traceback).hash(&mut hash),
            OutputMessage::DisplayData { data, .. }
            | OutputMessage::ExecuteResult { data, .. }
            | OutputMessage::UpdateDisplayData { data, .. } => hash_fields(data, &mut hash),
            OutputMessage::ClearOutput { wait } => wait.hash(&mut hash),
            OutputMessage::Widget(change) => change.comm_id.hash(&mut hash),
        },
    }
    hash.finish()
}

fn hash_fields(fields: &Fields, hash: &mut DefaultHasher) {
    // Added up, so that the order of keys has no part in it.
    let one = |(key, value): (&String, &Value)| {
        let mut hash = DefaultHasher::new();
        key.hash(&mut hash);
        hash_value(value, &mut hash);
        hash.finish()
    };
    let sum = fields.iter().map(one).fold(0, u64::wrapping_add);
    sum.hash(hash);
}

fn hash_value(value: &Value, hash: &mut DefaultHasher) {
    match value {
        Value::String(text) => text.hash(hash),
        Value::Array(list) => list.iter().for_each(|value| hash_value(value, hash)),
        Value::Object(fields) => hash_fields(fields, hash),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.hash(hash),
    }
}
