//! Where complete contents lie: files under the server's data, or a bucket that speaks S3.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig, WriteMultipart};
use protocol::Digest;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use super::{BlobError, READ_BYTES, part_error};
use crate::credential::Credential;

/// Pieces of one content that are on their way to a bucket at once.
const PIECES: usize = 4;

/// A bucket for contents, instead of files. Keys that are not named here come from the environment, as AWS's tools
/// know it (`AWS_ACCESS_KEY_ID`, …), or from the machine's role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// What all keys begin with.
    #[serde(default)]
    pub prefix: String,
    /// Where another service than AWS answers.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Its region.
    #[serde(default)]
    pub region: Option<String>,
    /// Where the id of an access key lies.
    #[serde(default)]
    pub access_key: Option<Credential>,
    /// Where the key's secret lies.
    #[serde(default)]
    pub secret_key: Option<Credential>,
}

impl S3 {
    fn open(&self) -> Result<Arc<dyn ObjectStore>, BlobError> {
        // Whoever comes first chooses; all choose the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&self.bucket);
        if let Some(endpoint) = &self.endpoint {
            let plain = endpoint.starts_with("http://");
            builder = builder.with_endpoint(endpoint).with_allow_http(plain);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(key) = &self.access_key {
            builder = builder.with_access_key_id(key.read()?.expose_secret());
        }
        if let Some(key) = &self.secret_key {
            builder = builder.with_secret_access_key(key.read()?.expose_secret());
        }
        // All who write wait while a content is removed: a bucket that hangs is not asked for minutes.
        let builder = builder.with_retry(RetryConfig {
            max_retries: 3,
            retry_timeout: Duration::from_secs(20),
            ..RetryConfig::default()
        });
        Ok(Arc::new(PrefixStore::new(
            builder.build()?,
            self.prefix.as_str(),
        )))
    }
}

/// The place of complete contents.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The folder, where they are files.
    files: Option<PathBuf>,
}

/// Where a content lies: two levels, so that no folder holds all of them.
pub(super) fn place(digest: &Digest) -> object_store::path::Path {
    let name = digest.as_str();
    format!("{PLACE}/{}/{name}", &name[..2]).into()
}

/// What the names of all contents begin with.
pub(super) const PLACE: &str = "sha256";

impl Kept {
    pub(super) fn open(folder: &Path, s3: Option<&S3>) -> Result<Self, BlobError> {
        if let Some(s3) = s3 {
            let store = s3.open()?;
            return Ok(Self { store, files: None });
        }
        std::fs::create_dir_all(folder).map_err(part_error(folder))?;
        let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            files: Some(folder.to_owned()),
        })
    }

    /// Whether a service keeps them, and not this server's disk.
    pub(super) fn is_bucket(&self) -> bool {
        self.files.is_none()
    }

    /// Keeps the content of a whole file, which is gone then.
    pub(super) async fn keep(&self, digest: &Digest, file: &Path) -> Result<(), BlobError> {
        if let Some(folder) = &self.files {
            let to = folder.join(place(digest).as_ref());
            let from = file.to_owned();
            let moved = tokio::task::spawn_blocking(move || rename(&from, &to)).await;
            match moved.map_err(std::io::Error::other) {
                Ok(Ok(())) => return Ok(()),
                // The folders lie on two disks.
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::CrossesDevices => {}
                Ok(Err(error)) | Err(error) => return Err(part_error(file)(error)),
            }
        }
        self.copy(digest, file).await?;
        tokio::fs::remove_file(file).await.map_err(part_error(file))
    }

    async fn copy(&self, digest: &Digest, path: &Path) -> Result<(), BlobError> {
        let opened = tokio::fs::File::open(path).await;
        let mut file = opened.map_err(part_error(path))?;
        let length = file.metadata().await.map_err(part_error(path))?.len();
        if length <= READ_BYTES as u64 {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)
                .await
                .map_err(part_error(path))?;
            self.store
                .put(&place(digest), PutPayload::from(bytes))
                .await?;
            return Ok(());
        }
        let upload = self.store.put_multipart(&place(digest)).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, piece_bytes(length));
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = file.read(&mut buffer).await.map_err(part_error(path))?;
            if read == 0 {
                break;
            }
            upload.wait_for_capacity(PIECES).await?;
            upload.write(&buffer[..read]);
        }
        upload.finish().await?;
        Ok(())
    }
}

/// Of an upload in pieces: S3 takes at most 10,000 of 5 MiB and more.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
fn piece_bytes(length: u64) -> usize {
    let least = length.div_ceil(9_000);
    usize::try_from(least).unwrap_or(usize::MAX).max(8 << 20)
}

/// Moves a file to its place so that it is there whole, also after a power cut.
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::File::open(from)?.sync_all()?;
    let folder = to.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    if !folder.is_dir() {
        std::fs::create_dir_all(folder)?;
        for above in folder.ancestors().skip(1).take(2) {
            std::fs::File::open(above)?.sync_all()?;
        }
    }
    std::fs::rename(from, to)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_content_has_more_pieces_than_s3_takes() {
        for length in [1_u64, 8 << 20, 100 << 30, 5 << 40] {
            assert!(length.div_ceil(piece_bytes(length) as u64) <= 10_000);
        }
    }
}
