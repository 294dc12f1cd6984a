//! A diff as a page of its own: lines with the words that differ, outputs side by side. What outputs hold is
//! made harmless by the same rules as in a rendered notebook.

use std::fmt::Write as _;

use notebook::{Notebook, Output};

use super::story::{self, Line, Piece, Shown, ShownOutput};
use super::{Compared, Options, words};
use crate::html::{self, escape};
use crate::text::head;

/// What the style sheet of notebooks lacks.
const STYLE: &str = include_str!("style.css");

/// The page; it says so where nothing differs.
#[must_use]
pub fn page(title: &str, compared: &[Compared<'_>], options: &Options) -> String {
    let mut body = String::new();
    let mut left = 0;
    for one in compared
        .iter()
        .filter(|one| !one.diff.is_empty() || super::differs(one, options.view))
    {
        if body.len() > options.max_bytes {
            left += 1;
            continue;
        }
        put_notebook(&mut body, one, options);
    }
    if left > 0 {
        put(
            &mut body,
            format_args!("<p class=\"nb-cut\">and {left} more notebooks</p>\n"),
        );
    }
    if body.is_empty() {
        body.push_str("<p class=\"nb-cut\">nothing differs</p>\n");
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{}{STYLE}</style>\n</head>\n<body class=\"nb-page\">\n{body}</body>\n</html>\n",
        escape(head(title, 200)),
        html::STYLE,
    )
}

fn put_notebook(out: &mut String, compared: &Compared<'_>, options: &Options) {
    let name = escape(&story::plain(compared.name, 400));
    let headline = if super::differs(compared, options.view) {
        words::headline(compared, options)
    } else {
        format!("the same; {}", words::meaning(compared))
    };
    put(
        out,
        format_args!("<article class=\"nb nd\">\n<h1>{name}</h1>\n<p>{headline}</p>\n"),
    );
    put_notes(out, &words::notebook_notes(compared, options));
    let (cells, mut more) = story::cells(compared, options);
    let all = cells.len();
    for (at, shown) in cells.enumerate() {
        if out.len() > options.max_bytes {
            more += all - at;
            break;
        }
        put_cell(out, compared, &shown, options);
    }
    if let Some(more) = words::more_cells(more) {
        put(out, format_args!("<p class=\"nb-cut\">{more}</p>\n"));
    }
    if let Some(hidden) = words::hidden(compared, options) {
        put(
            out,
            format_args!("<p class=\"nb-cut\">not shown: {hidden}</p>\n"),
        );
    }
    out.push_str("</article>\n");
}

fn put_cell(out: &mut String, compared: &Compared<'_>, shown: &Shown<'_>, options: &Options) {
    let place = escape(&words::place(shown));
    put(
        out,
        format_args!("<section class=\"nb-cell\">\n<header class=\"nb-head\">{place}"),
    );
    for tag in words::tags(shown.cell) {
        put(
            out,
            format_args!(" <span class=\"nb-tag\">{}</span>", escape(&tag)),
        );
    }
    put(
        out,
        format_args!(" <b>{}</b></header>\n", words::what(shown)),
    );
    put_notes(out, &words::notes(shown, options));
    put_lines(out, &shown.source);
    for output in &shown.outputs {
        put_output(out, compared, output, options);
    }
    out.push_str("</section>\n");
}

fn put_notes(out: &mut String, notes: &[String]) {
    if notes.is_empty() {
        return;
    }
    out.push_str("<ul class=\"nd-notes\">\n");
    for note in notes {
        put(out, format_args!("<li>{}</li>\n", escape(note)));
    }
    out.push_str("</ul>\n");
}

fn put_lines(out: &mut String, lines: &[Line<'_>]) {
    if lines.is_empty() {
        return;
    }
    out.push_str("<table class=\"nd-lines\">\n");
    for line in lines {
        match line {
            Line::Same(before, after, text) => {
                put(
                    out,
                    format_args!(
                        "<tr><th>{before}</th><th>{after}</th><td> {}</td></tr>\n",
                        escape(text)
                    ),
                );
            }
            Line::Removed(number, parts) => put(
                out,
                format_args!(
                    "<tr class=\"nd-del\"><th>{number}</th><th></th><td>-{}</td></tr>\n",
                    pieces(parts, "del")
                ),
            ),
            Line::Added(number, parts) => put(
                out,
                format_args!(
                    "<tr class=\"nd-ins\"><th></th><th>{number}</th><td>+{}</td></tr>\n",
                    pieces(parts, "ins")
                ),
            ),
            Line::Fold(_) | Line::More(_) => {
                let words = words::left_out(line).unwrap_or_default();
                put(
                    out,
                    format_args!("<tr class=\"nd-fold\"><th></th><th></th><td>{words}</td></tr>\n"),
                );
            }
        }
    }
    out.push_str("</table>\n");
}

fn pieces(pieces: &[Piece<'_>], element: &str) -> String {
    let one = |piece: &Piece<'_>| match piece.marked {
        true => format!("<{element}>{}</{element}>", escape(&piece.text)),
        false => escape(&piece.text),
    };
    pieces.iter().map(one).collect()
}

/// Both sides of an output, as a rendered notebook shows them.
fn put_output(
    out: &mut String,
    compared: &Compared<'_>,
    output: &ShownOutput<'_>,
    options: &Options,
) {
    let (kind, what) = (escape(&output.kind()), words::word(output.what()));
    put(
        out,
        format_args!(
            "<p class=\"nb-head\">output {} ({kind}) {what}</p>\n<div class=\"nd-sides\">\n",
            output.number
        ),
    );
    let left = options.max_bytes.saturating_sub(out.len());
    put_side(out, "before", output.before, compared.before, left);
    put_side(out, "after", output.after, compared.after, left);
    out.push_str("</div>\n");
}

fn put_side(
    out: &mut String,
    side: &str,
    output: Option<&Output>,
    notebook: &Notebook,
    left: usize,
) {
    put(out, format_args!("<div class=\"nd-{side}\">"));
    match (output, output.and_then(Output::message)) {
        (_, Some(message)) => {
            let mut rules = html::Options {
                max_total: left,
                ..html::Options::default()
            };
            if let Some(language) = notebook.language() {
                rules.language = language;
            }
            out.push_str(&html::output_with(message, &rules));
        }
        (Some(_), None) => {
            out.push_str("<p class=\"nb-cut\">an output of a kind that Trainyard does not know</p>")
        }
        (None, None) => {}
    }
    out.push_str("</div>\n");
}

/// Writing to a string cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}
