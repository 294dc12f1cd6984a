//! What people ask of pipelines: a job again, an untrusted commit let run, a job ended. Each is written down with who asked.

use plan::Plan;
use protocol::job::{Block, Move, State};
use protocol::{CommitId, JobId, Outcome, ProjectId, Timestamp, Trigger, TriggerKind};

use super::{Planned, Words, announce, cancel, is_held, row};
use crate::state::Server;
use crate::store::access::Audit;
use crate::store::jobs::Job;
use crate::store::pipelines::Pipeline;
use crate::store::{Connection, Result, StoreError, access, jobs, pipelines, requests};
use crate::{settle, trigger};

/// Asks for a finished job again: a new pipeline at the same commit with this job. What it needs is taken
/// from before where it succeeded, and asked for again where it did not. Asking a second time with the same `at` gives
/// the pipeline of the first.
///
/// # Errors
/// [`StoreError::Illegal`] where the job is not over; the store's.
pub async fn rerun(
    server: &Server,
    id: &JobId,
    by: Option<&str>,
    at: Timestamp,
) -> Result<Pipeline> {
    let mut tx = server.store.begin().await?;
    let job = jobs::get(&mut tx, id).await?;
    if job.state.outcome().is_none() {
        return Err(protocol::job::IllegalMove {
            from: job.state.word(),
            wanted: "be asked for again: it is not over",
        }
        .into());
    }
    let old = pipelines::get(&mut tx, &job.pipeline).await?;
    let siblings = jobs::of_pipeline(&mut tx, &old.id).await?;
    let trigger = Trigger {
        kind: TriggerKind::Rerun { of: id.clone() },
        by: by.map(str::to_owned),
        at,
        ..old.trigger.clone()
    };
    let key = trigger::key(&trigger);
    if let Some(before) = pipelines::by_trigger(&mut tx, &old.project, &key).await? {
        return Ok(before);
    }
    let words = Words {
        subject: old.subject.clone(),
        author: old.author.clone(),
    };
    let nothing = Planned::Jobs(Plan {
        jobs: Vec::new(),
        ignored: Vec::new(),
        notes: Vec::new(),
        supersede_running: old.supersede_running,
    });
    let pipeline = row(&mut tx, &old.project, &trigger, &words, &nothing).await?;
    pipelines::insert(&mut tx, &pipeline).await?;
    let mut added = Vec::new();
    let held = is_held(&mut tx, &pipeline).await?;
    for old in needed(&siblings, &job) {
        let again = run_again(&pipeline, old, old.id == *id, &added, held);
        jobs::insert(&mut tx, &again).await?;
        if let Some(plan) = jobs::plan(&mut tx, &old.id).await? {
            jobs::insert_plan(&mut tx, &again.id, &plan).await?;
        }
        added.push(again);
    }
    if let Some(by) = by {
        write_down(&mut tx, by, format!("retry job {id}")).await?;
    }
    tx.commit().await?;
    announce(server, &added);
    Ok(pipeline)
}

/// A job and all that it needs, in the order of the plan.
fn needed<'a>(siblings: &'a [Job], job: &'a Job) -> Vec<&'a Job> {
    let mut definitions = vec![job.spec.definition.as_str()];
    let mut index = 0;
    while index < definitions.len() {
        let of = definitions[index];
        for sibling in siblings.iter().filter(|s| s.spec.definition == of) {
            for need in &sibling.spec.needs {
                if !definitions.contains(&need.as_str()) {
                    definitions.push(need);
                }
            }
        }
        index += 1;
    }
    siblings
        .iter()
        .filter(|other| {
            let same = other.spec.definition == job.spec.definition;
            other.id == job.id || (!same && definitions.contains(&other.spec.definition.as_str()))
        })
        .collect()
}

fn run_again(pipeline: &Pipeline, old: &Job, asked: bool, earlier: &[Job], held: bool) -> Job {
    let at = Timestamp::now();
    let mut job = Job {
        id: JobId::generate(),
        pipeline: pipeline.id.clone(),
        state: State::Blocked { on: Block::Needs },
        version: 1,
        generation: 0,
        reason: None,
        created_at: at,
        queued_at: None,
        finished_at: None,
        ..old.clone()
    };
    let kept = match old.state.outcome() {
        Some(Outcome::Succeeded) if !asked => Some(old.id.clone()),
        Some(Outcome::Reused { of }) if !asked => Some(of.clone()),
        _ => None,
    };
    if let Some(of) = kept {
        job.state = State::Finished {
            outcome: Outcome::Reused { of },
        };
        job.finished_at = Some(at);
    } else if held {
        job.state = State::Blocked {
            on: Block::Approval,
        };
    } else if let Some(Move::Unblock) = settle::step(&job, earlier, None) {
        job.state = State::Queued;
        job.queued_at = Some(at);
    }
    job
}

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
async fn write_down(tx: &mut Connection, by: &str, action: String) -> Result<()> {
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
