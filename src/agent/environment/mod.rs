//! Python environments: built once for each key by `uv`, on top of the image's own Python, then read-only for
//! every job with that key. It knows neither attempts nor the server.

mod build;
mod index;
mod inputs;
mod prune;
mod words;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use protocol::spec::PythonSource;
use protocol::{Digest, Failure, FailureKind, ProjectId, Span, Trust};
use serde::{Deserialize, Serialize};

use crate::attempt::{Control, StopReason, in_use, read_json, write_json};
use crate::executor::{Engine, Image};
use crate::host::Host;
use crate::workspace;

pub(crate) use inputs::Inputs;
pub(crate) use prune::{InUse, prune};

/// Where environments lie in a container.
pub(crate) const MOUNT: &str = "/environments";
/// Folders of environments, by the trust of the commits that they were built for.
const TRUSTED: &str = "trusted";
const UNTRUSTED: &str = "untrusted";
/// uv's cache, in each of them; and the lock that builds share while they use it.
const CACHE: &str = ".cache";
const CACHE_LOCK: &str = ".cache.lock";
/// What is on its way out begins so.
const RUBBISH: &str = ".rubbish-";

/// An environment that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// Its key.
    pub(crate) key: Digest,
    /// Its folder on this host.
    pub(crate) folder: PathBuf,
    /// What was installed, one `name==version` a line, sorted.
    pub(crate) packages: String,
    /// Python's version.
    pub(crate) python: String,
    /// How long building took; none where it was there already.
    pub(crate) built_in: Option<Span>,
}

/// What stands in `<key>.json` beside a finished environment; without it there is none.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    packages: String,
    python: String,
}

/// Why there is no environment.
#[derive(Debug)]
pub(crate) enum NotReady {
    /// It cannot be made.
    Failed(Failure),
    /// Somebody asked to stop.
    Stopped(StopReason),
}

impl From<Failure> for NotReady {
    fn from(failure: Failure) -> Self {
        NotReady::Failed(failure)
    }
}

/// What an environment is made from.
pub(crate) struct Request<'a> {
    pub(crate) source: &'a PythonSource,
    pub(crate) workspace: &'a Path,
    pub(crate) trust: Trust,
    pub(crate) project: &'a ProjectId,
    /// Labels of a container that builds.
    pub(crate) labels: BTreeMap<String, String>,
    /// The engine and image to build in; none: on the host itself.
    pub(crate) container: Option<(&'a Engine, &'a Image)>,
}

/// Finds the environment, or builds it. Of those that want the same at once one builds and the others wait.
pub(crate) async fn prepare(
    host: &Host,
    request: &Request<'_>,
    control: &Control,
) -> Result<Environment, NotReady> {
    let inputs = Inputs::read(request.source, request.workspace)?;
    let base = match request.container {
        Some((_, image)) => image.id.clone(),
        None => format!("host {}", build::host_python().await?),
    };
    let key = inputs.key(&base, &host.inventory.platform);
    let root = root(host, request).map_err(|error| broken(host.data(), &error))?;
    let place = Place::new(&root, &key);
    let deadline = Instant::now() + Duration::from(host.config.python.build_timeout);
    let _lock = lock(&place.lock_file(), File::try_lock, deadline, control).await?;
    if let Some(ready) = place.ready()? {
        place.touch();
        return Ok(place.environment(key, ready, None));
    }
    make_room(host).await;
    let cache = root.join(CACHE_LOCK);
    let _cache = lock(&cache, File::try_lock_shared, deadline, control).await?;
    let began = Instant::now();
    let ready = build::build(host, request, &inputs, &place, deadline, control).await?;
    write_json(&place.marker, &ready).map_err(|error| broken(&place.marker, &error))?;
    Ok(place.environment(key, ready, Some(began.elapsed().into())))
}

