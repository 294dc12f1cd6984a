//! A whole notebook as Markdown in one file: code and text outputs in fences, pictures within as data.

use notebook::message::OutputMessage;
use notebook::{Cell, CellKind, Notebook};
use serde_json::{Map, Value};

use super::code_block;
use crate::html::{Options, sanitize};
use crate::text::straight;

/// The notebook, as `options` say: `code`, `outputs` and `max_text` count.
#[must_use]
pub fn notebook(notebook: &Notebook, options: &Options) -> String {
    let language = notebook.language();
    let language = language.as_deref().unwrap_or(&options.language);
    let mut parts: Vec<String> = Vec::new();
    for cell in &notebook.cells {
        match &cell.kind {
            CellKind::Code => put_code(&mut parts, cell, language, options),
            CellKind::Markdown => parts.push(with_attachments(cell)),
            CellKind::Raw | CellKind::Other(_) => {
                parts.push(code_block(&cell.source, "", options.max_text));
            }
        }
    }
    let parts = parts.iter().map(|part| part.trim_end_matches('\n'));
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    straight(&parts.join("\n\n")).into_owned() + "\n"
}

fn put_code(parts: &mut Vec<String>, cell: &Cell, language: &str, options: &Options) {
    if options.code && !cell.is_blank() {
        parts.push(code_block(&cell.source, language, options.max_text));
    }
    let outputs = cell.outputs.iter().filter(|_| options.outputs);
    for message in outputs.filter_map(|output| output.message()) {
        parts.push(match message {
            OutputMessage::Stream { text, .. } if text.trim().is_empty() => continue,
            OutputMessage::DisplayData { data, .. }
            | OutputMessage::ExecuteResult { data, .. }
            | OutputMessage::UpdateDisplayData { data, .. } => display(data, options),
            OutputMessage::Stream { text, .. } => code_block(text, "text", options.max_text),
            OutputMessage::Error {
                ename,
                evalue,
                traceback,
            } if traceback.is_empty() => {
                code_block(&format!("{ename}: {evalue}"), "text", options.max_text)
            }
            OutputMessage::Error { traceback, .. } => {
                code_block(&traceback.join("\n"), "text", options.max_text)
            }
            OutputMessage::ClearOutput { .. } | OutputMessage::Widget(_) => continue,
        });
    }
}

/// Of what a display offers, the richest that Markdown has.
fn display(data: &Map<String, Value>, options: &Options) -> String {
    let text = |mime: &str| data.get(mime).and_then(Value::as_str);
    for mime in sanitize::IMAGES {
        if let Some(uri) = text(mime).and_then(|image| sanitize::image_uri(mime, image)) {
            return format!("![output]({uri})");
        }
    }
    if let Some(markdown) = text("text/markdown").or_else(|| text("text/latex")) {
        return markdown.to_owned();
    }
    match (text("text/plain"), data.iter().next()) {
        (Some(plain), _) => code_block(plain, "text", options.max_text),
        (None, Some((mime, value))) => {
            let bytes = match value.as_str() {
                Some(text) => text.len(),
                None => value.to_string().len(),
            };
            let mime = super::code_span(mime, 100);
            format!(
                "*an output of {mime}, {}, that Markdown has no form for*",
                crate::text::size(bytes)
            )
        }
        (None, None) => String::new(),
    }
}

/// A Markdown cell with its attached pictures in it.
fn with_attachments(cell: &Cell) -> String {
    let mut source = cell.source.clone();
    let attachments = cell.extra.get("attachments").and_then(Value::as_object);
    for (name, bundle) in attachments.into_iter().flatten() {
        let image = bundle.as_object().and_then(|bundle| bundle.iter().next());
        let image = image.and_then(|(mime, data)| sanitize::image_uri(mime, data.as_str()?));
        if let Some(uri) = image {
            source = source.replace(&format!("(attachment:{name})"), &format!("({uri})"));
        }
    }
    source
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_notebook_becomes_a_document() {
        let bytes = json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# T\n![p](attachment:p.png)\n\n",
             "attachments": {"p.png": {"image/png": "QUJD"}}},
            {"cell_type": "code", "id": "b", "metadata": {}, "source": "plot('```')", "execution_count": 1, "outputs": [
                {"output_type": "stream", "name": "stdout", "text": "\u{1b}[31mred\u{1b}[0m\n"},
                {"output_type": "display_data", "metadata": {}, "data": {"image/png": "QUJD", "text/plain": "<Figure>"}},
                {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<b>", "text/plain": "bold"}},
                {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<b>"}},
                {"output_type": "display_data", "metadata": {}, "data": {"application/vnd.foo+json": {"a": 1}}},
                {"output_type": "error", "ename": "E", "evalue": "x", "traceback": []}]},
            {"cell_type": "raw", "id": "c", "metadata": {}, "source": "raw\u{202e}"}]});
        let notebook = ::notebook::read(bytes.to_string().as_bytes()).unwrap();
        assert_eq!(
            super::notebook(&notebook, &Options::export()),
            "# T\n![p](data:image/png;base64,QUJD)\n\n````python\nplot('```')\n````\n\n```text\nred\n```\n\n\
             ![output](data:image/png;base64,QUJD)\n\n```text\nbold\n```\n\n\
             *an output of `text/html`, 3 bytes, that Markdown has no form for*\n\n\
             *an output of `application/vnd.foo+json`, 7 bytes, that Markdown has no form for*\n\n\
             ```text\nE: x\n```\n\n```\nraw\u{fffd}\n```\n"
        );
        let bare = Options {
            code: false,
            outputs: false,
            ..Options::export()
        };
        assert_eq!(
            super::notebook(&notebook, &bare),
            "# T\n![p](data:image/png;base64,QUJD)\n\n```\nraw\u{fffd}\n```\n"
        );
    }
}
