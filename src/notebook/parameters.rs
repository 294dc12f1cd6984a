//! Parameters by papermill's rules: where they are injected, and which names the notebook offers. How
//! values look in a language is `translate`'s part.

mod kinds;
mod names;
mod targets;
mod translate;

use serde_json::{Map, Value, json};

use crate::model::{Cell, Notebook};
use crate::nbformat::derive_id;

pub use names::{Parameter, defaults, names, offered};

/// Tag of the cell that holds the defaults.
pub const PARAMETERS: &str = "parameters";
/// Tag of the cell that holds the values of one execution.
pub const INJECTED: &str = "injected-parameters";

/// A notebook with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// What is to be executed.
    pub notebook: Notebook,
    /// For each of its cells, the index of that cell in the source; None for the injected one.
    pub origin: Vec<Option<usize>>,
    /// Parameters that were given and that the cell tagged `parameters` does not assign. papermill
    /// warns of these; None where there is no such cell or its language is not one that is looked at.
    pub unknown: Option<Vec<String>>,
}

/// Why parameters cannot be injected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// No translator.
    #[error(
        "parameters cannot be written in '{language}' (kernel '{kernel}'); python, R, julia and bash can"
    )]
    Language {
        /// The notebook's language.
        language: String,
        /// The notebook's kernel.
        kernel: String,
    },
    /// A name that is none in the language.
    #[error("'{name}' is not a name of a variable in {language}")]
    Name {
        /// The parameter, shortened.
        name: String,
        /// The language.
        language: &'static str,
    },
    /// A value that the language cannot say.
    #[error("the value of '{name}' is {what}, which {language} has not")]
    Value {
        /// The parameter.
        name: String,
        /// Such as `an object`.
        what: &'static str,
        /// The language.
        language: &'static str,
    },
}

