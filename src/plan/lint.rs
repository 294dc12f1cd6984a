//! The lint job: one for all notebooks that will run, with a key of its own. Its result depends on the
//! code exactly as a tool sees it, on the tools' settings, and for some tools on the modules beside it.

use std::collections::BTreeMap;

use mirror::Tree;
use protocol::spec::{Limits, LintLevel, LintTool, Network, Parameters, Resources, Turn};
use protocol::{JobSpec, Span, Trust, Work};

use crate::PlanError;
use crate::expand::members;
use crate::file::{LINT, LINT_TOOLS, LintEntry, PipelineFile, lint_tool_fault};
use crate::here;
use crate::inputs::Inputs;
use crate::key::{Parts, digest_of};
use crate::planned::{Dep, MAX_DEPS, PlannedJob};

/// Files that lint tools and nbQA read their settings from, besides `*.toml`, `*.cfg` and `*.ini`, which may name each
/// other (ruff's `extend`).
const SETTINGS: [&str; 5] = [
    ".flake8",
    "pylintrc",
    ".pylintrc",
    ".editorconfig",
    // Where it lies, nbQA takes the root of the project to be.
    "setup.py",
];

/// A tool as `trainyard lint --tool` has it: a name, or what stands behind `nbqa:`, such as `vulture --verbose` or
/// `nbqa ruff`.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn lint_tool(text: &str) -> Result<LintTool, String> {
    let entry = match text.strip_prefix("nbqa ") {
        Some(command) => LintEntry::through(command, LintLevel::Error),
        None if text.trim().contains(char::is_whitespace) => {
            LintEntry::through(text, LintLevel::Error)
        }
        None => LintEntry::named(text.trim(), LintLevel::Error),
    };
    let through = format!("--tool 'nbqa {}'", entry.tool.tool);
    match entry
        .fault
        .or_else(|| lint_tool_fault(&entry.tool, &through))
    {
        Some(fault) => Err(fault),
        None => Ok(entry.tool),
    }
}

/// The lint job of the pipeline file over the notebooks of all its jobs, without a plan: a notebook that cannot be
/// read, or is given what it does not know, keeps no other from being linted. None where no tool is named, or no
/// job runs a notebook.
///
/// # Errors
/// Where the pipeline file cannot be read, or names a notebook that is not there.
pub fn lint_here(tree: &dyn Tree, image: &str) -> Result<Option<JobSpec>, PlanError> {
    let Some(file) = here::file(tree)?.filter(|file| !file.lint.is_empty()) else {
        return Ok(None);
    };
    let inputs = Inputs::new(tree);
    let mut notebooks = Vec::new();
    for (name, job) in file.jobs.iter() {
        let members = members(name, job, &inputs, &Parameters::new())?;
        notebooks.extend(members.into_iter().filter_map(|member| member.notebook));
    }
    notebooks.sort();
    notebooks.dedup();
    if notebooks.is_empty() {
        return Ok(None);
    }
    let tools: Vec<LintTool> = file
        .lint
        .iter()
        .map(|entry| entry.value.tool.clone())
        .collect();
    let resources = resources(&file, &tools);
    Ok(Some(spec(tools, notebooks, image, resources)))
}

/// The job, or none where no tool is named or no notebook will run.
pub(crate) fn job(
    file: &PipelineFile,
    inputs: &Inputs<'_>,
    notebooks: &[String],
    image: &str,
    trust: Trust,
) -> Result<Option<PlannedJob>, PlanError> {
    if file.lint.is_empty() || notebooks.is_empty() {
        return Ok(None);
    }
    let entries = file.lint.iter();
    let tools: Vec<LintTool> = entries.map(|entry| entry.value.tool.clone()).collect();
    let mut notebooks = notebooks.to_vec();
    notebooks.sort();
    notebooks.dedup();

    let mut parts = Parts::default();
    parts.json("tools", &tools);
    parts.text("image", image);
    for path in &notebooks {
        parts.digest(&format!("notebook {path}"), &as_tools_see(inputs, path)?);
    }
    let deps = deps(inputs, &tools);
    parts.files(&deps);
    if tools
        .iter()
        .any(|tool| matches!(tool.tool.as_str(), "isort" | "ruff"))
    {
        // Whether an import is one's own depends on which modules there are, not on what is in them.
        parts.digest("modules", &digest_of(modules(inputs).map(|(path, _)| path)));
    }
    let resources = resources(file, &tools);
    let (key, key_parts) = parts.finish();
    Ok(Some(PlannedJob {
        spec: spec(tools, notebooks, image, resources),
        key,
        key_parts,
        fingerprint: None,
        deps: deps.into_iter().take(MAX_DEPS).collect(),
        volumes: BTreeMap::new(),
        lock: None,
        pipeline_file: None,
        trust,
        unversioned: Vec::new(),
        given: false,
    }))
}

