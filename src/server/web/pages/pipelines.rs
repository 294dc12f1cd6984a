//! The list of pipelines, and one of them with its jobs.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use protocol::api::{Job, Pipeline};
use protocol::job::State as JobState;
use protocol::{Outcome, PipelineId, Timestamp, TriggerKind, Work};
use serde::Deserialize;

use super::super::access::Who;
use super::super::answer::Problem;
use super::super::site::Site;
use super::super::views;
use super::frame::{Frame, Shown, show};
use super::words::{ago, iso, took, value};
use crate::store::{attempts, jobs, notices, pipelines, projects, report};
use crate::trigger;

/// Pipelines on one page.
const PAGE: u32 = 50;

/// One pipeline as its row and heading show it.
pub(super) struct PipelineRow {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) title: String,
    pub(super) commit: String,
    pub(super) branch: Option<String>,
    pub(super) project: String,
    pub(super) asked_by: String,
    pub(super) made: String,
    pub(super) made_at: String,
    pub(super) took: String,
    pub(super) problem: Option<String>,
    /// Why it has no jobs although nothing is wrong.
    pub(super) nothing: Option<String>,
}

impl PipelineRow {
    pub(super) fn new(pipeline: &Pipeline, now: Timestamp) -> Self {
        let reference = pipeline.reference.as_deref();
        let branch =
            reference.map(|name| name.strip_prefix("refs/heads/").unwrap_or(name).to_owned());
        Self {
            id: pipeline.id.to_string(),
            state: pipeline.state.clone(),
            title: format!("#{} {}", pipeline.number, pipeline.title),
            commit: pipeline.commit.short().to_owned(),
            branch,
            project: pipeline.project.clone(),
            asked_by: asked_by(pipeline),
            made: ago(pipeline.created_at, now),
            made_at: iso(pipeline.created_at),
            took: took(Some(pipeline.created_at), pipeline.finished_at, now),
            problem: pipeline
                .problem
                .as_ref()
                .map(|failure| failure.message.clone()),
            nothing: (pipeline.state == "neutral").then(|| pipeline.notes.join("; ")),
        }
    }
}

fn asked_by(pipeline: &Pipeline) -> String {
    // A commit's author comes with an address: nobody has to read that in a list.
    let by = pipeline.by.as_deref().unwrap_or("somebody");
    let by = by.split_once(" <").map_or(by, |(name, _)| name);
    match &pipeline.trigger {
        TriggerKind::Push => format!("push by {by}"),
        TriggerKind::PullRequest { number } => format!("pull request {number} by {by}"),
        TriggerKind::Schedule { .. } => "schedule".to_owned(),
        TriggerKind::Rerun { .. } => format!("run again by {by}"),
        TriggerKind::Reproduction { .. } => format!("reproduced by {by}"),
        TriggerKind::Person { .. } => format!("by hand: {by}"),
    }
}

/// One job as a row of its pipeline.
pub(super) struct JobRow {
    id: String,
    name: String,
    work: String,
    state: String,
    says: String,
    reused_of: Option<String>,
    took: String,
}

impl JobRow {
    fn new(job: &Job, work: &Work, now: Timestamp) -> Self {
        let reused_of = match job.state.outcome() {
            Some(Outcome::Reused { of }) => Some(of.to_string()),
            Some(_) | None => None,
        };
        Self {
            id: job.id.to_string(),
            name: job.name.clone(),
            work: describe(work),
            state: job.state.word().to_owned(),
            says: says(job),
            reused_of,
            took: took(job.started_at, job.finished_at, now),
        }
    }
}

/// What a job runs, in a few words.
pub(super) fn describe(work: &Work) -> String {
    match work {
        Work::Notebook { path } => path.clone(),
        Work::Command { text } => text.chars().take(80).collect(),
        Work::Lint { tools, notebooks } => {
            let tools: Vec<_> = tools.iter().map(protocol::spec::LintTool::name).collect();
            format!(
                "{} over {}",
                tools.join(", "),
                super::words::count(notebooks.len() as u64, "notebook")
            )
        }
    }
}

fn says(job: &Job) -> String {
    match &job.state {
        JobState::Finished { outcome } => match outcome {
            Outcome::Succeeded => String::new(),
            Outcome::Reused { .. } => "nothing that matters changed; equal to".to_owned(),
            Outcome::Skipped { why } => why.clone(),
            Outcome::Cancelled { by } => format!("by {by}"),
            Outcome::Failed(failure) => format!("{}: {}", failure.owner().word(), failure.message),
        },
        JobState::Blocked { .. } | JobState::Queued => job.reason.clone().unwrap_or_default(),
        JobState::Leased { .. } | JobState::Running { .. } | JobState::Stopping { .. } => {
            String::new()
        }
    }
}

