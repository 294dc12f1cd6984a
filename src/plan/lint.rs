//! The lint job: one for all notebooks that will run, with a key of its own. Its result depends on the
//! code exactly as a tool sees it, on the tools' settings, and for some tools on the modules beside it.

use std::collections::BTreeMap;

use protocol::spec::{Limits, LintTool, Network, Parameters, Resources};
use protocol::{JobSpec, Span, Trust, Work};

use crate::PlanError;
use crate::file::{LINT, PipelineFile};
use crate::inputs::Inputs;
use crate::key::{Parts, digest_of};
use crate::planned::{Dep, MAX_DEPS, PlannedJob};

/// Files that ruff, black, isort, flake8, mypy and nbQA read their settings from.
const SETTINGS: [&str; 10] = [
    "pyproject.toml",
    "ruff.toml",
    ".ruff.toml",
    "setup.cfg",
    "tox.ini",
    ".flake8",
    "mypy.ini",
    ".mypy.ini",
    ".isort.cfg",
    ".editorconfig",
];

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
    let tools: Vec<LintTool> = file.lint.iter().map(|entry| tool(&entry.value)).collect();
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
    let (key, key_parts) = parts.finish();
    Ok(Some(PlannedJob {
        spec: spec(tools, notebooks, image),
        key,
        key_parts,
        fingerprint: None,
        deps: deps.into_iter().take(MAX_DEPS).collect(),
        lock: None,
        pipeline_file: None,
        trust,
        unversioned: Vec::new(),
    }))
}

fn tool(entry: &crate::file::LintEntry) -> LintTool {
    LintTool {
        tool: entry.tool.clone(),
        level: entry.level,
    }
}

/// The code of a notebook, to the last blank: that is what linters are about.
fn as_tools_see(inputs: &Inputs<'_>, path: &str) -> Result<protocol::Digest, PlanError> {
    let read = inputs.notebook(path)?;
    let language = read.notebook.language().unwrap_or_default();
    let mut texts = vec![language];
    texts.extend(
        read.notebook
            .code_cells()
            .map(|(_, cell)| cell.source.clone()),
    );
    Ok(digest_of(texts.iter().map(String::as_str)))
}

/// Settings of the tools, and for mypy the modules that it follows.
fn deps(inputs: &Inputs<'_>, tools: &[LintTool]) -> Vec<Dep> {
    let follows = tools.iter().any(|tool| tool.tool == "mypy");
    let counts = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        SETTINGS.contains(&name) || follows && is_module(path)
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

fn spec(tools: Vec<LintTool>, notebooks: Vec<String>, image: &str) -> JobSpec {
    JobSpec {
        name: LINT.to_owned(),
        definition: LINT.to_owned(),
        work: Work::Lint { tools, notebooks },
        parameters: Parameters::new(),
        image: image.to_owned(),
        python: None,
        env: BTreeMap::new(),
        secrets: Vec::new(),
        network: Network::None,
        resources: Resources::default(),
        runs_on: Vec::new(),
        volumes: BTreeMap::new(),
        needs: Vec::new(),
        artifacts: Vec::new(),
        limits: Limits {
            timeout: Span::hours(1),
            ..Limits::default()
        },
        model: None,
        metrics: BTreeMap::new(),
        retries: 2,
        reuse: true,
    }
}
