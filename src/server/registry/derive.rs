//! From a finished attempt to its run, and whether what it left counts as a version. Pure.

use std::collections::BTreeMap;

use plan::PlannedJob;
use protocol::event::{Artifact, ArtifactRole};
use protocol::outcome::Outcome;
use protocol::registry::{Lineage, LockFile, MountedVolume, VersionStatus};
use protocol::report::{AttemptReport, MetricValue, Setting, Usage};
use protocol::spec::Trust;
use protocol::{AttemptId, Digest, TriggerKind, Work};

use crate::forge::bounded;
use crate::store::attempts::Attempt;
use crate::store::files::KeptFile;
use crate::store::jobs::Job;
use crate::store::pipelines::Pipeline;
use crate::store::projects::Project;
use crate::store::registry::JobRun;
use crate::store::runs::RunStatus;

/// Most metrics, params and tags of a run. A job that reports more is logging a curve by name.
const MOST_VALUES: usize = 1_000;
/// MLflow's bounds of a name and of a value.
const NAME_LIMIT: usize = 250;
const VALUE_LIMIT: usize = 6_000;

/// The folder of a job's model among the files of its run.
pub(crate) const MODEL_FOLDER: &str = "model";

/// What a job stands in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) project: &'a Project,
    pub(super) pipeline: &'a Pipeline,
    pub(super) job: &'a Job,
    /// The plan's own words on the job; none for one that no plan made.
    pub(super) planned: Option<&'a PlannedJob>,
}

/// The id of an attempt's run: 32 hex digits, always the same ones.
#[must_use]
pub fn run_id(attempt: &AttemptId) -> String {
    let digest = Digest::of(format!("run of attempt {attempt}"));
    digest.as_str()[..32].to_owned()
}

/// Whether a job's result stands for the default branch.
pub(super) fn on_default_branch(place: Place<'_>) -> bool {
    let trigger = &place.pipeline.trigger;
    let as_the_file_says = match &trigger.kind {
        TriggerKind::Push | TriggerKind::Schedule { .. } | TriggerKind::Rerun { .. } => true,
        TriggerKind::Person { parameters, .. } => parameters.is_empty(),
        TriggerKind::PullRequest { .. } | TriggerKind::Reproduction { .. } => false,
    };
    let branch = trigger.branch();
    as_the_file_says
        && !is_given(place)
        && trigger.trust == Trust::Trusted
        && place.job.trust == Trust::Trusted
        && branch.is_some()
        && branch == place.project.default_branch.as_deref()
}

/// Whether the job, or one before it that it repeats, has values that a person gave.
fn is_given(place: Place<'_>) -> bool {
    place.planned.is_some_and(|planned| planned.given)
}

/// What a succeeded job's model becomes; none: untrusted code and reproductions write nothing to the registry.
pub(super) fn status(place: Place<'_>) -> Option<VersionStatus> {
    let trust = place.job.trust.min(place.pipeline.trigger.trust);
    // A reproduction is held against the version that is there; another of it would be nobody's.
    if let TriggerKind::Reproduction { .. } = place.pipeline.trigger.kind {
        return None;
    }
    match trust {
        Trust::Untrusted => None,
        Trust::Trusted if is_alone(place) && on_default_branch(place) => {
            Some(VersionStatus::Version)
        }
        Trust::Trusted => Some(VersionStatus::Candidate),
    }
}

/// A member of a matrix or of a glob is one of several that compete for the name.
fn is_alone(place: Place<'_>) -> bool {
    place.job.spec.name == place.job.spec.definition
}

