//! One pass over finished jobs: a run for each attempt, and exactly one version or candidate for each
//! succeeded job that names a model. Derived from rows, so that a pass that died is made again.

use std::collections::BTreeMap;

use plan::PlannedJob;
use protocol::event::ArtifactRole;
use protocol::outcome::Outcome;
use protocol::registry::{ModelFile, Promotion, VersionStatus, valid_model};
use protocol::{AttemptId, JobId, Span, Timestamp};
use ulid::Ulid;

use super::derive::{self, Place};
use crate::store::attempts::{Attempt, Fate};
use crate::store::jobs::Job;
use crate::store::models::Model;
use crate::store::pipelines::Pipeline;
use crate::store::projects::Project;
use crate::store::rows::id_before;
use crate::store::{
    Connection, Result, Store, StoreError, Transaction, attempts, jobs, models, pipelines,
    projects, registry, versions,
};

/// Most jobs of one pass.
const MOST_JOBS: u32 = 100;
/// How long a job that could not be registered is left alone at most.
const LONGEST_REST: Span = Span::secs(600);

/// Keeps the registry up to date with attempts and finished jobs.
#[derive(Debug)]
pub struct Registrar {
    store: Store,
    /// No job older than this is left to look at.
    oldest: String,
    /// Jobs that failed to be registered: how often, and until when they rest.
    sore: BTreeMap<JobId, (u32, Timestamp)>,
}

impl Registrar {
    /// Begins the runs of attempts that have begun, and ends those of attempts that are over. One that cannot be written
    /// holds up no other.
    async fn runs_of_attempts(&self) -> Result<()> {
        let mut db = self.store.read().await?;
        let begun = registry::without_run(&mut db, MOST_JOBS).await?;
        let over = registry::with_open_run(&mut db, MOST_JOBS).await?;
        drop(db);
        for id in begun.iter().chain(&over) {
            if let Err(error) = self.run_of(id).await {
                tracing::warn!(attempt = %id, %error, "its run cannot be written yet");
            }
        }
        Ok(())
    }

    async fn run_of(&self, id: &AttemptId) -> Result<()> {
        let mut tx = self.store.begin().await?;
        let attempt = attempts::get(&mut tx, id).await?;
        match attempt.fate {
            Fate::Open => {
                begin_run(&mut tx, &attempt).await?;
            }
            Fate::Finished | Fate::Abandoned => end_runs(&mut tx, &attempt).await?,
            Fate::Lost => {
                let job = jobs::get(&mut tx, &attempt.job).await?;
                if !attempt.may_return(&job) {
                    end_runs(&mut tx, &attempt).await?;
                }
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// One that looks at everything once.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            oldest: String::new(),
            sore: BTreeMap::new(),
        }
    }

    /// One pass; gives how many jobs were registered. A job that cannot be registered holds up no
    /// other: it is said in the log, and tried again later.
    ///
    /// # Errors
    /// Where the list of jobs cannot be read.
    pub async fn tick(&mut self, now: Timestamp) -> Result<usize> {
        let limit = MOST_JOBS + u32::try_from(self.sore.len()).unwrap_or(0);
        self.runs_of_attempts().await?;
        let mut db = self.store.read().await?;
        let waiting = registry::unregistered(&mut db, &self.oldest, limit).await?;
        drop(db);
        let mut done = 0;
        for job in waiting {
            let tries = match self.sore.get(&job.id) {
                Some((_, rests)) if *rests > now => continue,
                Some((tries, _)) => *tries,
                None => 0,
            };
            match register(&self.store, &job, now).await {
                Ok(()) => {
                    self.sore.remove(&job.id);
                    done += 1;
                }
                Err(error) => {
                    let rest = Span(1_000 << tries.min(10)).min(LONGEST_REST);
                    self.sore.insert(job.id.clone(), (tries + 1, now + rest));
                    tracing::warn!(job = %job.id, %error, "job {} cannot be registered yet", job.id);
                }
            }
        }
        let mut db = self.store.read().await?;
        if let Some(job) = registry::oldest_unregistered(&mut db, &self.oldest).await? {
            self.oldest = id_before(job.as_str());
        }
        Ok(done)
    }
}

/// What a job stands in, as rows.
struct Surroundings {
    project: Project,
    pipeline: Pipeline,
    planned: Option<PlannedJob>,
}

impl Surroundings {
    async fn of(db: &mut Connection, job: &Job) -> Result<Self> {
        let project = projects::find(db, &job.project).await?;
        Ok(Self {
            project: project
                .ok_or_else(|| StoreError::Missing(format!("project {}", job.project)))?,
            pipeline: pipelines::get(db, &job.pipeline).await?,
            planned: jobs::plan(db, &job.id).await?,
        })
    }

