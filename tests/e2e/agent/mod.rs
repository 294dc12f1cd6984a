//! Stories of a real agent and a server that fails: whatever gets lost between them, a job starts, runs once,
//! and its story and files arrive whole.

mod double;

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
            checkpoint: None,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_job_starts_though_answers_get_lost() {
    let host = Host::new("").await;
    host.server.with(|world| world.faults.lost_starts = 2);
    host.order("echo line 1", |order| order.spec.artifacts.clear());
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.output(), lines(1));
    wait("its folder is removed", || host.attempts().is_empty()).await;
    host.server
        .until("it leaves the polls", |world| {
            world
                .last_poll
                .as_ref()
                .is_some_and(|poll| poll.attempts.is_empty())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_repeated_or_forgotten_leave_a_whole_story() {
    let host = Host::new("").await;
    host.server.with(|world| {
        world.faults.unacknowledged = 3;
        world.faults.forgotten = 3;
    });
    let (go, count) = (host.path("go"), host.path("count"));
    let text = format!(
        "i=0; while [ ! -e {} ]; do i=$((i+1)); echo line $i; sleep 0.02; done; echo $i > {}",
        go.display(),
        count.display()
    );
    host.order(&text, |order| order.spec.artifacts.clear());
    host.server
        .until("all has gone wrong", |world| {
            (world.faults.unacknowledged, world.faults.forgotten) == (0, 0)
        })
        .await;
    std::fs::write(&go, "").unwrap();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    let count = std::fs::read_to_string(&count).unwrap();
    assert_eq!(host.output(), lines(count.trim().parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_it_was_cut() {
    let host = Host::new("").await;
    host.server.with(|world| {
        world.faults.cut_pieces = 2;
        world.faults.wrong_hashes = 1;
    });
    let file = host.path("go");
    std::fs::write(&file, "").unwrap();
    host.order(&counted(1, &file), |_| {});
    assert_eq!(host.reported().await, Outcome::Succeeded);
    host.server.with(|world| {
        let blob = Digest::of(vec![b'a'; 20_000_000]);
        assert_eq!(world.blobs.get(&blob).map(Vec::len), Some(20_000_000));
        // Twice whole, because the hash was doubted once, and two halves of a piece.
        assert!(
            world.received <= 2 * 20_000_000 + 2 * (8 << 20),
            "{}",
            world.received
        );
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_server_never_takes_is_the_platforms_failure() {
    let host = Host::new("").await;
    host.server.with(|world| world.faults.wrong_hashes = 100);
    let file = host.path("go");
    std::fs::write(&file, "").unwrap();
    host.order(&counted(1, &file), |_| {});
    let Outcome::Failed(failure) = host.reported().await else {
        panic!("it succeeded")
    };
    assert_eq!(failure.kind, FailureKind::UploadFailed);
    assert!(failure.message.contains("out.bin"), "{}", failure.message);
    host.server
        .with(|world| assert!(world.reports[0].artifacts.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_attempt_ends_and_leaves_nothing() {
    let host = Host::new("").await;
    let pid = host.path("pid");
    let id = host.order(
        &format!("echo $$ > {}; exec sleep 600", pid.display()),
        |_| {},
    );
    wait("the job runs", || {
        std::fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))
    })
    .await;
    host.server.with(|world| world.abandoned.insert(id));
    let process = format!("/proc/{}", std::fs::read_to_string(&pid).unwrap().trim());
    wait("the job is ended", || !Path::new(&process).exists()).await;
    wait("its folder is removed", || host.attempts().is_empty()).await;
    host.server
        .until("it leaves the polls", |world| {
            world
                .last_poll
                .as_ref()
                .is_some_and(|poll| poll.attempts.is_empty())
        })
        .await;
    host.server.with(|world| assert!(world.reports.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_attempt_reports_who_asked() {
    let host = Host::new("").await;
    let id = host.order("echo line 1; exec sleep 600", |order| {
        order.spec.artifacts.clear()
    });
    host.server
        .until("the job runs", |world| {
            world.events.iter().any(|event| {
                matches!(
                    event.body.known(),
                    Some(EventKind::Log {
                        stream: LogStream::Stdout,
                        ..
                    })
                )
            })
        })
        .await;
    host.server.with(|world| {
        world.stops.push(StopOrder {
            attempt: id,
            by: "ada".into(),
            grace: Span::secs(5),
        });
    });
    assert_eq!(
        host.reported().await,
        Outcome::Cancelled { by: "ada".into() }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_goes_on_with_its_job() {
    let mut host = Host::new("").await;
    let file = host.path("go");
    host.order(&counted(500, &file), |_| {});
    host.server
        .until("lines arrive", |world| world.events.len() > 3)
        .await;
    host.kill();
    host.start();
    host.server
        .until("the attempt is in the polls of the new agent", |world| {
            world
                .last_poll
                .as_ref()
                .is_some_and(|poll| !poll.attempts.is_empty())
        })
        .await;
    host.kill();
    std::fs::write(&file, "").unwrap();
    host.start();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.output(), lines(500));
    let ran = std::fs::read_to_string(host.path("go.ran")).unwrap();
    assert_eq!(ran, "x\n", "the job ran once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_outlives_its_agent_and_leaves_nothing_behind() {
    let mut host = Host::with_executor("docker = true\n", "").await;
    let id = host.order(
        "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo done > out.bin",
        |order| order.spec.network = Network::None,
    );
    host.server
        .until("lines arrive", |world| {
            world.events.iter().any(|event| {
                matches!(
                    event.body.known(),
                    Some(EventKind::Log {
                        stream: LogStream::Stdout,
                        ..
                    })
                )
            })
        })
        .await;
    host.kill();
    host.start();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.output(), lines(40));
    host.server.with(|world| {
        let report = &world.reports[0];
        assert_eq!(report.setting.executor, "docker");
        assert_eq!(world.blobs[&report.artifacts[0].blob], b"done\n");
    });
    let left = Command::new("docker")
        .args(["ps", "--all", "--quiet", "--filter", &format!("name={id}")])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&left.stdout),
        "",
        "its container is removed"
    );
    wait("its folder is removed", || host.attempts().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_while_it_uploads_reports_once() {
    let mut host = Host::new("").await;
    host.server.with(|world| world.faults.blobs_hang = true);
    let file = host.path("go");
    std::fs::write(&file, "").unwrap();
    host.order(&counted(100, &file), |_| {});
    host.server
        .until("the upload begins", |world| world.received > 0)
        .await;
    host.kill();
    host.server.with(|world| world.faults.blobs_hang = false);
    host.start();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.output(), lines(100));
    assert_eq!(std::fs::read_to_string(host.path("go.ran")).unwrap(), "x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_told_to_end_leaves_its_job_running() {
    let mut host = Host::new("").await;
    let file = host.path("go");
    host.order(&counted(10, &file), |_| {});
    wait("the job runs", || host.path("go.ran").exists()).await;
    assert_eq!(host.terminate().await, Some(0));
    std::fs::write(&file, "").unwrap();
    host.start();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(std::fs::read_to_string(host.path("go.ran")).unwrap(), "x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_drained_on_its_host_takes_nothing_new_and_lets_jobs_go() {
    let mut host = Host::new("").await;
    let id = host.order(
        "trap 'echo saved; exit 0' TERM; echo line 1; while :; do sleep 0.05; done",
        |order| order.spec.artifacts.clear(),
    );
    host.server
        .until("the job runs", |world| world.events.len() > 3)
        .await;
    let ask = |host: &Host, words: &[&str]| {
        let asked = host.command(words).env("USER", "eva").output().unwrap();
        assert!(asked.status.success(), "{asked:?}");
    };
    ask(&host, &["agent", "drain"]);
    host.server
        .until("the server hears it", |world| {
            world.last_poll.as_ref().is_some_and(|poll| {
                let why = poll.closed.as_deref().unwrap_or_default();
                !poll.accepting && !poll.evict && why == "drained on its host by eva"
            })
        })
        .await;
    ask(&host, &["agent", "drain", "--stop-jobs"]);
    let evicts = |world: &double::World| world.last_poll.as_ref().is_some_and(|poll| poll.evict);
    host.server.until("and that jobs are to go", evicts).await;
    host.server.with(|world| {
        world.stops.push(StopOrder {
            attempt: id,
            by: "drained on its host by eva".into(),
            grace: Span::secs(5),
        });
    });
    let by = "drained on its host by eva".to_owned();
    assert_eq!(host.reported().await, Outcome::Cancelled { by });
    assert_eq!(host.output(), "line 1\nsaved\n");
    // The wish outlives the agent.
    host.kill();
    host.start();
    host.server.until("still drained", evicts).await;
    ask(&host, &["agent", "undrain"]);
    host.server
        .until("it takes jobs again", |world| {
            world.last_poll.as_ref().is_some_and(|poll| poll.accepting)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_to_stop_when_idle_ends_after_its_job() {
    let mut host = Host::new("").await;
    let file = host.path("go");
    host.order(&counted(10, &file), |_| {});
    wait("the job runs", || host.path("go.ran").exists()).await;
    let mut stop = host
        .command(&["agent", "stop", "--when-idle"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    host.server
        .until("it takes nothing new", |world| {
            world.last_poll.as_ref().is_some_and(|poll| !poll.accepting)
        })
        .await;
    assert!(stop.try_wait().unwrap().is_none(), "its job still runs");
    std::fs::write(&file, "").unwrap();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.exit().await, Some(0));
    let said = stop.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        "the agent has ended\n"
    );
    // The next one is not bound by it.
    host.start();
    host.server
        .until("it takes jobs", |world| {
            world.last_poll.as_ref().is_some_and(|poll| poll.accepting)
        })
        .await;
    let stop = host.command(&["agent", "stop"]).output().unwrap();
    assert!(stop.status.success(), "{stop:?}");
    assert_eq!(host.exit().await, Some(0));
    let none = host.command(&["agent", "stop"]).output().unwrap();
    assert!(String::from_utf8_lossy(&none.stdout).contains("no agent runs"));
}

/// What an upgrade is: another binary and driver at another path; the old ones are gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_upgraded_finishes_the_job_that_it_had() {
    for executor in ["docker = false\nshell = true\n", "docker = true\n"] {
        let mut host = Host::with_executor(executor, "").await;
        host.kill();
        host.install("first");
        host.start();
        host.order(
            "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo done > out.bin",
            |order| order.spec.network = Network::None,
        );
        host.server
            .until("the job says something", |world| {
                let said = |kind: &EventKind| {
                    matches!(
                        kind,
                        EventKind::Log {
                            stream: LogStream::Stdout,
                            ..
                        }
                    )
                };
                world
                    .events
                    .iter()
                    .filter_map(|event| event.body.known())
                    .any(said)
            })
            .await;
        assert_eq!(host.terminate().await, Some(0));
        host.install("second");
        std::fs::remove_dir_all(host.path("first")).unwrap();
        host.start();
        assert_eq!(host.reported().await, Outcome::Succeeded);
        assert_eq!(host.output(), lines(40));
        host.server.with(|world| {
            let report = &world.reports[0];
            assert_eq!(world.blobs[&report.artifacts[0].blob], b"done\n");
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_says_so_and_asks_no_more() {
    let mut host = Host::new("").await;
    host.server.until("it polls", |world| world.polls > 0).await;
    host.server.with(|world| world.faults.revoked = true);
    assert_eq!(host.exit().await, Some(2));
    assert!(host.log().contains("register it again"), "{}", host.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_too_old_says_what_to_install_and_its_job_goes_on() {
    let mut host = Host::new("").await;
    let file = host.path("go");
    host.order(&counted(10, &file), |_| {});
    wait("the job runs", || host.path("go.ran").exists()).await;
    host.server.with(|world| world.faults.upgraded = true);
    assert_eq!(host.exit().await, Some(2));
    let log = host.log();
    assert!(
        log.contains("install trainyard 9.9.9") && log.contains("running jobs go on"),
        "{log}"
    );
    std::fs::write(&file, "").unwrap();
    host.server.with(|world| world.faults.upgraded = false);
    host.start();
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(std::fs::read_to_string(host.path("go.ran")).unwrap(), "x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_identity_is_at_work_elsewhere_says_so_and_ends() {
    let mut host = Host::new("").await;
    host.server.until("it polls", |world| world.polls > 0).await;
    host.server.with(|world| world.faults.twin = true);
    assert_eq!(host.exit().await, Some(2));
    assert!(host.log().contains("another host"), "{}", host.log());
}

/// The server's clock is an hour ahead: what the agent tells is in the server's time.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_tells_no_wrong_times() {
    let host = Host::new("poll = \"200ms\"\n").await;
    let hour = Span::hours(1);
    host.server
        .with(|world| world.faults.ahead = i64::try_from(hour.0).unwrap());
    let before = Timestamp::now() + hour;
    wait("an answer told the clock", || {
        host.log().contains("1h00m behind")
    })
    .await;
    host.order("echo line 1", |order| order.spec.artifacts.clear());
    assert_eq!(host.reported().await, Outcome::Succeeded);
    let after = Timestamp::now() + hour + Span::secs(2);
    host.server.with(|world| {
        let report = &world.reports[0];
        let times = world.events.iter().map(|event| event.at);
        for at in times.chain([report.started_at, report.finished_at]) {
            assert!(
                before <= at && at <= after,
                "{at:?} in {before:?}..{after:?}"
            );
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_needs_lies_there_or_the_platform_is_to_blame() {
    let host = Host::new("").await;
    let bytes = b"from an earlier job\n".to_vec();
    let need = Artifact {
        role: ArtifactRole::Declared,
        path: "data/part.txt".into(),
        blob: Digest::of(&bytes),
        size: ByteSize(bytes.len() as u64),
    };
    let needs: BTreeMap<_, _> = [("prepare".to_owned(), vec![need.clone()])].into();
    host.server
        .with(|world| world.blobs.insert(need.blob.clone(), bytes));
    host.order("cat $TRAINYARD_NEEDS/prepare/data/part.txt", |order| {
        order.spec.artifacts.clear();
        order.needs = needs.clone();
    });
    assert_eq!(host.reported().await, Outcome::Succeeded);
    assert_eq!(host.output(), "from an earlier job\n");

    let other = Host::new("").await;
    other.server.with(|world| {
        world
            .blobs
            .insert(need.blob.clone(), b"from an earlier job\n".to_vec());
        world.faults.changed = Some(need.blob.clone());
    });
    other.order("cat $TRAINYARD_NEEDS/prepare/data/part.txt", |order| {
        order.needs = needs
    });
    let Outcome::Failed(failure) = other.reported().await else {
        panic!("it succeeded")
    };
    assert_eq!(failure.kind, FailureKind::CheckoutFailed);
    assert!(
        failure.message.contains("data/part.txt") && failure.message.contains("hash"),
        "{}",
        failure.message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workspace_of_a_failed_job_is_kept_without_its_secrets() {
    let host = Host::new("").await;
    let id = host.order("echo made > left.txt; exit 3", |order| {
        order.spec.artifacts.clear();
        order.spec.secrets = vec!["HF_TOKEN".into()];
        order.secrets = [("HF_TOKEN".to_owned(), "hf-very-secret".to_owned())].into();
    });
    let Outcome::Failed(failure) = host.reported().await else {
        panic!("it succeeded")
    };
    assert_eq!(failure.kind, FailureKind::CommandFailed);
    let folder = host.path("data/attempts").join(id.as_str());
    wait("it is kept", || folder.join("reported").exists()).await;
    assert_eq!(
        std::fs::read_to_string(folder.join("workspace/left.txt")).unwrap(),
        "made\n"
    );
    wait("nothing else is", || !folder.join("journal").exists()).await;
    let order = std::fs::read_to_string(folder.join("order.json")).unwrap();
    assert!(!order.contains("hf-very-secret"), "{order}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_closes_the_agent_and_says_why() {
    let host = Host::new("[disk]\nwatermark = \"4000TiB\"\n").await;
    host.server
        .until("it says so", |world| {
            world.last_poll.as_ref().is_some_and(|poll| {
                !poll.accepting
                    && poll
                        .closed
                        .as_ref()
                        .is_some_and(|why| why.contains("watermark"))
            })
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_kept_from_others_and_used_by_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::new("").await;
    let identity = host.path("data/agent.json");
    assert_eq!(
        std::fs::metadata(&identity).unwrap().permissions().mode() & 0o777,
        0o600
    );
    host.server.until("it polls", |world| world.polls > 0).await;
    let second = host.command(&["agent"]).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.contains("another agent uses"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_registers_nobody() {
    let mut host = Host::new("").await;
    host.kill();
    std::fs::remove_file(host.path("data/agent.json")).unwrap();
    let refused = host
        .command(&["agent", "register", &host.server.url, "--token", "guess"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not valid"));
    assert!(!host.path("data/agent.json").exists());
    let unregistered = host.command(&["agent"]).output().unwrap();
    assert!(String::from_utf8_lossy(&unregistered.stderr).contains("agent register"));
}

#[test]
fn doctor_and_gpus_speak_json() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    let text = format!(
        "data = \"{}\"\n[executors]\ndocker = false\n",
        dir.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let run = |command: &str| {
        Command::new(env!("CARGO_BIN_EXE_trainyard"))
            .args([command, "--json", "--config"])
            .arg(&config)
            .output()
            .unwrap()
    };
    let doctor = run("doctor");
    assert_eq!(
        doctor.status.code(),
        Some(1),
        "without an executor no job can run"
    );
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&doctor.stdout).unwrap();
    assert!(
        checks
            .iter()
            .any(|check| check["name"] == "executor" && check["level"] == "fail")
    );
    let gpus = run("gpus");
    assert!(gpus.status.success());
    serde_json::from_slice::<Vec<serde_json::Value>>(&gpus.stdout).unwrap();
}
