//! Metrics beside those of the base, with the spread over seeds.

use std::collections::BTreeMap;

use protocol::registry::Judged;
use protocol::report::MetricValue;
use protocol::spec::{MetricSpec, Parameters};
use protocol::{CommitId, FailureKind, Outcome};
use render::markdown;

use super::super::desired::JobView;
use super::super::words::{change, figure};
use crate::registry::judge;

/// Metrics of one group of jobs that are shown.
const MOST_METRICS: usize = 8;
/// Most characters of a name.
const NAME: usize = 80;

/// Jobs that differ by nothing but their seed.
struct Group<'a> {
    jobs: Vec<&'a JobView>,
    rest: Parameters,
}

/// A value, or the mean of several with their standard deviation.
#[derive(Debug, Clone, Copy)]
struct Spread {
    mean: f64,
    deviation: Option<f64>,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        Some(Self { mean, deviation })
    }

    fn words(self) -> String {
        match self.deviation {
            Some(deviation) => format!("{} ± {}", figure(self.mean), figure(deviation)),
            None => figure(self.mean),
        }
    }
}

/// The lines of all jobs that have metrics: a heading and a list for each group. Empty where none has.
pub(super) fn lines(jobs: &[&JobView]) -> Vec<String> {
    let groups = groups(jobs);
    // What is equal to an earlier result has its numbers in the table.
    let ran = |group: &&Group<'_>| group.jobs.iter().any(|job| job.reused.is_none());
    groups
        .iter()
        .filter(ran)
        .filter_map(|group| {
            let names = names(group);
            let metrics: Vec<String> = names
                .iter()
                .filter_map(|name| metric(group, name))
                .take(MOST_METRICS)
                .collect();
            (!metrics.is_empty()).then(|| {
                let heading = heading(group, &groups);
                format!("{heading}\n{}\n", metrics.join("\n"))
            })
        })
        .collect()
}

fn groups<'a>(jobs: &[&'a JobView]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for job in jobs {
        let mut rest = job.parameters.clone();
        rest.retain(|name, _| !is_seed(name));
        let has_seed = rest.len() < job.parameters.len();
        let same = |group: &&mut Group<'_>| {
            let first = group.jobs[0];
            has_seed
                && first.definition == job.definition
                && first.work == job.work
                && group.rest == rest
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.jobs.push(job),
            None => groups.push(Group {
                jobs: vec![job],
                rest,
            }),
        }
    }
    groups
}

fn is_seed(parameter: &str) -> bool {
    let name = parameter.to_ascii_lowercase();
    name == "seed" || name.ends_with("_seed") || name == "random_state"
}

/// The metrics that the pipeline file names; where it names none, those that were reported.
fn names(group: &Group<'_>) -> Vec<String> {
    let first = group.jobs[0];
    if !first.metrics.is_empty() {
        return first.metrics.keys().cloned().collect();
    }
    let mut names: Vec<String> = Vec::new();
    for metric in group.jobs.iter().flat_map(|job| now(job)) {
        if !names.contains(&metric.name) {
            names.push(metric.name.clone());
        }
    }
    names
}

/// What a job measured, or what the result measured that stands for it.
pub(super) fn now(job: &JobView) -> &[MetricValue] {
    match (&job.report, &job.reused) {
        (Some(report), _) => &report.metrics,
        (None, Some(reused)) => &reused.metrics,
        (None, None) => &[],
    }
}

fn values(name: &str, lists: impl Iterator<Item = impl AsRef<[MetricValue]>>) -> Vec<f64> {
    let of = |list: &[MetricValue]| list.iter().find(|m| m.name == name).map(|m| m.value);
    lists.filter_map(|list| of(list.as_ref())).collect()
}

