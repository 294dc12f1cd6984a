//! Numbers that JSON lacks, curves in pages, and what a job left as clients see it.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Mlflow, refused::of_a_job};
use crate::support::{Times, on_both};

#[tokio::test(flavor = "multi_thread")]
async fn nan_and_the_infinities_are_kept_as_such() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let run = mlflow.run().await;
        for (step, value) in ["NaN", "Infinity", "-Infinity"].iter().enumerate() {
            let point = json!({"run_id": run, "key": value.replace('-', "minus"), "value": value,
                "timestamp": 5, "step": step});
            mlflow.done("runs/log-metric", point).await;
        }
        let (_, got) = mlflow.get(&format!("runs/get?run_id={run}")).await;
        let metrics = got["run"]["data"]["metrics"].as_array().unwrap();
        let values: Vec<&Value> = metrics.iter().map(|metric| &metric["value"]).collect();
        assert_eq!(values, ["Infinity", "NaN", "-Infinity"]);
        for (key, value) in [("NaN", "NaN"), ("minusInfinity", "-Infinity")] {
            let address = format!("metrics/get-history?run_id={run}&metric_key={key}");
            let (_, curve) = mlflow.get(&address).await;
            assert_eq!(curve["metrics"][0]["value"], value);
        }
        let search = json!({"experiment_ids": ["0"], "filter": "metrics.Infinity > 1e300"});
        let found = mlflow.done("runs/search", search).await;
        assert_eq!(found["runs"].as_array().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_curve_is_read_in_pages() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let run = mlflow.run().await;
        for batch in 0..3_i64 {
            let metric = |n: i64| json!({"key": "loss", "value": n, "timestamp": 7, "step": batch * 1_000 + n});
            let metrics: Vec<Value> = (0..1_000).map(metric).collect();
            let ask = json!({"run_id": run, "metrics": metrics});
            mlflow.done("runs/log-batch", ask).await;
        }
        let mut steps = Vec::new();
        let mut token = String::new();
        loop {
            let address = format!(
                "metrics/get-history?run_id={run}&metric_key=loss&max_results=700&page_token={token}"
            );
            let (status, page) = mlflow.get(&address).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            let points = page["metrics"].as_array().unwrap();
            steps.extend(points.iter().map(|point| point["step"].as_i64().unwrap()));
            match page["next_page_token"].as_str() {
                Some(next) => token = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(steps, (0..3_000).collect::<Vec<_>>());
        let (status, _) = mlflow
            .get(&format!("metrics/get-history?run_id={run}&metric_key=other&page_token={token}"))
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "a token of another curve");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_left_is_a_run_like_any_other() {
    on_both(Times::default(), |world| async move {
        let mlflow = Mlflow::of(&world);
        let run = of_a_job(&world).await;
        let (_, home) = mlflow.get("experiments/get-by-name?experiment_name=digits/digits").await;
        let id = home["experiment"]["experiment_id"].clone();
        let search = json!({"experiment_ids": [id], "filter": "metrics.accuracy > 0.9 AND status = 'FINISHED'"});
        let found = mlflow.done("runs/search", search).await;
        assert_eq!(found["runs"][0]["info"]["run_id"], run.as_str(), "{found}");
        let (_, version) = mlflow.get("model-versions/get?name=digits&version=1").await;
        let version = &version["model_version"];
        assert_eq!(version["run_id"], run.as_str());
        assert_eq!(version["source"], format!("runs:/{run}/model"));
        let (_, place) = mlflow.get("model-versions/get-download-uri?name=digits&version=1").await;
        let uri = place["artifact_uri"].as_str().unwrap();
        let path = uri.strip_prefix("mlflow-artifacts:/").unwrap();
        let address = format!("{}/api/2.0/mlflow-artifacts/artifacts", mlflow.url);
        let listed: Value = reqwest::get(format!("{address}?path={path}")).await.unwrap().json().await.unwrap();
        assert_eq!(listed["files"], json!([{"path": "weights.bin", "is_dir": false, "file_size": 7}]));
        let bytes = reqwest::get(format!("{address}/{path}/weights.bin")).await.unwrap();
        assert_eq!(bytes.text().await.unwrap(), "weights");
    })
    .await;
}
