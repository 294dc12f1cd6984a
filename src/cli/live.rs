//! An attempt's story on a terminal: cells as they run, their output, time and progress; or every event as JSON.

mod cells;
mod lines;

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use agent::attempt::Control;
use agent::journal::Journal;
use notebook::message::{OutputMessage, StreamName};
use protocol::event::{CellStatus, EventKind, LogStream, OutputContent};
use protocol::report::AttemptReport;
use protocol::{Event, Failure, JobSpec, Outcome};
use render::terminal::{self, Flow};

use super::out;
use super::run::STOP_GRACE;
use cells::Cells;
use lines::{finding_line, harmless, patch_lines, tool_line};

/// Most bytes of events that are read at once.
const BATCH: usize = 1 << 20;
const TICK: Duration = Duration::from_millis(200);
/// Most bytes of tools' own words that are remembered: more than a failure has.
const MEMORY: usize = 64 << 10;

pub(crate) struct Live {
    json: bool,
    /// Colours and a line that is written over.
    fancy: bool,
    width: usize,
    cells: Cells,
    next: u64,
    /// What is going on, since when; shown on the last line.
    doing: Option<(String, Instant)>,
    /// What the job used last.
    using: Option<String>,
    shown: bool,
    /// The text that is being said, and whose it is.
    flow: Flow,
    voice: Option<Voice>,
    /// The end of what was shown of tracebacks and standard error.
    words: String,
}

/// Whose text it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    Cell(u32, StreamName),
    Log(LogStream),
}

impl Live {
    pub(crate) fn new(root: &Path, spec: &JobSpec, json: bool) -> Self {
        Self {
            cells: Cells::of(root, spec),
            ..Self::elsewhere(json)
        }
    }

    /// For a job whose files are not here.
    pub(crate) fn elsewhere(json: bool) -> Self {
        let fancy =
            !json && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let width = out::width();
        Self {
            json,
            fancy,
            width,
            cells: Cells::default(),
            next: 1,
            doing: None,
            using: None,
            shown: false,
            flow: Flow::new(fancy, width),
            voice: None,
            words: String::new(),
        }
    }

    /// Shows events until the attempt is over and all were shown. Where nothing can be shown any more, as on a terminal that
    /// was closed, the job is told to end: it must not go on unseen.
    pub(crate) async fn follow(
        &mut self,
        journal: &Journal,
        run: impl Future<Output = AttemptReport>,
        control: &Control,
    ) -> anyhow::Result<AttemptReport> {
        let mut unseen = None;
        let mut run = std::pin::pin!(run);
        let mut news = journal.watch();
        let mut ticks = tokio::time::interval(TICK);
        let report = loop {
            let shown = tokio::select! {
                report = &mut run => break report,
                _ = news.changed(), if unseen.is_none() => self.show_new(journal),
                _ = ticks.tick(), if unseen.is_none() => self.progress(),
            };
            if let Err(error) = shown {
                control.stop("a terminal that was closed", STOP_GRACE);
                unseen = Some(error);
            }
        };
        if let Some(error) = unseen {
            return Err(error);
        }
        self.show_new(journal)?;
        self.clear()?;
        Ok(report)
    }

    fn show_new(&mut self, journal: &Journal) -> anyhow::Result<()> {
        loop {
            let events = journal.read(self.next, BATCH)?;
            let Some(last) = events.last() else {
                return Ok(());
            };
            self.next = last.seq + 1;
            for event in events {
                self.show(&event)?;
            }
        }
    }

