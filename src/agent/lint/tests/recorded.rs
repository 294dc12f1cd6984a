//! What the pinned tools said, as record.py kept it.

use super::*;

const TOOLS: [&str; 10] = [
    "ruff",
    "nbqa ruff",
    "ruff-format",
    "black",
    "isort",
    "flake8",
    "mypy",
    "pylint",
    "pyupgrade",
    "vulture",
];
const NOTEBOOKS: [&str; 4] = ["mess.ipynb", "bad.ipynb", "magic.ipynb", "b b.ipynb"];

fn data(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("lint/tests/data");
    std::fs::read(folder.join(name)).unwrap_or_default()
}

fn text(name: &str) -> String {
    String::from_utf8(data(name)).unwrap()
}

fn found(tool: &str) -> Vec<Finding> {
    let notebooks = NOTEBOOKS.map(|path| (path, data(path)));
    let notebooks: Vec<(&str, &[u8])> = notebooks
        .iter()
        .map(|(path, bytes)| (*path, bytes.as_slice()))
        .collect();
    let file = |end: &str| text(&format!("{tool}.{end}"));
    let notes = data(&format!("{tool}.notes"));
    assert!(!file("code").is_empty(), "{tool} was not recorded");
    parse_with_notes(tool, &file("out"), &file("err"), &notes, &notebooks)
}

/// Path, cell, line, code.
type Spot = (String, Option<u32>, Option<u32>, Option<String>);

fn spots(findings: &[Finding]) -> Vec<Spot> {
    let spot = |f: &Finding| (f.path.clone(), f.cell, f.line, f.code.clone());
    findings.iter().map(spot).collect()
}

fn spot(path: &str, cell: u32, line: u32, code: &str) -> Spot {
    (path.into(), Some(cell), Some(line), Some(code.into()))
}

