//! Terminal text as HTML: colours are classes, so that the page's theme decides how they look.

use super::escape;
use crate::ansi::{Piece, Style, pieces};
use crate::text::overwritten;

/// Escaped text with a span for each run of one style.
pub(super) fn spans(text: &str) -> String {
    let text = overwritten(text);
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut style = Style::default();
    for piece in pieces(&text) {
        match piece {
            Piece::Sgr(numbers) => style.apply(&numbers),
            Piece::Text(text) if style == Style::default() => out.push_str(&escape(text)),
            Piece::Text(text) => {
                let classes = classes(style);
                out.push_str(&format!(
                    "<span class=\"{classes}\">{}</span>",
                    escape(text)
                ));
            }
        }
    }
    out
}

fn classes(style: Style) -> String {
    let mut classes = Vec::new();
    if let Some(colour) = style.foreground {
        classes.push(format!("a-f{colour}"));
    }
    if let Some(colour) = style.background {
        classes.push(format!("a-b{colour}"));
    }
    let words = [
        (style.bold, "a-bold"),
        (style.dim, "a-dim"),
        (style.italic, "a-italic"),
        (style.underline, "a-underline"),
        (style.strike, "a-strike"),
        (style.inverse, "a-inverse"),
    ];
    let set = words.into_iter().filter(|(on, _)| *on);
    classes.extend(set.map(|(_, word)| word.to_owned()));
    classes.join(" ")
}
