//! MLflow's API as clients meet it: what they may do, what is refused, and that the stock client sees no difference.

mod access;
mod files;
mod in_job;
mod refused;
mod stock;
mod values;

use std::collections::BTreeMap;

use protocol::Timestamp;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use server::store::{Store, testing};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::World;

/// An answer: its status and its body.
pub(crate) type Told = (StatusCode, Value);

/// A client of MLflow's that says just what a test wants.
pub(crate) struct Mlflow {
    http: Client,
    pub(crate) url: String,
}

impl Mlflow {
    pub(crate) fn of(world: &World) -> Self {
        Self {
            http: Client::builder().no_proxy().build().unwrap(),
            url: world.url.clone(),
        }
    }

    pub(crate) async fn call(&self, method: Method, call: &str, body: Value) -> Told {
        let url = format!("{}/api/2.0/mlflow/{call}", self.url);
        let request = self.http.request(method, url).json(&body);
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let body = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) async fn post(&self, call: &str, body: Value) -> Told {
        self.call(Method::POST, call, body).await
    }

    /// A POST that has to succeed.
    pub(crate) async fn done(&self, call: &str, body: Value) -> Value {
        let (status, body) = self.post(call, body).await;
        assert_eq!(status, StatusCode::OK, "{call}: {body}");
        body
    }

    pub(crate) async fn get(&self, call: &str) -> Told {
        let url = format!("{}/api/2.0/mlflow/{call}", self.url);
        let answer = self.http.get(url).send().await.unwrap();
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// A new run of the default experiment.
    pub(crate) async fn run(&self) -> String {
        let ask = json!({"experiment_id": "0", "start_time": 1, "run_name": "r"});
        let made = self.done("runs/create", ask).await;
        made["run"]["info"]["run_id"].as_str().unwrap().to_owned()
    }

    /// A new logged model of a run.
    pub(crate) async fn logged_model(&self, run: &str) -> String {
        let ask = json!({"experiment_id": "0", "name": "m", "source_run_id": run});
        let made = self.done("logged-models", ask).await;
        made["model"]["info"]["model_id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// A call with a path that no client library would let through as it is.
    pub(crate) async fn raw(&self, method: &str, path: &str, headers: &str, body: &str) -> Told {
        let host = self.url.strip_prefix("http://").unwrap();
        let host_line = match headers.to_ascii_lowercase().contains("host:") {
            true => String::new(),
            false => format!("Host: {host}\r\n"),
        };
        let text = format!(
            "{method} {path} HTTP/1.1\r\n{host_line}{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{method} {path}: {answer}"));
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (
            StatusCode::from_u16(status).unwrap(),
            serde_json::from_str(body).unwrap_or(Value::Null),
        )
    }
}

/// All that a store holds of the registry, and how many rows there are of everything.
#[derive(Debug, PartialEq)]
pub(crate) struct Picture {
    told: Vec<Value>,
    rows: BTreeMap<String, i64>,
    blobs: usize,
}

impl Picture {
    /// All but what the beginning of a job's own run and the upload of a blob leave.
    pub(crate) fn forget_beginnings(&mut self) {
        for told in &mut self.told {
            let Some(runs) = told.get_mut("runs").and_then(Value::as_array_mut) else {
                continue;
            };
            let logged = |run: &Value| run["data"].get("metrics").is_some();
            runs.retain(logged);
        }
        self.rows = BTreeMap::new();
        self.blobs = 0;
    }
}

/// What stands in the store and on the disk.
pub(crate) async fn picture(world: &World, mlflow: &Mlflow) -> Picture {
    let all = json!({"view_type": "ALL", "max_results": 1000});
    let experiments = mlflow.done("experiments/search", all).await;
    let ids: Vec<Value> = experiments["experiments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["experiment_id"].clone())
        .collect();
    let runs = json!({"experiment_ids": ids, "run_view_type": "ALL"});
    let models = json!({"experiment_ids": ids});
    let told = vec![
        experiments,
        mlflow.done("runs/search", runs).await,
        mlflow.done("logged-models/search", models).await,
        mlflow.get("registered-models/search").await.1,
        mlflow.get("model-versions/search").await.1,
    ];
    Picture {
        told,
        rows: census(&world.server().store).await,
        blobs: files_below(&world.folder.path().join("server/blobs")),
    }
}

/// Rows of each table, but for the times of use.
async fn census(store: &Store) -> BTreeMap<String, i64> {
    let mut db = store.read().await.unwrap();
    testing::census(&mut db).await
}

fn files_below(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap();
    let count = |entry: std::fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => files_below(&entry.path()),
        false => 1,
    };
    entries.map(|entry| count(entry.unwrap())).sum()
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    Timestamp::now().0
}
