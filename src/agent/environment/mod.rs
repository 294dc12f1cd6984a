//! Python environments: built once for each key by `uv`, on top of the image's own Python, then read-only for
//! every job with that key. It knows neither attempts nor the server.

mod build;
mod index;
mod inputs;
mod local;
mod place;
mod prune;
mod words;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::spec::PythonSource;
use protocol::{Digest, Failure, FailureKind, ProjectId, Span, Trust};
use serde::{Deserialize, Serialize};

use crate::attempt::{Control, StopReason, in_use, write_json};
use crate::executor::{Engine, Image};
use crate::host::Host;

pub(crate) use inputs::Inputs;
pub(crate) use place::name_of;
pub(crate) use prune::{InUse, prune};

use place::{Place, Root, open_lock};

/// Where environments lie in a container.
pub(crate) const MOUNT: &str = "/environments";

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
    /// Names the workspace's files: the project's, and the commit, or something else that is no other's.
    pub(crate) code: String,
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
    let key = inputs.key(&base, &host.inventory.platform, &request.code);
    let root = root(host, request).map_err(|error| broken(host.data(), &error))?;
    let place = Place::named(&root, name_of(&key));
    let deadline = Instant::now() + Duration::from(host.config.python.build_timeout);
    let _lock = lock(&place.lock_file(), File::try_lock, deadline, control).await?;
    if let Some(ready) = place.ready()? {
        place.touch();
        return Ok(place.environment(key, ready, None));
    }
    make_room(host).await;
    let _cache = lock(&root.cache_lock(), File::try_lock_shared, deadline, control).await?;
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

/// The folders of the environments that a job may share. Those of untrusted commits are each project's own: who builds
/// there may change what lies in the workshop.
fn root(host: &Host, request: &Request<'_>) -> io::Result<Root> {
    let untrusted = match request.trust {
        Trust::Untrusted => Some(request.project),
        Trust::Trusted => None,
    };
    let root = Root::of(host.data(), untrusted);
    root.make(host.config.executors.docker.then_some(host.job_user))?;
    Ok(root)
}

/// Takes a lock; it is given back when the file is closed, or its process ends.
async fn lock(
    path: &Path,
    take: impl Fn(&File) -> Result<(), TryLockError>,
    deadline: Instant,
    control: &Control,
) -> Result<File, NotReady> {
    let file = open_lock(path).map_err(|error| broken(path, &error))?;
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
