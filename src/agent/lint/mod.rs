//! Lint tools over notebooks: one command line for the driver that runs them all, and the findings in what they
//! say. A finding's place is held against the cell's source before it is believed. It starts nothing itself.

mod bad;
pub mod fix;
mod format;
mod judge;
mod normal;
mod notes;
mod place;
mod ruff;
mod script;
mod text;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::Failure;
use protocol::FailureKind;
use protocol::event::{Finding, ToolRun};
use protocol::spec::{LintLevel, LintTool};
use protocol::text::without_colours;

use crate::collect::small;
use judge::End;
use notes::Notes;
use place::{Claim, Known, Source};

pub(crate) use normal::prepare;
pub(crate) use script::{FOLDER, argv};

/// Most bytes of one tool's words.
const MOST_BYTES: u64 = 64 << 20;
/// Most findings of one tool that are kept.
const MOST_FINDINGS: usize = 5_000;
/// Most bytes of all patches of one tool.
const MOST_PATCHES: usize = 8 << 20;
/// Most bytes of one tool's words that are shown.
const MOST_SHOWN: usize = 1 << 20;
/// Tools of which only the standard output is read; what they say beside it is shown.
const LINES_OF_OUT: [&str; 6] = ["ruff", "black", "isort", "flake8", "mypy", "pylint"];
/// Most bytes of one line of the log (an event has 64 KiB).
const MOST_EVENT: usize = 60 << 10;

/// The findings in what one tool said about notebooks (path in the repository, bytes): pure, whatever the bytes are.
/// `tool` is the name as `lint:` has it. Tools that ran in a container saw the repository as `/workspace`.
#[must_use]
pub fn parse(tool: &str, stdout: &str, stderr: &str, notebooks: &[(&str, &[u8])]) -> Vec<Finding> {
    parse_with_notes(tool, stdout, stderr, b"", notebooks)
}

/// The same, with the notes of nbQA's run: what `nbqa.py` wrote to `$TRAINYARD_NOTES`.
#[must_use]
pub fn parse_with_notes(
    tool: &str,
    stdout: &str,
    stderr: &str,
    notes: &[u8],
    notebooks: &[(&str, &[u8])],
) -> Vec<Finding> {
    let sources: BTreeMap<String, Source> = notebooks
        .iter()
        .filter_map(|(path, bytes)| Some(((*path).to_owned(), Source::read(bytes).ok()?)))
        .collect();
    let asked = match tool.strip_prefix("nbqa ") {
        Some(tool) => LintTool {
            nbqa: true,
            ..LintTool::named(tool)
        },
        None => LintTool::named(tool),
    };
    let said = Said {
        out: without_colours(stdout),
        err: without_colours(stderr),
        code: Some(1),
        notes: notes.to_vec(),
        took: Duration::ZERO,
    };
    let mut verdict = Verdict::default();
    judge(&asked, &said, &sources, "/workspace", &mut verdict);
    verdict.findings
}

/// What a lint job left, and where.
pub(crate) struct Ran<'a> {
    pub(crate) tools: &'a [LintTool],
    pub(crate) notebooks: &'a [String],
    pub(crate) workspace: &'a Path,
    /// Notebooks that [`prepare`] rewrote or took away, as they were.
    pub(crate) originals: &'a Path,
    /// The workspace as the tools saw it.
    pub(crate) inside: &'a str,
    /// The job's `/tmp`.
    pub(crate) tmp: &'a Path,
    /// It came to its end; else tools that had not ended are no fault of theirs.
    pub(crate) whole: bool,
}

/// What linting came to.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) findings: Vec<Finding>,
    /// Texts for people, each short enough for an event.
    pub(crate) log: Vec<String>,
    pub(crate) runs: Vec<ToolRun>,
    pub(crate) failure: Option<Failure>,
    /// Tools that had not ended when the job was.
    pub(crate) unfinished: Vec<String>,
}

/// What one tool left.
struct Said {
    out: String,
    err: String,
    /// None: it has not ended.
    code: Option<i32>,
    notes: Vec<u8>,
    took: Duration,
}

/// What was read of a tool's words.
#[derive(Default)]
struct Parsed {
    claims: Vec<Claim>,
    /// Lines that say something else.
    unread: String,
    /// Why none of it could be read.
    broken: Option<String>,
}

