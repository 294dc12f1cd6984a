//! Contents by SHA-256. A part grows on disk until it is complete; only what has the right hash is kept.
//! It knows bytes and names, not what they are for.

use std::io::SeekFrom;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt as _,
    PutPayload, WriteMultipart,
};
use protocol::{AgentId, Digest};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::io::ReaderStream;

/// Locks for parts; more than there are cores.
const STRIPES: usize = 64;
/// Where contents lie whose hash is not known yet.
const INCOMING: &str = "incoming";
/// Pieces that wait to be hashed at most; a connection's have some 100 KiB.
const PIECES_AHEAD: usize = 64;
/// Bytes read at once when a content is sent.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes read at once when a part is hashed or stored.
const READ_BYTES: usize = 4 << 20;

/// Where contents are kept.
#[derive(Debug)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    parts: PathBuf,
    locks: Vec<Mutex<()>>,
}

/// What a piece of a blob led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes are there now.
    Partial(u64),
    /// All are there, and the hash is right.
    Complete,
    /// The piece does not begin where the part ends, which is here.
    WrongOffset(u64),
    /// All are there, and the hash is wrong: they were thrown away.
    WrongHash,
}

/// The disk, or the object store, answered with an error.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A part.
    #[error("'{}': {source}", path.display())]
    Part {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store.
    #[error("blob store: {0}")]
    Store(#[from] object_store::Error),
    /// It did not come to its end.
    #[error("the upload broke off: {0}")]
    Broken(std::io::Error),
    /// It is longer than it may be.
    #[error("it is too large")]
    TooLarge,
}

fn part_error(path: &Path) -> impl FnOnce(std::io::Error) -> BlobError + use<> {
    let path = path.to_owned();
    move |source| BlobError::Part { path, source }
}

/// Where a content lies: two levels, so that no folder holds all of them.
fn place(digest: &Digest) -> object_store::path::Path {
    let name = digest.as_str();
    format!("sha256/{}/{name}", &name[..2]).into()
}

impl Blobs {
    /// Contents as files under `<data>/blobs`, written through to the disk.
    ///
    /// # Errors
    /// Where the folder cannot be made.
    pub fn open(data: &Path) -> Result<Self, BlobError> {
        let (kept, parts) = (data.join("blobs"), data.join("parts"));
        for folder in [&kept, &parts] {
            std::fs::create_dir_all(folder).map_err(part_error(folder))?;
        }
        // What was on its way when an earlier server ended does not come to its end any more.
        let incoming = kept.join(INCOMING);
        if incoming.exists() {
            std::fs::remove_dir_all(&incoming).map_err(part_error(&incoming))?;
        }
        let store = LocalFileSystem::new_with_prefix(&kept)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            parts,
            locks: (0..STRIPES).map(|_| Mutex::new(())).collect(),
        })
    }

    async fn lock(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        let stripe = usize::from_str_radix(&digest.as_str()[..4], 16).unwrap_or(0) % STRIPES;
        self.locks[stripe].lock().await
    }

    /// Each agent has parts of its own: one cannot spoil another's.
    fn part(&self, agent: &AgentId, digest: &Digest) -> PathBuf {
        self.parts.join(agent.as_str()).join(digest.as_str())
    }

    /// Bytes that an agent has sent of a content that is not complete.
    pub async fn offset(&self, agent: &AgentId, digest: &Digest) -> u64 {
        match tokio::fs::metadata(self.part(agent, digest)).await {
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        }
    }

    /// Takes a piece of a content of `size` bytes.
    ///
    /// # Errors
    /// The disk's or the store's.
    pub async fn append(
        &self,
        agent: &AgentId,
        digest: &Digest,
        offset: u64,
        size: u64,
        bytes: &[u8],
    ) -> Result<Piece, BlobError> {
        let _lock = self.lock(digest).await;
        let path = self.part(agent, digest);
        let have = self.offset(agent, digest).await;
        if offset != have || have + bytes.len() as u64 > size {
            return Ok(Piece::WrongOffset(have));
        }
        // Most contents come in one piece and need no part.
        if have == 0 && bytes.len() as u64 == size {
            if Digest::of(bytes) != *digest {
                return Ok(Piece::WrongHash);
            }
            self.put(digest, bytes).await?;
            return Ok(Piece::Complete);
        }
        append_to(&path, bytes).await.map_err(part_error(&path))?;
        let have = have + bytes.len() as u64;
        if have < size {
            return Ok(Piece::Partial(have));
        }
        let right = hash_of(&path).await.map_err(part_error(&path))? == *digest;
        if right {
            self.put_file(digest, &path).await?;
        }
        tokio::fs::remove_file(&path)
            .await
            .map_err(part_error(&path))?;
        Ok(if right {
            Piece::Complete
        } else {
            Piece::WrongHash
        })
    }

    /// Removes parts that did not grow for so long; gives how many.
    ///
    /// # Errors
    /// The disk's.
    pub async fn forget_parts(&self, idle: Duration) -> Result<usize, BlobError> {
        let mut gone = 0;
        for folder in entries(&self.parts)
            .await
            .map_err(part_error(&self.parts))?
        {
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
                    tokio::fs::remove_file(&path)
                        .await
                        .map_err(part_error(&path))?;
                    gone += 1;
                }
            }
        }
        Ok(gone)
    }

    /// Keeps a content that is in memory.
    ///
    /// # Errors
    /// The store's.
    pub async fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), BlobError> {
        let payload = PutPayload::from(bytes.to_vec());
        self.store.put(&place(digest), payload).await?;
        Ok(())
    }

    /// Keeps a content that comes as a stream and whose hash nobody has said; gives its hash and length. Nothing is kept
    /// of one that breaks off, or is longer than `limit`.
    ///
    /// # Errors
    /// [`BlobError::Broken`], [`BlobError::TooLarge`], or the store's.
    pub async fn take<B: AsRef<[u8]> + Send + 'static>(
        &self,
        bytes: impl Stream<Item = std::io::Result<B>>,
        limit: u64,
    ) -> Result<(Digest, u64), BlobError> {
        let name = ulid::Ulid::generate().to_string().to_lowercase();
        let incoming = object_store::path::Path::from(format!("{INCOMING}/{name}"));
        let mut upload = WriteMultipart::new(self.store.put_multipart(&incoming).await?);
        let mut bytes = std::pin::pin!(bytes);
        let mut size = 0_u64;
        // Hashed while it is written.
        let (to_hash, mut hashed) = tokio::sync::mpsc::channel::<B>(PIECES_AHEAD);
        let hashing = tokio::task::spawn_blocking(move || {
            let mut hasher = Sha256::new();
            while let Some(piece) = hashed.blocking_recv() {
                hasher.update(piece.as_ref());
            }
            Digest::from_hasher(hasher)
        });
        let ended = loop {
            let piece = match bytes.next().await {
                None => break Ok(()),
                Some(Err(error)) => break Err(BlobError::Broken(error)),
                Some(Ok(piece)) => piece,
            };
            size += piece.as_ref().len() as u64;
            if size > limit {
                break Err(BlobError::TooLarge);
            }
            upload.write(piece.as_ref());
            if let Err(error) = upload.wait_for_capacity(4).await {
                break Err(error.into());
            }
            if to_hash.send(piece).await.is_err() {
                break Err(BlobError::Broken(std::io::Error::other(
                    "it is not hashed any more",
                )));
            }
        };
        drop(to_hash);
        if let Err(error) = ended {
            upload.abort().await?;
            return Err(error);
        }
        upload.finish().await?;
        let digest = hashing
            .await
            .map_err(|error| BlobError::Broken(std::io::Error::other(error)))?;
        let _lock = self.lock(&digest).await;
        if self.exists(&digest).await? {
            self.store.delete(&incoming).await?;
        } else {
            self.store.rename(&incoming, &place(&digest)).await?;
        }
        Ok((digest, size))
    }

    async fn put_file(&self, digest: &Digest, path: &Path) -> Result<(), BlobError> {
        let mut file = tokio::fs::File::open(path)
            .await
            .map_err(part_error(path))?;
        let mut upload = WriteMultipart::new(self.store.put_multipart(&place(digest)).await?);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = file.read(&mut buffer).await.map_err(part_error(path))?;
            if read == 0 {
                break;
            }
            upload.wait_for_capacity(4).await?;
            upload.write(&buffer[..read]);
        }
        upload.finish().await?;
        Ok(())
    }

    /// The bytes of a content, as they come from the disk.
    ///
    /// # Errors
    /// Where there is none, or the store's.
    pub async fn get(
        &self,
        digest: &Digest,
    ) -> Result<BoxStream<'static, std::io::Result<Vec<u8>>>, BlobError> {
        Ok(bytes_of(self.store.get(&place(digest)).await?))
    }

    /// These bytes of a content.
    ///
    /// # Errors
    /// Where there is none, or the store's.
    pub async fn get_part(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, std::io::Result<Vec<u8>>>, BlobError> {
        if range.is_empty() {
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        Ok(bytes_of(
            self.store.get_opts(&place(digest), options).await?,
        ))
    }

    /// Whether there is a content.
    ///
    /// # Errors
    /// The store's.
    pub async fn exists(&self, digest: &Digest) -> Result<bool, BlobError> {
        match self.store.head(&place(digest)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a content; one that is not there is fine.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        match self.store.delete(&place(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A content in memory, where it is not longer than `limit` bytes.
    ///
    /// # Errors
    /// Where there is none, or the store's.
    pub async fn read(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, BlobError> {
        let found = self.store.get(&place(digest)).await?;
        if found.meta.size > limit {
            return Ok(None);
        }
        Ok(Some(found.bytes().await?.to_vec()))
    }
}

/// The bytes of what was found. A file is read in pieces that are worth the way to the disk: the store's own have 8 KiB.
fn bytes_of(found: GetResult) -> BoxStream<'static, std::io::Result<Vec<u8>>> {
    let (start, length) = (found.range.start, found.range.end - found.range.start);
    match found.payload {
        GetResultPayload::File(file, _) => {
            let mut file = tokio::fs::File::from_std(file);
            let opened = async move {
                file.seek(SeekFrom::Start(start)).await?;
                Ok::<_, std::io::Error>(ReaderStream::with_capacity(file.take(length), PIECE_BYTES))
            };
            let pieces = futures_util::stream::once(opened).try_flatten();
            pieces.map_ok(Vec::from).boxed()
        }
        GetResultPayload::Stream(pieces) => pieces
            .map_ok(Vec::from)
            .map_err(std::io::Error::other)
            .boxed(),
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

async fn append_to(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let mut file = tokio::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .await?;
    file.write_all(bytes).await?;
    file.flush().await
}

async fn hash_of(path: &Path) -> std::io::Result<Digest> {
    let mut file = tokio::fs::File::open(path).await?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            return Ok(Digest::from_hasher(hasher));
        }
        hasher.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Blobs, AgentId) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        (folder, blobs, AgentId::generate())
    }

    #[tokio::test]
    async fn a_content_comes_in_pieces_and_goes_on_where_it_stopped() {
        let (_folder, blobs, agent) = open();
        let digest = Digest::of("hello world");
        let append = |offset, bytes: &'static str| {
            blobs.append(&agent, &digest, offset, 11, bytes.as_bytes())
        };
        assert_eq!(append(0, "hello").await.unwrap(), Piece::Partial(5));
        assert_eq!(append(0, "hello").await.unwrap(), Piece::WrongOffset(5));
        assert_eq!(append(9, "ld").await.unwrap(), Piece::WrongOffset(5));
        assert_eq!(blobs.offset(&agent, &digest).await, 5);
        assert_eq!(append(5, " world").await.unwrap(), Piece::Complete);
        let read = blobs.read(&digest, 100).await.unwrap();
        assert_eq!(read.as_deref(), Some("hello world".as_bytes()));
        assert_eq!(blobs.read(&digest, 10).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_wrong_content_is_thrown_away() {
        let (_folder, blobs, agent) = open();
        let digest = Digest::of("right");
        for pieces in [vec!["wrong"], vec!["wr", "ong"]] {
            let mut offset = 0;
            let mut last = Piece::Complete;
            for piece in pieces {
                last = blobs
                    .append(&agent, &digest, offset, 5, piece.as_bytes())
                    .await
                    .unwrap();
                offset += piece.len() as u64;
            }
            assert_eq!(last, Piece::WrongHash);
            assert_eq!(blobs.offset(&agent, &digest).await, 0);
            assert!(blobs.get(&digest).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_content_is_taken_as_a_stream_and_given_in_parts() {
        let (folder, blobs, _) = open();
        let pieces = |list: &'static [&'static str]| {
            futures_util::stream::iter(list.iter().map(|piece| Ok(piece.as_bytes())))
        };
        for _ in 0..2 {
            let taken = blobs.take(pieces(&["hello", " ", "world"]), 11).await;
            assert_eq!(taken.unwrap(), (Digest::of("hello world"), 11));
        }
        let part = blobs.get_part(&Digest::of("hello world"), 4..7).await;
        let part: Vec<Vec<u8>> = part.unwrap().try_collect().await.unwrap();
        assert_eq!(part.concat(), b"o w");
        assert_eq!(
            blobs.take(pieces(&[]), 11).await.unwrap(),
            (Digest::of(""), 0)
        );
        let part = blobs.get_part(&Digest::of(""), 0..0).await.unwrap();
        assert_eq!(part.count().await, 0);

        let long = blobs.take(pieces(&["hello", "worlds!"]), 11).await;
        assert!(matches!(long, Err(BlobError::TooLarge)));
        let gone = std::io::Error::other("the client went away");
        let broken = futures_util::stream::iter([Ok("he"), Err(gone)]);
        let broken = blobs.take(broken, 11).await;
        assert!(matches!(broken, Err(BlobError::Broken(_))));
        let left = std::fs::read_dir(folder.path().join("blobs").join(INCOMING)).unwrap();
        assert_eq!(left.count(), 0, "nothing is left of what broke off");
    }

    #[tokio::test]
    async fn one_agent_cannot_spoil_the_part_of_another() {
        let (_folder, blobs, agent) = open();
        let digest = Digest::of("hello");
        blobs.append(&agent, &digest, 0, 5, b"he").await.unwrap();
        let other = AgentId::generate();
        assert_eq!(
            blobs.append(&other, &digest, 0, 5, b"xx").await.unwrap(),
            Piece::Partial(2)
        );
        assert_eq!(
            blobs.append(&agent, &digest, 2, 5, b"llo").await.unwrap(),
            Piece::Complete
        );
    }

    #[tokio::test]
    async fn a_part_that_nobody_completes_is_forgotten() {
        let (_folder, blobs, agent) = open();
        let digest = Digest::of("hello");
        blobs.append(&agent, &digest, 0, 5, b"he").await.unwrap();
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!(blobs.forget_parts(week).await.unwrap(), 0);
        assert_eq!(blobs.offset(&agent, &digest).await, 2);
        assert_eq!(blobs.forget_parts(Duration::ZERO).await.unwrap(), 1);
        assert_eq!(blobs.offset(&agent, &digest).await, 0);
    }
}
