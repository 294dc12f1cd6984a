//! One output as HTML: of what a display offers, the richest that can be shown safely.

use notebook::message::{OutputMessage, StreamName};
use serde_json::{Map, Value};

use super::active::Surroundings;
use super::frame::Frame;
use super::{Options, ansi_html, bounded, escape, markdown, math, put as write, sanitize};
use crate::text::{head, size};

/// Text of more lines is folded.
const FOLDED_LINES: usize = 400;
/// Longer HTML is folded; in bytes.
const FOLDED_HTML: usize = 64 << 10;
/// Longer data is folded; in bytes.
const OPEN_DATA: usize = 1 << 10;
/// A longer LaTeX output is a document, not formulas; in bytes.
const MAX_LATEX: usize = 64 << 10;

/// What may still be shown.
pub(super) struct Budget<'a> {
    pub(super) options: &'a Options,
    /// What frames need of other cells.
    pub(super) around: Surroundings<'a>,
    /// Cell and output that are being shown.
    pub(super) place: (usize, usize),
    left: usize,
    /// Bytes of Markdown cells that may still be shown: they are not the price of what cells said.
    words: usize,
    /// Bytes of frames' documents that may still be made. One that does not fit was made as well.
    making: usize,
}

/// So many times what is shown may be made in frames' documents.
const MAKING: usize = 4;

impl<'a> Budget<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self {
            options,
            around: Surroundings::default(),
            place: (0, 0),
            left: options.max_total,
            words: options.max_total,
            making: options.max_total.saturating_mul(MAKING),
        }
    }

    /// Takes `bytes` of what Markdown cells have left. False: they do not fit.
    pub(super) fn take_words(&mut self, bytes: usize) -> bool {
        let left = self.words.checked_sub(bytes);
        self.words = left.unwrap_or(self.words);
        left.is_some()
    }

    /// The document of a frame. None: frames are not wanted, or enough was made.
    fn document(&mut self, frame: &Frame<'_>) -> Option<String> {
        if !self.options.frames || self.making == 0 {
            return None;
        }
        let document = frame.document();
        self.making = self.making.saturating_sub(document.len());
        Some(document)
    }

    /// Takes `bytes` of what is left. False: they do not fit.
    fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.left;
        if fits {
            self.left -= bytes;
        }
        fits
    }
}

/// Appends the output.
pub(super) fn put(out: &mut String, message: &OutputMessage, budget: &mut Budget<'_>) {
    match message {
        OutputMessage::Stream { name, text } => put_stream(out, *name, text, budget),
        OutputMessage::Error {
            ename,
            evalue,
            traceback,
        } => {
            let text = if traceback.is_empty() {
                format!("{ename}: {evalue}")
            } else {
                traceback.join("\n")
            };
            put_text(out, &text, "nb-error", budget);
        }
        OutputMessage::DisplayData { data, metadata, .. }
        | OutputMessage::ExecuteResult { data, metadata, .. }
        | OutputMessage::UpdateDisplayData { data, metadata, .. } => {
            out.push_str("<div class=\"nb-output nb-display\">\n");
            put_bundle(out, data, metadata, budget);
            out.push_str("</div>\n");
        }
        OutputMessage::ClearOutput { .. } | OutputMessage::Widget(_) => {}
    }
}

/// Appends the text of a stream, unless it is blank.
pub(super) fn put_stream(out: &mut String, name: StreamName, text: &str, budget: &mut Budget<'_>) {
    let class = match name {
        StreamName::Stdout => "nb-stdout",
        StreamName::Stderr => "nb-stderr",
    };
    if !text.trim().is_empty() {
        put_text(out, text, class, budget);
    }
}

/// Appends a frame, else what stands in for it.
pub(super) fn put_frame(
    out: &mut String,
    frame: &Frame<'_>,
    message: &OutputMessage,
    budget: &mut Budget<'_>,
) {
    out.push_str("<div class=\"nb-output nb-display\">\n");
    let options = budget.options;
    let document = budget.document(frame);
    let document = document.filter(|document| document.len() <= options.max_media);
    if let Some(document) = document.filter(|document| budget.take(document.len())) {
        match &options.frame_prefix {
            Some(prefix) => out.push_str(&Frame::linked(prefix, budget.place)),
            None => out.push_str(&Frame::element(&document)),
        }
    } else {
        left_out(out, "interactive output", frame.size());
        if let OutputMessage::DisplayData { data, metadata, .. }
        | OutputMessage::ExecuteResult { data, metadata, .. }
        | OutputMessage::UpdateDisplayData { data, metadata, .. } = message
        {
            put_passive(out, data, metadata, budget);
        }
    }
    out.push_str("</div>\n");
}

fn put_text(out: &mut String, text: &str, class: &str, budget: &mut Budget<'_>) {
    let shown = bounded(text, budget.options.max_text);
    if !budget.take(shown.len()) {
        return left_out(out, "text", text.len());
    }
    let lines = shown.bytes().filter(|byte| *byte == b'\n').count();
    let fold = lines > FOLDED_LINES && class != "nb-error";
    if fold {
        open_fold(out, &format!("{lines} lines, {}", size(text.len())));
    }
    write(out, format_args!("<pre class=\"nb-output {class}\">"));
    ansi_html::put_spans(out, &shown);
    out.push_str("</pre>\n");
    if fold {
        out.push_str("</details>\n");
    }
}

fn open_fold(out: &mut String, words: &str) {
    write(
        out,
        format_args!("<details class=\"nb-fold\"><summary>{words}</summary>\n"),
    );
}

