//! From a trigger to a pipeline: what a commit lacks is fetched, its plan made and written down. What cannot be planned
//! for the commit's own sake is red at it.

use std::collections::BTreeSet;
use std::path::Path;

use mirror::{History, Mirror, MirrorError, Tree as _};
use plan::{Context, PlanError};
use protocol::{CommitId, Failure, FailureKind, Trigger, TriggerKind, Trust};

use super::{WatchError, authorization, blocking, deadline};
use crate::pipelines::{self, Planned, Words};
use crate::state::Server;
use crate::store::pipelines::Pipeline;
use crate::store::projects::Project;
use crate::trigger::Asked;
use crate::{offers, registry};

/// Most bytes that are fetched at a time of a commit from outside: anybody can make one.
const MOST_UNTRUSTED: u64 = 1 << 30;

/// Plans what a ref asks for.
///
/// # Errors
/// [`WatchError`]; what is wrong with the commit is none: its pipeline says it.
pub(super) async fn plan_ref(
    server: &Server,
    project: &Project,
    asked: Asked,
) -> Result<Pipeline, WatchError> {
    let (as_asked, base) = (asked.trigger.clone(), asked.base.clone());
    match met(server, project, asked).await {
        Ok(trigger) => plan_and_create(server, project, &trigger, base.as_ref()).await,
        Err(WatchError::Mirror(error)) => {
            // It is not here: what it says of itself, nobody knows.
            let words = Words {
                subject: String::new(),
                author: as_asked.by.clone().unwrap_or_default(),
            };
            let planned = unusable(error)?;
            write(server, project, &as_asked, &words, planned).await
        }
        Err(error) => Err(error),
    }
}

/// The mirror for a commit of this trust.
fn open(root: &Path, url: &str, trust: Trust) -> Result<Mirror, MirrorError> {
    let mirror = Mirror::open(root, url)?;
    Ok(match trust {
        Trust::Trusted => mirror,
        Trust::Untrusted => mirror.at_most(MOST_UNTRUSTED),
    })
}

/// The trigger of what asks. A pull request's head is fetched by itself, and compared with the commit where it left
/// the branch that it goes to.
async fn met(server: &Server, project: &Project, asked: Asked) -> Result<Trigger, WatchError> {
    let Asked { mut trigger, base } = asked;
    if !matches!(trigger.kind, TriggerKind::PullRequest { .. }) {
        return Ok(trigger);
    }
    let auth = authorization(server, project).await?;
    let (root, url, deadline) = (
        server.config.mirrors(),
        project.url.clone(),
        deadline(server),
    );
    blocking(move || {
        let mirror = open(&root, &url, trigger.trust)?;
        let reference = trigger.reference.as_deref();
        let auth = auth.as_deref();
        // Whole: where it left its branch is looked for.
        mirror.fetch_commit(&trigger.commit, reference, History::Whole, auth, &deadline)?;
        if let Some(base) = base {
            trigger.base = mirror.merge_base(&trigger.commit, &base)?;
        }
        Ok(trigger)
    })
    .await
}

/// Fetches a trigger's commit, where the mirror has let go of it since it was planned.
///
/// # Errors
/// [`WatchError`].
pub(crate) async fn bring(
    server: &Server,
    project: &Project,
    trigger: &Trigger,
) -> Result<(), WatchError> {
    let auth = authorization(server, project).await?;
    let (root, url, deadline) = (
        server.config.mirrors(),
        project.url.clone(),
        deadline(server),
    );
    let (commit, reference) = (trigger.commit.clone(), trigger.reference.clone());
    let trust = trigger.trust;
    blocking(move || {
        let mirror = open(&root, &url, trust)?;
        if mirror.has(&commit) {
            return Ok(());
        }
        let (reference, auth) = (reference.as_deref(), auth.as_deref());
        Ok(mirror.fetch_commit(&commit, reference, History::Whole, auth, &deadline)?)
    })
    .await
}

/// Plans a commit that the mirror has, and writes the pipeline down. `base` is the head of the branch that a pull
/// request goes to: what an untrusted commit runs is what the file there says.
///
/// # Errors
/// [`WatchError`]; a wrong pipeline file is none: the pipeline says it.
pub async fn plan_and_create(
    server: &Server,
    project: &Project,
    trigger: &Trigger,
    base: Option<&CommitId>,
) -> Result<Pipeline, WatchError> {
    let base = base.filter(|_| trigger.trust == Trust::Untrusted);
    let pass = async |parents| pass(server, project, trigger, base, parents).await;
    let (words, planned) = match pass(plan::Parents::new()).await? {
        Pass::Planned(words, planned) => (words, planned),
        // The file asks for versions of models: which ones that are is a matter of rows.
        Pass::Asks(asked) => {
            let mut db = server.store.read().await?;
            let parents = registry::parents(&mut db, &project.id, asked).await?;
            drop(db);
            match pass(parents).await? {
                Pass::Planned(words, planned) => (words, planned),
                Pass::Asks(asked) => {
                    let words = format!("the pipeline file asks for {asked:?}, which nobody knows");
                    return Err(WatchError::Wrong(words));
                }
            }
        }
    };
    let planned = check_secrets(server, project, planned);
    write(server, project, trigger, &words, planned).await
}

