//! A service in a temporary folder, and a server that takes reports, for tests of the service's parts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use protocol::agent_api::{AttemptOrder, OFFSET_HEADER};
use protocol::report::{AttemptReport, Setting, Usage};
use protocol::{AttemptId, JobId, Outcome, PipelineId, ProjectId, Span, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::deliver::Delivery;
use super::{Attempts, Clock, Shared, Trials};
use crate::attempt::AttemptDir;
use crate::client::Client;
use crate::config::Config;
use crate::hardware::Hardware;
use crate::host::Host;
use crate::journal::Journal;
use crate::ledger::Ledger;

/// What a server got, and what it does not take.
#[derive(Debug, Default)]
struct Heard {
    /// First lines of what was asked.
    calls: Vec<String>,
    taken: Vec<Vec<u8>>,
    refused: u32,
    refuses: Vec<Refusal>,
}

/// Calls with this word get that answer, so many times.
#[derive(Debug)]
struct Refusal {
    word: String,
    status: u16,
    answer: Value,
    times: u32,
}

pub(super) struct World {
    pub(super) shared: Arc<Shared>,
    heard: Arc<Mutex<Heard>>,
    attempt: AttemptId,
    dir: AttemptDir,
    journal: Journal,
    _folder: tempfile::TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let heard = Arc::<Mutex<Heard>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let hears = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let hears = Arc::clone(&hears);
                // A caller that hangs up is no news.
                tokio::spawn(async move { drop(serve(caller, &hears).await) });
            }
        });
        let mut config = Config {
            data: folder.path().to_owned(),
            ..Config::default()
        };
        (config.timing.retry, config.timing.retry_most) = (Span(1), Span(2));
        (config.executors.docker, config.executors.shell) = (false, true);
        let hardware = Arc::new(Hardware::open(&config));
        let attempt = AttemptId::generate();
        let dir = AttemptDir::open(folder.path().join("attempts").join(attempt.as_str()));
        std::fs::create_dir_all(dir.blobs()).unwrap();
        let clock = Clock::default();
        clock.learn(None, Timestamp::now());
        Self {
            shared: Arc::new(Shared {
                client: Client::new(&url, None, Span::secs(10)).unwrap(),
                ledger: Ledger::open(&config).unwrap(),
                host: Host {
                    inventory: hardware.inventory(&config, None, Vec::new()),
                    hardware: Arc::clone(&hardware),
                    config,
                    driver: "/nowhere".into(),
                    uv: None,
                    system: String::new(),
                    job_user: (1000, 1000),
                },
                hardware,
                attempts: Attempts::default(),
                trials: Trials::default(),
                clock,
                news: Notify::new(),
                sent_away: Mutex::default(),
                over: CancellationToken::new(),
            }),
            journal: Journal::open(&dir.journal()).unwrap(),
            heard,
            attempt,
            dir,
            _folder: folder,
        }
    }

    pub(super) fn delivery(&self) -> Delivery<'_> {
        Delivery {
            shared: &self.shared,
            attempt: &self.attempt,
            generation: 1,
            dir: &self.dir,
            journal: &self.journal,
        }
    }

    /// An order, in a folder of its own.
    pub(super) fn ordered(&self) -> (AttemptDir, AttemptOrder) {
        let order = order();
        let dir = AttemptDir::create(self.shared.host.data(), &order).unwrap();
        (dir, order)
    }

    /// A success that left nothing.
    pub(super) fn report(&self) -> AttemptReport {
        let now = Timestamp::now();
        AttemptReport {
            outcome: Outcome::Succeeded,
            withdrawn: None,
            started_at: now,
            finished_at: now,
            phases: BTreeMap::new(),
            artifacts: Vec::new(),
            metrics: Vec::new(),
            params: BTreeMap::new(),
            setting: Setting::default(),
            usage: Usage::default(),
            cells_executed: 0,
            cells_total: 0,
        }
    }

    /// Bodies with this word are refused in the agent API's form.
    pub(super) fn refuse(&self, word: &str, status: u16) {
        let answer = json!({"code": "invalid", "message": "no"});
        self.refuse_times(word, status, answer, u32::MAX);
    }

    /// Calls with this word, in their address or their body, get that answer, so many times.
    pub(super) fn refuse_times(&self, word: &str, status: u16, answer: Value, times: u32) {
        self.heard.lock().unwrap().refuses.push(Refusal {
            word: word.to_owned(),
            status,
            answer,
            times,
        });
    }

    /// Of the calls that came, those with this word in their first line.
    pub(super) fn asked(&self, word: &str) -> usize {
        let heard = self.heard.lock().unwrap();
        heard
            .calls
            .iter()
            .filter(|call| call.contains(word))
            .count()
    }

    /// The bodies that the server took.
    pub(super) fn taken(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().taken.clone()
    }

    pub(super) fn refused(&self) -> u32 {
        self.heard.lock().unwrap().refused
    }
}

/// An order for a command.
pub(super) fn order() -> AttemptOrder {
    let order = json!({
        "attempt": AttemptId::generate(), "generation": 1, "number": 1,
        "job": JobId::generate(), "pipeline": PipelineId::generate(), "project": ProjectId::generate(),
        "project_name": "story", "source": {"from": "folder", "path": "/nowhere"}, "trust": "trusted",
        "spec": {
            "name": "train", "definition": "train", "work": {"work": "command", "text": "true"},
            "image": "none", "network": "none", "retries": 0, "reuse": false,
        },
    });
    serde_json::from_value(order).unwrap()
}

/// One call, and its answer.
async fn serve(mut caller: TcpStream, heard: &Mutex<Heard>) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut caller);
    let mut length = 0;
    let mut call = String::new();
    reader.read_line(&mut call).await?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await? <= 2 {
            break;
        }
        if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    let (status, answer) = {
        let mut heard = heard.lock().unwrap();
        let text = String::from_utf8_lossy(&body);
        heard.calls.push(call.clone());
        let meant = |refusal: &&mut Refusal| {
            refusal.times > 0 && (call.contains(&refusal.word) || text.contains(&refusal.word))
        };
        match heard.refuses.iter_mut().find(meant) {
            Some(refusal) => {
                refusal.times -= 1;
                let answer = (refusal.status, refusal.answer.clone());
                heard.refused += 1;
                answer
            }
            None if call.contains("/events?") => {
                let from = call
                    .split("from=")
                    .nth(1)
                    .and_then(|rest| rest.split(' ').next());
                let from: u64 = from.unwrap().parse().unwrap();
                (200, json!({"next": from + text.lines().count() as u64}))
            }
            None => {
                heard.taken.push(body.clone());
                (200, json!({"accepted": true}))
            }
        }
    };
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} x\r\nConnection: close\r\n{OFFSET_HEADER}: 0\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    caller.write_all((head + &answer).as_bytes()).await
}
