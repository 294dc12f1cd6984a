//! The sentences of statuses. They say first what a person has to know, and are built of parts, so
//! that a bound drops the least important part and not the end of a number.

use std::collections::BTreeMap;

use protocol::job::{Block, State};
use protocol::outcome::{CellPlace, Failure, Outcome, Owner};
use protocol::report::{AttemptReport, MetricValue};

use super::desired::{JobView, Reused};
use crate::forge::{Verdict, bounded};

/// Metrics shown in one line.
const MOST_METRICS: usize = 3;

/// A verdict and its sentence of at most `limit` characters.
pub(super) fn of_job(job: &JobView, limit: usize) -> (Verdict, String) {
    let (verdict, text) = match &job.state {
        State::Blocked { on } => (Verdict::Pending, blocked(job, on)),
        State::Queued => (Verdict::Pending, queued(job)),
        State::Leased { .. } => (Verdict::Pending, "starting".to_owned()),
        State::Running { .. } => (Verdict::Running, "running".to_owned()),
        State::Stopping { by, .. } => (Verdict::Running, format!("being stopped: {by}")),
        State::Finished { outcome } => finished(job, outcome, limit),
    };
    (verdict, bounded(&text, limit))
}

fn blocked(job: &JobView, on: &Block) -> String {
    match on {
        Block::Needs if job.needs.is_empty() => "waits for lint".to_owned(),
        Block::Needs => format!("waits for {}", job.needs.join(", ")),
        Block::Approval => "waits for an approval: the commit is from a fork".to_owned(),
        Block::Equal { .. } => {
            "an equal job is running; its result will stand for this one".to_owned()
        }
    }
}

fn queued(job: &JobView) -> String {
    let reason = job.reason.as_deref().unwrap_or("waits for a host");
    match &job.fault {
        Some(fault) => format!("again after a platform fault ({}): {reason}", fault.message),
        None => format!("queued: {reason}"),
    }
}

fn finished(job: &JobView, outcome: &Outcome, limit: usize) -> (Verdict, String) {
    match outcome {
        Outcome::Succeeded => {
            let parts = match &job.report {
                Some(report) => succeeded(job, report, limit),
                None => Vec::new(),
            };
            let text = joined(&parts, limit);
            let text = if text.is_empty() {
                "succeeded".to_owned()
            } else {
                text
            };
            (Verdict::Success, text)
        }
        Outcome::Reused { .. } => (Verdict::Success, reused(job, limit)),
        Outcome::Skipped { why } => (Verdict::Cancelled, format!("not run: {why}")),
        // A rule's name says by itself what happened.
        Outcome::Cancelled { by } if by.starts_with("superseded") => {
            (Verdict::Cancelled, by.clone())
        }
        Outcome::Cancelled { by } => (Verdict::Cancelled, format!("cancelled by {by}")),
        Outcome::Failed(failure) => failed(failure),
    }
}

fn succeeded(job: &JobView, report: &AttemptReport, limit: usize) -> Vec<String> {
    let mut parts: Vec<String> = chosen(job, &report.metrics)
        .map(|metric| {
            let base = job.base.iter().flat_map(|base| &base.metrics);
            let base = base.into_iter().find(|b| b.name == metric.name);
            with_delta(metric, base.map(|b| b.value))
        })
        .collect();
    match report.cells_total {
        0 => {}
        1 => parts.push("1 cell".to_owned()),
        total => parts.push(format!("{total} cells")),
    }
    let ran = match report.usage.run_time {
        protocol::Span(0) => report.finished_at.since(report.started_at),
        run_time => run_time,
    };
    parts.push(ran.to_string());
    parts.extend(gpus(report));
    if !job.unversioned.is_empty() {
        parts.push(unversioned(
            &job.unversioned,
            limit.saturating_sub(joined(&parts, limit).chars().count()),
        ));
    }
    parts
}

/// `1×A100`: the GPUs that it had, by the one word of their name that tells them from others.
fn gpus(report: &AttemptReport) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for gpu in &report.setting.gpus {
        let is_model = |word: &&str| word.bytes().any(|b| b.is_ascii_digit());
        let word = gpu.model.split([' ', '-']).find(is_model);
        *counts.entry(word.unwrap_or(&gpu.model)).or_default() += 1;
    }
    let words: Vec<String> = counts
        .iter()
        .map(|(model, count)| format!("{count}×{model}"))
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// What could not be versioned is said: in full where there is room, else by its number.
fn unversioned(what: &[String], room: usize) -> String {
    let full = format!("not versioned: {}", what.join(", "));
    if full.chars().count() + 3 <= room {
        return full;
    }
    match what.len() {
        1 => "1 input not versioned".to_owned(),
        several => format!("{several} inputs not versioned"),
    }
}

