//! Tools that refuse to work, and notebooks that no tool can read. The words are those of the pinned tools.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use notebook::nbformat::MAX_BYTES;

use super::*;

const UNCHANGED: &str = "Notebook(s) would be left unchanged\n";

/// Tool, exit code, standard error, a part of the message.
const REFUSALS: [(&str, i32, &str, &str); 8] = [
    (
        "black",
        2,
        "Usage: python -m black [OPTIONS] SRC ...\nTry 'python -m black --help' for help.\n\nError: No such option '--nosuchoption'.\n",
        "black refuses its options or settings: No such option '--nosuchoption'.",
    ),
    (
        "flake8",
        2,
        "usage: flake8 [options] file file ...\nflake8: error: unrecognized arguments: --nosuchoption\n",
        "flake8 refuses its options or settings: unrecognized arguments: --nosuchoption",
    ),
    (
        "pylint",
        32,
        "usage: pylint [options]\npylint: error: Unrecognized option found: nosuchoption\n",
        "pylint refuses its options or settings: Unrecognized option found: nosuchoption",
    ),
    (
        "pylint",
        2,
        "usage: pylint [options]\npylint: error: argument --max-line-length: invalid int value: 'abc'\n",
        "invalid int value: 'abc'",
    ),
    (
        "mypy",
        2,
        "mypy.ini: [mypy]: Unrecognized option: nosuch = maybe\nusage: mypy [-h] [-v] [-V] [more options; see below]\n            [files ...]\n\
         mypy: error: Mypy no longer supports checking Python 2 code.\n",
        "mypy refuses its options or mypy.ini: Mypy no longer supports checking Python 2 code.",
    ),
    (
        "vulture",
        2,
        "usage: vulture [options] [PATH ...]\nvulture: error: unrecognized arguments: --nosuchoption\n",
        "unrecognized arguments",
    ),
    (
        "ruff",
        2,
        "error: invalid value 'NOSUCH' for '--select <RULE_CODE>'\n\nFor more information, try '--help'.\n",
        "ruff refuses its options or settings: invalid value 'NOSUCH'",
    ),
    (
        "flake8",
        1,
        "Traceback (most recent call last):\n  File \"/usr/local/lib/python3.13/dist-packages/flake8/options/config.py\", line 131, in parse_config\n    \
         raise ValueError(\n    ...<3 lines>...\nValueError: Error code '#' supplied to 'extend-ignore' option does not match '^[A-Z]{1,3}[0-9]{0,3}$'\n",
        "flake8 refuses its options or settings: ValueError: Error code '#' supplied to 'extend-ignore'",
    ),
];

#[test]
fn a_tool_that_refuses_its_options_or_settings_is_the_projects_fault() {
    for (tool, code, err, message) in REFUSALS {
        let verdict = lint(&[(tool, LintLevel::Error, code, UNCHANGED, err)]);
        let failure = verdict.failure.unwrap();
        assert_eq!(failure.kind, FailureKind::LintFailed, "{tool}: {failure:?}");
        assert!(failure.message.contains(message), "{}", failure.message);
        assert!(verdict.runs[0].failed && failure.detail.is_none());
        // What it said is said once.
        let said: Vec<_> = verdict
            .log
            .iter()
            .filter(|text| text.contains(err.trim()))
            .collect();
        assert_eq!(said.len(), 1, "{:?}", verdict.log);
    }
    let missing = "There was a critical error during execution of Flake8:\nThe specified config file does not exist: x\n";
    let verdict = lint(&[("flake8", LintLevel::Error, 1, missing, "")]);
    assert!(
        verdict
            .failure
            .unwrap()
            .message
            .ends_with("file does not exist: x")
    );
}

#[test]
fn a_tool_that_crashes_is_the_platforms_fault_and_the_message_says_why() {
    let err = "Traceback (most recent call last):\n  File \"broken.py\", line 1, in <module>\n    raise RuntimeError('out of luck')\nRuntimeError: out of luck\n";
    for code in [1, 2] {
        let verdict = lint(&[("vulture", LintLevel::Error, code, "", err)]);
        let failure = verdict.failure.unwrap();
        assert_eq!(failure.kind, FailureKind::Internal);
        assert!(
            failure.message.ends_with(": RuntimeError: out of luck"),
            "{}",
            failure.message
        );
    }
}

#[test]
fn what_a_tool_says_beside_its_findings_is_shown() {
    let out = "a.ipynb:3:1: error: Name \"x\" is not defined  [name-defined]\n";
    let err = "mypy.ini: [mypy]: strict: Not a boolean: maybe\n";
    let verdict = lint(&[("mypy", LintLevel::Error, 1, out, err)]);
    assert_eq!(
        verdict.log,
        [format!("mypy also said:\n{}", err.trim_end())]
    );
    assert_eq!((verdict.findings.len(), verdict.runs[0].failed), (1, false));
    let counts = "reformatted a.ipynb\n\nAll done! ✨ 🍰 ✨\n1 file reformatted.\n";
    let unknown = "Invalid config keys detected: 'nosuch' (in /w/pyproject.toml)\n";
    let diff = "To apply these changes, remove the `--nbqa-diff` flag\n";
    let verdict = lint(&[(
        "black",
        LintLevel::Error,
        0,
        diff,
        &format!("{unknown}{counts}"),
    )]);
    assert_eq!(
        verdict.log,
        [format!("black also said:\n{}", unknown.trim_end())]
    );
    let verdict = lint(&[("black", LintLevel::Error, 0, diff, counts)]);
    assert!(verdict.log.is_empty(), "{:?}", verdict.log);
}

