//! Colours for source: comments, strings, numbers, keywords, calls, decorators and magics. A guess by
//! words, not a parser: wrong source is shown as it is, and a language that is not known has no colours.

mod grammar;

use super::escape_into;
use grammar::{Grammar, Quotes};

/// Classes of the spans.
pub(super) const CLASSES: [&str; 6] = ["h-c", "h-d", "h-f", "h-k", "h-n", "h-s"];

/// What a piece of source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Comment,
    /// A decorator, an annotation, or a magic of IPython.
    Magic,
    /// A name that is called.
    Call,
    Keyword,
    Number,
    Text,
}

impl Token {
    fn class(self) -> &'static str {
        let [comment, magic, call, keyword, number, text] = CLASSES;
        match self {
            Token::Comment => comment,
            Token::Magic => magic,
            Token::Call => call,
            Token::Keyword => keyword,
            Token::Number => number,
            Token::Text => text,
        }
    }
}

/// Escaped source, with spans where the language is known.
pub(super) fn code(source: &str, language: &str) -> String {
    let mut out = String::with_capacity(source.len() * 2);
    tokens(source, language, |token, text| {
        let Some(token) = token else {
            return escape_into(&mut out, text);
        };
        for part in ["<span class=\"", token.class(), "\">"] {
            out.push_str(part);
        }
        escape_into(&mut out, text);
        out.push_str("</span>");
    });
    out
}

/// All of a source, piece by piece. A cell that begins with a magic such as `%%bash` is in that language.
pub(crate) fn tokens(source: &str, language: &str, mut put: impl FnMut(Option<Token>, &str)) {
    let Some(mut grammar) = grammar::of(language) else {
        return put(None, source);
    };
    let mut rest = source;
    if let Some((line, inner)) = inner_language(source).filter(|_| grammar.magics) {
        put(Some(Token::Magic), line);
        (rest, grammar) = (&source[line.len()..], inner);
    }
    let mut line_start = true;
    while let Some(first) = rest.chars().next() {
        let (sort, length) = token(rest, first, line_start, grammar);
        let (text, after) = rest.split_at(length);
        put(sort, text);
        line_start = match text.trim_matches([' ', '\t']) {
            "" => line_start,
            text => text.ends_with('\n'),
        };
        rest = after;
    }
}

/// The first line, and the language of the others: `%%bash`.
fn inner_language(source: &str) -> Option<(&str, &'static Grammar)> {
    let line = source.lines().next()?;
    let word = line.strip_prefix("%%")?.split_whitespace().next()?;
    Some((line, grammar::of(word)?))
}

/// Sort and length of the token at the beginning; never zero.
fn token(rest: &str, first: char, line_start: bool, grammar: &Grammar) -> (Option<Token>, usize) {
    if let Some(length) = comment(rest, grammar) {
        return (Some(Token::Comment), length);
    }
    let line = || rest.find('\n').unwrap_or(rest.len());
    match first {
        '%' | '!' | '@' if line_start && grammar.magics => (Some(Token::Magic), line()),
        '@' if grammar.at_words => {
            let word = run(&rest[1..], |c| c.is_alphanumeric() || c == '_');
            (Some(Token::Magic), 1 + word)
        }
        '"' => (Some(Token::Text), string(rest, first, grammar)),
        '\'' => match grammar.single {
            Quotes::String => (Some(Token::Text), string(rest, first, grammar)),
            Quotes::Character => {
                character(rest).map_or((None, 1), |long| (Some(Token::Text), long))
            }
        },
        '`' if grammar.backtick => (Some(Token::Text), string(rest, first, grammar)),
        '0'..='9' => (
            Some(Token::Number),
            run(rest, |c| c.is_alphanumeric() || c == '_' || c == '.'),
        ),
        c if c.is_alphabetic() || c == '_' => word(rest, grammar),
        // Line ends stand alone, so that a line's beginning is seen.
        '\n' => (None, 1),
        _ => (None, run(rest, is_plain).max(first.len_utf8())),
    }
}

/// Whether a character begins nothing that has a colour in any language.
fn is_plain(c: char) -> bool {
    let begins = "_#\"'`\n%!@/-".contains(c);
    !begins && !c.is_alphanumeric()
}

