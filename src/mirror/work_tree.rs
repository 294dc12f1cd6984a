//! A folder of this host, read as the commit that it would become: tracked and untracked files, not
//! ignored ones. It changes nothing there.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, StatusOptions};
use protocol::CommitId;

use crate::repository::id_of;
use crate::tree::check_size;
use crate::{Deadline, FileEntry, FileMode, MAX_FILES, MirrorError, Repository, Tree};

/// The files of a folder as they are now.
#[derive(Debug)]
pub struct WorkTree {
    root: PathBuf,
    repository: Option<Repository>,
    files: Vec<FileEntry>,
    head: Option<CommitId>,
    dirty: bool,
}

impl WorkTree {
    /// Reads the working tree that `folder` lies in; a folder outside of any repository is read as it
    /// is, without what its `.gitignore` names.
    ///
    /// # Errors
    /// Where it is no folder, a file cannot be read, or there are more than [`MAX_FILES`].
    pub fn open(folder: &Path) -> Result<Self, MirrorError> {
        let folder = folder.canonicalize().map_err(MirrorError::io(folder))?;
        if !folder.is_dir() {
            return Err(MirrorError::NoFolder { path: folder });
        }
        match Repository::discover(&folder)? {
            Some(repository) => Self::of_repository(repository, folder),
            None => Self::of_folder(folder),
        }
    }

    /// Like [`WorkTree::open`], but the root is the nearest folder, from `folder` up to the repository's
    /// root, that has a file called `marker`: a project within a repository. Paths are relative to it.
    ///
    /// # Errors
    /// As [`WorkTree::open`].
    pub fn open_marked(folder: &Path, marker: &str) -> Result<Self, MirrorError> {
        let tree = Self::open(folder)?;
        let folder = folder.canonicalize().map_err(MirrorError::io(folder))?;
        let within = folder.ancestors().take_while(|f| f.starts_with(&tree.root));
        let Some(root) = within
            .into_iter()
            .find(|f| f.join(marker).is_file())
            .map(Path::to_path_buf)
        else {
            return Ok(tree);
        };
        Ok(tree.below(&root))
    }

    /// Only the part that lies in `folder`, with paths from there: a project inside a larger repository. A folder
    /// that is not in the tree leaves it as it is.
    #[must_use]
    pub fn below(mut self, folder: &Path) -> Self {
        let Ok(folder) = folder.canonicalize() else {
            return self;
        };
        let Some(prefix) = folder.strip_prefix(&self.root).ok().and_then(Path::to_str) else {
            return self;
        };
        if prefix.is_empty() {
            return self;
        }
        let prefix = format!("{prefix}/");
        self.files
            .retain_mut(|file| match file.path.strip_prefix(&prefix) {
                Some(path) => {
                    file.path = path.to_owned();
                    true
                }
                None => false,
            });
        sort(&mut self.files);
        self.root = folder;
        self
    }

    /// The root: of the repository, or the folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The repository, where there is one.
    #[must_use]
    pub fn repository(&self) -> Option<&Repository> {
        self.repository.as_ref()
    }

    /// The commit that is checked out; none: no repository, or no commit yet.
    #[must_use]
    pub fn head(&self) -> Option<&CommitId> {
        self.head.as_ref()
    }

    /// Whether files differ from `head`, untracked ones counted.
    #[must_use]
    pub fn dirty(&self) -> bool {
        self.dirty
    }

    /// Copies the files into `dest`, a folder that is empty or not there yet. Links stay links.
    ///
    /// # Errors
    /// Where `dest` has files, a file went away, or the disk refuses.
    pub fn copy_to(&self, dest: &Path, deadline: &Deadline) -> Result<(), MirrorError> {
        crate::checkout::prepare(dest)?;
        for file in &self.files {
            deadline.check("copying the folder")?;
            let (from, to) = (self.root.join(&file.path), dest.join(&file.path));
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(MirrorError::io(parent))?;
            }
            match file.mode {
                FileMode::Plain | FileMode::Executable => {
                    fs::copy(&from, &to).map_err(MirrorError::io(&from))?;
                }
                FileMode::Link => {
                    let target = fs::read_link(&from).map_err(MirrorError::io(&from))?;
                    std::os::unix::fs::symlink(target, &to).map_err(MirrorError::io(&to))?;
                }
                FileMode::Submodule => {
                    fs::create_dir_all(&to).map_err(MirrorError::io(&to))?;
                }
            }
        }
        Ok(())
    }

    fn of_repository(repository: Repository, folder: PathBuf) -> Result<Self, MirrorError> {
        let wrong = || MirrorError::unreadable(repository.path());
        let git = repository.open_git()?;
        let Some(root) = git.workdir().map(Path::to_path_buf) else {
            return Err(MirrorError::NoFolder { path: folder });
        };
        let root = root.canonicalize().map_err(MirrorError::io(&root))?;
        // A folder that its repository ignores (a build folder, a dotfiles repository at home) is not part of it.
        if folder != root && git.is_path_ignored(&folder).map_err(wrong())? {
            return Self::of_folder(folder);
        }
        let head = git.head().ok().and_then(|h| h.peel_to_commit().ok());
        let head = head.map(|commit| id_of(commit.id())).transpose()?;
        let (paths, dirty) = listed(&git, &repository)?;
        let mut files = Vec::with_capacity(paths.len());
        for known in paths {
            files.extend(entry(&root, known)?);
        }
        files.extend(submodules(&git.index().map_err(wrong())?));
        sort(&mut files);
        Ok(Self {
            root,
            repository: Some(repository),
            files,
            head,
            dirty,
        })
    }

    fn of_folder(root: PathBuf) -> Result<Self, MirrorError> {
        let mut files = Vec::new();
        let walk = ignore::WalkBuilder::new(&root)
            .hidden(false)
            .require_git(false)
            .git_global(false)
            .filter_entry(|entry| entry.file_name() != ".git")
            .build();
        for item in walk {
            let item = item.map_err(|error| {
                let reason = error.into_io_error();
                let reason = reason.unwrap_or_else(|| std::io::ErrorKind::Other.into());
                MirrorError::Io {
                    path: root.clone(),
                    reason,
                }
            })?;
            let Ok(path) = item.path().strip_prefix(&root) else {
                continue;
            };
            if item.file_type().is_some_and(|kind| !kind.is_dir()) {
                if files.len() == MAX_FILES {
                    return Err(MirrorError::TooManyFiles { limit: MAX_FILES });
                }
                files.extend(entry(
                    &root,
                    Known {
                        path: path.to_path_buf(),
                        id: None,
                    },
                )?);
            }
        }
        sort(&mut files);
        Ok(Self {
            root,
            repository: None,
            files,
            head: None,
            dirty: false,
        })
    }
}

