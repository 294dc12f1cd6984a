//! What one tool's end means: findings, a platform failure, the image's or the project's. Words that cannot be read are
//! shown, and the exit code judges.

use std::collections::BTreeMap;

use protocol::spec::LintTool;
use protocol::{Failure, FailureKind};

use super::Said;
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
    /// The failure, if it is one. Findings are none: they are judged by their level.
    pub(super) fn failure(&self, sources: &BTreeMap<String, Source>) -> Option<Failure> {
        let name = self.tool.name();
        let words = self.said.words();
        let of = |kind, message: String| Some(Failure::new(kind, message).detail(words.clone()));
        // nbQA may break on a notebook and still end with 0: that is no pass.
        if let Some(path) = unread(&words) {
            // A notebook of nbformat 3 has no cells of its own.
            if words.contains("KeyError('cells')") {
                let message = format!("{name} could not read {path}: it is older than nbformat 4");
                return of(FailureKind::NotebookInvalid, message).map(|failure| {
                    failure.hint("Open it in Jupyter and save it: that writes nbformat 4.")
                });
            }
            let kind = match sources.contains_key(path) {
                true => FailureKind::Internal,
                false => FailureKind::NotebookInvalid,
            };
            return of(kind, format!("{name} could not read {path}"));
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
        if let Some(file) = SETTINGS.iter().find(|file| words.contains(**file)) {
            let file = match *file {
                "TOMLDecodeError" => "pyproject.toml",
                file => file,
            };
            let message = format!("{name} did not do its work: something is wrong with {file}");
            return of(FailureKind::LintFailed, message).map(|failure| {
                failure.hint(format!(
                    "What {name} says of it stands below; correct {file}."
                ))
            });
        }
        let crashed = words.contains("Traceback (most recent call last)");
        if self.may_mean_findings(code) && self.broken.is_none() && !crashed {
            let message = format!(
                "{name} found something (exit code {code}), and its output could not be read; it stands below whole"
            );
            return of(FailureKind::LintFailed, message);
        }
        let reason = self.broken.as_ref();
        let reason = reason.map_or_else(String::new, |reason| format!(", {reason}"));
        of(
            FailureKind::Internal,
            format!("{name} did not do its work (exit code {code}{reason})"),
        )
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

/// The notebook that nbQA broke on.
fn unread(words: &str) -> Option<&str> {
    let rest = words
        .lines()
        .find_map(|line| Some(line.split_once("nbQA failed to process ")?.1))?;
    Some(rest.split(" with exception").next().unwrap_or(rest))
}
