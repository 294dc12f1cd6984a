//! What a page may show of a file that a run left: text as text, a table's first rows, nothing that could act. Pure.

use serde::de::IgnoredAny;

use super::super::runs::cut;

/// So much of a file is looked at.
pub(super) const HEAD: u64 = 256 << 10;
/// Longer JSON is shown as it stands.
const MOST_INDENTED: usize = 1 << 20;
/// Rows and columns of a table, and characters of a cell.
const MOST_ROWS: usize = 100;
const MOST_COLUMNS: usize = 40;
const MOST_CELL: usize = 200;

/// What is shown of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Preview {
    /// An image of a kind that holds no script.
    Image,
    /// The first rows of a table.
    Table(Vec<Vec<String>>),
    /// Text.
    Text(String),
    /// The source of a document that would act if it were shown.
    Source(String),
    /// Nothing.
    Nothing,
}

/// What to show of a file that begins with `head`; `whole`: that is all of it.
pub(super) fn preview(path: &str, head: &[u8], whole: bool) -> Preview {
    if image(head).is_some() {
        return Preview::Image;
    }
    let Some(text) = text(head, whole) else {
        return Preview::Nothing;
    };
    let name = path.to_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends(&[".csv", ".tsv"]) {
        return Preview::Table(table(text));
    }
    if document(path).is_some() {
        return Preview::Source(render::visible(text));
    }
    let indented = (whole && ends(&[".json", ".ipynb"])).then(|| indented(text));
    Preview::Text(render::visible(
        indented.flatten().as_deref().unwrap_or(text),
    ))
}

/// The media type of an image, by what it begins with; its name says nothing.
pub(super) fn image(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("image/webp"),
        _ => None,
    }
}

/// The media type of a document that may act, by its name.
pub(super) fn document(path: &str) -> Option<&'static str> {
    let name = path.to_lowercase();
    match name.rsplit_once('.')?.1 {
        "html" | "htm" => Some("text/html; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

/// The text that a file begins with; none where it is no text.
fn text(head: &[u8], whole: bool) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut in two.
        Err(error) if !whole && head.len() - error.valid_up_to() < 4 => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    (!text.contains('\0')).then_some(text)
}

/// The first rows of comma-, tab- or semicolon-separated text (RFC 4180).
fn table(text: &str) -> Vec<Vec<String>> {
    let first = text.lines().next().unwrap_or_default();
    let count = |delimiter: &char| first.matches(*delimiter).count();
    let delimiter = ['\t', ';', ',']
        .into_iter()
        .max_by_key(count)
        .unwrap_or(',');
    let mut rows = Vec::new();
    let mut row: Vec<String> = Vec::new();
    let mut cell = String::new();
    let mut quoted = false;
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => cell.push('"'),
            '"' if quoted || cell.is_empty() => quoted = !quoted,
            c if c == delimiter && !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
                if rows.len() > MOST_ROWS {
                    break;
                }
            }
            c => cell.push(c),
        }
    }
    if rows.len() <= MOST_ROWS && !(cell.is_empty() && row.is_empty()) {
        row.push(cell);
        rows.push(row);
    }
    for row in &mut rows {
        row.truncate(MOST_COLUMNS);
        for cell in row {
            *cell = cut(&render::visible(cell), MOST_CELL);
        }
    }
    rows
}

/// JSON with a line for each of its parts, everything in its order; none where it is not JSON, or would be too long.
fn indented(text: &str) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0;
    let (mut in_text, mut escaped) = (false, false);
    let mut chars = text.chars().filter(|c| *c != '\r').peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        if out.len() > MOST_INDENTED {
            return None;
        }
        if in_text {
            out.push(c);
            in_text = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            ' ' | '\t' | '\n' => {}
            '{' | '[' => {
                out.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                in_text = c == '"';
                out.push(c);
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_shown_as_what_it_is_and_not_as_it_is_called() {
        let png = b"\x89PNG\r\n\x1a\n....";
        assert_eq!(preview("a.txt", png, true), Preview::Image);
        let script = b"<script>alert(1)</script>";
        assert_eq!(
            preview("a.png", script, true),
            Preview::Text("<script>alert(1)</script>".into())
        );
        for name in ["a.html", "a.SVG", "x/a.htm"] {
            assert!(matches!(preview(name, script, true), Preview::Source(_)));
        }
        assert_eq!(
            preview("model.pkl", b"\x80\x04\x95", true),
            Preview::Nothing
        );
        assert_eq!(preview("a.txt", b"a\0b", true), Preview::Nothing);
        assert_eq!(
            preview("log", "ok\u{202e}\u{1b}[31m".as_bytes(), true),
            Preview::Text("ok\u{fffd}\u{241b}[31m".into())
        );
    }

    #[test]
    fn a_character_that_is_cut_does_no_harm() {
        let bytes = "aé".as_bytes();
        assert_eq!(preview("a", &bytes[..2], false), Preview::Text("a".into()));
        assert_eq!(preview("a", &bytes[..2], true), Preview::Nothing);
    }

    #[test]
    fn the_first_rows_of_a_table_are_read() {
        let text = "a,b\r\n1,\"x, \"\"y\"\"\nz\"\n2,\n";
        let rows = table(text);
        assert_eq!(
            rows,
            [vec!["a", "b"], vec!["1", "x, \"y\"\nz"], vec!["2", ""]]
        );
        assert_eq!(table("a\tb\n1\t2"), [["a", "b"], ["1", "2"]]);
        assert_eq!(table("a;b\n"), [["a", "b"]]);
        assert_eq!(table(""), [[""; 0]; 0]);
        assert_eq!(table(&"1\n".repeat(500)).len(), MOST_ROWS + 1);
        assert_eq!(table(&"1,".repeat(500))[0].len(), MOST_COLUMNS);
    }

    #[test]
    fn json_keeps_its_order_and_its_numbers() {
        let text = "{\"b\":[1.10,{}],\"a\":\"x,{\\\"\\\\\"}";
        let shown = "{\n  \"b\": [\n    1.10,\n    {}\n  ],\n  \"a\": \"x,{\\\"\\\\\"\n}";
        assert_eq!(indented(text).as_deref(), Some(shown));
        assert_eq!(indented("{\"a\":"), None);
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let many = format!("[{}1]", format!("{deep},").repeat(1_000));
        assert_eq!(indented(&many), None);
    }
}
