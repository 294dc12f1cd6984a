//! Makes the plan: chooses definitions, expands them, and gives each job its spec and its key.

mod data;
mod spec;

use std::collections::{BTreeMap, BTreeSet};

use data::dvc_file;
use mirror::Tree;
use notebook::Notebook;
use protocol::spec::{Network, Parameters, Parent};
use protocol::{Digest, JobSpec, Trigger, TriggerKind, Trust, Work};

use crate::PlanError;
use crate::expand::{Member, members};
use crate::file::{
    FILE_NAME, FileError, Job, LINT, MAX_JOBS, PipelineFile, Supersede, UnknownParameters, unknown,
};
use crate::globs::Globs;
use crate::inputs::{Inputs, Lock, code_of, notebook_block};
use crate::key::Parts;
use crate::parameters::{self, Lost};
use crate::planned::{Dep, MAX_DEPS, Plan, PlannedJob, needs_part};
use crate::select::select;

/// The image of a job that names none, and of the lint job.
pub const DEFAULT_IMAGE: &str = protocol::spec::DEFAULT_IMAGE;
/// Further attempts after platform faults, where the file says nothing.
const RETRIES: u32 = 2;

/// What a plan needs to know beside the files and the trigger.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The pipeline file, where it is not the commit's own: that of the base branch, for an untrusted
    /// commit. An untrusted commit without it plans nothing.
    pub base_file: Option<&'a [u8]>,
    /// For a re-run: only these definitions and those that they need; empty: all.
    pub only: &'a [String],
    /// Image of jobs that name none, and of the lint job; none: [`DEFAULT_IMAGE`].
    pub default_image: Option<&'a str>,
    /// Whether notebooks may be given parameters that they do not know, whatever the file says.
    pub allow_unknown: bool,
    /// The volumes of the agents by name, with the version that their administrators declared: it has a part
    /// in the key.
    pub volumes: Option<&'a BTreeMap<String, Option<String>>>,
    /// The versions that the file's `from` mean now, by its text, or why they mean none. None: nobody was asked, and the
    /// jobs have no parent.
    pub parents: Option<&'a Parents>,
}

/// What the texts of `from` mean.
pub type Parents = BTreeMap<String, Result<Parent, String>>;

/// The texts of `from` in a pipeline file, each once; none of a file that is wrong: planning says what is.
#[must_use]
pub fn asked_parents(file: &[u8]) -> BTreeSet<String> {
    let Ok(file) = PipelineFile::parse(file) else {
        return BTreeSet::new();
    };
    let models = file.jobs.iter().filter_map(|(_, job)| job.model.as_ref());
    let asked = models.filter_map(|model| model.from.as_ref());
    asked.map(|from| from.value.0.clone()).collect()
}

/// What `trigger` runs at the commit whose files are `tree`.
///
/// # Errors
/// A sentence for the commit's status; nothing is to be queued then.
pub fn plan(tree: &dyn Tree, trigger: &Trigger, context: &Context<'_>) -> Result<Plan, PlanError> {
    let bytes = match (context.base_file, trigger.trust) {
        (Some(bytes), _) => bytes.to_vec(),
        (None, Trust::Untrusted) => return Err(PlanError::Untrusted),
        (None, Trust::Trusted) if tree.get(FILE_NAME).is_none() => return Err(PlanError::NoFile),
        (None, Trust::Trusted) => tree.read(FILE_NAME)?,
    };
    let mut plan = plan_of(&PipelineFile::parse(&bytes)?, tree, trigger, context)?;
    for job in &mut plan.jobs {
        job.pipeline_file = Some(Digest::of(&bytes));
    }
    Ok(plan)
}

/// The plan of a file that has been read.
pub(crate) fn plan_of(
    file: &PipelineFile,
    tree: &dyn Tree,
    trigger: &Trigger,
    context: &Context<'_>,
) -> Result<Plan, PlanError> {
    let maker = Maker {
        file,
        inputs: Inputs::new(tree),
        trust: trigger.trust,
        image: context.default_image.unwrap_or(DEFAULT_IMAGE),
        given: given(trigger),
        allow_unknown: context.allow_unknown,
        volumes: context.volumes,
        parents: context.parents,
    };
    maker.make(trigger, context.only)
}

