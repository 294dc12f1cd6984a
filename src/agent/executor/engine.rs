//! The container engine: connecting, what it is, and images. It knows nothing of attempts.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{CreateImageOptions, ListImagesOptions};
use futures_util::StreamExt as _;
use protocol::hardware;

use crate::config::Config;

/// A connection to the engine; clones share it.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) docker: Docker,
}

/// The engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine answers.
    #[error("no container engine answers at {host}: {reason}")]
    Unreachable {
        /// Where was asked.
        host: String,
        /// Why.
        reason: String,
    },
    /// It answered with an error.
    #[error("the container engine says: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// An image is not there and may not or cannot be fetched.
    #[error("the image '{image}' is not on this host{why}")]
    NoImage {
        /// Its name.
        image: String,
        /// Why it was not pulled, beginning with a separator.
        why: String,
    },
    /// A registry did not answer.
    #[error("the image '{image}' is not on this host and could not be pulled: {reason}")]
    Pull {
        /// Its name.
        image: String,
        /// Why.
        reason: String,
    },
    /// The call itself failed.
    #[error("the call to the container engine failed: {0}")]
    Call(String),
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => EngineError::Refused {
                status: status_code,
                message,
            },
            other => EngineError::Call(other.to_string()),
        }
    }
}

/// What the engine says of itself, for `doctor` and the inventory.
#[derive(Debug, Clone, Default)]
pub struct EngineFacts {
    /// `docker` or `podman`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// API version in use.
    pub api: String,
    /// 1 or 2; 0 where it does not say.
    pub cgroup: u8,
    /// Who writes the cgroups of containers: `systemd` or `cgroupfs`.
    pub cgroup_driver: String,
    /// Version of runc, where it is what runs containers.
    pub runc: Option<String>,
    /// It runs as an ordinary user.
    pub rootless: bool,
    /// User ids in containers are not those of the host.
    pub user_namespaces: bool,
    /// SELinux labels are enforced.
    pub selinux: bool,
    /// Containers survive a restart of the engine.
    pub live_restore: bool,
    /// Folder of its data.
    pub root: Option<String>,
    /// Its own warnings.
    pub warnings: Vec<String>,
}

impl EngineFacts {
    /// The words for the inventory.
    #[must_use]
    pub fn inventory(&self) -> hardware::Engine {
        hardware::Engine {
            name: self.name.clone(),
            version: self.version.clone(),
            api: self.api.clone(),
        }
    }
}

/// An image on this host.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Image {
    /// Its id: what containers are made from.
    pub(crate) id: String,
    /// Its repository digest, or its id where it has none.
    pub(crate) identity: String,
    /// Its environment variables.
    pub(crate) env: BTreeMap<String, String>,
}

impl Engine {
    /// Where the engine is: as the configuration says, or `$DOCKER_HOST`, or Docker's own socket.
    #[must_use]
    pub fn address(config: &Config) -> String {
        let said = config.executors.docker_host.clone();
        said.or_else(|| std::env::var("DOCKER_HOST").ok())
            .unwrap_or_else(|| "unix:///var/run/docker.sock".into())
    }

    /// Connects to it, and agrees on a version.
    ///
    /// # Errors
    /// Where none answers.
    pub async fn connect(config: &Config) -> Result<Self, EngineError> {
        let host = Self::address(config);
        let unreachable = |error: Error| EngineError::Unreachable {
            host: host.clone(),
            reason: error.to_string(),
        };
        let limit = Duration::from(config.timing.engine);
        let docker = Docker::connect_with_host(&host)
            .map_err(unreachable)?
            .with_timeout(limit);
        let docker = tokio::time::timeout(limit, docker.negotiate_version())
            .await
            .map_err(|_| EngineError::Unreachable {
                host: host.clone(),
                reason: format!("no answer within {limit:?}"),
            })?
            .map_err(unreachable)?;
        Ok(Self { docker })
    }

