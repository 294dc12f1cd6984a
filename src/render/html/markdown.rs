//! Markdown as sanitised HTML: tables, task lists, footnotes, formulas, code with colours, attachments.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use comrak::Arena;
use comrak::nodes::{Node, NodeCodeBlock, NodeHtmlBlock, NodeList, NodeValue};
use serde_json::Value;

use super::math::{self, Formula};
use super::{escape, highlight, sanitize};

/// Enclose the number of a formula while Markdown is read. Unicode promises that no text has these characters.
const OPEN: char = '\u{fdd0}';
const CLOSE: char = '\u{fdd1}';

/// What a cell may show of its attachments beside each of them twice, in bytes: a text may name one thousands of times.
const MORE_ATTACHED: usize = 64 << 10;

/// Markdown as sanitised HTML; `attachments` is the cell's field of that name. `place` is what tells its footnotes
/// from those of other texts on the page.
pub(super) fn html(text: &str, attachments: Option<&Value>, place: &str) -> String {
    let text = text.replace([OPEN, CLOSE], "\u{fffd}");
    // Formulas are taken out first, as Jupyter does: Markdown would read their `_`, `\\` and `- `.
    let formulas = math::formulas(&text, true);
    let marked = marked(&text, &formulas);
    let options = options(attachments);
    let arena = Arena::new();
    let root = comrak::parse_document(&arena, &marked, &options);
    let nodes: Vec<Node<'_>> = root.descendants().collect();
    for node in nodes {
        put_back(&arena, node, &formulas);
        tell_apart(node, place);
    }
    let mut html = String::with_capacity(text.len() * 2);
    // Writing to a string cannot fail.
    let _ = comrak::format_html(root, &options, &mut html);
    sanitize::html(&html)
}

fn options(attachments: Option<&Value>) -> comrak::Options<'static> {
    let mut options = comrak::Options::default();
    options.extension.table = true;
    options.extension.tasklist = true;
    options.extension.strikethrough = true;
    options.extension.autolink = true;
    options.extension.footnotes = true;
    options.render.r#unsafe = true; // what is made here is sanitised, raw HTML included
    let images = attachments.map(images).unwrap_or_default();
    let sizes = images.values().map(|uri| 2 * uri.len());
    let room = AtomicUsize::new(sizes.sum::<usize>() + MORE_ATTACHED);
    options.extension.image_url_rewriter = Some(Arc::new(move |url: &str| {
        let name = url.strip_prefix("attachment:");
        let found = name.and_then(|name| images.get(name));
        let take = |bytes| {
            room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
        };
        let found = found.filter(|uri| take(uri.len()).is_ok());
        found.cloned().unwrap_or_else(|| url.to_owned())
    }));
    options
}

/// Data URIs of a cell's attachments by name, as it is written and as a URL has it.
fn images(attachments: &Value) -> HashMap<String, String> {
    let bundles = attachments.as_object().into_iter().flatten();
    let images = bundles.filter_map(|(name, bundle)| {
        let (mime, data) = bundle.as_object()?.iter().next()?;
        let uri = sanitize::image_uri(mime, data.as_str()?)?;
        Some([(name.replace(' ', "%20"), uri.clone()), (name.clone(), uri)])
    });
    images.flatten().collect()
}

/// The text with a number in place of each formula.
fn marked(text: &str, formulas: &[Formula<'_>]) -> String {
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for (number, formula) in formulas.iter().enumerate() {
        out += &text[at..formula.start];
        out += &format!("{OPEN}{number}{CLOSE}");
        at = formula.start + formula.source.len();
    }
    out + &text[at..]
}

/// Formulas in text become MathML, elsewhere what they were; code gets its colours, tasks their box.
fn put_back<'a>(arena: &'a Arena<'a>, node: Node<'a>, formulas: &[Formula<'_>]) {
    let mut data = node.data_mut();
    let written = |text: &str| replaced(text, formulas, |formula, _| formula.source.to_owned());
    let in_markup = |text: &str| {
        let mut in_tag = false;
        replaced(text, formulas, |formula, before| {
            if let Some(last) = before.rfind(['<', '>']) {
                in_tag = before[last..].starts_with('<');
            }
            match in_tag {
                true => escape(formula.source),
                false => math::html(formula),
            }
        })
    };
    match &mut data.value {
        NodeValue::Text(text) if text.contains(OPEN) => {
            let html = replaced_text(text, formulas);
            data.value = NodeValue::HtmlInline(html);
        }
        NodeValue::CodeBlock(block) => {
            let literal = coloured(block, &written(&block.literal));
            data.value = NodeValue::HtmlBlock(NodeHtmlBlock {
                block_type: 6,
                literal,
            });
        }
        NodeValue::Code(code) => code.literal = written(&code.literal),
        NodeValue::HtmlInline(html) => *html = in_markup(html),
        NodeValue::HtmlBlock(html) => html.literal = in_markup(&html.literal),
        NodeValue::Link(link) | NodeValue::Image(link) => {
            link.url = written(&link.url);
            link.title = written(&link.title);
        }
        NodeValue::TaskItem(task) => {
            let sign = if task.symbol.is_some() {
                "☑ "
            } else {
                "☐ "
            };
            data.value = NodeValue::Item(NodeList::default());
            drop(data);
            let inside = node.first_child();
            let words = inside.and_then(|inside| inside.first_child());
            let sign = arena.alloc(NodeValue::Text(sign.into()).into());
            match (words, inside) {
                (Some(words), _) => words.insert_before(sign),
                (None, Some(inside)) => inside.append(sign),
                (None, None) => {}
            }
        }
        _ => {}
    }
}

/// Footnotes are anchors by their names, and each text may have one of that name.
fn tell_apart(node: Node<'_>, place: &str) {
    match &mut node.data_mut().value {
        NodeValue::FootnoteDefinition(note) => note.name = format!("{place}-{}", note.name),
        NodeValue::FootnoteReference(note) => note.name = format!("{place}-{}", note.name),
        _ => {}
    }
}

/// A text with its formulas as MathML, the rest escaped.
fn replaced_text(text: &str, formulas: &[Formula<'_>]) -> String {
    let escaped = escape(text);
    replaced(&escaped, formulas, |formula, _| math::html(formula))
}

/// The text with each number replaced by what `how` makes of its formula, and of the text since the last one.
fn replaced(
    text: &str,
    formulas: &[Formula<'_>],
    mut how: impl FnMut(&Formula<'_>, &str) -> String,
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        let (before, after) = rest.split_at(at);
        out += before;
        rest = &after[OPEN.len_utf8()..];
        let Some(end) = rest.find(CLOSE) else {
            continue;
        };
        let number: Option<usize> = rest[..end].parse().ok();
        if let Some(formula) = number.and_then(|number| formulas.get(number)) {
            out += &how(formula, before);
            rest = &rest[end + CLOSE.len_utf8()..];
        }
    }
    out + rest
}

fn coloured(block: &NodeCodeBlock, literal: &str) -> String {
    let language = block.info.split([' ', ',', '{']).next().unwrap_or_default();
    let code = highlight::code(literal, &language.to_ascii_lowercase());
    format!("<pre><code>{code}</code></pre>\n")
}
