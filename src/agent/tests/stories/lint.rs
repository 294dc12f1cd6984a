//! Lint with the real tools, in the image that jobs get.

use protocol::agent_api::AttemptOrder;
use protocol::event::{EventKind, Finding, ToolRun};
use protocol::spec::{LintLevel, LintTool};
use protocol::{ByteSize, FailureKind, Outcome, Span, Work};

use crate::support::{Done, World, engine};

/// `pylint` at level error, `?pylint` at level warn, `!ruff` and `!vulture -v` through nbQA.
fn tool(text: &str) -> LintTool {
    let (level, text) = match text.strip_prefix('?') {
        Some(text) => (LintLevel::Warn, text),
        None => (LintLevel::Error, text),
    };
    let (nbqa, text) = match text.strip_prefix('!') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut words = text.split(' ').map(str::to_owned);
    LintTool {
        tool: words.next().unwrap(),
        nbqa,
        args: words.collect(),
        level,
    }
}

fn order(world: &World, tools: &[&str], notebooks: &[&str]) -> AttemptOrder {
    let mut order = world.order(Work::Lint {
        tools: tools.iter().map(|text| tool(text)).collect(),
        notebooks: notebooks.iter().map(|&path| path.to_owned()).collect(),
    });
    order.spec.resources.memory = ByteSize::gib(2);
    order
}

/// What the platform said.
fn shown(done: &Done) -> String {
    let events = done.events().into_iter();
    events
        .filter_map(|event| match event {
            EventKind::Log { text, .. } => Some(text),
            _ => None,
        })
        .collect()
}

fn findings(done: &Done) -> Vec<Finding> {
    let events = done.events().into_iter();
    events
        .filter_map(|event| match event {
            EventKind::Finding(finding) => Some(finding),
            _ => None,
        })
        .collect()
}

fn runs(done: &Done) -> Vec<ToolRun> {
    let events = done.events().into_iter();
    events
        .filter_map(|event| match event {
            EventKind::ToolFinished(run) => Some(run),
            _ => None,
        })
        .collect()
}

