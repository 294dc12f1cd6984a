//! Removing environments that nobody uses, least recently used first, so that they and uv's cache keep within a
//! bound and leave the disk its watermark. It does not know who uses which: it is told.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use protocol::ByteSize;

use super::place::{Place, RUBBISH, Root, entries, file_name, open_lock};
use crate::attempt::free;
use crate::config::Disk;
use crate::workspace;

/// What attempts have of the environments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InUse {
    /// Names of folders.
    pub(crate) names: BTreeSet<String>,
    /// What was used since then may be in use too.
    pub(crate) since: Option<SystemTime>,
}

/// Something that can be built anew.
enum Candidate {
    /// A cache of uv's, and its root. Before any environment: while it is there, an environment's files are linked
    /// in it, and removing them there frees nothing.
    Cache(Root, PathBuf),
    /// An environment.
    Environment(Place),
}

impl Candidate {
    fn path(&self) -> PathBuf {
        match self {
            Candidate::Cache(_, path) => path.clone(),
            Candidate::Environment(place) => place.folder(),
        }
    }
}

/// Removes what must go. `in_use` is asked before each environment. Blocks; nothing that it meets is an error.
pub(crate) fn prune(data: &Path, disk: &Disk, in_use: impl Fn() -> io::Result<InUse>) {
    let roots = Root::all(data);
    for path in roots.iter().flat_map(|root| entries(&root.ready)) {
        if file_name(&path).starts_with(RUBBISH) {
            remove(&path);
        }
    }
    for root in &roots {
        if let Err(error) = remove_leftovers(root, &in_use) {
            tracing::warn!("what builds left stays: {}: {error}", root.ready.display());
        }
    }
    let mut goal = match Goal::find(&roots, disk) {
        Some(goal) => goal,
        None => return,
    };
    let mut candidates: Vec<Candidate> = roots
        .iter()
        .flat_map(|root| {
            root.caches()
                .map(|path| Candidate::Cache(root.clone(), path))
        })
        .filter(|candidate| candidate.path().is_dir())
        .collect();
    let mut environments: Vec<_> = roots.iter().flat_map(found).collect();
    environments.sort_by_key(|(used, _)| *used);
    candidates.extend(
        environments
            .into_iter()
            .map(|(_, place)| Candidate::Environment(place)),
    );
    for candidate in candidates {
        let aside = match &candidate {
            Candidate::Cache(root, path) => cache_aside(root, path),
            Candidate::Environment(place) => place.aside(&in_use),
        };
        let (what, path) = match aside {
            Ok(Some(path)) => (file_name(&path), path),
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!("{} stays: {error}", candidate.path().display());
                continue;
            }
        };
        remove(&path);
        tracing::info!(
            "removed {} of the Python environments: {}",
            what.trim_start_matches(RUBBISH),
            goal.why
        );
        match Goal::left(&roots, &goal) {
            Some(left) => goal = left,
            None => return,
        }
    }
    tracing::warn!(
        "the Python environments that are in use hold more than they should: {}",
        goal.why
    );
}

/// What is to be reached.
#[derive(Debug, Clone)]
struct Goal {
    total: Option<ByteSize>,
    free: Option<ByteSize>,
    why: String,
}

impl Goal {
    /// None: all is well. What is removed is a quarter more than must be, so that not every build removes.
    fn find(roots: &[Root], disk: &Disk) -> Option<Self> {
        let bound = disk.environments.filter(|limit| limit.0 > 0);
        let total = bound.filter(|limit| used(roots) > *limit);
        let floor = is_below(roots, disk.watermark).then_some(disk.watermark);
        let why = match (floor, total) {
            (Some(watermark), _) => {
                format!("less than the watermark of {watermark} is free on the disk")
            }
            (None, Some(limit)) => {
                format!("they hold more than {limit} (`disk.environments`)")
            }
            (None, None) => return None,
        };
        Some(Self {
            total: total.map(|limit| ByteSize(limit.0 / 4 * 3)),
            free: floor.map(|watermark| ByteSize(watermark.0.saturating_add(watermark.0 / 4))),
            why,
        })
    }

