//! Stories of a real agent and a server that fails: whatever gets lost between them, a job starts, runs once,
//! and its story and files arrive whole. This file is the host that they are told of.

mod double;
mod identity;
mod lives;
mod losses;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use double::{Double, TOKEN};
use protocol::agent_api::{AttemptOrder, Source, StopOrder};
use protocol::event::{Artifact, ArtifactRole, EventKind, LogStream};
use protocol::spec::{Limits, Network, Resources};
use protocol::{
    AttemptId, ByteSize, Digest, FailureKind, JobId, JobSpec, Outcome, PipelineId, ProjectId, Span,
    Timestamp, Trust, Work,
};

/// A host with an agent on it.
struct Host {
    dir: tempfile::TempDir,
    server: Double,
    agent: Option<Child>,
    /// The program, and where it finds its driver if not where the build has it.
    program: PathBuf,
}

impl Host {
    async fn new(more: &str) -> Self {
        Self::with_executor("docker = false\nshell = true\n", more).await
    }

    async fn with_executor(executor: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Double::start().await;
        let config = format!(
            "name = \"host\"\nserver = \"{}\"\ndata = \"{}\"\n\
             [executors]\n{executor}\
             [timing]\nretry = \"20ms\"\nretry_most = \"200ms\"\ncall = \"20s\"\n{more}",
            server.url,
            dir.path().join("data").display(),
        );
        std::fs::write(dir.path().join("agent.toml"), config).unwrap();
        std::fs::create_dir(dir.path().join("project")).unwrap();
        let mut host = Self {
            dir,
            server,
            agent: None,
            program: env!("CARGO_BIN_EXE_trainyard").into(),
        };
        let registered = host
            .command(&["agent", "register", &host.server.url])
            .env("TRAINYARD_REGISTRATION", TOKEN)
            .output()
            .unwrap();
        assert!(
            registered.status.success(),
            "{}",
            String::from_utf8_lossy(&registered.stderr)
        );
        host.start();
        host
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("TRAINYARD_AGENT_CONFIG", self.dir.path().join("agent.toml"))
            .env_remove("TRAINYARD_DRIVER")
            .env_remove("TRAINYARD_REGISTRATION");
        command
    }

    /// Installs the program as a release does, below a folder of this name, and uses it from now on. The driver gets
    /// a tail of its own: another version's is another file.
    fn install(&mut self, version: &str) {
        let (bin, lib) = (
            self.path(version).join("bin"),
            self.path(version).join("lib/trainyard"),
        );
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(&lib).unwrap();
        self.program = bin.join("trainyard");
        std::fs::copy(env!("CARGO_BIN_EXE_trainyard"), &self.program).unwrap();
        let driver = lib.join("trainyard-driver");
        let built = Path::new(env!("CARGO_BIN_EXE_trainyard"))
            .parent()
            .unwrap()
            .join("../lib/trainyard/trainyard-driver");
        std::fs::copy(built, &driver).unwrap();
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&driver)
            .unwrap();
        file.write_all(version.as_bytes()).unwrap();
    }

    fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("agent.log"))
            .unwrap();
        self.agent = Some(
            self.command(&["agent"])
                .stderr(log)
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
        );
    }

    /// Ends the agent's process at once, and nothing else.
    fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Asks the agent to end, and gives its exit code.
    async fn terminate(&mut self) -> Option<i32> {
        let agent = self.agent.as_ref().unwrap();
        Command::new("kill")
            .arg(agent.id().to_string())
            .status()
            .unwrap();
        self.exit().await
    }

    async fn exit(&mut self) -> Option<i32> {
        let mut agent = self.agent.take().unwrap();
        wait("the agent ends", || agent.try_wait().unwrap().is_some()).await;
        agent.wait().unwrap().code()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Wants a command to be run.
    fn order(&self, text: &str, change: impl FnOnce(&mut AttemptOrder)) -> AttemptId {
        let mut order = AttemptOrder {
            attempt: AttemptId::generate(),
            generation: 1,
            job: JobId::generate(),
            number: 1,
            pipeline: PipelineId::generate(),
            project: ProjectId::generate(),
            project_name: "digits".into(),
            source: Source::Folder {
                path: self.path("project").display().to_string(),
            },
            trust: Trust::Trusted,
            spec: spec(text),
            secrets: BTreeMap::new(),
            gpus: vec![],
            needs: BTreeMap::new(),
            parent: None,
            checkpoint: None,
            run: None,
        };
        change(&mut order);
        let id = order.attempt.clone();
        self.server
            .with(|world| world.orders.insert(id.clone(), order));
        id
    }

    async fn reported(&self) -> Outcome {
        self.server
            .until("the attempt is reported", |world| !world.reports.is_empty())
            .await;
        self.server.with(|world| {
            assert_eq!(world.violations, Vec::<String>::new());
            assert_eq!(world.reports.len(), 1, "one result is believed");
            world.reports[0].outcome.clone()
        })
    }

    /// What the job wrote, as the server has it.
    fn output(&self) -> String {
        self.server.with(|world| {
            let text = |kind: &EventKind| match kind {
                EventKind::Log {
                    stream: LogStream::Stdout,
                    text,
                } => Some(text.clone()),
                _ => None,
            };
            world
                .events
                .iter()
                .filter_map(|event| text(event.body.known()?))
                .collect()
        })
    }

    fn attempts(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("data/attempts")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the agent's log\n{}", self.log());
        }
    }
}

fn spec(text: &str) -> JobSpec {
    JobSpec {
        name: "train".into(),
        definition: "train".into(),
        work: Work::Command { text: text.into() },
        parameters: serde_json::Map::new(),
        checkout: Default::default(),
        image: "trainyard/notebook".into(),
        python: None,
        env: BTreeMap::new(),
        secrets: vec![],
        network: Network::Full,
        resources: Resources::default(),
        runs_on: vec![],
        volumes: BTreeMap::new(),
        turn: protocol::spec::Turn::default(),
        needs: vec![],
        artifacts: vec!["out.bin".into()],
        limits: Limits::default(),
        checkpoints: Default::default(),
        model: None,
        metrics: BTreeMap::new(),
        first_metric: None,
        parent: None,
        retries: 0,
        reuse: false,
    }
}

async fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn lines(n: u32) -> String {
    (1..=n).map(|n| format!("line {n}\n")).collect()
}

/// A command that writes so many lines, and can be held up: it goes on when `file` is there.
fn counted(n: u32, file: &Path) -> String {
    format!(
        "echo x >> {0}.ran; i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo line $i; done; while [ ! -e {0} ]; do sleep 0.05; done; head -c 20000000 /dev/zero | tr '\\0' 'a' > out.bin",
        file.display()
    )
}
