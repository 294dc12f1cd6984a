//! The files that open a MIG slice to a container: `/dev/nvidia-caps/nvidia-cap<number>`, one for its GPU instance and one
//! for its compute instance. NVIDIA's driver says their numbers below `/proc`.

use std::fs;
use std::path::Path;

use nvml_wrapper::Device;

/// Where the driver says what opens what.
const CAPABILITIES: &str = "/proc/driver/nvidia/capabilities";

/// Numbers of the files of a slice of the GPU with this device file. Empty where NVML or `/proc` does not tell: an agent in a
/// container may not see it.
pub(super) fn files(slice: &Device<'_>, node: Option<u32>) -> Vec<u32> {
    let numbers = || files_in(Path::new(CAPABILITIES), node?, instances(slice)?);
    numbers().map_or_else(Vec::new, |both| both.to_vec())
}

/// NVML's numbers of a slice's GPU instance and compute instance. The wrapper has no words for them.
fn instances(slice: &Device<'_>) -> Option<(u32, u32)> {
    let lib = slice.nvml().lib();
    let gpu = lib.nvmlDeviceGetGpuInstanceId.as_ref().ok()?;
    let compute = lib.nvmlDeviceGetComputeInstanceId.as_ref().ok()?;
    let (mut gi, mut ci) = (0, 0);
    // SAFETY: the handle is NVML's own and the library is loaded as long as `slice` lives; each function writes one number
    // to where it is told.
    let answers = unsafe {
        let handle = slice.handle();
        [gpu(handle, &raw mut gi), compute(handle, &raw mut ci)]
    };
    (answers == [0, 0]).then_some((gi, ci))
}

/// Both numbers, as the driver's files have them.
fn files_in(root: &Path, node: u32, (gi, ci): (u32, u32)) -> Option<[u32; 2]> {
    let instance = root.join(format!("gpu{node}/mig/gi{gi}"));
    let both = [
        instance.join("access"),
        instance.join(format!("ci{ci}/access")),
    ];
    let [gpu, compute] = both.map(|file| minor(&fs::read_to_string(file).ok()?));
    Some([gpu?, compute?])
}

/// The number in what the driver says of an access: a line `DeviceFileMinor: 12`.
fn minor(text: &str) -> Option<u32> {
    let lines = text.lines();
    let value = lines
        .filter_map(|line| line.strip_prefix("DeviceFileMinor:"))
        .next()?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_says_which_files_open_a_slice() {
        let root = tempfile::tempdir().unwrap();
        let say = |path: &str, number: u32| {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let text =
                format!("DeviceFileMinor: {number}\nDeviceFileMode: 292\nDeviceFileModify: 1\n");
            fs::write(file, text).unwrap();
        };
        say("gpu3/mig/gi1/access", 12);
        say("gpu3/mig/gi1/ci0/access", 13);
        say("gpu3/mig/gi2/access", 21);
        let of = |node, ids| files_in(root.path(), node, ids);
        assert_eq!(of(3, (1, 0)), Some([12, 13]));
        assert_eq!(of(3, (2, 0)), None, "half of it says nothing");
        assert_eq!(of(0, (1, 0)), None);
        fs::write(
            root.path().join("gpu3/mig/gi1/access"),
            "DeviceFileMode: 292\n",
        )
        .unwrap();
        assert_eq!(of(3, (1, 0)), None);
    }
}