/// Reads what the tools said.
pub(crate) fn read(ran: &Ran<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut sources = BTreeMap::new();
    for path in ran.notebooks {
        let bytes = bad::bytes(&ran.originals.join(path));
        match bytes.or_else(|_| bad::bytes(&ran.workspace.join(path))) {
            Ok(bytes) => match bytes.and_then(|bytes| Source::read(&bytes)) {
                Ok(source) => {
                    sources.insert(path.clone(), source);
                }
                Err(error) => verdict.findings.push(bad::unreadable(path, &error)),
            },
            // The tools follow a link, nobody else does.
            Err(_) if ran.workspace.join(path).exists() => {}
            Err(_) => verdict.findings.push(bad::missing(path)),
        }
    }
    verdict.failure = bad::failure(&verdict.findings);
    if verdict.findings.len() == ran.notebooks.len() {
        return verdict; // No tool has run.
    }
    for (n, tool) in ran.tools.iter().enumerate() {
        let said = Said::read(&ran.tmp.join(FOLDER).join(n.to_string()));
        if said.code.is_none() && !ran.whole {
            verdict.unfinished.push(tool.name());
        }
        judge(tool, &said, &sources, ran.inside, &mut verdict);
    }
    if verdict.failure.is_none() {
        verdict.failure = failure_of(&verdict.findings);
    }
    verdict
}

impl Said {
    fn read(folder: &Path) -> Self {
        let bytes = |name: &str| small(&folder.join(name), MOST_BYTES).unwrap_or_default();
        let text = |name: &str| without_colours(&String::from_utf8_lossy(&bytes(name)));
        let time = |name: &str| folder.join(name).symlink_metadata()?.modified();
        let took = time("began").and_then(|began| Ok(time("code")?.duration_since(began)));
        Self {
            out: text("out"),
            err: text("err"),
            code: text("code").trim().parse::<u8>().ok().map(i32::from),
            notes: bytes("notes"),
            took: took.ok().and_then(Result::ok).unwrap_or_default(),
        }
    }

    fn words(&self) -> String {
        match self.out.is_empty() || self.out.ends_with('\n') {
            true => format!("{}{}", self.out, self.err),
            false => format!("{}\n{}", self.out, self.err),
        }
    }

    fn parse(
        &self,
        tool: &LintTool,
        notes: &Notes,
        sources: &BTreeMap<String, Source>,
        inside: &str,
    ) -> Parsed {
        let name = tool.tool.as_str();
        let mut parsed = match name {
            // It says nothing at all where nbQA had nothing for it.
            "ruff" if self.code == Some(0) && !self.out.contains('[') => Parsed::default(),
            "ruff" => ruff::parse(&self.out, inside),
            "ruff-format" => format::ruff(&self.out, &self.err, sources, inside),
            "black" | "isort" => Parsed {
                claims: format::printed(&self.out, name, sources),
                ..Parsed::default()
            },
            "flake8" | "mypy" | "pylint" => text::parse(name, &self.out, sources, inside),
            _ => text::parse(name, &self.words(), sources, inside),
        };
        if name == "black" {
            parsed.claims.extend(format::black(&self.err, inside));
        }
        if !tool.is_native() {
            parsed.claims.extend(format::noted(name, notes, sources));
        }
        if LINES_OF_OUT.contains(&name) {
            parsed.unread.push_str(&text::beside(&self.err));
        }
        parsed
    }
}

