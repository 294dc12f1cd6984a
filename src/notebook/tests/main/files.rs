//! Reading and writing, against files that Python's nbformat wrote.

use std::collections::HashSet;
use std::io::Read;

use notebook::message::{OutputMessage, StreamName};
use notebook::nbformat::{ReadError, read, read_in_pieces, write};
use notebook::{CellKind, Fold, Notebook, Output};
use serde_json::{Value, json};

const KINDS: &str = include_str!("../data/kinds.ipynb");
const EXECUTED: &str = include_str!("../data/executed.ipynb");

/// Python gives random ids where there were none: all ids alike.
fn without_ids(text: &str) -> String {
    let lines = text.split('\n').map(|line| {
        let blank = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("\"id\": ") {
            format!("{}\"id\": \"ID\",", &line[..blank])
        } else {
            line.to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn minimal(cells: Value) -> String {
    json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}).to_string()
}

#[test]
fn a_file_is_written_byte_for_byte_as_python_writes_it() {
    let expected = include_str!("../data/kinds.expected.ipynb");
    assert_eq!(write(&read(KINDS.as_bytes()).unwrap()), expected);
    assert_eq!(write(&read(expected.as_bytes()).unwrap()), expected);
    assert_eq!(write(&read(EXECUTED.as_bytes()).unwrap()), EXECUTED);
}

/// Valid by nbformat's schema, and seen nowhere else: fields and types of one's own, numbers at the ends of what 64 bits
/// hold, text in every place of the data that might be split into lines.
#[test]
fn what_is_odd_and_valid_is_kept_byte_for_byte() {
    let odd = include_bytes!("../data/odd.ipynb");
    let expected = include_str!("../data/odd.expected.ipynb");
    assert_eq!(write(&read(odd).unwrap()), expected);
    assert_eq!(write(&read(expected.as_bytes()).unwrap()), expected);
}

/// Gives a few bytes at a time.
struct Drops<'a>(&'a [u8], usize);

impl Read for Drops<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = into.len().min(self.1);
        self.0.read(&mut into[..most])
    }
}

#[test]
fn a_file_is_read_in_pieces_as_it_is_whole() {
    let long = "é😀\\\"\u{7f}\n\t".repeat(9_000);
    let lines: Vec<&str> = long.split_inclusive('\n').collect();
    let code = json!({"cell_type": "code", "id": "a", "metadata": {"n": [1.5, -7, null, true]}, "source": lines,
    "execution_count": 1, "outputs": [
        {"output_type": "stream", "name": "stdout", "text": lines},
        {"output_type": "display_data", "data": {"text/plain": long}, "metadata": {}},
    ]});
    let blanks = " ".repeat(200_000);
    let made = minimal(json!([code])).replace(
        "\"execution_count\":",
        &format!("{blanks}\"execution_count\"{blanks}:"),
    );
    let odd = include_str!("../data/odd.ipynb");
    for text in [made.as_str(), KINDS, EXECUTED, odd] {
        let whole = read(text.as_bytes()).unwrap();
        for size in [1, 2, 3, 1_000, 4_095, usize::MAX] {
            let found = read_in_pieces(&mut Drops(text.as_bytes(), size));
            assert_eq!(found.as_ref(), Some(&whole), "{size} bytes at a time");
        }
    }
}

#[test]
fn what_must_be_read_whole_is_not_read_in_pieces() {
    let good = minimal(json!([]));
    assert!(read_in_pieces(&mut good.as_bytes()).is_some());
    let whole = include_bytes!("../data/v3.ipynb").to_vec();
    let wrong = [
        good[..good.len() - 1].into(),
        [good.as_bytes(), b"x"].concat(),
        [good.as_bytes(), b" \xc3"].concat(),
        [good.as_bytes(), b" \xff"].concat(),
        good.replace("\"cells\"", "\"cel\x01ls\"").into_bytes(),
        minimal(json!([{"cell_type": "code"}])).into_bytes(),
        Vec::new(),
    ];
    for bytes in wrong.iter().chain([&whole]) {
        assert_eq!(read_in_pieces(&mut bytes.as_slice()), None);
    }
}