/// Length of a comment that begins here.
fn comment(rest: &str, grammar: &Grammar) -> Option<usize> {
    if let Some((open, close)) = grammar.block_comment
        && rest.starts_with(open)
    {
        let end = rest[open.len()..].find(close);
        return Some(end.map_or(rest.len(), |at| open.len() + at + close.len()));
    }
    let mut marks = grammar.line_comment.iter();
    let opens = marks.any(|mark| rest.starts_with(mark));
    opens.then(|| rest.find('\n').unwrap_or(rest.len()))
}

fn word(rest: &str, grammar: &Grammar) -> (Option<Token>, usize) {
    let length = run(rest, |c| c.is_alphanumeric() || c == '_');
    let word = &rest[..length];
    let after = rest[length..].chars().next();
    let prefix = grammar.prefixes && length <= 2 && word.chars().all(|c| "rRbBuUfFtT".contains(c));
    let keyword = match grammar.any_case {
        true => grammar
            .keywords
            .contains(&word.to_ascii_lowercase().as_str()),
        false => grammar.keywords.contains(&word),
    };
    match after {
        Some(quote @ ('"' | '\'')) if prefix => (
            Some(Token::Text),
            length + string(&rest[length..], quote, grammar),
        ),
        _ if keyword => (Some(Token::Keyword), length),
        Some('(') => (Some(Token::Call), length),
        _ => (None, length),
    }
}

/// Length of `'x'` or `'\n'`; None where the quote is something else, such as a transposition.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest[1..].char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
    }
    let (at, close) = chars.next()?;
    (close == '\'' && first != '\'').then_some(at + 2)
}

fn run(text: &str, keep: impl Fn(char) -> bool) -> usize {
    text.find(|c| !keep(c)).unwrap_or(text.len())
}

/// Length of a string with its quotes; one that is not closed ends with its line, or with the source.
fn string(text: &str, quote: char, grammar: &Grammar) -> usize {
    let triple: String = std::iter::repeat_n(quote, 3).collect();
    let (opening, closing, lines) = if grammar.triple && text.starts_with(&triple) {
        (3, triple.as_str(), true)
    } else {
        (1, &triple[..1], grammar.long_strings || quote == '`')
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
    fn other_languages_have_their_own_words() {
        for (language, source, shown) in [
            (
                "r",
                "x <- function(a) NULL # b",
                "x &lt;- <span class=\"h-k\">function</span>(a) <span class=\"h-k\">NULL</span> <span class=\"h-c\"># b</span>",
            ),
            (
                "julia",
                "f(x)' # t",
                "<span class=\"h-f\">f</span>(x)&#39; <span class=\"h-c\"># t</span>",
            ),
            (
                "sql",
                "SELECT 1 -- c",
                "<span class=\"h-k\">SELECT</span> <span class=\"h-n\">1</span> <span class=\"h-c\">-- c</span>",
            ),
            (
                "cpp",
                "int c = 'x'; /* a\nb */ a / b",
                "<span class=\"h-k\">int</span> c = <span class=\"h-s\">&#39;x&#39;</span>; <span class=\"h-c\">/* a\nb */</span> a / b",
            ),
            (
                "python",
                "%%bash\nif x; then",
                "<span class=\"h-d\">%%bash</span>\n<span class=\"h-k\">if</span> x; <span class=\"h-k\">then</span>",
            ),
            ("cobol", "<a>", "&lt;a&gt;"),
        ] {
            assert_eq!(code(source, language), shown, "{language}");
        }
    }

    #[test]
    fn one_long_line_is_read_in_linear_time() {
        let source = "f(1)+".repeat(100_000);
        assert!(code(&source, "python").len() > source.len());
    }

    #[test]
    fn whatever_it_is_no_character_is_lost() {
        let sources = [
            "'''abc",
            "'\\",
            "a' ''' `b",
            "/* x",
            "%%bash",
            "%%sql\n-",
            "@",
            "\"x\ny",
            "é = '\\",
            "a % b ! c @ d",
            "",
            "\n\n",
            "😀'😀",
            "%\n",
            "#= é",
        ];
        let languages = [
            "python",
            "r",
            "julia",
            "bash",
            "sql",
            "javascript",
            "cpp",
            "none",
        ];
        for (source, language) in sources
            .into_iter()
            .flat_map(|source| languages.map(|l| (source, l)))
        {
            let shown = code(source, language);
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
            assert_eq!(text, source, "{language}");
        }
    }
}
