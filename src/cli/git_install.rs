//! `trainyard git-install`: makes `git diff` show notebooks cell by cell, and on demand keeps outputs out of
//! commits.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use mirror::drivers::{self, Drivers, Scope};
use mirror::{Deadline, MirrorError};

use super::Exit;
use super::out::say;

/// What it writes, and how it is undone.
const HELP: &str = "\
It writes a diff driver to the repository's configuration (git config --local) and names it for *.ipynb in .gitattributes; with --global, to your own configuration and attributes. `git diff` then shows cells; `git log -p` and `git show` compare the notebooks' code and text line by line. With --strip, `git add` takes outputs and counts out of what is committed, and leaves the file as it is. A team that commits .gitattributes needs this once for each clone: without it git compares and commits notebooks as ever.

Examples:
  trainyard git-install            in this repository
  trainyard git-install --strip    and keep outputs out of commits
  trainyard git-install --global   in all of your repositories
  trainyard git-install --remove   take away what it wrote, and nothing else

`git diff --no-ext-diff --no-textconv` shows the lines of the file.";

#[derive(Debug, ClapArgs)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// A folder of the repository
    #[arg(default_value = ".", conflicts_with = "global")]
    path: PathBuf,
    /// For all of your repositories
    #[arg(long)]
    global: bool,
    /// Keep outputs and execution counts out of commits, too
    #[arg(long)]
    strip: bool,
    /// Take it away again
    #[arg(long, conflicts_with = "strip")]
    remove: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let scope = if args.global {
        Scope::Global
    } else {
        Scope::Repository(args.path.clone())
    };
    let deadline = Deadline::within(Duration::from_secs(60));
    if args.remove {
        let removed = drivers::remove(&scope, &deadline).map_err(advised)?;
        return told(
            "removed from",
            &removed,
            "nothing to remove: it is not set up here",
        );
    }
    let program = std::env::current_exe().context("cannot tell where this program lies")?;
    let program = program.into_os_string().into_string();
    let program = program.map_err(|path| {
        anyhow::anyhow!(
            "git cannot call '{}': its path is no UTF-8 text",
            path.display()
        )
    })?;
    let drivers = Drivers {
        program,
        strip: args.strip,
    };
    let written = drivers::install(&scope, &drivers, &deadline).map_err(advised)?;
    told("wrote to", &written, "nothing to do: it is set up already")
}

fn advised(error: MirrorError) -> anyhow::Error {
    match error {
        MirrorError::NoRepository { .. } => anyhow::anyhow!(
            "{error}: run this in one, or with --global for all of your repositories"
        ),
        error => error.into(),
    }
}

fn told(what: &str, settings: &[String], nothing: &str) -> anyhow::Result<Exit> {
    for setting in settings {
        say(&format!("{what} {setting}"))?;
    }
    if settings.is_empty() {
        say(nothing)?;
    }
    Ok(Exit::Done)
}
