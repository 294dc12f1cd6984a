//! What can go wrong with git, in words that a person can act on.

use std::path::PathBuf;

// The reason stands in each sentence; as a `source` it would be said twice where a chain is printed.

/// A failure of git, of the network behind it, or of the disk below it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// A URL that this program does not fetch from.
    #[error(
        "'{url}' is not an address of a repository: use https://…, ssh://…, user@host:path, file://… or an absolute path"
    )]
    Url {
        /// As it came, without a password.
        url: String,
    },
    /// A URL that carries a password: it would be seen in process lists and logs.
    #[error(
        "the address of '{host}' carries a password or token: leave it out and give it as a credential"
    )]
    UrlPassword {
        /// Host of the URL.
        host: String,
    },
    /// A credential for an address to which it would go in clear.
    #[error(
        "a credential for '{host}' would cross the network in clear: use https://, or leave the credential out"
    )]
    InClear {
        /// Host of the URL.
        host: String,
    },
    /// The `git` program could not be started.
    #[error("the git program could not be started: {reason}; is git installed?")]
    NoGit {
        /// Why.
        reason: std::io::Error,
    },
    /// The `git` program ended with an error.
    #[error("{what} failed: {message}")]
    Git {
        /// What was being done.
        what: String,
        /// Git's own words, bounded.
        message: String,
    },
    /// A file is kept in Git LFS, and the program for it is not here.
    #[error("'{path}' is kept in Git LFS, and this host has no git-lfs")]
    NoLfs {
        /// Path in the repository.
        path: String,
    },
    /// What a pointer of Git LFS stands for did not come.
    #[error("'{path}' is kept in Git LFS, and its content could not be fetched: {message}")]
    Lfs {
        /// Path in the repository.
        path: String,
        /// The last words of git-lfs, bounded.
        message: String,
    },
    /// A submodule that is not fetched.
    #[error("the submodule '{path}' cannot be fetched: {why}")]
    Submodule {
        /// Path in the repository.
        path: String,
        /// Why, and what to do.
        why: String,
    },
    /// It took too long and was ended.
    #[error("{what} took longer than {seconds:.0} s and was ended")]
    TimedOut {
        /// What was being done.
        what: String,
        /// The limit.
        seconds: f64,
    },
    /// Somebody asked to stop.
    #[error("{what} was cancelled")]
    Cancelled {
        /// What was being done.
        what: String,
    },
    /// A commit, branch or tag that is not there.
    #[error("'{name}' is no commit, branch or tag of this repository")]
    NoSuchCommit {
        /// As it was asked for.
        name: String,
    },
    /// A file that is not in the tree.
    #[error("there is no file '{path}'")]
    NoSuchFile {
        /// Path in the repository.
        path: String,
    },
    /// A file too large to be read into memory.
    #[error("'{path}' is larger than {}, the most that is read ({})", protocol::ByteSize(*.limit), protocol::ByteSize(*.size))]
    TooLarge {
        /// Path in the repository.
        path: String,
        /// Its size.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// More files than a tree may have.
    #[error("the tree has more than {limit} files")]
    TooManyFiles {
        /// The most that is read.
        limit: usize,
    },
    /// More bytes than a fetch may bring.
    #[error("{what} brings more than {}, the most that is fetched for a commit that nobody vouches for", protocol::ByteSize(*.limit))]
    TooMuch {
        /// What was being done.
        what: String,
        /// The most that may come.
        limit: u64,
    },
    /// An entry of a tree that would write outside of the checkout.
    #[error("the tree has an unsafe path '{path}': nothing is checked out")]
    UnsafePath {
        /// The path.
        path: String,
    },
    /// A folder that is not there or not a folder.
    #[error("'{}' is not a folder", path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// A folder that lies in no repository.
    #[error("'{}' lies in no git repository", path.display())]
    NoRepository {
        /// The folder.
        path: PathBuf,
    },
    /// libgit2 could not read the repository.
    #[error("the repository '{}' cannot be read: {reason}", path.display())]
    Unreadable {
        /// The repository.
        path: PathBuf,
        /// libgit2's words.
        reason: git2::Error,
    },
    /// The disk.
    #[error("'{}': {reason}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
}

impl MirrorError {
    /// Whether it is the commit's own: the same however often it is looked at, and whoever made it has to mend it.
    #[must_use]
    pub fn is_the_commits(&self) -> bool {
        match self {
            MirrorError::TooLarge { .. }
            | MirrorError::TooManyFiles { .. }
            | MirrorError::TooMuch { .. }
            | MirrorError::UnsafePath { .. }
            | MirrorError::NoSuchFile { .. } => true,
            MirrorError::Url { .. }
            | MirrorError::UrlPassword { .. }
            | MirrorError::InClear { .. }
            | MirrorError::NoGit { .. }
            | MirrorError::Git { .. }
            | MirrorError::NoLfs { .. }
            | MirrorError::Lfs { .. }
            | MirrorError::Submodule { .. }
            | MirrorError::TimedOut { .. }
            | MirrorError::Cancelled { .. }
            | MirrorError::NoSuchCommit { .. }
            | MirrorError::NoFolder { .. }
            | MirrorError::NoRepository { .. }
            | MirrorError::Unreadable { .. }
            | MirrorError::Io { .. } => false,
        }
    }

    /// For `map_err`: an error of the disk at `path`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |reason| MirrorError::Io { path, reason }
    }

    /// For `map_err`: an error of libgit2 in the repository at `path`.
    pub(crate) fn unreadable(path: impl Into<PathBuf>) -> impl FnOnce(git2::Error) -> Self {
        let path = path.into();
        move |reason| MirrorError::Unreadable { path, reason }
    }
}
