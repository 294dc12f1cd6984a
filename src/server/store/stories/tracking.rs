//! Stories of what clients log, on both databases.

use protocol::Timestamp;

use crate::store::metrics::{self, Point};
use crate::store::runs::{self, Run, RunStatus};
use crate::store::search::{
    self, Condition, ExperimentField, Op, Order, Piece, RunField, Test, Value, View,
};
use crate::store::testing::on_both;
use crate::store::{Connection, experiments};

const ALL: Piece = Piece {
    offset: 0,
    limit: 1_000,
};

async fn begin(db: &mut Connection, number: i64) -> String {
    let run = Run {
        id: format!("{number:032x}"),
        experiment: 0,
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

/// As it can be compared: a NaN is not equal to itself.
fn shown(points: &[Point]) -> Vec<String> {
    points
        .iter()
        .map(|p| format!("{}@{}/{}", p.value, p.at, p.step))
        .collect()
}

#[tokio::test]
async fn a_curve_keeps_each_point_once_and_is_read_in_pages() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let run = begin(&mut tx, 1).await;
        let mut points = vec![
            point("loss", f64::NAN, 3, 3),
            point("loss", f64::INFINITY, 2, 2),
            point("loss", f64::NEG_INFINITY, 2, 2),
            point("loss", 0.5, 1, 1),
            point("other", 7.0, 1, 1),
        ];
        points.push(points[0].clone());
        for _ in 0..2 {
            metrics::log(&mut tx, &run, &points).await.unwrap();
        }
        let all = metrics::history(&mut tx, &run, "loss", None, 100)
            .await
            .unwrap();
        assert_eq!(shown(&all), ["0.5@1/1", "-inf@2/2", "inf@2/2", "NaN@3/3"]);
        let mut pages = Vec::new();
        let mut after: Option<Point> = None;
        loop {
            let page = metrics::history(&mut tx, &run, "loss", after.as_ref(), 1).await;
            let page = page.unwrap();
            let Some(last) = page.last() else { break };
            pages.extend(shown(&page));
            after = Some(last.clone());
        }
        assert_eq!(pages, shown(&all));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_curve_is_the_same_in_whatever_order_its_points_come() {
    on_both(|store| async move {
        let all: Vec<Point> = (0..1_000)
            .map(|n| {
                point(
                    "m",
                    f64::from(n).sin() - 0.5,
                    i64::from(n / 3) - 100,
                    i64::from(n % 3),
                )
            })
            .collect();
        // Forwards, backwards, and by a step that shares no factor with their number; alone and many at once.
        let forwards: Vec<usize> = (0..1_000).collect();
        let backwards: Vec<usize> = (0..1_000).rev().collect();
        let mixed: Vec<usize> = (0..1_000).map(|n| n * 387 % 1_000).collect();
        let mut tx = store.begin().await.unwrap();
        for (number, (order, at_once)) in (1..).zip([
            (&forwards, 1_000),
            (&forwards, 7),
            (&backwards, 1),
            (&mixed, 1),
            (&mixed, 90),
        ]) {
            let run = begin(&mut tx, number).await;
            for piece in order.chunks(at_once) {
                let points: Vec<Point> = piece.iter().map(|n| all[*n].clone()).collect();
                metrics::log(&mut tx, &run, &points).await.unwrap();
            }
            // What is there already changes nothing.
            metrics::log(&mut tx, &run, &all[300..700]).await.unwrap();
            let curve = metrics::history(&mut tx, &run, "m", None, 25_000)
                .await
                .unwrap();
            assert_eq!(curve, all, "{at_once} at once");
            let after = metrics::history(&mut tx, &run, "m", Some(&all[499]), 100)
                .await
                .unwrap();
            assert_eq!(after, all[500..600]);
        }
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_last_value_is_of_the_highest_step_then_time_then_value() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let run = begin(&mut tx, 1).await;
        for (given, last) in [
            (point("m", 1.0, 5, 1), 1.0),
            (point("m", 9.0, 9, 0), 1.0),
            (point("m", 2.0, 6, 1), 2.0),
            (point("m", 1.5, 6, 1), 2.0),
            (point("m", 3.0, 6, 1), 3.0),
            (point("m", f64::INFINITY, 6, 1), f64::INFINITY),
            (point("m", -1.0, 0, 2), -1.0),
        ] {
            metrics::log(&mut tx, &run, &[given]).await.unwrap();
            let read = metrics::last(&mut tx, std::slice::from_ref(&run))
                .await
                .unwrap();
            assert_eq!(read[&run][0].value, last);
        }
        let many: Vec<Point> = (0..2_500).map(|n| point("many", 0.0, n, n)).collect();
        metrics::log(&mut tx, &run, &many).await.unwrap();
        let read = metrics::last(&mut tx, std::slice::from_ref(&run))
            .await
            .unwrap();
        assert_eq!(read[&run][1].step, 2_499);
    })
    .await;
}

#[tokio::test]
async fn a_param_does_not_change_and_a_conflict_adds_nothing() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let run = begin(&mut tx, 1).await;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let first = [pair("a", "1")];
        assert_eq!(runs::add_params(&mut tx, &run, &first).await.unwrap(), None);
        assert_eq!(runs::add_params(&mut tx, &run, &first).await.unwrap(), None);
        // More than one statement takes.
        let mut both: Vec<_> = (0..120).map(|n| pair(&format!("b{n}"), "1")).collect();
        both.push(pair("a", "2"));
        both.push(pair("z", "1"));
        let conflict = runs::add_params(&mut tx, &run, &both).await.unwrap();
        assert_eq!(conflict.unwrap().before, "1");
        tx.commit().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        let found = runs::find(&mut tx, &run).await.unwrap().unwrap();
        let full = runs::fill(&mut tx, vec![found]).await.unwrap();
        assert_eq!(full[0].params, first);
    })
    .await;
}

