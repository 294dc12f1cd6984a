//! The public API: what pages, commands and scripts read under `/api/v1`.
//!
//! | call | role | answer |
//! | --- | --- | --- |
//! | `GET projects`, `POST projects` ([`NewProject`]) | read, admin | [`Page`] of [`Project`], [`crate::setup::AddedProject`] |
//! | `GET projects/{name}/doctor` | admin | [`crate::setup::Examined`] |
//! | `GET pipelines?project=NAME` | read | [`Page`] of [`Pipeline`] |
//! | `GET pipelines/{id}` | read | [`PipelineDetail`] |
//! | `POST pipelines` ([`NewPipeline`]) | run | [`Pipeline`] |
//! | `GET jobs/{id}` | read | [`JobDetail`] |
//! | `GET jobs/{id}/events?attempt=ID&from=N` | read | NDJSON of [`crate::Event`], at most 1 MiB |
//! | `GET jobs/{id}/events/stream?from=N` | read | the same as server-sent events, to the job's end |
//! | `POST jobs/{id}/cancel`, `POST jobs/{id}/retry` | run | [`Done`] |
//! | `GET artifacts/{attempt}/{path}` | read | raw bytes, as an attachment |
//! | `GET agents`, `POST agents/tokens` | read, admin | [`Page`] of [`Agent`], [`RegistrationToken`] |
//! | `POST agents/fit` ([`crate::fit::FitQuestion`]) | read | [`crate::fit::FitAnswer`] |
//! | `POST agents/{name}/drain` ([`Drain`]), `…/undrain`, `…/revoke` | admin | [`Done`] |
//! | `GET usage?since=7d&by=project` | read | [`Usage`] |
//! | `GET tokens`, `POST tokens` ([`NewToken`]), `DELETE tokens/{name}` | admin | [`Token`], [`CreatedToken`] |
//! | `GET models`, `GET models/{name}`, `GET models/{name}/{version}` | read | the registry's types |
//!
//! Lists take `limit` (1 to 500, 50 by default) and `before` (the last id of the page before). Errors are
//! [`crate::agent_api::ApiError`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::event::Artifact;
use crate::hardware::Inventory;
use crate::ids::{AgentId, AttemptId, CommitId, JobId, PipelineId, ProjectId};
use crate::job::State;
use crate::outcome::{Failure, Outcome};
use crate::report::AttemptReport;
use crate::spec::{JobSpec, Parameters, Trust};
use crate::trigger::TriggerKind;
use crate::units::Timestamp;

/// A bounded piece of a list, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The piece.
    pub items: Vec<T>,
    /// Pass it as `before` to get the next piece; none: there is no more.
    #[serde(default)]
    pub next: Option<String>,
}

/// What a token allows; each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything.
    Read,
    /// Also start, cancel and retry.
    Run,
    /// Also projects, agents, tokens.
    Admin,
}

impl Role {
    /// `read`, `run` or `admin`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Run => "run",
            Role::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => Ok(Role::Read),
            "run" => Ok(Role::Run),
            "admin" => Ok(Role::Admin),
            _ => Err(format!("'{text}' is not a role: read, run or admin")),
        }
    }
}

/// A watched repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name on screens and in URLs.
    pub name: String,
    /// Where it is fetched from, without credentials.
    pub url: String,
    /// `github`, `gitlab`, `gitea` or `git`.
    pub forge: String,
    /// Its default branch, once it was seen.
    #[serde(default)]
    pub default_branch: Option<String>,
    /// Why it could not be polled the last time.
    #[serde(default)]
    pub error: Option<String>,
    /// Why its forge does not show something that it should, as it was said last; else why somebody was not told.
    #[serde(default)]
    pub not_shown: Option<String>,
    /// What its jobs may use.
    #[serde(default)]
    pub quota: Quota,
}

/// What the jobs of a project may use. What is not named is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// GPUs at once.
    #[serde(default)]
    pub gpus: Option<u32>,
    /// GPU-hours in seven days.
    #[serde(default)]
    pub gpu_hours: Option<u32>,
}

