//! What one job's end means for others: needs are met or not, and who waited for an equal job gets its
//! result or goes on alone. It moves blocked jobs only.

use protocol::job::{Block, Move, State};
use protocol::{Outcome, Timestamp};

use crate::store::jobs::Job;
use crate::store::{Connection, Result, jobs};

/// Most blocked jobs of a project that are looked at after one end.
const MOST: u32 = 10_000;

/// Settles everything that follows from the end of `ended`; gives the jobs that were changed.
///
/// # Errors
/// The store's.
pub async fn after(db: &mut Connection, ended: &Job, at: Timestamp) -> Result<Vec<Job>> {
    let mut changed = Vec::new();
    let mut ends = vec![ended.clone()];
    while let Some(ended) = ends.pop() {
        for job in jobs::blocked(db, &ended.project, MOST).await? {
            let Some(step) = step_after(db, &job, &ended).await? else {
                continue;
            };
            let job = jobs::advance(db, &job, step, None, at).await?;
            if job.state.outcome().is_some() {
                ends.push(job.clone());
            }
            changed.push(job);
        }
    }
    Ok(changed)
}

async fn step_after(db: &mut Connection, job: &Job, ended: &Job) -> Result<Option<Move>> {
    let equal = match &job.state {
        State::Blocked {
            on: Block::Equal { job: equal },
        } => Some(equal),
        _ => None,
    };
    let concerned = job.pipeline == ended.pipeline || equal == Some(&ended.id);
    if !concerned {
        return Ok(None);
    }
    let equal = match equal {
        Some(id) => jobs::find(db, id).await?,
        None => None,
    };
    let siblings = jobs::of_pipeline(db, &job.pipeline).await?;
    Ok(step(job, &siblings, equal.as_ref()))
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
