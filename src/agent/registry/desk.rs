//! The calls of an attempt's code that write, on the disk until the server has them. It must not know who brings them there.
//!
//! What holds, whatever happens to the process or the host:
//! - A call that was answered is on the disk. The same request again is the same call.
//! - Calls leave in the order in which they came, under numbers that rise: the server carries each number out once. A number
//!   is never below the time, so that a journal of which something was lost gives none that the server knows.
//! - What is damaged on the disk costs what it says, and nothing that lies beside it.
//! - What the server answered to a call that somebody waits for is on the disk before the next call leaves, because the server
//!   remembers the last answer only.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::{ByteSize, Digest, Timestamp};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::sync::watch;

use super::calls::{Answer, Call, Entry, Kind};
use crate::attempt::{free, read_json, write_json};

mod files;
#[cfg(test)]
mod tests;

/// What waits for the server may take so many bytes, and what lies behind it as many; files lie beside.
pub(crate) const MOST_WAITING: u64 = 1 << 30;
/// A journal whose calls are all delivered is begun anew from this length on.
const LONG: u64 = 4 << 20;
/// So many requests are known again. The driver has fewer on their way at once.
const MOST_KNOWN: usize = 1_024;

/// The calls, one a line.
const CALLS: &str = "calls.ndjson";
/// What became of them, one a line.
const DONE: &str = "done.ndjson";
/// What is known of calls that are in neither any more.
const KEPT: &str = "kept.json";

/// What became of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Done {
    number: u64,
    /// Where somebody may wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
}

/// A request that was taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    request: String,
    number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    last: u64,
    known: Vec<Known>,
}

/// Where the calls of an attempt's code lie until the server has them.
#[derive(Debug)]
pub(crate) struct Desk {
    folder: PathBuf,
    /// What waits takes at most so many bytes.
    most: u64,
    /// A file leaves so much of the disk free.
    floor: ByteSize,
    /// Lines that could not be read when it was opened.
    damaged: u64,
    /// Whether it was said that something could not be kept.
    complained: AtomicBool,
    inner: Mutex<Inner>,
    /// The number of the last call that was taken, and of the last one that was delivered.
    taken: watch::Sender<u64>,
    delivered: watch::Sender<u64>,
}

/// A call that the server does not have: where its line lies, and the content that goes with it.
#[derive(Debug)]
struct Waiting {
    number: u64,
    at: u64,
    length: usize,
    file: Option<Digest>,
}

#[derive(Debug)]
struct Inner {
    calls: File,
    /// Where the next line begins.
    end: u64,
    done: File,
    /// The calls that the server does not have.
    waiting: VecDeque<Waiting>,
    known: VecDeque<Known>,
    numbers: HashMap<String, u64>,
    last: u64,
}

impl Desk {
    /// Opens the folder, made where it is missing; what waits may take `most` bytes, and a file leaves `floor` free. A torn last line is cut: its call was
    /// not answered. What is damaged otherwise is left out, and counted.
    ///
    /// # Errors
    /// Where the disk refuses for now.
    pub(crate) fn open(folder: PathBuf, most: u64, floor: ByteSize) -> io::Result<Self> {
        fs::create_dir_all(folder.join("files"))?;
        let mut damaged = 0;
        let summary = folder.join(KEPT);
        let kept: Kept = match read_json(&summary) {
            Ok(kept) => kept.unwrap_or_default(),
            Err(error) if files::is_lost(&error) => {
                damaged += 1;
                files::set_aside(&summary)?;
                Kept::default()
            }
            Err(error) => return Err(error),
        };
        let (mut calls, lost) = files::open(&folder.join(CALLS))?;
        damaged += lost;
        let (mut done, lost) = files::open(&folder.join(DONE))?;
        damaged += lost;
        let mut inner = Inner {
            last: kept.last,
            end: 0,
            waiting: VecDeque::new(),
            known: VecDeque::new(),
            numbers: HashMap::new(),
            calls: calls.try_clone()?,
            done: done.try_clone()?,
        };
        for known in kept.known {
            inner.know(known);
        }
        let (end, lost) = files::lines(&mut calls, |at, line| {
            let entry: Entry = serde_json::from_slice(line)?;
            // Lines from before the last summary, which was made just before they were to go.
            if entry.number > inner.last {
                inner.note(entry, at, line.len());
            }
            Ok(())
        })?;
        inner.end = end;
        damaged += lost;
        let (_, lost) = files::lines(&mut done, |_, line| {
            inner.conclude(&serde_json::from_slice(line)?);
            Ok(())
        })?;
        damaged += lost;
        let delivered = inner.delivered();
        let desk = Self {
            taken: watch::Sender::new(inner.last),
            delivered: watch::Sender::new(delivered),
            inner: Mutex::new(inner),
            folder,
            most,
            floor,
            damaged,
            complained: AtomicBool::new(false),
        };
        if damaged > 0 {
            desk.begin_anew(&mut desk.lock())?;
        }
        desk.forget_files()?;
        Ok(desk)
    }

