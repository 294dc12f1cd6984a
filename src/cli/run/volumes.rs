//! Which volumes of this host's agent a job has that no server gave it.

use std::collections::BTreeMap;

use agent::config::{Config, Volume};
use anyhow::{anyhow, ensure};
use protocol::JobSpec;

/// Those that jobs of every project may mount. Which project this is only a server knows, and the name of a folder is
/// anybody's choice: what is for certain projects is for none here.
pub(super) fn shared(agent: &Config) -> BTreeMap<String, Volume> {
    let mut volumes = agent.volumes.clone();
    volumes.retain(|_, volume| volume.projects.is_none());
    volumes
}

/// Says before anything is started why a job cannot have a volume here.
pub(super) fn check(spec: &JobSpec, agent: Result<&Config, &anyhow::Error>) -> anyhow::Result<()> {
    for name in spec.volumes.keys() {
        let job = &spec.name;
        let agent = agent
            .map_err(|why| anyhow!("'{job}' mounts the volume '{name}' of this host: {why:#}"))?;
        let volume = agent.volumes.get(name);
        ensure!(
            volume.is_none_or(|volume| volume.projects.is_none()),
            "'{job}' mounts the volume '{name}', which the agent of this host has for certain projects only; which project this is, only a server can tell: push it, or take `projects` out of [volumes.{name}]"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_of_certain_projects_is_for_none_without_a_server() {
        let agent = Config::parse(
            "[volumes.open]\npath = \"/usr\"\n[volumes.closed]\npath = \"/usr\"\nprojects = [\"digits\"]\n",
        )
        .unwrap();
        assert_eq!(shared(&agent).into_keys().collect::<Vec<_>>(), ["open"]);
        let with = |name: &str| {
            let mut spec = agent::local::notebook_spec("a.ipynb", None, "i");
            spec.volumes.insert(name.to_owned(), "/data".to_owned());
            spec
        };
        check(&with("open"), Ok(&agent)).unwrap();
        let said = check(&with("closed"), Ok(&agent)).unwrap_err().to_string();
        assert!(said.contains("'closed', which the agent"), "{said}");
        let unread = anyhow!("cannot read agent.toml");
        let said = check(&with("open"), Err(&unread)).unwrap_err().to_string();
        assert!(said.ends_with("cannot read agent.toml"), "{said}");
    }
}
