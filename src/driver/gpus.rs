//! Which GPUs the job would see. The driver looks before anything of the job runs: an engine that ignores a request for
//! GPUs, or gives more than was asked for, must not be found out by the job.

use std::fs;
use std::path::Path;

use protocol::driver::GpuFiles;
use protocol::outcome::{Failure, FailureKind};

/// A slice has a file for its GPU instance and one for its compute instance.
const CAPS_OF_A_SLICE: usize = 2;

/// Holds what is in `dev` against what was booked.
///
/// # Errors
/// The platform's failure where they differ.
pub(crate) fn check(wanted: &GpuFiles, dev: &Path) -> Result<(), Box<Failure>> {
    let mut nodes = wanted.nodes.clone();
    nodes.sort_unstable();
    nodes.dedup();
    let seen = numbered(dev, "nvidia");
    if !fits(&seen, &nodes, wanted.unknown as usize) {
        let more = match wanted.unknown {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        return Err(refuse(&words(&seen), &(words(&nodes) + &more)));
    }
    let slices = wanted.slices as usize;
    let caps = numbered(&dev.join("nvidia-caps"), "nvidia-cap").len();
    if slices > 0 && !(1..=CAPS_OF_A_SLICE * slices).contains(&caps) {
        let seen = format!("{caps} files of MIG slices");
        return Err(refuse(&seen, &format!("{slices} slices")));
    }
    Ok(())
}

/// Whether these files are there, and of `unknown` more GPUs as many as there may be: slices share their GPU's.
fn fits(seen: &[u32], nodes: &[u32], unknown: usize) -> bool {
    let others = seen.iter().filter(|node| !nodes.contains(node)).count();
    let known = seen.len() - others == nodes.len();
    let some = unknown == 0 || !seen.is_empty();
    known && some && others <= unknown
}

/// Numbers of the files `<name><number>` of a folder, in order.
fn numbered(folder: &Path, name: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<u32> = entries
        .filter_map(|entry| {
            let file = entry.file_name();
            file.to_str()?.strip_prefix(name)?.parse().ok()
        })
        .collect();
    found.sort_unstable();
    found
}

fn words(nodes: &[u32]) -> String {
    if nodes.is_empty() {
        return "no GPU".to_owned();
    }
    let files: Vec<String> = nodes.iter().map(|n| format!("/dev/nvidia{n}")).collect();
    files.join(", ")
}

fn refuse(seen: &str, wanted: &str) -> Box<Failure> {
    let message = format!(
        "the container has {seen}, and was to have {wanted}: the container engine did not give what was asked for"
    );
    Box::new(
        Failure::new(FailureKind::ExecutorFailed, message)
            .hint("Nothing of the job has run. `trainyard doctor` on this host tries to give a GPU and says what is wrong."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(files: &[&str]) -> tempfile::TempDir {
        let dev = tempfile::tempdir().unwrap();
        fs::create_dir(dev.path().join("nvidia-caps")).unwrap();
        for file in files {
            fs::write(dev.path().join(file), "").unwrap();
        }
        dev
    }

    fn wanted(nodes: &[u32], slices: u32) -> GpuFiles {
        GpuFiles {
            nodes: nodes.to_vec(),
            unknown: 0,
            slices,
        }
    }

    #[test]
    fn a_gpu_without_a_number_takes_the_check_from_no_other() {
        let dev = dev(&["nvidia3", "nvidia10", "nvidiactl"]);
        let one_unknown = |node| GpuFiles {
            unknown: 1,
            ..wanted(&[node], 0)
        };
        assert_eq!(check(&one_unknown(10), dev.path()), Ok(()));
        let other = check(&one_unknown(4), dev.path()).unwrap_err();
        assert!(
            other
                .message
                .contains("was to have /dev/nvidia4 and 1 more"),
            "{}",
            other.message
        );
        let none_known = |unknown| GpuFiles {
            unknown,
            ..wanted(&[], 0)
        };
        assert_eq!(check(&none_known(2), dev.path()), Ok(()));
        assert!(check(&none_known(1), dev.path()).is_err());
    }

    #[test]
    fn exactly_what_was_booked_is_there() {
        let dev = dev(&["nvidia3", "nvidia10", "nvidiactl", "nvidia-uvm", "null"]);
        assert_eq!(check(&wanted(&[10, 3], 0), dev.path()), Ok(()));
        let fewer = check(&wanted(&[3, 10, 11], 0), dev.path()).unwrap_err();
        assert_eq!(fewer.kind, FailureKind::ExecutorFailed);
        let more = check(&wanted(&[3], 0), dev.path()).unwrap_err();
        assert!(
            more.message
                .contains("has /dev/nvidia3, /dev/nvidia10, and was to have /dev/nvidia3:"),
            "{}",
            more.message
        );
        assert!(check(&wanted(&[], 0), dev.path()).is_err());
    }

    #[test]
    fn a_host_without_gpus_shows_none() {
        let dev = dev(&["null"]);
        assert_eq!(check(&wanted(&[], 0), dev.path()), Ok(()));
        let none = check(&wanted(&[0], 0), dev.path()).unwrap_err();
        assert!(none.message.contains("has no GPU"), "{}", none.message);
    }

    #[test]
    fn slices_of_one_gpu_share_its_file_and_have_their_own() {
        let caps = ["nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"];
        let dev = dev(&[&["nvidia0"], &caps[..]].concat());
        assert_eq!(check(&wanted(&[0, 0], 1), dev.path()), Ok(()));
        assert!(check(&wanted(&[1], 1), dev.path()).is_err());
        fs::write(dev.path().join("nvidia-caps/nvidia-cap21"), "").unwrap();
        assert!(check(&wanted(&[0], 1), dev.path()).is_err());
        for cap in ["nvidia-cap12", "nvidia-cap13", "nvidia-cap21"] {
            fs::remove_file(dev.path().join("nvidia-caps").join(cap)).unwrap();
        }
        assert!(check(&wanted(&[0], 1), dev.path()).is_err());
    }
}
