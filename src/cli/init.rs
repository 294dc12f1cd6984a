//! `trainyard init`: writes a first `.trainyard.yml` from what lies in the repository.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args as ClapArgs;
use mirror::WorkTree;
use plan::{FILE_NAME, PipelineFile};

use super::{Exit, out};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// A folder of the repository
    #[arg(default_value = ".")]
    path: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let folder = WorkTree::open(&args.path)?;
    let target = folder.root().join(FILE_NAME);
    if target.symlink_metadata().is_ok() && !args.force {
        bail!(
            "'{}' is there already: --force replaces it",
            target.display()
        );
    }
    let first = plan::first_file(&folder)?;
    PipelineFile::parse(first.text.as_bytes())
        .context("the file that would be written is wrong")?;
    std::fs::write(&target, &first.text)
        .with_context(|| format!("cannot write '{}'", target.display()))?;
    for seen in &first.seen {
        out::say(&format!("found {seen}"))?;
    }
    out::say(&format!("\nwrote {}\n\nnext:", target.display()))?;
    let mut steps = vec![(
        "trainyard plan".to_owned(),
        "what a push of these files would run",
    )];
    if let Some(notebook) = &first.notebook {
        steps.push((
            format!("trainyard run '{notebook}'"),
            "run it here, as it would be run there",
        ));
    }
    let commit = format!("git add {FILE_NAME} && git commit");
    steps.push((commit, "then push: a Trainyard server takes it from there"));
    let width = steps
        .iter()
        .map(|(command, _)| command.len())
        .max()
        .unwrap_or_default();
    for (command, what) in &steps {
        out::say(&format!("  {command:width$}   {what}"))?;
    }
    Ok(Exit::Done)
}
