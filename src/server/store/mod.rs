//! The store: the only SQL. One text of each statement serves SQLite and Postgres; every statement is
//! a named function with a sentence. It knows rows and the job's moves, not why anybody makes them.
//!
//! Reads go through [`Store::read`], writes through [`Store::begin`]. There is one writer at a time on
//! both databases, so that what a transaction has read still holds when it writes. Statements stay
//! within what both understand: TEXT, BIGINT, DOUBLE PRECISION, `$1`; sums are cast. Text is sorted in Rust, or by
//! `COLLATE "binary"`, which both know; `LIKE` tells case on both.

pub mod access;
pub mod agents;
pub mod attempts;
pub mod blobs;
pub mod checkpoints;
mod curves;
pub mod datasets;
pub mod diffs;
pub mod events;
pub mod experiments;
pub mod files;
pub mod job_calls;
pub mod jobs;
pub mod logged_models;
pub mod metrics;
pub mod migrate;
pub mod models;
pub mod notices;
pub mod overview;
pub mod parents;
pub mod pipelines;
pub mod projects;
pub mod queue;
pub mod registry;
pub mod report;
pub mod requests;
pub mod rests;
pub mod retention;
pub mod rows;
pub mod runs;
pub mod search;
#[cfg(test)]
mod stories;
mod tags;
pub mod testing;
pub mod usage;
pub mod versions;
pub mod waiting;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use protocol::job::IllegalMove;
use sqlx::any::AnyPoolOptions;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool, Connection as _};

/// One connection; functions of the store take it, be it inside a transaction or not.
pub type Connection = sqlx::AnyConnection;
/// A write transaction; rolled back when it is dropped without a commit.
pub type Transaction = sqlx::Transaction<'static, Any>;
/// What the functions of the store give.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Readers beside the writer.
const READERS: u32 = 8;
/// How long a caller waits for a connection before it gets an error.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// What can go wrong between a caller and its rows.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database answered with an error, or not at all.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A row holds what this version cannot read.
    #[error("column '{column}' cannot be read: {why}")]
    Unreadable {
        /// The column.
        column: String,
        /// The parser's words.
        why: String,
    },
    /// The database was written by a newer version.
    #[error(
        "the database has migration {found}, which this version does not know: it was written by a \
         newer trainyard; start that version, or restore a backup made before the upgrade"
    )]
    Newer {
        /// The unknown migration.
        found: i64,
    },
    /// A migration failed; nothing of it was kept.
    #[error("migration {version} failed: {why}")]
    Migration {
        /// Its number.
        version: i64,
        /// The database's words.
        why: String,
    },
    /// Somebody else wrote the job in between: read it again.
    #[error("job {0} was changed by somebody else")]
    Changed(protocol::JobId),
    /// The job does not know this move.
    #[error(transparent)]
    Illegal(#[from] IllegalMove),
    /// There is no such row.
    #[error("there is no {0}")]
    Missing(String),
    /// The address names a database that is not supported, or a folder that cannot be made.
    #[error("database address '{address}': {why}")]
    Address {
        /// Without a password.
        address: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Where the rows are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A SQLite file, made where it is missing.
    Sqlite(PathBuf),
    /// `postgres://…`
    Postgres(String),
}

impl std::str::FromStr for Address {
    type Err = StoreError;

    /// Reads `postgres://…` or the path of a SQLite file (`sqlite:` may stand before it).
    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        let path = text.strip_prefix("sqlite:").unwrap_or(text);
        if path.contains("://") || path.is_empty() {
            return Err(StoreError::Address {
                address: text.split('@').next_back().unwrap_or_default().to_owned(),
                why: "expected postgres://… or the path of a SQLite file".to_owned(),
            });
        }
        Ok(Self::Sqlite(path.trim_start_matches("//").into()))
    }
}

/// The open store. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Store {
    readers: AnyPool,
    writer: AnyPool,
    begin: &'static str,
    /// What makes a transaction the only one, where the database's own `begin` does not.
    lock: Option<&'static str>,
}

/// One writer at a time, whichever program it is: `trainyard gc` runs beside the server. The number is ours alone; another
/// schema is another installation. As text: the drivers' common ground has no void.
const LOCK: &str = "SELECT CAST(pg_advisory_xact_lock(7275741, hashtext(COALESCE(current_schema(), ''))) AS TEXT) AS held";

