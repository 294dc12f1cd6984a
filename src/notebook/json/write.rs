//! Writes JSON as Python's `json.dumps(indent=1, sort_keys=True, separators=(",", ": "),
//! ensure_ascii=False)` does. Knows nothing of notebooks.

use std::io::{self, Write};

use serde_json::{Map, Number, Value};

/// What is to be written, borrowed from where it lies.
pub(crate) enum Node<'a> {
    Value(&'a Value),
    Text(&'a str),
    /// Text as a list of lines, each with its end.
    Lines(&'a str),
    /// The same of a text that comes in pieces, and is never whole in memory.
    Pieces(Pieces<'a>),
    Integer(u64),
    Null,
    Object(Vec<(&'a str, Node<'a>)>),
    Array(Vec<Node<'a>>),
    /// Made when its turn comes, and gone after it.
    Later(Later<'a>),
    /// JSON already, on one line: it is copied.
    Json(Copy<'a>),
}

/// Takes a piece of text.
pub(crate) type Take<'t> = dyn FnMut(&str) -> io::Result<()> + 't;
/// Gives a text in pieces.
pub(crate) type Pieces<'a> = Box<dyn FnOnce(&mut Take<'_>) -> io::Result<()> + 'a>;
/// Copies JSON.
pub(crate) type Copy<'a> = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + 'a>;
/// Takes a node, once.
pub(crate) type Put<'t> = dyn FnMut(Node<'_>) -> io::Result<()> + 't;
/// Makes a node and gives it away.
pub(crate) type Later<'a> = Box<dyn FnOnce(&mut Put<'_>) -> io::Result<()> + 'a>;

impl<'a> Node<'a> {
    /// The fields of a map, ready for more.
    pub(crate) fn fields(map: &'a Map<String, Value>) -> Vec<(&'a str, Node<'a>)> {
        let field = |(key, value): (&'a String, &'a Value)| (key.as_str(), Node::Value(value));
        map.iter().map(field).collect()
    }
}

/// Writes the JSON text of `node`, without a line end.
pub(crate) fn write(out: &mut dyn Write, node: Node<'_>) -> io::Result<()> {
    put(out, node, 0)
}

fn put(out: &mut dyn Write, node: Node<'_>, depth: usize) -> io::Result<()> {
    match node {
        Node::Value(Value::Object(map)) => put_object(out, Node::fields(map), depth),
        Node::Value(Value::Array(list)) => put_array(out, list.iter().map(Node::Value), depth),
        Node::Value(Value::String(text)) => put_text(out, text),
        Node::Value(Value::Number(number)) => put_number(out, number),
        Node::Value(Value::Bool(true)) => out.write_all(b"true"),
        Node::Value(Value::Bool(false)) => out.write_all(b"false"),
        Node::Value(Value::Null) | Node::Null => out.write_all(b"null"),
        Node::Text(text) => put_text(out, text),
        Node::Lines(text) => {
            let mut lines = Lines::begin(out, depth)?;
            lines.take(text)?;
            lines.end()
        }
        Node::Pieces(pieces) => {
            let mut lines = Lines::begin(out, depth)?;
            pieces(&mut |piece| lines.take(piece))?;
            lines.end()
        }
        Node::Integer(number) => write!(out, "{number}"),
        Node::Object(fields) => put_object(out, fields, depth),
        Node::Array(list) => put_array(out, list.into_iter(), depth),
        Node::Later(make) => make(&mut |node| put(out, node, depth)),
        Node::Json(copy) => copy(out),
    }
}

fn put_object(
    out: &mut dyn Write,
    mut fields: Vec<(&str, Node<'_>)>,
    depth: usize,
) -> io::Result<()> {
    // The order of UTF-8 bytes is that of code points, which is Python's.
    fields.sort_by(|a, b| a.0.cmp(b.0));
    let empty = fields.is_empty();
    out.write_all(b"{")?;
    for (index, (key, value)) in fields.into_iter().enumerate() {
        separate(out, index, depth + 1)?;
        put_text(out, key)?;
        out.write_all(b": ")?;
        put(out, value, depth + 1)?;
    }
    close(out, b"}", empty, depth)
}

fn put_array<'a>(
    out: &mut dyn Write,
    items: impl Iterator<Item = Node<'a>>,
    depth: usize,
) -> io::Result<()> {
    let mut empty = true;
    out.write_all(b"[")?;
    for (index, item) in items.enumerate() {
        empty = false;
        separate(out, index, depth + 1)?;
        put(out, item, depth + 1)?;
    }
    close(out, b"]", empty, depth)
}

fn separate(out: &mut dyn Write, index: usize, depth: usize) -> io::Result<()> {
    if index > 0 {
        out.write_all(b",")?;
    }
    new_line(out, depth)
}

fn close(out: &mut dyn Write, bracket: &[u8], empty: bool, depth: usize) -> io::Result<()> {
    if !empty {
        new_line(out, depth)?;
    }
    out.write_all(bracket)
}

fn new_line(out: &mut dyn Write, depth: usize) -> io::Result<()> {
    write!(out, "\n{:depth$}", "")
}

fn put_text(out: &mut dyn Write, text: &str) -> io::Result<()> {
    out.write_all(b"\"")?;
    put_escaped(out, text)?;
    out.write_all(b"\"")
}

/// What stands between the quotes.
fn put_escaped(out: &mut dyn Write, text: &str) -> io::Result<()> {
    let mut rest = text.as_bytes();
    while let Some(at) = rest
        .iter()
        .position(|&b| b < b' ' || b == b'"' || b == b'\\')
    {
        out.write_all(&rest[..at])?;
        match rest[at] {
            b'"' => out.write_all(b"\\\"")?,
            b'\\' => out.write_all(b"\\\\")?,
            b'\n' => out.write_all(b"\\n")?,
            b'\r' => out.write_all(b"\\r")?,
            b'\t' => out.write_all(b"\\t")?,
            8 => out.write_all(b"\\b")?,
            12 => out.write_all(b"\\f")?,
            byte => write!(out, "\\u{byte:04x}")?,
        }
        rest = &rest[at + 1..];
    }
    out.write_all(rest)
}

fn put_number(out: &mut dyn Write, number: &Number) -> io::Result<()> {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(whole), _, _) => write!(out, "{whole}"),
        (None, Some(whole), _) => write!(out, "{whole}"),
        (None, None, Some(value)) => out.write_all(float(value).as_bytes()),
        (None, None, None) => out.write_all(b"null"),
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

/// A list of lines as Python's `str.splitlines(keepends=True)` makes it, of a text that may come in pieces.
struct Lines<'w> {
    out: &'w mut dyn Write,
    depth: usize,
    /// Whether a line has been begun.
    open: bool,
    empty: bool,
    /// Whether the line that is open ends with a carriage return, to which a line feed may still belong.
    returned: bool,
}

impl<'w> Lines<'w> {
    fn begin(out: &'w mut dyn Write, depth: usize) -> io::Result<Self> {
        out.write_all(b"[")?;
        Ok(Self {
            out,
            depth,
            open: false,
            empty: true,
            returned: false,
        })
    }

    fn take(&mut self, text: &str) -> io::Result<()> {
        let mut rest = text;
        while !rest.is_empty() {
            if self.returned {
                if let Some(after) = rest.strip_prefix('\n') {
                    put_escaped(self.out, "\n")?;
                    rest = after;
                }
                self.close_line()?;
                continue;
            }
            if !self.open {
                separate(self.out, usize::from(!self.empty), self.depth + 1)?;
                self.out.write_all(b"\"")?;
                (self.open, self.empty) = (true, false);
            }
            let end = line_end(rest.as_bytes());
            let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
            put_escaped(self.out, line)?;
            match end {
                Some(_) if after.is_empty() && line.ends_with('\r') => self.returned = true,
                Some(_) => self.close_line()?,
                None => {}
            }
            rest = after;
        }
        Ok(())
    }

    fn close_line(&mut self) -> io::Result<()> {
        (self.open, self.returned) = (false, false);
        self.out.write_all(b"\"")
    }

    fn end(mut self) -> io::Result<()> {
        if self.open {
            self.close_line()?;
        }
        close(self.out, b"]", self.empty, self.depth)
    }
}

/// Behind the first line end of the text.
fn line_end(text: &[u8]) -> Option<usize> {
    text.iter().enumerate().find_map(|(at, byte)| {
        let rest = &text[at + 1..];
        let length = match byte {
            b'\r' if rest.first() == Some(&b'\n') => 2,
            b'\n' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1e => 1,
            // U+0085
            0xc2 if rest.first() == Some(&0x85) => 2,
            // U+2028 and U+2029
            0xe2 if matches!(rest, [0x80, 0xa8 | 0xa9, ..]) => 3,
            _ => return None,
        };
        Some(at + length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(node: Node<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, node).unwrap();
        String::from_utf8(out).unwrap()
    }

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
            written(Node::Value(&value)),
            "{\n \"Z\": [\n  1,\n  {}\n ],\n \"a\": {\n  \"é\": \"x\u{7f}\\u0001\\\"\\n\"\n },\n \"b\": []\n}"
        );
    }

    #[test]
    fn lines_split_where_python_splits() {
        let text = "a\r\nb\rc\u{2028}\n\u{b}d\u{85}é";
        let lines = ["a\r\n", "b\r", "c\u{2028}", "\n", "\u{b}", "d\u{85}", "é"];
        let expected = json!(lines);
        assert_eq!(written(Node::Lines(text)), written(Node::Value(&expected)));
        assert_eq!(written(Node::Lines("")), "[]");
        // Cut anywhere, also within "\r\n", it is the same list.
        for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
            let pieces = Node::Pieces(Box::new(move |take| {
                take(&text[..cut])?;
                take(&text[cut..])
            }));
            assert_eq!(written(pieces), written(Node::Value(&expected)), "{cut}");
        }
    }
}
