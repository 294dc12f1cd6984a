//! Which environments attempts hold, as their folders say. It removes nothing.

use std::fs;
use std::io;
use std::path::Path;

use super::state::{Stage, State};
use super::{AttemptDir, read_json};
use crate::environment::{InUse, name_of};

/// What the attempts below a data folder use: those that run, are about to, or are kept for a look.
///
/// # Errors
/// Where an attempt's folder cannot be read: then nobody knows.
pub(crate) fn in_use(data: &Path) -> io::Result<InUse> {
    let mut found = InUse::default();
    for entry in fs::read_dir(data.join("attempts"))? {
        let dir = AttemptDir::open(entry?.path());
        // Folders on their way out, and those of no attempt, have none.
        let began = match fs::metadata(dir.order_file()) {
            Err(error) if is_gone(&error) => continue,
            order => order?.modified()?,
        };
        if let Ok(Some(report)) = dir.report() {
            found
                .names
                .extend(report.setting.environment.as_ref().map(name_of));
            continue;
        }
        match read_json::<State>(&dir.state_file()).map(|state| state.map(|state| state.stage)) {
            Ok(Some(Stage::Run(prepared))) => {
                let folder = prepared.environment.map(|environment| environment.folder);
                let name = folder.as_deref().and_then(Path::file_name);
                found
                    .names
                    .extend(name.map(|name| name.to_string_lossy().into_owned()));
            }
            Ok(Some(Stage::Collect { .. })) => {}
            // It may have taken one without having said so yet.
            Ok(Some(Stage::Workspace | Stage::Environment) | None) | Err(_) => {
                found.since = Some(found.since.map_or(began, |since| since.min(began)));
            }
        }
    }
    Ok(found)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
