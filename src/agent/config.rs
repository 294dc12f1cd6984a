//! The agent's configuration file (TOML) with its defaults. It reads text and knows neither the engine nor
//! the server.

mod check;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::driver::OutputLimits;
use protocol::hardware::VolumeGrant;
use protocol::{ByteSize, Span};
use serde::Deserialize;

/// All settings of an agent. Every key may be left out; unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name on screens, unique among agents; the host's name where it is left out.
    pub name: Option<String>,
    /// URL of the server, such as `https://trainyard.example`. `trainyard run` needs none.
    pub server: Option<String>,
    /// PEM file of authorities to trust for the server's TLS, besides the system's.
    pub server_ca: Option<PathBuf>,
    /// Folder for everything that the agent keeps (see ARCHITECTURE.md).
    pub data: PathBuf,
    /// Labels that `runs_on` asks for.
    pub labels: Vec<String>,
    /// What jobs may use of this host.
    pub capacity: Capacity,
    /// How attempts are isolated.
    pub executors: Executors,
    /// How jobs are run.
    pub jobs: Jobs,
    /// How Python environments are built.
    pub python: Python,
    /// Folders of this host that jobs may mount, by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Disk.
    pub disk: Disk,
    /// GPUs.
    pub gpus: Gpus,
    /// Time between two polls' answers and the like.
    pub timing: Timing,
}

/// What jobs may use of this host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capacity {
    /// CPUs, such as `7.5`; all where it is left out.
    pub cpus: Option<f64>,
    /// Memory; all but an eighth (at least 512 MiB) where it is left out.
    #[serde(with = "human::optional")]
    pub memory: Option<ByteSize>,
}

/// How attempts are isolated.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Executors {
    /// Run jobs in containers.
    pub docker: bool,
    /// The engine's socket, such as `unix:///run/podman/podman.sock`; `$DOCKER_HOST`, else Docker's own,
    /// where it is left out.
    pub docker_host: Option<String>,
    /// Run jobs as processes of the agent's user, **not isolated at all**, where there is no engine.
    pub shell: bool,
}

impl Default for Executors {
    fn default() -> Self {
        Self {
            docker: true,
            docker_host: None,
            shell: false,
        }
    }
}

/// How jobs are run.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jobs {
    /// User id of a job's processes in its container; the agent's own where that is not root, else 1000.
    pub uid: Option<u32>,
    /// Group id; as for `uid`.
    pub gid: Option<u32>,
    /// Processes and threads that one job may have.
    pub processes: u64,
    /// What one job may say in all; past it the job is ended.
    #[serde(with = "human")]
    pub output: ByteSize,
    /// What one cell may say in the executed notebook; the rest becomes an artifact.
    #[serde(with = "human")]
    pub cell_output: ByteSize,
    /// What all cells may say in the executed notebook; the rest becomes artifacts.
    #[serde(with = "human")]
    pub notebook_output: ByteSize,
    /// Time between a polite end and SIGKILL, where a stop says nothing else.
    #[serde(with = "human")]
    pub grace: Span,
    /// How long a kernel may take to its first answer.
    #[serde(with = "human")]
    pub kernel_start_timeout: Span,
    /// Never pull an image: use what is there.
    pub offline: bool,
    /// How long a pull may take.
    #[serde(with = "human")]
    pub pull_timeout: Span,
    /// How long a fetch and checkout may take.
    #[serde(with = "human")]
    pub checkout_timeout: Span,
    /// How long a failed attempt's workspace is kept for `trainyard debug`.
    #[serde(with = "human")]
    pub keep_failed: Span,
    /// How long the checkpoints of a job that did not succeed are kept after its last attempt here.
    #[serde(with = "human")]
    pub keep_checkpoints: Span,
    /// Time between two looks for checkpoints that are brought to the server; a file that is the same at both is finished.
    #[serde(with = "human")]
    pub checkpoint_look: Span,
}

impl Default for Jobs {
    fn default() -> Self {
        let output = OutputLimits::default();
        Self {
            uid: None,
            gid: None,
            processes: 4096,
            output: output.job,
            cell_output: output.cell,
            notebook_output: output.notebook,
            grace: Span::secs(30),
            kernel_start_timeout: Span::secs(60),
            offline: false,
            pull_timeout: Span::secs(30 * 60),
            checkout_timeout: Span::secs(30 * 60),
            keep_failed: Span::hours(24),
            keep_checkpoints: Span::hours(7 * 24),
            checkpoint_look: Span::secs(30),
        }
    }
}

