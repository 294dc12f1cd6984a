//! Foreign text in the Markdown of a forge's comments and check runs: it says what it says, and nothing
//! happens: no mention, no reference, no link, no HTML, no command. Must not know any forge's API.
//! [`notebook`] is for a person's own file: there Markdown cells stay what they are.

mod export;

use crate::text::{head, straight, turns};

pub use export::notebook;

/// Text as Markdown that shows exactly this text, on one line, of at most `max` characters of it.
#[must_use]
pub fn escape(text: &str, max: usize) -> String {
    let (text, cut) = bounded(text, max);
    let mut out = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let glued = chars.peek().is_some_and(|next| !next.is_whitespace());
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // A forge turns these and the word after them into a mention, a reference or a link,
            // whatever Markdown says: a joiner without width parts them.
            '@' | '#' | '!' | '~' | '%' | '$' | ':' if glued => {
                out.push('\\');
                out.push(c);
                out.push('\u{200b}');
            }
            '.' if out.ends_with("www") => out.push_str("\u{200b}."),
            c if c.is_ascii_punctuation() => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {}
            c if turns(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out + cut
}

/// Text as a code span of at most `max` characters of it, on one line.
#[must_use]
pub fn code_span(text: &str, max: usize) -> String {
    let (text, cut) = bounded(text, max);
    let text: String = straight(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.trim().is_empty() {
        return String::new();
    }
    let fence = "`".repeat(longest_run(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') {
        " "
    } else {
        ""
    };
    format!("{fence}{pad}{text}{cut}{pad}{fence}")
}

/// Text as a fenced block of at most `max` characters of it, without colours; `info` names a language.
#[must_use]
pub fn code_block(text: &str, info: &str, max: usize) -> String {
    let text = crate::terminal::clean(text, false);
    let (text, cut) = bounded(&text, max);
    let info: String = info
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-+_".contains(*c))
        .collect();
    let fence = "`".repeat(longest_run(text).max(2) + 1);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let cut = if cut.is_empty() { "" } else { "…\n" };
    format!("{fence}{info}\n{text}{end}{cut}{fence}\n")
}

/// Markdown of one line as a cell of a table: a bar would end it, even in a code span.
#[must_use]
pub fn table_cell(markdown: &str) -> String {
    markdown.replace("\\|", "|").replace('|', "\\|")
}

/// At most `max` characters, and the mark of what is left out.
fn bounded(text: &str, max: usize) -> (&str, &'static str) {
    match text.char_indices().nth(max) {
        Some((at, _)) => (head(text, at), "…"),
        None => (text, ""),
    }
}

fn longest_run(text: &str) -> usize {
    let (mut longest, mut run) = (0, 0);
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader sees, by the parser that forges use.
    fn shown(markdown: &str) -> String {
        let mut options = comrak::Options::default();
        options.extension.autolink = true;
        options.extension.table = true;
        comrak::markdown_to_html(markdown, &options)
    }

    #[test]
    fn nothing_happens_in_an_escaped_text() {
        for nasty in [
            "@everyone see #1 and !2",
            "[click](javascript:alert(1))",
            "![x](https://example.org/x.png)",
            "<img src=x onerror=alert(1)>",
            "<!-- hidden -->",
            "https://example.org www.example.org a@example.org",
            "`code` *bold* _it_ ~~no~~ # head",
            "/close",
            "- list",
            "1. list",
            "| a | b |\n|---|---|\n| 1 | 2 |",
            "&lt;script&gt;",
            "line\n\n    code\n\n---",
        ] {
            let html = shown(&escape(nasty, 1_000));
            let inner = html
                .trim()
                .strip_prefix("<p>")
                .and_then(|h| h.strip_suffix("</p>"));
            let inner = inner.unwrap_or_else(|| panic!("{nasty}: {html}"));
            assert!(!inner.contains('<'), "{nasty}: {html}");
            let text = inner
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&quot;", "\"")
                .replace("&amp;", "&")
                .replace('\u{200b}', "");
            assert_eq!(
                text.split_whitespace().collect::<Vec<_>>(),
                nasty.split_whitespace().collect::<Vec<_>>()
            );
        }
        assert_eq!(escape("a\u{202e}b", 9), "a\u{fffd}b");
        assert!(escape("@all", 9).contains("@\u{200b}all"));
        assert!(escape("fixes #12", 99).contains("#\u{200b}12"));
    }

    #[test]
    fn a_code_span_cannot_be_left() {
        for nasty in ["a`b", "``", "`a`", "x\n\n# head", "a ``` b"] {
            let html = shown(&code_span(nasty, 100));
            assert!(html.starts_with("<p><code>"), "{html}");
            assert!(html.trim().ends_with("</code></p>"), "{html}");
        }
        assert_eq!(code_span("abcdef", 3), "`abc…`");
        assert_eq!(code_span("", 3), "");
        assert_eq!(code_span("a\u{202e}b", 9), "`a\u{fffd}b`");
    }

    #[test]
    fn a_block_cannot_be_left() {
        let html = shown(&code_block(
            "```\n<b>x</b>\n\u{1b}[31mred",
            "python\n#",
            100,
        ));
        assert_eq!(
            html,
            "<pre><code class=\"language-python\">```\n&lt;b&gt;x&lt;/b&gt;\nred\n</code></pre>\n"
        );
    }

    #[test]
    fn a_table_cell_has_no_bars() {
        let row = format!(
            "| a |\n|---|\n| {} |",
            table_cell(&format!("{} {}", code_span("x|y", 9), escape("p|q", 9)))
        );
        assert!(
            shown(&row).contains("<td><code>x|y</code> p|q</td>"),
            "{}",
            shown(&row)
        );
    }
}
