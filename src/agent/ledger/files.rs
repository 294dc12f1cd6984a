//! The ledger's files: what each says, how they are read and replaced. It judges nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use protocol::{AttemptId, ByteSize, Digest, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::attempt::{read_json, write_json};

/// An attempt has a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Since when.
    pub since: Timestamp,
    /// Memory in use on the GPU before it.
    pub used_before: ByteSize,
    /// Whose run it is, beside the agent; none: the attempt is the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Of a run: the address of the engine that has its containers; none: its jobs are processes of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Of a run: the attempt's folder, which whoever ends it removes. None: an earlier version booked, which did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

impl Booking {
    /// Whether it is of a run whose process is gone. Its job may go on.
    pub(super) fn is_left(&self, dir: &Path) -> bool {
        self.run.is_some() && !super::runs::lives(dir, &self.attempt)
    }

    /// Who has it.
    #[must_use]
    pub fn holder(&self) -> String {
        match &self.run {
            Some(by) => format!("`trainyard run` of {by}"),
            None => format!("attempt {}", self.attempt),
        }
    }
}

/// Nobody may have a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Why, and what to do.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// It does not end by itself: somebody has to say that the GPU is well again.
    #[serde(default)]
    pub until_cleared: bool,
}

/// A GPU is lent to a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Whom.
    pub by: String,
    /// Until when; past it the file means nothing.
    pub until: Timestamp,
}

/// Whether the container engine gave a GPU to a container, when that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// What was tried: the hash of engine, driver and GPUs.
    pub of: Digest,
    /// When.
    pub at: Timestamp,
    /// Why it did not; none: it did.
    #[serde(default)]
    pub refused: Option<String>,
}

/// The ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {source}{}", path.display(), hint(source))]
pub struct LedgerError {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; do this as the agent's user, or as root",
        _ => "",
    }
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError { path, source }
}

/// All files of a ledger, by the GPU's UUID.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) bookings: BTreeMap<String, Booking>,
    pub(super) quarantines: BTreeMap<String, Quarantine>,
    pub(super) reservations: BTreeMap<String, Reservation>,
    /// Quarantines that the disk has not taken yet. They count, and stay until they are written.
    pub(super) heard: BTreeMap<String, Quarantine>,
    /// What came of the engine's trial.
    pub(super) tried: Option<Tried>,
    /// Why something of a GPU cannot be read: nobody gets it meanwhile.
    pub(super) unreadable: BTreeMap<String, String>,
    /// Why nothing can be read: nobody gets any GPU meanwhile.
    pub(super) blind: Option<String>,
}

/// Which of a GPU's files.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Booking,
    Quarantine,
    Reservation,
}

impl Kind {
    /// How the file's name ends. None is the end of another but that of bookings, which is looked for last.
    fn ending(self) -> &'static str {
        match self {
            Kind::Booking => ".json",
            Kind::Quarantine => ".quarantine.json",
            Kind::Reservation => ".reserved.json",
        }
    }

    /// Which file this name is; none: none of a GPU's.
    pub(super) fn of(name: &str) -> Option<Self> {
        let all = [Kind::Quarantine, Kind::Reservation, Kind::Booking];
        let mut found = all.into_iter().filter(|kind| name.ends_with(kind.ending()));
        found.next().filter(|_| !name.starts_with('.'))
    }
}

impl State {
    /// Takes in a quarantine that is not on the disk; where a person has to end one already, that one stays.
    pub(super) fn hear(&mut self, uuid: &str, quarantine: &Quarantine) {
        let there = self.quarantines.get(uuid);
        if there.is_some_and(|there| there.until_cleared) {
            return;
        }
        for into in [&mut self.heard, &mut self.quarantines] {
            into.insert(uuid.to_owned(), quarantine.clone());
        }
    }

    /// Reads a folder; one that is missing has no files. Of a file that cannot be read, what was `known` of it stays.
    pub(super) fn read(dir: &Path, known: &Self) -> Result<Self, LedgerError> {
        let mut state = Self::default();
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
            entries => entries.map_err(at(dir))?,
        };
        for entry in entries {
            let path = entry.map_err(at(dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(kind) = Kind::of(&name) else {
                continue;
            };
            let uuid = name.trim_end_matches(kind.ending()).to_owned();
            let taken = match kind {
                Kind::Quarantine => take(&mut state.quarantines, &known.quarantines, &uuid, &path),
                Kind::Reservation => {
                    take(&mut state.reservations, &known.reservations, &uuid, &path)
                }
                Kind::Booking => take(&mut state.bookings, &known.bookings, &uuid, &path),
            };
            if let Err(error) = taken {
                let why = format!("{error}; repair the file, or remove it");
                state.unreadable.insert(uuid, why);
            }
        }
        Ok(state)
    }
}

/// Removes what an agent that was killed had half made. A person's file may be in the making now: that one stays.
pub(super) fn tidy(dir: &Path) -> Result<(), LedgerError> {
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && !name.contains(Kind::Reservation.ending()) {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// Reads one file; one that went meanwhile is not there.
fn take<T: DeserializeOwned + Clone>(
    into: &mut BTreeMap<String, T>,
    known: &BTreeMap<String, T>,
    uuid: &str,
    path: &Path,
) -> Result<(), LedgerError> {
    let read = read_json(path).map_err(at(path));
    let value = match &read {
        Ok(value) => value.as_ref(),
        Err(_) => known.get(uuid),
    };
    into.extend(value.map(|value| (uuid.to_owned(), value.clone())));
    read.map(|_| ())
}

/// Replaces a GPU's file whole and durably. It belongs to the folder's owner: a person who is root may write what the
/// agent has to read.
pub(super) fn write(
    dir: &Path,
    uuid: &str,
    kind: Kind,
    value: &impl Serialize,
) -> Result<(), LedgerError> {
    let path = place(dir, uuid, kind);
    write_json(&path, value).map_err(at(&path))?;
    give_to_owner(dir, &path)
}

/// Gives a file to its folder's owner.
pub(super) fn give_to_owner(dir: &Path, path: &Path) -> Result<(), LedgerError> {
    let owner = fs::metadata(dir).map_err(at(dir))?;
    if fs::metadata(path).map_err(at(path))?.uid() != owner.uid() {
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).map_err(at(path))?;
    }
    Ok(())
}

/// Removes a GPU's file. Answers whether there was one.
pub(super) fn remove(dir: &Path, uuid: &str, kind: Kind) -> Result<bool, LedgerError> {
    let path = place(dir, uuid, kind);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(LedgerError { path, source }),
    }
}

fn place(dir: &Path, uuid: &str, kind: Kind) -> PathBuf {
    dir.join(format!("{uuid}{}", kind.ending()))
}
