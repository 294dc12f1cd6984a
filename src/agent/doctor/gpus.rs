//! The GPUs: what NVML says of them, and whether the engine can give one to a container. That is tried, not believed.

use std::path::Path;

use protocol::hardware::{GpuHealth, GpuKind};
use protocol::{Span, Timestamp};

use super::Check;
use crate::config::Config;
use crate::executor::{Engine, EngineFacts};
use crate::hardware::{GpuReading, Hardware, NvmlAbsent, unjudged};
use crate::host::find_driver;
use crate::trial::Trial;

/// What there is where NVIDIA's driver is loaded: on Linux, and on Linux in Windows.
const LOADED: [&str; 2] = ["/proc/driver/nvidia/version", "/dev/dxg"];
/// What an engine needs for GPUs.
const TOOLKIT: &str = "install NVIDIA's container toolkit, run `nvidia-ctk runtime configure --runtime=docker`, and restart the engine";
/// NVIDIA's device files have this major number.
const MAJOR: &str = "195:";

pub(super) async fn gpus(
    config: &Config,
    engine: Option<&(Engine, EngineFacts)>,
    image: &str,
) -> Vec<Check> {
    let hardware = Hardware::open(config);
    match hardware.absent() {
        Some(absent @ NvmlAbsent::NoDriver { .. }) => {
            return vec![Check::ok("gpus", format!("none: {absent}"))];
        }
        Some(absent @ NvmlAbsent::Unusable { .. }) => {
            let hint = "install NVIDIA's driver, whose `libnvidia-ml.so.1` it is, or correct `gpus.library` in the agent's configuration";
            return vec![Check::warn("gpus", absent.to_string(), hint)];
        }
        Some(absent @ NvmlAbsent::Broken(_)) => {
            let hint = "run `nvidia-smi`; after an upgrade of the driver the host wants a restart";
            return vec![Check::warn("gpus", absent.to_string(), hint)];
        }
        Some(absent @ NvmlAbsent::Silent(_)) => {
            let hint = "run `nvidia-smi`, which probably hangs too, and look for NVRM in `dmesg`: the host wants a restart. A driver that is only slow wants nvidia-persistenced, or a longer `gpus.driver_timeout`; an agent that runs goes on without GPUs, and offers them when it answers";
            return vec![Check::warn("gpus", absent.to_string(), hint)];
        }
        None => {}
    }
    let readings = hardware.gpus();
    let mut found = vec![health(&readings)];
    let Some((engine, facts)) = engine.filter(|_| !readings.is_empty()) else {
        return found;
    };
    found.extend(reload(facts, has_links(Path::new("/dev/char"))));
    found.push(match free(&readings) {
        None => Check::ok("gpu in a container", "not tried: no GPU is free now"),
        Some(gpu) => {
            let has_driver = LOADED.iter().any(|path| Path::new(path).exists());
            tried(gpu, give(config, engine, image, gpu).await, has_driver)
        }
    });
    found
}

fn health(readings: &[GpuReading]) -> Check {
    let now = Timestamp::now();
    let mut sick: Vec<String> = unjudged(readings.to_vec())
        .iter()
        .filter_map(|gpu| Some(format!("GPU {}: {}", gpu.index, gpu.health.hindrance(now)?)))
        .collect();
    // A GPU and its slices say the same.
    sick.dedup();
    let is_slice = |reading: &&GpuReading| matches!(reading.gpu.kind, GpuKind::Slice { .. });
    let slices = readings.iter().filter(is_slice).count();
    let found = match (counted(readings.len() - slices, "GPU"), slices) {
        (gpus, 0) => format!("{gpus} by NVML"),
        (gpus, slices) => format!("{gpus} and {} of MIG by NVML", counted(slices, "slice")),
    };
    if sick.is_empty() {
        return Check::ok("gpus", found);
    }
    Check::warn(
        "gpus",
        format!("{found}; {}", sick.join("; ")),
        "no job gets a GPU that is not healthy",
    )
}

