//! An attempt's events as a page shows them: cells that fill up, a log, findings. The fold is the same
//! that makes the executed notebook.

use std::collections::BTreeSet;

use notebook::fold::{CellEnd, Fold};
use notebook::message::OutputMessage;
use notebook::{Cell, Notebook, nbformat, parameters};
use protocol::event::{EventKind, Finding, OutputContent};
use protocol::{Event, JobSpec, Timestamp, Work};
use render::html;
use serde_json::{Map, json};

use super::site::Site;
use crate::store::jobs::Job;
use crate::store::{pipelines, projects};

/// Most bytes of log text that a page shows.
const MOST_LOG: usize = 512 << 10;
/// Most findings that a page shows.
const MOST_FINDINGS: usize = 500;

/// What the events told so far.
pub(super) struct Story {
    fold: Option<Fold>,
    options: html::Options,
    running: Option<usize>,
    changed: BTreeSet<usize>,
    log_bytes: usize,
    log_fresh: String,
    findings: Vec<Finding>,
    using: Option<String>,
    using_changed: bool,
    /// The next number wanted.
    pub(super) next: u64,
}

/// A piece of the page that changed.
pub(super) enum Fragment {
    /// Replaces the element of this id, or is added to the cells.
    Cell { id: String, html: String },
    /// Is added to the log.
    Log { html: String },
    /// What the job uses now, as plain text.
    Using { text: String },
}

impl Story {
    /// `source`: the notebook that is executed, with its parameters in it.
    pub(super) fn new(source: Option<Notebook>) -> Self {
        let mut options = html::Options {
            frames: false,
            ..html::Options::default()
        };
        if let Some(language) = source.as_ref().and_then(Notebook::language) {
            options.language = language;
        }
        Self {
            fold: source.map(Fold::new),
            options,
            running: None,
            changed: BTreeSet::new(),
            log_bytes: 0,
            log_fresh: String::new(),
            findings: Vec::new(),
            using: None,
            using_changed: false,
            next: 1,
        }
    }

    /// Takes one line of the story; what cannot be read or is not known is passed over. Answers whether it was
    /// more than a sample, of which only the last is told.
    pub(super) fn take(&mut self, line: &str) -> bool {
        let Ok(event) = serde_json::from_str::<Event>(line) else {
            return true;
        };
        self.next = self.next.max(event.seq + 1);
        let Some(kind) = event.body.known() else {
            return true;
        };
        match kind {
            EventKind::CellStarted { cell, .. } => self.cell_started(*cell as usize, event.at),
            EventKind::Output { cell, content } => self.output(*cell as usize, content),
            EventKind::CellFinished {
                cell,
                status,
                duration,
                execution_count,
            } => {
                let end = CellEnd {
                    execution_count: *execution_count,
                    at_ms: event.at.0,
                    duration_ms: duration.0,
                    status: status.word(),
                };
                self.cell_finished(*cell as usize, &end);
            }
            EventKind::Log { text, .. } => self.log(text),
            EventKind::Sample(sample) => {
                self.using = Some(sample.words());
                self.using_changed = true;
            }
            EventKind::Finding(finding) if self.findings.len() < MOST_FINDINGS => {
                self.findings.push(finding.clone());
            }
            EventKind::Finding(_)
            | EventKind::ToolFinished(_)
            | EventKind::Phase { .. }
            | EventKind::Kernel { .. }
            | EventKind::Metric { .. }
            | EventKind::Param { .. }
            | EventKind::Artifact(_)
            | EventKind::Finished { .. } => {}
        }
        !matches!(kind, EventKind::Sample(_))
    }

    fn cell_started(&mut self, cell: usize, at: Timestamp) {
        self.running = Some(cell);
        self.change(cell, |fold| fold.cell_started(cell, at.0).is_ok());
    }

