//! `trainyard lint`: the lint tools of the pipeline file over notebooks, here and now.

use std::path::PathBuf;

use agent::local;
use anyhow::bail;
use clap::Args as ClapArgs;
use plan::{Context, DEFAULT_IMAGE};
use protocol::spec::{LintLevel, LintTool, Parameters};
use protocol::{JobSpec, Work};

use super::Exit;
use super::run::{
    Place, carry_out, exit_of, host, notebook_paths, relative, root_of, tree_of, trigger,
};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Notebooks or folders with notebooks [default: the notebooks of the pipeline file's jobs, else all]
    paths: Vec<PathBuf>,
    /// Use this tool instead of those of the pipeline file: ruff, black, isort, flake8 or mypy; may be given again
    #[arg(long = "tool", value_name = "TOOL", value_parser = ["ruff", "black", "isort", "flake8", "mypy"])]
    tools: Vec<String>,
    #[command(flatten)]
    place: Place,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<Exit> {
    let start = match args.paths.first() {
        Some(path) if path.is_dir() => path.clone(),
        Some(path) => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        },
        None => PathBuf::from("."),
    };
    let pipeline = root_of(&start);
    let root = match &pipeline {
        Some(root) => root.clone(),
        None => agent_root(&start)?,
    };
    let tree = tree_of(&root)?;
    let planned = match pipeline {
        Some(_) => planned(&tree)?,
        None => None,
    };
    let chosen = chosen(args, &root, &notebook_paths(&tree))?;
    let host = host(&args.place).await?;
    let image = args.place.image().unwrap_or(DEFAULT_IMAGE);
    let mut spec = planned.unwrap_or_else(|| {
        lint_spec(
            local::notebook_spec(&host, "lint", None, image),
            notebook_paths(&tree),
        )
    });
    if let Some(image) = args.place.image() {
        image.clone_into(&mut spec.image);
    }
    let Work::Lint { tools, notebooks } = &mut spec.work else {
        bail!("the lint job of the plan is none");
    };
    if !args.tools.is_empty() {
        *tools = args.tools.iter().map(|tool| error_level(tool)).collect();
    }
    if let Some(chosen) = chosen {
        *notebooks = chosen;
    }
    if notebooks.is_empty() {
        bail!("there are no notebooks below {}", root.display());
    }
    let (report, dir) = carry_out(&host, &root, spec, &[], args.place.json).await?;
    agent::attempt::forget(&dir, protocol::Timestamp(i64::MAX))?;
    Ok(exit_of(&report.outcome))
}

/// Where there is no pipeline file: the repository, else the folder.
fn agent_root(start: &std::path::Path) -> anyhow::Result<PathBuf> {
    Ok(mirror::WorkTree::open(start)?.root().to_owned())
}

/// The lint job that a commit would run.
fn planned(tree: &mirror::WorkTree) -> anyhow::Result<Option<JobSpec>> {
    let trigger = trigger(tree, Vec::new(), &Parameters::new())?;
    let plan = plan::plan(tree, &trigger, &Context::default())?;
    let jobs = plan.jobs.into_iter().map(|job| job.spec);
    Ok(jobs
        .into_iter()
        .find(|spec| matches!(spec.work, Work::Lint { .. })))
}

fn error_level(tool: &str) -> LintTool {
    LintTool {
        tool: tool.to_owned(),
        level: LintLevel::Error,
    }
}

/// Without a pipeline file: ruff.
fn lint_spec(spec: JobSpec, notebooks: Vec<String>) -> JobSpec {
    JobSpec {
        name: "lint".into(),
        definition: "lint".into(),
        work: Work::Lint {
            tools: vec![error_level("ruff")],
            notebooks,
        },
        network: protocol::spec::Network::None,
        ..spec
    }
}

/// The notebooks that the paths name; none: no path was given.
fn chosen(
    args: &Args,
    root: &std::path::Path,
    all: &[String],
) -> anyhow::Result<Option<Vec<String>>> {
    if args.paths.is_empty() {
        return Ok(None);
    }
    let mut chosen = Vec::new();
    for path in &args.paths {
        let Ok(real) = path.canonicalize() else {
            bail!("there is no '{}' here", path.display());
        };
        if real.is_dir() {
            let inside = relative(root, &real)?;
            let below = |one: &&String| inside.is_empty() || one.starts_with(&format!("{inside}/"));
            chosen.extend(all.iter().filter(below).cloned());
        } else if real.extension().is_some_and(|end| end == "ipynb") {
            chosen.push(relative(root, &real)?);
        } else {
            bail!(
                "'{}' is no notebook; scripts are linted by the tools themselves (ruff check)",
                path.display()
            );
        }
    }
    chosen.sort();
    chosen.dedup();
    Ok(Some(chosen))
}
