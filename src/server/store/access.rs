//! Rows of API tokens, of sessions, and of the audit log. Secrets are kept as SHA-256 only.

use protocol::api::{Role, Token};
use protocol::{Digest, Timestamp};
use sqlx::any::AnyRow;

use super::rows::Columns as _;
use super::{Connection, Result};

/// Most rows of the audit log in one answer.
const AUDIT_PAGE: i64 = 500;

/// One thing that somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// When.
    pub at: Timestamp,
    /// A token's name, or `local`.
    pub who: String,
    /// A verb and what it was done to.
    pub action: String,
}

fn token(row: &AnyRow) -> Result<Token> {
    Ok(Token {
        name: row.text("name")?,
        role: row.word("role")?,
        created_at: row.time("created_at")?,
        last_used_at: row.maybe_time("last_used_at")?,
    })
}

/// Adds a token; false where its name is taken.
pub async fn add_token(db: &mut Connection, entry: &Token, hash: &Digest) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO tokens (name, role, token_hash, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(&entry.name)
    .bind(entry.role.word())
    .bind(hash.as_str())
    .bind(entry.created_at.0)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// All tokens, oldest first.
pub async fn tokens(db: &mut Connection) -> Result<Vec<Token>> {
    let rows = sqlx::query("SELECT * FROM tokens ORDER BY created_at, token_hash")
        .fetch_all(db)
        .await?;
    rows.iter().map(token).collect()
}

/// Whether an administrator's token is set: until then the server answers on loopback only.
pub async fn has_admin(db: &mut Connection) -> Result<bool> {
    let row = sqlx::query("SELECT name FROM tokens WHERE role = 'admin' LIMIT 1")
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

/// The token with this hash.
pub async fn token_by_hash(db: &mut Connection, hash: &Digest) -> Result<Option<Token>> {
    let row = sqlx::query("SELECT * FROM tokens WHERE token_hash = $1")
        .bind(hash.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(token).transpose()
}

/// Notes that a token was used.
pub async fn set_used(db: &mut Connection, name: &str, at: Timestamp) -> Result<()> {
    sqlx::query("UPDATE tokens SET last_used_at = $1 WHERE name = $2")
        .bind(at.0)
        .bind(name)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes a token and its sessions; false where there is none of this name.
pub async fn remove_token(db: &mut Connection, name: &str) -> Result<bool> {
    sqlx::query("DELETE FROM sessions WHERE token = $1")
        .bind(name)
        .execute(&mut *db)
        .await?;
    let done = sqlx::query("DELETE FROM tokens WHERE name = $1")
        .bind(name)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Starts a session, and forgets those that are over.
pub async fn add_session(
    db: &mut Connection,
    hash: &Digest,
    token: &str,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    sqlx::query("DELETE FROM sessions WHERE expires_at <= $1")
        .bind(now.0)
        .execute(&mut *db)
        .await?;
    sqlx::query("INSERT INTO sessions (session_hash, token, expires_at) VALUES ($1, $2, $3)")
        .bind(hash.as_str())
        .bind(token)
        .bind(expires_at.0)
        .execute(db)
        .await?;
    Ok(())
}

/// The token whose session this is, while it lasts.
pub async fn token_of_session(
    db: &mut Connection,
    hash: &Digest,
    now: Timestamp,
) -> Result<Option<Token>> {
    let row = sqlx::query(
        "SELECT tokens.* FROM sessions JOIN tokens ON tokens.name = sessions.token \
         WHERE sessions.session_hash = $1 AND sessions.expires_at > $2",
    )
    .bind(hash.as_str())
    .bind(now.0)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(token).transpose()
}

/// Ends a session.
pub async fn remove_session(db: &mut Connection, hash: &Digest) -> Result<()> {
    sqlx::query("DELETE FROM sessions WHERE session_hash = $1")
        .bind(hash.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Writes down what somebody did.
pub async fn write_audit(db: &mut Connection, entry: &Audit) -> Result<()> {
    sqlx::query("INSERT INTO audit (id, at, who, action) VALUES ($1, $2, $3, $4)")
        .bind(ulid::Ulid::generate().to_string())
        .bind(entry.at.0)
        .bind(&entry.who)
        .bind(&entry.action)
        .execute(db)
        .await?;
    Ok(())
}

/// What was done last, newest first.
pub async fn audit(db: &mut Connection, limit: u32) -> Result<Vec<Audit>> {
    let rows = sqlx::query("SELECT * FROM audit ORDER BY at DESC, id DESC LIMIT $1")
        .bind(i64::from(limit).min(AUDIT_PAGE))
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Audit {
                at: row.time("at")?,
                who: row.text("who")?,
                action: row.text("action")?,
            })
        })
        .collect()
}

/// A token of this name and role, made now.
#[must_use]
pub fn new_token(name: &str, role: Role, now: Timestamp) -> Token {
    Token {
        name: name.to_owned(),
        role,
        created_at: now,
        last_used_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::store::testing::on_both;

    #[tokio::test]
    async fn a_token_lives_from_its_creation_to_its_removal() {
        on_both(|store| async move {
            let secret = Secret::generate("ty");
            let entry = new_token("ana", Role::Admin, Timestamp(1));
            let mut tx = store.begin().await.unwrap();
            assert!(!has_admin(&mut tx).await.unwrap());
            assert!(add_token(&mut tx, &entry, &secret.hash()).await.unwrap());
            assert!(
                !add_token(&mut tx, &entry, &Secret::generate("ty").hash())
                    .await
                    .unwrap()
            );
            assert!(has_admin(&mut tx).await.unwrap());
            set_used(&mut tx, "ana", Timestamp(2)).await.unwrap();
            let found = token_by_hash(&mut tx, &secret.hash())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(
                (found.role, found.last_used_at),
                (Role::Admin, Some(Timestamp(2)))
            );

            let session = Secret::generate("s").hash();
            let (now, end) = (Timestamp(10), Timestamp(20));
            add_session(&mut tx, &session, "ana", now, end)
                .await
                .unwrap();
            assert!(
                token_of_session(&mut tx, &session, Timestamp(19))
                    .await
                    .unwrap()
                    .is_some()
            );
            assert!(
                token_of_session(&mut tx, &session, end)
                    .await
                    .unwrap()
                    .is_none()
            );

            assert!(remove_token(&mut tx, "ana").await.unwrap());
            assert!(!remove_token(&mut tx, "ana").await.unwrap());
            assert!(
                token_of_session(&mut tx, &session, now)
                    .await
                    .unwrap()
                    .is_none()
            );
            assert!(
                token_by_hash(&mut tx, &secret.hash())
                    .await
                    .unwrap()
                    .is_none()
            );
            tx.commit().await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn the_audit_log_is_read_newest_first() {
        on_both(|store| async move {
            let mut tx = store.begin().await.unwrap();
            for at in 1..=3 {
                let action = format!("cancel job {at}");
                let entry = Audit {
                    at: Timestamp(at),
                    who: "ana".to_owned(),
                    action,
                };
                write_audit(&mut tx, &entry).await.unwrap();
            }
            let read = audit(&mut tx, 2).await.unwrap();
            assert_eq!(
                read.iter().map(|entry| entry.at.0).collect::<Vec<_>>(),
                [3, 2]
            );
        })
        .await;
    }
}
