//! Where environments lie: those that are ready in folders of the agent's own, those in the making where builds may
//! write. A build runs code that nobody knows: nothing that it left is trusted to be what it should be.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use protocol::{Digest, Failure, FailureKind, ProjectId, Span};
use rustix::fs::OFlags;

use super::{Environment, Ready, broken};
use crate::collect::small;
use crate::workspace;

/// Folders of environments, by the trust of the commits that they were built for.
const TRUSTED: &str = "trusted";
const UNTRUSTED: &str = "untrusted";
/// Above the workshops.
const BUILDING: &str = "building";
/// uv's cache in a workshop; and that of builds on the host itself, which follows no link that a container left.
const CACHE: &str = ".cache";
const HOST_CACHE: &str = ".uv";
/// The lock that builds share while they use a cache.
const CACHE_LOCK: &str = ".cache.lock";
/// What is on its way out begins so.
pub(super) const RUBBISH: &str = ".rubbish-";
/// Most bytes of a marker: a list of packages, in JSON.
const MOST_BYTES: u64 = 8 << 20;

/// The name of an environment's folder. Short: the path stands in every traceback, and some systems bound the
/// first line of a script to 127 bytes.
pub(crate) fn name_of(key: &Digest) -> String {
    key.as_str()[..24].to_owned()
}

/// The folders of environments that jobs share.
#[derive(Debug, Clone)]
pub(super) struct Root {
    /// Those that are ready, with their locks and markers: no container may write here, and none sees all of it.
    pub(super) ready: PathBuf,
    /// What a container that builds has, writable: uv's cache and what is in the making. Hard links do not cross mounts.
    pub(super) workshop: PathBuf,
}

impl Root {
    /// Of trusted commits, or of the untrusted ones of a project.
    pub(super) fn of(data: &Path, untrusted: Option<&ProjectId>) -> Self {
        let share = match untrusted {
            Some(project) => Path::new(UNTRUSTED).join(project.as_str()),
            None => PathBuf::from(TRUSTED),
        };
        Self::at(data, &share)
    }

    fn at(data: &Path, share: &Path) -> Self {
        let all = data.join("environments");
        Self {
            ready: all.join(share),
            workshop: all.join(BUILDING).join(share),
        }
    }

    /// All that there are.
    pub(super) fn all(data: &Path) -> Vec<Self> {
        let projects = entries(&data.join("environments").join(UNTRUSTED));
        let untrusted = projects
            .iter()
            .map(|path| Path::new(UNTRUSTED).join(path.file_name().unwrap_or_default()));
        let shares = untrusted.chain([PathBuf::from(TRUSTED)]);
        shares.map(|share| Self::at(data, &share)).collect()
    }

    /// Makes them. `builder` is as whom containers build, where any do.
    pub(super) fn make(&self, builder: Option<(u32, u32)>) -> io::Result<()> {
        fs::create_dir_all(&self.ready)?;
        fs::create_dir_all(&self.workshop)?;
        if let Some((uid, gid)) = builder
            && rustix::process::geteuid().is_root()
        {
            chown(&self.workshop, Some(uid), Some(gid))?;
            // Agents before this one let builds write here.
            chown(&self.ready, Some(0), Some(0))?;
        }
        Ok(())
    }

    /// uv's cache, for builds in containers, and for those on the host.
    pub(super) fn caches(&self) -> [PathBuf; 2] {
        [self.workshop.join(CACHE), self.host_cache()]
    }

    /// Where uv's cache lies below the workshop, wherever that is mounted.
    pub(super) fn cache_below(workshop: &Path) -> PathBuf {
        workshop.join(CACHE)
    }

    pub(super) fn host_cache(&self) -> PathBuf {
        self.ready.join(HOST_CACHE)
    }

    pub(super) fn cache_lock(&self) -> PathBuf {
        self.ready.join(CACHE_LOCK)
    }

    /// What builds left that did not come to their end. To be asked while none is at it: under the whole lock.
    pub(super) fn leftovers(&self) -> Vec<PathBuf> {
        let caches = self.caches();
        let halves = entries(&self.workshop);
        let unmarked = entries(&self.ready).into_iter().filter(|path| {
            let is_file = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
            let name = file_name(path);
            !is_file && !name.starts_with(RUBBISH) && !Place::named(self, name).marker.exists()
        });
        let found = halves.into_iter().chain(unmarked);
        found.filter(|path| !caches.contains(path)).collect()
    }
}

/// Files of one environment.
pub(super) struct Place {
    pub(super) root: Root,
    pub(super) name: String,
    pub(super) marker: PathBuf,
}

