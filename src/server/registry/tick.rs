//! One pass over finished jobs: a run for each attempt, and exactly one version or candidate for each
//! succeeded job that names a model. Derived from rows, so that a pass that died is made again.

use std::collections::BTreeMap;

use protocol::event::ArtifactRole;
use protocol::job::State;
use protocol::outcome::Outcome;
use protocol::registry::{ModelFile, Promotion, VersionStatus, valid_model};
use protocol::{JobId, Span, Timestamp};
use ulid::Ulid;

use super::derive::{self, Place};
use crate::store::attempts::Fate;
use crate::store::jobs::Job;
use crate::store::models::Model;
use crate::store::rows::id_before;
use crate::store::{
    Result, Store, StoreError, Transaction, attempts, jobs, models, pipelines, projects, registry,
    versions,
};

/// Most jobs of one pass.
const MOST_JOBS: u32 = 100;
/// How long a job that could not be registered is left alone at most.
const LONGEST_REST: Span = Span::secs(600);

/// Keeps the registry up to date with finished jobs.
#[derive(Debug)]
pub struct Registrar {
    store: Store,
    /// No job older than this is left to look at.
    oldest: String,
    /// Jobs that failed to be registered: how often, and until when they rest.
    sore: BTreeMap<JobId, (u32, Timestamp)>,
}

impl Registrar {
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

/// Registers one finished job, once.
async fn register(store: &Store, job: &Job, now: Timestamp) -> Result<()> {
    let mut tx = store.begin().await?;
    if !registry::mark_registered(&mut tx, &job.id, now).await? {
        return Ok(());
    }
    let pipeline = pipelines::get(&mut tx, &job.pipeline).await?;
    let project = projects::find(&mut tx, &job.project)
        .await?
        .ok_or_else(|| StoreError::Missing(format!("project {}", job.project)))?;
    let planned = jobs::plan(&mut tx, &job.id).await?;
    let place = Place {
        project: &project,
        pipeline: &pipeline,
        job,
        planned: planned.as_ref(),
    };
    for attempt in attempts::of_job(&mut tx, &job.id).await? {
        if let (Fate::Finished, Some(report)) = (attempt.fate, &attempt.report) {
            registry::insert_run(&mut tx, &derive::run(place, &attempt, report)).await?;
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
    let (Some(model), Some(status)) = (&place.job.spec.model, derive::status(place)) else {
        return Ok(());
    };
    if let Some(problem) = make_version(tx, place, &model.name, &run, status, now).await? {
        registry::set_problem(tx, &run, &problem).await?;
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
    let Some(run) = registry::succeeded_run(tx, of).await? else {
        let earlier = jobs::get(tx, of).await?;
        let unfinished = !matches!(earlier.state, State::Finished { .. });
        return if unfinished || !registry::is_registered(tx, of).await? {
            Err(StoreError::Missing(format!(
                "run of job {of}, which stands for {}",
                place.job.id
            )))
        } else {
            Ok(())
        };
    };
    registry::insert_baseline(tx, place.job, &run).await?;
    if derive::status(place) != Some(VersionStatus::Version) {
        return Ok(());
    }
    let Some(left) = models::by_run(tx, &run).await? else {
        return Ok(());
    };
    if left.status == VersionStatus::Candidate {
        let number = models::next_number(tx, &left.model).await?;
        let promotion = Promotion {
            by: "trainyard".to_owned(),
            why: format!(
                "equal to commit {} on the default branch",
                place.pipeline.trigger.commit.short()
            ),
            at: now,
        };
        models::promote(tx, &left.id, number, &promotion).await?;
    }
    Ok(())
}
