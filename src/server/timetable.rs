//! Schedules: once a minute, the definitions whose time came since the last pass are asked for at the head
//! of the default branch. What came due while the server was away is not made up for.

use protocol::{Timestamp, Trigger, TriggerKind, Trust};

use crate::state::Server;
use crate::store::pipelines::Pipeline;
use crate::store::{Result, projects};
use crate::watch;

/// Milliseconds of the grid on which schedules lie.
const MINUTE: i64 = 60_000;

/// Runs until the server stops.
pub async fn run(server: Server) {
    let mut last = Timestamp::now();
    loop {
        let wait = MINUTE - Timestamp::now().0.rem_euclid(MINUTE);
        let wait = std::time::Duration::from_millis(wait.unsigned_abs());
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let now = Timestamp::now();
        match tick(&server, last, now).await {
            Ok(_) => last = now,
            Err(error) => {
                tracing::error!(%error, "schedules could not be read; tried again in a minute")
            }
        }
    }
}

/// One pass: what came due after `last`, up to and including `now`. Gives the pipelines that it made.
///
/// # Errors
/// The store's. A project whose files cannot be read is logged and passed over.
pub async fn tick(server: &Server, last: Timestamp, now: Timestamp) -> Result<Vec<Pipeline>> {
    let mut db = server.store.read().await?;
    let all = projects::all(&mut db).await?;
    drop(db);
    let mut made = Vec::new();
    for project in all {
        let due = match watch::schedules(server, &project).await {
            Ok(Some((commit, reference, schedules))) => {
                let mut definitions: Vec<String> = schedules
                    .iter()
                    .filter(|schedule| schedule.next_after(last).is_some_and(|at| at <= now))
                    .map(|schedule| schedule.definition.clone())
                    .collect();
                definitions.dedup();
                (!definitions.is_empty()).then_some((commit, reference, definitions))
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(project = project.name, %error, "its schedules could not be read");
                None
            }
        };
        let Some((commit, reference, definitions)) = due else {
            continue;
        };
        let trigger = Trigger {
            kind: TriggerKind::Schedule { definitions },
            commit,
            reference: Some(reference),
            base: None,
            trust: Trust::Trusted,
            by: None,
            at: now,
            asked_in: None,
        };
        match watch::plan_and_create(server, &project, &trigger, None).await {
            Ok(pipeline) => made.push(pipeline),
            Err(error) => {
                tracing::warn!(project = project.name, %error, "its schedule could not be planned");
            }
        }
    }
    Ok(made)
}
