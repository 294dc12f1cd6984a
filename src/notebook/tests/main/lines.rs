//! Lines of cells in files of any formatting.

use notebook::{LineMap, read};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn in_a_file_of_jupyter_each_line_has_its_own() {
    let text = include_str!("../data/executed.ipynb");
    let map = LineMap::read(text.as_bytes()).unwrap();
    let raw: Vec<&str> = text.lines().collect();
    let notebook = read(text.as_bytes()).unwrap();
    let mut seen = 0;
    for (index, cell) in notebook.cells.iter().enumerate() {
        for (line, code) in cell.source.lines().enumerate() {
            let at = map.raw_line(index, line + 1).unwrap();
            let quoted = serde_json::to_string(code).unwrap();
            let inside = quoted.trim_matches('"');
            assert!(
                raw[at as usize - 1].contains(inside),
                "cell {index}, line {line}: {code}"
            );
            seen += 1;
        }
        assert_eq!(map.raw_line(index, cell.source.lines().count() + 1), None);
    }
    assert!(seen > 10);
    assert_eq!((map.raw_line(99, 1), map.raw_line(0, 0)), (None, None));
}

#[test]
fn odd_formatting_still_has_lines() {
    let odd = "{\"metadata\": {\"cells\": [{\"source\": \"no\"}]},\r\n\"nbformat\": 4, \"cells\": [\r\n\
        {\"source\":\r\n \"a\\nb\\r\\nc\", \"outputs\": [{\"source\": [\"no\"]}]},\r\n\
        {\"source\": [\"a\", \"b\\nc\\n\",\r\n\"d\\r\",\r\n\"\\ne\"]}, {\"source\": []}, {}]}";
    let map = LineMap::read(odd.as_bytes()).unwrap();
    let lines =
        |cell| -> Vec<Option<u32>> { (1..=4).map(|line| map.raw_line(cell, line)).collect() };
    // One string: all its lines stand in one raw line.
    assert_eq!(lines(0), [Some(4), Some(4), Some(4), None]);
    // `ab` and `c` of the first two pieces, `d` whose line end is cut in two, `e`.
    assert_eq!(lines(1), [Some(5), Some(5), Some(6), Some(7)]);
    assert_eq!(lines(2), [None; 4]);
    assert_eq!(lines(3), [None; 4]);

    let minified = include_str!("../data/kinds.ipynb");
    let map = LineMap::read(minified.as_bytes()).unwrap();
    assert_eq!(map.raw_line(2, 2), Some(1));
}

#[test]
fn worksheets_of_nbformat_3_have_lines() {
    let text = include_str!("../data/v3.ipynb");
    let map = LineMap::read(text.as_bytes()).unwrap();
    let line = map.raw_line(2, 2).unwrap() as usize;
    assert_eq!(text.lines().nth(line - 1).unwrap().trim(), "\"x\"");
}

#[test]
fn the_text_of_a_cell_is_where_its_nbformat_keeps_it() {
    // `input` is nobody's in nbformat 4; in nbformat 3 it is the code, and the version may come last.
    let cells = |version: &str| {
        format!(
            "{{\"cells\": [{{\"cell_type\": \"code\", \"source\": [\n\"a\\n\",\n\"b\"],\n\"input\": \"z\"}}],\n\
             \"worksheets\": [{{\"cells\": [{{\"source\": \"no\",\n\"input\": [\"x\",\n\"\",\n\"y\"], \"cell_type\": \"code\"}}]}}],\n\
             \"nbformat\": {version}}}"
        )
    };
    for (version, lines) in [("4", vec![2, 3]), ("3", vec![6, 7, 8])] {
        let text = cells(version);
        let map = LineMap::read(text.as_bytes()).unwrap();
        let source = &read(text.as_bytes()).unwrap().cells[0].source;
        assert_eq!(source.lines().count(), lines.len(), "{source}");
        let found: Vec<u32> = (1..).map_while(|line| map.raw_line(0, line)).collect();
        assert_eq!(found, lines, "nbformat {version}");
    }
}

#[test]
fn of_equal_keys_the_last_one_has_the_lines() {
    let text = "{\"nbformat\": 4, \"cells\": [{\"source\": \"a\\nb\",\n\"source\": \"c\", \"cell_type\": \"code\"}]}";
    let map = LineMap::read(text.as_bytes()).unwrap();
    assert_eq!((map.raw_line(0, 1), map.raw_line(0, 2)), (Some(2), None));
    let sheet = "{\"nbformat\": 3, \"worksheets\": [{\"cells\": []}], \"worksheets\": [{\"cells\": [],\n\"cells\": [{\"cell_type\": \"raw\", \"source\": \"a\"}]}]}";
    let map = LineMap::read(sheet.as_bytes()).unwrap();
    assert_eq!((map.raw_line(0, 1), map.raw_line(1, 1)), (Some(2), None));
}

#[test]
fn what_is_not_json_has_no_map() {
    assert!(LineMap::read(b"{\"cells\": [").is_err());
    assert!(LineMap::read(b"[1]").unwrap().raw_line(0, 1).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_line_that_a_cell_has_is_found(sources in prop::collection::vec("[a-c\"\\\\é\n\r]{0,12}", 0..5), pretty in any::<bool>()) {
        let cells: Vec<Value> = sources.iter().map(|source| {
            let pieces: Vec<&str> = source.split_inclusive('\n').collect();
            json!({"cell_type": "code", "metadata": {}, "outputs": [], "source": pieces})
        }).collect();
        let document = json!({"nbformat": 4, "cells": cells});
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let map = LineMap::read(text.as_bytes()).unwrap();
        for (index, source) in sources.iter().enumerate() {
            let normal = source.replace("\r\n", "\n").replace('\r', "\n");
            let count = normal.lines().count();
            let mut last = 0;
            for line in 1..=count {
                let raw = map.raw_line(index, line).unwrap();
                prop_assert!(raw >= last && raw as usize <= text.lines().count());
                last = raw;
            }
            prop_assert_eq!(map.raw_line(index, count + 1), None);
        }
    }
}
