//! Which cells belong together, and that nothing of a diff is lost.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::nbformat::write;

/// A notebook of code cells: `id: source`, or a source alone, with an id of its place.
fn notebook(cells: &[(&str, &str)]) -> Notebook {
    let cells = cells.iter().map(|&(id, source)| Cell::code(id, source));
    Notebook {
        cells: cells.collect(),
        minor: 5,
        ..Notebook::default()
    }
}

/// What became of the cells, in short: `0=0`, `1~2` changed, `3>0` moved, `+1`, `-2`.
fn story(before: &Notebook, after: &Notebook) -> String {
    let diff = diff(before, after);
    assert_eq!(write(&apply(before, &diff)), write(after));
    let view = View::default();
    let words = diff.cells.iter().map(|step| match step {
        Step::Added { after, .. } => format!("+{after}"),
        Step::Removed { before } => format!("-{before}"),
        Step::Kept(kept) => {
            let changed = kept.change.as_ref().is_some_and(|c| c.is_seen(view));
            let sign = match (kept.moved, changed) {
                (false, false) => "=",
                (false, true) => "~",
                (true, false) => ">",
                (true, true) => ">~",
            };
            format!("{}{sign}{}", kept.before, kept.after)
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

const LOAD: &str = "import pandas as pd\ndf = pd.read_csv('train.csv')\ndf = df.dropna()";
const FIT: &str = "model = Forest(n_estimators=100)\nmodel.fit(df[features], df[target])";
const SCORE: &str = "score = model.score(test[features], test[target])\nprint(score)";
const PLOT: &str = "fig, ax = plt.subplots()\nax.plot(history)\nplt.show()";

#[test]
fn an_edited_cell_is_changed_with_its_id_or_without() {
    let before = notebook(&[("a", LOAD), ("b", FIT), ("c", SCORE)]);
    let edited = FIT.replace("100", "200");
    let kept = notebook(&[("a", LOAD), ("b", &edited), ("c", SCORE)]);
    assert_eq!(story(&before, &kept), "0=0 1~1 2=2");
    let other_ids = notebook(&[("x", LOAD), ("y", &edited), ("z", SCORE)]);
    assert_eq!(story(&before, &other_ids), "0=0 1~1 2=2");
    assert!(diff(&before, &kept).meaning_changed);
    assert!(diff(&before, &before.clone()).is_empty());
}

#[test]
fn a_cell_that_says_something_else_is_the_same_only_by_its_id() {
    let before = notebook(&[("a", LOAD), ("b", FIT), ("c", SCORE)]);
    let after = notebook(&[("a", LOAD), ("b", PLOT), ("c", SCORE)]);
    assert_eq!(story(&before, &after), "0=0 1~1 2=2");
    let after = notebook(&[("x", LOAD), ("y", PLOT), ("z", SCORE)]);
    assert_eq!(story(&before, &after), "0=0 -1 +1 2=2");
}

#[test]
fn ids_that_stand_in_no_file_are_no_difference() {
    let file = |ids: [Option<&str>; 2], sources: [&str; 2]| {
        let cells = ids.iter().zip(sources).map(|(id, source)| {
            let mut cell = serde_json::json!({"cell_type": "code", "metadata": {}, "source": source,
                "execution_count": null, "outputs": []});
            if let Some(id) = id {
                cell["id"] = (*id).into();
            }
            cell
        });
        let cells: Vec<_> = cells.collect();
        let minor = if ids[0].is_some() { 5 } else { 4 };
        let file = serde_json::json!({"nbformat": 4, "nbformat_minor": minor, "metadata": {}, "cells": cells});
        crate::read(file.to_string().as_bytes()).unwrap()
    };
    let all = View {
        outputs: true,
        metadata: true,
    };
    for ids in [[None, None], [Some("a"), Some("a")]] {
        let (before, after) = (
            file(ids, [FIT, LOAD]),
            file(ids, [FIT, &format!("{LOAD}\nx")]),
        );
        let found = diff(&before, &after);
        assert_eq!(apply(&before, &found), after);
        let Step::Kept(kept) = &found.cells[1] else {
            panic!("{found:?}");
        };
        let change = kept.change.as_ref().unwrap();
        assert!(change.id.is_some() && change.id_change().is_none() && !change.has_noise());
        assert_eq!(found.summary(View::default()), found.summary(all));
    }
    // Of equal cells without ids one went: those behind it have other ids, and nobody sees that.
    let ids = [Some("x"), Some("x")];
    let (mut before, mut after) = (file(ids, ["", ""]), file([None, None], ["", ""]));
    after.cells[0].id = "x".into();
    before.cells[1].id += "-7";
    let found = diff(&before, &after);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(found.summary(all), Summary::default());
    assert_eq!(apply(&before, &found), after);
    // One that stands in both files is a difference to whoever looks at ids.
    let (before, after) = (
        file([Some("a"), Some("b")], [FIT, LOAD]),
        file([Some("a"), Some("c")], [FIT, LOAD]),
    );
    assert_eq!(diff(&before, &after).summary(all).changed, 1);
}

#[test]
fn ids_that_count_cells_say_nothing() {
    let before = notebook(&[("c0", LOAD), ("c1", FIT), ("c2", SCORE), ("c3", PLOT)]);
    let edited = SCORE.replace("score)", "round(score, 3))");
    let after = notebook(&[
        ("c0", "# new"),
        ("c1", LOAD),
        ("c2", FIT),
        ("c3", &edited),
        ("c4", PLOT),
    ]);
    assert_eq!(story(&before, &after), "+0 0=1 1=2 2~3 3=4");
}

#[test]
fn a_cell_that_moved_is_moved() {
    let before = notebook(&[("a", LOAD), ("b", FIT), ("c", SCORE), ("d", PLOT)]);
    let with_ids = notebook(&[("d", PLOT), ("a", LOAD), ("b", FIT), ("c", SCORE)]);
    assert_eq!(story(&before, &with_ids), "3>0 0=1 1=2 2=3");
    let edited = PLOT.replace("history", "history[10:]");
    let with_ids = notebook(&[("d", &edited), ("a", LOAD), ("b", FIT), ("c", SCORE)]);
    assert_eq!(story(&before, &with_ids), "3>~0 0=1 1=2 2=3");
    let without = notebook(&[("x", &edited), ("y", LOAD), ("z", FIT), ("q", SCORE)]);
    assert_eq!(story(&before, &without), "3>~0 0=1 1=2 2=3");
    assert_eq!(
        story(
            &before,
            &notebook(&[("x", PLOT), ("y", LOAD), ("z", FIT), ("q", SCORE)])
        ),
        "3>0 0=1 1=2 2=3"
    );
}

#[test]
fn a_split_and_a_merge_are_an_edit_and_a_cell_more_or_less() {
    let both = format!("{LOAD}\n\n{FIT}");
    let one = notebook(&[("a", &both), ("b", SCORE)]);
    let two = notebook(&[("a", LOAD), ("n", FIT), ("b", SCORE)]);
    assert_eq!(story(&one, &two), "0~0 +1 1=2");
    assert_eq!(story(&two, &one), "0~0 -1 2=1");
    // Without ids the longer half is the one that was there.
    let two = notebook(&[("x", LOAD), ("y", FIT), ("z", SCORE)]);
    assert_eq!(story(&one, &two), "0~0 +1 1=2");
}

#[test]
fn equal_and_blank_cells_go_in_order() {
    let before = notebook(&[("a", "x()"), ("b", ""), ("c", "x()"), ("d", ""), ("e", FIT)]);
    let after = notebook(&[
        ("a", "x()"),
        ("b", ""),
        ("n", "x()"),
        ("c", "x()"),
        ("d", ""),
        ("e", FIT),
    ]);
    assert_eq!(story(&before, &after), "0=0 1=1 +2 2=3 3=4 4=5");
    // Derived ids: the nth of equal cells has the nth id, so a new one in front takes another's.
    let before = notebook(&[("x0", ""), ("m", FIT), ("x1", "")]);
    let after = notebook(&[("x0", ""), ("x1", ""), ("m", FIT), ("x2", "")]);
    assert_eq!(story(&before, &after), "0=0 +1 1=2 2=3");
    let all = |n: usize, id: &str| -> Notebook {
        let ids: Vec<String> = (0..n).map(|n| format!("{id}{n}")).collect();
        notebook(
            &ids.iter()
                .map(|id| (id.as_str(), "same()"))
                .collect::<Vec<_>>(),
        )
    };
    let (before, after) = (all(10_000, "a"), all(9_999, "b"));
    let diff = diff(&before, &after);
    let summary = diff.summary(View::default());
    assert_eq!((summary.removed, summary.added, summary.moved), (1, 0, 0));
}

#[test]
fn a_cell_of_another_kind_is_the_same_where_its_text_is() {
    let mut after = notebook(&[("x", LOAD), ("y", FIT)]);
    after.cells[0].kind = CellKind::Markdown;
    assert_eq!(
        story(&notebook(&[("a", LOAD), ("b", FIT)]), &after),
        "0~0 1=1"
    );
}

#[test]
fn many_cells_all_edited_with_other_ids_find_each_other() {
    let ten = |n: usize, edit: &str| -> String {
        let lines =
            (0..10).map(|line| format!("value_{n}_{line} = compute({line}{edit}, seed={n})"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let book = |from: usize, edit: &str| {
        let cells = (from..1_000).map(|n| Cell::code(format!("{n}{edit}"), ten(n, edit)));
        Notebook {
            cells: cells.collect(),
            ..Notebook::default()
        }
    };
    let (before, after) = (book(0, ""), book(7, "00"));
    let diff = diff(&before, &after);
    let summary = diff.summary(View::default());
    assert_eq!(
        (summary.changed, summary.removed, summary.added),
        (993, 7, 0)
    );
}

#[test]
fn cells_that_have_nothing_in_common_are_not_looked_at_in_pairs() {
    // Were all pairs looked at, this would take minutes.
    let book = |word: &str| {
        let cells = (0..5_000).map(|n| {
            Cell::code(
                format!("{word}{n}"),
                format!("{word}{n} {word}\n").repeat(30),
            )
        });
        Notebook {
            cells: cells.collect(),
            ..Notebook::default()
        }
    };
    let summary = diff(&book("alpha"), &book("beta")).summary(View::default());
    assert_eq!(
        (summary.changed, summary.removed, summary.added),
        (0, 5_000, 5_000)
    );
}

#[test]
fn a_large_text_is_compared_in_near_linear_time() {
    let text = |step: usize| -> String {
        let lines = (0..60_000_usize).map(|n| format!("{}\n", n * step % 60_000));
        lines.collect()
    };
    let (before, after) = (text(1), text(7_919));
    let edits = TextDiff::new(&before, &after);
    assert_eq!(edits.apply(&before), after);
    assert_eq!(words(&"a b ".repeat(9_000), "a").len(), 2);
}

#[test]
fn lines_are_text_again() {
    for (before, after) in [
        ("", "a"),
        ("a", ""),
        ("a", "a\n"),
        ("a\nb", "a\nc\n"),
        ("\n", ""),
        ("a\r\nb", "a\nb"),
    ] {
        assert_eq!(TextDiff::new(before, after).apply(before), after);
        assert_eq!(lines(before).join("\n"), before);
    }
    let appended = TextDiff::new("x = 1", "x = 1\ny = 2");
    assert_eq!(
        appended.0,
        [Edit {
            before: 1..1,
            after: vec!["y = 2".into()]
        }]
    );
}

#[test]
fn words_are_marked_where_that_helps() {
    assert_eq!(
        words("n_estimators=100, seed=1", "n_estimators=200, seed=1"),
        [
            Part::Same("n_estimators="),
            Part::Removed("100"),
            Part::Added("200"),
            Part::Same(", seed=1")
        ]
    );
    assert_eq!(
        words("alpha beta", "x + y(1)"),
        [Part::Removed("alpha beta"), Part::Added("x + y(1)")]
    );
    assert_eq!(
        pairs(&["a = 1", "b = 2"], &["# note", "a = 2", "b = 3"]),
        [(0, 1), (1, 2)]
    );
}

#[test]
fn noise_is_kept_and_not_seen() {
    let mut before = notebook(&[("a", "1")]);
    before.metadata.insert(
        "kernelspec".into(),
        json!({"name": "python3", "display_name": "Python 3"}),
    );
    let mut after = before.clone();
    after.metadata["kernelspec"]["display_name"] = json!("Python 3 (ipykernel)");
    after
        .metadata
        .insert("language_info".into(), json!({"version": "3.13"}));
    after.cells[0].execution_count = Some(7);
    after.cells[0]
        .metadata
        .insert("execution".into(), json!({"iopub.status": 1}));
    let result = |count: u64, text: &str| -> Output {
        let message = json!({"output_type": "execute_result", "execution_count": count, "data": {"text/plain": text}});
        Output::from(serde_json::from_value::<crate::message::OutputMessage>(message).unwrap())
    };
    before.cells[0].outputs = vec![result(1, "1")];
    after.cells[0].outputs = vec![result(7, "1")];
    let found = diff(&before, &after);
    let summary = found.summary(View {
        outputs: true,
        metadata: false,
    });
    assert!(summary.is_same() && !found.is_empty() && !found.meaning_changed);
    assert_eq!(
        (summary.hidden, summary.notebook_hidden, summary.outputs),
        (1, true, 0)
    );
    assert!(
        !found
            .summary(View {
                outputs: false,
                metadata: true
            })
            .is_same()
    );
    assert_eq!(apply(&before, &found), after);

    after.cells[0].outputs = vec![result(7, "2")];
    let found = diff(&before, &after);
    assert!(found.summary(View::default()).is_same());
    assert_eq!(found.summary(View::default()).outputs, 1);
    assert!(
        !found
            .summary(View {
                outputs: true,
                metadata: false
            })
            .is_same()
    );

    after.metadata["kernelspec"]["name"] = json!("julia");
    let found = diff(&before, &after);
    assert!(found.meaning_changed && found.summary(View::default()).notebook);
    assert_eq!(found.kernel.unwrap().after.as_deref(), Some("julia"));
}

#[test]
fn outputs_of_one_type_take_each_others_place() {
    let stream = |text: &str| -> Output {
        let message = json!({"output_type": "stream", "name": "stdout", "text": text});
        Output::from(serde_json::from_value::<crate::message::OutputMessage>(message).unwrap())
    };
    let odd = Output::Unknown(json!({"output_type": "novel"}).as_object().unwrap().clone());
    let before = [stream("a"), stream("b"), odd, stream("c")];
    let after = [stream("a"), stream("x"), stream("c"), stream("d")];
    let steps = outputs::diff(&before, &after);
    let words: Vec<String> = steps
        .iter()
        .map(|step| match step {
            OutputStep::Kept { before } => format!("={before}"),
            OutputStep::Changed { before, .. } => format!("~{before}"),
            OutputStep::Added { .. } => "+".to_owned(),
            OutputStep::Removed { before } => format!("-{before}"),
        })
        .collect();
    assert_eq!(words.join(" "), "=0 ~1 -2 =3 +");
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-3..3_i64).prop_map(Value::from),
        prop::sample::select(vec![0.0, -0.0, 1.5, 1.0]).prop_map(Value::from),
        "[a-b\n]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            fields_of(inner).prop_map(Value::Object),
        ]
    })
}

fn fields_of(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Fields> {
    prop::collection::vec(("[a-c]", value), 0..4).prop_map(|list| list.into_iter().collect())
}

fn output() -> impl Strategy<Value = Output> {
    let known = prop_oneof![
        "[ab\n]{0,4}"
            .prop_map(|text| json!({"output_type": "stream", "name": "stdout", "text": text})),
        (fields_of(json_value()), prop::option::of(0..3_u64)).prop_map(|(data, count)| {
            json!({"output_type": "execute_result", "execution_count": count, "data": data})
        }),
        fields_of(json_value())
            .prop_map(|data| json!({"output_type": "display_data", "data": data})),
        "[ab]{0,2}".prop_map(
            |e| json!({"output_type": "error", "ename": e, "evalue": e, "traceback": [e]})
        ),
    ];
    prop_oneof![
        (known, fields_of(json_value())).prop_map(|(message, extra)| Output::Known {
            message: serde_json::from_value(message).unwrap(),
            extra,
        }),
        fields_of(json_value()).prop_map(Output::Unknown),
    ]
}

prop_compose! {
    fn cell()(
        id in "[a-h]",
        kind in prop::sample::select(vec!["code", "markdown", "raw", "novel"]),
        source in prop::collection::vec("|a = 1|b = 2|call(a, b)|long_name = other_name", 0..5),
        metadata in fields_of(json_value()),
        execution_count in prop::option::of(0..4_u64),
        outputs in prop::collection::vec(output(), 0..4),
        extra in fields_of(json_value()),
    ) -> Cell {
        let kind = CellKind::from(kind);
        let code = kind == CellKind::Code;
        Cell {
            id,
            kind,
            source: source.join("\n"),
            metadata,
            execution_count: execution_count.filter(|_| code),
            outputs: if code { outputs } else { Vec::new() },
            extra,
        }

    }
}

prop_compose! {
    fn any_notebook()(
        cells in prop::collection::vec(cell(), 0..8),
        metadata in fields_of(json_value()),
        extra in fields_of(json_value()),
        minor in 5..7_u64,
    ) -> Notebook {
        Notebook { metadata, cells, extra, minor }
    }
}

/// What an editor does to a notebook.
fn edited(before: &Notebook, deeds: &[(u8, prop::sample::Index, Cell)]) -> Notebook {
    let mut after = before.clone();
    for (deed, at, cell) in deeds {
        let place = at.index(after.cells.len() + 1);
        if *deed == 0 || place == after.cells.len() {
            after.cells.insert(place, cell.clone());
            continue;
        }
        match deed {
            1 => drop(after.cells.remove(place)),
            2 => {
                let moved = after.cells.remove(place);
                after.cells.push(moved);
            }
            3 => after.cells[place].source += "\nmore()",
            4 if after.cells[place].is_code() => {
                after.cells[place].outputs.clone_from(&cell.outputs)
            }
            5 => after.cells[place].id.clone_from(&cell.id),
            _ => after.cells[place].metadata.clone_from(&cell.metadata),
        }
    }
    after
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_diff_gives_the_other_side(before in any_notebook(), after in any_notebook()) {
        let there = apply(&before, &diff(&before, &after));
        prop_assert_eq!(write(&there), write(&after));
        prop_assert_eq!(there, after);
    }

    #[test]
    fn so_it_does_after_edits(before in any_notebook(), deeds in prop::collection::vec((0..7_u8, any::<prop::sample::Index>(), cell()), 0..6)) {
        let after = edited(&before, &deeds);
        let (there, back) = (diff(&before, &after), diff(&after, &before));
        prop_assert_eq!(write(&apply(&before, &there)), write(&after));
        prop_assert_eq!(write(&apply(&after, &back)), write(&before));
        prop_assert_eq!(there.is_empty(), write(&before) == write(&after));
    }

    #[test]
    fn every_cell_has_its_step(before in any_notebook(), after in any_notebook()) {
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for step in diff(&before, &after).cells {
            match step {
                Step::Kept(kept) => { gone.push(kept.before); come.push(kept.after); }
                Step::Added { after, .. } => come.push(after),
                Step::Removed { before } => gone.push(before),
            }
        }
        gone.sort_unstable();
        prop_assert_eq!(gone, (0..before.cells.len()).collect::<Vec<_>>());
        prop_assert_eq!(come, (0..after.cells.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_line_is_the_sum_of_its_parts(before in "[ab_é =(]{0,12}", after in "[ab_é =(]{0,12}") {
        let side = |removed: bool| -> String {
            words(&before, &after).into_iter().filter_map(|part| match part {
                Part::Same(text) => Some(text),
                Part::Removed(text) => removed.then_some(text),
                Part::Added(text) => (!removed).then_some(text),
            }).collect()
        };
        prop_assert_eq!(side(true), before.clone());
        prop_assert_eq!(side(false), after.clone());
    }
}