/// `- 🔴 **accuracy** 0.93 ± 0.004 (base 0.962: -0.032), worse than …`.
fn metric(group: &Group<'_>, name: &str) -> Option<String> {
    let jobs = || group.jobs.iter();
    let here = Spread::of(&values(name, jobs().map(|job| now(job))));
    let bases = jobs().filter_map(|job| job.base.as_ref().map(|base| base.metrics.as_slice()));
    let base = Spread::of(&values(name, bases));
    let spec = group.jobs[0].metrics.get(name);
    let shown = markdown::escape(name, NAME);
    let (Some(here), base) = (here, base) else {
        let base = base.filter(|_| jobs().any(|job| regressed(job, name)))?;
        return Some(format!(
            "- 🔴 **{shown}** is not reported any more (base {}); owner: user",
            base.words()
        ));
    };
    let mut line = format!("**{shown}** {}", here.words());
    let mut mark = "";
    if let Some(base) = base {
        line.push_str(&format!(" (base {}", base.words()));
        let delta = here.mean - base.mean;
        if delta.is_finite() {
            line.push_str(&format!(": {}", change(delta)));
        }
        line.push(')');
        mark = spec.map_or("", |spec| sign(spec, base.mean, here.mean));
    }
    let red = jobs().filter(|job| regressed(job, name)).count();
    if red > 0 {
        mark = "🔴 ";
        line.push_str(&worse(spec, red, group.jobs.len()));
    }
    Some(format!("- {mark}{line}"))
}

fn sign(spec: &MetricSpec, base: f64, now: f64) -> &'static str {
    match judge(spec.goal, base, now) {
        Judged::Better => "🟢 ",
        Judged::Worse => "🟠 ",
        Judged::Same => "⚪ ",
    }
}

fn worse(spec: Option<&MetricSpec>, red: usize, of: usize) -> String {
    let members = match (red, of) {
        (_, 1) => String::new(),
        (red, of) => format!(" in {red} of {of}"),
    };
    let allowed = spec.and_then(|spec| spec.max_regression);
    let allowed = allowed.map_or_else(String::new, |allowed| {
        format!("; at most {} worse is allowed", figure(allowed))
    });
    format!(", regressed{members}{allowed}; owner: user")
}

/// Whether this metric is why the job failed: its failure begins with the metric's name.
fn regressed(job: &JobView, name: &str) -> bool {
    match job.state.outcome() {
        Some(Outcome::Failed(failure)) => {
            let rest = failure.message.strip_prefix(name);
            failure.kind == FailureKind::MetricRegressed
                && rest.is_some_and(|rest| rest.starts_with(" is ") || rest.starts_with(" was "))
        }
        Some(
            Outcome::Succeeded
            | Outcome::Reused { .. }
            | Outcome::Skipped { .. }
            | Outcome::Cancelled { .. },
        )
        | None => false,
    }
}

/// `**train** (lr=0.1) over 3 seeds, base 1a2b3c4`.
fn heading(group: &Group<'_>, all: &[Group<'_>]) -> String {
    let first = group.jobs[0];
    let mut text = match group.jobs.len() {
        1 => format!("**{}**", markdown::escape(&first.name, NAME)),
        count => {
            let told = told_apart(group, all);
            let name = markdown::escape(&format!("{}{told}", first.definition), NAME);
            format!("**{name}** over {count} seeds")
        }
    };
    let mut bases: Vec<&CommitId> = Vec::new();
    for base in group.jobs.iter().filter_map(|job| job.base.as_ref()) {
        if !bases.contains(&&base.commit) {
            bases.push(&base.commit);
        }
    }
    match bases.as_slice() {
        [] => {}
        [one] => text.push_str(&format!(", base `{}`", one.short())),
        several => text.push_str(&format!(", {} bases", several.len())),
    }
    text
}

/// ` (lr=0.1)`: the values that differ between the groups of one definition.
fn told_apart(group: &Group<'_>, all: &[Group<'_>]) -> String {
    let first = group.jobs[0];
    let others: Vec<&Group<'_>> = all
        .iter()
        .filter(|other| other.jobs[0].definition == first.definition)
        .collect();
    let differs: BTreeMap<&String, String> = group
        .rest
        .iter()
        .filter(|(name, value)| {
            others
                .iter()
                .any(|other| other.rest.get(*name) != Some(value))
        })
        .map(|(name, value)| {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            (name, text)
        })
        .collect();
    if differs.is_empty() {
        return String::new();
    }
    let parts: Vec<String> = differs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!(" ({})", parts.join(", "))
}
