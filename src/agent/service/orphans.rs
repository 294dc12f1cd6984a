//! Containers that no attempt will ask for any more. An agent looks for them at its start, and again and again: an engine
//! may still be making one for an agent that was killed when the next one looks.

use protocol::AttemptId;

use super::keep;
use crate::attempt::{ATTEMPT_LABEL, AttemptDir, GPUS_LABEL};
use crate::executor::{Engine, EngineError};
use crate::host::Host;

/// Removes them: those whose attempt's folder is gone, or only kept for people. An attempt that begins has its folder
/// before its container. Answers with the GPUs of the containers that stay, also because the engine does not remove them;
/// none where nobody can tell: an engine that does not answer is asked at the next look.
pub(super) async fn remove(host: &Host) -> Option<Vec<(AttemptId, Vec<String>)>> {
    if !host.config.executors.docker {
        return Some(Vec::new());
    }
    let limit = host.config.timing.engine;
    match tokio::time::timeout(limit.into(), try_remove(host)).await {
        Ok(Ok(stay)) => Some(stay),
        Ok(Err(error)) => {
            tracing::warn!("containers of earlier attempts are not looked for: {error}");
            None
        }
        Err(_) => {
            tracing::warn!("removing containers of earlier attempts took longer than {limit}");
            None
        }
    }
}

/// Whether an attempt goes on here.
pub(super) fn goes_on(host: &Host, attempt: &str) -> bool {
    let dir = AttemptDir::open(host.data().join("attempts").join(attempt));
    dir.path().exists() && !keep::is_reported(&dir)
}

async fn try_remove(host: &Host) -> Result<Vec<(AttemptId, Vec<String>)>, EngineError> {
    let mut stay = Vec::new();
    let engine = Engine::connect(&host.config).await?;
    for found in engine.find(&host.labels()).await? {
        let attempt = found.labels.get(ATTEMPT_LABEL);
        if !attempt.is_some_and(|attempt| goes_on(host, attempt)) {
            let attempt = attempt.map_or("none", String::as_str);
            tracing::info!(
                attempt,
                "a container is removed that nothing asks for any more"
            );
            if found.container.remove().await {
                continue;
            }
        }
        if let (Some(Ok(attempt)), Some(gpus)) =
            (attempt.map(|id| id.parse()), found.labels.get(GPUS_LABEL))
        {
            stay.push((attempt, gpus.split(',').map(str::to_owned).collect()));
        }
    }
    Ok(stay)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use protocol::spec::Network;

    use super::*;
    use crate::config::Config;
    use crate::executor::{ContainerSpec, testing};
    use crate::hardware::Hardware;

    fn host(data: &Path) -> Host {
        let config = Config {
            data: data.to_owned(),
            ..Config::default()
        };
        let hardware = Arc::new(Hardware::open(&config));
        Host {
            inventory: hardware.inventory(&config, None, Vec::new()),
            hardware,
            config,
            driver: "/nowhere".into(),
            uv: None,
            system: String::new(),
            job_user: (1000, 1000),
        }
    }

    fn spec(host: &Host, name: &str, image: &str, attempt: Option<&str>) -> ContainerSpec {
        let mut labels = host.labels();
        labels.extend(attempt.map(|id| (ATTEMPT_LABEL.to_owned(), id.to_owned())));
        ContainerSpec {
            name: format!("trainyard-orphan-{}-{name}", std::process::id()),
            image: image.to_owned(),
            argv: vec!["true".into()],
            user: "1000:1000".into(),
            workdir: "/".into(),
            env: Default::default(),
            labels,
            mounts: Vec::new(),
            network: Network::None,
            capabilities: &[],
            memory: None,
            cpu_millis: None,
            processes: None,
            shm: None,
            gpus: Vec::new(),
        }
    }

    #[tokio::test]
    async fn what_no_attempt_asks_for_is_removed_and_others_are_left_alone() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [own, other] = folders.each_ref().map(|folder| host(folder.path()));
        let Some((engine, image)) = testing::engine(&own.config).await else {
            return;
        };
        std::fs::create_dir_all(own.data().join("attempts/here")).unwrap();
        std::fs::create_dir_all(own.data().join("attempts/kept")).unwrap();
        std::fs::write(own.data().join("attempts/kept/reported"), "").unwrap();
        for (host, name, attempt) in [
            (&own, "here", Some("here")),
            (&own, "gone", Some("gone")),
            (&own, "kept", Some("kept")),
            (&own, "build", None),
            (&other, "other", Some("gone")),
        ] {
            let spec = spec(host, name, &image.id, attempt);
            engine.create(&spec).await.unwrap();
        }
        remove(&own).await;
        let mut left = Vec::new();
        for host in [&own, &other] {
            for found in engine.find(&host.labels()).await.unwrap() {
                left.push(found.labels[ATTEMPT_LABEL].clone());
                found.container.remove().await;
            }
        }
        assert_eq!(left, ["here", "gone"]);
    }
}
