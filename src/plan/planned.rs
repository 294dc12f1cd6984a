//! What a plan is: plain values that the store keeps and a person can be shown.

use std::collections::BTreeMap;

use protocol::{Digest, JobSpec, Trust};
use serde::{Deserialize, Serialize};

use crate::key::digest_of;

/// Most files of [`PlannedJob::deps`]; the key counts all of them.
pub const MAX_DEPS: usize = 5_000;

/// What a commit runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// In an order in which a job stands after those that it needs; lint first.
    pub jobs: Vec<PlannedJob>,
    /// Definitions that this trigger does not start.
    #[serde(default)]
    pub ignored: Vec<Ignored>,
    /// Sentences that are no errors but that a person should see.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Whether it ends what still runs of older commits of its pull request.
    #[serde(default)]
    pub supersede_running: bool,
}

/// A definition that a trigger does not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    /// Its name.
    pub definition: String,
    /// Why.
    pub why: String,
}

/// One job, and what its result depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedJob {
    /// What to do.
    pub spec: JobSpec,
    /// Equal keys, equal results: a hash of `key_parts`.
    pub key: Digest,
    /// What the key was made of, in order.
    pub key_parts: Vec<KeyPart>,
    /// What the notebook means; none for a command and for lint.
    #[serde(default)]
    pub fingerprint: Option<Digest>,
    /// The files that it depends on, by path; at most [`MAX_DEPS`].
    #[serde(default)]
    pub deps: Vec<Dep>,
    /// The volumes that it mounts by name, each with the version that administrators declared.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Option<String>>,
    /// Hash of the text that says which Python packages it needs.
    #[serde(default)]
    pub lock: Option<Digest>,
    /// Hash of the pipeline file's bytes. Not part of the key: a job's own lines are.
    #[serde(default)]
    pub pipeline_file: Option<Digest>,
    /// How far its commit is trusted. A result of a lower trust never stands for one of a higher.
    pub trust: Trust,
    /// What its result may depend on that has no version, as sentences.
    #[serde(default)]
    pub unversioned: Vec<String>,
    /// Whether a person gave values to its pipeline: its result is then not that of the file at its commit, whoever asks
    /// for it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given: bool,
}

impl PlannedJob {
    /// Whether its key is made of these keys of the jobs of a definition that it needs, in their order.
    #[must_use]
    pub fn is_made_of(&self, definition: &str, keys: &[&Digest]) -> bool {
        let part = needs_part(definition, keys.iter().copied());
        self.key_parts.contains(&part)
    }
}

/// The part that a definition which is needed has in a key.
pub(crate) fn needs_part<'a>(
    definition: &str,
    keys: impl IntoIterator<Item = &'a Digest>,
) -> KeyPart {
    let keys = keys.into_iter().map(Digest::as_str);
    KeyPart {
        name: format!("needs {definition}"),
        value: digest_of(keys).to_string(),
    }
}

/// One part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// Such as `code`, `parameter epochs`, `files`.
    pub name: String,
    /// Its value: short text, or a digest.
    pub value: String,
}

/// A file that a job depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dep {
    /// Path in the repository.
    pub path: String,
    /// Id of its content; of a notebook its fingerprint.
    pub id: String,
}
