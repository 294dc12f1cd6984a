//! The check runs of a commit, for a forge that has them: one for the whole and one for each job, with sentences at
//! lines of files and buttons. Pure.

use protocol::event::Finding;
use protocol::job::{Block, State};
use protocol::spec::LintLevel;
use protocol::{FailureKind, Outcome};

use super::comment;
use super::desired::{self, CommitView, JobView, Line};
use crate::forge::{Annotation, Button, CheckState, CheckUpdate, Verdict, bounded};

/// What comes back with a press on a button of the whole, where a job's check has the job's id.
const WHOLE: &str = "whole";
/// Most characters of the line for people.
const TITLE: usize = 200;
/// Most characters of a sentence at a line.
const MESSAGE: usize = 2_000;

/// The checks of a commit, the whole first.
#[must_use]
pub fn checks(view: &CommitView) -> Vec<CheckUpdate> {
    let lines = desired::lines(view, usize::MAX);
    let (verdict, title) = desired::whole(&view.whole, &lines, TITLE);
    let page = |page: String| {
        let pages = view.pages.as_ref()?;
        Some(format!("{}/{page}", pages.trim_end_matches('/')))
    };
    let held = lines.iter().any(|line| is_held(line.job));
    let mut checks = vec![CheckUpdate {
        commit: view.commit.clone(),
        name: desired::WHOLE.to_owned(),
        id: WHOLE.to_owned(),
        state: if held {
            CheckState::ActionRequired
        } else {
            of_verdict(verdict)
        },
        title: bounded(&title, TITLE),
        summary: comment::written(view, &lines, None),
        annotations: Vec::new(),
        buttons: buttons(held, verdict),
        url: page(format!("pipelines/{}", view.whole.id)),
    }];
    for (context, line) in desired::contexts(&lines) {
        let job = line.job;
        checks.push(CheckUpdate {
            commit: view.commit.clone(),
            name: context,
            id: job.id.to_string(),
            state: state(line),
            title: bounded(&line.text, TITLE),
            summary: comment::of_job(job, line.verdict, view.pages.as_deref()),
            annotations: annotations(job),
            buttons: buttons(is_held(job), line.verdict),
            url: page(format!("jobs/{}", job.id)),
        });
    }
    checks
}

fn is_held(job: &JobView) -> bool {
    job.state
        == State::Blocked {
            on: Block::Approval,
        }
}

/// A job's own end says more than its verdict does.
fn state(line: &Line<'_>) -> CheckState {
    if is_held(line.job) {
        return CheckState::ActionRequired;
    }
    let failure = match line.job.state.outcome() {
        Some(Outcome::Failed(failure)) => failure,
        Some(
            Outcome::Succeeded
            | Outcome::Reused { .. }
            | Outcome::Skipped { .. }
            | Outcome::Cancelled { .. },
        )
        | None => return of_verdict(line.verdict),
    };
    let of_time = matches!(
        failure.kind,
        FailureKind::JobTimeout | FailureKind::CellTimeout | FailureKind::SilenceTimeout
    );
    match of_time {
        true => CheckState::TimedOut,
        false => of_verdict(line.verdict),
    }
}

/// GitHub has no word for a fault of the platform: it is not green, and its title says whose it is.
fn of_verdict(verdict: Verdict) -> CheckState {
    match verdict {
        Verdict::Pending => CheckState::Queued,
        Verdict::Running => CheckState::InProgress,
        Verdict::Success => CheckState::Success,
        Verdict::Neutral => CheckState::Neutral,
        Verdict::Failure | Verdict::Error => CheckState::Failure,
        Verdict::Cancelled => CheckState::Cancelled,
    }
}

fn buttons(held: bool, verdict: Verdict) -> Vec<Button> {
    match (held, verdict) {
        (true, _) => vec![Button::Approve, Button::Cancel],
        (false, Verdict::Pending | Verdict::Running) => vec![Button::Cancel],
        (false, Verdict::Neutral) => Vec::new(),
        (false, Verdict::Success | Verdict::Failure | Verdict::Error | Verdict::Cancelled) => {
            vec![Button::Rerun]
        }
    }
}

/// What lint tools found, and the line that raised; only where GitHub can show it: at a line of a file.
fn annotations(job: &JobView) -> Vec<Annotation> {
    let found = job.findings.iter().map(of_finding);
    let raised = match job.state.outcome() {
        Some(Outcome::Failed(failure)) => failure.cell.as_ref().and_then(|cell| {
            Some(Annotation {
                path: cell.path.clone(),
                line: cell.raw_line?,
                is_failure: true,
                title: bounded(&format!("{}, cell {}", job.name, cell.index + 1), TITLE),
                message: bounded(&failure.message, MESSAGE),
            })
        }),
        Some(
            Outcome::Succeeded
            | Outcome::Reused { .. }
            | Outcome::Skipped { .. }
            | Outcome::Cancelled { .. },
        )
        | None => None,
    };
    found
        .chain(raised)
        .filter(|annotation| !annotation.message.is_empty())
        .collect()
}

/// A finding stands at its line of the file as it lies in git; one of the whole file at the first.
fn of_finding(finding: &Finding) -> Annotation {
    let of_text = finding.line.filter(|_| finding.cell.is_none());
    let place = match (finding.cell, finding.line) {
        (Some(cell), Some(line)) => format!("cell {cell} line {line}: "),
        (Some(cell), None) => format!("cell {cell}: "),
        (None, _) => String::new(),
    };
    let rule = match &finding.code {
        Some(code) => format!("{} {code}", finding.tool),
        None => finding.tool.clone(),
    };
    Annotation {
        path: finding.path.clone(),
        line: finding.raw_line.or(of_text).unwrap_or(1).max(1),
        is_failure: finding.level == LintLevel::Error,
        title: bounded(&rule, TITLE),
        message: bounded(&format!("{place}{}", finding.message), MESSAGE),
    }
}
