//! Parameters' values as papermill writes them, from a table that papermill itself wrote, and where we differ.

use notebook::Notebook;
use notebook::parameters::{ParameterError, inject};
use serde_json::{Map, Value, json};

const TABLE: &str = include_str!("../data/papermill-values.json");

fn written(language: &str, value: &Value) -> Result<String, ParameterError> {
    let mut notebook = Notebook::default();
    let kernel = json!({"name": language, "language": language});
    notebook.metadata.insert("kernelspec".into(), kernel);
    let given = Map::from_iter([("x".to_owned(), value.clone())]);
    let source = inject(&notebook, &given)?.notebook.cells[0].source.clone();
    let line = source.strip_prefix("# Parameters\nx").unwrap();
    let line = line.strip_suffix('\n').unwrap();
    Ok(line
        .strip_prefix(" = ")
        .or(line.strip_prefix('='))
        .unwrap()
        .to_owned())
}

/// What we write otherwise, and why.
fn ours(language: &str, name: &str) -> Option<Option<&'static str>> {
    Some(match (language, name) {
        // A JSON number beyond 64 bits is a float here.
        ("python" | "r" | "julia" | "bash", "huge") => Some("1e+30"),
        ("python" | "r" | "julia" | "bash", "huge_negative") => Some("-1e+25"),
        // `\xe9` is a byte there, not a character.
        ("r" | "julia", "latin") => Some("\"caf\\u00e9\""),
        ("r" | "julia", "control") => Some("\"a\\u0000b\\u0007\\u007f\""),
        ("r", "odd_keys") => Some("list(\"it's\" = 1, \"\\\"\" = 2, \"\\u00e9\" = 3)"),
        ("r", "in_list") => Some("list(\"\\u00e9 $x\", list())"),
        ("julia", "odd_keys") => Some("Dict(\"it's\" => 1, \"\\\"\" => 2, \"\\u00e9\" => 3)"),
        ("julia", "in_list") => Some("[\"\\u00e9 \\$x\", []]"),
        // A dollar would be replaced by a variable's value, or run what follows it.
        ("julia", "dollar") => Some("\"\\$HOME \\${x} \\$(rm)\""),
        // A list in a list is no syntax of a shell; papermill writes it.
        ("bash", "nested" | "in_list") => None,
        _ => return None,
    })
}

#[test]
fn values_are_written_as_papermill_writes_them() {
    let table: Value = serde_json::from_str(TABLE).unwrap();
    let cases = table["cases"].as_array().unwrap();
    assert!(cases.len() >= 30);
    let (mut same, mut different) = (0, 0);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        for language in ["python", "r", "julia", "bash"] {
            let found = written(language, &case["value"]).ok();
            let papermills = case[language].as_str();
            match ours(language, name) {
                Some(wanted) => {
                    assert_ne!(
                        wanted, papermills,
                        "{language} {name}: it is no difference any more"
                    );
                    assert_eq!(found.as_deref(), wanted, "{language} {name}");
                    different += 1;
                }
                None => {
                    assert_eq!(found.as_deref(), papermills, "{language} {name}");
                    same += 1;
                }
            }
        }
    }
    assert_eq!(different, 19);
    assert!(same > 100);
}