/// How Python environments are built.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Python {
    /// The `uv` program; `$TRAINYARD_UV`, beside the driver, or on the PATH where it is left out.
    pub uv: Option<PathBuf>,
    /// How long a build may take.
    #[serde(with = "human")]
    pub build_timeout: Span,
    /// PEM file of authorities to trust for the package index; `$SSL_CERT_FILE` of the agent where it is left out.
    pub ca_bundle: Option<PathBuf>,
    /// Variables for `uv` while it builds, such as `UV_DEFAULT_INDEX`, over those of the agent's own
    /// environment that begin with `UV_` or name a pip index.
    pub env: BTreeMap<String, String>,
    /// The same for builds of untrusted commits, which get of all others only what holds no credential.
    pub untrusted_env: BTreeMap<String, String>,
}

impl Default for Python {
    fn default() -> Self {
        Self {
            uv: None,
            build_timeout: Span::secs(30 * 60),
            ca_bundle: None,
            env: BTreeMap::new(),
            untrusted_env: BTreeMap::new(),
        }
    }
}

/// A folder of this host that jobs may mount by its name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The folder.
    pub path: PathBuf,
    /// Version of its content, for the job's key; without one a status says that the volume is not versioned.
    #[serde(default)]
    pub version: Option<String>,
    /// Whether jobs may write to it.
    #[serde(default)]
    pub writable: bool,
    /// Whether untrusted commits may mount it.
    #[serde(default)]
    pub public: bool,
    /// Only jobs of these projects may mount it; every project's where it is left out.
    #[serde(default)]
    pub projects: Option<Vec<String>>,
}

impl Volume {
    /// Who may mount it.
    #[must_use]
    pub fn grant(&self) -> VolumeGrant {
        VolumeGrant {
            public: self.public,
            projects: self.projects.clone(),
        }
    }
}

/// Disk.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// Below this much free space nothing new is taken, and a job that is filling the disk is ended.
    #[serde(with = "human")]
    pub watermark: ByteSize,
    /// What one job may write in its workspace, `/tmp` and HOME together, with what it gives to the registry until the
    /// server has it, and what its caches have grown by since it began.
    #[serde(with = "human::optional")]
    pub job: Option<ByteSize>,
    /// What Python environments and uv's caches may hold together: above it, and below the watermark, those that
    /// no attempt uses are removed, least recently used first. `0B`: no bound but the watermark.
    #[serde(with = "human::optional")]
    pub environments: Option<ByteSize>,
    /// What checkpoints of jobs that do not run may hold together: above it, and below the watermark, those that were
    /// not used for longest are removed. `0B`: none is kept.
    #[serde(with = "human::optional")]
    pub checkpoints: Option<ByteSize>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            watermark: ByteSize::gib(2),
            job: None,
            environments: Some(ByteSize::gib(100)),
            checkpoints: Some(ByteSize::gib(200)),
        }
    }
}

impl Disk {
    /// With less free than this, half of the watermark, the host is running out.
    #[must_use]
    pub(crate) fn floor(&self) -> ByteSize {
        ByteSize(self.watermark.0 / 2)
    }
}

/// GPUs.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpus {
    /// NVIDIA's management library; the loader's `libnvidia-ml.so.1` where it is left out.
    pub library: PathBuf,
    /// How long NVIDIA's driver may take to answer at the start; one that is slower has its GPUs offered when it does.
    #[serde(with = "human")]
    pub driver_timeout: Span,
    /// Names of processes that may use a GPU beside jobs, such as `Xorg`.
    pub ignore: Vec<String>,
    /// How long a GPU may take to become clean after a job, before it is quarantined.
    #[serde(with = "human")]
    pub clean_grace: Span,
    /// A GPU whose use is below this, in percent, is idle.
    pub idle_below: u32,
    /// A job whose GPU is idle for so long is warned; `0s`: never.
    #[serde(with = "human")]
    pub idle_warning: Span,
}

