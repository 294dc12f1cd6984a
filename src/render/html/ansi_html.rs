//! Terminal text as HTML: colours are classes, so that the page's theme decides how they look. A colour of the
//! palette has two: the nearest of sixteen, and its own, for which a page of its own has [`rules`].

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::escape_into;
use crate::ansi::{Piece, Style, pieces, rgb};
use crate::text::overwritten;

/// Appends escaped text with a span for each run of one style.
pub(super) fn put_spans(out: &mut String, text: &str) {
    let text = overwritten(text);
    out.reserve(text.len() + text.len() / 8);
    let mut style = Style::default();
    for piece in pieces(&text) {
        match piece {
            Piece::Sgr(numbers) => style.apply(&numbers),
            Piece::Text(text) if style == Style::default() => escape_into(out, text),
            Piece::Text(text) => {
                put(out, format_args!("<span class=\"{}\">", classes(style)));
                escape_into(out, text);
                out.push_str("</span>");
            }
        }
    }
}

fn classes(style: Style) -> String {
    let mut classes = Vec::new();
    for (colour, letter) in [(style.foreground, 'f'), (style.background, 'b')] {
        if let Some(colour) = colour {
            classes.push(format!("a-{letter}{}", colour.near));
            classes.extend(colour.exact.map(|exact| format!("x-{letter}{exact}")));
        }
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

/// Style rules for the colours of the palette that `html` uses. Text that could not be read on white, or on
/// black, is made darker or lighter there.
pub(super) fn rules(html: &str) -> String {
    let mut out = String::new();
    for colour in used(html, "x-b") {
        let rgb = rgb(colour);
        let text = if light(rgb) > 128 { "#000" } else { "#fff" };
        let value = hex(rgb);
        put(
            &mut out,
            format_args!(".x-b{colour} {{ background: {value}; color: {text}; }}\n"),
        );
    }
    for colour in used(html, "x-f") {
        let rgb = rgb(colour);
        let on_white = hex(match light(rgb) {
            0..150 => rgb,
            shine => rgb.map(|c| (u32::from(c) * 110 / shine) as u8),
        });
        let on_black = hex(match light(rgb) {
            110.. => rgb,
            shine => rgb.map(|c| c + ((255 - u32::from(c)) * (110 - shine) / 255) as u8),
        });
        put(
            &mut out,
            format_args!(
                ".x-f{colour} {{ color: {on_white}; color: light-dark({on_white}, {on_black}); }}\n"
            ),
        );
    }
    out
}

/// Numbers after a prefix. One that only looks like a class costs a rule.
fn used(html: &str, prefix: &str) -> BTreeSet<u8> {
    let found = html.match_indices(prefix).filter_map(|(at, _)| {
        let digits = &html.as_bytes()[at + prefix.len()..];
        let long = digits
            .iter()
            .take(3)
            .take_while(|b| b.is_ascii_digit())
            .count();
        let number = std::str::from_utf8(&digits[..long]).ok()?;
        number.parse().ok().filter(|number| *number >= 16)
    });
    found.collect()
}

/// How light a colour seems, 0 to 255.
fn light([r, g, b]: [u8; 3]) -> u32 {
    (299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b)) / 1000
}

fn hex([r, g, b]: [u8; 3]) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Writing to a string cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}
