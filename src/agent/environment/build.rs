//! Building an environment: `uv`, mounted into a container of the job's image, or on the host itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use protocol::outcome::LimitReached;
use protocol::spec::Network;
use protocol::{Failure, FailureKind, Span};
use rustix::process::{Pid, Signal};

use super::inputs::{Inputs, Kind};
use super::place::{Place, Root};
use super::{MOUNT, NotReady, Ready, Request, broken, index, words};
use crate::attempt::Control;
use crate::collect::small;
use crate::executor::{ContainerSpec, Engine, Image, MountSpec};
use crate::host::Host;
use crate::workspace;

const SCRIPT: &str = include_str!("build.sh");
/// Label of a container that builds; its value is the environment's folder.
const LABEL: &str = "trainyard.environment";
/// Most bytes of a build's words, and of its list of packages.
const MOST_BYTES: u64 = 1 << 20;
/// Where the script's files are in a container: beside what builds share, so that no other one reaches them.
const SCRATCH: &str = "/trainyard-build";
/// How long the host's Python may take to say its version.
const PYTHON_WITHIN: Duration = Duration::from_secs(30);
/// The host's Python, by path and version, for keys of environments without a container.
pub(super) async fn host_python() -> Result<String, Failure> {
    let asked = tokio::process::Command::new("python3")
        .args([
            "-c",
            "import sys, platform; print(sys.executable, platform.python_version())",
        ])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(PYTHON_WITHIN, asked).await {
        Ok(Ok(output)) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(Ok(_) | Err(_)) | Err(_) => Err(Failure::new(
            FailureKind::ExecutorFailed,
            "there is no python3 on this host that answers",
        )
        .hint("Install Python, or run the job in a container.")),
    }
}

/// Builds it. What an interrupted build left is removed first, and what this one leaves where it does not succeed.
pub(super) async fn build(
    host: &Host,
    request: &Request<'_>,
    inputs: &Inputs,
    place: &Place,
    deadline: Instant,
    control: &Control,
) -> Result<Ready, NotReady> {
    place.clear()?;
    let built = build_once(host, request, inputs, place, deadline, control).await;
    if built.is_err()
        && let Err(failure) = place.clear()
    {
        tracing::warn!("what a build left stays for now: {}", failure.message);
    }
    built
}

async fn build_once(
    host: &Host,
    request: &Request<'_>,
    inputs: &Inputs,
    place: &Place,
    deadline: Instant,
    control: &Control,
) -> Result<Ready, NotReady> {
    let uv = host.uv.as_deref().ok_or_else(|| {
        Failure::new(FailureKind::ExecutorFailed, "the program `uv`, which builds Python environments, is not on this host")
            .hint("Install it (`pip install uv`; a release has it in `lib/trainyard`), or set `uv` under `[python]` in the agent's configuration.")
    })?;
    let scratch = Scratch::make(host, place, inputs)?;
    let ended = match request.container {
        Some((engine, image)) => {
            in_container(
                host, request, engine, image, uv, place, &scratch, deadline, control,
            )
            .await?
        }
        None => on_host(host, request, uv, place, &scratch, deadline, control).await?,
    };
    let output = scratch.read("log");
    match ended {
        Some(0) => {
            if request.container.is_some() {
                place.take_in()?;
            }
            let packages = scratch.read("packages.txt");
            let resolved = place.resolved();
            replace(&resolved, packages.as_bytes()).map_err(|error| broken(&resolved, &error))?;
            Ok(Ready {
                packages,
                python: scratch.read("python.txt"),
            })
        }
        Some(97) => Err(Failure::new(FailureKind::ImageUnusable, "the image has no Python")
            .hint("Choose an image with Python and ipykernel, such as trainyard/notebook, or leave `python:` out.")
            .into()),
        Some(_) => {
            let asked = index::asked(&index::variables(host, request.trust));
            Err(words::failure(&output, &asked).into())
        }
        None => {
            let limit: Span = host.config.python.build_timeout;
            Err(Failure::new(FailureKind::JobTimeout, format!("building the Python environment took longer than {limit}"))
                .hint("Pin the requirements, or raise `build_timeout` under `[python]` in the agent's configuration.")
                .limit(LimitReached::Time { limit })
                .detail(output)
                .into())
        }
    }
}

/// Replaces a file whole: a link that a build put in its place is replaced, not followed.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// A folder for one build: the script's files in and out.
struct Scratch {
    path: PathBuf,
    kind: &'static str,
    /// Relative to the workspace, or to this folder for a block.
    input: String,
}

