//! LaTeX formulas as MathML, which browsers draw by themselves. A formula that is not understood is shown
//! as it was written, and marked. What is made here is foreign still: it goes through the sanitiser.

mod scan;

use std::borrow::Cow;

use pulldown_latex::config::{DisplayMode, RenderConfig};
use pulldown_latex::{Event, Parser, ParserError, Storage};

pub(super) use scan::{Formula, formulas};

use super::escape;

/// Longer formulas are shown as they were written.
const MAX_SOURCE: usize = 8 << 10;
/// Formulas that become more than this, by their own macros, are shown as they were written.
const MAX_EVENTS: usize = 20_000;
/// The same for groups within groups: a browser stops at some hundreds of elements.
const MAX_DEPTH: usize = 100;

/// A formula as MathML, else its source with a mark.
pub(super) fn html(formula: &Formula<'_>) -> String {
    let mode = if formula.display {
        DisplayMode::Block
    } else {
        DisplayMode::Inline
    };
    mathml(formula.body, mode).unwrap_or_else(|| {
        let source = escape(formula.source);
        format!("<code class=\"nb-tex\" title=\"this formula is shown as it was written\">{source}</code>")
    })
}

/// The text of a LaTeX output: formulas, and words between them. None where a formula is not understood,
/// or there is none.
pub(super) fn document(text: &str) -> Option<String> {
    let found = formulas(text, false);
    let (mut out, mut at) = (String::new(), 0);
    for formula in &found {
        out += &escape(&text[at..formula.start]);
        let mode = if formula.display {
            DisplayMode::Block
        } else {
            DisplayMode::Inline
        };
        out += &mathml(formula.body, mode)?;
        at = formula.start + formula.source.len();
    }
    out += &escape(&text[at..]);
    let words = found.is_empty() || out.contains("\\begin{") || out.contains("\\end{");
    (!words).then_some(out)
}

fn mathml(source: &str, display_mode: DisplayMode) -> Option<String> {
    if source.len() > MAX_SOURCE {
        return None;
    }
    let source = spoken(source);
    // A parser of foreign text that is not ours: should it give up, the formula is shown as it was written.
    let drawn = std::panic::catch_unwind(|| drawn(&source, display_mode));
    drawn.ok().flatten()
}

fn drawn(source: &str, display_mode: DisplayMode) -> Option<String> {
    if source.contains("\\char") {
        return None; // the parser panics where no ASCII follows, and would say so on standard error
    }
    let storage = Storage::new();
    let events = bounded(Parser::new(source, &storage))?;
    let config = RenderConfig {
        display_mode,
        ..RenderConfig::default()
    };
    let mut out = Vec::new();
    let events = events.into_iter().map(Ok::<_, ParserError>);
    pulldown_latex::write_mathml(&mut out, events, config).ok()?;
    let out = String::from_utf8(out).ok()?;
    // The parser escapes its own space. Inline styles are dropped; MathML has a word of its own for colour.
    let out = out.replace("&amp;nbsp;", "\u{a0}");
    Some(out.replace(" style=\"color: ", " mathcolor=\""))
}

/// The events of a formula, unless they are wrong or too many.
fn bounded<'a>(parser: Parser<'a>) -> Option<Vec<Event<'a>>> {
    let (mut events, mut depth) = (Vec::new(), 0_usize);
    for event in parser {
        let event = event.ok()?;
        match event {
            Event::Begin(_) => depth += 1,
            Event::End => depth = depth.saturating_sub(1),
            Event::Content(_)
            | Event::Visual(_)
            | Event::Script { .. }
            | Event::Space { .. }
            | Event::StateChange(_)
            | Event::EnvironmentFlow(_) => {}
        }
        if depth > MAX_DEPTH || events.len() >= MAX_EVENTS {
            return None;
        }
        events.push(event);
    }
    (!events.is_empty()).then_some(events)
}

/// What notebooks write and the parser does not know, in words that it knows.
fn spoken(source: &str) -> Cow<'_, str> {
    let mut source = Cow::Borrowed(source.trim());
    let mut put = |from: &str, to: &str| {
        if source.contains(from) {
            source = Cow::Owned(source.replace(from, to));
        }
    };
    for star in ["", "*"] {
        put(&format!("\\begin{{eqnarray{star}}}"), "\\begin{array}{rcl}");
        put(&format!("\\end{{eqnarray{star}}}"), "\\end{array}");
    }
    put("\\nonumber", "");
    put("\\notag", "");
    put("\\bm{", "\\boldsymbol{");
    // Cross references have no meaning here; a number by hand stands beside its formula.
    if source.contains("\\label{") || source.contains("\\tag") {
        source = Cow::Owned(without_labels(&source));
    }
    source
}