/// Why the model became what [`status`] says, as the end of a sentence.
pub(super) fn because(place: Place<'_>) -> String {
    let trigger = &place.pipeline.trigger;
    let by = trigger.by.as_deref().unwrap_or("somebody");
    let branch = trigger.branch();
    let default = place.project.default_branch.as_deref();
    let job = &place.job.spec.name;
    let words = match (&trigger.kind, branch) {
        (TriggerKind::PullRequest { .. }, _) => "it ran for a pull request".to_owned(),
        (TriggerKind::Person { parameters, .. }, _) if !parameters.is_empty() => {
            format!("{by} gave it other parameters")
        }
        _ if is_given(place) => "it repeats a run with other parameters".to_owned(),
        (_, Some(branch)) if branch == default.unwrap_or_default() && !is_alone(place) => format!(
            "'{job}' is one of several of '{}' that compete for the name",
            place.job.spec.definition
        ),
        (_, Some(branch)) if branch == default.unwrap_or_default() => {
            format!("'{job}' succeeded on the default branch {branch}")
        }
        (_, Some(branch)) => format!("it ran on {branch}, which is not the default branch"),
        (_, None) => "it ran on no branch".to_owned(),
    };
    bounded(&words, VALUE_LIMIT)
}

/// The run of an attempt that is over.
pub(super) fn run(place: Place<'_>, attempt: &Attempt, report: &AttemptReport) -> JobRun {
    let status = match &report.outcome {
        Outcome::Succeeded | Outcome::Reused { .. } => RunStatus::Finished,
        Outcome::Failed(_) => RunStatus::Failed,
        Outcome::Cancelled { .. } | Outcome::Skipped { .. } => RunStatus::Killed,
    };
    of(place, attempt, report, status)
}

/// The run of an attempt that goes on: as far as it is known now where it comes from.
pub(super) fn begun(place: Place<'_>, attempt: &Attempt) -> JobRun {
    let at = attempt.started_at.unwrap_or(attempt.created_at);
    let so_far = AttemptReport {
        // Not looked at: the status says that it goes on.
        outcome: Outcome::Succeeded,
        withdrawn: None,
        started_at: at,
        finished_at: at,
        phases: BTreeMap::new(),
        artifacts: Vec::new(),
        metrics: Vec::new(),
        params: BTreeMap::new(),
        setting: Setting {
            image: attempt.order.spec.image.clone(),
            ..Setting::default()
        },
        usage: Usage::default(),
        cells_executed: 0,
        cells_total: 0,
    };
    of(place, attempt, &so_far, RunStatus::Running)
}

fn of(place: Place<'_>, attempt: &Attempt, report: &AttemptReport, status: RunStatus) -> JobRun {
    let lineage = lineage(place, attempt, report);
    let mut tags = tags(&place.job.spec.name, &lineage);
    let metrics = metrics(&report.metrics, &mut tags);
    let goals = place.job.spec.metrics.iter();
    JobRun {
        id: run_id(&attempt.id),
        attempt: attempt.id.clone(),
        job: place.job.id.clone(),
        project: place.project.id.clone(),
        experiment: format!("{}/{}", place.project.name, place.job.spec.definition),
        name: place.job.spec.name.clone(),
        status,
        goals: goals
            .map(|(name, spec)| (name.clone(), spec.goal))
            .collect(),
        first_metric: place.job.spec.first_metric.clone(),
        problem: None,
        metrics,
        params: params(&lineage, &report.params),
        tags,
        files: files(&report.artifacts),
        lineage,
    }
}

/// Where clients find what an attempt left: its model under `model/`.
fn files(artifacts: &[Artifact]) -> Vec<KeptFile> {
    let file = |artifact: &Artifact| {
        let path = match artifact.role {
            ArtifactRole::Model => format!("{MODEL_FOLDER}/{}", artifact.path),
            ArtifactRole::Notebook | ArtifactRole::Declared => artifact.path.clone(),
            ArtifactRole::Output => return None,
        };
        Some(KeptFile {
            path,
            blob: artifact.blob.clone(),
            size: artifact.size,
        })
    };
    artifacts.iter().filter_map(file).collect()
}

