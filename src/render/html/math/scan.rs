//! Where formulas stand in a text: `$…$`, `$$…$$`, `\(…\)`, `\[…\]` (also with two backslashes, as Jupyter
//! wants them in Markdown) and `\begin{x}…\end{x}`. A blank line ends a formula, as in LaTeX and in Jupyter;
//! code is passed over where the text is Markdown. Linear in the length of the text.

/// So much may be read for what turns out to be prices before formulas within them are given up, in bytes.
const MAX_PRICES: usize = 64 << 10;

/// A formula in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Formula<'a> {
    /// Where it begins, in bytes.
    pub(crate) start: usize,
    /// All of it, with what encloses it.
    pub(crate) source: &'a str,
    /// The formula itself.
    pub(crate) body: &'a str,
    /// Whether it stands on a line of its own.
    pub(crate) display: bool,
}

/// The formulas of a text in order.
pub(crate) fn formulas(text: &str, markdown: bool) -> Vec<Formula<'_>> {
    let mut scanner = Scanner {
        text,
        markdown,
        at: 0,
        block_end: 0,
        dead: [0; 8],
        prices: 0,
    };
    let mut found = Vec::new();
    while scanner.at < text.len() {
        let before = scanner.at;
        if let Some(formula) = scanner.step() {
            scanner.at = formula.start + formula.source.len();
            found.push(formula);
        }
        debug_assert!(scanner.at > before, "a step goes on");
    }
    found
}

struct Scanner<'a> {
    text: &'a str,
    markdown: bool,
    at: usize,
    /// Where the next blank line is, once `at` has reached the last one.
    block_end: usize,
    /// By kind of opening: up to here it is known that nothing closes it.
    dead: [usize; 8],
    /// Bytes that were read for prices.
    prices: usize,
}

const OPENINGS: [(&str, &str, bool); 6] = [
    ("\\\\(", "\\\\)", false),
    ("\\\\[", "\\\\]", true),
    ("\\(", "\\)", false),
    ("\\[", "\\]", true),
    ("$$", "$$", true),
    ("$", "$", false),
];

impl<'a> Scanner<'a> {
    /// Reads on: a formula that begins here, or else what is passed over.
    fn step(&mut self) -> Option<Formula<'a>> {
        let rest = &self.text[self.at..];
        let line_start = self.at == 0 || self.text.as_bytes()[self.at - 1] == b'\n';
        if self.markdown
            && line_start
            && let Some(length) = fence(rest)
        {
            self.at += length;
            return None;
        }
        let next = rest.find(['\\', '$', '`', '\n']).unwrap_or(rest.len());
        if next > 0 {
            self.at += next;
            return None;
        }
        match rest.as_bytes()[0] {
            b'`' if self.markdown => {
                self.at += self.code(rest);
                None
            }
            b'\\' | b'$' => {
                let formula = self.formula(rest);
                if formula.is_none() {
                    self.at += skipped(rest);
                }
                formula
            }
            _ => {
                self.at += 1;
                None
            }
        }
    }

    fn formula(&mut self, rest: &'a str) -> Option<Formula<'a>> {
        if rest.starts_with("\\begin{") {
            return self.environment(rest);
        }
        let kind = OPENINGS
            .iter()
            .position(|(open, _, _)| rest.starts_with(open))?;
        let (open, close, display) = OPENINGS[kind];
        let inner = self.block(rest).get(open.len()..)?;
        if self.at < self.dead[kind] {
            return None;
        }
        let dollar = open == "$";
        let end = if open.starts_with('$') {
            dollars(inner, close)
        } else {
            inner.find(close)
        };
        let Some(end) = end else {
            self.dead[kind] = self.at + open.len() + inner.len();
            return None;
        };
        let body = &inner[..end];
        let after = inner[end + close.len()..].chars().next();
        // `$5 and $10` are prices.
        let price = dollar && after.is_some_and(|c| c.is_ascii_digit());
        if price {
            self.prices += end;
        }
        if price && self.prices > MAX_PRICES {
            self.dead[kind] = self.at + open.len() + end;
        }
        if body.trim().is_empty() || price {
            return None;
        }
        Some(Formula {
            start: self.at,
            source: &rest[..open.len() + end + close.len()],
            body,
            display,
        })
    }

    /// `\begin{x}…\end{x}`, with both in the formula.
    fn environment(&mut self, rest: &'a str) -> Option<Formula<'a>> {
        const KIND: usize = 6;
        let block = self.block(rest);
        let name = block["\\begin{".len()..].split('}').next()?;
        let letters = name.trim_end_matches('*');
        let good = !letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase());
        if !good || name.len() > 20 || self.at < self.dead[KIND] {
            return None;
        }
        let close = format!("\\end{{{name}}}");
        let Some(end) = block.find(&close) else {
            self.dead[KIND] = self.at + block.len();
            return None;
        };
        let source = &block[..end + close.len()];
        Some(Formula {
            start: self.at,
            source,
            body: source,
            display: true,
        })
    }

    /// What is left of the paragraph.
    fn block(&mut self, rest: &'a str) -> &'a str {
        if self.at >= self.block_end {
            self.block_end = self.at + paragraph(rest);
        }
        &rest[..self.block_end - self.at]
    }

    /// Length of a code span, or of backticks that open none.
    fn code(&mut self, rest: &'a str) -> usize {
        const KIND: usize = 7;
        let ticks = rest.len() - rest.trim_start_matches('`').len();
        let block = self.block(rest);
        if self.at < self.dead[KIND] {
            return ticks;
        }
        let mut at = ticks;
        while let Some(next) = block.get(at..).and_then(|text| text.find('`')) {
            let run = &block[at + next..];
            let length = run.len() - run.trim_start_matches('`').len();
            at += next + length;
            if length == ticks {
                return at;
            }
        }
        // Runs of other lengths may still close: only a paragraph of nothing but them could cost much.
        self.dead[KIND] = self.at + block.len();
        ticks
    }
}

/// What stands for itself: an escaped character, or one that opens nothing.
fn skipped(rest: &str) -> usize {
    let mut chars = rest.chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), Some(next)) => 1 + next.len_utf8(),
        (Some('$'), Some('$')) => 2,
        _ => 1,
    }
}

