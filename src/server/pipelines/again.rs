//! Jobs that are asked for again: a new pipeline at their commit, with them and all that they need.

use std::collections::{BTreeMap, BTreeSet};

use plan::{Plan, PlannedJob};
use protocol::job::{Block, IllegalMove, Move, State};
use protocol::{JobId, Outcome, Timestamp, Trigger, TriggerKind};

use super::{Planned, Words, announce, is_held, row, write_down};
use crate::state::Server;
use crate::store::jobs::Job;
use crate::store::pipelines::Pipeline;
use crate::store::{Connection, Result, jobs, parents, pipelines};
use crate::{settle, trigger};

/// Asks for a finished job again: a new pipeline at the same commit with this job. What it needs is taken
/// from before where it succeeded, and asked for again where it did not. Asking a second time with the same `at` gives
/// the pipeline of the first.
///
/// # Errors
/// [`StoreError::Illegal`](crate::store::StoreError::Illegal) where the job is not over; the store's.
pub async fn rerun(
    server: &Server,
    id: &JobId,
    by: Option<&str>,
    at: Timestamp,
) -> Result<Pipeline> {
    let kind = TriggerKind::Rerun { of: id.clone() };
    one(server, id, kind, by, at, |_| ()).await
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
    one(server, id, kind, Some(by), at, |job| {
        job.key = None;
        if let Some(image) = &image {
            job.spec.image.clone_from(image);
        }
    })
    .await
}

/// A finished job again, changed.
async fn one(
    server: &Server,
    id: &JobId,
    kind: TriggerKind,
    by: Option<&str>,
    at: Timestamp,
    change: impl Fn(&mut Job),
) -> Result<Pipeline> {
    let mut tx = server.store.begin().await?;
    let job = jobs::get(&mut tx, id).await?;
    let like = pipelines::get(&mut tx, &job.pipeline).await?;
    let siblings = jobs::of_pipeline(&mut tx, &like.id).await?;
    // A reproduction that is asked for again is one still: its result counts for nothing else.
    let kind = match &like.trigger.kind {
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
        asked_in: None,
        ..like.trigger.clone()
    };
    let (pipeline, added) = again(&mut tx, &like, &trigger, &siblings, &[id], change).await?;
    tx.commit().await?;
    announce(server, &added);
    Ok(pipeline)
}

/// Asks for several finished jobs of a commit again, in one pipeline like `like`. `newest` are the commit's jobs, one of
/// each name: what is needed is taken from there, each once, where it is trusted as far as the pipeline. The same trigger
/// gives the same pipeline.
///
/// # Errors
/// As [`rerun`].
pub(crate) async fn retry(
    server: &Server,
    like: &Pipeline,
    trigger: &Trigger,
    newest: &[Job],
    asked: &[&JobId],
) -> Result<Pipeline> {
    let mut tx = server.store.begin().await?;
    let (pipeline, added) = again(&mut tx, like, trigger, newest, asked, |_| ()).await?;
    tx.commit().await?;
    announce(server, &added);
    Ok(pipeline)
}

/// The pipeline of a trigger with jobs of `from`, of which those that are asked for are changed; gives the new jobs, none
/// where the trigger made it before.
async fn again(
    tx: &mut Connection,
    like: &Pipeline,
    trigger: &Trigger,
    from: &[Job],
    asked: &[&JobId],
    change: impl Fn(&mut Job),
) -> Result<(Pipeline, Vec<Job>)> {
    let key = trigger::key(trigger);
    if let Some(before) = pipelines::by_trigger(tx, &like.project, &key).await? {
        return Ok((before, Vec::new()));
    }
    let chosen = needed(from, asked);
    let is_asked = |job: &Job| asked.contains(&&job.id);
    let open = |job: &&&Job| is_asked(job) && job.state.outcome().is_none();
    if let Some(open) = chosen.iter().find(open) {
        return Err(IllegalMove {
            from: open.state.word(),
            wanted: "be asked for again: it is not over",
        }
        .into());
    }
    let words = Words {
        subject: like.subject.clone(),
        author: like.author.clone(),
    };
    let nothing = Planned::Jobs(Plan {
        jobs: Vec::new(),
        ignored: Vec::new(),
        notes: Vec::new(),
        supersede_running: like.supersede_running,
    });
    let pipeline = row(tx, &like.project, trigger, &words, &nothing).await?;
    pipelines::insert(tx, &pipeline).await?;
    let held = is_held(tx, &pipeline).await?;
    let anew = |old: &&Job| {
        let mut job = anew(&pipeline, old, is_asked(old), held);
        if is_asked(old) {
            change(&mut job);
        }
        job
    };
    let mut added: Vec<Job> = chosen.iter().map(anew).collect();
    begin(&mut added);
    let plans = plans(tx, &chosen).await?;
    for (old, job) in chosen.iter().zip(&added) {
        jobs::insert(tx, job).await?;
        if let Some(plan) = plans.get(&old.id) {
            jobs::insert_plan(tx, &job.id, plan).await?;
        }
        parents::copy(tx, &old.id, &job.id).await?;
    }
    let verb = match trigger.kind {
        TriggerKind::Reproduction { .. } => "reproduce",
        TriggerKind::Push
        | TriggerKind::PullRequest { .. }
        | TriggerKind::Schedule { .. }
        | TriggerKind::Rerun { .. }
        | TriggerKind::Person { .. } => "retry",
    };
    if let Some(by) = &trigger.by {
        for id in asked {
            write_down(tx, by, format!("{verb} job {id}")).await?;
        }
    }
    Ok((pipeline, added))
}

