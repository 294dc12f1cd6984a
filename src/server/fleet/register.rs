//! An agent introduces itself with a one-time token.

use protocol::agent_api::{RegisterRequest, Registered, VERSION, wrong_name};
use protocol::{AgentId, Digest, Span, Timestamp};

use super::Refused;
use crate::secret::{self, Secret};
use crate::state::Server;
use crate::store::Connection;
use crate::store::agents::{self, Agent};

/// How long a token may be used, where nobody said otherwise.
pub const TOKEN_LIFE: Span = Span::hours(24);

/// A token that registers one agent, and when it ends. It is shown once.
///
/// # Errors
/// The store's.
pub async fn token(server: &Server, life: Span) -> Result<(Secret, Timestamp), Refused> {
    let token = Secret::generate("tya");
    let at = Timestamp::now();
    let expires_at = at + life;
    let mut tx = server.store.begin().await?;
    agents::insert_token(&mut tx, &token.hash(), at, expires_at).await?;
    tx.commit().await?;
    Ok((token, expires_at))
}

/// Registers an agent. One that comes again under its name keeps its id and gets a new secret: once the one that had
/// the name is lost or revoked, or by [`RegisterRequest::replace`].
///
/// # Errors
/// [`Refused`]: wrong version, name, or token; the name is in use. A token that was refused a name is still good.
pub async fn register(server: &Server, request: &RegisterRequest) -> Result<Registered, Refused> {
    if request.protocol != VERSION {
        return Err(Refused::Version {
            found: request.protocol,
        });
    }
    if let Some(why) = wrong_name(&request.name) {
        return Err(Refused::Invalid(why));
    }
    let hash = secret::hash(&request.token);
    let secret = Secret::generate("tys");
    let at = Timestamp::now();
    let inventory = serde_json::to_string(&request.inventory)
        .map_err(|error| Refused::Invalid(error.to_string()))?;
    let mut tx = server.store.begin().await?;
    if !agents::use_token(&mut tx, &hash, at).await? {
        return Err(Refused::Unauthorized(
            "this registration token is unknown, was used, or is too old: make a new one",
        ));
    }
    if !request.replace {
        check_free(server, &mut tx, &request.name).await?;
    }
    let agent = Agent {
        id: AgentId::generate(),
        name: request.name.clone(),
        secret_hash: secret.hash(),
        version: request.version.clone(),
        inventory: request.inventory.clone(),
        inventory_hash: Digest::of(inventory),
        accepting: true,
        closed: None,
        drained_by: None,
        revoked_by: None,
        removed_at: None,
        registered_at: at,
        seen_at: at,
    };
    let id = agents::register(&mut tx, &agent).await?;
    agents::token_used_by(&mut tx, &hash, &id).await?;
    tx.commit().await?;
    server.leases.registered(&id);
    server.live.queue_changed();
    tracing::info!(agent = %id, name = request.name, "registered");
    Ok(Registered {
        agent: id,
        secret: secret.reveal().to_owned(),
    })
}

/// Nobody takes the name of an agent that may be at work: it would have its id, and it would lose its secret.
async fn check_free(server: &Server, db: &mut Connection, name: &str) -> Result<(), Refused> {
    let there = agents::by_name(db, name).await?;
    let Some(there) = there.filter(|agent| agent.revoked_by.is_none()) else {
        return Ok(());
    };
    let silence = Span::from(server.leases.silence(&there.id));
    let patience = server.config.lost_after;
    match silence <= patience {
        true => Err(Refused::NameInUse {
            name: there.name,
            silence,
            patience,
        }),
        false => Ok(()),
    }
}
