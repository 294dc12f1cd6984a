//! Contents by SHA-256. A part grows on disk until it is complete; only what has the right hash is kept.
//! It knows bytes and names, not what they are for.

mod kept;
mod parts;
#[cfg(test)]
mod tests;

use std::io::{ErrorKind, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectStoreExt as _, PutPayload,
};
use protocol::{AgentId, Digest};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::credential::CredentialError;
pub use kept::S3;
use kept::{Kept, PLACE, place};
use parts::Parts;

/// Bytes read at once when a part is hashed or stored.
const READ_BYTES: usize = 4 << 20;

/// Bytes read at once when a content is sent.
const PIECE_BYTES: usize = 1 << 20;

/// Where contents are kept.
#[derive(Debug)]
pub struct Blobs {
    kept: Kept,
    parts: Parts,
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

/// What a look at a content found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is there, and has its hash where that was asked.
    Right,
    /// It is not there.
    Nothing,
    /// What is there has another hash or another length.
    Wrong,
}

/// A content as its store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name: the hash that it had when it was kept.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Since when it is there.
    pub since: SystemTime,
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
    /// A key of the bucket.
    #[error("the key of the blob store's bucket: {0}")]
    Key(#[from] CredentialError),
    /// A content.
    #[error("a content cannot be read: {0}")]
    Unread(std::io::Error),
    /// It did not come to its end.
    #[error("the upload broke off: {0}")]
    Broken(std::io::Error),
    /// It is longer than it may be.
    #[error("it is too large")]
    TooLarge,
}

impl BlobError {
    /// Whether there is no such content.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, BlobError::Store(object_store::Error::NotFound { .. }))
    }

    /// Whether it is the disk that has no room: it may work when somebody made some.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let first: &(dyn std::error::Error + 'static) = self;
        let mut causes = std::iter::successors(Some(first), |error| error.source());
        causes.any(|error| {
            let kind = error
                .downcast_ref::<std::io::Error>()
                .map(std::io::Error::kind);
            matches!(
                kind,
                Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            )
        })
    }
}

fn part_error(path: &Path) -> impl FnOnce(std::io::Error) -> BlobError + use<> {
    let path = path.to_owned();
    move |source| BlobError::Part { path, source }
}

impl Blobs {
    /// Contents as files under `<data>/blobs`, written through to the disk, or in a bucket. Parts are files in any case.
    ///
    /// # Errors
    /// Where the folders cannot be made, or the bucket's setting cannot be used.
    pub fn open(data: &Path, s3: Option<&S3>) -> Result<Self, BlobError> {
        Ok(Self {
            kept: Kept::open(&data.join("blobs"), s3)?,
            parts: Parts::open(data.join("parts"))?,
        })
    }

