//! Which GPUs of one host a job gets that runs there without a queue (`trainyard run`): the same that the queue would
//! give it. CPUs, memory, labels and volumes are the caller's business.

use std::collections::BTreeSet;

use protocol::hardware::Inventory;
use protocol::spec::Resources;
use protocol::{AgentId, ByteSize, Timestamp, Trust};

use super::demand::Demand;
use super::fleet::Fleet;
use super::{Booked, Host, reason};

/// Why a host has not the GPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lacking {
    /// It has none that would do, or too few; what is missing.
    #[error("{0}")]
    Ever(String),
    /// They are not free.
    #[error("needs {needs}; {free} of {} such GPUs are free", such.len())]
    Now {
        /// What it needs, in words.
        needs: String,
        /// How many of those that would do are free.
        free: u32,
        /// UUIDs of those that would do.
        such: Vec<String>,
    },
}

/// The GPUs for a job, by UUID. `taken` are UUIDs that others have booked.
///
/// # Errors
/// [`Lacking`].
pub fn gpus_here(
    wants: &Resources,
    inventory: &Inventory,
    taken: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Vec<String>, Lacking> {
    let mut host = Host::empty(nobody(), inventory.host.clone(), inventory);
    let gpus = host.gpus.iter().enumerate();
    let booked = gpus.filter(|(_, gpu)| taken.contains(&gpu.uuid));
    host.bookings = vec![Booked {
        gpus: booked.map(|(number, _)| number).collect(),
        ..Booked::default()
    }];
    let demand = Demand {
        resources: Resources {
            cpu_millis: 0,
            memory: ByteSize(0),
            disk: None,
            ..wants.clone()
        },
        runs_on: Vec::new(),
        volumes: Vec::new(),
        project: String::new(),
        trust: Trust::Trusted,
    };
    let hosts = std::slice::from_ref(&host);
    if let Some(why) = super::impossible(&demand, hosts) {
        return Err(Lacking::Ever(why));
    }
    let mut fleet = Fleet::new(hosts, now);
    let class = fleet.class(&demand);
    let room = &fleet.rooms[0];
    if let Some(picked) = room.pick(class.gang(), room.free_gpus) {
        let gpus = room.placement(0, picked).gpus.into_iter();
        return Ok(gpus.map(|gpu| host.gpus[gpu].uuid.clone()).collect());
    }
    let such = host.gpus.iter().filter(|gpu| demand.admits(gpu));
    Err(Lacking::Now {
        needs: reason::gpus_of(wants),
        free: (room.of_kinds(&class.view.kinds) & room.free_gpus).count_ones(),
        such: such.map(|gpu| gpu.uuid.clone()).collect(),
    })
}

/// Of a host alone nobody asks which agent it has.
fn nobody() -> AgentId {
    "0".repeat(26)
        .parse()
        .expect("an id is 26 letters or digits")
}

#[cfg(test)]
mod tests {
    use protocol::hardware::{Gpu, GpuDriver, GpuHealth, GpuKind};

    use super::*;

    fn gpu(index: u32, model: &str, gib: u64) -> Gpu {
        Gpu {
            uuid: format!("GPU-{index}"),
            index,
            model: model.to_owned(),
            memory: ByteSize::gib(gib),
            compute_capability: "8.0".to_owned(),
            kind: GpuKind::Whole,
            pci: None,
            numa_node: None,
            nvlink_group: None,
            health: GpuHealth::Healthy,
        }
    }

    fn inventory() -> Inventory {
        Inventory {
            host: "gpu-3".to_owned(),
            platform: "linux/amd64".to_owned(),
            cpu_model: String::new(),
            cpu_millis: 1_000,
            memory: ByteSize::gib(1),
            disk: ByteSize::gib(1),
            disk_room: None,
            driver: Some(GpuDriver {
                version: "550.54".to_owned(),
                cuda: "12.4".to_owned(),
            }),
            gpus: vec![
                gpu(0, "NVIDIA A100-SXM4-80GB", 80),
                gpu(1, "Tesla T4", 15),
                gpu(2, "NVIDIA A100-SXM4-80GB", 80),
            ],
            labels: Vec::new(),
            volumes: Default::default(),
            volume_grants: Default::default(),
            engine: None,
        }
    }

    fn wants(change: impl FnOnce(&mut Resources)) -> Resources {
        // More CPUs and memory than the host has: a person at it knows what it bears.
        let mut wants = Resources {
            cpu_millis: 64_000,
            memory: ByteSize::gib(500),
            gpus: 1,
            ..Resources::default()
        };
        change(&mut wants);
        wants
    }

    fn given(wants: &Resources, taken: &[&str]) -> Result<Vec<String>, String> {
        let taken = taken.iter().map(|uuid| (*uuid).to_owned()).collect();
        gpus_here(wants, &inventory(), &taken, Timestamp(0)).map_err(|lacking| lacking.to_string())
    }

    #[test]
    fn the_gpus_are_those_that_the_queue_would_give() {
        assert_eq!(
            given(&wants(|_| ()), &[]).unwrap(),
            ["GPU-1"],
            "the smallest"
        );
        let model = |text: &str| vec![text.parse().unwrap()];
        let a100 = wants(|r| r.gpu_models = model("A100"));
        assert_eq!(given(&a100, &[]).unwrap(), ["GPU-0"]);
        assert_eq!(given(&a100, &["GPU-0"]).unwrap(), ["GPU-2"]);
        let both = wants(|r| (r.gpus, r.gpu_models) = (2, model("a100-80gb")));
        assert_eq!(given(&both, &[]).unwrap(), ["GPU-0", "GPU-2"]);
        assert_eq!(given(&wants(|r| r.gpus = 0), &[]).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let model = |text: &str| vec![text.parse().unwrap()];
        for (wants, taken, words) in [
            (
                wants(|r| (r.gpus, r.gpu_models) = (2, model("A100"))),
                &["GPU-2"][..],
                "needs 2 GPUs (A100); 1 of 2 such GPUs are free",
            ),
            (
                wants(|r| r.gpu_models = model("H100")),
                &[],
                "gpu-3 has no GPU of the model 'H100'; there are NVIDIA A100-SXM4-80GB, Tesla T4",
            ),
            (
                wants(|r| r.mig = Some("1g.10gb".to_owned())),
                &[],
                "gpu-3 has no MIG slice of the profile 1g.10gb; there is none",
            ),
            (
                wants(|r| r.compute_capability = ">=9.0".parse().ok()),
                &[],
                "needs a GPU of compute capability 9.0 or higher; the nearest, of gpu-3, has 8.0",
            ),
            (
                wants(|r| r.cuda = ">=12.8".parse().ok()),
                &[],
                "needs CUDA 12.8 or newer; the driver of gpu-3 runs 12.4",
            ),
            (
                wants(|r| (r.gpus, r.cuda) = (0, ">=13.0".parse().ok())),
                &[],
                "needs CUDA 13.0 or newer; the driver of gpu-3 runs 12.4",
            ),
        ] {
            assert_eq!(given(&wants, taken).unwrap_err(), words);
        }
    }
}
