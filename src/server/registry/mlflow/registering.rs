//! What the code of a job registers. A model that can be trusted comes from a job that succeeded: what its code registers is
//! a candidate, which becomes a version with the job's success where the job stands for the default branch
//! (`registry::tick`). Code that nobody trusts registers nothing, and is told so in a tag of its run.

use protocol::Timestamp;
use protocol::registry::{ModelFile, valid_model};
use protocol::spec::Trust;
use ulid::Ulid;

use super::caller::JobCaller;
use super::told::{ModelAnswer, RegisteredModel, VersionAnswer};
use super::{Answer, Caller, Code, Fault, check, source, told, versions};

use crate::store::models::{self as rows, Model};
use crate::store::runs::Run;
use crate::store::versions::{self as version_rows, ModelVersion, Stage};
use crate::store::{Connection, Transaction, files, runs};

/// Most files of a model.
const MOST_FILES: u32 = 10_000;
/// The tag that says what code that nobody trusts would have registered.
const NOT_REGISTERED: &str = "trainyard.not_registered";

/// Makes a model that the job's project fills.
pub(super) async fn model(caller: &Caller, job: &JobCaller, model: Model) -> Answer<ModelAnswer> {
    if !valid_model(&model.name) {
        return Err(Fault::invalid(format!(
            "{} is no name for a model that a job fills: it wants 1 to 100 letters, digits, '-', '_', '.', and no dot first",
            check::quoted(&model.name)
        )));
    }
    let model = Model {
        project: Some(job.project.clone()),
        ..model
    };
    let mut tx = caller.begin().await?;
    let made = match job.trust {
        Trust::Untrusted => note(&mut tx, job, &model.name).await.map(|()| true)?,
        Trust::Trusted => rows::insert(&mut tx, &model).await?,
    };
    if !made {
        return Err(super::models::taken(&model.name));
    }
    let registered_model = RegisteredModel {
        creation_timestamp: model.created_at.0,
        last_updated_timestamp: model.changed_at.0,
        description: model.description,
        latest_versions: Vec::new(),
        tags: Vec::new(),
        aliases: Vec::new(),
        name: model.name,
    };
    caller.commit(tx, ModelAnswer { registered_model }).await
}

/// Keeps what code that nobody trusts would have registered.
async fn note(tx: &mut Transaction, job: &JobCaller, name: &str) -> Answer<()> {
    let tag = [(NOT_REGISTERED.to_owned(), name.to_owned())];
    Ok(runs::set_tags(tx, &job.run, &tag).await?)
}

/// What is to be registered.
pub(super) struct Wanted {
    /// The model's name.
    pub(super) name: String,
    /// As the client named it, and where the files lie.
    pub(super) source: String,
    pub(super) location: String,
    /// The run that made it; none: the attempt's own.
    pub(super) run: Option<Run>,
    pub(super) run_link: String,
    pub(super) description: String,
    pub(super) tags: Vec<(String, String)>,
}

/// Makes a candidate. It has no number yet: the answer says 0.
pub(super) async fn version(
    caller: &Caller,
    job: &JobCaller,
    mut tx: Transaction,
    wanted: Wanted,
) -> Answer<VersionAnswer> {
    let run = match wanted.run {
        Some(run) => run,
        None => super::runs::find(caller, &mut tx, &job.run).await?,
    };
    caller.may_write(&run)?;
    let now = Timestamp::now();
    let version = ModelVersion {
        id: Ulid::generate().to_string().to_lowercase(),
        number: 0,
        run: Some((run.id, run.experiment)),
        source: Some(wanted.source),
        location: Some(wanted.location),
        run_link: Some(wanted.run_link),
        description: Some(wanted.description),
        stage: Stage::None,
        created_at: now,
        changed_at: now,
        deleted_at: None,
        of_job: true,
        model: wanted.name,
    };
    if job.trust == Trust::Untrusted {
        note(&mut tx, job, &version.model).await?;
        let model_version = told::version(version, wanted.tags, Vec::new());
        return caller.commit(tx, VersionAnswer { model_version }).await;
    }
    let model = super::models::find(&mut tx, &version.model).await?;
    if model.project.as_ref() != Some(&job.project) {
        return Err(Fault::new(
            Code::Denied,
            format!(
                "model {} is not this job's project's: register under another name",
                check::quoted(&model.name)
            ),
        ));
    }
    version_rows::insert(&mut tx, &version).await?;
    keep_files(&mut tx, &version).await?;
    version_rows::set_tags(&mut tx, &version.id, &wanted.tags).await?;
    version_rows::touch(&mut tx, &version.model, now).await?;
    let answer = versions::answer(&mut tx, version).await?;
    caller.commit(tx, answer).await
}

/// A candidate has the files that lay there when it was registered.
async fn keep_files(tx: &mut Connection, version: &ModelVersion) -> Answer<()> {
    let location = version.location.as_deref().unwrap_or_default();
    let Some((owner, folder)) = source::kept_at(location) else {
        return Ok(());
    };
    let kept = files::below(tx, &owner, &folder, MOST_FILES + 1).await?;
    if kept.len() > MOST_FILES as usize {
        return Err(Fault::invalid(format!(
            "more than {MOST_FILES} files lie at {}: a model has at most so many",
            check::quoted(location)
        )));
    }
    if kept.is_empty() {
        return Err(Fault::invalid(format!(
            "no file lies at {}: log the model before it is registered",
            check::quoted(location)
        )));
    }
    let skip = folder.len() + usize::from(!folder.is_empty());
    for file in kept {
        let file = ModelFile {
            path: file.path[skip..].to_owned(),
            blob: file.blob,
            size: file.size,
        };
        rows::insert_file(tx, &version.id, &file).await?;
    }
    Ok(())
}
