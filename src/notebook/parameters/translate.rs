//! Values as source text of a language, by papermill's translators. What becomes code is checked: a
//! name must be a name, and no text can end its quotes.

use serde_json::{Map, Value};

use super::ParameterError;
use crate::json::float;
use crate::model::Notebook;

/// The source of the injected cell.
pub(super) fn assignments(
    notebook: &Notebook,
    parameters: &Map<String, Value>,
) -> Result<String, ParameterError> {
    let language = Language::of(notebook)?;
    let mut source = "# Parameters\n".to_owned();
    for (name, value) in parameters {
        let variable = language.variable(name)?;
        let value = language
            .value(value)
            .map_err(|what| ParameterError::Value {
                name: shortened(name),
                what,
                language: language.word(),
            })?;
        source += &match language {
            Language::Bash => format!("{variable}={value}\n"),
            Language::Python | Language::R | Language::Julia => format!("{variable} = {value}\n"),
        };
    }
    Ok(source)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Python,
    R,
    Julia,
    Bash,
}

impl Language {
    /// By kernel name first, then by language, as papermill does.
    fn of(notebook: &Notebook) -> Result<Self, ParameterError> {
        let kernel = notebook.kernel_name().unwrap_or("python3");
        let language = notebook.language().unwrap_or_default();
        match (kernel, language.as_str()) {
            ("pysparkkernel", _) | (_, "python") => Ok(Language::Python),
            ("sparkrkernel", _) | (_, "r") => Ok(Language::R),
            (_, "julia") => Ok(Language::Julia),
            (_, "bash") => Ok(Language::Bash),
            _ => Err(ParameterError::Language {
                language: shortened(&language),
                kernel: shortened(kernel),
            }),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Language::Python => "python",
            Language::R => "R",
            Language::Julia => "julia",
            Language::Bash => "bash",
        }
    }

    fn variable(self, name: &str) -> Result<&str, ParameterError> {
        let wrong = || ParameterError::Name {
            name: shortened(name),
            language: self.word(),
        };
        let variable = match self {
            // R has no names that begin with an underscore; papermill drops it.
            Language::R => name.trim_start_matches('_'),
            Language::Python | Language::Julia | Language::Bash => name,
        };
        let letter = |c: char| match self {
            Language::Bash => c.is_ascii_alphanumeric() || c == '_',
            Language::R => c.is_alphanumeric() || c == '_' || c == '.',
            Language::Python | Language::Julia => c.is_alphanumeric() || c == '_',
        };
        let first = variable.chars().next().ok_or_else(wrong)?;
        let is_name = !first.is_numeric() && first != '.' && variable.chars().all(letter);
        if is_name && !self.keywords().contains(&variable) {
            Ok(variable)
        } else {
            Err(wrong())
        }
    }

    fn keywords(self) -> &'static [&'static str] {
        match self {
            Language::Python => &[
                "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class",
                "continue", "def", "del", "elif", "else", "except", "finally", "for", "from",
                "global", "if", "import", "in", "is", "lambda", "nonlocal", "not", "or", "pass",
                "raise", "return", "try", "while", "with", "yield",
            ],
            Language::R => &[
                "if", "else", "repeat", "while", "function", "for", "next", "break", "in", "TRUE",
                "FALSE", "NULL", "Inf", "NaN", "NA",
            ],
            Language::Julia => &[
                "baremodule",
                "begin",
                "break",
                "catch",
                "const",
                "continue",
                "do",
                "else",
                "elseif",
                "end",
                "export",
                "false",
                "finally",
                "for",
                "function",
                "global",
                "if",
                "import",
                "let",
                "local",
                "macro",
                "module",
                "quote",
                "return",
                "struct",
                "true",
                "try",
                "using",
                "while",
            ],
            Language::Bash => &[],
        }
    }

    fn value(self, value: &Value) -> Result<String, &'static str> {
        match value {
            Value::Null => Ok(match self {
                Language::Python => "None",
                Language::R => "NULL",
                Language::Julia => "nothing",
                Language::Bash => "",
            }
            .to_owned()),
            Value::Bool(yes) => Ok(match (self, yes) {
                (Language::Python, true) => "True",
                (Language::Python, false) => "False",
                (Language::R, true) => "TRUE",
                (Language::R, false) => "FALSE",
                (Language::Julia | Language::Bash, true) => "true",
                (Language::Julia | Language::Bash, false) => "false",
            }
            .to_owned()),
            Value::Number(number) => Ok(match number.as_f64() {
                Some(value) if number.is_f64() => float(value),
                Some(_) | None => number.to_string(),
            }),
            Value::String(text) => Ok(self.text(text)),
            Value::Array(list) => {
                let items: Vec<String> = list
                    .iter()
                    .map(|item| match (self, item) {
                        (Language::Bash, Value::Array(_)) => Err("a list within a list"),
                        _ => self.value(item),
                    })
                    .collect::<Result<_, _>>()?;
                Ok(match self {
                    Language::Python | Language::Julia => format!("[{}]", items.join(", ")),
                    Language::R => format!("list({})", items.join(", ")),
                    Language::Bash => format!("({})", items.join(" ")),
                })
            }
            Value::Object(map) => self.object(map),
        }
    }

    fn object(self, map: &Map<String, Value>) -> Result<String, &'static str> {
        let (open, between, close) = match self {
            Language::Python => ("{", ": ", "}"),
            Language::R => ("list(", " = ", ")"),
            Language::Julia => ("Dict(", " => ", ")"),
            Language::Bash => return Err("an object"),
        };
        let mut entries = Vec::with_capacity(map.len());
        for (key, value) in map {
            entries.push(format!("{}{between}{}", self.text(key), self.value(value)?));
        }
        Ok(format!("{open}{}{close}", entries.join(", ")))
    }

    fn text(self, text: &str) -> String {
        match self {
            Language::Bash => shell_quoted(text),
            Language::Python => quoted(text, "\\x"),
            // `\xe9` is a byte and no character in R and Julia, and a dollar interpolates in Julia:
            // papermill overlooks both.
            Language::R => quoted(text, "\\u00"),
            Language::Julia => quoted(text, "\\u00").replace('$', "\\$"),
        }
    }
}

/// Python's `unicode_escape` between double quotes; `byte` stands before two hex digits.
fn quoted(text: &str, byte: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            c if u32::from(c) < 0x100 => out.push_str(&format!("{byte}{:02x}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Python's `shlex.quote`.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r#"'"'"'"#))
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}
