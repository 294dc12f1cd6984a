//! What the host has and how its GPUs are. The only room with NVML; it knows neither jobs nor bookings.

mod absent;
mod cgroup;
mod events;
mod gpu;
mod health;
mod library;
mod links;
mod mig;
mod nvml;
mod process;
mod source;

use std::path::Path;
use std::sync::Arc;

use protocol::event::GpuSample;
use protocol::hardware::{Engine, Gpu, GpuDriver, GpuHealth, Inventory};
use protocol::{ByteSize, Digest};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::config::Config;

pub use absent::NvmlAbsent;
pub use cgroup::Limits;
#[cfg(test)]
pub(crate) use gpu::example;
pub use gpu::{GpuProcess, GpuReading};
pub use health::GpuFault;
pub use nvml::Nvml;

use source::Source;

/// The least memory that is left to the system where the configuration says nothing.
const LEAST_RESERVE: u64 = 512 << 20;

/// Eyes on the host. One for each process: NVML is loaded once.
#[derive(Debug)]
pub struct Hardware {
    nvml: Source,
    /// Held by whoever looks at the GPUs: where NVML hangs, nobody else waits in it too.
    turn: Arc<Mutex<()>>,
}

impl Hardware {
    /// Looks for NVML, and waits for a driver that is slow to answer as long as the configuration says. Without it there are no
    /// GPUs, and nothing is said about it; one that comes later is taken.
    #[must_use]
    pub fn open(config: &Config) -> Self {
        Self {
            nvml: Source::open(&config.gpus.library, config.gpus.driver_timeout),
            turn: Arc::default(),
        }
    }

    /// Listens from now on for faults that GPUs report as they happen: [`Hardware::take_faults`] has them.
    pub fn listen(&self) {
        self.nvml.listen();
    }

    /// The faults that GPUs reported since this was asked last.
    #[must_use]
    pub fn take_faults(&self) -> Vec<GpuFault> {
        let nvml = self.nvml.nvml();
        nvml.map(|nvml| nvml.take_faults()).unwrap_or_default()
    }

    /// Why there are no GPUs now.
    #[must_use]
    pub fn absent(&self) -> Option<NvmlAbsent> {
        self.nvml.nvml().err()
    }

    /// NVIDIA's driver, and the CUDA version that it runs; none: it is not here, or does not say.
    #[must_use]
    pub fn driver(&self) -> Option<GpuDriver> {
        self.nvml.nvml().ok()?.driver()
    }

    /// The GPUs as they are now, by NVML's index, slices behind their GPU. One that cannot be reached stays in the
    /// list as lost; where it was never seen before, without a name.
    #[must_use]
    pub fn gpus(&self) -> Vec<GpuReading> {
        let nvml = self.nvml.nvml();
        nvml.map(|nvml| nvml.read()).unwrap_or_default()
    }

    /// How much these GPUs and slices are used now; one that does not answer is left out.
    #[must_use]
    pub fn uses(&self, uuids: &[String]) -> Vec<GpuSample> {
        let nvml = self.nvml.nvml();
        nvml.map(|nvml| nvml.uses(uuids)).unwrap_or_default()
    }

    /// The turn to look at the GPUs from a thread that may block, to be kept until the look is over.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// What the host has for jobs. `gpus` are readings whose health the ledger has judged.
    #[must_use]
    pub fn inventory(&self, config: &Config, engine: Option<Engine>, gpus: Vec<Gpu>) -> Inventory {
        let machine = Machine::look();
        let share = machine.share(config);
        // Without containers nothing can be mounted.
        let mountable = config.volumes.iter().filter(|_| config.executors.docker);
        Inventory {
            host: host_name(),
            platform: platform(),
            cpu_model: machine.cpu_model,
            cpu_millis: share.cpu_millis,
            memory: share.memory,
            disk: Disk::of(&config.data).map_or(ByteSize(0), |disk| disk.size),
            disk_room: None,
            driver: self.driver(),
            gpus,
            labels: config.labels.clone(),
            volumes: mountable
                .clone()
                .map(|(name, volume)| (name.clone(), volume.version.clone()))
                .collect(),
            volume_grants: mountable
                .map(|(name, volume)| (name.clone(), volume.grant()))
                .collect(),
            engine,
        }
    }
}

/// The hash that tells the server whether an inventory is new to it.
#[must_use]
pub fn hash(inventory: &Inventory) -> Digest {
    Digest::of(serde_json::to_vec(inventory).expect("maps with text keys become JSON"))
}

/// The host's name.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// `linux/amd64` and the like, as container engines say it.
#[must_use]
pub fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{arch}", std::env::consts::OS)
}

/// The machine as this process may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Model of the CPU.
    pub cpu_model: String,
    /// CPUs in thousandths, within this process's own limits.
    pub cpu_millis: u64,
    /// Memory, within this process's own limits.
    pub memory: ByteSize,
}

/// What jobs may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// CPUs in thousandths.
    pub cpu_millis: u64,
    /// Memory.
    pub memory: ByteSize,
}

