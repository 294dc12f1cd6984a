//! A notebook's file without what an execution left in it: outputs and counts, and metadata on demand.
//! Every other byte stays as it is, so that a filter of git changes nothing else: no key order, no indent,
//! no version, no ids.

use std::ops::Range;

use serde_json::{Map, Value};

use crate::json::{Fault, Reader};
use crate::nbformat::{MAX_CELLS, ReadError, parse_error, text};

/// What stays, and what more goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strip {
    /// Execution counts stay.
    pub keep_counts: bool,
    /// What executions and editors write into metadata goes, too: see [`CELL_KEYS`] and [`NOTEBOOK_KEYS`].
    pub metadata: bool,
}

/// Keys of a cell's metadata that go with [`Strip::metadata`].
pub const CELL_KEYS: [&str; 8] = [
    "ExecuteTime",
    "collapsed",
    "execution",
    "heading_collapsed",
    "hidden",
    "papermill",
    "scrolled",
    "trainyard",
];

/// Keys of a notebook's metadata that go with [`Strip::metadata`].
pub const NOTEBOOK_KEYS: [&str; 5] = ["papermill", "signature", "toc", "trainyard", "widgets"];

/// The file without outputs and counts. None: it has none, and stays as it is. Outputs stay where nbstripout
/// keeps them: of a cell with the tag `keep_output`, with `keep_output` or `init_cell` in its metadata, and of
/// a notebook with `keep_output` in its own.
///
/// # Errors
/// Where the bytes are no notebook, see [`ReadError`].
pub fn strip(bytes: &[u8], options: &Strip) -> Result<Option<Vec<u8>>, ReadError> {
    let text = text(bytes)?;
    let mut scan = Scan::new(text, *options);
    let mut reader = Reader::new(text);
    let read = scan.document(&mut reader).and_then(|()| reader.end());
    read.map_err(|fault| parse_error(text, &fault))?;
    scan.check()?;
    let edits = scan.edits();
    if edits.is_empty() {
        return Ok(None);
    }
    // The byte order mark, where there is one, stays.
    let mut out = bytes[..bytes.len() - text.len()].to_vec();
    out.reserve(text.len());
    let mut at = 0;
    for (range, instead) in edits {
        out.extend_from_slice(&text.as_bytes()[at..range.start]);
        out.extend_from_slice(instead.as_bytes());
        at = range.end;
    }
    out.extend_from_slice(&text.as_bytes()[at..]);
    Ok(Some(out))
}

/// A piece of the file, and what comes in its place.
type Edit = (Range<usize>, &'static str);

/// A member of an object.
struct Member {
    key: String,
    /// From the end of the one before it (of the first: from the brace) to the end of its value.
    range: Range<usize>,
}

#[derive(Default)]
struct CellPlaces {
    is_code: bool,
    keep: bool,
    outputs: Option<Range<usize>>,
    /// Whether there are outputs.
    has_outputs: bool,
    /// Counts, of the cell and of its outputs, that are not null.
    counts: Vec<Range<usize>>,
    /// Of the outputs, where they stay.
    output_counts: Vec<Range<usize>>,
    metadata: Option<(Range<usize>, Vec<Member>)>,
}

struct Scan<'a> {
    text: &'a str,
    options: Strip,
    major: Option<Value>,
    has_cells: bool,
    count: usize,
    cells: Vec<CellPlaces>,
    keep_all: bool,
    metadata: Option<(Range<usize>, Vec<Member>)>,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str, options: Strip) -> Self {
        Self {
            text,
            options,
            major: None,
            has_cells: false,
            count: 0,
            cells: Vec::new(),
            keep_all: false,
            metadata: None,
        }
    }

    fn document(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        if reader.peek()? != b'{' {
            return reader.value().map(drop);
        }
        reader.object(|reader, key| match key.as_str() {
            "nbformat" => {
                self.major = Some(reader.value()?);
                Ok(())
            }
            "metadata" if reader.peek()? == b'{' => {
                let start = reader.offset();
                let (members, fields) = members(reader)?;
                self.keep_all = is_true(&fields, "keep_output");
                self.metadata = Some((start..reader.offset(), members));
                Ok(())
            }
            "cells" if reader.peek()? == b'[' => {
                self.cells.clear(); // of equal keys the last one wins
                self.has_cells = true;
                self.cells(reader)
            }
            "worksheets" if reader.peek()? == b'[' => {
                self.has_cells = true;
                reader.array(|reader| {
                    if reader.peek()? != b'{' {
                        return reader.value().map(drop);
                    }
                    reader.object(|reader, key| {
                        if key == "cells" && reader.peek()? == b'[' {
                            return self.cells(reader);
                        }
                        reader.value().map(drop)
                    })
                })
            }
            _ => reader.value().map(drop),
        })
    }

    fn cells(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        reader.array(|reader| {
            self.count += 1;
            if reader.peek()? != b'{' {
                return reader.value().map(drop);
            }
            let cell = cell(reader)?;
            // What is read is judged below: many cells must not fill the memory before.
            if self.cells.len() < MAX_CELLS {
                self.cells.push(cell);
            }
            Ok(())
        })
    }

    /// Whether it is a notebook at all.
    fn check(&self) -> Result<(), ReadError> {
        let wrong = |problem| Err(ReadError::NotNotebook { problem });
        let major = match &self.major {
            None if !self.text.trim_start().starts_with('{') => {
                return wrong("its top level is not an object");
            }
            None => return wrong("`nbformat` is missing"),
            Some(major) => major.as_u64(),
        };
        match major {
            Some(3 | 4) => {}
            Some(major) => return Err(ReadError::of_version(major)),
            None => return wrong("`nbformat` is not a number"),
        }
        if !self.has_cells {
            return wrong("`cells` is missing or not a list");
        }
        if self.count > MAX_CELLS {
            return Err(ReadError::TooManyCells { cells: self.count });
        }
        Ok(())
    }

    /// What has to go, from the beginning of the file to its end.
    fn edits(&self) -> Vec<Edit> {
        let mut edits = Vec::new();
        for cell in &self.cells {
            self.put_cell(&mut edits, cell);
        }
        if self.options.metadata
            && let Some((range, members)) = &self.metadata
        {
            self.without(&mut edits, range, members, &NOTEBOOK_KEYS);
        }
        edits.sort_by_key(|(range, _)| range.start);
        edits
    }

    fn put_cell(&self, edits: &mut Vec<Edit>, cell: &CellPlaces) {
        if self.options.metadata
            && let Some((range, members)) = &cell.metadata
        {
            self.without(edits, range, members, &CELL_KEYS);
        }
        if !cell.is_code {
            return;
        }
        let keep = cell.keep || self.keep_all;
        if let Some(outputs) = cell.outputs.clone().filter(|_| cell.has_outputs && !keep) {
            edits.push((outputs, "[]"));
        }
        if !self.options.keep_counts {
            let kept = cell.output_counts.iter().filter(|_| keep);
            let counts = cell.counts.iter().chain(kept);
            edits.extend(counts.map(|range| (range.clone(), "null")));
        }
    }

    /// Takes members out of an object. With one goes the comma before it; with those at the beginning the
    /// comma before the first that stays.
    fn without(
        &self,
        edits: &mut Vec<Edit>,
        object: &Range<usize>,
        members: &[Member],
        keys: &[&str],
    ) {
        let goes = |member: &&Member| keys.contains(&member.key.as_str());
        let Some(first_kept) = members.iter().position(|member| !goes(&member)) else {
            edits.extend((!members.is_empty()).then(|| (object.clone(), "{}")));
            return;
        };
        let (leading, others) = members.split_at(first_kept);
        if let Some(last) = leading.last() {
            let comma = self.text[last.range.end..].find(',').unwrap_or(0);
            edits.push((object.start + 1..last.range.end + comma + 1, ""));
        }
        let gone = others.iter().filter(goes);
        edits.extend(gone.map(|member| (member.range.clone(), "")));
    }
}

