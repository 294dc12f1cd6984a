//! The one comment under a pull request. Pure: rows in, Markdown out, the same for every forge. It is read on a phone:
//! one table, short lines, details folded. All that comes from outside is escaped, and mentions nobody.

mod jobs;
mod metrics;
#[cfg(test)]
mod tests;
mod text;

use protocol::CommitId;
use protocol::job::{Block, State};
use protocol::spec::LintLevel;
use render::diff::COMMENT_BYTES;
use render::markdown;

use super::desired::{self, CommitView, JobView, Line, PipelineView};
use crate::forge::{CommentUpdate, Verdict};
use text::Text;

/// Bytes for each part; the notebooks get what is left.
const TABLE: usize = 16_000;
const METRICS: usize = 8_000;
const DETAILS: usize = 9_000;
const FINDINGS: usize = 8_000;
const MODELS: usize = 3_000;
/// Kept for the last line.
const FOOT: usize = 600;
/// Most findings that are listed.
const MOST_FINDINGS: usize = 50;
/// Most jobs whose words are shown.
const MOST_DETAILS: usize = 5;

/// A pull request as its comment shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestView {
    /// Its number.
    pub number: u64,
    /// The project's name.
    pub project: String,
    /// Its head, as far as it was planned.
    pub commit: CommitView,
    /// Where it left the branch that it goes to.
    pub base: Option<CommitId>,
    /// What it changes in notebooks, as Markdown; none: they were not compared yet.
    pub notebooks: Option<String>,
}

impl RequestView {
    /// Whether there is nothing worth a comment of its own: nothing runs, and nothing is wrong.
    #[must_use]
    pub fn says_nothing(&self) -> bool {
        let whole = &self.commit.whole;
        whole.jobs.is_empty() && whole.problem.is_none()
    }
}

/// Where pages are.
#[derive(Debug, Clone, Copy)]
struct Pages<'a>(Option<&'a str>);

impl Pages<'_> {
    /// Markdown with a link to a page, where that has an address.
    fn link(self, text: &str, page: &str) -> String {
        match self.0 {
            Some(pages) => format!("[{text}]({}/{page})", pages.trim_end_matches('/')),
            None => text.to_owned(),
        }
    }
}

/// What the comment of a pull request should say.
#[must_use]
pub fn comment(view: &RequestView) -> CommentUpdate {
    let lines = desired::lines(&view.commit, usize::MAX);
    CommentUpdate {
        number: view.number,
        commit: view.commit.commit.clone(),
        project: view.project.clone(),
        text: written(&view.commit, &lines, Some(view)),
        is_final: lines.iter().all(|line| line.verdict.is_final()),
    }
}

/// What a job's own page says first, as Markdown.
pub(super) fn of_job(job: &JobView, verdict: Verdict, pages: Option<&str>) -> String {
    let pages = Pages(pages);
    let mut text = Text::new(COMMENT_BYTES);
    text.put("| job | result |\n| --- | --- |");
    text.put(&jobs::row(job, verdict, pages));
    text.gap();
    put_results(&mut text, &[job], pages);
    text.finish()
}

/// All that is to be said of a commit, with the notebooks where it is the head of a pull request.
pub(super) fn written(
    view: &CommitView,
    lines: &[Line<'_>],
    request: Option<&RequestView>,
) -> String {
    let newest = &view.whole;
    let (verdict, _) = desired::whole(newest, lines, usize::MAX);
    let pages = Pages(view.pages.as_deref());
    let jobs: Vec<&JobView> = lines.iter().map(|line| line.job).collect();
    let page = format!("pipelines/{}", newest.id);
    let mut text = Text::new(COMMENT_BYTES - FOOT);
    text.put(&format!("### {}\n", headline(newest, lines, verdict)));
    if let Some(said) = said(newest, lines) {
        text.put(&format!("{said}\n"));
    }
    if let Some(how) = approval(&view.commit, &jobs, pages) {
        text.put(&format!("{how}\n"));
    }
    put_table(&mut text, lines, pages, &page);
    put_results(&mut text, &jobs, pages);
    if let Some(request) = request {
        put_notebooks(&mut text, request, pages, &page);
    }
    let mut out = text.finish();
    let foot = foot(&view.commit, newest, &jobs, pages, &page);
    out.push_str(&format!("\n{foot}\n"));
    out
}

/// What jobs measured, what failed, what was found, what models there are.
fn put_results(text: &mut Text, jobs: &[&JobView], pages: Pages<'_>) {
    put_part(text, "Metrics", metrics::lines(jobs), METRICS);
    let details = jobs.iter().filter_map(|job| jobs::detail(job));
    let details: Vec<String> = details.take(MOST_DETAILS).collect();
    text.put_list(&details, DETAILS, |more| {
        format!("and {} more failed\n", counted(more))
    });
    put_findings(text, jobs, pages);
    put_part(text, "Models", models(jobs, pages), MODELS);
}

/// One sign for each verdict.
fn icon(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pending => "⏳",
        Verdict::Running => "▶️",
        Verdict::Success => "✅",
        Verdict::Neutral => "⚪",
        Verdict::Failure => "❌",
        Verdict::Error => "⚠️",
        Verdict::Cancelled => "⏹️",
    }
}

