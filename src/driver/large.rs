//! Output messages that are too large to be copied about: they are read where they came, and go to the disk from there.
//! It decides nothing about them.

use std::io::{self, Write};

use notebook::fold::Weight;
use notebook::message::{OutputMessage, StreamName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Most bytes of escaped text in a piece.
const PIECE: usize = 32 << 10;

/// A large output, on top of the bytes of its message.
#[derive(Debug)]
pub(crate) enum Large<'a> {
    /// Text of a stream.
    Text(StreamName, Escaped<'a>),
    /// A display, a result, or an update.
    Bundle(Bundle<'a>),
    /// Anything else: read like a small one.
    Message(OutputMessage),
}

/// A display whose data stays where it is.
#[derive(Debug)]
pub(crate) struct Bundle<'a> {
    /// The message without its data.
    frame: OutputMessage,
    data: &'a str,
}

#[derive(Deserialize)]
struct Stream<'a> {
    name: StreamName,
    #[serde(borrow)]
    text: &'a RawValue,
}

/// JSON of many small values takes many times its length in memory: what is not copied as it is, is bounded.
const MOST_PARSED: usize = 1 << 20;
const MOST_ERROR: usize = 16 << 20;

#[derive(Deserialize)]
struct Display<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    transient: Option<&'a RawValue>,
    #[serde(default)]
    execution_count: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Transient {
    #[serde(default)]
    display_id: Option<String>,
}

#[derive(Deserialize)]
struct Raised {
    ename: String,
    evalue: String,
    traceback: Vec<String>,
}

#[derive(Deserialize)]
struct Clear {
    wait: bool,
}

impl<'a> Large<'a> {
    /// Reads the content of a message of this kind.
    ///
    /// # Errors
    /// Where it is not what the kind promises.
    pub(crate) fn read(kind: &str, content: &'a str) -> serde_json::Result<Self> {
        let frame = match kind {
            "stream" => {
                let stream: Stream<'a> = serde_json::from_str(content)?;
                return Ok(Large::Text(stream.name, Escaped::of(stream.text.get())?));
            }
            "error" => return error(content).map(Large::Message),
            "clear_output" => {
                let Clear { wait } = serde_json::from_str(content)?;
                return Ok(Large::Message(OutputMessage::ClearOutput { wait }));
            }
            _ => serde_json::from_str::<Display<'a>>(content)?,
        };
        if !frame.data.get().starts_with('{') {
            return Err(serde::de::Error::custom("data is no object"));
        }
        let data = Map::new();
        let metadata: Map<String, Value> = bounded(frame.metadata, "metadata")?;
        let Transient { display_id } = bounded(frame.transient, "transient data")?;
        let message = match (kind, display_id) {
            ("execute_result", display_id) => OutputMessage::ExecuteResult {
                execution_count: frame.execution_count,
                data,
                metadata,
                display_id,
            },
            ("update_display_data", Some(display_id)) => OutputMessage::UpdateDisplayData {
                data,
                metadata,
                display_id,
            },
            ("update_display_data", None) => {
                return Err(serde::de::Error::missing_field("display_id"));
            }
            (_, display_id) => OutputMessage::DisplayData {
                data,
                metadata,
                display_id,
            },
        };
        Ok(Large::Bundle(Bundle {
            frame: message,
            data: frame.data.get(),
        }))
    }
}

/// A small part; none is nothing.
fn bounded<T: Default + DeserializeOwned>(
    part: Option<&RawValue>,
    name: &str,
) -> serde_json::Result<T> {
    match part.map_or("{}", RawValue::get) {
        json if json.len() > MOST_PARSED => Err(serde::de::Error::custom(format!(
            "its {name} is longer than {MOST_PARSED} bytes"
        ))),
        json => serde_json::from_str(json),
    }
}

fn error(content: &str) -> serde_json::Result<OutputMessage> {
    if content.len() > MOST_ERROR {
        return Err(serde::de::Error::custom(format!(
            "an error of more than {MOST_ERROR} bytes"
        )));
    }
    let Raised {
        ename,
        evalue,
        traceback,
    } = serde_json::from_str(content)?;
    Ok(OutputMessage::Error {
        ename,
        evalue,
        traceback,
    })
}

