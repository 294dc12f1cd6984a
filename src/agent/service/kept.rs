//! What an attempt keeps on its host between processes: its journal, and what its code wrote to the registry. What is
//! damaged is set aside, and the attempt goes on.

use std::path::Path;

use protocol::Unnumbered;
use protocol::agent_api::AttemptOrder;
use protocol::event::{EventKind, LogStream};

use super::{Shared, keep};
use crate::attempt::AttemptDir;
use crate::journal::{Journal, JournalError};
use crate::registry::Desk;

/// The attempt's journal. A damaged one is set aside and its story begins anew: the server's next number is the one to
/// go on from, and the driver's lines are read again.
pub(super) async fn journal(shared: &Shared, dir: &AttemptDir, order: &AttemptOrder) -> Journal {
    let path = dir.journal();
    let mut backoff = shared.backoff();
    loop {
        let error = match Journal::open(&path) {
            Ok(journal) => return journal,
            Err(error) => error,
        };
        tracing::error!(attempt = %order.attempt, "{error}");
        if matches!(error, JournalError::Damaged { .. }) {
            set_aside(&path);
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Where what the job's code writes to the registry is kept; none: the server takes nothing of it. Of a damaged one, what
/// the server has not of it is missing in the run, and the job's log says so.
pub(super) async fn desk(
    shared: &Shared,
    dir: &AttemptDir,
    order: &AttemptOrder,
    journal: &Journal,
) -> Option<Desk> {
    order.run.as_ref()?;
    let path = dir.registry();
    let mut backoff = shared.backoff();
    loop {
        let error = match Desk::open(path.clone()) {
            Ok(desk) => return Some(desk),
            Err(error) => error,
        };
        tracing::error!(attempt = %order.attempt, "{}: {error}", path.display());
        if error.kind() == std::io::ErrorKind::InvalidData && set_aside(&path) {
            say(
                journal,
                order,
                "what the code wrote to the registry was damaged on the host's disk: what the server did not have yet is \
                 missing in the run; run the job again to have all of it",
            );
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Answers whether it is out of the way.
fn set_aside(path: &Path) -> bool {
    let aside = path.with_extension("damaged");
    keep::remove_all(&aside);
    let moved = std::fs::rename(path, &aside);
    if let Err(error) = &moved {
        tracing::error!("cannot set {} aside: {error}", path.display());
    }
    moved.is_ok()
}

/// Writes a sentence of the platform's into the job's log.
pub(super) fn say(journal: &Journal, order: &AttemptOrder, sentence: &str) {
    let line = EventKind::Log {
        stream: LogStream::Platform,
        text: format!("{sentence}\n"),
    };
    if let Err(error) = journal.append(Unnumbered::now(line.into())) {
        tracing::error!(attempt = %order.attempt, "{error}");
    }
}
