//! What a lint tool may print: findings or none, never a panic, and each at a place that the notebook has.
#![no_main]

use std::sync::LazyLock;

use agent::lint::parse;
use libfuzzer_sys::fuzz_target;
use notebook::{LineMap, Notebook, read};

const PATH: &str = "train.ipynb";
const TOOLS: [&str; 12] = [
    "ruff",
    "nbqa ruff",
    "black",
    "nbqa black",
    "isort",
    "nbqa isort",
    "flake8",
    "nbqa flake8",
    "mypy",
    "pylint",
    "nbqa pylint",
    "doctest",
];
/// Most findings of one tool that are kept, as `agent::lint` says.
const MOST_FINDINGS: usize = 5_000;
const FILE: &str = r##"{
 "cells": [
  {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Words\n", "more"]},
  {"cell_type": "code", "execution_count": null, "id": "b", "metadata": {}, "outputs": [],
   "source": [
    "import os\n",
    "%matplotlib inline\n",
    "x = 1"
   ]},
  {"cell_type": "code", "execution_count": null, "id": "c", "metadata": {}, "outputs": [], "source": []},
  {"cell_type": "code", "execution_count": null, "id": "d", "metadata": {}, "outputs": [],
   "source": ["def f(a):\n",
    "    return a + é\n"]}
 ],
 "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
 "nbformat": 4,
 "nbformat_minor": 5
}
"##;

static NOTEBOOK: LazyLock<(Notebook, LineMap)> = LazyLock::new(|| {
    let notebook = read(FILE.as_bytes()).expect("a notebook");
    (notebook, LineMap::read(FILE.as_bytes()).expect("JSON"))
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&tool, said)) = bytes.split_first() else {
        return;
    };
    let tool = TOOLS[usize::from(tool) % TOOLS.len()];
    let mut parts = said
        .splitn(2, |&byte| byte == 0xff)
        .map(String::from_utf8_lossy);
    let out = parts.next().unwrap_or_default();
    let err = parts.next().unwrap_or_default();
    let findings = parse(tool, &out, &err, &[(PATH, FILE.as_bytes())]);
    assert!(findings.len() <= MOST_FINDINGS);
    let (notebook, map) = &*NOTEBOOK;
    let raw_lines = FILE.lines().count() as u32;
    for finding in findings.iter().filter(|finding| finding.path == PATH) {
        if let Some(raw) = finding.raw_line {
            assert!((1..=raw_lines).contains(&raw), "{finding:?}");
        }
        let Some(cell) = finding.cell else { continue };
        let index = (cell as usize).checked_sub(1).expect("cells count from 1");
        assert!(index < notebook.cells.len(), "{finding:?}");
        if let Some(line) = finding.line {
            let raw = map.raw_line(index, line as usize);
            assert!(raw.is_some(), "the cell has no such line: {finding:?}");
            assert!(
                finding.raw_line.is_none() || finding.raw_line == raw,
                "{finding:?}"
            );
        }
    }
});
