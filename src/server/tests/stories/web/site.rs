//! A server with a little of everything in it, and callers of each role.

use std::collections::BTreeMap;

use protocol::api::{NewToken, Role};
use protocol::event::{Artifact, ArtifactRole};
use protocol::job::State;
use protocol::outcome::CellPlace;
use protocol::report::{AttemptReport, MetricValue, Setting, Usage};
use protocol::{
    AgentId, AttemptId, ByteSize, Digest, Failure, FailureKind, JobId, Outcome, PipelineId, Span,
    Timestamp,
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use server::config::Config;
use server::state::{Handle, Server};
use server::store::jobs::Job;
use server::store::{agents, attempts, blobs, events, jobs, pipelines, projects, testing};
use server::tokens;
use tempfile::TempDir;

/// What a hostile job or commit says.
pub(crate) const EVIL: &str = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>";

pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) handle: Handle,
    pub(crate) http: Client,
    pub(crate) pipeline: PipelineId,
    /// Waits.
    pub(crate) queued: JobId,
    /// Failed, with an executed notebook, an HTML artifact, events.
    pub(crate) failed: JobId,
    pub(crate) attempt: AttemptId,
    tokens: BTreeMap<&'static str, String>,
}

impl Site {
    /// A server on loopback, without any token.
    pub(crate) async fn start() -> Self {
        Self::start_with(|config| config).await
    }

