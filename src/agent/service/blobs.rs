//! Uploading an attempt's blobs: each by its offset, so that a cut costs one piece.

use std::collections::BTreeSet;
use std::future::ready;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use protocol::Digest;
use protocol::agent_api::BLOB_PIECE_BYTES;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::sync::CancellationToken;

use super::deliver::Delivery;
use crate::client::{BlobState, ClientError, Piece};

/// How often new blobs are looked for while an attempt runs.
const LOOK: Duration = Duration::from_millis(500);
/// Blobs that are on their way at once: one is hashed or written through there while another one travels.
const AT_ONCE: usize = 4;
/// How often a blob is brought anew whose hash the server does not find.
const TRIES: u32 = 3;
/// How often a content that cannot be read here is tried, with pauses that grow.
const MOST_UNREAD: u32 = 10;
/// After so many pieces of which the server kept nothing it will keep none.
const MOST_STALLS: u32 = 20;

impl Delivery<'_> {
    /// Uploads blobs as they come, until `closing` and none is left. Answers those that cannot be.
    pub(super) async fn blobs(self, closing: &CancellationToken) -> Vec<(Digest, String)> {
        let mut done = BTreeSet::new();
        let mut lost = Vec::new();
        let mut seen = self.journal.watch();
        loop {
            // In this order: what is there when the attempt is over must be in the list.
            let closed = closing.is_cancelled();
            seen.borrow_and_update();
            match list(&self.dir.blobs()) {
                Ok(blobs) => {
                    let new: Vec<_> = blobs.into_iter().filter(|b| !done.contains(b)).collect();
                    let sent =
                        stream::iter(new.clone()).map(|blob| async move { self.sent(&blob).await });
                    lost.extend(
                        sent.buffer_unordered(AT_ONCE)
                            .filter_map(ready)
                            .collect::<Vec<_>>()
                            .await,
                    );
                    done.extend(new);
                }
                Err(error) => tracing::error!("{}: {error}", self.dir.blobs().display()),
            }
            if closed {
                return lost;
            }
            tokio::select! {
                () = closing.cancelled() => {}
                // A blob is there before the event that names it; of many, the first long before.
                () = async {
                    tokio::time::sleep(LOOK).await;
                    let _ = tokio::time::timeout(LOOK, seen.changed()).await;
                } => {}
            }
        }
    }

    /// Uploads one of the attempt's blobs. Answers why it cannot be.
    async fn sent(self, blob: &Digest) -> Option<(Digest, String)> {
        let path = self.dir.blobs().join(blob.as_str());
        let name = path.display().to_string();
        let why = self.upload(blob, &name, &|| open(&path)).await.err()?;
        tracing::error!(attempt = %self.attempt, blob = blob.short(), "not uploaded: {why}");
        Some((blob.clone(), why))
    }

    /// Uploads a content, opened anew for each try; `name` is for words only.
    pub(super) async fn upload(
        self,
        blob: &Digest,
        name: &str,
        open: Open<'_>,
    ) -> Result<(), String> {
        let client = &self.shared.client;
        let mut backoff = self.shared.backoff();
        let (mut wrong, mut unread) = (0, 0);
        while wrong < TRIES {
            let state = self.persist(|| client.blob(blob)).await;
            let sent = match state.map_err(|error| error.to_string())? {
                BlobState::Complete => return Ok(()),
                BlobState::Partial(offset) => self.send_from(blob, open, offset).await,
            };
            match sent {
                Ok(()) => return Ok(()),
                // A file table that is full, or a disk that refuses for a while, costs no result.
                Err(Unsent::Unread(error))
                    if error.kind() != io::ErrorKind::NotFound && unread < MOST_UNREAD =>
                {
                    unread += 1;
                    tracing::error!(attempt = %self.attempt, "{name}: {error}; trying again");
                    tokio::time::sleep(backoff.next()).await;
                }
                Err(Unsent::Unread(error)) => return Err(format!("{name}: {error}")),
                Err(Unsent::WrongHash) => {
                    wrong += 1;
                    let unread = |error: io::Error| format!("{name}: {error}");
                    let here = hash_of(open().map_err(unread)?).await.map_err(unread)?;
                    if here != *blob {
                        return Err(format!(
                            "the file on the agent's disk has changed to {}",
                            here.short()
                        ));
                    }
                }
                Err(Unsent::Never(why)) => return Err(why),
            }
        }
        Err(format!("the server found a wrong hash {TRIES} times"))
    }

    /// Sends a blob from `offset` to its end.
    async fn send_from(self, blob: &Digest, open: Open<'_>, mut offset: u64) -> Result<(), Unsent> {
        let mut file = File::from_std(open().map_err(Unsent::Unread)?);
        let size = file.metadata().await.map_err(Unsent::Unread)?.len();
        let mut backoff = self.shared.backoff();
        let mut stalls = 0;
        loop {
            if offset > size {
                return Err(Unsent::Never(format!(
                    "the server has {offset} of {size} bytes"
                )));
            }
            file.seek(io::SeekFrom::Start(offset))
                .await
                .map_err(Unsent::Unread)?;
            let left = (size - offset).min(BLOB_PIECE_BYTES as u64);
            let mut bytes = Vec::with_capacity(usize::try_from(left).unwrap_or(BLOB_PIECE_BYTES));
            let mut piece = (&mut file).take(left);
            piece
                .read_to_end(&mut bytes)
                .await
                .map_err(Unsent::Unread)?;
            let bytes = Bytes::from(bytes);
            let client = &self.shared.client;
            let call = || {
                let bytes = bytes.clone();
                client.put_piece(
                    self.attempt,
                    blob,
                    Piece {
                        offset,
                        size,
                        bytes,
                    },
                )
            };
            let before = offset;
            match self.persist(call).await {
                Ok(BlobState::Complete) => return Ok(()),
                Ok(BlobState::Partial(next)) => offset = next,
                Err(ClientError::WrongHash(_)) => return Err(Unsent::WrongHash),
                Err(error) => return Err(Unsent::Never(error.to_string())),
            }
            if offset > before {
                stalls = 0;
                backoff.reset();
                continue;
            }
            stalls += 1;
            if stalls == MOST_STALLS {
                let words = format!("the server keeps {offset} of {size} bytes, and no more");
                return Err(Unsent::Never(words));
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }
}

/// Opens a content.
pub(super) type Open<'a> = &'a (dyn Fn() -> io::Result<std::fs::File> + Sync);

fn open(path: &Path) -> io::Result<std::fs::File> {
    std::fs::File::open(path)
}

/// Why a blob is not on the server.
enum Unsent {
    WrongHash,
    /// It cannot be read here.
    Unread(io::Error),
    Never(String),
}

/// The blobs of a folder. Files under other names are not finished.
fn list(folder: &Path) -> io::Result<Vec<Digest>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// The hash of a file's bytes.
pub(super) async fn hash_of(file: std::fs::File) -> io::Result<Digest> {
    let mut file = File::from_std(file);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).await? {
            0 => return Ok(Digest::from_hasher(hasher)),
            n => hasher.update(&buffer[..n]),
        }
    }
}
