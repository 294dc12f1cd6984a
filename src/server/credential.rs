//! A secret by reference: the database and the configuration say where it lies, never what it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Most bytes of a secret's file. Tokens are opaque and may be long; a file above this is a mistake.
const MOST_BYTES: u64 = 64 << 10;

/// Where a secret lies: `env:NAME`, `file:/absolute/path`, or `credential:NAME` (systemd's
/// `LoadCredential`, a file in `$CREDENTIALS_DIRECTORY`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Credential {
    /// A variable of the server's environment.
    Env(String),
    /// A file that the server can read.
    File(PathBuf),
    /// A credential that systemd hands to the server.
    Systemd(String),
}

/// A reference that is wrong, or leads to nothing. Never carries the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Not one of the three forms. The text is not repeated: it may be the secret itself.
    #[error(
        "a secret is given by reference: env:NAME, file:/absolute/path or credential:NAME, not by its value"
    )]
    Form,
    /// Nothing there.
    #[error("the secret {reference} cannot be read: {why}")]
    Unreadable {
        /// The reference.
        reference: String,
        /// Why.
        why: String,
    },
    /// The project speaks as the GitHub App, and the server is none.
    #[error(
        "the project speaks as the GitHub App at {api}, and the server's configuration names none there: set [github_app]"
    )]
    NoApp {
        /// Base of the API.
        api: String,
    },
}

impl Credential {
    /// Reads the secret, without the line end that editors leave. Read at each use, so that a new
    /// token needs no restart.
    ///
    /// # Errors
    /// [`CredentialError::Unreadable`] where it is missing, empty or not text.
    pub fn read(&self) -> Result<SecretString, CredentialError> {
        let unreadable = |why: String| CredentialError::Unreadable {
            reference: self.to_string(),
            why,
        };
        let text = match self {
            Credential::Env(name) => {
                std::env::var(name).map_err(|_| unreadable("the variable is not set".into()))?
            }
            Credential::File(path) => read_file(path).map_err(unreadable)?,
            Credential::Systemd(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    unreadable(
                        "CREDENTIALS_DIRECTORY is not set: the unit has no LoadCredential=".into(),
                    )
                })?;
                read_file(&Path::new(&folder).join(name)).map_err(unreadable)?
            }
        };
        match text.trim_end_matches(['\n', '\r']) {
            "" => Err(unreadable("it is empty".into())),
            secret => Ok(SecretString::from(secret)),
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > MOST_BYTES {
        return Err(format!(
            "it has {length} bytes, a secret has at most {MOST_BYTES}"
        ));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

impl FromStr for Credential {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        let name = |name: &str| {
            let ordinary = name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
            (ordinary && !name.is_empty() && !name.starts_with('.'))
                .then(|| name.to_owned())
                .ok_or(CredentialError::Form)
        };
        match text.split_once(':') {
            Some(("env", rest)) => Ok(Credential::Env(name(rest)?)),
            Some(("credential", rest)) => Ok(Credential::Systemd(name(rest)?)),
            Some(("file", rest)) if rest.starts_with('/') => Ok(Credential::File(rest.into())),
            Some(_) | None => Err(CredentialError::Form),
        }
    }
}

impl TryFrom<String> for Credential {
    type Error = CredentialError;

    fn try_from(text: String) -> Result<Self, CredentialError> {
        text.parse()
    }
}

impl From<Credential> for String {
    fn from(credential: Credential) -> String {
        credential.to_string()
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Env(name) => write!(f, "env:{name}"),
            Credential::File(path) => write!(f, "file:{}", path.display()),
            Credential::Systemd(name) => write!(f, "credential:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_reference_reads_back_and_a_value_is_refused() {
        for text in [
            "env:GITHUB_TOKEN",
            "file:/etc/trainyard/token",
            "credential:github",
        ] {
            assert_eq!(text.parse::<Credential>().unwrap().to_string(), text);
        }
        for wrong in [
            "ghp_0123456789",
            "env:",
            "file:token",
            "credential:../x",
            "env:A B",
            "vault:x",
        ] {
            let error = wrong.parse::<Credential>().unwrap_err();
            assert!(
                !error.to_string().contains("0123"),
                "the value is not repeated"
            );
        }
    }

    #[test]
    fn a_file_is_read_at_each_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let credential = Credential::File(path.clone());
        assert!(matches!(
            credential.read(),
            Err(CredentialError::Unreadable { .. })
        ));
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(credential.read().unwrap().expose_secret(), "one");
        std::fs::write(&path, "two\r\n").unwrap();
        assert_eq!(credential.read().unwrap().expose_secret(), "two");
        std::fs::write(&path, "\n").unwrap();
        assert!(
            credential
                .read()
                .unwrap_err()
                .to_string()
                .ends_with("it is empty")
        );
    }
}
