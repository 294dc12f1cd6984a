//! Python environments: built once for each key by `uv`, on top of the image's own Python, then read-only for
//! every job with that key. It knows neither attempts nor the server.

mod build;
mod inputs;
mod words;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::spec::PythonSource;
use protocol::{Digest, Failure, FailureKind, Span, Trust};
use serde::{Deserialize, Serialize};

use crate::attempt::dir::{read_json, write_json};
use crate::attempt::{Control, StopReason};
use crate::executor::{Engine, Image};
use crate::host::Host;
use crate::workspace;

pub(crate) use inputs::Inputs;

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
    pub(crate) trust: Trust,
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
        None => format!("host {}", build::host_python()?),
    };
    let key = inputs.key(&base, &host.inventory.platform);
    let root = root(host, request.trust).map_err(|error| broken(host.data(), &error))?;
    let place = Place::new(&root, &key);
    if let Some(ready) = place.ready()? {
        return Ok(place.environment(key, ready, None));
    }
    let deadline = Instant::now() + Duration::from(host.config.python.build_timeout);
    let _lock = place.lock(deadline, control).await?;
    if let Some(ready) = place.ready()? {
        return Ok(place.environment(key, ready, None));
    }
    let began = Instant::now();
    let ready = build::build(host, request, &inputs, &place, deadline, control).await?;
    write_json(&place.marker, &ready).map_err(|error| broken(&place.marker, &error))?;
    Ok(place.environment(key, ready, Some(began.elapsed().into())))
}

/// The folder of all environments of one trust, with uv's cache in it: hard links do not cross mounts.
fn root(host: &Host, trust: Trust) -> io::Result<PathBuf> {
    let word = match trust {
        Trust::Untrusted => "untrusted",
        Trust::Trusted => "trusted",
    };
    let root = host.data().join("environments").join(word);
    std::fs::create_dir_all(&root)?;
    if host.config.executors.docker && rustix::process::geteuid().is_root() {
        let (uid, gid) = host.job_user;
        std::os::unix::fs::chown(&root, Some(uid), Some(gid))?;
    }
    Ok(root)
}

/// Files of one environment.
struct Place {
    root: PathBuf,
    name: String,
    marker: PathBuf,
}

impl Place {
    fn new(root: &Path, key: &Digest) -> Self {
        // Short: the path stands in every traceback, and some systems bound the first line of a script to 127 bytes.
        let name = key.as_str()[..24].to_owned();
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

    /// Takes the lock of this environment; it is given back when the file is closed, or its process ends.
    async fn lock(&self, deadline: Instant, control: &Control) -> Result<File, NotReady> {
        let path = self.root.join(format!("{}.lock", self.name));
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|error| broken(&path, &error))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                    return Err(NotReady::Failed(Failure::new(
                        FailureKind::Internal,
                        format!(
                            "another job has been building the same environment for too long ({})",
                            self.name
                        ),
                    )));
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(broken(&path, &error).into()),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                reason = control.stopped() => return Err(NotReady::Stopped(reason)),
            }
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

fn broken(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        FailureKind::Internal,
        format!("cannot use {} for environments: {error}", path.display()),
    )
    .hint("Look at the disk of the agent's data folder (`trainyard doctor`).")
}