    /// Shows one event.
    pub(crate) fn show(&mut self, event: &Event) -> anyhow::Result<()> {
        if self.json {
            return say(&format!("{}\n", serde_json::to_string(event)?));
        }
        let Some(kind) = event.body.known() else {
            return Ok(());
        };
        match kind {
            EventKind::Phase { phase, detail } => {
                let detail = detail.as_deref().unwrap_or_default();
                self.doing = Some((phase.word().to_owned(), Instant::now()));
                if !detail.is_empty() || !self.fancy {
                    self.line(&format!("{:<12} {detail}", phase.word()))?;
                }
            }
            EventKind::Log { stream, text } => self.log(*stream, text)?,
            EventKind::Finding(finding) => {
                self.line(&finding_line(finding))?;
                for line in patch_lines(finding) {
                    self.line(&self.dim(&line))?;
                }
            }
            EventKind::ToolFinished(run) => self.line(&tool_line(run))?,
            EventKind::CellStarted { cell, source, .. } => {
                if let Some(source) = source {
                    self.cells.hear(*cell, *source);
                }
                self.cell_started(*cell)?;
            }
            EventKind::Output { cell, content } => match content {
                OutputContent::Inline { output } => self.output(*cell, output)?,
                OutputContent::Stored { bytes, .. } => self.line(&format!(
                    "[an output of {bytes}; it is in the executed notebook]"
                ))?,
            },
            EventKind::CellFinished {
                cell,
                status,
                duration,
                ..
            } => {
                self.doing = None;
                let mark = match status {
                    CellStatus::Ok => format!("ok, {duration}"),
                    CellStatus::Error => format!("raised after {duration}"),
                    CellStatus::ErrorAllowed => {
                        format!("raised after {duration}, as the notebook allows")
                    }
                    CellStatus::Skipped => return self.cell_skipped(*cell),
                    CellStatus::Interrupted => format!("ended after {duration}"),
                };
                let name = self.cells.name(*cell);
                self.line(&self.dim(&format!("  {name}: {mark}")))?;
            }
            EventKind::Kernel { status, detail } if status == "died" => {
                self.line(&format!(
                    "the kernel died: {}",
                    detail.as_deref().unwrap_or("nobody knows why")
                ))?;
            }
            EventKind::Sample(sample) => self.using = Some(sample.words()),
            EventKind::Kernel { .. }
            | EventKind::Metric { .. }
            | EventKind::Param { .. }
            | EventKind::Artifact(_)
            | EventKind::Finished { .. } => {}
        }
        Ok(())
    }

    /// A cell that runs is shown by its first line. Of one that does not, its end tells.
    fn cell_started(&mut self, cell: u32) -> anyhow::Result<()> {
        if !self.cells.runs(cell) {
            return Ok(());
        }
        let head = self.cells.head(cell);
        let room = self.width.saturating_sub(head.len() + 1);
        let first = terminal::clean(self.cells.first_line(cell), false);
        let first: String = first.chars().take(room).collect();
        self.line(&format!("{} {first}", self.bold(&head)))?;
        self.doing = Some((self.cells.name(cell), Instant::now()));
        Ok(())
    }

    /// A blank cell is not worth a word.
    fn cell_skipped(&mut self, cell: u32) -> anyhow::Result<()> {
        if self.cells.is_blank(cell) {
            return Ok(());
        }
        let head = self.bold(&self.cells.head(cell));
        self.line(&format!("{head} {}", self.dim("skipped")))
    }

    fn output(&mut self, cell: u32, output: &OutputMessage) -> anyhow::Result<()> {
        match output {
            OutputMessage::Stream { name, text } => {
                if *name == StreamName::Stderr {
                    self.remember(text);
                }
                self.flow(Voice::Cell(cell, *name), text)
            }
            OutputMessage::Error { traceback, .. } => {
                self.remember(&traceback.join("\n"));
                self.text(&terminal::output(output, self.fancy, self.width))
            }
            OutputMessage::DisplayData { .. }
            | OutputMessage::ExecuteResult { .. }
            | OutputMessage::UpdateDisplayData { .. }
            | OutputMessage::ClearOutput { .. }
            | OutputMessage::Widget(_) => {
                self.text(&terminal::output(output, self.fancy, self.width))
            }
        }
    }

    fn log(&mut self, stream: LogStream, text: &str) -> anyhow::Result<()> {
        if stream == LogStream::Stderr {
            self.remember(text);
        }
        self.flow(Voice::Log(stream), text)
    }

    fn remember(&mut self, words: &str) {
        self.words.push_str(words);
        if self.words.len() > 2 * MEMORY {
            let start = (self.words.len() - MEMORY..).find(|&at| self.words.is_char_boundary(at));
            self.words.drain(..start.unwrap_or_default());
        }
    }

    /// Text as it was printed: its pieces make lines again.
    fn flow(&mut self, voice: Voice, text: &str) -> anyhow::Result<()> {
        self.clear()?;
        if self.voice != Some(voice) {
            self.end_line()?;
            self.voice = Some(voice);
        }
        let text = self.flow.push(text);
        say(&text)
    }

