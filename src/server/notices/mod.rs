//! Tells people outside of forges that pipelines ended: a signed message for each rule of the configuration, which
//! chats that speak as Slack does show as it is. What is to be told is a row, written down once when a pipeline is
//! over, and sent until its receiver took it or it is too old. It knows rows and rules; it holds up no job and no forge.

mod address;
mod message;
mod post;
mod rule;
mod story;
mod tick;

use std::time::Duration;

use protocol::Timestamp;

pub(crate) use post::receiver;
pub use rule::{On, Place, Rule};
pub use tick::{Pass, tick};

use crate::live;
use crate::state::Server;

/// Time between two messages to one receiver: Slack takes one a second.
const GAP: Duration = Duration::from_secs(1);

/// Runs until the server stops: woken by every job that moves, and at every tick as a safety net.
pub async fn run(server: Server) {
    let mut changes = server.live.subscribe();
    loop {
        let now = Timestamp::now();
        let mut wait = Duration::from(server.config.tick);
        let mut sent = false;
        match tick(&server, now).await {
            Ok(pass) => {
                sent = pass.taken + pass.not_taken > 0;
                if let Some(next) = pass.next {
                    wait = wait.min(next.since(now).into());
                }
            }
            Err(error) => {
                tracing::error!(%error, "who is to be told could not be worked on; the next pass tries again");
            }
        }
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = live::job_change(&mut changes), if !sent => live::drain(&mut changes),
            () = tokio::time::sleep(if sent { GAP } else { wait }) => {}
        }
    }
}
