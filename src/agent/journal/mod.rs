//! The journal: an attempt's numbered events on the disk until the server has acknowledged them. It
//! must not know who writes them or where they go.
//!
//! What holds, whatever happens to the process or the host:
//! - A number is given once. Lines are handed out ([`Journal::read`]) only after they are on the disk,
//!   so that not even a power failure lets a delivered number be used again.
//! - The driver's lines and the offset up to which its file was read are one write: after a crash
//!   the reader goes on at [`Journal::driver_offset`] without a gap and without a repeat.
//! - A torn end is cut when the journal is opened.
//!
//! Between hand-outs nothing is forced to the disk: lines survive the end of the process in the page
//! cache. A closed segment and [`Journal::sync`] force it.

mod segment;

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{Event, Unnumbered};
use tokio::sync::watch;

use segment::{Line, Segment};

/// A segment that is longer is closed before the next line.
const SEGMENT_BYTES: u64 = 8 << 20;

/// The journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk said no.
    #[error(
        "cannot {action} the journal {path}: {source}; check the disk of the agent's data folder"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A line that no crash can leave.
    #[error("the journal {path} is damaged at byte {at}: {reason}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong there.
        reason: String,
    },
}

impl JournalError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// A handle; clones share the journal. One process at a time may have it open.
#[derive(Debug, Clone)]
pub struct Journal {
    state: Arc<Mutex<State>>,
    last: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    dir: PathBuf,
    /// Oldest first; never empty; lines are appended to the last.
    segments: VecDeque<Segment>,
    file: File,
    segment_bytes: u64,
    next: u64,
    driver_offset: u64,
    unsynced: bool,
    /// Where the last read ended: its next number, the first number of the segment, the byte in it.
    cursor: (u64, u64, u64),
}

