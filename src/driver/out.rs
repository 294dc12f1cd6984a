//! The folder that the driver writes to, guarded from the job: files replaced whole, blobs by their digest, and all
//! of it given to the agent's user at the end. Knows nothing of what the files say.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use protocol::digest::Digest;
use protocol::driver::{
    BLOBS_DIR, BODIES_DIR, EVENTS_FILE, HandOver, OUT_DIR, REST_DIR, RESULT_FILE, RunAs,
};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::process::{Gid, Uid};
use sha2::{Digest as _, Sha256};

/// Folders inside folders that are still handed over: deeper ones are a job's joke.
const DEEPEST: usize = 128;
/// Bytes set aside at the start, so that a job that fills the disk leaves room for the driver's last word.
const RESERVE: u64 = 256 << 10;
const RESERVE_FILE: &str = ".reserve";
/// A blob that is being written.
const NEW_BLOB: &str = ".new";

/// The out folder.
#[derive(Debug, Clone)]
pub(crate) struct Out {
    path: PathBuf,
}

impl Out {
    /// Makes the folder where it is missing, and guards it: where the job runs as another user, the folder is ours and
    /// only we write to it.
    ///
    /// # Errors
    /// Where it cannot be made, guarded or written to.
    pub(crate) fn open(contract: &Path, job: Option<RunAs>) -> io::Result<Self> {
        let path = contract.join(OUT_DIR);
        match fs::create_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            Ok(()) | Err(_) => {}
        }
        if let Some(job) = job {
            // Who owns the folder above could put another one in place of ours.
            for folder in [contract, &path] {
                if folder == path || fs::metadata(folder)?.uid() == job.uid {
                    own(folder)?;
                }
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        for folder in [BLOBS_DIR, BODIES_DIR] {
            fs::create_dir_all(path.join(folder))?;
        }
        match fs::remove_file(path.join(RESULT_FILE)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let reserve = File::create(path.join(RESERVE_FILE))?;
        // Not every file system can; then there is no reserve.
        let _ = rustix::fs::fallocate(&reserve, rustix::fs::FallocateFlags::empty(), 0, RESERVE);
        Ok(Self { path })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the events file, to append.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(crate) fn events(&self) -> io::Result<File> {
        File::options()
            .create(true)
            .append(true)
            .open(self.path.join(EVENTS_FILE))
    }

    /// Opens the events file, to read.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(crate) fn read_events(&self) -> io::Result<File> {
        File::open(self.path.join(EVENTS_FILE))
    }

    /// Keeps what `write` writes as a blob, under its digest; gives that, its length, and what `write` gave.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn blob<T>(
        &self,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<T>,
    ) -> io::Result<(Digest, u64, T)> {
        let blobs = self.path.join(BLOBS_DIR);
        let new = blobs.join(NEW_BLOB);
        let mut hashing = Hashing {
            file: File::create(&new)?,
            hasher: Sha256::new(),
            bytes: 0,
        };
        let written = write(&mut hashing).and_then(|gave| {
            let digest = Digest::from_hasher(hashing.hasher);
            fs::rename(&new, blobs.join(digest.as_str()))?;
            Ok((digest, hashing.bytes, gave))
        });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// Opens a blob, to read.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub(crate) fn read_blob(&self, name: &str) -> io::Result<File> {
        File::open(self.path.join(BLOBS_DIR).join(name))
    }

    /// Opens a file for what is not shown in the notebook, to append.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(crate) fn rest(&self, name: &str) -> io::Result<File> {
        let folder = self.path.join(REST_DIR);
        fs::create_dir_all(&folder)?;
        let mut options = File::options();
        options.create(true).append(true);
        options.open(folder.join(name))
    }

    /// Writes a file whole: whoever reads it sees the old one or the new one. That the new one is there after a loss
    /// of power is the matter of [`Out::sync`].
    ///
    /// # Errors
    /// Where it cannot be written; the old one stays.
    pub(crate) fn replace(
        &self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let new = self.path.join(format!("{name}.new"));
        let mut file = File::create(&new)?;
        let renamed = write(&mut file).and_then(|()| fs::rename(&new, self.path.join(name)));
        if renamed.is_err() {
            let _ = fs::remove_file(&new);
        }
        renamed
    }

    /// Gives the result, which came after everything else, to the same user.
    ///
    /// # Errors
    /// Where that is refused.
    pub(crate) fn give_result(&self, order: &HandOver) -> io::Result<()> {
        let owner = (
            Some(Uid::from_raw(order.uid)),
            Some(Gid::from_raw(order.gid)),
        );
        Ok(rustix::fs::chown(
            self.path.join(RESULT_FILE),
            owner.0,
            owner.1,
        )?)
    }

    /// Gives the reserve back to the disk.
    pub(crate) fn release_reserve(&self) {
        let _ = fs::remove_file(self.path.join(RESERVE_FILE));
    }

