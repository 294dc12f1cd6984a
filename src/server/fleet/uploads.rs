//! Blobs of agents: what they upload, and what they may read.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use protocol::agent_api::BLOB_PIECE_BYTES;
use protocol::{AttemptId, Digest, Timestamp};

use super::{Refused, mine, room};
use crate::blobs::{BlobError, Piece};
use crate::disk;
use crate::state::Server;
use crate::store::agents::Agent;
use crate::store::blobs;

/// How long a write transaction waits for the place of contents.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Whether a blob is complete for this agent; else how many bytes of it are there. One that only another
/// agent uploaded is not: who links a content has to have shown it. Nor is one whose content was lost: it is brought again.
///
/// # Errors
/// [`Refused`].
pub async fn head(server: &Server, agent: &Agent, digest: &Digest) -> Result<Piece, Refused> {
    let mut db = server.store.read().await?;
    let owned = blobs::owned(&mut db, digest, &agent.id).await?;
    drop(db);
    if owned && server.blobs.exists(digest).await? {
        return Ok(Piece::Complete);
    }
    Ok(Piece::Partial(server.blobs.offset(&agent.id, digest).await))
}

/// Takes a piece.
///
/// # Errors
/// [`Refused`].
pub async fn append(
    server: &Server,
    agent: &Agent,
    digest: &Digest,
    offset: u64,
    size: u64,
    bytes: Bytes,
) -> Result<Piece, Refused> {
    if bytes.len() > BLOB_PIECE_BYTES {
        return Err(Refused::TooLarge(format!(
            "a piece has at most {BLOB_PIECE_BYTES} bytes"
        )));
    }
    if size > server.config.blob_limit.0 {
        return Err(Refused::TooLarge(format!(
            "blob {digest} has {}; this server takes at most {} (`blob_limit`)",
            protocol::ByteSize(size),
            server.config.blob_limit
        )));
    }
    if head(server, agent, digest).await? == Piece::Complete {
        return Ok(Piece::Complete);
    }
    room(server, size.saturating_sub(offset)).await?;
    let piece = server
        .blobs
        .append(&agent.id, digest, offset, size, bytes)
        .await
        .map_err(kept)?;
    if piece == Piece::Complete {
        let mut tx = server.store.begin().await?;
        blobs::insert(&mut tx, digest, size, &agent.id, Timestamp::now()).await?;
        // Somebody may have removed it as one that nobody needs, just before.
        let is_there = tokio::time::timeout(PATIENCE, server.blobs.exists(digest)).await;
        let slow = |_| BlobError::Unread(std::io::ErrorKind::TimedOut.into());
        if !is_there.map_err(slow)?? {
            return Ok(Piece::WrongOffset(0));
        }
        tx.commit().await?;
    }
    Ok(piece)
}

/// Why a piece was not kept: a disk that filled in between is not the server's fault.
fn kept(error: BlobError) -> Refused {
    match error.is_full() {
        true => {
            tracing::warn!(%error, "an agent has to wait");
            Refused::Full(disk::FULL.to_owned())
        }
        false => error.into(),
    }
}

/// A blob that an attempt needs: an artifact of a job that it waited for, a file of the model or of the checkpoint that it
/// goes on from, or its own.
///
/// # Errors
/// [`Refused`].
pub async fn read(
    server: &Server,
    agent: &Agent,
    digest: &Digest,
    attempt: &AttemptId,
) -> Result<BoxStream<'static, std::io::Result<Vec<u8>>>, Refused> {
    let mut db = server.store.read().await?;
    let (attempt, _) = mine(&mut db, agent, attempt).await?;
    let needed = attempt
        .order
        .needs
        .values()
        .flatten()
        .any(|artifact| artifact.blob == *digest);
    let checkpoint = attempt.order.checkpoint.iter();
    let goes_on_from = checkpoint
        .flat_map(|checkpoint| &checkpoint.files)
        .any(|file| file.blob == *digest);
    let parent = attempt.order.parent.iter();
    let of_parent = parent
        .flat_map(|parent| &parent.files)
        .any(|file| file.blob == *digest);
    if !needed
        && !of_parent
        && !goes_on_from
        && !blobs::linked(&mut db, digest, &attempt.id).await?
    {
        return Err(Refused::NotFound(format!(
            "attempt {} needs no blob {digest}",
            attempt.id
        )));
    }
    drop(db);
    Ok(server.blobs.get(digest).await?)
}
