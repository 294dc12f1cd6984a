//! Checkpoints on their way between hosts: finished files go to the server while the job writes others, and the
//! last set that arrived whole comes to the next attempt. The job's code may do what it likes with its folder
//! meanwhile: nothing outside of it is ever read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use protocol::agent_api::{AttemptOrder, CheckpointFile, MOST_CHECKPOINT_FILES};
use protocol::event::{EventKind, LogStream};
use protocol::{ByteSize, Digest, Unnumbered};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::blobs::hash_of;
use super::deliver::Delivery;
use crate::attempt::{self, JobEnd};
use crate::checkpoints::Checkpoints;
use crate::workspace;

/// A file as it was seen: the same twice, and it counts as finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The folder's files by their path.
type Look = BTreeMap<String, Seen>;

/// What of a folder is on the server.
#[derive(Default)]
struct Brought {
    /// The last look while the job may have written.
    before: Look,
    /// The set that the server has.
    files: BTreeMap<String, (Seen, Digest)>,
}

/// A file of the next set.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// As the server has it.
    Kept(Seen, Digest),
    /// To be brought.
    New(Seen),
}

impl Brought {
    /// What makes the next set of a look. A file counts as finished when it was seen the same twice while the job ran, or
    /// when the job came to its end by itself; until then the one before stands for it. None: nothing better than what the
    /// server has.
    fn wanted(&self, now: &Look, end: JobEnd) -> Option<BTreeMap<String, Wanted>> {
        let mut set = BTreeMap::new();
        for (path, &seen) in now {
            let there = self.files.get(path);
            let finished = end == JobEnd::Clean || self.before.get(path) == Some(&seen);
            let wanted = match there {
                Some((kept, digest)) if *kept == seen || !finished => {
                    Wanted::Kept(*kept, digest.clone())
                }
                Some(_) | None if finished => Wanted::New(seen),
                Some(_) | None => {
                    // What an earlier process of this agent brought of it is not known.
                    if end == JobEnd::CutOff && self.files.is_empty() {
                        return None;
                    }
                    continue;
                }
            };
            set.insert(path.clone(), wanted);
        }
        Some(set)
    }
}

impl Delivery<'_> {
    /// Brings finished checkpoints as they come, where the job asks for that, until `over`; then what is there, where
    /// another attempt may follow.
    pub(super) async fn checkpoints(self, order: &AttemptOrder, over: &CancellationToken) {
        if !order.spec.checkpoints.across_hosts {
            return;
        }
        let config = &self.shared.host.config;
        let place = Checkpoints::of(&config.data, &order.job);
        let root = place.files();
        let mut brought = Brought::default();
        loop {
            let last = over.is_cancelled();
            // Until it has them, what lies there is an earlier attempt's: the server may have what came after that.
            let has_them = matches!(place.used(), Ok(Some(used)) if used.number == order.number);
            if last && (!has_them || self.has_succeeded()) {
                return;
            }
            if has_them && let Err(why) = self.bring(&root, order, &mut brought, last).await {
                tracing::warn!(attempt = %self.attempt, "its checkpoint is not on the server: {why}");
            }
            if last {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(config.jobs.checkpoint_look.into()) => {}
                () = over.cancelled() => {}
            }
        }
    }

    fn has_succeeded(self) -> bool {
        let report = self.dir.report();
        report.is_ok_and(|report| report.is_some_and(|report| report.outcome.is_success()))
    }

    /// One look, and what follows from it.
    async fn bring(
        self,
        root: &Path,
        order: &AttemptOrder,
        brought: &mut Brought,
        last: bool,
    ) -> Result<(), String> {
        let folder = root.to_owned();
        let now = tokio::task::spawn_blocking(move || look(&folder));
        let now = now.await.map_err(|error| error.to_string())?;
        let now = now.map_err(|error| format!("{}: {error}", root.display()))?;
        // After the look: what it saw was written before the end that this knows of.
        let end = attempt::job_end(self.dir);
        if end != JobEnd::NotYet && !last {
            return Ok(());
        }
        let wanted = brought.wanted(&now, end);
        if end == JobEnd::NotYet {
            brought.before = now;
        }
        let Some(wanted) = wanted else {
            return Err("the job was cut off, and its last files may be torn".to_owned());
        };
        let mut set = BTreeMap::new();
        for (path, wanted) in wanted {
            let file = match wanted {
                Wanted::Kept(seen, digest) => (seen, digest),
                Wanted::New(seen) => (seen, self.upload_file(root, &path, seen).await?),
            };
            set.insert(path, file);
        }
        let same = set.len() == brought.files.len()
            && set.iter().all(|(path, (_, digest))| {
                brought.files.get(path).is_some_and(|(_, d)| d == digest)
            });
        if same {
            brought.files = set;
            return Ok(());
        }
        let files: Vec<_> = set.iter().map(file).collect();
        let size = ByteSize(files.iter().map(|file| file.size.0).sum());
        if size > order.spec.checkpoints.max_size {
            return Err(format!("it has {size}, more than it may"));
        }
        let client = &self.shared.client;
        let call = || client.checkpoint(self.attempt, self.generation, &files);
        self.persist(call).await.map_err(|e| e.to_string())?;
        brought.files = set;
        if !last {
            self.tell(files.len(), size);
        }
        Ok(())
    }

    async fn upload_file(self, root: &Path, path: &str, seen: Seen) -> Result<Digest, String> {
        let wrong = |error: io::Error| format!("{path}: {error}");
        let open = || open_below(root, path);
        let digest = hash_of(open().map_err(wrong)?).await.map_err(wrong)?;
        self.upload(&digest, path, &open).await?;
        // What changed while it was read is none of the states that the job meant.
        let after = open().and_then(|file| file.metadata()).map_err(wrong)?;
        if Seen::of(&after) != seen {
            return Err(format!("{path} changed while it was read"));
        }
        Ok(digest)
    }

    fn tell(self, files: usize, size: ByteSize) {
        let text = format!("checkpoint of {files} files ({size}) is on the server\n");
        let stream = LogStream::Platform;
        let line = Unnumbered::now(EventKind::Log { stream, text }.into());
        if let Err(error) = self.journal.append(line) {
            tracing::error!(attempt = %self.attempt, "{error}");
        }
    }
}