    fn output(&mut self, cell: usize, content: &OutputContent) {
        match content {
            // A widget's state is no part of a cell: nothing is to be drawn anew.
            OutputContent::Inline {
                output: output @ OutputMessage::Widget(_),
            } => {
                let _ = self.fold.as_mut().map(|fold| fold.output(cell, output));
            }
            OutputContent::Inline { output } => {
                // An update may reach displays of earlier cells.
                if matches!(output, OutputMessage::UpdateDisplayData { .. })
                    && let Some(fold) = &self.fold
                {
                    self.changed
                        .extend(0..fold.notebook().cells.len().min(cell));
                }
                self.change(cell, |fold| fold.output(cell, output).is_ok());
            }
            OutputContent::Stored { bytes, .. } => {
                let mut data = Map::new();
                let words =
                    format!("[an output of {bytes}: in the notebook, when the job is over]");
                data.insert("text/plain".to_owned(), json!(words));
                let stand_in = OutputMessage::DisplayData {
                    data,
                    metadata: Map::new(),
                    display_id: None,
                };
                self.change(cell, |fold| fold.output(cell, &stand_in).is_ok());
            }
        }
    }

    fn cell_finished(&mut self, cell: usize, end: &CellEnd<'_>) {
        if self.running == Some(cell) {
            self.running = None;
        }
        self.change(cell, |fold| fold.cell_finished(cell, end).is_ok());
    }

    fn change(&mut self, cell: usize, step: impl FnOnce(&mut Fold) -> bool) {
        if self.fold.as_mut().is_some_and(step) {
            self.changed.insert(cell);
        }
    }

    fn log(&mut self, text: &str) {
        if self.log_bytes >= MOST_LOG {
            return;
        }
        self.log_bytes += text.len();
        self.log_fresh += &html::terminal_text(text);
        if self.log_bytes >= MOST_LOG {
            self.log_fresh += "\n[the page shows no more; trainyard logs does]\n";
        }
    }

    /// All cells as they are now.
    pub(super) fn cells(&self) -> String {
        let count = self
            .fold
            .as_ref()
            .map_or(0, |fold| fold.notebook().cells.len());
        (0..count).filter_map(|index| self.cell(index)).collect()
    }

    fn cell(&self, index: usize) -> Option<String> {
        let notebook = self.fold.as_ref()?.notebook();
        let cells = &notebook.cells;
        let cell = cells.get(index)?;
        let with_captured = notebook.captured(cell).map(|outputs| Cell {
            outputs,
            ..cell.clone()
        });
        let cell = with_captured.as_ref().unwrap_or(cell);
        let class = if self.running == Some(index) {
            "cell now"
        } else {
            "cell"
        };
        let shown = html::numbered_cell(cell, html::number(cells, index), &self.options);
        Some(format!(
            "<div class=\"{class}\" id=\"live-{index}\">{shown}</div>\n"
        ))
    }

    /// The findings so far.
    pub(super) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What the job used last.
    pub(super) fn using(&self) -> Option<&str> {
        self.using.as_deref()
    }

    /// What changed since the last call.
    pub(super) fn fragments(&mut self) -> Vec<Fragment> {
        let changed = std::mem::take(&mut self.changed);
        let mut fragments: Vec<Fragment> = changed
            .into_iter()
            .filter_map(|index| {
                self.cell(index).map(|html| Fragment::Cell {
                    // The anchors within have other ids, counted from 1.
                    id: format!("live-{index}"),
                    html,
                })
            })
            .collect();
        let log = std::mem::take(&mut self.log_fresh);
        if !log.is_empty() {
            fragments.push(Fragment::Log { html: log });
        }
        if std::mem::take(&mut self.using_changed) {
            let text = self.using.clone().unwrap_or_default();
            fragments.push(Fragment::Using { text });
        }
        fragments
    }

    /// Takes what changed for known.
    pub(super) fn forget_changes(&mut self) {
        self.changed.clear();
        self.log_fresh.clear();
        self.using_changed = false;
    }

    /// The log so far, for a page that shows all at once.
    pub(super) fn take_log(&mut self) -> String {
        std::mem::take(&mut self.log_fresh)
    }
}

/// The notebook that a job executes, from the mirror; none for other work, or where it cannot be read:
/// the page then shows what it can.
pub(super) async fn source(site: &Site, job: &Job) -> Option<Notebook> {
    let path = match &job.spec.work {
        Work::Notebook { path } => path.clone(),
        Work::Command { .. } | Work::Lint { .. } => return None,
    };
    let mut db = site.store.read().await.ok()?;
    let pipeline = pipelines::get(&mut db, &job.pipeline).await.ok()?;
    let url = projects::find(&mut db, &job.project).await.ok()??.url;
    drop(db);
    let (mirrors, commit, spec) = (
        site.config.mirrors(),
        pipeline.trigger.commit,
        job.spec.clone(),
    );
    let read = move || {
        let bytes = mirror::Mirror::open(&mirrors, &url)
            .ok()?
            .tree(&commit)
            .ok()
            .and_then(|tree| {
                use mirror::Tree as _;
                tree.read(&path).ok()
            })?;
        executed(&bytes, &spec)
    };
    tokio::task::spawn_blocking(read).await.ok()?
}

