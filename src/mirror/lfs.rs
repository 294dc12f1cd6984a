//! Files that a repository keeps in Git LFS: a checkout has pointers, the program `git-lfs` fetches what they stand
//! for into the mirror, and here it is put in their place. Only the repository's own server is asked.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use protocol::{CommitId, Digest};

use crate::git::{self, ORIGIN};
use crate::remote::Remote;
use crate::{Deadline, Mirror, MirrorError};

/// Longest pointer, in bytes, as its specification has it.
const MOST_POINTER: usize = 1024;
/// What no job used for so long goes when something else is fetched: it can be fetched again.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);
/// What git says where it has no such program.
const NO_PROGRAM: &str = "is not a git command";

/// What a pointer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer {
    oid: Digest,
    size: u64,
}

impl Pointer {
    /// Reads a file's content; none: it is no pointer.
    pub(crate) fn read(content: &[u8]) -> Option<Self> {
        if content.len() > MOST_POINTER {
            return None;
        }
        let mut lines = std::str::from_utf8(content).ok()?.lines();
        if lines.next()? != "version https://git-lfs.github.com/spec/v1" {
            return None;
        }
        let (mut oid, mut size) = (None, None);
        for line in lines {
            match line.split_once(' ')? {
                ("oid", value) => oid = value.strip_prefix("sha256:")?.parse().ok(),
                ("size", value) => size = value.parse().ok(),
                _ => {}
            }
        }
        Some(Self {
            oid: oid?,
            size: size?,
        })
    }

    /// Where `git-lfs` keeps the content in a bare repository.
    fn place(&self, repository: &Path) -> PathBuf {
        let oid = self.oid.as_str();
        let folder = repository.join("lfs/objects").join(&oid[..2]);
        folder.join(&oid[2..4]).join(oid)
    }

    /// Whether the content is there. `git-lfs` has checked its hash before it lay there.
    fn is_in(&self, repository: &Path) -> bool {
        fs::metadata(self.place(repository)).is_ok_and(|found| found.len() == self.size)
    }

    /// Marks the content as used now, where it is there.
    fn touch(&self, repository: &Path) {
        let place = self.place(repository);
        // What could not be marked is fetched again, at worst.
        let _ = File::open(&place).and_then(|file| file.set_modified(SystemTime::now()));
    }
}

/// Puts what `pointers` stand for in their places below `dest`, where the files of `commit` were written.
pub(crate) fn fill(
    mirror: &Mirror,
    commit: &CommitId,
    pointers: &[(PathBuf, Pointer)],
    dest: &Path,
    auth: Option<&str>,
    deadline: &Deadline,
) -> Result<(), MirrorError> {
    fetch(mirror, commit, pointers, auth, deadline)?;
    for (path, pointer) in pointers {
        deadline.check("writing the files that are kept in Git LFS")?;
        let to = dest.join(path);
        let mode = fs::metadata(&to)
            .map_err(MirrorError::io(&to))?
            .permissions();
        // A copy: the job may write to it, and the mirror is everybody's.
        fs::copy(pointer.place(mirror.path()), &to).map_err(MirrorError::io(&to))?;
        fs::set_permissions(&to, mode).map_err(MirrorError::io(&to))?;
    }
    Ok(())
}

/// Fetches what is not in the mirror yet, of this commit alone.
fn fetch(
    mirror: &Mirror,
    commit: &CommitId,
    pointers: &[(PathBuf, Pointer)],
    auth: Option<&str>,
    deadline: &Deadline,
) -> Result<(), MirrorError> {
    let missing = || {
        let mut absent = pointers.iter().filter(|(_, p)| !p.is_in(mirror.path()));
        absent.next().map(|(path, _)| path.display().to_string())
    };
    // Two that want the same fetch it once.
    let _lock = mirror.lock(deadline)?;
    pointers.iter().for_each(|(_, p)| p.touch(mirror.path()));
    let Some(path) = missing() else {
        return Ok(());
    };
    forget(&mirror.path().join("lfs/objects"), UNUSED);
    let what = format!("fetching from Git LFS of {}", mirror.url());
    let call = mirror.call(&what, auth, deadline);
    // Empty: the repository's own `.lfsconfig` chooses nothing.
    let which = ["--include=", "--exclude=", ORIGIN, commit.as_str()];
    let arguments = [&["lfs", "fetch"], &which[..]].concat();
    let said = match git::run(&call, &arguments, &settings(&mirror.remote)) {
        Err(MirrorError::Git { message, .. }) if message.contains(NO_PROGRAM) => {
            return Err(MirrorError::NoLfs { path });
        }
        Err(MirrorError::Git { message, .. }) => message,
        Err(other) => return Err(other),
        Ok(_) => "the server does not have it".to_owned(),
    };
    match missing() {
        Some(path) => Err(MirrorError::Lfs {
            path,
            message: said,
        }),
        None => Ok(()),
    }
}

