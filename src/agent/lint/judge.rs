//! What one tool's end means: findings, a platform failure, the image's or the project's. Words that cannot be read are
//! shown, and the exit code judges.

use std::collections::BTreeMap;

use protocol::spec::LintTool;
use protocol::{Failure, FailureKind};

use super::Said;
use super::bad::listed;
use super::place::Source;

/// What an image must bring.
const IMAGE: &str = "trainyard/notebook has ruff, black, isort, flake8, mypy, pylint, pyupgrade and vulture; another image must bring what `lint:` names.";
/// Names that stand in a tool's words where it does not like its settings.
const SETTINGS: [&str; 10] = [
    "pyproject.toml",
    "ruff.toml",
    "setup.cfg",
    "tox.ini",
    ".flake8",
    "mypy.ini",
    ".isort.cfg",
    "pylintrc",
    "isort.cfg",
    "TOMLDecodeError",
];

/// Code of tools that reads their settings: what it raises is about these.
const READS_SETTINGS: [&str; 2] = ["flake8/options/config.py", "isort/settings.py"];
/// Most characters of a tool's line in a sentence of ours.
const LINE_CHARS: usize = 300;

/// How a tool ended.
pub(super) struct End<'a> {
    pub(super) tool: &'a LintTool,
    pub(super) said: &'a Said,
    /// It left findings that could be read.
    pub(super) found: bool,
    /// Why what it said could not be read.
    pub(super) broken: Option<String>,
}

impl End<'_> {
    /// The failure, if it is one. Findings are none: they are judged by their level. What the tool said is not in it:
    /// the log has it whole.
    pub(super) fn failure(&self, sources: &BTreeMap<String, Source>) -> Option<Failure> {
        let name = self.tool.name();
        let words = self.said.words();
        let of = |kind, message: String| Some(Failure::new(kind, message));
        // nbQA may break on a notebook and still end with 0: that is no pass.
        if let Some(failure) = broken_on(&name, &words, sources) {
            return Some(failure);
        }
        let Some(code) = self.said.code else {
            return of(
                FailureKind::Internal,
                format!("{name} did not come to its end"),
            );
        };
        if matches!(code, 126 | 127) || self.missing(&words) {
            let message = format!("the image has no `{}` that runs", self.tool.tool);
            return of(FailureKind::ImageUnusable, message).map(|failure| failure.hint(IMAGE));
        }
        if code > 128 {
            let message = format!("{name} was ended by signal {}", code - 128);
            let hint =
                "Signal 9 is often the end of a process for which the job's memory was too small.";
            return of(FailureKind::Internal, message).map(|failure| failure.hint(hint));
        }
        if self.did_its_work(code, &words) {
            return None;
        }
        if let Some(failure) = self.settings(code, &words) {
            return Some(failure);
        }
        let raised = raised(&words);
        if self.may_mean_findings(code) && self.broken.is_none() && raised.is_none() {
            let message = format!(
                "{name} found something (exit code {code}), and its output could not be read: the log has it whole"
            );
            return of(FailureKind::LintFailed, message);
        }
        let reason = self.broken.as_deref().filter(|_| raised.is_none());
        let reason = reason.map_or_else(String::new, |reason| format!(", {reason}"));
        let raised = raised.map_or_else(String::new, |raised| format!(": {}", cut(raised)));
        of(
            FailureKind::Internal,
            format!("{name} did not do its work (exit code {code}{reason}){raised}"),
        )
    }

    /// A tool that refuses its options or its settings: those are the project's.
    fn settings(&self, code: i32, words: &str) -> Option<Failure> {
        let name = self.tool.name();
        let file = SETTINGS.iter().find(|file| words.contains(**file));
        let file = file.map(|&file| match file {
            "TOMLDecodeError" => "pyproject.toml",
            file => file,
        });
        let read = || {
            let reads = READS_SETTINGS.iter().any(|code| words.contains(code));
            raised(words).filter(|_| reads)
        };
        let why = refusal(code, words).or_else(read).map(cut);
        let message = match (why, file) {
            (Some(why), Some(file)) => format!("{name} refuses its options or {file}: {why}"),
            (Some(why), None) => format!("{name} refuses its options or settings: {why}"),
            (None, Some(file)) => {
                format!("{name} did not do its work: something is wrong with {file}")
            }
            (None, None) => return None,
        };
        let hint = format!(
            "What {name} says of it is in the log; correct {}.",
            file.unwrap_or("its options or its settings")
        );
        Some(Failure::new(FailureKind::LintFailed, message).hint(hint))
    }

    /// Whether this is an end with nothing left to say: what was found was read.
    fn did_its_work(&self, code: i32, words: &str) -> bool {
        if self.broken.is_some() {
            return false;
        }
        match self.tool.tool.as_str() {
            _ if code == 0 => true,
            // All is excluded, or all of its checks are off.
            "pylint" if words.contains("No files to lint: exiting") => true,
            // Its bits: 1 it broke, 32 it was started wrongly; the others are kinds of findings.
            "pylint" => self.found && code & 33 == 0,
            // 2: findings that keep it from looking further, such as bad syntax, and its own faults.
            "mypy" => self.found && (code == 1 || code == 2 && !words.contains("INTERNAL ERROR")),
            "ruff-format" => self.found && matches!(code, 1 | 2),
            // 123: a cell that it cannot read, and its own faults.
            "black" => {
                let own = words.contains("INTERNAL ERROR");
                code == 1 && self.diffed(words) || self.found && code == 123 && !own
            }
            "isort" => code == 1 && (self.found || self.diffed(words)),
            "ruff" | "flake8" => self.found && code == 1,
            _ => self.found || code == 1 && self.diffed(words),
        }
    }

    /// nbQA's own end where a tool would change something, be it a blank line.
    fn diffed(&self, words: &str) -> bool {
        words.contains("To apply these changes, remove the `--nbqa-diff` flag")
    }

    /// Whether a tool that ends with this code may have found something.
    fn may_mean_findings(&self, code: i32) -> bool {
        match self.tool.tool.as_str() {
            "pylint" => code & 33 == 0,
            "ruff" | "ruff-format" | "black" | "isort" | "flake8" | "mypy" => code == 1,
            _ => true,
        }
    }

    fn missing(&self, words: &str) -> bool {
        let tool = &self.tool.tool;
        self.said.code != Some(0)
            && !self.found
            && (words.contains(&format!("No module named {tool}"))
                || words.contains(&format!("Command `{tool}` not found"))
                || words.contains(&format!("nbqa was unable to find {tool}")))
    }
}

