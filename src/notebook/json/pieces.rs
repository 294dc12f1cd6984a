//! Text that comes in pieces. Knows nothing of JSON.

use std::io::{self, ErrorKind, Read};

/// Bytes that are read at once.
const PIECE: usize = 32 << 10;

/// Text, from what gives its bytes.
pub(super) struct Pieces<'a> {
    source: &'a mut dyn Read,
    bytes: Vec<u8>,
    /// How many of them are the beginning of a character.
    kept: usize,
    ended: bool,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(source: &'a mut dyn Read) -> Self {
        Self {
            source,
            bytes: vec![0; PIECE],
            kept: 0,
            ended: false,
        }
    }

    /// Whether nothing follows.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Puts the next piece behind `text`; false: there was none.
    ///
    /// # Errors
    /// Where it cannot be read, or is not UTF-8.
    pub(super) fn put_next(&mut self, text: &mut String) -> io::Result<bool> {
        let read = self.source.read(&mut self.bytes[self.kept..])?;
        self.ended = read == 0;
        let bytes = &self.bytes[..self.kept + read];
        let piece = match std::str::from_utf8(bytes) {
            Ok(piece) => piece,
            // A character may go on in the next piece.
            Err(error) if error.error_len().is_none() && !self.ended => {
                std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return Err(ErrorKind::InvalidData.into()),
        };
        text.push_str(piece);
        let rest = piece.len()..bytes.len();
        self.kept = rest.len();
        self.bytes.copy_within(rest, 0);
        Ok(!self.ended)
    }
}
