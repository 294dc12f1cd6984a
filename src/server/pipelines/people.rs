//! What people ask of pipelines: an untrusted commit let run, a job ended. Each is written down with who asked.

use protocol::job::{Block, Move, State};
use protocol::{CommitId, JobId, ProjectId, Timestamp};

use super::{announce, cancel};
use crate::settle;
use crate::state::Server;
use crate::store::access::Audit;
use crate::store::jobs::Job;
use crate::store::{Connection, Result, StoreError, access, jobs, pipelines, requests};

/// Lets an untrusted commit run: all jobs that are held at it, and those that are still to come. One that is pushed
/// later is held again. Gives the jobs that were held.
///
/// # Errors
/// The store's.
pub async fn approve(
    server: &Server,
    project: &ProjectId,
    commit: &CommitId,
    by: &str,
) -> Result<Vec<Job>> {
    let mut tx = server.store.begin().await?;
    requests::approve(&mut tx, project, commit, by, Timestamp::now()).await?;
    let mut approved = Vec::new();
    for pipeline in pipelines::of_commit(&mut tx, project, commit).await? {
        for job in jobs::of_pipeline(&mut tx, &pipeline.id).await? {
            let on = Block::Approval;
            if job.state == (State::Blocked { on }) {
                approved.push(let_go(&mut tx, &job).await?);
            }
        }
    }
    write_down(&mut tx, by, format!("approve commit {commit}")).await?;
    tx.commit().await?;
    announce(server, &approved);
    Ok(approved)
}

/// A job that was held goes its way.
async fn let_go(tx: &mut Connection, job: &Job) -> Result<Job> {
    let at = Timestamp::now();
    let job = jobs::advance(tx, job, Move::Approve, None, at).await?;
    let siblings = jobs::of_pipeline(tx, &job.pipeline).await?;
    match settle::step(&job, &siblings, None) {
        Some(step) => jobs::advance(tx, &job, step, None, at).await,
        None => Ok(job),
    }
}

/// Writes down who did what, with what was done: neither is kept without the other.
pub(super) async fn write_down(tx: &mut Connection, by: &str, action: String) -> Result<()> {
    let entry = Audit {
        at: Timestamp::now(),
        who: by.to_owned(),
        action,
    };
    access::write_audit(tx, &entry).await
}

/// Cancels a job because a person asked; gives it as it is then.
///
/// # Errors
/// [`StoreError::Illegal`] where it is over; the store's.
pub async fn cancel_by_hand(server: &Server, id: &JobId, by: &str) -> Result<Job> {
    let mut tx = server.store.begin().await?;
    let job = jobs::get(&mut tx, id).await?;
    let changed = cancel(&mut tx, &job, by).await?;
    write_down(&mut tx, by, format!("cancel job {id}")).await?;
    tx.commit().await?;
    announce(server, &changed);
    changed
        .into_iter()
        .next()
        .ok_or_else(|| StoreError::Missing(format!("job {id}")))
}
