//! Jobs that are asked for again: a new pipeline at the same commit, from rows alone.

use plan::Plan;
use protocol::job::{Block, Move, State};
use protocol::{JobId, Outcome, Timestamp, Trigger, TriggerKind};

use super::{Planned, Words, announce, is_held, row, write_down};
use crate::state::Server;
use crate::store::jobs::Job;
use crate::store::pipelines::Pipeline;
use crate::store::{Result, jobs, parents, pipelines};
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
    let kind = TriggerKind::Rerun { of: id.clone() };
    again(server, id, kind, by, at, |_| ()).await
}

/// Runs the job that left a model once more, in the image that it ran in, where that has a name of its own. Its result
/// has no key: it stands for no other job.
///
/// # Errors
/// As [`rerun`].
pub async fn reproduce(
    server: &Server,
    id: &JobId,
    image: Option<String>,
    by: &str,
    at: Timestamp,
) -> Result<Pipeline> {
    let kind = TriggerKind::Reproduction { of: id.clone() };
    again(server, id, kind, Some(by), at, |job| {
        job.key = None;
        if let Some(image) = &image {
            job.spec.image.clone_from(image);
        }
    })
    .await
}

async fn again(
    server: &Server,
    id: &JobId,
    kind: TriggerKind,
    by: Option<&str>,
    at: Timestamp,
    change: impl Fn(&mut Job),
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
    // A reproduction that is asked for again is one still: its result counts for nothing else.
    let kind = match &old.trigger.kind {
        TriggerKind::Reproduction { of } => TriggerKind::Reproduction { of: of.clone() },
        TriggerKind::Push
        | TriggerKind::PullRequest { .. }
        | TriggerKind::Schedule { .. }
        | TriggerKind::Rerun { .. }
        | TriggerKind::Person { .. } => kind,
    };
    let trigger = Trigger {
        kind,
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
        let mut again = run_again(&pipeline, old, old.id == *id, &added, held);
        if old.id == *id {
            change(&mut again);
        }
        jobs::insert(&mut tx, &again).await?;
        if let Some(plan) = jobs::plan(&mut tx, &old.id).await? {
            jobs::insert_plan(&mut tx, &again.id, &plan).await?;
        }
        parents::copy(&mut tx, &old.id, &again.id).await?;
        added.push(again);
    }
    if let Some(by) = by {
        let verb = match pipeline.trigger.kind {
            TriggerKind::Reproduction { .. } => "reproduce",
            TriggerKind::Push
            | TriggerKind::PullRequest { .. }
            | TriggerKind::Schedule { .. }
            | TriggerKind::Rerun { .. }
            | TriggerKind::Person { .. } => "retry",
        };
        write_down(&mut tx, by, format!("{verb} job {id}")).await?;
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
