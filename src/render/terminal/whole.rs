//! A whole notebook for a terminal: a line for each cell, its source, what it said.

use notebook::{Cell, CellKind, Notebook};

use super::{clean, output};
use crate::html::highlight::{self, Token};
use crate::html::{Options, numbered};

/// The notebook, as `options` say: `code` and `outputs` count. `width` is that of the terminal in columns.
#[must_use]
pub fn notebook(notebook: &Notebook, options: &Options, colour: bool, width: usize) -> String {
    let language = notebook.language();
    let language = language.as_deref().unwrap_or(&options.language);
    let mut out = String::new();
    for (number, cell) in numbered(&notebook.cells) {
        out += &heading(cell, number, colour, width);
        match &cell.kind {
            CellKind::Code => {
                if options.code {
                    out += &source(&cell.source, language, colour);
                }
                let outputs = cell.outputs.iter().filter(|_| options.outputs);
                let said: String = outputs
                    .filter_map(|one| one.message())
                    .map(|message| output(message, colour, width))
                    .collect();
                if options.code && !cell.is_blank() && !said.is_empty() {
                    out += &dim("── output", colour);
                }
                out += &line_end(said);
            }
            CellKind::Markdown => out += &markdown(&cell.source, colour),
            CellKind::Raw | CellKind::Other(_) => out += &line_end(clean(&cell.source, false)),
        }
        out.push('\n');
    }
    out
}

/// `── Cell 3 [5] parameters ─────`
fn heading(cell: &Cell, number: usize, colour: bool, width: usize) -> String {
    let mut words = match &cell.kind {
        CellKind::Code => format!("── Cell {number} "),
        CellKind::Markdown | CellKind::Raw | CellKind::Other(_) => {
            format!("── {number} {} ", clean(cell.kind.word(), false))
        }
    };
    if let Some(count) = cell.execution_count {
        words += &format!("[{count}] ");
    }
    for tag in cell.tags().take(8) {
        let tag: String = clean(tag, false).chars().take(60).collect();
        words += &format!("{tag} ");
    }
    let words = words.replace(['\n', '\r'], " ");
    let rest = width.min(80).saturating_sub(words.chars().count());
    dim(&(words + &"─".repeat(rest)), colour)
}

/// A line of ours, which stands back where there are colours.
fn dim(line: &str, colour: bool) -> String {
    match colour {
        true => format!("\u{1b}[2m{line}\u{1b}[0m\n"),
        false => format!("{line}\n"),
    }
}

/// The line before a notebook that is one of several: `═══ train.ipynb`.
#[must_use]
pub fn title(name: &str, colour: bool) -> String {
    let line = format!("═══ {}", clean(name, false).replace(['\n', '\r'], " "));
    match colour {
        true => format!("\u{1b}[1m{line}\u{1b}[0m\n\n"),
        false => format!("{line}\n\n"),
    }
}

/// Source with colours; what would reach the terminal itself is gone.
fn source(text: &str, language: &str, colour: bool) -> String {
    let text = clean(text, false);
    if !colour {
        return line_end(text);
    }
    let mut out = String::with_capacity(text.len() * 2);
    highlight::tokens(&text, language, |token, text| {
        let code = match token {
            Some(Token::Comment) => "90",
            Some(Token::Magic) => "33",
            Some(Token::Call) => "35",
            Some(Token::Keyword) => "31",
            Some(Token::Number) => "34",
            Some(Token::Text) => "32",
            None => return out.push_str(text),
        };
        out += &format!("\u{1b}[{code}m{text}\u{1b}[0m");
    });
    line_end(out)
}

/// Markdown as it is written, its headings bold.
fn markdown(text: &str, colour: bool) -> String {
    let text = clean(text, false);
    if !colour {
        return line_end(text);
    }
    let lines = text.lines().map(|line| match line.starts_with('#') {
        true => format!("\u{1b}[1m{line}\u{1b}[0m\n"),
        false => format!("{line}\n"),
    });
    lines.collect()
}

fn line_end(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use notebook::message::{OutputMessage, StreamName};

    use super::*;

    fn shown(colour: bool) -> String {
        let mut code = Cell::code("a", "if x: \u{1b}[2J'y'");
        code.execution_count = Some(3);
        let text = "ok\u{1b}[2J\n".to_owned();
        code.outputs.push(
            OutputMessage::Stream {
                name: StreamName::Stdout,
                text,
            }
            .into(),
        );
        let mut words = Cell::code("b", "# T\n*a*");
        words.kind = CellKind::Markdown;
        let notebook = Notebook {
            cells: vec![words, code],
            ..Notebook::default()
        };
        super::notebook(&notebook, &Options::default(), colour, 20)
    }

    #[test]
    fn a_notebook_reads_from_top_to_bottom() {
        assert_eq!(
            shown(false),
            "── 1 markdown ──────\n# T\n*a*\n\n── Cell 2 [3] ──────\nif x: 'y'\n── output\nok\n\n"
        );
        assert_eq!(
            shown(true),
            "\u{1b}[2m── 1 markdown ──────\u{1b}[0m\n\u{1b}[1m# T\u{1b}[0m\n*a*\n\n\u{1b}[2m── Cell 2 [3] ──────\u{1b}[0m\n\
             \u{1b}[31mif\u{1b}[0m x: \u{1b}[32m'y'\u{1b}[0m\n\
             \u{1b}[2m── output\u{1b}[0m\nok\n\n"
        );
    }
}
