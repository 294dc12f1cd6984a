//! A notebook as HTML: a fragment for a page of ours, or a page of its own. Text is escaped, markup is
//! sanitised, and what wants to run does so only in a sandboxed frame. Must not know who serves it.
//!
//! The fragment has neither scripts nor inline styles: a page's content security policy may forbid
//! both. A frame has scripts; a `srcdoc` frame inherits the policy of its page, so a page with a strict
//! policy names [`Options::frame_prefix`] and serves [`frame_document`] there.

mod active;
mod ansi_html;
mod frame;
pub(crate) mod highlight;
mod markdown;
mod math;
mod output;
pub(crate) mod sanitize;

use std::borrow::Cow;
use std::fmt::Write as _;

use notebook::message::{OutputMessage, StreamName};
use notebook::{Cell, CellKind, Notebook, Output};
use serde_json::Value;

use crate::text::{cut, head, size, straight};
use active::{Role, Surroundings};
use output::Budget;

/// The style sheet of everything here, for light and dark.
pub const STYLE: &str = include_str!("html/style.css");

/// How a notebook is shown, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Language of code cells, for colours; only `python` has them.
    pub language: String,
    /// Most bytes of a source, or of the text of one output.
    pub max_text: usize,
    /// Most bytes of one HTML output; a table goes on, cut.
    pub max_html: usize,
    /// Most bytes of one image as it lies in the notebook, or of one active output; larger ones are named, not shown.
    pub max_media: usize,
    /// Most bytes of the outputs of one notebook together.
    pub max_total: usize,
    /// Whether the source of code cells is shown.
    pub code: bool,
    /// Whether outputs are shown.
    pub outputs: bool,
    /// Whether active output gets frames; else it is named.
    pub frames: bool,
    /// Where frames find their documents: `<prefix>/<cell>/<output>`, both counted from 0, answers with
    /// [`frame_document`]. None: the document stands in the frame itself.
    pub frame_prefix: Option<String>,
}

impl Options {
    /// For a page of its own that a person asked for: it leaves nothing out that a browser can show.
    #[must_use]
    pub fn export() -> Self {
        Self {
            max_text: 64 << 20,
            max_html: 64 << 20,
            max_media: 256 << 20,
            max_total: 512 << 20,
            ..Self::default()
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            language: "python".to_owned(),
            max_text: 200 << 10,
            max_html: 1 << 20,
            max_media: 8 << 20,
            max_total: 48 << 20,
            code: true,
            outputs: true,
            frames: true,
            frame_prefix: None,
        }
    }
}

/// A whole notebook as an `<article>`.
#[must_use]
pub fn notebook(notebook: &Notebook, options: &Options) -> String {
    let mut options = options.clone();
    if let Some(language) = notebook.language() {
        options.language = language;
    }
    let mut budget = Budget::new(&options);
    budget.around = Surroundings::of(notebook);
    let mut out = String::from("<article class=\"nb\">\n");
    for (index, (number, cell)) in numbered(&notebook.cells).enumerate() {
        budget.place.0 = index;
        put_cell(&mut out, cell, number, &mut budget);
    }
    out.push_str("</article>\n");
    out
}

/// A whole page with its own style sheet.
#[must_use]
pub fn page(title: &str, shown: &Notebook, options: &Options) -> String {
    let body = notebook(shown, options);
    let colours = ansi_html::rules(&body);
    let title = escape(head(title, 200));
    let head = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{colours}</style>\n</head>\n<body class=\"nb-page\">\n"
    );
    [&head, body.as_str(), "</body>\n</html>\n"].concat()
}

/// The number of a cell, counted from 1 as in the file that people know: the cell with the values that were
/// given to a run is not in it, and counts as the one before it.
#[must_use]
pub fn number(cells: &[Cell], index: usize) -> usize {
    let upto = cells.iter().take(index + 1);
    upto.filter(|cell| !is_injected(cell)).count()
}

/// All cells with their numbers.
pub(crate) fn numbered(cells: &[Cell]) -> impl Iterator<Item = (usize, &Cell)> {
    let mut number = 0;
    cells.iter().map(move |cell| {
        number += usize::from(!is_injected(cell));
        (number, cell)
    })
}