    /// Makes all files and their names durable.
    ///
    /// # Errors
    /// Where the disk fails.
    pub(crate) fn sync(&self) -> io::Result<()> {
        for folder in [BLOBS_DIR, REST_DIR, "."] {
            match fs::read_dir(self.path.join(folder)) {
                Ok(entries) => entries
                    .flatten()
                    .try_for_each(|entry| sync(&entry.path()))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        sync(&self.path)
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes to a file and hashes what it writes.
struct Hashing {
    file: File,
    hasher: Sha256,
    bytes: u64,
}

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Makes a folder ours.
fn own(path: &Path) -> io::Result<()> {
    let us = (rustix::process::geteuid(), rustix::process::getegid());
    rustix::fs::chown(path, Some(us.0), Some(us.1))?;
    Ok(())
}

/// Gives folders with all that is in them to a user; links are given, not followed. What cannot be given is passed
/// over and told: one bad file must not keep the rest.
#[must_use]
pub(crate) fn hand_over(order: &HandOver, contract: &Path) -> Vec<String> {
    let owner = (Uid::from_raw(order.uid), Gid::from_raw(order.gid));
    let mut troubles = Vec::new();
    let paths = order.paths.iter().map(PathBuf::from);
    for path in paths.chain([contract.to_owned()]) {
        let opened = rustix::fs::openat(
            CWD,
            &path,
            OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let given = opened.and_then(|folder| {
            rustix::fs::fchown(&folder, Some(owner.0), Some(owner.1))?;
            give_contents(folder, owner, 0)
        });
        if let Err(e) = given {
            troubles.push(format!("{}: {e}", path.display()));
        }
    }
    troubles
}

fn give_contents(folder: OwnedFd, owner: (Uid, Gid), depth: usize) -> rustix::io::Result<()> {
    let mut worst = Ok(());
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let given = rustix::fs::chownat(
            folder.as_fd(),
            name,
            Some(owner.0),
            Some(owner.1),
            AtFlags::SYMLINK_NOFOLLOW,
        );
        let inner = match entry.file_type() {
            FileType::Directory | FileType::Unknown if depth < DEEPEST => {
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(folder.as_fd(), name, flags, Mode::empty()) {
                    Ok(inner) => give_contents(inner, owner, depth + 1),
                    Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(()),
                    Err(e) => Err(e),
                }
            }
            _ => Ok(()),
        };
        worst = worst.and(given).and(inner);
    }
    worst
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let out = Out::open(folder.path(), None).unwrap();
        out.replace("a", |file| file.write_all(b"one")).unwrap();
        let failed = out.replace("a", |file| {
            file.write_all(b"two").and(Err(io::Error::other("full")))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(folder.path().join("out/a")).unwrap(), b"one");
        assert!(!folder.path().join("out/a.new").exists());
    }

    #[test]
    fn a_blob_lies_under_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let out = Out::open(folder.path(), None).unwrap();
        let keep = || {
            out.blob(|file| file.write_all(b"a").and_then(|()| file.write_all(b"bc")))
                .unwrap()
        };
        assert_eq!(keep(), (Digest::of("abc"), 3, ()));
        assert_eq!(keep(), (Digest::of("abc"), 3, ()));
        let mut text = String::new();
        let mut file = out.read_blob(Digest::of("abc").as_str()).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        let failed = out.blob(|file| {
            file.write_all(b"x")
                .and(Err::<(), _>(io::Error::other("full")))
        });
        assert!(failed.is_err());
        assert_eq!(
            fs::read_dir(folder.path().join("out/blobs"))
                .unwrap()
                .count(),
            1
        );
    }

    #[test]
    fn an_old_result_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        Out::open(folder.path(), None).unwrap();
        fs::write(folder.path().join("out/result.json"), "{}").unwrap();
        Out::open(folder.path(), None).unwrap();
        assert!(!folder.path().join("out/result.json").exists());
    }

    #[test]
    fn links_are_not_followed_when_handing_over() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("theirs"), "x").unwrap();
        let given = folder.path().join("given");
        fs::create_dir_all(given.join("sub")).unwrap();
        fs::write(given.join("sub/file"), "x").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), given.join("link")).unwrap();
        let us = fs::metadata(folder.path()).unwrap();
        let root = rustix::process::geteuid().is_root();
        let uid = if root { 12_345 } else { us.uid() };
        let order = HandOver {
            uid,
            gid: us.gid(),
            paths: vec![given.display().to_string()],
        };
        assert_eq!(hand_over(&order, folder.path()), Vec::<String>::new());
        assert_eq!(fs::metadata(given.join("sub/file")).unwrap().uid(), uid);
        assert_eq!(fs::symlink_metadata(given.join("link")).unwrap().uid(), uid);
        assert_eq!(
            fs::metadata(elsewhere.path().join("theirs")).unwrap().uid(),
            us.uid()
        );
    }
}
