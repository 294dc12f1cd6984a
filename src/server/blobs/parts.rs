//! Contents that are under way: files that grow until they are whole. Their hashes grow with them, so that nothing has to
//! be read again, except after a restart of the server.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use protocol::{AgentId, Digest};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio::task::spawn_blocking;

use super::{BlobError, READ_BYTES, part_error};

/// Locks for parts; more than there are cores.
const STRIPES: usize = 64;
/// Hashes that are kept in memory; others are made anew from the file.
const MOST_HASHES: usize = 1_024;
/// A file that grows is written through after so many bytes.
const FLUSH_BYTES: u64 = 64 << 20;
/// Pieces that wait for the disk; each is what was read from the network at once, at most some 400 KiB.
const PIECES: usize = 16;
/// The folder of contents whose hash nobody has said.
const UNNAMED: &str = "unnamed";

#[derive(Debug)]
pub(super) struct Parts {
    folder: PathBuf,
    locks: Vec<Mutex<()>>,
    hashes: std::sync::Mutex<HashMap<PathBuf, Growing>>,
}

/// The hash of the first bytes of a file.
#[derive(Debug, Clone, Default)]
struct Growing {
    hasher: Sha256,
    length: u64,
}

/// The file of a content without a name; it is removed with this value, where it was not moved to its place.
pub(super) struct Unnamed(PathBuf);

impl Unnamed {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Parts {
    pub(super) fn open(folder: PathBuf) -> Result<Self, BlobError> {
        std::fs::create_dir_all(&folder).map_err(part_error(&folder))?;
        Ok(Self {
            folder,
            locks: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            hashes: std::sync::Mutex::default(),
        })
    }

    /// Whoever changes what lies under this hash, here or at its place, holds it.
    pub(super) async fn lock(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        let stripe = usize::from_str_radix(&digest.as_str()[..4], 16).unwrap_or(0) % STRIPES;
        self.locks[stripe].lock().await
    }

    /// Each agent has parts of its own: one cannot spoil another's.
    pub(super) fn path(&self, agent: &AgentId, digest: &Digest) -> PathBuf {
        self.folder.join(agent.as_str()).join(digest.as_str())
    }

    /// Writes a content whose hash nobody has said to a file, as it comes; gives the file, and the content's hash and length.
    ///
    /// # Errors
    /// The disk's, and those of the pieces.
    pub(super) async fn write(
        &self,
        pieces: impl Stream<Item = Result<Bytes, BlobError>>,
    ) -> Result<(Unnamed, Digest, u64), BlobError> {
        let folder = self.folder.join(UNNAMED);
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(part_error(&folder))?;
        let name = ulid::Ulid::generate().to_string().to_lowercase();
        let path = folder.join(name);
        let file = tokio::fs::File::create(&path)
            .await
            .map_err(part_error(&path))?
            .into_std()
            .await;
        let unnamed = Unnamed(path.clone());
        let (send, receive) = mpsc::channel(PIECES);
        // A thread of its own: what comes next is read from the network meanwhile, and no byte is copied in between.
        let writing = spawn_blocking(move || write(file, receive));
        let mut pieces = std::pin::pin!(pieces);
        while let Some(piece) = pieces.try_next().await? {
            if send.send(piece).await.is_err() {
                break;
            }
        }
        drop(send);
        let written = writing.await.map_err(std::io::Error::other).flatten();
        let (digest, length) = written.map_err(part_error(&path))?;
        Ok((unnamed, digest, length))
    }

