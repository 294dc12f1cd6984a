//! What differs between two versions, and between a version and its job run once more.

use serde::{Deserialize, Serialize};

use super::Version;
use crate::ids::JobId;
use crate::outcome::Outcome;

/// Two versions side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The one that is compared with.
    pub base: Version,
    /// The one that is judged.
    pub now: Version,
    /// Every metric of either, by name.
    pub metrics: Vec<MetricDelta>,
    /// What differs: parameters first, then lineage.
    pub differences: Vec<Difference>,
}

/// A version's job that was run once more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reproduction {
    /// The version.
    pub version: Version,
    /// The job that ran once more.
    pub job: JobId,
    /// Its state's word, such as `queued`.
    pub state: String,
    /// Why it waits.
    #[serde(default)]
    pub reason: Option<String>,
    /// How it ended; none: it goes on, or what it left is not registered yet.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// What differs; none: it did not succeed.
    #[serde(default)]
    pub compared: Option<Compared>,
}

/// What differs between a version and its reproduction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Whether files and metrics are the same.
    pub same: bool,
    /// How many files either has.
    pub all_files: u64,
    /// Every metric of either, by name.
    pub metrics: Vec<MetricDelta>,
    /// Files that differ, with their hashes.
    pub files: Vec<Difference>,
    /// Packages, lock, Python, image.
    pub environment: Vec<Difference>,
    /// Host, CPU, GPUs, driver, CUDA.
    pub hardware: Vec<Difference>,
    /// All else.
    pub other: Vec<Difference>,
}

/// A metric of two versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricDelta {
    /// Its name.
    pub name: String,
    /// Its value in the base.
    #[serde(default)]
    pub base: Option<Number>,
    /// Its value now.
    #[serde(default)]
    pub now: Option<Number>,
    /// Now minus base, where both are finite.
    #[serde(default)]
    pub delta: Option<f64>,
    /// Better or worse, where a goal is declared and the values can be compared.
    #[serde(default)]
    pub judged: Option<Judged>,
}

impl MetricDelta {
    /// Whether both have the same value; what is no number twice is the same.
    #[must_use]
    pub fn is_same(&self) -> bool {
        match (self.base, self.now) {
            (Some(Number(base)), Some(Number(now))) => base == now || base.is_nan() && now.is_nan(),
            (Some(_), None) | (None, Some(_)) => false,
            (None, None) => true,
        }
    }
}

/// How a change of a metric is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// In the direction of the goal.
    Better,
    /// No change.
    Same,
    /// Against the goal.
    Worse,
}

/// Something that differs between two versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What: `parameter epochs`, `commit`, `image`, `package numpy`.
    pub what: String,
    /// In the base.
    #[serde(default)]
    pub base: Option<String>,
    /// Now.
    #[serde(default)]
    pub now: Option<String>,
}

/// A float that JSON may not have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(#[serde(with = "crate::event::float")] pub f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_json_lacks_reads_back() {
        let delta = MetricDelta {
            name: "loss".into(),
            base: Some(Number(f64::INFINITY)),
            now: None,
            delta: None,
            judged: Some(Judged::Worse),
        };
        let json = serde_json::to_string(&delta).unwrap();
        assert!(json.contains(r#""base":"Infinity","now":null"#), "{json}");
        assert_eq!(serde_json::from_str::<MetricDelta>(&json).unwrap(), delta);
    }
}
