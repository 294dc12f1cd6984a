//! Who this agent is to its server, and that its data folder is used by one process at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use protocol::agent_api::{RegisterRequest, VERSION};
use protocol::hardware::Inventory;
use protocol::{AgentId, Digest};
use serde::{Deserialize, Serialize};

use crate::attempt::{read_json, write_json};
use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::hardware;

const FILE: &str = "agent.json";
const LOCK: &str = "agent.lock";

/// An agent's identity: `<data>/agent.json`, 0600.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// URL of the server that gave it.
    pub server: String,
    /// The agent's id.
    pub agent: AgentId,
    /// The agent's secret.
    pub secret: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({} at {})", self.agent, self.server)
    }
}

/// There is no identity, or it cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The agent was never registered.
    #[error(
        "this agent is not registered ({} is missing); make a token on the server and run `trainyard agent register URL`",
        path.display()
    )]
    NotRegistered {
        /// Where it would be.
        path: PathBuf,
    },
    /// It is registered already.
    #[error(
        "this data folder is registered already, with {server} as {agent}; to register it anew, remove {} first",
        path.display()
    )]
    Registered {
        /// The server.
        server: String,
        /// The agent.
        agent: AgentId,
        /// The file.
        path: PathBuf,
    },
    /// Another process has the data folder.
    #[error(
        "another agent uses {}; stop it first, or give this one another `data` folder",
        data.display()
    )]
    InUse {
        /// The folder.
        data: PathBuf,
    },
    /// The disk says no.
    #[error("cannot use {}: {source}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server says no.
    #[error(transparent)]
    Server(#[from] ClientError),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Disk { path, source }
}

/// Holds the data folder of an agent until it is dropped, or the process ends.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the folder, which is made where it is missing.
    ///
    /// # Errors
    /// [`IdentityError::InUse`] where another process has it.
    pub fn take(data: &Path) -> Result<Self, IdentityError> {
        std::fs::create_dir_all(data).map_err(at(data))?;
        let path = data.join(LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(IdentityError::InUse {
                data: data.to_owned(),
            }),
            Err(std::fs::TryLockError::Error(source)) => Err(at(&path)(source)),
        }
    }
}

impl Identity {
    /// Reads the identity in a data folder.
    ///
    /// # Errors
    /// [`IdentityError::NotRegistered`] where there is none.
    pub fn read(data: &Path) -> Result<Self, IdentityError> {
        let path = data.join(FILE);
        let identity = read_json(&path).map_err(at(&path))?;
        identity.ok_or(IdentityError::NotRegistered { path })
    }

    /// Introduces this host to the server at `url` with a one-time token, and keeps what it answers. With `replace` it
    /// takes its name from an agent that is still heard of.
    ///
    /// # Errors
    /// Where the folder has an identity already, or the server refuses token or name.
    pub async fn register(
        config: &Config,
        url: &str,
        token: &str,
        replace: bool,
        inventory: Inventory,
    ) -> Result<Self, IdentityError> {
        std::fs::create_dir_all(&config.data).map_err(at(&config.data))?;
        let path = config.data.join(FILE);
        if let Some(there) = read_json::<Self>(&path).map_err(at(&path))? {
            return Err(IdentityError::Registered {
                server: there.server,
                agent: there.agent,
                path,
            });
        }
        let client = Client::new(url, config.server_ca.as_deref(), config.timing.call)?;
        let request = RegisterRequest {
            protocol: VERSION,
            token: token.to_owned(),
            name: config.name.clone().unwrap_or_else(hardware::host_name),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            inventory,
            replace,
        };
        let registered = client.register(&request).await?;
        let identity = Self {
            server: client.server().to_owned(),
            agent: registered.agent,
            secret: registered.secret,
        };
        write_json(&path, &identity).map_err(at(&path))?;
        Ok(identity)
    }

    /// A client that speaks as this agent. A server in the configuration replaces the one at registration,
    /// so that a server may move.
    ///
    /// # Errors
    /// [`ClientError::Setting`].
    pub fn client(&self, config: &Config) -> Result<Client, ClientError> {
        let url = config.server.as_deref().unwrap_or(&self.server);
        Client::new(url, config.server_ca.as_deref(), config.timing.call)?
            .speak_as(&self.secret, &instance(&config.data))
    }
}

/// Which installation this is: the same after a restart and an upgrade, another one where somebody copied the data
/// folder or the whole host.
fn instance(data: &Path) -> Digest {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::MetadataExt as _;
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    let place = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let file = std::fs::metadata(data.join(LOCK)).map_or(0, |lock| lock.ino());
    let parts = [
        machine.as_slice(),
        place.as_os_str().as_bytes(),
        &file.to_le_bytes(),
    ];
    Digest::of(parts.join(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_do_not_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DataLock::take(dir.path()).unwrap();
        assert!(matches!(
            DataLock::take(dir.path()),
            Err(IdentityError::InUse { .. })
        ));
        drop(lock);
        DataLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_folder_without_identity_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = Identity::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("trainyard agent register"), "{error}");
    }
}
