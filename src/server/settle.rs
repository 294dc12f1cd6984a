//! What one job's end means for others: needs are met or not, and who waited for an equal job gets its
//! result or goes on alone. It moves blocked jobs only.

use std::collections::{BTreeMap, BTreeSet};

use protocol::job::{Block, Move, State};
use protocol::{JobId, Outcome, PipelineId, Timestamp};

use crate::store::jobs::Job;
use crate::store::{Connection, Result, jobs};

/// Most jobs that wait for one equal to them and are looked at after its end.
const MOST: u32 = 10_000;

/// Settles everything that follows from the end of `ended`; gives the jobs that were changed. It goes in
/// rounds, each over all that ended in the one before: a round reads the blocked jobs, and each pipeline
/// that it concerns, once.
///
/// # Errors
/// The store's.
pub async fn after(db: &mut Connection, ended: &Job, at: Timestamp) -> Result<Vec<Job>> {
    let mut changed = Vec::new();
    let mut ends = vec![ended.clone()];
    while !ends.is_empty() {
        let moved = round(db, &ends, at).await?;
        ends = moved
            .iter()
            .filter(|job| job.state.outcome().is_some())
            .cloned()
            .collect();
        changed.extend(moved);
    }
    Ok(changed)
}

/// Moves the jobs that waited for one of `ends`.
async fn round(db: &mut Connection, ends: &[Job], at: Timestamp) -> Result<Vec<Job>> {
    let ended: BTreeMap<&JobId, &Job> = ends.iter().map(|job| (&job.id, job)).collect();
    let mut pipelines: BTreeMap<PipelineId, Vec<Job>> = BTreeMap::new();
    let mut moved = Vec::new();
    for job in waiting(db, ends).await? {
        let State::Blocked { on } = &job.state else {
            continue;
        };
        let equal = match on {
            Block::Approval => continue,
            Block::Needs => None,
            Block::Equal { job: equal } => match ended.get(equal) {
                Some(equal) => Some((*equal).clone()),
                // It may have ended before, while something that this one needs was open.
                None => Some(jobs::get(db, equal).await?),
            },
        };
        // Only ends matter of siblings: what moves in this round is seen by the next.
        if !pipelines.contains_key(&job.pipeline) {
            let siblings = jobs::of_pipeline(db, &job.pipeline).await?;
            pipelines.insert(job.pipeline.clone(), siblings);
        }
        let siblings = &pipelines[&job.pipeline];
        if let Some(step) = step(&job, siblings, equal.as_ref()) {
            moved.push(jobs::advance(db, &job, step, None, at).await?);
        }
    }
    Ok(moved)
}

/// The blocked jobs for which one of `ends` may matter, each once: those beside them, and those that are equal to them.
async fn waiting(db: &mut Connection, ends: &[Job]) -> Result<Vec<Job>> {
    let mut found: BTreeMap<JobId, Job> = BTreeMap::new();
    let pipelines: BTreeSet<&PipelineId> = ends.iter().map(|job| &job.pipeline).collect();
    for pipeline in pipelines {
        let beside = jobs::blocked_in(db, pipeline).await?;
        found.extend(beside.into_iter().map(|job| (job.id.clone(), job)));
    }
    let keys: BTreeSet<_> = ends
        .iter()
        .filter_map(|job| Some((&job.project, job.key.as_ref()?)))
        .collect();
    for (project, key) in keys {
        let equal = jobs::blocked_with_key(db, project, key, MOST).await?;
        found.extend(equal.into_iter().map(|job| (job.id.clone(), job)));
    }
    Ok(found.into_values().collect())
}

/// What a blocked job does now; none: it goes on waiting. `equal` is the job it waits for, if it does.
#[must_use]
pub fn step(job: &Job, siblings: &[Job], equal: Option<&Job>) -> Option<Move> {
    let State::Blocked { on } = &job.state else {
        return None;
    };
    match on {
        Block::Approval => None,
        Block::Needs => needs(job, siblings),
        Block::Equal { .. } => match equal.map(|equal| (equal, equal.state.outcome())) {
            Some((_, None)) => None,
            Some((equal, Some(Outcome::Succeeded))) => Some(Move::Settle {
                outcome: Outcome::Reused {
                    of: equal.id.clone(),
                },
            }),
            Some((_, Some(Outcome::Reused { of }))) => Some(Move::Settle {
                outcome: Outcome::Reused { of: of.clone() },
            }),
            // It stands for nothing: this job goes its own way.
            Some((
                _,
                Some(Outcome::Skipped { .. } | Outcome::Cancelled { .. } | Outcome::Failed(_)),
            ))
            | None => needs(job, siblings),
        },
    }
}

/// Unblocked when all that it needs succeeded, skipped when something did not.
fn needs(job: &Job, siblings: &[Job]) -> Option<Move> {
    let needed = || {
        siblings
            .iter()
            .filter(|other| job.spec.needs.contains(&other.spec.definition))
    };
    let bad = needed().find_map(|other| {
        let outcome = other.state.outcome()?;
        (!outcome.is_success()).then(|| (other.spec.name.clone(), ended_how(outcome)))
    });
    if let Some((name, how)) = bad {
        let why = format!("it needs '{name}', which {how}");
        return Some(Move::Settle {
            outcome: Outcome::Skipped { why },
        });
    }
    needed()
        .all(|other| other.state.outcome().is_some_and(Outcome::is_success))
        .then_some(Move::Unblock)
}

fn ended_how(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded | Outcome::Reused { .. } => "succeeded",
        Outcome::Skipped { .. } => "was skipped",
        Outcome::Cancelled { .. } => "was cancelled",
        Outcome::Failed(_) => "failed",
    }
}
