//! One hardened container: made, started, followed by its label, ended, removed. What runs in it is others' business.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, DeviceRequest,
    HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, ListContainersOptions, RemoveContainerOptions,
    WaitContainerOptions,
};
use futures_util::StreamExt as _;
use protocol::spec::Network;
use serde::{Deserialize, Serialize};

use super::engine::{Engine, EngineError};
use super::{Exit, LOOK_AGAIN};

/// A container as we want it. Everything that is not said here is denied: no capabilities, no new
/// privileges, a read-only root, no log, no network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    pub(crate) name: String,
    /// Id of the image.
    pub(crate) image: String,
    /// Program and arguments; the image's own entry point is not used.
    pub(crate) argv: Vec<String>,
    /// `uid:gid`.
    pub(crate) user: String,
    pub(crate) workdir: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) mounts: Vec<MountSpec>,
    pub(crate) network: Network,
    /// Never read back: what is made again for a person has none.
    #[serde(skip)]
    pub(crate) capabilities: &'static [&'static str],
    /// Bytes; swap is not given on top.
    pub(crate) memory: Option<u64>,
    /// CPUs in thousandths.
    pub(crate) cpu_millis: Option<u64>,
    pub(crate) processes: Option<u64>,
    /// Bytes of `/dev/shm`.
    pub(crate) shm: Option<u64>,
    /// UUIDs.
    pub(crate) gpus: Vec<String>,
}

/// A file or folder of the host in a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MountSpec {
    pub(crate) from: PathBuf,
    pub(crate) at: String,
    pub(crate) writable: bool,
}

/// In nanoseconds.
const SECOND: i64 = 1_000_000_000;

impl MountSpec {
    pub(crate) fn read_only(from: impl Into<PathBuf>, at: impl Into<String>) -> Self {
        Self {
            from: from.into(),
            at: at.into(),
            writable: false,
        }
    }

    pub(crate) fn writable(from: impl Into<PathBuf>, at: impl Into<String>) -> Self {
        Self {
            from: from.into(),
            at: at.into(),
            writable: true,
        }
    }
}

/// The host's name inside: resolvable without a network, which `torchrun` and others want.
const HOSTNAME: &str = "trainyard";

/// How long the engine may take to make a container that an agent before this one asked for.
const MADE_WITHIN: Duration = Duration::from_secs(60);

/// A container on this host.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    engine: Engine,
    /// Its id.
    pub(crate) id: String,
}

/// A container found by its labels.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) container: Container,
    /// It was made but never started.
    pub(crate) only_made: bool,
    /// All its labels.
    pub(crate) labels: HashMap<String, String>,
}

impl ContainerSpec {
    pub(super) fn body(&self) -> ContainerCreateBody {
        let isolated = self.network == Network::None;
        let host = HostConfig {
            network_mode: Some(if isolated { "none" } else { "bridge" }.into()),
            // With a network the engine writes the name into /etc/hosts by itself.
            extra_hosts: isolated.then(|| vec![format!("{HOSTNAME}:127.0.0.1")]),
            memory: self.memory.and_then(|bytes| i64::try_from(bytes).ok()),
            memory_swap: self.memory.and_then(|bytes| i64::try_from(bytes).ok()),
            nano_cpus: self
                .cpu_millis
                .and_then(|m| i64::try_from(m * 1_000_000).ok()),
            pids_limit: self.processes.and_then(|n| i64::try_from(n).ok()),
            shm_size: self.shm.and_then(|bytes| i64::try_from(bytes).ok()),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".into()]),
            cap_add: Some(self.capabilities.iter().map(|&c| c.to_owned()).collect()),
            security_opt: Some(vec!["no-new-privileges".into()]),
            mounts: Some(self.mounts.iter().map(mount).collect()),
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".into()),
                config: None,
            }),
            auto_remove: Some(false),
            init: Some(false),
            device_requests: (!self.gpus.is_empty()).then(|| {
                vec![DeviceRequest {
                    driver: Some("nvidia".into()),
                    device_ids: Some(self.gpus.clone()),
                    // Whatever the image says in NVIDIA_DRIVER_CAPABILITIES: CUDA, and `nvidia-smi`.
                    capabilities: Some(vec![
                        ["gpu", "compute", "utility"].map(str::to_owned).to_vec(),
                    ]),
                    ..DeviceRequest::default()
                }]
            }),
            ..HostConfig::default()
        };
        let mut env: Vec<String> = self.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        // The image's own wish for GPUs, and libraries that it would put into every program, are ignored.
        env.push("LD_PRELOAD=".into());
        if self.gpus.is_empty() {
            env.push("NVIDIA_VISIBLE_DEVICES=void".into());
        }
        ContainerCreateBody {
            hostname: Some(HOSTNAME.into()),
            image: Some(self.image.clone()),
            entrypoint: Some(self.argv.iter().take(1).cloned().collect()),
            cmd: Some(self.argv.iter().skip(1).cloned().collect()),
            user: Some(self.user.clone()),
            working_dir: Some(self.workdir.clone()),
            env: Some(env),
            labels: Some(self.labels.clone().into_iter().collect()),
            // The image's own would run as the container's user, past the driver.
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".into()]),
                // Podman 3 refuses it without these.
                interval: Some(SECOND),
                timeout: Some(SECOND),
                retries: Some(1),
                ..HealthConfig::default()
            }),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        }
    }
}

