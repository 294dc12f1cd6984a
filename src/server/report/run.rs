//! The loops of registry and reports: they only wait, call a pass, and say what went wrong.

use std::time::Duration;

use protocol::Timestamp;

use super::{Differ, ReportConfig, Reporter};
use crate::live;
use crate::registry::{Recogniser, Registrar};
use crate::state::Server;

/// Runs until the server stops: woken by every job that moves, and at every tick as a safety net. The
/// registry and the notebooks go first, so that a report can tell of what they have just kept.
pub async fn run(server: Server) {
    let config = ReportConfig {
        pages: server.config.url.clone(),
        ..ReportConfig::default()
    };
    let mut registrar = Registrar::new(server.store.clone());
    let mut recogniser = Recogniser::new(server.store.clone());
    let mut differ = Differ::new(server.store.clone(), server.config.mirrors());
    let mut reporter = Reporter::new(server.store.clone(), server.forges.clone(), config);
    let mut changes = server.live.subscribe();
    loop {
        let now = Timestamp::now();
        if let Err(error) = registrar.tick(now).await {
            tracing::error!(%error, "the registry could not be brought up to date; the next pass tries again");
        }
        if let Err(error) = recogniser.tick(&server.blobs).await {
            tracing::error!(%error, "the files of new versions could not be looked at; the next pass tries again");
        }
        if let Err(error) = differ.tick().await {
            tracing::error!(%error, "notebooks of pull requests could not be compared; the next pass tries again");
        }
        let mut wait = Duration::from(server.config.tick);
        let now = Timestamp::now();
        match reporter.tick(now).await {
            Ok(pass) if pass.accepted + pass.refused + pass.under_way > 0 => wait = Duration::ZERO,
            Ok(pass) => {
                if let Some(next) = pass.next {
                    wait = wait.min(next.since(now).into());
                }
            }
            Err(error) => {
                tracing::error!(%error, "reports could not be worked on; the next pass tries again");
            }
        }
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = live::job_change(&mut changes) => live::drain(&mut changes),
            () = tokio::time::sleep(wait) => {}
        }
    }
}
