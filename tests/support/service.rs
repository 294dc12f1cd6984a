//! A process of the real binary that can be killed at any time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::PATIENCE;
use super::api::Api;

pub(super) struct Service {
    child: Child,
    // It is kept open: a process that prints to nobody dies of it.
    stdout: Lines<BufReader<ChildStdout>>,
    /// Of a server.
    pub(super) api: Option<Api>,
}

/// A command whose configuration lies in a folder, and that hears nothing of the host's own.
pub(super) fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .args(arguments)
        .env("TRAINYARD_SERVER_CONFIG", folder.join("server.toml"))
        .env_remove("TRAINYARD_AGENT_CONFIG")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env_remove("TRAINYARD_SERVER")
        .env_remove("TRAINYARD_REGISTRATION")
        .env_remove("TRAINYARD_TOKEN");
    command
}

impl Service {
    /// Its log goes to `NAME.log`, behind what an earlier one wrote there.
    pub(super) fn start(
        folder: &Path,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, PathBuf)],
    ) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(format!("{name}.log")))
            .unwrap();
        let mut command = tokio::process::Command::from(command(folder, arguments));
        let mut child = command
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            stdout,
            api: None,
        }
    }

    /// Where a server says that it listens.
    pub(super) async fn url(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.stdout.next_line()).await;
        let line = line.expect("the server starts in time").unwrap();
        let line = line.expect("the server says where it listens");
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        said["url"].as_str().unwrap().to_owned()
    }

    /// Sends a signal by its name without `SIG`.
    pub(super) fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(status.unwrap().success(), "{signal}");
    }

    /// `kill -9`, and it is gone.
    pub(super) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}
