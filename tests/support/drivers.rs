//! Drivers that run as processes of a host, as somebody there finds them.

use std::path::Path;
use std::process::Command;

/// `kill -9` of each driver of the agent whose data lies here; false where none runs.
pub(crate) fn kill(data: &Path) -> bool {
    let attempts = data.join("attempts").display().to_string();
    let of_agent = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        words.contains("\0run\0--dir\0") && words.contains(&attempts)
    };
    let kill = |pid: &u32| Command::new("kill").args(["-9", &pid.to_string()]).status();
    let killed = processes()
        .filter(of_agent)
        .filter(|pid| kill(pid).unwrap().success());
    killed.count() > 0
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
