//! The attempt's story as it is told: text coalesced, large outputs as blobs, one event a line, and the same events
//! folded into the executed notebook. Knows no kernel and no process.

use std::fs::File;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use notebook::fold::{CellEnd, MOST_WIDGET_BYTES};
use notebook::message::{OutputMessage, StreamName};
use notebook::{Fold, Notebook};
use protocol::driver::{INLINE_LIMIT, NOTEBOOK_FILE, OutputLimits};
use protocol::event::{CellSource, CellStatus, EventKind, LogStream, OutputContent, Unnumbered};
use protocol::units::{ByteSize, Span, Timestamp};
use serde_json::{Map, Value};

use crate::kept::{self, Place};
use crate::large::Large;
use crate::out::Out;
use crate::room::{Fit, Room};

/// Text waits this long for more of its kind.
const COALESCE: Duration = Duration::from_millis(100);
/// Room in an event beside its text.
const ENVELOPE: usize = 512;
/// The notebook is written again after this multiple of what the last time took, and not before [`LEAST_PAUSE`].
const PAUSE_FACTOR: u32 = 20;
const LEAST_PAUSE: Duration = Duration::from_secs(2);

/// Why the story cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoryError {
    /// More was said than is kept.
    #[error("the job said more than {0} bytes")]
    TooLong(u64),
    /// The out folder cannot be written to.
    #[error("events cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Whose text it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// A cell's.
    Cell(u32, StreamName),
    /// Not a cell's.
    Log(LogStream),
}

#[derive(Debug)]
struct Pending {
    voice: Voice,
    text: String,
    /// Length of the text as JSON.
    cost: usize,
    since: Instant,
}

/// Writes events.
#[derive(Debug)]
pub(crate) struct Story {
    out: Out,
    file: File,
    /// Length of the events file.
    written: u64,
    limit: u64,
    said: u64,
    room: Room,
    pending: Option<Pending>,
    last_said: Instant,
    fold: Option<Fold>,
    /// Whether the fold is ahead of the file, and when the file may be written again.
    unsaved: bool,
    save_after: Instant,
}

impl Story {
    /// Begins, or goes on where a file is.
    ///
    /// # Errors
    /// Where the events file cannot be opened.
    pub(crate) fn new(out: Out, limits: &OutputLimits) -> io::Result<Self> {
        let file = out.events()?;
        let now = Instant::now();
        Ok(Self {
            written: file.metadata()?.len(),
            out,
            file,
            limit: limits.job.0,
            said: 0,
            room: Room::new(limits.cell, limits.notebook),
            pending: None,
            last_said: now,
            fold: None,
            unsaved: false,
            save_after: now + LEAST_PAUSE,
        })
    }

    /// From now on outputs are folded into this notebook.
    pub(crate) fn fold_into(&mut self, notebook: Notebook) {
        self.fold = Some(Fold::new(notebook));
        self.unsaved = true;
    }

    /// When the job was heard last.
    #[must_use]
    pub(crate) fn last_said(&self) -> Instant {
        self.last_said
    }

    /// Time in which nobody listened to the job is no silence of the job.
    pub(crate) fn forgive(&mut self, kept: Duration) {
        self.last_said += kept;
    }

    /// When [`Story::tick`] has something to do.
    #[must_use]
    pub(crate) fn due(&self) -> Option<Instant> {
        let flush = self
            .pending
            .as_ref()
            .map(|pending| pending.since + COALESCE);
        let save = self.unsaved.then_some(self.save_after);
        flush.into_iter().chain(save).min()
    }

