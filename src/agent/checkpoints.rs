//! Folders of checkpoints: one a job, for all of its attempts on this host. What is in the files is the job's
//! business; how they reach another host is the service's.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use protocol::agent_api::AttemptOrder;
use protocol::{ByteSize, JobId, Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::attempt::{read_json, write_json};
use crate::workspace;

/// `<data>/checkpoints/<job id>`: the files, and what is known of them.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    path: PathBuf,
}

/// Which attempt had them last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Used {
    /// Its number.
    pub(crate) number: u32,
    /// When it began with them, or ended.
    pub(crate) at: Timestamp,
}

impl Checkpoints {
    pub(crate) fn of(data: &Path, job: &JobId) -> Self {
        Self {
            path: all(data).join(job.as_str()),
        }
    }

    /// The folder that the job sees.
    pub(crate) fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// Where files of another host are gathered before they become the job's.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.path.join("incoming")
    }

    fn used_file(&self) -> PathBuf {
        self.path.join("used.json")
    }

    /// Which attempt had them last; none: there are none.
    pub(crate) fn used(&self) -> io::Result<Option<Used>> {
        read_json(&self.used_file())
    }

    /// The attempt of this number is over. One that ended before it had them leaves them as they are.
    pub(crate) fn leave(&self, number: u32) -> io::Result<()> {
        match self.used()? {
            Some(used) if used.number == number => self.mark(number),
            Some(_) | None => Ok(()),
        }
    }

    /// An attempt begins, or ends, with them.
    pub(crate) fn mark(&self, number: u32) -> io::Result<()> {
        let at = Timestamp::now();
        write_json(&self.used_file(), &Used { number, at })
    }

    /// Makes the folder for an attempt, which then has them.
    pub(crate) fn take(&self, order: &AttemptOrder, user: (u32, u32)) -> io::Result<()> {
        fs::create_dir_all(self.files())?;
        workspace::give(&self.files(), user)?;
        self.mark(order.number)
    }

    /// Puts what was gathered in the place of what is there, as of the attempt of this number.
    pub(crate) fn replace(&self, number: u32) -> io::Result<()> {
        workspace::remove(&self.files())?;
        fs::rename(self.incoming(), self.files())?;
        self.mark(number)
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        workspace::remove(&self.path)
    }
}

fn all(data: &Path) -> PathBuf {
    data.join("checkpoints")
}

/// Removes what no attempt will ask for: what was not used for `keep`, and what is above `most` in all, least
/// recently used first; all of it where the disk is `low`. Those of `living` jobs stay.
pub(crate) fn sweep(
    data: &Path,
    living: impl Fn() -> BTreeSet<JobId>,
    keep: Span,
    most: Option<ByteSize>,
    low: bool,
) {
    let (mut old, mut held) = (Vec::new(), 0);
    let alive = living();
    for name in names(&all(data)) {
        let Ok(job) = name.parse::<JobId>() else {
            continue;
        };
        let one = Checkpoints::of(data, &job);
        let size = size(&one.path);
        held += size;
        if !alive.contains(&job) {
            let used = one.used().ok().flatten();
            let at = used.map_or(Timestamp(0), |used| used.at);
            old.push((at, size, one, job));
        }
    }
    old.sort_by_key(|(at, ..)| *at);
    let now = Timestamp::now();
    for (at, size, one, job) in old {
        let too_much = most.is_some_and(|most| held > most.0);
        let due = low || too_much || now.since(at) >= keep;
        // Its next attempt may have come meanwhile.
        if !due || living().contains(&job) {
            continue;
        }
        match one.remove() {
            Ok(()) => held -= size,
            Err(error) => tracing::warn!("{} stays: {error}", one.path.display()),
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Bytes of a folder on the disk.
pub(crate) fn size(folder: &Path) -> u64 {
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

    fn made(data: &Path, at: i64, bytes: usize) -> JobId {
        let job = JobId::generate();
        let one = Checkpoints::of(data, &job);
        fs::create_dir_all(one.files()).unwrap();
        fs::write(one.files().join("model.pt"), vec![1; bytes]).unwrap();
        let used = Used {
            number: 1,
            at: Timestamp(Timestamp::now().0 - at * 1_000),
        };
        write_json(&one.used_file(), &used).unwrap();
        job
    }

    fn left(data: &Path, jobs: &[JobId]) -> Vec<bool> {
        let there = |job| Checkpoints::of(data, job).files().exists();
        jobs.iter().map(there).collect()
    }

    #[test]
    fn what_is_old_goes_and_what_lives_stays() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let jobs = [made(data, 10, 1), made(data, 100, 1), made(data, 100, 1)];
        let living = || [jobs[2].clone()].into();
        sweep(data, living, Span::secs(50), None, false);
        assert_eq!(left(data, &jobs), [true, false, true]);
        sweep(data, living, Span::secs(50), None, true);
        assert_eq!(left(data, &jobs), [false, false, true]);
    }

    #[test]
    fn an_attempt_that_never_had_them_is_not_their_last() {
        let data = tempfile::tempdir().unwrap();
        let none = Checkpoints::of(data.path(), &JobId::generate());
        none.leave(1).unwrap();
        assert_eq!(none.used().unwrap(), None);
        let one = Checkpoints::of(data.path(), &made(data.path(), 100, 1));
        let before = one.used().unwrap().unwrap();
        one.leave(2).unwrap();
        assert_eq!(one.used().unwrap(), Some(before));
        one.leave(1).unwrap();
        let after = one.used().unwrap().unwrap();
        assert!(after.number == 1 && after.at > before.at);
    }

    #[test]
    fn above_the_budget_the_longest_unused_go_first() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let mib = 1 << 20;
        let jobs = [
            made(data, 30, mib),
            made(data, 20, mib),
            made(data, 10, mib),
        ];
        let most = Some(ByteSize(5 << 19));
        sweep(data, BTreeSet::new, Span::hours(1), most, false);
        assert_eq!(left(data, &jobs), [false, true, true]);
    }
}
