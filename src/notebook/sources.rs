//! New sources in a notebook's bytes, everything else left as it stands. Must not know what a source says.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::json::{Fault, Reader};
use crate::nbformat::{ReadError, parse_error, text};

/// The notebook with other sources for some cells (index among all cells, from 0). No other byte is touched; a source
/// that was a list of lines stays one, indented as it was.
///
/// # Errors
/// Where the bytes are not JSON. A cell that is not there, or has no source, changes nothing; so does one of nbformat 3,
/// which lint tools do not read.
pub fn with_sources(bytes: &[u8], sources: &BTreeMap<usize, String>) -> Result<Vec<u8>, ReadError> {
    let text = text(bytes)?;
    let mut cells = Vec::new();
    let mut reader = Reader::new(text);
    document(&mut reader, &mut cells)
        .and_then(|()| reader.end())
        .map_err(|fault| parse_error(text, &fault))?;
    // What stands before the text, a byte order mark, stays too.
    let mut out = bytes[..bytes.len() - text.len()].to_vec();
    let mut from = 0;
    for (index, source) in sources {
        let Some(place) = cells.get(*index).and_then(Option::as_ref) else {
            continue;
        };
        out.extend(&text.as_bytes()[from..place.whole.start]);
        out.extend(place.write(text, source).bytes());
        from = place.whole.end;
    }
    out.extend(&text.as_bytes()[from..]);
    Ok(out)
}

/// Where a cell's source stands.
struct Place {
    whole: Range<usize>,
    /// Its lines, where it is a list.
    lines: Option<Vec<Range<usize>>>,
}

impl Place {
    fn write(&self, text: &str, source: &str) -> String {
        let quoted = |line: &str| serde_json::Value::from(line).to_string();
        let Some(lines) = &self.lines else {
            return quoted(source);
        };
        let new: Vec<String> = source.split_inclusive('\n').map(quoted).collect();
        let (before, between, after) = match (lines.first(), lines.last()) {
            (Some(first), Some(last)) => {
                let before = &text[self.whole.start + 1..first.start];
                let between = match lines.get(1) {
                    Some(second) => text[first.end..second.start].to_owned(),
                    None => format!(",{before}"),
                };
                (before, between, &text[last.end..self.whole.end - 1])
            }
            (None, _) | (_, None) => ("", ", ".to_owned(), ""),
        };
        match new.is_empty() {
            true => "[]".to_owned(),
            false => format!("[{before}{}{after}]", new.join(&between)),
        }
    }
}

fn document(reader: &mut Reader<'_>, found: &mut Vec<Option<Place>>) -> Result<(), Fault> {
    if reader.peek()? != b'{' {
        return reader.value().map(drop);
    }
    reader.object(|reader, key| match key.as_str() {
        "cells" => {
            found.clear(); // of equal keys the last one wins
            cells(reader, found)
        }
        _ => reader.value().map(drop),
    })
}

fn cells(reader: &mut Reader<'_>, found: &mut Vec<Option<Place>>) -> Result<(), Fault> {
    if reader.peek()? != b'[' {
        return reader.value().map(drop);
    }
    reader.array(|reader| {
        let mut place = None;
        if reader.peek()? == b'{' {
            reader.object(|reader, key| match key.as_str() {
                "source" => {
                    place = source(reader)?;
                    Ok(())
                }
                _ => reader.value().map(drop),
            })?;
        } else {
            reader.value()?;
        }
        found.push(place);
        Ok(())
    })
}

fn source(reader: &mut Reader<'_>) -> Result<Option<Place>, Fault> {
    let kind = reader.peek()?;
    let start = reader.offset();
    let mut lines = Vec::new();
    match kind {
        b'[' => reader.array(|reader| {
            reader.peek()?;
            let start = reader.offset();
            reader.value()?;
            lines.push(start..reader.offset());
            Ok(())
        })?,
        _ => drop(reader.value()?),
    }
    let whole = start..reader.offset();
    Ok(match kind {
        b'[' => Some(Place {
            whole,
            lines: Some(lines),
        }),
        b'"' => Some(Place { whole, lines: None }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_source_is_written() {
        let notebook = concat!(
            "{\"cells\": [\n  {\"source\": [\n     \"a\\n\",\n     \"b\"\n    ], \"x\": 1.50},\n",
            "  {\"source\": \"c\", \"id\":\"\\u00e9\"}, {\"source\": []}],\n \"nbformat\": 4}\n"
        );
        let new = |index, source: &str| {
            let changes = BTreeMap::from([(index, source.to_owned())]);
            String::from_utf8(with_sources(notebook.as_bytes(), &changes).unwrap()).unwrap()
        };
        assert_eq!(
            new(0, "a\n\nB"),
            notebook.replace("\"b\"", "\"\\n\",\n     \"B\"")
        );
        assert_eq!(new(1, "é\n"), notebook.replace("\"c\"", "\"é\\n\""));
        assert_eq!(new(2, "x\ny"), notebook.replace("[]", "[\"x\\n\", \"y\"]"));
        assert_eq!(new(0, "a\nb"), notebook);
        assert_eq!(new(7, "x"), notebook);
        assert!(with_sources(b"{", &BTreeMap::new()).is_err());
    }
}