    pub(crate) async fn start_with(set: impl FnOnce(Config) -> Config) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let config = set(Config {
            listen: ([127, 0, 0, 1], 0).into(),
            ..Config::in_folder(folder.path().join("server"))
        });
        let handle = Server::start(config).await.unwrap();
        let seeded = seed(&handle.server).await;
        Self {
            folder,
            handle,
            http: Client::builder()
                .no_proxy()
                .redirect(redirect::Policy::none())
                .build()
                .unwrap(),
            pipeline: seeded.pipeline,
            queued: seeded.queued,
            failed: seeded.failed,
            attempt: seeded.attempt,
            tokens: BTreeMap::new(),
        }
    }

    /// A server that knows a token of each role.
    pub(crate) async fn with_tokens() -> Self {
        let mut site = Self::start().await;
        for role in [Role::Admin, Role::Run, Role::Read] {
            let wanted = NewToken {
                name: role.word().to_owned(),
                role,
            };
            let made = tokens::create(&site.server().store, &wanted, "test").await;
            site.tokens.insert(role.word(), made.unwrap().token);
        }
        site
    }

    pub(crate) fn server(&self) -> &Server {
        &self.handle.server
    }

    pub(crate) fn token(&self, role: &str) -> &str {
        &self.tokens[role]
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.handle.url()))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.call(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.call(Method::POST, path)
    }

    /// A form as a browser sends it; its values need no encoding.
    pub(crate) fn form(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let fields: Vec<_> = fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.post(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(fields.join("&"))
    }

    /// A page as whoever asks from this host sees it.
    pub(crate) async fn page(&self, path: &str) -> String {
        let answer = self.get(path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }

    pub(crate) async fn job(&self, id: &JobId) -> Job {
        jobs::get(&mut self.server().store.read().await.unwrap(), id)
            .await
            .unwrap()
    }

    /// Logs in with a token; gives the `Cookie` header of the session.
    pub(crate) async fn log_in(&self, token: &str) -> String {
        let form = [("token", token), ("next", "/agents")];
        let answer = self.form("/login", &form).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        assert_eq!(header(&answer, "location"), "/agents");
        let cookie = header(&answer, "set-cookie");
        cookie.split(';').next().unwrap().to_owned()
    }
}

pub(crate) fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

struct Seeded {
    pipeline: PipelineId,
    queued: JobId,
    failed: JobId,
    attempt: AttemptId,
}

async fn seed(server: &Server) -> Seeded {
    let mut tx = server.store.begin().await.unwrap();
    let project = testing::project("digits");
    projects::insert(&mut tx, &project).await.unwrap();
    let pipeline = pipelines::Pipeline {
        subject: format!("Train longer {EVIL}"),
        author: EVIL.to_owned(),
        notes: vec![EVIL.to_owned()],
        ..testing::pipeline(&project, 1)
    };
    pipelines::insert(&mut tx, &pipeline).await.unwrap();
    let queued = Job {
        spec: protocol::JobSpec {
            // Nothing has so many CPUs: it waits.
            resources: protocol::spec::Resources {
                cpu_millis: 999_000,
                ..Default::default()
            },
            ..testing::job(&pipeline, "waits").spec
        },
        ..testing::job(&pipeline, "waits")
    };
    jobs::insert(&mut tx, &queued).await.unwrap();
    let outcome = outcome();
    let failed = Job {
        state: State::Finished {
            outcome: outcome.clone(),
        },
        finished_at: Some(Timestamp(9_000)),
        ..testing::job(&pipeline, "train")
    };
    jobs::insert(&mut tx, &failed).await.unwrap();
    let agent = agents::register(&mut tx, &testing::agent("gpu-1"))
        .await
        .unwrap();
    let attempt = testing::attempt(&project, &failed, &agent, 1, &[]);
    attempts::insert(&mut tx, &attempt).await.unwrap();
    let lines: Vec<(u64, String)> = (1..=5)
        .map(|seq| {
            let event = serde_json::json!({"seq": seq, "at": seq, "kind": "log", "stream": "stdout",
                "text": format!("line {seq} {EVIL}\n")});
            (seq, event.to_string())
        })
        .collect();
    events::append(&mut tx, &attempt.id, &lines).await.unwrap();
    let artifacts = files(server, &mut tx, &agent).await;
    attempts::finish(&mut tx, &attempt.id, &report(outcome, artifacts))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    Seeded {
        pipeline: pipeline.id,
        queued: queued.id,
        failed: failed.id,
        attempt: attempt.id,
    }
}

fn outcome() -> Outcome {
    let place = CellPlace {
        path: "train.ipynb".to_owned(),
        index: 1,
        line: Some(2),
        raw_line: Some(31),
    };
    Outcome::Failed(Failure::new(FailureKind::CellRaised, format!("KeyError: {EVIL}")).cell(place))
}

fn report(outcome: Outcome, artifacts: Vec<Artifact>) -> AttemptReport {
    AttemptReport {
        outcome,
        withdrawn: None,
        started_at: Timestamp(1_000),
        finished_at: Timestamp(9_000),
        phases: BTreeMap::from([("run".to_owned(), Span(8_000))]),
        artifacts,
        metrics: vec![MetricValue {
            name: format!("accuracy {EVIL}"),
            value: 0.96,
            step: 0,
        }],
        params: BTreeMap::new(),
        setting: Setting {
            host: "gpu-1".to_owned(),
            packages: Some(EVIL.to_owned()),
            ..Setting::default()
        },
        usage: Usage::default(),
        cells_executed: 1,
        cells_total: 2,
    }
}

async fn files(
    server: &Server,
    tx: &mut server::store::Connection,
    agent: &AgentId,
) -> Vec<Artifact> {
    let html = format!("<h1>report</h1>{EVIL}");
    let notebook = serde_json::json!({
        "nbformat": 4, "nbformat_minor": 5, "metadata": {},
        "cells": [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": format!("# Digits {EVIL}")},
            {"cell_type": "code", "id": "b", "metadata": {}, "source": "plot()", "execution_count": 1, "outputs": [
                {"output_type": "stream", "name": "stdout", "text": EVIL},
                {"output_type": "display_data", "metadata": {},
                 "data": {"text/html": "<div id=chart></div><script>draw()</script>"}},
            ]},
        ],
    })
    .to_string();
    let mut artifacts = Vec::new();
    for (role, path, text) in [
        (ArtifactRole::Notebook, "train.ipynb", &notebook),
        (ArtifactRole::Declared, "reports/a b.html", &html),
    ] {
        let blob = Digest::of(text);
        server
            .blobs
            .put(&blob, text.clone().into_bytes())
            .await
            .unwrap();
        let size = text.len() as u64;
        blobs::insert(tx, &blob, size, agent, Timestamp(8))
            .await
            .unwrap();
        artifacts.push(Artifact {
            role,
            path: path.to_owned(),
            blob,
            size: ByteSize(size),
        });
    }
    artifacts
}
