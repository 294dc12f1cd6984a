//! Stories of hosts that leave and come: drained, lost, reached by TLS of a private authority.

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use protocol::api::JobDetail;
use protocol::{JobId, Outcome};

use crate::support::api::said;
use crate::support::project::notebook;
use crate::support::{HOST, World, until};

const OTHER: &str = "other";

/// Trains until it is interrupted, and saves then; a later attempt says from where it goes on.
const TRAINS: &str = "import os, pathlib, time\n\
    folder = pathlib.Path(os.environ['TRAINYARD_CHECKPOINT_DIR'])\n\
    saved = folder / 'epoch'\n\
    if saved.exists():\n    print('attempt', os.environ['TRAINYARD_ATTEMPT'], 'goes on from', saved.read_text())\n\
    else:\n    (folder / 'epoch.tmp').write_text('3')\n    (folder / 'epoch.tmp').rename(saved)\n\
    \u{20}   print('waiting', flush=True)\n    try:\n        time.sleep(600)\n\
    \u{20}   except KeyboardInterrupt:\n        saved.write_text('7')\n        raise\n";

/// A world whose job waits on its first host.
async fn training(more: &str, settings: &str) -> (World, JobId) {
    let world = World::with_settings(&format!("poll_interval_local = \"100ms\"\n{settings}")).await;
    let pipeline = format!(
        "jobs:\n  train:\n    notebook: train.ipynb\n    resources: {{cpus: 0.5, memory: 512MiB}}\n    checkpoints: {{across_hosts: true}}\n{more}"
    );
    let notebook = notebook(&[TRAINS]);
    world
        .project
        .commit(&[(".trainyard.yml", &pipeline), ("train.ipynb", &notebook)]);
    world.watch(&[]);
    let job = world.waiting(&world.project.head(), 1).await;
    (world, job)
}

