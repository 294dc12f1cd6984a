//! The server's configuration: one TOML file, or the defaults. Every time-out of the server stands here,
//! so that a test can shorten it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use protocol::{ByteSize, Span};
use serde::Deserialize;

use crate::blobs::S3;
use crate::forge::app::AppConfig;
use crate::notices::Rule;
use crate::registry::Retention;
use crate::store::{Address, StoreError};

/// What an administrator can set. A missing key has its default; an unknown one is an error.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the server listens.
    pub listen: SocketAddr,
    /// The server's folder: database, blobs, mirrors.
    pub data: PathBuf,
    /// `postgres://…` or the path of a SQLite file; none: `trainyard.db` in the data folder.
    pub database: Option<String>,
    /// A bucket for models, notebooks and artifacts, instead of files in the data folder.
    pub s3: Option<S3>,
    /// The address that people and agents use, for links in statuses.
    pub url: Option<String>,
    /// Host names, beside those of loopback and of `url`, under which it may be asked for.
    pub names: Vec<String>,
    /// Certificate and key, to speak TLS itself.
    pub tls: Option<Tls>,
    /// A proxy before it speaks TLS: it may then listen beyond loopback without a certificate.
    pub behind_proxy: bool,
    /// The GitHub App that this server is.
    pub github_app: Option<AppConfig>,
    /// Who outside of forges is told of pipelines that ended.
    #[serde(deserialize_with = "rules")]
    pub notify: Vec<Rule>,
    /// Names of the projects in which a pull request from a fork is trusted, where the fork is its author's own and they
    /// may write to the repository.
    pub trust_member_forks: Vec<String>,
    /// Time between two looks at a remote.
    #[serde(deserialize_with = "span")]
    pub poll_interval: Span,
    /// The same for a repository on the server's own disk.
    #[serde(deserialize_with = "span")]
    pub poll_interval_local: Span,
    /// Time between two looks at a forge's list of pull requests, which its messages tell of besides.
    #[serde(deserialize_with = "span")]
    pub requests_interval: Span,
    /// How long one look at a remote, or one fetch, may take.
    #[serde(deserialize_with = "span")]
    pub fetch_timeout: Span,
    /// An agent that was silent for so long is shown as unreachable and gets nothing new.
    #[serde(deserialize_with = "span")]
    pub unreachable_after: Span,
    /// An agent that was silent for so long is lost, and its jobs are given to others.
    #[serde(deserialize_with = "span")]
    pub lost_after: Span,
    /// Longest time that an agent's poll is held.
    #[serde(deserialize_with = "span")]
    pub poll_hold: Span,
    /// Time that a job gets to end when it is cancelled.
    #[serde(deserialize_with = "span")]
    pub stop_grace: Span,
    /// Time before a job is tried again after a fault of the platform; twice that after the second, and so on.
    #[serde(deserialize_with = "span")]
    pub retry_delay: Span,
    /// Time between two passes of the loops that nothing woke.
    #[serde(deserialize_with = "span")]
    pub tick: Span,
    /// Largest blob that an agent may upload.
    #[serde(deserialize_with = "size")]
    pub blob_limit: ByteSize,
    /// A content that nothing needs is removed when it is older than this.
    #[serde(deserialize_with = "span")]
    pub blob_grace: Span,
    /// Which versions and candidates of models go by themselves.
    pub retention: Retention,
    /// With less free space than this where the data lies no job is started; uploads may use half of it.
    #[serde(deserialize_with = "size")]
    pub disk_reserve: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7480)),
            data: PathBuf::from("/var/lib/trainyard/server"),
            database: None,
            s3: None,
            url: None,
            names: Vec::new(),
            tls: None,
            behind_proxy: false,
            github_app: None,
            notify: Vec::new(),
            trust_member_forks: Vec::new(),
            poll_interval: Span::secs(60),
            poll_interval_local: Span::secs(1),
            requests_interval: Span::secs(300),
            fetch_timeout: Span::secs(300),
            unreachable_after: Span::secs(30),
            lost_after: Span::secs(600),
            poll_hold: Span::secs(20),
            stop_grace: Span::secs(30),
            retry_delay: Span::secs(10),
            tick: Span::secs(5),
            blob_limit: ByteSize::gib(64),
            blob_grace: Span::hours(30 * 24),
            retention: Retention::default(),
            disk_reserve: ByteSize::gib(2),
        }
    }
}

/// PEM files to speak TLS with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate, followed by those between it and the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("'{}' cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key or value that is not known.
    #[error("'{}': {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// With line and column.
        message: String,
    },
}