/// Removes environments and caches before another one is built.
async fn make_room(host: &Host) {
    let (data, disk) = (host.data().to_owned(), host.config.disk.clone());
    let pruned = tokio::task::spawn_blocking(move || prune(&data, &disk, || in_use(&data))).await;
    if let Err(error) = pruned {
        tracing::error!("making room for environments broke off: {error}");
    }
}

/// The folder of all environments that a job may share, with uv's cache in it: hard links do not cross mounts. Those
/// of untrusted commits are each project's own: who builds there may change what lies there.
fn root(host: &Host, request: &Request<'_>) -> io::Result<PathBuf> {
    let all = host.data().join("environments");
    let root = match request.trust {
        Trust::Untrusted => all.join(UNTRUSTED).join(request.project.as_str()),
        Trust::Trusted => all.join(TRUSTED),
    };
    std::fs::create_dir_all(&root)?;
    if host.config.executors.docker && rustix::process::geteuid().is_root() {
        let (uid, gid) = host.job_user;
        std::os::unix::fs::chown(&root, Some(uid), Some(gid))?;
    }
    Ok(root)
}

/// The folders that there are, as [`root`] makes them.
fn roots(data: &Path) -> Vec<PathBuf> {
    let all = data.join("environments");
    let projects = std::fs::read_dir(all.join(UNTRUSTED));
    let projects = projects.into_iter().flatten().flatten();
    let untrusted = projects.map(|entry| entry.path());
    untrusted.chain([all.join(TRUSTED)]).collect()
}

/// The name of an environment's folder. Short: the path stands in every traceback, and some systems bound the
/// first line of a script to 127 bytes.
pub(crate) fn name_of(key: &Digest) -> String {
    key.as_str()[..24].to_owned()
}

/// Files of one environment.
struct Place {
    root: PathBuf,
    name: String,
    marker: PathBuf,
}

impl Place {
    fn new(root: &Path, key: &Digest) -> Self {
        Self::named(root, name_of(key))
    }

    fn named(root: &Path, name: String) -> Self {
        Self {
            marker: root.join(format!("{name}.json")),
            root: root.to_owned(),
            name,
        }
    }

    fn folder(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    fn ready(&self) -> Result<Option<Ready>, Failure> {
        let ready = read_json(&self.marker).map_err(|error| broken(&self.marker, &error))?;
        Ok(ready.filter(|_| self.folder().is_dir()))
    }

    fn environment(&self, key: Digest, ready: Ready, built_in: Option<Span>) -> Environment {
        Environment {
            key,
            folder: self.folder(),
            packages: ready.packages,
            python: ready.python,
            built_in,
        }
    }

    /// The versions that requirements without versions came to at the first build.
    fn resolved(&self) -> PathBuf {
        self.root.join(format!("{}.resolved", self.name))
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join(format!("{}.lock", self.name))
    }

    /// Marks it as used now.
    fn touch(&self) {
        let touched =
            File::open(&self.marker).and_then(|marker| marker.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::warn!("{}: {error}", self.marker.display());
        }
    }

    /// Removes what an interrupted build left.
    fn clear(&self) -> Result<(), Failure> {
        for path in [self.marker.clone(), self.folder()] {
            workspace::remove(&path).map_err(|error| broken(&path, &error))?;
        }
        Ok(())
    }
}

/// Takes a lock; it is given back when the file is closed, or its process ends.
async fn lock(
    path: &Path,
    take: impl Fn(&File) -> Result<(), TryLockError>,
    deadline: Instant,
    control: &Control,
) -> Result<File, NotReady> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(|error| broken(path, &error))?;
    loop {
        match take(&file) {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(NotReady::Failed(Failure::new(
                    FailureKind::Internal,
                    format!(
                        "another job has been building the same environment for too long ({})",
                        path.display()
                    ),
                )));
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(broken(path, &error).into()),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
            reason = control.stopped() => return Err(NotReady::Stopped(reason)),
        }
    }
}

fn broken(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        FailureKind::Internal,
        format!("cannot use {} for environments: {error}", path.display()),
    )
    .hint("Look at the disk of the agent's data folder (`trainyard doctor`).")
}
