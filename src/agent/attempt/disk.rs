//! What a job writes, against its own limit and the host's free space. It ends nothing by itself.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use protocol::ByteSize;

use crate::config::Disk;

/// Watches the folders that a job may write to.
pub(super) struct DiskWatch<'a> {
    folders: Vec<PathBuf>,
    config: &'a Disk,
    next: Instant,
}

/// Why a job that fills the disk is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Full {
    /// What it may write, or what is left for it.
    pub(super) limit: ByteSize,
    pub(super) used: ByteSize,
    /// The host is running out, not the job's own share.
    pub(super) host: bool,
}

impl<'a> DiskWatch<'a> {
    pub(super) fn new(folders: Vec<PathBuf>, config: &'a Disk) -> Self {
        Self {
            folders,
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
        let mut full = None;
        if self.config.job.is_some() || running_out {
            let used = ByteSize(self.folders.iter().map(|folder| used(folder)).sum());
            let share = self.config.job.filter(|limit| used > *limit);
            full = match (share, free) {
                (Some(limit), _) => Some(Full {
                    limit,
                    used,
                    host: false,
                }),
                // Others may fill the disk too: only a job that holds more than is left is to blame.
                (None, Some(free)) if running_out && used > free => Some(Full {
                    limit: floor,
                    used,
                    host: true,
                }),
                (None, _) => None,
            };
        }
        self.next = Instant::now() + (20 * began.elapsed()).max(Duration::from_secs(1));
        full
    }
}

/// Free space for ordinary users on the file system of a folder.
pub(crate) fn free(folder: &std::path::Path) -> Option<ByteSize> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(ByteSize(stat.f_bavail * stat.f_frsize))
}

/// Bytes of a folder on the disk.
fn used(folder: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    walkdir::WalkDir::new(folder)
        .follow_links(false)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.blocks() * 512)
        .sum()
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
        let look = || DiskWatch::new(vec![folder.path().into()], &config).look();
        assert_eq!(look(), None);
        std::fs::write(folder.path().join("big"), vec![1; 2 << 20]).unwrap();
        let full = look().unwrap();
        assert!(!full.host && full.used >= ByteSize::mib(2), "{full:?}");
    }
}
