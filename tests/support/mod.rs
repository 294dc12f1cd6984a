//! A world of one server, one agent and one project, made of the real binary, for stories that are told from
//! outside. It knows the command line and the public API, and nothing of what lies behind them.

pub(crate) mod api;
mod built;
pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod docker;
pub(crate) mod drivers;
pub(crate) mod ear;
pub(crate) mod engine;
pub(crate) mod forge;
pub(crate) mod gpus;
pub(crate) mod project;
pub(crate) mod proxy;
mod service;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use protocol::api::PipelineDetail;
use protocol::event::EventKind;
use protocol::{AttemptId, Digest, Event, JobId, Outcome};

use api::Api;
use clock::Clock;
use disk::SmallDisk;
use engine::{FakeEngine, Manner};
use gpus::FakeGpus;
use project::Project;
use proxy::Proxy;
use service::Service;

/// How long anything may take that has to happen. Generous: the stories share a small machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until there is a value, and says in vain of what.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One server, agents that reach it through a proxy (most worlds have one), and one project at a git remote.
pub(crate) struct World {
    folder: tempfile::TempDir,
    /// The project's remote, and where its author works.
    pub(crate) project: Project,
    /// Between agent and server.
    pub(crate) proxy: Proxy,
    server: Option<Service>,
    agents: BTreeMap<&'static str, Service>,
    /// Where agents run, or ran.
    hosts: Vec<&'static str>,
    /// More settings of agents that are added: of the table `timing`, and further tables.
    agent_settings: String,
    /// The server's, where it can be stepped.
    pub(crate) clock: Option<Clock>,
    /// Of those whose data has a disk of its own: agents, the server.
    disks: BTreeMap<&'static str, SmallDisk>,
    /// The engine of the agents, where it is not the real one.
    pub(crate) engine: Option<FakeEngine>,
}

/// The usual setting of a server: it looks at its remotes often.
const LOOKS_OFTEN: &str = "poll_interval_local = \"100ms\"";
/// The agent that is there from the start.
pub(crate) const HOST: &str = "host";
/// The agent within `trainyard up`.
pub(crate) const INNER: &str = "up/agent";
/// The server's folder, and its disk's name.
pub(crate) const SERVER: &str = "server";
/// Of a small disk, in MiB.
const DISK: u32 = 96;
/// Settings of every agent: nothing waits longer than a story has to.
const AGENT: &str = "[jobs]\ngrace = \"3s\"\noffline = true\ncheckpoint_look = \"200ms\"\n[disk]\nwatermark = \"8MiB\"\n\
    [timing]\nsweep = \"1s\"\nretry = \"20ms\"\nretry_most = \"200ms\"\ncall = \"20s\"\n";

impl World {
    /// Server and agent run; nothing is watched yet.
    pub(crate) async fn new() -> Self {
        Self::with_settings(LOOKS_OFTEN).await
    }

    /// The same, with these lines in the server's configuration.
    pub(crate) async fn with_settings(settings: &str) -> Self {
        let mut world = Self::bare(settings).await;
        world.add_agent(HOST);
        world
    }

    /// The same without an agent, with a server whose clock can be stepped, and whose data may have a disk of its own.
    pub(crate) async fn clocked(settings: &str, disk: bool) -> Self {
        let mut world = Self::empty();
        if disk {
            world.add_disk(SERVER);
        }
        world.clock = Some(Clock::new(world.folder.path()));
        Self::served(world, settings).await
    }

    /// The same without an agent.
    pub(crate) async fn bare(settings: &str) -> Self {
        Self::served(Self::empty(), settings).await
    }

    /// A world whose agent has these GPUs, and an engine that gives them in its manner; none: the real one, which has
    /// none to give.
    pub(crate) async fn with_gpus(gpus: &FakeGpus, manner: Option<Manner>) -> Self {
        let mut world = Self::empty();
        let start = |manner| FakeEngine::start(world.folder.path(), gpus, manner);
        world.engine = manner.map(start);
        let engine = world.engine.as_ref();
        let engine =
            engine.map(|engine| format!("[executors]\ndocker_host = \"{}\"\n", engine.host()));
        world.agent_settings = format!(
            "sample = \"100ms\"\ntrial = \"500ms\"\n{}[gpus]\nlibrary = \"{}\"\nclean_grace = \"300ms\"\ndriver_timeout = \"2s\"\n",
            engine.unwrap_or_default(),
            gpus.library().display(),
        );
        let settings = format!("{LOOKS_OFTEN}\nretry_delay = \"100ms\"");
        let mut world = Self::served(world, &settings).await;
        world.add_agent(HOST);
        world
    }