    /// What a server does at its start: forgets what an earlier one did not come to the end of.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin(&self) -> Result<(), BlobError> {
        self.parts.forget_unnamed()
    }

    /// Bytes that an agent has sent of a content that is not complete.
    pub async fn offset(&self, agent: &AgentId, digest: &Digest) -> u64 {
        self.parts.length(&self.parts.path(agent, digest)).await
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
        bytes: Bytes,
    ) -> Result<Piece, BlobError> {
        let _lock = self.parts.lock(digest).await;
        let path = self.parts.path(agent, digest);
        let have = self.parts.length(&path).await;
        let length = bytes.len() as u64;
        if offset != have || have + length > size {
            return Ok(Piece::WrongOffset(have));
        }
        // Most contents come in one piece and need no part.
        if have == 0 && length == size {
            if Digest::of(&bytes) != *digest {
                return Ok(Piece::WrongHash);
            }
            self.put(digest, bytes).await?;
            return Ok(Piece::Complete);
        }
        self.parts.grow(&path, have, bytes).await?;
        let have = have + length;
        if have < size {
            return Ok(Piece::Partial(have));
        }
        if self.parts.finish(&path, have).await? != *digest {
            self.parts.remove(&path).await?;
            return Ok(Piece::WrongHash);
        }
        self.kept.keep(digest, &path).await?;
        Ok(Piece::Complete)
    }

    /// Removes parts that did not grow for so long; gives how many.
    ///
    /// # Errors
    /// The disk's.
    pub async fn forget_parts(&self, idle: Duration) -> Result<usize, BlobError> {
        self.parts.forget(idle).await
    }

    /// Keeps a content that is in memory.
    ///
    /// # Errors
    /// The store's.
    pub async fn put(&self, digest: &Digest, bytes: impl Into<Bytes>) -> Result<(), BlobError> {
        let payload = PutPayload::from(bytes.into());
        self.kept.store.put(&place(digest), payload).await?;
        Ok(())
    }

    /// Keeps a content that comes as a stream and whose hash nobody has said; gives its hash and length. Nothing is kept
    /// of one that breaks off, or is longer than `limit`.
    ///
    /// # Errors
    /// [`BlobError::Broken`], [`BlobError::TooLarge`], or the store's.
    pub async fn take(
        &self,
        bytes: impl Stream<Item = std::io::Result<Bytes>>,
        limit: u64,
    ) -> Result<(Digest, u64), BlobError> {
        let mut size = 0;
        let bytes = bytes.map_err(BlobError::Broken).and_then(|piece| {
            size += piece.len() as u64;
            let fits = size <= limit;
            std::future::ready(fits.then_some(piece).ok_or(BlobError::TooLarge))
        });
        let mut bytes = std::pin::pin!(bytes);
        // Most contents are small and need no part.
        let mut first = Vec::new();
        while first.iter().map(Bytes::len).sum::<usize>() < READ_BYTES {
            let Some(piece) = bytes.try_next().await? else {
                let whole = first.concat();
                let (digest, length) = (Digest::of(&whole), whole.len() as u64);
                self.put(&digest, whole).await?;
                return Ok((digest, length));
            };
            first.push(piece);
        }
        let all = futures_util::stream::iter(first.into_iter().map(Ok)).chain(bytes);
        let (file, digest, length) = self.parts.write(all).await?;
        let _lock = self.parts.lock(&digest).await;
        self.kept.keep(&digest, file.path()).await?;
        Ok((digest, length))
    }

    /// The bytes of a content, as they come from the disk.
    ///
    /// # Errors
    /// Where there is none, or the store's.
    pub async fn get(
        &self,
        digest: &Digest,
    ) -> Result<BoxStream<'static, std::io::Result<Vec<u8>>>, BlobError> {
        Ok(stream(self.kept.store.get(&place(digest)).await?))
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
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        match self.kept.store.get_opts(&place(digest), options).await {
            Ok(found) => Ok(stream(found)),
            // Some services answer a range with the whole, or under another status than HTTP's for a part.
            Err(object_store::Error::Generic { .. }) if self.kept.is_bucket() => {
                Ok(within(self.get(digest).await?, range))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there is a content.
    ///
    /// # Errors
    /// The store's.
    pub async fn exists(&self, digest: &Digest) -> Result<bool, BlobError> {
        match self.kept.store.head(&place(digest)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a content of `size` bytes is as it was when it was kept: its length, and where `whole`, each byte.
    ///
    /// # Errors
    /// The store's.
    pub async fn check(&self, digest: &Digest, size: u64, whole: bool) -> Result<Found, BlobError> {
        let found = match self.kept.store.get(&place(digest)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Found::Nothing),
            Err(error) => return Err(error.into()),
        };
        if found.meta.size != size {
            return Ok(Found::Wrong);
        }
        if !whole {
            return Ok(Found::Right);
        }
        let mut hasher = Sha256::new();
        let mut bytes = stream(found).map_err(BlobError::Unread);
        while let Some(piece) = bytes.try_next().await? {
            hasher.update(&piece);
        }
        let right = Digest::from_hasher(hasher) == *digest;
        Ok(if right { Found::Right } else { Found::Wrong })
    }

    /// All contents that are there, in no order. What has no hash for a name is passed over.
    #[must_use]
    pub fn list(&self) -> BoxStream<'_, Result<Listed, BlobError>> {
        let all = self.kept.store.list(Some(&PLACE.into()));
        let listed = all.try_filter_map(async |meta| {
            let digest = meta.location.filename().map(str::parse::<Digest>);
            Ok(digest.and_then(Result::ok).map(|digest| Listed {
                digest,
                size: meta.size,
                since: meta.last_modified.into(),
            }))
        });
        listed.map_err(BlobError::from).boxed()
    }

    /// Removes a content; one that is not there is fine.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        match self.kept.store.delete(&place(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A content in memory, where it is not longer than `limit` bytes.
    ///
    /// # Errors
    /// Where there is none, or the store's.
    pub async fn read(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, BlobError> {
        let found = self.kept.store.get(&place(digest)).await?;
        if found.meta.size > limit {
            return Ok(None);
        }
        Ok(Some(found.bytes().await?.to_vec()))
    }
}

/// These of the bytes that come.
fn within(
    pieces: BoxStream<'static, std::io::Result<Vec<u8>>>,
    range: Range<u64>,
) -> BoxStream<'static, std::io::Result<Vec<u8>>> {
    let Range { start, end } = range;
    let (mut asked, mut came) = (0, 0);
    let pieces = pieces.try_take_while(move |piece| {
        let wanted = asked < end;
        asked += piece.len() as u64;
        std::future::ready(Ok(wanted))
    });
    let cut = pieces.map_ok(move |mut piece| {
        let first = came;
        came += piece.len() as u64;
        let place = |of: u64| usize::try_from(of.clamp(first, came) - first).unwrap_or(usize::MAX);
        piece.truncate(place(end));
        piece.drain(..place(start));
        piece
    });
    cut.try_filter(|piece| std::future::ready(!piece.is_empty()))
        .boxed()
}

/// The bytes of what was found. A file is read in pieces that are worth the way to the disk: the store's own have 8 KiB.
fn stream(found: GetResult) -> BoxStream<'static, std::io::Result<Vec<u8>>> {
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