    /// The goal, where it is not reached yet.
    fn left(roots: &[Root], goal: &Self) -> Option<Self> {
        let much = goal.total.is_some_and(|most| used(roots) > most);
        let low = goal.free.is_some_and(|least| is_below(roots, least));
        (much || low).then(|| goal.clone())
    }
}

/// Whether less than `least` is free on the disk of the environments.
fn is_below(roots: &[Root], least: ByteSize) -> bool {
    roots
        .iter()
        .find_map(|root| free(&root.ready))
        .is_some_and(|free| free < least)
}

/// Bytes on the disk; a file that has several names counts once.
fn used(roots: &[Root]) -> ByteSize {
    let mut seen = HashSet::new();
    let bytes = roots
        .iter()
        .flat_map(|root| [&root.ready, &root.workshop])
        .flat_map(|folder| walkdir::WalkDir::new(folder).follow_links(false))
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|meta| meta.nlink() < 2 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())))
        .map(|meta| meta.blocks() * 512)
        .sum();
    ByteSize(bytes)
}

/// The environments of one root, and when each was last used: the time of its marker.
fn found(root: &Root) -> Vec<(SystemTime, Place)> {
    let markers = entries(&root.ready)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|word| word == "json"));
    markers
        .filter_map(|marker| {
            let used = fs::metadata(&marker)
                .and_then(|meta| meta.modified())
                .ok()?;
            let name = marker.file_stem()?.to_str()?.to_owned();
            Some((used, Place::named(root, name)))
        })
        .collect()
}

