//! One notebook here and now: as the pipeline file has it, or by itself where no job names it.

use mirror::Tree;
use protocol::spec::{Parameters, Trust};
use protocol::{Timestamp, Trigger, TriggerKind, Work};
use serde_json::json;

use crate::PlanError;
use crate::file::{FILE_NAME, Job, PipelineFile};
use crate::globs::{Globs, is_glob};
use crate::make::{Context, plan_of};
use crate::planned::Plan;

/// The jobs that run the notebook at `path`: those of the first definition that names it, else one of
/// its own with the defaults of the file. Without a file its requirements are looked for beside it and
/// at the root. Lint and the jobs that it needs are left out.
///
/// # Errors
/// As [`crate::plan`].
pub fn plan_notebook(
    tree: &dyn Tree,
    path: &str,
    parameters: &Parameters,
    context: &Context<'_>,
) -> Result<Plan, PlanError> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let file = file(tree)?;
    let named = file.as_ref().and_then(|file| naming(file, path));
    let (file, definition) = match (&file, named) {
        (Some(file), Some(name)) => (file.clone(), name.to_owned()),
        (file, _) => by_itself(tree, path, file.as_ref())?,
    };
    let trigger = Trigger {
        kind: TriggerKind::Person {
            definitions: vec![definition.clone()],
            parameters: parameters.clone(),
        },
        commit: "0".repeat(40).parse().map_err(|_| PlanError::NoFile)?,
        reference: None,
        base: None,
        trust: Trust::Trusted,
        by: None,
        at: Timestamp::now(),
        asked_in: None,
    };
    let mut plan = plan_of(&file, tree, &trigger, context)?;
    plan.jobs
        .retain(|job| matches!(&job.spec.work, Work::Notebook { path: p } if p == path));
    plan.jobs.iter_mut().for_each(|job| job.spec.needs.clear());
    Ok(plan)
}

/// The first definition of the pipeline file that runs the notebook at `path`. Nothing is planned: what is wrong with
/// other definitions is no matter of this notebook.
///
/// # Errors
/// Where the pipeline file cannot be read.
pub fn definition_of(tree: &dyn Tree, path: &str) -> Result<Option<String>, PlanError> {
    let file = file(tree)?;
    let named = file.as_ref().and_then(|file| naming(file, path));
    Ok(named.map(str::to_owned))
}

/// The pipeline file; none: there is no such file.
pub(crate) fn file(tree: &dyn Tree) -> Result<Option<PipelineFile>, PlanError> {
    match tree.get(FILE_NAME) {
        Some(_) => Ok(Some(PipelineFile::parse(&tree.read(FILE_NAME)?)?)),
        None => Ok(None),
    }
}

fn naming<'a>(file: &'a PipelineFile, path: &str) -> Option<&'a str> {
    let mut jobs = file.jobs.iter();
    jobs.find(|(_, job)| names(job, path)).map(|(name, _)| name)
}

/// Whether a definition runs the notebook.
fn names(job: &Job, path: &str) -> bool {
    let Some(text) = job.notebook.as_ref().map(|text| text.value.0.as_str()) else {
        return false;
    };
    let text = text.strip_prefix("./").unwrap_or(text);
    text == path || is_glob(text) && Globs::new([text]).is_ok_and(|globs| globs.matches(path))
}

/// A file with one definition that runs the notebook.
fn by_itself(
    tree: &dyn Tree,
    path: &str,
    file: Option<&PipelineFile>,
) -> Result<(PipelineFile, String), PlanError> {
    let name = crate::init::name(path);
    let mut job = json!({ "notebook": path });
    if file.is_none() {
        let folder = path
            .rsplit_once('/')
            .map(|(folder, _)| format!("{folder}/"));
        let places = [folder.unwrap_or_default(), String::new()];
        let candidates = places
            .iter()
            .flat_map(|place| ["uv.lock", "requirements.txt"].map(|name| format!("{place}{name}")));
        if let Some(found) = candidates.into_iter().find(|path| tree.get(path).is_some()) {
            job["python"] = json!(found);
        }
    }
    // JSON is YAML.
    let mut own = PipelineFile::parse(json!({ "jobs": { &name: job } }).to_string().as_bytes())?;
    if let Some(file) = file {
        own.defaults = file.defaults.clone();
    }
    Ok((own, name))
}