impl Store {
    /// Opens the database, makes it where it is missing, and brings it to this version. A SQLite file
    /// is copied beside itself before it is changed.
    ///
    /// # Errors
    /// Where it cannot be reached, or was written by a newer version.
    pub async fn open(address: &Address) -> Result<Self> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let store = match address {
            Address::Sqlite(path) => Self::open_sqlite(path).await?,
            Address::Postgres(url) => Self::open_postgres(url).await?,
        };
        migrate::bring_up_to_date(&store, address).await?;
        Ok(store)
    }

    async fn open_sqlite(path: &Path) -> Result<Self> {
        let wrong = |why: String| StoreError::Address {
            address: path.display().to_string(),
            why,
        };
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| wrong(error.to_string()))?;
        }
        let text = path.to_str().ok_or_else(|| wrong("not UTF-8".to_owned()))?;
        let url = format!("sqlite://{}?mode=rwc", encode_path(text));
        // FULL: an acknowledged event survives a power cut.
        let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                        PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 10000; \
                        PRAGMA case_sensitive_like = ON;";
        let writer =
            pool(1, settings).after_release(|connection, _| Box::pin(is_whole(connection)));
        let writer = writer.connect(&url).await?;
        // Mapped: a reader forgets its own pages whenever somebody writes, and need not copy these again.
        let readers = pool(
            READERS,
            "PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 10000; PRAGMA query_only = ON; \
             PRAGMA case_sensitive_like = ON; PRAGMA mmap_size = 268435456;",
        );
        Ok(Self {
            readers: readers.connect(&url).await?,
            writer,
            begin: "BEGIN IMMEDIATE",
            lock: None,
        })
    }

    async fn open_postgres(url: &str) -> Result<Self> {
        let settings = "SET idle_in_transaction_session_timeout = '60s'; SET lock_timeout = '30s'; \
                        SET timezone = 'UTC';";
        let writer = pool(1, settings).connect(url).await?;
        // SQLite has it by this name.
        sqlx::raw_sql("CREATE COLLATION IF NOT EXISTS \"binary\" FROM \"C\"")
            .execute(&writer)
            .await?;
        Ok(Self {
            readers: pool(READERS, settings).connect(url).await?,
            writer,
            begin: "BEGIN",
            lock: Some(LOCK),
        })
    }

    /// A connection to read with.
    ///
    /// # Errors
    /// Where none is free within half a minute, or the database is away.
    pub async fn read(&self) -> Result<PoolConnection<Any>> {
        Ok(self.readers.acquire().await?)
    }

    /// A write transaction. Only one is open at a time: keep it short, and wait for nothing else in it.
    ///
    /// # Errors
    /// Where it cannot begin within half a minute, or the database is away.
    pub async fn begin(&self) -> Result<Transaction> {
        let (writer, begin, lock) = (self.writer.clone(), self.begin, self.lock);
        // In a task of its own, so that it comes to its end also where its caller is gone: SQLite's driver may end a
        // connection that nobody waits for, and its pool would wait for that connection for ever.
        let beginning = async move {
            let mut tx = writer.begin_with(begin).await?;
            if let Some(lock) = lock {
                sqlx::query(lock).execute(&mut *tx).await?;
            }
            Ok::<_, sqlx::Error>(tx)
        };
        match tokio::spawn(beginning).await {
            Ok(begun) => Ok(begun?),
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(sqlx::Error::PoolClosed.into()),
            },
        }
    }

    /// Ends all connections; unfinished transactions are rolled back.
    pub async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }
}

/// Keeps what a transaction wrote.
///
/// # Errors
/// Where the database does not confirm it: nothing is then known to be kept.
pub async fn commit(tx: Transaction) -> Result<()> {
    Ok(tx.commit().await?)
}

fn pool(size: u32, settings: &'static str) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(settings).execute(connection).await?;
                Ok(())
            })
        })
}

/// Whether a connection that comes back may be given again. SQLite ends a transaction by itself where its disk is full; its
/// driver does not know that, and would begin none on this connection any more.
async fn is_whole(connection: &mut Connection) -> sqlx::Result<bool> {
    if connection.is_in_transaction() {
        // A roll-back that was asked for is done then.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

/// Encodes what would end the path in a URL.
fn encode_path(path: &str) -> String {
    path.replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23")
        .replace(' ', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for a transaction, and goes away after so many turns of the others.
    async fn ask(store: Store, turns: usize) {
        let patience = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = store.begin() => {}
            () = patience => {}
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_transaction_that_the_database_ended_costs_no_connection() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Sqlite(folder.path().join("t.db"));
        let store = Store::open(&address).await.unwrap();
        for round in 0..100 {
            let mut tx = store.begin().await.unwrap();
            // As SQLite does by itself where its disk is full.
            sqlx::raw_sql("ROLLBACK").execute(&mut *tx).await.unwrap();
            drop(tx);
            let asks: Vec<_> = (0..8)
                .map(|turns| tokio::spawn(ask(store.clone(), turns * round)))
                .collect();
            for ask in asks {
                ask.await.unwrap();
            }
        }
        let begun = tokio::time::timeout(ACQUIRE_TIMEOUT / 2, store.begin()).await;
        begun.expect("there is a connection").unwrap();
    }

    #[test]
    fn addresses_as_people_write_them() {
        assert_eq!(
            "data/x.db".parse::<Address>().unwrap(),
            Address::Sqlite("data/x.db".into())
        );
        assert!(matches!(
            "postgres://u@h/d".parse::<Address>(),
            Ok(Address::Postgres(_))
        ));
        let error = "mysql://u:geheim@h/d".parse::<Address>().unwrap_err();
        assert!(!error.to_string().contains("geheim"), "{error}");
    }
}
