//! Upgrades of what an earlier version wrote.

use protocol::Timestamp;

use super::seed;
use crate::store::migrate::{self, MIGRATIONS, Migration};
use crate::store::projects::{self, Delivery};
use crate::store::testing::{self, on_both_addresses};
use crate::store::{
    Address, Store, agents, attempts, experiments, files, metrics, models, runs, versions,
};

/// What an earlier version wrote; `ATTEMPT`, `JOB` and `PROJECT` stand for ids.
const BEFORE: &str = "
    INSERT INTO runs (id, attempt, job, project, name, status, lineage, goals, started_at, finished_at)
        VALUES ('0123456789abcdef0123456789abcdef', 'ATTEMPT', 'JOB', 'PROJECT', 'train', 'FINISHED', '{}', '{}', 1000, 9000);
    INSERT INTO run_metrics (run, name, value, word, step) VALUES
        ('0123456789abcdef0123456789abcdef', 'acc', 0.5, NULL, 3),
        ('0123456789abcdef0123456789abcdef', 'nan', 0, 'NaN', 0),
        ('0123456789abcdef0123456789abcdef', 'low', 0, '-Infinity', 0);
    INSERT INTO run_params (run, name, value) VALUES ('0123456789abcdef0123456789abcdef', 'lr', '0.1');
    INSERT INTO run_tags (run, name, value) VALUES ('0123456789abcdef0123456789abcdef', 'a', 'b');
    INSERT INTO baselines (job, project, name, run) VALUES ('JOB', 'PROJECT', 'train', '0123456789abcdef0123456789abcdef');
    INSERT INTO blobs (digest, size, created_at) VALUES ('DIGEST', 7, 1);
    INSERT INTO artifacts (attempt, role, path, digest, size) VALUES
        ('ATTEMPT', 'model', 'a.bin', 'DIGEST', 7), ('ATTEMPT', 'notebook', 'train.ipynb', 'DIGEST', 7),
        ('ATTEMPT', 'output', 'cell-1', 'DIGEST', 7);
    INSERT INTO models (name, project, created_at) VALUES ('digits', 'PROJECT', 5);
    INSERT INTO model_versions (id, model, version, run, created_at)
        VALUES ('v-1', 'digits', 1, '0123456789abcdef0123456789abcdef', 6);
    INSERT INTO model_files (version, path, digest, size) VALUES ('v-1', 'a.bin', 'DIGEST', 7);
    INSERT INTO aliases (model, alias, version) VALUES ('digits', 'champion', 1);
    INSERT INTO alias_changes (model, number, alias, version, who, why, at)
        VALUES ('digits', 1, 'champion', 1, 'ana', 'first', 7);
";

/// The migrations but those of the registry's room from this one on.
fn before(version: i64) -> Vec<Migration> {
    let earlier = |m: &&Migration| !(version..300).contains(&m.version);
    let copy = |m: &Migration| Migration { ..*m };
    MIGRATIONS.iter().filter(earlier).map(copy).collect()
}

async fn open(address: &Address) -> Store {
    sqlx::any::install_default_drivers();
    let store = match address {
        Address::Sqlite(path) => Store::open_sqlite(path).await,
        Address::Postgres(url) => Store::open_postgres(url).await,
    };
    store.unwrap()
}

