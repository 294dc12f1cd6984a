//! Which call of MLflow's API is what: whether it writes, and what its client is answered at once where nothing but `done` can
//! be said. Pure.

use protocol::{ByteSize, Digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A call as the code asks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// The driver's number: the same call again has the same one.
    pub(crate) request: String,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<String>,
    /// Empty for a file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) body: String,
    /// A file's content, which lies beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<(Digest, ByteSize)>,
}

/// A call that writes, in its place among the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its number for the server: from 1.
    pub(crate) number: u64,
    #[serde(flatten)]
    pub(crate) call: Call,
}

/// What a call was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// JSON.
    pub(crate) body: String,
}

impl Answer {
    fn done(body: &Value) -> Self {
        Self {
            status: 200,
            body: body.to_string(),
        }
    }

    /// That it is done, where there is no more to say; a file that is put is answered so.
    pub(super) fn empty() -> Self {
        Self::done(&json!({}))
    }

    /// An error as MLflow's clients read it.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = json!({"error_code": code, "message": message});
        Self {
            status,
            body: body.to_string(),
        }
    }
}

/// What is done with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes nothing: the server answers it, when it has all that was written before.
    Read,
    /// It writes, and this is its answer.
    Write(Answer),
    /// It writes, and the server has to say something: an id that it makes, or that it refuses.
    Awaited,
}

/// What stands before the path of a file.
const FILES: &str = "/api/2.0/mlflow-artifacts/artifacts/";
/// What stands before every other call that the code makes.
const API: &str = "/api/2.0/mlflow/";
/// Calls that answer nothing: MLflow's service.proto.
const ANSWER_NOTHING: [&str; 9] = [
    "runs/log-metric",
    "runs/log-parameter",
    "runs/set-tag",
    "runs/delete-tag",
    "runs/log-batch",
    "runs/log-inputs",
    "runs/outputs",
    "runs/log-model",
    "experiments/set-experiment-tag",
];
/// Calls that ask by a POST.
const ASK_BY_POST: [&str; 4] = [
    "experiments/search",
    "runs/search",
    "logged-models/search",
    "registered-models/get-latest-versions",
];

/// Most characters of a path that people are told.
const MOST_WORDS: usize = 300;

/// Whether a call brings a file.
pub(super) fn is_file(method: &str, path: &str) -> bool {
    method == "PUT" && path.starts_with(FILES)
}

impl Call {
    fn path(&self) -> &str {
        self.address.split('?').next().unwrap_or_default()
    }

    pub(super) fn kind(&self) -> Kind {
        if matches!(self.method.as_str(), "GET" | "HEAD") {
            return Kind::Read;
        }
        if is_file(&self.method, self.path()) {
            return Kind::Write(Answer::empty());
        }
        let name = self.path().strip_prefix(API).unwrap_or_default();
        match self.method.as_str() {
            "POST" if ASK_BY_POST.contains(&name) => Kind::Read,
            "POST" if ANSWER_NOTHING.contains(&name) => Kind::Write(Answer::empty()),
            "POST" if name == "runs/update" => match self.updated() {
                Some(answer) => Kind::Write(answer),
                None => Kind::Awaited,
            },
            _ => Kind::Awaited,
        }
    }

    /// Whether its client was told that it is done before the server had it.
    pub(crate) fn answers_at_once(&self) -> bool {
        matches!(self.kind(), Kind::Write(_))
    }

    /// What is answered to the renaming or the end of a run, of which clients read nothing but that it can be read.
    fn updated(&self) -> Option<Answer> {
        let asked: Value = serde_json::from_str(&self.body).ok()?;
        let id = asked.get("run_id").or_else(|| asked.get("run_uuid"))?;
        let given = |field: &str, usual: Value| asked.get(field).cloned().unwrap_or(usual);
        Some(Answer::done(&json!({"run_info": {
            "run_id": id,
            "run_uuid": id,
            "run_name": given("run_name", json!("")),
            "experiment_id": "",
            "user_id": "",
            "status": given("status", json!("RUNNING")),
            "start_time": 0,
            "end_time": given("end_time", json!(0)),
            "artifact_uri": "",
            "lifecycle_stage": "active",
        }})))
    }

    /// For people; the end of a very long path is left out.
    pub(crate) fn words(&self) -> String {
        let path = self.path();
        let short = path.strip_prefix(API).or_else(|| path.strip_prefix(FILES));
        let short = short.unwrap_or(path);
        match short.char_indices().nth(MOST_WORDS) {
            Some((end, _)) => format!("{} {}…", self.method, &short[..end]),
            None => format!("{} {short}", self.method),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, address: &str, body: &str) -> Call {
        Call {
            request: "1-1".into(),
            method: method.into(),
            address: address.into(),
            content_type: None,
            body: body.into(),
            file: None,
        }
    }

    #[test]
    fn a_call_is_what_its_address_says() {
        let nothing = || Kind::Write(Answer::done(&json!({})));
        for (method, address, kind) in [
            ("GET", "/api/2.0/mlflow/runs/get?run_id=x", Kind::Read),
            ("POST", "/api/2.0/mlflow/runs/search", Kind::Read),
            ("POST", "/api/2.0/mlflow/runs/log-batch", nothing()),
            (
                "PUT",
                "/api/2.0/mlflow-artifacts/artifacts/0/x/artifacts/a",
                nothing(),
            ),
            (
                "DELETE",
                "/api/2.0/mlflow-artifacts/artifacts/0/x/artifacts/a",
                Kind::Awaited,
            ),
            ("POST", "/api/2.0/mlflow/runs/create", Kind::Awaited),
            ("POST", "/api/2.0/mlflow/runs/update", Kind::Awaited),
            ("PATCH", "/api/2.0/mlflow/logged-models/m-1", Kind::Awaited),
            ("POST", "/api/3.0/mlflow/traces", Kind::Awaited),
        ] {
            assert_eq!(call(method, address, "").kind(), kind, "{address}");
        }
        let body = r#"{"run_id": "r", "status": "FINISHED", "end_time": 5}"#;
        let Kind::Write(answer) = call("POST", "/api/2.0/mlflow/runs/update", body).kind() else {
            panic!("it is answered at once");
        };
        let told: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(told["run_info"]["status"], "FINISHED");
    }
}
