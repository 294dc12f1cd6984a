//! Types of parameters, as far as a value in JSON can be held against them. Python's words.

use serde_json::Value;

/// Types within types that are deeper say nothing.
const MAX_DEPTH: usize = 32;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    None,
    Bool,
    Int,
    Float,
    Text,
    List,
    Map,
}

impl Kind {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Kind::None,
            Value::Bool(_) => Kind::Bool,
            Value::Number(number) if number.is_f64() => Kind::Float,
            Value::Number(_) => Kind::Int,
            Value::String(_) => Kind::Text,
            Value::Array(_) => Kind::List,
            Value::Object(_) => Kind::Map,
        }
    }

    /// For a sentence.
    pub(super) fn words(self) -> &'static str {
        match self {
            Kind::None => "nothing",
            Kind::Bool => "true or false",
            Kind::Int => "a whole number",
            Kind::Float => "a number",
            Kind::Text => "text",
            Kind::List => "a list",
            Kind::Map => "an object",
        }
    }
}

/// A type that says something about values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Type {
    /// What it takes.
    kinds: Vec<Kind>,
}

impl Type {
    /// From an annotation such as `Optional[int]` or `float | None`. None where a part of it is not known: then
    /// any value may be right.
    pub(super) fn of(annotation: &str) -> Option<Self> {
        Self::within(annotation, 0)
    }

    fn within(annotation: &str, depth: usize) -> Option<Self> {
        if depth > MAX_DEPTH {
            return None;
        }
        let annotation = annotation.trim();
        let inner = annotation.strip_suffix(']').and_then(|text| {
            let (outer, inner) = text.split_once('[')?;
            let outer = outer.rsplit('.').next().unwrap_or(outer);
            matches!(outer, "Optional" | "Union").then_some((outer, inner))
        });
        let mut kinds = Vec::new();
        match inner {
            Some((outer, inner)) => {
                if outer == "Optional" {
                    kinds.push(Kind::None);
                }
                for part in split(inner, ',') {
                    kinds.extend(Self::within(part, depth + 1)?.kinds);
                }
            }
            None => match split(annotation, '|').as_slice() {
                [one] => kinds.extend_from_slice(named(one)?),
                parts => {
                    for part in parts {
                        kinds.extend(Self::within(part, depth + 1)?.kinds);
                    }
                }
            },
        }
        Some(Self { kinds })
    }

    /// The type of a literal; None where it is none.
    pub(super) fn of_literal(text: &str) -> Option<&'static str> {
        let first = text.chars().next()?;
        let word = |known: &[&str]| known.contains(&text);
        // `f(x)` after a string's prefix is no string; `"a" + b` is one.
        let prefix = text.trim_start_matches(|c: char| "rRbBuUfF".contains(c));
        match first {
            _ if word(&["True", "False"]) => Some("bool"),
            _ if word(&["None"]) => Some("None"),
            _ if prefix.starts_with(['"', '\'']) && text.len() - prefix.len() <= 2 => Some("str"),
            '[' if text.ends_with(']') => Some("list"),
            '(' if text.ends_with(')') && text.contains(',') => Some("tuple"),
            '{' if text.ends_with('}') => {
                let map = text.contains(':') || text[1..text.len() - 1].trim().is_empty();
                Some(if map { "dict" } else { "set" })
            }
            _ => number(text.trim_start_matches(['-', '+'])),
        }
    }

    /// Whether a value of a kind is one of these. Whole numbers are numbers.
    pub(super) fn takes(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind) || (kind == Kind::Int && self.kinds.contains(&Kind::Float))
    }
}

/// What a name alone, or the outer one of `List[int]`, takes.
fn named(name: &str) -> Option<&'static [Kind]> {
    let outer = name.trim().split('[').next().unwrap_or_default();
    let outer = outer.rsplit('.').next().unwrap_or(outer).trim();
    Some(match outer {
        "int" => &[Kind::Int],
        "float" => &[Kind::Float],
        "str" => &[Kind::Text],
        "bool" => &[Kind::Bool],
        "list" | "List" | "tuple" | "Tuple" | "set" | "Set" | "Sequence" => &[Kind::List],
        "dict" | "Dict" | "Mapping" => &[Kind::Map],
        "None" | "NoneType" => &[Kind::None],
        _ => return None,
    })
}

/// The parts that stand outside of brackets.
fn split(text: &str, mark: char) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(|c: char| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == mark && depth == 0
    })
    .collect()
}

fn number(text: &str) -> Option<&'static str> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let text = text.replace('_', "");
    let hex = ["0x", "0X", "0o", "0b"]
        .iter()
        .any(|prefix| text.starts_with(prefix));
    if hex || text.bytes().all(|b| b.is_ascii_digit()) {
        return text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric())
            .then_some("int");
    }
    text.parse::<f64>().is_ok().then_some("float")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_have_types() {
        for (text, name) in [
            ("1", Some("int")),
            ("-1_000", Some("int")),
            ("0xff", Some("int")),
            ("1.5", Some("float")),
            ("-1e-3", Some("float")),
            ("True", Some("bool")),
            ("None", Some("None")),
            ("'a'", Some("str")),
            ("rb\"a\"", Some("str")),
            ("[1,\n2]", Some("list")),
            ("(1, 2)", Some("tuple")),
            ("{}", Some("dict")),
            ("{'a': 1}", Some("dict")),
            ("{1}", Some("set")),
            ("f(x)", None),
            ("1 + 2", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(Type::of_literal(text), name, "{text}");
        }
    }

    #[test]
    fn values_are_held_against_types() {
        let takes = |annotation: &str, value: Value| {
            Type::of(annotation).map(|wanted| wanted.takes(Kind::of(&value)))
        };
        for (annotation, value, fits) in [
            ("int", json!(1), Some(true)),
            ("int", json!(1.5), Some(false)),
            ("int", json!(true), Some(false)),
            ("float", json!(1), Some(true)),
            ("float", json!("x"), Some(false)),
            ("str", json!("x"), Some(true)),
            ("Optional[float]", json!(null), Some(true)),
            ("typing.Optional[float]", json!([]), Some(false)),
            ("int | None", json!(null), Some(true)),
            ("Union[int, List[str]]", json!(["a"]), Some(true)),
            ("Union[int, List[str]]", json!("a"), Some(false)),
            ("Dict[str, int]", json!({}), Some(true)),
            ("int | Path", json!("a"), None),
            ("np.ndarray", json!("a"), None),
            (&"Optional[".repeat(20_000), json!("a"), None),
            (
                &format!("{}int{}", "Optional[".repeat(20_000), "]".repeat(20_000)),
                json!("a"),
                None,
            ),
        ] {
            assert_eq!(takes(annotation, value), fits, "{annotation}");
        }
    }
}
