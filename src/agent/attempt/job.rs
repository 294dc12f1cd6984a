//! What the driver is told, and the container around it. It starts nothing.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::agent_api::Source;
use protocol::driver::{
    AGENT_MOUNT, AGENT_SOCKET, DriverJob, DriverWork, GpuFiles, HandOver, OutputLimits,
    RegistryDoor, RunAs, TRACKING_VARIABLE,
};
use protocol::spec::Limits;
use protocol::{ByteSize, Failure, FailureKind, Span, Trust, Work};

use super::places::Places;
use super::state::Prepared;
use super::{Attempt, dir};
use crate::executor::{ATTEMPT_VARIABLE, ContainerSpec, MountSpec};
use crate::{command, lint};

/// Where the driver lies in a container.
pub(crate) const DRIVER: &str = "/trainyard-driver";
/// Label of an attempt's container; its value is the attempt's id.
pub(crate) const ATTEMPT_LABEL: &str = "trainyard.attempt";
/// Label of its GPUs: their UUIDs with commas between.
pub(crate) const GPUS_LABEL: &str = "trainyard.gpus";
/// Processes of a container above those of its job: the driver's own threads.
const HEADROOM: u64 = 64;
/// The driver needs these, and gives none to the job.
const CAPABILITIES: [&str; 5] = ["SETUID", "SETGID", "CHOWN", "KILL", "DAC_OVERRIDE"];
/// Variables of an image that a job does not get: GPUs are ours to give, a preloaded library is nobody's
/// wish, and matplotlib finds the notebook's backend by itself.
const NOT_FROM_IMAGE: [&str; 3] = ["NVIDIA_VISIBLE_DEVICES", "LD_PRELOAD", "MPLBACKEND"];
/// How long MLflow's client waits for the answer to one call, in seconds. Its own 120 end while a large model is written.
const PATIENCE_VARIABLE: &str = "MLFLOW_HTTP_REQUEST_TIMEOUT";
const PATIENCE: u32 = 1_200;
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The driver's command line in a container.
pub(crate) fn driver_argv() -> Vec<String> {
    [DRIVER, "run", "--dir", protocol::driver::MOUNT]
        .map(str::to_owned)
        .to_vec()
}