    /// Writes what has waited long enough.
    ///
    /// # Errors
    /// As [`Story::say`].
    pub(crate) fn tick(&mut self) -> Result<(), StoryError> {
        let now = Instant::now();
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| now >= pending.since + COALESCE)
        {
            self.flush()?;
        }
        if self.unsaved && now >= self.save_after {
            self.save()?;
        }
        Ok(())
    }

    /// Says something of the platform's own, for people.
    ///
    /// # Errors
    /// As [`Story::say`].
    pub(crate) fn note(&mut self, text: &str) -> Result<(), StoryError> {
        self.text(Voice::Log(LogStream::Platform), &format!("{text}\n"))
    }

    /// Text: joined with what came just before from the same voice, cut where an event would be longer than 64 KiB.
    ///
    /// # Errors
    /// As [`Story::say`].
    pub(crate) fn text(&mut self, voice: Voice, text: &str) -> Result<(), StoryError> {
        self.last_said = Instant::now();
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.voice != voice)
        {
            self.flush()?;
        }
        let mut rest = text;
        while !rest.is_empty() {
            let pending = self.pending.get_or_insert_with(|| Pending {
                voice,
                text: String::new(),
                cost: 0,
                since: Instant::now(),
            });
            let (taken, cost) = fitting(rest, INLINE_LIMIT - ENVELOPE - pending.cost);
            pending.text.push_str(&rest[..taken]);
            pending.cost += cost;
            rest = &rest[taken..];
            if !rest.is_empty() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// An output of a cell.
    ///
    /// # Errors
    /// As [`Story::say`].
    pub(crate) fn output(&mut self, cell: u32, output: OutputMessage) -> Result<(), StoryError> {
        self.last_said = Instant::now();
        match output {
            OutputMessage::Stream { name, text } => self.text(Voice::Cell(cell, name), &text),
            OutputMessage::DisplayData { .. }
            | OutputMessage::ExecuteResult { .. }
            | OutputMessage::Error { .. }
            | OutputMessage::UpdateDisplayData { .. }
            | OutputMessage::ClearOutput { .. }
            | OutputMessage::Widget(_) => {
                self.flush()?;
                self.write_output(cell, output)
            }
        }
    }

    /// An output of a cell whose message is large: `kind` and `content` as the kernel sent them.
    ///
    /// # Errors
    /// As [`Story::say`].
    pub(crate) fn large_output(
        &mut self,
        cell: u32,
        kind: &str,
        content: &str,
    ) -> Result<(), StoryError> {
        let unreadable = |error: &serde_json::Error| {
            format!("An output of the kernel ({kind}) is not kept: {error}.")
        };
        match Large::read(kind, content) {
            Ok(Large::Text(name, text)) => {
                for piece in text.pieces() {
                    match piece {
                        Ok(piece) => self.text(Voice::Cell(cell, name), &piece)?,
                        Err(error) => return self.note(&unreadable(&error)),
                    }
                }
                Ok(())
            }
            // What a widget holds is held in memory. One that is too large for it is the cell's, here and in every fold.
            Ok(Large::Bundle(bundle))
                if self.is_captured(cell) && bundle.weighs_at_most(MOST_WIDGET_BYTES) =>
            {
                match bundle.into_message() {
                    Ok(message) => self.output(cell, message),
                    Err(error) => self.note(&unreadable(&error)),
                }
            }
            Ok(Large::Bundle(bundle)) => {
                self.last_said = Instant::now();
                self.flush()?;
                let bytes = content.len() as u64;
                let write = |out: &mut dyn io::Write| bundle.write(out);
                if !self.has_room(cell, bundle.frame(), bytes)? {
                    return self.beside(cell, write);
                }
                self.count(bytes)?;
                let (blob, bytes, (from, length)) = self.out.blob(write)?;
                let place = Place::Blob(blob.to_string(), from, length);
                let bytes = ByteSize(bytes);
                let content = OutputContent::Stored { blob, bytes };
                self.write(EventKind::Output { cell, content })?;
                let kept = place.stand_in(bundle.frame());
                self.folded(|fold| fold.show(cell as usize, &kept).is_ok());
                Ok(())
            }
            Ok(Large::Message(message)) => self.output(cell, message),
            Err(error) => self.note(&unreadable(&error)),
        }
    }

    /// A cell began.
    ///
    /// # Errors
    /// As [`Story::say`].
    pub(crate) fn cell_started(
        &mut self,
        cell: u32,
        of: u32,
        source: CellSource,
    ) -> Result<(), StoryError> {
        self.last_said = Instant::now();
        self.folded(|fold| fold.cell_started(cell as usize, Timestamp::now().0).is_ok());
        let source = Some(source);
        self.say(EventKind::CellStarted { cell, of, source })
    }

    /// A cell ended.
    ///
    /// # Errors
    /// As [`Story::say`].
    pub(crate) fn cell_finished(
        &mut self,
        cell: u32,
        status: CellStatus,
        duration: Duration,
        execution_count: Option<u64>,
    ) -> Result<(), StoryError> {
        let duration = Span::from(duration);
        self.flush()?;
        self.folded(|fold| {
            let word = serde_json::to_value(status).unwrap_or_default();
            let end = CellEnd {
                execution_count,
                at_ms: Timestamp::now().0,
                duration_ms: duration.0,
                status: word.as_str().unwrap_or_default(),
            };
            fold.cell_finished(cell as usize, &end).is_ok()
        });
        self.say(EventKind::CellFinished {
            cell,
            status,
            duration,
            execution_count,
        })
    }

    /// What the kernel says about its language.
    pub(crate) fn language_info(&mut self, info: Map<String, Value>) {
        self.folded(|fold| {
            fold.language_info(info);
            true
        });
    }

    /// What Output widgets captured since the last call: see [`Fold::take_captured`].
    pub(crate) fn take_captured(&mut self) -> Vec<(String, Value)> {
        self.fold
            .as_mut()
            .map(Fold::take_captured)
            .unwrap_or_default()
    }

    /// How many changes of widgets the notebook does not keep.
    #[must_use]
    pub(crate) fn widget_changes_lost(&self) -> u64 {
        self.fold.as_ref().map_or(0, Fold::widget_changes_lost)
    }

    /// Writes an event, after the text that came before it.
    ///
    /// # Errors
    /// Where the disk is full or the job has said more than is kept.
    pub(crate) fn say(&mut self, kind: EventKind) -> Result<(), StoryError> {
        self.flush()?;
        self.write(kind).map(drop)
    }

    /// Writes the executed notebook as far as it is.
    ///
    /// # Errors
    /// Where the disk is full.
    pub(crate) fn save(&mut self) -> Result<(), StoryError> {
        let Some(fold) = self.fold.as_ref().filter(|_| self.unsaved) else {
            return Ok(());
        };
        let began = Instant::now();
        let saved = self.out.replace(NOTEBOOK_FILE, |file| {
            kept::write(fold.notebook(), &self.out, file)
        });
        // Also where the disk is full, which is not asked again without a pause.
        self.save_after = Instant::now() + (began.elapsed() * PAUSE_FACTOR).max(LEAST_PAUSE);
        self.unsaved = saved.is_err();
        Ok(saved?)
    }

    /// The last word: pending text, the notebook, and all of it on the disk.
    ///
    /// # Errors
    /// Where the disk is full.
    pub(crate) fn close(&mut self) -> Result<(), StoryError> {
        self.flush().and(self.save())
    }

    fn folded(&mut self, change: impl FnOnce(&mut Fold) -> bool) {
        if let Some(fold) = &mut self.fold {
            self.unsaved |= change(fold);
        }
    }

    fn flush(&mut self) -> Result<(), StoryError> {
        let Some(Pending { voice, text, .. }) = self.pending.take() else {
            return Ok(());
        };
        match voice {
            Voice::Cell(cell, name) => {
                self.write_output(cell, OutputMessage::Stream { name, text })
            }
            Voice::Log(stream) => self.write(EventKind::Log { stream, text }).map(drop),
        }
    }

    fn write_output(&mut self, cell: u32, output: OutputMessage) -> Result<(), StoryError> {
        let json = serde_json::to_vec(&output).map_err(io::Error::from)?;
        let bytes = json.len() as u64;
        if !self.has_room(cell, &output, bytes)? {
            return match &output {
                OutputMessage::Stream { text, .. } => self.rest(cell, "txt", text.as_bytes()),
                OutputMessage::DisplayData { .. }
                | OutputMessage::ExecuteResult { .. }
                | OutputMessage::Error { .. }
                | OutputMessage::UpdateDisplayData { .. }
                | OutputMessage::ClearOutput { .. }
                | OutputMessage::Widget(_) => self.beside(cell, |out| out.write_all(&json)),
            };
        }
        if json.len() <= INLINE_LIMIT {
            self.write_inline(cell, output)?;
        } else {
            self.count(bytes)?;
            let (blob, bytes, ()) = self.out.blob(|out| out.write_all(&json))?;
            let place = Place::Blob(blob.to_string(), 0, 0);
            let bytes = ByteSize(bytes);
            let content = OutputContent::Stored { blob, bytes };
            self.write(EventKind::Output { cell, content })?;
            self.fold_output(cell, &output, &place);
        }
        Ok(())
    }

    fn write_inline(&mut self, cell: u32, output: OutputMessage) -> Result<(), StoryError> {
        let folded = output.clone();
        let content = OutputContent::Inline { output };
        let (at, length) = self.write(EventKind::Output { cell, content })?;
        self.fold_output(cell, &folded, &Place::Line(at, length));
        Ok(())
    }

    /// The fold gets the place of the content; an Output widget gets the content, which its code may ask for.
    fn fold_output(&mut self, cell: u32, output: &OutputMessage, place: &Place) {
        let kept = place.stand_in(output);
        self.folded(|fold| fold.output_as(cell as usize, output, &kept).is_ok());
    }

    /// Whether an Output widget captures what the cell says.
    #[must_use]
    pub(crate) fn is_captured(&self, cell: u32) -> bool {
        let fold = self.fold.as_ref();
        fold.is_some_and(|fold| fold.is_captured(cell as usize))
    }

    /// Whether the output is shown. Where one is the first of its cell that is not, its reader is told.
    fn has_room(
        &mut self,
        cell: u32,
        output: &OutputMessage,
        bytes: u64,
    ) -> Result<bool, StoryError> {
        match self.room.take(cell, output, bytes) {
            Fit::Shown => return Ok(true),
            Fit::Beside => {}
            Fit::First(full) => {
                let text = format!(
                    "\n[trainyard] {full}; the rest is in the artifact outputs/{}\n",
                    rest_name(cell, "*")
                );
                let name = StreamName::Stderr;
                let output = OutputMessage::Stream { name, text };
                self.write_inline(cell, output)?;
            }
        }
        Ok(false)
    }

    /// An output that is not shown, as a line of JSON.
    fn beside<T>(
        &mut self,
        cell: u32,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<T>,
    ) -> Result<(), StoryError> {
        let mut file = self.out.rest(&rest_name(cell, "ndjson"))?;
        let before = file.metadata()?.len();
        write(&mut file)?;
        file.write_all(b"\n")?;
        self.count(file.metadata()?.len().saturating_sub(before))
    }

    /// Bytes that are not shown.
    fn rest(&mut self, cell: u32, end: &str, bytes: &[u8]) -> Result<(), StoryError> {
        self.count(bytes.len() as u64)?;
        Ok(self.out.rest(&rest_name(cell, end))?.write_all(bytes)?)
    }

    /// One line, with one call: a reader never sees half of one that was written by a live driver. Says where it
    /// stands and how long it is.
    fn write(&mut self, kind: EventKind) -> Result<(u64, usize), StoryError> {
        let mut line =
            serde_json::to_vec(&Unnumbered::now(kind.into())).map_err(io::Error::from)?;
        line.push(b'\n');
        self.count(line.len() as u64)?;
        let at = self.written;
        if let Err(error) = self.file.write_all(&line) {
            // A full disk may have taken half of it, and the next line must not follow half a line.
            self.file.set_len(at)?;
            return Err(error.into());
        }
        self.written += line.len() as u64;
        Ok((at, line.len()))
    }

    /// Past the limit only what says that it was reached is still written.
    fn count(&mut self, bytes: u64) -> Result<(), StoryError> {
        let before = self.said;
        self.said = self.said.saturating_add(bytes);
        if before <= self.limit && self.said > self.limit {
            return Err(StoryError::TooLong(self.limit));
        }
        Ok(())
    }
}

/// A file of what a cell says past its limit; cells are counted as people count them.
fn rest_name(cell: u32, end: &str) -> String {
    format!("cell-{}.{end}", cell + 1)
}

/// How many bytes of `text` are at most `room` bytes long as JSON, whole characters, and how long those are.
fn fitting(text: &str, room: usize) -> (usize, usize) {
    let mut cost = 0;
    for (at, c) in text.char_indices() {
        let more = match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            _ => c.len_utf8(),
        };
        if cost + more > room {
            return (at, cost);
        }
        cost += more;
    }
    (text.len(), cost)
}

#[cfg(test)]
mod tests;