/// Injects parameters: replaces a cell tagged `injected-parameters`, else inserts one after the first
/// cell tagged `parameters`, else at the top. Without parameters the notebook stays as it is.
///
/// # Errors
/// Where the notebook's language cannot say them.
pub fn inject(
    notebook: &Notebook,
    parameters: &Map<String, Value>,
) -> Result<Injected, ParameterError> {
    let mut notebook = notebook.clone();
    let mut origin: Vec<Option<usize>> = (0..notebook.cells.len()).map(Some).collect();
    if parameters.is_empty() {
        return Ok(Injected {
            notebook,
            origin,
            unknown: None,
        });
    }
    let source = translate::assignments(&notebook, parameters)?;
    let unknown = names(&notebook).map(|known| {
        let strange = parameters.keys().filter(|name| !known.contains(name));
        strange.cloned().collect()
    });
    let mut cell = Cell::code("", source);
    cell.id = derive_id(&cell, &notebook.cells);
    cell.metadata.insert("tags".into(), json!([INJECTED]));

    let tagged = |tag| notebook.cells.iter().position(|cell| cell.has_tag(tag));
    match (tagged(INJECTED), tagged(PARAMETERS)) {
        (Some(old), _) => {
            notebook.cells[old] = cell;
            origin[old] = None;
        }
        (None, place) => {
            let at = place.map_or(0, |parameters| parameters + 1);
            notebook.cells.insert(at, cell);
            origin.insert(at, None);
        }
    }
    let papermill = notebook
        .metadata
        .entry("papermill")
        .or_insert_with(|| json!({}));
    if !papermill.is_object() {
        *papermill = json!({});
    }
    papermill["parameters"] = Value::Object(parameters.clone());
    Ok(Injected {
        notebook,
        origin,
        unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notebook(cells: &[(&str, &[&str])]) -> Notebook {
        let cells = cells.iter().enumerate().map(|(index, (source, tags))| {
            let mut cell = Cell::code(format!("c{index}"), *source);
            cell.metadata.insert("tags".into(), json!(tags));
            cell
        });
        Notebook {
            cells: cells.collect(),
            ..Notebook::default()
        }
    }

    fn given(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn in_kernel(name: &str, language: &str, value: Value) -> Result<String, ParameterError> {
        let mut notebook = notebook(&[]);
        notebook.metadata.insert(
            "kernelspec".into(),
            json!({"name": name, "language": language}),
        );
        inject(&notebook, &given(value)).map(|done| done.notebook.cells[0].source.clone())
    }

    #[test]
    fn values_come_after_the_defaults() {
        let before = notebook(&[("import x", &[]), ("lr = 1", &["parameters"]), ("go", &[])]);
        let done = inject(&before, &given(json!({"lr": 0.5, "speed": 1}))).unwrap();
        assert_eq!(done.origin, [Some(0), Some(1), None, Some(2)]);
        assert_eq!(
            done.notebook.cells[2].source,
            "# Parameters\nlr = 0.5\nspeed = 1\n"
        );
        assert!(done.notebook.cells[2].has_tag(INJECTED));
        assert_eq!(done.unknown, Some(vec!["speed".to_owned()]));
        assert_eq!(
            done.notebook.metadata["papermill"]["parameters"]["lr"],
            json!(0.5)
        );
    }

    #[test]
    fn an_injected_cell_is_replaced() {
        let before = notebook(&[("lr = 1", &["parameters"]), ("lr = 2", &[INJECTED])]);
        let done = inject(&before, &given(json!({"lr": 3}))).unwrap();
        assert_eq!(done.origin, [Some(0), None]);
        assert_eq!(done.notebook.cells[1].source, "# Parameters\nlr = 3\n");
    }

    #[test]
    fn without_a_tag_they_stand_at_the_top_and_without_parameters_nowhere() {
        let before = notebook(&[("go", &[])]);
        let done = inject(&before, &given(json!({"a": 1}))).unwrap();
        assert_eq!(done.origin, [None, Some(0)]);
        assert_eq!(done.unknown, None);
        let done = inject(&before, &Map::new()).unwrap();
        assert_eq!((done.notebook, done.origin), (before, vec![Some(0)]));
    }

    #[test]
    fn values_in_python_are_papermills() {
        let values = json!({
            "none": null, "yes": true, "no": false, "int": -3, "float": 1e-7, "big": 1e16,
            "text": "a\"b\\c\n\té€😀", "list": [1, "x", [true]], "map": {"k": {"v": 1.0}},
        });
        assert_eq!(
            in_kernel("python3", "python", values).unwrap(),
            "# Parameters\nnone = None\nyes = True\nno = False\nint = -3\nfloat = 1e-07\nbig = 1e+16\n\
             text = \"a\\\"b\\\\c\\n\\t\\xe9\\u20ac\\U0001f600\"\nlist = [1, \"x\", [True]]\nmap = {\"k\": {\"v\": 1.0}}\n"
        );
    }

    #[test]
    fn other_languages_have_their_own_words() {
        let values = json!({"_a": [true, null], "b": {"k": "é$x"}});
        assert_eq!(
            in_kernel("ir", "R", values.clone()).unwrap(),
            "# Parameters\na = list(TRUE, NULL)\nb = list(\"k\" = \"\\u00e9$x\")\n"
        );
        assert_eq!(
            in_kernel("julia-1.10", "julia", values).unwrap(),
            "# Parameters\n_a = [true, nothing]\nb = Dict(\"k\" => \"\\u00e9\\$x\")\n"
        );
        assert_eq!(
            in_kernel("bash", "bash", json!({"a": ["x y", 1], "b": "it's"})).unwrap(),
            "# Parameters\na=('x y' 1)\nb='it'\"'\"'s'\n"
        );
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        for (kernel, language, value, sentence) in [
            (
                "xcpp17",
                "C++17",
                json!({"a": 1}),
                "parameters cannot be written in 'c++17' (kernel 'xcpp17'); python, R, julia and bash can",
            ),
            (
                "python3",
                "python",
                json!({"a; import os": 1}),
                "'a; import os' is not a name of a variable in python",
            ),
            (
                "python3",
                "python",
                json!({"lambda": 1}),
                "'lambda' is not a name of a variable in python",
            ),
            (
                "bash",
                "bash",
                json!({"a": {}}),
                "the value of 'a' is an object, which bash has not",
            ),
        ] {
            let error = in_kernel(kernel, language, value).unwrap_err();
            assert_eq!(error.to_string(), sentence);
        }
    }

    #[test]
    fn names_are_those_at_the_margin() {
        let source = "\"\"\"Defaults:\nnot_this = 1\n\"\"\"\nlr = 0.1  # b = 2\nseed: int = 3\na = b = \"\"\nif x:\n    inner = 1\n\
                      conf = {\n'k': 1,\nnor_this = 2\n}\ntext = '''\nnor = 3\n'''\nlong = 1 + \\\n2\nx == 3\ncall(y=1)\nlr = 2\nend = '\"\"\"'\nlast = 1\nu, v = 1, 2\n(w, x) = f()";
        let notebook = notebook(&[(source, &["parameters"])]);
        assert_eq!(
            names(&notebook).unwrap(),
            [
                "lr", "seed", "a", "b", "conf", "text", "long", "end", "last", "u", "v", "w", "x"
            ]
        );
    }

    #[test]
    fn what_is_offered_has_a_default_a_type_and_help() {
        let source = "# all of them\nlr = 0.1  # learning rate\nepochs: int = 20 # how often\nname = 'a # b'\nsizes = [  # first\n    1,  # second\n    2,\n]  # widths\n\
                      path: \"Optional[str]\" = None\nold = 3 # type: float  as it was\nrun = make(x)\na = b = True\nlr = 0.5 # again\nif x:\n    y = 1\n%time z = 1\n";
        let found = offered(&notebook(&[(source, &["parameters"])])).unwrap();
        let rows: Vec<_> = found
            .iter()
            .map(|p| {
                (
                    p.name.as_str(),
                    p.default.as_str(),
                    p.type_name.as_deref(),
                    p.help.as_str(),
                    p.line,
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                ("lr", "0.5", Some("float"), "again", 13),
                ("epochs", "20", Some("int"), "how often", 3),
                ("name", "'a # b'", Some("str"), "", 4),
                ("sizes", "[\n    1,\n    2,\n]", Some("list"), "widths", 5),
                ("path", "None", Some("Optional[str]"), "", 9),
                ("old", "3", Some("float"), "as it was", 10),
                ("run", "make(x)", None, "", 11),
                ("a", "True", Some("bool"), "", 12),
                ("b", "True", Some("bool"), "", 12),
            ]
        );
        let mismatch = |index: usize, value: Value| found[index].mismatch(&value);
        assert_eq!(
            mismatch(1, json!("x")).unwrap(),
            "text, where the notebook has 'int'"
        );
        assert_eq!(mismatch(1, json!(3)), None);
        assert_eq!(mismatch(4, json!(null)), None);
        assert_eq!(mismatch(6, json!("x")), None, "a call may give anything");
    }

    #[test]
    fn a_hostile_cell_costs_little() {
        let offers = |source: &str| offered(&notebook(&[(source, &["parameters"])]));
        let long = "x".repeat(20_000);
        let chain = format!("{}\"{long}\" # {long}", "a = ".repeat(900));
        let [one] = &offers(&chain).unwrap()[..] else {
            panic!("one name")
        };
        assert_eq!(
            (one.name.as_str(), one.default.as_str(), one.help.len()),
            ("a", "", 1 << 10)
        );
        assert_eq!(one.type_name.as_deref(), Some("str"));
        assert_eq!(offers(&format!("{}1", "a = ".repeat(2_000))), None);
        let many: String = (0..1_001).map(|n| format!("a{n} = 1\n")).collect();
        assert_eq!(offers(&many), None);
        assert_eq!(offers(&"a = 1\n".repeat(20_000)), None);
    }
}
