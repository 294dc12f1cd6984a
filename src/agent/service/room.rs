//! What of the disk jobs may have. Folders of attempts are walked for it: by a task of its own, and seldom.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::ByteSize;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::keep;
use crate::attempt::AttemptDir;
use crate::checkpoints::{Checkpoints, size};
use crate::config::Config;
use crate::hardware::Disk;
use crate::local;

/// How long the first look is waited for.
const FIRST_LOOK: Duration = Duration::from_secs(3);
/// Time between two looks; large trees are walked less often.
const LOOK: Duration = Duration::from_secs(20);

const GIB: u64 = 1 << 30;

/// See the module.
#[derive(Debug)]
pub(super) struct DiskRoom {
    last: watch::Receiver<Option<ByteSize>>,
    _task: AbortOnDropHandle<()>,
}

impl DiskRoom {
    /// Begins to look, and waits a little for the first answer.
    pub(super) async fn begin(config: &Config) -> Self {
        let (seen, mut last) = watch::channel(None);
        let config = config.clone();
        let task = tokio::spawn(async move {
            let mut last = None;
            loop {
                let began = Instant::now();
                let config = config.clone();
                let look = tokio::task::spawn_blocking(move || room(&config, last)).await;
                last = look.ok().flatten();
                seen.send_replace(last);
                tokio::time::sleep(LOOK.max(20 * began.elapsed())).await;
            }
        });
        let _ = tokio::time::timeout(FIRST_LOOK, last.changed()).await;
        Self {
            last,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// What jobs may have at once. None: it was not seen yet, or cannot be.
    pub(super) fn now(&self) -> Option<ByteSize> {
        *self.last.borrow()
    }
}

/// What is free above the watermark, and what attempts hold of what they asked for: the server takes off all of that.
fn room(config: &Config, last: Option<ByteSize>) -> Option<ByteSize> {
    let held = held(&config.data);
    let disk = Disk::of(&config.data).ok()?;
    let above = disk.free.0.saturating_sub(config.disk.watermark.0);
    Some(coarse(above + held.0, disk.size, last))
}

/// Rounded down to whole steps of a 64th of the disk, at least a GiB, and up again only when it is half a step above: the
/// server hears of each change, and disks are written to all the time.
fn coarse(exact: u64, disk: ByteSize, last: Option<ByteSize>) -> ByteSize {
    let step = (disk.0 / 64 / GIB).max(1) * GIB;
    let (floor, rest) = (exact / step * step, exact % step);
    match last {
        Some(last) if floor > last.0 && rest < step / 2 => ByteSize(last.0.max(floor - step)),
        Some(_) | None => ByteSize(floor),
    }
}

/// What attempts that go on hold on the disk, of each no more than its job asked for: what one without a demand writes is
/// nobody's to give.
fn held(data: &Path) -> ByteSize {
    let entries = fs::read_dir(data.join("attempts"));
    let dirs = entries.into_iter().flatten().flatten();
    let held = dirs
        .map(|entry| AttemptDir::open(entry.path()))
        // What `trainyard run` holds the server did not give.
        .filter(|dir| !keep::is_reported(dir) && !local::is_runs(dir))
        .filter_map(|dir| {
            let order = dir.order().ok()?;
            let asked = order.spec.resources.disk?;
            let kept = size(&Checkpoints::of(data, &order.job).files());
            Some(asked.0.min(size(dir.path()) + kept))
        });
    ByteSize(held.sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::world;

    /// An attempt that wrote so much, of a job that asked for that.
    fn attempt(data: &Path, asked: Option<ByteSize>, written: usize) -> AttemptDir {
        let mut order = world::order();
        order.spec.resources.disk = asked;
        let dir = AttemptDir::create(data, &order).unwrap();
        fs::create_dir_all(dir.workspace()).unwrap();
        fs::write(dir.workspace().join("data"), vec![1; written]).unwrap();
        dir
    }

    #[test]
    fn what_changes_a_little_is_no_news() {
        let of = |gib: u64, tenths: u64, last| {
            let exact = gib * GIB + tenths * GIB / 10;
            let last: Option<u64> = last;
            coarse(exact, ByteSize::gib(100), last.map(ByteSize::gib)).0 / GIB
        };
        assert_eq!(of(7, 9, None), 7);
        assert_eq!(of(7, 1, Some(8)), 7, "less is told at once");
        assert_eq!([of(8, 2, Some(7)), of(8, 6, Some(7))], [7, 8]);
        assert_eq!(of(30, 1, Some(7)), 29, "much more is told");
        let large = |gib| coarse(gib * GIB, ByteSize::gib(4_096), None);
        assert_eq!(
            [large(127), large(128)],
            [ByteSize::gib(64), ByteSize::gib(128)]
        );
    }

    #[tokio::test]
    async fn what_jobs_hold_of_what_they_asked_for_is_theirs_to_have() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        assert_eq!(held(data), ByteSize(0));
        attempt(data, None, 3 << 20);
        assert_eq!(held(data), ByteSize(0), "no demand is taken off");
        let holds = attempt(data, Some(ByteSize::gib(1)), 3 << 20);
        let one = held(data);
        assert!(one >= ByteSize::mib(3) && one < ByteSize::mib(4), "{one}");
        // One that wrote more than it asked for, and one that is over.
        attempt(data, Some(ByteSize::mib(1)), 5 << 20);
        assert_eq!(held(data), ByteSize(one.0 + (1 << 20)));
        fs::write(holds.path().join("reported"), "").unwrap();
        assert_eq!(held(data), ByteSize::mib(1));
        let local = attempt(data, Some(ByteSize::gib(1)), 3 << 20);
        fs::write(local.path().join("run.lock"), "").unwrap();
        assert_eq!(held(data), ByteSize::mib(1), "a person's run");

        let mut config = Config {
            data: data.to_owned(),
            ..Config::default()
        };
        let seen = DiskRoom::begin(&config).await.now().unwrap();
        assert!(seen.0 % (1 << 30) == 0, "{seen}");
        let free = Disk::of(data).unwrap().free;
        assert!(seen < free, "the watermark is not theirs");
        config.disk.watermark = ByteSize(u64::MAX);
        assert_eq!(DiskRoom::begin(&config).await.now(), Some(ByteSize(0)));
    }
}