async fn ended(world: &World, job: &JobId) -> (JobDetail, String) {
    world.finished(&world.project.head()).await;
    let detail = world.api().job(job).await;
    let events = world.api().events(job, None).await;
    (detail, said(&events))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_hosts_job_saves_and_goes_on_elsewhere() {
    let (mut world, job) = training("    retries: 0\n    grace: 30s\n", "").await;
    world.add_agent(OTHER);
    let server = world.api().url.clone();
    let words = world.ok(&["agents", "drain", HOST, "--stop-jobs", "--server", &server]);
    assert!(words.contains("goes on elsewhere"), "{words}");
    let (detail, said) = ended(&world, &job).await;
    assert_eq!(detail.job.state.outcome(), Some(&Outcome::Succeeded));
    assert_eq!(said, "attempt 2 goes on from 7\n");
    let agents: Vec<_> = detail.attempts.iter().map(|a| a.agent.as_str()).collect();
    assert_eq!(agents, [HOST, OTHER]);
    let table = world.ok(&["agents", "--server", &server]);
    assert!(table.contains("drained: by local"), "{table}");
    // What a job that succeeded left is gone from the host that had it last.
    let folder = world.path(OTHER).join("checkpoints").join(job.as_str());
    until("its checkpoints are removed", async || {
        (!folder.exists()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_hosts_job_goes_on_elsewhere_from_what_had_arrived() {
    let settings = "poll_hold = \"200ms\"\nunreachable_after = \"500ms\"\nlost_after = \"1h\"\n";
    let (mut world, job) = training("    lost_after: 2s\n", settings).await;
    until("the checkpoint is on the server", async || {
        let events = world.api().events(&job, None).await;
        let text = serde_json::to_string(&events).unwrap();
        text.contains("is on the server").then_some(())
    })
    .await;
    world.kill_agent(HOST).await;
    world.add_agent(OTHER);
    let (detail, said) = ended(&world, &job).await;
    assert_eq!(detail.job.state.outcome(), Some(&Outcome::Succeeded));
    assert_eq!(said, "attempt 2 goes on from 3\n");
    // It comes back too late, and ends what nobody believes any more.
    world.start_agent(HOST);
    until("its container is removed", async || {
        world.containers(HOST).is_empty().then_some(())
    })
    .await;
    assert_eq!(world.api().job(&job).await.attempts.len(), 2);
}

#[test]
fn an_agent_is_installed_as_a_service_and_shown_before() {
    let root = tempfile::tempdir().unwrap();
    let below = root.path().display().to_string();
    let install = |more: &[&str]| {
        let words = [
            "agent",
            "install",
            "https://trainyard.example",
            "--root",
            &below,
        ];
        let output = Command::new(env!("CARGO_BIN_EXE_trainyard"))
            .args(
                [
                    &words[..],
                    &["--name", "gpu-1", "--data", "/raid/trainyard"],
                    more,
                ]
                .concat(),
            )
            .output()
            .unwrap();
        // 1 where this host lacks something; the files are written all the same.
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = install(&["--dry-run"]);
    assert!(
        shown.contains("would be made") && shown.contains("KillMode=process"),
        "{shown}"
    );
    assert!(std::fs::read_dir(root.path()).unwrap().next().is_none());
    let said = install(&[]);
    for words in [
        "agent.toml made",
        "systemctl enable --now",
        "this host:",
        "engine",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let config = agent::config::Config::read(&root.path().join("etc/trainyard/agent.toml"));
    assert_eq!(config.unwrap().name.as_deref(), Some("gpu-1"));
    let unit = root
        .path()
        .join("etc/systemd/system/trainyard-agent.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let program = env!("CARGO_BIN_EXE_trainyard");
    assert!(
        unit.contains(&format!("ExecStart={program} agent --config")),
        "{unit}"
    );
    let again = install(&[]);
    assert!(
        again.contains("is kept as it is") && again.contains("is as it should be"),
        "{again}"
    );
}

/// A process that ends with its story.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let made = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// An authority of one's own, and a certificate that it gave to this host.
fn certify(folder: &Path) {
    let curve = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let ca = ["req", "-x509", "-days", "2", "-subj", "/CN=Our own CA"];
    openssl(
        folder,
        &[&ca[..], &curve, &["-out", "ca.pem", "-keyout", "ca.key"]].concat(),
    );
    let request = [
        "req",
        "-subj",
        "/CN=server",
        "-out",
        "s.csr",
        "-keyout",
        "s.key",
    ];
    openssl(folder, &[&request[..], &curve].concat());
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let sign = "x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out s.pem";
    openssl(folder, &sign.split(' ').collect::<Vec<_>>());
}

#[test]
fn an_agent_reaches_a_server_whose_certificate_is_of_a_private_authority() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    certify(folder.path());
    let server = format!(
        "listen = \"127.0.0.1:0\"\ndata = \"{}\"\n[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        at("server"),
        at("s.pem"),
        at("s.key"),
    );
    std::fs::write(at("server.toml"), server).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(arguments)
            .env("TRAINYARD_SERVER_CONFIG", at("server.toml"))
            .env("TRAINYARD_AGENT_CONFIG", at("agent.toml"))
            .env("TRAINYARD_CA_BUNDLE", at("ca.pem"))
            .env_remove("TRAINYARD_TOKEN")
            .stderr(Stdio::piped());
        command
    };
    let mut serving = run(&["server", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(serving.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let _server = Running(serving);
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    let port = said["url"].as_str().unwrap().rsplit(':').next().unwrap();
    let url = format!("https://127.0.0.1:{}", port.trim_end_matches('/'));
    let token = run(&["agents", "token", "--server", &url])
        .output()
        .unwrap();
    assert!(token.status.success(), "{token:?}");
    std::fs::write(at("token"), token.stdout).unwrap();

    let configure = |more: &str| {
        let text = format!(
            "name = \"host\"\ndata = \"{}\"\n{more}[executors]\ndocker = false\nshell = true\n",
            at("data")
        );
        std::fs::write(at("agent.toml"), text).unwrap();
        run(&["agent", "register", &url, "--token-file", &at("token")])
            .output()
            .unwrap()
    };
    let refused = configure("");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && words.contains("certificate"),
        "{words}"
    );
    let registered = configure(&format!("server_ca = \"{}\"\n", at("ca.pem")));
    assert!(registered.status.success(), "{registered:?}");
    let _agent = Running(run(&["agent"]).stderr(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let list = run(&["agents", "--json", "--server", &url])
            .output()
            .unwrap();
        let page: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
        if page["items"][0]["state"] == "idle" {
            return;
        }
        assert!(Instant::now() < deadline, "{page:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
