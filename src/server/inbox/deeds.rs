//! What a command does. Each deed carries the message and the place in which it was asked for, so that doing it a second
//! time, after the server died in between, makes nothing new.

use std::collections::{BTreeMap, BTreeSet};

use mirror::MirrorError;
use plan::file::LINT;
use protocol::spec::Parameters;
use protocol::{
    CommitId, JobId, Outcome, PipelineId, Span, Timestamp, Trigger, TriggerKind, Trust,
};

use super::command::Command;
use crate::pipelines;
use crate::state::Server;
use crate::store::jobs::Job;
use crate::store::pipelines::Pipeline;
use crate::store::projects::Project;
use crate::store::{StoreError, jobs, pipelines as rows};
use crate::trigger;
use crate::watch::{self, WatchError};

/// How far the forge's clock may be from ours, and how long a push may go unseen.
const CLOCKS_APART: Span = Span::secs(60);

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
    /// The message in which it is said.
    pub(super) message: &'a str,
    /// The commit's newest pipeline.
    pub(super) pipeline: &'a Pipeline,
    /// When the commit was seen to be the head.
    pub(super) since: Timestamp,
    /// The branch that a pull request goes to.
    pub(super) base_branch: Option<&'a str>,
    pub(super) by: &'a str,
    /// When the message came.
    pub(super) at: Timestamp,
    /// When it was written, where the forge says so.
    pub(super) written: Option<Timestamp>,
}

