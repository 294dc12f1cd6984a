//! Text that comes from a job, a commit or a person, made fit for a line of a forge.

/// `text` as one line of at most `limit` characters: colours, control characters and characters that
/// turn the reading direction are gone, blank space is single, what is cut ends with `…`.
#[must_use]
pub fn bounded(text: &str, limit: usize) -> String {
    let mut line = String::new();
    let mut chars = text.chars().peekable();
    let mut gap = false;
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            skip_escape(&mut chars);
        } else if c.is_whitespace() || (c.is_control() && c != '\u{7f}') {
            gap = !line.is_empty();
        } else if !is_invisible(c) {
            if gap {
                line.push(' ');
                gap = false;
            }
            line.push(c);
        }
    }
    cut(&line, limit)
}

/// The rest of an escape sequence: `[…m` of colours, `]…BEL` of titles and links, or one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
            chars.next();
        }
        Some(']') => {
            chars.next();
            while chars.next_if(|c| *c != '\u{7}' && *c != '\u{1b}').is_some() {}
            chars.next_if_eq(&'\u{7}');
        }
        Some(_) | None => {
            chars.next();
        }
    }
}

/// Characters that show nothing and can make a line read as another one.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{7f}' | '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

fn cut(line: &str, limit: usize) -> String {
    if line.chars().count() <= limit {
        return line.to_owned();
    }
    let kept: String = line.chars().take(limit.saturating_sub(1)).collect();
    if limit == 0 {
        String::new()
    } else {
        format!("{}…", kept.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_line_ends_go() {
        let text = "\u{1b}[0;31mValueError\u{1b}[0m: a\r\n\tb \u{1b}]8;;http://x\u{7}link";
        assert_eq!(bounded(text, 140), "ValueError: a b link");
    }

    #[test]
    fn nothing_turns_the_line_around() {
        assert_eq!(bounded("ok\u{202e}kcah\u{2066}", 140), "okkcah");
    }

    #[test]
    fn the_bound_counts_characters() {
        for (length, shown) in [(139, 139), (140, 140), (141, 140), (500, 140)] {
            let line = bounded(&"ü".repeat(length), 140);
            assert_eq!(line.chars().count(), shown, "{length}");
            assert_eq!(line.ends_with('…'), length > 140);
        }
        assert_eq!(bounded("abc", 0), "");
        assert_eq!(bounded("abc", 1), "…");
    }

    #[test]
    fn a_torn_escape_does_no_harm() {
        for torn in ["\u{1b}", "x\u{1b}[", "x\u{1b}[3", "x\u{1b}]8;;"] {
            assert!(bounded(torn, 10).len() <= 1, "{torn:?}");
        }
    }
}
