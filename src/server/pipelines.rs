//! Makes pipelines: a trigger and its plan become rows in one transaction, each job in the state that its
//! key and its needs give it. It knows rows, not git.

mod again;
mod closing;
mod needed;
mod people;

use std::collections::BTreeSet;

use plan::{Plan, PlannedJob};
use protocol::job::{Block, Move, State};
use protocol::{
    Failure, JobId, Outcome, PipelineId, ProjectId, Timestamp, Trigger, TriggerKind, Trust,
};

use crate::live::Change;
use crate::schedule::Demand;
use crate::state::Server;
use crate::store::jobs::{Job, Lineage};
use crate::store::pipelines::Pipeline;
use crate::store::{
    Connection, Result, StoreError, jobs, parents, pipelines, projects, queue, requests,
};
use crate::{offers, settle, trigger};

pub(crate) use again::retry;
pub use again::{reproduce, rerun};
pub use closing::CLOSED;
pub(crate) use closing::told_of;
use people::write_down;
pub use people::{approve, cancel_by_hand};

/// Who cancels the jobs of an older commit.
pub const SUPERSEDED: &str = "superseded by a newer commit";

/// What became of planning a commit.
#[derive(Debug, Clone, PartialEq)]
pub enum Planned {
    /// Jobs, perhaps none.
    Jobs(Plan),
    /// There is no pipeline file: nothing runs, and nothing is wrong.
    Nothing {
        /// The sentence for the status.
        why: String,
    },
    /// Nothing can be planned, and it is the user's to mend.
    Wrong(Failure),
}

/// What a commit says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The first line of its message.
    pub subject: String,
    /// Who wrote it.
    pub author: String,
}

/// Makes the pipeline of a trigger, or gives the one that it made before. A push also remembers where its
/// ref is, in the same transaction, and supersedes what is queued for other commits of that ref.
///
/// # Errors
/// The store's; then nothing was written.
pub async fn create(
    server: &Server,
    project: &ProjectId,
    trigger: &Trigger,
    words: &Words,
    planned: Planned,
) -> Result<Pipeline> {
    let mut tx = server.store.begin().await?;
    let key = trigger::key(trigger);
    let before = pipelines::by_trigger(&mut tx, project, &key).await?;
    let is_new = before.is_none();
    let pipeline = match before {
        Some(pipeline) => pipeline,
        None => {
            let pipeline = row(&mut tx, project, trigger, words, &planned).await?;
            pipelines::insert(&mut tx, &pipeline).await?;
            pipeline
        }
    };
    // One that was there stands for its ref again, where that went back to its commit.
    let running = matches!(&planned, Planned::Jobs(plan) if plan.supersede_running);
    let mut changed = supersede(&mut tx, &pipeline, running).await?;
    if is_new {
        if let Planned::Jobs(plan) = &planned {
            changed.extend(newest_wins(&mut tx, &pipeline, &plan.jobs).await?);
            changed.extend(add_jobs(&mut tx, &pipeline, &plan.jobs).await?);
        }
        changed.extend(closing::close_if_over(&mut tx, &pipeline).await?);
    }
    if let (TriggerKind::Push | TriggerKind::PullRequest { .. }, Some(reference)) =
        (&trigger.kind, &trigger.reference)
    {
        projects::set_ref(&mut tx, project, reference, &trigger.commit, trigger.at).await?;
    }
    tx.commit().await?;
    tracing::info!(pipeline = %pipeline.id, commit = trigger.commit.short(), jobs = changed.len(), "planned");
    announce(server, &changed);
    Ok(pipeline)
}

/// Wakes all that may want to know of jobs that are new or have moved.
pub(crate) fn announce(server: &Server, changed: &[Job]) {
    for job in changed {
        server.live.tell(Change::Job {
            pipeline: job.pipeline.clone(),
            job: job.id.clone(),
        });
    }
    server.live.queue_changed();
    // New work has no agent yet; only an end goes to one.
    if changed
        .iter()
        .any(|job| matches!(job.state, State::Stopping { .. }))
    {
        server.live.orders_changed();
    }
    server.live.attempt_finished();
}

async fn row(
    db: &mut Connection,
    project: &ProjectId,
    trigger: &Trigger,
    words: &Words,
    planned: &Planned,
) -> Result<Pipeline> {
    let (problem, notes, supersede_running) = match planned {
        Planned::Jobs(plan) => (None, plan.notes.clone(), plan.supersede_running),
        Planned::Nothing { why } => (None, vec![why.clone()], false),
        Planned::Wrong(failure) => (Some(failure.clone()), Vec::new(), false),
    };
    Ok(Pipeline {
        id: PipelineId::generate(),
        project: project.clone(),
        number: pipelines::next_number(db, project).await?,
        trigger_key: trigger::key(trigger),
        trigger: trigger.clone(),
        subject: words.subject.chars().take(500).collect(),
        author: words.author.chars().take(200).collect(),
        problem,
        notes,
        supersede_running,
        created_at: Timestamp::now(),
    })
}