/// What the list may be asked for.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Filter {
    project: Option<String>,
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "pipelines.html")]
struct ListPage {
    frame: Frame,
    project: Option<String>,
    rows: Vec<PipelineRow>,
    next: Option<String>,
}

/// `GET /`
pub(in super::super) async fn list(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Query(filter): Query<Filter>,
) -> Shown {
    let mut db = site.store.read().await?;
    let project = match &filter.project {
        Some(name) => {
            let found = projects::by_name(&mut db, name).await?;
            Some(
                found
                    .ok_or_else(|| Problem::missing(format!("project '{name}'")))?
                    .id,
            )
        }
        None => None,
    };
    let before: Option<PipelineId> = filter
        .before
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(Problem::invalid)?;
    let page = views::pipelines(&mut db, project.as_ref(), before.as_ref(), PAGE).await?;
    let now = Timestamp::now();
    show(&ListPage {
        frame: Frame::new("pipelines", &site.access, &who),
        project: filter.project,
        rows: page
            .items
            .iter()
            .map(|pipeline| PipelineRow::new(pipeline, now))
            .collect(),
        next: page.next,
    })
}

#[derive(Template)]
#[template(path = "pipeline.html")]
struct OnePage {
    frame: Frame,
    pipeline: PipelineRow,
    jobs: Vec<JobRow>,
    live: Option<String>,
    /// Where it is said what a pull request changes in notebooks.
    notebooks: Option<String>,
    /// What its forge does not show, and why.
    not_shown: Vec<String>,
    /// Who else was not told, and why.
    not_told: Vec<(String, String)>,
}

/// Most sentences on what a forge does not show.
const MOST_NOT_SHOWN: usize = 5;

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsFragment {
    jobs: Vec<JobRow>,
}

/// The rows of a pipeline's jobs.
async fn job_rows(
    db: &mut crate::store::Connection,
    id: &PipelineId,
) -> crate::store::Result<Vec<JobRow>> {
    let pipeline = pipelines::get(db, id).await?;
    let works: Vec<Work> = jobs::of_pipeline(db, id)
        .await?
        .into_iter()
        .map(|job| job.spec.work)
        .collect();
    let detail = views::pipeline_detail(db, &pipeline).await?;
    let now = Timestamp::now();
    let mut rows = Vec::with_capacity(works.len());
    for (job, work) in detail.jobs.iter().zip(&works) {
        let mut row = JobRow::new(job, work, now);
        if job.state.outcome() == Some(&Outcome::Succeeded) {
            row.says = metrics_of(db, &job.id).await?;
        }
        rows.push(row);
    }
    Ok(rows)
}

/// The first metrics that a job reported: `accuracy 0.9667 · loss 0.19`.
async fn metrics_of(
    db: &mut crate::store::Connection,
    job: &protocol::JobId,
) -> crate::store::Result<String> {
    let report = attempts::of_job(db, job)
        .await?
        .pop()
        .and_then(|last| last.report);
    let metrics = report.map(|report| report.metrics).unwrap_or_default();
    let shown = metrics.iter().take(4);
    let shown: Vec<_> = shown
        .map(|m| format!("{} {}", m.name, value(m.value)))
        .collect();
    Ok(shown.join(" · "))
}

/// The table of a pipeline's jobs as a live fragment.
pub(in super::super) async fn jobs_fragment(
    db: &mut crate::store::Connection,
    id: &PipelineId,
) -> Result<String, Problem> {
    let jobs = job_rows(db, id).await?;
    JobsFragment { jobs }.render().map_err(|error| {
        Problem::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            error.to_string(),
        )
    })
}

/// `GET /pipelines/{id}`
pub(in super::super) async fn one(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Shown {
    let id: PipelineId = id
        .parse()
        .map_err(|_| Problem::missing(format!("pipeline '{id}'")))?;
    let mut db = site.store.read().await?;
    let row = pipelines::get(&mut db, &id).await?;
    let detail = views::pipeline_detail(&mut db, &row).await?;
    let open = detail.pipeline.finished_at.is_none();
    let is_of_request = trigger::met(&row.trigger).is_some();
    let commit = &row.trigger.commit;
    let mut not_shown = report::problems_of(&mut db, &row.project, commit).await?;
    not_shown.truncate(MOST_NOT_SHOWN);
    show(&OnePage {
        frame: Frame::new("pipelines", &site.access, &who),
        pipeline: PipelineRow::new(&detail.pipeline, Timestamp::now()),
        jobs: job_rows(&mut db, &id).await?,
        live: open.then(|| format!("/pipelines/{id}/live")),
        notebooks: is_of_request.then(|| format!("/pipelines/{id}/notebooks")),
        not_shown,
        not_told: notices::problems_of(&mut db, &id).await?,
    })
}
