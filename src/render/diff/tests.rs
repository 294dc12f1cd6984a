//! What people and programs see of a diff, and that what a notebook says does not act.

use notebook::diff::{View, diff};
use notebook::message::OutputMessage;
use notebook::{Cell, CellKind, Notebook, Output};
use serde_json::{Value, json};

use super::*;

fn book(cells: Vec<Cell>) -> Notebook {
    Notebook {
        cells,
        minor: 5,
        ..Notebook::default()
    }
}

fn shown<T>(before: &Notebook, after: &Notebook, look: impl Fn(&[Compared<'_>]) -> T) -> T {
    let diff = diff(before, after);
    look(&[Compared {
        name: "train.ipynb",
        before,
        after,
        diff: &diff,
        file: File::Kept,
    }])
}

fn stream(text: &str) -> Output {
    let message = json!({"output_type": "stream", "name": "stdout", "text": text});
    Output::from(serde_json::from_value::<OutputMessage>(message).unwrap())
}

fn display(data: Value) -> Output {
    let message = json!({"output_type": "display_data", "data": data, "metadata": {}});
    Output::from(serde_json::from_value::<OutputMessage>(message).unwrap())
}

/// What a program gets.
fn program(before: &Notebook, after: &Notebook, options: &Options) -> Value {
    shown(before, after, |one| {
        serde_json::to_value(document(one, options)).unwrap()
    })
}

/// A cell that is edited, one that is gone, one that is new, and one that was only run.
fn pair() -> (Notebook, Notebook) {
    let lines: Vec<String> = (1..=12).map(|n| format!("step_{n}()")).collect();
    let mut train = Cell::code(
        "train",
        format!("{}\nmodel = Forest(trees=100)", lines.join("\n")),
    );
    train.metadata.insert("tags".into(), json!(["train"]));
    let mut words = Cell::code("words", "# Results\n\nSoon.");
    words.kind = CellKind::Markdown;
    let before = book(vec![
        train,
        Cell::code("gone", "old()"),
        words,
        Cell::code("run", "print(1)"),
    ]);
    let mut after = before.clone();
    after.cells[0].source = after.cells[0].source.replace("100", "200") + "\nmodel.fit()";
    after.cells.remove(1);
    after.cells.insert(2, Cell::code("new", "score()\nplot()"));
    after.cells[3].outputs = vec![stream("1\n")];
    after.cells[3].execution_count = Some(3);
    (before, after)
}

#[test]
fn a_terminal_shows_cells_with_their_lines() {
    let (before, after) = pair();
    let options = Options::default();
    let text = shown(&before, &after, |one| super::text(one, &options));
    let expected = "\
train.ipynb: 1 cell changed, 1 added, 1 removed; what runs has changed

cell 1 [train] changed
... ...   9 lines the same
 10  10   step_10()
 11  11   step_11()
 12  12   step_12()
 13     - model = Forest(trees=100)
     13 + model = Forest(trees=200)
     14 + model.fit()

cell 2 removed
  1     - old()

cell 3 added
      1 + score()
      2 + plot()

not shown: outputs of 1 cell (--outputs, --metadata)
";
    assert_eq!(text, expected);
    let colour = Options {
        colour: true,
        view: View {
            outputs: true,
            metadata: true,
        },
        ..Options::default()
    };
    let text = shown(&before, &after, |one| super::text(one, &colour));
    assert!(
        text.contains("\u{1b}[31m- model = Forest(trees=\u{1b}[7m100\u{1b}[27m)\u{1b}[0m"),
        "{text}"
    );
    assert!(text.contains("output 1 (stdout) added"), "{text}");
    assert!(text.contains("count: none -> 3"), "{text}");
    assert!(!text.contains("not shown"));
    assert_eq!(
        shown(&before, &before.clone(), |one| super::text(one, &options)),
        ""
    );
}

#[test]
fn what_is_only_noise_is_one_line() {
    let (_, before) = pair();
    let mut after = before.clone();
    after.cells[3].outputs = vec![stream("2\n")];
    after.cells[0].execution_count = Some(9);
    let text = shown(&before, &after, |one| super::text(one, &Options::default()));
    assert_eq!(
        text,
        "train.ipynb: the same but for outputs of 1 cell, counts, ids or metadata of 1 cell; what runs is the same\n"
    );
    // The same beside a cell that is shown, and whose own output is another one.
    after.cells[1].source += " More.";
    let mut other = after.clone();
    other.cells[2].outputs = vec![stream("0\n")];
    let text = shown(&before, &other, |one| super::text(one, &Options::default()));
    let hidden = "not shown: outputs of 2 cells, counts, ids or metadata of 1 cell (";
    assert!(text.contains(hidden), "{text}");
    after.cells[1].source = before.cells[1].source.clone();
    assert!(!shown(&before, &after, |one| differs(
        &one[0],
        View::default()
    )));
    assert!(shown(&before, &after, |one| differs(
        &one[0],
        View {
            outputs: true,
            metadata: false
        }
    )));
}

/// A notebook that tries whatever it can.
fn hostile() -> (Notebook, Notebook) {
    let nasty = "\u{1b}[2J\u{1b}]0;x\u{7}```\n</details><script>alert(1)</script>\n@everyone #1\n\u{202e}evil\r\n\"'><img src=x onerror=alert(1)>";
    let mut cell = Cell::code("nasty", nasty);
    cell.metadata
        .insert("tags".into(), json!(["</summary>@all'", "\u{1b}[2J"]));
    cell.metadata
        .insert("<b>@all".into(), json!("\u{1b}[2J<script>"));
    cell.outputs = vec![
        display(json!({"text/html": "<script>alert(1)</script><b onclick=x()>bold</b>"})),
        display(json!({"text/html": "<p onclick=\"x()\">fine</p>"})),
        stream("\u{1b}]0;title\u{7}```"),
    ];
    let mut before = book(vec![cell]);
    before.cells[0].metadata.insert("<b>@all".into(), json!(1));
    let mut after = before.clone();
    after.cells[0]
        .metadata
        .insert("<b>@all".into(), json!("\u{1b}[2J<script>"));
    after.cells[0].source += "\n```` \u{1b}[1m more";
    after.cells[0].outputs[1] = display(json!({"text/html": "<p onclick=\"y()\">better</p>"}));
    after.cells[0].outputs[2] = stream("\u{1b}]0;other\u{7}````\nx");
    after
        .metadata
        .insert("@x".into(), json!("<script>alert(2)</script>"));
    (before, after)
}

const ALL: View = View {
    outputs: true,
    metadata: true,
};

#[test]
fn nothing_of_a_hostile_notebook_reaches_a_terminal() {
    let (before, after) = hostile();
    let options = Options {
        view: ALL,
        context: 99,
        ..Options::default()
    };
    let text = shown(&before, &after, |one| super::text(one, &options));
    let control = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.contains(control), "{text:?}");
    assert!(text.contains("@everyone"));
}

#[test]
fn nothing_of_a_hostile_notebook_acts_in_a_comment() {
    let (before, after) = hostile();
    let options = Options {
        view: ALL,
        context: 99,
        ..Options::default()
    };
    let text = shown(&before, &after, |one| comment(one, &options));
    let mut rules = comrak::Options::default();
    rules.render.r#unsafe = true;
    let html = comrak::markdown_to_html(&text, &rules);
    assert!(
        !html.contains("<script") && !html.contains("<img"),
        "{html}"
    );
    assert_eq!(
        html.matches("<details>").count(),
        html.matches("</details>").count()
    );
    assert_eq!(html.matches("</summary>").count(), 1);
    // Mentions stand in code, or are parted.
    let outside: String = html
        .split("<pre>")
        .map(|part| part.rsplit("</pre>").next().unwrap_or_default())
        .collect();
    assert!(
        !outside.contains("@e") && !outside.contains("@a"),
        "{outside}"
    );
}

#[test]
fn nothing_of_a_hostile_notebook_acts_in_a_page() {
    let (before, after) = hostile();
    let options = Options {
        view: ALL,
        context: 99,
        ..Options::default()
    };
    let html = shown(&before, &after, |one| page("<title>", one, &options));
    assert!(!html.contains("<script"), "{html}");
    assert!(!html.contains("<img"));
    assert!(!html.contains("onclick=\"") && !html.contains("<b onclick"));
    assert!(html.contains("fine") && html.contains("better") && html.contains("&lt;script&gt;"));
}

#[test]
fn a_page_marks_words_and_puts_pictures_side_by_side() {
    let (before, mut after) = pair();
    let mut before = before;
    before.cells[3].outputs = vec![display(
        json!({"image/png": "QUJD", "text/plain": "<Figure>"}),
    )];
    after.cells[3].outputs = vec![display(
        json!({"image/png": "REVG", "text/plain": "<Figure>"}),
    )];
    let options = Options {
        view: ALL,
        ..Options::default()
    };
    let html = shown(&before, &after, |one| page("x", one, &options));
    assert!(
        html.contains("<td>-model = Forest(trees=<del>100</del>)</td>"),
        "{html}"
    );
    assert!(html.contains("<td>+model = Forest(trees=<ins>200</ins>)</td>"));
    let (left, right) = (
        html.find("base64,QUJD").unwrap(),
        html.find("base64,REVG").unwrap(),
    );
    assert!(left < right && html[left..right].contains("nd-after"));
    assert!(html.contains("9 lines the same") && html.contains("<b>removed</b>"));
    let text = shown(&before, &after, |one| super::text(one, &options));
    assert!(
        text.contains("output 1 (image/png, text/plain) changed\n    what a terminal shows"),
        "{text}"
    );
}

#[test]
fn a_comment_folds_cells() {
    let (before, after) = pair();
    let text = shown(&before, &after, |one| comment(one, &Options::default()));
    assert!(text.starts_with("**`train.ipynb`**: 1 cell changed, 1 added, 1 removed; what runs has changed\n\n<details><summary>cell 1 <code>train</code> changed (+2 −1)</summary>\n\n\n```diff\n@@ 9 lines the same @@\n step_10()\n"), "{text}");
    assert!(
        text.contains(
            "-model = Forest(trees=100)\n+model = Forest(trees=200)\n+model.fit()\n```\n"
        )
    );
    assert!(text.ends_with("Not shown: outputs of 1 cell\n\n"));
}

#[test]
fn what_is_too_much_is_counted() {
    let many = |word: &str| {
        book(
            (0..400)
                .map(|n| {
                    Cell::code(
                        format!("{n}"),
                        format!("{word} = compute({n}, 1)\n").repeat(300),
                    )
                })
                .collect(),
        )
    };
    let (before, after) = (many("a"), many("b"));
    let options = Options {
        max_bytes: COMMENT_BYTES,
        ..Options::default()
    };
    let text = shown(&before, &after, |one| comment(one, &options));
    assert!(
        text.len() <= COMMENT_BYTES && text.contains("more cells\n"),
        "{}",
        text.len()
    );
    let few = Options {
        max_cells: 10,
        max_lines: 20,
        ..Options::default()
    };
    let text = shown(&before, &after, |one| super::text(one, &few));
    assert!(
        text.contains("and 390 more cells\n") && text.contains("and 580 more changed lines\n"),
        "{text}"
    );
    let html = shown(&before, &after, |one| page("x", one, &few));
    assert!(html.contains("and 390 more cells"));
    let one = &program(&before, &after, &few)["notebooks"][0];
    let cells = one["cells"].as_array().unwrap();
    assert_eq!(
        (cells.len(), &one["more_cells"], &cells[0]["source"]["more"]),
        (10, &json!(390), &json!(580))
    );
    let long = |c: &str| book(vec![Cell::code("a", c.repeat(100_000))]);
    let text = shown(&long("a"), &long("b"), |one| {
        super::text(one, &Options::default())
    });
    assert!(text.len() < 10_000);
}

#[test]
fn a_program_gets_stable_words() {
    let (before, after) = pair();
    let options = Options {
        view: ALL,
        ..Options::default()
    };
    let value = program(&before, &after, &options);
    let one = &value["notebooks"][0];
    assert_eq!(value["differs"], true);
    assert_eq!(
        (&one["file"], &one["meaning_changed"]),
        (&json!("kept"), &json!(true))
    );
    assert_eq!(
        one["summary"],
        json!({"added": 1, "removed": 1, "changed": 2, "moved": 0, "outputs": 1, "hidden": 0})
    );
    assert_eq!(
        one["cells"][0],
        json!({
            "change": "changed", "before": 1, "after": 1, "id": "train", "kind": "code", "tags": ["train"],
            "source": {"added": 2, "removed": 1, "more": 0, "edits": [{
                "removed": [{"line": 13, "text": "model = Forest(trees=100)", "words": ["100"]}],
                "added": [
                    {"line": 13, "text": "model = Forest(trees=200)", "words": ["200"]},
                    {"line": 14, "text": "model.fit()"},
                ],
            }]},
            "metadata": [], "outputs": [],
        })
    );
    assert_eq!(
        (&one["cells"][1]["change"], &one["cells"][1]["after"]),
        (&json!("removed"), &Value::Null)
    );
    assert_eq!(one["cells"][3]["outputs"][0]["kind"], "stdout");
}

#[test]
fn a_program_gets_no_id_that_stands_in_no_file() {
    let file = |source: &str| {
        let cell = json!({"cell_type": "markdown", "metadata": {}, "source": source});
        let mut other = cell.clone();
        other["id"] = "own".into();
        let file =
            json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell, other]});
        notebook::read(file.to_string().as_bytes()).unwrap()
    };
    let (before, after) = (file("# Results"), file("# Results\n\nSoon."));
    let value = program(&before, &after, &Options::default());
    let cells = &value["notebooks"][0]["cells"];
    assert_eq!(
        (&cells[0]["change"], &cells[0]["id"]),
        (&json!("changed"), &Value::Null)
    );
    assert_eq!(
        (&cells[1]["change"], &cells[1]["id"]),
        (&json!("changed"), &json!("own"))
    );
}