/// Cancels what no host has yet of other commits of the same branch or pull request; gives the jobs that
/// changed. Of a pull request `running` ends what runs too. What was cancelled stands for nothing: where the ref goes
/// back to its commit, that is planned anew.
async fn supersede(tx: &mut Connection, pipeline: &Pipeline, running: bool) -> Result<Vec<Job>> {
    let running = match &pipeline.trigger.kind {
        TriggerKind::Push => false,
        TriggerKind::PullRequest { .. } => running,
        TriggerKind::Schedule { .. }
        | TriggerKind::Rerun { .. }
        | TriggerKind::Reproduction { .. }
        | TriggerKind::Person { .. } => return Ok(Vec::new()),
    };
    let mut changed = Vec::new();
    for older in pipelines::unsettled(tx, pipeline, running).await? {
        let mut ended = Vec::new();
        for job in jobs::of_pipeline(tx, &older).await? {
            if may_end(&job, running) {
                ended.extend(cancel(tx, &job, SUPERSEDED).await?);
            }
        }
        if !ended.is_empty() {
            pipelines::stands_no_more(tx, &older).await?;
        }
        changed.extend(ended);
    }
    Ok(changed)
}

/// Whether a job ends for a rule's sake: one that no host has yet, or, with `running`, any that is not over.
fn may_end(job: &Job, running: bool) -> bool {
    match job.state {
        State::Blocked { .. } | State::Queued => true,
        // What has a host may end: its result is worth something.
        State::Leased { .. } | State::Running { .. } => running,
        State::Stopping { .. } | State::Finished { .. } => false,
    }
}

/// Cancels what waits of concurrency groups whose newest job wins. Its pipeline still stands: it lost to a job of another
/// ref, and a message that tells of its commit again does not make it the newest.
async fn newest_wins(
    tx: &mut Connection,
    pipeline: &Pipeline,
    planned: &[PlannedJob],
) -> Result<Vec<Job>> {
    let groups = planned
        .iter()
        .filter_map(|job| job.spec.turn.concurrency.as_ref());
    let groups: BTreeSet<&str> = groups
        .filter(|concurrency| concurrency.cancel_queued)
        .map(|concurrency| concurrency.group.as_str())
        .collect();
    let mut changed = Vec::new();
    for group in groups {
        for id in queue::waiting_of_group(tx, &pipeline.project, group).await? {
            let job = jobs::get(tx, &id).await?;
            // One that was cancelled just now may have settled it.
            if job.state.outcome().is_none() {
                let by = format!("a newer job of the concurrency group '{group}'");
                changed.extend(cancel(tx, &job, &by).await?);
            }
        }
    }
    Ok(changed)
}

