//! Events of attempts: durable before they are answered, each number once.

use protocol::agent_api::EventsAnswer;
use protocol::{AttemptId, Event};

use super::{Refused, Standing, mine, room, standing};
use crate::live::Change;
use crate::state::Server;
use crate::store::agents::Agent;
use crate::store::events;

/// Takes a batch of NDJSON. What was there before is passed over; what comes after a gap is not taken, and
/// the answer says what is wanted.
///
/// # Errors
/// [`Refused`].
pub async fn take(
    server: &Server,
    agent: &Agent,
    id: &AttemptId,
    body: &str,
) -> Result<EventsAnswer, Refused> {
    let lines = read(body)?;
    room(server, body.len() as u64).await?;
    let mut tx = server.store.begin().await?;
    let (attempt, job) = mine(&mut tx, agent, id).await?;
    match standing(&attempt, &job) {
        Standing::Believed | Standing::Resumable | Standing::Over => {}
        Standing::Abandoned => return Err(Refused::Abandoned(id.clone())),
    }
    let mut next = events::next_wanted(&mut tx, id).await?;
    let mut new = Vec::new();
    for (seq, line) in lines {
        if seq == next {
            new.push((seq, line.to_owned()));
            next += 1;
        }
    }
    if !new.is_empty() {
        events::append(&mut tx, id, &new).await?;
        tx.commit().await?;
        server.live.tell(Change::Events {
            attempt: id.clone(),
            next,
        });
    }
    Ok(EventsAnswer { next })
}

/// The lines with their numbers. A kind that is not known is no error; a line that is no event is one.
fn read(body: &str) -> Result<Vec<(u64, &str)>, Refused> {
    body.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| match serde_json::from_str::<Event>(line) {
            Ok(event) if event.seq > 0 => Ok((event.seq, line)),
            Ok(_) => Err(Refused::Invalid(format!(
                "line {}: events are numbered from 1",
                index + 1
            ))),
            Err(error) => Err(Refused::Invalid(format!("line {}: {error}", index + 1))),
        })
        .collect()
}
