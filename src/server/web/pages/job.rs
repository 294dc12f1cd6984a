//! The page of a job: verdict first, then metrics, findings, cells, and what it ran in.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use axum::{Extension, Form};
use protocol::api::{Attempt, JobDetail};
use protocol::event::{ArtifactRole, Finding, Phase};
use protocol::registry::Version;
use protocol::report::{AttemptReport, MetricValue};
use protocol::spec::LintLevel;
use protocol::{AttemptId, Digest, Timestamp, TriggerKind};
use render::html;

use super::super::access::{Who, encode};
use super::super::answer::Problem;
use super::super::api::job_id;
use super::super::guard::form_token;
use super::super::site::Site;
use super::super::story::{Story, source};
use super::super::{views, writes};
use super::frame::{Frame, Shown, show};
use super::login::Proof;
use super::models::href_of;
use super::notebook;
use super::pipelines::PipelineRow;
use super::verdict::{Link, Verdict, verdict};
use super::words::{change, count, took, value};
use crate::store::{self, Connection, events, jobs, overview, registry};

/// Most bytes of suggestions on one page.
const MOST_PATCHES: usize = 512 << 10;
/// Most events that a page is made from, samples aside; the rest is in `trainyard logs`.
const MOST_EVENTS: usize = 20_000;
/// Most events that are read for a page; a day has 17,280 samples.
const MOST_READ: usize = 200_000;
/// Events that are read at once.
const BATCH: u32 = 2_000;

pub(in super::super) struct Heading {
    id: String,
    name: String,
    state: String,
    took: String,
}

pub(super) struct Tile {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) change: Option<String>,
    pub(super) judged: &'static str,
}

struct FindingRow {
    place: String,
    code: String,
    message: String,
    suggestion: Option<String>,
    tool: String,
    level: &'static str,
}

struct FileRow {
    href: String,
    path: String,
    role: &'static str,
    size: String,
}

struct PhaseBar {
    name: String,
    weight: u64,
    took: String,
}

pub(super) struct Fact {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    frame: Frame,
    notebook_css: &'static str,
    pipeline: PipelineRow,
    job: Heading,
    verdict: Verdict,
    form: Option<String>,
    live: Option<String>,
    /// What a running job uses; empty before that was measured.
    using: String,
    metrics: Vec<Tile>,
    against: Option<String>,
    findings: Vec<FindingRow>,
    cells: String,
    log: String,
    artifacts: Vec<FileRow>,
    phases: Vec<PhaseBar>,
    facts: Vec<Fact>,
    packages: Option<String>,
}

#[derive(Template)]
#[template(path = "verdict.html")]
struct VerdictFragment {
    job: Heading,
    verdict: Verdict,
    form: Option<String>,
}

#[derive(Template)]
#[template(path = "using.html")]
struct UsingFragment<'a> {
    using: &'a str,
}

/// What a running job uses, as a live fragment.
pub(in super::super) fn using_fragment(using: &str) -> String {
    UsingFragment { using }.render().unwrap_or_default()
}

/// The first card as a live fragment.
pub(in super::super) fn verdict_fragment(detail: &JobDetail, form: Option<String>) -> String {
    let page = VerdictFragment {
        job: heading(detail),
        verdict: card(detail),
        form,
    };
    page.render().unwrap_or_default()
}

/// The form token of this person's buttons; none where they may only read.
pub(in super::super) fn form_of(site: &Site, who: &Who) -> Option<String> {
    let may_run = who.role() >= Some(protocol::api::Role::Run);
    may_run.then(|| form_token(site.access.form_secret(who)))
}