#[tokio::test]
async fn what_an_earlier_version_kept_is_all_there() {
    on_both_addresses(|address| async move {
        let store = open(&address).await;
        migrate::apply(&store, &address, &before(203))
            .await
            .unwrap();
        let mut tx = store.begin().await.unwrap();
        let (project, _, job) = seed(&mut tx).await;
        let agent = agents::register(&mut tx, &testing::agent("gpu-1"))
            .await
            .unwrap();
        let attempt = testing::attempt(&project, &job, &agent, 1, &[]);
        attempts::insert(&mut tx, &attempt).await.unwrap();
        let sql = BEFORE
            .replace("ATTEMPT", attempt.id.as_str())
            .replace("JOB", job.id.as_str())
            .replace("PROJECT", project.id.as_str())
            .replace("DIGEST", protocol::Digest::of("x").as_str());
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();

        migrate::bring_up_to_date(&store, &address).await.unwrap();
        migrate::bring_up_to_date(&store, &address).await.unwrap();
        let mut db = store.read().await.unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        let run = runs::find(&mut db, id).await.unwrap().unwrap();
        assert!(run.attempt.is_some());
        assert_eq!(run.finished_at, Some(Timestamp(9_000)));
        let home = experiments::find(&mut db, run.experiment).await.unwrap();
        assert_eq!(home.unwrap().name, "digits/train");
        let full = runs::fill(&mut db, vec![run]).await.unwrap().remove(0);
        let seen: Vec<_> = full.metrics.iter().map(|m| (&*m.name, m.value)).collect();
        assert_eq!(seen[..2], [("acc", 0.5), ("low", f64::NEG_INFINITY)]);
        assert!(seen[2].1.is_nan());
        assert_eq!(full.params, [("lr".to_owned(), "0.1".to_owned())]);
        assert_eq!(full.tags, [("a".to_owned(), "b".to_owned())]);
        let curve = metrics::history(&mut db, id, "acc", None, 10)
            .await
            .unwrap();
        assert_eq!((curve.len(), curve[0].step, curve[0].at), (1, 3, 9_000));
        let kept = files::below(&mut db, id, "", 10).await.unwrap();
        let paths: Vec<_> = kept.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["model/a.bin", "train.ipynb"]);
        let version = versions::find(&mut db, "digits", 1).await.unwrap().unwrap();
        assert_eq!(version.run.unwrap().0, id);
        assert_eq!(models::aliases(&mut db, "digits").await.unwrap().len(), 1);
        let left = models::by_run(&mut db, id).await.unwrap().unwrap();
        assert_eq!(left.origin.unwrap().attempt, attempt.id);
        drop(db);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn points_of_curves_are_packed() {
    on_both_addresses(|address| async move {
        let store = open(&address).await;
        migrate::apply(&store, &address, &before(209)).await.unwrap();
        let run = "0123456789abcdef0123456789abcdef";
        let mut tx = store.begin().await.unwrap();
        let sql = format!(
            "INSERT INTO runs (id, experiment, name, person, status, started_at) VALUES ('{run}', 0, 'r', '', 'RUNNING', 1);
             INSERT INTO run_metrics (id, run, name, value, word, step, at) VALUES
                (1, '{run}', 'loss', 0, 'NaN', 10199, 10199), (2, '{run}', 'one', 0.1, '', 3, 4);
             INSERT INTO metric_points (metric, at, step, value, word) VALUES (2, 4, 3, 0.1, ''), (1, 10199, 10199, 0, 'NaN')"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
        for number in 0..10_199_i64 {
            sqlx::query("INSERT INTO metric_points (metric, at, step, value, word) VALUES (1, $1, $1, 0.3, '')")
                .bind(number)
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();

        migrate::bring_up_to_date(&store, &address).await.unwrap();
        let mut db = store.read().await.unwrap();
        let curve = metrics::history(&mut db, run, "loss", None, 25_000).await.unwrap();
        assert_eq!(curve.len(), 10_200);
        let steps = curve.iter().map(|point| (point.at, point.step));
        assert!(steps.eq((0..10_200).map(|n| (n, n))));
        assert!(curve[..10_199].iter().all(|point| point.value.to_bits() == 0.3_f64.to_bits()));
        assert!(curve[10_199].value.is_nan());
        let curve = metrics::history(&mut db, run, "one", None, 25_000).await.unwrap();
        assert_eq!((curve.len(), curve[0].value, curve[0].step, curve[0].at), (1, 0.1, 3, 4));
        drop(db);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_comment_that_was_told_of_before_is_known_by_its_number() {
    on_both_addresses(|address| async move {
        let store = open(&address).await;
        let earlier = MIGRATIONS.iter().filter(|m| m.version < 408);
        let earlier: Vec<_> = earlier.map(|m| Migration { ..*m }).collect();
        migrate::apply(&store, &address, &earlier).await.unwrap();
        let project = testing::project("digits");
        let mut tx = store.begin().await.unwrap();
        projects::insert(&mut tx, &project).await.unwrap();
        let sql = "INSERT INTO deliveries (project, delivery, event, asks, received_at, body) VALUES
            ('PROJECT', 'a', 'issue_comment', 1, 5, '{\"event\":\"comment\",\"number\":12,\"id\":3000000007,\"by\":\"9\",\"text\":\"/trainyard retry\"}'),
            ('PROJECT', 'b', 'check_run', 1, 6, '{\"event\":\"asked\",\"commit\":\"12\"}'),
            ('PROJECT', 'c', 'push', 0, 7, '{\"event\":\"push\",\"reference\":\"refs/heads/7\"}')";
        let sql = sql.replace("PROJECT", project.id.as_str());
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();

        migrate::bring_up_to_date(&store, &address).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        let now = Timestamp(8);
        let asked = projects::asked(&mut tx, now, 9).await.unwrap();
        let known: Vec<_> = asked.iter().map(|row| row.comment).collect();
        assert_eq!(known, [Some(3_000_000_007), None]);
        let listed = Delivery {
            delivery: "comment 3000000007".to_owned(),
            ..asked[0].clone()
        };
        let new = projects::insert_delivery(&mut tx, &listed).await.unwrap();
        assert!(!new, "it would be obeyed again");
        drop(tx);
        store.close().await;
    })
    .await;
}