    async fn served(mut world: Self, settings: &str) -> Self {
        let server = format!(
            "listen = \"127.0.0.1:0\"\ndata = \"{}\"\ntick = \"200ms\"\nstop_grace = \"3s\"\n{settings}\n",
            world.path("server").display(),
        );
        std::fs::write(world.path("server.toml"), server).unwrap();
        world.start_server().await;
        world
    }

    /// A world that watches a project of these files.
    pub(crate) async fn with(files: &[(&str, &str)]) -> Self {
        let world = Self::new().await;
        world.project.commit(files);
        world.watch(&[]);
        world
    }

    fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            project: Project::new(folder.path()),
            proxy: Proxy::start(),
            server: None,
            agents: BTreeMap::new(),
            hosts: Vec::new(),
            agent_settings: String::new(),
            clock: None,
            disks: BTreeMap::new(),
            engine: None,
            folder,
        }
    }

    /// A project of these files with `trainyard up` over it.
    pub(crate) async fn up(files: &[(&str, &str)]) -> Self {
        let mut world = Self::empty();
        world.project.commit(files);
        std::fs::write(world.path("agent.toml"), AGENT).unwrap();
        world.hosts.push(INNER);
        world.start_up().await;
        world
    }

    pub(crate) async fn start_up(&mut self) {
        let text = |path: PathBuf| path.display().to_string();
        let (remote, data) = (text(self.project.remote()), text(self.path("up")));
        let config = text(self.path("agent.toml"));
        let named = ["--data", &data, "--agent-config", &config];
        let up = ["up", &remote, "--json", "--listen", "127.0.0.1:0"];
        self.serve(&[&up[..], &named].concat()).await;
    }

    /// Registers and starts an agent.
    pub(crate) fn add_agent(&mut self, name: &'static str) {
        self.add_agent_with(name, "", "");
    }

    /// The same, with more settings: those of no table, and further tables.
    pub(crate) fn add_agent_with(&mut self, name: &'static str, settings: &str, tables: &str) {
        let config = format!(
            "name = \"{name}\"\nserver = \"{}\"\ndata = \"{}\"\n\
             {settings}{AGENT}gpus = \"100ms\"\n{}{tables}",
            self.proxy.url(),
            self.path(name).display(),
            self.agent_settings,
        );
        let file = self.path(&format!("{name}.toml")).display().to_string();
        std::fs::write(&file, config).unwrap();
        let server = self.api().url.clone();
        let token = self.ok(&["agents", "token", "--server", &server]);
        let url = self.proxy.url();
        let mut register = self.command(&["agent", "register", &url, "--config", &file]);
        let register = register.env("TRAINYARD_REGISTRATION", token.trim());
        succeeded(&register.output().unwrap());
        self.hosts.push(name);
        self.start_agent(name);
    }

    /// Gives the data of an agent that will be added, or of the server, a disk of its own, where this user may mount one.
    pub(crate) fn add_disk(&mut self, whose: &'static str) {
        let disk = SmallDisk::mount(&self.path(whose), DISK);
        self.disks.extend(disk.map(|disk| (whose, disk)));
    }

    /// The disk of an agent's data, or the server's, where it has one of its own.
    pub(crate) fn disk(&self, whose: &str) -> Option<&SmallDisk> {
        self.disks.get(whose)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        service::command(self.folder.path(), arguments)
    }

    /// What a command prints that must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command prints that speaks to this server.
    pub(crate) fn shown(&self, arguments: &[&str]) -> String {
        let server = self.api().url.clone();
        self.ok(&[arguments, &["--server", &server]].concat())
    }

    /// How such a command ends, and what it prints.
    pub(crate) fn ended(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let server = self.api().url.clone();
        self.tried(&[arguments, &["--server", &server]].concat())
    }

    /// How a command ends, and what it prints.
    pub(crate) fn tried(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(arguments).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), printed)
    }

    /// Watches the project, with more arguments to `project add`.
    pub(crate) fn watch(&self, more: &[&str]) {
        let url = self.project.remote().display().to_string();
        let server = self.api().url.clone();
        let add = ["project", "add", "story", &url, "--server", &server];
        self.ok(&[&add[..], more].concat());
    }

    pub(crate) async fn start_server(&mut self) {
        self.serve(&["server", "--json"]).await;
    }

    async fn serve(&mut self, arguments: &[&str]) {
        let clock = self.clock.as_ref().map(Clock::environment);
        let environment = clock.as_ref().map_or(&[][..], |clock| clock);
        let mut server = Service::start(self.folder.path(), "server", arguments, environment);
        let api = Api::new(server.url().await);
        self.proxy.lead_to(&api.url);
        server.api = Some(api);
        self.server = Some(server);
    }

    pub(crate) fn start_agent(&mut self, name: &'static str) {
        let config = self.path(&format!("{name}.toml")).display().to_string();
        let arguments = ["agent", "--config", &config];
        let agent = Service::start(self.folder.path(), name, &arguments, &[]);
        self.agents.insert(name, agent);
    }

    /// `kill -9`.
    pub(crate) async fn kill_server(&mut self) {
        self.server.take().unwrap().kill().await;
    }

    /// `kill -9`.
    pub(crate) async fn kill_agent(&mut self, name: &'static str) {
        self.agents.remove(name).unwrap().kill().await;
    }

    /// Sends a signal to an agent's process alone, by its name without `SIG`.
    pub(crate) fn signal_agent(&self, name: &str, signal: &str) {
        self.agents[name].signal(signal);
    }

    /// The public API of the running server.
    pub(crate) fn api(&self) -> &Api {
        let server = self.server.as_ref().expect("the server runs");
        server.api.as_ref().unwrap()
    }

    /// The pipeline of a commit, once it is there.
    pub(crate) async fn pipeline(&self, commit: &str) -> PipelineDetail {
        until("the commit's pipeline", async || {
            let found = self.api().pipelines().await;
            let id = found.into_iter().find(|p| p.commit.as_str() == commit)?.id;
            Some(self.api().pipeline(&id).await)
        })
        .await
    }

    /// The pipeline of a commit, once all of its jobs are over.
    pub(crate) async fn finished(&self, commit: &str) -> PipelineDetail {
        let id = self.pipeline(commit).await.pipeline.id;
        until("the pipeline ends", async || {
            let detail = self.api().pipeline(&id).await;
            detail.pipeline.finished_at.is_some().then_some(detail)
        })
        .await
    }

    /// The job of a commit whose cells wait at [`project::GATE`], once it waits there in attempt `number`.
    pub(crate) async fn waiting(&self, commit: &str, number: u32) -> JobId {
        let job = self.pipeline(commit).await.jobs.pop().unwrap().id;
        until("a cell waits", async || {
            let attempts = self.api().job(&job).await.attempts;
            let attempt = attempts.into_iter().find(|a| a.number == number)?;
            let events = self.api().events(&job, Some(&attempt.id)).await;
            api::said(&events).contains("waiting").then_some(())
        })
        .await;
        job
    }

    /// Lets cells go on that wait at [`project::GATE`] on an agent's host.
    pub(crate) fn open_gate(&self, agent: &str) {
        for attempt in std::fs::read_dir(self.path(agent).join("attempts")).unwrap() {
            let workspace = attempt.unwrap().path().join("workspace");
            if workspace.is_dir() {
                std::fs::write(workspace.join("go"), "").unwrap();
            }
        }
    }

    /// The containers of an agent's attempts, ended ones included.
    pub(crate) fn containers(&self, agent: &str) -> Vec<String> {
        docker::labelled(&label(&self.path(agent)))
    }

    /// Makes a container for an attempt, as an engine does that was asked by an agent that is gone.
    pub(crate) fn add_container(&self, agent: &str, attempt: &AttemptId) {
        docker::create(&[
            label(&self.path(agent)),
            format!("trainyard.attempt={attempt}"),
            "trainyard.generation=1".to_owned(),
        ]);
    }
}

