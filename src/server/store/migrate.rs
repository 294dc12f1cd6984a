//! Numbered migrations, embedded in the binary. Each is applied once, in the order of its number; those that a database
//! lacks in one transaction, so that one which fails leaves it as it was. Rooms have ranges of their own: core 0001,
//! fleet 0101, registry and report 0201, access 0301, forges 0401.

use protocol::Timestamp;

use super::rows::Columns as _;
use super::{Address, Connection, Result, Store, StoreError, curves};

/// A migration: its number, a name for people, its text.
pub struct Migration {
    /// Its number; never used twice, never changed after a release.
    pub version: i64,
    /// What it makes.
    pub name: &'static str,
    /// SQL that both databases understand.
    pub sql: &'static str,
    /// What is done after it, in the same transaction.
    pub then: Then,
}

/// What SQL cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It can do all.
    Nothing,
    /// Points of curves are packed.
    PackCurves,
}

/// All migrations, in the order of their numbers.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "core",
        sql: include_str!("migrations/0001_core.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 2,
        name: "indexes",
        sql: include_str!("migrations/0002_indexes.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 3,
        name: "schedule",
        sql: include_str!("migrations/0003_schedule.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 4,
        name: "queue",
        sql: include_str!("migrations/0004_queue.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 101,
        name: "fleet",
        sql: include_str!("migrations/0101_fleet.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 102,
        name: "removed agents",
        sql: include_str!("migrations/0102_removed.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 103,
        name: "GPUs that a host showed",
        sql: include_str!("migrations/0103_shown.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 201,
        name: "registry",
        sql: include_str!("migrations/0201_registry.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 202,
        name: "reports",
        sql: include_str!("migrations/0202_reports.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 203,
        name: "tracking",
        sql: include_str!("migrations/0203_tracking.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 204,
        name: "in a job",
        sql: include_str!("migrations/0204_in_job.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 206,
        name: "lineage",
        sql: include_str!("migrations/0206_lineage.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 209,
        name: "curves",
        sql: include_str!("migrations/0209_curves.sql"),
        then: Then::PackCurves,
    },
    Migration {
        version: 301,
        name: "access",
        sql: include_str!("migrations/0301_access.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 401,
        name: "requests",
        sql: include_str!("migrations/0401_requests.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 402,
        name: "updates",
        sql: include_str!("migrations/0402_updates.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 403,
        name: "notices",
        sql: include_str!("migrations/0403_notices.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 404,
        name: "times of requests",
        sql: include_str!("migrations/0404_request_times.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 406,
        name: "rests",
        sql: include_str!("migrations/0406_rests.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 407,
        name: "commands",
        sql: include_str!("migrations/0407_commands.sql"),
        then: Then::Nothing,
    },
    Migration {
        version: 408,
        name: "comments",
        sql: include_str!("migrations/0408_comments.sql"),
        then: Then::Nothing,
    },
];

/// Applies what is missing.
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::Migration`], or the database's.
pub async fn bring_up_to_date(store: &Store, address: &Address) -> Result<()> {
    apply(store, address, MIGRATIONS).await
}

/// Applies what is missing of `migrations`; a test hands in its own.
///
/// # Errors
/// As [`bring_up_to_date`].
pub async fn apply(store: &Store, address: &Address, migrations: &[Migration]) -> Result<()> {
    let applied = applied(store).await?;
    let known = |version: &i64| migrations.iter().any(|m| m.version == *version);
    if let Some(found) = applied.iter().find(|version| !known(version)) {
        return Err(StoreError::Newer { found: *found });
    }
    let missing: Vec<_> = migrations
        .iter()
        .filter(|m| !applied.contains(&m.version))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if let (Address::Sqlite(path), Some(newest)) = (address, applied.iter().max()) {
        copy_sqlite(store, path, *newest).await?;
    }
    let mut tx = store.begin().await?;
    for migration in missing {
        apply_one(&mut tx, migration)
            .await
            .map_err(|error| StoreError::Migration {
                version: migration.version,
                why: error.to_string(),
            })?;
    }
    tx.commit().await?;
    Ok(())
}

/// Numbers of the migrations that this database has; makes the table that holds them.
async fn applied(store: &Store) -> Result<Vec<i64>> {
    let mut tx = store.begin().await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS migrations \
         (version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    let rows = sqlx::query("SELECT version FROM migrations ORDER BY version")
        .fetch_all(&mut *tx)
        .await?;
    tx.commit().await?;
    rows.iter().map(|row| row.int("version")).collect()
}

async fn apply_one(db: &mut Connection, migration: &Migration) -> Result<()> {
    sqlx::raw_sql(migration.sql).execute(&mut *db).await?;
    match migration.then {
        Then::Nothing => {}
        Then::PackCurves => curves::pack(db).await?,
    }
    sqlx::query("INSERT INTO migrations (version, name, applied_at) VALUES ($1, $2, $3)")
        .bind(migration.version)
        .bind(migration.name)
        .bind(Timestamp::now().0)
        .execute(db)
        .await?;
    Ok(())
}

/// Copies a SQLite database as it is to `<file>.before-<newest>-<time>`. Postgres has its own tools.
async fn copy_sqlite(store: &Store, path: &std::path::Path, newest: i64) -> Result<()> {
    let copy = format!("{}.before-{newest}-{}", path.display(), Timestamp::now().0);
    sqlx::query("VACUUM INTO $1")
        .bind(copy.as_str())
        .execute(&store.writer)
        .await?;
    tracing::info!(copy, "the database was copied before it is changed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::on_both;

    fn migration(version: i64, sql: &'static str) -> Migration {
        Migration {
            version,
            name: "test",
            sql,
            then: Then::Nothing,
        }
    }

    #[test]
    fn numbers_rise_and_are_not_used_twice() {
        assert!(MIGRATIONS.windows(2).all(|w| w[0].version < w[1].version));
    }

    #[tokio::test]
    async fn a_newer_database_is_refused() {
        on_both(|store| async move {
            let address = Address::Postgres(String::new());
            let error = apply(&store, &address, &[]).await.unwrap_err();
            assert!(matches!(error, StoreError::Newer { .. }), "{error}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_failed_migration_leaves_nothing() {
        on_both(|store| async move {
            let address = Address::Postgres(String::new());
            let all = |sql| {
                MIGRATIONS
                    .iter()
                    .map(|m| Migration { ..*m })
                    .chain([migration(9_000, sql)])
                    .collect::<Vec<_>>()
            };
            let bad = all("CREATE TABLE half (a TEXT); CREATE TABLE half (a TEXT);");
            assert!(apply(&store, &address, &bad).await.is_err());
            let good = all("CREATE TABLE half (a TEXT);");
            apply(&store, &address, &good).await.unwrap();
            apply(&store, &address, &good).await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn a_sqlite_file_is_copied_before_it_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Sqlite(folder.path().join("t.db"));
        let store = Store::open(&address).await.unwrap();
        let more: Vec<_> = MIGRATIONS
            .iter()
            .map(|m| Migration { ..*m })
            .chain([migration(9_000, "CREATE TABLE more (a TEXT)")])
            .collect();
        apply(&store, &address, &more).await.unwrap();
        store.close().await;
        let copy = std::fs::read_dir(folder.path())
            .unwrap()
            .filter_map(|entry| entry.ok())
            .find(|entry| entry.file_name().to_string_lossy().contains(".before-"))
            .expect("a copy");
        let copy = Store::open(&Address::Sqlite(copy.path())).await.unwrap();
        let mut reader = copy.read().await.unwrap();
        assert!(
            sqlx::query("SELECT a FROM more")
                .fetch_all(&mut *reader)
                .await
                .is_err()
        );
    }
}
