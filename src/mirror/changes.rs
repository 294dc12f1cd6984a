//! Which files differ between two commits, or between a commit and the working tree, as `git diff` counts
//! them, with what is needed to read both sides.

use std::fs;
use std::path::{Path, PathBuf};

use git2::{Delta, DiffFile, DiffFindOptions, DiffOptions, FileMode as GitMode, Oid};
use protocol::CommitId;

use crate::repository::find;
use crate::{MAX_FILES, MAX_READ_BYTES, MirrorError, Repository};

/// A file that differs. A renamed one has two paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    /// The earlier one; none: the file is new.
    pub before: Option<Side>,
    /// The later one; none: the file is gone.
    pub after: Option<Side>,
}

/// One side of a file that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Path from the root, with slashes.
    pub path: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Commit(Oid),
    Disk(PathBuf),
}

impl Repository {
    /// Plain files whose names end with `.ending` that differ between a commit and a later one, or, without
    /// one, the working tree (tracked files, as `git diff` would look at them). `paths` from the root are
    /// files and folders to look at; none: all.
    ///
    /// # Errors
    /// Where a commit is not here, there is no working tree, or more than [`MAX_FILES`] differ.
    pub fn changed(
        &self,
        before: &CommitId,
        after: Option<&CommitId>,
        paths: &[String],
        ending: &str,
    ) -> Result<Vec<ChangedFile>, MirrorError> {
        let wrong = || MirrorError::unreadable(self.path());
        let git = self.open_git()?;
        let mut options = DiffOptions::new();
        options.disable_pathspec_match(true).ignore_submodules(true);
        for path in paths.iter().filter(|path| !path.is_empty()) {
            options.pathspec(path);
        }
        let old = find(&git, before)?.tree().map_err(wrong())?;
        let root = git.workdir().map(Path::to_path_buf);
        let mut diff = match (after, &root) {
            (Some(after), _) => {
                let new = find(&git, after)?.tree().map_err(wrong())?;
                git.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options))
            }
            (None, Some(_)) => git.diff_tree_to_workdir_with_index(Some(&old), Some(&mut options)),
            (None, None) => {
                return Err(MirrorError::NoFolder {
                    path: self.path().to_owned(),
                });
            }
        }
        .map_err(wrong())?;
        let mut renames = DiffFindOptions::new();
        diff.find_similar(Some(renames.renames(true)))
            .map_err(wrong())?;
        let on_disk = root.filter(|_| after.is_none());
        let mut files = Vec::new();
        for delta in diff.deltas() {
            let (has_old, has_new) = match delta.status() {
                Delta::Added => (false, true),
                Delta::Deleted => (true, false),
                Delta::Modified
                | Delta::Renamed
                | Delta::Copied
                | Delta::Typechange
                | Delta::Conflicted => (true, true),
                Delta::Unmodified | Delta::Ignored | Delta::Untracked | Delta::Unreadable => {
                    continue;
                }
            };
            let old = has_old.then(|| side(&delta.old_file(), None)).flatten();
            let new = has_new
                .then(|| side(&delta.new_file(), on_disk.as_deref()))
                .flatten();
            let file = ChangedFile {
                before: old.filter(|side| side.ends_with(ending)),
                after: new.filter(|side| side.ends_with(ending)),
            };
            if file.before.is_none() && file.after.is_none() {
                continue;
            }
            if files.len() == MAX_FILES {
                return Err(MirrorError::TooManyFiles { limit: MAX_FILES });
            }
            files.push(file);
        }
        Ok(files)
    }

    /// The content of one side.
    ///
    /// # Errors
    /// Where it went away, or is larger than [`MAX_READ_BYTES`].
    pub fn read_side(&self, side: &Side) -> Result<Vec<u8>, MirrorError> {
        let check = |size: u64| {
            if size <= MAX_READ_BYTES {
                return Ok(());
            }
            Err(MirrorError::TooLarge {
                path: side.path.clone(),
                size,
                limit: MAX_READ_BYTES,
            })
        };
        match &side.place {
            Place::Disk(path) => {
                let size = fs::metadata(path).map_err(MirrorError::io(path))?.len();
                check(size)?;
                fs::read(path).map_err(MirrorError::io(path))
            }
            Place::Commit(id) => {
                let wrong = || MirrorError::unreadable(self.path());
                let git = self.open_git()?;
                let odb = git.odb().map_err(wrong())?;
                let (size, _) = odb.read_header(*id).map_err(wrong())?;
                check(size as u64)?;
                let blob = git.find_blob(*id).map_err(wrong())?;
                Ok(blob.content().to_vec())
            }
        }
    }

    /// The folder of the working tree; none: the repository is bare.
    ///
    /// # Errors
    /// Where the repository cannot be read.
    pub fn work_folder(&self) -> Result<Option<PathBuf>, MirrorError> {
        Ok(self.open_git()?.workdir().map(Path::to_path_buf))
    }
}

impl Side {
    fn ends_with(&self, ending: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|end| end == ending)
    }
}

/// None: it is no plain file.
fn side(file: &DiffFile<'_>, root: Option<&Path>) -> Option<Side> {
    match file.mode() {
        GitMode::Blob | GitMode::BlobGroupWritable | GitMode::BlobExecutable => {}
        GitMode::Unreadable | GitMode::Tree | GitMode::Link | GitMode::Commit => return None,
    }
    let path = file.path()?;
    let place = match root {
        Some(root) => Place::Disk(root.join(path)),
        None => Place::Commit(file.id()),
    };
    Some(Side {
        path: path.to_string_lossy().into_owned(),
        place,
    })
}
