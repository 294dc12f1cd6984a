//! The attempts' folders between processes: which go on, which are kept for people, which are rubbish.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use protocol::agent_api::{AttemptOrder, Source};
use protocol::{AttemptId, JobId, Timestamp};

use crate::attempt::{AttemptDir, read_json, write_json};
use crate::local;

/// Folders under this name are on their way out: a folder is renamed before it is removed, so that half of
/// one is never taken for an attempt.
const RUBBISH: &str = ".rubbish-";
/// A file that says that the server has the report.
const REPORTED: &str = "reported";

/// The attempts to go on with. Rubbish is removed; an order that this version cannot read is set aside.
pub(super) fn found(attempts: &Path) -> io::Result<Vec<(AttemptDir, AttemptOrder)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(attempts)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with(RUBBISH) {
            remove_all(&path);
            continue;
        }
        if name.parse::<AttemptId>().is_err() {
            continue;
        }
        let dir = AttemptDir::open(&path);
        if is_reported(&dir) || local::is_runs(&dir) {
            continue;
        }
        match dir.order() {
            Ok(order) => found.push((dir, order)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => discard(&dir),
            Err(error) => {
                tracing::error!(
                    "{}: {error}; set aside as {name}.unreadable",
                    path.display()
                );
                std::fs::rename(&path, attempts.join(format!("{name}.unreadable")))?;
            }
        }
    }
    Ok(found)
}

/// Whether an attempt is over for the server, and only its files are kept.
pub(super) fn is_reported(dir: &AttemptDir) -> bool {
    dir.path().join(REPORTED).exists()
}

/// The server has an attempt's report: its folder goes, or, where the run left word to keep it for people,
/// all that they do not need, secrets first.
pub(super) fn reported(dir: &AttemptDir, mut order: AttemptOrder) {
    let keep = matches!(read_json::<Timestamp>(&dir.kept_until_file()), Ok(Some(until)) if until > Timestamp::now());
    if !keep {
        return discard(dir);
    }
    order.secrets.clear();
    if let Source::Git { authorization, .. } = &mut order.source {
        *authorization = None;
    }
    // The mark is last of the files: until then the report may be delivered once more.
    let stripped = write_json(&dir.order_file(), &order)
        .and_then(|()| write_json(&dir.path().join(REPORTED), &Timestamp::now()));
    if let Err(error) = stripped {
        tracing::error!("{} is not kept: {error}", dir.path().display());
        return discard(dir);
    }
    for folder in [
        dir.journal(),
        dir.blobs(),
        dir.needs_blobs(),
        dir.registry(),
    ] {
        remove_all(&folder);
    }
}

/// Removes an attempt's folder.
pub(super) fn discard(dir: &AttemptDir) {
    let path = dir.path();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let rubbish = path.with_file_name(format!("{RUBBISH}{name}"));
    match std::fs::rename(path, &rubbish) {
        Ok(()) => remove_all(&rubbish),
        Err(error) => tracing::error!("cannot remove {}: {error}", path.display()),
    }
}

/// Removes what was kept long enough; all that is kept where the agent lacks room (`hard`).
pub(super) fn sweep(data: &Path, hard: bool) {
    let Ok(entries) = std::fs::read_dir(data.join("attempts")) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let dir = AttemptDir::open(&path);
        if !is_reported(&dir) {
            continue;
        }
        let until = read_json::<Timestamp>(&dir.kept_until_file());
        if hard || !matches!(until, Ok(Some(until)) if until > Timestamp::now()) {
            discard(&dir);
        }
    }
}

/// The jobs of attempts that go on.
pub(super) fn living(data: &Path) -> BTreeSet<JobId> {
    let entries = std::fs::read_dir(data.join("attempts"));
    let dirs = entries.into_iter().flatten().flatten();
    dirs.map(|entry| AttemptDir::open(entry.path()))
        .filter(|dir| !is_reported(dir))
        .filter_map(|dir| Some(dir.order().ok()?.job))
        .collect()
}

pub(super) fn remove_all(path: &Path) {
    if let Err(error) = crate::workspace::remove(path) {
        tracing::warn!(
            "{} stays, because it cannot be removed: {error}",
            path.display()
        );
    }
}