fn is_injected(cell: &Cell) -> bool {
    cell.tags().any(|tag| tag == notebook::parameters::INJECTED)
}

/// One cell; `index` counts from 0 among all cells.
#[must_use]
pub fn cell(cell: &Cell, index: usize) -> String {
    cell_with(cell, index, &Options::default())
}

/// One cell, as `options` say.
#[must_use]
pub fn cell_with(cell: &Cell, index: usize, options: &Options) -> String {
    numbered_cell(cell, index + 1, options)
}

/// One cell under its [`number`].
#[must_use]
pub fn numbered_cell(cell: &Cell, number: usize, options: &Options) -> String {
    let mut out = String::new();
    put_cell(&mut out, cell, number, &mut Budget::new(options));
    out
}

/// One output. An update of a display looks like a display; a clearing is empty.
#[must_use]
pub fn output(message: &OutputMessage) -> String {
    output_with(message, &Options::default())
}

/// One output, as `options` say.
#[must_use]
pub fn output_with(message: &OutputMessage, options: &Options) -> String {
    let mut out = String::new();
    let outputs = [Output::from(message.clone())];
    put_outputs(&mut out, &outputs, &mut Budget::new(options));
    out
}

/// The document of the frame that stands in place of an output, both counted from 0, for a server that gives
/// it a URL of its own. It must be answered with `Content-Security-Policy: sandbox allow-scripts`. None where
/// no frame stands there.
#[must_use]
pub fn frame_document(notebook: &Notebook, cell: usize, output: usize) -> Option<String> {
    let cell = notebook.cells.get(cell)?;
    let mut roles = active::roles(&cell.outputs, &Surroundings::of(notebook));
    match roles.drain(..).nth(output)? {
        Role::Frame(frame) => Some(frame.document()),
        Role::Passive | Role::Joined | Role::Load => None,
    }
}

/// Terminal text with its colours, as spans within what is already a `<pre>`.
#[must_use]
pub fn terminal_text(text: &str) -> String {
    let mut out = String::new();
    ansi_html::put_spans(&mut out, text);
    out
}

/// Markdown, sanitised.
#[must_use]
pub fn markdown(text: &str) -> String {
    markdown::html(text, None, "text")
}

/// Text as HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    escape_into(&mut out, text);
    out
}

