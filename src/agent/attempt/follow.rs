//! Takes the driver's lines into the journal, from where the journal ends. It does not interpret them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use protocol::event::{EventKind, LogStream};
use protocol::{Unnumbered, driver};

use crate::journal::{Journal, JournalError};

/// Most bytes of one step; a longer line is none of the driver's and is passed over.
const STEP_BYTES: usize = 4 << 20;

/// Reads `out/events.ndjson` as it grows.
pub(super) struct Follower<'a> {
    path: PathBuf,
    journal: &'a Journal,
    file: Option<File>,
}

impl<'a> Follower<'a> {
    pub(super) fn new(contract: &Path, journal: &'a Journal) -> Self {
        Self {
            path: contract.join(driver::OUT_DIR).join(driver::EVENTS_FILE),
            journal,
            file: None,
        }
    }

    /// Takes the lines that are complete. True: there may be more at once.
    pub(super) fn step(&mut self) -> Result<bool, JournalError> {
        let offset = self.journal.driver_offset();
        let Some(file) = self.open() else {
            return Ok(false);
        };
        let length = file.metadata().map(|meta| meta.len()).unwrap_or(0);
        let there = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
        if there == 0 {
            return Ok(false);
        }
        let mut bytes = vec![0; there.min(STEP_BYTES)];
        let Ok(read) = read_up_to(file, &mut bytes, offset) else {
            return Ok(false);
        };
        bytes.truncate(read);
        let end = match bytes.iter().rposition(|&byte| byte == b'\n') {
            Some(newline) => newline + 1,
            // A line that is still being written, or one without end.
            None if read < STEP_BYTES => return Ok(false),
            None => read,
        };
        let lines = bytes[..end]
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty());
        let events = lines.map(parse).collect();
        let journal = self.journal;
        journal.append_driver(events, offset + end as u64)?;
        Ok(there > end)
    }

    fn open(&mut self) -> Option<&File> {
        if self.file.is_none() {
            self.file = open_plain(&self.path).ok();
        }
        self.file.as_ref()
    }
}

/// Opens a plain file of a folder that foreign code may have had its hands on: follows no link, waits for no pipe.
pub(super) fn open_plain(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a plain file"))
    }
}

fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

/// A line; one that cannot be read is told, not dropped.
pub(super) fn parse(line: &[u8]) -> Unnumbered {
    serde_json::from_slice(line).unwrap_or_else(|error| {
        let shown: String = String::from_utf8_lossy(line).chars().take(200).collect();
        Unnumbered::now(
            EventKind::Log {
                stream: LogStream::Platform,
                text: format!("a line of the driver's cannot be read ({error}): {shown}\n"),
            }
            .into(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn complete_lines_are_taken_once_over_a_restart_too() {
        let folder = tempfile::tempdir().unwrap();
        let contract = folder.path().join("contract");
        fs::create_dir_all(contract.join("out")).unwrap();
        let mut file = File::create(contract.join("out/events.ndjson")).unwrap();
        file.write_all(
            b"{\"at\":1,\"kind\":\"kernel\",\"status\":\"ready\"}\nnot json\n{\"at\":2,\"ki",
        )
        .unwrap();
        let journal = Journal::open(&folder.path().join("journal")).unwrap();
        assert!(Follower::new(&contract, &journal).step().unwrap());
        assert_eq!(journal.last(), 2);
        drop(journal);

        let journal = Journal::open(&folder.path().join("journal")).unwrap();
        let mut follower = Follower::new(&contract, &journal);
        assert!(!follower.step().unwrap());
        file.write_all(b"nd\":\"kernel\",\"status\":\"ended\"}\n")
            .unwrap();
        follower.step().unwrap();
        let events = journal.read(1, 1 << 20).unwrap();
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
        assert!(
            matches!(events[2].body.known(), Some(EventKind::Kernel { status, .. }) if status == "ended")
        );
    }
}
