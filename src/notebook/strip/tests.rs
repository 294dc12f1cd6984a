use proptest::prelude::*;
use serde_json::json;

use super::*;

const FILE: &str = r#"{
 "cells": [
  {
   "cell_type": "code",
   "execution_count": 3,
   "metadata": {
    "collapsed": true,
    "execution": {
     "iopub.status": "x"
    },
    "tags": [
     "a"
    ],
    "scrolled": false
   },
   "outputs": [
    {
     "data": {
      "text/plain": [
       "1"
      ]
     },
     "execution_count": 3,
     "metadata": {},
     "output_type": "execute_result"
    }
   ],
   "source": [
    "1"
   ]
  },
  {
   "cell_type": "markdown",
   "metadata": {
    "scrolled": true
   },
   "source": ["\u00e9 \"outputs\": [1]"]
  }
 ],
 "metadata": {
  "big": 123456789012345678901234567890, "nan": NaN,
  "widgets": {}
 },
 "nbformat": 4,
 "nbformat_minor": 4
}
"#;

fn stripped(text: &str, options: Strip) -> String {
    let out = strip(text.as_bytes(), &options).unwrap();
    out.map_or_else(|| text.to_owned(), |out| String::from_utf8(out).unwrap())
}

#[test]
fn outputs_and_counts_go_and_no_other_byte() {
    let start = FILE.find("   \"outputs\": [\n").unwrap();
    let end = FILE.find("   \"source\": [\n    \"1\"").unwrap();
    let expected = format!("{}   \"outputs\": [],\n{}", &FILE[..start], &FILE[end..]);
    let expected = expected.replace("\"execution_count\": 3", "\"execution_count\": null");
    assert_eq!(stripped(FILE, Strip::default()), expected);
    assert_eq!(strip(expected.as_bytes(), &Strip::default()), Ok(None));

    let with_mark = format!("\u{feff}{FILE}");
    assert_eq!(
        stripped(&with_mark, Strip::default()),
        format!("\u{feff}{expected}")
    );
}

#[test]
fn metadata_of_executions_goes_on_demand() {
    let options = Strip {
        keep_counts: true,
        metadata: true,
    };
    let out = stripped(FILE, options);
    assert!(out.contains(
        "\"execution_count\": 3,\n   \"metadata\": {\n    \"tags\": [\n     \"a\"\n    ]\n   },"
    ));
    assert!(out.contains("\"metadata\": {},\n   \"source\""), "{out}");
    assert!(out.contains("\"nan\": NaN\n },\n \"nbformat\""), "{out}");
}

#[test]
fn what_is_marked_keeps_its_outputs() {
    let file = |cell: Value, whole: Value| {
        json!({"nbformat": 4, "nbformat_minor": 5, "metadata": whole, "cells": [{
            "cell_type": "code", "source": "", "metadata": cell, "execution_count": 1,
            "outputs": [{"output_type": "execute_result", "execution_count": 1, "data": {}, "metadata": {}}],
        }]})
        .to_string()
    };
    let kept = [
        file(json!({"tags": ["keep_output"]}), json!({})),
        file(json!({"keep_output": true}), json!({})),
        file(json!({"init_cell": true}), json!({})),
        file(json!({}), json!({"keep_output": true})),
    ];
    for text in kept {
        let expected = text.replace("\"execution_count\":1", "\"execution_count\":null");
        assert_eq!(stripped(&text, Strip::default()), expected);
    }
    for text in [
        file(
            json!({"tags": ["keep_output"], "keep_output": false}),
            json!({}),
        ),
        file(json!({"tags": ["keep"]}), json!({})),
    ] {
        assert!(stripped(&text, Strip::default()).contains("\"outputs\":[]"));
    }
}

#[test]
fn an_old_notebook_stays_old() {
    let old = r#"{"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "code", "prompt_number": 2,
        "outputs": [{"output_type": "pyout", "prompt_number": 2}], "input": "1"}]}], "metadata": {}}"#;
    let out = stripped(old, Strip::default());
    assert!(
        out.contains("\"prompt_number\": null") && out.contains("\"outputs\": []"),
        "{out}"
    );
}

#[test]
fn what_is_no_notebook_is_refused() {
    for (text, sentence) in [
        (
            "hello",
            "line 1, column 1: not JSON: a value was expected here",
        ),
        (
            "[1]",
            "this is JSON but not a notebook: its top level is not an object",
        ),
        (
            "{}",
            "this is JSON but not a notebook: `nbformat` is missing",
        ),
        (
            "{\"nbformat\": 4}",
            "this is JSON but not a notebook: `cells` is missing or not a list",
        ),
        (
            "{\"nbformat\": 2}",
            "nbformat 2 is not read (3 and 4 are); open the notebook in Jupyter and save it",
        ),
        (
            "{\"nbformat\": 4, \"cells\": [",
            "line 1, column 27: the file is cut off: the text ends here",
        ),
    ] {
        assert_eq!(
            strip(text.as_bytes(), &Strip::default())
                .unwrap_err()
                .to_string(),
            sentence
        );
    }
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(CELL_KEYS.to_vec()).prop_map(str::to_owned),
        "[a-c]{1,2}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Serde and a plain reading of the rules are the judges.
    #[test]
    fn whatever_the_form_the_values_are_those_wanted(
        cells in prop::collection::vec((any::<bool>(), prop::collection::vec((key(), 0..3_u8), 0..5), prop::option::of(0..9_u8), 0..3_usize), 0..4),
        pretty in any::<bool>(),
        keep_counts in any::<bool>(),
        metadata in any::<bool>(),
    ) {
        let cells: Vec<Value> = cells.into_iter().map(|(code, fields, count, outputs)| {
            let metadata: Map<String, Value> = fields.into_iter().map(|(key, n)| (key, json!({"n": n}))).collect();
            let output = json!({"output_type": "execute_result", "execution_count": count, "data": {}, "metadata": {}});
            json!({"cell_type": if code { "code" } else { "markdown" }, "metadata": metadata, "execution_count": count,
                "outputs": vec![output; outputs], "source": "x , {"})
        }).collect();
        let document = json!({"cells": cells, "metadata": {"widgets": {}, "k": 1}, "nbformat": 4, "nbformat_minor": 4});
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let text = text.replace("},\"", "} , \"");
        let options = Strip { keep_counts, metadata };
        let out = stripped(&text, options);
        let mut expected = document;
        for cell in expected["cells"].as_array_mut().unwrap() {
            if cell["cell_type"] == "code" {
                cell["outputs"] = json!([]);
                if !keep_counts {
                    cell["execution_count"] = Value::Null;
                }
            }
            if metadata {
                cell["metadata"].as_object_mut().unwrap().retain(|key, _| !CELL_KEYS.contains(&key.as_str()));
            }
        }
        if metadata {
            expected["metadata"].as_object_mut().unwrap().shift_remove("widgets");
        }
        prop_assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected);
        prop_assert_eq!(strip(out.as_bytes(), &options).unwrap(), None);
    }
}
