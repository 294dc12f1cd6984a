//! `trainyard strip`: outputs and counts out of notebooks, in place or as a filter of git.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use notebook::nbformat::{MAX_BYTES, ReadError};
use notebook::strip::{Strip, strip};

use super::{Exit, notebooks, out};

/// What goes, what stays.
const HELP: &str = "\
Outputs and execution counts go; every other byte of the file stays as it is. Outputs stay in cells with the tag keep_output, with keep_output or init_cell in their metadata, and in notebooks with keep_output in theirs.

Examples:
  trainyard strip notebooks/*.ipynb           in place
  trainyard strip --check notebooks/*.ipynb   name those that have outputs
  trainyard strip - <in.ipynb >out.ipynb      as a filter
  trainyard git-install --strip               whenever something is added to git

For pre-commit:
  - id: strip
    name: strip notebooks
    language: system
    entry: trainyard strip --check
    files: '\\.ipynb$'

Exit codes: 0 done, 1 with --check: some have outputs, 2 trouble.";

#[derive(Debug, ClapArgs)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Notebooks; - is standard input, to standard output
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write nothing: name the files that have something to strip
    #[arg(long)]
    check: bool,
    /// Keep execution counts
    #[arg(long)]
    keep_counts: bool,
    /// Take out what executions and editors write into metadata, too: times, collapsed and scrolled, widgets
    #[arg(long)]
    metadata: bool,
    /// As git's filter: the file that standard input is
    #[arg(long, hide = true)]
    name: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let options = Strip {
        keep_counts: args.keep_counts,
        metadata: args.metadata,
    };
    let mut exit = Exit::Done;
    for path in &args.files {
        let stripped = if path.as_os_str() == "-" {
            filter(args, &options)
        } else {
            in_place(path, args.check, &options)
        };
        match stripped {
            Ok(true) if args.check && exit == Exit::Done => exit = Exit::Failed,
            Ok(_) => {}
            Err(error) => {
                out::aside(&format!("error: {error:#}"));
                exit = Exit::Wrong;
            }
        }
    }
    Ok(exit)
}

/// Whether there was something to strip.
fn in_place(path: &Path, check: bool, options: &Strip) -> anyhow::Result<bool> {
    let name = path.display().to_string();
    if let Ok(about) = path.metadata() {
        notebooks::check_size(&about, &name)?;
    }
    let bytes = read(&name, || std::fs::File::open(path))?;
    let Some(stripped) = strip(&bytes, options).context(name.clone())? else {
        return Ok(false);
    };
    out::say(&name)?;
    if !check {
        write(path, &stripped).with_context(|| format!("cannot write '{name}'"))?;
    }
    Ok(true)
}

/// Replaces a file at once, so that a full disk leaves it as it is; what a link leads to, not the link.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let path = path.canonicalize()?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = std::fs::write(&part, bytes)
        .and_then(|()| std::fs::set_permissions(&part, std::fs::metadata(&path)?.permissions()))
        .and_then(|()| std::fs::rename(&part, &path));
    if written.is_err() {
        // What is left of it says nothing that the error does not.
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn filter(args: &Args, options: &Strip) -> anyhow::Result<bool> {
    if let Some(name) = &args.name {
        return of_git(name, options);
    }
    let name = "standard input";
    let bytes = read(name, || Ok(std::io::stdin().lock()))?;
    let stripped = strip(&bytes, options).context(name)?;
    if args.check {
        if stripped.is_some() {
            out::say(name)?;
        }
        return Ok(stripped.is_some());
    }
    let mut out = std::io::stdout().lock();
    out.write_all(stripped.as_deref().unwrap_or(&bytes))?;
    out.flush()?;
    Ok(stripped.is_some())
}

/// Git asks for each file at every command: what is no notebook passes through, with one line that says so.
fn of_git(name: &str, options: &Strip) -> anyhow::Result<bool> {
    let (mut input, mut out) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut bytes = Vec::new();
    let most = MAX_BYTES as u64 + 1;
    input.by_ref().take(most).read_to_end(&mut bytes)?;
    let stripped = strip(&bytes, options).unwrap_or_else(|why| {
        out::aside(&format!("warning: outputs stay in {name}: {why}"));
        None
    });
    out.write_all(stripped.as_deref().unwrap_or(&bytes))?;
    std::io::copy(&mut input, &mut out)?;
    out.flush()?;
    Ok(stripped.is_some())
}

fn read<R: std::io::Read>(
    name: &str,
    open: impl FnOnce() -> std::io::Result<R>,
) -> anyhow::Result<Vec<u8>> {
    let wrong = || format!("cannot read '{name}'");
    let mut bytes = Vec::new();
    let most = MAX_BYTES as u64 + 1;
    open()
        .with_context(wrong)?
        .take(most)
        .read_to_end(&mut bytes)
        .with_context(wrong)?;
    if bytes.len() > MAX_BYTES {
        return Err(ReadError::TooLarge { most: MAX_BYTES }).context(name.to_owned());
    }
    Ok(bytes)
}