/// Why a tool refused to start, in its own words; none: it did not refuse.
///
/// - argparse (flake8, isort, mypy, vulture, pyupgrade; pylint for wrong values) and click (black) print `usage:` and an
///   `error:`, and end with 2: `argparse.ArgumentParser.error`, `click.UsageError.exit_code`. pylint ends with 32 where
///   it does not know an option ("usage error" of its manual).
/// - clap (ruff) ends with 2, too (`clap::error::Error::exit_code`), and names `--help`.
/// - flake8 ends with 1 and says so itself (`flake8.exceptions.ExecutionError`), for a plugin that breaks too.
fn refusal(code: i32, words: &str) -> Option<&str> {
    let mut lines = words.lines().map(str::trim);
    if code == 1 {
        lines.find(|line| {
            line.starts_with("There was a critical error during execution of Flake8")
        })?;
        return lines
            .next()
            .filter(|why| !why.contains("failed during execution due to"));
    }
    let usage = |line: &str| {
        let begin = line.get(..6).unwrap_or_default();
        begin.eq_ignore_ascii_case("usage:") || line == "For more information, try '--help'."
    };
    if !matches!(code, 2 | 32) || !lines.clone().any(usage) {
        return None;
    }
    // The last one: settings may have been warned of before.
    lines.filter_map(said_as_error).next_back()
}

/// The words after `error:`, which may stand behind the tool's name.
fn said_as_error(line: &str) -> Option<&str> {
    let (before, why) = line
        .split_once("error: ")
        .or_else(|| line.split_once("Error: "))?;
    let name = before.strip_suffix(": ").unwrap_or(before);
    (!name.contains(char::is_whitespace)).then_some(why)
}

/// What Python says at the end of a traceback: `ValueError: …`.
fn raised(words: &str) -> Option<&str> {
    let (_, traceback) = words.rsplit_once("Traceback (most recent call last)")?;
    let mut lines = traceback.lines().skip(1);
    Some(
        lines
            .find(|line| !line.starts_with(' '))
            .unwrap_or_default(),
    )
}

/// One line of a tool's, as a part of a sentence.
fn cut(line: &str) -> String {
    line.trim().chars().take(LINE_CHARS).collect()
}

/// nbQA's own failure with notebooks.
fn broken_on(name: &str, words: &str, sources: &BTreeMap<String, Source>) -> Option<Failure> {
    let one = |line: &'_ str| -> Option<(String, bool)> {
        let (_, rest) = line.split_once("nbQA failed to process ")?;
        let path = rest.split(" with exception").next().unwrap_or(rest);
        let path = path.trim_start_matches("./").to_owned();
        // A notebook of nbformat 3 has no cells of its own.
        Some((path, rest.contains("KeyError('cells')")))
    };
    let all: Vec<(String, bool)> = words.lines().filter_map(one).collect();
    let of = |old: bool| -> Vec<&str> {
        let chosen = all.iter().filter(|(_, is_old)| *is_old == old);
        chosen.map(|(path, _)| path.as_str()).collect()
    };
    let (old, other) = (of(true), of(false));
    if !other.is_empty() {
        let known = other.iter().any(|path| sources.contains_key(*path));
        let kind = match known {
            true => FailureKind::Internal,
            false => FailureKind::NotebookInvalid,
        };
        let message = format!("{name} could not read {}", listed(&other));
        return Some(Failure::new(kind, message));
    }
    (!old.is_empty()).then(|| {
        let message = format!(
            "{name} could not read {}: older than nbformat 4",
            listed(&old)
        );
        Failure::new(FailureKind::NotebookInvalid, message)
            .hint("Open it in Jupyter and save it: that writes nbformat 4.")
    })
}
