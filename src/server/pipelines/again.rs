//! Jobs that are asked for again: a new pipeline at their commit, with them and all that they need.

use std::collections::{BTreeMap, BTreeSet};

use plan::file::LINT;
use plan::{Plan, PlannedJob};
use protocol::job::{Block, IllegalMove, Move, State};
use protocol::{Digest, JobId, Outcome, PipelineId, Timestamp, Trigger, TriggerKind};

use super::needed::{Chosen, Known, needed};
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
    let chosen = choose(&mut tx, std::slice::from_ref(&siblings), &siblings, &[id]).await?;
    let (pipeline, added) = again(&mut tx, &like, &trigger, &chosen, &[id], change).await?;
    tx.commit().await?;
    announce(server, &added);
    Ok(pipeline)
}

/// Asks for several finished jobs of a commit again, in one pipeline like `like`. `newest` are the commit's jobs, one of
/// each name, trusted as far as the pipeline; `asked` are of these. What they need is of their own pipelines, or equal to
/// it. The same trigger gives the same pipeline.
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
    let asked_for = newest.iter().filter(|job| asked.contains(&&job.id));
    let pipelines: BTreeSet<&PipelineId> = asked_for.map(|job| &job.pipeline).collect();
    let mut own = Vec::with_capacity(pipelines.len());
    for pipeline in pipelines {
        own.push(jobs::of_pipeline(&mut tx, pipeline).await?);
    }
    let chosen = choose(&mut tx, &own, newest, asked).await?;
    let (pipeline, added) = again(&mut tx, like, trigger, &chosen, asked, |_| ()).await?;
    tx.commit().await?;
    announce(server, &added);
    Ok(pipeline)
}

/// What stands in the new pipeline.
async fn choose(
    tx: &mut Connection,
    own: &[Vec<Job>],
    newest: &[Job],
    asked: &[&JobId],
) -> Result<Vec<Chosen>> {
    let kept = own.iter().flatten().chain(newest);
    let kept: Vec<(&Job, &JobId)> = kept.filter_map(|job| Some((job, result(job)?))).collect();
    let of: BTreeSet<&JobId> = kept.iter().map(|(_, of)| *of).collect();
    let gone = jobs::without_model(tx, &of).await?;
    let gone = kept.iter().filter(|(_, of)| gone.contains(*of));
    let known = Known {
        own,
        newest,
        gone: &gone.map(|(job, _)| job.id.clone()).collect(),
    };
    Ok(known.choose(asked))
}

/// The pipeline of a trigger with what was chosen, of which those that are asked for are changed; gives the new jobs, none
/// where the trigger made it before.
async fn again(
    tx: &mut Connection,
    like: &Pipeline,
    trigger: &Trigger,
    chosen: &[Chosen],
    asked: &[&JobId],
    change: impl Fn(&mut Job),
) -> Result<(Pipeline, Vec<Job>)> {
    let key = trigger::key(trigger);
    if let Some(before) = pipelines::by_trigger(tx, &like.project, &key).await? {
        return Ok((before, Vec::new()));
    }
    let is_asked = |job: &Job| asked.contains(&&job.id);
    let open = |one: &&Chosen| is_asked(&one.job) && one.job.state.outcome().is_none();
    if let Some(open) = chosen.iter().find(open) {
        return Err(IllegalMove {
            from: open.job.state.word(),
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
    let anew = |one: &Chosen| {
        let mut job = anew(&pipeline, one, held);
        if is_asked(&one.job) {
            change(&mut job);
        }
        job
    };
    let mut added: Vec<Job> = chosen.iter().map(anew).collect();
    let olds: Vec<&Job> = chosen.iter().map(|one| &one.job).collect();
    let plans = plans(tx, &olds).await?;
    let planned: Vec<Option<&PlannedJob>> = olds.iter().map(|old| plans.get(&old.id)).collect();
    hold_keys(&mut added, &planned);
    if matches!(trigger.kind, TriggerKind::Reproduction { .. }) {
        // It leaves no version, not of what it needs either: nothing is to be reused of it.
        for job in added.iter_mut().filter(|job| job.state.outcome().is_none()) {
            job.key = None;
        }
    }
    begin(&mut added);
    for (old, job) in olds.iter().zip(&added) {
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

/// Takes the key from what will run and rests on other jobs than its key says: its result stands for no other.
fn hold_keys(added: &mut [Job], planned: &[Option<&PlannedJob>]) {
    loop {
        let mut keys: BTreeMap<String, Vec<Option<Digest>>> = BTreeMap::new();
        for job in added.iter() {
            let of_it = keys.entry(job.spec.definition.clone()).or_default();
            of_it.push(job.key.clone());
        }
        let mut lost = 0;
        for (job, plan) in added.iter_mut().zip(planned) {
            let says = |need: &&String| {
                let keys = keys.get(*need).map_or(&[][..], Vec::as_slice);
                let keys: Option<Vec<&Digest>> = keys.iter().map(Option::as_ref).collect();
                plan.zip(keys)
                    .is_some_and(|(plan, keys)| plan.is_made_of(need, &keys))
            };
            // Lint leaves nothing: it has no part in a key.
            let mut needs = job.spec.needs.iter().filter(|need| *need != LINT);
            let holds = job.state.outcome().is_some() || needs.all(|need| says(&need));
            if !holds && job.key.take().is_some() {
                lost += 1;
            }
        }
        if lost == 0 {
            return;
        }
    }
}

/// The job whose result one has.
fn result(job: &Job) -> Option<&JobId> {
    match job.state.outcome()? {
        Outcome::Succeeded => Some(&job.id),
        Outcome::Reused { of } => Some(of),
        Outcome::Failed(_) | Outcome::Skipped { .. } | Outcome::Cancelled { .. } => None,
    }
}

/// A job as it begins again: what does not run keeps its success.
fn anew(pipeline: &Pipeline, one: &Chosen, held: bool) -> Job {
    let at = Timestamp::now();
    let old = &one.job;
    let kept = result(old).filter(|_| !one.runs).cloned();
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
