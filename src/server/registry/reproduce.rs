//! A version's job is run once more: at the same commit, with the same parameters, files and requirements. It leaves a run,
//! and no version: it is held against the one that is there.

use std::collections::BTreeMap;

use protocol::event::ArtifactRole;
use protocol::registry::{
    Compared, MetricDelta, ModelFile, Reproduction, Version, VersionDetail, VersionRef,
    VersionStatus,
};
use protocol::{JobId, Outcome, Timestamp, TriggerKind};

use super::catalog::{self, RegistryError, Result, resolve};
use super::compare;
use crate::pipelines;
use crate::state::Server;
use crate::store::{self, Connection, Store, attempts, jobs, pipelines as rows, registry, runs};

/// Facts of a lineage that are the environment's, and those that are the host's.
const ENVIRONMENT: [&str; 5] = ["lock", "environment", "python", "image", "image id"];
const HARDWARE: [&str; 5] = ["host", "cpu", "gpus", "driver", "cuda"];

/// Runs the job that left a version once more; gives the new job.
///
/// # Errors
/// [`RegistryError::NoJob`] where no job left it; the store's.
pub async fn reproduce(
    server: &Server,
    model: &str,
    wanted: &VersionRef,
    by: &str,
) -> Result<(Version, JobId)> {
    let mut db = server.store.read().await?;
    let version = resolve(&mut db, model, wanted).await?;
    let no_job = || RegistryError::NoJob {
        model: model.to_owned(),
        label: version.label(),
    };
    let origin = version.origin.as_ref().ok_or_else(no_job)?;
    let run = version.run.as_deref().ok_or_else(no_job)?;
    let of_job = registry::of_job(&mut db, run).await?.ok_or_else(no_job)?;
    drop(db);
    // By its digest an image is the same one; the id of one that was only built is known to its host alone.
    let image = of_job.lineage.setting.image_id;
    let image = image.filter(|image| image.contains("@sha256:"));
    let now = Timestamp::now();
    let pipeline = pipelines::reproduce(server, &origin.job, image, by, now).await?;
    let mut db = server.store.read().await?;
    let again = jobs::of_pipeline(&mut db, &pipeline.id).await?;
    let again = again
        .into_iter()
        .find(|job| job.spec.name == origin.job_name);
    let job = again.ok_or_else(no_job)?.id;
    Ok((version, job))
}

/// How a reproduction of a version stands, and what differs once it is over.
///
/// # Errors
/// [`RegistryError::NoReproduction`] where the job is none of this version; the store's.
pub async fn reproduction(
    store: &Store,
    model: &str,
    wanted: &VersionRef,
    id: &JobId,
) -> Result<Reproduction> {
    let mut db = store.read().await?;
    let base = catalog::detail(&mut db, model, wanted).await?;
    let none = || RegistryError::NoReproduction {
        label: format!("{} of '{model}'", base.version.label()),
        job: id.clone(),
    };
    let job = jobs::find(&mut db, id).await?.ok_or_else(none)?;
    let pipeline = rows::get(&mut db, &job.pipeline).await?;
    match &pipeline.trigger.kind {
        TriggerKind::Reproduction { of }
            if base.version.origin.as_ref().is_some_and(|o| o.job == *of) => {}
        TriggerKind::Reproduction { .. }
        | TriggerKind::Push
        | TriggerKind::PullRequest { .. }
        | TriggerKind::Schedule { .. }
        | TriggerKind::Rerun { .. }
        | TriggerKind::Person { .. } => return Err(none()),
    }
    let outcome = match registry::is_registered(&mut db, id).await? {
        true => job.state.outcome().cloned(),
        false => None,
    };
    let compared = match (&outcome, registry::succeeded_run(&mut db, id).await?) {
        (Some(Outcome::Succeeded), Some(run)) => {
            let now = left(&mut db, &run, &base.version).await?;
            Some(held_against(&base, &now))
        }
        _ => None,
    };
    Ok(Reproduction {
        job: id.clone(),
        state: job.state.word().to_owned(),
        reason: job.reason,
        version: base.version,
        outcome,
        compared,
    })
}

/// What a run left, as if it were a version.
async fn left(db: &mut Connection, run: &str, of: &Version) -> store::Result<VersionDetail> {
    let of_job = registry::of_job(db, run).await?;
    let files = match &of_job {
        Some(of_job) => attempts::artifacts(db, &of_job.attempt).await?,
        None => Vec::new(),
    };
    let files = files
        .into_iter()
        .filter(|file| file.role == ArtifactRole::Model);
    let full = match runs::find(db, run).await? {
        Some(row) => runs::fill(db, vec![row]).await?.pop(),
        None => None,
    };
    let (lineage, goals) = of_job.map_or_else(Default::default, |of_job| {
        (Some(of_job.lineage), of_job.goals)
    });
    Ok(VersionDetail {
        version: Version {
            version: None,
            status: VersionStatus::Candidate,
            run: Some(run.to_owned()),
            metrics: registry::metrics(db, run).await?,
            aliases: Vec::new(),
            promotion: None,
            ..of.clone()
        },
        params: full.map_or_else(BTreeMap::new, |full| full.params.into_iter().collect()),
        tags: BTreeMap::new(),
        goals,
        lineage,
        files: files
            .map(|file| ModelFile {
                path: file.path,
                blob: file.blob,
                size: file.size,
            })
            .collect(),
        history: Vec::new(),
        ancestors: Vec::new(),
        descendants: Vec::new(),
        why: Vec::new(),
    })
}

/// What differs. Pure.
fn held_against(base: &VersionDetail, now: &VersionDetail) -> Compared {
    let both = compare(base, now);
    let hashes = |detail: &VersionDetail| -> BTreeMap<String, String> {
        let files = detail.files.iter();
        files
            .map(|file| (file.path.clone(), file.blob.to_string()))
            .collect()
    };
    let (old, new) = (hashes(base), hashes(now));
    let mut files = Vec::new();
    compare::differing("", &old, &new, &mut files);
    let all: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let image =
        |detail: &VersionDetail| detail.lineage.as_ref().map(|l| l.setting.image_id.clone());
    let same_image = image(base) == image(now);
    let (mut environment, mut hardware, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for difference in both.differences {
        let what = difference.what.as_str();
        match what {
            // By its digest instead of its name it is the same image.
            "image" if same_image => {}
            _ if what.starts_with("package ") || ENVIRONMENT.contains(&what) => {
                environment.push(difference);
            }
            _ if HARDWARE.contains(&what) => hardware.push(difference),
            _ => other.push(difference),
        }
    }
    Compared {
        same: files.is_empty() && both.metrics.iter().all(MetricDelta::is_same),
        all_files: all.len() as u64,
        metrics: both.metrics,
        files,
        environment,
        hardware,
        other,
    }
}
