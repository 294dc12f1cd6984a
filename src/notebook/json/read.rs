//! Reads JSON from text, with the byte offset of whatever is being read. Knows nothing of notebooks.

use std::borrow::Cow;
use std::io::Read;

use serde_json::{Map, Number, Value};

use super::pieces::Pieces;

/// Values deeper than this are refused: reading, writing and dropping are recursive.
const MAX_DEPTH: usize = 128;

/// Longer numbers are not read of text that comes in pieces. Bytes.
const LONGEST_TOKEN: usize = 4 << 10;

/// Why text is not JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Byte offset of the place.
    pub(crate) at: usize,
    /// What is wrong there.
    pub(crate) problem: &'static str,
    /// True: the text ends in the middle.
    pub(crate) truncated: bool,
}

/// Line and column (in characters) of a byte offset, both from 1.
pub(crate) fn place(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

/// A place in JSON text.
pub(crate) struct Reader<'a> {
    text: Cow<'a, str>,
    at: usize,
    depth: usize,
    /// Where texts are joined.
    scratch: String,
    /// Where the text goes on.
    more: Option<Pieces<'a>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text: Cow::Borrowed(text),
            at: 0,
            depth: 0,
            scratch: String::new(),
            more: None,
        }
    }

    /// Reads text whose value is to lie `depth` levels deep in another document, which then is not too deep either.
    pub(crate) fn inside(text: &'a str, depth: usize) -> Self {
        Self {
            depth,
            ..Self::new(text)
        }
    }

    /// Reads text that comes in pieces, of which memory holds one or two. Offsets are within those, and what would have to
    /// be read twice is a fault: such text must be read whole.
    pub(crate) fn in_pieces(source: &'a mut dyn Read) -> Self {
        Self {
            more: Some(Pieces::new(source)),
            ..Self::new("")
        }
    }

    /// Skips blanks and looks at the next byte without taking it.
    ///
    /// # Errors
    /// At the end of the text.
    pub(crate) fn peek(&mut self) -> Result<u8, Fault> {
        self.skip_blanks();
        self.look_ahead()?;
        self.byte()
    }

    /// Where the reader stands.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// Makes sure that nothing but blanks follows.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Ok(_) => Err(self.fault("something follows the end of the document")),
            Err(fault) if fault.truncated => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Reads any value. Of equal keys the last one wins, as in Python.
    pub(crate) fn value(&mut self) -> Result<Value, Fault> {
        match self.peek()? {
            b'{' => {
                let mut map = Map::new();
                self.object(|reader, key| {
                    map.insert(key, reader.value()?);
                    Ok(())
                })?;
                Ok(Value::Object(map))
            }
            b'[' => {
                let mut list = Vec::new();
                self.array(|reader| {
                    list.push(reader.value()?);
                    Ok(())
                })?;
                Ok(Value::Array(list))
            }
            b'"' => Ok(Value::String(self.string()?)),
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.word(),
        }
    }

    /// Reads any value, but a list of strings as one string: joined.
    pub(crate) fn joined(&mut self) -> Result<Value, Fault> {
        if self.peek()? != b'[' {
            return self.value();
        }
        let (start, depth) = (self.at, self.depth);
        // Grown once for all texts; each is then as large as it has to be.
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        let mut strings = true;
        self.array(|reader| {
            strings = strings && reader.peek()? == b'"';
            match strings {
                true => reader.string_into(&mut text),
                false => reader.value().map(drop),
            }
        })?;
        let joined = strings.then(|| Value::String(text.as_str().to_owned()));
        self.scratch = text;
        if let Some(joined) = joined {
            return Ok(joined);
        }
        if self.more.is_some() {
            return Err(self.fault("a list was expected to hold strings only"));
        }
        (self.at, self.depth) = (start, depth);
        self.value()
    }

    /// Reads an object; `each` must read the value of the key that it is given.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, String) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.enter(b'{', "an object was expected here")?;
        if self.peek()? == b'}' {
            return self.leave();
        }
        loop {
            if self.peek()? != b'"' {
                return Err(self.fault("a key in double quotes was expected here"));
            }
            let key = self.string()?;
            if self.peek()? != b':' {
                return Err(self.fault("a colon was expected here"));
            }
            self.at += 1;
            each(self, key)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => return self.leave(),
                _ => return Err(self.fault("a comma or a closing brace was expected here")),
            }
        }
    }

    /// Reads an array; `each` must read one value.
    pub(crate) fn array(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.enter(b'[', "a list was expected here")?;
        if self.peek()? == b']' {
            return self.leave();
        }
        loop {
            each(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => return self.leave(),
                _ => return Err(self.fault("a comma or a closing bracket was expected here")),
            }
        }
    }

    /// Reads a string.
    pub(crate) fn string(&mut self) -> Result<String, Fault> {
        let mut out = String::new();
        self.string_into(&mut out)?;
        Ok(out)
    }

    /// Reads a string to the end of another.
    fn string_into(&mut self, out: &mut String) -> Result<(), Fault> {
        let opened = self.at;
        self.at += 1;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let end = memchr::memchr2(b'"', b'\\', rest);
            // The bytes that are looked for are ASCII, so all ends are boundaries of characters.
            let part = &self.text[self.at..self.at + end.unwrap_or(rest.len())];
            if part.bytes().fold(false, |any, byte| any | (byte < 0x20)) {
                self.at += part.bytes().position(|byte| byte < 0x20).unwrap_or(0);
                return Err(self.fault("a control character must be escaped in a string"));
            }
            let Some(length) = end else {
                out.push_str(part);
                self.at = self.text.len();
                if self.next_piece()? {
                    continue;
                }
                return Err(self.truncated(opened, "a string is not closed"));
            };
            self.at += length;
            if rest[length] == b'"' {
                self.at += 1;
                out.push_str(part);
                return Ok(());
            }
            // Most have one escape, at their end.
            out.reserve(length + 8);
            out.push_str(part);
            self.look_ahead()?;
            out.push(self.escape()?);
        }
    }

    /// Reads what follows a backslash. Half a surrogate pair has no character: U+FFFD stands for it.
    fn escape(&mut self) -> Result<char, Fault> {
        self.at += 1;
        let byte = self.byte()?;
        self.at += 1;
        Ok(match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex4()?;
                let pair = (0xD800..0xDC00).contains(&first)
                    && self.text.as_bytes()[self.at..].starts_with(b"\\u");
                if !pair {
                    return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                let before = self.at;
                self.at += 2;
                let second = self.hex4()?;
                if (0xDC00..0xE000).contains(&second) {
                    let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
                } else {
                    self.at = before;
                    char::REPLACEMENT_CHARACTER
                }
            }
            _ => {
                self.at -= 1;
                return Err(self.fault("this is no escape that JSON knows"));
            }
        })
    }

    fn hex4(&mut self) -> Result<u32, Fault> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = char::from(self.byte()?).to_digit(16);
            code = code * 16 + digit.ok_or_else(|| self.fault("four hex digits follow \\u"))?;
            self.at += 1;
        }
        Ok(code)
    }

    /// Reads a number. An integer beyond 64 bits becomes a float: [`Value`] has nothing else for it.
    fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        if self.text[start..].starts_with("-Infinity") {
            return self.word();
        }
        let length = self.text.as_bytes()[start..]
            .iter()
            .position(|b| !matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
            .unwrap_or(self.text.len() - start);
        let word = &self.text[start..start + length];
        if start + length == self.text.len() && !word.ends_with(|c: char| c.is_ascii_digit()) {
            self.at = self.text.len();
            return Err(self.truncated(start, "a number is cut off"));
        }
        let number = if is_integer(word) {
            let small = word.parse::<i64>().map(Number::from).ok();
            small.or_else(|| word.parse::<u64>().map(Number::from).ok())
        } else {
            None
        };
        let value = match number {
            Some(number) => Value::Number(number),
            None if is_number(word) => word
                .parse::<f64>()
                .ok()
                .and_then(Number::from_f64)
                .map_or(Value::Null, Value::Number),
            None => return Err(self.fault("this is not a number")),
        };
        self.at += length;
        Ok(value)
    }

    /// Reads a bare word. Python writes `NaN` and `Infinity`, which [`Value`] lacks: null stands for them.
    fn word(&mut self) -> Result<Value, Fault> {
        let words = [
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
            ("null", Value::Null),
            ("NaN", Value::Null),
            ("Infinity", Value::Null),
            ("-Infinity", Value::Null),
        ];
        let rest = &self.text[self.at..];
        for (word, value) in words {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
            if word.starts_with(rest) {
                return Err(self.truncated(self.at, "a word is cut off"));
            }
        }
        Err(self.fault("a value was expected here"))
    }

    fn enter(&mut self, opening: u8, otherwise: &'static str) -> Result<(), Fault> {
        if self.peek()? != opening {
            return Err(self.fault(otherwise));
        }
        if self.depth == MAX_DEPTH {
            return Err(self.fault("values lie deeper than 128 levels"));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Fault> {
        self.depth -= 1;
        self.at += 1;
        Ok(())
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let blanks = rest
            .iter()
            .take_while(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t'));
        self.at += blanks.count();
    }

    /// Takes further pieces until what begins here, behind blanks, is there as a whole; of a string, its beginning is.
    fn look_ahead(&mut self) -> Result<(), Fault> {
        while self.more.is_some()
            && self.text.len() - self.at < LONGEST_TOKEN
            && self.next_piece()?
        {
            self.skip_blanks();
        }
        Ok(())
    }

    /// Lets go of what was read and takes the next piece; false: there is none.
    fn next_piece(&mut self) -> Result<bool, Fault> {
        let Some(pieces) = self.more.as_mut().filter(|pieces| !pieces.ended()) else {
            return Ok(false);
        };
        let text = self.text.to_mut();
        text.drain(..self.at);
        self.at = 0;
        let put = pieces.put_next(text);
        put.map_err(|_| self.fault("what follows cannot be read as text"))
    }

    fn byte(&self) -> Result<u8, Fault> {
        let byte = self.text.as_bytes().get(self.at).copied();
        byte.ok_or_else(|| self.truncated(self.text.len(), "the text ends here"))
    }

    fn fault(&self, problem: &'static str) -> Fault {
        Fault {
            at: self.at,
            problem,
            truncated: false,
        }
    }

    fn truncated(&self, at: usize, problem: &'static str) -> Fault {
        Fault {
            at,
            problem,
            truncated: true,
        }
    }
}

fn is_integer(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0'))
}

/// JSON's grammar, which is narrower than Rust's: no `+1`, `.5`, `1.` or `01`.
fn is_number(word: &str) -> bool {
    let (mantissa, exponent) = match word.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (word, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let whole = match mantissa.split_once('.') {
        Some((whole, fraction)) => is_integer(whole) && digits(fraction),
        None => is_integer(mantissa),
    };
    whole && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, Fault> {
        let mut reader = Reader::new(text);
        let value = reader.value()?;
        reader.end()?;
        Ok(value)
    }

    #[test]
    fn values_are_read_as_python_reads_them() {
        let text = r#" {"a": [1, -2, 3.5, 1e-7, true, null, NaN, -Infinity], "b": "\u00e9\ud83d\ude00\n\/", "a2": {}, "b": "last"} "#;
        assert_eq!(
            read(text).unwrap(),
            json!({"a": [1, -2, 3.5, 1e-7, true, null, null, null], "b": "last", "a2": {}})
        );
        assert_eq!(
            read(r#""\ud83d\ude00 \ud83d\u0041""#).unwrap(),
            json!("😀 \u{fffd}A")
        );
        assert_eq!(read("18446744073709551615").unwrap(), json!(u64::MAX));
    }

    #[test]
    fn floats_are_exact() {
        for text in [
            "0.30000000000000004",
            "1.7976931348623157e308",
            "5e-324",
            "123456789.12345679",
        ] {
            assert_eq!(read(text).unwrap().as_f64(), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused_at_its_place() {
        for (text, at, truncated) in [
            ("", 0, true),
            ("{\"a\": 1,}", 8, false),
            ("[1 2]", 3, false),
            ("{\"a\": tru", 6, true),
            ("\"abc", 0, true),
            ("[1] x", 4, false),
            ("01", 0, false),
            ("[1.]", 1, false),
            ("\"a\nb\"", 2, false),
            ("\"\\x\"", 2, false),
            ("<<<<<<< HEAD", 0, false),
        ] {
            let fault = read(text).unwrap_err();
            assert_eq!((fault.at, fault.truncated), (at, truncated), "{text}");
        }
        assert!(read(&"[".repeat(1000)).is_err());
    }

    #[test]
    fn a_place_counts_characters() {
        assert_eq!(place("a\nbé\nc", 5), (2, 3));
        assert_eq!(place("a\nbé\nc", 99), (3, 2));
    }
    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..Default::default() })]

        /// Serde is the judge of what is JSON; only numbers too large for it are read here.
        #[test]
        fn what_is_json_is_what_serde_says(text in "[\\[\\]{}\",:0-2eE+.\\-tfnulrsa \\n\\\\é]{0,16}") {
            let text = text.replace("-0", "-1"); // Python reads `-0` as 0, serde as -0.0
            let judged = serde_json::from_str::<Value>(&text);
            match (read(&text), judged) {
                (Ok(ours), Ok(theirs)) => proptest::prop_assert_eq!(ours.to_string(), theirs.to_string()),
                (Err(_), Err(_)) => {}
                (Ok(_), Err(e)) => proptest::prop_assert!(e.to_string().contains("out of range"), "{}", text),
                (Err(fault), Ok(_)) => proptest::prop_assert!(false, "{}: {:?}", text, fault),
            }
        }

        #[test]
        fn every_string_comes_back(text in "\\PC{0,20}|[\\x00-\\x7f]{0,20}") {
            let json = serde_json::to_string(&text).unwrap();
            proptest::prop_assert_eq!(read(&json).unwrap(), Value::String(text));
        }
    }
}
