//! Identifiers. Each is text that sorts by creation time, and each is a type of its own, so that a
//! job's id cannot be passed where an attempt's is wanted.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Text that is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {kind}")]
pub struct InvalidId {
    kind: &'static str,
    text: String,
}

/// Counts on within a millisecond, and where the clock went back: rows that were made one after the other sort so.
fn next() -> ulid::Ulid {
    static LAST: Mutex<ulid::Generator> = Mutex::new(ulid::Generator::new());
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match last.generate() {
        Ok(id) => id,
        // After more of them in a millisecond than anybody can make.
        Err(overflow) => overflow.commit_overflow_increment(),
    }
}

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new identifier, later than every earlier one of this process.
            #[must_use]
            pub fn generate() -> Self {
                Self(next().to_string().to_lowercase())
            }

            /// The identifier as it stands in URLs, tables and files: 26 lower-case characters.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let well_formed = text.len() == 26
                    && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                if well_formed {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId { kind: $kind, text: text.chars().take(64).collect() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

ulid_id!(
    /// A watched repository.
    ProjectId, "a project id"
);
ulid_id!(
    /// One trigger at one commit.
    PipelineId, "a pipeline id"
);
ulid_id!(
    /// One unit of work of a pipeline.
    JobId, "a job id"
);
ulid_id!(
    /// One execution of a job on one agent.
    AttemptId, "an attempt id"
);
ulid_id!(
    /// An agent, given by the server at registration.
    AgentId, "an agent id"
);

/// A full git commit id: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

impl CommitId {
    /// All hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first ten digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..10]
    }
}

impl FromStr for CommitId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let hex = text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex && (text.len() == 40 || text.len() == 64) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId {
                kind: "a commit id",
                text: text.chars().take(64).collect(),
            })
        }
    }
}

impl TryFrom<String> for CommitId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<CommitId> for String {
    fn from(id: CommitId) -> String {
        id.0
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_read_back_and_sort() {
        let first = JobId::generate();
        assert_eq!(first.as_str().parse::<JobId>(), Ok(first.clone()));
        let more: Vec<JobId> = (0..1_000).map(|_| JobId::generate()).collect();
        assert!(first < more[0] && more.is_sorted());
    }

    #[test]
    fn a_path_is_no_id() {
        assert!("../../../../etc/passwd".parse::<AttemptId>().is_err());
        assert!("HEAD".parse::<CommitId>().is_err());
        assert!(serde_json::from_str::<JobId>("\"x\"").is_err());
    }
}
