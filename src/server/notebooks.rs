//! What changed in notebooks between two commits that a mirror has. It reads git and compares; what is made of it
//! is said elsewhere.

use std::path::Path;

use mirror::{ChangedFile, Mirror, MirrorError, Repository};
use protocol::CommitId;
use render::diff::Pair;

/// Most notebooks that are compared.
const MOST_NOTEBOOKS: usize = 200;
/// Most bytes of notebooks that are read.
const MOST_BYTES: usize = 128 << 20;

/// The notebooks that differ.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// Those that could be compared.
    pub(crate) pairs: Vec<Pair>,
    /// Paths of those that cannot be read as notebooks.
    pub(crate) unread: Vec<String>,
    /// How many more there are.
    pub(crate) more: usize,
}

/// Compares the notebooks of two commits of the mirror of `url`. It reads files: not for a thread that others wait for.
///
/// # Errors
/// Where the mirror does not have a commit, or very many files differ.
pub(crate) fn changed(
    mirrors: &Path,
    url: &str,
    before: &CommitId,
    after: &CommitId,
) -> Result<Changed, MirrorError> {
    let mirror = Mirror::open(mirrors, url)?;
    let mut changed = Changed::default();
    let mut room = MOST_BYTES;
    for file in mirror.changed(before, Some(after), &[], "ipynb")? {
        if changed.pairs.len() == MOST_NOTEBOOKS || room == 0 {
            changed.more += 1;
            continue;
        }
        match pair(&mirror, &file, &mut room) {
            Some(pair) => changed.pairs.push(pair),
            None => changed.unread.push(name(&file)),
        }
    }
    Ok(changed)
}

fn pair(repository: &Repository, file: &ChangedFile, room: &mut usize) -> Option<Pair> {
    let mut read = |side: &Option<mirror::Side>| match side {
        None => Some(None),
        Some(side) => {
            let bytes = repository.read_side(side).ok()?;
            *room = room.saturating_sub(bytes.len());
            notebook::read(&bytes).ok().map(Some)
        }
    };
    let (before, after) = (read(&file.before)?, read(&file.after)?);
    Some(Pair::new(name(file), before, after))
}

/// Its path, or both where it was renamed.
fn name(file: &ChangedFile) -> String {
    match (&file.before, &file.after) {
        (Some(old), Some(new)) if old.path != new.path => format!("{} => {}", old.path, new.path),
        (_, Some(side)) | (Some(side), None) => side.path.clone(),
        (None, None) => String::new(),
    }
}