impl Config {
    /// The defaults with everything under one folder.
    #[must_use]
    pub fn in_folder(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            ..Self::default()
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], with the place in the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let wrong = |message| ConfigError::Wrong {
            path: path.to_owned(),
            message,
        };
        let config: Self = toml::from_str(&text).map_err(|error| wrong(placed(&text, &error)))?;
        config.check().map_err(wrong)?;
        Ok(config)
    }

    /// An agent with nothing to say is not heard of while its poll is held: who must not be taken for silent then.
    fn check(&self) -> Result<(), String> {
        let (hold, unreachable, lost) = (self.poll_hold, self.unreachable_after, self.lost_after);
        for (key, after) in [("unreachable_after", unreachable), ("lost_after", lost)] {
            if after <= hold {
                return Err(format!(
                    "`{key}` is {after} and `poll_hold` is {hold}: an agent that has nothing to say is heard of once in \
                    that time, and would be given up while it works; make `{key}` longer, or `poll_hold` shorter"
                ));
            }
        }
        if lost < unreachable {
            return Err(format!(
                "`lost_after` is {lost} and `unreachable_after` is {unreachable}: an agent is lost no sooner than it is \
                unreachable"
            ));
        }
        Ok(())
    }

    /// The host names under which the server may be asked for, beside those of loopback.
    #[must_use]
    pub fn host_names(&self) -> Vec<String> {
        let address = self.url.as_deref().and_then(|url| url.split_once("://"));
        let host = address.and_then(|(_, rest)| rest.split(['/', ':']).next());
        let ip = Some(self.listen.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
        let listening = ip.map(|ip| {
            if ip.is_ipv6() {
                format!("[{ip}]")
            } else {
                ip.to_string()
            }
        });
        host.map(str::to_owned)
            .into_iter()
            .chain(listening)
            .chain(self.names.clone())
            .collect()
    }

    /// Whether what people see comes over TLS.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        self.tls.is_some() || self.behind_proxy
    }

    /// Where the rows are kept.
    ///
    /// # Errors
    /// Where `database` is neither a Postgres address nor a path.
    pub fn address(&self) -> Result<Address, StoreError> {
        match &self.database {
            Some(text) => text.parse(),
            None => Ok(Address::Sqlite(self.data.join("trainyard.db"))),
        }
    }

    /// The folder of the mirrors.
    #[must_use]
    pub fn mirrors(&self) -> PathBuf {
        self.data.join("mirrors")
    }

    /// The folder of secrets that jobs may ask for: `<project>/<NAME>`, one value a file.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.data.join("secrets")
    }
}

/// What is wrong and where. The line itself is not repeated: it may hold a secret that was pasted.
fn placed(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let Some(before) = before else {
        return error.message().to_owned();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}: {}", error.message())
}

/// Reads `90s`, as people write it.
fn span<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// The same where there may be none.
pub(crate) fn maybe_span<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Span>, D::Error> {
    span(deserializer).map(Some)
}

/// Reads rules: each has a name of its own.
fn rules<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    let rules = Vec::<Rule>::deserialize(deserializer)?;
    let mut names = BTreeSet::new();
    match rules.iter().find(|rule| !names.insert(&rule.name)) {
        None => Ok(rules),
        Some(twice) => {
            let name = &twice.name;
            let message = format!("two of [[notify]] have the name '{name}'");
            Err(serde::de::Error::custom(message))
        }
    }
}

/// Reads `16GiB`, as people write it.
fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_sets_what_it_names_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.toml");
        std::fs::write(&path, "data = \"/srv/trainyard\"\nlost_after = \"15m\"\n").unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!(config.lost_after, Span::secs(900));
        assert_eq!(config.poll_interval, Config::default().poll_interval);
        assert_eq!(
            config.address().unwrap(),
            Address::Sqlite("/srv/trainyard/trainyard.db".into())
        );
    }

    #[test]
    fn what_is_kept_of_models_is_said_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.toml");
        let text = "[retention]\ncandidates = \"30d\"\nversions = 20\n";
        std::fs::write(&path, text).unwrap();
        let rules = Config::read(&path).unwrap().retention;
        assert_eq!(rules.candidates, Some(Span::hours(30 * 24)));
        assert_eq!(rules.versions.map(std::num::NonZeroU32::get), Some(20));
        assert_eq!(Config::default().retention, Retention::default());
        for wrong in ["versions = 0", "candidates = \"old\"", "models = 1"] {
            std::fs::write(&path, format!("[retention]\n{wrong}\n")).unwrap();
            let message = Config::read(&path).unwrap_err().to_string();
            assert!(message.contains("line 2"), "{message}");
        }
    }

    #[test]
    fn no_agent_is_given_up_while_its_poll_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.toml");
        for (text, words) in [
            (
                "lost_after = \"5s\"",
                ["`lost_after` is 5.0s", "`poll_hold` is 20s"],
            ),
            (
                "unreachable_after = \"20s\"",
                ["`unreachable_after` is 20s", "`poll_hold` is 20s"],
            ),
            (
                "unreachable_after = \"1h\"",
                ["`lost_after` is 10m00s", "`unreachable_after` is 1h00m"],
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = Config::read(&path).unwrap_err().to_string();
            let said = words.iter().all(|word| message.contains(word));
            assert!(said, "{message}");
        }
        let shorter = "lost_after = \"5s\"\nunreachable_after = \"2s\"\npoll_hold = \"1s\"";
        std::fs::write(&path, shorter).unwrap();
        Config::read(&path).unwrap();
    }

    #[test]
    fn the_app_is_named_by_either_id_and_its_secrets_by_reference() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.toml");
        for (id, said) in [("4711", "4711"), ("\"Iv23abc\"", "Iv23abc")] {
            let text = format!("[github_app]\nid = {id}\nprivate_key = \"credential:app\"\n");
            std::fs::write(&path, text).unwrap();
            let app = Config::read(&path).unwrap().github_app.unwrap();
            assert_eq!(app.id.to_string(), said);
            assert_eq!(app.api, "https://api.github.com");
        }
        let pasted = "[github_app]\nid = 1\nprivate_key = \"-----BEGIN s3cret\"\n";
        std::fs::write(&path, pasted).unwrap();
        let message = Config::read(&path).unwrap_err().to_string();
        assert!(message.contains("line 3, column"), "{message}");
        assert!(message.contains("by reference"), "{message}");
        assert!(!message.contains("s3cret"), "{message}");
    }

    #[test]
    fn an_unknown_key_and_a_wrong_value_are_named_with_their_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.toml");
        for (text, word) in [
            ("lost_afer = \"1m\"", "lost_afer"),
            ("lost_after = \"soon\"", "soon"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = Config::read(&path).unwrap_err().to_string();
            assert!(
                message.contains(word) && message.contains("line 1"),
                "{message}"
            );
        }
    }
}
