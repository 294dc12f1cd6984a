//! The table of jobs, and what failed.

use protocol::event::Finding;
use protocol::job::{Block, State};
use protocol::spec::LintLevel;
use protocol::{Failure, Outcome, Owner};
use render::markdown;

use super::super::desired::JobView;
use super::super::words;
use super::Pages;
use crate::forge::{Verdict, bounded};

/// Most characters of a job's name.
const NAME: usize = 80;
/// Most characters of what is said of a job.
const SAID: usize = 400;
/// Most characters of a tool's own words.
const DETAIL: usize = 3_000;

/// One row of the table: the job with its link, and what matters of it.
pub(super) fn row(job: &JobView, verdict: Verdict, pages: Pages<'_>) -> String {
    let name = pages.link(
        &markdown::escape(&job.name, NAME),
        &format!("jobs/{}", job.id),
    );
    let said = said(job, pages);
    let (name, said) = (markdown::table_cell(&name), markdown::table_cell(&said));
    format!("| {} {name} | {said} |", icon(job, verdict))
}

fn icon(job: &JobView, verdict: Verdict) -> &'static str {
    let held = State::Blocked {
        on: Block::Approval,
    };
    if job.state == held {
        return "🔒";
    }
    if job.reused.is_some() {
        return "♻️";
    }
    super::icon(verdict)
}

fn said(job: &JobView, pages: Pages<'_>) -> String {
    if let Some(failure) = failure(job) {
        let owner = owner(failure.owner());
        let blame = bounded(&words::blame(failure), SAID);
        return format!("{owner}: {}", markdown::escape(&blame, SAID));
    }
    let (_, text) = words::of_job(job, SAID);
    let text = markdown::escape(&text, SAID);
    match &job.reused {
        Some(reused) => format!(
            "{text} · {}",
            pages.link("that result", &format!("jobs/{}", reused.of))
        ),
        None => text,
    }
}

fn failure(job: &JobView) -> Option<&Failure> {
    match job.state.outcome()? {
        Outcome::Failed(failure) => Some(failure),
        Outcome::Succeeded
        | Outcome::Reused { .. }
        | Outcome::Skipped { .. }
        | Outcome::Cancelled { .. } => None,
    }
}

/// Whose it is, as the first word.
pub(super) fn owner(owner: Owner) -> &'static str {
    match owner {
        Owner::User => "**user**",
        Owner::Limit => "**limit**",
        Owner::Platform => "**platform**, not this commit",
    }
}

/// What a job that failed left, folded, and the one command to go on with; none where it did not fail, or said nothing.
pub(super) fn detail(job: &JobView) -> Option<String> {
    let failure = failure(job)?;
    let name = markdown::escape(&job.name, NAME);
    let next = match failure.owner() {
        Owner::User => format!("`trainyard debug {}`", job.id),
        Owner::Limit | Owner::Platform => format!("`trainyard retry {}`", job.id),
    };
    let mut text = format!("**{name}** failed. To go on: {next}\n");
    if let Some(detail) = &failure.detail {
        let block = markdown::code_block(detail, "", DETAIL);
        text.push_str(&format!(
            "\n<details><summary>what it said</summary>\n\n{block}\n</details>\n"
        ));
    }
    Some(text)
}

/// One finding as a line: level, place, rule and sentence.
pub(super) fn finding(finding: &Finding) -> String {
    let level = match finding.level {
        LintLevel::Error => "❌",
        LintLevel::Warn => "⚠️",
    };
    let mut place = markdown::code_span(&finding.path, 120);
    if let Some(cell) = finding.cell {
        place.push_str(&format!(" cell {cell}"));
    }
    if let Some(line) = finding.line {
        place.push_str(&format!(" line {line}"));
    }
    let rule = finding.code.as_deref().unwrap_or(&finding.tool);
    let rule = markdown::escape(rule, 40);
    format!(
        "- {level} {place}: {rule} {}",
        markdown::escape(&finding.message, 200)
    )
}