/// Parameters that a person gave.
fn given(trigger: &Trigger) -> Parameters {
    match &trigger.kind {
        TriggerKind::Person { parameters, .. } => parameters.clone(),
        TriggerKind::Push
        | TriggerKind::PullRequest { .. }
        | TriggerKind::Schedule { .. }
        | TriggerKind::Rerun { .. }
        | TriggerKind::Reproduction { .. } => Parameters::new(),
    }
}

struct Maker<'a> {
    file: &'a PipelineFile,
    inputs: Inputs<'a>,
    trust: Trust,
    image: &'a str,
    given: Parameters,
    allow_unknown: bool,
    volumes: Option<&'a BTreeMap<String, Option<String>>>,
    parents: Option<&'a Parents>,
}

/// What is said while jobs are made.
struct Said {
    notes: Vec<String>,
    /// Names that a job's notebook does not know; that of another job may.
    strays: Vec<Lost>,
}

impl Maker<'_> {
    fn make(&self, trigger: &Trigger, only: &[String]) -> Result<Plan, PlanError> {
        let selection = select(self.file, trigger, only)?;
        let mut jobs = Vec::<PlannedJob>::new();
        let mut said = Said {
            notes: selection.notes,
            strays: Vec::new(),
        };
        self.check_given(&selection.definitions)?;
        for name in &selection.definitions {
            let Some(definition) = self.file.job(name) else {
                continue;
            };
            for member in members(name, definition, &self.inputs, &self.given_to(definition))? {
                let job = self.job(name, definition, member, &jobs, &mut said)?;
                jobs.push(job);
            }
            if jobs.len() > MAX_JOBS {
                let message = format!("the pipeline has more than {MAX_JOBS} jobs");
                return Err(FileError::whole(message).into());
            }
        }
        parameters::check_lost(&jobs, &said.strays)?;
        self.add_lint(&mut jobs)?;
        if jobs.is_empty() {
            said.notes
                .push("no job of the pipeline file runs here".to_owned());
        }
        Ok(Plan {
            jobs,
            ignored: selection.ignored,
            notes: said.notes,
            supersede_running: self.file.supersede == Supersede::Running,
        })
    }

    /// A value that is given must have a name in one of the definitions that run.
    fn check_given(&self, definitions: &[&str]) -> Result<(), PlanError> {
        let jobs: Vec<&Job> = definitions
            .iter()
            .filter_map(|name| self.file.job(name))
            .collect();
        // A notebook takes values that the file does not name.
        if jobs.iter().any(|job| job.notebook.is_some()) {
            return Ok(());
        }
        let names = |job: &&Job| {
            let names = job.parameters.names().chain(job.matrix.names());
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        let known: Vec<String> = jobs.iter().flat_map(names).collect();
        match self.given.keys().find(|name| !known.contains(name)) {
            Some(name) => Err(PlanError::Definition(unknown("parameter", name, &known))),
            None => Ok(()),
        }
    }

    /// Of the values that are given, those that concern a definition.
    fn given_to(&self, job: &Job) -> Parameters {
        let concerns = |name: &str| {
            job.notebook.is_some()
                || job
                    .parameters
                    .names()
                    .chain(job.matrix.names())
                    .any(|n| n == name)
        };
        let given = self.given.iter().filter(|(name, _)| concerns(name));
        given
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Puts the lint job first, and lets the others wait for it.
    fn add_lint(&self, jobs: &mut Vec<PlannedJob>) -> Result<(), PlanError> {
        let notebooks: Vec<String> = jobs
            .iter()
            .filter_map(|job| notebook_of(&job.spec))
            .collect();
        let lint = crate::lint::job(self.file, &self.inputs, &notebooks, self.image, self.trust)?;
        if let Some(lint) = lint {
            for job in jobs.iter_mut() {
                job.spec.needs.insert(0, LINT.to_owned());
            }
            jobs.insert(0, lint);
        }
        Ok(())
    }

    fn job(
        &self,
        name: &str,
        job: &Job,
        member: Member,
        earlier: &[PlannedJob],
        said: &mut Said,
    ) -> Result<PlannedJob, PlanError> {
        let lock = self.lock(job, &member)?;
        let mut spec = self.spec(name, job, member, lock.as_ref());
        let mut parts = Parts::default();
        let (fingerprint, code) = self.work(job, &spec, &mut parts, said)?;
        for (name, value) in &spec.parameters {
            parts.json(&format!("parameter {name}"), value);
        }
        if let Some(lock) = &lock {
            parts.digest(&format!("python {}", lock.source.path()), &lock.digest);
        }
        parts.text("image", &spec.image);
        let deps = self.deps(job, &spec, lock.as_ref(), &code, &mut said.notes)?;
        self.inputs.whole()?;
        parts.files(&deps);
        declared(&spec, &mut parts);
        let (volumes, stale) = self.mounted(&spec, &mut parts);
        spec.parent = self.parent(job, &spec.name, &mut parts, &mut said.notes)?;
        for need in &spec.needs {
            let jobs = earlier.iter().filter(|job| job.spec.definition == *need);
            parts.part(needs_part(need, jobs.map(|job| &job.key)));
        }
        let (key, key_parts) = parts.finish();
        // The key holds what the file says, so that a trusted result may stand for an untrusted commit.
        if self.trust == Trust::Untrusted {
            spec.network = Network::None;
            spec.secrets.clear();
            if spec.parent.take().is_some() {
                said.notes.push(format!(
                    "{}: an untrusted commit gets no model of the registry to go on from",
                    spec.name
                ));
            }
            spec.checkout.submodules = false;
        }
        Ok(PlannedJob {
            unversioned: [unversioned(&spec), stale].concat(),
            given: !self.given.is_empty(),
            spec,
            key,
            key_parts,
            fingerprint,
            deps: deps.into_iter().take(MAX_DEPS).collect(),
            volumes,
            lock: lock.map(|lock| lock.digest),
            pipeline_file: None,
            trust: self.trust,
        })
    }

    /// The parts of the work itself; the code is what may name other notebooks.
    fn work(
        &self,
        job: &Job,
        spec: &JobSpec,
        parts: &mut Parts,
        said: &mut Said,
    ) -> Result<(Option<Digest>, String), PlanError> {
        match &spec.work {
            Work::Notebook { path } => {
                let read = self.inputs.notebook(path)?;
                // Whether the language can say them; what is injected is the driver's.
                notebook::parameters::inject(&read.notebook, &spec.parameters).map_err(
                    |error| PlanError::Notebook {
                        path: path.clone(),
                        message: error.to_string(),
                    },
                )?;
                self.check_parameters(job, spec, &read.notebook, path, said);
                parts.text("notebook", path);
                parts.digest("code", &read.fingerprint);
                Ok((Some(read.fingerprint.clone()), code_of(&read.notebook)))
            }
            Work::Command { text } => {
                parts.text("command", text);
                Ok((None, text.clone()))
            }
            Work::Lint { .. } => Ok((None, String::new())),
        }
    }

    /// Holds the values against what the notebook offers. None of this has a part in the key.
    fn check_parameters(
        &self,
        job: &Job,
        spec: &JobSpec,
        notebook: &Notebook,
        path: &str,
        said: &mut Said,
    ) {
        let word = job
            .unknown_parameters
            .or(self.file.defaults.unknown_parameters);
        let allow = self.allow_unknown || word == Some(UnknownParameters::Allow);
        if !allow {
            let lost = parameters::lost(job, spec, notebook, path);
            said.strays.extend(lost);
        }
        let wrong = parameters::mismatches(notebook, &spec.parameters).into_iter();
        let name = &spec.name;
        said.notes
            .extend(wrong.map(|what| format!("{name}: {what}")));
    }

    /// The requirements: the job's own, else the notebook's PEP 723 block, else the default's.
    fn lock(&self, job: &Job, member: &Member) -> Result<Option<Lock>, PlanError> {
        let block = match &member.notebook {
            Some(path) if job.python.is_none() => {
                notebook_block(&self.inputs.notebook(path)?.notebook).map(|_| path)
            }
            Some(_) | None => None,
        };
        if let Some(path) = block {
            return self
                .inputs
                .lock(path)
                .map(Some)
                .map_err(|m| FileError::whole(m).into());
        }
        match job.python.as_ref().or(self.file.defaults.python.as_ref()) {
            Some(path) if path.value.0 != "none" => {
                let wrong = |message| FileError::at(path.referenced, message);
                Ok(self.inputs.lock(&path.value.0).map(Some).map_err(wrong)?)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The files that a job's result depends on.
    fn deps(
        &self,
        job: &Job,
        spec: &JobSpec,
        lock: Option<&Lock>,
        code: &str,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Dep>, PlanError> {
        let own = notebook_of(spec);
        let mut not: Vec<&str> = own.as_deref().into_iter().collect();
        not.extend(
            lock.iter()
                .flat_map(|lock| lock.paths.iter().map(String::as_str)),
        );
        let Some(list) = &job.deps else {
            return Ok(self.inputs.every(code, &not));
        };
        let globs = Globs::new(list.iter().map(|glob| glob.value.0.as_str()));
        let mut deps = self
            .inputs
            .matching(&globs.map_err(FileError::whole)?, &not);
        deps.extend(self.kept_by_dvc(list, &not));
        deps.sort_by(|a, b| a.path.cmp(&b.path));
        deps.dedup_by(|a, b| a.path == b.path);
        for glob in list {
            let one = Globs::new([glob.value.0.as_str()]);
            let one = one.map_err(|reason| FileError::at(glob.referenced, reason))?;
            let files = self.inputs.tree().files();
            let is_there = files.iter().any(|file| one.matches(&file.path));
            if !is_there
                && dvc_file(&glob.value.0).is_none_or(|dvc| self.inputs.tree().get(&dvc).is_none())
            {
                notes.push(format!(
                    "{}: no file matches '{}' of its 'deps'",
                    spec.name, glob.value.0
                ));
            }
        }
        Ok(deps)
    }
}

/// The rest of a definition that may change a result or what is kept of it. What is empty has no part:
/// a key that a later version adds does not change the keys of those who do not use it.
fn declared(spec: &JobSpec, parts: &mut Parts) {
    if !spec.checkout.is_plain() {
        parts.json("checkout", &spec.checkout);
    }
    if !spec.env.is_empty() {
        parts.json("env", &spec.env);
    }
    if !spec.secrets.is_empty() {
        parts.json("secrets", &spec.secrets);
    }
    if spec.network == Network::None {
        parts.text("network", "none");
    }
    if spec.resources.gpus > 0 {
        parts.json("gpus", &spec.resources.gpus);
    }
    if !spec.resources.gpu_models.is_empty() {
        parts.json("gpu_model", &spec.resources.gpu_models);
    }
    if let Some(profile) = &spec.resources.mig {
        parts.text("mig", profile);
    }
    if !spec.runs_on.is_empty() {
        parts.json("runs_on", &spec.runs_on);
    }
    if !spec.artifacts.is_empty() {
        parts.json("artifacts", &spec.artifacts);
    }
    if let Some(model) = &spec.model {
        parts.json("model", model);
    }
    if !spec.metrics.is_empty() {
        parts.json("metrics", &spec.metrics);
    }
}

fn unversioned(spec: &JobSpec) -> Vec<String> {
    let mut what = Vec::new();
    if spec.network == Network::Full {
        what.push("it may read from the network".to_owned());
    }
    if !spec.image.contains("@sha256:") {
        what.push(format!(
            "the image '{}' is named without a digest",
            spec.image
        ));
    }
    what
}

fn notebook_of(spec: &JobSpec) -> Option<String> {
    match &spec.work {
        Work::Notebook { path } => Some(path.clone()),
        Work::Command { .. } | Work::Lint { .. } => None,
    }
}
