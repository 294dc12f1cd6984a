//! Does what people ask for at a forge, in comments and by the buttons of checks, if they may write to the repository.
//! Each delivery is done with once; the answer is a row that the reporter sends.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{JobId, ProjectId, Span, Timestamp};
use tokio::task::JoinSet;

use super::command::{Command, commands, is_meant};
use super::deeds::{Asking, Refused};
use crate::forge::event::{Asked, Comment, ForgeEvent};
use crate::forge::{Access, Forge, ForgeError, Reaction, Reply, Update, bounded};
use crate::report::ReportConfig;
use crate::rest;
use crate::state::Server;
use crate::store::pipelines::Pipeline;
use crate::store::projects::{Delivery, Project};
use crate::store::{Result, StoreError, jobs, pipelines as rows, projects, report, requests};
use crate::trigger::{self, Request};
use crate::watch::WatchError;

/// Most deliveries that are read at a time.
const MOST: u32 = 100;
/// Most projects whose forges are asked at the same time.
const AT_ONCE: usize = 16;
/// Time to the next try of what could not be done: as long as it has waited, but no less than the first and no more than
/// the second of these. Who revoked a token is not asked for ever.
const PAUSES: [Span; 2] = [Span::secs(30), Span::secs(300)];
/// How long a look at a pull request's head is waited for.
const MOMENT: Span = Span::secs(300);
/// What could not be done for so long is not done any more: nobody expects it.
const GIVEN_UP: Span = Span::hours(24);
/// Most characters of a reason in an answer.
const MOST_WORDS: usize = 500;

/// Runs until the server stops: woken by what is asked, and at every tick as a safety net.
pub async fn run(server: Server) {
    let mut passes = Passes::default();
    while !server.shutdown.is_cancelled() {
        if let Err(error) = passes.begin(&server).await {
            tracing::error!(%error, "what people asked for could not be looked at; the next pass tries again");
        }
        tokio::select! {
            () = server.shutdown.cancelled() => {}
            () = server.live.somebody_asks() => {}
            () = passes.one_went_well() => {}
            () = tokio::time::sleep(server.config.tick.into()) => {}
        }
    }
    while passes.end().await.is_some() {}
}

/// Passes that are under way, one of a project, beside each other: a forge that does not answer is asked once, and holds
/// up nobody else's.
#[derive(Default)]
struct Passes {
    running: JoinSet<(ProjectId, Result<()>)>,
    busy: BTreeSet<ProjectId>,
}

impl Passes {
    /// Begins a pass over all that may be tried now in each project that has none, who waits longest first.
    ///
    /// # Errors
    /// The store's.
    async fn begin(&mut self, server: &Server) -> Result<()> {
        let mut db = server.store.read().await?;
        let asked = projects::asked(&mut db, Timestamp::now(), MOST).await?;
        drop(db);
        let mut of_projects: BTreeMap<ProjectId, Vec<Delivery>> = BTreeMap::new();
        for delivery in asked {
            let of_it = of_projects.entry(delivery.project.clone()).or_default();
            of_it.push(delivery);
        }
        let mut of_projects: Vec<_> = of_projects.into_iter().collect();
        of_projects.sort_by_key(|(_, asked)| asked.first().map(|first| first.received_at));
        for (project, asked) in of_projects {
            if self.running.len() < AT_ONCE && self.busy.insert(project.clone()) {
                let server = server.clone();
                self.running
                    .spawn(async move { (project, of_project(&server, asked).await) });
            }
        }
        Ok(())
    }