async fn found(
    db: &mut Connection,
    conditions: &[Condition<RunField>],
    orders: &[Order<RunField>],
) -> Vec<i64> {
    let runs = search::runs(db, &[0], View::Active, conditions, orders, ALL)
        .await
        .unwrap();
    runs.iter().map(|run| run.started_at.0).collect()
}

fn text_is(field: RunField, text: &str) -> Condition<RunField> {
    Condition {
        field,
        test: Test::Is(Op::Equal, Value::Text(text.to_owned())),
    }
}

#[tokio::test]
async fn both_databases_find_and_sort_alike() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let values = [
            Some(0.5),
            Some(f64::NAN),
            None,
            Some(f64::INFINITY),
            Some(-2.0),
            Some(f64::NEG_INFINITY),
        ];
        for (number, value) in (1..).zip(values) {
            let run = begin(&mut tx, number).await;
            if let Some(value) = value {
                let points = [point("m", value, 1, 1)];
                metrics::log(&mut tx, &run, &points).await.unwrap();
            }
            let word = ["a", "B", "Ä", "a%b", "_", "a\\b"][usize::try_from(number - 1).unwrap()];
            let tags = [("word".to_owned(), word.to_owned())];
            runs::set_tags(&mut tx, &run, &tags).await.unwrap();
        }
        let metric = || RunField::Metric("m".to_owned());
        let word = || RunField::Tag("word".to_owned());
        let by = |field, descending| [Order { field, descending }];
        assert_eq!(
            found(&mut tx, &[], &by(metric(), false)).await,
            [6, 5, 1, 4, 2, 3]
        );
        assert_eq!(
            found(&mut tx, &[], &by(metric(), true)).await,
            [4, 1, 5, 6, 2, 3]
        );
        // By bytes: upper before lower case, and what is not ASCII last.
        assert_eq!(
            found(&mut tx, &[], &by(word(), false)).await,
            [2, 5, 1, 4, 6, 3]
        );
        let compare = |op, value| Condition {
            field: metric(),
            test: Test::Is(op, Value::Float(value)),
        };
        let order = by(RunField::StartedAt, false);
        for (condition, expected) in [
            (compare(Op::Greater, 0.0), vec![1, 4]),
            (compare(Op::Equal, 0.0), vec![]),
            (compare(Op::NotEqual, 0.5), vec![2, 4, 5, 6]),
            (compare(Op::Less, 0.0), vec![5, 6]),
        ] {
            assert_eq!(found(&mut tx, &[condition], &order).await, expected);
        }
        let like = |pattern: &str, any_case| Condition {
            field: word(),
            test: Test::Like {
                pattern: pattern.to_owned(),
                any_case,
            },
        };
        for (condition, expected) in [
            (like("a%", false), vec![1, 4, 6]),
            (like("A%", false), vec![]),
            (like("A%", true), vec![1, 4, 6]),
            (like("b", true), vec![2]),
            (like("a\\b", false), vec![6]),
            (like("_", false), vec![1, 2, 3, 5]),
            (text_is(word(), "a%b"), vec![4]),
        ] {
            assert_eq!(found(&mut tx, &[condition], &order).await, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_asked_for_is_bound_and_never_run() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        begin(&mut tx, 1).await;
        let evil = "x'; DROP TABLE runs; --";
        for field in [
            RunField::Metric(evil.to_owned()),
            RunField::Param(evil.to_owned()),
            RunField::Tag(evil.to_owned()),
        ] {
            let order = [Order {
                field: field.clone(),
                descending: true,
            }];
            assert_eq!(found(&mut tx, &[], &order).await, [1]);
        }
        assert!(
            found(&mut tx, &[text_is(RunField::Name, evil)], &[])
                .await
                .is_empty()
        );
        assert_eq!(found(&mut tx, &[], &[]).await, [1], "the table is there");
    })
    .await;
}

#[tokio::test]
async fn an_experiment_goes_and_comes_back_with_its_runs() {
    on_both(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let made = experiments::insert(&mut tx, "digits", Timestamp(5))
            .await
            .unwrap();
        assert_eq!(made, Some(1));
        let twice = experiments::insert(&mut tx, "digits", Timestamp(5))
            .await
            .unwrap();
        assert_eq!(twice, None);
        begin(&mut tx, 1).await;
        experiments::set_deleted(&mut tx, 0, true, Timestamp(9))
            .await
            .unwrap();
        assert!(found(&mut tx, &[], &[]).await.is_empty());
        experiments::set_deleted(&mut tx, 0, false, Timestamp(9))
            .await
            .unwrap();
        assert_eq!(found(&mut tx, &[], &[]).await, [1]);
        let order = [Order {
            field: ExperimentField::Name,
            descending: true,
        }];
        let all = search::experiments(&mut tx, View::All, &[], &order, ALL)
            .await
            .unwrap();
        let names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["digits", "Default"]);
    })
    .await;
}
