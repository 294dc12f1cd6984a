//! What an attempt uses of the host: a container by its cgroups (version 1 or 2), a process by its tree. It knows
//! nothing of engines.

use std::fs;
use std::path::{Path, PathBuf};

use protocol::{ByteSize, Span};

use super::tree;

/// Where the numbers of one attempt stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meter {
    /// Version 1: a folder for each controller.
    V1 {
        memory: PathBuf,
        cpu: PathBuf,
        pids: PathBuf,
    },
    /// Version 2: one folder.
    V2 { group: PathBuf },
    /// No control group of its own: a process and what came from it.
    Tree { root: u32 },
}

/// One reading. What a host does not tell is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    pub(crate) memory: Option<ByteSize>,
    pub(crate) memory_peak: Option<ByteSize>,
    pub(crate) cpu_time: Option<Span>,
    /// Processes and threads now.
    pub(crate) processes: Option<u64>,
    /// How often something was ended for want of memory.
    pub(crate) oom_kills: Option<u64>,
}

impl Meter {
    /// The groups of a process of this host; none where they cannot be seen.
    pub(crate) fn of_process(pid: i64) -> Option<Self> {
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Self::choose(&lines, |path| path.is_dir())
    }

    /// Chooses by the lines of `/proc/PID/cgroup` and what is there.
    fn choose(lines: &str, is_there: impl Fn(&Path) -> bool) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let groups: Vec<(&str, &str)> = lines
            .lines()
            .filter_map(|line| line.split_once(':')?.1.split_once(':'))
            .collect();
        let of = |controller: &str| {
            let (names, group) = groups
                .iter()
                .find(|(names, _)| names.split(',').any(|name| name == controller))?;
            let group = group.trim_start_matches('/');
            [*names, controller]
                .iter()
                .map(|folder| root.join(folder).join(group))
                .find(|path| is_there(path))
        };
        if let (Some(memory), Some(cpu), Some(pids)) = (of("memory"), of("cpuacct"), of("pids")) {
            return Some(Meter::V1 { memory, cpu, pids });
        }
        let (_, group) = groups.iter().find(|(names, _)| names.is_empty())?;
        // The root group belongs to the whole host.
        let group = group.trim_start_matches('/');
        let group = (!group.is_empty()).then(|| root.join(group))?;
        is_there(&group).then_some(Meter::V2 { group })
    }

    /// Whether a reading costs next to nothing.
    pub(crate) fn is_quick(&self) -> bool {
        match self {
            Meter::V1 { .. } | Meter::V2 { .. } => true,
            Meter::Tree { .. } => false,
        }
    }

    /// Reads it now.
    pub(crate) fn read(&self) -> Reading {
        match self {
            Meter::Tree { root } => tree::read(*root),
            Meter::V1 { memory, cpu, pids } => Reading {
                memory: number(&memory.join("memory.usage_in_bytes")).map(ByteSize),
                memory_peak: number(&memory.join("memory.max_usage_in_bytes")).map(ByteSize),
                cpu_time: number(&cpu.join("cpuacct.usage")).map(|ns| Span(ns / 1_000_000)),
                processes: number(&pids.join("pids.current")),
                oom_kills: keyed(&memory.join("memory.oom_control"), "oom_kill"),
            },
            Meter::V2 { group } => Reading {
                memory: number(&group.join("memory.current")).map(ByteSize),
                memory_peak: number(&group.join("memory.peak")).map(ByteSize),
                cpu_time: keyed(&group.join("cpu.stat"), "usage_usec").map(|us| Span(us / 1_000)),
                processes: number(&group.join("pids.current")),
                oom_kills: keyed(&group.join("memory.events"), "oom_kill"),
            },
        }
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind `key` in a file of lines `key number`.
fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_has_a_folder_for_each_controller() {
        let lines = "11:memory:/docker/abc\n5:cpu,cpuacct:/docker/abc\n3:pids:/docker/abc\n0::/docker/abc\n";
        let meter = Meter::choose(lines, |path| !path.starts_with("/sys/fs/cgroup/cpuacct"));
        assert_eq!(
            meter,
            Some(Meter::V1 {
                memory: "/sys/fs/cgroup/memory/docker/abc".into(),
                cpu: "/sys/fs/cgroup/cpu,cpuacct/docker/abc".into(),
                pids: "/sys/fs/cgroup/pids/docker/abc".into(),
            })
        );
    }

    #[test]
    fn version_2_has_one_and_the_root_group_is_nobodys() {
        let group = PathBuf::from("/sys/fs/cgroup/system.slice/docker-abc.scope");
        let lines = "0::/system.slice/docker-abc.scope\n";
        assert_eq!(Meter::choose(lines, |_| true), Some(Meter::V2 { group }));
        assert_eq!(Meter::choose("0::/\n", |_| true), None);
        assert_eq!(Meter::choose("", |_| true), None);
    }

    #[test]
    fn numbers_of_version_2_are_read_from_its_files() {
        let group = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(group.path().join(name), text).unwrap();
        write("memory.current", "1048576\n");
        write("memory.peak", "2097152\n");
        write("cpu.stat", "usage_usec 2500000\nuser_usec 1\n");
        write("memory.events", "low 0\noom 2\noom_kill 1\n");
        write("pids.current", "12\n");
        let reading = Meter::V2 {
            group: group.path().into(),
        }
        .read();
        assert_eq!(reading.memory, Some(ByteSize::mib(1)));
        assert_eq!(reading.memory_peak, Some(ByteSize::mib(2)));
        assert_eq!(reading.cpu_time, Some(Span(2_500)));
        assert_eq!((reading.processes, reading.oom_kills), (Some(12), Some(1)));
    }
}
