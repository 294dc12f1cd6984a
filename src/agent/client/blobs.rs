//! Contents on their way to the server and back, piece by piece. It knows nothing of what they are.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use protocol::agent_api::OFFSET_HEADER;
use protocol::{AttemptId, ByteSize, Digest};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::{Client, ClientError};

/// A piece of a blob may take so many times as long as an ordinary call.
const PIECE_PATIENCE: u32 = 5;

/// How much of a blob the server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    /// All of it.
    Complete,
    /// The bytes before this one.
    Partial(u64),
}

/// One piece of a blob.
#[derive(Debug)]
pub struct Piece {
    /// Where in the blob it begins.
    pub offset: u64,
    /// Length of the blob.
    pub size: u64,
    /// The bytes, shared by its tries.
    pub bytes: Bytes,
}

impl Client {
    /// How much of a blob the server has.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn blob(&self, blob: &Digest) -> Result<BlobState, ClientError> {
        let call = self.call(Method::HEAD, &format!("blobs/{blob}"));
        let response = self.execute(call).await?;
        match response.status() {
            StatusCode::OK => Ok(BlobState::Complete),
            StatusCode::NOT_FOUND => Ok(BlobState::Partial(had(&response).unwrap_or(0))),
            _ => Err(self.error(response).await),
        }
    }

    /// Delivers a piece of a blob. Answers how much the server has now; where that is not the end of the
    /// piece, the server wants another one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_piece(
        &self,
        attempt: &AttemptId,
        blob: &Digest,
        piece: Piece,
    ) -> Result<BlobState, ClientError> {
        let Piece {
            offset,
            size,
            bytes,
        } = piece;
        let path = format!("blobs/{blob}?attempt={attempt}&offset={offset}&size={size}");
        let call = self
            .call(Method::PATCH, &path)
            .header(CONTENT_TYPE, "application/octet-stream")
            .timeout(self.patience * PIECE_PATIENCE)
            .body(bytes);
        let response = self.execute(call).await?;
        match (response.status(), had(&response)) {
            (StatusCode::CREATED | StatusCode::OK, _) => Ok(BlobState::Complete),
            (StatusCode::NO_CONTENT | StatusCode::CONFLICT, Some(offset)) => {
                Ok(BlobState::Partial(offset))
            }
            (StatusCode::UNPROCESSABLE_ENTITY, _) => Err(ClientError::WrongHash(blob.clone())),
            (_, _) => Err(self.error(response).await),
        }
    }

    /// Fetches a blob to `to`, which appears only when its hash is right. The server may pause for as long
    /// as an ordinary call takes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fetch_blob(
        &self,
        attempt: &AttemptId,
        blob: &Digest,
        to: &Path,
    ) -> Result<ByteSize, ClientError> {
        let disk = |source| ClientError::Disk {
            path: to.display().to_string(),
            source,
        };
        let call = self
            .call(Method::GET, &format!("blobs/{blob}?attempt={attempt}"))
            .timeout(Duration::MAX);
        let mut response = tokio::time::timeout(self.patience, self.send(call))
            .await
            .map_err(|_| self.silent())??;
        let folder = to.parent().unwrap_or(Path::new("."));
        let part = tempfile::NamedTempFile::new_in(folder).map_err(disk)?;
        let mut file = tokio::fs::File::from_std(part.reopen().map_err(disk)?);
        let mut hasher = Sha256::new();
        let mut size = 0;
        loop {
            let chunk = tokio::time::timeout(self.patience, response.chunk())
                .await
                .map_err(|_| self.silent())?;
            let Some(chunk) = chunk.map_err(|error| self.transport(&error))? else {
                break;
            };
            hasher.update(&chunk);
            size += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(disk)?;
        }
        file.sync_all().await.map_err(disk)?;
        if Digest::from_hasher(hasher) != *blob {
            return Err(ClientError::WrongHash(blob.clone()));
        }
        part.persist(to).map_err(|error| disk(error.error))?;
        Ok(ByteSize(size))
    }
}

fn had(response: &Response) -> Option<u64> {
    response
        .headers()
        .get(OFFSET_HEADER)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
