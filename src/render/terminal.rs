//! Outputs for a terminal: nothing that a notebook prints may move the cursor, change the title or
//! otherwise reach the terminal itself; colours may stay. Must not know who prints.

mod flow;
mod whole;

use std::borrow::Cow;
use std::fmt::Write as _;

use notebook::message::OutputMessage;
use serde_json::{Map, Value};

use crate::ansi::{Piece, pieces};
use crate::text::{cut, overwritten, size, straight};

pub use flow::Flow;
pub use whole::{notebook, title};

/// More bytes of one output are cut, visibly.
pub const MAX_TEXT: usize = 256 << 10;

/// An output as text. `width` is that of the terminal in columns; rulers are no longer than it.
#[must_use]
pub fn output(message: &OutputMessage, colour: bool, width: usize) -> Cow<'_, str> {
    let text = match message {
        OutputMessage::Stream { text, .. } => return bounded(text, colour),
        OutputMessage::DisplayData { data, .. }
        | OutputMessage::ExecuteResult { data, .. }
        | OutputMessage::UpdateDisplayData { data, .. } => bundle(data, colour),
        OutputMessage::Error {
            ename,
            evalue,
            traceback,
        } => {
            if traceback.is_empty() {
                bounded(&format!("{ename}: {evalue}"), colour).into_owned()
            } else {
                shorter_rulers(&bounded(&traceback.join("\n"), colour), width)
            }
        }
        OutputMessage::ClearOutput { .. } | OutputMessage::Widget(_) => String::new(),
    };
    Cow::Owned(line_end(text))
}

/// Text from elsewhere, harmless to a terminal: overwritten parts resolved, control characters gone, what turns the
/// direction of text shown as U+FFFD, colours kept where `colour` is true (and ended at the end).
#[must_use]
pub fn clean(text: &str, colour: bool) -> String {
    harmless(text, colour).into_owned()
}

/// [`clean`], without a copy where nothing has to go.
fn harmless(text: &str, colour: bool) -> Cow<'_, str> {
    let text = overwritten(text);
    if is_harmless(&text) {
        return match straight(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(straight) => Cow::Owned(straight),
        };
    }
    let mut out = String::with_capacity(text.len());
    let mut coloured = false;
    for piece in pieces(&text) {
        match piece {
            Piece::Text(text) => out.push_str(&straight(text)),
            Piece::Sgr(numbers) if colour => {
                coloured = numbers.iter().any(|&number| number != 0);
                let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
                // Writing to a string cannot fail.
                let _ = write!(out, "\u{1b}[{}m", numbers.join(";"));
            }
            Piece::Sgr(_) => {}
        }
    }
    if coloured {
        out.push_str("\u{1b}[0m");
    }
    Cow::Owned(out)
}

/// Whether text has nothing that a terminal would obey, told by its bytes: control characters beyond ASCII begin
/// with 0xc2 in UTF-8.
fn is_harmless(text: &str) -> bool {
    let obeyed = |byte: u8| matches!(byte, 0..=8 | 0xb..=0xc | 0xe..=0x1f | 0x7f | 0xc2);
    // All of it, without an early end, is many bytes at once.
    !text.bytes().fold(false, |any, byte| any | obeyed(byte))
}

fn bounded(text: &str, colour: bool) -> Cow<'_, str> {
    let cut = cut(text, MAX_TEXT);
    if cut.omitted == 0 {
        return harmless(text, colour);
    }
    Cow::Owned(format!(
        "{}\n[... {} left out ...]\n{}",
        harmless(cut.head, colour),
        size(cut.omitted),
        harmless(cut.tail, colour)
    ))
}