/// The label of the containers of the agent whose data lies here.
pub(crate) fn label(data: &Path) -> String {
    labelled_by("trainyard.data", data)
}

fn labelled_by(name: &str, data: &Path) -> String {
    let data = Digest::of(data.as_os_str().as_encoded_bytes());
    format!("{name}={}", data.short())
}

/// Whether a story is whole: numbered without a gap from 1 on, with its end as its last event and nowhere else.
pub(crate) fn whole(events: &[Event], outcome: &Outcome) {
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    let expected: Vec<u64> = (1..=events.len() as u64).collect();
    assert_eq!(numbers, expected);
    let ends = events.iter().filter_map(|event| match event.body.known()? {
        EventKind::Finished { outcome } => Some((event.seq, outcome)),
        _ => None,
    });
    let ends: Vec<_> = ends.collect();
    assert_eq!(ends, [(events.len() as u64, outcome)]);
}

fn succeeded(output: &Output) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["server"].iter().chain(&self.hosts) {
                let log = std::fs::read_to_string(self.path(&format!("{name}.log")));
                eprintln!("--- the log of {name}\n{}", log.unwrap_or_default());
            }
        }
        self.server.take();
        self.agents.clear();
        for name in &self.hosts {
            docker::remove(&self.containers(name));
            // An agent that was ended may have tried its engine.
            let trial = labelled_by("trainyard.trial", &self.path(name));
            docker::remove(&docker::labelled(&trial));
        }
        self.disks.clear();
    }
}
