//! Leases: an agent that was silent for too long is lost, and its jobs may be queued again. Its bookings
//! stay until it comes back: its GPUs may still be at work.

use std::time::{Duration, Instant};

use protocol::{Failure, FailureKind, Outcome, Span};

use super::finish;
use crate::state::Server;
use crate::store::attempts::Fate;
use crate::store::{Result, agents, attempts};

/// Runs until the server stops.
pub async fn run(server: Server) {
    let mut judged = Instant::now();
    loop {
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = tokio::time::sleep(server.config.tick.into()) => {}
        }
        match pass(&server, Some(judged)).await {
            Ok(_) => judged = Instant::now(),
            Err(error) => {
                tracing::error!(%error, "leases could not be judged; the next pass tries again");
            }
        }
    }
}

/// One pass. Gives the number of attempts that were given up.
///
/// # Errors
/// The store's.
pub async fn tick(server: &Server) -> Result<usize> {
    pass(server, None).await
}

/// One pass, `before` which the last one was. While the database is away nobody is heard, although all may call: after that
/// everybody has the whole time once more.
async fn pass(server: &Server, before: Option<Instant>) -> Result<usize> {
    let mut db = server.store.read().await?;
    let open = attempts::open(&mut db).await?;
    if open.is_empty() {
        return Ok(0);
    }
    let fleet = agents::all(&mut db).await?;
    drop(db);
    let usual = Duration::from(server.config.tick) + server.config.unreachable_after.into();
    if before.is_some_and(|before| before.elapsed() > usual) {
        server.leases.begin_anew();
        return Ok(0);
    }
    let mut lost = 0;
    for attempt in open {
        let silence = server.leases.silence(&attempt.agent);
        let own = attempt.order.spec.limits.lost_after;
        let patience = own.unwrap_or(server.config.lost_after);
        // No job gives an agent up that is not even unreachable: its poll may be held.
        if silence <= patience.max(server.config.unreachable_after).into() {
            continue;
        }
        let name = fleet
            .iter()
            .find(|agent| agent.id == attempt.agent)
            .map_or("?", |agent| agent.name.as_str());
        let failure = Failure::new(
            FailureKind::AgentLost,
            format!("agent {name} was not heard of for {}", Span::from(silence)),
        );
        tracing::warn!(attempt = %attempt.id, agent = name, "given up: its agent is lost");
        finish::without_report(server, &attempt.id, Fate::Lost, Outcome::Failed(failure)).await?;
        lost += 1;
    }
    Ok(lost)
}
