//! What a command does. Each deed carries the time at which it was asked for, so that doing it a second time, after the
//! server died in between, makes nothing new.

use std::collections::BTreeMap;

use protocol::spec::Parameters;
use protocol::{CommitId, JobId, Outcome, Timestamp, Trigger, TriggerKind, Trust};

use super::command::Command;
use crate::pipelines;
use crate::state::Server;
use crate::store::jobs::Job;
use crate::store::pipelines::Pipeline;
use crate::store::projects::Project;
use crate::store::{StoreError, jobs, pipelines as rows};
use crate::watch::{self, WatchError};

/// Why a command is not obeyed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// A sentence for whoever asked.
    #[error("{0}")]
    Wrong(String),
    /// It may be obeyed later.
    #[error(transparent)]
    Later(#[from] WatchError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Refused::Later(error.into())
    }
}

/// A person's word on a commit.
pub(super) struct Asking<'a> {
    pub(super) server: &'a Server,
    pub(super) project: &'a Project,
    /// The commit's newest pipeline.
    pub(super) pipeline: &'a Pipeline,
    /// The branch that a pull request goes to.
    pub(super) base_branch: Option<&'a str>,
    pub(super) by: &'a str,
    pub(super) at: Timestamp,
}

impl Asking<'_> {
    pub(super) async fn obey(&self, command: Command) -> Result<(), Refused> {
        match command {
            Command::Rerun { job, parameters } => self.rerun(job, parameters).await,
            Command::Retry => self.retry().await,
            Command::Cancel { job } => self.cancel(job.as_deref()).await,
            Command::Approve { commit } => self.approve(commit.as_deref()).await,
        }
    }

    fn commit(&self) -> &CommitId {
        &self.pipeline.trigger.commit
    }

    /// At the same commit and with the same trust.
    async fn rerun(&self, job: Option<String>, parameters: Parameters) -> Result<(), Refused> {
        let trigger = Trigger {
            kind: TriggerKind::Person {
                definitions: job.into_iter().collect(),
                parameters,
            },
            by: Some(self.by.to_owned()),
            at: self.at,
            ..self.pipeline.trigger.clone()
        };
        let base = match self.base_branch {
            Some(branch) => watch::head_of(self.server, self.project, branch).await?,
            None => None,
        };
        match watch::plan_and_create(self.server, self.project, &trigger, base.as_ref()).await {
            Ok(_) => Ok(()),
            Err(WatchError::Wrong(why)) => Err(Refused::Wrong(why)),
            Err(error) => Err(error.into()),
        }
    }

    /// What did not succeed. What only was not run because of something else comes with that.
    async fn retry(&self) -> Result<(), Refused> {
        let newest = self.newest_jobs().await?;
        let failed: Vec<&Job> = newest.iter().filter(|job| is_bad(job)).collect();
        let needed = |job: &Job| {
            let mut others = failed.iter().filter(|other| other.id != job.id);
            others.any(|other| other.spec.needs.contains(&job.spec.definition))
        };
        let last: Vec<&JobId> = failed
            .iter()
            .filter(|job| !needed(job))
            .map(|job| &job.id)
            .collect();
        if last.is_empty() {
            return Err(self.nothing("nothing failed"));
        }
        for id in last {
            self.again(id).await?;
        }
        Ok(())
    }

    /// One job, with all that it needs.
    pub(super) async fn again(&self, id: &JobId) -> Result<(), Refused> {
        match pipelines::rerun(self.server, id, Some(self.by), self.at).await {
            Ok(_) => Ok(()),
            Err(StoreError::Illegal(illegal)) => Err(Refused::Wrong(illegal.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    async fn cancel(&self, definition: Option<&str>) -> Result<(), Refused> {
        let newest = self.newest_jobs().await?;
        let named = |job: &&Job| definition.is_none_or(|name| is_called(job, name));
        let going: Vec<&Job> = newest
            .iter()
            .filter(named)
            .filter(|job| job.state.outcome().is_none())
            .collect();
        if going.is_empty() {
            return Err(self.nothing("nothing is waiting or running"));
        }
        for job in going {
            self.end(&job.id).await?;
        }
        Ok(())
    }

    /// Ends one job, if it is not over.
    pub(super) async fn end(&self, id: &JobId) -> Result<(), Refused> {
        match pipelines::cancel_by_hand(self.server, id, self.by).await {
            // It ended, or is ended, by itself.
            Ok(_) | Err(StoreError::Illegal(_) | StoreError::Changed(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Approves the commit; where none is named, it must have been there to be looked at.
    async fn approve(&self, named: Option<&str>) -> Result<(), Refused> {
        let commit = self.commit();
        match (self.pipeline.trigger.trust, named) {
            (Trust::Trusted, _) => return Err(self.nothing("nothing waits for an approval")),
            (Trust::Untrusted, Some(named)) => {
                if !commit.as_str().starts_with(&named.to_ascii_lowercase()) {
                    let head = commit.short();
                    return Err(Refused::Wrong(format!(
                        "the head is {head} by now, not {named}: look at it, and approve it by its name"
                    )));
                }
            }
            (Trust::Untrusted, None) if self.pipeline.created_at >= self.at => {
                let head = commit.short();
                return Err(Refused::Wrong(format!(
                    "the head became {head} just now: look at it, and approve it by its name"
                )));
            }
            (Trust::Untrusted, None) => {}
        }
        pipelines::approve(self.server, &self.project.id, commit, self.by).await?;
        Ok(())
    }

    fn nothing(&self, what: &str) -> Refused {
        Refused::Wrong(format!("{what} at {}", self.commit().short()))
    }

    /// The newest job of each name at the commit.
    async fn newest_jobs(&self) -> Result<Vec<Job>, StoreError> {
        let mut db = self.server.store.read().await?;
        let mut newest: BTreeMap<String, Job> = BTreeMap::new();
        for pipeline in rows::of_commit(&mut db, &self.project.id, self.commit()).await? {
            for job in jobs::of_pipeline(&mut db, &pipeline.id).await? {
                // What this very command made before the server died is no earlier job.
                if pipeline.trigger.at != self.at {
                    newest.insert(job.spec.name.clone(), job);
                }
            }
        }
        Ok(newest.into_values().collect())
    }
}

/// Whether a person means a job by a name: its own, or its definition's.
fn is_called(job: &Job, name: &str) -> bool {
    job.spec.name == name || job.spec.definition == name
}

fn is_bad(job: &Job) -> bool {
    match job.state.outcome() {
        Some(Outcome::Failed(_) | Outcome::Cancelled { .. } | Outcome::Skipped { .. }) => true,
        Some(Outcome::Succeeded | Outcome::Reused { .. }) | None => false,
    }
}