    /// Ends the line that is being said: something else comes.
    fn end_line(&mut self) -> anyhow::Result<()> {
        let rest = self.flow.end();
        say(&rest)
    }

    /// The last line, written over again and again.
    fn progress(&mut self) -> anyhow::Result<()> {
        let Some((what, since)) = &self.doing else {
            return Ok(());
        };
        if !self.fancy || self.flow.is_open() || since.elapsed() < Duration::from_millis(500) {
            return Ok(());
        }
        let mut words = format!("{what}, {}", protocol::Span::from(since.elapsed()));
        if let Some(using) = &self.using {
            words += &format!(" · {using}");
        }
        // One that wraps could not be written over.
        let words = terminal::clean(&words, false);
        let words: String = words.chars().take(self.width.saturating_sub(1)).collect();
        self.shown = true;
        say(&format!("\r\u{1b}[2K\u{1b}[2m{words}\u{1b}[0m"))
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.shown) {
            say("\r\u{1b}[2K")?;
        }
        Ok(())
    }

    fn line(&mut self, text: &str) -> anyhow::Result<()> {
        let text = harmless(text, self.fancy);
        self.text(&text)
    }

    fn text(&mut self, text: &str) -> anyhow::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.clear()?;
        self.end_line()?;
        let end = if text.ends_with('\n') { "" } else { "\n" };
        say(&format!("{text}{end}"))
    }

    fn dim(&self, text: &str) -> String {
        if self.fancy {
            format!("\u{1b}[2m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn bold(&self, text: &str) -> String {
        if self.fancy {
            format!("\u{1b}[1m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// The end, in a few lines.
    pub(crate) fn finish(
        &mut self,
        report: &AttemptReport,
        results: &Path,
        notebook: Option<&Path>,
    ) -> anyhow::Result<()> {
        if self.json {
            return say(&format!(
                "{}\n",
                serde_json::json!({ "report": report, "results": results, "notebook": notebook })
            ));
        }
        self.end(report)?;
        if let Some(notebook) = notebook {
            self.line(&format!("executed notebook: {}", notebook.display()))?;
        }
        if report.artifacts.len() > usize::from(notebook.is_some()) {
            self.line(&format!("model, files and report: {}", results.display()))?;
        }
        Ok(())
    }

    /// How it ended, and its metrics.
    pub(crate) fn end(&mut self, report: &AttemptReport) -> anyhow::Result<()> {
        let took = report.finished_at.since(report.started_at);
        self.line("")?;
        match &report.outcome {
            Outcome::Failed(failure) => self.failure(failure)?,
            Outcome::Cancelled { by } => self.line(&format!("cancelled by {by} after {took}"))?,
            Outcome::Succeeded | Outcome::Reused { .. } | Outcome::Skipped { .. } => {
                self.line(&format!("{} in {took}", self.bold(report.outcome.word())))?;
            }
        }
        for metric in &report.metrics {
            self.line(&format!("  {:<24} {}", metric.name, metric.value))?;
        }
        for (name, value) in report.usage.words() {
            self.line(&self.dim(&format!("  {name:<24} {value}")))?;
        }
        for note in &report.usage.notes {
            self.line(&format!("note: {note}"))?;
        }
        Ok(())
    }

    fn failure(&mut self, failure: &Failure) -> anyhow::Result<()> {
        let head = format!(
            "failed ({}): {}",
            failure.owner().word(),
            terminal::clean(&failure.message, false)
        );
        self.line(&self.bold(&head))?;
        if let Some(cell) = &failure.cell {
            let line = cell
                .line
                .map_or_else(String::new, |line| format!(", line {line}"));
            let raw = cell
                .raw_line
                .map_or_else(String::new, |raw| format!(" (line {raw} of the file)"));
            self.line(&format!(
                "  at {}, cell {}{line}{raw}",
                cell.path,
                cell.index + 1
            ))?;
        }
        // The tool's own words, where they were not shown as they came.
        let seen = |detail: &str| self.words.contains(detail.trim_start_matches("[…]").trim());
        if let Some(detail) = failure.detail.as_ref().filter(|detail| !seen(detail)) {
            self.text(&terminal::clean(detail, self.fancy))?;
        }
        if let Some(hint) = &failure.hint {
            self.line(&format!("  {hint}"))?;
        }
        Ok(())
    }
}

/// Prints; a reader that went away (`| head`) is no error.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
