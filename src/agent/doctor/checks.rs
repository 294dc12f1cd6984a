//! The looks themselves, one function each.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::{Check, client};
use crate::config::Config;
use crate::executor::Engine;
use crate::hardware::{Disk, Machine};
use crate::host::{find_driver, find_uv};

/// How long a program may take to say its version.
const PROGRAM_WITHIN: Duration = Duration::from_secs(10);
/// Clocks that differ by more make time-outs and logs hard to read.
const CLOCK_SECONDS: i64 = 30;

pub(super) async fn image(engine: &Engine, name: &str) -> Check {
    match engine.image(name, None).await {
        Ok(image) => Check::ok("image", format!("{name} is here ({})", image.identity)),
        Err(error) => Check::warn(
            "image",
            error.to_string(),
            "bring it to this host (`docker load`, or `docker build` of Trainyard's `images/notebook`), or name another image in the pipeline file",
        ),
    }
}

pub(super) fn driver() -> Check {
    let path = match find_driver() {
        Ok(path) => path,
        Err(error) => {
            return Check::fail(
                "driver",
                error.to_string(),
                "unpack the release whole: the driver lies in its `lib/trainyard`, beside `bin`",
            );
        }
    };
    match is_static(&path) {
        Ok(true) => Check::ok("driver", path.display().to_string()),
        Ok(false) => Check::fail(
            "driver",
            format!(
                "{} is linked dynamically: it will not start in every image",
                path.display()
            ),
            "use the driver of the release, which is linked statically",
        ),
        Err(error) => Check::fail(
            "driver",
            format!("{}: {error}", path.display()),
            "set TRAINYARD_DRIVER to the driver of this release",
        ),
    }
}

