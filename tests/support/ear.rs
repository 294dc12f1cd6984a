//! Somebody who listens for what is posted, and answers as told.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

/// What was posted.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Heard {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A header; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct Memory {
    heard: Vec<Heard>,
    answer: StatusCode,
}

/// Listens until it is dropped.
pub(crate) struct Ear {
    /// Where it listens.
    pub(crate) url: String,
    memory: Arc<Mutex<Memory>>,
    listening: tokio::task::JoinHandle<()>,
}

impl Ear {
    pub(crate) async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let memory = Arc::<Mutex<Memory>>::default();
        let service = axum::Router::new()
            .fallback(hear)
            .with_state(memory.clone());
        let listening = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self {
            url,
            memory,
            listening,
        }
    }

    /// Answers with this status from now on.
    pub(crate) fn answer(&self, status: StatusCode) {
        self.memory.lock().unwrap().answer = status;
    }

    /// What came since the last look.
    pub(crate) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.memory.lock().unwrap().heard)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn hear(
    State(memory): State<Arc<Mutex<Memory>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let mut memory = memory.lock().unwrap();
    memory.heard.push(Heard { headers, body });
    memory.answer
}
