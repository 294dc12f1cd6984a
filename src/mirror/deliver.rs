//! A commit as a job finds it: its files, and what of them lies outside of its repository.

use std::path::Path;

use protocol::CommitId;

use crate::checkout;
use crate::{Deadline, History, Mirror, MirrorError, lfs, submodules};

/// Most submodules of a commit, with those that they have.
const MOST_SUBMODULES: usize = 100;
/// How deep submodules may lie in each other.
const DEEPEST: usize = 5;
/// Folder in a mirror for those of its submodules. Another repository's are none of its business: who may read them
/// was asked of the server for this one.
const MODULES: &str = "modules";

/// What is wanted of a commit.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The commit.
    pub commit: &'a CommitId,
    /// A ref that leads to it, for servers that refuse to serve bare commits.
    pub reference: Option<&'a str>,
    /// Whether files in Git LFS come with their content, else as pointers.
    pub lfs: bool,
    /// Whether submodules are fetched, else they are empty folders.
    pub submodules: bool,
}

impl Mirror {
    /// Fetches a commit, without its history, and writes its files into `dest`, which is empty or not there yet, as
    /// [`crate::Repository::checkout`] does, with all else that is wanted. `auth` goes to the mirror's own server alone.
    ///
    /// # Errors
    /// Git's own words, or which file or submodule did not come.
    pub fn deliver(
        &self,
        wanted: &Wanted<'_>,
        dest: &Path,
        auth: Option<&str>,
        deadline: &Deadline,
    ) -> Result<(), MirrorError> {
        let mut delivery = Delivery {
            home: self,
            lfs: wanted.lfs,
            submodules: wanted.submodules,
            auth,
            deadline,
            left: MOST_SUBMODULES,
        };
        let Wanted {
            commit, reference, ..
        } = *wanted;
        self.fetch_commit(commit, reference, History::None, auth, deadline)?;
        delivery.write(self, commit, dest, 0)
    }
}

struct Delivery<'a> {
    /// The mirror of the repository that all begins with.
    home: &'a Mirror,
    lfs: bool,
    submodules: bool,
    auth: Option<&'a str>,
    deadline: &'a Deadline,
    /// How many more submodules may come.
    left: usize,
}

impl Delivery<'_> {
    /// Writes a commit that is in `mirror`, the repository itself or a submodule so deep in it.
    fn write(
        &mut self,
        mirror: &Mirror,
        commit: &CommitId,
        dest: &Path,
        depth: usize,
    ) -> Result<(), MirrorError> {
        let elsewhere = checkout::write(mirror, commit, dest, self.deadline)?;
        if self.lfs && !elsewhere.pointers.is_empty() {
            let (pointers, auth) = (&elsewhere.pointers, self.auth_of(mirror));
            lfs::fill(mirror, commit, pointers, dest, auth, self.deadline)?;
        }
        if !self.submodules || elsewhere.submodules.is_empty() {
            return Ok(());
        }
        let addresses = submodules::addresses(mirror, commit, self.deadline)?;
        for (path, commit) in &elsewhere.submodules {
            let failed = |why: String| MirrorError::Submodule {
                path: path.display().to_string(),
                why,
            };
            if depth == DEEPEST || self.left == 0 {
                return Err(failed(format!(
                    "more than {MOST_SUBMODULES} of them, or deeper than {DEEPEST}, are not fetched"
                )));
            }
            self.left -= 1;
            let address = addresses.get(path);
            let address =
                address.ok_or_else(|| failed("it stands not in .gitmodules".to_owned()))?;
            let inner = submodules::resolve(&mirror.remote, address).map_err(failed)?;
            let fetched = self.fetch(&inner.url, commit);
            let inner = fetched.map_err(|error| match error {
                stop @ (MirrorError::TimedOut { .. } | MirrorError::Cancelled { .. }) => stop,
                other => failed(other.to_string()),
            })?;
            self.write(&inner, commit, &dest.join(path), depth + 1)?;
        }
        Ok(())
    }

    /// The mirror of a submodule, with its commit.
    fn fetch(&self, url: &str, commit: &CommitId) -> Result<Mirror, MirrorError> {
        let mirror = Mirror::open(&self.home.path().join(MODULES), url)?;
        let (auth, deadline) = (self.auth_of(&mirror), self.deadline);
        let alone = mirror.fetch_commit(commit, None, History::None, auth, deadline);
        match alone {
            // A server that serves no bare commit: a branch leads to it, or nothing does.
            Err(MirrorError::Git { .. }) => {
                mirror.fetch_all(auth, deadline)?;
                match mirror.has(commit) {
                    true => Ok(mirror),
                    false => alone.map(|()| mirror),
                }
            }
            done => done.map(|()| mirror),
        }
    }

    /// The credential, where a mirror is of the server that it is for.
    fn auth_of(&self, mirror: &Mirror) -> Option<&str> {
        let same = mirror.remote.origin() == self.home.remote.origin();
        self.auth.filter(|_| same)
    }
}
