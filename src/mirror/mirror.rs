//! A bare copy of a remote repository, kept under a data folder and brought up to date by `git fetch`.
//! It knows addresses and credentials; what a forge is, it does not.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::{CommitId, Digest};

use crate::git::{self, Call, ORIGIN};
use crate::remote::Remote;
use crate::{Deadline, MirrorError, Ref, Repository};

/// Branches and tags are copied under their own names.
pub(crate) const HEADS_AND_TAGS: [&str; 2] =
    ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];

/// Files that are larger come with the commits that are looked at: a history of notebooks is mostly outputs that nobody
/// asks for. A server that knows no filters sends all.
const WITHOUT_LARGE: &str = "--filter=blob:limit=64k";

/// Said where no file may be left out: git would keep to the filter of an earlier call.
pub(crate) const ALL_FILES: &str = "--no-filter";

/// Where commits are kept to which no branch or tag leads.
const KEPT: &str = "refs/trainyard/commits/";

/// How much of what led to a commit is fetched with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// All of it, for those who compare; large files come when [`Mirror::whole_tree`] wants them.
    Whole,
    /// Nothing, where the server can: for those who want the files of one commit, all of them.
    None,
}

/// A repository's local mirror. Reading is [`Repository`]'s; several processes may use one mirror.
#[derive(Debug, Clone)]
pub struct Mirror {
    repository: Repository,
    pub(crate) remote: Remote,
    /// Most bytes that a fetch may bring; none: as many as there are.
    pub(crate) most_bytes: Option<u64>,
}

impl Deref for Mirror {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repository
    }
}

/// What a remote has, without fetching it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRefs {
    /// Full name of the ref that its `HEAD` names: the default branch.
    pub head: Option<String>,
    /// All its branches, tags and other refs, by name.
    pub refs: Vec<Ref>,
}

impl RemoteRefs {
    /// Where a ref points.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&CommitId> {
        self.refs.iter().find(|r| r.name == name).map(|r| &r.commit)
    }
}

impl Mirror {
    /// The mirror of `url` under `root`; an empty one is made where there is none.
    ///
    /// # Errors
    /// Where the URL is none that git may fetch from, or the disk refuses.
    pub fn open(root: &Path, url: &str) -> Result<Self, MirrorError> {
        let remote = Remote::parse(url)?;
        let path = root.join(Digest::of(url).as_str());
        std::fs::create_dir_all(&path).map_err(MirrorError::io(&path))?;
        if git2::Repository::open_bare(&path).is_err() {
            let _lock = lock(&path, &Deadline::within(Duration::from_secs(60)))?;
            git2::Repository::init_bare(&path).map_err(MirrorError::unreadable(&path))?;
        }
        Ok(Self {
            repository: Repository::at(path),
            remote,
            most_bytes: None,
        })
    }

