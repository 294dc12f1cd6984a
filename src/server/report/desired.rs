//! Desired state: a commit's rows in, the statuses that its forge should show out. Pure.

use std::collections::{BTreeMap, BTreeSet};

use protocol::event::Finding;
use protocol::job::State;
use protocol::outcome::Failure;
use protocol::report::{AttemptReport, MetricValue};
use protocol::spec::{MetricSpec, Parameters, Work};
use protocol::{CommitId, JobId, PipelineId};

use super::words;
use crate::forge::{StatusUpdate, Verdict, bounded};
use crate::store::registry::Base;

/// Context of the whole commit; a job's is `trainyard/<job>`.
pub(super) const WHOLE: &str = "trainyard";
/// Most contexts of one commit: a large matrix is on the page, and in the sum of the whole.
const MOST_CONTEXTS: usize = 100;
/// Most characters of a context.
const CONTEXT_LIMIT: usize = 255;

/// What is known of a commit.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitView {
    /// The commit.
    pub commit: CommitId,
    /// What its pipelines come to: the newest one, with the newest job of each name over all of them, in the order in
    /// which the names came.
    pub whole: PipelineView,
    /// Where this server's pages are, where it was told: `https://ci.example.com`.
    pub pages: Option<String>,
}

/// A pipeline of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineView {
    /// Its id.
    pub id: PipelineId,
    /// Its number, which people say.
    pub number: u64,
    /// The branch that led to it, without `refs/heads/`.
    pub branch: Option<String>,
    /// Why nothing could be planned.
    pub problem: Option<Failure>,
    /// Why it has no jobs although nothing is wrong: there is no pipeline file, for example.
    pub nothing: Option<String>,
    /// Its jobs, in the order of the file.
    pub jobs: Vec<JobView>,
}

/// A job of it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// The key in the pipeline file: members of a matrix have it in common.
    pub definition: String,
    /// What runs.
    pub work: Work,
    /// Its parameters.
    pub parameters: Parameters,
    /// Where it stands.
    pub state: State,
    /// Why no host has it yet.
    pub reason: Option<String>,
    /// Definitions that it waits for.
    pub needs: Vec<String>,
    /// The last platform fault, while a further attempt is to come.
    pub fault: Option<Failure>,
    /// The report of the attempt that did what it was asked; a metric may be worse than allowed.
    pub report: Option<AttemptReport>,
    /// What stands for it, where nothing ran.
    pub reused: Option<Reused>,
    /// The last success on the base branch.
    pub base: Option<Base>,
    /// Metrics that the pipeline file names.
    pub metrics: BTreeMap<String, MetricSpec>,
    /// The first of them in the file.
    pub first_metric: Option<String>,
    /// What could not be versioned.
    pub unversioned: Vec<String>,
    /// What lint tools found, once it is over.
    pub findings: Vec<Finding>,
    /// The model that it left, or that stands for it.
    pub model: Option<ModelView>,
    /// Milliseconds of GPUs that its attempts had, of those that are over.
    pub gpu_ms: u64,
}

/// A model's version or candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelView {
    /// The model's name.
    pub name: String,
    /// Its number; none of a candidate.
    pub version: Option<u64>,
    /// Its id.
    pub id: String,
}

/// The earlier result that stands for a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Reused {
    /// Its job.
    pub of: JobId,
    /// Its commit.
    pub commit: CommitId,
    /// Number of its pipeline.
    pub number: u64,
    /// Its metrics.
    pub metrics: Vec<MetricValue>,
}

/// A job as it will stand at the forge.
pub(super) struct Line<'a> {
    pub(super) job: &'a JobView,
    pub(super) verdict: Verdict,
    pub(super) text: String,
}

/// The statuses of a commit, the whole first. Descriptions have at most `limit` characters.
#[must_use]
pub fn desired(view: &CommitView, limit: usize) -> Vec<StatusUpdate> {
    let lines = lines(view, limit);
    let (verdict, text) = whole(&view.whole, &lines, limit);
    let status = |context: String, verdict, description, page: String| StatusUpdate {
        commit: view.commit.clone(),
        context,
        verdict,
        description,
        url: view
            .pages
            .as_ref()
            .map(|pages| format!("{}{page}", pages.trim_end_matches('/'))),
        // One for all of a commit: GitLab would make a pipeline for each.
        branch: view.whole.branch.clone(),
    };
    let page = format!("/pipelines/{}", view.whole.id);
    let mut statuses = vec![status(
        WHOLE.to_owned(),
        verdict,
        bounded(&text, limit),
        page,
    )];
    for (context, line) in contexts(&lines) {
        let page = format!("/jobs/{}", line.job.id);
        statuses.push(status(context, line.verdict, line.text.clone(), page));
    }
    statuses
}

