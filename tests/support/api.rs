//! The public API as a script uses it.

use notebook::message::OutputMessage;
use protocol::api::{Agent, JobDetail, Page, Pipeline, PipelineDetail};
use protocol::event::{EventKind, OutputContent};
use protocol::registry::VersionDetail;
use protocol::{AttemptId, Event, JobId, PipelineId};
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;

use super::until;

pub(crate) struct Api {
    /// The server's address.
    pub(crate) url: String,
    http: reqwest::Client,
}

impl Api {
    pub(super) fn new(url: String) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { url, http }
    }

    /// A request to any path of the server.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}/{path}", self.url))
    }

    async fn get(&self, path: &str) -> Response {
        let path = format!("api/v1/{path}");
        let answer = self.request(Method::GET, &path).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> T {
        let text = self.get(path).await.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    pub(crate) async fn pipelines(&self) -> Vec<Pipeline> {
        self.read::<Page<_>>("pipelines").await.items
    }

    pub(crate) async fn pipeline(&self, id: &PipelineId) -> PipelineDetail {
        self.read(&format!("pipelines/{id}")).await
    }

    pub(crate) async fn job(&self, id: &JobId) -> JobDetail {
        self.read(&format!("jobs/{id}")).await
    }

    pub(crate) async fn agents(&self) -> Vec<Agent> {
        self.read::<Page<_>>("agents").await.items
    }

    /// All events of an attempt, or of the job's last one.
    pub(crate) async fn events(&self, job: &JobId, attempt: Option<&AttemptId>) -> Vec<Event> {
        let which = attempt.map_or_else(String::new, |id| format!("&attempt={id}"));
        let mut events: Vec<Event> = Vec::new();
        loop {
            let from = events.last().map_or(1, |event| event.seq + 1);
            let path = format!("jobs/{job}/events?from={from}{which}");
            let text = self.get(&path).await.text().await.unwrap();
            if text.is_empty() {
                return events;
            }
            events.extend(
                text.lines()
                    .map(|line| serde_json::from_str::<Event>(line).unwrap()),
            );
        }
    }

    pub(crate) async fn artifact(&self, attempt: &AttemptId, path: &str) -> Vec<u8> {
        let answer = self.get(&format!("artifacts/{attempt}/{path}")).await;
        answer.bytes().await.unwrap().to_vec()
    }

    /// A version of a model, once the registry has it.
    pub(crate) async fn version(&self, model: &str, number: &str) -> VersionDetail {
        let path = format!("api/v1/models/{model}/{number}");
        until("the model's version", async || {
            let answer = self.request(Method::GET, &path).send().await.unwrap();
            let found = answer.status().is_success();
            found.then_some(())
        })
        .await;
        self.read(&format!("models/{model}/{number}")).await
    }

    pub(crate) async fn cancel(&self, job: &JobId) {
        let path = format!("api/v1/jobs/{job}/cancel");
        let answer = self.request(Method::POST, &path).send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
    }
}

/// What the events' cells printed.
pub(crate) fn said(events: &[Event]) -> String {
    let text = |event: &Event| match event.body.known()? {
        EventKind::Output {
            content:
                OutputContent::Inline {
                    output: OutputMessage::Stream { text, .. },
                },
            ..
        } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}