    /// Removes contents that no call brings: an agent was killed while one came, or just after it was delivered.
    fn forget_files(&self) -> io::Result<()> {
        let inner = self.lock();
        let waiting = inner.waiting.iter();
        let wanted: HashSet<&str> = waiting
            .filter_map(|call| call.file.as_ref().map(Digest::as_str))
            .collect();
        for entry in fs::read_dir(self.files())? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_str().is_some_and(|name| wanted.contains(name)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// How many lines, or whole files, could not be read when it was opened: what they said is lost.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Whether somebody is to be told that something could not be kept: the first time only.
    pub(super) fn complain(&self) -> bool {
        !self.complained.swap(true, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the contents of files lie until they are uploaded.
    pub(crate) fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// Begins a file of so many bytes. It must leave the floor free, or as much as it takes itself where that is less: a
    /// disk that others have filled takes small ones still.
    ///
    /// # Errors
    /// Where it would not, or the disk refuses.
    pub(super) fn begin_file(&self, length: u64) -> io::Result<NamedTempFile> {
        let files = self.files();
        let rest = length.min(self.floor.0);
        if let Some(free) = free(&files)
            && free.0 < length.saturating_add(rest)
        {
            let (length, rest) = (ByteSize(length), ByteSize(rest));
            let words = format!("of {free} free a file of {length} does not leave {rest}");
            return Err(io::Error::new(io::ErrorKind::StorageFull, words));
        }
        NamedTempFile::new_in(files)
    }

    /// Whether this request was taken: its content is not wanted again.
    pub(super) fn knows(&self, request: &str) -> bool {
        self.lock().numbers.contains_key(request)
    }

    /// Takes a call, which is on the disk when this returns; gives its number. Its file is there already. The same request
    /// again is the same call.
    ///
    /// # Errors
    /// Where the disk refuses, or too much waits for the server.
    pub(crate) fn take(&self, call: Call, content: Option<NamedTempFile>) -> io::Result<u64> {
        let mut inner = self.lock();
        if let Some(number) = inner.numbers.get(&call.request) {
            return Ok(*number);
        }
        let number = (inner.last + 1).max(now());
        let entry = Entry { number, call };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        let length = line.len() as u64;
        if inner.unsent() + length > self.most {
            let words = "more waits for the server than this host keeps";
            return Err(io::Error::new(io::ErrorKind::StorageFull, words));
        }
        if inner.end + length > self.most.saturating_mul(2) {
            self.begin_anew(&mut inner)?;
        }
        // With the lock held: a delivery takes away what no call wants.
        if let (Some(content), Some((digest, _))) = (content, &entry.call.file) {
            content.persist(self.files().join(digest.as_str()))?;
            File::open(self.files())?.sync_all()?;
        }
        let at = inner.end;
        // What is left of one that could not be written must not be this line's beginning.
        if inner.calls.metadata()?.len() != at {
            inner.calls.set_len(at)?;
        }
        let written = inner.calls.write_all(&line);
        if let Err(error) = written.and_then(|()| inner.calls.sync_data()) {
            let _ = inner.calls.set_len(at);
            return Err(error);
        }
        inner.end += length;
        inner.note(entry, at, line.len() - 1);
        drop(inner);
        self.taken.send_replace(number);
        Ok(number)
    }

    /// The next call that the server does not have.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(crate) fn next(&self) -> io::Result<Option<Entry>> {
        let inner = self.lock();
        let Some(first) = inner.waiting.front() else {
            return Ok(None);
        };
        let mut line = vec![0; first.length];
        inner.calls.read_exact_at(&mut line, first.at)?;
        Ok(Some(serde_json::from_slice(&line)?))
    }

    /// Notes what the server answered to a call.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub(crate) fn deliver(&self, entry: &Entry, answer: Answer) -> io::Result<()> {
        let awaited = matches!(entry.call.kind(), Kind::Awaited);
        let done = Done {
            number: entry.number,
            answer: awaited.then_some(answer),
        };
        self.conclude(&done, entry.call.file.as_ref().map(|(digest, _)| digest))
    }

    /// Gives up the next call, which cannot be read any more; who waits for it hears this.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub(crate) fn give_up(&self, answer: Answer) -> io::Result<()> {
        let next = self
            .lock()
            .waiting
            .front()
            .map(|first| (first.number, first.file.clone()));
        let Some((number, file)) = next else {
            return Ok(());
        };
        let answer = Some(answer);
        self.conclude(&Done { number, answer }, file.as_ref())
    }

    fn conclude(&self, done: &Done, file: Option<&Digest>) -> io::Result<()> {
        let mut line = serde_json::to_vec(done)?;
        line.push(b'\n');
        let mut inner = self.lock();
        inner.write_done(&line, done.answer.is_some())?;
        inner.conclude(done);
        if let Some(digest) = file.filter(|digest| !inner.is_wanted(digest)) {
            let _ = fs::remove_file(self.files().join(digest.as_str()));
        }
        if inner.waiting.is_empty()
            && inner.end > LONG
            && let Err(error) = self.begin_anew(&mut inner)
        {
            // It is only longer than it need be.
            tracing::warn!("{}: {error}", self.folder.display());
        }
        drop(inner);
        self.delivered.send_replace(done.number);
        Ok(())
    }

    /// Lines of calls that are delivered go; what is known of them is kept.
    fn begin_anew(&self, inner: &mut Inner) -> io::Result<()> {
        let delivered = inner.delivered();
        let known = inner.known.iter();
        let known = known.filter(|known| known.number <= delivered);
        let kept = Kept {
            last: delivered,
            known: known.cloned().collect(),
        };
        let places = inner.waiting.iter().map(|one| (one.at, one.length));
        let fresh = files::copy(&inner.calls, places, &self.folder)?;
        write_json(&self.folder.join(KEPT), &kept)?;
        inner.calls = files::replace(fresh, &self.folder.join(CALLS))?;
        inner.done.set_len(0)?;
        inner.end = 0;
        for one in &mut inner.waiting {
            one.at = inner.end;
            inner.end += one.length as u64 + 1;
        }
        Ok(())
    }

    /// Waits until the server has a call and all before it; gives what it answered where that was kept.
    pub(super) async fn answered(&self, number: u64) -> Option<Answer> {
        let mut delivered = self.delivered.subscribe();
        // The sender is ours: it lives.
        let _ = delivered.wait_for(|last| *last >= number).await;
        let inner = self.lock();
        let known = inner.known.iter().find(|known| known.number == number);
        known.and_then(|known| known.answer.clone())
    }

    /// Waits until the server has all that was taken before.
    pub(super) async fn flushed(&self) {
        let last = *self.taken.borrow();
        let mut delivered = self.delivered.subscribe();
        let _ = delivered.wait_for(|delivered| *delivered >= last).await;
    }

    /// Tells of calls that are taken.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.taken.subscribe()
    }
}

