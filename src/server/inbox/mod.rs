//! Messages of forges that were proved, and comments that they list: each is kept once before it is answered. Those that
//! come at the same time are kept together, so that a thousand of them do not wait for a thousand writes to the disk.

mod app;
mod command;
mod deeds;
mod missed;
mod obey;

pub use app::{AppMessage, keep_for_app};

use std::sync::{Mutex, PoisonError};

use protocol::{ProjectId, Timestamp};
use tokio::sync::oneshot;

pub use missed::run as hear_missed;
pub use obey::run;

use crate::forge::ForgeKind;
use crate::forge::event::{Change, Comment, ForgeEvent, PullRequest};
use crate::pipelines;
use crate::state::Server;
use crate::store::jobs::Job;
use crate::store::projects::{self, Delivery, LISTED};
use crate::store::{Connection, Result, StoreError};

/// Most messages of one transaction.
const MOST: usize = 500;

/// A message that was proved and read.
#[derive(Debug, Clone)]
pub struct Message {
    /// Whose project.
    pub project: ProjectId,
    /// Who sent it.
    pub kind: ForgeKind,
    /// The same for the same message sent twice.
    pub delivery: String,
    /// The forge's word for what happened.
    pub name: String,
    /// What happened.
    pub event: ForgeEvent,
    /// When it came.
    pub at: Timestamp,
}

/// Messages on their way into rows.
#[derive(Debug, Default)]
pub struct Inbox {
    waiting: Mutex<Vec<Waiting>>,
    /// Whoever holds it writes for all that wait.
    turn: tokio::sync::Mutex<()>,
}

/// A message, and who wants to hear that it is kept: true where it is new.
#[derive(Debug)]
struct Waiting {
    message: Message,
    kept: oneshot::Sender<bool>,
}

/// The message could not be kept; why was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delivery could not be kept: send it again")]
pub struct NotKept;

/// Keeps a message, and wakes who works on it. The same one again does nothing.
///
/// # Errors
/// [`NotKept`].
pub async fn keep(server: &Server, message: Message) -> std::result::Result<(), NotKept> {
    let asks = asks(&message.event);
    let moves = message.event.moves_something();
    let (kept, mut answer) = oneshot::channel();
    let inbox = &server.inbox;
    let lock = || inbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    lock().push(Waiting { message, kept });
    let turn = inbox.turn.lock().await;
    let new = loop {
        match answer.try_recv() {
            // Who had the turn before wrote it.
            Ok(new) => break new,
            Err(oneshot::error::TryRecvError::Closed) => return Err(NotKept),
            Err(oneshot::error::TryRecvError::Empty) => {}
        }
        let batch: Vec<_> = {
            let mut waiting = lock();
            let count = waiting.len().min(MOST);
            waiting.drain(..count).collect()
        };
        if batch.is_empty() {
            // Who had the turn before went away; the writing goes on.
            break answer.await.map_err(|_| NotKept)?;
        }
        // To its end, though the one who asked goes away.
        let writing = tokio::spawn(write(server.clone(), batch));
        if let Err(panicked) = writing.await {
            tracing::error!("deliveries could not be kept: {panicked}");
        }
    };
    drop(turn);
    if new && asks {
        server.live.somebody_asked();
    } else if new && moves {
        server.live.refs_changed();
    }
    Ok(())
}

/// Keeps what comments command that the forge lists. One of which a message told, or tells later, is the same. Whether
/// there is something new.
pub(crate) async fn keep_listed(
    tx: &mut Connection,
    project: &ProjectId,
    said: Vec<Comment>,
    at: Timestamp,
) -> Result<bool> {
    let mut new = false;
    for comment in said {
        if command::is_meant(&comment.text) {
            let delivery = format!("comment {}", comment.id);
            let event = ForgeEvent::Comment(comment);
            let row = row(project, (&delivery, LISTED), &event, at);
            new |= projects::insert_delivery(tx, &row).await?;
        }
    }
    Ok(new)
}

/// Whether a person asks for something, which is done once.
fn asks(event: &ForgeEvent) -> bool {
    matches!(event, ForgeEvent::Comment(_) | ForgeEvent::Asked(_))
}

/// Keeps a batch, and says so to those who wait; they hear nothing where it could not be kept.
async fn write(server: Server, batch: Vec<Waiting>) {
    match keep_all(&server, &batch).await {
        Ok((new, ended)) => {
            if !ended.is_empty() {
                pipelines::announce(&server, &ended);
            }
            for (waiting, new) in batch.into_iter().zip(new) {
                // Who does not wait any more needs no answer.
                let _ = waiting.kept.send(new);
            }
        }
        Err(error) => tracing::error!(%error, "deliveries could not be kept"),
    }
}

/// In one transaction; gives which of them are new, and the jobs that ended with their pull requests.
async fn keep_all(server: &Server, batch: &[Waiting]) -> Result<(Vec<bool>, Vec<Job>)> {
    let mut tx = server.store.begin().await?;
    let mut new = Vec::with_capacity(batch.len());
    let mut ended = Vec::new();
    for waiting in batch {
        let message = &waiting.message;
        let is_new = keep_one(&mut tx, message).await?;
        if let (true, ForgeEvent::PullRequest(told)) = (is_new, &message.event) {
            ended.extend(remember(&mut tx, message, told).await?);
        }
        new.push(is_new);
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok((new, ended))
}

async fn keep_one(tx: &mut Connection, message: &Message) -> Result<bool> {
    let names = (message.delivery.as_str(), message.name.as_str());
    let row = row(&message.project, names, &message.event, message.at);
    projects::insert_delivery(tx, &row).await
}

/// What happened, under the id of its message and the forge's word for it.
fn row(
    project: &ProjectId,
    (delivery, name): (&str, &str),
    event: &ForgeEvent,
    received_at: Timestamp,
) -> Delivery {
    Delivery {
        project: project.clone(),
        delivery: delivery.to_owned(),
        event: name.to_owned(),
        body: serde_json::to_string(event).unwrap_or_default(),
        asks: asks(event),
        comment: match event {
            ForgeEvent::Comment(comment) => Some(comment.id),
            ForgeEvent::Ping
            | ForgeEvent::Push { .. }
            | ForgeEvent::PullRequest(_)
            | ForgeEvent::Asked(_)
            | ForgeEvent::Other { .. } => None,
        },
        received_at,
    }
}

/// Writes a pull request down, and ends what waits of one that is over now; gives the jobs that changed.
async fn remember(tx: &mut Connection, message: &Message, told: &PullRequest) -> Result<Vec<Job>> {
    let (project, kind) = (&message.project, message.kind);
    let opens = match told.change {
        Change::Opened | Change::Reopened => true,
        Change::Updated | Change::Ready | Change::Closed => false,
    };
    let request = told.clone().into();
    pipelines::told_of(tx, project, kind, (&request, opens), message.at).await
}
