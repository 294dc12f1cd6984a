//! Lint tools over notebooks: one command line for the driver that runs them all, and the findings in what they
//! say. A finding's place is held against the cell's source before it is believed. It starts nothing itself.

mod diff;
mod lines;
mod normal;
mod place;
mod ruff;

use std::collections::BTreeMap;
use std::path::Path;

use protocol::event::Finding;
use protocol::spec::{LintLevel, LintTool};
use protocol::text::without_colours;
use protocol::{Failure, FailureKind};

use crate::collect::small;
use crate::command::quote;
use place::Source;

pub(crate) use normal::prepare;

/// Folder below `/tmp` for what the tools say.
const FOLDER: &str = "trainyard-lint";
/// Most bytes of one tool's words.
const MOST_BYTES: u64 = 64 << 20;
/// Most findings of one tool that are kept.
const MOST_FINDINGS: usize = 5_000;

/// The command line that runs all tools, side by side.
pub(crate) fn argv(tools: &[LintTool], notebooks: &[String]) -> Vec<String> {
    let mut script = format!("out=$TMPDIR/{FOLDER}; mkdir -p \"$out\"\n");
    script.push_str("run() { name=$1; shift; \"$@\" >\"$out/$name.out\" 2>\"$out/$name.err\"; echo $? >\"$out/$name.code\"; }\n");
    let paths: Vec<String> = notebooks.iter().map(|path| quote(&safe(path))).collect();
    for tool in tools {
        let name = quote(&tool.tool);
        let command = match tool.tool.as_str() {
            "ruff" => "ruff check --no-cache --output-format json".to_owned(),
            "black" | "isort" => format!("nbqa {name} --nbqa-diff"),
            "mypy" => "nbqa mypy --show-column-numbers --no-error-summary --no-pretty --cache-dir=/dev/null".to_owned(),
            _ => format!("nbqa {name}"),
        };
        script.push_str(&format!("run {name} {command} {} &\n", paths.join(" ")));
    }
    script.push_str("wait\n");
    vec!["sh".into(), "-c".into(), script]
}

/// A path that no tool takes for a flag.
fn safe(path: &str) -> String {
    if path.starts_with('-') {
        format!("./{path}")
    } else {
        path.to_owned()
    }
}

/// What linting came to.
pub(crate) struct Verdict {
    pub(crate) findings: Vec<Finding>,
    /// Lines for people.
    pub(crate) log: Vec<String>,
    pub(crate) failure: Option<Failure>,
}

/// The findings in what one tool said about notebooks (path in the repository, bytes): pure, whatever the bytes are.
/// `tool` is the name as `lint:` has it. Tools that ran in a container saw the repository as `/workspace`.
#[must_use]
pub fn parse(tool: &str, stdout: &str, stderr: &str, notebooks: &[(&str, &[u8])]) -> Vec<Finding> {
    let sources: BTreeMap<String, Source> = notebooks
        .iter()
        .filter_map(|(path, bytes)| Some(((*path).to_owned(), Source::read(bytes)?)))
        .collect();
    let asked = LintTool {
        tool: tool.to_owned(),
        level: LintLevel::Error,
    };
    let said = Said {
        out: without_colours(stdout),
        err: without_colours(stderr),
        code: 1,
    };
    let mut verdict = Verdict {
        findings: Vec::new(),
        log: Vec::new(),
        failure: None,
    };
    judge(&asked, &said, &sources, "/workspace", &mut verdict);
    verdict.findings
}

/// What one tool left.
struct Said {
    out: String,
    err: String,
    code: i32,
}

/// Reads what the tools said. `inside` is the workspace as the tools saw it; `tmp` is the job's `/tmp`; notebooks that
/// [`prepare`] rewrote lie in `originals` as they were.
pub(crate) fn read(
    tools: &[LintTool],
    notebooks: &[String],
    workspace: &Path,
    originals: &Path,
    inside: &str,
    tmp: &Path,
) -> Verdict {
    let source = |path: &String| {
        let bytes = small(&originals.join(path), MOST_BYTES);
        let bytes = bytes.or_else(|_| small(&workspace.join(path), MOST_BYTES));
        Some((path.clone(), Source::read(&bytes.ok()?)?))
    };
    let sources: BTreeMap<String, Source> = notebooks.iter().filter_map(source).collect();
    let mut verdict = Verdict {
        findings: Vec::new(),
        log: Vec::new(),
        failure: None,
    };
    for tool in tools {
        let file = |end: &str| {
            let bytes = small(
                &tmp.join(FOLDER).join(format!("{}.{end}", tool.tool)),
                MOST_BYTES,
            );
            bytes
                .ok()
                .map(|bytes| without_colours(&String::from_utf8_lossy(&bytes)))
        };
        let code = file("code").and_then(|code| code.trim().parse().ok());
        let said = Said {
            out: file("out").unwrap_or_default(),
            err: file("err").unwrap_or_default(),
            code: code.unwrap_or(-1),
        };
        judge(tool, &said, &sources, inside, &mut verdict);
    }
    if verdict.failure.is_none() {
        verdict.failure = too_many(&verdict.findings);
    }
    verdict
}

