//! The folder of caches that a job shares with others of its project and trust: made, and measured before it runs.

use std::fs::{self, File};
use std::io;
use std::time::SystemTime;

use protocol::ByteSize;

use super::{Attempt, AttemptDir, cache_of, dir};
use crate::checkpoints::size;
use crate::workspace;

impl Attempt<'_> {
    /// Makes the folder where it is missing, marks it as used now, and notes what it holds: what it holds more from now on
    /// counts as the job's.
    pub(super) fn take_cache(&self) -> io::Result<()> {
        let cache = self.cache();
        // What is in it is its user's already, and may be much.
        if !cache.exists() {
            fs::create_dir_all(&cache)?;
            workspace::give(&cache, self.host.job_user)?;
        }
        // A job may have locked it.
        let marked = File::open(&cache).and_then(|cache| cache.set_modified(SystemTime::now()));
        if let Err(error) = marked {
            tracing::warn!(attempt = %self.order.attempt, "{}: {error}", cache.display());
        }
        let mut measured = self.measured();
        measured.cache_before = Some(self.cache_size());
        dir::write_json(&self.dir.usage_file(), &measured)
    }

    /// Whether another attempt that goes on has the same caches: who of them wrote there, nobody can tell.
    pub(super) fn shares_cache(&self) -> bool {
        let (data, mine) = (self.host.data(), self.cache());
        let entries = fs::read_dir(data.join("attempts")).into_iter().flatten();
        let others = entries
            .flatten()
            .map(|entry| AttemptDir::open(entry.path()));
        let mut others = others.filter(|other| other.path() != self.dir.path());
        others.any(|other| {
            let has_mine = other
                .order()
                .is_ok_and(|order| cache_of(data, &order) == mine);
            has_mine && matches!(other.report(), Ok(None))
        })
    }

    /// What the caches hold now. Walks.
    pub(super) fn cache_size(&self) -> ByteSize {
        // Other attempts share this runtime.
        ByteSize(tokio::task::block_in_place(|| size(&self.cache())))
    }
}
