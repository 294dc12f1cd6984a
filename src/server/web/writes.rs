//! Writes of the public API that start, end and add work. What they mean is decided elsewhere; here stands who
//! may ask, and that it is written down who did.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use protocol::api::{self, Done, NewPipeline, NewProject, Quota};
use protocol::job::{Block, State as JobState};
use protocol::setup::{AddedProject, Examined};
use protocol::{CommitId, JobId, Timestamp};

use super::access::Who;
use super::answer::{Answer, Problem};
use super::api::{Sent, job_id, project_named, write_down};
use super::site::Site;
use super::views;
use crate::pipelines;
use crate::project::{self, AddError};
use crate::store::jobs::Job;
use crate::store::{self, jobs};
use crate::watch::{self, WatchError};

/// `POST /api/v1/projects`
pub(super) async fn add_project(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Sent(wanted): Sent<NewProject>,
) -> Answer<Json<AddedProject>> {
    let added = project::add_for(&site, wanted, who.name()).await?;
    Ok(Json(AddedProject {
        project: views::project(&added.project),
        webhook: added.webhook,
    }))
}

/// `GET /api/v1/projects/{name}/doctor`
pub(super) async fn examine_project(
    State(site): State<Site>,
    Path(name): Path<String>,
) -> Answer<Json<Examined>> {
    let mut db = site.store.read().await?;
    let project = project_named(&mut db, &name).await?;
    drop(db);
    let checks = project::doctor::examine(&site, &project).await?;
    Ok(Json(Examined { checks }))
}

/// `PUT /api/v1/projects/{name}/quota`
pub(super) async fn set_quota(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
    Sent(quota): Sent<Quota>,
) -> Answer<Json<api::Project>> {
    let mut db = site.store.read().await?;
    let found = project_named(&mut db, &name).await?;
    drop(db);
    let project = project::set_quota(&site, &found, quota, who.name()).await?;
    Ok(Json(views::project(&project)))
}

impl From<AddError> for Problem {
    fn from(error: AddError) -> Self {
        match error {
            AddError::Store(error) => error.into(),
            broken @ AddError::Secret { .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                broken.to_string(),
            ),
            taken @ AddError::Taken { .. } => Self::conflict(taken),
            wrong @ (AddError::Name(_)
            | AddError::Repository(_)
            | AddError::Credential(_)
            | AddError::Address(_)
            | AddError::App(_)) => Self::invalid(wrong),
        }
    }
}

/// `POST /api/v1/pipelines`
pub(super) async fn add_pipeline(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Sent(wanted): Sent<NewPipeline>,
) -> Answer<Json<api::Pipeline>> {
    let mut db = site.store.read().await?;
    let project = project_named(&mut db, &wanted.project).await?;
    drop(db);
    let pipeline = watch::by_hand(
        &site,
        &project,
        wanted.revision.as_deref(),
        wanted.jobs,
        wanted.parameters,
        Some(who.name()),
    )
    .await?;
    let mut tx = site.store.begin().await?;
    let action = format!("start pipeline {} of {}", pipeline.number, project.name);
    write_down(&mut tx, &who, action).await?;
    store::commit(tx).await?;
    let mut db = site.store.read().await?;
    let detail = views::pipeline_detail(&mut db, &pipeline).await?;
    Ok(Json(detail.pipeline))
}

impl From<WatchError> for Problem {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Store(error) => error.into(),
            WatchError::Stopping => Self::stopping(),
            wrong @ (WatchError::Mirror(_)
            | WatchError::Forge(_)
            | WatchError::At { .. }
            | WatchError::Broken(_)
            | WatchError::Wrong(_)) => Self::invalid(wrong),
        }
    }
}

/// `POST /api/v1/jobs/{id}/cancel`
pub(super) async fn cancel(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Answer<Json<Done>> {
    let job = cancel_job(&site, &who, &job_id(&id)?).await?;
    let message = match job.state.outcome() {
        Some(_) => format!("job '{}' is cancelled", job.spec.name),
        None => format!(
            "job '{}' is asked to stop; its agent ends it",
            job.spec.name
        ),
    };
    Ok(Json(message.into()))
}

/// Cancels a job for a person.
pub(super) async fn cancel_job(site: &Site, who: &Who, id: &JobId) -> Answer<Job> {
    Ok(pipelines::cancel_by_hand(site, id, who.name()).await?)
}

/// `POST /api/v1/jobs/{id}/retry`
pub(super) async fn retry(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Answer<Json<Done>> {
    let job = retry_job(&site, &who, &job_id(&id)?).await?;
    Ok(Json(Done {
        message: format!("job '{}' is asked for again", job.spec.name),
        job: Some(job.id),
    }))
}

/// `POST /api/v1/jobs/{id}/approve`
pub(super) async fn approve(
    State(site): State<Site>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Answer<Json<Done>> {
    let (commit, count) = approve_of(&site, &who, &job_id(&id)?).await?;
    let jobs = if count == 1 { "job" } else { "jobs" };
    Ok(Json(
        format!(
            "commit {} is approved: {count} {jobs} go on",
            commit.short()
        )
        .into(),
    ))
}

/// Approves the commit of a held job for a person; gives the commit, and how many jobs were held.
pub(super) async fn approve_of(site: &Site, who: &Who, id: &JobId) -> Answer<(CommitId, usize)> {
    let mut db = site.store.read().await?;
    let job = jobs::get(&mut db, id).await?;
    let commit = store::pipelines::get(&mut db, &job.pipeline)
        .await?
        .trigger
        .commit;
    drop(db);
    let held = JobState::Blocked {
        on: Block::Approval,
    };
    if job.state != held {
        let name = &job.spec.name;
        let word = job.state.word();
        return Err(Problem::conflict(format!(
            "job '{name}' waits for no approval: it is {word}"
        )));
    }
    let approved = pipelines::approve(site, &job.project, &commit, who.name()).await?;
    Ok((commit, approved.len()))
}

/// Asks for a finished job again for a person, and gives the new job.
pub(super) async fn retry_job(site: &Site, who: &Who, id: &JobId) -> Answer<Job> {
    let pipeline = pipelines::rerun(site, id, Some(who.name()), Timestamp::now()).await?;
    let mut db = site.store.read().await?;
    let name = jobs::get(&mut db, id).await?.spec.name;
    jobs::of_pipeline(&mut db, &pipeline.id)
        .await?
        .into_iter()
        .find(|job| job.spec.name == name)
        .ok_or_else(|| Problem::missing(format!("job '{name}' of pipeline {}", pipeline.id)))
}
