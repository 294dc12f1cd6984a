//! Text that is foreign: bounded, and read as a terminal would show it. Knows no markup.

use std::borrow::Cow;

/// Text within a bound: its beginning and its end, and how many bytes between them are left out.
pub(crate) struct Cut<'a> {
    pub(crate) head: &'a str,
    pub(crate) omitted: usize,
    pub(crate) tail: &'a str,
}

/// Keeps at most `max` bytes: three quarters from the beginning, the rest from the end, where errors stand.
pub(crate) fn cut(text: &str, max: usize) -> Cut<'_> {
    if text.len() <= max {
        return Cut {
            head: text,
            omitted: 0,
            tail: "",
        };
    }
    let head = boundary(text, max / 4 * 3);
    let tail = boundary(text, text.len() - max / 4);
    Cut {
        head: &text[..head],
        omitted: tail - head,
        tail: &text[tail..],
    }
}

/// At most `max` bytes from the beginning.
pub(crate) fn head(text: &str, max: usize) -> &str {
    &text[..boundary(text, max)]
}

fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A number of bytes for people.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// Whether a character turns the direction of the text around it: what it makes a reader see is not what is there
/// (<https://trojansource.codes>). Such characters are shown as U+FFFD wherever foreign text is.
pub(crate) fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text without characters that turn the direction in which a line is read: they are shown as U+FFFD.
#[must_use]
pub fn straight(text: &str) -> Cow<'_, str> {
    // They begin with these bytes, as much else does; most text has neither.
    let may = memchr::memchr2(0xe2, 0xd8, text.as_bytes()).is_some();
    if !may || !text.contains(turns) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(turns, "\u{fffd}"))
}

/// A character as it is seen where it must do nothing: controls are their pictures, what breaks or [`turns`] the
/// text is U+FFFD.
pub(crate) fn seen(c: char) -> char {
    match c {
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => '\u{fffd}',
        c if turns(c) => '\u{fffd}',
        c => c,
    }
}

/// Lines of text in which nothing acts: line ends and tabs stay, all else is as [`seen`].
#[must_use]
pub fn visible(text: &str) -> String {
    let lines = |c| match c {
        '\n' | '\t' => c,
        c => seen(c),
    };
    text.replace("\r\n", "\n").chars().map(lines).collect()
}

/// What a terminal shows in the end: carriage returns and backspaces overwrite, so that a progress bar
/// is one line. Those at the very beginning and end are kept: what they overwrite is not in this text.
pub(crate) fn overwritten(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'\r', 8, text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let text = text.replace("\r\n", "\n");
    let lead = text.len() - text.trim_start_matches('\r').len();
    let (lead, rest) = text.split_at(lead);
    let body = rest.trim_end_matches('\r');
    let trail = &rest[body.len()..];
    let lines: Vec<String> = body.split('\n').map(line).collect();
    Cow::Owned(format!("{lead}{}{trail}", lines.join("\n")))
}

/// Linear in the length of the line, however many carriage returns it has.
fn line(raw: &str) -> String {
    let mut shown: Vec<char> = Vec::new();
    let mut coloured = false;
    for piece in raw.split('\r').map(erased) {
        if piece.is_empty() {
            continue;
        }
        let colours = piece.contains('\u{1b}');
        // Colours have no width, so what is left of the old text cannot be told: the new text wins.
        if colours || coloured {
            shown.clear();
        }
        coloured = colours;
        for (at, c) in piece.chars().enumerate() {
            match shown.get_mut(at) {
                Some(old) => *old = c,
                None => shown.push(c),
            }
        }
    }
    shown.into_iter().collect()
}

fn erased(piece: &str) -> String {
    let mut out = String::with_capacity(piece.len());
    for c in piece.chars() {
        if c == '\u{8}' {
            out.pop();
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_bar_ends_as_one_line() {
        assert_eq!(overwritten("10%\r20%\r100%\nok\n"), "100%\nok\n");
        assert_eq!(overwritten("long text\rnew"), "newg text");
        assert_eq!(overwritten("a\r\nb\r\n"), "a\nb\n");
        assert_eq!(
            overwritten("\u{1b}[31mred\u{1b}[0m\r\u{1b}[32mgreen"),
            "\u{1b}[32mgreen"
        );
        assert_eq!(overwritten("ab\u{8}c"), "ac");
        assert_eq!(overwritten("\r 5%\r"), "\r 5%\r");
    }

    #[test]
    fn hostile_progress_is_read_in_linear_time() {
        // Were each return to cost the whole line, this would take minutes.
        let hostile = format!("{}{}", "x".repeat(200_000), "\ra".repeat(200_000));
        assert_eq!(overwritten(&hostile).len(), 200_000);
    }

    #[test]
    fn nothing_turns_text_around() {
        assert_eq!(
            straight("a\u{202e}b\u{2066}c\u{61c}…─"),
            "a\u{fffd}b\u{fffd}c\u{fffd}…─"
        );
        assert!(matches!(straight("é…─ط"), Cow::Borrowed("é…─ط")));
        assert_eq!(
            visible("a\u{1b}[31m\tb\r\nc\rd\u{202e}\u{9b}"),
            "a␛[31m\tb\nc␍d\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn a_cut_keeps_whole_characters_and_both_ends() {
        let long = "é".repeat(1_000);
        let cut = cut(&long, 101);
        assert_eq!(cut.head.len() + cut.omitted + cut.tail.len(), 2_000);
        assert!(cut.head.len() <= 75 && cut.tail.len() <= 26 && !cut.tail.is_empty());
        assert_eq!(head("éé", 3), "é");
    }
}
