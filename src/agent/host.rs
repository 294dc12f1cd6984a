//! What every attempt on this host shares: configuration, the engine, and the programs beside the agent.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use protocol::Digest;
use protocol::hardware::Inventory;

use crate::attempt::AttemptDir;
use crate::config::Config;
use crate::hardware::Hardware;

/// A host that can run attempts.
#[derive(Debug)]
pub struct Host {
    /// The agent's configuration.
    pub config: Config,
    /// What the host has.
    pub inventory: Inventory,
    /// Eyes on its GPUs.
    pub hardware: Arc<Hardware>,
    /// The driver, at a path with its hash, so that an upgrade leaves running jobs alone.
    pub driver: PathBuf,
    /// The `uv` program, where there is one.
    pub uv: Option<PathBuf>,
    /// Operating system and kernel.
    pub system: String,
    /// As whom jobs run in containers.
    pub job_user: (u32, u32),
}

/// A host that cannot run attempts.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no driver.
    #[error(
        "the driver was not found; looked at {looked}. A release has it in lib/trainyard beside bin: unpack it whole, or set TRAINYARD_DRIVER to the driver's path"
    )]
    NoDriver {
        /// Where was looked.
        looked: String,
    },
    /// The data folder cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Data {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Host {
    /// Makes the data folder and takes the driver into it.
    ///
    /// # Errors
    /// Where there is no driver, or the data folder cannot be written.
    pub fn open(
        config: Config,
        inventory: Inventory,
        hardware: Arc<Hardware>,
    ) -> Result<Self, HostError> {
        let data = &config.data;
        for folder in ["attempts", "drivers", "mirrors", "environments", "caches"] {
            let path = data.join(folder);
            fs::create_dir_all(&path).map_err(|source| HostError::Data { path, source })?;
        }
        let driver = take_driver(data, &find_driver()?)?;
        remove_drivers(data, &driver);
        let uv = find_uv(&config);
        let (own_uid, own_gid) = (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        let ordinary = |id: u32| if id == 0 { 1000 } else { id };
        let job_user = (
            config.jobs.uid.unwrap_or(ordinary(own_uid)),
            config.jobs.gid.unwrap_or(ordinary(own_gid)),
        );
        let uname = rustix::system::uname();
        let system = format!(
            "{} {}, {}",
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy(),
            sysinfo::System::long_os_version().unwrap_or_else(|_| "unknown system".into()),
        );
        Ok(Self {
            config,
            inventory,
            hardware,
            driver,
            uv,
            system,
            job_user,
        })
    }

    /// Labels of every container of this data folder.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let data = Digest::of(self.data().as_os_str().as_encoded_bytes());
        [("trainyard.data".to_owned(), data.short().to_owned())].into()
    }

    /// The folder of everything that the agent keeps.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.config.data
    }
}

/// `$TRAINYARD_DRIVER`, else `../lib/trainyard/trainyard-driver` beside the folder of the executable.
///
/// # Errors
/// [`HostError::NoDriver`] with the places that were looked at.
pub fn find_driver() -> Result<PathBuf, HostError> {
    let candidates = match env::var_os("TRAINYARD_DRIVER") {
        Some(path) => vec![PathBuf::from(path)],
        None => beside_executable("trainyard-driver"),
    };
    let found = candidates.iter().find(|path| path.is_file()).cloned();
    found.ok_or_else(|| HostError::NoDriver {
        looked: candidates
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// The `uv` program: from the configuration, `$TRAINYARD_UV`, beside the driver, on the PATH.
#[must_use]
pub fn find_uv(config: &Config) -> Option<PathBuf> {
    let on_path = env::var_os("PATH").unwrap_or_default();
    config
        .python
        .uv
        .clone()
        .into_iter()
        .chain(env::var_os("TRAINYARD_UV").map(PathBuf::from))
        .chain(beside_executable("uv"))
        .chain(env::split_paths(&on_path).map(|folder| folder.join("uv")))
        .find(|path| path.is_file())
}

/// `../lib/trainyard/<name>` beside the folder of the executable; a test's executable lies one folder deeper.
fn beside_executable(name: &str) -> Vec<PathBuf> {
    let Ok(executable) = env::current_exe() else {
        return Vec::new();
    };
    executable
        .ancestors()
        .skip(2)
        .take(2)
        .map(|folder| folder.join("lib/trainyard").join(name))
        .collect()
}

/// Removes the drivers of earlier versions that no attempt's container was made with. The last one before this stays: its
/// version may come back.
fn remove_drivers(data: &Path, current: &Path) {
    let folders = fs::read_dir(data.join("drivers"));
    let mut old: Vec<(SystemTime, PathBuf)> = folders
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|folder| !current.starts_with(folder))
        .filter_map(|folder| Some((fs::metadata(&folder).ok()?.modified().ok()?, folder)))
        .collect();
    old.sort_unstable();
    old.pop();
    if old.is_empty() {
        return;
    }
    let used = containers(data);
    for (_, folder) in old {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if used.iter().any(|container| container.contains(&*name)) {
            continue;
        }
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!("cannot remove {}: {error}", folder.display());
        }
    }
}

/// What attempts' containers are made of, in words that name their drivers.
fn containers(data: &Path) -> Vec<String> {
    let attempts = fs::read_dir(data.join("attempts"));
    let dirs = attempts.into_iter().flatten().flatten();
    dirs.map(|entry| AttemptDir::open(entry.path()))
        .filter_map(|dir| fs::read_to_string(dir.container_file()).ok())
        .collect()
}

/// Copies the driver to `drivers/<sha256>/`, once.
fn take_driver(data: &Path, driver: &Path) -> Result<PathBuf, HostError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| HostError::Data { path, source }
    };
    let bytes = fs::read(driver).map_err(at(driver))?;
    let folder = data.join("drivers").join(Digest::of(&bytes).as_str());
    let path = folder.join("trainyard-driver");
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(at(&folder))?;
    io::Write::write_all(&mut file, &bytes).map_err(at(&path))?;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o755)).map_err(at(&path))?;
    file.as_file().sync_all().map_err(at(&path))?;
    file.persist(&path)
        .map_err(|error| at(&path)(error.error))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_of_earlier_versions_go_but_the_last_and_those_in_use() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let begin = SystemTime::now();
        let made = |name: &str, seconds: u64| {
            let folder = data.join("drivers").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("trainyard-driver"), name).unwrap();
            let at = begin + std::time::Duration::from_secs(seconds);
            fs::File::open(&folder).unwrap().set_modified(at).unwrap();
            folder
        };
        let names = ["used", "older", "last", "now"];
        let folders: Vec<PathBuf> = names
            .into_iter()
            .zip(0..)
            .map(|(n, at)| made(n, at))
            .collect();
        let attempt = AttemptDir::open(data.join("attempts/one"));
        fs::create_dir_all(attempt.path()).unwrap();
        let mount = folders[0].join("trainyard-driver").display().to_string();
        fs::write(attempt.container_file(), mount).unwrap();
        remove_drivers(data, &folders[3].join("trainyard-driver"));
        let left: Vec<bool> = folders.iter().map(|folder| folder.exists()).collect();
        assert_eq!(left, [true, false, true, true]);
        // An earlier version came back.
        remove_drivers(data, &folders[2].join("trainyard-driver"));
        assert!(folders[2].exists() && folders[3].exists());
    }
}