/// What one look at a commit led to.
enum Pass {
    Planned(Words, Planned),
    /// Its jobs go on from versions of models that were not looked up yet: the texts of `from`.
    Asks(BTreeSet<String>),
}

async fn pass(
    server: &Server,
    project: &Project,
    trigger: &Trigger,
    base: Option<&CommitId>,
    parents: plan::Parents,
) -> Result<Pass, WatchError> {
    let (root, url, asked) = (
        server.config.mirrors(),
        project.url.clone(),
        trigger.clone(),
    );
    let base = base.cloned();
    let (auth, deadline) = (authorization(server, project).await?, deadline(server));
    let volumes = offers::volumes(&mut *server.store.read().await?).await?;
    blocking(move || {
        let mirror = open(&root, &url, asked.trust)?;
        let commit = mirror.commit(&asked.commit)?;
        let words = Words {
            subject: commit.summary().to_owned(),
            author: commit.author.clone(),
        };
        let auth = auth.as_deref();
        let whole = mirror.whole_tree(&asked.commit, auth, &deadline);
        // Who compares the two later asks no remote.
        let whole = whole.and_then(|tree| {
            if let Some(before) = asked.base.as_ref().filter(|base| mirror.has(base)) {
                mirror.bring_changed(before, &asked.commit, auth, &deadline)?;
            }
            Ok(tree)
        });
        let tree = match whole {
            Ok(tree) => tree,
            Err(error) => return Ok(Pass::Planned(words, unusable(error)?)),
        };
        let base_file = match base {
            Some(base) => mirror.tree(&base)?.read(plan::FILE_NAME).ok(),
            None => None,
        };
        // A file that is not there or wrong is told by the plan itself.
        let file = base_file
            .clone()
            .or_else(|| tree.read(plan::FILE_NAME).ok());
        let wanted = plan::asked_parents(&file.unwrap_or_default());
        if wanted.iter().any(|from| !parents.contains_key(from)) {
            return Ok(Pass::Asks(wanted));
        }
        let context = Context {
            base_file: base_file.as_deref(),
            volumes: Some(&volumes),
            parents: Some(&parents),
            ..Context::default()
        };
        let planned = outcome(plan::plan(&tree, &asked, &context))?;
        Ok(Pass::Planned(words, planned))
    })
    .await
}

/// Sorts what planning led to: the user's to mend, nothing to do, or an error of ours.
fn outcome(planned: Result<plan::Plan, PlanError>) -> Result<Planned, WatchError> {
    let wrong = |kind, message| Ok(Planned::Wrong(Failure::new(kind, message)));
    match planned {
        Ok(plan) => Ok(Planned::Jobs(plan)),
        Err(error @ (PlanError::NoFile | PlanError::Untrusted)) => Ok(Planned::Nothing {
            why: error.to_string(),
        }),
        Err(error @ PlanError::File(_)) => wrong(FailureKind::PipelineFileWrong, error.to_string()),
        Err(error @ PlanError::Notebook { .. }) => {
            wrong(FailureKind::NotebookInvalid, error.to_string())
        }
        Err(PlanError::Definition(message)) => Err(WatchError::Wrong(message)),
        Err(PlanError::Tree(error)) => unusable(error),
    }
}

/// What cannot be planned for the commit's own sake.
fn unusable(error: MirrorError) -> Result<Planned, WatchError> {
    if !error.is_the_commits() {
        return Err(error.into());
    }
    let failure = Failure::new(FailureKind::CommitUnusable, error.to_string());
    Ok(Planned::Wrong(failure.hint(
        "take such files out of the commit; large ones belong in Git LFS or in a volume",
    )))
}

/// Writes the pipeline down. A commit that cannot be used is compared with nothing.
async fn write(
    server: &Server,
    project: &Project,
    trigger: &Trigger,
    words: &Words,
    planned: Planned,
) -> Result<Pipeline, WatchError> {
    let mut trigger = trigger.clone();
    if matches!(&planned, Planned::Wrong(failure) if failure.kind == FailureKind::CommitUnusable) {
        trigger.base = None;
    }
    Ok(pipelines::create(server, &project.id, &trigger, words, planned).await?)
}

/// A job that wants a secret that nobody gave would fail on a GPU: it fails here.
fn check_secrets(server: &Server, project: &Project, planned: Planned) -> Planned {
    let Planned::Jobs(plan) = &planned else {
        return planned;
    };
    let missing = plan.jobs.iter().find_map(|job| {
        let names = &job.spec.secrets;
        let name = names
            .iter()
            .find(|name| crate::fleet::secret(server, &project.name, name).is_none())?;
        Some((job.spec.name.clone(), name.clone()))
    });
    match missing {
        None => planned,
        Some((job, name)) => Planned::Wrong(
            Failure::new(
                FailureKind::PipelineFileWrong,
                format!("job '{job}' wants the secret {name}, which this server does not have"),
            )
            .hint(format!(
                "an administrator writes it to {}",
                server
                    .config
                    .secrets()
                    .join(&project.name)
                    .join(&name)
                    .display()
            )),
        ),
    }
}
