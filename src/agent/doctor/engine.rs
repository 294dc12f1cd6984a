//! The container engine: what it is, and which of its ways jobs cannot live with.

use super::{Check, Level, checks, flaws};
use crate::config::Config;
use crate::executor::{Engine, EngineFacts};

pub(super) async fn engine(config: &Config) -> (Vec<Check>, Option<(Engine, EngineFacts)>) {
    let executors = &config.executors;
    let mut found = Vec::new();
    if executors.shell {
        found.push(Check::warn(
            "executor",
            "`executors.shell` is on: where there is no engine, jobs run as processes of this user and are not isolated at all",
            "use it only for code that you would run yourself",
        ));
    }
    if !executors.docker {
        if !executors.shell {
            let hint = "set `executors.docker = true` in the agent's configuration (or `executors.shell`, which isolates nothing)";
            found.push(Check::fail(
                "executor",
                "no executor is on: this agent can run nothing",
                hint,
            ));
        }
        return (found, None);
    }
    match facts(config).await {
        Ok((engine, facts)) => {
            found.push(Check::ok(
                "engine",
                format!(
                    "{} {} (API {}, cgroup v{}, {})",
                    facts.name,
                    facts.version,
                    facts.api,
                    facts.cgroup,
                    facts.runc.as_deref().map_or_else(
                        || "no word of runc".to_owned(),
                        |version| format!("runc {version}")
                    ),
                ),
            ));
            found.extend(judge(&facts));
            found.extend(toolkit().await);
            (found, Some((engine, facts)))
        }
        Err(reason) => {
            let hint = "install and start Docker (https://docs.docker.com/engine/install), or put this user into the group `docker`; another engine's socket goes into `executors.docker_host`";
            found.push(Check::fail("engine", reason, hint));
            (found, None)
        }
    }
}

async fn facts(config: &Config) -> Result<(Engine, EngineFacts), String> {
    let engine = Engine::connect(config)
        .await
        .map_err(|error| error.to_string())?;
    let facts = tokio::time::timeout(config.timing.engine.into(), engine.facts())
        .await
        .map_err(|_| format!("the engine did not answer within {}", config.timing.engine))?
        .map_err(|error| error.to_string())?;
    Ok((engine, facts))
}

/// Why an agent must not take jobs with this engine; none: it may. The agent asks this at its start and from time to
/// time.
pub(crate) async fn refusal(facts: &EngineFacts) -> Option<String> {
    let found = judge(facts).into_iter().chain(toolkit().await);
    let refused = found.into_iter().find(|check| check.level == Level::Fail)?;
    Some(match refused.hint {
        Some(hint) => format!("{}: {}; {hint}", refused.name, refused.found),
        None => format!("{}: {}", refused.name, refused.found),
    })
}

/// NVIDIA's container toolkit, where it is installed.
async fn toolkit() -> Option<Check> {
    let line = checks::version("nvidia-ctk".as_ref()).await.ok()?;
    flaws::toolkit(flaws::toolkit_version(&line)?)
}

/// What of an engine's ways matters to jobs.
fn judge(facts: &EngineFacts) -> Vec<Check> {
    let mut found: Vec<Check> = facts
        .runc
        .as_deref()
        .and_then(flaws::runc)
        .into_iter()
        .collect();
    if facts.rootless && facts.cgroup == 1 {
        found.push(Check::fail(
            "rootless",
            "the engine runs as an ordinary user under cgroup v1: limits of memory, CPUs and processes do not hold",
            "use the system's engine, or start the host with cgroup v2 (`systemd.unified_cgroup_hierarchy=1`)",
        ));
    } else if facts.rootless {
        found.push(Check::warn(
            "rootless",
            "the engine runs as an ordinary user: limits of CPUs and memory hold only where they are delegated to it",
            "check with `docker info` that no limit is missing, or use the system's engine",
        ));
    }
    if facts.user_namespaces {
        found.push(Check::fail(
            "user namespaces",
            "`userns-remap` is on: files of a job belong to other user ids on this host, and cannot be collected",
            "turn `userns-remap` off in /etc/docker/daemon.json; jobs run as an ordinary user without capabilities anyway",
        ));
    }
    if facts.selinux {
        found.push(Check::warn(
            "selinux",
            "SELinux is enforced on containers: the agent's folders may not be readable in them",
            "label the data folder: `chcon -Rt container_file_t` on it",
        ));
    }
    if facts.name == "podman" {
        found.push(Check::warn(
            "podman",
            "Podman ignores requests for GPUs silently",
            "use Docker for jobs that need GPUs",
        ));
    } else if !facts.live_restore {
        found.push(Check::warn(
            "live-restore",
            "a restart of the Docker daemon ends every running job",
            "set \"live-restore\": true in /etc/docker/daemon.json and reload the daemon",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> EngineFacts {
        EngineFacts {
            name: "docker".into(),
            live_restore: true,
            cgroup: 2,
            runc: Some("1.3.3".into()),
            ..EngineFacts::default()
        }
    }

    #[test]
    fn an_engine_with_odd_ways_is_not_passed_over_silently() {
        assert_eq!(judge(&plain()), vec![]);
        let odd = EngineFacts {
            rootless: true,
            user_namespaces: true,
            selinux: true,
            live_restore: false,
            runc: Some("1.1.5+ds1".into()),
            ..plain()
        };
        let found: Vec<_> = judge(&odd).iter().map(|c| (c.name, c.level)).collect();
        assert_eq!(
            found,
            [
                ("runc", Level::Warn),
                ("rootless", Level::Warn),
                ("user namespaces", Level::Fail),
                ("selinux", Level::Warn),
                ("live-restore", Level::Warn),
            ]
        );
        let podman = EngineFacts {
            name: "podman".into(),
            ..plain()
        };
        assert_eq!(judge(&podman)[0].name, "podman");
    }

    #[tokio::test]
    async fn an_agent_refuses_what_a_job_could_break_out_of() {
        assert_eq!(refusal(&plain()).await, None);
        let old = EngineFacts {
            runc: Some("1.1.11".into()),
            ..plain()
        };
        let why = refusal(&old).await.unwrap();
        assert!(
            why.contains("CVE-2024-21626") && why.contains("upgrade"),
            "{why}"
        );
        let loose = EngineFacts {
            rootless: true,
            cgroup: 1,
            ..plain()
        };
        assert!(refusal(&loose).await.unwrap().contains("cgroup v1"));
    }
}