#[test]
fn a_file_that_is_new_or_gone_is_told_whole() {
    let (_, notebook) = pair();
    let nothing = Notebook::default();
    for (file, before, after, words) in [
        (
            File::Added,
            &nothing,
            &notebook,
            "x.ipynb: new, with 4 cells; what runs has changed\n",
        ),
        (
            File::Removed,
            &notebook,
            &nothing,
            "x.ipynb: removed, with 4 cells; nothing is left to run\n",
        ),
    ] {
        let diff = diff(before, after);
        let one = [Compared {
            name: "x.ipynb",
            before,
            after,
            diff: &diff,
            file,
        }];
        let text = super::text(&one, &Options::default());
        assert!(text.starts_with(words), "{text}");
        assert!(differs(&one[0], View::default()));
    }
}

#[test]
fn kernel_and_metadata_are_told() {
    let mut before = book(vec![Cell::code("a", "1")]);
    before.metadata.insert(
        "kernelspec".into(),
        json!({"name": "python3", "display_name": "Python 3"}),
    );
    let mut after = before.clone();
    after.metadata["kernelspec"] = json!({"name": "ir", "display_name": "R"});
    after.cells[0]
        .metadata
        .insert("tags".into(), json!(["parameters"]));
    let text = shown(&before, &after, |one| super::text(one, &Options::default()));
    assert_eq!(
        text,
        "train.ipynb: 1 cell changed, kernel or metadata changed; what runs has changed\n\n\
         notebook changed\n  kernel: python3 -> ir\n\n\
         cell 1 [parameters] changed\n  tags: nothing -> [\"parameters\"]\n"
    );
}
