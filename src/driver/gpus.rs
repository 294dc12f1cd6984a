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
    let nodes = each_once(&wanted.nodes);
    let seen = numbered(dev, "nvidia");
    if !fits(&seen, &nodes, wanted.unknown as usize) {
        let more = match wanted.unknown {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        return Err(refuse(&words(&seen), &(words(&nodes) + &more)));
    }
    check_slices(wanted, &numbered(&dev.join("nvidia-caps"), "nvidia-cap"))
}

/// Holds the files of slices against those that were booked; where nobody knows these, counts them.
fn check_slices(wanted: &GpuFiles, seen: &[u32]) -> Result<(), Box<Failure>> {
    let slices = wanted.slices as usize;
    if slices == 0 {
        return Ok(());
    }
    let caps = each_once(&wanted.caps);
    if !caps.is_empty() {
        let words = |caps: &[u32]| match caps {
            [] => "no file of a MIG slice".to_owned(),
            caps => {
                let files = caps.iter().map(|n| format!("nvidia-cap{n}"));
                files.collect::<Vec<_>>().join(", ")
            }
        };
        return match seen == caps {
            true => Ok(()),
            false => Err(refuse(&words(seen), &words(&caps))),
        };
    }
    if (1..=CAPS_OF_A_SLICE * slices).contains(&seen.len()) {
        return Ok(());
    }
    let seen = format!("{} files of MIG slices", seen.len());
    Err(refuse(&seen, &format!("{slices} slices")))
}

fn each_once(numbers: &[u32]) -> Vec<u32> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
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
            caps: Vec::new(),
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
    fn a_slice_whose_files_are_known_is_no_other_slice() {
        let caps = ["nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"];
        let dev = dev(&[&["nvidia0"], &caps[..]].concat());
        let of = |caps: &[u32]| GpuFiles {
            caps: caps.to_vec(),
            ..wanted(&[0], 1)
        };
        assert_eq!(check(&of(&[13, 12, 12]), dev.path()), Ok(()));
        let other = check(&of(&[21, 22]), dev.path()).unwrap_err();
        assert!(
            other.message.contains(
                "has nvidia-cap12, nvidia-cap13, and was to have nvidia-cap21, nvidia-cap22:"
            ),
            "{}",
            other.message
        );
        assert!(check(&of(&[12, 13, 21]), dev.path()).is_err());
        fs::remove_dir_all(dev.path().join("nvidia-caps")).unwrap();
        let none = check(&of(&[12, 13]), dev.path()).unwrap_err();
        assert!(
            none.message.contains("no file of a MIG slice"),
            "{}",
            none.message
        );
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