impl Place {
    pub(super) fn named(root: &Root, name: String) -> Self {
        Self {
            marker: root.ready.join(format!("{name}.json")),
            root: root.clone(),
            name,
        }
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.root.ready.join(&self.name)
    }

    /// Where a container builds it.
    fn in_the_making(&self) -> PathBuf {
        self.root.workshop.join(&self.name)
    }

    /// A folder for one build's files in and out.
    pub(super) fn scratch(&self) -> PathBuf {
        self.root.ready.join(format!("{}.build", self.name))
    }

    pub(super) fn ready(&self) -> Result<Option<Ready>, Failure> {
        let bytes = match small(&self.marker, MOST_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(broken(&self.marker, &error)),
        };
        let ready = serde_json::from_slice(&bytes)
            .map_err(|error| broken(&self.marker, &io::Error::from(error)))?;
        Ok(is_folder(&self.folder()).then_some(ready))
    }

    pub(super) fn environment(
        &self,
        key: Digest,
        ready: Ready,
        built_in: Option<Span>,
    ) -> Environment {
        Environment {
            key,
            folder: self.folder(),
            packages: ready.packages,
            python: ready.python,
            built_in,
        }
    }

    /// The versions that requirements without versions came to at the first build.
    pub(super) fn resolved(&self) -> PathBuf {
        self.root.ready.join(format!("{}.resolved", self.name))
    }

    pub(super) fn lock_file(&self) -> PathBuf {
        self.root.ready.join(format!("{}.lock", self.name))
    }

    /// Marks it as used now.
    pub(super) fn touch(&self) {
        let touched =
            File::open(&self.marker).and_then(|marker| marker.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::warn!("{}: {error}", self.marker.display());
        }
    }

    /// Takes what a container built to where no build can reach it, and only then looks at it: the code of a package
    /// may have put a link in its place, and the engine would follow that on the host.
    ///
    /// # Errors
    /// A failure of the user's, where it is no folder; the host's, where it cannot be moved.
    pub(super) fn take_in(&self) -> Result<(), Failure> {
        let (made, folder) = (self.in_the_making(), self.folder());
        match fs::rename(&made, &folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(broken(&made, &error));
            }
            Ok(()) | Err(_) => {}
        }
        if is_folder(&folder) {
            return Ok(());
        }
        Err(Failure::new(
            FailureKind::RequirementsUnresolved,
            "the environment was taken away or replaced while it was built",
        )
        .hint("Look at what the packages of the requirements do when they are built."))
    }

    /// Removes what an interrupted build left.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        for path in [self.marker.clone(), self.folder(), self.in_the_making()] {
            workspace::remove(&path).map_err(|error| broken(&path, &error))?;
        }
        Ok(())
    }
}

/// Opens the file of a lock, made where it is not there. A folder that builds could write to once may hold anything
/// by that name: no link is followed, and no pipe waited for.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a plain file; remove it"))
    }
}

/// Whether it is a folder itself, and no link to one.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn place(data: &Path) -> Place {
        let root = Root::of(data, None);
        root.make(None).unwrap();
        Place::named(&root, "a".into())
    }

    #[test]
    fn a_link_in_the_place_of_an_environment_is_none() {
        let data = tempfile::tempdir().unwrap();
        let place = place(data.path());
        symlink("/", place.in_the_making()).unwrap();
        let failure = place.take_in().unwrap_err();
        assert_eq!(failure.kind, FailureKind::RequirementsUnresolved);
        // One that lay there before: its marker makes it none either.
        fs::write(&place.marker, r#"{"packages": "", "python": "3"}"#).unwrap();
        assert!(place.ready().unwrap().is_none());
        place.clear().unwrap();
        assert!(fs::symlink_metadata(place.folder()).is_err());
        // And one that is gone.
        assert_eq!(
            place.take_in().unwrap_err().kind,
            FailureKind::RequirementsUnresolved
        );
        fs::create_dir(place.in_the_making()).unwrap();
        place.take_in().unwrap();
        assert!(place.folder().is_dir() && !place.in_the_making().exists());
    }

    #[test]
    fn a_lock_and_a_marker_are_plain_files() {
        let data = tempfile::tempdir().unwrap();
        let place = place(data.path());
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, place.lock_file(), kind, mode, 0).unwrap();
        assert!(open_lock(&place.lock_file()).is_err());
        let elsewhere = data.path().join("elsewhere");
        symlink(&elsewhere, place.root.cache_lock()).unwrap();
        assert!(open_lock(&place.root.cache_lock()).is_err());
        assert!(!elsewhere.exists());
        symlink("/dev/zero", &place.marker).unwrap();
        assert!(place.ready().is_err());
    }
}
