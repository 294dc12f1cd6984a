//! What changes a fingerprint and what does not, over many notebooks.

use notebook::nbformat::{read, write};
use notebook::{Cell, CellKind, Fold, Notebook, fingerprint};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// Source with some lines, never blank: what is blank does not run.
fn source() -> impl Strategy<Value = String> {
    let line = "[a-z_]{1,6} = [0-9]{1,3}|# é|    pass|x\\[\"a b\"\\]";
    prop::collection::vec(line, 1..5).prop_map(|lines| lines.join("\n"))
}

fn cell() -> impl Strategy<Value = Cell> {
    let tags = prop::sample::subsequence(
        vec!["parameters", "skip-execution", "raises-exception", "plot"],
        0..=4,
    );
    (source(), tags, 0..3_usize).prop_map(|(source, tags, kind)| {
        let mut cell = Cell::code("", source);
        cell.metadata.insert("tags".into(), json!(tags));
        if kind == 0 {
            cell.kind = CellKind::Markdown;
        }
        cell
    })
}

prop_compose! {
    fn notebook()(mut cells in prop::collection::vec(cell(), 1..6), last in source()) -> Notebook {
        cells.push(Cell::code("", last)); // at least one runs
        for (index, cell) in cells.iter_mut().enumerate() {
            cell.id = format!("cell-{index}");
        }
        let spec = json!({"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}});
        Notebook { cells, metadata: spec.as_object().unwrap().clone(), ..Notebook::default() }
    }
}

/// The same document with the keys of every object the other way round.
fn reversed(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries: Vec<_> = map.into_iter().map(|(k, v)| (k, reversed(v))).collect();
            Value::Object(entries.into_iter().rev().collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(reversed).collect()),
        other => other,
    }
}

/// A code cell, chosen.
fn code<'a>(notebook: &'a mut Notebook, index: &Index) -> &'a mut Cell {
    let mut cells: Vec<&mut Cell> = notebook.cells.iter_mut().filter(|c| c.is_code()).collect();
    let at = index.index(cells.len());
    cells.swap_remove(at)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn an_execution_changes_nothing(notebook in notebook(), count in 1..99_u64) {
        let mut fold = Fold::new(notebook.clone());
        let said = serde_json::from_value(json!({"output_type": "stream", "name": "stdout", "text": "x"})).unwrap();
        for (index, _) in notebook.code_cells() {
            fold.cell_started(index, 1).unwrap();
            fold.output(index, &said).unwrap();
            let end = notebook::fold::CellEnd { execution_count: Some(count), at_ms: 2, duration_ms: 1, status: "ok" };
            fold.cell_finished(index, &end).unwrap();
        }
        fold.language_info(json!({"name": "python", "version": "3.13"}).as_object().unwrap().clone());
        prop_assert_eq!(fingerprint(fold.notebook()), fingerprint(&notebook));
    }

    #[test]
    fn the_form_of_the_file_changes_nothing(notebook in notebook()) {
        let text = write(&notebook);
        let value: Value = serde_json::from_str(&text).unwrap();
        let other = reversed(value).to_string();
        prop_assert_eq!(fingerprint(&read(text.as_bytes()).unwrap()), fingerprint(&notebook));
        prop_assert_eq!(fingerprint(&read(other.as_bytes()).unwrap()), fingerprint(&notebook));
    }

    #[test]
    fn ids_markdown_and_blank_space_change_nothing(notebook in notebook(), at in any::<Index>()) {
        let mut other = notebook.clone();
        for (index, cell) in other.cells.iter_mut().enumerate() {
            cell.id = format!("other{index}");
            cell.metadata.insert("collapsed".into(), true.into());
            match cell.kind {
                CellKind::Code => cell.source = cell.source.replace('\n', " \t\r\n") + "  ",
                _ => cell.source += "more words",
            }
        }
        let mut words = Cell::code("words", "words");
        words.kind = CellKind::Markdown;
        other.cells.insert(at.index(other.cells.len() + 1), words);
        other.cells.insert(at.index(other.cells.len() + 1), Cell::code("blank", " \n"));
        prop_assert_eq!(fingerprint(&other), fingerprint(&notebook));
    }

    #[test]
    fn any_change_of_code_changes_it(notebook in notebook(), which in any::<Index>(), at in any::<Index>(), c in "[a-z0-9#(\\[é]") {
        let mut other = notebook.clone();
        let source = &mut code(&mut other, &which).source;
        let places: Vec<usize> = source.char_indices().map(|(at, _)| at).collect();
        source.insert_str(places[at.index(places.len())], &c);
        prop_assert_ne!(fingerprint(&other), fingerprint(&notebook));
    }

    #[test]
    fn so_do_a_line_removed_a_cell_moved_and_a_cell_split(notebook in notebook(), which in any::<Index>()) {
        let mut longer = notebook.clone();
        code(&mut longer, &which).source += "\ny = 1";
        prop_assert_ne!(fingerprint(&longer), fingerprint(&notebook));

        let mut split = longer.clone();
        code(&mut split, &which).source = code(&mut notebook.clone(), &which).source.clone();
        let after = split.cells.iter().position(|c| c.id == code(&mut longer.clone(), &which).id).unwrap();
        split.cells.insert(after + 1, Cell::code("split", "y = 1"));
        prop_assert_ne!(fingerprint(&split), fingerprint(&longer));

        let mut moved = notebook.clone();
        moved.cells.push(Cell::code("last", "unlike_any_other()"));
        let mut first = notebook.clone();
        first.cells.insert(0, Cell::code("last", "unlike_any_other()"));
        prop_assert_ne!(fingerprint(&first), fingerprint(&moved));
    }

    #[test]
    fn so_do_tags_that_execution_heeds_and_only_these(notebook in notebook(), which in any::<Index>()) {
        for tag in ["parameters", "skip-execution", "raises-exception", "injected-parameters", "timeout=10m", "remove-input"] {
            let mut other = notebook.clone();
            let cell = code(&mut other, &which);
            let mut tags: Vec<String> = cell.tags().map(str::to_owned).collect();
            match tags.iter().position(|t| t == tag) {
                Some(at) => drop(tags.remove(at)),
                None => tags.insert(0, tag.to_owned()),
            }
            cell.metadata.insert("tags".into(), json!(tags));
            let same = fingerprint(&other) == fingerprint(&notebook);
            prop_assert_eq!(same, tag == "remove-input", "{}", tag);
        }
    }

    #[test]
    fn so_do_options_that_execution_heeds_and_only_these(notebook in notebook()) {
        let with = |execution: Value| {
            let mut other = notebook.clone();
            other.metadata.insert("execution".into(), execution);
            fingerprint(&other)
        };
        let said = [json!({"timeout": 60}), json!({"timeout": 61}), json!({"timeout": -1}), json!({"timeout": "60"}),
            json!({"allow_errors": true}), json!({"allow_errors": true, "timeout": 60})].map(&with);
        for (index, one) in said.iter().enumerate() {
            prop_assert_ne!(*one, fingerprint(&notebook));
            prop_assert!(!said[..index].contains(one));
        }
        for nothing in [json!({}), json!(null), json!({"timeout": null, "allow_errors": false, "other": 1})] {
            prop_assert_eq!(with(nothing), fingerprint(&notebook));
        }
    }

    #[test]
    fn so_do_kernel_and_language(notebook in notebook(), name in "[a-z]{1,8}") {
        for key in ["name", "language"] {
            let mut other = notebook.clone();
            other.metadata["kernelspec"][key] = format!("x{name}").into();
            prop_assert_ne!(fingerprint(&other), fingerprint(&notebook));
        }
        let mut other = notebook.clone();
        other.metadata["kernelspec"]["display_name"] = name.into();
        prop_assert_eq!(fingerprint(&other), fingerprint(&notebook));
    }
}

