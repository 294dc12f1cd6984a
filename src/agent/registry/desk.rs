//! The calls of an attempt's code that write, on the disk until the server has them. It must not know who brings them there.
//!
//! What holds, whatever happens to the process or the host:
//! - A call that was answered is on the disk. The same request again is the same call.
//! - Calls leave in the order in which they came, under numbers that rise: the server carries each number out once.
//! - What the server answered to a call that somebody waits for is on the disk before the next call leaves, because the server
//!   remembers the last answer only.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::Digest;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::sync::watch;

use super::calls::{Answer, Call, Entry};
use crate::attempt::{read_json, write_json};

/// What waits for the server may take so many bytes; files lie beside.
const MOST_BYTES: u64 = 1 << 30;
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
    /// Opens the folder, made where it is missing. A torn last line is cut: its call was not answered.
    ///
    /// # Errors
    /// Where the disk refuses, or a line in between cannot be read.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(folder.join("files"))?;
        let open = |name: &str| {
            let mut options = File::options();
            options.read(true).append(true).create(true);
            options.open(folder.join(name))
        };
        let kept: Kept = read_json(&folder.join(KEPT))?.unwrap_or_default();
        let (mut calls, mut done) = (open(CALLS)?, open(DONE)?);
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
        inner.end = lines(&mut calls, |at, line| {
            let entry: Entry = serde_json::from_slice(line)?;
            // Lines from before the last summary, which was made just before they were to go.
            if entry.number > kept.last {
                inner.note(entry, at, line.len());
            }
            Ok(())
        })?;
        lines(&mut done, |_, line| {
            let done: Done = serde_json::from_slice(line)?;
            inner.conclude(&done);
            Ok(())
        })?;
        let delivered = inner.delivered();
        Ok(Self {
            taken: watch::Sender::new(inner.last),
            delivered: watch::Sender::new(delivered),
            inner: Mutex::new(inner),
            folder,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the contents of files lie until they are uploaded.
    pub(crate) fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// Takes a call, which is on the disk when this returns, and so is its file; gives its number. The same request again
    /// is the same call.
    ///
    /// # Errors
    /// Where the disk refuses, or too much waits for the server.
    pub(crate) fn take(&self, call: Call, content: Option<NamedTempFile>) -> io::Result<u64> {
        if let Some(content) = &content {
            content.as_file().sync_all()?;
        }
        let mut inner = self.lock();
        if let Some(number) = inner.numbers.get(&call.request) {
            return Ok(*number);
        }
        // With the lock held: a delivery takes away what no call wants.
        if let (Some(content), Some((digest, _))) = (content, &call.file) {
            content.persist(self.files().join(digest.as_str()))?;
            File::open(self.files())?.sync_all()?;
        }
        let number = inner.last + 1;
        let entry = Entry { number, call };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        if inner.end + line.len() as u64 > MOST_BYTES {
            let words = "more waits for the server than this host keeps";
            return Err(io::Error::new(io::ErrorKind::StorageFull, words));
        }
        let at = inner.end;
        let written = inner
            .calls
            .write_all(&line)
            .and_then(|()| inner.calls.sync_data());
        if let Err(error) = written {
            // What was written of it must not be a line's beginning.
            inner.calls.set_len(at)?;
            return Err(error);
        }
        inner.end += line.len() as u64;
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
        let awaited = matches!(entry.call.kind(), super::calls::Kind::Awaited);
        let done = Done {
            number: entry.number,
            answer: awaited.then_some(answer),
        };
        let mut line = serde_json::to_vec(&done)?;
        line.push(b'\n');
        let mut inner = self.lock();
        inner.done.write_all(&line)?;
        if awaited {
            inner.done.sync_data()?;
        }
        inner.conclude(&done);
        if let Some((digest, _)) = &entry.call.file
            && !inner.is_wanted(digest)
        {
            let _ = fs::remove_file(self.files().join(digest.as_str()));
        }
        if inner.waiting.is_empty() && inner.end > LONG {
            self.begin_anew(&mut inner)?;
        }
        drop(inner);
        self.delivered.send_replace(entry.number);
        Ok(())
    }

    /// All calls are delivered: what is known of them is kept, and their lines go.
    fn begin_anew(&self, inner: &mut Inner) -> io::Result<()> {
        let kept = Kept {
            last: inner.last,
            known: inner.known.iter().cloned().collect(),
        };
        write_json(&self.folder.join(KEPT), &kept)?;
        inner.calls.set_len(0)?;
        inner.done.set_len(0)?;
        inner.end = 0;
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

/// Reads the whole lines of a file, each with its place; what is behind the last line end is cut. Gives where the next line
/// begins.
fn lines(file: &mut File, mut each: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(&*file);
    let (mut at, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line)? as u64;
        let Some((b'\n', text)) = line.split_last() else {
            break;
        };
        each(at, text)?;
        at += n;
    }
    file.set_len(at)?;
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(request: &str, name: &str) -> Call {
        Call {
            request: request.into(),
            method: "POST".into(),
            address: format!("/api/2.0/mlflow/runs/{name}"),
            content_type: Some("application/json".into()),
            body: format!("{{\"of\": \"{request}\"}}"),
            file: None,
        }
    }

    fn made(id: &str) -> Answer {
        Answer {
            status: 200,
            body: format!("{{\"run\": \"{id}\"}}"),
        }
    }

    fn deliver_all(desk: &Desk) -> Vec<(u64, String)> {
        let mut order = Vec::new();
        while let Some(entry) = desk.next().unwrap() {
            order.push((entry.number, entry.call.request.clone()));
            let answer = made(&entry.call.request);
            desk.deliver(&entry, answer).unwrap();
        }
        order
    }

    #[tokio::test]
    async fn what_was_taken_leaves_in_order_and_once_over_every_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Desk::open(folder.path().to_owned()).unwrap();
        let desk = open();
        assert_eq!(desk.take(call("a", "log-metric"), None).unwrap(), 1);
        assert_eq!(desk.take(call("b", "create"), None).unwrap(), 2);
        let desk = open();
        assert_eq!(
            desk.take(call("b", "create"), None).unwrap(),
            2,
            "the same request"
        );
        assert_eq!(desk.take(call("c", "log-batch"), None).unwrap(), 3);
        let first = desk.next().unwrap().unwrap();
        assert_eq!((first.number, &first.call), (1, &call("a", "log-metric")));
        desk.deliver(&first, made("a")).unwrap();
        let desk = open();
        let second = desk.next().unwrap().unwrap();
        assert_eq!(second.number, 2);
        desk.deliver(&second, made("b")).unwrap();
        let desk = open();
        assert_eq!(
            desk.answered(2).await,
            Some(made("b")),
            "kept for who asks again"
        );
        assert_eq!(deliver_all(&desk), [(3, "c".to_owned())]);
        assert_eq!(desk.answered(3).await, None, "nobody waits for it");
        let desk = open();
        assert_eq!(desk.next().unwrap(), None);
        desk.flushed().await;
        assert_eq!(desk.take(call("d", "create"), None).unwrap(), 4);
    }

    #[test]
    fn a_line_that_was_torn_by_a_crash_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Desk::open(folder.path().to_owned()).unwrap();
        open().take(call("a", "create"), None).unwrap();
        let path = folder.path().join(CALLS);
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"number\":2,\"requ");
        fs::write(&path, torn).unwrap();
        let desk = open();
        assert_eq!(desk.take(call("b", "create"), None).unwrap(), 2);
        let all = [(1, "a".to_owned()), (2, "b".to_owned())];
        assert_eq!(deliver_all(&open()), all);
    }

    #[test]
    fn a_long_journal_is_begun_anew_when_all_of_it_is_delivered() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Desk::open(folder.path().to_owned()).unwrap();
        let desk = open();
        let mut large = call("a", "create");
        large.body = "x".repeat(LONG as usize + 1);
        desk.take(large.clone(), None).unwrap();
        assert_eq!(deliver_all(&desk).len(), 1);
        assert_eq!(fs::metadata(folder.path().join(CALLS)).unwrap().len(), 0);
        let desk = open();
        assert_eq!(
            desk.take(large, None).unwrap(),
            1,
            "it is known all the same"
        );
        assert_eq!(desk.take(call("b", "create"), None).unwrap(), 2);
        assert_eq!(deliver_all(&open()), [(2, "b".to_owned())]);
    }

    #[test]
    fn a_content_goes_when_no_call_wants_it_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::open(folder.path().to_owned()).unwrap();
        let digest = Digest::of("content");
        let place = desk.files().join(digest.as_str());
        for request in ["a", "b"] {
            let mut put = call(request, "x");
            put.file = Some((digest.clone(), protocol::ByteSize(7)));
            let mut content = NamedTempFile::new_in(desk.files()).unwrap();
            content.write_all(b"content").unwrap();
            desk.take(put, Some(content)).unwrap();
        }
        let first = desk.next().unwrap().unwrap();
        desk.deliver(&first, made("a")).unwrap();
        assert!(place.exists());
        deliver_all(&desk);
        assert!(!place.exists());
    }
}