    fn place<'a>(&'a self, job: &'a Job) -> Place<'a> {
        Place {
            project: &self.project,
            pipeline: &self.pipeline,
            job,
            planned: self.planned.as_ref(),
        }
    }
}

/// Begins the run of an attempt where it has none; gives its id.
///
/// # Errors
/// The store's.
pub async fn begin_run(db: &mut Connection, attempt: &Attempt) -> Result<String> {
    let job = jobs::get(db, &attempt.job).await?;
    let around = Surroundings::of(db, &job).await?;
    let run = derive::begun(around.place(&job), attempt);
    registry::put_run(db, &run).await?;
    Ok(run.id)
}

/// Ends the runs of an attempt that is over.
async fn end_runs(db: &mut Connection, attempt: &Attempt) -> Result<()> {
    let job = jobs::get(db, &attempt.job).await?;
    if let Some(report) = &attempt.report {
        let around = Surroundings::of(db, &job).await?;
        return registry::put_run(db, &derive::run(around.place(&job), attempt, report)).await;
    }
    let why = match &attempt.outcome {
        Some(Outcome::Failed(failure)) => failure.message.clone(),
        Some(Outcome::Cancelled { by }) => format!("ended for {by}"),
        Some(Outcome::Succeeded | Outcome::Reused { .. } | Outcome::Skipped { .. }) | None => {
            "nobody believes this attempt any more".to_owned()
        }
    };
    let at = attempt.finished_at.unwrap_or_else(Timestamp::now);
    registry::end_run(db, &attempt.id, &why, at).await
}

/// Registers one finished job, once.
async fn register(store: &Store, job: &Job, now: Timestamp) -> Result<()> {
    let mut tx = store.begin().await?;
    if !registry::mark_registered(&mut tx, &job.id, now).await? {
        return Ok(());
    }
    let around = Surroundings::of(&mut tx, job).await?;
    let place = around.place(job);
    for attempt in attempts::of_job(&mut tx, &job.id).await? {
        if let (Fate::Finished, Some(report)) = (attempt.fate, &attempt.report) {
            registry::put_run(&mut tx, &derive::run(place, &attempt, report)).await?;
        }
    }
    match job.state.outcome() {
        Some(Outcome::Succeeded) => succeeded(&mut tx, place, now).await?,
        Some(Outcome::Reused { of }) => reused(&mut tx, place, of, now).await?,
        Some(Outcome::Skipped { .. } | Outcome::Cancelled { .. } | Outcome::Failed(_)) | None => {}
    }
    tx.commit().await?;
    Ok(())
}

async fn succeeded(tx: &mut Transaction, place: Place<'_>, now: Timestamp) -> Result<()> {
    let Some(run) = registry::succeeded_run(tx, &place.job.id).await? else {
        return Ok(());
    };
    if derive::on_default_branch(place) {
        registry::insert_baseline(tx, place.job, &run).await?;
    }
    let Some(status) = derive::status(place) else {
        return Ok(());
    };
    let named = place.job.spec.model.as_ref();
    let by_code = match named {
        Some(model) => is_registered_by_code(tx, &run, &model.name).await?,
        None => false,
    };
    if status == VersionStatus::Version {
        promote_all(tx, &run, "its job succeeded on the default branch", now).await?;
    }
    // What the code registered under the file's name is the version that the file asks for.
    let Some(model) = named.filter(|_| !by_code) else {
        return Ok(());
    };
    if let Some(problem) = make_version(tx, place, &model.name, &run, status, now).await? {
        registry::set_problem(tx, &run, &problem).await?;
    }
    Ok(())
}

/// Whether the job's own code registered something under this name.
async fn is_registered_by_code(tx: &mut Transaction, run: &str, model: &str) -> Result<bool> {
    let Some(of_job) = registry::of_job(tx, run).await? else {
        return Ok(false);
    };
    let left = models::candidates_of(tx, &of_job.attempt).await?;
    Ok(left.iter().any(|(_, name)| name == model))
}

/// Makes what an attempt left as candidates the versions that they stand for.
async fn promote_all(tx: &mut Transaction, run: &str, why: &str, now: Timestamp) -> Result<()> {
    let Some(of_job) = registry::of_job(tx, run).await? else {
        return Ok(());
    };
    for (id, model) in models::candidates_of(tx, &of_job.attempt).await? {
        let number = models::next_number(tx, &model).await?;
        let promotion = Promotion {
            by: "trainyard".to_owned(),
            why: why.to_owned(),
            at: now,
        };
        models::promote(tx, &id, number, &promotion).await?;
        versions::touch(tx, &model, now).await?;
    }
    Ok(())
}

/// Makes a version or candidate; gives the reason where none can be made.
async fn make_version(
    tx: &mut Transaction,
    place: Place<'_>,
    name: &str,
    run: &str,
    status: VersionStatus,
    now: Timestamp,
) -> Result<Option<String>> {
    if !valid_model(name) {
        return Ok(Some(format!(
            "'{name}' is no name for a model: it wants 1 to 100 letters, digits, '-', '_', '.', and no dot first"
        )));
    }
    let Some(of_job) = registry::of_job(tx, run).await? else {
        return Err(StoreError::Missing(format!("run {run}")));
    };
    let files: Vec<ModelFile> = attempts::artifacts(tx, &of_job.attempt)
        .await?
        .into_iter()
        .filter(|artifact| artifact.role == ArtifactRole::Model)
        .map(|artifact| ModelFile {
            path: artifact.path,
            blob: artifact.blob,
            size: artifact.size,
        })
        .collect();
    if files.is_empty() {
        return Ok(Some("the attempt left no file of the model".to_owned()));
    }
    let wanted = Model {
        name: name.to_owned(),
        project: Some(place.project.id.clone()),
        description: None,
        created_at: now,
        changed_at: now,
    };
    let model = models::ensure(tx, &wanted).await?;
    if model.project != wanted.project {
        return Ok(Some(format!(
            "model '{name}' is not this project's: choose another name in .trainyard.yml"
        )));
    }
    let number = match status {
        VersionStatus::Version => Some(models::next_number(tx, name).await?),
        VersionStatus::Candidate => None,
    };
    let id = Ulid::generate().to_string().to_lowercase();
    let because = derive::because(place);
    models::insert_version(tx, (&id, name, run), number, &because, now).await?;
    for file in &files {
        models::insert_file(tx, &id, file).await?;
    }
    versions::touch(tx, name, now).await?;
    Ok(None)
}

/// On the default branch an equal earlier result stands for the job: where that left a candidate (a
/// pull request that was merged as it was), it becomes the version that this job would have left.
async fn reused(tx: &mut Transaction, place: Place<'_>, of: &JobId, now: Timestamp) -> Result<()> {
    if !derive::on_default_branch(place) {
        return Ok(());
    }
    // Until then it has no version to promote.
    if !registry::is_registered(tx, of).await? {
        let what = format!("run of job {of}, which stands for {}", place.job.id);
        return Err(StoreError::Missing(what));
    }
    let Some(run) = registry::succeeded_run(tx, of).await? else {
        return Ok(());
    };
    registry::insert_baseline(tx, place.job, &run).await?;
    if derive::status(place) != Some(VersionStatus::Version) {
        return Ok(());
    }
    let commit = place.pipeline.trigger.commit.short();
    let why = format!("equal to commit {commit} on the default branch");
    promote_all(tx, &run, &why, now).await
}
