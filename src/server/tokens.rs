//! API tokens: made and taken away, each with its line in the audit log. The first administrator's token
//! closes the open door of loopback.

use protocol::Timestamp;
use protocol::api::{CreatedToken, NewToken, Token};

use crate::names::{self, BadName};
use crate::secret::Secret;
use crate::store::access::{self, Audit};
use crate::store::{Result as StoreResult, Store, StoreError};

/// Why a token is not made or taken away.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Its name.
    #[error(transparent)]
    Name(#[from] BadName),
    /// There is one of this name.
    #[error("there is a token '{0}' already: choose another name, or remove that one first")]
    Taken(String),
    /// There is none of this name.
    #[error("there is no token '{0}': 'trainyard token list' shows those that are there")]
    Missing(String),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a token for `by`. Its secret is in the answer, and nowhere else.
///
/// # Errors
/// [`TokenError`].
pub async fn create(
    store: &Store,
    wanted: &NewToken,
    by: &str,
) -> Result<CreatedToken, TokenError> {
    names::check("token", &wanted.name)?;
    let secret = Secret::generate("ty");
    let entry = access::new_token(&wanted.name, wanted.role, Timestamp::now());
    let mut tx = store.begin().await?;
    if !access::add_token(&mut tx, &entry, &secret.hash()).await? {
        return Err(TokenError::Taken(entry.name));
    }
    let action = format!("create token {} ({})", entry.name, entry.role.word());
    access::write_audit(&mut tx, &audit(by, action)).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(CreatedToken {
        entry,
        token: secret.reveal().to_owned(),
    })
}

/// All tokens, oldest first, without their secrets.
///
/// # Errors
/// The store's.
pub async fn list(store: &Store) -> StoreResult<Vec<Token>> {
    access::tokens(&mut *store.read().await?).await
}

/// Takes a token away with its sessions.
///
/// # Errors
/// [`TokenError`].
pub async fn remove(store: &Store, name: &str, by: &str) -> Result<(), TokenError> {
    let mut tx = store.begin().await?;
    if !access::remove_token(&mut tx, name).await? {
        return Err(TokenError::Missing(name.chars().take(80).collect()));
    }
    access::write_audit(&mut tx, &audit(by, format!("remove token {name}"))).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

fn audit(by: &str, action: String) -> Audit {
    Audit {
        at: Timestamp::now(),
        who: by.to_owned(),
        action,
    }
}