fn lineage(place: Place<'_>, attempt: &Attempt, report: &AttemptReport) -> Lineage {
    let Place {
        project,
        pipeline,
        job,
        planned,
    } = place;
    let deps = planned
        .map(|planned| planned.deps.iter())
        .into_iter()
        .flatten();
    Lineage {
        project: project.name.clone(),
        repository: without_credentials(&project.url),
        commit: pipeline.trigger.commit.clone(),
        dirty: false,
        reference: pipeline.trigger.reference.clone(),
        trigger: trigger_word(&pipeline.trigger.kind).to_owned(),
        by: pipeline.trigger.by.clone(),
        trust: job.trust,
        pipeline: pipeline.id.clone(),
        job: job.id.clone(),
        attempt: attempt.id.clone(),
        work: work(&job.spec.work),
        fingerprint: job.lineage.fingerprint.clone(),
        pipeline_file: planned.and_then(|planned| planned.pipeline_file.clone()),
        key: job.key.clone(),
        parameters: job.spec.parameters.clone(),
        deps: deps.map(|dep| (dep.path.clone(), dep.id.clone())).collect(),
        volumes: volumes(place, &report.setting),
        parent: job.spec.parent.clone(),
        lock: job
            .lineage
            .lock
            .clone()
            .zip(job.spec.python.as_ref())
            .map(|(digest, source)| LockFile {
                path: source.path().to_owned(),
                digest,
            }),
        unversioned: job.lineage.unversioned.clone(),
        setting: report.setting.clone(),
        usage: report.usage.clone(),
        started_at: report.started_at,
        finished_at: report.finished_at,
    }
}

fn volumes(place: Place<'_>, setting: &Setting) -> Vec<MountedVolume> {
    let versions = place.planned.map(|planned| &planned.volumes);
    let mounted = |(name, at): (&String, &String)| {
        let version = versions.and_then(|all| all.get(name)?.clone());
        let seen = setting.volumes.iter().find(|seen| seen.name == *name);
        MountedVolume {
            name: name.clone(),
            at: at.clone(),
            seen: seen.filter(|_| version.is_none()).cloned(),
            version,
        }
    };
    place.job.spec.volumes.iter().map(mounted).collect()
}

fn trigger_word(kind: &TriggerKind) -> &'static str {
    match kind {
        TriggerKind::Push => "push",
        TriggerKind::PullRequest { .. } => "pull_request",
        TriggerKind::Schedule { .. } => "schedule",
        TriggerKind::Rerun { .. } => "rerun",
        TriggerKind::Reproduction { .. } => "reproduction",
        TriggerKind::Person { .. } => "person",
    }
}

/// What a job does, in one line.
pub(super) fn work(work: &Work) -> String {
    match work {
        Work::Notebook { path } => path.clone(),
        Work::Command { text } => text.clone(),
        Work::Lint { tools, .. } => {
            let tools: Vec<String> = tools.iter().map(protocol::spec::LintTool::name).collect();
            format!("lint: {}", tools.join(", "))
        }
    }
}

/// `https://user:token@host/x` as `https://host/x`.
fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit('@').next().unwrap_or_default();
            let slash = if rest.contains('/') { "/" } else { "" };
            format!("{scheme}://{host}{slash}{path}")
        }
        None => url.to_owned(),
    }
}

/// Names and values are a job's: line ends, control characters and excess go.
fn name(text: &str) -> String {
    bounded(text, NAME_LIMIT)
}

/// Values keep their line ends, but not the character that Postgres refuses.
fn value(text: &str) -> String {
    text.chars()
        .filter(|c| *c != '\0')
        .take(VALUE_LIMIT)
        .collect()
}

fn metrics(reported: &[MetricValue], tags: &mut BTreeMap<String, String>) -> Vec<MetricValue> {
    let mut last: BTreeMap<String, MetricValue> = BTreeMap::new();
    for metric in reported {
        let name = name(&metric.name);
        if !name.is_empty() {
            let metric = MetricValue {
                name: name.clone(),
                ..*metric
            };
            last.insert(name, metric);
        }
    }
    if last.len() > MOST_VALUES {
        let dropped = last.len() - MOST_VALUES;
        tags.insert("trainyard.metrics_dropped".to_owned(), dropped.to_string());
    }
    last.into_values().take(MOST_VALUES).collect()
}

/// A parameter of the file, as a run has it.
pub(super) fn text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The file's parameters, and over them what the job itself reported.
pub(crate) fn params(
    lineage: &Lineage,
    reported: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let file = lineage.parameters.iter().map(|(name, v)| (name, text(v)));
    let reported = reported.iter().map(|(name, v)| (name, v.clone()));
    let all: BTreeMap<String, String> = file
        .chain(reported)
        .map(|(n, v)| (name(n), value(&v)))
        .filter(|(name, _)| !name.is_empty())
        .collect();
    all.into_iter().take(MOST_VALUES).collect()
}