/// A project to add.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewProject {
    /// Letters, digits, `-`, `_`, `.`; at most 64.
    pub name: String,
    /// URL or path for `git fetch`.
    pub url: String,
    /// Where the server finds the token for fetches and statuses: `env:NAME`, `file:/path`, `credential:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// It is spoken for by the server's GitHub App; then it has no credential and no webhook of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub app: bool,
    /// The same for the secret of the forge's webhook; none: one is made up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_secret: Option<String>,
    /// `github`, `gitlab`, `gitea`, `forgejo` or `git`, where neither the URL nor its host says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forge: Option<String>,
    /// The repository's path at its forge, such as `owner/name`, where the URL does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Base of the forge's REST API, where the URL does not say it: `https://<host>/api/v4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
}

impl NewProject {
    /// A project without credentials.
    #[must_use]
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            credential: None,
            app: false,
            webhook_secret: None,
            forge: None,
            repository: None,
            api: None,
        }
    }
}

/// One trigger at one commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Its id.
    pub id: PipelineId,
    /// Its project's name.
    pub project: String,
    /// Counts within the project, from 1.
    pub number: u64,
    /// The commit.
    pub commit: CommitId,
    /// First line of the commit's message.
    pub title: String,
    /// The ref that led to it.
    #[serde(default)]
    pub reference: Option<String>,
    /// What asked for it.
    #[serde(flatten)]
    pub trigger: TriggerKind,
    /// Who asked for it.
    #[serde(default)]
    pub by: Option<String>,
    /// How far the commit is trusted.
    pub trust: Trust,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its last job ended.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    /// One word over all its jobs: `queued`, `running`, `succeeded`, `failed`, `cancelled`; `neutral` where
    /// there is nothing to run, and the notes say why.
    pub state: String,
    /// Why nothing could be planned (the pipeline file is wrong or missing).
    #[serde(default)]
    pub problem: Option<Failure>,
    /// What is worth saying about the plan.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A pipeline with its jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelineDetail {
    /// The pipeline.
    #[serde(flatten)]
    pub pipeline: Pipeline,
    /// Its jobs, in the order of the file.
    pub jobs: Vec<Job>,
}

/// One unit of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its pipeline.
    pub pipeline: PipelineId,
    /// Its name.
    pub name: String,
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
    /// While it is queued: why it waits, in one sentence.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its believed attempt started.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it finished.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
}

/// A job with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobDetail {
    /// The job.
    #[serde(flatten)]
    pub job: Job,
    /// The pipeline that it belongs to. (`of` is what a reused job's outcome says, on the same level.)
    pub in_pipeline: Pipeline,
    /// What it is asked to do.
    pub spec: JobSpec,
    /// What an equal job has in common with it; none where no result may stand for it.
    #[serde(default)]
    pub key: Option<Digest>,
    /// What the plan says of it: explanation, fingerprint, lock, what could not be versioned.
    #[serde(default)]
    pub lineage: serde_json::Value,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

/// One execution of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// 1 for the first.
    pub number: u32,
    /// The agent's name.
    pub agent: String,
    /// When it was given to the agent.
    pub created_at: Timestamp,
    /// How it ended; its job may have gone on with another.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// Its report, once it is over.
    #[serde(default)]
    pub report: Option<AttemptReport>,
    /// What it left.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
}

/// Work asked for by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPipeline {
    /// The project's name.
    pub project: String,
    /// A branch, tag or commit; none: the default branch.
    #[serde(default)]
    pub revision: Option<String>,
    /// Only these definitions; empty: all.
    #[serde(default)]
    pub jobs: Vec<String>,
    /// Values that replace those of the file.
    #[serde(default)]
    pub parameters: Parameters,
}

/// A server of GPUs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its name.
    pub name: String,
    /// `idle`, `busy`, `closed`, `drained`, `revoked` or `unreachable`.
    pub state: String,
    /// Why it takes nothing new.
    #[serde(default)]
    pub closed: Option<String>,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// What it has.
    #[serde(default)]
    pub inventory: Option<Inventory>,
    /// Jobs on it.
    #[serde(default)]
    pub jobs: Vec<JobId>,
    /// Which attempt has which GPU, by the GPU's UUID.
    #[serde(default)]
    pub gpu_bookings: BTreeMap<String, AttemptId>,
}

