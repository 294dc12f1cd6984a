//! What the tools said of one notebook (ruff 0.17, nbQA 1.9.1 with flake8, isort, mypy), as it came.

mod ends;
mod recorded;

use super::*;

const NOTEBOOK: &str = r##"{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
 {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title"]},
 {"cell_type": "code", "id": "b", "metadata": {}, "outputs": [], "execution_count": null, "source": [
  "import sys\n",
  "import os"]},
 {"cell_type": "markdown", "id": "c", "metadata": {}, "source": ["text"]},
 {"cell_type": "code", "id": "d", "metadata": {}, "outputs": [], "execution_count": null, "source": [
  "%matplotlib inline\n",
  "x = 1\n",
  "\n",
  "def f(a):\n",
  "    b=a+1\n",
  "    y = undefined_name\n",
  "    return  3"]}
]}"##;

const FLAKE8: &str = "\
a.ipynb:cell_1:1:1: F401 'sys' imported but unused
a.ipynb:cell_2:6:5: F841 local variable 'b' is assigned to but never used
a.ipynb:cell_2:6:6: E225 missing whitespace around operator
a.ipynb:cell_2:7:9: F821 undefined name 'undefined_name'
lib.py:3:1: F401 're' imported but unused
";

const ISORT: &str = "\u{1b}[1mCell 1\u{1b}[0m
------
\u{1b}[1;37m--- a.ipynb
\u{1b}[0m\u{1b}[1;37m+++ a.ipynb
\u{1b}[0m\u{1b}[36m@@ -1,2 +1,2 @@
\u{1b}[0m\u{1b}[32m+import os
\u{1b}[0m\u{1b}[31m-import os
\u{1b}[0m
\u{1b}[1mCell 2\u{1b}[0m
------
\u{1b}[1;37m--- a.ipynb
\u{1b}[0m\u{1b}[1;37m+++ a.ipynb
\u{1b}[0m\u{1b}[36m@@ -1,5 +1,6 @@
\u{1b}[0m\u{1b}[32m+
\u{1b}[0m
To apply these changes, remove the `--nbqa-diff` flag
";

const RUFF: &str = r#"[{"cell": 4, "code": "F841", "end_location": {"column": 6, "row": 5}, "filename": "/workspace/a.ipynb",
 "location": {"column": 5, "row": 5}, "message": "Local variable `b` is assigned to but never used", "severity": "error"}]"#;

fn lint(tools: &[(&str, LintLevel, i32, &str, &str)]) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let (workspace, tmp) = (folder.path().join("w"), folder.path().join("tmp"));
    std::fs::create_dir_all(&workspace).unwrap();
    std::fs::write(workspace.join("a.ipynb"), NOTEBOOK).unwrap();
    let mut asked = Vec::new();
    for (n, (tool, level, code, out, err)) in tools.iter().enumerate() {
        let left = tmp.join(FOLDER).join(n.to_string());
        std::fs::create_dir_all(&left).unwrap();
        std::fs::write(left.join("out"), out).unwrap();
        std::fs::write(left.join("err"), err).unwrap();
        std::fs::write(left.join("code"), format!("{code}\n")).unwrap();
        asked.push(LintTool {
            level: *level,
            ..LintTool::named(tool)
        });
    }
    read(&Ran {
        tools: &asked,
        notebooks: &["a.ipynb".into()],
        workspace: &workspace,
        originals: &folder.path().join("originals"),
        inside: "/workspace",
        tmp: &tmp,
        whole: true,
    })
}

type Place<'a> = (Option<&'a str>, Option<u32>, Option<u32>, Option<u32>);

fn places(verdict: &Verdict) -> Vec<Place<'_>> {
    let place = |f: &Finding| (f.cell, f.line, f.raw_line);
    verdict
        .findings
        .iter()
        .map(|f| (f.code.as_deref(), place(f).0, place(f).1, place(f).2))
        .collect()
}

#[test]
fn ruff_counts_as_people_do() {
    let verdict = lint(&[("ruff", LintLevel::Error, 1, RUFF, "")]);
    assert_eq!(
        places(&verdict),
        [(Some("F841"), Some(4), Some(5), Some(12))]
    );
    let failure = verdict.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::LintFailed);
    assert!(
        failure.message.contains("a.ipynb, cell 4, line 5"),
        "{}",
        failure.message
    );
}

#[test]
fn a_line_that_the_source_does_not_bear_out_is_corrected_or_dropped() {
    let verdict = lint(&[("flake8", LintLevel::Error, 1, FLAKE8, "")]);
    assert_eq!(
        places(&verdict),
        [
            (Some("F401"), Some(2), Some(1), Some(4)),
            // Said was line 6, after a magic.
            (Some("F841"), Some(4), Some(5), Some(12)),
            (Some("E225"), Some(4), None, Some(8)),
            (Some("F821"), Some(4), Some(6), Some(13)),
            (Some("F401"), None, Some(3), None),
        ]
    );
}

#[test]
fn a_formatter_finds_once_for_each_cell() {
    let verdict = lint(&[(
        "isort",
        LintLevel::Warn,
        1,
        ISORT,
        "Fixing /workspace/a.ipynb\n",
    )]);
    assert_eq!(places(&verdict), [(None, Some(2), Some(2), Some(5))]);
    assert!(verdict.failure.is_none(), "a warning fails nothing");
}

#[test]
fn a_tool_that_breaks_is_not_the_users_fault() {
    let verdict = lint(&[(
        "mypy",
        LintLevel::Error,
        2,
        "",
        "INTERNAL ERROR: mypy crashed\n",
    )]);
    let failure = verdict.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Internal);
    assert!(verdict.log[0].contains("INTERNAL ERROR"));
    let verdict = lint(&[(
        "black",
        LintLevel::Error,
        0,
        "",
        "nbQA failed to process a.ipynb with exception \"TypeError\"\n",
    )]);
    assert_eq!(
        verdict.failure.unwrap().kind,
        FailureKind::Internal,
        "not a pass"
    );
    let old = "nbQA failed to process a.ipynb with exception \"KeyError('cells')\"\n";
    let verdict = lint(&[("flake8", LintLevel::Error, 123, "", old)]);
    assert_eq!(verdict.failure.unwrap().kind, FailureKind::NotebookInvalid);
    let verdict = lint(&[("black", LintLevel::Error, 127, "", "sh: nbqa: not found\n")]);
    assert_eq!(verdict.failure.unwrap().kind, FailureKind::ImageUnusable);
    let verdict = lint(&[("ruff", LintLevel::Error, 0, "[]", "")]);
    assert!(verdict.failure.is_none() && verdict.log.is_empty());
}

#[test]
fn words_that_cannot_be_read_are_shown_whole() {
    let verdict = lint(&[(
        "flake8",
        LintLevel::Error,
        1,
        "something else entirely\n",
        "",
    )]);
    assert_eq!(verdict.failure.unwrap().kind, FailureKind::LintFailed);
    assert!(
        verdict.log[0].contains("something else entirely"),
        "{:?}",
        verdict.log
    );
}