impl Bundle<'_> {
    /// The message without its data.
    pub(crate) fn frame(&self) -> &OutputMessage {
        &self.frame
    }

    /// Whether its data, in memory, would take no more.
    pub(crate) fn weighs_at_most(&self, bytes: usize) -> bool {
        serde_json::from_str(self.data).is_ok_and(|Weight(weight)| weight <= bytes)
    }

    /// The message with its data, in memory.
    ///
    /// # Errors
    /// Where the data is none.
    pub(crate) fn into_message(self) -> serde_json::Result<OutputMessage> {
        let new = serde_json::from_str(self.data)?;
        let mut message = self.frame;
        match &mut message {
            OutputMessage::DisplayData { data, .. }
            | OutputMessage::ExecuteResult { data, .. }
            | OutputMessage::UpdateDisplayData { data, .. } => *data = new,
            OutputMessage::Stream { .. }
            | OutputMessage::Error { .. }
            | OutputMessage::ClearOutput { .. }
            | OutputMessage::Widget(_) => {}
        }
        Ok(message)
    }

    /// Writes the message's JSON; says where in it the data begins and how long it is.
    ///
    /// # Errors
    /// Where `out` fails.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<(u64, u64)> {
        const EMPTY: &str = "\"data\":{}";
        let frame = serde_json::to_string(&self.frame)?;
        // The first one is the frame's own: what stands before it are a type and a count.
        let Some(at) = frame.find(EMPTY) else {
            return Err(io::Error::other("a display without data"));
        };
        let (before, after) = (at + EMPTY.len() - 2, at + EMPTY.len());
        out.write_all(&frame.as_bytes()[..before])?;
        out.write_all(self.data.as_bytes())?;
        out.write_all(&frame.as_bytes()[after..])?;
        Ok((before as u64, self.data.len() as u64))
    }
}

/// What stands between the quotes of a JSON text.
#[derive(Debug)]
pub(crate) struct Escaped<'a>(&'a str);

impl<'a> Escaped<'a> {
    fn of(json: &'a str) -> serde_json::Result<Self> {
        json.strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("the text is no text"))
    }

    /// The text in pieces.
    pub(crate) fn pieces(self) -> impl Iterator<Item = serde_json::Result<String>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (piece, after) = rest.split_at(cut(rest));
            rest = after;
            (!piece.is_empty()).then(|| serde_json::from_str(&format!("\"{piece}\"")))
        })
    }
}