/// Whatever a message quotes stands in the line that the finding names, in the cell and in the raw file.
#[test]
fn every_line_bears_out_its_finding() {
    let mut seen = 0;
    for tool in ["ruff", "nbqa ruff", "flake8", "mypy", "pylint", "vulture"] {
        for finding in found(tool) {
            let names = ["und", "F841", "F401", "unused"];
            let about = format!("{:?} {}", finding.code, finding.message);
            if finding.code.as_deref() == Some("invalid-syntax")
                // A function begins at its decorator.
                || ["function", "property"].iter().any(|of| about.contains(of))
                || !names.iter().any(|name| about.contains(name))
            {
                continue;
            }
            let quoted = finding.message.split(['\'', '"', '`']).nth(1);
            let Some(name) = quoted.or(finding.message.strip_prefix("Unused import ")) else {
                continue;
            };
            let name = name.split(' ').next().unwrap();
            let raw = text(&finding.path);
            let line = raw
                .lines()
                .nth(finding.raw_line.unwrap() as usize - 1)
                .unwrap();
            assert!(line.contains(name), "{tool}: {finding:?} is not at {line}");
            let notebook = notebook::read(raw.as_bytes()).unwrap();
            let cell = &notebook.cells[finding.cell.unwrap() as usize - 1];
            let line = cell
                .source
                .split('\n')
                .nth(finding.line.unwrap() as usize - 1);
            let line = line.unwrap();
            assert!(line.contains(name), "{tool}: {finding:?} is not at {line}");
            if let Some(column) = finding.column.filter(|_| about.contains("ndefined")) {
                let from: String = line.chars().skip(column as usize - 1).collect();
                assert!(from.starts_with(name), "{tool}: {finding:?}: {from}");
            }
            let code = notebook
                .code_cells()
                .nth(finding.code_cell.unwrap() as usize - 1);
            assert_eq!(code.unwrap().0 + 1, finding.cell.unwrap() as usize);
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} findings were looked at");
}

/// Without notes, as with an nbQA that is not the one we know: nearly half of its lines are wrong, and none of ours.
#[test]
fn nbqas_own_lines_are_right_or_none() {
    let notebooks = NOTEBOOKS.map(|path| (path, data(path)));
    let notebooks: Vec<(&str, &[u8])> = notebooks
        .iter()
        .map(|(path, bytes)| (*path, bytes.as_slice()))
        .collect();
    let printed = text("flake8-plain.out");
    let plain = parse("flake8", &printed, "", &notebooks);
    let noted = found("flake8");
    assert_eq!(plain.len(), printed.lines().count());
    let (mut theirs, mut ours) = (0, 0);
    for (finding, said) in plain.iter().zip(printed.lines()) {
        let about = |other: &&Finding| {
            (&other.path, &other.code, &other.message)
                == (&finding.path, &finding.code, &finding.message)
        };
        let right: Vec<(Option<u32>, Option<u32>)> = noted
            .iter()
            .filter(about)
            .map(|other| (other.code_cell, other.line))
            .collect();
        if finding.line.is_some() {
            let place = (finding.code_cell, finding.line);
            assert!(
                right.contains(&place),
                "{said}: {place:?}, not one of {right:?}"
            );
            ours += 1;
        }
        let mut numbers = said.split(':').skip(1);
        let cell = numbers.next().and_then(|cell| cell.strip_prefix("cell_"));
        let place = (
            cell.and_then(|cell| cell.parse().ok()),
            numbers.next().and_then(|line| line.parse().ok()),
        );
        theirs += usize::from(right.contains(&place));
    }
    assert_eq!((plain.len(), theirs, ours), (27, 15, 14));
}

/// ruff natively and through nbQA: the same cells, lines and codes, but for what one of them cannot know.
#[test]
fn ruff_says_the_same_both_ways() {
    let (native, joined) = (spots(&found("ruff")), spots(&found("nbqa ruff")));
    let only = |one: &[Spot], other: &[Spot]| -> Vec<Spot> {
        let mut only: Vec<Spot> = one.to_vec();
        only.retain(|spot| !other.contains(spot));
        only.dedup();
        only
    };
    assert_eq!(
        only(&native, &joined),
        [
            // nbQA has moved the blank lines that ruff dislikes.
            spot("mess.ipynb", 5, 3, "I001"),
            // nbQA leaves out a cell with a magic over two lines.
            spot("mess.ipynb", 9, 3, "F821"),
        ]
    );
    assert_eq!(
        only(&joined, &native),
        [
            // The last expression of a cell is shown: nbQA does not know where a cell ends.
            spot("b b.ipynb", 1, 2, "B018"),
            // Where one cell is no Python, ruff says nothing of the others.
            spot("bad.ipynb", 2, 1, "F401"),
            spot("bad.ipynb", 4, 1, "F821"),
            spot("bad.ipynb", 4, 1, "B018"),
            spot("mess.ipynb", 12, 13, "B018"),
            spot("mess.ipynb", 13, 2, "B018"),
        ]
    );
    let both = native.iter().filter(|spot| joined.contains(spot)).count();
    assert_eq!(both, 20);
}

/// No tool that nbQA runs sees such a cell, and none may pass it.
#[test]
fn a_cell_that_is_no_python_is_a_finding_of_every_tool() {
    for tool in TOOLS {
        let expected = spot("bad.ipynb", 3, 1, "invalid-syntax");
        assert!(spots(&found(tool)).contains(&expected), "{tool}");
    }
}

/// The patches, applied to the notebook, are what the tool would write: applied again there is nothing left.
#[test]
fn formatters_suggest_a_patch() {
    let suggestion = |tool: &str, path: &str, cell: u32| {
        let all = found(tool);
        let mut all = all
            .into_iter()
            .filter(|f| (f.path.as_str(), f.cell) == (path, Some(cell)));
        all.find_map(|f| f.suggestion).unwrap()
    };
    assert_eq!(
        suggestion("isort", "mess.ipynb", 2),
        "@@ -1,2 +1,2 @@\n+import os\n import sys\n-import os"
    );
    let mess = notebook::read(&data("mess.ipynb")).unwrap();
    let patched = |tool: &str, cell: u32| {
        let diff = suggestion(tool, "mess.ipynb", cell);
        notebook::patch::apply(&mess.cells[cell as usize - 1].source, &diff).unwrap()
    };
    let formatted = "%matplotlib inline\nx = 1\n\n\ndef f(a):\n    b = a + 1\n    y = undefined_name\n    return 3";
    assert_eq!(patched("black", 3), formatted);
    assert_eq!(patched("ruff-format", 3), formatted);
    assert_eq!(
        patched("black", 6),
        "%%time\n\n\ndef h():\n    pass\n\n\nzz = undefined2"
    );
    // A magic's backslashes are its own.
    let magic = notebook::read(&data("magic.ipynb")).unwrap();
    let diff = suggestion("black", "magic.ipynb", 1);
    assert_eq!(
        notebook::patch::apply(&magic.cells[0].source, &diff).unwrap(),
        "!printf 'a\\nb\\d' \\1\nx = 1"
    );
    // isort leaves alone what only nbQA's blank lines changed.
    assert_eq!(
        found("isort")
            .iter()
            .filter(|f| f.suggestion.is_some())
            .count(),
        1
    );
}

#[test]
fn a_fix_writes_sources_and_no_other_byte() {
    let before = data("mess.ipynb");
    let (isort, black) = (found("isort"), found("black"));
    let of_mess = |f: &&Finding| f.path == "mess.ipynb";
    let all: Vec<&Finding> = isort.iter().chain(&black).filter(of_mess).collect();
    let fixed = fix::apply(&before, &all).unwrap();
    assert_eq!(
        fixed.cells.keys().copied().collect::<Vec<_>>(),
        [2, 3, 6, 10, 12, 13]
    );
    assert_eq!(
        (fixed.cells[&2].as_slice(), fixed.left.len()),
        (["isort".to_owned()].as_slice(), 0)
    );
    let (was, is) = (
        notebook::read(&before).unwrap(),
        notebook::read(&fixed.bytes).unwrap(),
    );
    for (index, (was, is)) in was.cells.iter().zip(&is.cells).enumerate() {
        let cell = u32::try_from(index + 1).unwrap();
        assert_eq!(
            was.source != is.source,
            fixed.cells.contains_key(&cell),
            "cell {cell}"
        );
    }
    assert_eq!(is.cells[1].source, "import os\nimport sys");
    // What is outside of the sources stands as it stood.
    let outside = |text: &[u8]| -> Vec<String> {
        let text = String::from_utf8(text.to_vec()).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("    \""));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(outside(&before), outside(&fixed.bytes));
    // A second time nothing fits, and nothing is written.
    let again = fix::apply(&fixed.bytes, &all).unwrap();
    assert_eq!(
        (again.bytes == fixed.bytes, again.left.len()),
        (true, all.iter().filter(|f| f.suggestion.is_some()).count())
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Whatever a tool says, nothing breaks, and a place that is named is there.
    #[test]
    fn places_exist_whatever_is_said(
        which in 0_usize..10,
        cuts in proptest::collection::vec((0_usize..8_000, 0_usize..200, "\\PC{0,12}|[0-9:@+ -]{1,6}|\n"), 0..6),
    ) {
        let tool = TOOLS[which];
        let spoil = |mut text: String| {
            for (at, length, new) in &cuts {
                let floor = |at: usize| (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap();
                let (from, to) = (floor(*at), floor(at + length));
                text.replace_range(from..to, new);
            }
            text
        };
        let file = |end: &str| text(&format!("{tool}.{end}"));
        let notebooks = NOTEBOOKS.map(|path| (path, data(path)));
        let notebooks: Vec<(&str, &[u8])> = notebooks.iter().map(|(path, bytes)| (*path, bytes.as_slice())).collect();
        let notes = String::from_utf8(data(&format!("{tool}.notes"))).unwrap();
        for notes in [notes.clone(), spoil(notes)] {
            for finding in parse_with_notes(tool, &spoil(file("out")), &spoil(file("err")), notes.as_bytes(), &notebooks) {
                let Some((_, bytes)) = notebooks.iter().find(|(path, _)| *path == finding.path) else {
                    continue;
                };
                let Some(cell) = finding.cell else {
                    proptest::prop_assert!(finding.line.is_none() && finding.raw_line.is_none());
                    continue;
                };
                let read = notebook::read(bytes).unwrap();
                let source = &read.cells[cell as usize - 1].source;
                if let Some(line) = finding.line {
                    let text = source.lines().nth(line as usize - 1).unwrap();
                    let width = text.chars().count();
                    proptest::prop_assert!(finding.column.is_none_or(|at| (1..=width + 1).contains(&(at as usize))));
                }
                if let Some(diff) = &finding.suggestion {
                    proptest::prop_assert!(notebook::patch::apply(source, diff).is_ok());
                }
            }
        }
    }
}
