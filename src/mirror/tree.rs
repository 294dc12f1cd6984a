//! Files by path, with the id that git gives their content: of a commit or of a folder.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use git2::{ObjectType, Oid, TreeWalkMode, TreeWalkResult};
use protocol::CommitId;

use crate::repository::find;
use crate::{MirrorError, Repository};

/// Most files of a tree.
pub const MAX_FILES: usize = 500_000;
/// Most files and folders of a tree: a few small ones, each many times in the next, can name more folders than anybody
/// could look at, and not one file.
const MAX_ENTRIES: usize = 2 * MAX_FILES;
/// Longest path of a tree, in bytes: no Linux has longer ones.
const MAX_PATH: usize = 4096;
/// Largest file that is read into memory, in bytes.
pub const MAX_READ_BYTES: u64 = 256 << 20;

/// What kind of entry a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileMode {
    /// A plain file.
    Plain,
    /// A file that may be executed.
    Executable,
    /// A symbolic link; its content is the target.
    Link,
    /// Another repository; its id is that repository's commit.
    Submodule,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path from the root, with slashes.
    pub path: String,
    /// Id of its content, as git counts it.
    pub id: String,
    /// What kind of entry it is.
    pub mode: FileMode,
    /// Bytes of its content.
    pub size: u64,
}

/// Files by path.
pub trait Tree {
    /// All of them, sorted by path.
    fn files(&self) -> &[FileEntry];

    /// A file's content (a link's target).
    ///
    /// # Errors
    /// Where it is not there, is no file, or is larger than [`MAX_READ_BYTES`].
    fn read(&self, path: &str) -> Result<Vec<u8>, MirrorError>;

    /// The entry at `path`.
    fn get(&self, path: &str) -> Option<&FileEntry> {
        let files = self.files();
        files
            .binary_search_by(|f| f.path.as_str().cmp(path))
            .ok()
            .map(|n| &files[n])
    }
}

/// The files of a commit.
pub struct CommitTree {
    git: Mutex<git2::Repository>,
    repository: Repository,
    files: Vec<FileEntry>,
    ids: HashMap<String, Oid>,
    missing: Vec<Oid>,
}

impl CommitTree {
    /// Contents that are not here: of a mirror that has a part of its remote.
    pub(crate) fn missing(&self) -> &[Oid] {
        &self.missing
    }

    pub(crate) fn read_from(repository: &Repository, id: &CommitId) -> Result<Self, MirrorError> {
        let wrong = || MirrorError::unreadable(repository.path());
        let git = repository.open_git()?;
        let (mut files, mut ids, mut missing) = (Vec::new(), HashMap::new(), Vec::new());
        {
            let odb = git.odb().map_err(wrong())?;
            let tree = find(&git, id)?.tree().map_err(wrong())?;
            let (mut entries, mut too_long) = (0, None);
            let walked = tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
                entries += 1;
                if folder.len() + entry.name_bytes().len() > MAX_PATH {
                    too_long = Some(folder.chars().take(100).collect());
                }
                if entries > MAX_ENTRIES || too_long.is_some() {
                    return TreeWalkResult::Abort;
                }
                let mode = match (entry.kind(), entry.filemode()) {
                    (Some(ObjectType::Commit), _) => FileMode::Submodule,
                    (Some(ObjectType::Blob), 0o120_000) => FileMode::Link,
                    (Some(ObjectType::Blob), 0o100_755) => FileMode::Executable,
                    (Some(ObjectType::Blob), _) => FileMode::Plain,
                    _ => return TreeWalkResult::Ok,
                };
                if files.len() == MAX_FILES {
                    return TreeWalkResult::Abort;
                }
                let path = format!("{folder}{}", String::from_utf8_lossy(entry.name_bytes()));
                let size = match mode {
                    FileMode::Submodule => 0,
                    FileMode::Plain | FileMode::Executable | FileMode::Link => {
                        match odb.read_header(entry.id()) {
                            Ok((size, _)) => size as u64,
                            Err(_) => {
                                missing.push(entry.id());
                                0
                            }
                        }
                    }
                };
                ids.insert(path.clone(), entry.id());
                files.push(FileEntry {
                    path,
                    id: entry.id().to_string(),
                    mode,
                    size,
                });
                TreeWalkResult::Ok
            });
            if let Some(path) = too_long {
                return Err(MirrorError::UnsafePath { path });
            }
            if files.len() == MAX_FILES || entries > MAX_ENTRIES {
                return Err(MirrorError::TooManyFiles { limit: MAX_FILES });
            }
            walked.map_err(wrong())?;
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self {
            git: Mutex::new(git),
            repository: repository.clone(),
            files,
            ids,
            missing,
        })
    }
}

impl Tree for CommitTree {
    fn files(&self) -> &[FileEntry] {
        &self.files
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, MirrorError> {
        let missing = || MirrorError::NoSuchFile {
            path: path.to_owned(),
        };
        let entry = self.get(path).ok_or_else(missing)?;
        check_size(entry)?;
        let oid = self.ids.get(path).ok_or_else(missing)?;
        let git = self.git.lock().unwrap_or_else(PoisonError::into_inner);
        let blob = git
            .find_blob(*oid)
            .map_err(MirrorError::unreadable(self.repository.path()))?;
        Ok(blob.content().to_vec())
    }
}

/// Refuses what has no content, or too much.
pub(crate) fn check_size(entry: &FileEntry) -> Result<(), MirrorError> {
    if entry.mode == FileMode::Submodule {
        return Err(MirrorError::NoSuchFile {
            path: entry.path.clone(),
        });
    }
    if entry.size > MAX_READ_BYTES {
        let (path, size) = (entry.path.clone(), entry.size);
        return Err(MirrorError::TooLarge {
            path,
            size,
            limit: MAX_READ_BYTES,
        });
    }
    Ok(())
}