/// Where a piece may end: not within a character, an escape, or a pair of surrogates.
fn cut(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len().min(PIECE) {
        at += match bytes[at] {
            b'\\' => escape(&bytes[at..]),
            0x00..=0x7f => 1,
            0x80..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
    }
    at.min(bytes.len())
}

/// Length of the escape at the beginning, with the second half of a pair of surrogates.
fn escape(bytes: &[u8]) -> usize {
    match bytes.get(1) {
        Some(b'u') if half(bytes) == Some(Half::High) && half(&bytes[6..]) == Some(Half::Low) => 12,
        Some(b'u') => 6,
        Some(_) | None => 2,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Half {
    High,
    Low,
}

/// Which half of a pair of surrogates is escaped at the beginning.
fn half(bytes: &[u8]) -> Option<Half> {
    match bytes {
        [b'\\', b'u', b'd' | b'D', second, _, _, ..] => match second {
            b'8' | b'9' | b'a' | b'A' | b'b' | b'B' => Some(Half::High),
            b'c'..=b'f' | b'C'..=b'F' => Some(Half::Low),
            _ => None,
        },
        _ => None,
    }
}

/// Replaces each byte that belongs to no character by `?`. The length stays, and no memory is asked for.
pub(crate) fn mend_characters(bytes: &mut [u8]) {
    let mut at = 0;
    while let Err(error) = std::str::from_utf8(&bytes[at..]) {
        let from = at + error.valid_up_to();
        let length = error.error_len().unwrap_or(bytes.len() - from);
        bytes[from..from + length].fill(b'?');
        at = from + length;
    }
}

/// Replaces escaped halves of surrogate pairs that stand alone by U+FFFD: Python writes them where a program printed
/// bytes that are no UTF-8, and no other reader of JSON takes them. The length stays.
pub(crate) fn mend_surrogates(json: &mut [u8]) {
    let mut at = 0;
    while let Some(next) = json[at..].iter().position(|&byte| byte == b'\\') {
        at += next;
        let length = escape(&json[at..]);
        if length == 6 && half(&json[at..]).is_some() {
            json[at + 2..at + 6].copy_from_slice(b"fffd");
        }
        at = (at + length).min(json.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_comes_in_pieces_and_is_the_same() {
        let text = "é\\\"\n\u{1}😀".repeat(9_000);
        for ascii in [false, true] {
            let mut json = serde_json::to_string(&text).unwrap();
            if ascii {
                json = json.replace('😀', "\\ud83d\\ude00").replace('é', "\\u00e9");
            }
            let content = format!("{{\"name\":\"stderr\",\"text\":{json}}}");
            let Large::Text(StreamName::Stderr, escaped) = Large::read("stream", &content).unwrap()
            else {
                panic!("no text")
            };
            let pieces: Vec<String> = escaped.pieces().map(Result::unwrap).collect();
            assert!(pieces.len() > 3 && pieces.iter().all(|piece| piece.len() <= PIECE));
            assert_eq!(pieces.concat(), text);
        }
    }

    #[test]
    fn a_display_goes_out_as_it_came() {
        let data = json!({"text/html": "<b>\"data\":{}</b>", "application/json": [1, {"é": null}]});
        for (kind, transient) in [
            ("display_data", json!({})),
            ("execute_result", json!({"display_id": "\"data\":{}"})),
            ("update_display_data", json!({"display_id": "a"})),
        ] {
            let content = json!({"data": data, "metadata": {"a": {"data": {}}}, "transient": transient, "execution_count": 3});
            let content = content.to_string();
            let Large::Bundle(bundle) = Large::read(kind, &content).unwrap() else {
                panic!("no bundle")
            };
            let mut out = Vec::new();
            let (from, length) = bundle.write(&mut out).unwrap();
            let message: Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(message["output_type"], kind);
            assert_eq!(message["data"], data);
            assert_eq!(message["metadata"], json!({"a": {"data": {}}}));
            let part = &out[from as usize..(from + length) as usize];
            assert_eq!(serde_json::from_slice::<Value>(part).unwrap(), data);
            assert!(serde_json::from_slice::<OutputMessage>(&out).is_ok());
        }
        assert!(Large::read("display_data", r#"{"data": []}"#).is_err());
        assert!(Large::read("update_display_data", r#"{"data": {}}"#).is_err());
    }

    #[test]
    fn what_would_grow_in_memory_is_bounded() {
        let many = format!("[{}0]", "0,".repeat(MOST_PARSED));
        for (kind, content) in [
            (
                "display_data",
                format!("{{\"data\":{{}},\"metadata\":{{\"a\":{many}}}}}"),
            ),
            (
                "error",
                format!("{{\"ename\":\"{}\"}}", "x".repeat(MOST_ERROR)),
            ),
        ] {
            let error = Large::read(kind, &content).unwrap_err().to_string();
            assert!(error.contains("bytes"), "{error}");
        }
        let content = format!("{{\"wait\":true,\"more\":{many}}}");
        assert!(matches!(
            Large::read("clear_output", &content),
            Ok(Large::Message(OutputMessage::ClearOutput { wait: true }))
        ));
    }

    #[test]
    fn bytes_of_no_character_are_replaced_one_by_one() {
        let mut bytes = b"a\xff\xe2\x82b\xc3\xa9\xf0\x9f".to_vec();
        mend_characters(&mut bytes);
        assert_eq!(std::str::from_utf8(&bytes), Ok("a???bé??"));
    }

    #[test]
    fn half_a_pair_of_surrogates_is_replaced() {
        for (before, after) in [
            (r#""a\ud800b""#, "a\u{fffd}b"),
            (r#""\udcff\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\\ud800 \\\ud800""#, "\\ud800 \\\u{fffd}"),
            (r#""\u00e9""#, "é"),
        ] {
            let mut bytes = before.as_bytes().to_vec();
            mend_surrogates(&mut bytes);
            assert_eq!(serde_json::from_slice::<String>(&bytes).unwrap(), after);
        }
        for torn in [&br"\"[..], br"\u", br"\ud8"] {
            mend_surrogates(&mut torn.to_vec());
        }
    }
}
