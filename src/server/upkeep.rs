//! Contents as the rows see them: whether each that a row names is there and right, and the end of those that nothing
//! needs. Safe beside a running server: a row goes before its content, and a content only while it has no row.

use futures_util::{StreamExt as _, TryStreamExt as _};
use protocol::{ByteSize, Digest, Timestamp};
use serde::Serialize;

use crate::blobs::{BlobError, Blobs, Found};
use crate::store::{Store, StoreError, blobs};

/// Rows that are read at once.
const PAGE: u32 = 1_000;
/// Contents that are looked at at once.
const AT_ONCE: usize = 4;
/// Most lost contents that are told one by one.
const MOST_LOST: usize = 1_000;
/// Most places of each kind that are told of a lost content.
const MOST_LINKS: u32 = 10;

/// What went wrong on the way.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// Most contents have no row: the database is not theirs.
    #[error(
        "{strays} contents have no row in this database and only {known} have one: it seems to be another server's, or an \
        older one. Nothing of them was removed; look at `database`, `data` and `s3` in the configuration"
    )]
    Foreign {
        /// Without a row, and old enough to be removed.
        strays: u64,
        /// With one.
        known: u64,
    },
}

/// What a look at all contents found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Contents that were looked at.
    pub contents: u64,
    /// Their bytes.
    pub bytes: ByteSize,
    /// Those that are not as they were.
    pub lost: Vec<Lost>,
    /// So many more are not, beyond those told.
    pub more_lost: u64,
}

/// A content that a row names and that cannot be given any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its length.
    pub size: ByteSize,
    /// Whether something else lies at its place.
    pub wrong: bool,
    /// What needs it.
    pub needed_by: Vec<String>,
}

/// Looks at each content that a row names: whether it is there with its length and, where `whole`, each of its bytes.
/// `told` hears after every page how far it is.
///
/// # Errors
/// [`UpkeepError`].
pub async fn check(
    store: &Store,
    contents: &Blobs,
    whole: bool,
    mut told: impl FnMut(&Checked),
) -> Result<Checked, UpkeepError> {
    let mut checked = Checked::default();
    let mut after = String::new();
    loop {
        let mut db = store.read().await?;
        let page = blobs::page(&mut db, &after, PAGE).await?;
        drop(db);
        let Some((last, _)) = page.last() else {
            return Ok(checked);
        };
        after = last.as_str().to_owned();
        let looked = futures_util::stream::iter(page).map(|(digest, size)| async move {
            let found = contents.check(&digest, size, whole).await?;
            Ok::<_, UpkeepError>((digest, size, found))
        });
        let looked: Vec<_> = looked.buffered(AT_ONCE).try_collect().await?;
        for (digest, size, found) in looked {
            checked.contents += 1;
            checked.bytes.0 += size;
            let wrong = match found {
                Found::Right => continue,
                Found::Nothing => false,
                Found::Wrong => true,
            };
            checked.note(store, digest, size, wrong).await?;
        }
        told(&checked);
    }
}

impl Checked {
    async fn note(
        &mut self,
        store: &Store,
        digest: Digest,
        size: u64,
        wrong: bool,
    ) -> Result<(), StoreError> {
        let mut db = store.read().await?;
        // It may have been removed since its row was read.
        if blobs::size(&mut db, &digest).await?.is_none() {
            return Ok(());
        }
        if self.lost.len() == MOST_LOST {
            self.more_lost += 1;
            return Ok(());
        }
        self.lost.push(Lost {
            needed_by: blobs::links(&mut db, &digest, MOST_LINKS).await?,
            digest,
            size: ByteSize(size),
            wrong,
        });
        Ok(())
    }
}

/// What nothing needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Unneeded {
    /// Contents with a row that nothing links.
    pub contents: u64,
    /// Their bytes.
    pub bytes: ByteSize,
    /// Contents that have no row at all: a server ended in the middle, or a database is older than its contents.
    pub strays: u64,
    /// Their bytes.
    pub stray_bytes: ByteSize,
}

/// Whether what nothing needs is removed, or only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Nothing is changed.
    Count,
    /// It is removed.
    Remove,
}

/// Finds contents that nothing links and that are older than `before`; at most `most` of them.
///
/// # Errors
/// [`UpkeepError`]; what was removed before stays removed.
pub async fn unlinked(
    store: &Store,
    contents: &Blobs,
    before: Timestamp,
    most: u64,
    manner: Manner,
) -> Result<Unneeded, UpkeepError> {
    let mut found = Unneeded::default();
    let mut after = String::new();
    while found.contents < most {
        let mut db = store.read().await?;
        let page = blobs::unlinked(&mut db, before, &after, PAGE).await?;
        drop(db);
        let Some((last, _)) = page.last() else {
            break;
        };
        after = last.as_str().to_owned();
        for (digest, size) in page {
            let gone = match manner {
                Manner::Count => true,
                Manner::Remove => spare(store, contents, &digest).await?,
            };
            found.contents += u64::from(gone);
            found.bytes.0 += if gone { size } else { 0 };
        }
    }
    Ok(found)
}

/// Finds contents that have no row and that are older than `before`. Lists all that there is, and removes nothing where
/// more have none than have one.
///
/// # Errors
/// [`UpkeepError`]; what was removed before stays removed.
pub async fn strays(
    store: &Store,
    contents: &Blobs,
    before: Timestamp,
    manner: Manner,
) -> Result<Unneeded, UpkeepError> {
    let (mut found, mut known) = (Unneeded::default(), 0);
    let mut gone = Vec::new();
    let mut listed = contents.list();
    while let Some(listed) = listed.try_next().await? {
        let mut db = store.read().await?;
        let size = blobs::size(&mut db, &listed.digest).await?;
        drop(db);
        if size.is_some() {
            known += 1;
        } else if Timestamp::from(listed.since) < before {
            found.strays += 1;
            found.stray_bytes.0 += listed.size;
            gone.push(listed.digest);
        }
    }
    if manner == Manner::Count {
        return Ok(found);
    }
    if found.strays > known {
        let strays = found.strays;
        return Err(UpkeepError::Foreign { strays, known });
    }
    for digest in gone {
        remove(store, contents, &digest).await?;
    }
    Ok(found)
}

/// Removes a content that nothing links; false where something does.
///
/// # Errors
/// [`UpkeepError`].
pub async fn spare(store: &Store, contents: &Blobs, digest: &Digest) -> Result<bool, UpkeepError> {
    let mut tx = store.begin().await?;
    let gone = blobs::remove_unlinked(&mut tx, digest).await?;
    tx.commit().await.map_err(StoreError::from)?;
    if gone {
        remove(store, contents, digest).await?;
    }
    Ok(gone)
}

/// Removes a content while it has no row: who uploads it in this moment waits for the same lock, and then looks for it.
async fn remove(store: &Store, contents: &Blobs, digest: &Digest) -> Result<(), UpkeepError> {
    let mut tx = store.begin().await?;
    if blobs::size(&mut tx, digest).await?.is_none() {
        contents.remove(digest).await?;
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}
