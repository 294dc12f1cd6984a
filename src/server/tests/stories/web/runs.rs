//! Experiments and runs as people see them: lists, tables, curves, several side by side.

use std::future::Future;

use protocol::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};
use server::store::runs::{self, Run, RunStatus};

use super::site::EVIL;
use crate::mlflow::Mlflow;
use crate::support::{Times, World, on_both};

/// A server with a client of MLflow's, and a browser without scripts.
struct Room {
    world: World,
    mlflow: Mlflow,
    http: reqwest::Client,
}

async fn rooms<F, Fut>(story: F)
where
    F: Fn(Room) -> Fut,
    Fut: Future<Output = ()>,
{
    on_both(Times::default(), |world| {
        let room = Room {
            mlflow: Mlflow::of(&world),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            world,
        };
        story(room)
    })
    .await;
}

impl Room {
    /// A page with its status.
    async fn look(&self, path: &str) -> (StatusCode, String) {
        let url = format!("{}{path}", self.world.url);
        let answer = self.http.get(url).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn page(&self, path: &str) -> String {
        let (status, html) = self.look(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {html}");
        html
    }

    async fn experiment(&self, name: &str) -> String {
        let made = self
            .mlflow
            .done("experiments/create", json!({"name": name}))
            .await;
        made["experiment_id"].as_str().unwrap().to_owned()
    }

    /// A run that began at `at`, with what a batch logs; gives its id.
    async fn run(&self, experiment: &str, name: &str, at: i64, batch: Value) -> String {
        let ask = json!({"experiment_id": experiment, "start_time": at, "run_name": name});
        let made = self.mlflow.done("runs/create", ask).await;
        let id = made["run"]["info"]["run_id"].as_str().unwrap().to_owned();
        let mut batch = batch;
        batch["run_id"] = json!(id);
        self.mlflow.done("runs/log-batch", batch).await;
        id
    }
}

fn measured(loss: f64, lr: &str) -> Value {
    json!({
        "metrics": [{"key": "loss", "value": loss, "timestamp": 5, "step": 1}],
        "params": [{"key": "lr", "value": lr}],
    })
}

/// In which order these stand in a page; all of them do.
fn order<'a>(html: &str, words: &[&'a str]) -> Vec<&'a str> {
    let place = |word: &str| {
        html.find(word)
            .unwrap_or_else(|| panic!("no {word} in {html}"))
    };
    let mut places: Vec<_> = words.iter().map(|word| (place(word), *word)).collect();
    places.sort_unstable();
    places.into_iter().map(|(_, word)| word).collect()
}

#[tokio::test]
async fn experiments_are_found_by_name_and_the_newest_come_first() {
    rooms(|room| async move {
        let old = room.experiment("digits/train").await;
        let new = room.experiment("100%_sure").await;
        let gone = room.experiment("gone").await;
        for at in [1_000, 2_000] {
            room.run(&old, "r", at, measured(0.5, "0.1")).await;
        }
        let now = Timestamp::now().0;
        room.run(&new, "r", now, measured(0.5, "0.1")).await;
        let deleted = room.run(&old, "no more", now, measured(0.5, "0.1")).await;
        room.mlflow
            .done("runs/delete", json!({"run_id": deleted}))
            .await;
        room.mlflow
            .done("experiments/delete", json!({"experiment_id": gone}))
            .await;

        let html = room.page("/experiments").await;
        assert_eq!(
            order(&html, &["100%_sure", "digits/train"]),
            ["100%_sure", "digits/train"]
        );
        assert!(html.contains("<td data-name=\"Runs\" class=\"num\">2</td>"));
        assert!(!html.contains(">gone<"));
        let html = room.page("/experiments?name=DIGITS").await;
        assert!(html.contains("digits/train") && !html.contains("100%_sure"));
        let html = room.page("/experiments?name=0%25_").await;
        assert!(html.contains("100%_sure") && !html.contains("digits/train"));
        let html = room.page("/experiments?deleted=1").await;
        assert!(html.contains(">gone<") && !html.contains("digits/train"));
        assert!(
            room.page("/experiments?from=x")
                .await
                .contains("digits/train")
        );
    })
    .await;
}