/// Drops `\label{…}`; `\tag{…}` becomes text.
fn without_labels(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest
        .find("\\label{")
        .into_iter()
        .chain(rest.find("\\tag"))
        .min()
    {
        out += &rest[..at];
        rest = &rest[at..];
        let open = rest.find('{').unwrap_or(rest.len());
        let close = rest.find('}').map_or(rest.len(), |at| at + 1);
        if open < close && rest.starts_with("\\tag") {
            out += &format!("\\qquad\\text{{({})}}", &rest[open + 1..close - 1]);
        }
        rest = &rest[close..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(source: &str) -> Option<String> {
        mathml(source, DisplayMode::Inline)
    }

    #[test]
    fn formulas_become_mathml() {
        assert_eq!(
            shown("x_1").unwrap(),
            "<math display=\"inline\"><msub><mi>x</mi><mn>1</mn></msub></math>"
        );
        for source in [
            "\\frac{\\partial L}{\\partial w} = \\sum_{i=1}^{n} (y_i - \\hat{y}_i)^2",
            "\\begin{align} a &= b + c \\\\ &= d \\label{eq:x} \\tag{1} \\end{align}",
            "\\begin{eqnarray} a &=& b \\\\ c &=& d \\nonumber \\end{eqnarray}",
            "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
            "f(x) = \\begin{cases} 1 & x > 0 \\\\ 0 & \\text{else} \\end{cases}",
            "\\displaystyle \\int_0^\\infty e^{-x^2}\\,dx < \\mathbb{R} \\mathcal{O}(n)",
            "\\newcommand{\\v}[1]{\\mathbf{#1}} \\v{x} \\cdot \\bm{w}",
            "\\left( \\frac{a}{b} \\right] \\operatorname{softmax}",
            "é + 中",
        ] {
            let html = shown(source).unwrap_or_else(|| panic!("{source}"));
            assert!(
                html.starts_with("<math ") && html.ends_with("</math>"),
                "{html}"
            );
        }
        assert!(
            shown("\\color{red} x")
                .unwrap()
                .contains("mathcolor=\"rgb(")
        );
    }

    #[test]
    fn what_is_no_formula_is_none() {
        let deep = format!("{}x{}", "{".repeat(500), "}".repeat(500));
        let laughs = "\\def\\a{xxxxxxxxxx}\\def\\b{\\a\\a\\a\\a\\a\\a\\a\\a\\a\\a}\\def\\c{\\b\\b\\b\\b\\b\\b\\b\\b\\b\\b}\
                      \\def\\d{\\c\\c\\c\\c\\c\\c\\c\\c\\c\\c}\\def\\e{\\d\\d\\d\\d\\d\\d\\d\\d\\d\\d}\\e";
        let long = "x+".repeat(MAX_SOURCE);
        let endless = "\\def\\a{\\a}\\a";
        for source in [
            "\\frac{1",
            "\\nosuchcommand",
            "x_1_2",
            "",
            "}",
            "\\begin{foo}x\\end{foo}",
            &deep,
            laughs,
            &long,
            endless,
        ] {
            assert_eq!(shown(source), None, "{}", &source[..source.len().min(40)]);
        }
        let nothing = "\\relax ".repeat(MAX_SOURCE / 7);
        assert_eq!(shown(&nothing), None);
    }

    #[test]
    fn a_latex_output_is_formulas_and_words() {
        let html = document("$\\displaystyle x^{2}$").unwrap();
        assert!(html.starts_with("<math display=\"inline\">"), "{html}");
        let html = document("so <b> is $x$ or\n\\begin{align*}x\\end{align*}").unwrap();
        assert!(html.starts_with("so &lt;b&gt; is <math"), "{html}");
        assert!(html.contains("<math display=\"block\">"), "{html}");
        assert_eq!(document("\\begin{tabular}{l}a\\end{tabular}"), None);
        assert_eq!(document("$\\frac{1$"), None);
        assert_eq!(document("only words"), None);
    }
}