impl Scratch {
    fn make(host: &Host, place: &Place, inputs: &Inputs) -> Result<Self, Failure> {
        let path = place.scratch();
        let made = || {
            workspace::remove(&path)?;
            fs::create_dir_all(path.join("tmp"))?;
            fs::write(path.join("build.sh"), SCRIPT)?;
            if let Kind::Block(block) = &inputs.kind {
                fs::write(path.join("block.py"), block)?;
            }
            if let Ok(resolved) = small(&place.resolved(), MOST_BYTES) {
                fs::write(path.join("resolved.txt"), resolved)?;
            }
            workspace::give(&path, host.job_user)
        };
        made().map_err(|error| broken(&path, &error))?;
        let (kind, input) = match &inputs.kind {
            Kind::File(path) => ("file", path.clone()),
            Kind::Lock(folder) if folder.is_empty() => ("lock", ".".to_owned()),
            Kind::Lock(folder) => ("lock", folder.clone()),
            Kind::Block(_) => ("block", "block.py".to_owned()),
        };
        Ok(Self { path, kind, input })
    }

    /// A file that the build left. What is installed may run code of its own there: no link is followed.
    fn read(&self, name: &str) -> String {
        let bytes = small(&self.path.join(name), MOST_BYTES).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The script's variables, for these places as the script sees them.
    fn variables(
        &self,
        target: &Path,
        cache: &Path,
        scratch: &Path,
        workspace: &Path,
        uv: &Path,
    ) -> BTreeMap<String, String> {
        let show = |path: &Path| path.display().to_string();
        let input = match self.kind {
            "block" => show(&scratch.join(&self.input)),
            _ => show(&workspace.join(&self.input)),
        };
        [
            ("UV", show(uv)),
            ("TARGET", show(target)),
            ("RESULT", show(scratch)),
            ("SCRATCH", show(&scratch.join("tmp"))),
            ("WORKSPACE", show(workspace)),
            ("KIND", self.kind.to_owned()),
            ("INPUT", input),
            ("UV_CACHE_DIR", show(cache)),
            ("UV_LINK_MODE", "hardlink".to_owned()),
            ("UV_PYTHON_DOWNLOADS", "never".to_owned()),
            ("UV_NO_PROGRESS", "1".to_owned()),
            ("HOME", show(&scratch.join("tmp"))),
            ("TMPDIR", show(&scratch.join("tmp"))),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = workspace::remove(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The authorities to trust: from the configuration, else the agent's environment.
fn ca_bundle(host: &Host) -> Option<PathBuf> {
    let own = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    host.config
        .python
        .ca_bundle
        .clone()
        .or(own)
        .filter(|path| path.is_file())
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call, and each is a thing of its own"
)]
async fn in_container(
    host: &Host,
    request: &Request<'_>,
    engine: &Engine,
    image: &Image,
    uv: &Path,
    place: &Place,
    scratch: &Scratch,
    deadline: Instant,
    control: &Control,
) -> Result<Option<i64>, NotReady> {
    let root = Path::new(MOUNT);
    let inside = Path::new(SCRATCH);
    let mut env = image.env.clone();
    env.extend(index::variables(host, request.trust));
    env.extend(scratch.variables(
        &root.join(&place.name),
        &Root::cache_below(root),
        inside,
        Path::new("/workspace"),
        Path::new("/trainyard-uv"),
    ));
    let mut mounts = vec![
        MountSpec::writable(&place.root.workshop, MOUNT),
        MountSpec::writable(&scratch.path, SCRATCH),
        MountSpec::read_only(request.workspace, "/workspace"),
        MountSpec::read_only(uv, "/trainyard-uv"),
        MountSpec::writable(scratch.path.join("tmp"), "/tmp"),
    ];
    if let Some(bundle) = ca_bundle(host) {
        mounts.push(MountSpec::read_only(bundle, "/trainyard-ca.pem"));
        env.insert("SSL_CERT_FILE".into(), "/trainyard-ca.pem".into());
    }
    let label = place.folder().display().to_string();
    let mut labels = BTreeMap::from([(LABEL.to_owned(), label)]);
    let refused = |error: crate::executor::EngineError| {
        Failure::new(
            FailureKind::ExecutorFailed,
            format!("the container that builds the environment could not be started: {error}"),
        )
    };
    // One that an earlier agent left is ended: its environment would be half-built.
    for found in engine.find(&labels).await.map_err(refused)? {
        found.container.remove().await;
    }
    labels.extend(request.labels.clone());
    let (uid, gid) = host.job_user;
    let spec = ContainerSpec {
        name: format!(
            "trainyard-environment-{}-{}",
            place.name,
            std::process::id()
        ),
        image: image.id.clone(),
        argv: [
            "sh",
            "-c",
            r#"exec sh "$RESULT/build.sh" >"$RESULT/log" 2>&1"#,
        ]
        .map(str::to_owned)
        .to_vec(),
        user: format!("{uid}:{gid}"),
        workdir: "/workspace".into(),
        env,
        labels,
        mounts,
        network: Network::Full,
        capabilities: &[],
        memory: None,
        cpu_millis: None,
        processes: Some(host.config.jobs.processes),
        shm: None,
        gpus: Vec::new(),
    };
    let container = engine.create(&spec).await.map_err(refused)?;
    let started = container.start().await.map_err(refused);
    let ended = match started {
        Ok(()) => tokio::select! {
            exit = container.wait() => Ok(Some(exit.code.unwrap_or(-1))),
            () = tokio::time::sleep_until(deadline.into()) => Ok(None),
            reason = control.stopped() => Err(NotReady::Stopped(reason)),
        },
        Err(failure) => Err(failure.into()),
    };
    if !container.remove().await {
        let message = "the container that built the environment does not go";
        let failure = Failure::new(FailureKind::ExecutorFailed, message)
            .hint("Look at the engine (`trainyard doctor`): what may still be written to is no environment.");
        return Err(failure.into());
    }
    ended
}

async fn on_host(
    host: &Host,
    request: &Request<'_>,
    uv: &Path,
    place: &Place,
    scratch: &Scratch,
    deadline: Instant,
    control: &Control,
) -> Result<Option<i64>, NotReady> {
    let log = scratch.path.join("log");
    let file = fs::File::create(&log).map_err(|error| broken(&log, &error))?;
    let mut command = tokio::process::Command::new("sh");
    command
        .arg(scratch.path.join("build.sh"))
        .envs(index::variables(host, request.trust))
        .envs(scratch.variables(
            &place.folder(),
            &place.root.host_cache(),
            &scratch.path,
            request.workspace,
            uv,
        ))
        // The Python that the key names may be a shim that looks into the agent's HOME.
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(|error| broken(&log, &error))?)
        .stderr(file)
        .process_group(0)
        .kill_on_drop(true);
    if let Some(bundle) = ca_bundle(host) {
        command.env("SSL_CERT_FILE", bundle);
    }
    let mut child = command.spawn().map_err(|error| {
        Failure::new(
            FailureKind::ExecutorFailed,
            format!("`sh` could not be started: {error}"),
        )
    })?;
    let group = Group::of(&child);
    tokio::select! {
        status = child.wait() => {
            group.ended();
            Ok(Some(status.ok().and_then(|s| s.code()).map_or(-1, i64::from)))
        }
        () = tokio::time::sleep_until(deadline.into()) => Ok(None),
        reason = control.stopped() => Err(NotReady::Stopped(reason)),
    }
}

/// The processes of a build on the host: killed with all that it started, unless it came to its end.
struct Group(Option<Pid>);

impl Group {
    /// Of a child that leads a process group, and was not waited for yet.
    fn of(child: &tokio::process::Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_build_that_is_broken_off_ends_with_all_that_it_started() {
        use tokio::io::{AsyncBufReadExt as _, BufReader};

        let mut child = tokio::process::Command::new("sh")
            .args(["-c", "sleep 600 & echo $!; wait"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let started = lines.next_line().await.unwrap().unwrap();
        drop(Group::of(&child));
        child.wait().await.unwrap();
        // Killed, and perhaps not reaped yet by who has it now.
        let stat = format!("/proc/{started}/stat");
        let ended = Instant::now() + Duration::from_secs(5);
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < ended, "it still runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn links_that_a_build_left_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("host"), "the host's").unwrap();
        for link in ["packages.txt", "v.resolved"] {
            std::os::unix::fs::symlink(path("host"), path(link)).unwrap();
        }
        let scratch = Scratch {
            path: folder.path().to_owned(),
            kind: "file",
            input: String::new(),
        };
        assert_eq!(scratch.read("packages.txt"), "");
        replace(&path("v.resolved"), b"six==1.17.0\n").unwrap();
        assert_eq!(scratch.read("v.resolved"), "six==1.17.0\n");
        assert_eq!(fs::read_to_string(path("host")).unwrap(), "the host's");
    }
}
