//! The only git: a repository's local mirror, fetched by the `git` program and read by libgit2, and a
//! folder of this host read as a commit would be. It knows no forge, no store and no pipeline.
#![forbid(unsafe_code)]

mod changes;
mod checkout;
mod deadline;
mod deliver;
pub mod drivers;
mod error;
mod git;
mod lfs;
mod mirror;
mod remote;
mod repository;
mod submodules;
mod tree;
mod whole;
mod work_tree;

pub use changes::{ChangedFile, Side};
pub use deadline::Deadline;
pub use deliver::Wanted;
pub use error::MirrorError;
pub use mirror::{History, Mirror, RemoteRefs, check_credential, check_url, remote_refs};
pub use repository::{CommitInfo, Ref, Repository};
pub use tree::{CommitTree, FileEntry, FileMode, MAX_FILES, MAX_READ_BYTES, Tree};
pub use work_tree::WorkTree;