fn file((path, (seen, blob)): (&String, &(Seen, Digest))) -> CheckpointFile {
    CheckpointFile {
        path: path.clone(),
        blob: blob.clone(),
        size: ByteSize(seen.size),
    }
}

impl Seen {
    fn of(meta: &std::fs::Metadata) -> Self {
        Self {
            size: meta.len(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// The plain files below a folder that may be finished, the first ones of too many.
fn look(root: &Path) -> io::Result<Look> {
    let mut all = Look::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let Ok(entry) = entry else { continue };
        let relative = entry.path().strip_prefix(root).unwrap_or(Path::new(""));
        let Some(path) = relative.to_str().filter(|path| may_count(path)) else {
            continue;
        };
        if !entry.file_type().is_file() {
            continue;
        }
        let Ok(meta) = open_below(root, path).and_then(|file| file.metadata()) else {
            continue;
        };
        if all.len() == MOST_CHECKPOINT_FILES {
            break;
        }
        all.insert(path.to_owned(), Seen::of(&meta));
    }
    Ok(all)
}

/// Hidden files, and those on their way to another name, never count.
fn may_count(path: &str) -> bool {
    let hidden = path.split('/').any(|part| part.starts_with('.'));
    !path.is_empty() && !hidden && !path.ends_with(".tmp") && !path.ends_with(".part")
}

/// Opens a plain file below a folder that foreign code writes to: no link leads out of it, and no pipe holds us up.
fn open_below(root: &Path, path: &str) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat2(&folder, path, flags, Mode::empty(), inside)?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a plain file"))
    }
}

/// Fetches what an earlier attempt left on another host, unless this host has what is at least as new.
pub(super) async fn restore(shared: &Shared, order: &AttemptOrder) -> Result<(), String> {
    let Some(checkpoint) = &order.checkpoint else {
        return Ok(());
    };
    let place = Checkpoints::of(shared.host.data(), &order.job);
    let disk = |error: io::Error| error.to_string();
    let used = place.used().map_err(disk)?;
    if used.is_some_and(|used| used.number >= checkpoint.number) {
        return Ok(());
    }
    let incoming = place.incoming();
    workspace::remove(&incoming).map_err(disk)?;
    std::fs::create_dir_all(&incoming).map_err(disk)?;
    for file in &checkpoint.files {
        let path = Path::new(&file.path);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if file.path.is_empty() || !path.components().all(plain) {
            return Err(format!("'{}' is no path of a checkpoint", file.path));
        }
        let fetched = shared
            .fetch(&order.attempt, &file.blob, &incoming.join(path))
            .await;
        fetched.map_err(|error| format!("{}: {error}", file.path))?;
    }
    place.replace(checkpoint.number).map_err(disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_look_sees_plain_files_and_never_leaves_the_folder() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("a")).unwrap();
        for name in ["a/model.pt", "b.pt", "b.pt.tmp", ".hidden", "c.part"] {
            fs::write(at(name), name).unwrap();
        }
        std::os::unix::fs::symlink(outside.path().join("secret"), at("link")).unwrap();
        std::os::unix::fs::symlink(outside.path(), at("folder")).unwrap();
        let seen: Vec<_> = look(root.path()).unwrap().into_keys().collect();
        assert_eq!(seen, ["a/model.pt", "b.pt"]);
        for path in ["link", "folder/secret", "../x", "a"] {
            assert!(open_below(root.path(), path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_torn_file_never_stands_for_the_whole_one_before() {
        let seen = |size| Seen {
            size,
            inode: 1,
            modified: (0, 0),
            changed: (0, 0),
        };
        let (whole, torn) = (seen(9), seen(4));
        let look = |model| Look::from([("epoch".into(), seen(1)), ("model.pt".into(), model)]);
        let digest = Digest::of(b"whole");
        let kept = || Wanted::Kept(whole, digest.clone());
        let mut brought = Brought {
            before: look(whole),
            files: BTreeMap::from([("model.pt".into(), (whole, digest.clone()))]),
        };
        for (end, model) in [
            (JobEnd::NotYet, kept()),
            (JobEnd::CutOff, kept()),
            (JobEnd::Clean, Wanted::New(torn)),
        ] {
            let set = brought.wanted(&look(torn), end).unwrap();
            assert_eq!(set["model.pt"], model, "{end:?}");
            assert_eq!(set["epoch"], Wanted::New(seen(1)));
        }
        // An agent that started anew does not know what is there: it changes nothing of it.
        brought.files.clear();
        assert_eq!(brought.wanted(&look(torn), JobEnd::CutOff), None);
        assert!(brought.wanted(&look(whole), JobEnd::CutOff).is_some());
    }

    #[test]
    fn a_file_that_is_written_to_is_not_the_same() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.pt");
        fs::write(&path, "one").unwrap();
        let first = look(root.path()).unwrap();
        assert_eq!(look(root.path()).unwrap(), first);
        let other = root.path().join("model.pt.tmp");
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(look(root.path()).unwrap(), first);
    }
}
