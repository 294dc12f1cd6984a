//! What an attempt keeps on its host between processes: its journal, and what its code wrote to the registry. What is
//! damaged is set aside, and the attempt goes on.

use std::io::ErrorKind;
use std::path::Path;

use protocol::Unnumbered;
use protocol::agent_api::AttemptOrder;
use protocol::event::{EventKind, LogStream};

use super::{Shared, keep};
use crate::attempt::{AttemptDir, Control};
use crate::journal::{Journal, JournalError};
use crate::registry::{Desk, MOST_WAITING};

/// So often a place is opened that the disk does not give, before it is done without.
const MOST_TRIES: u32 = 5;
/// What is said where something of it is lost.
const DAMAGED: &str = "some of what the code wrote to the registry was damaged on the host's disk: what the server did not have \
    of it yet is missing in the run, and the rest goes on; run the job again to have all of it";
/// What is said where the attempt ends before it could be opened.
const UNOPENED: &str = "the host's disk did not give back what the code wrote to the registry before the job was ended: what \
    the server did not have of it is missing in the run";

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

/// Where what the job's code writes to the registry is kept; none: the server takes nothing of it. What is damaged there is
/// missing in the run, and the job's log says so. One that cannot be opened at all is set aside, but room for it is waited
/// for, until the attempt is asked to end.
pub(super) async fn desk(
    shared: &Shared,
    dir: &AttemptDir,
    order: &AttemptOrder,
    journal: &Journal,
    control: &Control,
) -> Option<Desk> {
    order.run.as_ref()?;
    let path = dir.registry();
    let floor = shared.host.config.disk.floor();
    let mut backoff = shared.backoff();
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match Desk::open(path.clone(), MOST_WAITING, floor) {
            Ok(desk) => {
                if desk.damaged() > 0 {
                    say(journal, order, DAMAGED);
                }
                return Some(desk);
            }
            Err(error) => error,
        };
        tracing::error!(attempt = %order.attempt, "{}: {error}", path.display());
        let is_full = matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded
        );
        if tries >= MOST_TRIES && !is_full {
            tries = 0;
            if set_aside(&path) {
                say(journal, order, DAMAGED);
            }
        }
        tokio::select! {
            biased;
            _ = control.stopped() => {
                say(journal, order, UNOPENED);
                return None;
            }
            () = tokio::time::sleep(backoff.next()) => {}
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::world::World;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_damaged_of_the_calls_is_said_in_the_jobs_log_and_holds_nothing_up() {
        let world = World::new().await;
        let (dir, mut order) = world.ordered();
        order.run = Some("0".repeat(32));
        let registry = dir.registry();
        std::fs::create_dir_all(&registry).unwrap();
        std::fs::write(registry.join("calls.ndjson"), "no call\n").unwrap();
        let shared = &world.shared;
        let journal = journal(shared, &dir, &order).await;
        let control = Control::new();
        let open = async || desk(shared, &dir, &order, &journal, &control).await;
        let said = || {
            let events = journal.read(1, usize::MAX).unwrap();
            let texts = events.iter().filter_map(|event| match event.body.known()? {
                EventKind::Log { text, .. } => Some(text.clone()),
                _ => None,
            });
            texts.collect::<Vec<_>>()
        };
        assert_eq!(open().await.unwrap().damaged(), 1);
        assert_eq!(said(), [format!("{DAMAGED}\n")]);
        // It is said once, and what is whole is not spoken of.
        assert_eq!(open().await.unwrap().damaged(), 0);
        // A folder that is none is put out of the way.
        std::fs::remove_dir_all(&registry).unwrap();
        std::fs::write(&registry, "a file").unwrap();
        assert_eq!(open().await.unwrap().damaged(), 0);
        assert_eq!(said().len(), 2);
        // Who is asked to end waits for no disk.
        std::fs::remove_dir_all(&registry).unwrap();
        std::fs::write(&registry, "a file").unwrap();
        control.abandon();
        assert!(open().await.is_none() && registry.is_file());
        assert_eq!(said()[2], format!("{UNOPENED}\n"));
    }
}