impl Tree for WorkTree {
    fn files(&self) -> &[FileEntry] {
        &self.files
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, MirrorError> {
        let missing = || MirrorError::NoSuchFile {
            path: path.to_owned(),
        };
        let entry = self.get(path).ok_or_else(missing)?;
        check_size(entry)?;
        let full = self.root.join(path);
        match entry.mode {
            FileMode::Link => {
                let target = fs::read_link(&full).map_err(MirrorError::io(&full))?;
                Ok(target.as_os_str().as_bytes().to_vec())
            }
            FileMode::Plain | FileMode::Executable => {
                fs::read(&full).map_err(MirrorError::io(&full))
            }
            FileMode::Submodule => Err(missing()),
        }
    }
}

/// A path of the working tree, with the id of its content where the index vouches for it.
struct Known {
    path: PathBuf,
    id: Option<Oid>,
}

/// Every file that `git add --all` would leave in the index, and whether anything differs from `HEAD`.
fn listed(
    git: &git2::Repository,
    repository: &Repository,
) -> Result<(Vec<Known>, bool), MirrorError> {
    let wrong = || MirrorError::unreadable(repository.path());
    let mut options = StatusOptions::new();
    options
        .include_untracked(true)
        .recurse_untracked_dirs(true)
        .include_unmodified(true)
        .include_ignored(false)
        .exclude_submodules(true)
        .renames_head_to_index(false)
        .renames_index_to_workdir(false);
    let statuses = git.statuses(Some(&mut options)).map_err(wrong())?;
    let index = git.index().map_err(wrong())?;
    let (mut known, mut dirty) = (Vec::new(), false);
    for status in statuses.iter() {
        if known.len() == MAX_FILES {
            return Err(MirrorError::TooManyFiles { limit: MAX_FILES });
        }
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(status.path_bytes()));
        let flags = status.status();
        dirty |= !flags.is_empty() && !flags.is_ignored();
        let touched = flags.is_wt_modified() || flags.is_wt_new() || flags.is_wt_typechange();
        let indexed = index.get_path(&path, 0).map(|entry| entry.id);
        known.push(Known {
            id: indexed.filter(|_| !touched),
            path,
        });
    }
    Ok((known, dirty))
}

/// The file at a path as git would record it; none: it is gone, or is no file (a socket, a folder that
/// is a repository of its own).
fn entry(root: &Path, known: Known) -> Result<Option<FileEntry>, MirrorError> {
    let full = root.join(&known.path);
    let metadata = match fs::symlink_metadata(&full) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
        Err(reason) => return Err(MirrorError::Io { path: full, reason }),
    };
    let kind = metadata.file_type();
    let mode = if kind.is_symlink() {
        FileMode::Link
    } else if !kind.is_file() {
        return Ok(None);
    } else if metadata.permissions().mode() & 0o100 != 0 {
        FileMode::Executable
    } else {
        FileMode::Plain
    };
    let hash = |result: Result<Oid, git2::Error>| result.map_err(MirrorError::unreadable(&full));
    let id = match (known.id, mode) {
        (Some(id), _) => id,
        (None, FileMode::Link) => {
            let target = fs::read_link(&full).map_err(MirrorError::io(&full))?;
            hash(Oid::hash_object(
                ObjectType::Blob,
                target.as_os_str().as_bytes(),
            ))?
        }
        (None, FileMode::Plain | FileMode::Executable | FileMode::Submodule) => {
            hash(Oid::hash_file(ObjectType::Blob, &full))?
        }
    };
    let path = known.path.to_string_lossy().into_owned();
    Ok(Some(FileEntry {
        path,
        id: id.to_string(),
        mode,
        size: metadata.len(),
    }))
}

/// Other repositories in this one, at the commit that the index names.
fn submodules(index: &git2::Index) -> Vec<FileEntry> {
    let entries = index.iter().filter(|entry| entry.mode == 0o160_000);
    let entry = |entry: git2::IndexEntry| FileEntry {
        path: String::from_utf8_lossy(&entry.path).into_owned(),
        id: entry.id.to_string(),
        mode: FileMode::Submodule,
        size: 0,
    };
    entries.map(entry).collect()
}

fn sort(files: &mut Vec<FileEntry>) {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
}
