//! Messages to the GitHub App: one door for all repositories, so the message says whose it is.

use protocol::Timestamp;

use super::{Message, NotKept, keep};
use crate::forge::ForgeKind;
use crate::forge::hook::AppTold;
use crate::state::Server;
use crate::store::projects::{self, Project};

/// A proved message to the App.
#[derive(Debug, Clone)]
pub struct AppMessage {
    /// The same for the same message sent twice.
    pub delivery: String,
    /// The forge's word for what happened.
    pub name: String,
    /// What it said.
    pub told: AppTold,
    /// When it came.
    pub at: Timestamp,
}

/// Keeps a message for each project that it is about. One that is about no project is done with.
///
/// # Errors
/// [`NotKept`]; sent again, it is kept where it was not.
pub async fn keep_for_app(server: &Server, message: AppMessage) -> Result<(), NotKept> {
    let about = concerned(server, &message.told).await?;
    if about.is_empty() {
        let (event, repository) = (&message.name, message.told.told.repository.as_deref());
        tracing::debug!(
            event,
            repository,
            "a message to the GitHub App is about no project"
        );
    }
    let changed = message.told.changed.is_some();
    for project in about {
        if changed {
            server.forges.forget(&project.forge);
        }
        let one = Message {
            project: project.id,
            kind: ForgeKind::Github,
            delivery: message.delivery.clone(),
            name: message.name.clone(),
            event: message.told.told.event.clone(),
            at: message.at,
        };
        keep(server, one).await?;
    }
    if changed {
        // What the App may now, the next look finds out; and says where it may nothing.
        server.live.refs_changed();
    }
    Ok(())
}

/// The projects of a repository, by its number; or all that an installation may reach.
async fn concerned(server: &Server, told: &AppTold) -> Result<Vec<Project>, NotKept> {
    let all = async { projects::all(&mut *server.store.read().await?).await };
    let mut all = all.await.map_err(|error| {
        tracing::error!(%error, "the projects of a message to the GitHub App could not be read");
        NotKept
    })?;
    all.retain(|project| {
        let place = project.forge.place().map(|(_, place)| place);
        place.is_some_and(|place| match (&told.changed, place.app) {
            (_, None) => false,
            (Some(whose), Some(_)) => place.repository.owner().eq_ignore_ascii_case(whose),
            (None, Some(number)) => told.repository == Some(number),
        })
    });
    Ok(all)
}
