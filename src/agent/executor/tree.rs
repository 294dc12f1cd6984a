//! What a process and all that came from it use of the host, from the kernel's files: for jobs without a cgroup of
//! their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use protocol::{ByteSize, Span};

use super::Reading;

/// The kernel counts CPU time for programs in hundredths of a second, on every platform that we build for (USER_HZ).
const TICK_MS: u64 = 10;

/// One process, from `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Its own ticks and those of children that it has waited for.
    ticks: u64,
}

/// Reads the tree below `root`. The driver adopts what loses its parent, so that nothing of a job is outside. Pages that
/// several processes share count for each of them.
pub(super) fn read(root: u32) -> Reading {
    let all = processes();
    let tree = tree(root, &all);
    if tree.is_empty() {
        return Reading::default();
    }
    let ticks: u64 = tree.iter().map(|pid| all[pid].ticks).sum();
    let memory: u64 = tree.iter().filter_map(|pid| resident(*pid)).sum();
    Reading {
        memory: Some(ByteSize(memory)),
        cpu_time: Some(Span(ticks * TICK_MS)),
        ..Reading::default()
    }
}

fn processes() -> BTreeMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, stat(&text)?))
        })
        .collect()
}

/// Fields 4 and 14 to 17. The name before may hold anything, brackets and spaces too.
fn stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(4)?).ok()?,
        ticks: (14..=17).map(number).sum::<Option<u64>>()?,
    })
}

/// `root` and what descends from it; nothing where it is gone.
fn tree(root: u32, all: &BTreeMap<u32, Stat>) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, stat) in all {
        children.entry(stat.parent).or_default().push(*pid);
    }
    let mut found = BTreeSet::new();
    let mut next: Vec<u32> = all
        .contains_key(&root)
        .then_some(root)
        .into_iter()
        .collect();
    while let Some(pid) = next.pop() {
        // Read one by one, ids may be used anew meanwhile: a circle must not keep us.
        if found.insert(pid) {
            next.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// `VmRSS` in bytes.
fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_a_name_of_any_kind() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 9 8 7 6 50 20 30 4 20 0 1 0 999 1000 25\n";
        assert_eq!(
            stat(text),
            Some(Stat {
                parent: 7,
                ticks: 104
            })
        );
        assert_eq!(stat("42 (a"), None);
    }

    #[test]
    fn a_tree_holds_what_descends_and_nothing_else() {
        let of = |pairs: &[(u32, u32)]| -> BTreeMap<u32, Stat> {
            pairs
                .iter()
                .map(|(pid, parent)| {
                    let stat = Stat {
                        parent: *parent,
                        ticks: 0,
                    };
                    (*pid, stat)
                })
                .collect()
        };
        let all = of(&[(1, 0), (5, 1), (6, 5), (7, 6), (8, 1)]);
        assert_eq!(tree(5, &all), BTreeSet::from([5, 6, 7]));
        assert_eq!(tree(9, &all), BTreeSet::new());
        assert_eq!(tree(2, &of(&[(2, 3), (3, 2)])), BTreeSet::from([2, 3]));
    }

    #[test]
    fn this_process_uses_something() {
        let reading = read(std::process::id());
        assert!(reading.memory > Some(ByteSize::mib(1)), "{reading:?}");
        assert!(reading.cpu_time.is_some() && reading.processes.is_none());
        assert_eq!(read(u32::MAX), Reading::default());
    }
}
