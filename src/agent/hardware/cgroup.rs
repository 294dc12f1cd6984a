//! The limits of the cgroup that this process is in, versions 1 and 2. It reads the kernel's files through
//! a closure, so that other hosts' files can be told in a test.

use std::path::{Path, PathBuf};

use protocol::ByteSize;

/// Limits of a cgroup and everything above it; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// CPUs in thousandths.
    pub cpu_millis: Option<u64>,
    /// Memory.
    pub memory: Option<ByteSize>,
}

/// Version 1 writes "no limit" as the largest number of whole pages.
const V1_UNLIMITED: u64 = 1 << 62;

/// The limits of this process.
pub(super) fn own_limits() -> Limits {
    limits(|path| std::fs::read_to_string(path).ok())
}

/// The limits, where `read` gives the text of a file.
fn limits(read: impl Fn(&Path) -> Option<String>) -> Limits {
    let text = |path: &str| read(Path::new(path)).unwrap_or_default();
    let mounts = mounts(&text("/proc/self/mountinfo"));
    let mut found = Limits::default();
    for line in text("/proc/self/cgroup").lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        for mount in &mounts {
            let Some(controllers) = mount.holds(controllers) else {
                continue;
            };
            for folder in mount.folders(Path::new(path)) {
                let value = |name: &str| read(&folder.join(name));
                found.cpu_millis = least(found.cpu_millis, cpu(controllers, &value));
                found.memory = least(found.memory, memory(controllers, &value));
            }
        }
    }
    found
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).min()
}

/// Which files a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hierarchy {
    V2,
    V1 { cpu: bool, memory: bool },
}

fn cpu(hierarchy: Hierarchy, value: &impl Fn(&str) -> Option<String>) -> Option<u64> {
    let (quota, period) = match hierarchy {
        Hierarchy::V2 => {
            let text = value("cpu.max")?;
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?)
        }
        Hierarchy::V1 { cpu: true, .. } => (
            value("cpu.cfs_quota_us")?.trim().parse().ok()?,
            value("cpu.cfs_period_us")?.trim().parse().ok()?,
        ),
        Hierarchy::V1 { cpu: false, .. } => return None,
    };
    quota.checked_mul(1_000)?.checked_div(period)
}

fn memory(hierarchy: Hierarchy, value: &impl Fn(&str) -> Option<String>) -> Option<ByteSize> {
    let name = match hierarchy {
        Hierarchy::V2 => "memory.max",
        Hierarchy::V1 { memory: true, .. } => "memory.limit_in_bytes",
        Hierarchy::V1 { memory: false, .. } => return None,
    };
    let bytes: u64 = value(name)?.trim().parse().ok()?;
    (bytes < V1_UNLIMITED).then_some(ByteSize(bytes))
}

/// Where a hierarchy is mounted.
#[derive(Debug)]
struct Mount {
    /// Which cgroup is seen at `at`.
    root: PathBuf,
    at: PathBuf,
    /// Controllers of version 1; none for version 2.
    v1: Option<Vec<String>>,
}

impl Mount {
    /// The hierarchy, where it is the one of a line of `/proc/self/cgroup` with these controllers.
    fn holds(&self, controllers: &str) -> Option<Hierarchy> {
        match &self.v1 {
            None => controllers.is_empty().then_some(Hierarchy::V2),
            Some(_) if controllers.is_empty() => None,
            Some(options) => {
                let has = |name: &str| {
                    options.iter().any(|option| option == name)
                        && controllers.split(',').any(|c| c == name)
                };
                let (cpu, memory) = (has("cpu"), has("memory"));
                (cpu || memory).then_some(Hierarchy::V1 { cpu, memory })
            }
        }
    }

    /// The folder of the cgroup at `path` and those above it, as far as they can be seen. In a container
    /// the path may be the host's, and the mount shows the container's own cgroup at its top.
    fn folders(&self, path: &Path) -> Vec<PathBuf> {
        let below = path
            .strip_prefix(&self.root)
            .ok()
            .filter(|below| self.at.join(below).starts_with(&self.at))
            .unwrap_or(Path::new(""));
        let folder = self.at.join(below);
        folder
            .ancestors()
            .take_while(|folder| folder.starts_with(&self.at))
            .map(Path::to_owned)
            .collect()
    }
}

/// The cgroup mounts of `/proc/self/mountinfo`:
/// `36 31 0:33 ROOT AT options [optional fields] - TYPE SOURCE SUPER_OPTIONS`.
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, at) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let kind = after.next()?;
        let options = after.nth(1).unwrap_or_default();
        let v1 = match kind {
            "cgroup2" => None,
            "cgroup" => Some(options.split(',').map(str::to_owned).collect()),
            _ => return None,
        };
        Some(Mount {
            root: root.into(),
            at: at.into(),
            v1,
        })
    };
    mountinfo.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn limits_of(files: &[(&str, &str)]) -> Limits {
        let files: BTreeMap<_, _> = files.iter().copied().collect();
        limits(|path| files.get(path.to_str()?).map(|text| (*text).to_owned()))
    }

    #[test]
    fn version_2_takes_the_least_of_all_levels() {
        let found = limits_of(&[
            ("/proc/self/cgroup", "0::/system.slice/trainyard.service\n"),
            (
                "/proc/self/mountinfo",
                "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            ),
            (
                "/sys/fs/cgroup/system.slice/trainyard.service/cpu.max",
                "max 100000\n",
            ),
            (
                "/sys/fs/cgroup/system.slice/trainyard.service/memory.max",
                "34359738368\n",
            ),
            ("/sys/fs/cgroup/system.slice/cpu.max", "650000 100000\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "max\n"),
        ]);
        assert_eq!(
            found,
            Limits {
                cpu_millis: Some(6_500),
                memory: Some(ByteSize::gib(32))
            }
        );
    }

    #[test]
    fn version_1_in_a_container_whose_path_is_the_hosts() {
        let found = limits_of(&[
            (
                "/proc/self/cgroup",
                "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
            ),
            (
                "/proc/self/mountinfo",
                "41 31 0:32 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
                 42 31 0:35 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
            ),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            (
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "4294967296\n",
            ),
        ]);
        assert_eq!(
            found,
            Limits {
                cpu_millis: Some(2_000),
                memory: Some(ByteSize::gib(4))
            }
        );
    }

    #[test]
    fn version_1_without_limits_has_none() {
        let found = limits_of(&[
            ("/proc/self/cgroup", "4:memory:/\n1:cpu:/\n0::/\n"),
            (
                "/proc/self/mountinfo",
                "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                 35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            ),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            (
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        assert_eq!(found, Limits::default());
    }

    #[test]
    fn a_host_without_cgroups_has_no_limits() {
        assert_eq!(limits_of(&[]), Limits::default());
    }
}
