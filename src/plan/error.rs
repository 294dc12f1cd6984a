//! Why nothing can be planned, in a sentence for the status of the commit.

use mirror::MirrorError;

use crate::file::FileError;

/// Nothing is queued. All but [`PlanError::Tree`] are the user's.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// There is no pipeline file: nothing executes, the status is neutral.
    #[error("no .trainyard.yml at the root of the repository: `trainyard init` writes a first one")]
    NoFile,
    /// The pipeline file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// A notebook that a job names cannot be read.
    #[error("{path}: {message}")]
    Notebook {
        /// Path in the repository.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// A person or a time table asked for a definition that is not there.
    #[error("{0}")]
    Definition(String),
    /// An untrusted commit without the base branch's file.
    #[error("the commit is untrusted and the base branch has no .trainyard.yml: nothing runs")]
    Untrusted,
    /// The files cannot be read.
    #[error(transparent)]
    Tree(#[from] MirrorError),
}
