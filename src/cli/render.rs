//! `trainyard render`: a notebook as HTML, Markdown or for a terminal.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args as ClapArgs, ValueEnum};
use notebook::Notebook;
use render::html::Options;
use render::{html, markdown, terminal};

use super::notebooks::{self, STDIN};
use super::{Exit, out};

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  trainyard render train.ipynb                  read it here
  trainyard render train.ipynb -o train.html    a page that needs nothing else
  trainyard render *.ipynb -o site/ --format html
  git show HEAD:train.ipynb | trainyard render - --format md")]
pub(crate) struct Args {
    /// Notebooks; - is standard input
    #[arg(required = true, value_name = "NOTEBOOK")]
    notebooks: Vec<PathBuf>,
    /// As what [default: what the output's name says, else terminal]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write to this file, - is standard output; of several notebooks, to files in this folder
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave the source of code cells out
    #[arg(long)]
    no_code: bool,
    /// Leave outputs out
    #[arg(long)]
    no_outputs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Html,
    #[value(alias = "markdown")]
    Md,
    #[value(alias = "text")]
    Terminal,
}

impl Format {
    fn ending(self) -> &'static str {
        match self {
            Format::Html => "html",
            Format::Md => "md",
            Format::Terminal => "txt",
        }
    }

    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "html" | "htm" => Some(Format::Html),
            "md" | "markdown" => Some(Format::Md),
            "txt" => Some(Format::Terminal),
            _ => None,
        }
    }
}

/// Where the notebooks go.
enum Target {
    Stdout,
    File(PathBuf),
    Folder(PathBuf),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let target = target(args)?;
    let format = format(args, &target)?;
    if matches!(target, Target::Stdout) && format == Format::Html && args.notebooks.len() > 1 {
        bail!("several pages do not fit in one output: name a folder with -o");
    }
    let options = Options {
        code: !args.no_code,
        outputs: !args.no_outputs,
        ..Options::export()
    };
    let mut wrong = 0;
    for path in &args.notebooks {
        // One that cannot be read does not keep the others from being written.
        if let Err(error) = one(path, format, &options, &target, args.notebooks.len() > 1) {
            if args.notebooks.len() == 1 {
                return Err(error);
            }
            out::aside(&format!("error: {error:#}"));
            wrong += 1;
        }
    }
    if wrong > 0 {
        bail!(
            "{wrong} of {} notebooks were not rendered",
            args.notebooks.len()
        );
    }
    Ok(Exit::Done)
}

fn target(args: &Args) -> anyhow::Result<Target> {
    let output = args.output.as_ref();
    let Some(output) = output.filter(|path| path.as_path() != Path::new(STDIN)) else {
        return Ok(Target::Stdout);
    };
    let slash = output.to_string_lossy().ends_with('/');
    let several = args.notebooks.len() > 1;
    if several && !slash && !output.is_dir() && (output.exists() || Format::of(output).is_some()) {
        bail!(
            "'{}' is one file, and {} notebooks do not fit in it: name a folder with -o, such as site/",
            output.display(),
            args.notebooks.len()
        );
    }
    if several || slash || output.is_dir() {
        check_names(&args.notebooks)?;
        fs::create_dir_all(output)
            .with_context(|| format!("cannot make the folder '{}'", output.display()))?;
        return Ok(Target::Folder(output.clone()));
    }
    Ok(Target::File(output.clone()))
}

/// In one folder no page may take another's place.
fn check_names(notebooks: &[PathBuf]) -> anyhow::Result<()> {
    let mut named = BTreeMap::new();
    for path in notebooks {
        match named.insert(title(path), path) {
            Some(other) if other != path => bail!(
                "'{}' and '{}' would be one page in that folder: render them to two folders; nothing was written",
                other.display(),
                path.display()
            ),
            Some(_) | None => {}
        }
    }
    Ok(())
}

fn format(args: &Args, target: &Target) -> anyhow::Result<Format> {
    match (args.format, target) {
        (Some(format), _) => Ok(format),
        (None, Target::Stdout) => Ok(Format::Terminal),
        (None, Target::Folder(_)) => Ok(Format::Html),
        (None, Target::File(path)) => Format::of(path).with_context(|| {
            format!(
                "the name '{}' says no format: end it with .html, .md or .txt, or give --format",
                path.display()
            )
        }),
    }
}

fn one(
    path: &Path,
    format: Format,
    options: &Options,
    target: &Target,
    several: bool,
) -> anyhow::Result<()> {
    let notebook = notebooks::read(path)?;
    match target {
        Target::Stdout => {
            let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let mut text = shown(&notebook, title(path), format, options, colour);
            if several {
                text = headed(path, &text, format, colour);
            }
            match stdout().lock().write_all(text.as_bytes()) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                result => Ok(result?),
            }
        }
        Target::File(file) => write(
            path,
            file,
            &shown(&notebook, title(path), format, options, false),
        ),
        Target::Folder(folder) => {
            let file = folder.join(format!("{}.{}", title(path), format.ending()));
            write(
                path,
                &file,
                &shown(&notebook, title(path), format, options, false),
            )
        }
    }
}

/// One of several notebooks in one text: its name before it.
fn headed(path: &Path, text: &str, format: Format, colour: bool) -> String {
    let name = path.display().to_string();
    match format {
        Format::Html => text.to_owned(),
        Format::Md => format!("# {}\n\n{text}\n", markdown::code_span(&name, 400)),
        Format::Terminal => terminal::title(&name, colour) + text,
    }
}

fn shown(
    notebook: &Notebook,
    title: &str,
    format: Format,
    options: &Options,
    colour: bool,
) -> String {
    match format {
        Format::Html => html::page(title, notebook, options),
        Format::Md => markdown::notebook(notebook, options),
        Format::Terminal => terminal::notebook(notebook, options, colour, out::width()),
    }
}

/// The notebook's name without its ending.
fn title(path: &Path) -> &str {
    if path == Path::new(STDIN) {
        return "notebook";
    }
    path.file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or("notebook")
}

/// Writes beside the file first: a full disk leaves what was there.
fn write(source: &Path, file: &Path, text: &str) -> anyhow::Result<()> {
    let same = |path: &Path| path.canonicalize().ok();
    if same(file).is_some_and(|file| Some(file) == same(source)) {
        bail!("'{}' is the notebook itself", file.display());
    }
    let cannot = || format!("cannot write '{}'", file.display());
    // A device or a pipe is written as it is.
    if file.metadata().is_ok_and(|about| !about.is_file()) {
        return fs::write(file, text).with_context(cannot);
    }
    let mut beside = file.as_os_str().to_owned();
    beside.push(".part");
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, file))
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_takes_anothers_place() {
        let names =
            |paths: &[&str]| check_names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        names(&["a/train.ipynb", "b/test.ipynb", "a/train.ipynb"]).unwrap();
        let said = names(&["a/train.ipynb", "b/train.ipynb"]).unwrap_err();
        assert!(
            said.to_string()
                .starts_with("'a/train.ipynb' and 'b/train.ipynb'"),
            "{said}"
        );
    }
}