fn mount(spec: &MountSpec) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(spec.from.display().to_string()),
        target: Some(spec.at.clone()),
        read_only: Some(!spec.writable),
        ..Mount::default()
    }
}

impl Engine {
    /// Makes a container; it does not run yet. One of the same name that was never started is made anew: an
    /// agent that was killed had asked for it, and the engine may be at it still.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) async fn create(&self, spec: &ContainerSpec) -> Result<Container, EngineError> {
        let deadline = Instant::now() + MADE_WITHIN;
        loop {
            let error = match self.create_once(spec).await {
                Ok(container) => return Ok(container),
                Err(error) => error,
            };
            let taken = matches!(error, EngineError::Refused { status: 409, .. });
            if !taken || Instant::now() >= deadline {
                return Err(error);
            }
            let there = self.container(&spec.name);
            match there.inspect().await?.and_then(|found| found.state?.status) {
                Some(ContainerStateStatusEnum::CREATED) => {
                    there.remove().await;
                }
                Some(ContainerStateStatusEnum::REMOVING) | None => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Some(
                    ContainerStateStatusEnum::EMPTY
                    | ContainerStateStatusEnum::RUNNING
                    | ContainerStateStatusEnum::PAUSED
                    | ContainerStateStatusEnum::RESTARTING
                    | ContainerStateStatusEnum::EXITED
                    | ContainerStateStatusEnum::DEAD
                    | ContainerStateStatusEnum::STOPPING,
                ) => return Err(error),
            }
        }
    }

    async fn create_once(&self, spec: &ContainerSpec) -> Result<Container, EngineError> {
        let options = CreateContainerOptions {
            name: Some(spec.name.clone()),
            ..CreateContainerOptions::default()
        };
        let made = self
            .docker
            .create_container(Some(options), spec.body())
            .await?;
        Ok(self.container(made.id))
    }

    pub(crate) fn container(&self, id: impl Into<String>) -> Container {
        Container {
            engine: self.clone(),
            id: id.into(),
        }
    }

    /// Containers with all of these labels, ended ones included.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) async fn find(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Found>, EngineError> {
        let wanted = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.find_by(wanted).await
    }

    /// Containers that have a label, whatever its value.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) async fn find_any(&self, label: &str) -> Result<Vec<Found>, EngineError> {
        self.find_by(vec![label.to_owned()]).await
    }

    async fn find_by(&self, wanted: Vec<String>) -> Result<Vec<Found>, EngineError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), wanted)])),
            ..ListContainersOptions::default()
        };
        let found = self.docker.list_containers(Some(options)).await?;
        Ok(found
            .into_iter()
            .filter_map(|summary| {
                let only_made = summary
                    .state
                    .is_some_and(|state| state.to_string() == "created");
                Some(Found {
                    container: self.container(summary.id?),
                    only_made,
                    labels: summary.labels.unwrap_or_default(),
                })
            })
            .collect())
    }
}

