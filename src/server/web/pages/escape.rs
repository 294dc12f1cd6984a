//! Words that are not a page's own: they stay text, and never turn the direction in which a line is read.

use std::fmt;

use askama::filters::{Escaper, Html};

/// How templates write what they are given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InPage;

impl Escaper for InPage {
    fn write_escaped_str<W: fmt::Write>(&self, dest: W, string: &str) -> fmt::Result {
        Html.write_escaped_str(dest, &render::straight(string))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_and_nothing_turns() {
        let mut shown = String::new();
        InPage
            .write_escaped_str(&mut shown, "<b>\"user\u{202e}nimda")
            .unwrap();
        assert_eq!(shown, "&#60;b&#62;&#34;user\u{fffd}nimda");
    }
}