fn headline(newest: &PipelineView, lines: &[Line<'_>], verdict: Verdict) -> String {
    let count = |wanted: Verdict| lines.iter().filter(|line| line.verdict == wanted).count();
    let of = lines.len();
    let words = match verdict {
        _ if newest.problem.is_some() => "Nothing could be planned".to_owned(),
        _ if lines.iter().any(|line| is_held(line.job)) => "Waits for an approval".to_owned(),
        Verdict::Neutral => "Nothing to run".to_owned(),
        Verdict::Failure => format!("{} of {} failed", count(verdict), counted(of)),
        Verdict::Error => "The platform failed, not this commit".to_owned(),
        Verdict::Cancelled => "Cancelled".to_owned(),
        Verdict::Pending | Verdict::Running => {
            let done = lines.iter().filter(|line| line.verdict.is_final()).count();
            format!("{done} of {} done", counted(of))
        }
        Verdict::Success => {
            let reused = lines
                .iter()
                .filter(|line| line.job.reused.is_some())
                .count();
            match (of - reused, reused) {
                (_, 0) => format!("{} succeeded", counted(of)),
                (0, _) => "Equal to earlier results; nothing had to run".to_owned(),
                (ran, reused) => format!("{} succeeded, {reused} reused", counted(ran)),
            }
        }
    };
    format!("{} {words}", icon(verdict))
}

fn counted(jobs: usize) -> String {
    match jobs {
        1 => "1 job".to_owned(),
        several => format!("{several} jobs"),
    }
}

fn is_held(job: &JobView) -> bool {
    job.state
        == State::Blocked {
            on: Block::Approval,
        }
}

/// What is wrong with the whole, or why there is nothing.
fn said(newest: &PipelineView, lines: &[Line<'_>]) -> Option<String> {
    match &newest.problem {
        Some(problem) => {
            let hint = problem.hint.as_ref().map(|hint| format!(". {hint}"));
            let words = format!("{}{}", problem.message, hint.unwrap_or_default());
            let owner = jobs::owner(problem.owner());
            Some(format!("{owner}: {}", markdown::escape(&words, 1_000)))
        }
        None if lines.is_empty() => Some(markdown::escape(&desired::nothing(newest), 1_000)),
        None => None,
    }
}

/// How a held commit is approved.
fn approval(commit: &CommitId, jobs: &[&JobView], pages: Pages<'_>) -> Option<String> {
    let held = jobs.iter().find(|job| is_held(job))?;
    let button = match pages.0 {
        Some(_) => {
            let page = pages.link("its page", &format!("jobs/{}", held.id));
            format!(", or press *Approve* on {page}")
        }
        None => String::new(),
    };
    Some(format!(
        "The commit comes from a fork. Nothing of it runs before somebody who may write here has looked at it: \
         comment `/trainyard approve {commit}`{button}. It then runs without secrets, network and private volumes. \
         A further push is to be approved anew."
    ))
}

fn put_table(text: &mut Text, lines: &[Line<'_>], pages: Pages<'_>, page: &str) {
    if lines.is_empty() {
        return;
    }
    text.put("| job | result |\n| --- | --- |");
    // What went wrong is not what is left out.
    let mut sorted: Vec<&Line<'_>> = lines.iter().collect();
    let is_bad = |line: &&Line<'_>| matches!(line.verdict, Verdict::Failure | Verdict::Error);
    if lines.len() > 20 {
        sorted.sort_by_key(|line| !is_bad(line));
    }
    let rows: Vec<String> = sorted
        .iter()
        .map(|line| jobs::row(line.job, line.verdict, pages))
        .collect();
    text.put_list(&rows, TABLE, |more| {
        let more = format!("and {} more", counted(more));
        format!("| … | {} |", pages.link(&more, page))
    });
    text.gap();
}

fn put_part(text: &mut Text, title: &str, lines: Vec<String>, room: usize) {
    if lines.is_empty() {
        return;
    }
    text.put(&format!("**{title}**\n"));
    text.put_list(&lines, room, |more| format!("and {more} more"));
    text.gap();
}

fn put_findings(text: &mut Text, jobs: &[&JobView], pages: Pages<'_>) {
    for job in jobs.iter().filter(|job| !job.findings.is_empty()) {
        let mut findings: Vec<_> = job.findings.iter().collect();
        findings.sort_by_key(|finding| finding.level != LintLevel::Error);
        let errors = findings
            .iter()
            .filter(|finding| finding.level == LintLevel::Error)
            .count();
        let all = findings.len();
        let lines: Vec<String> = findings
            .into_iter()
            .take(MOST_FINDINGS)
            .map(jobs::finding)
            .collect();
        let hidden = all - lines.len();
        let what = if all == 1 { "finding" } else { "findings" };
        text.put(&format!(
            "<details><summary>{all} {what}, {errors} of them errors</summary>\n"
        ));
        let page = format!("jobs/{}", job.id);
        let rest = |more: usize| format!("- {}", pages.link(&format!("and {more} more"), &page));
        text.put_list(&lines, FINDINGS, |more| rest(more + hidden));
        if hidden > 0 && lines.len() == MOST_FINDINGS {
            text.put(&rest(hidden));
        }
        text.put("\n</details>\n");
    }
}

fn models(jobs: &[&JobView], pages: Pages<'_>) -> Vec<String> {
    let best = best_candidates(jobs);
    let models = jobs.iter().filter_map(|job| job.model.as_ref());
    models
        .map(|model| {
            let (label, last) = match model.version {
                Some(number) => (format!("version {number}"), number.to_string()),
                None => ("candidate".to_owned(), model.id.clone()),
            };
            let name = markdown::escape(&model.name, 100);
            let page = format!("models/{}/{last}", model.name);
            let link = pages.link(&format!("{name}, {label}"), &page);
            let best = best.iter().find(|(id, _)| *id == model.id);
            let rank = best.map_or("", |(_, rank)| rank);
            format!("- {link}{rank}")
        })
        .collect()
}

/// The best of each definition's candidates by id, and that in words.
fn best_candidates<'a>(jobs: &[&'a JobView]) -> Vec<(&'a str, String)> {
    let mut definitions: Vec<&str> = jobs.iter().map(|job| &*job.definition).collect();
    definitions.dedup();
    let best_of = |definition: &&str| {
        let of = jobs.iter().filter(|job| job.definition == **definition);
        let (name, goal) = of.clone().find_map(|job| {
            let name = job.first_metric.as_ref()?;
            Some((name, job.metrics.get(name)?.goal))
        })?;
        let measured = of.filter_map(|job| {
            let model = job.model.as_ref().filter(|model| model.version.is_none())?;
            let metric = metrics::now(job).iter().find(|m| m.name == *name)?;
            Some((&*model.id, metric.value))
        });
        let (id, value, count) = crate::registry::best(goal, measured)?;
        let name = markdown::escape(name, 100);
        let value = markdown::escape(&super::words::figure(value), 40);
        Some((id, format!(", the best of {count} by {name}: {value}")))
    };
    definitions.iter().filter_map(best_of).collect()
}

/// The notebooks, folded, as far as there is room; cut behind a whole cell.
fn put_notebooks(text: &mut Text, view: &RequestView, pages: Pages<'_>, page: &str) {
    let Some(diff) = view.notebooks.as_deref().filter(|diff| !diff.is_empty()) else {
        return;
    };
    let base = view.base.as_ref().map(CommitId::short).unwrap_or_default();
    let all = match pages.0 {
        Some(_) => {
            let page = format!("{page}/notebooks");
            format!("{}\n\n", pages.link("On a page of its own", &page))
        }
        None => String::new(),
    };
    let head = format!("<details><summary>Notebooks changed since {base}</summary>\n\n{all}");
    let end = "\n</details>";
    let cut = "The rest has no room here.\n";
    let room = text
        .room()
        .saturating_sub(head.len() + end.len() + cut.len() + 8);
    let shown = match whole_cells(diff, room) {
        "" => return,
        all if all.len() == diff.len() => all.to_owned(),
        part => format!("{part}\n{cut}"),
    };
    text.put(&format!("{head}{shown}{end}\n"));
}

/// The beginning of a diff of at most `room` bytes that ends behind a folded cell: a line of a notebook never begins
/// with that tag, it has its sign before it.
fn whole_cells(diff: &str, room: usize) -> &str {
    const END: &str = "\n</details>\n";
    if diff.len() <= room {
        return diff;
    }
    let mut at = room;
    while !diff.is_char_boundary(at) {
        at -= 1;
    }
    let end = diff[..at].rfind(END).map_or(0, |found| found + END.len());
    &diff[..end]
}

fn foot(
    commit: &CommitId,
    newest: &PipelineView,
    jobs: &[&JobView],
    pages: Pages<'_>,
    page: &str,
) -> String {
    let mut parts = vec![
        pages.link(&format!("Pipeline \\#{}", newest.number), page),
        format!("`{}`", commit.short()),
    ];
    let ms: u64 = jobs.iter().map(|job| job.gpu_ms).sum();
    if ms > 0 {
        let hours = super::figure(ms as f64 / 3_600_000.0);
        parts.push(format!("{hours} GPU-hours"));
    }
    parts.join(" · ")
}