/// The length up to a blank line, or all.
fn paragraph(text: &str) -> usize {
    let mut at = 0;
    while let Some(end) = text[at..].find('\n') {
        at += end + 1;
        let line = text[at..].lines().next().unwrap_or_default();
        if at < text.len() && line.trim().is_empty() {
            return at;
        }
    }
    text.len()
}

/// Where dollars close that stand in no braces.
fn dollars(inner: &str, close: &str) -> Option<usize> {
    let bytes = inner.as_bytes();
    let (mut at, mut depth) = (0, 0_i32);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b'$' if depth <= 0 && inner[at..].starts_with(close) => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Length of a fenced block of code that begins here.
fn fence(rest: &str) -> Option<usize> {
    let line = rest.trim_start_matches(' ');
    let mark = line.chars().next().filter(|c| *c == '`' || *c == '~')?;
    let length = line.len() - line.trim_start_matches(mark).len();
    let info = line[length..].lines().next().unwrap_or_default();
    if rest.len() - line.len() > 3 || length < 3 || (mark == '`' && info.contains('`')) {
        return None;
    }
    let mut at = 0;
    for (index, line) in rest.split_inclusive('\n').enumerate() {
        at += line.len();
        let text = line.trim();
        let closes = text.len() >= length && text.chars().all(|c| c == mark);
        if index > 0 && closes {
            break;
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&str, bool)> {
        let all = formulas(text, true);
        for formula in &all {
            assert!(text[formula.start..].starts_with(formula.source));
        }
        all.iter().map(|f| (f.body, f.display)).collect()
    }

    #[test]
    fn every_way_to_write_a_formula() {
        assert_eq!(
            found("a $x$ b $$y$$ c \\(z\\) d \\[w\\] e \\\\(u\\\\) f \\\\[v\\\\]"),
            [
                ("x", false),
                ("y", true),
                ("z", false),
                ("w", true),
                ("u", false),
                ("v", true)
            ]
        );
        assert_eq!(
            found("\\begin{align}a\\\\b\\end{align} and $$\n\\begin{split}\n- x\n\\end{split}\n$$"),
            [
                ("\\begin{align}a\\\\b\\end{align}", true),
                ("\n\\begin{split}\n- x\n\\end{split}\n", true)
            ]
        );
        assert_eq!(
            found("$\\text{for $n$}$ $ x $"),
            [("\\text{for $n$}", false), (" x ", false)]
        );
        assert_eq!(found("$a\\$b$"), [("a\\$b", false)]);
    }

    #[test]
    fn what_is_no_formula() {
        for text in [
            "costs $5 and $10",
            "\\$x$ alone",
            "`$x$` and ``a ` $y$``",
            "```\n$x$\n```\n",
            "~~~ py\n$x$ $y$",
            "$a\n\nb$",
            "$a\n  \nb$",
            "$$ $$",
            "\\begin{A}x\\end{A} \\begin{x",
            "a lone $ and \\( and \\[",
            "$",
            "\\",
            "é$",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
        assert_eq!(found("```\n$x$\n```\n$y$"), [("y", false)]);
    }

    #[test]
    fn hostile_text_is_read_in_linear_time() {
        for piece in [
            "$",
            "\\(",
            "\\[",
            "$${",
            "${",
            "\\begin{a}",
            "`",
            "`a``",
            "$5 $1",
            "\n```",
            "\n~~~x",
        ] {
            let text = piece.repeat(50_000);
            assert!(formulas(&text, true).len() <= text.len());
        }
        let (open, close) = ("$a{".repeat(50_000), "}".repeat(50_000));
        assert_eq!(found(&format!("{open}{close}$1")), []);
    }
}
