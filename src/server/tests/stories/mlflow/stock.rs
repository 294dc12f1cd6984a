//! The stock client against the stock server and against ours: it sees no difference.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::{Times, on_both};

/// A start of the stock server, and a story of the client, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A program of the environment with the stock client and server.
fn program(name: &str) -> PathBuf {
    let place = std::env::var_os("TRAINYARD_TEST_MLFLOW").map_or_else(
        || root().join(".trainyard/mlflow/bin"),
        |folder| PathBuf::from(folder).join("bin"),
    );
    let program = place.join(name);
    assert!(
        program.exists(),
        "{} is missing: run scripts/setup",
        program.display()
    );
    program
}

/// The stock server with SQLite and a folder; it ends with this value.
struct Stock {
    /// It starts processes of its own: all are of its group.
    server: Child,
    url: String,
}

impl Drop for Stock {
    fn drop(&mut self) {
        if let Some(group) = self.server.id() {
            let group = format!("-{group}");
            let _ = std::process::Command::new("kill")
                .args(["-s", "KILL", "--", &group])
                .status();
        }
    }
}

impl Stock {
    fn start(folder: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        let log = std::fs::File::create(folder.join("stock.log")).unwrap();
        let server = Command::new(program("mlflow"))
            .args(["server", "--workers", "1", "--host", "127.0.0.1"])
            .args(["--port", &port.to_string()])
            .args(["--backend-store-uri", "sqlite:///stock.db"])
            .args(["--artifacts-destination", "artifacts"])
            .current_dir(folder)
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            server,
            url: format!("http://127.0.0.1:{port}"),
        }
    }

    async fn ready(&self, folder: &Path) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(answer) = reqwest::get(format!("{}/health", self.url)).await
                && answer.status().is_success()
            {
                return;
            }
            let log = || std::fs::read_to_string(folder.join("stock.log")).unwrap_or_default();
            assert!(
                Instant::now() < until,
                "the stock server does not start:\n{}",
                log()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What the story led to, step by step.
async fn story(url: &str, folder: &Path, name: &str) -> Vec<(String, Value)> {
    let told = folder.join(format!("{name}.json"));
    let client = Command::new(program("python"))
        .arg(root().join("tests/mlflow/story.py"))
        .args([url, told.to_str().unwrap()])
        .current_dir(folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let done = tokio::time::timeout(PATIENCE, client).await;
    let done = done.expect("the story ends in time").unwrap();
    assert!(
        done.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    serde_json::from_slice(&std::fs::read(told).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_client_sees_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let stock = Stock::start(folder.path());
    stock.ready(folder.path()).await;
    let expected = story(&stock.url, folder.path(), "stock").await;
    assert!(expected.len() > 200, "the story was told to its end");
    drop(stock);
    let (expected, folder) = (&expected, folder.path());
    on_both(Times::default(), |world| async move {
        // All of the world: its server ends with it.
        let world = &world;
        let found = story(&world.url, folder, "ours").await;
        assert_eq!(found.len(), expected.len());
        let pairs = expected.iter().zip(&found);
        let different: Vec<String> = pairs
            .filter(|(stock, ours)| stock != ours)
            .map(|(stock, ours)| format!("{}\n  stock {}\n  ours  {}", stock.0, stock.1, ours.1))
            .collect();
        assert!(different.is_empty(), "{}", different.join("\n"));
    })
    .await;
}
