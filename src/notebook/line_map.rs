//! The line map: from a line of a cell to the line of the raw `.ipynb` where it stands, however the file
//! is formatted. Must not know what a line says.

use crate::json::{Fault, Reader};
use crate::nbformat::{ReadError, parse_error, text};

/// Where each line of each cell stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineMap {
    /// For each cell, for each of its lines, the raw line, from 1.
    cells: Vec<Vec<u32>>,
}

impl LineMap {
    /// Reads the places out of a notebook's bytes.
    ///
    /// # Errors
    /// Where they are not JSON. A file that is JSON but no notebook has an empty map.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        let text = text(bytes)?;
        let mut scan = Scan {
            nbformat: None,
            cells: Vec::new(),
            sheets: Vec::new(),
            lines: Lines::new(text),
        };
        let mut reader = Reader::new(text);
        scan.document(&mut reader)
            .and_then(|()| reader.end())
            .map_err(|fault| parse_error(text, &fault))?;
        let cells = if scan.nbformat == Some(3) {
            let cells = scan.sheets.into_iter();
            cells.map(Found::of_nbformat_3).collect()
        } else {
            scan.cells.into_iter().map(|found| found.source).collect()
        };
        Ok(Self { cells })
    }

    /// Raw line (from 1) of a line (from 1) of a cell (from 0, among all cells).
    #[must_use]
    pub fn raw_line(&self, cell: usize, line: usize) -> Option<u32> {
        self.cells.get(cell)?.get(line.checked_sub(1)?).copied()
    }
}

/// The places of one cell. What its text is depends on what may stand later in the file.
#[derive(Default)]
struct Found {
    is_code: bool,
    source: Vec<u32>,
    /// Where nbformat 3 keeps code.
    input: Option<Vec<u32>>,
}

impl Found {
    fn of_nbformat_3(self) -> Vec<u32> {
        match self.input {
            Some(input) if self.is_code => input,
            Some(_) | None => self.source,
        }
    }
}

struct Scan<'a> {
    nbformat: Option<u64>,
    /// Of nbformat 4.
    cells: Vec<Found>,
    /// Of nbformat 3.
    sheets: Vec<Found>,
    lines: Lines<'a>,
}

impl Scan<'_> {
    /// Of equal keys the last one wins, here and below.
    fn document(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        if reader.peek()? != b'{' {
            return reader.value().map(drop);
        }
        reader.object(|reader, key| {
            match key.as_str() {
                "nbformat" => self.nbformat = reader.value()?.as_u64(),
                "cells" => self.cells = self.cells(reader, false)?,
                "worksheets" => self.sheets = self.sheets(reader)?,
                _ => drop(reader.value()?),
            }
            Ok(())
        })
    }

    fn sheets(&mut self, reader: &mut Reader<'_>) -> Result<Vec<Found>, Fault> {
        let mut all = Vec::new();
        if reader.peek()? != b'[' {
            return reader.value().map(|_| all);
        }
        reader.array(|reader| {
            if reader.peek()? != b'{' {
                return reader.value().map(drop);
            }
            let mut cells = Vec::new();
            reader.object(|reader, key| {
                match key.as_str() {
                    "cells" => cells = self.cells(reader, true)?,
                    _ => drop(reader.value()?),
                }
                Ok(())
            })?;
            all.append(&mut cells);
            Ok(())
        })?;
        Ok(all)
    }

    fn cells(&mut self, reader: &mut Reader<'_>, old: bool) -> Result<Vec<Found>, Fault> {
        let mut cells = Vec::new();
        if reader.peek()? != b'[' {
            return reader.value().map(|_| cells);
        }
        reader.array(|reader| {
            let mut found = Found::default();
            if reader.peek()? == b'{' {
                reader.object(|reader, key| {
                    match key.as_str() {
                        "cell_type" => found.is_code = reader.value()?.as_str() == Some("code"),
                        "source" => found.source = self.source(reader, old)?,
                        "input" if old => found.input = Some(self.source(reader, old)?),
                        _ => drop(reader.value()?),
                    }
                    Ok(())
                })?;
            } else {
                reader.value()?;
            }
            cells.push(found);
            Ok(())
        })?;
        Ok(cells)
    }

    /// The places of a text. Old files hold lists of lines without their ends, too.
    fn source(&mut self, reader: &mut Reader<'_>, old: bool) -> Result<Vec<u32>, Fault> {
        let mut places = Places::default();
        match reader.peek()? {
            b'"' => {
                let raw = self.lines.at(reader.offset());
                places.add(&reader.string()?, raw);
            }
            b'[' => {
                let mut bare = None;
                let mut raw = 0;
                reader.array(|reader| {
                    if reader.peek()? != b'"' {
                        return reader.value().map(drop);
                    }
                    if bare == Some(true) {
                        places.add("\n", raw);
                    }
                    raw = self.lines.at(reader.offset());
                    let piece = reader.string()?;
                    bare.get_or_insert(old && !piece.ends_with(['\n', '\r']));
                    places.add(&piece, raw);
                    Ok(())
                })?;
            }
            _ => drop(reader.value()?),
        }
        Ok(places.lines)
    }
}

/// Collects the raw lines at which a cell's lines begin.
#[derive(Default)]
struct Places {
    lines: Vec<u32>,
    /// The last piece did not end its line.
    open: bool,
    /// The last piece ended in a carriage return, which a newline may complete.
    carriage: bool,
}

impl Places {
    fn add(&mut self, piece: &str, raw: u32) {
        for byte in piece.bytes() {
            if byte == b'\n' && std::mem::take(&mut self.carriage) {
                continue;
            }
            if !self.open {
                self.lines.push(raw);
            }
            self.carriage = byte == b'\r';
            self.open = byte != b'\n' && byte != b'\r';
        }
    }
}

/// Counts raw lines; asked for growing offsets only.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
        }
    }

    fn at(&mut self, offset: usize) -> u32 {
        let between = &self.text.as_bytes()[self.at..offset];
        let newlines = between.iter().filter(|&&byte| byte == b'\n').count();
        self.line = self
            .line
            .saturating_add(u32::try_from(newlines).unwrap_or(u32::MAX));
        self.at = offset;
        self.line
    }
}
