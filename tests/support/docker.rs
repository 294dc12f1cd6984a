//! Docker as somebody at the host uses it.

use std::process::{Command, Output};

fn docker(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().unwrap()
}

/// Ids of the containers with a label, ended ones included.
pub(crate) fn labelled(label: &str) -> Vec<String> {
    let output = docker(&[
        "ps",
        "--all",
        "--quiet",
        "--no-trunc",
        "--filter",
        &format!("label={label}"),
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Ends and removes containers.
pub(crate) fn remove(containers: &[String]) {
    for container in containers {
        docker(&["rm", "--force", container]);
    }
}

/// The id that a container's first process has on the host.
pub(crate) fn first_process(container: &str) -> u32 {
    let output = docker(&["inspect", "--format", "{{.State.Pid}}", container]);
    let pid = String::from_utf8(output.stdout).unwrap();
    let pid: u32 = pid.trim().parse().unwrap();
    assert!(pid > 1, "the container runs");
    pid
}

/// `kill -9`, from the host, of a container's first process.
pub(crate) fn kill_first_process(container: &str) {
    let pid = first_process(container);
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
}
