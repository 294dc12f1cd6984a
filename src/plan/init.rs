//! A first `.trainyard.yml` for a repository, from what lies there. It guesses little and says so in
//! comments: what it writes down runs as the repository stands.

use std::fmt::Write as _;

use mirror::Tree;
use notebook::Notebook;
use serde_json::Value;

use crate::inputs::{Inputs, code_of, notebook_block};

/// Most notebooks that become jobs.
const MAX_NOTEBOOKS: usize = 5;
/// Most parameters of a job that are written down.
const MAX_PARAMETERS: usize = 10;
/// Modules that want a GPU.
const GPU_MODULES: [&str; 5] = ["torch", "tensorflow", "jax", "keras", "lightning"];

/// A first file, and what it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstFile {
    /// Its text.
    pub text: String,
    /// What was seen, as sentences.
    pub seen: Vec<String>,
    /// A notebook to try first.
    pub notebook: Option<String>,
}

/// Nothing in the repository can be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no notebook and no train.py here: write one, or a .trainyard.yml with a job such as\n  jobs:\n    train: {{command: make train}}"
)]
pub struct NothingToRun;

/// One job of the first file.
struct First {
    name: String,
    path: String,
    parameters: Vec<(String, Value)>,
    gpu: bool,
    block: bool,
}

/// A first file for the repository whose files are `tree`.
///
/// # Errors
/// Where there is nothing to run.
pub fn first_file(tree: &dyn Tree) -> Result<FirstFile, NothingToRun> {
    let inputs = Inputs::new(tree);
    let mut seen = Vec::new();
    let (jobs, others) = notebooks(&inputs, &mut seen);
    let script = tree.get("train.py").is_some();
    if script {
        seen.push("train.py".to_owned());
    }
    if jobs.is_empty() && !script {
        return Err(NothingToRun);
    }
    let python = python(tree);
    seen.push(match python {
        Some(path) => format!("{path}, for the packages"),
        None => "no requirements.txt, uv.lock or pyproject.toml: jobs have what the image has"
            .to_owned(),
    });
    let notebook = jobs.first().map(|job| job.path.clone());
    Ok(FirstFile {
        text: text(&jobs, &others, script, python),
        seen,
        notebook,
    })
}

/// Notebooks that become jobs, and the paths of those that do not.
fn notebooks(inputs: &Inputs<'_>, seen: &mut Vec<String>) -> (Vec<First>, Vec<String>) {
    let paths = inputs.tree().files().iter().map(|file| file.path.as_str());
    let paths = paths.filter(|p| p.ends_with(".ipynb") && !p.contains(".ipynb_checkpoints/"));
    let mut found: Vec<(bool, &str, First)> = Vec::new();
    for path in paths {
        match inputs.notebook(path) {
            Ok(read) => {
                let job = first(path, &read.notebook);
                let trains = !job.parameters.is_empty() || path.to_lowercase().contains("train");
                found.push((trains, path, job));
            }
            Err(error) => seen.push(format!("{error}; it is left out")),
        }
    }
    let some_train = found.iter().any(|(trains, ..)| *trains);
    // Where some are made to be run with parameters, the rest are somebody's scratch paper.
    let (chosen, rest): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|(trains, ..)| *trains || !some_train);
    let mut others: Vec<String> = rest.iter().map(|(_, path, _)| (*path).to_owned()).collect();
    let mut jobs: Vec<First> = Vec::new();
    for (_, path, mut job) in chosen {
        if jobs.len() == MAX_NOTEBOOKS {
            others.push(path.to_owned());
            continue;
        }
        seen.push(match job.parameters.len() {
            0 => path.to_owned(),
            n => format!(
                "{path}, with {n} parameter{}",
                if n == 1 { "" } else { "s" }
            ),
        });
        let taken = jobs
            .iter()
            .filter(|other| {
                other.name == job.name || other.name.starts_with(&format!("{}-", job.name))
            })
            .count();
        if taken > 0 {
            job.name = format!("{}-{}", job.name, taken + 1);
        }
        jobs.push(job);
    }
    (jobs, others)
}

fn first(path: &str, notebook: &Notebook) -> First {
    let code = code_of(notebook);
    let imports = |module: &&str| {
        code.lines().map(str::trim).any(|line| {
            let rest = line
                .strip_prefix("import ")
                .or_else(|| line.strip_prefix("from "));
            rest.is_some_and(|rest| rest.split([' ', '.', ',']).next() == Some(module))
        })
    };
    First {
        name: name(path),
        path: path.to_owned(),
        parameters: parameters(notebook),
        gpu: GPU_MODULES.iter().any(imports),
        block: notebook_block(notebook).is_some(),
    }
}