impl Attempt<'_> {
    pub(super) fn driver_job(&self, places: &Places, prepared: &Prepared) -> DriverJob {
        let spec = &self.order.spec;
        let (uid, gid) = self.host.job_user;
        let agent = (rustix::process::geteuid(), rustix::process::getegid());
        let contained = self.in_container();
        let env = self.job_env(places, prepared);
        let registry = self.registry_door(&env);
        DriverJob {
            work: match &spec.work {
                Work::Notebook { path } => DriverWork::Notebook {
                    path: path.clone(),
                    parameters: spec.parameters.clone(),
                },
                Work::Command { text } => DriverWork::Command {
                    argv: command::argv(text, &spec.parameters),
                },
                Work::Lint { tools, notebooks } => DriverWork::Command {
                    argv: lint::argv(tools, notebooks, spec.resources.cpu_millis),
                },
            },
            workdir: places.workspace.clone(),
            env,
            limits: spec.limits.clone(),
            kernel_start_timeout: self.host.config.jobs.kernel_start_timeout,
            grace: self.grace(),
            output: OutputLimits {
                cell: self.host.config.jobs.cell_output,
                notebook: self.host.config.jobs.notebook_output,
                job: self.host.config.jobs.output,
            },
            user: contained.then_some(RunAs {
                uid,
                gid,
                processes: self.host.config.jobs.processes,
            }),
            // Root removes everything; an ordinary agent wants it handed over.
            hand_over: (contained && !agent.0.is_root()).then(|| HandOver {
                uid: agent.0.as_raw(),
                gid: agent.1.as_raw(),
                paths: [
                    &places.workspace,
                    &places.home,
                    &places.tmp,
                    &places.checkpoints,
                ]
                .map(Clone::clone)
                .to_vec(),
            }),
            gpus: self.gpu_files().filter(|_| contained),
            registry,
        }
    }

    /// The run that the job's code reaches; none: it reaches no registry of ours. Code that names a server of its own goes
    /// there.
    pub(super) fn reached_run(&self) -> Option<&String> {
        let (spec, secrets) = (&self.order.spec, &self.order.secrets);
        let elsewhere =
            spec.env.contains_key(TRACKING_VARIABLE) || secrets.contains_key(TRACKING_VARIABLE);
        self.order.run.as_ref().filter(|_| !elsewhere)
    }

    /// How the job's code, whose environment this is, reaches the registry.
    fn registry_door(&self, job: &BTreeMap<String, String>) -> Option<RegistryDoor> {
        let run = self.reached_run()?;
        let folder = match self.in_container() {
            true => AGENT_MOUNT.to_owned(),
            false => self.dir.agent().display().to_string(),
        };
        let mut env: BTreeMap<String, String> = [
            ("MLFLOW_RUN_ID", run.clone()),
            ("MLFLOW_EXPERIMENT_NAME", self.order.experiment()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        // The driver holds a call for as long as the agent or the server is away, and a large file takes its time.
        if !job.contains_key(PATIENCE_VARIABLE) {
            env.insert(PATIENCE_VARIABLE.to_owned(), PATIENCE.to_string());
        }
        // A proxy of the image's or of the job's is not for what is on this host. Programs read either spelling, and
        // exceptions are often made in one only.
        for (name, other) in [("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")] {
            let given = |name: &str| job.get(name).filter(|own| !own.is_empty());
            let own = given(name).or_else(|| given(other));
            let own = own.map_or_else(String::new, |own| format!("{own},"));
            env.insert(name.to_owned(), format!("{own}127.0.0.1,localhost"));
        }
        Some(RegistryDoor {
            socket: format!("{folder}/{AGENT_SOCKET}"),
            env,
        })
    }

    /// The job's environment variables, complete; docs/jobs.md has them as a table.
    fn job_env(&self, places: &Places, prepared: &Prepared) -> BTreeMap<String, String> {
        let spec = &self.order.spec;
        let mut env: BTreeMap<String, String> = match &prepared.image {
            Some(image) => image.env.clone(),
            None => host_env(),
        };
        env.retain(|name, _| !NOT_FROM_IMAGE.contains(&name.as_str()));
        let mut set = |name: &str, value: &str| {
            env.insert(name.to_owned(), value.to_owned());
        };
        set("TRAINYARD", "1");
        set("TRAINYARD_ATTEMPT", &self.order.number.to_string());
        set(ATTEMPT_VARIABLE, self.order.attempt.as_str());
        set("TRAINYARD_JOB", &spec.name);
        set("TRAINYARD_PROJECT", &self.order.project_name);
        set("TRAINYARD_NEEDS", &places.needs);
        set("TRAINYARD_CHECKPOINT_DIR", &places.checkpoints);
        if let Some(parent) = &places.parent {
            set("TRAINYARD_PARENT_DIR", parent);
        }
        match &self.order.source {
            Source::Git { commit, .. } => set("TRAINYARD_COMMIT", commit.as_str()),
            Source::Folder { .. } => {}
        }
        if let Some(model) = &spec.model {
            set(
                "TRAINYARD_MODEL_DIR",
                &format!("{}/{}", places.workspace, model.path.trim_end_matches('/')),
            );
        }
        set("HOME", &places.home);
        // Nobody in the image's passwd has the job's user id.
        set("USER", "trainyard");
        set("LOGNAME", "trainyard");
        set("TMPDIR", &places.tmp);
        set("XDG_CACHE_HOME", &places.cache);
        for (name, folder) in [
            ("HF_HOME", "huggingface"),
            ("TORCH_HOME", "torch"),
            ("TRITON_CACHE_DIR", "triton"),
            ("TORCHINDUCTOR_CACHE_DIR", "inductor"),
        ] {
            set(name, &format!("{}/{folder}", places.cache));
        }
        set("PYTHONDONTWRITEBYTECODE", "1");
        set("PYTHONUNBUFFERED", "1");
        let gpus = self.order.gpus.join(",");
        match (self.in_container(), gpus.is_empty()) {
            (true, true) => set("NVIDIA_VISIBLE_DEVICES", "void"),
            (true, false) => set("NVIDIA_VISIBLE_DEVICES", &gpus),
            // Without a container this is what keeps a job to its GPUs.
            (false, _) => set("CUDA_VISIBLE_DEVICES", &gpus),
        }
        if let Some(environment) = &places.environment {
            set("VIRTUAL_ENV", environment);
        }
        env.entry("LANG".into()).or_insert_with(|| "C.UTF-8".into());
        env.extend(spec.env.clone());
        env.extend(self.order.secrets.clone());
        let path = env.get("PATH").map_or(USUAL_PATH, String::as_str);
        if let Some(environment) = &places.environment {
            let path = format!("{environment}/bin:{path}");
            env.insert("PATH".into(), path);
        } else if !env.contains_key("PATH") {
            env.insert("PATH".into(), USUAL_PATH.into());
        }
        env
    }

    /// What its container must have of GPUs; none where an earlier agent began the attempt, which did not say.
    pub(super) fn gpu_files(&self) -> Option<GpuFiles> {
        let given = self.dir.gpus().ok()?;
        (given.len() == self.order.gpus.len()).then(|| dir::files(&given))
    }

    /// Labels by which this attempt's container is found again.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.helper_labels();
        let generation = self.order.generation.to_string();
        labels.insert("trainyard.generation".to_owned(), generation);
        labels
    }

    /// Labels of every container that does something for this attempt.
    pub(super) fn helper_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.host.labels();
        labels.insert(ATTEMPT_LABEL.to_owned(), self.order.attempt.to_string());
        labels
    }

    pub(super) fn container_spec(
        &self,
        places: &Places,
        prepared: &Prepared,
    ) -> Result<ContainerSpec, Failure> {
        let resources = &self.order.spec.resources;
        let memory = (resources.memory.0 > 0).then_some(resources.memory.0);
        let all_cpus =
            std::thread::available_parallelism().map_or(1_000, |n| n.get() as u64 * 1_000);
        let mut mounts = self.mounts(places, prepared.environment.as_ref());
        mounts.extend(self.volumes()?);
        let mut labels = self.labels();
        if !self.order.gpus.is_empty() {
            labels.insert(GPUS_LABEL.to_owned(), self.order.gpus.join(","));
        }
        Ok(ContainerSpec {
            name: format!("trainyard-{}-{}", self.order.attempt, self.order.generation),
            image: prepared
                .image
                .as_ref()
                .map(|image| image.id.clone())
                .unwrap_or_default(),
            argv: driver_argv(),
            user: "0:0".into(),
            workdir: "/".into(),
            env: BTreeMap::new(),
            labels,
            mounts,
            network: self.order.spec.network,
            capabilities: &CAPABILITIES,
            memory,
            // The engine refuses more than there are.
            cpu_millis: (resources.cpu_millis > 0).then(|| resources.cpu_millis.min(all_cpus)),
            processes: Some(self.host.config.jobs.processes + HEADROOM),
            shm: Some(
                resources
                    .shm_size
                    .map_or_else(|| memory.unwrap_or(ByteSize::gib(2).0) / 2, |size| size.0),
            ),
            gpus: self.order.gpus.clone(),
        })
    }

    /// The named volumes that the job mounts.
    fn volumes(&self) -> Result<Vec<MountSpec>, Failure> {
        let mut mounts = Vec::new();
        for (name, at) in &self.order.spec.volumes {
            let refuse = |message: String| Err(Failure::new(FailureKind::ExecutorFailed, message));
            let Some(volume) = self.host.config.volumes.get(name) else {
                let names: Vec<_> = self
                    .host
                    .config
                    .volumes
                    .keys()
                    .map(String::as_str)
                    .collect();
                let has = match names.as_slice() {
                    [] => "none is configured".to_owned(),
                    names => format!("it has {}", names.join(", ")),
                };
                return refuse(format!("this host has no volume '{name}': {has}"));
            };
            let grant = volume.grant();
            if let Some(why) = grant.refusal(&self.order.project_name, self.order.trust) {
                return refuse(format!("the volume '{name}' {why}"));
            }
            if !Path::new(at).is_absolute() || at.contains("..") {
                return refuse(format!("'{at}' is no place for the volume '{name}'"));
            }
            if !volume.path.is_dir() {
                let path = volume.path.display();
                return refuse(format!(
                    "the volume '{name}' of this host is not there: {path} is no folder"
                ));
            }
            let writable = volume.writable && self.order.trust == Trust::Trusted;
            mounts.push(MountSpec {
                from: volume.path.clone(),
                at: at.clone(),
                writable,
            });
        }
        Ok(mounts)
    }

    /// How long the driver may take in all before something is wrong with it.
    pub(super) fn longest(&self) -> Span {
        let (limits, jobs) = (&self.order.spec.limits, &self.host.config.jobs);
        Span(limits.timeout.0 + jobs.kernel_start_timeout.0 + 2 * self.grace().0 + 120_000)
    }

    /// Between the job's polite end and its kill.
    pub(super) fn grace(&self) -> Span {
        let own = self.order.spec.limits.grace;
        own.unwrap_or(self.host.config.jobs.grace)
    }
}

/// A job that does nothing but what the driver does around it: it looks at the GPUs' files, and hands `paths` over to the
/// agent's user.
pub(crate) fn nothing_but(paths: &[&str], gpus: Option<GpuFiles>) -> DriverJob {
    DriverJob {
        work: DriverWork::Command {
            // No program of the image: it would run as root.
            argv: [DRIVER, "--version"].map(str::to_owned).to_vec(),
        },
        workdir: "/".into(),
        env: BTreeMap::new(),
        limits: Limits {
            timeout: Span::secs(60),
            ..Limits::default()
        },
        kernel_start_timeout: Span::secs(60),
        grace: Span::secs(1),
        output: OutputLimits::default(),
        user: None,
        hand_over: Some(HandOver {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            paths: paths.iter().map(|path| (*path).into()).collect(),
        }),
        gpus,
        registry: None,
    }
}

/// Without a container: what programs need of the agent's own environment, and no more.
fn host_env() -> BTreeMap<String, String> {
    let wanted = [
        "PATH",
        "LANG",
        "LC_ALL",
        "LD_LIBRARY_PATH",
        "PYENV_ROOT",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
    ];
    std::env::vars()
        .filter(|(name, _)| wanted.contains(&name.as_str()))
        .collect()
}
