//! What a job writes, against its own limit and the host's free space. It ends nothing by itself.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use protocol::ByteSize;

use crate::checkpoints::size;
use crate::config::Disk;

/// Watches the folders that a job may write to.
pub(super) struct DiskWatch<'a> {
    folders: Vec<PathBuf>,
    checkpoints: PathBuf,
    /// What those may take.
    most_checkpoints: ByteSize,
    /// Shared with other jobs.
    cache: PathBuf,
    /// What that held before the job.
    cache_before: ByteSize,
    config: &'a Disk,
    next: Instant,
    /// When the host was last seen without room.
    emptied: Option<Instant>,
}

/// A disk with less free than this is full: the next write may fail.
const EMPTY: ByteSize = ByteSize::mib(4);
/// A job that ends so long after its host ran out may have ended for it.
const LATELY: Duration = Duration::from_secs(10);

/// Why a job that fills the disk is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Full {
    /// What it may write, or what is left for it.
    pub(super) limit: ByteSize,
    pub(super) used: ByteSize,
    pub(super) of: Share,
}

/// Which bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// The job's own.
    Job,
    /// The one of its checkpoints.
    Checkpoints,
    /// The host is running out.
    Host,
}

impl<'a> DiskWatch<'a> {
    pub(super) fn new(
        folders: Vec<PathBuf>,
        (checkpoints, most_checkpoints): (PathBuf, ByteSize),
        (cache, cache_before): (PathBuf, ByteSize),
        config: &'a Disk,
    ) -> Self {
        Self {
            folders,
            checkpoints,
            most_checkpoints,
            cache,
            cache_before,
            config,
            next: Instant::now(),
            emptied: None,
        }
    }

    /// Looks at what is free, and at what the job holds where it is time to: large trees are walked less often. Blocks
    /// while it walks.
    pub(super) fn look(&mut self) -> Option<Full> {
        let began = Instant::now();
        let free = self.folders.first().and_then(|folder| free(folder));
        if free.is_some_and(|free| free < EMPTY) {
            self.emptied = Some(began);
        }
        if began < self.next {
            return None;
        }
        let running_out = free.is_some_and(|free| free < self.config.floor());
        let kept = ByteSize(size(&self.checkpoints));
        let mut full = (kept > self.most_checkpoints).then_some(Full {
            limit: self.most_checkpoints,
            used: kept,
            of: Share::Checkpoints,
        });
        if full.is_none() && (self.config.job.is_some() || running_out) {
            full = self.judged(self.held(), free.filter(|_| running_out));
        }
        self.next = Instant::now() + (20 * began.elapsed()).max(Duration::from_secs(1));
        full
    }

    /// What the job holds, where its host has just run out of room and that is not its doing.
    pub(super) fn starved(&self) -> Option<ByteSize> {
        self.emptied.filter(|at| at.elapsed() < LATELY)?;
        Some(self.held()).filter(|held| *held < self.config.floor())
    }

    /// The caches are taken to have held so much before the job.
    pub(super) fn leave_cache(&mut self, before: ByteSize) {
        self.cache_before = before;
    }

    /// All that the job has on the disk, with what its caches have grown by. Walks.
    fn held(&self) -> ByteSize {
        let folders = self.folders.iter().chain([&self.checkpoints]);
        let own: u64 = folders.map(|folder| size(folder)).sum();
        ByteSize(own + size(&self.cache).saturating_sub(self.cache_before.0))
    }

    /// `free` is what is left on a host that is running out.
    fn judged(&self, used: ByteSize, free: Option<ByteSize>) -> Option<Full> {
        match (self.config.job.filter(|limit| used > *limit), free) {
            (Some(limit), _) => Some(Full {
                limit,
                used,
                of: Share::Job,
            }),
            // Others may fill the disk too: to blame is a job without whose files there would be room.
            (None, Some(free)) if used.0 + free.0 >= self.config.floor().0 => Some(Full {
                limit: self.config.floor(),
                used,
                of: Share::Host,
            }),
            (None, _) => None,
        }
    }
}

/// Free space for ordinary users on the file system of a folder.
pub(crate) fn free(folder: &std::path::Path) -> Option<ByteSize> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(ByteSize(stat.f_bavail * stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_to_blame_for_a_full_disk_that_would_have_room_without_it_and_for_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let config = Disk {
            watermark: ByteSize::mib(16),
            job: None,
            ..Disk::default()
        };
        let bounded = (folder.path().join("none"), ByteSize::mib(4));
        let cache = (folder.path().join("none"), ByteSize(0));
        let mut watch = DiskWatch::new(vec![folder.path().into()], bounded, cache, &config);
        std::fs::write(folder.path().join("some"), vec![1; 1 << 20]).unwrap();
        let of = |used, free| watch.judged(ByteSize::mib(used), Some(ByteSize::mib(free)));
        assert_eq!(of(5, 1), None, "without it there would be 6 of the 8 MiB");
        assert_eq!(of(7, 1).unwrap().of, Share::Host);
        // The host ran out: the job ends for it now, and for something else later.
        assert_eq!(watch.starved(), None);
        watch.emptied = Some(Instant::now());
        assert!(watch.starved().is_some_and(|held| held >= ByteSize::mib(1)));
        std::fs::write(folder.path().join("much"), vec![1; 9 << 20]).unwrap();
        assert_eq!(watch.starved(), None, "its own doing");
        std::fs::remove_file(folder.path().join("much")).unwrap();
        watch.emptied = Instant::now().checked_sub(LATELY);
        assert_eq!(watch.starved(), None);
    }

    #[test]
    fn a_job_above_its_share_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let config = Disk {
            watermark: ByteSize(0),
            job: Some(ByteSize::mib(1)),
            ..Disk::default()
        };
        let checkpoints = tempfile::tempdir().unwrap();
        let cache = tempfile::tempdir().unwrap();
        std::fs::write(cache.path().join("before"), vec![1; 4 << 20]).unwrap();
        let before = ByteSize(size(cache.path()));
        let look = || {
            let bounded = (checkpoints.path().into(), ByteSize::mib(4));
            let shared = (cache.path().into(), before);
            DiskWatch::new(vec![folder.path().into()], bounded, shared, &config).look()
        };
        assert_eq!(look(), None, "what earlier jobs left is not its own");
        let grown = cache.path().join("grown");
        std::fs::write(&grown, vec![1; 2 << 20]).unwrap();
        let full = look().unwrap();
        assert!(
            full.of == Share::Job && full.used < ByteSize::mib(3),
            "{full:?}"
        );
        std::fs::remove_file(grown).unwrap();
        assert_eq!(look(), None);
        std::fs::write(folder.path().join("big"), vec![1; 2 << 20]).unwrap();
        let full = look().unwrap();
        assert!(
            full.of == Share::Job && full.used >= ByteSize::mib(2),
            "{full:?}"
        );
        std::fs::write(checkpoints.path().join("model.pt"), vec![1; 5 << 20]).unwrap();
        let full = look().unwrap();
        assert_eq!(
            (full.of, full.limit),
            (Share::Checkpoints, ByteSize::mib(4))
        );
        assert!(full.words().contains("max_size"), "{}", full.words());
    }
}
