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
            cells: Vec::new(),
            lines: Lines::new(text),
        };
        let mut reader = Reader::new(text);
        scan.document(&mut reader)
            .and_then(|()| reader.end())
            .map_err(|fault| parse_error(text, &fault))?;
        Ok(Self { cells: scan.cells })
    }

    /// Raw line (from 1) of a line (from 1) of a cell (from 0, among all cells).
    #[must_use]
    pub fn raw_line(&self, cell: usize, line: usize) -> Option<u32> {
        self.cells.get(cell)?.get(line.checked_sub(1)?).copied()
    }
}

struct Scan<'a> {
    cells: Vec<Vec<u32>>,
    lines: Lines<'a>,
}

impl Scan<'_> {
    fn document(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        if reader.peek()? != b'{' {
            return reader.value().map(drop);
        }
        reader.object(|reader, key| match key.as_str() {
            "cells" => {
                self.cells.clear(); // of equal keys the last one wins
                self.cells(reader)
            }
            "worksheets" if reader.peek()? == b'[' => reader.array(|reader| {
                if reader.peek()? != b'{' {
                    return reader.value().map(drop);
                }
                reader.object(|reader, key| match key.as_str() {
                    "cells" => self.cells(reader),
                    _ => reader.value().map(drop),
                })
            }),
            _ => reader.value().map(drop),
        })
    }

    fn cells(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        if reader.peek()? != b'[' {
            return reader.value().map(drop);
        }
        reader.array(|reader| {
            let mut places = Vec::new();
            if reader.peek()? == b'{' {
                reader.object(|reader, key| match key.as_str() {
                    "source" | "input" => {
                        places = self.source(reader)?;
                        Ok(())
                    }
                    _ => reader.value().map(drop),
                })?;
            } else {
                reader.value()?;
            }
            self.cells.push(places);
            Ok(())
        })
    }

    fn source(&mut self, reader: &mut Reader<'_>) -> Result<Vec<u32>, Fault> {
        let mut places = Places::default();
        match reader.peek()? {
            b'"' => {
                let raw = self.lines.at(reader.offset());
                places.add(&reader.string()?, raw);
            }
            b'[' => reader.array(|reader| {
                if reader.peek()? != b'"' {
                    return reader.value().map(drop);
                }
                let raw = self.lines.at(reader.offset());
                places.add(&reader.string()?, raw);
                Ok(())
            })?,
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
