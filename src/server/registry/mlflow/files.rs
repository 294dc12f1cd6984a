//! Calls about the files of runs and logged models. The bytes themselves come and go by the blobs.

use std::collections::BTreeMap;

use protocol::{ByteSize, Digest, Timestamp};

use super::ask;
use super::place::{Owner, Place, safe};
use super::told::{Done, FileInfo, Files};
use super::{Answer, Caller, Fault, check, logged_models, runs};
use crate::store::files::{self as rows, KeptFile};
use crate::store::{Connection, blobs};

/// Most files of a run or logged model.
const MOST: u32 = 100_000;

/// Whether the owner of a path is there; for a write, whether the caller may add to it.
async fn owner(caller: &Caller, db: &mut Connection, owner: &Owner, write: bool) -> Answer<()> {
    let (named, is) = match owner {
        Owner::Run { experiment, run } => {
            let found = match write {
                true => runs::writable(caller, db, run).await?,
                false => runs::find(caller, db, run).await?,
            };
            (*experiment, found.experiment)
        }
        Owner::Model { experiment, model } => {
            let found = match write {
                true => logged_models::writable(caller, db, model, false).await?,
                false => logged_models::find(caller, db, model).await?,
            };
            (*experiment, found.experiment)
        }
    };
    if named != is {
        return Err(Fault::missing(format!(
            "{} is not in experiment {named}",
            check::quoted(owner.id())
        )));
    }
    Ok(())
}

/// Whether a file may be put at a place; asked before its bytes are taken.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn may_put(caller: &Caller, place: &Place) -> Answer<()> {
    if place.path.is_empty() {
        return Err(Fault::invalid("a file has a path"));
    }
    let mut db = caller.store.read().await?;
    owner(caller, &mut db, &place.owner, true).await
}

/// The length of a content that the agent of the attempt that asks has uploaded; none: it has not.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn uploaded(caller: &Caller, blob: &Digest) -> Answer<Option<u64>> {
    let Some(job) = &caller.job else {
        return Ok(None);
    };
    let mut db = caller.store.read().await?;
    match blobs::owned(&mut db, blob, &job.agent).await? {
        true => Ok(blobs::size(&mut db, blob).await?),
        false => Ok(None),
    }
}

/// Puts a file whose content is complete, over one of the same path.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn put(caller: &Caller, place: &Place, blob: Digest, size: u64) -> Answer<Done> {
    let mut tx = caller.begin().await?;
    owner(caller, &mut tx, &place.owner, true).await?;
    let id = place.owner.id();
    if rows::count(&mut tx, id).await? >= u64::from(MOST) {
        return Err(Fault::invalid(format!(
            "{} has {MOST} files already",
            check::quoted(id)
        )));
    }
    if has_folder(&mut tx, id, &place.path).await? {
        return Err(Fault::invalid(format!(
            "{} is a folder, or lies in a file",
            check::quoted(&place.path)
        )));
    }
    blobs::note(&mut tx, &blob, size, Timestamp::now()).await?;
    let file = KeptFile {
        path: place.path.clone(),
        blob,
        size: ByteSize(size),
    };
    rows::put(&mut tx, id, &file).await?;
    caller.commit(tx, Done {}).await
}

/// Whether a path is a folder, or one of its folders is a file: then no file can lie there.
async fn has_folder(db: &mut Connection, owner: &str, path: &str) -> Answer<bool> {
    if !rows::below(db, owner, path, 1).await?.is_empty() {
        return Ok(true);
    }
    let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
    for folder in folders {
        if rows::find(db, owner, folder).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The file at a place.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn get(caller: &Caller, place: &Place) -> Answer<KeptFile> {
    let mut db = caller.store.read().await?;
    owner(caller, &mut db, &place.owner, false).await?;
    let found = rows::find(&mut db, place.owner.id(), &place.path).await?;
    found.ok_or_else(|| {
        Fault::missing(format!(
            "{} has no file {}",
            check::quoted(place.owner.id()),
            check::quoted(&place.path)
        ))
    })
}

/// Takes a file away, or a folder with all that lies in it.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn delete(caller: &Caller, place: &Place) -> Answer<Done> {
    if place.path.is_empty() {
        return Err(Fault::invalid(
            "the files of a run are not deleted all at once: name a file or a folder",
        ));
    }
    let mut tx = caller.begin().await?;
    owner(caller, &mut tx, &place.owner, true).await?;
    if rows::remove(&mut tx, place.owner.id(), &place.path).await? == 0 {
        return Err(Fault::missing(format!(
            "{} has no file {}",
            check::quoted(place.owner.id()),
            check::quoted(&place.path)
        )));
    }
    let action = format!("delete file {} of {}", place.path, place.owner.id());
    caller.write_down(&mut tx, action).await?;
    caller.commit(tx, Done {}).await
}

/// What lies in a folder, by name; `of` is put before each name.
async fn children(db: &mut Connection, place: &Place, of: &str) -> Answer<Vec<FileInfo>> {
    let start = match place.path.as_str() {
        "" => 0,
        path => path.len() + 1,
    };
    let mut found: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for file in rows::below(db, place.owner.id(), &place.path, MOST).await? {
        match file.path[start..].split_once('/') {
            Some((folder, _)) => found.insert(folder.to_owned(), None),
            None => found.insert(file.path[start..].to_owned(), Some(file.size.0)),
        };
    }
    let info = |(name, file_size): (String, Option<u64>)| FileInfo {
        path: match of {
            "" => name,
            of => format!("{of}/{name}"),
        },
        is_dir: file_size.is_none(),
        // As protobuf does: zero is left out.
        file_size: file_size.filter(|size| *size > 0),
    };
    Ok(found.into_iter().map(info).collect())
}

/// What lies in the folder at a path of this server; names stand without their folder.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn list(caller: Caller, ask: ask::ListFiles) -> Answer<Files> {
    let place = Place::read(&ask.path.unwrap_or_default())?;
    let mut db = caller.store.read().await?;
    owner(&caller, &mut db, &place.owner, false).await?;
    Ok(Files {
        root_uri: None,
        files: children(&mut db, &place, "").await?,
    })
}

/// What lies in a folder of a run.
///
/// # Errors
/// A [`Fault`], as of all calls.
pub async fn list_of_run(caller: Caller, ask: ask::ListArtifacts) -> Answer<Files> {
    let id = ask::run_id(ask.run_id, ask.run_uuid)?;
    let path = match ask.path.filter(|path| !path.is_empty()) {
        Some(path) => safe(&path)?,
        None => String::new(),
    };
    let mut db = caller.store.read().await?;
    let run = runs::find(&caller, &mut db, &id).await?;
    let owner = Owner::Run {
        experiment: run.experiment,
        run: id,
    };
    let root_uri = Some(owner.uri());
    let place = Place { owner, path };
    let files = children(&mut db, &place, &place.path).await?;
    Ok(Files { root_uri, files })
}
