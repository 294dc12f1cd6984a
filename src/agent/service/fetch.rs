//! Blobs that an attempt needs, from the server, however often that takes.

use std::path::Path;

use protocol::{AttemptId, Digest};

use super::Shared;
use crate::client::ClientError;

/// How often bytes that were changed on the way are fetched anew.
const TRIES: u32 = 4;

impl Shared {
    /// Fetches a blob to `place`, whose folder is made.
    ///
    /// # Errors
    /// Where it will never come.
    pub(super) async fn fetch(
        &self,
        attempt: &AttemptId,
        blob: &Digest,
        place: &Path,
    ) -> Result<(), ClientError> {
        let folder = place.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|source| ClientError::Disk {
            path: folder.display().to_string(),
            source,
        })?;
        let mut backoff = self.backoff();
        let mut tries_left = TRIES - 1;
        loop {
            let error = match self.client.fetch_blob(attempt, blob, place).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            // Bytes that were changed on the way may be right the next time.
            let changed = matches!(error, ClientError::WrongHash(_)) && tries_left > 0;
            if !error.is_temporary() && !changed {
                return Err(error);
            }
            tries_left -= u32::from(changed);
            tokio::time::sleep(backoff.next()).await;
        }
    }
}