#[test]
fn the_fingerprint_of_a_notebook_never_moves() {
    // Written down: a change of this number makes every stored result unequal to its notebook.
    let notebook = read(include_bytes!("../data/executed.ipynb")).unwrap();
    assert_eq!(
        notebook::fingerprint::hex(&notebook),
        "4f91a26458b1196fb157dd7a03aca6a18a37815dad4a794908b68d5a05a4381d"
    );
}

/// What a cell may have said: every kind of output, and one that nobody knows.
fn said() -> impl Strategy<Value = Vec<Value>> {
    let one = ("[a-z\n]{0,8}", 0..5_usize).prop_map(|(text, kind)| match kind {
        0 => json!({"output_type": "stream", "name": "stderr", "text": text}),
        1 => json!({"output_type": "display_data", "data": {"text/plain": text}, "metadata": {}}),
        2 => json!({"output_type": "execute_result", "execution_count": 7, "data": {"text/html": text}, "metadata": {}}),
        3 => json!({"output_type": "error", "ename": "E", "evalue": text, "traceback": []}),
        _ => json!({"output_type": "hologram", "depth": text}),
    });
    prop::collection::vec(one, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_stands_in_an_executed_file_changes_nothing(notebook in notebook(), said in said(), count in 1..99_u64) {
        let mut file: Value = serde_json::from_str(&write(&notebook)).unwrap();
        for cell in file["cells"].as_array_mut().unwrap() {
            cell["metadata"]["execution"] = json!({"iopub.execute_input": "2026-01-31T12:00:00.000Z"});
            cell["metadata"]["papermill"] = json!({"status": "completed"});
            if cell["cell_type"] == "code" {
                cell["outputs"] = json!(said);
                cell["execution_count"] = json!(count);
            }
        }
        file["metadata"]["language_info"] = json!({"name": "python", "version": "3.13.1"});
        file["metadata"]["widgets"] = json!({"application/vnd.jupyter.widget-state+json": {"state": {}}});
        prop_assert_eq!(fingerprint(&read(file.to_string().as_bytes()).unwrap()), fingerprint(&notebook));
    }

    #[test]
    fn what_the_lines_of_code_are_and_their_order_change_it(notebook in notebook(), which in any::<Index>(), at in any::<Index>()) {
        let lines = |cell: &Cell| -> Vec<String> { cell.source.split('\n').map(str::to_owned).collect() };
        let same = |change: &dyn Fn(&mut Vec<String>)| {
            let mut other = notebook.clone();
            let cell = code(&mut other, &which);
            let mut lines = lines(cell);
            change(&mut lines);
            cell.source = lines.join("\n");
            (cell.source != code(&mut notebook.clone(), &which).source, fingerprint(&other) == fingerprint(&notebook))
        };
        let at = |lines: &Vec<String>| at.index(lines.len());
        for (changed, same) in [
            same(&|lines| drop(lines.remove(at(lines)))),
            same(&|lines| lines.reverse()),
            same(&|lines| lines.insert(at(lines), String::new())),
            same(&|lines| { let at = at(lines); lines[at].insert_str(0, "  "); }),
        ] {
            // What stands on either side of a change may be equal; then there was none.
            prop_assert_eq!(same, !changed);
        }
    }

    #[test]
    fn so_do_a_cell_that_is_gone_and_one_that_becomes_words(notebook in notebook(), which in any::<Index>()) {
        let id = code(&mut notebook.clone(), &which).id.clone();
        let mut gone = notebook.clone();
        gone.cells.retain(|cell| cell.id != id);
        prop_assert_ne!(fingerprint(&gone), fingerprint(&notebook));
        for kind in [CellKind::Markdown, CellKind::Raw] {
            let mut words = notebook.clone();
            code(&mut words, &which).kind = kind;
            prop_assert_eq!(fingerprint(&words), fingerprint(&gone));
        }
    }

    #[test]
    fn a_cell_moves_past_words_but_not_past_code(notebook in notebook(), at in any::<Index>()) {
        let mut other = notebook.clone();
        let at = at.index(other.cells.len() - 1);
        other.cells.swap(at, at + 1);
        let [first, second] = &notebook.cells[at..at + 2] else { unreachable!() };
        let tags = |cell: &Cell| cell.tags().filter(|tag| *tag != "plot").map(str::to_owned).collect::<Vec<_>>();
        let alike = first.source == second.source && tags(first) == tags(second);
        let same = !first.is_code() || !second.is_code() || alike;
        prop_assert_eq!(fingerprint(&other) == fingerprint(&notebook), same);
    }

    #[test]
    fn the_order_of_tags_changes_nothing(notebook in notebook(), which in any::<Index>()) {
        let mut other = notebook.clone();
        let cell = code(&mut other, &which);
        let mut tags: Vec<String> = cell.tags().map(str::to_owned).collect();
        tags.reverse();
        tags.extend(tags.clone());
        cell.metadata.insert("tags".into(), json!(tags));
        prop_assert_eq!(fingerprint(&other), fingerprint(&notebook));
    }
}
