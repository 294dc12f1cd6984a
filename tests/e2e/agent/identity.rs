//! Who an agent is, what it says of its host, and when it is not wanted.

use super::*;

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

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    let text = format!(
        "data = \"{}\"\n[executors]\ndocker = false\nshell = true\n",
        dir.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let (config, root) = (config.to_str().unwrap(), dir.path().to_str().unwrap());
    for words in [
        &["version"][..],
        &["doctor", "--config", config],
        &["agent", "stop", "--config", config],
        &["agent", "install", "--dry-run", "--root", root],
        &["init", root],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_trainyard"))
            .args(words)
            .current_dir(dir.path())
            .stdout(writer)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{words:?}: {said}");
        assert_ne!(output.status.code(), Some(101), "{words:?}: {said}");
    }
}

/// A token is not to stand among arguments, which others of a host can see.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_piped_or_pasted_by_a_person_who_is_asked_for_it() {
    let host = Host::new("").await;
    let config = |name: &str| {
        let data = host.path(name).display().to_string();
        let text = format!("name = \"{name}\"\ndata = \"{data}\"\n[executors]\ndocker = false\n");
        let file = host.path(&format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        file
    };
    let says = |mut command: Command, name: &str, input: &str| {
        let mut child = command
            .env("TRAINYARD_AGENT_CONFIG", config(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(host.path(name).join("agent.json").exists(), "{said}");
        said
    };
    let arguments = ["agent", "register", &host.server.url, "--token-file", "-"];
    let piped = says(host.command(&arguments), "piped", &format!("{TOKEN}\n"));
    assert!(piped.contains("registered as agent"), "{piped}");
    assert!(!piped.contains("paste the token"), "{piped}");

    // Of util-linux: a terminal for a program.
    let mut terminal = Command::new("script");
    let command = format!("'{}' {}", host.program.display(), arguments.join(" "));
    terminal
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env_remove("TRAINYARD_REGISTRATION");
    let asked = says(terminal, "pasted", &format!("{TOKEN}\n\u{4}"));
    assert!(
        asked.contains("paste the token that `trainyard agents token` on the server made"),
        "{asked}"
    );
    assert!(asked.contains("registered as agent"), "{asked}");
}
