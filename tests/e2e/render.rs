//! `trainyard render`, `trainyard inspect` and the values of `trainyard run -p`, told to the real binary.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const OUTSIDE: &str = "![pixel](https://tracker.example/x.png)<script>alert(1)</script>";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let code = |source: &str, tags: Value, outputs: Value| {
            json!({"cell_type": "code", "id": format!("c{}", source.len()), "metadata": {"tags": tags}, "source": source,
                   "execution_count": 1, "outputs": outputs})
        };
        let text = "\u{1b}[32mgreen\u{1b}[0m \u{1b}]0;title\u{7}<b>\n";
        let notebook = json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": "python3", "language": "python"}}, "cells": [
            {"cell_type": "markdown", "id": "m", "metadata": {}, "source": format!("# Title $x^2$\n\n{OUTSIDE}")},
            code("lr: float = 0.1  # learning rate\nepochs = 3\n", json!(["parameters"]), json!([])),
            code("print('hi')", json!(["raises-exception"]), json!([{"output_type": "stream", "name": "stdout", "text": text}])),
        ]});
        folder.write("train.ipynb", &notebook.to_string());
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn trainyard(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_trainyard"))
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.trainyard(arguments, "");
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, arguments: &[&str], input: &str) -> String {
        let output = self.trainyard(arguments, input);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_notebook_is_rendered_by_the_outputs_name() {
    let folder = Folder::new();
    folder.done(&["render", "train.ipynb", "-o", "page.html"]);
    let page = folder.read("page.html");
    assert!(page.starts_with("<!doctype html>") && page.contains("<title>train</title>"));
    assert!(page.contains("<msup><mi>x</mi><mn>2</mn></msup>"), "{page}");
    assert!(
        page.contains("<span class=\"a-f2\">green</span> &lt;b&gt;"),
        "{page}"
    );
    assert!(
        !page.contains("<script") && !page.contains("tracker.example"),
        "{page}"
    );
    folder.done(&["render", "train.ipynb", "-o", "page.md", "--no-outputs"]);
    assert_eq!(
        folder.read("page.md"),
        format!(
            "# Title $x^2$\n\n{OUTSIDE}\n\n```python\nlr: float = 0.1  # learning rate\nepochs = 3\n```\n\n```python\nprint('hi')\n```\n"
        )
    );
    let text = folder.done(&["render", "train.ipynb"]);
    assert!(text.contains("── Cell 3 [1] raises-exception ─"), "{text}");
    assert!(
        text.contains("\ngreen <b>\n") && !text.contains('\u{1b}'),
        "{text:?}"
    );
    let piped = folder.trainyard(
        &["render", "-", "--format", "md"],
        &folder.read("train.ipynb"),
    );
    assert!(String::from_utf8_lossy(&piped.stdout).contains("```python\nprint('hi')\n```"));
}

#[test]
fn what_cannot_be_rendered_is_said_and_the_rest_is_written() {
    let folder = Folder::new();
    folder.write("broken.ipynb", "{\"cells\": [\n  {]}");
    let broken = folder.refused(&["render", "broken.ipynb"], "");
    assert!(
        broken.starts_with("error: broken.ipynb: line 2, column 4: not JSON: "),
        "{broken}"
    );
    let input = folder.refused(&["render", "-"], "{\"a\": 1}");
    assert!(
        input.contains("standard input: this is JSON but not a notebook"),
        "{input}"
    );
    let several = ["render", "broken.ipynb", "train.ipynb", "-o", "site"];
    let some = folder.refused(&several, "");
    assert!(
        some.contains("line 2, column 4") && some.contains("1 of 2 notebooks"),
        "{some}"
    );
    assert!(
        folder
            .read("site/train.html")
            .contains("<title>train</title>")
    );
    fs::copy(
        folder.path().join("train.ipynb"),
        folder.path().join("two.ipynb"),
    )
    .unwrap();
    let one_file = folder.refused(
        &["render", "train.ipynb", "two.ipynb", "-o", "both.html"],
        "",
    );
    assert!(
        one_file.contains("'both.html' is one file, and 2 notebooks do not fit in it"),
        "{one_file}"
    );
    assert!(!folder.path().join("both.html").exists());
    let text = folder.done(&["render", "train.ipynb", "two.ipynb", "-o", "-"]);
    assert!(
        text.starts_with("═══ train.ipynb\n\n── ") && text.contains("\n═══ two.ipynb\n\n── "),
        "{text}"
    );
    let text = folder.done(&["render", "train.ipynb", "two.ipynb", "--format", "md"]);
    assert!(text.contains("\n\n# `two.ipynb`\n\n"), "{text}");
    let before = folder.read("train.ipynb");
    let itself = folder.refused(
        &[
            "render",
            "train.ipynb",
            "-o",
            "train.ipynb",
            "--format",
            "md",
        ],
        "",
    );
    assert!(itself.contains("is the notebook itself"), "{itself}");
    assert_eq!(folder.read("train.ipynb"), before);
}

#[test]
fn a_notebooks_parameters_are_listed_and_held_against_what_is_given() {
    let folder = Folder::new();
    let text = folder.done(&["inspect", "train.ipynb"]);
    for part in [
        "3, 2 of code",
        "cell 2: parameters; cell 3: raises-exception",
        "lr         float  0.1      learning rate",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let report: Value =
        serde_json::from_str(&folder.done(&["inspect", "train.ipynb", "--json"])).unwrap();
    assert_eq!(
        report["parameters"],
        json!([
            {"name": "lr", "type": "float", "default": "0.1", "help": "learning rate", "line": 1},
            {"name": "epochs", "type": "int", "default": "3", "help": "", "line": 2},
        ])
    );
    assert_eq!(report["fingerprint"].as_str().unwrap().len(), 64);
    let run = ["run", "train.ipynb", "--executor", "shell", "-p", "epoch=3"];
    let unknown = folder.refused(&run, "");
    assert!(
        unknown.contains("unknown parameter 'epoch'; did you mean 'epochs'?"),
        "{unknown}"
    );
    assert!(unknown.contains("--allow-unknown"), "{unknown}");
}

#[test]
fn what_cannot_run_is_said_before_anything_is_started() {
    let folder = Folder::new();
    let cell = |tags: Value| json!({"cell_type": "code", "id": "a", "metadata": {"tags": tags}, "source": "1", "execution_count": null, "outputs": []});
    let file = |major: u64, cells: Value| {
        json!({"nbformat": major, "nbformat_minor": 0, "metadata": {}, "cells": cells}).to_string()
    };
    folder.write("cut.ipynb", "{\"cells\": [");
    folder.write("newer.ipynb", &file(5, json!([])));
    folder.write(
        "empty.ipynb",
        &file(4, json!([{"cell_type": "code", "metadata": {}}])),
    );
    folder.write(
        "tag.ipynb",
        &file(4, json!([cell(json!([])), cell(json!(["timeout=soon"]))])),
    );
    for (arguments, words) in [
        (
            &["cut.ipynb"][..],
            "cut.ipynb: line 1, column 12: the file is cut off",
        ),
        (
            &["newer.ipynb"],
            "newer.ipynb: nbformat 5 is newer than what this version of Trainyard reads",
        ),
        (&["empty.ipynb"], "empty.ipynb: cell 1: it has no `source`"),
        (&["tag.ipynb"], "tag.ipynb: cell 2: its tag `timeout=…`: "),
        (&["train.ipynb", "--allow-unknown", "-p", "x y=3"], "x y"),
    ] {
        let said = folder.refused(&[&["run", "--executor", "shell"], arguments].concat(), "");
        assert!(
            said.starts_with("error: ") && said.contains(words),
            "{said}"
        );
    }
    assert!(!folder.path().join(".trainyard").exists());

    let tagged = file(4, json!([cell(json!(["timeout=soon"])), cell(json!([]))]));
    let tagged = tagged.replace(
        "\"metadata\":{}",
        "\"metadata\":{\"execution\":{\"timeout\":\"1h\"}}",
    );
    folder.write("odd.ipynb", &tagged);
    let text = folder.done(&["inspect", "odd.ipynb"]);
    for part in [
        "problem      `metadata.execution.timeout` is \"1h\"; ",
        "problem      cell 1: its tag `timeout=…`: ",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let report: Value =
        serde_json::from_str(&folder.done(&["inspect", "odd.ipynb", "--json"])).unwrap();
    let cells: Vec<&Value> = report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| &problem["cell"])
        .collect();
    assert_eq!(cells, [&Value::Null, &json!(1)]);
}