fn judge(
    tool: &LintTool,
    said: &Said,
    sources: &BTreeMap<String, Source>,
    inside: &str,
    verdict: &mut Verdict,
) {
    let began = Instant::now();
    let name = tool.name();
    let notes = Notes::read(&said.notes);
    let parsed = said.parse(tool, &notes, sources, inside);
    let known = Known {
        sources: Some(sources),
        joined: notes.joined(sources),
    };
    let total = parsed.claims.len();
    let mut patches = 0;
    let settle = |claim| {
        let mut finding = known.settle(claim);
        finding.level = tool.level;
        finding.tool.clone_from(&name);
        patches += finding.suggestion.as_ref().map_or(0, String::len);
        finding.suggestion = finding.suggestion.filter(|_| patches <= MOST_PATCHES);
        finding
    };
    // What a tool for Python says of other languages is nothing.
    let python = |claim: &Claim| sources.get(&claim.path).is_none_or(Source::is_python);
    let claims = parsed.claims.into_iter().filter(python).take(MOST_FINDINGS);
    let mut findings: Vec<Finding> = claims.map(settle).collect();
    let end = End {
        tool,
        said,
        found: total > 0,
        broken: parsed.broken.filter(|_| said.code.is_some()),
    };
    let failure = match verdict.unfinished.contains(&name) {
        true => None,
        false => end.failure(sources),
    };
    let read_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    passed_over(&notes, sources, &mut verdict.log);
    let failed = failure.is_some();
    if let Some(failure) = failure {
        say(
            &format!("{}\n{}", failure.message, said.words()),
            &mut verdict.log,
        );
        // A tool that only warns fails nothing, whatever becomes of it.
        if tool.level == LintLevel::Error {
            verdict.failure.get_or_insert(failure);
        }
    } else if !parsed.unread.trim().is_empty() {
        say(
            &format!("{name} also said:\n{}", parsed.unread),
            &mut verdict.log,
        );
    }
    if total > MOST_FINDINGS {
        verdict.log.push(format!(
            "{name}: {total} findings, of which the first {MOST_FINDINGS} are kept"
        ));
    }
    verdict.runs.push(ToolRun {
        tool: name,
        code: said.code,
        failed,
        findings: u32::try_from(findings.len()).unwrap_or(u32::MAX),
        took: said.took.into(),
        read_us,
    });
    verdict.findings.append(&mut findings);
}

/// Python that nbQA does not show to any tool, which nobody would guess; said once for all tools.
fn passed_over(notes: &Notes, sources: &BTreeMap<String, Source>, log: &mut Vec<String>) {
    for (path, note) in notes.notebooks() {
        let Some(source) = sources.get(path).filter(|_| !note.passed.is_empty()) else {
            continue;
        };
        let cells = note
            .passed
            .iter()
            .filter_map(|&nth| source.cell_of_code(nth));
        let cells: Vec<String> = cells.take(20).map(|cell| cell.to_string()).collect();
        let said = format!(
            "nbQA leaves out cell {} of {path} (a magic over several lines, or a call of get_ipython)",
            cells.join(", ")
        );
        if !log.contains(&said) {
            log.push(said);
        }
    }
}

/// A text as lines of the log, the middle left out where it is very long.
fn say(text: &str, log: &mut Vec<String>) {
    let text = text.trim_end();
    let floor = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let shown = floor(text.len().min(MOST_SHOWN));
    let mut from = 0;
    while from < shown {
        let mut to = floor((from + MOST_EVENT).min(shown));
        if let Some(end) = text[from..to].rfind('\n').filter(|_| to < shown) {
            to = from + end + 1;
        }
        log.push(text[from..to].trim_end_matches('\n').to_owned());
        from = to;
    }
    if shown < text.len() {
        log.push(format!("… and {} bytes more", text.len() - shown));
    }
}

/// The failure that findings are; none where none is at level error.
#[must_use]
pub fn failure_of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Option<Failure> {
    let errors: Vec<&Finding> = findings
        .into_iter()
        .filter(|finding| finding.level == LintLevel::Error)
        .collect();
    let first = errors.first()?;
    let place = place_of(first);
    let code = first
        .code
        .as_ref()
        .map_or_else(String::new, |code| format!(" {code}"));
    let more = match errors.len() {
        1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    Some(Failure::new(
        FailureKind::LintFailed,
        format!("{}{code} at {place}: {}{more}", first.tool, first.message),
    ))
}

/// `train.ipynb, cell 3, line 2`.
fn place_of(finding: &Finding) -> String {
    let path = &finding.path;
    match (finding.cell, finding.line) {
        (Some(cell), Some(line)) => format!("{path}, cell {cell}, line {line}"),
        (Some(cell), None) => format!("{path}, cell {cell}"),
        (None, Some(line)) => format!("{path}, line {line}"),
        (None, None) => path.clone(),
    }
}

#[cfg(test)]
mod tests;