    /// Waits until a pass went well: there may be more to do in its project, or room for another. What broke off is tried
    /// again later.
    async fn one_went_well(&mut self) {
        loop {
            match self.end().await {
                Some(Ok(())) => return,
                Some(Err(error)) => {
                    tracing::error!(%error, "what people asked for could not be done; the next pass tries again");
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until one ends, and gives how; none: none is under way.
    async fn end(&mut self) -> Option<Result<()>> {
        match self.running.join_next().await? {
            Ok((project, done)) => {
                self.busy.remove(&project);
                Some(done)
            }
            // The loop breaks with it, and begins anew.
            Err(broken) => match broken.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
        }
    }
}

/// Does what was asked for in one project, in this order. What cannot be done now is tried again later, behind all else;
/// until then nothing of the project is.
async fn of_project(server: &Server, asked: Vec<Delivery>) -> Result<()> {
    for delivery in asked {
        let (project, id) = (&delivery.project, &delivery.delivery);
        let answer = match answer(server, &delivery).await {
            Ok(answer) => answer,
            Err(Later(why)) => {
                let at = Timestamp::now();
                if delivery.received_at + GIVEN_UP > at {
                    tracing::warn!(delivery = id, "not obeyed yet: {why}");
                    let [least, most] = PAUSES;
                    let pause = at.since(delivery.received_at).clamp(least, most);
                    let mut tx = server.store.begin().await?;
                    projects::asked_later(&mut tx, project, id, at + pause).await?;
                    tx.commit().await.map_err(StoreError::from)?;
                    return Ok(());
                }
                tracing::error!(delivery = id, "given up: {why}");
                None
            }
        };
        let at = Timestamp::now();
        let mut tx = server.store.begin().await?;
        if let Some(answer) = &answer {
            report::put(&mut tx, project, answer, at).await?;
        }
        projects::delivery_handled(&mut tx, project, id, at).await?;
        tx.commit().await.map_err(StoreError::from)?;
    }
    Ok(())
}

/// It cannot be done now; why.
struct Later(String);

impl<E: std::error::Error> From<E> for Later {
    fn from(error: E) -> Self {
        Later(error.to_string())
    }
}

/// Does what a delivery asks for; gives what is to be answered, where somebody waits for it.
async fn answer(
    server: &Server,
    delivery: &Delivery,
) -> std::result::Result<Option<Update>, Later> {
    let mut db = server.store.read().await?;
    let project = projects::find(&mut db, &delivery.project).await?;
    drop(db);
    let (Some(project), Ok(event)) = (project, serde_json::from_str(&delivery.body)) else {
        return Ok(None);
    };
    let timeout = ReportConfig::default().call_timeout;
    let forge = server.forges.connect(&project.forge, timeout.into())?;
    let told = Told {
        server,
        project: &project,
        forge: forge.as_ref(),
        message: &delivery.delivery,
        at: delivery.received_at,
    };
    match event {
        ForgeEvent::Comment(comment) => told.comment(&comment).await,
        ForgeEvent::Asked(asked) => told.button(&asked).await.map(|()| None),
        ForgeEvent::Ping
        | ForgeEvent::Push { .. }
        | ForgeEvent::PullRequest(_)
        | ForgeEvent::Other { .. } => Ok(None),
    }
}

/// Whether somebody's word counts.
enum May {
    Write,
    Not,
    /// The forge does not tell our token.
    NobodyKnows,
}

/// What was told, and where.
struct Told<'a> {
    server: &'a Server,
    project: &'a Project,
    forge: &'a dyn Forge,
    /// The message's id.
    message: &'a str,
    at: Timestamp,
}

impl Told<'_> {
    async fn comment(&self, comment: &Comment) -> std::result::Result<Option<Update>, Later> {
        if !is_meant(&comment.text) {
            return Ok(None);
        }
        let Comment { number, by, .. } = comment;
        match self.may_write(by, comment.by_id).await? {
            May::Write => {}
            // No answer: anybody could make us write to a request.
            May::Not => {
                tracing::info!(
                    project = self.project.name,
                    by,
                    "a command of somebody who may not write"
                );
                return Ok(None);
            }
            May::NobodyKnows => return Ok(Some(self.nobody_knows(*number))),
        }
        let done = match commands(&comment.text) {
            Ok(commands) => self.obey_all(comment, commands).await,
            Err(none) => Err(Refused::Wrong(none.to_string())),
        };
        match done {
            Ok(()) => Ok(Some(Update::Reaction(Reaction {
                number: *number,
                comment: comment.id,
            }))),
            Err(Refused::Wrong(why)) => Ok(Some(Update::Reply(Reply {
                number: *number,
                answers: self.message.to_owned(),
                text: format!("Not done: {}", harmless(&why)),
                since: self.at,
            }))),
            Err(Refused::Later(error)) => Err(error.into()),
        }
    }

    async fn obey_all(
        &self,
        comment: &Comment,
        commands: Vec<Command>,
    ) -> std::result::Result<(), Refused> {
        let (request, pipeline, since) = self.request(comment.number).await?;
        let asking = Asking {
            server: self.server,
            project: self.project,
            message: self.message,
            pipeline: &pipeline,
            since,
            base_branch: Some(&request.base_branch),
            by: &comment.by,
            at: self.at,
            written: comment.at,
        };
        for (place, command) in commands.into_iter().enumerate() {
            asking.obey(place, command).await?;
        }
        Ok(())
    }

    /// A pull request, the newest pipeline at its head, and when that was seen to be the head.
    async fn request(
        &self,
        number: u64,
    ) -> std::result::Result<(Request, Pipeline, Timestamp), Refused> {
        let nothing = || Refused::Wrong("nothing of this request has been planned yet".to_owned());
        let (kind, _) = self.project.forge.place().ok_or_else(nothing)?;
        let id = &self.project.id;
        let mut db = self.server.store.read().await?;
        let request = requests::find(&mut db, id, number).await?;
        let request = request.ok_or_else(nothing)?;
        let reference = kind.head_of(number);
        let head = requests::head(&mut db, id, &reference).await?;
        let (commit, since) = head.ok_or_else(|| self.not_looked_at())?;
        let pipeline = rows::newest_at(&mut db, id, &reference, &commit).await?;
        Ok((request, pipeline.ok_or_else(nothing)?, since))
    }

    /// Of a head that nobody has looked at yet. Whoever asks right after a push is not sent away.
    fn not_looked_at(&self) -> Refused {
        let why = "its head could not be looked at yet: say it again later".to_owned();
        match self.at + MOMENT > Timestamp::now() {
            true => Refused::Later(WatchError::Wrong(why)),
            false => Refused::Wrong(why),
        }
    }

    /// Asks the forge; that it does not tell our token is the project's problem, and nothing to wait for.
    async fn may_write(&self, login: &str, number: Option<u64>) -> std::result::Result<May, Later> {
        let asked = self.forge.may_write(login, number);
        let (may, problem) = match rest::call(self.server, self.project, asked).await {
            Ok(true) => (May::Write, None),
            Ok(false) => (May::Not, None),
            Err(WatchError::Forge(
                error @ ForgeError::Unauthorized {
                    status: 403,
                    needs: Access::People,
                    ..
                },
            )) => {
                let (project, why) = (&self.project.name, error.to_string());
                tracing::warn!(
                    project,
                    by = login,
                    why,
                    "what somebody asked for is not obeyed"
                );
                (May::NobodyKnows, Some(why))
            }
            Err(error) => return Err(error.into()),
        };
        let mut tx = self.server.store.begin().await?;
        projects::set_commands_problem(&mut tx, &self.project.id, problem.as_deref()).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(may)
    }

    /// Said once under a pull request, whoever asks.
    fn nobody_knows(&self, number: u64) -> Update {
        let text = "Not done: the forge does not tell Trainyard's token who may write to this repository. \
                    `trainyard project doctor` says what the token needs.";
        Update::Reply(Reply {
            number,
            answers: "who may write".to_owned(),
            text: text.to_owned(),
            since: self.at,
        })
    }

    /// A button is pressed by who sees it: nobody waits for an answer, and the check itself shows what came of it.
    async fn button(&self, asked: &Asked) -> std::result::Result<(), Later> {
        let by = asked.by.as_deref().unwrap_or_default();
        let name = &self.project.name;
        match self.may_write(by, None).await? {
            May::Write => {}
            May::Not => {
                tracing::info!(project = name, by, "a button of somebody who may not write");
                return Ok(());
            }
            May::NobodyKnows => return Ok(()),
        }
        match self.press(asked, by).await {
            Ok(()) => Ok(()),
            Err(Refused::Wrong(why)) => {
                tracing::info!(project = name, by, "a button did nothing: {why}");
                Ok(())
            }
            Err(Refused::Later(error)) => Err(error.into()),
        }
    }

    async fn press(&self, asked: &Asked, by: &str) -> std::result::Result<(), Refused> {
        let mut db = self.server.store.read().await?;
        let id: Option<JobId> = asked.check.as_deref().and_then(|check| check.parse().ok());
        let pipeline = match &id {
            Some(id) => {
                let job = jobs::find(&mut db, id).await?;
                let job = job.filter(|job| job.project == self.project.id);
                let job = job.ok_or_else(|| Refused::Wrong(format!("there is no job {id}")))?;
                Some(rows::get(&mut db, &job.pipeline).await?)
            }
            None => rows::newest_of_commit(&mut db, &self.project.id, &asked.commit)
                .await?
                .pop(),
        };
        let pipeline =
            pipeline.ok_or_else(|| Refused::Wrong("the commit has no pipeline".to_owned()))?;
        let reference = pipeline.trigger.reference.as_deref();
        let request = match reference.and_then(trigger::request_number) {
            Some(number) => requests::find(&mut db, &self.project.id, number).await?,
            None => None,
        };
        drop(db);
        let asking = Asking {
            server: self.server,
            project: self.project,
            message: self.message,
            pipeline: &pipeline,
            since: pipeline.created_at,
            base_branch: request.as_ref().map(|request| request.base_branch.as_str()),
            by,
            at: self.at,
            written: None,
        };
        match (asked.action.as_deref(), &id) {
            (None | Some("rerun"), Some(id)) => asking.again(id).await,
            (None | Some("rerun"), None) => asking.whole_again().await,
            (Some("cancel"), Some(id)) => asking.end(id).await,
            (Some("cancel"), None) => asking.obey(0, Command::Cancel { job: None }).await,
            // The check stands on its commit: that is the one that was looked at.
            (Some("approve"), _) => {
                let commit = Some(pipeline.trigger.commit.to_string());
                asking.obey(0, Command::Approve { commit }).await
            }
            (Some(other), _) => Err(Refused::Wrong(format!("there is no button '{other}'"))),
        }
    }
}

/// A sentence for a forge: one line, which mentions nobody and formats nothing.
fn harmless(why: &str) -> String {
    let line = bounded(why, MOST_WORDS).replace('`', "'");
    // A zero-width space keeps a name from being one.
    format!("`{}`", line.replace('@', "@\u{200b}"))
}

impl From<ForgeError> for Refused {
    fn from(error: ForgeError) -> Self {
        Refused::Later(error.into())
    }
}
