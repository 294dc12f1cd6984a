//! An attempt's folder on the agent's disk: names, and files that are replaced whole. What is in the
//! files is others' business.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use protocol::ByteSize;
use protocol::agent_api::AttemptOrder;
use protocol::driver::GpuFiles;
use protocol::hardware::GpuKind;
use protocol::report::AttemptReport;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hardware::GpuReading;

/// A GPU that an attempt has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Its UUID.
    pub uuid: String,
    /// Its model.
    pub model: String,
    /// Number of its device file, where NVML tells it.
    pub node: Option<u32>,
    /// It is a MIG slice.
    pub slice: bool,
    /// Of a slice: numbers of the files that open it; empty where nobody tells.
    #[serde(default)]
    pub caps: Vec<u32>,
    /// Its memory; zero where an earlier agent gave it, which did not say.
    #[serde(default)]
    pub memory: ByteSize,
}

impl Given {
    pub(crate) fn of(reading: &GpuReading) -> Self {
        Self {
            uuid: reading.gpu.uuid.clone(),
            model: reading.gpu.model.clone(),
            node: reading.node,
            slice: matches!(reading.gpu.kind, GpuKind::Slice { .. }),
            caps: reading.caps.clone(),
            memory: reading.gpu.memory,
        }
    }
}

/// The device files of GPUs.
pub(crate) fn files(given: &[Given]) -> GpuFiles {
    let nodes: Vec<u32> = given.iter().filter_map(|gpu| gpu.node).collect();
    let slices = || given.iter().filter(|gpu| gpu.slice);
    let all_tell = slices().all(|slice| !slice.caps.is_empty());
    let caps = slices().filter(|_| all_tell).flat_map(|slice| &slice.caps);
    GpuFiles {
        unknown: (given.len() - nodes.len()) as u32,
        nodes,
        slices: slices().count() as u32,
        caps: caps.copied().collect(),
    }
}

/// `<data>/attempts/<id>`; see ARCHITECTURE.md for what lies in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptDir {
    path: PathBuf,
}

impl AttemptDir {
    /// The folder of an order, made where it is not there yet, with `order.json` in it (0600: it has secrets).
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn create(data: &Path, order: &AttemptOrder) -> io::Result<Self> {
        let dir = Self {
            path: data.join("attempts").join(order.attempt.as_str()),
        };
        fs::create_dir_all(&dir.path)?;
        // Secrets stand in what the driver is told too, which a container's users must be able to read.
        fs::set_permissions(&dir.path, fs::Permissions::from_mode(0o700))?;
        if !dir.order_file().exists() {
            write_json(&dir.order_file(), order)?;
        }
        Ok(dir)
    }

    /// The folder at `path`, as it is.
    #[must_use]
    pub fn open(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The order as it came.
    ///
    /// # Errors
    /// Where it cannot be read or is no order.
    pub fn order(&self) -> io::Result<AttemptOrder> {
        read_json(&self.order_file())?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "order.json is missing"))
    }

    /// Writes down what the attempt's GPUs are, for whoever gives them into its container.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn give_gpus(&self, uuids: &[String], now: &[GpuReading]) -> io::Result<()> {
        let given: Vec<Given> = now
            .iter()
            .filter(|reading| uuids.contains(&reading.gpu.uuid))
            .map(Given::of)
            .collect();
        write_json(&self.gpus_file(), &given)
    }

    /// The attempt's GPUs; none were given where nobody wrote any down.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn gpus(&self) -> io::Result<Vec<Given>> {
        Ok(read_json(&self.gpus_file())?.unwrap_or_default())
    }

    /// The report, once it is known.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn report(&self) -> io::Result<Option<AttemptReport>> {
        read_json(&self.report_file())
    }

    /// What the job used so far: means and peaks outlive the agent.
    pub(crate) fn usage_file(&self) -> PathBuf {
        self.path.join("usage.json")
    }

    fn gpus_file(&self) -> PathBuf {
        self.path.join("gpus.json")
    }

    pub(crate) fn order_file(&self) -> PathBuf {
        self.path.join("order.json")
    }

    pub fn state_file(&self) -> PathBuf {
        self.path.join("state.json")
    }

    pub(crate) fn report_file(&self) -> PathBuf {
        self.path.join("report.json")
    }

    /// The journal's folder.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The checkout.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.path.join("workspace")
    }

    /// Files to upload, by their hash.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// Blobs of the jobs that this one needs, by their hash: whoever calls [`crate::attempt::run`] puts them
    /// here before.
    #[must_use]
    pub fn needs_blobs(&self) -> PathBuf {
        self.path.join("needs-blobs")
    }

    /// What of the jobs that this one needs is mounted: `<definition>/<path>`.
    #[must_use]
    pub fn needs(&self) -> PathBuf {
        self.path.join("needs")
    }

    /// The files of the model that the job goes on from.
    #[must_use]
    pub fn parent(&self) -> PathBuf {
        self.path.join("parent")
    }

    /// The folder of the driver's contract.
    #[must_use]
    pub fn contract(&self) -> PathBuf {
        self.path.join("contract")
    }

    /// The folder of the agent's socket, mounted beside the job.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.path.join("agent")
    }

    /// What the job's code wrote to the registry, until the server has it.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.path.join("registry")
    }

    /// The container that the job ran in, for whoever wants to enter one like it.
    pub(crate) fn container_file(&self) -> PathBuf {
        self.path.join("container.json")
    }

    /// Notebooks that were rewritten for lint tools, as they were.
    pub(crate) fn originals(&self) -> PathBuf {
        self.path.join("originals")
    }

    /// What the job finds at `/tmp`.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// The job's HOME.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// Says until when the workspace of a failed attempt is kept.
    #[must_use]
    pub fn kept_until_file(&self) -> PathBuf {
        self.path.join("kept_until")
    }
}

/// Replaces a file whole and durably: after a crash there is the old one or the new one, and perhaps a half-made one,
/// whose name is a dot, the file's, and more. Mode 0600.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut file = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .tempfile_in(parent)?;
    serde_json::to_writer(&mut file, value)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(parent)?.sync_all()
}

/// Reads a file of [`write_json`]; none where there is no file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