    /// What the engine says of itself.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn facts(&self) -> Result<EngineFacts, EngineError> {
        let info = self.docker.info().await?;
        let version = self.docker.version().await?;
        let security = info.security_options.unwrap_or_default();
        let has = |word: &str| security.iter().any(|option| option.contains(word));
        let components = version.components.unwrap_or_default();
        let podman = components
            .iter()
            .any(|c| c.name.to_lowercase().contains("podman"));
        Ok(EngineFacts {
            name: if podman { "podman" } else { "docker" }.into(),
            version: info.server_version.or(version.version).unwrap_or_default(),
            api: self.docker.client_version().to_string(),
            cgroup: match info.cgroup_version.map(|v| v.to_string()).as_deref() {
                Some("1") => 1,
                Some("2") => 2,
                Some(_) | None => 0,
            },
            cgroup_driver: info
                .cgroup_driver
                .map(|driver| driver.to_string())
                .unwrap_or_default(),
            runc: components
                .into_iter()
                .find(|component| component.name == "runc")
                .map(|component| component.version),
            rootless: has("rootless"),
            user_namespaces: has("userns"),
            selinux: has("selinux"),
            live_restore: info.live_restore_enabled.unwrap_or_default(),
            root: info.docker_root_dir,
            warnings: info.warnings.unwrap_or_default(),
        })
    }

    /// The image, pulled where it is missing and `pull_within` allows that.
    ///
    /// # Errors
    /// Where it is not there and cannot be fetched, or is for another platform.
    pub(crate) async fn image(
        &self,
        name: &str,
        pull_within: Option<Duration>,
    ) -> Result<Image, EngineError> {
        match self.inspect_image(name).await? {
            Some(image) => return Ok(image),
            None if pull_within.is_none() => {
                return Err(EngineError::NoImage {
                    image: name.into(),
                    why: ", and this agent pulls none (`jobs.offline`)".into(),
                });
            }
            None => {}
        }
        self.pull(name, pull_within.unwrap_or_default()).await?;
        self.inspect_image(name)
            .await?
            .ok_or_else(|| EngineError::NoImage {
                image: name.into(),
                why: " though it was pulled; is it for another platform?".into(),
            })
    }

    /// Id of an image that is on this host, for a container in which nothing happens: of the one of this name, else of the
    /// largest, which is a whole system. None: there is none.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) async fn some_image(&self, name: &str) -> Result<Option<String>, EngineError> {
        if let Some(image) = self.inspect_image(name).await? {
            return Ok(Some(image.id));
        }
        let all = self.docker.list_images(None::<ListImagesOptions>).await?;
        let named = all.into_iter().filter(|image| !image.repo_tags.is_empty());
        let largest = named.max_by(|a, b| (a.size, &a.id).cmp(&(b.size, &b.id)));
        Ok(largest.map(|image| image.id))
    }

    async fn inspect_image(&self, name: &str) -> Result<Option<Image>, EngineError> {
        let found = match self.docker.inspect_image(name).await {
            Ok(found) => found,
            Err(Error::DockerResponseServerError {
                status_code: 404, ..
            }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let id = found.id.unwrap_or_default();
        let env = found
            .config
            .and_then(|config| config.env)
            .unwrap_or_default();
        Ok(Some(Image {
            identity: found
                .repo_digests
                .and_then(|digests| digests.into_iter().next())
                .unwrap_or_else(|| id.clone()),
            id,
            env: env
                .iter()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }))
    }

    async fn pull(&self, name: &str, within: Duration) -> Result<(), EngineError> {
        // Without a tag the engine would pull them all.
        let tagged = name.contains('@') || name.rsplit('/').next().is_some_and(|n| n.contains(':'));
        let options = CreateImageOptions {
            from_image: Some(name.into()),
            tag: (!tagged).then(|| "latest".into()),
            ..CreateImageOptions::default()
        };
        let pull = async {
            let mut progress = std::pin::pin!(self.docker.create_image(Some(options), None, None));
            while let Some(step) = progress.next().await {
                step?;
            }
            Ok::<(), Error>(())
        };
        match tokio::time::timeout(within, pull).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(pull_failed(name, &error.to_string())),
            Err(_) => Err(EngineError::Pull {
                image: name.into(),
                reason: format!("it took longer than {within:?}"),
            }),
        }
    }
}

/// Whether the registry says that there is no such image, or could not be asked.
fn pull_failed(image: &str, words: &str) -> EngineError {
    let lower = words.to_lowercase();
    let told = [
        "not found",
        "does not exist",
        "denied",
        "unauthorized",
        "manifest unknown",
        "invalid reference",
        "no matching manifest",
    ];
    let network = [
        "dial tcp",
        "lookup ",
        "timeout",
        "tls",
        "connection refused",
        "no such host",
    ];
    if told.iter().any(|word| lower.contains(word))
        && !network.iter().any(|word| lower.contains(word))
    {
        EngineError::NoImage {
            image: image.into(),
            why: format!(", and its registry says: {words}"),
        }
    } else {
        EngineError::Pull {
            image: image.into(),
            reason: words.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_says_no_is_told_from_one_that_is_not_reached() {
        assert!(matches!(
            pull_failed("x", "pull access denied for x, repository does not exist"),
            EngineError::NoImage { .. }
        ));
        assert!(matches!(
            pull_failed(
                "x",
                "Get \"https://r/v2/\": dial tcp: lookup r: no such host"
            ),
            EngineError::Pull { .. }
        ));
    }
}