/// `GET /jobs/{id}`
pub(in super::super) async fn page(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Shown {
    let id = job_id(&id)?;
    let mut db = site.store.read().await?;
    let row = jobs::get(&mut db, &id).await?;
    let detail = views::job_detail(&mut db, &row).await?;
    let version = version_left(&mut db, &row).await?;
    let run = match shown_attempt(&detail) {
        Some(attempt) => overview::run_of(&mut db, &attempt.id).await?,
        None => None,
    };
    let before = metrics_before(&mut db, &row).await?;
    // What follows reads files and the mirror, and takes a connection of its own: who held one and waited for another
    // would, with others like it, wait for ever.
    drop(db);
    let attempt = shown_attempt(&detail);
    let report = attempt.and_then(|attempt| attempt.report.as_ref());

    let mut story = Story::new(None);
    let mut cells = None;
    if let Some(attempt) = attempt {
        cells = notebook::cells(&site, &id, attempt).await;
        if cells.is_none() {
            story = Story::new(source(&site, &row).await);
        }
        let mut db = site.store.read().await?;
        tell(&mut story, &mut db, &attempt.id).await?;
    }
    let open = detail.job.state.outcome().is_none();
    let mut verdict = card(&detail);
    verdict.links.extend(version.as_ref().map(version_link));
    verdict.links.extend(run.as_deref().map(run_link));
    show(&JobPage {
        frame: Frame::new("pipelines", &site.access, &who),
        notebook_css: html::STYLE,
        pipeline: PipelineRow::new(&detail.in_pipeline, Timestamp::now()),
        job: heading(&detail),
        verdict,
        form: form_of(&site, &who),
        live: open.then(|| format!("/jobs/{id}/live?from={}", story.next)),
        using: story.using().unwrap_or_default().to_owned(),
        metrics: report
            .map(|report| tiles(report, &detail, before.as_ref()))
            .unwrap_or_default(),
        against: before.as_ref().map(|(label, _)| label.clone()),
        findings: finding_rows(story.findings()),
        cells: cells.unwrap_or_else(|| story.cells()),
        log: story.take_log(),
        artifacts: attempt.map(files).unwrap_or_default(),
        phases: report.map(phases).unwrap_or_default(),
        facts: report
            .map(|report| facts(report, &detail))
            .unwrap_or_default(),
        packages: report.and_then(|report| report.setting.packages.clone()),
    })
}

/// Tells the story what an attempt has said so far, within bounds.
async fn tell(story: &mut Story, db: &mut Connection, attempt: &AttemptId) -> store::Result<()> {
    let (mut told, mut read) = (0, 0);
    let mut next = 1;
    while told < MOST_EVENTS && read < MOST_READ {
        let lines = events::from(db, attempt, next, BATCH).await?;
        read += lines.len();
        let Some((last, _)) = lines.last() else {
            return Ok(());
        };
        next = last + 1;
        told += lines.iter().filter(|(_, line)| story.take(line)).count();
    }
    Ok(())
}

/// `POST /jobs/{id}/cancel`
pub(in super::super) async fn cancel(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Form(proof): Form<Proof>,
) -> Shown {
    proved(&site, &who, &proof)?;
    let job = writes::cancel_job(&site, &who, &job_id(&id)?).await?;
    Ok(Redirect::to(&format!("/jobs/{}", job.id)).into_response())
}

/// `POST /jobs/{id}/retry`
pub(in super::super) async fn retry(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Form(proof): Form<Proof>,
) -> Shown {
    proved(&site, &who, &proof)?;
    let job = writes::retry_job(&site, &who, &job_id(&id)?).await?;
    Ok(Redirect::to(&format!("/jobs/{}", job.id)).into_response())
}

/// `POST /jobs/{id}/approve`
pub(in super::super) async fn approve(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Form(proof): Form<Proof>,
) -> Shown {
    proved(&site, &who, &proof)?;
    let id = job_id(&id)?;
    writes::approve_of(&site, &who, &id).await?;
    Ok(Redirect::to(&format!("/jobs/{id}")).into_response())
}

/// Refuses a form that did not come from this person's own page.
fn proved(site: &Site, who: &Who, proof: &Proof) -> Result<(), Problem> {
    if proof.holds(site, who) {
        return Ok(());
    }
    let words = "this form is too old, or not from this page: open the page again and press the button there";
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", words))
}

fn heading(detail: &JobDetail) -> Heading {
    let job = &detail.job;
    Heading {
        id: job.id.to_string(),
        name: job.name.clone(),
        state: job.state.word().to_owned(),
        took: took(job.started_at, job.finished_at, Timestamp::now()),
    }
}

fn card(detail: &JobDetail) -> Verdict {
    let job = &detail.job;
    let mut card = verdict(
        &job.state,
        job.id.as_str(),
        job.reason.as_deref(),
        html::terminal_text,
    );
    if let Some(attempt) = shown_attempt(detail)
        && let Some(report) = &attempt.report
    {
        let ran = match (report.cells_executed, report.cells_total) {
            (_, 0) => String::new(),
            (done, total) if done == total => count(u64::from(total), "cell"),
            (done, total) => format!("{done} of {}", count(u64::from(total), "cell")),
        };
        let facts = [ran, attempt.agent.clone(), report.setting.image.clone()];
        let facts: Vec<_> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
        card.lines.push(facts.join(" · "));
        card.lines.extend(report.usage.notes.iter().cloned());
    }
    card
}

/// The attempt that the page is about: the last one.
fn shown_attempt(detail: &JobDetail) -> Option<&Attempt> {
    detail.attempts.last()
}

/// The model version that a job left, once the registry has looked.
async fn version_left(
    db: &mut store::Connection,
    job: &store::jobs::Job,
) -> store::Result<Option<Version>> {
    match registry::succeeded_run(db, &job.id).await? {
        Some(run) => store::models::by_run(db, &run).await,
        None => Ok(None),
    }
}

fn version_link(version: &Version) -> Link {
    Link {
        href: href_of(version),
        text: format!("{} {}", version.model, version.label()),
    }
}

fn run_link(run: &str) -> Link {
    Link {
        href: format!("/runs/{run}"),
        text: "its run, with curves and files".to_owned(),
    }
}

/// The metrics of the last success of the same definition before this job, and what to call it.
async fn metrics_before(
    db: &mut store::Connection,
    job: &store::jobs::Job,
) -> store::Result<Option<(String, Vec<MetricValue>)>> {
    let Some(earlier) = jobs::last_success_before(db, job).await? else {
        return Ok(None);
    };
    let commit = store::pipelines::get(db, &earlier.pipeline)
        .await?
        .trigger
        .commit;
    let report = store::attempts::of_job(db, &earlier.id)
        .await?
        .pop()
        .and_then(|last| last.report);
    Ok(report.map(|report| (format!("commit {}", commit.short()), report.metrics)))
}

fn tiles(
    report: &AttemptReport,
    detail: &JobDetail,
    before: Option<&(String, Vec<MetricValue>)>,
) -> Vec<Tile> {
    let tile = |metric: &MetricValue| {
        let goal = detail.spec.metrics.get(&metric.name).map(|spec| spec.goal);
        let earlier = before.and_then(|(_, all)| all.iter().find(|old| old.name == metric.name));
        let change = earlier.and_then(|old| change(metric.value, old.value, goal));
        Tile {
            name: metric.name.clone(),
            value: value(metric.value),
            judged: change.as_ref().map_or("", |(_, judged)| judged),
            change: change.map(|(text, _)| text),
        }
    };
    report.metrics.iter().take(200).map(tile).collect()
}

fn finding_rows(findings: &[Finding]) -> Vec<FindingRow> {
    let mut patches = 0;
    let row = |finding: &Finding| {
        let mut row = finding_row(finding);
        patches += row.suggestion.as_ref().map_or(0, String::len);
        row.suggestion = row.suggestion.filter(|_| patches <= MOST_PATCHES);
        row
    };
    findings.iter().map(row).collect()
}

fn finding_row(finding: &Finding) -> FindingRow {
    let mut place = finding.path.clone();
    for (word, number) in [("cell", finding.cell), ("line", finding.line)] {
        if let Some(number) = number {
            place += &format!(", {word} {number}");
        }
    }
    if let Some(line) = finding.raw_line {
        place += &format!(" (line {line} of the file)");
    }
    FindingRow {
        place,
        code: finding.code.clone().unwrap_or_default(),
        message: finding.message.clone(),
        suggestion: finding.suggestion.clone(),
        tool: finding.tool.clone(),
        level: match finding.level {
            LintLevel::Warn => "warning",
            LintLevel::Error => "",
        },
    }
}

/// Where an artifact is downloaded.
pub(super) fn href(attempt: &AttemptId, path: &str, role: &str) -> String {
    format!("/api/v1/artifacts/{attempt}/{}?role={role}", encode(path))
}

fn files(attempt: &Attempt) -> Vec<FileRow> {
    let row = |file: &protocol::event::Artifact| {
        let (role, word) = match file.role {
            ArtifactRole::Notebook => ("executed notebook", "notebook"),
            ArtifactRole::Model => ("model", "model"),
            ArtifactRole::Declared => ("artifact", "declared"),
            ArtifactRole::Output => ("large output", "output"),
        };
        FileRow {
            href: href(&attempt.id, &file.path, word),
            path: file.path.clone(),
            role,
            size: file.size.to_string(),
        }
    };
    attempt.artifacts.iter().take(500).map(row).collect()
}

fn phases(report: &AttemptReport) -> Vec<PhaseBar> {
    let order = [
        Phase::Workspace,
        Phase::Environment,
        Phase::Run,
        Phase::Collect,
        Phase::Upload,
    ];
    let bar = |phase: Phase| {
        report.phases.get(phase.word()).map(|span| PhaseBar {
            name: phase.word().to_owned(),
            weight: span.0.max(1),
            took: span.to_string(),
        })
    };
    order.into_iter().filter_map(bar).collect()
}

fn facts(report: &AttemptReport, detail: &JobDetail) -> Vec<Fact> {
    let setting = &report.setting;
    let gpus: Vec<_> = setting
        .gpus
        .iter()
        .map(|gpu| format!("{} {}", gpu.model, gpu.uuid))
        .collect();
    let driver = setting
        .driver
        .as_ref()
        .map(|driver| format!("{} (CUDA {})", driver.version, driver.cuda));
    let digest = |digest: &Option<Digest>| digest.as_ref().map(|digest| digest.short().to_owned());
    [
        ("Host", Some(setting.host.clone())),
        ("Executor", Some(setting.executor.clone())),
        ("Image", Some(setting.image.clone())),
        ("Image id", setting.image_id.clone()),
        ("Environment", digest(&setting.environment)),
        ("Python", setting.python.clone()),
        ("CPU", Some(setting.cpu_model.clone())),
        ("GPUs", Some(gpus.join(", "))),
        ("Driver", driver),
        ("System", Some(setting.system.clone())),
        ("Key", digest(&detail.key)),
        (
            "Trigger",
            Some(trigger_word(&detail.in_pipeline.trigger).to_owned()),
        ),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .chain(report.usage.words())
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| Fact { name, value })
    .collect()
}

fn trigger_word(kind: &TriggerKind) -> &'static str {
    match kind {
        TriggerKind::Push => "push",
        TriggerKind::PullRequest { .. } => "pull request",
        TriggerKind::Schedule { .. } => "schedule",
        TriggerKind::Rerun { .. } => "run again",
        TriggerKind::Reproduction { .. } => "reproduction",
        TriggerKind::Person { .. } => "by hand",
    }
}