    /// The same, of which no call brings more than so many bytes from the remote: for commits of people whom nobody
    /// knows. A call that would is an error, [`MirrorError::TooMuch`], and leaves nothing.
    #[must_use]
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.most_bytes = Some(bytes);
        self
    }

    /// The address that it is fetched from.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.remote.url
    }

    /// Brings branches and tags up to date; those that are gone at the remote go here. Large files stay where they are
    /// until [`Mirror::whole_tree`] wants them. `auth` is the value of an `Authorization` header.
    ///
    /// # Errors
    /// Git's own words, or [`MirrorError::TimedOut`].
    pub fn fetch(&self, auth: Option<&str>, deadline: &Deadline) -> Result<(), MirrorError> {
        let _lock = self.lock(deadline)?;
        let options = ["--prune", WITHOUT_LARGE];
        self.git_fetch(&options, &HEADS_AND_TAGS, auth, deadline)?;
        let head_is_there = self.open_git()?.head().is_ok();
        if !head_is_there {
            self.remote_refs(auth, deadline)?;
        }
        Ok(())
    }

    /// The same with all of their files.
    ///
    /// # Errors
    /// As [`Mirror::fetch`].
    pub(crate) fn fetch_all(
        &self,
        auth: Option<&str>,
        deadline: &Deadline,
    ) -> Result<(), MirrorError> {
        let _lock = self.lock(deadline)?;
        self.git_fetch(&["--prune", ALL_FILES], &HEADS_AND_TAGS, auth, deadline)
    }

    /// Fetches one commit, by `reference` where the server refuses to serve bare commits, and keeps it
    /// though no branch leads to it any more. Does nothing where it is here.
    ///
    /// # Errors
    /// Git's own words; [`MirrorError::NoSuchCommit`] where the ref has moved on and the server refuses.
    pub fn fetch_commit(
        &self,
        commit: &CommitId,
        reference: Option<&str>,
        history: History,
        auth: Option<&str>,
        deadline: &Deadline,
    ) -> Result<(), MirrorError> {
        // Not before the lock: who waits for another fetch of the same commit has nothing to do after it.
        let _lock = self.lock(deadline)?;
        if self.has(commit) {
            return Ok(());
        }
        let kept = format!("{KEPT}{commit}");
        let bare = self.fetch_ref(&format!("+{commit}:{kept}"), history, auth, deadline);
        if self.has(commit) {
            return Ok(());
        }
        let Some(reference) = reference.filter(|r| r.starts_with("refs/")) else {
            return bare.and(Err(MirrorError::NoSuchCommit {
                name: commit.to_string(),
            }));
        };
        let passing = format!("refs/trainyard/passing/{commit}");
        let spec = format!("+{reference}:{passing}");
        self.fetch_ref(&spec, history, auth, deadline)?;
        if history == History::None && !self.has(commit) {
            // It has moved on: the commit lies behind it.
            self.git_fetch(&[ALL_FILES], &[&spec], auth, deadline)?;
        }
        let wrong = || MirrorError::unreadable(self.path());
        let git = self.open_git()?;
        let here = git2::Oid::from_str(commit.as_str()).and_then(|oid| git.find_commit(oid));
        if let Ok(found) = &here {
            git.reference(&kept, found.id(), true, "kept")
                .map_err(wrong())?;
        }
        git.find_reference(&passing)
            .and_then(|mut r| r.delete())
            .map_err(wrong())?;
        here.map(|_| ()).map_err(|_| MirrorError::NoSuchCommit {
            name: commit.to_string(),
        })
    }

    /// What the remote has now. The mirror's default branch follows the remote's.
    ///
    /// # Errors
    /// Git's own words, or [`MirrorError::TimedOut`].
    pub fn remote_refs(
        &self,
        auth: Option<&str>,
        deadline: &Deadline,
    ) -> Result<RemoteRefs, MirrorError> {
        let refs = list(&self.remote, auth, deadline)?;
        if let Some(head) = &refs.head {
            let git = self.open_git()?;
            let known = git.find_reference("HEAD").ok();
            if known
                .and_then(|r| r.symbolic_target().ok().flatten().map(str::to_owned))
                .as_deref()
                != Some(head)
            {
                git.set_head(head)
                    .map_err(MirrorError::unreadable(self.path()))?;
            }
        }
        Ok(refs)
    }

    /// Fetches one ref or commit; without its history where that is not wanted and the server can.
    fn fetch_ref(
        &self,
        spec: &str,
        history: History,
        auth: Option<&str>,
        deadline: &Deadline,
    ) -> Result<(), MirrorError> {
        let alone = match history {
            History::Whole => {
                return self.git_fetch(&[WITHOUT_LARGE], &[spec], auth, deadline);
            }
            History::None => self.git_fetch(&["--depth=1", ALL_FILES], &[spec], auth, deadline),
        };
        match alone {
            // In all of git's complaints about servers that cannot leave history out.
            Err(MirrorError::Git { message, .. }) if message.contains("shallow") => {
                self.git_fetch(&[ALL_FILES], &[spec], auth, deadline)
            }
            done => done,
        }
    }

    pub(crate) fn git_fetch(
        &self,
        options: &[&str],
        specs: &[&str],
        auth: Option<&str>,
        deadline: &Deadline,
    ) -> Result<(), MirrorError> {
        let mut arguments = vec!["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
        arguments.extend(options);
        arguments.extend(["--end-of-options", ORIGIN]);
        arguments.extend(specs);
        let what = format!("fetching from {}", self.url());
        let call = Call {
            most_bytes: self.most_bytes,
            ..self.call(&what, auth, deadline)
        };
        // Git would tidy up after it: what it packs anew is not what came.
        let untended = [("gc.auto", "0"), ("maintenance.auto", "false")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let extra: &[_] = match self.most_bytes {
            Some(_) => &untended,
            None => &[],
        };
        let error = match git::run(&call, &arguments, extra) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let torn = self.remove_torn();
        Err(match (error, self.most_bytes) {
            // Git only says that its helper is gone; the pack that it was not let write on has grown to the limit.
            (MirrorError::Git { what, .. }, Some(limit)) if torn >= limit => {
                MirrorError::TooMuch { what, limit }
            }
            (error, _) => error,
        })
    }

    /// Removes packs that did not come whole; gives the bytes of the largest. Whoever fetches holds the lock: no other is
    /// under way.
    fn remove_torn(&self) -> u64 {
        let packs = std::fs::read_dir(self.path().join("objects/pack"));
        let mut largest = 0;
        for entry in packs.into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("tmp_") {
                largest = largest.max(entry.metadata().map_or(0, |file| file.len()));
                // One that stays is git's to remove, in two weeks.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        largest
    }

    /// Bytes of what came in packs.
    pub(crate) fn packed(&self) -> u64 {
        let packs = std::fs::read_dir(self.path().join("objects/pack"));
        let sizes = packs.into_iter().flatten().flatten();
        let sizes = sizes.filter_map(|entry| Some(entry.metadata().ok()?.len()));
        sizes.sum()
    }

    /// Stops keeping commits that were fetched by themselves, at most `most` of them, but those that `wanted` says
    /// somebody may ask for again. Gives how many. What nothing leads to any more is git's to remove.
    ///
    /// # Errors
    /// Where the repository cannot be read or written, or the lock does not come free in time.
    pub fn let_go(
        &self,
        wanted: impl Fn(&CommitId) -> bool,
        most: usize,
        deadline: &Deadline,
    ) -> Result<usize, MirrorError> {
        let wrong = || MirrorError::unreadable(self.path());
        let _lock = self.lock(deadline)?;
        let git = self.open_git()?;
        let kept = git.references_glob(&format!("{KEPT}*")).map_err(wrong())?;
        let mut gone = 0;
        for reference in kept.flatten() {
            let commit = reference.name().ok();
            let commit = commit.and_then(|name| name.strip_prefix(KEPT)?.parse().ok());
            if gone < most && commit.is_some_and(|commit| !wanted(&commit)) {
                let mut reference = reference;
                reference.delete().map_err(wrong())?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// A call of git in this mirror.
    pub(crate) fn call<'a>(
        &'a self,
        what: &'a str,
        auth: Option<&'a str>,
        deadline: &'a Deadline,
    ) -> Call<'a> {
        Call {
            remote: &self.remote,
            auth,
            folder: Some(self.path()),
            what,
            deadline,
            most_bytes: None,
        }
    }

    /// Held while the mirror is written to; another process's is waited for until the deadline.
    pub(crate) fn lock(&self, deadline: &Deadline) -> Result<File, MirrorError> {
        lock(self.path(), deadline)
    }
}

/// Whether `url` is an address that this program may fetch from.
///
/// # Errors
/// [`MirrorError::Url`] or [`MirrorError::UrlPassword`], with what to write instead.
pub fn check_url(url: &str) -> Result<(), MirrorError> {
    Remote::parse(url).map(|_| ())
}

/// Whether a credential may be shown at `url`.
///
/// # Errors
/// As [`check_url`]; [`MirrorError::InClear`] where all on the way could read it. A fetch from there shows none.
pub fn check_credential(url: &str) -> Result<(), MirrorError> {
    let remote = Remote::parse(url)?;
    match remote.is_in_clear() {
        true => Err(MirrorError::InClear {
            host: remote.host().unwrap_or_default().to_owned(),
        }),
        false => Ok(()),
    }
}

/// What the repository at `url` has now, without a mirror.
///
/// # Errors
/// Git's own words, or [`MirrorError::TimedOut`].
pub fn remote_refs(
    url: &str,
    auth: Option<&str>,
    deadline: &Deadline,
) -> Result<RemoteRefs, MirrorError> {
    list(&Remote::parse(url)?, auth, deadline)
}

fn list(
    remote: &Remote,
    auth: Option<&str>,
    deadline: &Deadline,
) -> Result<RemoteRefs, MirrorError> {
    let arguments = [
        "ls-remote",
        "--quiet",
        "--symref",
        "--end-of-options",
        ORIGIN,
    ];
    let what = format!("listing {}", remote.url);
    let call = Call {
        remote,
        auth,
        folder: None,
        what: &what,
        deadline,
        most_bytes: None,
    };
    let text = git::run(&call, &arguments, &[])?;
    Ok(parse_listing(&text))
}

/// `ref: refs/heads/main\tHEAD`, `<id>\tHEAD`, `<id>\trefs/…`, and `<id>\trefs/tags/v1^{}` for what an
/// annotated tag stands for.
fn parse_listing(text: &str) -> RemoteRefs {
    let mut listing = RemoteRefs {
        head: None,
        refs: Vec::new(),
    };
    for (left, name) in text.lines().filter_map(|line| line.split_once('\t')) {
        if let Some(target) = left.strip_prefix("ref: ") {
            if name == "HEAD" {
                listing.head = Some(target.to_owned());
            }
            continue;
        }
        let (Ok(commit), true) = (left.parse::<CommitId>(), name.starts_with("refs/")) else {
            continue;
        };
        match (name.strip_suffix("^{}"), listing.refs.last_mut()) {
            (Some(tag), Some(last)) if last.name == tag => last.commit = commit,
            (Some(_), _) => {}
            (None, _) => listing.refs.push(Ref {
                name: name.to_owned(),
                commit,
            }),
        }
    }
    listing.refs.sort_by(|a, b| a.name.cmp(&b.name));
    listing
}

/// See [`Mirror::lock`].
fn lock(repository: &Path, deadline: &Deadline) -> Result<File, MirrorError> {
    let mut path = PathBuf::from(repository);
    path.push("trainyard.lock");
    let file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(MirrorError::io(&path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::Error(reason)) => {
                return Err(MirrorError::Io { path, reason });
            }
            Err(std::fs::TryLockError::WouldBlock) => {}
        }
        deadline.check("waiting for another fetch of the same repository")?;
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_as_git_prints_it() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let text = format!(
            "ref: refs/heads/main\tHEAD\n{a}\tHEAD\n{a}\trefs/heads/main\n{b}\trefs/tags/v1\n{a}\trefs/tags/v1^{{}}\n"
        );
        let listing = parse_listing(&text);
        assert_eq!(listing.head.as_deref(), Some("refs/heads/main"));
        assert_eq!(
            listing.get("refs/heads/main").map(CommitId::as_str),
            Some(a.as_str())
        );
        assert_eq!(
            listing.get("refs/tags/v1").map(CommitId::as_str),
            Some(a.as_str())
        );
        assert_eq!(listing.refs.len(), 2);
    }
}
