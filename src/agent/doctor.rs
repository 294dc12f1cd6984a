//! What may keep a job from running on this host, in words: what, where, and what to do next. It looks and
//! changes nothing.

mod checks;
mod engine;
mod flaws;
mod gpus;

pub(crate) use engine::refusal;

use serde::Serialize;

use crate::client::Client;
use crate::config::Config;
use crate::identity::Identity;

/// How much a check weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Jobs run; something is worth knowing.
    Warn,
    /// A job could not run.
    Fail,
}

impl Level {
    /// `ok`, `warn` or `fail`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// What a look at one thing came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found, and where.
    pub found: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    fn new(name: &'static str, level: Level, found: impl Into<String>) -> Self {
        Self {
            name,
            level,
            found: found.into(),
            hint: None,
        }
    }

    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Level::Ok, found)
    }

    fn warn(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..Self::new(name, Level::Warn, found)
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..Self::new(name, Level::Fail, found)
        }
    }
}

/// Looks at everything. `image` is the image that jobs use where they name none.
pub async fn examine(config: &Config, image: &str) -> Vec<Check> {
    let (engine, facts) = engine::engine(config).await;
    let mut found = engine;
    if let Some((engine, _)) = &facts {
        found.push(checks::image(engine, image).await);
    }
    found.push(checks::driver());
    found.push(checks::uv(config).await);
    found.push(checks::git().await);
    found.push(checks::git_lfs().await);
    found.push(checks::share(config));
    found.extend(checks::disk(config));
    found.extend(checks::volumes(config));
    found.extend(gpus::gpus(config, facts.as_ref(), image).await);
    found.extend(checks::server(config).await);
    found
}

/// A client for the server of the configuration, or of the registration.
fn client(config: &Config) -> Option<Result<Client, String>> {
    let identity = Identity::read(&config.data).ok();
    let url = config
        .server
        .clone()
        .or_else(|| identity.map(|identity| identity.server))?;
    let client = Client::new(&url, config.server_ca.as_deref(), config.timing.call);
    Some(client.map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::Hardware;

    #[tokio::test]
    async fn a_host_without_an_executor_is_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "data = \"{}\"\n[executors]\ndocker = false\n",
            dir.path().display()
        );
        let found = examine(&Config::parse(&text).unwrap(), "trainyard/notebook").await;
        let executor = found.iter().find(|check| check.name == "executor").unwrap();
        assert_eq!(executor.level, Level::Fail);
        assert!(executor.hint.as_ref().unwrap().contains("executors.docker"));
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_a_failure_and_a_gpu_that_is_not_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "data = \"{0}\"\n[executors]\ndocker_host = \"unix://{0}/no.sock\"\n[disk]\nwatermark = \"1MiB\"\n",
            dir.path().display()
        );
        let found = examine(&Config::parse(&text).unwrap(), "trainyard/notebook").await;
        let level = |name: &str| {
            found
                .iter()
                .find(|check| check.name == name)
                .map(|c| c.level)
        };
        assert_eq!(level("engine"), Some(Level::Fail));
        assert_eq!(level("image"), None, "without an engine nobody can look");
        assert_eq!(level("disk"), Some(Level::Ok));
        if Hardware::open(&Config::default()).absent().is_some() {
            assert_eq!(level("gpus"), Some(Level::Ok));
        }
    }
}