fn cell(reader: &mut Reader<'_>) -> Result<CellPlaces, Fault> {
    let mut cell = CellPlaces::default();
    reader.object(|reader, key| {
        match key.as_str() {
            "cell_type" => cell.is_code = reader.value()?.as_str() == Some("code"),
            // nbformat 3 has another word for the count.
            "execution_count" | "prompt_number" => cell.counts.extend(count(reader)?),
            "metadata" if reader.peek()? == b'{' => {
                let start = reader.offset();
                let (members, fields) = members(reader)?;
                cell.keep = keeps(&fields);
                cell.metadata = Some((start..reader.offset(), members));
            }
            "outputs" if reader.peek()? == b'[' => {
                let start = reader.offset();
                reader.array(|reader| {
                    cell.has_outputs = true;
                    output(reader, &mut cell.output_counts)
                })?;
                cell.outputs = Some(start..reader.offset());
            }
            _ => drop(reader.value()?),
        }
        Ok(())
    })?;
    Ok(cell)
}

fn output(reader: &mut Reader<'_>, counts: &mut Vec<Range<usize>>) -> Result<(), Fault> {
    if reader.peek()? != b'{' {
        return reader.value().map(drop);
    }
    reader.object(|reader, key| match key.as_str() {
        "execution_count" | "prompt_number" => {
            counts.extend(count(reader)?);
            Ok(())
        }
        _ => reader.value().map(drop),
    })
}

/// Where a count stands that is not null.
fn count(reader: &mut Reader<'_>) -> Result<Option<Range<usize>>, Fault> {
    reader.peek()?;
    let start = reader.offset();
    let value = reader.value()?;
    Ok((!value.is_null()).then(|| start..reader.offset()))
}

/// The members of an object with their places, and the object.
fn members(reader: &mut Reader<'_>) -> Result<(Vec<Member>, Map<String, Value>), Fault> {
    let (mut members, mut fields) = (Vec::new(), Map::new());
    let mut start = reader.offset();
    reader.object(|reader, key| {
        let value = reader.value()?;
        members.push(Member {
            key: key.clone(),
            range: start..reader.offset(),
        });
        start = reader.offset();
        fields.insert(key, value);
        Ok(())
    })?;
    Ok((members, fields))
}

/// nbstripout's rules.
fn keeps(metadata: &Map<String, Value>) -> bool {
    let tags = metadata.get("tags").and_then(Value::as_array);
    let tagged = tags.is_some_and(|tags| tags.iter().any(|tag| tag == "keep_output"));
    match metadata.get("keep_output") {
        Some(keep) => keep == &Value::Bool(true),
        None => tagged || is_true(metadata, "init_cell"),
    }
}

fn is_true(fields: &Map<String, Value>, key: &str) -> bool {
    fields.get(key) == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests;