/// Whether an ELF executable asks for no interpreter.
fn is_static(path: &Path) -> std::io::Result<bool> {
    const PT_INTERP: u32 = 3;
    let mut head = Vec::new();
    std::fs::File::open(path)?
        .take(64 << 10)
        .read_to_end(&mut head)?;
    let wrong = || std::io::Error::other("it is no 64-bit ELF executable");
    let bytes = |at: usize, n: usize| head.get(at..at + n).ok_or_else(wrong);
    if bytes(0, 5)? != b"\x7fELF\x02" {
        return Err(wrong());
    }
    let short = |at: usize| {
        Ok::<_, std::io::Error>(usize::from(u16::from_le_bytes([
            bytes(at, 2)?[0],
            bytes(at, 2)?[1],
        ])))
    };
    let table = u64::from_le_bytes(bytes(32, 8)?.try_into().map_err(|_| wrong())?);
    let table = usize::try_from(table).map_err(|_| wrong())?;
    let (size, count) = (short(54)?, short(56)?);
    for n in 0..count {
        let kind = bytes(table + n * size, 4)?;
        if u32::from_le_bytes(kind.try_into().map_err(|_| wrong())?) == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) async fn uv(config: &Config) -> Check {
    let Some(path) = find_uv(config) else {
        return Check::fail(
            "uv",
            "the program `uv`, which builds Python environments, was not found",
            "unpack the release whole (it has uv in `lib/trainyard`), install uv, or set `python.uv` in the agent's configuration",
        );
    };
    match version(&path).await {
        Ok(words) => Check::ok("uv", format!("{words} ({})", path.display())),
        Err(reason) => Check::fail(
            "uv",
            format!("{}: {reason}", path.display()),
            "install uv anew",
        ),
    }
}

pub(super) async fn git() -> Check {
    match version(Path::new("git")).await {
        Ok(words) => Check::ok("git", words),
        Err(reason) => Check::fail(
            "git",
            format!("`git` does not run: {reason}"),
            "install git",
        ),
    }
}

/// Not everybody needs it.
pub(super) async fn git_lfs() -> Check {
    let words = version(Path::new("git-lfs")).await;
    let none = "none; jobs with `checkout: {lfs: true}` need it (package git-lfs)";
    Check::ok("git-lfs", words.unwrap_or_else(|_| none.to_owned()))
}

pub(super) async fn version(program: &Path) -> Result<String, String> {
    let output = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PROGRAM_WITHIN, output)
        .await
        .map_err(|_| format!("no answer within {PROGRAM_WITHIN:?}"))?
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(output.status.to_string());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

pub(super) fn share(config: &Config) -> Check {
    let machine = Machine::look();
    let share = machine.share(config);
    let found = format!(
        "jobs may use {} of {} CPUs and {} of {}",
        cpus(share.cpu_millis),
        cpus(machine.cpu_millis),
        share.memory,
        machine.memory,
    );
    let asked = &config.capacity;
    let too_much = asked.memory.is_some_and(|memory| memory > machine.memory)
        || asked
            .cpus
            .is_some_and(|cpus| cpus * 1_000.0 > machine.cpu_millis as f64);
    if too_much {
        return Check::warn(
            "capacity",
            found,
            "`capacity` asks for more than this host has, or than the agent's own cgroup allows",
        );
    }
    Check::ok("capacity", found)
}

fn cpus(millis: u64) -> String {
    format!("{}", millis as f64 / 1_000.0)
}

pub(super) fn disk(config: &Config) -> Vec<Check> {
    let data = config.data.display();
    let room = match Disk::of(&config.data) {
        Ok(disk) if disk.free < config.disk.watermark => Check::fail(
            "disk",
            format!(
                "{data}: {} free, less than the watermark of {}",
                disk.free, config.disk.watermark
            ),
            "make room, move `data` to another disk, or lower `disk.watermark`; until then no job is taken",
        ),
        Ok(disk) => Check::ok(
            "disk",
            format!("{data}: {} of {} free", disk.free, disk.size),
        ),
        Err(error) => Check::fail(
            "disk",
            format!("{data}: {error}"),
            "correct `data` in the agent's configuration",
        ),
    };
    let there = config
        .data
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(&config.data);
    match rustix::fs::access(there, rustix::fs::Access::WRITE_OK) {
        Ok(()) => vec![room],
        Err(_) => {
            let found = format!("this user may not write to {}", there.display());
            let hint =
                "give it the folder, or name another one as `data` in the agent's configuration";
            vec![room, Check::fail("data folder", found, hint)]
        }
    }
}

/// The folders that jobs may mount. None: none is configured.
pub(super) fn volumes(config: &Config) -> Option<Check> {
    let missing: Vec<String> = config
        .volumes
        .iter()
        .filter(|(_, volume)| !volume.path.is_dir())
        .map(|(name, volume)| format!("`{name}`: {} is no folder", volume.path.display()))
        .collect();
    if !missing.is_empty() {
        let hint = "mount or make it, or correct `volumes` in the agent's configuration; until then jobs that want it fail here";
        return Some(Check::fail("volumes", missing.join("; "), hint));
    }
    if !config.executors.docker && !config.volumes.is_empty() {
        let hint =
            "set `executors.docker = true` in the agent's configuration, or leave `volumes` out";
        let found = "without containers none can be mounted, and none is offered";
        return Some(Check::warn("volumes", found, hint));
    }
    let names: Vec<&str> = config.volumes.keys().map(String::as_str).collect();
    (!names.is_empty()).then(|| Check::ok("volumes", names.join(", ")))
}

pub(super) async fn server(config: &Config) -> Vec<Check> {
    let client = match client(config) {
        None => {
            return vec![Check::ok(
                "server",
                "none is configured: `trainyard run` needs none",
            )];
        }
        Some(Err(reason)) => {
            return vec![Check::fail(
                "server",
                reason,
                "correct `server` in the agent's configuration",
            )];
        }
        Some(Ok(client)) => client,
    };
    let theirs = match client.clock().await {
        Ok(clock) => clock,
        Err(error) => {
            let hint =
                "is the URL right, does the server run, does a proxy or firewall stand between?";
            return vec![Check::warn("server", error.to_string(), hint)];
        }
    };
    let reached = Check::ok("server", format!("{} answers", client.server()));
    let clock = match theirs.map(|theirs| (chrono::Utc::now() - theirs).num_seconds()) {
        None => Check::ok("clock", "the server does not tell its time"),
        Some(ahead) if ahead.abs() > CLOCK_SECONDS => Check::warn(
            "clock",
            format!(
                "this host's clock is {} s {} the server's",
                ahead.abs(),
                if ahead > 0 { "ahead of" } else { "behind" }
            ),
            "let both follow a time server (chrony, systemd-timesyncd)",
        ),
        Some(_) => Check::ok("clock", format!("within {CLOCK_SECONDS} s of the server's")),
    };
    vec![reached, clock]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_text() {
        let own = std::env::current_exe().unwrap();
        assert!(
            !is_static(&own).unwrap(),
            "a test's executable is linked dynamically"
        );
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("driver");
        std::fs::write(&text, "#!/bin/sh\n").unwrap();
        assert!(is_static(&text).is_err());
    }

    #[test]
    fn a_volume_whose_folder_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let there = format!("[volumes.data]\npath = \"{}\"\n", dir.path().display());
        let config = |text: &str| Config::parse(text).unwrap();
        assert_eq!(volumes(&config("")), None);
        assert_eq!(volumes(&config(&there)).unwrap().found, "data");
        let gone = format!("{there}[volumes.imagenet]\npath = \"/no/such\"\n");
        let check = volumes(&config(&gone)).unwrap();
        assert_eq!(check.found, "`imagenet`: /no/such is no folder");
        let shell = format!("{there}[executors]\ndocker = false\nshell = true\n");
        let found = volumes(&config(&shell)).unwrap().found;
        assert!(found.contains("none is offered"), "{found}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_said() {
        assert!(version(Path::new("/no/such/program")).await.is_err());
        assert!(version(Path::new("git")).await.unwrap().contains("git"));
    }
}