/// The jobs that have a context of their own, with it.
pub(super) fn contexts<'a, 'b>(lines: &'a [Line<'b>]) -> Vec<(String, &'a Line<'b>)> {
    let mut taken = BTreeSet::new();
    let shown = lines.iter().take(MOST_CONTEXTS - 1);
    shown
        .map(|line| (context(&line.job.name, &mut taken), line))
        .collect()
}

/// The jobs of a commit with what is said of each, in at most `limit` characters.
pub(super) fn lines(view: &CommitView, limit: usize) -> Vec<Line<'_>> {
    let jobs = view.whole.jobs.iter();
    jobs.map(|job| {
        let (verdict, text) = words::of_job(job, limit);
        Line { job, verdict, text }
    })
    .collect()
}

/// A context of its own for each job: forges compare contexts without regard to case, and cut them.
fn context(name: &str, taken: &mut BTreeSet<String>) -> String {
    (1..)
        .map(|n| match n {
            1 => bounded(&format!("{WHOLE}/{name}"), CONTEXT_LIMIT),
            n => bounded(&format!("{WHOLE}/{name}"), CONTEXT_LIMIT - 6) + &format!(" ~{n}"),
        })
        .find(|context| taken.insert(context.to_lowercase()))
        .unwrap_or_default()
}

/// The verdict on the whole commit. Red is said at once, everything else when all is over.
pub(super) fn whole(newest: &PipelineView, lines: &[Line<'_>], limit: usize) -> (Verdict, String) {
    if let Some(problem) = &newest.problem {
        let verdict = match problem.owner() {
            protocol::Owner::Platform => Verdict::Error,
            protocol::Owner::User | protocol::Owner::Limit => Verdict::Failure,
        };
        return (verdict, problem.message.clone());
    }
    if let Some(text) = blamed(lines, Verdict::Failure) {
        return (Verdict::Failure, text);
    }
    let done = lines.iter().filter(|line| line.verdict.is_final()).count();
    if done < lines.len() {
        let running = lines.iter().any(|line| line.verdict == Verdict::Running);
        let verdict = if running {
            Verdict::Running
        } else {
            Verdict::Pending
        };
        return (verdict, pending(lines, done));
    }
    for verdict in [Verdict::Error, Verdict::Cancelled] {
        if let Some(text) = blamed(lines, verdict) {
            return (verdict, text);
        }
    }
    match lines {
        [] => (Verdict::Neutral, nothing(newest)),
        [one] => (Verdict::Success, one.text.clone()),
        several => (Verdict::Success, sum(several, limit)),
    }
}

pub(super) fn nothing(pipeline: &PipelineView) -> String {
    let why = pipeline.nothing.as_deref();
    why.unwrap_or("no job asks to run at this commit")
        .to_owned()
}

/// `train: what went wrong (and 2 more)` for the jobs with this verdict.
fn blamed(lines: &[Line<'_>], verdict: Verdict) -> Option<String> {
    let mut these = lines.iter().filter(|line| line.verdict == verdict);
    let first = these.next()?;
    let more = match these.count() {
        0 => String::new(),
        n => format!(" (and {n} more)"),
    };
    Some(format!("{}{more}: {}", first.job.name, first.text))
}

fn pending(lines: &[Line<'_>], done: usize) -> String {
    match lines {
        [one] => one.text.clone(),
        several => format!("{done} of {} jobs done", several.len()),
    }
}

/// `3 succeeded, 1 equal to an earlier result · train: accuracy 0.962`.
fn sum(lines: &[Line<'_>], limit: usize) -> String {
    let reused = lines
        .iter()
        .filter(|line| line.job.reused.is_some())
        .count();
    let counted = match (lines.len() - reused, reused) {
        (ran, 0) => format!("{ran} succeeded"),
        (0, reused) => format!("{reused} equal to earlier results, nothing had to run"),
        (ran, reused) => format!("{ran} succeeded, {reused} equal to earlier results"),
    };
    let told = lines
        .iter()
        .filter(|line| {
            line.job
                .report
                .as_ref()
                .is_some_and(|r| !r.metrics.is_empty())
        })
        .map(|line| format!("{}: {}", line.job.name, line.text));
    let parts: Vec<String> = std::iter::once(counted).chain(told).collect();
    words::joined(&parts, limit)
}
