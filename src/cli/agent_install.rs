//! `trainyard agent install`: makes the agent a service of this host.

use std::path::PathBuf;

use agent::doctor::{Level, examine};
use agent::install::{self, Deed, Installation, Wanted};
use anyhow::Context as _;
use clap::Args as ClapArgs;

use super::{Exit, out};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  trainyard agent install https://trainyard.example --dry-run
  trainyard agent install https://trainyard.example --label datacenter-a --data /raid/trainyard
  trainyard agent install                      after an upgrade: the unit of this version")]
pub(crate) struct Args {
    /// URL of the server, for a new configuration
    url: Option<String>,
    /// Name of the agent, for a new configuration; the host's where it is left out
    #[arg(long)]
    name: Option<String>,
    /// Data folder, for a new configuration: a fast local disk
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A label that `runs_on` may ask for, for a new configuration
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Whose service it is
    #[arg(long, default_value = "trainyard")]
    user: String,
    /// The program that the service starts; this one where it is left out
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Write below this folder instead of /
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Show what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let program = match args.program {
        Some(program) => program,
        None => std::env::current_exe().context("this program's own path")?,
    };
    let installation = install::plan(&Wanted {
        root: args.root,
        program,
        user: args.user,
        server: args.url,
        name: args.name,
        data: args.data,
        labels: args.labels,
    })?;
    if !args.dry_run {
        installation.carry_out()?;
    }
    show(&installation, args.dry_run)?;
    let found = examine(&installation.config, plan::DEFAULT_IMAGE).await;
    out::say(&format!("\nthis host:\n{}", super::doctor::table(&found)))?;
    out::say("\nnow run:")?;
    for line in &installation.next {
        out::say(&format!("  {line}"))?;
    }
    let fails = found.iter().any(|check| check.level == Level::Fail);
    Ok(match fails {
        true => Exit::Failed,
        false => Exit::Done,
    })
}

fn show(installation: &Installation, dry_run: bool) -> anyhow::Result<()> {
    for step in &installation.steps {
        let word = match (step.deed, dry_run) {
            (Deed::Make, false) => "made",
            (Deed::Make, true) => "would be made",
            (Deed::Replace, false) => "replaced",
            (Deed::Replace, true) => "would be replaced",
            (Deed::Leave, _) => "is as it should be",
            (Deed::Keep, _) => "is kept as it is",
        };
        out::say(&format!("{} {word}", step.path.display()))?;
        let shown = step
            .text
            .as_ref()
            .filter(|_| dry_run && matches!(step.deed, Deed::Make | Deed::Replace));
        for line in shown.into_iter().flat_map(|text| text.lines()) {
            out::say(&format!("    {line}"))?;
        }
    }
    Ok(())
}
