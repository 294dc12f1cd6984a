//! Where a kernel's unix sockets lie: a private folder with a short name, the connection file in it, and connecting
//! without waiting. Knows nothing of what is said there.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use protocol::driver::RunAs;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Gid, Uid};
use serde_json::json;

/// Longest path of a unix socket, without its end.
const LONGEST_SOCKET_PATH: usize = 107;

/// Connects without waiting; None where nobody listens yet.
pub(crate) fn try_connect(path: &Path) -> io::Result<Option<UnixStream>> {
    use rustix::io::Errno;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Some(socket.into())),
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A private folder with a short name: the path of a socket is at most 107 bytes long.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes it below the job's `TMPDIR`, else below `/tmp`, for the job's user.
    ///
    /// # Errors
    /// The place and what it lacks.
    pub(crate) fn make(
        env: &BTreeMap<String, String>,
        user: Option<RunAs>,
    ) -> Result<Self, (String, io::Error)> {
        let base = env
            .get("TMPDIR")
            .filter(|base| base.starts_with('/') && base.len() < LONGEST_SOCKET_PATH - 40)
            .filter(|base| Path::new(base).is_dir())
            .map_or("/tmp", String::as_str);
        let path = Path::new(base).join(format!("trainyard-{}", random_hex(6)));
        let fault = |error| (base.to_owned(), error);
        DirBuilder::new().mode(0o700).create(&path).map_err(fault)?;
        let folder = Self(path);
        give(&folder.0, user).map_err(fault)?;
        Ok(folder)
    }

    /// Connects to the channel with this number; None where nobody listens yet. The protocol joins name and number
    /// with a dash; kernels that only ever saw TCP (R's, node's) with a colon.
    ///
    /// # Errors
    /// Where the socket is there and will not be connected to.
    pub(crate) fn connect(&self, number: u8) -> io::Result<Option<UnixStream>> {
        for between in ["-", ":"] {
            let path = self.0.join(format!("k{between}{number}"));
            if let Some(stream) = try_connect(&path)? {
                return Ok(Some(stream));
            }
        }
        Ok(None)
    }

    /// Writes the file that tells a kernel where to listen and with which key to sign.
    ///
    /// # Errors
    /// The place and what it lacks.
    pub(crate) fn connection_file(
        &self,
        key: &str,
        user: Option<RunAs>,
    ) -> Result<PathBuf, (String, io::Error)> {
        let path = self.0.join("kernel.json");
        let content = json!({
            "transport": "ipc", "ip": self.0.join("k"),
            "shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5,
            "key": key, "signature_scheme": "hmac-sha256", "kernel_name": "",
        });
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content.to_string().as_bytes()))
            .and_then(|()| give(&path, user));
        written.map_err(|error| (self.0.display().to_string(), error))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The job may have put anything there; what cannot be removed goes with the container.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn give(path: &Path, user: Option<RunAs>) -> io::Result<()> {
    if let Some(user) = user {
        rustix::fs::chown(
            path,
            Some(Uid::from_raw(user.uid)),
            Some(Gid::from_raw(user.gid)),
        )?;
    }
    Ok(())
}

/// Random bytes as hex digits.
pub(crate) fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    // Without /dev/urandom the process id and the clock must do: the folder is private all the same.
    if File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .is_err()
    {
        let seed = format!("{} {:?}", std::process::id(), Instant::now());
        let digest = protocol::digest::Digest::of(seed);
        return digest.as_str().chars().cycle().take(bytes * 2).collect();
    }
    hex::encode(random)
}
