//! Checkpoints of attempts that still run: kept for the job's next attempt, and forgotten when none will come.

use std::collections::BTreeSet;

use protocol::agent_api::{CheckpointFile, MOST_CHECKPOINT_FILES};
use protocol::{AttemptId, Digest, JobId};

use super::{Refused, Standing, mine, standing};
use crate::state::Server;
use crate::store::agents::Agent;
use crate::store::{StoreError, blobs, checkpoints};
use crate::upkeep::{self, UpkeepError};

/// Takes the set of files that an attempt has now; it replaces every earlier one of its job.
///
/// # Errors
/// [`Refused`]: abandoned, not asked for, too large, or with a file that this agent did not upload.
pub async fn take(
    server: &Server,
    agent: &Agent,
    id: &AttemptId,
    files: &[CheckpointFile],
) -> Result<(), Refused> {
    let mut tx = server.store.begin().await?;
    let (attempt, job) = mine(&mut tx, agent, id).await?;
    match standing(&attempt, &job) {
        Standing::Believed | Standing::Resumable => {}
        // It came late: the report was first.
        Standing::Over => return Ok(()),
        Standing::Abandoned => return Err(Refused::Abandoned(id.clone())),
    }
    check(&attempt.order.spec.checkpoints, files)?;
    for file in files {
        if !blobs::owned(&mut tx, &file.blob, &agent.id).await? {
            return Err(Refused::Invalid(format!(
                "checkpoint '{}': upload blob {} before",
                file.path, file.blob
            )));
        }
    }
    let before = checkpoints::replace(&mut tx, &job.id, id, files).await?;
    tx.commit().await?;
    tracing::info!(attempt = %id, files = files.len(), "a checkpoint is kept");
    Ok(spare(server, before).await?)
}

fn check(asked: &protocol::spec::Checkpoints, files: &[CheckpointFile]) -> Result<(), Refused> {
    let invalid = |message: String| Err(Refused::Invalid(message));
    if !asked.across_hosts {
        return invalid("this job's checkpoints stay on its host".to_owned());
    }
    if files.len() > MOST_CHECKPOINT_FILES {
        return invalid(format!(
            "a checkpoint has at most {MOST_CHECKPOINT_FILES} files"
        ));
    }
    let size = files
        .iter()
        .fold(0, |sum: u64, file| sum.saturating_add(file.size.0));
    if size > asked.max_size.0 {
        return invalid(format!(
            "the checkpoint has {}, more than the {} of `checkpoints: {{max_size: …}}`",
            protocol::ByteSize(size),
            asked.max_size
        ));
    }
    let mut paths = BTreeSet::new();
    match files.iter().find(|file| !paths.insert(&file.path)) {
        Some(twice) => invalid(format!("checkpoint '{}' stands there twice", twice.path)),
        None => Ok(()),
    }
}

/// Forgets the checkpoint of a job that has no next attempt.
///
/// # Errors
/// The store's, or the blobs'.
pub async fn forget(server: &Server, job: &JobId) -> Result<(), StoreError> {
    let mut tx = server.store.begin().await?;
    let before = checkpoints::forget(&mut tx, job).await?;
    tx.commit().await?;
    spare(server, before).await
}

/// Removes those of these contents that nothing links any more.
async fn spare(server: &Server, contents: Vec<Digest>) -> Result<(), StoreError> {
    for digest in contents {
        match upkeep::spare(&server.store, &server.blobs, &digest).await {
            Ok(_) => {}
            Err(UpkeepError::Store(error)) => return Err(error),
            Err(error @ (UpkeepError::Blobs(_) | UpkeepError::Foreign { .. })) => {
                tracing::warn!(%digest, %error, "a content that nobody needs stays");
            }
        }
    }
    Ok(())
}
