//! `trainyard diff`: what differs between notebooks: two files, or versions that git has.

mod side;

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args as ClapArgs, ValueEnum};
use mirror::{ChangedFile, Deadline, Repository};
use notebook::Notebook;
use notebook::diff::{Diff, View, plain_conflict, plain_text};
use protocol::CommitId;
use render::diff::{COMMENT_BYTES, Compared, Options, Pair};

use super::notebooks::STDIN;
use super::{Exit, out};
use side::{Side, bytes, file, is_file};

/// Most lines of one cell or output that JSON has.
const MAX_LINES: usize = 1_000_000;
/// Bytes that are written at once.
const BUFFER: usize = 64 << 10;

/// Examples and exit codes.
const HELP: &str = "\
Examples:
  trainyard diff old.ipynb new.ipynb   two files; /dev/null: not there
  trainyard diff v1:a.ipynb b.ipynb    a file as a commit has it
  trainyard diff - a.ipynb <b.ipynb    standard input
  trainyard diff                       all notebooks: HEAD against the files
  trainyard diff train.ipynb           one of them
  trainyard diff main -- train.ipynb   a branch, tag or commit against the file
  trainyard diff v1 v2                 two revisions; v1..v2 and v1...v2, too
  trainyard diff main -o diff.md       for a comment on a pull request

Outputs, execution counts, ids and what Jupyter writes into metadata are not looked at unless asked for (--outputs, --metadata). As with `diff -w`, what is not looked at is no difference: a notebook that was only executed again gives one line that says so, and exit code 0.

Exit codes: 0 no difference, 1 differences, 2 trouble.";

#[derive(Debug, ClapArgs)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Two files, of which one may be - (standard input); or up to two revisions, then files and folders
    #[arg(value_name = "FILE_OR_REVISION")]
    what: Vec<String>,
    /// Files and folders in the repository
    #[arg(last = true, value_name = "PATH")]
    paths: Vec<String>,
    /// How it is shown [default: what the output's name says, else terminal]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Look at outputs, too
    #[arg(long)]
    outputs: bool,
    /// Look at all metadata, ids and execution counts, too
    #[arg(long)]
    metadata: bool,
    /// Whether there are colours
    #[arg(long, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
    /// Unchanged lines around changed ones
    #[arg(short = 'U', long, default_value_t = 3, value_name = "N")]
    context: usize,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// As git's external diff: its seven arguments, and exit code 0
    #[arg(long, hide = true)]
    git_driver: bool,
    /// As git's textconv: one file, as text
    #[arg(long, hide = true, conflicts_with = "git_driver")]
    git_textconv: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text, with colours on a terminal
    Terminal,
    /// Markdown for a comment of a forge, of at most 60,000 bytes
    Md,
    /// A page of its own
    Html,
    /// JSON for programs
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

impl Args {
    /// The file to write to; none: standard output.
    fn file(&self) -> Option<&Path> {
        let output = self.output.as_deref();
        output.filter(|path| *path != Path::new(STDIN))
    }