/// The plans of jobs. What rests on values that a person gave to a job that it needs, has them too.
async fn plans(tx: &mut Connection, chosen: &[&Job]) -> Result<BTreeMap<JobId, PlannedJob>> {
    let mut plans = BTreeMap::new();
    for job in chosen {
        if let Some(plan) = jobs::plan(tx, &job.id).await? {
            plans.insert(job.id.clone(), plan);
        }
    }
    let is_given = |job: &Job| plans.get(&job.id).is_some_and(|plan| plan.given);
    let given = resting_on(chosen, is_given);
    for (id, plan) in &mut plans {
        plan.given = given.contains(id);
    }
    Ok(plans)
}

/// The jobs of which this holds, or of one that they need.
fn resting_on(chosen: &[&Job], holds: impl Fn(&Job) -> bool) -> BTreeSet<JobId> {
    let all: Vec<Job> = chosen.iter().copied().cloned().collect();
    let rests = |job: &&Job| needed(&all, &[&job.id]).into_iter().any(&holds);
    let found = all.iter().filter(rests);
    found.map(|job| job.id.clone()).collect()
}

/// What is asked for and all that it needs, in their order, each once.
fn needed<'a>(from: &'a [Job], asked: &[&JobId]) -> Vec<&'a Job> {
    let is_asked = |job: &Job| asked.contains(&&job.id);
    let mut needs: BTreeSet<&str> = BTreeSet::new();
    let mut open: Vec<&Job> = from.iter().filter(|job| is_asked(job)).collect();
    while let Some(job) = open.pop() {
        for need in &job.spec.needs {
            if needs.insert(need) {
                open.extend(from.iter().filter(|other| other.spec.definition == *need));
            }
        }
    }
    from.iter()
        .filter(|job| is_asked(job) || needs.contains(job.spec.definition.as_str()))
        .collect()
}

/// A job as it begins again: what is only needed keeps its success.
fn anew(pipeline: &Pipeline, old: &Job, asked: bool, held: bool) -> Job {
    let at = Timestamp::now();
    let kept = match old.state.outcome() {
        Some(Outcome::Succeeded) if !asked => Some(old.id.clone()),
        Some(Outcome::Reused { of }) if !asked => Some(of.clone()),
        Some(
            Outcome::Succeeded
            | Outcome::Reused { .. }
            | Outcome::Failed(_)
            | Outcome::Skipped { .. }
            | Outcome::Cancelled { .. },
        )
        | None => None,
    };
    let (state, finished_at) = match kept {
        Some(of) => {
            let outcome = Outcome::Reused { of };
            (State::Finished { outcome }, Some(at))
        }
        None if held => {
            let on = Block::Approval;
            (State::Blocked { on }, None)
        }
        None => (State::Blocked { on: Block::Needs }, None),
    };
    Job {
        id: JobId::generate(),
        pipeline: pipeline.id.clone(),
        state,
        version: 1,
        generation: 0,
        reason: None,
        created_at: at,
        queued_at: None,
        finished_at,
        ..old.clone()
    }
}

/// Queues what waits for nothing. Jobs of several plans have no common order: each looks at all of them.
fn begin(jobs: &mut [Job]) {
    let before = jobs.to_vec();
    for job in jobs {
        if let Some(Move::Unblock) = settle::step(job, &before, None) {
            job.state = State::Queued;
            job.queued_at = Some(job.created_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[test]
    fn what_needs_a_job_rests_on_what_was_given_to_it() {
        let pipeline = testing::pipeline(&testing::project("p"), 1);
        let job = |name: &str, needs: &[&str]| {
            let mut job = testing::job(&pipeline, name);
            job.spec.needs = needs.iter().map(|need| (*need).to_owned()).collect();
            job
        };
        let jobs = [
            job("prepare", &[]),
            job("train", &["prepare"]),
            job("test", &["train"]),
            job("other", &[]),
        ];
        let chosen: Vec<&Job> = jobs.iter().collect();
        let rest = resting_on(&chosen, |job| job.spec.definition == "prepare");
        let names = chosen.iter().filter(|job| rest.contains(&job.id));
        let names: Vec<_> = names.map(|job| job.spec.name.as_str()).collect();
        assert_eq!(names, ["prepare", "train", "test"]);
    }
}
