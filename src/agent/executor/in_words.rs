//! A container as the `docker` program's arguments, for a person's terminal. It starts nothing.

use bollard::models::{DeviceRequest, HostConfig, Mount};

use super::container::ContainerSpec;

impl ContainerSpec {
    /// Arguments of `docker run` for the container that the engine would be asked for: taken from what it would be told.
    pub(crate) fn run_arguments(&self, terminal: bool) -> Vec<String> {
        let body = self.body();
        let mut said = vec!["run".to_owned(), "--rm".into(), "--interactive".into()];
        if terminal {
            said.push("--tty".into());
        }
        let mut say = |name: &str, value: String| said.push(format!("--{name}={value}"));
        let one = |name: &'static str, value: Option<String>| value.map(|value| (name, value));
        let singles = [
            one("hostname", body.hostname),
            one("user", body.user),
            one("workdir", body.working_dir),
            one(
                "entrypoint",
                body.entrypoint.and_then(|argv| argv.into_iter().next()),
            ),
        ];
        for (name, value) in singles.into_iter().flatten() {
            say(name, value);
        }
        for (name, value) in body.labels.unwrap_or_default() {
            say("label", format!("{name}={value}"));
        }
        for variable in body.env.unwrap_or_default() {
            say("env", variable);
        }
        if let Some(test) = body.healthcheck.and_then(|check| check.test) {
            say("no-healthcheck", (test == ["NONE"]).to_string());
        }
        for (name, value) in host_arguments(body.host_config.unwrap_or_default()) {
            say(name, value);
        }
        said.extend(body.image);
        said.extend(body.cmd.unwrap_or_default());
        said
    }
}

fn host_arguments(host: HostConfig) -> Vec<(&'static str, String)> {
    let mut said = Vec::new();
    let numbers = [
        ("memory", host.memory),
        ("memory-swap", host.memory_swap),
        ("pids-limit", host.pids_limit),
        ("shm-size", host.shm_size),
    ];
    said.extend(
        numbers
            .into_iter()
            .filter_map(|(name, n)| Some((name, n?.to_string()))),
    );
    if let Some(cpus) = host.nano_cpus {
        said.push((
            "cpus",
            format!("{}.{:03}", cpus / 1_000_000_000, cpus / 1_000_000 % 1_000),
        ));
    }
    said.extend(host.network_mode.map(|mode| ("network", mode)));
    said.push((
        "read-only",
        host.readonly_rootfs.unwrap_or_default().to_string(),
    ));
    said.push(("init", host.init.unwrap_or_default().to_string()));
    said.extend(
        host.log_config
            .and_then(|log| Some(("log-driver", log.typ?))),
    );
    let lists = [
        ("add-host", host.extra_hosts),
        ("cap-drop", host.cap_drop),
        ("cap-add", host.cap_add),
        ("security-opt", host.security_opt),
    ];
    for (name, values) in lists {
        said.extend(
            values
                .unwrap_or_default()
                .into_iter()
                .map(|value| (name, value)),
        );
    }
    said.extend(
        host.mounts
            .unwrap_or_default()
            .iter()
            .map(|one| ("mount", mount(one))),
    );
    said.extend(
        host.device_requests
            .unwrap_or_default()
            .into_iter()
            .filter_map(gpus),
    );
    said
}

fn mount(mount: &Mount) -> String {
    let field = |name: &str, value: &Option<String>| {
        quote(&format!("{name}={}", value.as_deref().unwrap_or_default()))
    };
    let mut text = format!(
        "type=bind,{},{}",
        field("source", &mount.source),
        field("target", &mount.target)
    );
    if mount.read_only.unwrap_or_default() {
        text.push_str(",readonly");
    }
    text
}

fn gpus(request: DeviceRequest) -> Option<(&'static str, String)> {
    let ids = request.device_ids?.join(",");
    Some(("gpus", quote(&format!("device={ids}"))))
}

/// A field of a line of comma-separated values, as the program reads it.
fn quote(field: &str) -> String {
    if field.contains([',', '"']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use protocol::spec::Network;

    use super::*;

    #[test]
    fn no_check_of_the_images_runs_past_the_driver() {
        let spec = ContainerSpec {
            name: "story".into(),
            image: "image".into(),
            argv: vec!["/trainyard-driver".into()],
            user: "0:0".into(),
            workdir: "/".into(),
            env: Default::default(),
            labels: Default::default(),
            mounts: Vec::new(),
            network: Network::None,
            capabilities: &[],
            memory: None,
            cpu_millis: None,
            processes: None,
            shm: None,
            gpus: Vec::new(),
        };
        let check = spec.body().healthcheck.and_then(|check| check.test);
        assert_eq!(check, Some(vec!["NONE".to_owned()]));
        let said = spec.run_arguments(false);
        assert!(
            said.contains(&"--no-healthcheck=true".to_owned()),
            "{said:?}"
        );
    }
}