impl Machine {
    /// Looks at CPUs, memory, and the cgroup that this process is in.
    #[must_use]
    pub fn look() -> Self {
        let wanted = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(wanted).ok();
        let cpus = system.as_ref().map(System::cpus).unwrap_or_default();
        let memory = system.as_ref().map_or(0, System::total_memory);
        let allowed = rustix::thread::sched_getaffinity(None)
            .map_or(cpus.len() as u64, |set| u64::from(set.count()));
        let limits = cgroup::own_limits();
        Self {
            cpu_model: cpus
                .first()
                .map_or_else(String::new, |cpu| cpu.brand().to_owned()),
            cpu_millis: limits.cpu_millis.unwrap_or(u64::MAX).min(allowed * 1_000),
            memory: limits
                .memory
                .unwrap_or(ByteSize(u64::MAX))
                .min(ByteSize(memory)),
        }
    }

    /// What of it the configuration gives to jobs; never more than there is.
    #[must_use]
    pub fn share(&self, config: &Config) -> Share {
        let capacity = &config.capacity;
        let all_but_reserve = ByteSize(
            self.memory
                .0
                .saturating_sub((self.memory.0 / 8).max(LEAST_RESERVE)),
        );
        Share {
            cpu_millis: capacity.cpus.map_or(self.cpu_millis, |cpus| {
                self.cpu_millis.min((cpus * 1_000.0).round() as u64)
            }),
            memory: capacity
                .memory
                .map_or(all_but_reserve, |memory| memory.min(self.memory)),
        }
    }
}

/// The file system of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Its size.
    pub size: ByteSize,
    /// What an ordinary user may still write.
    pub free: ByteSize,
}

impl Disk {
    /// Looks at the file system of `path`, or of its nearest parent that is there.
    ///
    /// # Errors
    /// The system's.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
        let stat = rustix::fs::statvfs(there)?;
        Ok(Self {
            size: ByteSize(stat.f_blocks.saturating_mul(stat.f_frsize)),
            free: ByteSize(stat.f_bavail.saturating_mul(stat.f_frsize)),
        })
    }
}

/// Readings as the inventory wants them, where nobody judges them further.
#[must_use]
pub fn unjudged(readings: Vec<GpuReading>) -> Vec<Gpu> {
    let judged = |reading: GpuReading| match (&reading.gpu.health, reading.fault) {
        (GpuHealth::Healthy, Some(reason)) => Gpu {
            health: GpuHealth::Quarantined { reason },
            ..reading.gpu
        },
        (_, _) => reading.gpu,
    };
    readings.into_iter().map(judged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            cpu_model: "Example".into(),
            cpu_millis: 8_000,
            memory: ByteSize::gib(64),
        }
    }

    #[test]
    fn jobs_get_all_cpus_and_all_but_an_eighth_of_the_memory() {
        let share = machine().share(&Config::default());
        assert_eq!((share.cpu_millis, share.memory), (8_000, ByteSize::gib(56)));
        let small = Machine {
            memory: ByteSize::gib(1),
            ..machine()
        };
        assert_eq!(small.share(&Config::default()).memory, ByteSize::mib(512));
    }

    #[test]
    fn a_configured_share_is_taken_but_never_more_than_there_is() {
        let config = Config::parse("[capacity]\ncpus = 2.5\nmemory = \"200GiB\"\n").unwrap();
        let share = machine().share(&config);
        assert_eq!((share.cpu_millis, share.memory), (2_500, ByteSize::gib(64)));
    }

    #[test]
    fn this_host_has_cpus_memory_and_a_stable_hash() {
        let hardware = Hardware::open(&Config::default());
        let config = Config::default();
        let first = hardware.inventory(&config, None, vec![]);
        assert!(first.cpu_millis > 0 && first.memory > ByteSize(0) && first.disk > ByteSize(0));
        assert_eq!(
            hash(&first),
            hash(&hardware.inventory(&config, None, vec![]))
        );
        let labelled = Inventory {
            labels: vec!["x".into()],
            ..first.clone()
        };
        assert_ne!(hash(&first), hash(&labelled));
    }

    #[test]
    fn volumes_are_offered_where_they_can_be_mounted() {
        let offered = |docker: bool| {
            let text = format!(
                "[volumes.data]\npath = \"/usr\"\n[executors]\ndocker = {docker}\nshell = true\n"
            );
            let config = Config::parse(&text).unwrap();
            let inventory = Hardware::open(&config).inventory(&config, None, vec![]);
            assert_eq!(inventory.volumes.len(), inventory.volume_grants.len());
            inventory.volumes.contains_key("data")
        };
        assert!(offered(true) && !offered(false));
    }

    #[test]
    fn a_gpu_that_reports_a_fault_is_not_healthy() {
        let reading = gpu::example("GPU-1");
        assert_eq!(
            unjudged(vec![reading.clone()])[0].health,
            GpuHealth::Healthy
        );
        let sick = GpuReading {
            fault: Some("a row remap failed".into()),
            ..reading
        };
        assert!(matches!(
            unjudged(vec![sick])[0].health,
            GpuHealth::Quarantined { .. }
        ));
    }
}