/// A folder with notebooks, linted by a ruff that only says which it was given.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for folder in ["w", "tmp", "bin"] {
            std::fs::create_dir(world.path(folder)).unwrap();
        }
        let ruff = world.path("bin/ruff");
        std::fs::write(
            &ruff,
            "#!/bin/sh\necho \"$@\" >\"$TMPDIR/seen\"\necho '[]'\n",
        )
        .unwrap();
        std::fs::set_permissions(&ruff, std::fs::Permissions::from_mode(0o755)).unwrap();
        world
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn lint(&self, notebooks: &[&str]) -> Verdict {
        let notebooks: Vec<String> = notebooks.iter().map(|&path| path.to_owned()).collect();
        let tools = [LintTool::named("ruff")];
        prepare(&notebooks, &self.path("w"), &self.path("originals")).unwrap();
        let argv = argv(&tools, &notebooks, 1_000);
        let path = format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        let done = Command::new(&argv[0])
            .args(&argv[1..])
            .env("PATH", path)
            .env("TMPDIR", self.path("tmp"))
            .current_dir(self.path("w"))
            .status();
        assert!(done.unwrap().success());
        read(&Ran {
            tools: &tools,
            notebooks: &notebooks,
            workspace: &self.path("w"),
            originals: &self.path("originals"),
            inside: "/workspace",
            tmp: &self.path("tmp"),
            whole: true,
        })
    }
}

#[test]
fn each_notebook_that_cannot_be_read_is_a_finding_and_the_others_are_linted() {
    let world = World::new();
    let no_source = r#"{"cells": [{"cell_type": "raw", "metadata": {}, "source": ""}, {"cell_type": "code"}], "metadata": {}, "nbformat": 4}"#;
    std::fs::write(world.path("w/good one.ipynb"), NOTEBOOK).unwrap();
    std::fs::write(world.path("w/source.ipynb"), no_source).unwrap();
    std::fs::write(world.path("w/cut.ipynb"), "{\n\"cells\": [{\"cell_ty").unwrap();
    let large = std::fs::File::create(world.path("w/large.ipynb")).unwrap();
    large.set_len(MAX_BYTES as u64 + 1).unwrap();
    let all = [
        "good one.ipynb",
        "source.ipynb",
        "cut.ipynb",
        "large.ipynb",
        "gone.ipynb",
    ];
    // The second time as after a restart of the agent.
    for _ in 0..2 {
        let verdict = world.lint(&all);
        let seen = std::fs::read_to_string(world.path("tmp/seen")).unwrap();
        assert!(seen.ends_with("json good one.ipynb\n"), "{seen}");
        let found: Vec<_> = verdict
            .findings
            .iter()
            .map(|f| (f.path.as_str(), f.cell, f.line, f.message.as_str()))
            .collect();
        let source = "it has no `source`; add one, empty where there is nothing to say";
        let large = "the file is larger than 384 MiB, the most that is read; clear its outputs";
        assert_eq!(found[0], ("source.ipynb", Some(2), None, source));
        assert_eq!((found[1].0, found[1].2), ("cut.ipynb", Some(2)));
        assert!(
            found[1].3.starts_with("the file is cut off: "),
            "{}",
            found[1].3
        );
        assert_eq!(found[2], ("large.ipynb", None, None, large));
        assert_eq!(
            found[3],
            ("gone.ipynb", None, None, "there is no such file")
        );
        assert_eq!((found.len(), verdict.runs.len()), (4, 1));
        let failure = verdict.failure.unwrap();
        assert_eq!(failure.kind, FailureKind::NotebookInvalid);
        assert_eq!(
            failure.message,
            "4 notebooks cannot be read: source.ipynb, cut.ipynb, large.ipynb, gone.ipynb"
        );
    }
}

#[test]
fn where_no_notebook_can_be_read_no_tool_starts() {
    let world = World::new();
    std::fs::write(world.path("w/none.ipynb"), "{}").unwrap();
    let verdict = world.lint(&["none.ipynb"]);
    assert!(!world.path("tmp/seen").exists() && verdict.runs.is_empty());
    assert_eq!(
        verdict.failure.unwrap().message,
        "none.ipynb: this is JSON but not a notebook: `nbformat` is missing"
    );
}

#[test]
fn notebooks_that_nbqa_cannot_read_are_named_together() {
    let old = |n: usize| {
        format!("nbQA failed to process {n}.ipynb with exception \"KeyError('cells')\"\n")
    };
    let err: String = (1..13).map(old).collect();
    let verdict = lint(&[("flake8", LintLevel::Error, 1, "", &err)]);
    let message = verdict.failure.unwrap().message;
    assert!(
        message.starts_with("flake8 could not read 1.ipynb, 2.ipynb, 3.ipynb"),
        "{message}"
    );
    assert!(
        message.ends_with("10.ipynb and 2 more: older than nbformat 4"),
        "{message}"
    );
}
