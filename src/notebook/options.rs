//! What a notebook says about its own execution: `metadata.execution`, as nbmake and Jupyter Book read it, and the tag
//! `timeout=…` of a cell. Must not know what is done about it.

use serde_json::{Map, Value};

use crate::model::{Cell, Notebook};

/// The tag of a cell that says how long it may take, up to its value.
const TIMEOUT_TAG: &str = "timeout=";

/// What stands in `metadata.execution`; what is absent or null is not said.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Execution {
    /// How long each cell may take.
    pub timeout: Option<CellTime>,
    /// Whether every cell may raise.
    pub allow_errors: bool,
}

/// How long a cell may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CellTime {
    /// As long as it needs: zero or a negative number.
    Unlimited,
    /// So many seconds.
    Seconds(f64),
}

/// An option with a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// `metadata.execution` is no object.
    #[error("`metadata.execution` is {found}; it is an object such as {{\"timeout\": 600}}")]
    Execution {
        /// What stands there, shortened.
        found: String,
    },
    /// The time-out.
    #[error(
        "`metadata.execution.timeout` is {found}; it is a number of seconds for each cell, such as 600, or -1 for no limit"
    )]
    Timeout {
        /// What stands there, shortened.
        found: String,
    },
    /// Whether errors are allowed.
    #[error("`metadata.execution.allow_errors` is {found}; it is true or false")]
    AllowErrors {
        /// What stands there, shortened.
        found: String,
    },
}

impl Notebook {
    /// What it says about its execution.
    ///
    /// # Errors
    /// Where a value is none of its option: what was meant cannot be known.
    pub fn execution(&self) -> Result<Execution, OptionError> {
        let options = match self.metadata.get("execution") {
            None | Some(Value::Null) => return Ok(Execution::default()),
            Some(Value::Object(options)) => options,
            Some(other) => {
                return Err(OptionError::Execution {
                    found: short(other),
                });
            }
        };
        let timeout = match option(options, "timeout") {
            None => None,
            Some(value) => match value.as_f64() {
                Some(seconds) if seconds <= 0.0 => Some(CellTime::Unlimited),
                Some(seconds) => Some(CellTime::Seconds(seconds)),
                None => {
                    return Err(OptionError::Timeout {
                        found: short(value),
                    });
                }
            },
        };
        let allow_errors = match option(options, "allow_errors") {
            None => false,
            Some(Value::Bool(allowed)) => *allowed,
            Some(other) => {
                return Err(OptionError::AllowErrors {
                    found: short(other),
                });
            }
        };
        Ok(Execution {
            timeout,
            allow_errors,
        })
    }

    /// The options of `metadata.execution` that change something, as they stand there.
    pub(crate) fn execution_options(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        let options = self.metadata.get("execution").and_then(Value::as_object);
        let named = ["allow_errors", "timeout"].into_iter();
        named
            .filter_map(move |name| Some((name, option(options?, name)?)))
            .filter(|(_, value)| **value != Value::Bool(false))
    }
}

impl Cell {
    /// The values of its tags `timeout=…`, such as `10m`. More than one contradict each other.
    pub fn timeout_tags(&self) -> impl Iterator<Item = &str> {
        self.tags().filter_map(|tag| tag.strip_prefix(TIMEOUT_TAG))
    }
}

fn option<'a>(options: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    options.get(name).filter(|value| !value.is_null())
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn says(execution: Value) -> Result<Execution, String> {
        let metadata = Map::from_iter([("execution".to_owned(), execution)]);
        let notebook = Notebook {
            metadata,
            ..Notebook::default()
        };
        notebook.execution().map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_those_of_nbmake() {
        let none = Ok(Execution::default());
        assert_eq!(Notebook::default().execution(), Ok(Execution::default()));
        assert_eq!(says(Value::Null), none);
        assert_eq!(says(json!({"other": "x", "timeout": null})), none);
        let all = says(json!({"timeout": 0.5, "allow_errors": true})).unwrap();
        assert_eq!(all.timeout, Some(CellTime::Seconds(0.5)));
        assert!(all.allow_errors);
        for forever in [json!(-1), json!(0), json!(-0.5)] {
            let said = says(json!({ "timeout": forever })).unwrap();
            assert_eq!(said.timeout, Some(CellTime::Unlimited));
        }
    }

    #[test]
    fn a_value_that_is_none_is_refused() {
        for (execution, words) in [
            (
                json!({"timeout": "10m"}),
                "timeout` is \"10m\"; it is a number of seconds",
            ),
            (json!({"timeout": true}), "timeout` is true;"),
            (
                json!({"allow_errors": "yes"}),
                "allow_errors` is \"yes\"; it is true or false",
            ),
            (json!([1]), "execution` is [1]; it is an object"),
            (json!("x".repeat(1_000)), "xxx…; it is an object"),
        ] {
            let error = says(execution).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_cells_time_is_a_tag() {
        let mut cell = Cell::code("a", "x");
        cell.metadata
            .insert("tags".into(), json!(["plot", "timeout=10m", "timeout"]));
        assert_eq!(cell.timeout_tags().collect::<Vec<_>>(), ["10m"]);
    }
}