impl Default for Gpus {
    fn default() -> Self {
        Self {
            library: PathBuf::from("libnvidia-ml.so.1"),
            driver_timeout: Span::secs(20),
            ignore: [
                "Xorg",
                "Xwayland",
                "gnome-shell",
                "kwin_x11",
                "kwin_wayland",
                "nvidia-persistenced",
                "nvidia-cuda-mps-server",
                "nv-hostengine",
                "dcgm",
            ]
            .map(str::to_owned)
            .to_vec(),
            clean_grace: Span::secs(60),
            idle_below: 5,
            idle_warning: Span::secs(30 * 60),
        }
    }
}

/// Time-outs of the agent's own loops.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// How long the server may hold a poll's answer; at most 20 s.
    #[serde(with = "human")]
    pub poll: Span,
    /// Wait before a failed call to the server is tried again; grows to `retry_most`.
    #[serde(with = "human")]
    pub retry: Span,
    /// Longest wait between two tries.
    #[serde(with = "human")]
    pub retry_most: Span,
    /// How long the server may take to answer a call, besides the time that it may hold a poll.
    #[serde(with = "human")]
    pub call: Span,
    /// How often the driver's events are looked for.
    #[serde(with = "human")]
    pub follow: Span,
    /// How often use of memory, CPUs and GPUs is measured; at a job's start it is more often.
    #[serde(with = "human")]
    pub sample: Span,
    /// How often GPUs are looked at while nothing else asks for it.
    #[serde(with = "human")]
    pub gpus: Span,
    /// How long the engine may take to answer an ordinary call.
    #[serde(with = "human")]
    pub engine: Span,
    /// How often an engine is tried again that started no container, or gave no GPU.
    #[serde(with = "human")]
    pub trial: Span,
    /// How often what attempts left behind is looked for: kept workspaces, checkpoints, containers.
    #[serde(with = "human")]
    pub sweep: Span,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: Span::secs(20),
            retry: Span::secs(1),
            retry_most: Span::secs(30),
            call: Span::secs(60),
            follow: Span(50),
            sample: Span::secs(5),
            gpus: Span::secs(5),
            engine: Span::secs(60),
            trial: Span::secs(300),
            sweep: Span::secs(60),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            server: None,
            server_ca: None,
            data: PathBuf::from("/var/lib/trainyard/agent"),
            labels: Vec::new(),
            capacity: Capacity::default(),
            executors: Executors::default(),
            jobs: Jobs::default(),
            python: Python::default(),
            volumes: BTreeMap::new(),
            disk: Disk::default(),
            gpus: Gpus::default(),
            timing: Timing::default(),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what an agent's configuration looks like; the message has line and column.
    #[error("{}: {message}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// Where it cannot be read, has an unknown key, or a value that makes no sense.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|message| ConfigError::Wrong {
            path: path.to_owned(),
            message,
        })
    }

    /// Reads a configuration from its text.
    ///
    /// # Errors
    /// One message for people, with line and column where the text is to blame.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }
}

/// Quantities as people write them.
mod human {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, de::Error as _};

    pub(super) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }

    pub(super) mod optional {
        use super::{Deserializer, Display, FromStr};

        pub(in super::super) fn deserialize<'de, D, T>(
            deserializer: D,
        ) -> Result<Option<T>, D::Error>
        where
            D: Deserializer<'de>,
            T: FromStr<Err: Display>,
        {
            super::deserialize(deserializer).map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_whole_configuration() {
        let config = Config::parse("").unwrap();
        assert!(config.executors.docker && !config.executors.shell);
        assert_eq!(config.jobs.grace, Span::secs(30));
    }

    #[test]
    fn quantities_are_written_as_people_do() {
        let config = Config::parse(
            "[capacity]\ncpus = 6\nmemory = \"12GiB\"\n[jobs]\ngrace = \"5s\"\n[volumes.imagenet]\npath = \"/srv/imagenet\"\nversion = \"2012\"\n",
        )
        .unwrap();
        assert_eq!(config.capacity.memory, Some(ByteSize::gib(12)));
        assert_eq!(config.jobs.grace, Span::secs(5));
        assert_eq!(config.volumes["imagenet"].version.as_deref(), Some("2012"));
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_place() {
        let error = Config::parse("name = \"a\"\nexecuters = {}\n").unwrap_err();
        assert!(
            error.contains("line 2") && error.contains("executers"),
            "{error}"
        );
        let error = Config::parse("[jobs]\ngrace = \"soon\"\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("90s"), "{error}");
    }
}
