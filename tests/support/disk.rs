//! A small disk that a story fills.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, mounted until it is dropped. Only root may mount one.
pub(crate) struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many MiB at a folder, which is made. None: this user may not.
    pub(crate) fn mount(at: &Path, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let options = format!("size={mebibytes}m,mode=0755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at);
        let output = mount.output().unwrap();
        output.status.success().then(|| Self { at: at.to_owned() })
    }

    /// Somebody who is no job takes all that is free, to the last byte.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.somebodys()).unwrap();
        let zeroes = vec![0; 1 << 20];
        for size in [zeroes.len(), 4096, 1] {
            while file.write_all(&zeroes[..size]).is_ok() {}
        }
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.somebodys()).unwrap();
    }

    fn somebodys(&self) -> PathBuf {
        self.at.join("somebodys")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still have a file of it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}