/// What MLflow's clients look for, and under `trainyard.` what MLflow has no field for.
pub(crate) fn tags(run: &str, lineage: &Lineage) -> BTreeMap<String, String> {
    let reference = lineage.reference.as_deref();
    let branch = reference.and_then(|reference| reference.strip_prefix("refs/heads/"));
    // Files that lie in no repository have a commit of zeros.
    let commit = Some(lineage.commit.as_str()).filter(|id| id.bytes().any(|byte| byte != b'0'));
    let setting = &lineage.setting;
    let gpus: Vec<String> = setting
        .gpus
        .iter()
        .map(|gpu| format!("{} {}", gpu.model, gpu.uuid))
        .collect();
    let of = |digest: &Option<Digest>| digest.as_ref().map(ToString::to_string);
    let driver = setting.driver.as_ref();
    let parent = lineage.parent.as_ref();
    let all = [
        ("mlflow.runName", Some(run.to_owned())),
        ("mlflow.source.type", Some("PROJECT".to_owned())),
        ("mlflow.source.name", Some(lineage.work.clone())),
        ("mlflow.source.git.commit", commit.map(str::to_owned)),
        (
            "mlflow.source.git.repoURL",
            Some(lineage.repository.clone()),
        ),
        ("mlflow.source.git.branch", branch.map(str::to_owned)),
        ("mlflow.user", lineage.by.clone()),
        ("trainyard.project", Some(lineage.project.clone())),
        ("trainyard.pipeline", Some(lineage.pipeline.to_string())),
        ("trainyard.job", Some(lineage.job.to_string())),
        ("trainyard.attempt", Some(lineage.attempt.to_string())),
        ("trainyard.trigger", Some(lineage.trigger.clone())),
        (
            "trainyard.parent",
            parent.map(|parent| format!("{}/{}", parent.model, parent.version)),
        ),
        ("trainyard.dirty", lineage.dirty.then(|| "true".to_owned())),
        ("trainyard.fingerprint", of(&lineage.fingerprint)),
        ("trainyard.pipeline_file", of(&lineage.pipeline_file)),
        ("trainyard.key", of(&lineage.key)),
        ("trainyard.environment", of(&setting.environment)),
        ("trainyard.image", Some(setting.image.clone())),
        ("trainyard.image_id", setting.image_id.clone()),
        ("trainyard.host", Some(setting.host.clone())),
        ("trainyard.gpus", Some(gpus.join(", "))),
        (
            "trainyard.driver",
            driver.map(|driver| driver.version.clone()),
        ),
        ("trainyard.cuda", driver.map(|driver| driver.cuda.clone())),
    ];
    all.into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), value(&text?))))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_without_credentials() {
        for (url, shown) in [
            (
                "https://x:ghp_1@github.com/o/r.git",
                "https://github.com/o/r.git",
            ),
            ("https://github.com/o/r@v1", "https://github.com/o/r@v1"),
            ("ssh://git@github.com/o/r", "ssh://github.com/o/r"),
            ("git@github.com:o/r.git", "git@github.com:o/r.git"),
            ("https://a:b@host", "https://host"),
            ("/srv/git/r.git", "/srv/git/r.git"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[test]
    fn a_jobs_words_are_bounded() {
        let many: Vec<MetricValue> = (0..1_200)
            .map(|n| MetricValue {
                name: format!("m{n:04}\0\n"),
                value: f64::from(n),
                step: 0,
            })
            .collect();
        let mut tags = BTreeMap::new();
        let kept = metrics(&many, &mut tags);
        assert_eq!((kept.len(), kept[0].name.as_str()), (1_000, "m0000"));
        assert_eq!(tags["trainyard.metrics_dropped"], "200");
        assert_eq!(value("a\0b\n").as_str(), "ab\n");
        assert_eq!(value(&"é".repeat(9_000)).chars().count(), 6_000);
    }
}