fn judge(
    tool: &LintTool,
    said: &Said,
    sources: &BTreeMap<String, Source>,
    inside: &str,
    verdict: &mut Verdict,
) {
    let name = &tool.tool;
    let parsed = match name.as_str() {
        "ruff" => ruff::parse(&said.out, inside),
        "black" | "isort" => diff::parse(&said.out, name, sources),
        _ => lines::parse(&said.out, sources),
    };
    let words = format!("{}{}", said.out, said.err);
    let (mut findings, broken) = match parsed {
        Ok(findings) => (findings, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    // nbQA may break on a notebook and still end with 0: that is no pass.
    let unread = words.lines().find_map(|line| {
        line.split_once("nbQA failed to process ")
            .map(|(_, rest)| rest)
    });
    if let Some(rest) = unread {
        let path = rest.split(" with exception").next().unwrap_or(rest);
        let kind = match sources.contains_key(path) {
            true => FailureKind::Internal,
            false => FailureKind::NotebookInvalid,
        };
        verdict.failure.get_or_insert(
            Failure::new(kind, format!("{name} could not read {path}")).detail(words.clone()),
        );
    }
    // A code of its own for "found something" is 1; whatever else comes without findings is no finding.
    let failure = match (said.code, findings.is_empty(), broken) {
        _ if unread.is_some() => None,
        (0 | 1, false, None) | (0, true, None) => None,
        (126 | 127, ..) => Some(
            Failure::new(FailureKind::ImageUnusable, format!("the image has no `{name}` that runs"))
                .hint("trainyard/notebook has ruff, black, isort, flake8 and mypy; another image must bring what `lint:` names."),
        ),
        (1 | 123, true, _) if missing_module(&words, name) => Some(
            Failure::new(FailureKind::ImageUnusable, format!("the image has no `{name}`"))
                .hint("trainyard/notebook has ruff, black, isort, flake8 and mypy; another image must bring what `lint:` names."),
        ),
        (1, _, _) => Some(Failure::new(FailureKind::LintFailed, format!("{name} found something, and its output could not be read; it stands below whole"))),
        (code, _, reason) => Some(Failure::new(
            FailureKind::Internal,
            format!("{name} did not do its work (exit code {code}{})", reason.map_or_else(String::new, |r| format!(", {r}"))),
        )),
    };
    if let Some(failure) = failure {
        verdict
            .log
            .push(format!("{name} said:\n{}", words.trim_end()));
        // A tool that only warns does not fail the job by crying.
        if tool.level == LintLevel::Error || failure.kind != FailureKind::LintFailed {
            verdict.failure.get_or_insert(failure.detail(words));
        }
    }
    if findings.len() > MOST_FINDINGS {
        verdict.log.push(format!(
            "{name}: {} findings, of which the first {MOST_FINDINGS} are kept",
            findings.len()
        ));
        findings.truncate(MOST_FINDINGS);
    }
    for finding in &mut findings {
        finding.level = tool.level;
        finding.tool.clone_from(name);
        if let Some(source) = sources.get(&finding.path) {
            source.believe(finding);
        }
    }
    verdict.log.push(match findings.len() {
        0 => format!("{name}: nothing found"),
        1 => format!("{name}: 1 finding"),
        n => format!("{name}: {n} findings"),
    });
    verdict.findings.append(&mut findings);
}

fn missing_module(words: &str, name: &str) -> bool {
    words.contains(&format!("No module named {name}"))
        || words.contains(&format!("`{name}` not found"))
        || words.contains(&format!("Command `{name}`"))
}

fn too_many(findings: &[Finding]) -> Option<Failure> {
    let errors: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.level == LintLevel::Error)
        .collect();
    let first = errors.first()?;
    let place = match (first.cell, first.line) {
        (Some(cell), Some(line)) => format!("{}, cell {cell}, line {line}", first.path),
        (Some(cell), None) => format!("{}, cell {cell}", first.path),
        (None, Some(line)) => format!("{}, line {line}", first.path),
        (None, None) => first.path.clone(),
    };
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

/// A finding without its tool and level, which the caller sets.
fn finding(path: &str, message: impl Into<String>) -> Finding {
    Finding {
        tool: String::new(),
        level: LintLevel::Error,
        path: path.to_owned(),
        cell: None,
        line: None,
        column: None,
        raw_line: None,
        code: None,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests;