/// The plain text of a display, else what it is.
fn bundle(data: &Map<String, Value>, colour: bool) -> String {
    let shown = ["text/plain", "text/markdown", "text/latex"];
    let text = shown
        .iter()
        .find_map(|mime| data.get(*mime).and_then(Value::as_str));
    let picture = data.iter().find(|(mime, _)| mime.starts_with("image/"));
    let mut out = text.map_or_else(String::new, |text| bounded(text, colour).into_owned());
    if let Some((mime, value)) = picture {
        if !out.is_empty() {
            out.push(' ');
        }
        out += &what(mime, value);
    }
    if out.is_empty() {
        let all: Vec<String> = data.iter().take(8).map(|(m, v)| what(m, v)).collect();
        out = all.join(" ");
    }
    out
}

fn what(mime: &str, value: &Value) -> String {
    let mime: String = clean(mime, false).chars().take(80).collect();
    let bytes = match value.as_str() {
        // Base64 is a third longer than what it says.
        Some(text) if mime.starts_with("image/") && mime != "image/svg+xml" => text.len() / 4 * 3,
        Some(text) => text.len(),
        None => return format!("[{mime}]"),
    };
    format!("[{mime}, {}]", size(bytes))
}

/// IPython draws rulers of 75 dashes.
fn shorter_rulers(text: &str, width: usize) -> String {
    let ruler = "-".repeat(75);
    if width >= 75 {
        return text.to_owned();
    }
    text.replace(&ruler, &"-".repeat(width))
}

fn line_end(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use notebook::message::StreamName;
    use serde_json::json;

    fn stream(text: &str) -> OutputMessage {
        OutputMessage::Stream {
            name: StreamName::Stdout,
            text: text.to_owned(),
        }
    }

    fn display(data: Value) -> OutputMessage {
        OutputMessage::DisplayData {
            data: data.as_object().unwrap().clone(),
            metadata: Map::new(),
            display_id: None,
        }
    }

    #[test]
    fn a_stream_cannot_reach_the_terminal() {
        let nasty = stream("ok\u{1b}[2J\u{1b}]0;pwned\u{7}\u{1b}[31mred\n");
        assert_eq!(output(&nasty, true, 80), "ok\u{1b}[31mred\n\u{1b}[0m");
        assert_eq!(output(&nasty, false, 80), "okred\n");
        assert_eq!(output(&stream("a\u{202e}b"), true, 80), "a\u{fffd}b");
        let both = stream("\u{1b}[1ma\u{202e}b");
        assert_eq!(output(&both, false, 80), "a\u{fffd}b");
    }

    #[test]
    fn a_traceback_with_and_without_colours() {
        let error = OutputMessage::Error {
            ename: "ValueError".into(),
            evalue: "no".into(),
            traceback: vec![
                format!("\u{1b}[31m{}\u{1b}[39m", "-".repeat(75)),
                "\u{1b}[31mValueError\u{1b}[39m: no".into(),
            ],
        };
        assert_eq!(
            output(&error, false, 20),
            format!("{}\nValueError: no\n", "-".repeat(20))
        );
        assert!(output(&error, true, 80).contains("\u{1b}[31mValueError\u{1b}[39m"));
        let bare = OutputMessage::Error {
            ename: "E".into(),
            evalue: "x".into(),
            traceback: vec![],
        };
        assert_eq!(output(&bare, true, 80), "E: x\n");
    }

    #[test]
    fn a_picture_is_named() {
        let plot = display(json!({"text/plain": "<Figure>", "image/png": "QUJD".repeat(1024)}));
        assert_eq!(output(&plot, false, 80), "<Figure> [image/png, 3.0 KiB]\n");
        let odd = display(json!({"application/x\u{1b}[2J": {"a": 1}}));
        assert_eq!(output(&odd, false, 80), "[application/x]\n");
    }

    #[test]
    fn what_is_too_long_is_cut_visibly() {
        let long = stream(&"x\n".repeat(MAX_TEXT));
        let text = output(&long, false, 80);
        assert!(text.len() < MAX_TEXT + 100);
        assert!(text.contains("[... 256.0 KiB left out ...]"));
    }
}
