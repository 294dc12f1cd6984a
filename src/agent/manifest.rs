//! What a volume holds, by names, sizes and times alone: enough to see that it changed, never a proof that it did not. No
//! content is read, and the look is bounded.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::report::VolumeManifest;
use protocol::{ByteSize, Digest};
use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

/// Most entries that are looked at.
const MOST_ENTRIES: u64 = 100_000;

/// Looks at a folder for at most `most`. What was not reached leaves the manifest not whole; where the time was over it has
/// no hash, since another look would end elsewhere.
pub(crate) fn manifest(name: &str, folder: &Path, most: Duration) -> VolumeManifest {
    bounded(name, folder, most, MOST_ENTRIES)
}

fn bounded(name: &str, folder: &Path, most: Duration, entries: u64) -> VolumeManifest {
    let began = Instant::now();
    let mut hasher = Sha256::new();
    let (mut files, mut bytes, mut seen) = (0, 0_u64, 0);
    let (mut whole, mut late) = (true, false);
    let walk = WalkDir::new(folder)
        .follow_links(false)
        .same_file_system(true)
        .min_depth(1)
        .sort_by_file_name();
    for entry in walk {
        late = began.elapsed() >= most;
        if seen == entries || late {
            whole = false;
            break;
        }
        seen += 1;
        // What cannot be read is what the job cannot rely on either; that it is there counts.
        let Ok(entry) = entry else {
            whole = false;
            continue;
        };
        let Ok(meta) = fs::symlink_metadata(entry.path()) else {
            whole = false;
            continue;
        };
        if meta.is_dir() {
            continue;
        }
        files += 1;
        bytes = bytes.saturating_add(meta.len());
        let path = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        hasher.update(path.as_os_str().as_encoded_bytes());
        let line = format!(
            "\0{}\0{}.{:09}\n",
            meta.len(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        hasher.update(line);
    }
    VolumeManifest {
        name: name.to_owned(),
        files,
        bytes: ByteSize(bytes),
        digest: (!late).then(|| Digest::from_hasher(hasher)),
        whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_tells_that_something_changed_without_reading_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        for (path, text) in [("a", "one"), ("deep/b", "two"), ("deep/c", "three")] {
            fs::write(folder.path().join(path), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc", folder.path().join("out")).unwrap();
        let first = manifest("data", folder.path(), LONG);
        assert_eq!((first.files, first.whole), (4, true));
        assert_eq!(manifest("data", folder.path(), LONG), first);
        let file = fs::File::options()
            .write(true)
            .open(folder.path().join("a"));
        let earlier = std::time::SystemTime::UNIX_EPOCH;
        file.unwrap().set_modified(earlier).unwrap();
        let touched = manifest("data", folder.path(), LONG);
        assert_ne!(touched.digest, first.digest);
        fs::rename(folder.path().join("a"), folder.path().join("z")).unwrap();
        assert_ne!(manifest("data", folder.path(), LONG).digest, touched.digest);
    }

    #[test]
    fn a_large_volume_costs_no_more_than_its_bounds() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..10 {
            fs::write(folder.path().join(format!("{n}")), "x").unwrap();
        }
        let some = bounded("data", folder.path(), LONG, 4);
        assert_eq!((some.files, some.whole), (4, false));
        assert!(some.digest.is_some(), "the same ones each time");
        let late = bounded("data", folder.path(), Duration::ZERO, 4);
        assert_eq!((late.files, late.whole, late.digest), (0, false, None));
        let gone = manifest("data", &folder.path().join("gone"), LONG);
        assert!(!gone.whole);
    }
}