fn counted(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// NVIDIA's known loss of GPUs: where systemd keeps the rules of devices and cannot find NVIDIA's by their numbers,
/// `systemctl daemon-reload` takes them from running containers.
fn reload(facts: &EngineFacts, has_links: bool) -> Option<Check> {
    (facts.cgroup_driver == "systemd" && !has_links).then(|| {
        Check::warn(
            "daemon-reload",
            "`systemctl daemon-reload` takes the GPUs from running jobs on this host: systemd manages the engine's cgroups, and /dev/char has no links to NVIDIA's devices",
            "run `nvidia-ctk system create-dev-char-symlinks --create-all` at every start of the host, or set \"exec-opts\": [\"native.cgroupdriver=cgroupfs\"] in /etc/docker/daemon.json",
        )
    })
}

fn has_links(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .any(|name| name.starts_with(MAJOR))
}

/// A GPU that nobody uses.
fn free(readings: &[GpuReading]) -> Option<&GpuReading> {
    readings.iter().find(|reading| {
        reading.gpu.kind != GpuKind::Sliced
            && reading.gpu.health == GpuHealth::Healthy
            && reading.fault.is_none()
            && reading.processes.is_empty()
            && reading.node.is_some()
    })
}

fn tried(gpu: &GpuReading, given: Result<Span, String>, has_driver: bool) -> Check {
    let name = format!("GPU {}", gpu.gpu.index);
    match given {
        Ok(took) => Check::ok(
            "gpu in a container",
            format!("{name} was given to a container, and no other ({took})"),
        ),
        Err(why) => Check::fail(
            "gpu in a container",
            format!("{name} cannot be given to a container: {why}"),
            match has_driver {
                true => TOOLKIT.to_owned(),
                false => format!(
                    "NVIDIA's driver is not loaded on this host ({} is missing): install it first, so that `nvidia-smi` answers; then {TOOLKIT}",
                    LOADED[0]
                ),
            },
        ),
    }
}

/// Runs the driver with one GPU, which looks whether it sees that one and no other.
async fn give(
    config: &Config,
    engine: &Engine,
    image: &str,
    gpu: &GpuReading,
) -> Result<Span, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let driver = find_driver().map_err(|e| words(&e))?;
    let image = engine.image(image, None).await.map_err(|e| words(&e))?;
    let place = Some(&config.data).filter(|data| data.exists()).cloned();
    let folder =
        tempfile::tempdir_in(place.unwrap_or_else(std::env::temp_dir)).map_err(|e| words(&e))?;
    let trial = Trial {
        engine,
        driver: &driver,
        image: image.id,
        folder: folder.path(),
        name: format!("trainyard-doctor-{}", std::process::id()),
        labels: [("trainyard.doctor".to_owned(), "gpu".to_owned())].into(),
    };
    trial.run(Some(gpu)).await.map_err(|e| words(&e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;
    use crate::hardware::example;

    #[test]
    fn the_loss_of_gpus_on_a_reload_is_said_where_it_happens() {
        let facts = |driver: &str| EngineFacts {
            cgroup_driver: driver.into(),
            ..EngineFacts::default()
        };
        assert!(reload(&facts("systemd"), false).is_some());
        assert_eq!(reload(&facts("systemd"), true), None);
        assert_eq!(reload(&facts("cgroupfs"), false), None);
        let dev = tempfile::tempdir().unwrap();
        assert!(!has_links(dev.path()) && !has_links(Path::new("/no/such/folder")));
        std::fs::write(dev.path().join("195:0"), "").unwrap();
        assert!(has_links(dev.path()));
    }

    #[test]
    fn only_a_gpu_that_nobody_uses_is_tried() {
        let mut sick = example("GPU-1");
        sick.fault = Some("x".into());
        let mut sliced = example("GPU-2");
        sliced.gpu.kind = GpuKind::Sliced;
        let readings = [sick, sliced, example("GPU-3")];
        assert_eq!(free(&readings).unwrap().gpu.uuid, "GPU-3");
        assert_eq!(free(&readings[..2]), None);
        let well = health(&readings[2..]);
        assert_eq!((well.level, &*well.found), (Level::Ok, "1 GPU by NVML"));
        let warned = health(&readings);
        assert!(
            warned.found.contains("GPU 0: quarantined: x"),
            "{}",
            warned.found
        );
    }

    #[test]
    fn slices_are_counted_apart_and_say_nothing_twice() {
        let slice = |uuid: &str| {
            let mut slice = example(uuid);
            slice.fault = Some("x".into());
            slice.gpu.kind = GpuKind::Slice {
                parent: "GPU-1".into(),
                profile: "1g.10gb".into(),
            };
            slice
        };
        let mut sliced = example("GPU-1");
        sliced.gpu.kind = GpuKind::Sliced;
        sliced.fault = Some("x".into());
        let said = health(&[sliced, slice("MIG-1"), slice("MIG-2")]).found;
        assert_eq!(
            said,
            "1 GPU and 2 slices of MIG by NVML; GPU 0: quarantined: x"
        );
    }

    #[test]
    fn a_driver_that_is_missing_comes_before_the_toolkit() {
        let hint = |has_driver| {
            let given = Err("no device".to_owned());
            tried(&example("GPU-1"), given, has_driver).hint.unwrap()
        };
        assert!(hint(true).starts_with("install NVIDIA's container toolkit"));
        let both = hint(false);
        let (driver, toolkit) = (both.find("driver is not loaded"), both.find("toolkit"));
        assert!(driver.is_some() && driver < toolkit, "{both}");
    }
}
