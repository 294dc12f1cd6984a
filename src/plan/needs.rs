//! What a job needs of a host, in one line for people.

use protocol::JobSpec;
use protocol::gpu::GpuModel;
use protocol::spec::Resources;

/// `4 CPUs, 16 GiB, 1 GPU (A100 or H100) of 24 GiB, compute >=8.0, CUDA >=12.1, on datacenter-a`.
#[must_use]
pub fn needs(spec: &JobSpec) -> String {
    let resources = &spec.resources;
    let mut parts = vec![cpus(resources.cpu_millis), resources.memory.to_string()];
    parts.extend(gpus(resources));
    let bound = resources.compute_capability;
    parts.extend(bound.map(|bound| format!("compute {bound}")));
    parts.extend(resources.cuda.map(|bound| format!("CUDA {bound}")));
    parts.extend(resources.disk.map(|disk| format!("{disk} of disk")));
    if !spec.volumes.is_empty() {
        let names: Vec<&str> = spec.volumes.keys().map(String::as_str).collect();
        parts.push(format!("volumes {}", names.join(" ")));
    }
    if !spec.runs_on.is_empty() {
        parts.push(format!("on {}", spec.runs_on.join(" ")));
    }
    parts.join(", ")
}

fn cpus(millis: u64) -> String {
    let cpus = millis as f64 / 1000.0;
    format!("{cpus} CPU{}", if cpus > 1.0 { "s" } else { "" })
}

fn gpus(resources: &Resources) -> Option<String> {
    let count = resources.gpus;
    if count == 0 {
        return None;
    }
    let plural = if count > 1 { "s" } else { "" };
    let mut text = match &resources.mig {
        Some(profile) => format!("{count} MIG slice{plural} {profile}"),
        None => format!("{count} GPU{plural}"),
    };
    let models: Vec<&str> = resources.gpu_models.iter().map(GpuModel::as_str).collect();
    if !models.is_empty() {
        text.push_str(&format!(" ({})", models.join(" or ")));
    }
    if let Some(memory) = resources.gpu_memory {
        text.push_str(&format!(" of {memory}"));
    }
    if resources.nvlink {
        text.push_str(" by NVLink");
    }
    Some(text)
}