    /// Removes what had no name when an earlier server ended: it does not come to its end any more.
    pub(super) fn forget_unnamed(&self) -> Result<(), BlobError> {
        let unnamed = self.folder.join(UNNAMED);
        match std::fs::remove_dir_all(&unnamed) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(part_error(&unnamed)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Bytes that are there of it.
    pub(super) async fn length(&self, path: &Path) -> u64 {
        let metadata = tokio::fs::metadata(path).await;
        metadata.map_or(0, |metadata| metadata.len())
    }

    /// Writes bytes to the end of a part of `length` bytes.
    pub(super) async fn grow(
        &self,
        path: &Path,
        length: u64,
        bytes: Bytes,
    ) -> Result<(), BlobError> {
        let mut growing = self.hash_of(path, length).await?;
        let (hashed, file) = (bytes.clone(), path.to_owned());
        let hashing = spawn_blocking(move || {
            growing.hasher.update(&hashed);
            growing.length += hashed.len() as u64;
            growing
        });
        let writing = spawn_blocking(move || append_to(&file, &bytes));
        let (written, hashed) = tokio::join!(writing, hashing);
        let ended = |error| part_error(path)(std::io::Error::other(error));
        written.map_err(ended)?.map_err(part_error(path))?;
        let hashed = hashed.map_err(ended)?;
        let mut hashes = self.hashes.lock().expect("no panic holds it");
        if hashes.len() >= MOST_HASHES {
            hashes.clear();
        }
        hashes.insert(path.to_owned(), hashed);
        Ok(())
    }

    /// The hash of a part of `length` bytes, which is not kept in memory any more.
    pub(super) async fn finish(&self, path: &Path, length: u64) -> Result<Digest, BlobError> {
        let growing = self.hash_of(path, length).await?;
        Ok(Digest::from_hasher(growing.hasher))
    }

    /// What is known of a part, where that is of its bytes as they are; else they are read.
    async fn hash_of(&self, path: &Path, length: u64) -> Result<Growing, BlobError> {
        let known = self.hashes.lock().expect("no panic holds it").remove(path);
        match known {
            Some(known) if known.length == length => Ok(known),
            Some(_) | None if length == 0 => Ok(Growing::default()),
            Some(_) | None => read(path).await.map_err(part_error(path)),
        }
    }

    /// Removes parts that did not grow for so long; gives how many.
    pub(super) async fn forget(&self, idle: Duration) -> Result<usize, BlobError> {
        let mut gone = 0;
        let folders = entries(&self.folder).await;
        for folder in folders.map_err(part_error(&self.folder))? {
            for path in entries(&folder).await.map_err(part_error(&folder))? {
                let name = path.file_name().and_then(|name| name.to_str());
                let Some(Ok(digest)) = name.map(str::parse::<Digest>) else {
                    continue;
                };
                let _lock = self.lock(&digest).await;
                // It may have been completed in between.
                let Ok(metadata) = tokio::fs::metadata(&path).await else {
                    continue;
                };
                let changed = metadata.modified().map_err(part_error(&path))?;
                if changed.elapsed().is_ok_and(|since| since >= idle) {
                    self.remove(&path).await?;
                    gone += 1;
                }
            }
        }
        Ok(gone)
    }

    /// Removes one; one that is not there is fine.
    pub(super) async fn remove(&self, path: &Path) -> Result<(), BlobError> {
        self.hashes.lock().expect("no panic holds it").remove(path);
        match tokio::fs::remove_file(path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(part_error(path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// What lies in a folder.
async fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut reader = tokio::fs::read_dir(folder).await?;
    let mut paths = Vec::new();
    while let Some(entry) = reader.next_entry().await? {
        paths.push(entry.path());
    }
    Ok(paths)
}

fn append_to(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).open(path)?;
    file.write_all(bytes)
}

/// Writes pieces to a file as they come; gives their hash and length.
fn write(mut file: File, mut pieces: mpsc::Receiver<Bytes>) -> std::io::Result<(Digest, u64)> {
    let mut growing = Growing::default();
    let mut flush = Flush::begin(file.try_clone()?);
    while let Some(piece) = pieces.blocking_recv() {
        file.write_all(&piece)?;
        growing.hasher.update(&piece);
        growing.length += piece.len() as u64;
        flush.grown(growing.length);
    }
    flush.end()?;
    Ok((Digest::from_hasher(growing.hasher), growing.length))
}

/// Writes a growing file through to the disk while it grows: what is left to wait for at its end is short.
struct Flush {
    due: SyncSender<()>,
    done: JoinHandle<std::io::Result<()>>,
    at: u64,
}

impl Flush {
    fn begin(file: File) -> Self {
        // One may wait while another is under way.
        let (due, wanted) = std::sync::mpsc::sync_channel(1);
        Self {
            due,
            done: std::thread::spawn(move || wanted.iter().try_for_each(|()| file.sync_data())),
            at: 0,
        }
    }

    fn grown(&mut self, length: u64) {
        if length - self.at >= FLUSH_BYTES {
            self.at = length;
            // One that waits will write this too; a thread that is over has an error to tell at the end.
            let _ = self.due.try_send(());
        }
    }

    /// Waits for what is under way. An error of the disk is told to one caller alone: it must not be lost here.
    fn end(self) -> std::io::Result<()> {
        drop(self.due);
        self.done
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the thread that wrote it panicked")))
    }
}

async fn read(path: &Path) -> std::io::Result<Growing> {
    let mut file = tokio::fs::File::open(path).await?;
    let mut growing = Growing::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            return Ok(growing);
        }
        growing.hasher.update(&buffer[..read]);
        growing.length += read as u64;
    }
}
