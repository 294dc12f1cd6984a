//! What tools say, made plain.

/// Text without ANSI colours and cursor moves (CSI sequences, ECMA-48 5.4). One that is cut off takes the rest with it.
#[must_use]
pub fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        let end = after
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or(after.len(), |at| at + 1);
        rest = &after[end..];
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_is_left() {
        assert_eq!(
            without_colours("\x1b[0;31mError\x1b[0m: x\x1b[2K"),
            "Error: x"
        );
        assert_eq!(without_colours("a\x1b[38;5"), "a");
        assert_eq!(without_colours("[1;31m é"), "[1;31m é");
    }
}
