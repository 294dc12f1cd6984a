//! One pass over versions whose files nobody has looked at: what they show it to be is kept with it.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;
use protocol::registry::{ModelFile, Version};

use super::{catalog, flavour};
use crate::blobs::{BlobError, Blobs};
use crate::store::{Store, StoreError, models};

/// Most versions of one pass.
const MOST_VERSIONS: u32 = 50;

/// Why a version's files were not looked at.
#[derive(Debug, thiserror::Error)]
enum RecogniseError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A content cannot be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// It broke off.
    #[error("a content broke off: {0}")]
    Broken(#[from] std::io::Error),
}

/// Looks at the files of versions.
#[derive(Debug)]
pub struct Recogniser {
    store: Store,
    /// Ids of versions with a content that cannot be read; tried again by the next server.
    sore: BTreeSet<String>,
}

impl Recogniser {
    /// One that has looked at nothing.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            sore: BTreeSet::new(),
        }
    }

    /// One pass; gives how many versions were looked at. One whose content cannot be read holds up no other.
    ///
    /// # Errors
    /// The store's.
    pub async fn tick(&mut self, blobs: &Blobs) -> Result<usize, StoreError> {
        let limit = MOST_VERSIONS + u32::try_from(self.sore.len()).unwrap_or(0);
        let mut db = self.store.read().await?;
        let unseen = models::unseen(&mut db, limit).await?;
        drop(db);
        let mut seen = 0;
        for version in unseen {
            if self.sore.contains(&version.id) {
                continue;
            }
            match self.look_at(blobs, &version).await {
                Ok(()) => seen += 1,
                Err(RecogniseError::Store(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(version = %version.id, %error, "the files of {} of {} cannot be read", version.label(), version.model);
                    self.sore.insert(version.id);
                }
            }
        }
        Ok(seen)
    }

    async fn look_at(&self, blobs: &Blobs, version: &Version) -> Result<(), RecogniseError> {
        let mut db = self.store.read().await?;
        let files = catalog::files_of(&mut db, version).await?;
        drop(db);
        let flavours = match flavour::mlmodel(&files) {
            Some(file) => {
                let text = begin(blobs, file, flavour::MLMODEL_BYTES).await?;
                flavour::of_mlmodel(&String::from_utf8_lossy(&text))
            }
            None => by_heads(blobs, &files).await?,
        };
        let mut tx = self.store.begin().await?;
        models::set_flavours(&mut tx, &version.id, &flavours).await?;
        crate::store::commit(tx).await?;
        Ok(())
    }
}

async fn by_heads(blobs: &Blobs, files: &[ModelFile]) -> Result<Vec<String>, RecogniseError> {
    let mut found = Vec::new();
    for file in flavour::worth_a_look(files) {
        let head = begin(blobs, file, flavour::HEAD_BYTES).await?;
        found.extend(flavour::of_file(file, &head).map(str::to_owned));
    }
    Ok(flavour::tidy(found))
}

/// The first bytes of a file, at most `most`.
async fn begin(blobs: &Blobs, file: &ModelFile, most: u64) -> Result<Vec<u8>, RecogniseError> {
    let range = 0..file.size.0.min(most);
    let pieces = blobs.get_part(&file.blob, range).await?;
    Ok(pieces.try_concat().await?)
}
