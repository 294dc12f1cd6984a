//! Colours for Python source: comments, strings, numbers, keywords, decorators and magics. A guess by
//! words, not a parser: wrong source is shown as it is.

use super::escape;

const KEYWORDS: [&str; 37] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "case", "class",
    "continue", "def", "del", "elif", "else", "except", "finally", "for", "from", "global", "if",
    "import", "in", "is", "lambda", "match", "nonlocal", "not", "or", "pass", "raise", "return",
    "try", "while", "with", "yield",
];

/// Escaped source, with spans where the language is Python.
pub(super) fn code(source: &str, language: &str) -> String {
    if language != "python" {
        return escape(source);
    }
    let mut out = String::with_capacity(source.len() * 2);
    let mut rest = source;
    let mut line_start = true;
    while let Some(first) = rest.chars().next() {
        let (class, length) = token(rest, first, line_start);
        let (text, after) = rest.split_at(length);
        let text_html = escape(text);
        match class {
            Some(class) => out.push_str(&format!("<span class=\"{class}\">{text_html}</span>")),
            None => out.push_str(&text_html),
        }
        line_start = match text.trim_matches([' ', '\t']) {
            "" => line_start,
            text => text.ends_with('\n'),
        };
        rest = after;
    }
    out
}

/// Class and length of the token at the beginning; never zero.
fn token(rest: &str, first: char, line_start: bool) -> (Option<&'static str>, usize) {
    let line = || rest.find('\n').unwrap_or(rest.len());
    match first {
        '#' => (Some("h-c"), line()),
        '%' | '!' | '@' if line_start => (Some("h-d"), line()),
        '"' | '\'' => (Some("h-s"), string(rest, first)),
        '0'..='9' => (
            Some("h-n"),
            run(rest, |c| c.is_alphanumeric() || c == '_' || c == '.'),
        ),
        c if c.is_alphabetic() || c == '_' => {
            let length = run(rest, |c| c.is_alphanumeric() || c == '_');
            let word = &rest[..length];
            let after = rest[length..].chars().next();
            let prefix = length <= 2 && word.chars().all(|c| "rRbBuUfFtT".contains(c));
            match after {
                Some(quote @ ('"' | '\'')) if prefix => {
                    (Some("h-s"), length + string(&rest[length..], quote))
                }
                _ if KEYWORDS.contains(&word) => (Some("h-k"), length),
                Some('(') => (Some("h-f"), length),
                _ => (None, length),
            }
        }
        // Line ends stand alone, so that a line's beginning is seen.
        '\n' => (None, 1),
        _ => {
            let plain = |c: char| {
                !(c.is_alphanumeric()
                    || matches!(c, '_' | '#' | '"' | '\'' | '\n' | '%' | '!' | '@'))
            };
            (None, run(rest, plain).max(first.len_utf8()))
        }
    }
}

fn run(text: &str, keep: impl Fn(char) -> bool) -> usize {
    text.find(|c| !keep(c)).unwrap_or(text.len())
}

/// Length of a string with its quotes; one that is not closed ends with its line, or with the source.
fn string(text: &str, quote: char) -> usize {
    let triple: String = std::iter::repeat_n(quote, 3).collect();
    let (opening, closing, lines) = if text.starts_with(&triple) {
        (3, triple.as_str(), true)
    } else {
        (1, &triple[..1], false)
    };
    let mut at = opening;
    while let Some(c) = text[at..].chars().next() {
        if text[at..].starts_with(closing) {
            return at + closing.len();
        }
        if c == '\n' && !lines {
            return at;
        }
        at += c.len_utf8();
        if c == '\\' {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_gets_colours() {
        let source = "%time x\n@jit\ndef f(a):  # <b>\n    return f\"{a}\\\"\" + 1_0.5\n";
        assert_eq!(
            code(source, "python"),
            "<span class=\"h-d\">%time x</span>\n<span class=\"h-d\">@jit</span>\n\
             <span class=\"h-k\">def</span> <span class=\"h-f\">f</span>(a):  <span class=\"h-c\"># &lt;b&gt;</span>\n    \
             <span class=\"h-k\">return</span> <span class=\"h-s\">f&quot;{a}\\&quot;&quot;</span> + <span class=\"h-n\">1_0.5</span>\n"
        );
    }

    #[test]
    fn one_long_line_is_read_in_linear_time() {
        let source = "f(1)+".repeat(100_000);
        assert!(code(&source, "python").len() > source.len());
    }

    #[test]
    fn whatever_it_is_no_character_is_lost() {
        for source in [
            "'''abc",
            "\"x\ny",
            "é = '\\",
            "a % b ! c @ d",
            "",
            "\n\n",
            "😀'😀",
            "%\n",
        ] {
            let shown = code(source, "python");
            let mut text = String::new();
            let mut inside = false;
            for c in shown.chars() {
                match c {
                    '<' => inside = true,
                    '>' => inside = false,
                    c if !inside => text.push(c),
                    _ => {}
                }
            }
            let text = text.replace("&#39;", "'").replace("&quot;", "\"");
            assert_eq!(text, source);
        }
    }
}
