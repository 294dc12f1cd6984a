//! A server in a sealed world, and agents that do what a test tells them.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use protocol::agent_api::{
    ApiError, AttemptOrder, AttemptStatus, EventsAnswer, FinishAnswer, INSTANCE_HEADER, PollAnswer,
    PollRequest, RegisterRequest, Registered, VERSION,
};
use protocol::event::Phase;
use protocol::hardware::Inventory;
use protocol::job::State;
use protocol::report::{AttemptReport, Setting, Usage};
use protocol::{AttemptId, Digest, JobId, Outcome, Span, Timestamp};
use reqwest::{RequestBuilder, StatusCode};
use server::config::Config;
use server::state::Server;
use server::store::jobs::Job;
use server::store::testing::{inventory, on_both_addresses};
use server::store::{Address, jobs, pipelines, projects, testing};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// No condition of a test takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server, but for the loops that look at remotes and at the clock: those passes are the
/// test's to ask for.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) url: String,
    server: Server,
    tasks: JoinSet<()>,
}

/// Time-outs that a test wants otherwise than the product.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) lost_after: Span,
    pub(crate) unreachable_after: Span,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            lost_after: Span::secs(600),
            unreachable_after: Span::secs(300),
        }
    }
}

/// Runs a story with a server on SQLite, then with one on Postgres.
pub(crate) async fn on_both<F, Fut>(times: Times, story: F)
where
    F: Fn(World) -> Fut,
    Fut: Future<Output = ()>,
{
    let _ = rustls::crypto::ring::default_provider().install_default();
    on_both_addresses(|address| {
        let story = &story;
        async move { story(World::start(address, times).await).await }
    })
    .await;
}

impl World {
    async fn start(address: Address, times: Times) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            database: Some(match address {
                Address::Sqlite(path) => path.to_str().unwrap().to_owned(),
                Address::Postgres(url) => url,
            }),
            tick: Span(50),
            retry_delay: Span(100),
            lost_after: times.lost_after,
            unreachable_after: times.unreachable_after,
            ..Config::in_folder(folder.path().join("server"))
        };
        Self::run(folder, config).await
    }

    async fn run(folder: TempDir, config: Config) -> Self {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::open(config, CancellationToken::new())
            .await
            .unwrap();
        let mut tasks = JoinSet::new();
        let http = server.clone();
        tasks.spawn(async move { server::web::serve(http, listener).await.unwrap() });
        tasks.spawn(server::dispatch::run(server.clone()));
        tasks.spawn(server::fleet::lease::run(server.clone()));
        Self {
            folder,
            url: format!("http://{address}"),
            server,
            tasks,
        }
    }

    /// Ends the server and starts it again on the same data.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(|_| ()).await
    }

    /// The same with another configuration.
    pub(crate) async fn restart_with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        self.server.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.server.store.close().await;
        let mut config = self.server.config.clone();
        change(&mut config);
        Self::run(self.folder, config).await
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// A queued job of a project of its own.
    pub(crate) async fn queue_job(&self, name: &str) -> Job {
        self.queue_job_with(name, |_| ()).await
    }

    /// Waits until something holds.
    pub(crate) async fn until<Fut>(&self, what: &str, mut holds: impl FnMut() -> Fut)
    where
        Fut: Future<Output = bool>,
    {
        let until = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < until, "in vain: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The same, asking for something in particular.
    pub(crate) async fn queue_job_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut protocol::JobSpec),
    ) -> Job {
        let mut tx = self.server().store.begin().await.unwrap();
        let project = testing::project(name);
        projects::insert(&mut tx, &project).await.unwrap();
        let pipeline = testing::pipeline(&project, 1);
        pipelines::insert(&mut tx, &pipeline).await.unwrap();
        let mut job = testing::job(&pipeline, name);
        change(&mut job.spec);
        jobs::insert(&mut tx, &job).await.unwrap();
        tx.commit().await.unwrap();
        self.server().live.queue_changed();
        job
    }

    pub(crate) async fn job(&self, id: &JobId) -> Job {
        let mut db = self.server().store.read().await.unwrap();
        jobs::get(&mut db, id).await.unwrap()
    }

    pub(crate) async fn word(&self, id: &JobId) -> &'static str {
        self.job(id).await.state.word()
    }

    pub(crate) async fn outcome(&self, id: &JobId) -> Outcome {
        match self.job(id).await.state {
            State::Finished { outcome } => outcome,
            other => panic!("not finished: {other:?}"),
        }
    }

    /// An agent that registers with a fresh token.
    pub(crate) async fn agent(&self, name: &str) -> Agent {
        self.register(name, false).await.unwrap()
    }

    /// The same, which may take the name of another one, or be refused it.
    pub(crate) async fn register(&self, name: &str, replace: bool) -> Result<Agent, Refusal> {
        let (token, _) = server::fleet::register::token(self.server(), Span::secs(60))
            .await
            .unwrap();
        let mut agent = Agent {
            http: reqwest::Client::new(),
            url: format!("{}/agent/v1", self.url),
            secret: String::new(),
            instance: None,
            inventory: inventory(name),
        };
        let request = RegisterRequest {
            protocol: VERSION,
            token: token.reveal().to_owned(),
            name: name.to_owned(),
            version: "test".to_owned(),
            inventory: agent.inventory.clone(),
            replace,
        };
        let registered: Registered = agent
            .call(
                agent
                    .http
                    .post(format!("{}/register", agent.url))
                    .json(&request),
            )
            .await?;
        agent.secret = registered.secret;
        Ok(agent)
    }
}

