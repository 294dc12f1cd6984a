//! `trainyard lint`: the lint tools of the pipeline file over notebooks, here and now.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use agent::attempt::AttemptDir;
use agent::journal::Journal;
use agent::lint::{failure_of, fix};
use agent::local::{self, Held};
use anyhow::{Context as _, bail};
use clap::Args as ClapArgs;
use plan::DEFAULT_IMAGE;
use protocol::event::{EventKind, Finding};
use protocol::spec::LintTool;
use protocol::{JobSpec, Outcome, Work};

use super::live::Live;
use super::run::{
    Has, Place, exit_of, finish, follow, host, notebook_paths, relative, root_of, tree_of,
};
use super::{Exit, notebooks, out};

/// Bytes of events that are read at once.
const BATCH: usize = 1 << 20;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  trainyard lint                                  as CI would, over the notebooks of .trainyard.yml
  trainyard lint notebooks/ --tool ruff --tool 'vulture --min-confidence 80'
  trainyard lint a.ipynb --tool ruff-format --fix
  trainyard lint --json | jq 'select(.kind == \"finding\")'")]
pub(crate) struct Args {
    /// Notebooks or folders with notebooks [default: the notebooks of the pipeline file's jobs, else all]
    paths: Vec<PathBuf>,
    /// Use this tool instead of those of the pipeline file; may be given again. ruff and ruff-format run as they are;
    /// any other through nbQA, with options if they stand in the same word: 'vulture --min-confidence 80', 'nbqa ruff'
    #[arg(long = "tool", value_name = "TOOL", value_parser = plan::lint_tool)]
    tools: Vec<LintTool>,
    /// Write what formatters suggest into the notebooks; only the cells' sources change
    #[arg(long)]
    fix: bool,
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
        Some(_) => plan::lint_here(&tree, DEFAULT_IMAGE)?,
        None => None,
    };
    let chosen = chosen(args, &root, &notebook_paths(&tree))?;
    let host = host(&args.place, None).await?;
    let image = args.place.image().unwrap_or(DEFAULT_IMAGE);
    let mut spec = planned.unwrap_or_else(|| {
        lint_spec(
            local::notebook_spec("lint", None, image),
            notebook_paths(&tree),
        )
    });
    if let Some(image) = args.place.image() {
        image.clone_into(&mut spec.image);
    }
    let Work::Lint {
        tools,
        notebooks: paths,
    } = &mut spec.work
    else {
        bail!("the lint job of the plan is none");
    };
    if !args.tools.is_empty() {
        tools.clone_from(&args.tools);
    }
    if let Some(chosen) = chosen {
        *paths = chosen;
    }
    if paths.is_empty() {
        bail!("there are no notebooks below {}", root.display());
    }
    refuse_all_too_large(&root, paths)?;
    // On a desk as many run at a time as the machine has CPUs.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let useful = cpus.min(tools.len()).max(1) as u64 * 1_000;
    spec.resources.cpu_millis = spec.resources.cpu_millis.max(useful);
    let mut live = Live::new(&root, &spec, args.place.json);
    let has: Has<'_> = (&[], &Held::nothing());
    let (mut report, dir) = follow(&host, &root, (spec, None), has, &mut live).await?;
    if args.fix {
        let findings = findings(&dir)?;
        let left = fix_all(&root, &findings, args.place.json)?;
        // As formatters have it: what was set right fails nothing. A tool that failed has failed all the same.
        let found = failure_of(&findings).map(Outcome::Failed);
        if found.is_some_and(|found| found == report.outcome) {
            report.outcome = failure_of(left).map_or(Outcome::Succeeded, Outcome::Failed);
        }
    }
    finish(&root, &mut live, &report, &dir)?;
    agent::attempt::forget(&dir, protocol::Timestamp(i64::MAX))?;
    Ok(exit_of(&report.outcome))
}

/// Where every notebook is too long to be read, nothing starts. Beside others that is a finding.
fn refuse_all_too_large(root: &Path, paths: &[String]) -> anyhow::Result<()> {
    let mut first = None;
    for path in paths {
        let about = root.join(path).metadata();
        match about.map_or(Ok(()), |about| notebooks::check_size(&about, path)) {
            Ok(()) => return Ok(()),
            Err(error) => first = first.or(Some(error)),
        }
    }
    first.map_or(Ok(()), Err)
}

/// The findings of an attempt.
fn findings(dir: &AttemptDir) -> anyhow::Result<Vec<Finding>> {
    let journal = Journal::open(&dir.journal())?;
    let (mut findings, mut next) = (Vec::new(), 1);
    loop {
        let events = journal.read(next, BATCH)?;
        let Some(last) = events.last() else {
            return Ok(findings);
        };
        next = last.seq + 1;
        findings.extend(
            events
                .into_iter()
                .filter_map(|event| match event.body.known() {
                    Some(EventKind::Finding(finding)) => Some(finding.clone()),
                    Some(_) | None => None,
                }),
        );
    }
}

/// Writes the suggestions into the notebooks; answers the findings that are left.
fn fix_all<'a>(
    root: &Path,
    findings: &'a [Finding],
    json: bool,
) -> anyhow::Result<Vec<&'a Finding>> {
    let mut by_path: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    let mut left = Vec::new();
    for finding in findings {
        match finding.suggestion {
            Some(_) => by_path.entry(&finding.path).or_default().push(finding),
            None => left.push(finding),
        }
    }
    for (path, findings) in by_path {
        let file = root.join(path);
        let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
        let fixed = fix::apply(&bytes, &findings).with_context(|| file.display().to_string())?;
        if fixed.bytes != bytes {
            replace(&file, &fixed.bytes).with_context(|| file.display().to_string())?;
        }
        if !json {
            say(path, &fixed)?;
        }
        left.extend(fixed.left);
    }
    Ok(left)
}

fn say(path: &str, fixed: &fix::Fixed<'_>) -> anyhow::Result<()> {
    for (cell, tools) in &fixed.cells {
        out::say(&format!("fixed {path}, cell {cell} [{}]", tools.join(", ")))?;
    }
    let left = match fixed.left.len() {
        0 => return Ok(()),
        1 => "1 suggestion".to_owned(),
        n => format!("{n} suggestions"),
    };
    out::say(&format!(
        "{path}: {left} did not fit after others were applied; run it again"
    ))
}

/// Replaces a file as a whole, so that no half of it is ever there; its mode stays.
fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let real = file.canonicalize()?;
    let mode = real.metadata()?.permissions();
    let mut new = tempfile::NamedTempFile::new_in(real.parent().unwrap_or(Path::new(".")))?;
    new.write_all(bytes)?;
    new.as_file().set_permissions(mode)?;
    new.as_file().sync_all()?;
    new.persist(&real)?;
    Ok(())
}

/// Where there is no pipeline file: the repository, else the folder.
fn agent_root(start: &std::path::Path) -> anyhow::Result<PathBuf> {
    Ok(mirror::WorkTree::open(start)?.root().to_owned())
}

/// Without a pipeline file: ruff.
fn lint_spec(spec: JobSpec, notebooks: Vec<String>) -> JobSpec {
    JobSpec {
        name: "lint".into(),
        definition: "lint".into(),
        work: Work::Lint {
            tools: vec![LintTool::named("ruff")],
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