impl Place {
    /// Sets the environment aside, ready to be removed. None: it is being built, or is in use.
    fn aside(&self, in_use: &impl Fn() -> io::Result<InUse>) -> io::Result<Option<PathBuf>> {
        let lock = open_lock(&self.lock_file())?;
        if lock.try_lock().is_err() {
            return Ok(None);
        }
        // Now: one that took it before we had the lock has left its mark.
        let used = fs::metadata(&self.marker)?.modified()?;
        let in_use = in_use()?;
        let recent = in_use.since.is_some_and(|since| used >= since);
        if recent || in_use.names.contains(&self.name) {
            return Ok(None);
        }
        // Without its marker it is none.
        fs::remove_file(&self.marker)?;
        let aside = self.root.ready.join(format!("{RUBBISH}{}", self.name));
        match fs::rename(self.folder(), &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Sets a cache of uv's aside. None: something is being built with it.
fn cache_aside(root: &Root, cache: &Path) -> io::Result<Option<PathBuf>> {
    let lock = open_lock(&root.cache_lock())?;
    if lock.try_lock().is_err() {
        return Ok(None);
    }
    let aside = root.ready.join(format!("{RUBBISH}{}", file_name(cache)));
    fs::rename(cache, &aside)?;
    Ok(Some(aside))
}

/// Removes what builds left that did not come to their end, unless one is at it. A build waits meanwhile.
fn remove_leftovers(root: &Root, in_use: &impl Fn() -> io::Result<InUse>) -> io::Result<()> {
    let left = || root.leftovers();
    if left().is_empty() {
        return Ok(());
    }
    let lock = open_lock(&root.cache_lock())?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    // Now: what was in the making before we had the lock may be ready.
    let in_use = in_use()?;
    for path in left() {
        if !in_use.names.contains(&file_name(&path)) {
            remove(&path);
            tracing::info!("removed {}, which a build left", path.display());
        }
    }
    Ok(())
}

fn remove(path: &Path) {
    if let Err(error) = workspace::remove(path) {
        tracing::warn!("{} cannot be removed: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ProjectId;
    use std::time::Duration;

    const KIB: u64 = 1 << 10;

    /// A data folder with three environments of 512 KiB each, `a` the least recently used, and a cache that
    /// shares the files of `b`.
    fn world() -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        let root = Root::of(data.path(), None);
        let cache = &root.caches()[0];
        fs::create_dir_all(cache).unwrap();
        for (age, name) in [(300, "a"), (200, "b"), (100, "c")] {
            let place = Place::named(&root, name.into());
            fs::create_dir_all(place.folder()).unwrap();
            fs::write(place.folder().join("file"), vec![7; 512 << 10]).unwrap();
            fs::write(&place.marker, "{}").unwrap();
            let used = SystemTime::now() - Duration::from_secs(age);
            fs::File::open(&place.marker)
                .unwrap()
                .set_modified(used)
                .unwrap();
        }
        fs::hard_link(root.ready.join("b/file"), cache.join("file")).unwrap();
        data
    }

    fn limit(kib: u64) -> Disk {
        Disk {
            watermark: ByteSize(0),
            environments: Some(ByteSize(kib * KIB)),
            ..Disk::default()
        }
    }

    fn left(data: &Path) -> Vec<String> {
        let root = Root::of(data, None);
        let found = [entries(&root.ready), entries(&root.workshop)].concat();
        let folders = found.iter().filter(|path| path.is_dir());
        let mut names: Vec<String> = folders.map(|path| file_name(path)).collect();
        names.sort();
        names
    }

    #[test]
    fn below_the_bound_all_is_kept() {
        let data = world();
        prune(data.path(), &limit(1700), || Ok(InUse::default()));
        assert_eq!(
            left(data.path()),
            [".cache", "a", "b", "c"],
            "links count once"
        );
    }

    #[test]
    fn the_least_recently_used_goes_first_and_no_more_than_must() {
        let data = world();
        prune(data.path(), &limit(1500), || Ok(InUse::default()));
        assert_eq!(left(data.path()), ["b", "c"]);
        assert!(!data.path().join("environments/trusted/a.json").exists());
    }

    #[test]
    fn those_of_untrusted_commits_count_and_go_too() {
        let data = world();
        let (trusted, own) = (
            Root::of(data.path(), None),
            Root::of(data.path(), Some(&ProjectId::generate())),
        );
        for (from, to) in [
            (trusted.ready, &own.ready),
            (trusted.workshop, &own.workshop),
        ] {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(from, to).unwrap();
        }
        prune(data.path(), &limit(1), || Ok(InUse::default()));
        let found = [entries(&own.ready), entries(&own.workshop)].concat();
        let folders = found.iter().filter(|path| path.is_dir());
        assert_eq!(folders.count(), 0);
    }

    #[test]
    fn what_is_in_use_stays_whatever_the_bound() {
        let data = world();
        let in_use = || {
            Ok(InUse {
                names: ["a".to_owned()].into(),
                since: Some(SystemTime::now() - Duration::from_secs(150)),
            })
        };
        prune(data.path(), &limit(1), in_use);
        assert_eq!(left(data.path()), ["a", "c"]);
        // Nobody knows what is in use: nothing goes.
        prune(data.path(), &limit(1), || {
            Err(io::Error::other("unreadable"))
        });
        assert_eq!(left(data.path()), ["a", "c"]);
    }

    #[test]
    fn what_is_being_built_stays() {
        let data = world();
        let root = Root::of(data.path(), None);
        let building = open_lock(&Place::named(&root, "a".into()).lock_file()).unwrap();
        let cache = open_lock(&root.cache_lock()).unwrap();
        building.try_lock().unwrap();
        cache.try_lock_shared().unwrap();
        fs::create_dir(root.workshop.join("half")).unwrap();
        prune(data.path(), &limit(1), || Ok(InUse::default()));
        assert_eq!(left(data.path()), [".cache", "a", "half"]);
    }

    #[test]
    fn what_an_interrupted_build_left_goes_whatever_the_bound() {
        let data = world();
        let root = Root::of(data.path(), None);
        for half in [
            root.workshop.join("half"),
            root.ready.join("host"),
            root.ready.join("a.build"),
        ] {
            fs::create_dir(&half).unwrap();
            fs::write(half.join("file"), "x").unwrap();
        }
        let outside = data.path().join("outside");
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.workshop.join("link")).unwrap();
        prune(data.path(), &limit(1700), || Ok(InUse::default()));
        assert_eq!(left(data.path()), [".cache", "a", "b", "c"]);
        assert!(outside.exists());
    }

    #[test]
    fn a_disk_below_the_watermark_keeps_only_what_is_in_use() {
        let data = world();
        let disk = Disk {
            watermark: ByteSize(u64::MAX / 2),
            ..Disk::default()
        };
        prune(data.path(), &disk, || {
            Ok(InUse {
                names: ["b".to_owned()].into(),
                since: None,
            })
        });
        assert_eq!(left(data.path()), ["b"]);
    }
}
