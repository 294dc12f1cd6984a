//! Writes a commit's files into a folder. A tree is foreign input: a hostile one must not write outside
//! of that folder, nor through a link that it made itself, so every file and folder is made new.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use git2::{ObjectType, Tree};
use protocol::CommitId;

use crate::lfs::Pointer;
use crate::repository::{find, id_of};
use crate::{Deadline, MirrorError, Repository};

/// Deeper than any path that the kernel would take (4,096 bytes).
const MAX_DEPTH: usize = 512;

/// What the files of a commit lead to that does not lie in its repository, by path from the root.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    /// Files that are pointers of Git LFS.
    pub(crate) pointers: Vec<(PathBuf, Pointer)>,
    /// Other repositories, as folders that are empty yet, and the commit of each.
    pub(crate) submodules: Vec<(PathBuf, CommitId)>,
}

/// See [`Repository::checkout`].
pub(crate) fn write(
    repository: &Repository,
    commit: &CommitId,
    dest: &Path,
    deadline: &Deadline,
) -> Result<Elsewhere, MirrorError> {
    let git = repository.open_git()?;
    let tree = find(&git, commit)?
        .tree()
        .map_err(MirrorError::unreadable(repository.path()))?;
    prepare(dest)?;
    let mut writer = Writer {
        git: &git,
        repository,
        dest,
        deadline,
        elsewhere: Elsewhere::default(),
    };
    writer.folder(&tree, Path::new(""), 0)?;
    Ok(writer.elsewhere)
}

/// Makes the folder, or finds it empty.
pub(crate) fn prepare(dest: &Path) -> Result<(), MirrorError> {
    fs::create_dir_all(dest).map_err(MirrorError::io(dest))?;
    match fs::read_dir(dest).map_err(MirrorError::io(dest))?.next() {
        None => Ok(()),
        Some(_) => Err(MirrorError::io(dest)(
            std::io::ErrorKind::DirectoryNotEmpty.into(),
        )),
    }
}

struct Writer<'a> {
    git: &'a git2::Repository,
    repository: &'a Repository,
    dest: &'a Path,
    deadline: &'a Deadline,
    elsewhere: Elsewhere,
}

impl Writer<'_> {
    fn folder(&mut self, tree: &Tree<'_>, at: &Path, depth: usize) -> Result<(), MirrorError> {
        if depth > MAX_DEPTH {
            return Err(MirrorError::UnsafePath {
                path: at.display().to_string(),
            });
        }
        for entry in tree {
            self.deadline.check("writing the files of the commit")?;
            let place = child(at, entry.name_bytes())?;
            let path = self.dest.join(&place);
            match entry.kind() {
                Some(ObjectType::Tree) => {
                    fs::create_dir(&path).map_err(MirrorError::io(&path))?;
                    let below = self.git.find_tree(entry.id()).map_err(self.unreadable())?;
                    self.folder(&below, &place, depth + 1)?;
                }
                Some(ObjectType::Blob) => {
                    let blob = self.git.find_blob(entry.id()).map_err(self.unreadable())?;
                    match entry.filemode() {
                        0o120_000 => {
                            link(blob.content(), &path)?;
                            continue;
                        }
                        0o100_755 => file(blob.content(), 0o755, &path)?,
                        _ => file(blob.content(), 0o644, &path)?,
                    }
                    if let Some(pointer) = Pointer::read(blob.content()) {
                        self.elsewhere.pointers.push((place, pointer));
                    }
                }
                Some(ObjectType::Commit) => {
                    fs::create_dir(&path).map_err(MirrorError::io(&path))?;
                    let commit = id_of(entry.id())?;
                    self.elsewhere.submodules.push((place, commit));
                }
                Some(ObjectType::Any | ObjectType::Tag) | None => {
                    return Err(MirrorError::UnsafePath {
                        path: path.display().to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    fn unreadable(&self) -> impl FnOnce(git2::Error) -> MirrorError {
        MirrorError::unreadable(self.repository.path())
    }
}

/// One name below a folder. Git's own checks for names are asked of the tree here, not believed.
fn child(at: &Path, name: &[u8]) -> Result<PathBuf, MirrorError> {
    let path = at.join(std::ffi::OsStr::from_bytes(name));
    let bad = name.is_empty()
        || name == b"."
        || name == b".."
        || name.eq_ignore_ascii_case(b".git")
        || name.contains(&b'/')
        || name.contains(&0);
    if bad {
        return Err(MirrorError::UnsafePath {
            path: String::from_utf8_lossy(name).into_owned(),
        });
    }
    Ok(path)
}

fn file(content: &[u8], mode: u32, path: &Path) -> Result<(), MirrorError> {
    // `create_new` follows no link.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(MirrorError::io(path))?;
    file.write_all(content).map_err(MirrorError::io(path))
}

fn link(target: &[u8], path: &Path) -> Result<(), MirrorError> {
    symlink(std::ffi::OsStr::from_bytes(target), path).map_err(MirrorError::io(path))
}
