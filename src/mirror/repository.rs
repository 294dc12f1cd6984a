//! A repository of this host, read by libgit2. It writes nothing and reaches no network.

use std::path::{Path, PathBuf};

use git2::Oid;
use protocol::{CommitId, Timestamp};

use crate::{CommitTree, Deadline, MirrorError};

/// A repository on disk. It holds no open file: every call reads what is there now.
#[derive(Debug, Clone)]
pub struct Repository {
    path: PathBuf,
}

/// A branch, a tag or any other ref, and where it points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ref {
    /// Full name, such as `refs/heads/main`.
    pub name: String,
    /// The commit; of an annotated tag the one that it stands for, where that is known.
    pub commit: CommitId,
}

/// What a commit says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its id.
    pub id: CommitId,
    /// The whole message.
    pub message: String,
    /// `Name <address>`.
    pub author: String,
    /// When it was committed.
    pub time: Timestamp,
    /// Its parents; the first is the branch it was made on.
    pub parents: Vec<CommitId>,
}

impl CommitInfo {
    /// First line of the message.
    #[must_use]
    pub fn summary(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }
}

impl Repository {
    /// The repository whose git folder (or bare repository) is `path`.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The repository that `folder` lies in, if it lies in one.
    ///
    /// # Errors
    /// Where there is one that cannot be read.
    pub fn discover(folder: &Path) -> Result<Option<Self>, MirrorError> {
        match git2::Repository::discover(folder) {
            Ok(found) => Ok(Some(Self::at(found.path()))),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(error) => Err(MirrorError::unreadable(folder)(error)),
        }
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Addresses by which others may know it: its folder, and the URLs of its remotes.
    ///
    /// # Errors
    /// Where the repository cannot be read.
    pub fn addresses(&self) -> Result<Vec<String>, MirrorError> {
        let wrong = || MirrorError::unreadable(&self.path);
        let git = self.open_git()?;
        let folder = git.workdir().unwrap_or(&self.path);
        let folder = folder.to_string_lossy().trim_end_matches('/').to_owned();
        let mut all = vec![folder];
        for name in &git.remotes().map_err(wrong())? {
            let Ok(Some(name)) = name else { continue };
            let remote = git.find_remote(name).map_err(wrong())?;
            all.extend(remote.url().map(str::to_owned));
        }
        Ok(all)
    }

    pub(crate) fn open_git(&self) -> Result<git2::Repository, MirrorError> {
        git2::Repository::open(&self.path).map_err(MirrorError::unreadable(&self.path))
    }

    /// Branches, tags and other refs that lead to a commit, by name.
    ///
    /// # Errors
    /// Where the repository cannot be read.
    pub fn refs(&self) -> Result<Vec<Ref>, MirrorError> {
        let wrong = || MirrorError::unreadable(&self.path);
        let git = self.open_git()?;
        let mut refs = Vec::new();
        for reference in git.references().map_err(wrong())? {
            let reference = reference.map_err(wrong())?;
            // A ref that points to a tree or at nothing is nobody's branch.
            let (Ok(name), Ok(commit)) = (reference.name(), reference.peel_to_commit()) else {
                continue;
            };
            refs.push(Ref {
                name: name.to_owned(),
                commit: id_of(commit.id())?,
            });
        }
        refs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(refs)
    }

    /// Name of the branch that `HEAD` names, without `refs/heads/`; none: detached.
    ///
    /// # Errors
    /// Where the repository cannot be read.
    pub fn default_branch(&self) -> Result<Option<String>, MirrorError> {
        let git = self.open_git()?;
        let head = git
            .find_reference("HEAD")
            .map_err(MirrorError::unreadable(&self.path))?;
        let target = head
            .symbolic_target_bytes()
            .map(|t| String::from_utf8_lossy(t).into_owned());
        Ok(target.and_then(|t| t.strip_prefix("refs/heads/").map(str::to_owned)))
    }

    /// The commit that a person means by `name`: an id or the beginning of one, a branch, a tag, `HEAD~1`.
    ///
    /// # Errors
    /// Where nothing, or more than one thing, has that name.
    pub fn resolve(&self, name: &str) -> Result<CommitId, MirrorError> {
        let git = self.open_git()?;
        let missing = |_| MirrorError::NoSuchCommit {
            name: name.chars().take(200).collect(),
        };
        let commit = git
            .revparse_single(name)
            .and_then(|o| o.peel_to_commit())
            .map_err(missing)?;
        id_of(commit.id())
    }

    /// Whether the commit is here.
    #[must_use]
    pub fn has(&self, commit: &CommitId) -> bool {
        self.open_git().is_ok_and(|git| {
            Oid::from_str(commit.as_str()).is_ok_and(|oid| git.find_commit(oid).is_ok())
        })
    }

    /// What a commit says of itself.
    ///
    /// # Errors
    /// Where it is not here.
    pub fn commit(&self, id: &CommitId) -> Result<CommitInfo, MirrorError> {
        let git = self.open_git()?;
        let commit = find(&git, id)?;
        let author = commit.author();
        let (name, email) = (author.name_bytes(), author.email_bytes());
        Ok(CommitInfo {
            id: id.clone(),
            message: String::from_utf8_lossy(commit.message_bytes())
                .trim_end()
                .to_owned(),
            author: format!(
                "{} <{}>",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(email)
            ),
            time: Timestamp(commit.time().seconds().saturating_mul(1000)),
            parents: commit.parent_ids().map(id_of).collect::<Result<_, _>>()?,
        })
    }

    /// The best common ancestor; none: the histories have nothing in common.
    ///
    /// # Errors
    /// Where one of the two is not here.
    pub fn merge_base(&self, a: &CommitId, b: &CommitId) -> Result<Option<CommitId>, MirrorError> {
        let git = self.open_git()?;
        match git.merge_base(find(&git, a)?.id(), find(&git, b)?.id()) {
            Ok(base) => id_of(base).map(Some),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(error) => Err(MirrorError::unreadable(&self.path)(error)),
        }
    }

    /// Whether `ancestor` is `of`, or lies in its history.
    ///
    /// # Errors
    /// Where one of the two is not here.
    pub fn is_ancestor(&self, ancestor: &CommitId, of: &CommitId) -> Result<bool, MirrorError> {
        let git = self.open_git()?;
        let (ancestor, of) = (find(&git, ancestor)?.id(), find(&git, of)?.id());
        if ancestor == of {
            return Ok(true);
        }
        git.graph_descendant_of(of, ancestor)
            .map_err(MirrorError::unreadable(&self.path))
    }

    /// The files of a commit.
    ///
    /// # Errors
    /// Where it is not here, or has more than [`crate::MAX_FILES`] files.
    pub fn tree(&self, commit: &CommitId) -> Result<CommitTree, MirrorError> {
        CommitTree::read_from(self, commit)
    }

    /// Writes a commit's files into `dest`, a folder that is empty or not there yet: plain files with
    /// their modes, symbolic links as links. No filters, no `.git`; files in Git LFS are pointers, submodules
    /// empty folders: [`crate::Mirror::deliver`] brings those too.
    ///
    /// # Errors
    /// Where `dest` has files, the tree would write outside of it, or the disk refuses.
    pub fn checkout(
        &self,
        commit: &CommitId,
        dest: &Path,
        deadline: &Deadline,
    ) -> Result<(), MirrorError> {
        crate::checkout::write(self, commit, dest, deadline).map(|_| ())
    }
}

/// The commit in an open repository.
pub(crate) fn find<'a>(
    git: &'a git2::Repository,
    id: &CommitId,
) -> Result<git2::Commit<'a>, MirrorError> {
    let missing = |_| MirrorError::NoSuchCommit {
        name: id.to_string(),
    };
    let oid = Oid::from_str(id.as_str()).map_err(missing)?;
    git.find_commit(oid).map_err(missing)
}

pub(crate) fn id_of(oid: Oid) -> Result<CommitId, MirrorError> {
    let text = oid.to_string();
    text.parse()
        .map_err(|_| MirrorError::NoSuchCommit { name: text })
}