#[test]
fn older_files_become_what_python_makes_of_them() {
    for (file, expected) in [
        (
            include_str!("../data/v3.ipynb"),
            include_str!("../data/v3.expected.ipynb"),
        ),
        (
            include_str!("../data/v44.ipynb"),
            include_str!("../data/v44.expected.ipynb"),
        ),
    ] {
        let text = write(&read(file.as_bytes()).unwrap());
        assert_eq!(without_ids(&text), without_ids(expected));
    }
}

#[test]
fn what_an_older_file_becomes_is_read_again() {
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for json in [deep(1), deep(122), deep(123), deep(128), "{".into()] {
        let outputs = json!([{"output_type": "display_data", "json": json}]);
        let cell = json!({"cell_type": "code", "input": "x", "source": "y", "outputs": outputs});
        // `cells` and `nbformat_minor` of nbformat 4 mean nothing here.
        let file = json!({"nbformat": 3, "worksheets": [{"cells": [cell]}], "cells": [7], "nbformat_minor": 9});
        let first = read(file.to_string().as_bytes()).unwrap();
        assert_eq!(first.cells[0].source, "x");
        let text = write(&first);
        assert_eq!(text.matches("\"cells\"").count(), 1);
        assert_eq!(read(text.as_bytes()).as_ref(), Ok(&first), "{json}");
    }
}

#[test]
fn ids_that_are_missing_are_the_same_at_each_read() {
    let old = include_str!("../data/v44.ipynb");
    let first = read(old.as_bytes()).unwrap();
    assert_eq!(first, read(old.as_bytes()).unwrap());
    let ids: HashSet<&str> = first.cells.iter().map(|cell| cell.id.as_str()).collect();
    assert_eq!(
        ids.len(),
        first.cells.len(),
        "equal cells have different ids"
    );

    let cell = |source: &str| json!({"cell_type": "code", "metadata": {}, "source": source, "outputs": []});
    let before = read(minimal(json!([cell("a"), cell("b")])).as_bytes()).unwrap();
    let after = read(minimal(json!([cell("new"), cell("a"), cell("b")])).as_bytes()).unwrap();
    assert_eq!(before.cells[1].id, after.cells[2].id);
}

#[test]
fn wrong_and_repeated_ids_are_repaired() {
    let cell = |id: Value| json!({"cell_type": "raw", "metadata": {}, "source": "", "id": id});
    let long = "x".repeat(65);
    let ids = json!([
        cell("a".into()),
        cell("a".into()),
        cell("".into()),
        cell("ä".into()),
        cell(3.into()),
        cell(long.into()),
        cell("b-_9".into())
    ]);
    let read = read(minimal(ids).as_bytes()).unwrap();
    let ids: Vec<&str> = read.cells.iter().map(|cell| cell.id.as_str()).collect();
    assert_eq!((ids[0], ids[6]), ("a", "b-_9"));
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 7, "{ids:?}");
    let valid =
        |id: &str| id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    assert!(ids[1..6].iter().all(|id| valid(id)), "{ids:?}");
}