/// Appends text as HTML. Runs without anything to escape are copied whole; control characters go, and nothing
/// turns the direction of the text.
fn escape_into(out: &mut String, text: &str) {
    let text = &straight(text);
    // In UTF-8 this byte begins the control characters U+0080 to U+009F, and others.
    const C1: u8 = 0xc2;
    let mut plain = 0;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().copied().enumerate() {
        let (with, length) = match byte {
            b'&' => ("&amp;", 1),
            b'<' => ("&lt;", 1),
            b'>' => ("&gt;", 1),
            b'"' => ("&quot;", 1),
            b'\'' => ("&#39;", 1),
            b'\n' | b'\t' => continue,
            0..b' ' | 0x7f => ("", 1),
            C1 if bytes[at + 1] < 0xa0 => ("", 2),
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        out.push_str(with);
        plain = at + length;
    }
    out.push_str(&text[plain..]);
}

fn put_cell(out: &mut String, cell: &Cell, number: usize, budget: &mut Budget<'_>) {
    match &cell.kind {
        CellKind::Code => put_code_cell(out, cell, number, budget),
        CellKind::Markdown => {
            let source = bounded(&cell.source, budget.options.max_text);
            let mut html = String::new();
            if budget.take_words(source.len()) {
                let attachments = cell.extra.get("attachments");
                html = markdown::html(&source, attachments, &format!("c{number}"));
            } else {
                output::left_out(&mut html, "text/markdown", cell.source.len());
            }
            put(
                out,
                format_args!(
                    "<section class=\"nb-cell nb-markdown\" id=\"cell-{number}\">\n{html}</section>\n"
                ),
            );
        }
        CellKind::Raw | CellKind::Other(_) => {
            let source = escape(&bounded(&cell.source, budget.options.max_text));
            put(
                out,
                format_args!(
                    "<section class=\"nb-cell nb-raw\" id=\"cell-{number}\">\n<pre>{source}</pre>\n</section>\n"
                ),
            );
        }
    }
}

fn put_code_cell(out: &mut String, cell: &Cell, number: usize, budget: &mut Budget<'_>) {
    let failed = cell
        .outputs
        .iter()
        .any(|output| matches!(output.message(), Some(OutputMessage::Error { .. })));
    let mark = if failed { " nb-failed" } else { "" };
    let (id, name) = if is_injected(cell) {
        (
            "cell-parameters".to_owned(),
            "Values of this run".to_owned(),
        )
    } else {
        (format!("cell-{number}"), format!("Cell {number}"))
    };
    put(
        out,
        format_args!(
            "<section class=\"nb-cell nb-code{mark}\" id=\"{id}\">\n\
             <header class=\"nb-head\"><a href=\"#{id}\">{name}</a>"
        ),
    );
    if let Some(count) = cell.execution_count {
        put(
            out,
            format_args!(" <span class=\"nb-count\">[{count}]</span>"),
        );
    }
    for tag in cell.tags().take(8) {
        let tag = escape(head(tag, 60));
        put(out, format_args!(" <span class=\"nb-tag\">{tag}</span>"));
    }
    if let Some(ms) = cell
        .metadata
        .get("trainyard")
        .and_then(|ours| ours.get("duration_ms"))
        .and_then(Value::as_u64)
    {
        let seconds = ms as f64 / 1_000.0;
        put(
            out,
            format_args!(" <span class=\"nb-time\">{seconds:.1} s</span>"),
        );
    }
    out.push_str("</header>\n");
    if budget.options.code {
        put_source(out, cell, budget.options);
    }
    if budget.options.outputs {
        out.push_str("<div class=\"nb-outputs\">\n");
        put_outputs(out, &cell.outputs, budget);
        out.push_str("</div>\n");
    }
    out.push_str("</section>\n");
}

fn put_source(out: &mut String, cell: &Cell, options: &Options) {
    let word = |c: &char| c.is_alphanumeric() || "-+_".contains(*c);
    let language = head(&options.language, 40).chars().filter(word);
    let language: String = language.collect();
    let code = highlight::code(&bounded(&cell.source, options.max_text), &options.language);
    put(
        out,
        format_args!(
            "<pre class=\"nb-source\"><code class=\"language-{language}\">{code}</code></pre>\n"
        ),
    );
}

fn put_outputs(out: &mut String, outputs: &[Output], budget: &mut Budget<'_>) {
    // Frames go by what surrounds a cell, which an update of the budget must not borrow.
    let around = budget.around.clone();
    let roles = active::roles(outputs, &around);
    let mut outputs = outputs.iter().zip(roles).enumerate().peekable();
    while let Some((place, (output, role))) = outputs.next() {
        budget.place.1 = place;
        match (output.message(), role) {
            (Some(message), Role::Frame(frame)) => output::put_frame(out, &frame, message, budget),
            (Some(OutputMessage::Stream { name, text }), _) => {
                // Not every tool joins neighbouring streams, and a progress bar goes over many.
                let mut text = Cow::Borrowed(text.as_str());
                while let Some(OutputMessage::Stream { text: more, .. }) = outputs
                    .next_if(|(_, (next, _))| is_stream(next, *name))
                    .and_then(|(_, (next, _))| next.message())
                {
                    text.to_mut().push_str(more);
                }
                output::put_stream(out, *name, &text, budget);
            }
            (Some(_), Role::Joined) => {}
            (Some(_), Role::Load) => out.push_str(
                "<p class=\"nb-cut\">loads a library, which the frames that need it have</p>\n",
            ),
            (Some(message), Role::Passive) => output::put(out, message, budget),
            (None, _) => out.push_str(
                "<p class=\"nb-cut\">an output of a kind that Trainyard does not know</p>\n",
            ),
        }
    }
}

fn is_stream(output: &Output, wanted: StreamName) -> bool {
    matches!(output.message(), Some(OutputMessage::Stream { name, .. }) if *name == wanted)
}

/// Text within a bound, with a visible mark in its middle where something is left out.
fn bounded(text: &str, max: usize) -> String {
    let cut = cut(text, max);
    if cut.omitted == 0 {
        return text.to_owned();
    }
    let left_out = size(cut.omitted);
    format!("{}\n[… {left_out} left out …]\n{}", cut.head, cut.tail)
}

/// Writing to a string cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests;