impl Inner {
    fn know(&mut self, known: Known) {
        self.numbers.insert(known.request.clone(), known.number);
        self.known.push_back(known);
        // One that waits for the server is known as long as it does.
        let delivered = self.delivered();
        while self.known.len() > MOST_KNOWN
            && self
                .known
                .front()
                .is_some_and(|known| known.number <= delivered)
        {
            if let Some(old) = self.known.pop_front() {
                self.numbers.remove(&old.request);
            }
        }
    }

    fn note(&mut self, entry: Entry, at: u64, length: usize) {
        self.last = entry.number;
        self.waiting.push_back(Waiting {
            number: entry.number,
            at,
            length,
            file: entry.call.file.map(|(digest, _)| digest),
        });
        self.know(Known {
            request: entry.call.request,
            number: entry.number,
            answer: None,
        });
    }

    /// Bytes of the calls that wait.
    fn unsent(&self) -> u64 {
        let first = self.waiting.front();
        first.map_or(0, |first| self.end - first.at)
    }

    /// Writes what became of a call; `safely`: it is on the disk when this returns.
    fn write_done(&mut self, line: &[u8], safely: bool) -> io::Result<()> {
        let before = self.done.metadata()?.len();
        let written = self.done.write_all(line);
        if let Err(error) = written {
            // What was written of it must not be a line's beginning.
            self.done.set_len(before)?;
            return Err(error);
        }
        match safely {
            true => self.done.sync_data(),
            false => Ok(()),
        }
    }

    fn delivered(&self) -> u64 {
        self.waiting
            .front()
            .map_or(self.last, |first| first.number - 1)
    }

    fn conclude(&mut self, done: &Done) {
        while self
            .waiting
            .front()
            .is_some_and(|first| first.number <= done.number)
        {
            self.waiting.pop_front();
        }
        let known = self
            .known
            .iter_mut()
            .find(|known| known.number == done.number);
        if let Some(known) = known
            && done.answer.is_some()
        {
            known.answer.clone_from(&done.answer);
        }
    }

    /// Whether a call that waits brings this content.
    fn is_wanted(&self, digest: &Digest) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.any(|call| call.file.as_ref() == Some(digest))
    }
}

/// The time as a number of a call: microseconds since 1970.
fn now() -> u64 {
    u64::try_from(Timestamp::now().0).unwrap_or(0) * 1_000
}
