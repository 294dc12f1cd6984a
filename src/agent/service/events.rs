//! Delivering a journal's events: from the number that the server wants, a batch at a time.

use protocol::Event;
use protocol::agent_api::EVENTS_BATCH_BYTES;
use protocol::event::{EventBody, EventKind, LogStream};
use protocol::{Timestamp, Unnumbered};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::deliver::Delivery;
use crate::client::ClientError;
use crate::journal::JournalError;

/// How often one that the disk does not give is tried, with pauses of up to half a minute.
const MOST_READS: u32 = 60;
/// How often a journal that is damaged is tried.
const READS: u32 = 3;

impl Delivery<'_> {
    /// Delivers events as they come, until `closing` and no event is left.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub(super) async fn events(self, closing: &CancellationToken) -> Result<(), String> {
        let mut last = self.journal.watch();
        let mut next = self.ask().await;
        let mut backoff = self.shared.backoff();
        loop {
            if let Err(error) = self.journal.ack(next) {
                tracing::error!(attempt = %self.attempt, "{error}");
            }
            let closed = closing.is_cancelled();
            last.borrow_and_update();
            let batch = self.read(next).await?;
            if batch.is_empty() {
                if closed {
                    return Ok(());
                }
                tokio::select! {
                    // The journal outlives this: an error would mean that nothing more can come.
                    _ = last.changed() => {}
                    () = closing.cancelled() => {}
                }
                continue;
            }
            self.note_phases(&batch);
            let wanted = self.deliver(&batch).await;
            if wanted <= next {
                // The server takes nothing: not as often as it can say so.
                tokio::time::sleep(backoff.next()).await;
            } else {
                backoff.reset();
            }
            next = wanted;
        }
    }

    /// The number that the server wants.
    async fn ask(self) -> u64 {
        let mut backoff = self.shared.backoff();
        loop {
            match self.send(self.journal.first(), &[]).await {
                Ok(next) => return next,
                Err(error) => {
                    tracing::error!(attempt = %self.attempt, "events are not taken: {error}; trying again");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Events from `from` on. Those that the server wants anew though it had taken them are no longer here:
    /// it gets a line that says so for each, or its story would never go on.
    async fn read(self, from: u64) -> Result<Vec<Event>, String> {
        let mut backoff = self.shared.backoff();
        let mut tries = 1;
        loop {
            let journal = self.journal.clone();
            let read = tokio::task::spawn_blocking(move || journal.read(from, EVENTS_BATCH_BYTES));
            let (reason, damaged) = match read.await {
                Ok(Ok(batch)) => {
                    let first = batch.first().map_or(from, |event| event.seq);
                    return Ok(if first > from {
                        forgotten(from, first)
                    } else {
                        batch
                    });
                }
                // A disk that refuses for a while is no journal that is lost.
                Ok(Err(error)) => {
                    let damaged = matches!(error, JournalError::Damaged { .. });
                    (error.to_string(), damaged)
                }
                Err(error) => (error.to_string(), true),
            };
            tracing::error!(attempt = %self.attempt, "{reason}");
            if tries >= if damaged { READS } else { MOST_READS } {
                return Err(reason);
            }
            tries += 1;
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Delivers a batch. Answers the next number wanted.
    async fn deliver(self, batch: &[Event]) -> u64 {
        let from = batch[0].seq;
        match self.send(from, batch).await {
            Ok(next) => return next,
            Err(error) => {
                tracing::warn!(attempt = %self.attempt, from, "a batch of events is refused: {error}; one by one now");
            }
        }
        let mut next = from;
        for event in batch {
            next = self.deliver_one(event).await;
            if next <= event.seq {
                break;
            }
        }
        next
    }

    /// Delivers an event, or says in its place that it is left out: a story must go on.
    async fn deliver_one(self, event: &Event) -> u64 {
        let seq = event.seq;
        let error = match self.send(seq, std::slice::from_ref(event)).await {
            Ok(next) => return next,
            Err(error) => error,
        };
        let text = format!("Event {seq} is left out: the server refuses it ({error}).\n");
        tracing::error!(attempt = %self.attempt, "{text}");
        self.send(seq, &[platform(seq, text)]).await.unwrap_or(seq)
    }

    async fn send(self, from: u64, events: &[Event]) -> Result<u64, ClientError> {
        let Shared { client, clock, .. } = self.shared;
        clock.known().await;
        let dated = clock.events(events);
        self.persist(|| client.events(self.attempt, self.generation, from, &dated))
            .await
    }

    fn note_phases(self, batch: &[Event]) {
        for event in batch {
            if let Some(EventKind::Phase { phase, .. }) = event.body.known() {
                self.shared.attempts.phase(self.attempt, *phase);
            }
        }
    }
}

/// Stand-ins for the events `from..first`, as many as make a batch.
fn forgotten(from: u64, first: u64) -> Vec<Event> {
    let said = "An event is missing here: the server had taken it, and lost it.\n";
    (from..first)
        .take(1_000)
        .map(|seq| platform(seq, said.to_owned()))
        .collect()
}

fn platform(seq: u64, text: String) -> Event {
    let body: EventBody = EventKind::Log {
        stream: LogStream::Platform,
        text,
    }
    .into();
    Unnumbered {
        at: Timestamp::now(),
        body,
    }
    .number(seq)
}
