//! What somebody on the host asks of its agent: a small file in the data folder, which the agent looks at. It knows
//! neither attempts nor the server.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempt::{read_json, write_json};
use crate::identity::{DataLock, Identity, IdentityError};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// `<data>/wish.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wish {
    /// Take nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Drained>,
    /// End the agent's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// Take nothing new, until somebody takes that back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Who asked.
    pub by: String,
    /// Whether the jobs that run are to go on elsewhere.
    #[serde(default)]
    pub stop_jobs: bool,
}

/// When the agent's process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Now: jobs run on.
    Now,
    /// When no attempt is left that the server has not heard the end of; nothing new is taken.
    WhenIdle,
}

impl Wish {
    /// What is asked of the agent of a data folder. Nothing, where that cannot be read: it is said in the log.
    #[must_use]
    pub fn read(data: &Path) -> Self {
        let path = file(data);
        read_json(&path)
            .unwrap_or_else(|error| {
                tracing::error!("{} is passed over: {error}", path.display());
                None
            })
            .unwrap_or_default()
    }

    /// Asks this of the agent of a data folder.
    ///
    /// # Errors
    /// Where the folder cannot be written to.
    pub fn ask(&self, data: &Path) -> io::Result<()> {
        let path = file(data);
        if *self == Self::default() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
        }
        write_json(&path, self)?;
        // Root may ask it of an agent that is another user; the folder keeps it from others.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
    }

    /// Why nothing new is taken, where that was asked.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        match (&self.end, &self.drained) {
            (Some(End::Now | End::WhenIdle), _) => {
                Some("its owner wants it to end when it is idle".into())
            }
            (None, Some(drained)) => Some(format!("drained on its host by {}", drained.by)),
            (None, None) => None,
        }
    }

    /// Whether the jobs that run are to go on elsewhere.
    #[must_use]
    pub fn evicts(&self) -> bool {
        self.drained
            .as_ref()
            .is_some_and(|drained| drained.stop_jobs)
    }

    /// Waits until something else than this is asked.
    pub(crate) async fn changed(&self, data: &Path) {
        while Self::read(data) == *self {
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn file(data: &Path) -> PathBuf {
    data.join("wish.json")
}

/// Forgets a wish to end that was meant for an earlier process, or was fulfilled.
pub(crate) fn begin_anew(data: &Path) {
    let wish = Wish::read(data);
    if wish.end.is_some()
        && let Err(error) = (Wish { end: None, ..wish }).ask(data)
    {
        tracing::error!("{}: {error}", file(data).display());
    }
}

/// Changes what is asked of the agent of a data folder.
///
/// # Errors
/// [`IdentityError::Disk`] where the folder is not there or cannot be written to.
fn change(data: &Path, change: impl FnOnce(&mut Wish)) -> Result<(), IdentityError> {
    let mut wish = Wish::read(data);
    change(&mut wish);
    wish.ask(data).map_err(|source| IdentityError::Disk {
        path: file(data),
        source,
    })
}

/// The same for a person, whose agent may be another one than they think. Answers whether it runs now.
///
/// # Errors
/// [`IdentityError::NotRegistered`] where no agent ever was.
pub fn ask(data: &Path, what: impl FnOnce(&mut Wish)) -> Result<bool, IdentityError> {
    Identity::read(data)?;
    let runs = is_served(data)?;
    change(data, what)?;
    Ok(runs)
}

/// Whether an agent runs on a data folder.
///
/// # Errors
/// Where that cannot be seen.
fn is_served(data: &Path) -> Result<bool, IdentityError> {
    // Taking a lock makes the folder.
    if !data.exists() {
        return Ok(false);
    }
    match DataLock::take(data) {
        Ok(_) => Ok(false),
        Err(IdentityError::InUse { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Asks the agent of a data folder to end, and waits until it did. False: none runs there.
///
/// # Errors
/// Where the folder cannot be read or written to.
pub async fn end(data: &Path, when: End) -> Result<bool, IdentityError> {
    if !is_served(data)? {
        return Ok(false);
    }
    change(data, |wish| wish.end = Some(when))?;
    while is_served(data)? {
        tokio::time::sleep(LOOK).await;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_kept_until_it_is_taken_back_and_one_to_end_until_the_next_start() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Wish::read(data.path()), Wish::default());
        change(data.path(), |wish| {
            wish.end = Some(End::WhenIdle);
            wish.drained = Some(Drained {
                by: "eva".into(),
                stop_jobs: true,
            });
        })
        .unwrap();
        let asked = Wish::read(data.path());
        assert!(asked.evicts() && asked.closed().is_some_and(|why| why.contains("idle")));
        begin_anew(data.path());
        let left = Wish::read(data.path());
        assert_eq!(left.closed().as_deref(), Some("drained on its host by eva"));
        change(data.path(), |wish| wish.drained = None).unwrap();
        assert!(!file(data.path()).exists());
    }

    #[test]
    fn where_no_agent_is_nobody_can_be_asked() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("agent");
        let refused = ask(&folder, |wish| wish.drained = None).unwrap_err();
        assert!(
            refused.to_string().contains("is not registered"),
            "{refused}"
        );
        assert!(!folder.exists(), "nothing is made");
    }

    #[test]
    fn a_damaged_wish_asks_nothing() {
        let data = tempfile::tempdir().unwrap();
        fs::write(file(data.path()), "{").unwrap();
        assert_eq!(Wish::read(data.path()), Wish::default());
    }
}
