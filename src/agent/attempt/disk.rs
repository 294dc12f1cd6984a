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
    config: &'a Disk,
    next: Instant,
}

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
        config: &'a Disk,
    ) -> Self {
        Self {
            folders,
            checkpoints,
            most_checkpoints,
            config,
            next: Instant::now(),
        }
    }

    /// Looks, where it is time to: large trees are walked less often. Blocks while it walks.
    pub(super) fn look(&mut self) -> Option<Full> {
        if Instant::now() < self.next {
            return None;
        }
        let began = Instant::now();
        let free = self.folders.first().and_then(|folder| free(folder));
        let floor = ByteSize(self.config.watermark.0 / 2);
        let running_out = free.is_some_and(|free| free < floor);
        let kept = ByteSize(size(&self.checkpoints));
        let mut full = (kept > self.most_checkpoints).then_some(Full {
            limit: self.most_checkpoints,
            used: kept,
            of: Share::Checkpoints,
        });
        if full.is_none() && (self.config.job.is_some() || running_out) {
            let used = self.folders.iter().map(|folder| size(folder)).sum::<u64>();
            full = self.judged(ByteSize(used + kept.0), free.filter(|_| running_out));
        }
        self.next = Instant::now() + (20 * began.elapsed()).max(Duration::from_secs(1));
        full
    }

    /// `free` is what is left on a host that is running out.
    fn judged(&self, used: ByteSize, free: Option<ByteSize>) -> Option<Full> {
        match (self.config.job.filter(|limit| used > *limit), free) {
            (Some(limit), _) => Some(Full {
                limit,
                used,
                of: Share::Job,
            }),
            // Others may fill the disk too: only a job that holds more than is left is to blame.
            (None, Some(free)) if used > free => Some(Full {
                limit: ByteSize(self.config.watermark.0 / 2),
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
    fn a_job_above_its_share_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let config = Disk {
            watermark: ByteSize(0),
            job: Some(ByteSize::mib(1)),
            ..Disk::default()
        };
        let checkpoints = tempfile::tempdir().unwrap();
        let look = || {
            let bounded = (checkpoints.path().into(), ByteSize::mib(4));
            DiskWatch::new(vec![folder.path().into()], bounded, &config).look()
        };
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