/// How an agent is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// End its jobs with their grace, so that they go on elsewhere, instead of letting them run to their end.
    #[serde(default)]
    pub stop_jobs: bool,
}

/// Whose use is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// The project's.
    Project,
    /// That of whoever asked, else of who wrote the commit.
    Person,
    /// The branch's, or that of another ref.
    Branch,
}

impl UsageBy {
    /// `project`, `person` or `branch`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            UsageBy::Project => "project",
            UsageBy::Person => "person",
            UsageBy::Branch => "branch",
        }
    }
}

impl std::str::FromStr for UsageBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "project" => Ok(UsageBy::Project),
            "person" => Ok(UsageBy::Person),
            "branch" => Ok(UsageBy::Branch),
            _ => Err(format!("by: '{text}' is none of project, person, branch")),
        }
    }
}

/// What was booked on hosts in a span of time. An attempt counts from its start to its end, the part within the span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Whose.
    pub by: UsageBy,
    /// From when.
    pub since: Timestamp,
    /// To when.
    pub until: Timestamp,
    /// Who had most GPU-hours comes first.
    pub items: Vec<UsageRow>,
    /// How many more there are, which had less.
    #[serde(default)]
    pub more: u64,
}

/// What one of them had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsageRow {
    /// The project of a branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Name of the project, person or branch.
    pub name: String,
    /// GPUs times hours.
    pub gpu_hours: f64,
    /// CPUs times hours.
    pub cpu_hours: f64,
    /// Jobs that had an attempt.
    pub jobs: u64,
}

/// A one-time token for `trainyard agent register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationToken {
    /// The token; it is shown once.
    pub token: String,
    /// When it ends to be valid.
    pub expires_at: Timestamp,
}

/// An API token to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Whose or what for; unique.
    pub name: String,
    /// What it allows.
    pub role: Role,
}

/// An API token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whose or what for.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used.
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
}

/// A new API token; the secret is shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedToken {
    /// The token's entry.
    #[serde(flatten)]
    pub entry: Token,
    /// The secret: `ty_` and 43 characters.
    pub token: String,
}

/// A request was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What happens now, in one sentence.
    pub message: String,
    /// The job that was made by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
}

impl From<String> for Done {
    fn from(message: String) -> Self {
        Self { message, job: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    /// Flattened parts share a level with the fields around them: a name that both have would be there twice.
    #[test]
    fn a_reused_job_of_a_pull_request_is_read_as_it_was_written() {
        let pipeline: Pipeline = serde_json::from_value(serde_json::json!({
            "id": PipelineId::generate(), "project": "p", "number": 3, "commit": "0".repeat(40),
            "title": "Fix", "trigger": "pull_request", "pull_request": 7, "trust": "trusted",
            "created_at": 5, "state": "succeeded",
        }))
        .unwrap();
        assert_eq!(pipeline.trigger, TriggerKind::PullRequest { number: 7 });
        let spec = serde_json::json!({
            "name": "train", "definition": "train", "work": {"work": "command", "text": "true"},
            "image": "i", "network": "none", "retries": 0, "reuse": false,
        });
        let detail = JobDetail {
            job: Job {
                id: JobId::generate(),
                pipeline: pipeline.id.clone(),
                name: "train".into(),
                state: State::Finished {
                    outcome: Outcome::Reused {
                        of: JobId::generate(),
                    },
                },
                reason: None,
                created_at: Timestamp(5),
                started_at: None,
                finished_at: Some(Timestamp(6)),
            },
            in_pipeline: pipeline,
            spec: serde_json::from_value(spec).unwrap(),
            key: None,
            lineage: serde_json::Value::Null,
            attempts: Vec::new(),
        };
        let text = serde_json::to_string(&detail).unwrap();
        assert_eq!(serde_json::from_str::<JobDetail>(&text).unwrap(), detail);
    }
}
