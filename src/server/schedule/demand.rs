//! What a job asks of a host, and what a host lacks for it. Of an empty host: what is booked is not its part.

use protocol::gpu::memory_suffices;
use protocol::spec::Resources;
use protocol::{ByteSize, JobSpec, ProjectId, Trust};
use serde::{Deserialize, Serialize};

use super::{Host, HostGpu};

/// What a job needs. Equal demands are one: jobs share them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// CPUs, memory, disk and GPUs.
    pub resources: Resources,
    /// Labels that its host must have.
    pub runs_on: Vec<String>,
    /// Names of the volumes that it mounts.
    pub volumes: Vec<String>,
    /// Its project, where it mounts volumes: not every one is for every project. In a row its id, for
    /// [`place`](super::place) its name.
    pub project: String,
    /// How far its commit is trusted, where it mounts volumes.
    pub trust: Trust,
}

/// What a host lacks, the farthest from fitting first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lack {
    /// A label.
    Label(String),
    /// A volume.
    Volume(String),
    /// It has the volume, but not for this job; why.
    Grant(String, &'static str),
    /// GPUs at all.
    Gpus,
    /// GPUs of one of the models.
    Model,
    /// Slices of the profile, or whole GPUs.
    Profile,
    /// GPUs of the compute capability.
    Capability,
    /// GPUs with the memory.
    GpuMemory,
    /// So many of them; it has this many.
    Count(usize),
    /// So many of them in one NVLink group; the largest has this many.
    Nvlink(usize),
    /// A driver for the CUDA version.
    Cuda,
    /// CPUs, memory or disk.
    Room,
}

impl Demand {
    /// What the job of a spec needs.
    #[must_use]
    pub fn of(spec: &JobSpec, trust: Trust, project: &ProjectId) -> Self {
        let mounts = !spec.volumes.is_empty();
        Self {
            resources: spec.resources.clone(),
            runs_on: spec.runs_on.clone(),
            volumes: spec.volumes.keys().cloned().collect(),
            // Of no matter where nothing is mounted: then jobs of all projects have equal demands.
            project: if mounts {
                project.to_string()
            } else {
                String::new()
            },
            trust: if mounts { trust } else { Trust::Trusted },
        }
    }

    /// What an empty host lacks for it; none: it would do.
    pub(super) fn lack(&self, host: &Host) -> Option<Lack> {
        match self.lacks_place(host) {
            Some(Lack::Cuda) if self.resources.gpus > 0 => {
                self.lacks_gpus(host).or(Some(Lack::Cuda))
            }
            Some(lack) => Some(lack),
            None if self.resources.gpus > 0 => {
                self.lacks_gpus(host).or_else(|| self.lacks_room(host))
            }
            None => self.lacks_room(host),
        }
    }

    /// Labels, volumes, CUDA.
    pub(super) fn lacks_place(&self, host: &Host) -> Option<Lack> {
        if let Some(label) = self.runs_on.iter().find(|l| !host.labels.contains(*l)) {
            return Some(Lack::Label(label.clone()));
        }
        for name in &self.volumes {
            let Some(grant) = host.volumes.get(name) else {
                return Some(Lack::Volume(name.clone()));
            };
            if let Some(why) = grant.refusal(&self.project, self.trust) {
                return Some(Lack::Grant(name.clone(), why));
            }
        }
        let cuda = self.resources.cuda?;
        let admits = host.cuda.as_deref().is_some_and(|found| cuda.admits(found));
        (!admits).then_some(Lack::Cuda)
    }

    fn lacks_room(&self, host: &Host) -> Option<Lack> {
        let wants = &self.resources;
        let room = host.cpu_millis >= wants.cpu_millis
            && host.memory >= wants.memory.0
            && host.disk >= wants.disk.unwrap_or_default().0;
        (!room).then_some(Lack::Room)
    }

    fn lacks_gpus(&self, host: &Host) -> Option<Lack> {
        let (wants, mut left) = (&self.resources, host.gpus.iter().collect::<Vec<_>>());
        if left.is_empty() {
            return Some(Lack::Gpus);
        }
        for (lack, has) in [
            (Lack::Model, Self::model as fn(&Self, &HostGpu) -> bool),
            (Lack::Profile, Self::profile),
            (Lack::Capability, Self::capability),
            (Lack::GpuMemory, Self::gpu_memory),
        ] {
            left.retain(|gpu| has(self, gpu));
            if left.is_empty() {
                return Some(lack);
            }
        }
        if left.len() < wants.gpus as usize {
            return Some(Lack::Count(left.len()));
        }
        if wants.nvlink && wants.gpus > 1 {
            let group = |of: &HostGpu| left.iter().filter(|gpu| gpu.nvlink == of.nvlink).count();
            let linked = left.iter().filter(|gpu| gpu.nvlink.is_some());
            let largest = linked.map(|gpu| group(gpu)).max().unwrap_or(0);
            if largest < wants.gpus as usize {
                return Some(Lack::Nvlink(largest));
            }
        }
        None
    }

    /// Whether a device is one of those that will do, healthy or not.
    pub(super) fn admits(&self, gpu: &HostGpu) -> bool {
        self.model(gpu) && self.profile(gpu) && self.capability(gpu) && self.gpu_memory(gpu)
    }

    pub(super) fn model(&self, gpu: &HostGpu) -> bool {
        let models = &self.resources.gpu_models;
        let memory = ByteSize(gpu.memory);
        // A slice has the name of its GPU, and less memory: of it only the words count.
        let memory = gpu.profile.as_ref().map_or(memory, |_| ByteSize(u64::MAX));
        models.is_empty() || models.iter().any(|model| model.matches(&gpu.model, memory))
    }

    fn profile(&self, gpu: &HostGpu) -> bool {
        gpu.profile == self.resources.mig
    }

    fn capability(&self, gpu: &HostGpu) -> bool {
        let bound = self.resources.compute_capability;
        bound.is_none_or(|bound| bound.admits(&gpu.compute_capability))
    }

    fn gpu_memory(&self, gpu: &HostGpu) -> bool {
        let wanted = self.resources.gpu_memory;
        wanted.is_none_or(|wanted| memory_suffices(ByteSize(gpu.memory), wanted))
    }
}
