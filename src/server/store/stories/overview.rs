//! Stories of what pages of runs read, on both databases.

use protocol::Timestamp;

use crate::store::metrics::{self, Point};
use crate::store::overview::{self, Named};
use crate::store::rows::Columns as _;
use crate::store::runs::{self, Run, RunStatus};
use crate::store::search::Piece;
use crate::store::testing::on_both;
use crate::store::{Address, Connection, Store, experiments};

async fn begin(db: &mut Connection, number: i64, experiment: i64) -> String {
    let run = Run {
        id: format!("{number:032x}"),
        experiment,
        name: format!("run-{number}"),
        person: String::new(),
        status: RunStatus::Running,
        started_at: Timestamp(number),
        finished_at: None,
        deleted_at: None,
        attempt: None,
    };
    assert!(runs::insert(db, &run).await.unwrap());
    run.id
}

fn point(name: &str, value: f64, at: i64, step: i64) -> Point {
    Point {
        name: name.to_owned(),
        value,
        at,
        step,
    }
}

#[tokio::test]
async fn a_list_of_experiments_counts_their_runs() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let at = Timestamp(5);
        let quiet = experiments::insert(&mut tx, "quiet", at)
            .await
            .unwrap()
            .unwrap();
        let busy = experiments::insert(&mut tx, "Busy_one", at)
            .await
            .unwrap()
            .unwrap();
        for number in 1..=3 {
            begin(&mut tx, number * 10, busy).await;
        }
        begin(&mut tx, 7, quiet).await;
        let all = Piece {
            offset: 0,
            limit: 10,
        };
        let found = overview::experiments(&mut tx, false, "", all)
            .await
            .unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|one| (one.experiment.name.as_str(), one.runs, one.last_run))
            .collect();
        assert_eq!(
            told,
            [
                ("Busy_one", 3, Some(Timestamp(30))),
                ("quiet", 1, Some(Timestamp(7))),
                ("Default", 0, None),
            ]
        );
        for (name, count) in [("busy_", 1), ("y_o", 1), ("y%o", 0), ("\\", 0), ("U", 3)] {
            let found = overview::experiments(&mut tx, false, name, all)
                .await
                .unwrap();
            assert_eq!(found.len(), count, "{name}");
        }
        let second = Piece {
            offset: 1,
            limit: 1,
        };
        let found = overview::experiments(&mut tx, false, "", second)
            .await
            .unwrap();
        assert_eq!(found[0].experiment.id, quiet);
        experiments::set_deleted(&mut tx, busy, true, at)
            .await
            .unwrap();
        let found = overview::experiments(&mut tx, true, "", all).await.unwrap();
        assert_eq!((found.len(), found[0].runs), (1, 3));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_page_reads_what_was_chosen_of_its_runs() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (a, b) = (begin(&mut tx, 1, 0).await, begin(&mut tx, 2, 0).await);
        for (run, names) in [
            (&a, ["x", "y", "z"].as_slice()),
            (&b, ["z", "y"].as_slice()),
        ] {
            let points: Vec<Point> = names.iter().map(|name| point(name, 1.5, 1, 1)).collect();
            metrics::log(&mut tx, run, &points).await.unwrap();
        }
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        runs::set_tags(
            &mut tx,
            &b,
            &[pair("mlflow.parentRunId", &a), pair("t", "1")],
        )
        .await
        .unwrap();
        let both = [a.clone(), b.clone()];
        let names = overview::names(&mut tx, Named::Metrics, &both, 10)
            .await
            .unwrap();
        assert_eq!(names, ["y", "z", "x"]);
        let some = overview::names(&mut tx, Named::Metrics, &both, 1)
            .await
            .unwrap();
        assert_eq!(some, ["y"]);
        let chosen = ["x".to_owned(), "z".to_owned()];
        let values = overview::metrics(&mut tx, &both, &chosen).await.unwrap();
        assert_eq!(values.len(), 3);
        assert_eq!(values[&pair(&a, "x")], 1.5);
        let tags = overview::texts(&mut tx, Named::Tags, &both, &["t".to_owned()])
            .await
            .unwrap();
        assert_eq!(tags[&pair(&b, "t")], "1");
        let nested = overview::nested(&mut tx, &a, 10).await.unwrap();
        assert_eq!(nested.iter().map(|run| &run.id).collect::<Vec<_>>(), [&b]);
        assert!(overview::nested(&mut tx, &b, 10).await.unwrap().is_empty());
        // Whatever a client names as a parent is kept.
        let long = "x".repeat(8_000);
        runs::set_tags(&mut tx, &b, &[pair("mlflow.parentRunId", &long)])
            .await
            .unwrap();
        let backwards = [b.clone(), "none".to_owned(), a.clone()];
        let found = overview::runs(&mut tx, &backwards).await.unwrap();
        assert_eq!(
            found.iter().map(|run| &run.id).collect::<Vec<_>>(),
            [&b, &a]
        );
        tx.commit().await.unwrap();
    })
    .await;
}

/// How SQLite would carry out a statement of so many values.
async fn plan(db: &mut Connection, sql: &str, values: usize) -> Vec<String> {
    let sql = format!("EXPLAIN QUERY PLAN {sql}");
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for _ in 0..values {
        query = query.bind(1_i64);
    }
    let rows = query.fetch_all(db).await.unwrap();
    rows.iter().map(|row| row.text("detail").unwrap()).collect()
}

#[tokio::test]
async fn no_page_reads_a_table_from_end_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Sqlite(folder.path().join("trainyard.db"));
    let store = Store::open(&address).await.unwrap();
    let mut db = store.read().await.unwrap();
    let chosen = |what, columns| overview::chosen_sql(what, columns, 100, 7);
    for (sql, values) in [
        (chosen(Named::Metrics, "value, word"), 107),
        (chosen(Named::Params, "value"), 107),
        (chosen(Named::Tags, "value"), 107),
        (overview::nested_sql(100), 1),
    ] {
        let steps = plan(&mut db, &sql, values).await;
        let found = |step: &String| step.starts_with("SEARCH");
        assert!(steps.iter().any(found), "{sql}\n{steps:#?}");
        let scans = |step: &String| step.starts_with("SCAN");
        assert!(!steps.iter().any(scans), "{sql}\n{steps:#?}");
    }
}