/// A name of a job from a file's.
pub(crate) fn name(path: &str) -> String {
    let stem = path.rsplit('/').next().unwrap_or(path);
    let stem = stem.split('.').next().unwrap_or(stem);
    let clean: String = stem
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let clean: String = clean.trim_matches(['-', '_']).chars().take(40).collect();
    if clean.is_empty() {
        "notebook".to_owned()
    } else {
        clean
    }
}

/// Plain values that the cell tagged `parameters` assigns.
fn parameters(notebook: &Notebook) -> Vec<(String, Value)> {
    let offered = notebook::parameters::offered(notebook).unwrap_or_default();
    let plain = offered.into_iter().filter_map(|parameter| {
        let value = literal(&parameter.default)?;
        Some((parameter.name, value))
    });
    plain.take(MAX_PARAMETERS).collect()
}

/// A number, text or truth value as Python writes it.
fn literal(text: &str) -> Option<Value> {
    match text {
        "True" => return Some(Value::Bool(true)),
        "False" => return Some(Value::Bool(false)),
        _ => {}
    }
    let quoted = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\''));
    if let Some(inner) = quoted.filter(|t| !t.contains(['\'', '\\', '"'])) {
        return Some(Value::String(inner.to_owned()));
    }
    serde_json::from_str::<Value>(text)
        .ok()
        .filter(|v| v.is_number() || v.is_string())
}

/// The file that says which packages are needed.
fn python(tree: &dyn Tree) -> Option<&'static str> {
    let there = |path: &&str| tree.get(path).is_some();
    if let Some(path) = ["uv.lock", "requirements.txt"]
        .into_iter()
        .find(|p| there(p))
    {
        return Some(path);
    }
    // A pyproject.toml that only configures tools names no packages.
    let project = tree.read("pyproject.toml").ok()?;
    let project = String::from_utf8(project).ok()?;
    project
        .lines()
        .any(|line| line.trim() == "[project]")
        .then_some("pyproject.toml")
}

fn text(jobs: &[First], others: &[String], script: bool, python: Option<&str>) -> String {
    let mut out = String::from(
        "# What Trainyard runs when a commit is pushed. `trainyard plan` shows what that means for the\n\
         # files as they are now. Every key is explained in Trainyard's docs/pipeline.md.\n",
    );
    if let Some(path) = python {
        let _ = write!(
            out,
            "\ndefaults:\n  python: {path}        # packages on top of what the image has\n"
        );
    }
    if !jobs.is_empty() {
        out.push_str("\n# Findings are shown and fail nothing; write `ruff` instead of `{ruff: warn}` and they do.\nlint:\n  - {ruff: warn}\n");
    }
    out.push_str("\njobs:\n");
    for job in jobs {
        put_job(&mut out, job, python);
    }
    for path in others {
        let _ = writeln!(out, "  # {}: {{notebook: {}}}", name(path), scalar(path));
    }
    if script {
        let taken = jobs.iter().any(|job| job.name == "train");
        let name = if taken { "train-script" } else { "train" };
        let _ = write!(out, "  {name}:\n    command: python train.py\n");
        put_hints(&mut out, name, false);
    }
    out
}

fn put_job(out: &mut String, job: &First, python: Option<&str>) {
    let _ = write!(
        out,
        "  {}:\n    notebook: {}\n",
        job.name,
        scalar(&job.path)
    );
    if job.block && python.is_some() {
        out.push_str("    # Its packages stand in its first cell (PEP 723).\n");
    }
    if !job.parameters.is_empty() {
        out.push_str(
            "    parameters:             # replace the values of the cell tagged 'parameters'\n",
        );
        for (name, value) in &job.parameters {
            let _ = writeln!(out, "      {name}: {value}");
        }
    }
    put_hints(out, &job.name, job.gpu);
}

fn put_hints(out: &mut String, name: &str, gpu: bool) {
    let gpus = if gpu { "gpus: 1, " } else { "" };
    let _ = write!(
        out,
        "    # resources: {{{gpus}cpus: 4, memory: 8GiB}}    # default: 1 CPU, 2 GiB, no GPU\n\
        \x20   # artifacts: [reports/**]                      # files to keep\n\
        \x20   # model: {{name: {name}, path: model/}}          # what it leaves for the registry\n"
    );
}

/// A path as YAML; quoted where it is not plain.
fn scalar(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    // A glob's characters stand for themselves only in a name that has the file.
    if path.chars().all(plain) && path.starts_with(|c: char| c.is_ascii_alphabetic()) {
        path.to_owned()
    } else {
        Value::String(path.to_owned()).to_string()
    }
}
