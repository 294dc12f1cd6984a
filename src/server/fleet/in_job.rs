//! Who asks where the code of an attempt calls the registry.

use protocol::AttemptId;

use super::{Refused, Standing, seen};
use crate::registry::mlflow::{Caller, JobCaller};
use crate::registry::{begin_run, run_id};
use crate::state::Server;
use crate::store::agents::Agent;
use crate::store::job_calls::{self, LastCall};
use crate::store::{StoreError, runs};

/// What an attempt of this agent may do in the registry. Its run is there from now on. `number` is that of a call that
/// writes.
///
/// # Errors
/// [`Refused::Abandoned`] where nobody believes the attempt, or it had its last word.
pub async fn caller(
    server: &Server,
    agent: &Agent,
    id: &AttemptId,
    number: Option<u64>,
) -> Result<Caller, Refused> {
    let (attempt, job, standing) = seen(server, agent, id).await?;
    match standing {
        Standing::Believed | Standing::Resumable => {}
        Standing::Over | Standing::Abandoned => return Err(Refused::Abandoned(id.clone())),
    }
    let mut run = runs::find(&mut *server.store.read().await?, &run_id(id)).await?;
    if run.is_none() {
        let mut tx = server.store.begin().await?;
        let made = begin_run(&mut tx, &attempt).await?;
        run = runs::find(&mut tx, &made).await?;
        tx.commit().await?;
    }
    let run = run.ok_or_else(|| StoreError::Missing(format!("run of attempt {id}")))?;
    Ok(Caller {
        store: server.store.clone(),
        by: format!("attempt {id}"),
        // The runs of a job lie in its own experiment.
        home: Some(run.experiment),
        job: Some(JobCaller {
            attempt: attempt.id,
            agent: agent.id.clone(),
            run: run.id,
            project: job.project,
            trust: job.trust,
            number,
        }),
    })
}

/// What a call was answered that was carried out before; none: it was not. Of one before the last the answer is not known
/// any more: nobody waits for it, and another call's must not stand for it.
///
/// # Errors
/// The store's.
pub async fn answered(
    server: &Server,
    id: &AttemptId,
    number: u64,
) -> Result<Option<String>, Refused> {
    let mut db = server.store.read().await?;
    let last = job_calls::last(&mut db, id).await?;
    let known = |last: LastCall| match number == last.number {
        true => last.answer,
        false => "{}".to_owned(),
    };
    Ok(last.filter(|last| number <= last.number).map(known))
}