/// The code of a notebook, to the last blank, and its tags, by which nbQA may be told to leave cells out.
fn as_tools_see(inputs: &Inputs<'_>, path: &str) -> Result<protocol::Digest, PlanError> {
    let read = inputs.notebook(path)?;
    let language = read.notebook.language().unwrap_or_default();
    let mut texts = vec![language];
    for (_, cell) in read.notebook.code_cells() {
        texts.push(cell.source.clone());
        texts.push(cell.tags().collect::<Vec<_>>().join(" "));
    }
    Ok(digest_of(texts.iter().map(String::as_str)))
}

/// Settings of the tools, and for some the modules that they follow or are extended by. What a tool reads that is not
/// known here, or is told to read, nobody knows: then every file counts but other notebooks.
fn deps(inputs: &Inputs<'_>, tools: &[LintTool]) -> Vec<Dep> {
    let of = |names: &[&str]| tools.iter().any(|tool| names.contains(&tool.tool.as_str()));
    let follows = of(&["mypy", "pylint", "flake8"]);
    let unknown =
        |tool: &LintTool| !LINT_TOOLS.contains(&tool.tool.as_str()) || !tool.args.is_empty();
    let every = tools.iter().any(unknown);
    let counts = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let settings = SETTINGS.contains(&name)
            || [".toml", ".cfg", ".ini"]
                .iter()
                .any(|end| name.ends_with(end));
        settings || follows && is_module(path) || every && !path.ends_with(".ipynb")
    };
    let files = inputs
        .tree()
        .files()
        .iter()
        .filter(|file| counts(&file.path));
    files
        .map(|file| Dep {
            path: file.path.clone(),
            id: file.id.clone(),
        })
        .collect()
}

fn modules<'a>(inputs: &Inputs<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let files = inputs.tree().files().iter();
    files
        .map(|file| (file.path.as_str(), file.id.as_str()))
        .filter(|(path, _)| is_module(path))
}

fn is_module(path: &str) -> bool {
    path.ends_with(".py") || path.ends_with(".pyi")
}

/// As many CPUs as jobs get that say nothing, but no more than tools: so many run at a time.
fn resources(file: &PipelineFile, tools: &[LintTool]) -> Resources {
    let default = Resources::default();
    let said = file.defaults.resources.as_ref();
    let said = said.and_then(|said| Some(said.cpus?.0));
    let useful = (tools.len() as u64).saturating_mul(1_000);
    Resources {
        cpu_millis: said.map_or(default.cpu_millis, |cpus| {
            cpus.min(useful).max(default.cpu_millis)
        }),
        ..default
    }
}

fn spec(
    tools: Vec<LintTool>,
    notebooks: Vec<String>,
    image: &str,
    resources: Resources,
) -> JobSpec {
    JobSpec {
        name: LINT.to_owned(),
        definition: LINT.to_owned(),
        work: Work::Lint { tools, notebooks },
        parameters: Parameters::new(),
        checkout: Default::default(),
        image: image.to_owned(),
        python: None,
        env: BTreeMap::new(),
        secrets: Vec::new(),
        network: Network::None,
        resources,
        runs_on: Vec::new(),
        volumes: BTreeMap::new(),
        turn: Turn::default(),
        needs: Vec::new(),
        artifacts: Vec::new(),
        limits: Limits {
            timeout: Span::hours(1),
            ..Limits::default()
        },
        checkpoints: Default::default(),
        model: None,
        metrics: BTreeMap::new(),
        first_metric: None,
        parent: None,
        retries: 2,
        reuse: true,
    }
}