#[test]
fn many_equal_cells_are_read_in_linear_time() {
    let cell = r#"{"cell_type":"code","metadata":{},"outputs":[],"source":""}"#;
    let file = |cells: &str| format!(r#"{{"nbformat":4,"metadata":{{}},"cells":[{cells}]}}"#);
    let many = file(&vec![cell; 20_000].join(","));
    let many = read(many.as_bytes()).unwrap();
    let ids: HashSet<&str> = many.cells.iter().map(|cell| cell.id.as_str()).collect();
    assert_eq!(ids.len(), 20_000);
    let too_many = file(&vec!["0"; 100_001].join(","));
    let refused = Err(ReadError::TooManyCells { cells: 100_001 });
    assert_eq!(read(too_many.as_bytes()), refused);
}

#[test]
fn outputs_are_typed_and_unknown_ones_kept() {
    let executed = read(EXECUTED.as_bytes()).unwrap();
    let said = executed.cells[1].outputs[0].message();
    assert_eq!(
        said,
        Some(&OutputMessage::Stream {
            name: StreamName::Stdout,
            text: "out\nmore\n".into()
        })
    );
    assert!(
        matches!(executed.cells[5].outputs[0].message(), Some(OutputMessage::Error { ename, .. }) if ename == "ZeroDivisionError")
    );

    let odd = json!([{"output_type": "hologram", "text": ["a"]}, {"output_type": "stream", "name": "stdlog", "text": "x"},
        {"output_type": "execute_result", "execution_count": null, "data": {}}, {"output_type": "display_data"}]);
    let cells = json!([{"cell_type": "code", "id": "a", "metadata": {"scrolled": "auto"}, "source": "", "outputs": odd}]);
    let read_back = read(write(&read(minimal(cells).as_bytes()).unwrap()).as_bytes()).unwrap();
    let outputs = &read_back.cells[0].outputs;
    assert_eq!(read_back.cells[0].metadata["scrolled"], "auto");
    assert_eq!(
        outputs[0],
        Output::Unknown(odd[0].as_object().unwrap().clone())
    );
    assert_eq!(
        outputs[1],
        Output::Unknown(odd[1].as_object().unwrap().clone())
    );
    assert!(matches!(
        outputs[2].message(),
        Some(OutputMessage::ExecuteResult {
            execution_count: None,
            ..
        })
    ));
    assert_eq!(outputs[3].message(), None);
}

#[test]
fn lists_that_are_no_text_of_a_cell_stay_lists() {
    let stream =
        |name: &str, text: Value| json!({"output_type": "stream", "name": name, "text": text});
    let outputs = json!([
        stream("stdlog", json!(["a\n", "b"])),
        stream("stdout", json!(["a\n", 1])),
        stream("stdout", json!(["a\n", "b"]))
    ]);
    let cells = json!([
        {"cell_type": "code", "id": "a", "metadata": {"source": ["a", "b"]}, "source": ["x\n", "y"], "outputs": outputs},
        {"cell_type": "markdown", "id": "b", "metadata": {}, "source": [], "outputs": outputs, "text": ["a", "b"]}]);
    let notebook = read(minimal(cells.clone()).as_bytes()).unwrap();
    let [code, markdown] = notebook.cells.as_slice() else {
        panic!("two cells");
    };
    assert_eq!(
        (code.source.as_str(), markdown.source.as_str()),
        ("x\ny", "")
    );
    assert_eq!(code.metadata["source"], json!(["a", "b"]));
    for n in [0, 1] {
        let kept = outputs[n].as_object().unwrap().clone();
        assert_eq!(code.outputs[n], Output::Unknown(kept));
    }
    let joined = code.outputs[2].message();
    assert!(matches!(joined, Some(OutputMessage::Stream { text, .. }) if text == "a\nb"));
    assert_eq!(
        (&markdown.extra["outputs"], &markdown.extra["text"]),
        (&outputs, &json!(["a", "b"]))
    );
}

#[test]
fn a_newer_minor_keeps_what_it_brought() {
    let text = json!({"nbformat": 4, "nbformat_minor": 6, "metadata": {}, "novelty": {"x": 1},
        "cells": [{"cell_type": "prompt", "id": "a", "metadata": {}, "source": "", "novel": [1]}]})
    .to_string();
    let notebook = read(text.as_bytes()).unwrap();
    assert_eq!(notebook.cells[0].kind, CellKind::Other("prompt".into()));
    let written: Value = serde_json::from_str(&write(&notebook)).unwrap();
    assert_eq!(written["nbformat_minor"], 6);
    assert_eq!(written["novelty"], json!({"x": 1}));
    assert_eq!(written["cells"][0]["novel"], json!([1]));
}

#[test]
fn what_is_no_notebook_is_refused_with_its_place() {
    let cases: [(&[u8], &str); 18] = [
        (b"", "the file is empty; a notebook is a JSON document: save it again in Jupyter"),
        (b" \n\xef\xbb\xbf", "line 2, column 1: not JSON: a value was expected here"),
        (b"{\"cells\": [\n  1,\n]}", "line 3, column 1: not JSON: a value was expected here"),
        (b"{\"cells\": [\n {\"a\": \"x", "line 2, column 8: the file is cut off: a string is not closed"),
        (b"{\"cells\": [", "line 1, column 12: the file is cut off: the text ends here"),
        (b"{\n<<<<<<< HEAD\n \"a\": 1\n=======\n}", "line 2: git left a merge conflict here; resolve it, then commit again"),
        (b"{\"a\": \"\xff\"}", "line 1, column 8: this is not UTF-8 text; save the notebook again in Jupyter"),
        (b"[]", "this is JSON but not a notebook: its top level is not an object"),
        (b"{}", "this is JSON but not a notebook: `nbformat` is missing"),
        (b"{\"nbformat\": \"4\"}", "this is JSON but not a notebook: `nbformat` is not a number"),
        (b"{\"nbformat\": 4}", "this is JSON but not a notebook: `cells` is missing"),
        (b"{\"nbformat\": 3}", "this is JSON but not a notebook: `worksheets` is missing or not a list"),
        (b"{\"nbformat\": 2, \"worksheets\": []}", "nbformat 2 is not read (3 and 4 are); open the notebook in Jupyter and save it"),
        (b"{\"nbformat\": 5, \"cells\": []}", "nbformat 5 is newer than what this version of Trainyard reads (3 and 4): save the notebook as nbformat 4, or upgrade Trainyard"),
        (b"{\"nbformat\": 4, \"cells\": [{\"cell_type\": \"raw\", \"source\": \"\"}, {\"cell_type\": \"code\"}]}",
            "cell 2: it has no `source`; add one, empty where there is nothing to say"),
        (b"{\"nbformat\": 4, \"cells\": [{\"source\": \"\"}]}", "cell 1: it has no `cell_type`"),
        (b"{\"nbformat\": 4, \"cells\": [{\"cell_type\": \"code\", \"source\": 3}]}", "cell 1: its `source` is neither text nor a list of lines"),
        (b"{\"nbformat\": 4, \"cells\": [3]}", "cell 1: it is not an object"),
    ];
    for (bytes, sentence) in cases {
        let error = read(bytes).unwrap_err();
        assert_eq!(error.to_string(), sentence);
    }
    let deep = "[".repeat(100_000);
    assert!(matches!(
        read(deep.as_bytes()),
        Err(ReadError::NotJson { .. })
    ));
}

#[test]
fn a_cut_at_any_place_is_an_error_and_never_a_panic() {
    for end in 0..KINDS.len() {
        if KINDS.is_char_boundary(end) {
            let error = read(&KINDS.as_bytes()[..end]).unwrap_err();
            let fits = matches!(error, ReadError::Truncated { .. } | ReadError::Empty);
            assert!(fits, "{end}: {error}");
        }
    }
}

#[test]
fn messages_fold_to_what_jupyter_saved() {
    let saved = read(EXECUTED.as_bytes()).unwrap();
    let mut fold = Fold::new(saved.clone());
    for (index, cell) in saved.code_cells() {
        for message in cell.outputs.iter().filter_map(Output::message) {
            fold.output(index, message).unwrap();
        }
    }
    let outputs = |notebook: &Notebook| -> Vec<Vec<Output>> {
        notebook
            .cells
            .iter()
            .map(|cell| cell.outputs.clone())
            .collect()
    };
    assert_eq!(outputs(fold.notebook()), outputs(&saved));
}