/// Removes contents that were not used for so long. Under the lock, so that none goes that somebody has just marked.
fn forget(objects: &Path, unused: Duration) {
    let below = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let folders = below(objects).into_iter().flat_map(|folder| below(&folder));
    for place in folders.flat_map(|folder| below(&folder)) {
        let used = fs::metadata(&place).and_then(|meta| meta.modified());
        let age = used.ok().and_then(|used| used.elapsed().ok());
        if age.is_some_and(|age| age > unused) {
            // It may be gone already, and a disk that refuses says so to the next who writes.
            let _ = fs::remove_file(&place);
        }
    }
}

/// The server of the repository's own address, whatever its `.lfsconfig` says.
fn settings(remote: &Remote) -> Vec<(String, String)> {
    let url = match remote.origin() {
        Some(_) => {
            let base = remote.url.trim_end_matches('/');
            let base = base.strip_suffix(".git").unwrap_or(base);
            format!("{base}.git/info/lfs")
        }
        None => remote.url.clone(),
    };
    vec![
        ("lfs.url".to_owned(), url),
        // A server that stalls is given up before the deadline; what failed is tried twice more.
        ("lfs.activitytimeout".to_owned(), "60".to_owned()),
        ("lfs.transfer.maxretries".to_owned(), "2".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_told_from_other_files() {
        let oid = "a".repeat(64);
        let version = "version https://git-lfs.github.com/spec/v1";
        let pointer = format!("{version}\noid sha256:{oid}\nsize 12\n");
        let read = Pointer::read(pointer.as_bytes()).unwrap();
        assert_eq!((read.oid.as_str(), read.size), (oid.as_str(), 12));
        let extended = format!("{version}\next-0-x sha256:{oid}\noid sha256:{oid}\nsize 1\n");
        assert!(Pointer::read(extended.as_bytes()).is_some());
        for other in [
            String::new(),
            "x = 1\n".to_owned(),
            version.to_owned(),
            format!("{version}\noid sha256:../../x\nsize 12\n"),
            format!("{version}\noid sha256:{oid}\nsize -1\n"),
            format!("{pointer}{}", " ".repeat(MOST_POINTER)),
        ] {
            assert_eq!(Pointer::read(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn what_nobody_used_for_long_goes() {
        let folder = tempfile::tempdir().unwrap();
        let pointer = |of: char| Pointer {
            oid: of.to_string().repeat(64).parse().unwrap(),
            size: 4,
        };
        let (old, used) = (pointer('a'), pointer('b'));
        for kept in [&old, &used] {
            let place = kept.place(folder.path());
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, "four").unwrap();
            let file = File::open(&place).unwrap();
            file.set_modified(SystemTime::now() - 2 * UNUSED).unwrap();
        }
        used.touch(folder.path());
        forget(&folder.path().join("lfs/objects"), UNUSED);
        assert!(!old.is_in(folder.path()) && used.is_in(folder.path()));
    }

    #[test]
    fn the_server_is_that_of_the_address() {
        for (url, server) in [
            (
                "https://f.example/a/b",
                "https://f.example/a/b.git/info/lfs",
            ),
            (
                "https://f.example/a/b.git/",
                "https://f.example/a/b.git/info/lfs",
            ),
            ("git@f.example:a/b.git", "git@f.example:a/b.git"),
        ] {
            let settings = settings(&Remote::parse(url).unwrap());
            assert_eq!(settings[0], ("lfs.url".to_owned(), server.to_owned()));
        }
    }
}