impl Journal {
    /// Opens the journal in `dir`, which is made where it is missing, and cuts a torn end.
    ///
    /// # Errors
    /// The disk's, or damage that no crash explains.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        Self::open_with(dir, SEGMENT_BYTES)
    }

    fn open_with(dir: &Path, segment_bytes: u64) -> Result<Self, JournalError> {
        std::fs::create_dir_all(dir).map_err(JournalError::io("create", dir))?;
        let mut segments = segment::list(dir)?;
        if segments.is_empty() {
            segments.push_back(Segment::create(dir, 1, 0)?);
        }
        let newest = segments.back_mut().expect("never empty");
        let end = newest.recover()?;
        let file = newest.open_to_append()?;
        let state = State {
            dir: dir.to_owned(),
            segments,
            file,
            segment_bytes,
            next: end.next,
            driver_offset: end.driver_offset,
            unsynced: true,
            cursor: (0, 0, 0),
        };
        Ok(Self {
            last: watch::Sender::new(end.next - 1),
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Numbers an event and keeps it. Answers its number.
    ///
    /// # Errors
    /// The disk's; nothing was kept then.
    pub fn append(&self, event: Unnumbered) -> Result<u64, JournalError> {
        self.write(vec![event], None)
    }

    /// Keeps what was read of the driver's file up to `offset_after`: all of it or nothing. Answers the
    /// last number given; without events, only the offset moves.
    ///
    /// # Errors
    /// The disk's; nothing was kept then.
    pub fn append_driver(
        &self,
        events: Vec<Unnumbered>,
        offset_after: u64,
    ) -> Result<u64, JournalError> {
        self.write(events, Some(offset_after))
    }

    fn write(&self, events: Vec<Unnumbered>, offset: Option<u64>) -> Result<u64, JournalError> {
        let mut state = self.lock();
        let last = state.write(events, offset)?;
        self.last.send_if_modified(|seen| {
            let news = *seen != last;
            *seen = last;
            news
        });
        Ok(last)
    }

    /// Up to which byte the driver's file has been taken.
    #[must_use]
    pub fn driver_offset(&self) -> u64 {
        self.lock().driver_offset
    }

    /// Tells the last number given, 0 for none, whenever it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// The last number given; 0 for none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.lock().next - 1
    }

    /// The first number that is still here; the next one that will be given, where none is.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.lock().segments[0].first
    }

    /// Events from number `from` on, or from the first that is still here: as many as fit in
    /// `max_bytes` of JSON, and at least one where there is one. They are on the disk by then.
    ///
    /// # Errors
    /// The disk's, or damage.
    pub fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<Event>, JournalError> {
        let mut state = self.lock();
        state.sync()?;
        state.read(from, max_bytes)
    }

    /// Forces every line to the disk: the barrier before an attempt is called finished.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> Result<(), JournalError> {
        self.lock().sync()
    }

    /// The server has everything before `next`: closed segments that hold nothing else are removed.
    /// Where the server has seen more than is here (the disk lost it), numbering goes on at `next`.
    ///
    /// # Errors
    /// The disk's.
    pub fn ack(&self, next: u64) -> Result<(), JournalError> {
        let mut state = self.lock();
        if next > state.next {
            state.next = next;
            state.rotate()?;
            self.last.send_replace(next - 1);
        }
        while state.segments.len() > 1 && state.segments[1].first <= next {
            state.segments[0].remove()?;
            state.segments.pop_front();
        }
        Ok(())
    }

    /// A panic elsewhere leaves the state whole: it is changed only after the disk agreed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, events: Vec<Unnumbered>, offset: Option<u64>) -> Result<u64, JournalError> {
        if self.newest().bytes >= self.segment_bytes {
            self.rotate()?;
        }
        let count = events.len() as u64;
        let mut buffer = Vec::new();
        for (n, event) in (1..).zip(events) {
            let last = n == count;
            Line {
                event: Some(event.number(self.next + n - 1)),
                more: !last,
                driver_offset: offset.filter(|_| last),
            }
            .write_to(&mut buffer);
        }
        if count == 0 && offset.is_some_and(|offset| offset != self.driver_offset) {
            Line {
                event: None,
                more: false,
                driver_offset: offset,
            }
            .write_to(&mut buffer);
        }
        if let Err(source) = self.file.write_all(&buffer) {
            // Part of it may be there: a later line must not follow half a line.
            let whole = self.newest().bytes;
            let path = self.newest().path.clone();
            self.file
                .set_len(whole)
                .map_err(JournalError::io("cut", &path))?;
            return Err(JournalError::io("write", &path)(source));
        }
        self.newest_mut().bytes += buffer.len() as u64;
        self.unsynced |= !buffer.is_empty();
        self.next += count;
        self.driver_offset = offset.unwrap_or(self.driver_offset);
        Ok(self.next - 1)
    }

    fn rotate(&mut self) -> Result<(), JournalError> {
        self.sync()?;
        if self.newest().first == self.next {
            return Ok(());
        }
        let segment = Segment::create(&self.dir, self.next, self.driver_offset)?;
        self.file = segment.open_to_append()?;
        self.segments.push_back(segment);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        if self.unsynced {
            self.file
                .sync_data()
                .map_err(JournalError::io("sync", &self.newest().path))?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn read(&mut self, from: u64, max_bytes: usize) -> Result<Vec<Event>, JournalError> {
        let holder = self
            .segments
            .partition_point(|segment| segment.first <= from);
        let mut events = Vec::new();
        let mut budget = max_bytes;
        for segment in self.segments.iter().skip(holder.saturating_sub(1)) {
            let (next, first, byte) = self.cursor;
            let start = if (next, first) == (from, segment.first) {
                byte
            } else {
                0
            };
            let end = segment.read(start, from, &mut budget, &mut events)?;
            let next = events.last().map_or(from, |event| event.seq + 1);
            self.cursor = (next, segment.first, end.byte);
            if end.full {
                break;
            }
        }
        Ok(events)
    }

    fn newest(&self) -> &Segment {
        self.segments.back().expect("never empty")
    }

    fn newest_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("never empty")
    }
}

#[cfg(test)]
mod tests;