#[tokio::test]
async fn a_table_of_runs_is_filtered_sorted_and_shared_by_its_address() {
    rooms(|room| async move {
        let id = room.experiment("e").await;
        for (name, loss, lr) in [
            ("first", 0.3, "0.01"),
            ("second", 0.1, "0.1"),
            ("third", 0.2, "0.1"),
        ] {
            room.run(&id, name, 1_000, measured(loss, lr)).await;
        }
        let here = format!("/experiments/{id}");
        let note = json!({"experiment_id": id, "key": "mlflow.note.content", "value": "a sweep"});
        room.mlflow
            .done("experiments/set-experiment-tag", note)
            .await;
        let html = room.page(&here).await;
        assert!(html.contains(">a sweep<"), "{html}");
        assert!(html.contains("title=\"metric loss\"") && html.contains("title=\"param lr\""));
        assert!(
            html.contains("aria-sort=\"descending\""),
            "the newest first"
        );

        let up = room
            .page(&format!("{here}?order=metrics.%60loss%60%20ASC"))
            .await;
        assert_eq!(
            order(&up, &[">first<", ">second<", ">third<"]),
            [">second<", ">third<", ">first<"]
        );
        assert!(up.contains("aria-sort=\"ascending\""));
        assert!(
            up.contains("order=metrics.%60loss%60%20DESC"),
            "a click turns it around"
        );

        let some = room
            .page(&format!(
                "{here}?filter=params.lr%20%3D%20'0.1'&column=params.lr"
            ))
            .await;
        assert!(some.contains(">second<") && some.contains(">third<") && !some.contains(">first<"));
        assert!(
            !some.contains("title=\"metric loss\""),
            "only what was chosen"
        );
        assert!(
            some.contains("value=\"params.lr = &#39;0.1&#39;\""),
            "{some}"
        );

        let (status, html) = room
            .look(&format!("{here}?filter=metrics.loss%20%3C%20x"))
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(
            html.contains("at character 16") && html.contains("role=\"alert\""),
            "{html}"
        );
        assert!(
            html.contains("value=\"metrics.loss &#60; x\""),
            "the text is kept"
        );
        let (status, html) = room
            .look(&format!(
                "{here}?filter=a.b%20%3D%20'1'%20and%20c.d%20%3D%20'1'"
            ))
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(html.contains("(at character 1)"), "{html}");
        for bad in ["order=metrics.loss%20DESC%20DESC", "order=%3B"] {
            assert_eq!(
                room.look(&format!("{here}?{bad}")).await.0,
                StatusCode::BAD_REQUEST
            );
        }
        for nothing in [
            "/experiments/77",
            "/experiments/x",
            "/runs/x",
            "/files/x",
            "/files/x/y",
        ] {
            assert_eq!(
                room.look(nothing).await.0,
                StatusCode::NOT_FOUND,
                "{nothing}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_long_table_has_pages() {
    rooms(|room| async move {
        let mut tx = room.world.server().store.begin().await.unwrap();
        for number in 1..=101 {
            let run = Run {
                id: format!("{number:032x}"),
                experiment: 0,
                name: format!("run-{number}."),
                person: String::new(),
                status: RunStatus::Finished,
                started_at: Timestamp(number),
                finished_at: Some(Timestamp(number + 1)),
                deleted_at: None,
                attempt: None,
            };
            assert!(runs::insert(&mut tx, &run).await.unwrap());
        }
        tx.commit().await.unwrap();
        let html = room.page("/experiments/0").await;
        assert!(
            html.contains(">run-101.<") && html.contains(">run-2.<") && !html.contains(">run-1.<")
        );
        assert!(
            html.contains("href=\"/experiments/0?from=100\">Earlier"),
            "{html}"
        );
        let html = room.page("/experiments/0?from=100").await;
        assert!(html.contains(">run-1.<") && !html.contains(">run-2.<"));
        assert!(html.contains(">Later<") && !html.contains(">Earlier<"));
    })
    .await;
}

/// A curve of ten points with a NaN, one without steps, one of a single point.
fn curves() -> Value {
    let mut metrics: Vec<Value> = (0..10)
        .map(|n| json!({"key": "loss", "value": 1.0 / f64::from(n + 1), "timestamp": 1_000 * n, "step": n}))
        .collect();
    metrics.push(json!({"key": "loss", "value": "NaN", "timestamp": 10_000, "step": 10}));
    for at in [0, 60_000] {
        metrics.push(json!({"key": "stepless", "value": at, "timestamp": at, "step": 0}));
    }
    metrics.push(json!({"key": "final", "value": 0.25, "timestamp": 9, "step": 0}));
    json!({
        "metrics": metrics,
        "params": [{"key": "optimizer", "value": "adam"}],
        "tags": [{"key": "team", "value": "vision"}, {"key": "mlflow.note.content", "value": "a note"}],
    })
}

#[tokio::test]
async fn a_run_shows_its_curves_and_what_it_belongs_to() {
    rooms(|room| async move {
        let run = room.run("0", "parent", 1_000, curves()).await;
        let within = json!({"tags": [{"key": "mlflow.parentRunId", "value": run}]});
        let child = room.run("0", "child", 2_000, within).await;
        let dataset = json!({"run_id": run, "datasets": [{
            "dataset": {"name": "digits", "digest": "abc123", "source_type": "http", "source": "{\"url\": \"x\"}"},
            "tags": [{"key": "mlflow.data.context", "value": "training"}],
        }]});
        room.mlflow.done("runs/log-inputs", dataset).await;
        let model = room.mlflow.logged_model(&run).await;
        let output = json!({"run_id": run, "models": [{"model_id": model, "step": 0}]});
        room.mlflow.done("runs/outputs", output).await;

        let here = format!("/runs/{run}");
        let html = room.page(&here).await;
        for shown in [
            "adam", "vision", "a note", "abc123", "training", ">running<", "Default",
            "1 point is NaN or infinite",
            "loss by step", "stepless by time",
            "from step 0 to 9: between 0.1 and 1, 0.1 at the end",
            &format!("/runs/{child}"), &format!("/files/{model}"),
        ] {
            assert!(html.contains(shown), "no {shown} in {html}");
        }
        assert_eq!(html.matches("<svg").count(), 2, "one point is no curve");
        assert!(room.page(&format!("/runs/{child}")).await.contains(&format!("/runs/{run}\">parent<")));

        let html = room.page(&format!("{here}?metric=LOS&axis=time&scale=log")).await;
        assert_eq!(html.matches("<svg").count(), 1);
        assert!(html.contains("loss by time") && !html.contains(">0.25<"));
        assert!(html.contains("metric=LOS"), "the switches keep what is searched");
        let html = room.page(&format!("{here}?metric=none")).await;
        assert!(html.contains("value=\"none\"") && !html.contains("<svg"));

        room.mlflow.done("runs/delete", json!({"run_id": run})).await;
        assert!(room.page(&here).await.contains("deleted"));
    })
    .await;
}

#[tokio::test]
async fn runs_stand_side_by_side() {
    rooms(|room| async move {
        let mut ids = Vec::new();
        for (number, optimizer) in ["adam", "sgd"].into_iter().enumerate() {
            let mut batch = curves();
            batch["params"] = json!([
                {"key": "optimizer", "value": optimizer}, {"key": "seed", "value": "7"},
            ]);
            batch["metrics"][9]["value"] = json!(0.05 + number as f64);
            batch["metrics"].as_array_mut().unwrap().remove(10);
            ids.push(
                room.run("0", &format!("run-{optimizer}"), 1_000, batch)
                    .await,
            );
        }
        let query = format!("run={}&run={}", ids[0], ids[1]);
        let html = room.page(&format!("/runs/compare?{query}")).await;
        assert_eq!(
            order(
                &html,
                &[
                    "Params that differ",
                    ">optimizer<",
                    ">Metrics<",
                    "1 param alike",
                    ">seed<"
                ]
            ),
            [
                "Params that differ",
                ">optimizer<",
                ">Metrics<",
                "1 param alike",
                ">seed<"
            ]
        );
        assert!(
            html.contains("0.05 <span class=\"mark\">lowest</span>"),
            "{html}"
        );
        assert!(html.contains("1.05 <span class=\"mark\">highest</span>"));
        assert_eq!(
            html.matches("<path class=\"line ").count(),
            4,
            "two curves of two runs"
        );
        assert!(html.contains("<title>run-adam</title>"));
        let by_time = format!("/runs/compare?{query}&axis=time").replace('&', "&#38;");
        assert!(html.contains(&by_time), "{html}");

        let html = room
            .page(&format!("/runs/compare?{query}&run={}", ids[0]))
            .await;
        assert!(
            !html.contains("more were selected"),
            "the same twice is one"
        );
        let many: Vec<String> = (0..11).map(|n| format!("run={n:032x}")).collect();
        let html = room
            .page(&format!("/runs/compare?{}", many.join("&")))
            .await;
        assert!(html.contains("3 more were selected") && html.contains("Select two runs"));
        assert!(room.page("/runs/compare").await.contains("Select two runs"));
    })
    .await;
}

#[tokio::test]
async fn what_a_run_says_stays_text_and_turns_nothing_around() {
    rooms(|room| async move {
        let turned = format!("{EVIL}\u{202e}nimda");
        let id = room.experiment(&format!("e {turned}")).await;
        let batch = json!({
            "metrics": [
                {"key": "loss", "value": 1, "timestamp": 1, "step": 1},
                {"key": "loss", "value": 2, "timestamp": 2, "step": 2},
            ],
            "params": [{"key": "p", "value": turned}, {"key": "q", "value": "\u{2066}"}],
            "tags": [{"key": "t", "value": turned}, {"key": "mlflow.user", "value": turned},
                {"key": "mlflow.note.content", "value": turned}, {"key": "mlflow.parentRunId", "value": turned},
                {"key": "trainyard", "value": turned}],
        });
        let run = room.run(&id, &turned, 1_000, batch.clone()).await;
        let other = room.run(&id, "other", 1_000, batch).await;
        for path in [
            "/experiments".to_owned(),
            format!("/experiments/{id}"),
            format!("/experiments/{id}?filter=%3Cscript%3Ealert('x')%3C/script%3E"),
            format!("/runs/{run}"),
            format!("/runs/{run}?metric=%22%3E%3Cimg%20src=x%20onerror=alert(1)%3E"),
            format!("/runs/compare?run={run}&run={other}"),
            format!("/files/{run}"),
        ] {
            let (_, html) = room.look(&path).await;
            for acts in ["<script>alert", "<img src=x", "onerror=alert(1)>", "\u{202e}", "\u{2066}"] {
                assert!(!html.contains(acts), "{acts} in {path}");
            }
        }
    })
    .await;
}