fn put_bundle(
    out: &mut String,
    data: &Map<String, Value>,
    metadata: &Map<String, Value>,
    budget: &mut Budget<'_>,
) {
    if let Some(html) = text(data, "text/html") {
        let shown = head(html, budget.options.max_html);
        if !budget.take(shown.len()) {
            return left_out(out, "text/html", html.len());
        }
        let fold = shown.len() > FOLDED_HTML;
        if fold {
            open_fold(out, &format!("a table or text, {}", size(html.len())));
        }
        write(
            out,
            format_args!("<div class=\"nb-html\">{}</div>\n", sanitize::html(shown)),
        );
        if shown.len() < html.len() {
            left_out(out, "more of this table or text", html.len() - shown.len());
        }
        if fold {
            out.push_str("</details>\n");
        }
        return;
    }
    put_passive(out, data, metadata, budget);
}

/// What needs no sandbox: formulas, pictures, Markdown, text.
fn put_passive(
    out: &mut String,
    data: &Map<String, Value>,
    metadata: &Map<String, Value>,
    budget: &mut Budget<'_>,
) {
    let latex = text(data, "text/latex").filter(|latex| latex.len() <= MAX_LATEX);
    if let Some(formula) = latex.and_then(math::document) {
        budget.take(formula.len());
        let clean = sanitize::html(&formula);
        return write(
            out,
            format_args!("<div class=\"nb-html nb-latex\">{clean}</div>\n"),
        );
    }
    for mime in sanitize::IMAGES {
        if let Some(image) = text(data, mime) {
            return put_image(out, mime, image, metadata, budget);
        }
    }
    if let Some(markdown) = text(data, "text/markdown") {
        let shown = bounded(markdown, budget.options.max_text);
        if !budget.take(shown.len()) {
            return left_out(out, "text/markdown", markdown.len());
        }
        let clean = markdown::html(
            &shown,
            None,
            &format!("o{}-{}", budget.place.0, budget.place.1),
        );
        return write(out, format_args!("<div class=\"nb-html\">{clean}</div>\n"));
    }
    if let Some(pdf) = text(data, "application/pdf") {
        return put_pdf(out, pdf, budget);
    }
    if let Some(json) = data.get("application/json") {
        return put_other(out, "application/json", json, budget);
    }
    if let Some(text) = text(data, "text/plain") {
        return put_text(out, text, "nb-text", budget);
    }
    if let Some(latex) = text(data, "text/latex") {
        return put_text(out, latex, "nb-text nb-source-only", budget);
    }
    match data.iter().next() {
        Some((mime, value)) => put_other(out, mime, value, budget),
        None => out.push_str("<p class=\"nb-cut\">an empty display</p>\n"),
    }
}

/// A document that a browser opens or saves; no page shows it by itself.
fn put_pdf(out: &mut String, pdf: &str, budget: &mut Budget<'_>) {
    let uri = sanitize::data_uri("application/pdf", pdf);
    let fits = pdf.len() <= budget.options.max_media;
    match uri.filter(|_| fits && budget.take(pdf.len())) {
        // Base64 is a third longer than what it says.
        Some(uri) => write(
            out,
            format_args!(
                "<p><a href=\"{uri}\" download=\"output.pdf\">PDF, {}</a></p>\n",
                size(pdf.len() / 4 * 3)
            ),
        ),
        None => left_out(out, "application/pdf", pdf.len()),
    }
}

fn put_image(
    out: &mut String,
    mime: &str,
    image: &str,
    metadata: &Map<String, Value>,
    budget: &mut Budget<'_>,
) {
    if image.len() > budget.options.max_media || !budget.take(image.len()) {
        return left_out(out, mime, image.len());
    }
    let Some(uri) = sanitize::image_uri(mime, image) else {
        return left_out(out, "an image that is not base64", image.len());
    };
    // Jupyter puts the intended size beside pictures for dense screens.
    let wanted = metadata.get(mime).unwrap_or(&Value::Null);
    let length = |key: &str| {
        let pixels = wanted.get(key).and_then(Value::as_f64);
        let pixels = pixels.filter(|pixels| (1.0..20_000.0).contains(pixels));
        pixels.map_or(String::new(), |pixels| format!(" {key}=\"{pixels:.0}\""))
    };
    write(
        out,
        format_args!(
            "<img class=\"nb-image\" alt=\"output\" loading=\"lazy\"{}{} src=\"{uri}\">\n",
            length("width"),
            length("height")
        ),
    );
}

/// Data that needs a viewer, such as `application/vnd.vegalite.v5+json`.
fn put_other(out: &mut String, mime: &str, value: &Value, budget: &mut Budget<'_>) {
    let text = match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    };
    let shown = bounded(&text, budget.options.max_text.min(16 << 10));
    let name = escape(head(mime, 100));
    if !budget.take(shown.len()) {
        return left_out(out, mime, text.len());
    }
    let open = if shown.len() <= OPEN_DATA {
        " open"
    } else {
        ""
    };
    let shown = escape(&shown);
    write(
        out,
        format_args!(
            "<details class=\"nb-data\"{open}><summary>{name}</summary><pre>{shown}</pre></details>\n"
        ),
    );
}

/// The visible mark of something that is not shown.
pub(super) fn left_out(out: &mut String, what: &str, bytes: usize) {
    let what = escape(head(what, 100));
    let size = size(bytes);
    write(
        out,
        format_args!(
            "<p class=\"nb-cut\">{what}: {size} not shown here; the notebook has it</p>\n"
        ),
    );
}

fn text<'a>(data: &'a Map<String, Value>, mime: &str) -> Option<&'a str> {
    data.get(mime).and_then(Value::as_str)
}