impl Container {
    /// Starts it.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) async fn start(&self) -> Result<(), EngineError> {
        Ok(self
            .engine
            .docker
            .start_container(
                &self.id,
                None::<bollard::query_parameters::StartContainerOptions>,
            )
            .await?)
    }

    /// Waits for the end, over restarts of the engine too.
    pub(crate) async fn wait(&self) -> Exit {
        loop {
            match self.inspect().await {
                Ok(Some(container)) => {
                    if let Some(exit) = ended(&container) {
                        return exit;
                    }
                }
                Ok(None) => {
                    return Exit {
                        lost: true,
                        ..Exit::default()
                    };
                }
                Err(error) => {
                    tracing::warn!(container = %self.id, "cannot look at the container: {error}");
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                }
            }
            let options = WaitContainerOptions {
                condition: "not-running".into(),
            };
            let mut end =
                std::pin::pin!(self.engine.docker.wait_container(&self.id, Some(options)));
            match end.next().await {
                // A non-zero exit is an error here; `inspect` says more than either.
                Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => {}
                Some(Err(_)) | None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Id of its first process on this host, while it runs.
    pub(crate) async fn pid(&self) -> Option<i64> {
        let container = self.inspect().await.ok().flatten()?;
        container.state?.pid.filter(|&pid| pid > 0)
    }

    /// UUIDs of the GPUs that the engine has written down for it.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) async fn gpus(&self) -> Result<Vec<String>, EngineError> {
        let host = self.inspect().await?.and_then(|found| found.host_config);
        let requests = host
            .and_then(|host| host.device_requests)
            .unwrap_or_default();
        let ids = requests
            .into_iter()
            .filter_map(|request| request.device_ids);
        Ok(ids.flatten().collect())
    }

    /// Sends a signal to its first process. One that has ended is left alone.
    pub(crate) async fn signal(&self, signal: &str) {
        let options = KillContainerOptions {
            signal: signal.into(),
        };
        let sent = self
            .engine
            .docker
            .kill_container(&self.id, Some(options))
            .await;
        if let Err(error) = sent
            && !is_gone(&error)
        {
            tracing::warn!(container = %self.id, "cannot send {signal}: {error}");
        }
    }

    /// Ends it where it runs, and removes it; answers whether it is gone. Tried three times: an agent finds one that
    /// stays when it looks for what attempts left.
    pub(crate) async fn remove(&self) -> bool {
        for wait in [1, 2, 4] {
            let options = RemoveContainerOptions {
                force: true,
                v: true,
                ..RemoveContainerOptions::default()
            };
            match self
                .engine
                .docker
                .remove_container(&self.id, Some(options))
                .await
            {
                Ok(()) => return true,
                Err(error) if is_gone(&error) => return true,
                Err(error) => {
                    tracing::warn!(container = %self.id, "cannot remove the container: {error}");
                    tokio::time::sleep(Duration::from_secs(wait)).await;
                }
            }
        }
        false
    }

    async fn inspect(&self) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let options = None::<bollard::query_parameters::InspectContainerOptions>;
        match self
            .engine
            .docker
            .inspect_container(&self.id, options)
            .await
        {
            Ok(container) => Ok(Some(container)),
            Err(Error::DockerResponseServerError {
                status_code: 404, ..
            }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn ended(container: &ContainerInspectResponse) -> Option<Exit> {
    let state = container.state.as_ref()?;
    match state.status {
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) => Some(Exit {
            code: state.exit_code,
            oom_killed: state.oom_killed.unwrap_or_default(),
            lost: false,
        }),
        Some(
            ContainerStateStatusEnum::EMPTY
            | ContainerStateStatusEnum::CREATED
            | ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING
            | ContainerStateStatusEnum::REMOVING
            | ContainerStateStatusEnum::STOPPING,
        )
        | None => None,
    }
}

/// Not there any more, being removed, or not running.
fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        }
    )
}
