//! What a mirror left at its remote, brought for those who read it: it fetches histories without large files.

use std::collections::BTreeSet;

use git2::Oid;
use protocol::CommitId;

use crate::mirror::{ALL_FILES, HEADS_AND_TAGS};
use crate::repository::find;
use crate::{CommitTree, Deadline, Mirror, MirrorError};

/// Most contents that one call of git asks for: they are arguments.
const AT_ONCE: usize = 1000;

impl Mirror {
    /// The files of a commit that is here, with the content of all of them: what of it is missing is fetched.
    ///
    /// # Errors
    /// As [`crate::Repository::tree`]; and git's own words.
    pub fn whole_tree(
        &self,
        commit: &CommitId,
        auth: Option<&str>,
        deadline: &Deadline,
    ) -> Result<CommitTree, MirrorError> {
        let tree = self.tree(commit)?;
        if tree.missing().is_empty() {
            return Ok(tree);
        }
        self.fetch_contents(tree.missing().iter().copied(), auth, deadline)?;
        self.tree(commit)
    }

    /// Brings what two commits need to be compared: the earlier content of the files that differ. The later commit's
    /// are here.
    ///
    /// # Errors
    /// Where one of them is not here; and git's own words.
    pub fn bring_changed(
        &self,
        before: &CommitId,
        after: &CommitId,
        auth: Option<&str>,
        deadline: &Deadline,
    ) -> Result<(), MirrorError> {
        let wrong = || MirrorError::unreadable(self.path());
        let git = self.open_git()?;
        let tree = |commit| find(&git, commit)?.tree().map_err(wrong());
        let (old, new) = (tree(before)?, tree(after)?);
        let diff = git
            .diff_tree_to_tree(Some(&old), Some(&new), None)
            .map_err(wrong())?;
        let odb = git.odb().map_err(wrong())?;
        let earlier = diff.deltas().map(|delta| delta.old_file());
        let files = earlier.filter(|file| file.exists() && file.mode() != git2::FileMode::Commit);
        let missing: BTreeSet<Oid> = files
            .map(|file| file.id())
            .filter(|id| !id.is_zero() && !odb.exists(*id))
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => self.fetch_contents(missing.into_iter(), auth, deadline),
        }
    }

    fn fetch_contents(
        &self,
        ids: impl Iterator<Item = Oid>,
        auth: Option<&str>,
        deadline: &Deadline,
    ) -> Result<(), MirrorError> {
        let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
        let _lock = self.lock(deadline)?;
        let before = self.packed();
        for some in ids.chunks(AT_ONCE) {
            // All of them together may bring so much, not each.
            let brought = self.packed().saturating_sub(before);
            let mirror = match self.most_bytes {
                Some(most) => &self.clone().at_most(most.saturating_sub(brought)),
                None => self,
            };
            let wanted: Vec<&str> = some.iter().map(String::as_str).collect();
            // As git itself fetches what a part of a repository lacks.
            match mirror.git_fetch(&["--filter=blob:none"], &wanted, auth, deadline) {
                Err(MirrorError::TooMuch { what, limit }) => {
                    let limit = self.most_bytes.unwrap_or(limit);
                    return Err(MirrorError::TooMuch { what, limit });
                }
                Err(MirrorError::Git { message, .. }) if gives_none_alone(&message) => {
                    let options = ["--refetch", ALL_FILES];
                    let all = mirror.git_fetch(&options, &HEADS_AND_TAGS, auth, deadline);
                    return all.map_err(too_much_of_all);
                }
                done => done?,
            }
        }
        Ok(())
    }
}

/// Whether a server said that it gives no object by itself: git's own words on either side, and JGit's. Whatever else goes
/// wrong, the network above all, is no reason to fetch everything.
fn gives_none_alone(message: &str) -> bool {
    let jgits = || message.contains("want ") && message.contains(" not valid");
    message.contains("not our ref") || message.contains("unadvertised object") || jgits()
}

/// That all branches together are too much is not the fault of the commit that was looked at.
fn too_much_of_all(error: MirrorError) -> MirrorError {
    match error {
        MirrorError::TooMuch { what, limit } => MirrorError::Git {
            what,
            message: format!(
                "the server gives no object by itself, and all of its branches are more than {}",
                protocol::ByteSize(limit)
            ),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_gives_no_single_object_is_asked_for_all() {
        for said in [
            "fatal: remote error: upload-pack: not our ref 1234",
            "error: Server does not allow request for unadvertised object 1234",
            "fatal: remote error: want 1234 not valid",
        ] {
            assert!(gives_none_alone(said), "{said}");
        }
        for said in [
            "fatal: unable to access 'https://forge.example/x/': Could not resolve host: forge.example",
            "fatal: the remote end hung up unexpectedly; fatal: early EOF",
            "error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502",
        ] {
            assert!(!gives_none_alone(said), "{said}");
        }
    }

    #[test]
    fn that_all_is_too_much_is_no_fault_of_a_commit() {
        let (what, limit) = ("fetching".to_owned(), 1 << 30);
        let error = too_much_of_all(MirrorError::TooMuch { what, limit });
        assert!(!error.is_the_commits(), "{error}");
    }
}