/// Cancels a job; gives all jobs that changed with it.
///
/// # Errors
/// The store's, or [`StoreError::Illegal`] where it is over.
pub async fn cancel(tx: &mut Connection, job: &Job, by: &str) -> Result<Vec<Job>> {
    // Another cancel before it may have settled it.
    let job = jobs::get(tx, &job.id).await?;
    let at = Timestamp::now();
    let step = Move::Cancel { by: by.to_owned() };
    let job = match jobs::advance(tx, &job, step, None, at).await {
        Ok(job) => job,
        Err(StoreError::Illegal(_)) if [SUPERSEDED, CLOSED].contains(&by) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut changed = vec![job.clone()];
    if job.state.outcome().is_some() {
        changed.extend(settle::after(tx, &job, at).await?);
    }
    Ok(changed)
}

/// Adds the jobs of a plan, in its order, so that a job finds those that it needs.
async fn add_jobs(
    tx: &mut Connection,
    pipeline: &Pipeline,
    planned: &[PlannedJob],
) -> Result<Vec<Job>> {
    let mut added: Vec<Job> = Vec::with_capacity(planned.len());
    let project = projects::find(tx, &pipeline.project)
        .await?
        .ok_or_else(|| StoreError::Missing(format!("project {}", pipeline.project)))?;
    let demands = planned
        .iter()
        .map(|job| Demand::of(&job.spec, job.trust, &project.id));
    let refusals = offers::refusals(tx, Some(&project), demands).await?;
    let held = is_held(tx, pipeline).await?;
    for (plan, refusal) in planned.iter().zip(refusals) {
        let mut job = new_job(pipeline, plan);
        let last = jobs::last_plan(tx, &pipeline.project, &plan.spec.name).await?;
        job.lineage.changed = match &last {
            Some(last) => plan::explain(plan, last),
            None => vec!["it is new".to_owned()],
        };
        job.state = first_state(tx, pipeline, &job, &added, held).await?;
        if let (
            Some(failure),
            State::Queued
            | State::Blocked {
                on: Block::Needs | Block::Approval,
            },
        ) = (refusal, &job.state)
        {
            job.state = State::Finished {
                outcome: Outcome::Failed(failure),
            };
        }
        match &job.state {
            State::Queued => job.queued_at = Some(job.created_at),
            State::Finished { .. } => job.finished_at = Some(job.created_at),
            State::Blocked { .. }
            | State::Leased { .. }
            | State::Running { .. }
            | State::Stopping { .. } => {}
        }
        jobs::insert(tx, &job).await?;
        jobs::insert_plan(tx, &job.id, plan).await?;
        if let Some(parent) = &plan.spec.parent {
            parents::insert(tx, &job.id, &parent.id, &parent.asked).await?;
        }
        added.push(job);
    }
    Ok(added)
}

fn new_job(pipeline: &Pipeline, plan: &PlannedJob) -> Job {
    Job {
        id: JobId::generate(),
        pipeline: pipeline.id.clone(),
        project: pipeline.project.clone(),
        spec: plan.spec.clone(),
        key: Some(plan.key.clone()),
        trust: plan.trust,
        lineage: Lineage {
            fingerprint: plan.fingerprint.clone(),
            lock: plan.lock.clone(),
            unversioned: plan.unversioned.clone(),
            changed: Vec::new(),
        },
        state: State::Blocked { on: Block::Needs },
        version: 1,
        generation: 0,
        priority: plan.spec.turn.priority,
        reason: None,
        created_at: Timestamp::now(),
        queued_at: None,
        finished_at: None,
    }
}

/// Whether a pipeline's jobs wait for a person: its commit is untrusted, and nobody has approved it.
async fn is_held(db: &mut Connection, pipeline: &Pipeline) -> Result<bool> {
    let Trigger { trust, commit, .. } = &pipeline.trigger;
    match trust {
        Trust::Trusted => Ok(false),
        Trust::Untrusted => {
            let by = requests::approved_by(db, &pipeline.project, commit).await?;
            Ok(by.is_none())
        }
    }
}

/// Where a new job stands: an equal result stands for it, it is held, an equal job is joined, or it waits its turn.
async fn first_state(
    db: &mut Connection,
    pipeline: &Pipeline,
    job: &Job,
    earlier: &[Job],
    held: bool,
) -> Result<State> {
    if pipeline.trigger.may_reuse()
        && job.spec.reuse
        && let Some(key) = &job.key
    {
        let equal = jobs::with_key(db, &job.project, key).await?;
        match stand_in(job, &equal) {
            // Nothing runs for it: a result needs no approval, a wait might end in a run.
            Some(state @ State::Finished { .. }) => return Ok(state),
            Some(state) if !held => return Ok(state),
            Some(_) | None => {}
        }
    }
    if held {
        return Ok(State::Blocked {
            on: Block::Approval,
        });
    }
    Ok(match settle::step(job, earlier, None) {
        None => job.state.clone(),
        Some(Move::Settle { outcome }) => State::Finished { outcome },
        Some(_) => State::Queued,
    })
}

/// The state of a job that needs not run itself. `equal` has jobs of its key that succeeded or go on,
/// newest first. One of lower trust never stands for one of higher.
fn stand_in(job: &Job, equal: &[Job]) -> Option<State> {
    let trusted = || equal.iter().filter(|other| other.trust >= job.trust);
    let succeeded = trusted().find(|other| other.state.outcome() == Some(&Outcome::Succeeded));
    if let Some(other) = succeeded {
        return Some(State::Finished {
            outcome: Outcome::Reused {
                of: other.id.clone(),
            },
        });
    }
    let goes_on = |other: &&Job| match &other.state {
        State::Queued | State::Leased { .. } | State::Running { .. } => true,
        State::Blocked { on } => *on == Block::Needs,
        State::Stopping { .. } | State::Finished { .. } => false,
    };
    let joined = trusted().find(goes_on)?;
    Some(State::Blocked {
        on: Block::Equal {
            job: joined.id.clone(),
        },
    })
}
