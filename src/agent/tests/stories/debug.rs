//! What a person finds who enters a failed job.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use agent::debug::{self, DebugError, Options, Room};
use protocol::Work;

use crate::support::{Done, World, engine};

async fn room(world: &World, done: &Done, id: &str) -> Room {
    let dir = debug::find(world.host.data(), id).unwrap();
    assert_eq!(dir, done.dir);
    debug::open(&world.host.config, &dir, Options::default())
        .await
        .unwrap()
}

/// Gives the room's shell these lines.
fn enter(room: &Room, lines: &str) -> Output {
    let mut command = Command::new(&room.argv[0]);
    command.args(&room.argv[1..]).current_dir(&room.folder);
    if let Some(env) = &room.env {
        command.env_clear().envs(env);
    }
    let mut shell = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    shell
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    shell.wait_with_output().unwrap()
}

fn said(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_notebook_is_entered_as_its_job_was() {
    if !engine().await {
        return;
    }
    let world = World::new();
    world.notebook(
        "nb/a.ipynb",
        &[
            "open('left.txt', 'w').write('half done')",
            "x = lr * 2\nraise ValueError('no good')",
        ],
    );
    let mut order = world.order(Work::Notebook {
        path: "nb/a.ipynb".into(),
    });
    order.spec.parameters.insert("lr".into(), 21.into());
    order.spec.env.insert("COLOUR".into(), "a, \"b\" $c".into());
    order.spec.secrets = vec!["TOKEN".into()];
    order.secrets.insert("TOKEN".into(), "s3cret".into());
    let done = world.run(&order).await;
    done.failure();

    let room = room(&world, &done, order.job.as_str()).await;
    assert!(
        room.words.iter().any(|words| words.contains("TOKEN")),
        "{room:?}"
    );
    assert!(!room.line().contains("s3cret"), "{room:?}");
    let found = enter(
        &room,
        "find . -name left.txt -exec cat {} \\; ; echo\npwd\necho \"$COLOUR\"\necho ${TOKEN-none}\nid -u\n\
         touch more.txt && echo written\ntouch /root-is-read-only 2>/dev/null || echo refused\n\
         grep CapEff /proc/self/status\nls /sys/class/net\n",
    );
    let uid = world.host.job_user.0.to_string();
    assert_eq!(
        said(&found),
        [
            "half done",
            "/workspace",
            "a, \"b\" $c",
            "none",
            &uid,
            "written",
            "refused",
            "CapEff:\t0000000000000000",
            "lo",
        ]
    );
    assert!(done.dir.workspace().join("more.txt").exists());

    let again = room
        .words
        .iter()
        .find_map(|words| words.split_once("ipython -i "));
    let (_, program) = again.expect("how to run it again");
    let lines = format!("cd nb\necho \"print('x is', x)\" | ipython -i --no-banner {program}\n");
    let output = enter(&room, &lines);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("no good") && text.contains("x is 42"),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_job_is_entered_on_the_host() {
    let world = World::with(|config| {
        config.executors.docker = false;
        config.executors.shell = true;
    });
    let order = world.command("echo half done >left.txt; false");
    let done = world.run(&order).await;
    done.failure();
    let room = room(&world, &done, order.attempt.as_str()).await;
    let found = enter(&room, "cat left.txt\necho $TRAINYARD_ATTEMPT_ID\n");
    assert_eq!(said(&found), ["half done", order.attempt.as_str()]);
    assert!(
        room.words
            .iter()
            .any(|words| words.contains("echo half done >left.txt; false")),
        "{room:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_entered_is_said() {
    let world = World::with(|config| {
        config.executors.docker = false;
        config.executors.shell = true;
    });
    let find = |id: &str| debug::find(world.host.data(), id);
    assert!(matches!(find("nobody"), Err(DebugError::NotHere { .. })));
    let order = world.command("false");
    let dir = world.dir(&order);
    assert!(matches!(
        find(order.job.as_str()),
        Err(DebugError::NotOver { .. })
    ));
    let done = world.run(&order).await;
    done.failure();
    assert!(find(order.job.as_str()).is_ok());
    std::fs::write(dir.kept_until_file(), "1000").unwrap();
    let over = find(order.job.as_str()).unwrap_err();
    assert!(matches!(over, DebugError::NotKept { .. }), "{over}");
}
