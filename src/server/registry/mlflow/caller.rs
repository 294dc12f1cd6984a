//! Who asks, and what that allows. What an attempt of a job writes is evidence: nobody else adds to it, and its code
//! writes to nothing else.

use protocol::agent_api::CALL_HEADER;
use protocol::spec::Trust;
use protocol::{AgentId, AttemptId, ProjectId, Timestamp};
use serde::Serialize;

use super::{Answer, Code, Fault};
use crate::store::access::{self, Audit};
use crate::store::attempts::{self, Fate};
use crate::store::job_calls::{self, LastCall};
use crate::store::runs::Run;
use crate::store::{self, Result as StoreResult, Store, Transaction};

/// What a call is carried out with.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The rows.
    pub store: Store,
    /// Who asks, for the audit log and the history of aliases.
    pub by: String,
    /// The number of the experiment in which all lies that the caller begins, whatever it asks for; none: it chooses.
    pub home: Option<i64>,
    /// The attempt whose code asks; none: somebody outside of jobs.
    pub job: Option<JobCaller>,
}

/// An attempt whose code asks.
#[derive(Debug, Clone)]
pub struct JobCaller {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its agent, which brings the files.
    pub agent: AgentId,
    /// The attempt's own run.
    pub run: String,
    /// The job's project.
    pub project: ProjectId,
    /// How far the code is trusted.
    pub trust: Trust,
    /// The number of a call that writes: carried out once.
    pub number: Option<u64>,
}

impl Caller {
    /// Writes down what is done, with it.
    pub(super) async fn write_down(&self, tx: &mut Transaction, action: String) -> StoreResult<()> {
        let entry = Audit {
            at: Timestamp::now(),
            who: self.by.clone(),
            action,
        };
        access::write_audit(tx, &entry).await
    }

    /// Begins to write.
    pub(super) async fn begin(&self) -> Answer<Transaction> {
        let mut tx = self.store.begin().await?;
        if let Some(job) = &self.job {
            job.may_go_on(&mut tx).await?;
        }
        Ok(tx)
    }

    /// Keeps what was written, and with it that it was.
    pub(super) async fn commit<T: Serialize>(&self, mut tx: Transaction, answer: T) -> Answer<T> {
        if let Some(JobCaller {
            attempt,
            number: Some(number),
            ..
        }) = &self.job
        {
            let answer = serde_json::to_string(&answer);
            let call = LastCall {
                number: *number,
                answer: answer.map_err(|error| Fault::new(Code::Internal, error.to_string()))?,
            };
            job_calls::note(&mut tx, attempt, &call).await?;
        }
        store::commit(tx).await?;
        Ok(answer)
    }

    /// Whether this run's measures, settings and files are the caller's to write.
    pub(super) fn may_write(&self, run: &Run) -> Answer<()> {
        let asks = self.job.as_ref().map(|job| &job.attempt);
        match (asks, &run.attempt) {
            (None, None) => Ok(()),
            (Some(asks), Some(writes)) if asks == writes => Ok(()),
            (None, Some(_)) => Err(Fault::new(
                Code::Denied,
                format!(
                    "run {} is a job's of this server: only the job writes what it measured, its settings and its files; \
                     a tag can be set, or a run of your own be begun",
                    run.id
                ),
            )),
            (Some(_), _) => Err(not_this_jobs(&run.id)),
        }
    }

    /// Whether the caller may put a tag on this run.
    pub(super) fn may_tag(&self, run: &Run) -> Answer<()> {
        match &self.job {
            None => Ok(()),
            Some(_) => self.may_write(run),
        }
    }

    /// Whether the caller may look at what this attempt wrote; none: at what was written outside of jobs. Code that
    /// nobody trusts sees what it wrote itself.
    pub(super) fn may_see(&self, attempt: Option<&AttemptId>) -> bool {
        match &self.job {
            Some(job) if job.trust == Trust::Untrusted => attempt == Some(&job.attempt),
            Some(_) | None => true,
        }
    }

    /// The experiment that the caller writes to, where it asks for `wanted`.
    pub(super) fn experiment(&self, wanted: i64) -> i64 {
        self.home.unwrap_or(wanted)
    }
}

fn not_this_jobs(run: &str) -> Fault {
    Fault::new(
        Code::Denied,
        format!(
            "run {run} is not this job's: a job writes to its own run (MLFLOW_RUN_ID) and to runs that it began"
        ),
    )
}

impl JobCaller {
    /// Whether the attempt is still believed, and this call was not carried out before.
    async fn may_go_on(&self, tx: &mut Transaction) -> Answer<()> {
        let attempt = attempts::get(tx, &self.attempt).await?;
        match attempt.fate {
            Fate::Open | Fate::Lost => {}
            Fate::Finished | Fate::Abandoned => {
                return Err(Fault::new(
                    Code::Denied,
                    format!("attempt {} is over", self.attempt),
                ));
            }
        }
        let Some(number) = self.number else {
            return Err(Fault::invalid(format!(
                "a call that writes has a {CALL_HEADER}"
            )));
        };
        let last = job_calls::last(tx, &self.attempt).await?;
        if last.is_some_and(|last| number <= last.number) {
            // Carried out a moment ago, beside this one: asked once more, it is answered as that was.
            return Err(Fault::new(
                Code::Unavailable,
                "this call is being carried out",
            ));
        }
        Ok(())
    }
}