fn executed(bytes: &[u8], spec: &JobSpec) -> Option<Notebook> {
    let notebook = nbformat::read(bytes).ok()?;
    Some(
        parameters::inject(&notebook, &spec.parameters)
            .ok()?
            .notebook,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story() -> Story {
        let bytes = br##"{"nbformat":4,"nbformat_minor":5,"metadata":{},"cells":[
            {"cell_type":"markdown","id":"a","metadata":{},"source":"# T"},
            {"cell_type":"code","id":"b","metadata":{},"source":"x","outputs":[],"execution_count":null}]}"##;
        Story::new(Some(nbformat::read(bytes).unwrap()))
    }

    #[test]
    fn a_cell_fills_up_and_only_what_changed_is_sent() {
        let mut story = story();
        story.take(r#"{"seq":1,"at":1,"kind":"cell_started","cell":1,"of":1}"#);
        story.take(r#"{"seq":2,"at":2,"kind":"output","cell":1,"output":{"output_type":"stream","name":"stdout","text":"<b>5"}}"#);
        let sent = story.fragments();
        let [Fragment::Cell { id, html }] = sent.as_slice() else {
            panic!("one cell")
        };
        assert_eq!(id, "live-1");
        assert_eq!(html.matches("id=\"live-1\"").count(), 1);
        assert_eq!(story.cells().matches("id=\"live-").count(), 2);
        assert!(
            html.contains("cell now") && html.contains("&lt;b&gt;5"),
            "{html}"
        );
        assert!(story.fragments().is_empty());
        story.take(r#"{"seq":3,"at":3,"kind":"cell_finished","cell":1,"status":"ok","duration":5,"execution_count":1}"#);
        assert_eq!(story.fragments().len(), 1);
        assert!(!story.cells().contains("cell now"));
        assert_eq!(story.next, 4);
    }

    #[test]
    fn what_a_widget_captured_is_seen_behind_its_view() {
        let mut story = story();
        let output = |seq: u64, output: serde_json::Value| {
            json!({"seq": seq, "at": 1, "kind": "output", "cell": 1, "output": output}).to_string()
        };
        let model = json!({"_model_name": "OutputModel", "_model_module": "@jupyter-widgets/output", "msg_id": "r", "outputs": []});
        let view = json!({"application/vnd.jupyter.widget-view+json": {"model_id": "w"}, "text/plain": "Output()"});
        for line in [
            output(1, json!({"output_type": "display_data", "data": view})),
            output(
                2,
                json!({"output_type": "widget", "comm_id": "w", "state": model, "captures": 1}),
            ),
            output(
                3,
                json!({"output_type": "stream", "name": "stdout", "text": "held"}),
            ),
        ] {
            story.take(&line);
        }
        let cells = story.cells();
        let (view, held) = (cells.find("Output()").unwrap(), cells.find("held").unwrap());
        assert!(view < held, "{cells}");
        assert_eq!(cells.matches("held").count(), 1);
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let mut story = story();
        for line in [
            "",
            "{}",
            r#"{"seq":1,"at":1,"kind":"hologram"}"#,
            r#"{"seq":2,"at":1,"kind":"cell_started","cell":99,"of":1}"#,
        ] {
            story.take(line);
        }
        assert!(story.fragments().is_empty());
    }

    #[test]
    fn a_log_is_bounded() {
        let mut story = Story::new(None);
        let line =
            json!({"seq":1,"at":1,"kind":"log","stream":"stdout","text":"x".repeat(64 << 10)})
                .to_string();
        for _ in 0..20 {
            story.take(&line);
        }
        let log = story.take_log();
        assert!(
            log.len() < 600 << 10 && log.contains("trainyard logs"),
            "{}",
            log.len()
        );
    }
}
