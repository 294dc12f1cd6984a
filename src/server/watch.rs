//! Looks at remotes: what moved is fetched, planned and written down. A webhook only wakes it. It knows
//! projects and git; what a plan means for jobs is decided in `pipelines`.

mod asking;
mod kept;
mod planning;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use mirror::{Deadline, Mirror, MirrorError, Tree as _};
use protocol::spec::Parameters;
use protocol::{CommitId, ProjectId, Span, Timestamp, Trigger, TriggerKind, Trust};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use self::kept::let_go;
pub(crate) use self::planning::bring;
pub use self::planning::plan_and_create;
use self::planning::plan_ref;
use crate::forge::ForgeError;
use crate::loops::words;
use crate::members;
use crate::state::Server;
use crate::store::pipelines::Pipeline;
use crate::store::projects::{self, Project};
use crate::store::{Connection, Result as StoreResult, StoreError, requests};
use crate::trigger::{self, Refs, Request};

/// Why a remote could not be looked at, or a commit not be planned now.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Git's.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The forge's, when it was asked for a pull request or a token; or the project's credential.
    #[error(transparent)]
    Forge(#[from] ForgeError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One ref's; the others were planned.
    #[error("{reference}: {error}")]
    At {
        /// The full name of the ref.
        reference: String,
        /// Why.
        error: Box<WatchError>,
    },
    /// A panic: what was read is foreign, and nothing else waits for it.
    #[error("a fault of Trainyard: {0}")]
    Broken(String),
    /// Somebody asked for what the plan does not have.
    #[error("{0}")]
    Wrong(String),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl WatchError {
    /// Whether git said it, who may have been refused.
    fn is_gits(&self) -> bool {
        match self {
            WatchError::Mirror(_) => true,
            WatchError::At { error, .. } => error.is_gits(),
            WatchError::Forge(_)
            | WatchError::Store(_)
            | WatchError::Broken(_)
            | WatchError::Wrong(_)
            | WatchError::Stopping => false,
        }
    }
}

/// Most remotes that are looked at at the same time.
const AT_ONCE: usize = 16;
/// Pull requests by number.
type Known = BTreeMap<u64, Request>;

/// Runs until the server stops: every project in its interval, and at once when its forge says so. A
/// remote that hangs holds up no other.
pub async fn run(server: Server) {
    let mut next: HashMap<ProjectId, Instant> = HashMap::new();
    let mut looks: JoinSet<(ProjectId, Span)> = JoinSet::new();
    let mut busy: HashSet<ProjectId> = HashSet::new();
    let mut again: HashSet<ProjectId> = HashSet::new();
    loop {
        match due(&server, &next).await {
            Ok(projects) => {
                for project in projects {
                    if looks.len() < AT_ONCE && busy.insert(project.id.clone()) {
                        looks.spawn(look_and_note(server.clone(), project));
                    }
                }
            }
            Err(error) => tracing::error!(%error, "projects could not be read"),
        }
        // A project that was just added is in no list: look for it soon.
        let soon = Instant::now() + Duration::from_secs(1);
        let soonest = next.iter().filter(|(id, _)| !busy.contains(*id));
        let until = match soonest.map(|(_, at)| *at).min() {
            Some(at) if looks.len() < AT_ONCE => at.min(soon),
            Some(_) | None => soon,
        };
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = server.live.refs_change() => match told(&server).await {
                Ok(told) => {
                    for id in told {
                        next.remove(&id);
                        if busy.contains(&id) {
                            again.insert(id);
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "deliveries could not be read"),
            },
            Some(Ok((id, interval))) = looks.join_next() => {
                busy.remove(&id);
                // What moved while it was looked at may have been missed.
                if !again.remove(&id) {
                    next.insert(id, Instant::now() + interval.into());
                }
            }
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// The projects whose forges said something since they were last looked at.
async fn told(server: &Server) -> StoreResult<Vec<ProjectId>> {
    let mut db = server.store.read().await?;
    projects::with_unhandled(&mut db).await
}

/// The projects whose time has come.
async fn due(server: &Server, next: &HashMap<ProjectId, Instant>) -> StoreResult<Vec<Project>> {
    let mut db = server.store.read().await?;
    let all = projects::all(&mut db).await?;
    let now = Instant::now();
    let is_due = |project: &Project| next.get(&project.id).is_none_or(|at| now >= *at);
    Ok(all.into_iter().filter(is_due).collect())
}

/// One look; its error becomes the project's problem. Gives the time to the next look.
async fn look_and_note(server: Server, project: Project) -> (ProjectId, Span) {
    let interval = if is_local(&project.url) {
        server.config.poll_interval_local
    } else {
        server.config.poll_interval
    };
    let looked = AssertUnwindSafe(look(&server, &project)).catch_unwind();
    let looked = looked.await;
    let looked = looked.unwrap_or_else(|panic| Err(WatchError::Broken(words(panic.as_ref()))));
    if let Err(error) = looked {
        if error.is_gits() {
            // A token that git was refused is not offered again: the next look says why there is none.
            server.forges.forget(&project.forge);
        }
        let problem = error.to_string();
        if project.problem.as_ref() != Some(&problem) && !server.shutdown.is_cancelled() {
            tracing::warn!(
                project = project.name,
                problem,
                "the remote could not be looked at"
            );
            if let Err(error) = note_problem(&server, &project.id, &problem).await {
                tracing::error!(project = project.name, %error, "that could not be kept");
            }
        }
    }
    (project.id, interval)
}

async fn note_problem(server: &Server, id: &ProjectId, problem: &str) -> StoreResult<()> {
    let mut tx = server.store.begin().await?;
    projects::set_problem(&mut tx, id, problem).await?;
    Ok(tx.commit().await?)
}

fn is_local(url: &str) -> bool {
    url.starts_with('/') || url.starts_with("file://")
}

/// Looks at one remote, and plans all that moved. Gives the pipelines that it led to.
///
/// # Errors
/// [`WatchError`]; what could be planned is, and the rest comes at the next look. Where it is [`WatchError::At`], all
/// but some refs was looked after: whoever may make a ref holds up no other.
pub async fn look(server: &Server, project: &Project) -> Result<Vec<Pipeline>, WatchError> {
    let at = Timestamp::now();
    let auth = authorization(server, project).await?;
    let (url, deadline) = (project.url.clone(), deadline(server));
    let found =
        blocking(move || Ok(mirror::remote_refs(&url, auth.as_deref(), &deadline)?)).await?;
    let now: Refs = found.refs.into_iter().map(|r| (r.name, r.commit)).collect();
    let mut db = server.store.read().await?;
    let told = projects::has_unhandled(&mut db, &project.id).await?;
    drop(db);
    let open = asking::list(server, project, told).await;
    let open = open.unwrap_or_else(|error| {
        let name = &project.name;
        tracing::warn!(project = name, %error, "the open pull requests of {name} could not be listed");
        Vec::new()
    });
    let mut db = server.store.read().await?;
    let before: Refs = projects::refs(&mut db, &project.id)
        .await?
        .into_iter()
        .collect();
    let mut known = known_requests(&mut db, project).await?;
    drop(db);
    let first = project.checked_at.is_none();
    let head = found.head.as_deref();
    let mut changes = trigger::changes(&before, &now, &known, head, first, at);
    let asked = asking::ask(server, project, &changes.unknown, &mut known).await;
    if let Err(error) = &asked {
        // Branches wait for no forge.
        let name = &project.name;
        tracing::warn!(project = name, %error, "pull requests of {name} could not be asked for");
    }
    if asked.unwrap_or(false) {
        changes = trigger::changes(&before, &now, &known, head, first, at);
    }

    let (mut made, mut failed) = (Vec::new(), None);
    if !changes.asked.is_empty() {
        fetch(server, project).await?;
        members::trust(server, project, &mut changes.asked).await;
    }
    for asked in changes.asked {
        let reference = asked.trigger.reference.clone().unwrap_or_default();
        match plan_ref(server, project, asked).await {
            Ok(pipeline) => made.push(pipeline),
            // Nothing else would fare better.
            Err(error @ (WatchError::Stopping | WatchError::Store(_))) => return Err(error),
            Err(error) => {
                tracing::debug!(project = project.name, reference, %error, "not planned");
                let error = Box::new(error);
                failed.get_or_insert(WatchError::At { reference, error });
            }
        }
    }
    // At the first look nobody knows yet what is new.
    if first && let Some(error) = failed {
        return Err(error);
    }
    let branch = head.and_then(|name| name.strip_prefix("refs/heads/"));
    let quiet = failed.is_none()
        && changes.noted.is_empty()
        && changes.gone.is_empty()
        && !first
        && !told
        && project.problem.is_none()
        && branch == project.default_branch.as_deref();
    if !quiet {
        let mut tx = server.store.begin().await?;
        for (name, commit) in &changes.noted {
            projects::set_ref(&mut tx, &project.id, name, commit, at).await?;
        }
        for name in &changes.gone {
            projects::remove_ref(&mut tx, &project.id, name).await?;
        }
        // What came later may tell of what this look did not see.
        projects::deliveries_handled(&mut tx, &project.id, at).await?;
        projects::checked(&mut tx, &project.id, branch, at).await?;
        if let Some(error) = &failed {
            projects::set_problem(&mut tx, &project.id, &error.to_string()).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
    }
    // After heads were planned: what somebody asks for is about them.
    if !open.is_empty()
        && let Err(error) = asking::comments(server, project, &open).await
    {
        let name = &project.name;
        tracing::warn!(project = name, %error, "what was said under pull requests of {name} could not be listed");
    }
    match failed {
        None => Ok(made),
        Some(error) => Err(error),
    }
}

/// The pull requests of a project that are known, by number.
async fn known_requests(db: &mut Connection, project: &Project) -> StoreResult<Known> {
    let all = requests::all(db, &project.id).await?;
    Ok(all
        .into_iter()
        .map(|request| (request.number, request))
        .collect())
}

/// Plans by hand, at a branch, tag or commit (none: the default branch), only some definitions (empty: all),
/// with values that replace the file's.
///
/// # Errors
/// [`WatchError`]: the revision or a definition is not there, or the remote does not answer.
pub async fn by_hand(
    server: &Server,
    project: &Project,
    revision: Option<&str>,
    definitions: Vec<String>,
    parameters: Parameters,
    by: Option<&str>,
) -> Result<Pipeline, WatchError> {
    fetch(server, project).await?;
    let (root, url) = (server.config.mirrors(), project.url.clone());
    // The remote's as the last look saw it: the mirror has the one that it was made with.
    let asked = revision.map(str::to_owned);
    let asked = asked.or_else(|| project.default_branch.clone());
    let (commit, reference) = blocking(move || {
        let mirror = Mirror::open(&root, &url)?;
        let name = match asked {
            Some(name) => name,
            None => mirror
                .default_branch()?
                .unwrap_or_else(|| "HEAD".to_owned()),
        };
        let commit = mirror.resolve(&name)?;
        let full = format!("refs/heads/{name}");
        let branch = mirror.refs()?.into_iter().any(|r| r.name == full);
        Ok((commit, branch.then_some(full)))
    })
    .await?;
    let trigger = Trigger {
        kind: TriggerKind::Person {
            definitions,
            parameters,
        },
        commit,
        reference,
        base: None,
        trust: Trust::Trusted,
        by: by.map(str::to_owned),
        at: Timestamp::now(),
        asked_in: None,
    };
    plan_and_create(server, project, &trigger, None).await
}

/// Where the mirror has a branch.
///
/// # Errors
/// [`WatchError`].
pub(crate) async fn head_of(
    server: &Server,
    project: &Project,
    branch: &str,
) -> Result<Option<CommitId>, WatchError> {
    let (root, url) = (server.config.mirrors(), project.url.clone());
    let name = format!("refs/heads/{branch}");
    blocking(move || {
        let refs = Mirror::open(&root, &url)?.refs()?;
        let found = refs.into_iter().find(|known| known.name == name);
        Ok(found.map(|known| known.commit))
    })
    .await
}

/// Brings the mirror of a project up to date.
///
/// # Errors
/// [`WatchError`].
pub async fn fetch(server: &Server, project: &Project) -> Result<(), WatchError> {
    let auth = authorization(server, project).await?;
    let (root, url, deadline) = (
        server.config.mirrors(),
        project.url.clone(),
        deadline(server),
    );
    let began = Instant::now();
    blocking(move || Ok(Mirror::open(&root, &url)?.fetch(auth.as_deref(), &deadline)?)).await?;
    let took_ms = began.elapsed().as_millis();
    tracing::info!(project = project.name, took_ms, "fetched");
    Ok(())
}

/// What git says to the project's remote.
pub(crate) async fn authorization(
    server: &Server,
    project: &Project,
) -> Result<Option<String>, ForgeError> {
    let credential = project.credential.as_ref();
    server
        .forges
        .authorization(&project.forge, credential)
        .await
}

fn deadline(server: &Server) -> Deadline {
    Deadline::within(server.config.fetch_timeout.into())
}

/// Runs what waits for git or the disk where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WatchError> + Send + 'static,
) -> Result<T, WatchError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) => Err(match ended.try_into_panic() {
            Ok(panic) => WatchError::Broken(words(panic.as_ref())),
            Err(_) => WatchError::Stopping,
        }),
    }
}

/// The pipeline file's time tables at the head of the default branch; none where there is no file.
pub(crate) async fn schedules(
    server: &Server,
    project: &Project,
) -> Result<Option<(CommitId, String, Vec<plan::Schedule>)>, WatchError> {
    let Some(branch) = project.default_branch.clone() else {
        return Ok(None);
    };
    let (root, url) = (server.config.mirrors(), project.url.clone());
    blocking(move || {
        let mirror = Mirror::open(&root, &url)?;
        let Ok(commit) = mirror.resolve(&format!("refs/heads/{branch}")) else {
            return Ok(None);
        };
        let tree = mirror.tree(&commit)?;
        let Ok(bytes) = tree.read(plan::FILE_NAME) else {
            return Ok(None);
        };
        // A wrong file is red at its commit; here it has no time tables.
        let schedules = plan::PipelineFile::parse(&bytes)
            .map(|file| file.schedules())
            .unwrap_or_default();
        Ok(Some((commit, format!("refs/heads/{branch}"), schedules)))
    })
    .await
}
