//! One file of the journal: a head with the state before it, then a line for each event. It must not
//! know the other segments.
//!
//! ```text
//! {"journal":1,"first":4711,"driver_offset":90210}
//! {"more":true,"event":{"seq":4711,...}}
//! {"driver_offset":90300,"event":{"seq":4712,...}}
//! ```
//! `more` says that the next line belongs to the same write: such a line counts only together with it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use protocol::Event;
use serde::{Deserialize, Serialize};

use super::JournalError;

const SUFFIX: &str = ".ndjson";

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    journal: u32,
    first: u64,
    driver_offset: u64,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    /// Whether the next line belongs to the same write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) more: bool,
    /// How far the driver's file was read with this write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) driver_offset: Option<u64>,
    /// None where only the offset moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<Event>,
}

impl Line {
    /// Appends the line with its end.
    pub(super) fn write_to(&self, buffer: &mut Vec<u8>) {
        serde_json::to_writer(&mut *buffer, self).expect("maps with text keys become JSON");
        buffer.push(b'\n');
    }
}

/// A file of the journal.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Number of its first event.
    pub(super) first: u64,
    /// Its length; counted only while lines are appended to it.
    pub(super) bytes: u64,
}

/// What a recovered segment ends with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) next: u64,
    pub(super) driver_offset: u64,
}

/// Where a read stopped, and whether it did because it had enough.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) byte: u64,
    pub(super) full: bool,
}

/// The segments of a folder, oldest first. Half-made ones are removed.
pub(super) fn list(dir: &Path) -> Result<VecDeque<Segment>, JournalError> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(JournalError::io("list", dir))? {
        let path = entry.map_err(JournalError::io("list", dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".new") {
            std::fs::remove_file(&path).map_err(JournalError::io("remove", &path))?;
        } else if let Some(first) = name.strip_suffix(SUFFIX).and_then(|n| n.parse().ok()) {
            segments.push(Segment {
                path,
                first,
                bytes: 0,
            });
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments.into())
}

impl Segment {
    /// Makes a segment whose head is on the disk before its name is.
    pub(super) fn create(dir: &Path, first: u64, driver_offset: u64) -> Result<Self, JournalError> {
        let path = dir.join(format!("{first:020}{SUFFIX}"));
        let head = Head {
            journal: 1,
            first,
            driver_offset,
        };
        let mut text = serde_json::to_vec(&head).expect("numbers become JSON");
        text.push(b'\n');
        let new = path.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(JournalError::io("create", &path))?;
        Ok(Self {
            path,
            first,
            bytes: text.len() as u64,
        })
    }

    pub(super) fn open_to_append(&self) -> Result<File, JournalError> {
        OpenOptions::new()
            .append(true)
            .open(&self.path)
            .map_err(JournalError::io("open", &self.path))
    }

    pub(super) fn remove(&self) -> Result<(), JournalError> {
        match std::fs::remove_file(&self.path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(JournalError::io("remove", &self.path)(source))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Finds the last whole write and cuts what follows it.
    pub(super) fn recover(&mut self) -> Result<End, JournalError> {
        let bytes = std::fs::read(&self.path).map_err(JournalError::io("read", &self.path))?;
        let mut lines = Lines {
            segment: self,
            bytes: &bytes,
            at: 0,
        };
        let head = lines.head()?;
        let mut end = End {
            next: head.first,
            driver_offset: head.driver_offset,
        };
        let mut whole = lines.at;
        let mut next = end.next;
        while let Some(line) = lines.next()? {
            if let Some(event) = &line.event {
                lines.expect(next, event.seq)?;
                next += 1;
            }
            if !line.more {
                whole = lines.at;
                end.next = next;
                end.driver_offset = line.driver_offset.unwrap_or(end.driver_offset);
            }
        }
        if whole < bytes.len() {
            let file = self.open_to_append()?;
            file.set_len(whole as u64)
                .and_then(|()| file.sync_all())
                .map_err(JournalError::io("cut", &self.path))?;
        }
        self.bytes = whole as u64;
        Ok(end)
    }

    /// Reads events from number `from` on, beginning at byte `start`, while `budget` lasts. The first
    /// event of all is taken whatever its length.
    pub(super) fn read(
        &self,
        start: u64,
        from: u64,
        budget: &mut usize,
        events: &mut Vec<Event>,
    ) -> Result<Stop, JournalError> {
        let failed = || JournalError::io("read", &self.path);
        let mut file = File::open(&self.path).map_err(failed())?;
        file.seek(SeekFrom::Start(start)).map_err(failed())?;
        let mut reader = BufReader::with_capacity(64 << 10, file);
        let mut byte = start;
        let mut text = Vec::new();
        loop {
            text.clear();
            let length = reader.read_until(b'\n', &mut text).map_err(failed())?;
            if length == 0 || text.last() != Some(&b'\n') {
                return Ok(Stop { byte, full: false });
            }
            if byte > 0 {
                let line: Line =
                    serde_json::from_slice(&text).map_err(|e| self.damaged(byte, e.to_string()))?;
                if let Some(event) = line.event.filter(|event| event.seq >= from) {
                    if length > *budget && !events.is_empty() {
                        return Ok(Stop { byte, full: true });
                    }
                    *budget = budget.saturating_sub(length);
                    events.push(event);
                }
            }
            byte += length as u64;
        }
    }

    fn damaged(&self, at: u64, reason: String) -> JournalError {
        JournalError::Damaged {
            path: self.path.clone(),
            at,
            reason,
        }
    }
}

/// Walks the lines of a segment that may have a torn end.
struct Lines<'a> {
    segment: &'a Segment,
    bytes: &'a [u8],
    at: usize,
}

impl Lines<'_> {
    fn head(&mut self) -> Result<Head, JournalError> {
        let end = self.bytes.iter().position(|&b| b == b'\n');
        let text = end.map_or(self.bytes, |end| &self.bytes[..end]);
        let head: Head =
            serde_json::from_slice(text).map_err(|e| self.segment.damaged(0, e.to_string()))?;
        if head.journal != 1 || head.first != self.segment.first {
            let reason = "its head belongs to another file or to a newer version".to_owned();
            return Err(self.segment.damaged(0, reason));
        }
        self.at = text.len() + 1;
        Ok(head)
    }

    /// The next line; none at the end, torn or not. A wrong line that others follow is damage.
    fn next(&mut self) -> Result<Option<Line>, JournalError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&b| b == b'\n') else {
            return Ok(None);
        };
        match serde_json::from_slice(&rest[..length]) {
            Ok(line) => {
                self.at += length + 1;
                Ok(Some(line))
            }
            Err(_) if !rest[length + 1..].contains(&b'\n') => Ok(None),
            Err(error) => Err(self.segment.damaged(self.at as u64, error.to_string())),
        }
    }

    fn expect(&self, wanted: u64, found: u64) -> Result<(), JournalError> {
        if wanted == found {
            return Ok(());
        }
        let reason = format!("number {found} where {wanted} was expected");
        Err(self.segment.damaged(self.at as u64, reason))
    }
}