    fn format(&self) -> Format {
        let ending = self.file().and_then(Path::extension);
        let ending = ending.map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        self.format.unwrap_or(match ending.as_deref() {
            Some("html" | "htm") => Format::Html,
            Some("md" | "markdown") => Format::Md,
            Some("json") => Format::Json,
            Some(_) | None => Format::Terminal,
        })
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.git_driver {
        return git_driver(args);
    }
    if args.git_textconv {
        return git_textconv(args);
    }
    let (pairs, trouble) = pairs(args)?;
    for error in &trouble {
        out::aside(&format!("error: {error:#}"));
    }
    let tty = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let colour = match args.color {
        Colour::Auto => tty && args.file().is_none(),
        Colour::Always => true,
        Colour::Never => false,
    };
    let options = options(args, colour);
    let diffs: Vec<Diff<'_>> = pairs.iter().map(Pair::diff).collect();
    let compared: Vec<Compared<'_>> = pairs.iter().zip(&diffs).map(Pair::compared).collect();
    put(args.file(), |out| {
        show(&compared, args.format(), &options, out)
    })?;
    let differs = compared
        .iter()
        .any(|one| render::diff::differs(one, options.view));
    // The process ends here; to give back each line first would only take time.
    std::mem::forget(diffs);
    std::mem::forget(pairs);
    Ok(match (trouble.is_empty(), differs) {
        (false, _) => Exit::Wrong,
        (true, true) => Exit::Failed,
        (true, false) => Exit::Done,
    })
}

fn options(args: &Args, colour: bool) -> Options {
    let mut defaults = Options::default();
    if args.format() == Format::Json {
        // Programs want all of it; a file's own bounds are bounds enough.
        (defaults.max_cells, defaults.max_lines) = (notebook::nbformat::MAX_CELLS, MAX_LINES);
    }
    Options {
        view: View {
            outputs: args.outputs,
            metadata: args.metadata,
        },
        context: args.context,
        colour,
        max_bytes: match args.format() {
            Format::Md => COMMENT_BYTES,
            Format::Terminal | Format::Html | Format::Json => defaults.max_bytes,
        },
        ..defaults
    }
}

/// Where a diff is written to: a program's has many small parts.
type Out<'a> = BufWriter<&'a mut dyn Write>;

fn show(
    compared: &[Compared<'_>],
    format: Format,
    options: &Options,
    out: &mut Out<'_>,
) -> io::Result<()> {
    let text = match format {
        Format::Terminal => render::diff::text(compared, options),
        Format::Md => render::diff::comment(compared, options),
        Format::Html => render::diff::page("Notebooks compared", compared, options),
        Format::Json => {
            // On one line: indents would be most of it where outputs differ.
            serde_json::to_writer(&mut *out, &render::diff::document(compared, options))?;
            "\n".to_owned()
        }
    };
    out.write_all(text.as_bytes())
}

/// Writes what `show` gives as it is; a reader that went away (`| head`) is no error.
fn put(
    output: Option<&Path>,
    show: impl FnOnce(&mut Out<'_>) -> io::Result<()>,
) -> anyhow::Result<()> {
    let whole = |out: &mut dyn Write| {
        let mut out = Out::with_capacity(BUFFER, out);
        show(&mut out)?;
        out.flush()
    };
    if let Some(path) = output {
        return std::fs::File::create(path)
            .and_then(|mut file| whole(&mut file))
            .with_context(|| format!("cannot write '{}'", path.display()));
    }
    match whole(&mut std::io::stdout().lock()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// The notebooks to compare, and those that cannot be read.
fn pairs(args: &Args) -> anyhow::Result<(Vec<Pair>, Vec<anyhow::Error>)> {
    if let (true, [before, after]) = (args.paths.is_empty(), args.what.as_slice())
        && let (Some(old), Some(new)) = (Side::of(before)?, Side::of(after)?)
    {
        if matches!((&old, &new), (Side::Input, Side::Input)) {
            bail!("standard input can be one of the two sides only");
        }
        // Large outputs take their time: both at once.
        let (old, new) = std::thread::scope(|scope| {
            let old = scope.spawn(|| old.read());
            let new = new.read();
            (old.join(), new)
        });
        let old = old.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let new = new?;
        let name = if new.is_some() { after } else { before };
        let name = match name.as_str() {
            STDIN => "standard input",
            name => name,
        };
        return Ok((vec![Pair::new(name.to_owned(), old, new)], Vec::new()));
    }
    let asked = Asked::new(args)?;
    let files =
        asked
            .repository
            .changed(&asked.before, asked.after.as_ref(), &asked.paths, "ipynb")?;
    let (mut pairs, mut trouble) = (Vec::new(), Vec::new());
    for file in files {
        match changed(&asked.repository, &file) {
            Ok(pair) => pairs.push(pair),
            Err(error) => trouble.push(error),
        }
    }
    Ok((pairs, trouble))
}

fn changed(repository: &Repository, file: &ChangedFile) -> anyhow::Result<Pair> {
    let read = |side: &Option<mirror::Side>| -> anyhow::Result<Option<Notebook>> {
        let Some(side) = side else { return Ok(None) };
        let read = notebook::read(&repository.read_side(side)?);
        Ok(Some(read.with_context(|| side.path.clone())?))
    };
    let (before, after) = (read(&file.before)?, read(&file.after)?);
    let name = match (&file.before, &file.after) {
        (Some(old), Some(new)) if old.path != new.path => format!("{} => {}", old.path, new.path),
        (_, Some(side)) | (Some(side), None) => side.path.clone(),
        (None, None) => String::new(),
    };
    Ok(Pair::new(name, before, after))
}

/// What is asked of a repository.
struct Asked {
    repository: Repository,
    before: CommitId,
    /// None: the files as they are.
    after: Option<CommitId>,
    paths: Vec<String>,
}

impl Asked {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let Some(repository) = Repository::discover(Path::new("."))? else {
            match args.what.iter().find(|what| !is_file(what)) {
                Some(missing) => bail!("there is no file '{missing}', and no git repository here"),
                None => bail!("name two files: this folder lies in no git repository"),
            }
        };
        let mut revisions = Vec::new();
        let mut what = args.what.as_slice();
        while let [first, rest @ ..] = what {
            let Some(found) = revision(&repository, first)? else {
                break;
            };
            if args.paths.is_empty() && Path::new(first).exists() {
                bail!("'{first}' is a revision and a file: write `{first} --` or `-- {first}`");
            }
            revisions.extend(found);
            what = rest;
        }
        if !args.paths.is_empty() && !what.is_empty() {
            bail!(
                "'{}' is no commit, branch or tag of this repository",
                what[0]
            );
        }
        let named = what.iter().chain(&args.paths);
        let known = |path: &&String| !args.paths.is_empty() || Path::new(path).exists();
        let unknown: Vec<&String> = what.iter().filter(|path| !known(path)).collect();
        for missing in &unknown {
            if Side::of(missing)?.is_none() {
                bail!(
                    "there is no file '{missing}', and no revision of that name; to see a file that was removed: trainyard diff REVISION -- {missing}"
                );
            }
        }
        if let Some(side) = unknown.first() {
            bail!(
                "'{side}' is one version of a notebook: name the other one too, as in `trainyard diff {side} train.ipynb`"
            );
        }
        let paths = named
            .map(|path| within(&repository, path))
            .collect::<anyhow::Result<_>>()?;
        let mut revisions = revisions.into_iter();
        let (before, after) = (revisions.next(), revisions.next());
        if revisions.next().is_some() {
            bail!("more than two revisions were named");
        }
        Ok(Self {
            before: match before {
                Some(before) => before,
                None => repository
                    .resolve("HEAD")
                    .context("there is no commit to compare with")?,
            },
            repository,
            after,
            paths,
        })
    }
}

/// The commits that a word names; none: it names none.
fn revision(repository: &Repository, word: &str) -> anyhow::Result<Option<Vec<CommitId>>> {
    let end = |name: &str| {
        repository
            .resolve(if name.is_empty() { "HEAD" } else { name })
            .ok()
    };
    if let Some((before, after)) = word.split_once("...") {
        let (Some(before), Some(after)) = (end(before), end(after)) else {
            return Ok(None);
        };
        let base = repository.merge_base(&before, &after)?;
        let base =
            base.with_context(|| format!("the two sides of {word} have nothing in common"))?;
        return Ok(Some(vec![base, after]));
    }
    if let Some((before, after)) = word.split_once("..") {
        return Ok(end(before)
            .zip(end(after))
            .map(|(before, after)| vec![before, after]));
    }
    Ok(repository.resolve(word).ok().map(|commit| vec![commit]))
}

/// A path from the root of the repository. The file may be gone.
fn within(repository: &Repository, path: &str) -> anyhow::Result<String> {
    let outside = || format!("'{path}' lies outside of the repository");
    let root = repository
        .work_folder()?
        .context("the repository has no working tree")?;
    let root = root.canonicalize()?;
    let here = std::env::current_dir()?.canonicalize()?;
    let mut whole = PathBuf::new();
    for part in here.join(path).components() {
        match part {
            std::path::Component::ParentDir => {
                whole.pop();
            }
            std::path::Component::CurDir => {}
            std::path::Component::Prefix(_)
            | std::path::Component::RootDir
            | std::path::Component::Normal(_) => {
                whole.push(part);
            }
        }
    }
    let inside = whole.strip_prefix(&root).ok().and_then(Path::to_str);
    Ok(inside.with_context(outside)?.to_owned())
}

/// `path old-file old-hex old-mode new-file new-hex new-mode [new-path message]`: git ends where this does not
/// end well, so that what cannot be compared is said in the diff itself.
fn git_driver(args: &Args) -> anyhow::Result<Exit> {
    let (path, old, new) = match args.what.as_slice() {
        [path] => {
            let line = out::clean(&format!("{path}: not merged yet"));
            put(None, |out| writeln!(out, "{line}"))?;
            return Ok(Exit::Done);
        }
        [path, old, _, _, new, _, _] => (path.clone(), old, new),
        [path, old, _, _, new, _, _, later, ..] => (format!("{path} => {later}"), old, new),
        [] | [..] => {
            bail!("this is called by git, with seven arguments; see trainyard git-install")
        }
    };
    let pager = std::env::var("GIT_PAGER_IN_USE").is_ok_and(|value| value == "true");
    let terminal = std::io::stdout().is_terminal() || pager;
    let deadline = Deadline::within(Duration::from_secs(10));
    let colour = match args.color {
        Colour::Auto => mirror::drivers::colours(terminal, &deadline).unwrap_or(false),
        Colour::Always => true,
        Colour::Never => false,
    };
    let text = match (file(old), file(new)) {
        (Ok(before), Ok(after)) => {
            let pair = Pair::new(path, before, after);
            let diff = pair.diff();
            render::diff::text(&[Pair::compared((&pair, &diff))], &options(args, colour))
        }
        (Err(error), _) | (_, Err(error)) => {
            let reason = error.root_cause();
            let why = out::clean(&format!("{path}: not compared cell by cell: {reason}"));
            format!("{why}\n`git diff --no-ext-diff --no-textconv` shows its lines\n")
        }
    };
    // Git shows the next file right behind it.
    put(None, |out| writeln!(out, "{text}"))?;
    Ok(Exit::Done)
}

/// What is no notebook is given as it is: git compares its lines.
fn git_textconv(args: &Args) -> anyhow::Result<Exit> {
    let [path] = args.what.as_slice() else {
        bail!("this is called by git, with one file; see trainyard git-install");
    };
    let bytes = bytes(path)?;
    let text = match notebook::read(&bytes) {
        Ok(notebook) => Some(plain_text(&notebook)),
        // In the middle of a merge git compares it with the text of both sides.
        Err(_) => std::str::from_utf8(&bytes).ok().and_then(plain_conflict),
    };
    let text = text.map(|text| render::visible(&text));
    let out = text.as_ref().map_or(bytes.as_slice(), String::as_bytes);
    match std::io::stdout().lock().write_all(out) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(Exit::Done),
    }
}
