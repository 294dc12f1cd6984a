//! Caches that jobs of a project share: removed where the disk lacks room, least recently used first. An attempt marks the
//! time of a folder when it takes it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use protocol::{AttemptId, ByteSize};

use super::keep;
use crate::attempt::{AttemptDir, cache_of, free};

/// A folder under this name is on its way out: half of one is never a job's cache.
const RUBBISH: &str = ".rubbish-";

/// Removes caches that no attempt uses until a quarter more than the watermark is free. Blocks; nothing that it meets is an
/// error.
pub(super) fn sweep(data: &Path, watermark: ByteSize) {
    let least = ByteSize(watermark.0.saturating_add(watermark.0 / 4));
    let projects = entries(&data.join("caches"));
    let folders = projects.iter().flat_map(|project| entries(project));
    let (rubbish, caches): (Vec<PathBuf>, Vec<PathBuf>) =
        folders.partition(|folder| name_of(folder).starts_with(RUBBISH));
    rubbish.iter().for_each(|folder| keep::remove_all(folder));
    let mut caches: Vec<(SystemTime, PathBuf)> = caches
        .into_iter()
        .filter_map(|cache| Some((fs::metadata(&cache).ok()?.modified().ok()?, cache)))
        .collect();
    caches.sort_unstable();
    for (_, cache) in caches {
        if free(data).is_none_or(|free| free >= least) {
            return;
        }
        match aside(data, &cache) {
            Ok(Some(aside)) => {
                keep::remove_all(&aside);
                tracing::info!(
                    "removed {}: less than the watermark of {watermark} was free on the disk",
                    cache.display()
                );
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("{} stays: {error}", cache.display()),
        }
    }
}

/// Sets a cache aside, ready to be removed. None: it is in use. An attempt that begins just now takes it a checkout later,
/// and then makes it anew.
fn aside(data: &Path, cache: &Path) -> io::Result<Option<PathBuf>> {
    if in_use(data)?.contains(cache) {
        return Ok(None);
    }
    let aside = cache.with_file_name(format!("{RUBBISH}{}", name_of(cache)));
    fs::rename(cache, &aside)?;
    Ok(Some(aside))
}

/// The caches of attempts that go on, of an agent or of a person's run. An order that cannot be read is an error: then
/// nobody knows.
fn in_use(data: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for path in entries(&data.join("attempts")) {
        let dir = AttemptDir::open(&path);
        if name_of(&path).parse::<AttemptId>().is_err() || keep::is_reported(&dir) {
            continue;
        }
        match dir.order() {
            Ok(order) => found.insert(cache_of(data, &order)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
    }
    Ok(found)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::Trust;

    use super::*;
    use crate::service::world;

    /// An attempt whose cache was last used so many seconds ago.
    fn attempt(data: &Path, trust: Trust, age: u64) -> (AttemptDir, PathBuf) {
        let mut order = world::order();
        order.trust = trust;
        let dir = AttemptDir::create(data, &order).unwrap();
        let cache = cache_of(data, &order);
        fs::create_dir_all(cache.join("huggingface")).unwrap();
        let used = SystemTime::now() - Duration::from_secs(age);
        let folder = fs::File::open(&cache).unwrap();
        folder.set_modified(used).unwrap();
        (dir, cache)
    }

    #[test]
    fn caches_that_nobody_uses_go_where_there_is_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let [(over, old), (_, used)] = [(Trust::Untrusted, 300), (Trust::Trusted, 400)]
            .map(|(trust, age)| attempt(data, trust, age));
        fs::write(over.path().join("reported"), "").unwrap();
        sweep(data, ByteSize(0));
        assert!(old.exists(), "there is room");
        let half_gone = old.with_file_name(".rubbish-trusted");
        fs::create_dir(&half_gone).unwrap();
        sweep(data, ByteSize(u64::MAX));
        assert_eq!(
            [&old, &used, &half_gone].map(|cache| cache.exists()),
            [false, true, false]
        );
        assert!(entries(old.parent().unwrap()).is_empty());
        // Nobody knows what is in use: nothing goes.
        let (unread, cache) = attempt(data, Trust::Trusted, 300);
        fs::write(unread.order_file(), "{").unwrap();
        sweep(data, ByteSize(u64::MAX));
        assert!(cache.exists() && used.exists());
    }
}
