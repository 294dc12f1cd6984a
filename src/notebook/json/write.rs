//! Writes JSON as Python's `json.dumps(indent=1, sort_keys=True, separators=(",", ": "),
//! ensure_ascii=False)` does. Knows nothing of notebooks.

use serde_json::{Map, Number, Value};

/// What is to be written, borrowed from where it lies.
pub(crate) enum Node<'a> {
    Value(&'a Value),
    Text(&'a str),
    /// Text as a list of lines, each with its end.
    Lines(&'a str),
    Integer(u64),
    Null,
    Object(Vec<(&'a str, Node<'a>)>),
    Array(Vec<Node<'a>>),
}

impl<'a> Node<'a> {
    /// The fields of a map, ready for more.
    pub(crate) fn fields(map: &'a Map<String, Value>) -> Vec<(&'a str, Node<'a>)> {
        let field = |(key, value): (&'a String, &'a Value)| (key.as_str(), Node::Value(value));
        map.iter().map(field).collect()
    }
}

/// The JSON text of `node`, without a line end.
pub(crate) fn write(node: Node<'_>) -> String {
    let mut out = String::new();
    put(&mut out, node, 0);
    out
}

fn put(out: &mut String, node: Node<'_>, depth: usize) {
    match node {
        Node::Value(Value::Object(map)) => put_object(out, Node::fields(map), depth),
        Node::Value(Value::Array(list)) => put_array(out, list.iter().map(Node::Value), depth),
        Node::Value(Value::String(text)) => put_text(out, text),
        Node::Value(Value::Number(number)) => put_number(out, number),
        Node::Value(Value::Bool(true)) => out.push_str("true"),
        Node::Value(Value::Bool(false)) => out.push_str("false"),
        Node::Value(Value::Null) | Node::Null => out.push_str("null"),
        Node::Text(text) => put_text(out, text),
        Node::Lines(text) => put_array(out, lines(text).map(Node::Text), depth),
        Node::Integer(number) => out.push_str(&number.to_string()),
        Node::Object(fields) => put_object(out, fields, depth),
        Node::Array(list) => put_array(out, list.into_iter(), depth),
    }
}

fn put_object(out: &mut String, mut fields: Vec<(&str, Node<'_>)>, depth: usize) {
    // The order of UTF-8 bytes is that of code points, which is Python's.
    fields.sort_by(|a, b| a.0.cmp(b.0));
    let empty = fields.is_empty();
    out.push('{');
    for (index, (key, value)) in fields.into_iter().enumerate() {
        separate(out, index, depth + 1);
        put_text(out, key);
        out.push_str(": ");
        put(out, value, depth + 1);
    }
    close(out, '}', empty, depth);
}

fn put_array<'a>(out: &mut String, items: impl Iterator<Item = Node<'a>>, depth: usize) {
    let mut empty = true;
    out.push('[');
    for (index, item) in items.enumerate() {
        empty = false;
        separate(out, index, depth + 1);
        put(out, item, depth + 1);
    }
    close(out, ']', empty, depth);
}

fn separate(out: &mut String, index: usize, depth: usize) {
    if index > 0 {
        out.push(',');
    }
    new_line(out, depth);
}

fn close(out: &mut String, bracket: char, empty: bool, depth: usize) {
    if !empty {
        new_line(out, depth);
    }
    out.push(bracket);
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', depth));
}

fn put_text(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        out.push_str(&rest[..at]);
        let byte = rest.as_bytes()[at];
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            8 => out.push_str("\\b"),
            12 => out.push_str("\\f"),
            _ => out.push_str(&format!("\\u{byte:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

fn put_number(out: &mut String, number: &Number) {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(whole), _, _) => out.push_str(&whole.to_string()),
        (None, Some(whole), _) => out.push_str(&whole.to_string()),
        (None, None, Some(value)) => out.push_str(&float(value)),
        (None, None, None) => out.push_str("null"),
    }
}

/// A finite float as Python's `repr` writes it: shortest digits, an exponent below 1e-4 and from 1e16.
pub(crate) fn float(value: f64) -> String {
    let shortest = format!("{value:e}");
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Python's `str.splitlines(keepends=True)`.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.char_indices().find_map(|(at, c)| match c {
            '\r' if rest[at + 1..].starts_with('\n') => Some(at + 2),
            '\n'
            | '\r'
            | '\u{b}'
            | '\u{c}'
            | '\u{1c}'..='\u{1e}'
            | '\u{85}'
            | '\u{2028}'
            | '\u{2029}' => Some(at + c.len_utf8()),
            _ => None,
        });
        let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn floats_look_as_in_python() {
        for (value, text) in [
            (0.1, "0.1"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (1e16, "1e+16"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (0.0001, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn the_text_is_pythons() {
        let value = json!({"b": [], "a": {"é": "x\u{7f}\u{1}\"\n"}, "Z": [1, {}]});
        assert_eq!(
            write(Node::Value(&value)),
            "{\n \"Z\": [\n  1,\n  {}\n ],\n \"a\": {\n  \"é\": \"x\u{7f}\\u0001\\\"\\n\"\n },\n \"b\": []\n}"
        );
    }

    #[test]
    fn lines_split_where_python_splits() {
        let split: Vec<_> = lines("a\r\nb\rc\u{2028}\n\u{b}d").collect();
        assert_eq!(split, ["a\r\n", "b\r", "c\u{2028}", "\n", "\u{b}", "d"]);
        assert_eq!(lines("").count(), 0);
    }
}
