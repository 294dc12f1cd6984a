//! The executed notebook, folded from the driver's events where the driver could not write it to the end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use notebook::Fold;
use notebook::fold::CellEnd;
use notebook::message::OutputMessage;
use protocol::driver::{BLOBS_DIR, EVENTS_FILE};
use protocol::event::{EventKind, OutputContent};
use protocol::spec::Parameters;

use super::follow::{open_plain, parse};

/// Largest notebook or blob that is read for it.
const MOST_BYTES: u64 = 256 << 20;

/// The notebook with what was said up to the end; none where it cannot be read.
pub(super) fn executed(source: &Path, parameters: &Parameters, out: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    open_plain(source)
        .ok()?
        .take(MOST_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    let notebook = notebook::nbformat::read(&bytes).ok()?;
    let injected = notebook::parameters::inject(&notebook, parameters).ok()?;
    let mut fold = Fold::new(injected.notebook);
    let events = BufReader::new(open_plain(&out.join(EVENTS_FILE)).ok()?);
    for line in events.split(b'\n').map_while(Result::ok) {
        let event = parse(&line);
        let at = event.at.0;
        if let Some(kind) = event.body.known() {
            apply(&mut fold, kind, at, out);
        }
    }
    Some(notebook::nbformat::write(fold.notebook()))
}

/// An event about a cell that the notebook does not have changes nothing.
fn apply(fold: &mut Fold, kind: &EventKind, at: i64, out: &Path) {
    match kind {
        EventKind::CellStarted { cell, .. } => drop(fold.cell_started(*cell as usize, at)),
        EventKind::Output { cell, content } => {
            if let Some(message) = message(content, out) {
                drop(fold.output(*cell as usize, &message));
            }
        }
        EventKind::CellFinished {
            cell,
            status,
            duration,
            execution_count,
        } => {
            let end = CellEnd {
                execution_count: *execution_count,
                at_ms: at,
                duration_ms: duration.0,
                status: status.word(),
            };
            drop(fold.cell_finished(*cell as usize, &end));
        }
        EventKind::Phase { .. }
        | EventKind::Log { .. }
        | EventKind::Finding(_)
        | EventKind::ToolFinished(_)
        | EventKind::Kernel { .. }
        | EventKind::Metric { .. }
        | EventKind::Param { .. }
        | EventKind::Sample(_)
        | EventKind::Artifact(_)
        | EventKind::Finished { .. } => {}
    }
}

/// The message, from the event or from its blob.
pub(super) fn message(content: &OutputContent, out: &Path) -> Option<OutputMessage> {
    match content {
        OutputContent::Inline { output } => Some(output.clone()),
        OutputContent::Stored { blob, .. } => {
            let file = open_plain(&out.join(BLOBS_DIR).join(blob.as_str())).ok()?;
            serde_json::from_reader(BufReader::new(file.take(MOST_BYTES))).ok()
        }
    }
}
