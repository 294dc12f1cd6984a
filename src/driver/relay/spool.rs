//! The body of a request until the agent has it: in memory while it is short, else in a file of the driver's own, which goes
//! with it. A model of many gigabytes is passed on although the agent is away at the moment.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// What is held in memory.
const IN_MEMORY: usize = 64 << 10;

/// A body.
#[derive(Debug, Default)]
pub(super) struct Spool {
    memory: Vec<u8>,
    file: Option<(File, PathBuf)>,
    length: u64,
}

impl Spool {
    /// Adds bytes.
    pub(super) fn push(&mut self, bytes: &[u8], folder: &Path) -> io::Result<()> {
        if self.file.is_none() && self.memory.len() + bytes.len() > IN_MEMORY {
            let path = folder.join(crate::sockets::random_hex(8));
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            let (file, _) = self.file.insert((file, path));
            file.write_all(&std::mem::take(&mut self.memory))?;
        }
        match &mut self.file {
            Some((file, _)) => file.write_all(bytes)?,
            None => self.memory.extend_from_slice(bytes),
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// How long it is.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Reads from a place on; zero at its end.
    pub(super) fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.file {
            Some((file, _)) => file.read_at(buffer, at),
            None => {
                let from = usize::try_from(at)
                    .unwrap_or(usize::MAX)
                    .min(self.memory.len());
                let rest = &self.memory[from..];
                let n = rest.len().min(buffer.len());
                buffer[..n].copy_from_slice(&rest[..n]);
                Ok(n)
            }
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Some((_, path)) = &self.file {
            let _ = fs::remove_file(path);
        }
    }
}
