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

/// Makes a container with labels that is not started.
pub(crate) fn create(labels: &[String]) {
    let labels = labels.iter().flat_map(|label| ["--label", label]);
    let image = ["trainyard/notebook", "true"];
    let arguments: Vec<&str> = ["create"].into_iter().chain(labels).chain(image).collect();
    let output = docker(&arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
}

/// A container's name, state, command and labels.
pub(crate) fn described(container: &str) -> String {
    let format = "{{.Name}} {{.State.Status}} {{.Path}} {{.Args}} {{.Config.Labels}}";
    let output = docker(&["inspect", "--format", format, container]);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Ends and removes containers.
pub(crate) fn remove(containers: &[String]) {
    for container in containers {
        docker(&["rm", "--force", container]);
    }
}

/// The id that a container's first process has on the host; none where it does not run.
pub(crate) fn first_process(container: &str) -> Option<u32> {
    let output = docker(&["inspect", "--format", "{{.State.Pid}}", container]);
    let pid = String::from_utf8(output.stdout).unwrap();
    pid.trim().parse().ok().filter(|&pid| pid > 1)
}

/// `kill -9`, from the host, of a container's first process; false where it has none.
pub(crate) fn kill_first_process(container: &str) -> bool {
    let kill = |pid: u32| Command::new("kill").args(["-9", &pid.to_string()]).status();
    first_process(container).is_some_and(|pid| kill(pid).unwrap().success())
}