/// Tool, code, cell, line.
fn spots(done: &Done) -> Vec<(String, String, Option<u32>, Option<u32>)> {
    let spot = |f: Finding| (f.tool, f.code.unwrap_or_default(), f.cell, f.line);
    findings(done).into_iter().map(spot).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_finds_cell_and_line() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let source =
        "%matplotlib inline\nimport os\nx: int = 'a'\ndef f():\n    b=2\n    return undefined";
    world.notebook("a.ipynb", &["y = 1", source]);
    let tools = [
        "ruff",
        "ruff-format",
        "?black",
        "?isort",
        "?flake8",
        "mypy",
        "?pylint",
        "?pyupgrade",
        "?!vulture --min-confidence 60",
        "?!ruff",
    ];
    let mut order = order(&world, &tools, &["a.ipynb"]);
    order.spec.resources.cpu_millis = 2_000;
    let done = world.run(&order).await;
    assert_eq!(
        done.failure().kind,
        FailureKind::LintFailed,
        "{:?}",
        done.failure()
    );
    let found = spots(&done);
    for (tool, code, line) in [
        ("ruff", "F821", 6),
        ("ruff-format", "", 3),
        ("black", "", 3),
        ("flake8", "F841", 5),
        ("mypy", "assignment", 3),
        ("pylint", "E0602", 6),
        ("vulture", "", 4),
        ("nbqa ruff", "F821", 6),
    ] {
        let expected = (tool.to_owned(), code.to_owned(), Some(2), Some(line));
        assert!(
            found.contains(&expected),
            "{expected:?} is missing in {found:?}"
        );
    }
    let runs = runs(&done);
    let names: Vec<&str> = runs.iter().map(|run| run.tool.as_str()).collect();
    assert_eq!(names.len(), tools.len(), "{names:?}");
    assert!(
        runs.iter()
            .all(|run| run.code.is_some() && run.took > Span(0)),
        "{runs:?}"
    );
    let pyupgrade = runs.iter().find(|run| run.tool == "pyupgrade").unwrap();
    assert_eq!((pyupgrade.code, pyupgrade.findings), (Some(0), 0));
    let patch = findings(&done)
        .into_iter()
        .find(|f| f.tool == "ruff-format");
    assert!(
        patch
            .unwrap()
            .suggestion
            .unwrap()
            .contains("\n+    b = 2\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ruff_says_the_same_both_ways() {
    if !engine().await {
        return;
    }
    let world = World::new();
    let definitions = "import os\n@print\ndef g():\n    l = 1\n    return undefined_a\ndef h():\n    b = 2\n    return 1\nz = [undefined_b]";
    let magics = "%matplotlib inline\ny = !ls\nimport re\nprint(undefined_c);";
    let timed = "%%time\n\n\nclass A:\n    def m(self):\n        return undefined_d\n    def n(self):\n        return f''";
    let text = "t = 'x\u{2028}y'\nimport sys";
    let after = "assert (undefined_e, '')\nx = lambda: 1";
    world
        .notebook("a.ipynb", &[definitions, magics, "%%bash\nls $x", timed])
        .notebook("sub/b c.ipynb", &[text, "", after, definitions])
        .write("pyproject.toml", "[tool.ruff.lint]\nselect = ['E7', 'F']\n");
    let order = order(&world, &["ruff", "!ruff"], &["a.ipynb", "sub/b c.ipynb"]);
    let done = world.run(&order).await;
    assert_eq!(done.failure().kind, FailureKind::LintFailed);
    let of = |tool: &str| {
        let all = findings(&done).into_iter().filter(|f| f.tool == tool);
        let mut all: Vec<_> = all
            .map(|f| {
                (
                    f.path,
                    f.cell,
                    f.code_cell,
                    f.line,
                    f.column,
                    f.raw_line,
                    f.code,
                )
            })
            .collect();
        all.sort();
        all
    };
    let (native, joined) = (of("ruff"), of("nbqa ruff"));
    assert!(native.len() > 15, "{native:?}");
    assert!(
        native.iter().all(|f| f.3.is_some() && f.5.is_some()),
        "{native:?}"
    );
    assert_eq!(native, joined);
}

/// The same notebook where nothing is configured and where everything that it finds is excused.
#[tokio::test(flavor = "multi_thread")]
async fn the_projects_settings_count() {
    if !engine().await {
        return;
    }
    let source = "import sys\nimport os\n\nprint(os, sys, 'a')\nassert True == 1\nx: int = 'b'";
    let tools = [
        "ruff",
        "ruff-format",
        "black",
        "isort",
        "flake8",
        "mypy",
        "pylint",
        "!vulture",
    ];
    let plain = World::new();
    plain.notebook("n/a.ipynb", &[source, "def f():\n    pass"]);
    let done = plain.run(&order(&plain, &tools, &["n/a.ipynb"])).await;
    for run in runs(&done) {
        assert!(run.findings > 0, "{run:?}: {}", shown(&done));
    }
    let project = World::new();
    project
        .notebook("n/a.ipynb", &[source, "def f():\n    pass"])
        .notebook("legacy/old.ipynb", &["import os"])
        .write(
            "pyproject.toml",
            "[tool.ruff]\nextend-exclude = ['legacy']\n[tool.ruff.lint]\nignore = ['ALL']\n\
             [tool.ruff.format]\nquote-style = 'single'\n\
             [tool.black]\nskip-string-normalization = true\nforce-exclude = 'legacy'\n\
             [tool.isort]\nforce_sort_within_sections = true\nskip_glob = ['*']\n\
             [tool.nbqa.exclude]\nvulture = 'a.ipynb|legacy'\n\
             [tool.nbqa.addopts]\nflake8 = ['--extend-ignore=E712']\n"
                .replace("extend = []\n", "")
                .as_str(),
        )
        .write(
            ".flake8",
            "[flake8]\nignore = W\nexclude = legacy/*\nmax-line-length = 200\n",
        )
        .write("setup.cfg", "[mypy]\ndisable_error_code = assignment\n")
        .write(
            ".pylintrc",
            "[MAIN]\nignore-paths = .*legacy.*\n[MESSAGES CONTROL]\ndisable = all\n",
        );
    let paths = ["legacy/old.ipynb", "n/a.ipynb"];
    let done = project.run(&order(&project, &tools, &paths)).await;
    let found = findings(&done);
    assert!(found.is_empty(), "{found:#?}");
    assert!(
        matches!(done.report.outcome, Outcome::Succeeded),
        "{}",
        shown(&done)
    );
    let names: Vec<String> = runs(&done).into_iter().map(|run| run.tool).collect();
    assert_eq!(names.len(), tools.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_does_not_end_is_named_and_the_others_findings_are_kept() {
    if !engine().await {
        return;
    }
    let world = World::new();
    world
        .notebook("a.ipynb", &["import os"])
        .write("sleeper.py", "import time\ntime.sleep(600)\n");
    let mut order = order(&world, &["ruff", "sleeper", "flake8"], &["a.ipynb"]);
    order.spec.limits.timeout = Span::secs(12);
    order.spec.resources.cpu_millis = 2_000;
    let done = world.run(&order).await;
    assert_eq!(done.failure().kind, FailureKind::JobTimeout);
    let message = &done.failure().message;
    assert!(
        message.ends_with("these had not ended: sleeper"),
        "{message}"
    );
    let found = spots(&done);
    for tool in ["ruff", "flake8"] {
        let expected = (tool.to_owned(), "F401".to_owned(), Some(1), Some(1));
        assert!(found.contains(&expected), "{found:?}");
    }
    let run = runs(&done).into_iter().find(|run| run.tool == "sleeper");
    assert_eq!(run.unwrap().code, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_breaks_is_no_finding_and_one_that_warns_fails_nothing() {
    if !engine().await {
        return;
    }
    let world = World::new();
    world
        .notebook("a.ipynb", &["import os"])
        .write("broken.py", "raise RuntimeError('out of luck')\n")
        .write("killed.py", "import os\nos.kill(os.getpid(), 9)\n")
        .write(
            "strange.py",
            "print('something odd about ' + 'x' * 10)\nraise SystemExit(3)\n",
        );
    let ended = async |tools: &[&str]| world.run(&order(&world, tools, &["a.ipynb"])).await;
    let done = ended(&["broken"]).await;
    assert_eq!(done.failure().kind, FailureKind::Internal);
    assert!(
        done.failure().message.contains("out of luck"),
        "{:?}",
        done.failure()
    );
    let done = ended(&["killed"]).await;
    assert_eq!(done.failure().kind, FailureKind::Internal);
    assert!(
        done.failure().message.contains("signal 9"),
        "{:?}",
        done.failure()
    );
    let done = ended(&["strange"]).await;
    assert_eq!(done.failure().kind, FailureKind::LintFailed);
    assert!(
        shown(&done).contains("something odd about xxxxxxxxxx"),
        "{}",
        shown(&done)
    );
    let done = ended(&["no-such-tool"]).await;
    assert_eq!(
        done.failure().kind,
        FailureKind::ImageUnusable,
        "{:?}",
        done.failure()
    );
    let done = ended(&["?broken", "?killed", "?strange", "?no-such-tool", "?ruff"]).await;
    done.succeeded();
    assert!(shown(&done).contains("out of luck"), "{}", shown(&done));
    assert_eq!(findings(&done).len(), 1);
    world.write("pyproject.toml", "[tool.ruff\n");
    for name in ["ruff", "black"] {
        let done = ended(&[name]).await;
        assert_eq!(
            done.failure().kind,
            FailureKind::LintFailed,
            "{:?}",
            done.failure()
        );
        assert!(
            done.failure().message.contains("pyproject.toml"),
            "{:?}",
            done.failure()
        );
    }
}