/// An agent that does what a test tells it.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) secret: String,
    pub(crate) instance: Option<String>,
    pub(crate) inventory: Inventory,
}

/// An error answer.
pub(crate) type Refusal = (StatusCode, ApiError);

impl Agent {
    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, Refusal> {
        let mut request = request.bearer_auth(&self.secret);
        if let Some(instance) = &self.instance {
            request = request.header(INSTANCE_HEADER, instance);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        if status.is_success() {
            Ok(answer.json().await.unwrap())
        } else {
            Err((status, answer.json().await.unwrap()))
        }
    }

    /// A poll that reports these attempts; held for at most `wait`.
    pub(crate) async fn poll(&self, attempts: Vec<AttemptStatus>, wait: Span) -> PollAnswer {
        self.send(&self.request(attempts, wait)).await.unwrap()
    }

    /// A poll that says what the host has now.
    pub(crate) async fn tell(&self) -> PollAnswer {
        let mut request = self.request(Vec::new(), Span(0));
        request.inventory = Some(self.inventory.clone());
        self.send(&request).await.unwrap()
    }

    /// What a poll says.
    pub(crate) fn request(&self, attempts: Vec<AttemptStatus>, wait: Span) -> PollRequest {
        PollRequest {
            protocol: VERSION,
            version: "test".to_owned(),
            inventory_hash: Digest::of(serde_json::to_string(&self.inventory).unwrap()),
            inventory: None,
            attempts,
            wait,
            accepting: true,
            closed: None,
            evict: false,
        }
    }

    pub(crate) async fn send(&self, request: &PollRequest) -> Result<PollAnswer, Refusal> {
        self.call(self.http.post(format!("{}/poll", self.url)).json(request))
            .await
    }

    /// Polls without attempts until an order comes.
    pub(crate) async fn order(&self) -> AttemptOrder {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let mut answer = self.poll(Vec::new(), Span(200)).await;
            if let Some(order) = answer.start.pop() {
                return order;
            }
        }
        panic!("no order came");
    }

    /// Takes the next order and says that it runs.
    pub(crate) async fn begin(&self) -> AttemptOrder {
        let order = self.order().await;
        self.poll(vec![running(&order)], Span(0)).await;
        order
    }

    pub(crate) async fn events(
        &self,
        order: &AttemptOrder,
        from: u64,
        to: u64,
    ) -> Result<EventsAnswer, Refusal> {
        let lines: String = (from..=to).map(line).collect();
        let url = format!(
            "{}/attempts/{}/events?generation={}&from={from}",
            self.url, order.attempt, order.generation
        );
        self.call(self.http.post(url).body(lines)).await
    }

    pub(crate) async fn finish(
        &self,
        order: &AttemptOrder,
        report: &AttemptReport,
    ) -> Result<FinishAnswer, Refusal> {
        let url = format!(
            "{}/attempts/{}/finish?generation={}",
            self.url, order.attempt, order.generation
        );
        self.call(self.http.post(url).json(report)).await
    }

    /// Runs the next order to this end, and gives its hardware back.
    pub(crate) async fn run(&self, outcome: Outcome) -> AttemptOrder {
        let order = self.begin().await;
        self.finish(&order, &report(outcome)).await.unwrap();
        self.poll(vec![released(&order.attempt, order.generation)], Span(0))
            .await;
        order
    }
}

/// One event, as NDJSON.
fn line(seq: u64) -> String {
    format!(
        "{{\"seq\":{seq},\"at\":{seq},\"kind\":\"log\",\"stream\":\"stdout\",\"text\":\"{seq}\"}}\n"
    )
}

pub(crate) fn running(order: &AttemptOrder) -> AttemptStatus {
    AttemptStatus {
        attempt: order.attempt.clone(),
        generation: order.generation,
        phase: Phase::Run,
        started_at: Timestamp(1_000),
        released: false,
    }
}

pub(crate) fn released(attempt: &AttemptId, generation: u32) -> AttemptStatus {
    AttemptStatus {
        attempt: attempt.clone(),
        generation,
        phase: Phase::Finished,
        started_at: Timestamp(1_000),
        released: true,
    }
}

pub(crate) fn report(outcome: Outcome) -> AttemptReport {
    AttemptReport {
        outcome,
        withdrawn: None,
        started_at: Timestamp(1_000),
        finished_at: Timestamp(2_000),
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