impl Asking<'_> {
    /// Does a command, which is the `place`th of its message.
    pub(super) async fn obey(&self, place: usize, command: Command) -> Result<(), Refused> {
        match command {
            Command::Rerun { job, parameters } => {
                self.rerun(place, job.into_iter().collect(), parameters)
                    .await
            }
            Command::Retry => self.retry(place).await,
            Command::Cancel { job } => self.cancel(job.as_deref()).await,
            Command::Approve { commit } => self.approve(commit.as_deref()).await,
        }
    }

    /// What this person asks for at the commit, with the same trust.
    fn trigger(&self, place: usize, kind: TriggerKind) -> Trigger {
        Trigger {
            kind,
            by: Some(self.by.to_owned()),
            at: self.at,
            asked_in: Some(self.asked_in(place)),
            ..self.pipeline.trigger.clone()
        }
    }

    fn asked_in(&self, place: usize) -> String {
        format!("{}/{place}", self.message)
    }

    fn commit(&self) -> &CommitId {
        &self.pipeline.trigger.commit
    }

    /// At the same commit: these definitions, or, where none is named, all.
    async fn rerun(
        &self,
        place: usize,
        definitions: Vec<String>,
        parameters: Parameters,
    ) -> Result<(), Refused> {
        let kind = TriggerKind::Person {
            definitions,
            parameters,
        };
        let trigger = self.trigger(place, kind);
        match watch::bring(self.server, self.project, &trigger).await {
            Err(WatchError::Mirror(MirrorError::NoSuchCommit { .. })) => {
                let commit = self.commit();
                let why = format!("the repository has no commit {commit} any more");
                return Err(Refused::Wrong(why));
            }
            brought => brought?,
        }
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

    /// What did not succeed, with what it needs, in one pipeline. A job of other trust has its own place.
    async fn retry(&self, place: usize) -> Result<(), Refused> {
        if self.is_done(place).await? {
            return Ok(());
        }
        let mut newest = self.newest_jobs().await?;
        newest.retain(|job| job.trust == self.pipeline.trigger.trust);
        let failed = newest.iter().filter(|job| is_bad(job));
        let failed: Vec<&JobId> = failed.map(|job| &job.id).collect();
        let Some(first) = failed.first() else {
            return Err(self.nothing("nothing failed"));
        };
        let of = JobId::clone(first);
        let trigger = self.trigger(place, TriggerKind::Rerun { of });
        pipelines::retry(self.server, self.pipeline, &trigger, &newest, &failed).await?;
        Ok(())
    }

    /// What failed; where nothing did, all that ran here: whoever presses *Re-run* at what is green means that, and no
    /// other definition of the file, but where the file could not be planned. While something goes on there is nothing to
    /// do again.
    pub(super) async fn whole_again(&self) -> Result<(), Refused> {
        if self.is_done(0).await? {
            return Ok(());
        }
        let mut newest = self.newest_jobs().await?;
        if newest.iter().any(is_bad) {
            return self.retry(0).await;
        }
        if newest.iter().any(|job| job.state.outcome().is_none()) {
            return Err(self.nothing("it is not over"));
        }
        newest.retain(|job| job.trust == self.pipeline.trigger.trust);
        let definitions = match self.could_not_be_planned().await? {
            true => Vec::new(),
            false if newest.is_empty() => return Err(self.nothing("nothing ran")),
            false => definitions(&newest),
        };
        self.rerun(0, definitions, Parameters::new()).await
    }

    /// Whether nobody knows what runs at the commit: then only who plans all of the file can say that it is mended.
    async fn could_not_be_planned(&self) -> Result<bool, StoreError> {
        let mut db = self.server.store.read().await?;
        let all = rows::newest_of_commit(&mut db, &self.project.id, self.commit()).await?;
        Ok(all.iter().any(|row| row.problem.is_some()))
    }

    /// Whether the command made its pipeline before.
    async fn is_done(&self, place: usize) -> Result<bool, StoreError> {
        let key = trigger::key_of_asked(&self.asked_in(place));
        let mut db = self.server.store.read().await?;
        let made = rows::by_trigger(&mut db, &self.project.id, &key).await?;
        Ok(made.is_some())
    }

    /// One job, with all that it needs.
    pub(super) async fn again(&self, id: &JobId) -> Result<(), Refused> {
        match pipelines::rerun(self.server, id, Some(self.by), self.at).await {
            Ok(_) => Ok(()),
            Err(StoreError::Illegal(illegal)) => Err(Refused::Wrong(illegal.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything of the commit that is not over, in whichever pipeline; or all jobs of one name.
    async fn cancel(&self, name: Option<&str>) -> Result<(), Refused> {
        let mut going = self.open_jobs().await?;
        going.retain(|job| name.is_none_or(|name| is_called(job, name)));
        if going.is_empty() && !self.has_cancelled(name).await? {
            return Err(self.nothing("nothing is waiting or running"));
        }
        for job in going {
            self.end(&job.id).await?;
        }
        Ok(())
    }

    /// Whether such a job was ended for them since they asked: by this very command, before the server died.
    async fn has_cancelled(&self, name: Option<&str>) -> Result<bool, StoreError> {
        let mut db = self.server.store.read().await?;
        let ended = jobs::ended_since(&mut db, &self.project.id, self.commit(), self.at).await?;
        let mut ended = ended
            .iter()
            .filter(|job| name.is_none_or(|name| is_called(job, name)));
        Ok(ended.any(|job| match job.state.outcome() {
            Some(Outcome::Cancelled { by }) => by == self.by,
            Some(
                Outcome::Succeeded
                | Outcome::Reused { .. }
                | Outcome::Skipped { .. }
                | Outcome::Failed(_),
            )
            | None => false,
        }))
    }

    /// Ends one job, if it is not over.
    pub(super) async fn end(&self, id: &JobId) -> Result<(), Refused> {
        match pipelines::cancel_by_hand(self.server, id, self.by).await {
            // It ended, or is ended, by itself.
            Ok(_) | Err(StoreError::Illegal(_) | StoreError::Changed(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Approves what was seen: the commit that is named, or the head if it was that well before the comment was written.
    /// A message may come hours after that.
    async fn approve(&self, named: Option<&str>) -> Result<(), Refused> {
        let commit = self.commit();
        let why = match (self.pipeline.trigger.trust, named) {
            (Trust::Trusted, _) => return Err(self.nothing("nothing waits for an approval")),
            (Trust::Untrusted, Some(named)) if named.eq_ignore_ascii_case(commit.as_str()) => None,
            (Trust::Untrusted, Some(named)) => {
                let is_beginning = commit.as_str().starts_with(&named.to_ascii_lowercase());
                Some(match is_beginning {
                    true => "a commit is approved by its whole id".to_owned(),
                    false => format!("the head is not {named}"),
                })
            }
            (Trust::Untrusted, None) if self.was_there_before() => None,
            (Trust::Untrusted, None) => {
                Some("the head may have moved since that was written".to_owned())
            }
        };
        if let Some(why) = why {
            return Err(Refused::Wrong(format!(
                "{why}: look at it, and comment '/trainyard approve {commit}'"
            )));
        }
        pipelines::approve(self.server, &self.project.id, commit, self.by).await?;
        Ok(())
    }

    /// Whether whoever wrote saw this very head. Nobody knows that of a comment without a time, or whose time was still to
    /// be when it was heard of: the forge's clock is ahead of ours.
    fn was_there_before(&self) -> bool {
        let there = self.since.max(self.pipeline.created_at) + CLOCKS_APART;
        let heard = self.at + CLOCKS_APART;
        self.written
            .is_some_and(|written| (there..=heard).contains(&written))
    }

    fn nothing(&self, what: &str) -> Refused {
        Refused::Wrong(format!("{what} at {}", self.commit().short()))
    }

    /// The newest job of each name at the commit.
    async fn newest_jobs(&self) -> Result<Vec<Job>, StoreError> {
        let mut db = self.server.store.read().await?;
        jobs::newest_of_commit(&mut db, &self.project.id, self.commit()).await
    }

    /// The jobs of the commit that are not over, but for what this very message asked for before the server died.
    async fn open_jobs(&self) -> Result<Vec<Job>, StoreError> {
        let mut db = self.server.store.read().await?;
        let mut open = jobs::open_of_commit(&mut db, &self.project.id, self.commit()).await?;
        let mut ours: BTreeMap<PipelineId, bool> = BTreeMap::new();
        for job in &open {
            if !ours.contains_key(&job.pipeline) {
                let pipeline = rows::get(&mut db, &job.pipeline).await?;
                let asked_in = pipeline.trigger.asked_in.as_deref();
                let message = asked_in.and_then(|asked_in| asked_in.rsplit_once('/'));
                let is_ours = message.is_some_and(|(message, _)| message == self.message);
                ours.insert(job.pipeline.clone(), is_ours);
            }
        }
        open.retain(|job| !ours[&job.pipeline]);
        Ok(open)
    }
}

/// Whether a person means a job by a name: its own, or its definition's.
fn is_called(job: &Job, name: &str) -> bool {
    job.spec.name == name || job.spec.definition == name
}

/// The definitions that jobs are of. Lint comes by itself with what it looks at.
fn definitions(jobs: &[Job]) -> Vec<String> {
    let names = jobs.iter().map(|job| job.spec.definition.as_str());
    let names: BTreeSet<&str> = names.filter(|name| *name != LINT).collect();
    names.into_iter().map(str::to_owned).collect()
}

fn is_bad(job: &Job) -> bool {
    match job.state.outcome() {
        Some(Outcome::Failed(_) | Outcome::Cancelled { .. } | Outcome::Skipped { .. }) => true,
        Some(Outcome::Succeeded | Outcome::Reused { .. }) | None => false,
    }
}