/// The metrics that the pipeline file names; where it names none, the first that were reported.
fn chosen<'a>(
    job: &'a JobView,
    metrics: &'a [MetricValue],
) -> impl Iterator<Item = &'a MetricValue> {
    metrics
        .iter()
        .filter(|metric| job.metrics.is_empty() || job.metrics.contains_key(&metric.name))
        .take(MOST_METRICS)
}

fn with_delta(metric: &MetricValue, base: Option<f64>) -> String {
    let now = format!("{} {}", metric.name, figure(metric.value));
    match base.map(|base| metric.value - base) {
        Some(delta) if delta.is_finite() => format!("{now} ({})", change(delta)),
        Some(_) | None => now,
    }
}

fn reused(job: &JobView, limit: usize) -> String {
    let Some(Reused {
        commit,
        number,
        metrics,
        ..
    }) = &job.reused
    else {
        return "equal to an earlier result; nothing had to run".to_owned();
    };
    let mut parts = vec![format!("equal to {} (#{number})", commit.short())];
    parts.extend(chosen(job, metrics).map(|metric| with_delta(metric, None)));
    parts.push("nothing had to run".to_owned());
    joined(&parts, limit)
}

/// The owner's words: a platform fault never reads as the commit's.
fn failed(failure: &Failure) -> (Verdict, String) {
    let said = blame(failure);
    match failure.owner() {
        Owner::User => (Verdict::Failure, said),
        Owner::Limit => (Verdict::Failure, format!("limit: {said}")),
        Owner::Platform => (
            Verdict::Error,
            format!("platform fault, not the commit's: {said}"),
        ),
    }
}

/// Where it failed, how, and what to do next; not whose it is.
pub(crate) fn blame(failure: &Failure) -> String {
    let place = failure.cell.as_ref().map(place).unwrap_or_default();
    let said = if place.is_empty() || failure.message.contains("cell ") {
        failure.message.clone()
    } else {
        format!("{place}: {}", failure.message)
    };
    match &failure.hint {
        Some(hint) => format!("{said}. {hint}"),
        None => said,
    }
}

/// `train.ipynb cell 5 line 3`, counted as people count.
fn place(cell: &CellPlace) -> String {
    let name = cell.path.rsplit('/').next().unwrap_or_default();
    let line = cell
        .line
        .map(|line| format!(" line {line}"))
        .unwrap_or_default();
    format!("{name} cell {}{line}", u64::from(cell.index) + 1)
}

/// The parts that fit, in their order; the first one always stands.
pub(super) fn joined(parts: &[String], limit: usize) -> String {
    let mut line = String::new();
    for part in parts {
        let longer = if line.is_empty() {
            part.clone()
        } else {
            format!("{line} · {part}")
        };
        if !line.is_empty() && longer.chars().count() > limit {
            break;
        }
        line = longer;
    }
    line
}

/// A number for people: at most four significant digits.
pub(crate) fn figure(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞" } else { "-∞" }.to_owned();
    }
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !(1e-4..1e7).contains(&size) {
        format!("{value:.2e}")
    } else {
        // Digits before the point: 0.962 has none, 12.5 has two.
        let whole = size.log10().floor() as i32 + 1;
        let decimals = usize::try_from(4 - whole.max(0)).unwrap_or(0).min(4);
        let text = format!("{value:.decimals$}");
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    }
}

/// A difference with its sign; what four digits cannot show is no change.
pub(crate) fn change(delta: f64) -> String {
    match figure(delta) {
        zero if zero == "0" || zero == "-0" => "±0".to_owned(),
        negative if negative.starts_with('-') => negative,
        positive => format!("+{positive}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        for (value, shown) in [
            (0.962, "0.962"),
            (0.96666, "0.9667"),
            (1.0, "1"),
            (12.345, "12.35"),
            (99.999, "100"),
            (12_345.6, "12346"),
            (0.0, "0"),
            (-0.5, "-0.5"),
            (0.000_012_34, "1.23e-5"),
            (123_456_789.0, "1.23e8"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-∞"),
        ] {
            assert_eq!(figure(value), shown);
        }
        assert_eq!(change(0.004), "+0.004");
        assert_eq!(change(-0.004), "-0.004");
        assert_eq!(change(0.0), "±0");
        assert_eq!(change(-0.0), "±0");
    }
}
